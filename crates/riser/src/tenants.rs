//! `riser tenants`: looks at a tenants file, and makes the keys that belong into it.

pub(crate) mod file;

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use riser_core::tenant::HashKey;
use riser_core::tenant::api_key::HASH_KEY_BYTES;
use riser_edge::auth;

use crate::cli::{Tenants, TenantsAct};
use crate::exit::{self, Failure};
use riser_config::read_secret;

/// Random bytes of a signing secret: as many as the hash that it keys.
const SECRET_BYTES: usize = 32;

/// Runs the command.
pub(crate) fn run(args: &Tenants) -> Result<ExitCode, Failure> {
    match &args.act {
        TenantsAct::Check { file } => check(&file::read(file)?),
        TenantsAct::NewKey { hash_key_file } => new_key(hash_key_file.as_deref()),
        TenantsAct::NewSecret => new_secret(),
    }
}

fn check(table: &riser_core::TenantTable) -> Result<ExitCode, Failure> {
    let mut text = String::new();
    for (id, tenant) in table.iter() {
        let (keys, signing) = (tenant.api_keys.len(), tenant.signing_keys.len());
        let suspended = if tenant.is_suspended() { ", suspended" } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{id}: {keys} API key(s), {signing} signing key(s){suspended}");
    }
    exit::print(&format!("{text}good: {} tenant(s)\n", table.len()))?;
    Ok(ExitCode::SUCCESS)
}

fn new_key(hash_key: Option<&Path>) -> Result<ExitCode, Failure> {
    let secret = hash_key.map(|file| read_secret("the hash key", file)).transpose()?;
    let short = || Failure::Usage(format!("the hash key has under {HASH_KEY_BYTES} bytes"));
    let hash_key = secret.map(|secret| HashKey::new(secret).ok_or_else(short)).transpose()?;
    let (key, hash) = auth::new_api_key(hash_key.as_ref());
    let hash = hash.to_string();
    let (kind, digits) = hash.split_once(':').unwrap_or_default();
    let kind = kind.replace('-', "_");
    exit::say(&format!(
        "[[tenants.NAME.api_keys]]\nname = \"NAME\"\n{kind} = \"{digits}\"\nscope = [\"*/*:read,command,event,listen,speak\"]",
    ));
    exit::print(&format!("{key}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn new_secret() -> Result<ExitCode, Failure> {
    let mut secret = [0; SECRET_BYTES];
    getrandom::fill(&mut secret).map_err(|error| Failure::Other(anyhow::anyhow!("no randomness: {error}")))?;
    exit::print(&format!("{}\n", BASE64.encode(secret)))?;
    Ok(ExitCode::SUCCESS)
}
