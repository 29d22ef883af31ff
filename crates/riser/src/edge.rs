//! `riser edge`: one edge of a cluster on NATS and Redis, from its configuration to its drain.

pub(crate) mod config;
pub(crate) mod connect;
mod log;
mod metrics;
pub(crate) mod reload;
mod serve;
mod sources;

use std::process::ExitCode;

use crate::cli::{Configured, Edge, EdgeInstead};
use crate::exit::{self, Failure};
use crate::tenants::file as tenants_file;
use config::{Settings, Sources, TenantsFrom};
use reload::Source as _;

/// Runs the command.
pub(crate) fn run(args: &Edge) -> Result<ExitCode, Failure> {
    match &args.instead {
        Some(EdgeInstead::DefaultConfig) => {
            exit::print(&config::default_file())?;
            Ok(ExitCode::SUCCESS)
        }
        Some(EdgeInstead::CheckConfig { from }) => check(from),
        None => serve::run(settings(&args.from)?),
    }
}

/// Reads the settings, from wherever they come.
pub(crate) fn settings(from: &Configured) -> Result<Settings, Failure> {
    Ok(Settings::read(&Sources::gather(from.config.as_deref(), &from.set)?)?)
}

/// `riser edge check-config`.
fn check(from: &Configured) -> Result<ExitCode, Failure> {
    let settings = settings(from)?;
    let tenants = match &settings.tenants {
        TenantsFrom::File(file) => format!("{} tenant(s)", tenants_file::read(file)?.len()),
        TenantsFrom::Bucket => "tenants from the bucket".to_owned(),
    };
    for files in settings.tls.iter().chain(&settings.shown) {
        files.load()?;
    }
    let (edge, listen) = (&settings.edge.id, settings.listen);
    exit::print(&format!("good: edge {edge} on {listen}, {tenants}\n"))?;
    Ok(ExitCode::SUCCESS)
}
