//! `riser token`: makes a token and prints it alone, so that a script can take it.

use std::process::ExitCode;

use riser_client::Api;

use crate::cli::{Token, Whom};
use crate::exit::{self, Failure};

/// Runs the command.
pub(crate) fn run(args: &Token) -> Result<ExitCode, Failure> {
    let (Whom::Gateway { cluster, .. } | Whom::Client { cluster, .. }) = &args.whom;
    let api = Api::new(cluster.url.clone(), cluster.credential()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let minted = runtime.block_on(async {
        match &args.whom {
            Whom::Gateway { address, ttl, .. } => api.gateway_token(address, *ttl).await,
            Whom::Client { subject, grants, ttl, .. } => api.client_token(subject, grants, *ttl).await,
        }
    })?;
    exit::print(&format!("{}\n", minted.token.expose()))?;
    Ok(ExitCode::SUCCESS)
}
