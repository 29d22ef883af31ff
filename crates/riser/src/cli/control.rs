//! What operators ask of the control plane.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use riser_client::Endpoint;
use riser_core::frame::Credential;
use riser_core::tenant::Quota;
use riser_core::{Address, BuildingId, Grant, TenantId};

use super::{credential_of, duration, grant, parse};
use crate::exit::Failure;

/// A day in milliseconds.
const DAY_MS: u64 = 86_400_000;
/// Most days within which tokens' ends may be asked for, as the admin API takes it.
const TOKEN_DAYS: u64 = 3_650;

/// Which control plane, and with which credential.
#[derive(Debug, Args)]
pub(crate) struct Plane {
    /// The control plane's admin API.
    #[arg(
        long = "control",
        env = "RISER_CONTROL_URL",
        default_value = "http://127.0.0.1:8090",
        value_name = "URL",
        hide_env_values = true,
        value_parser = parse::URL
    )]
    pub(crate) url: Endpoint,
    /// A file with the operator's secret; one that the control plane itself reads will do. Or set `RISER_CONTROL_CREDENTIAL`
    /// to the secret.
    #[arg(long, env = "RISER_CONTROL_CREDENTIAL_FILE", value_name = "FILE")]
    credential_file: Option<PathBuf>,
    /// Only from the environment: other users of the machine see what is on a command line.
    #[arg(long, env = "RISER_CONTROL_CREDENTIAL", hide = true, hide_env_values = true, value_parser = parse::unchecked)]
    credential: Option<Credential>,
    /// Print JSON as the admin API answers it.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Plane {
    /// The secret, from wherever it was given.
    pub(crate) fn credential(&self) -> Result<Credential, Failure> {
        match (&self.credential_file, &self.credential) {
            (Some(file), _) => credential_of(file),
            (None, Some(secret)) => Ok(secret.clone()),
            (None, None) => Err(Failure::Usage("the operator's secret is needed: give --credential-file".into())),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Tenant {
    #[command(subcommand)]
    pub(crate) act: TenantAct,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TenantAct {
    /// Make a tenant.
    #[command(after_help = "Example:\n  riser tenant create acme --origin https://app.acme.example")]
    Create {
        /// Its name.
        #[arg(value_name = "TENANT")]
        tenant: TenantId,
        /// An origin that browsers may come from; any when it is never given.
        #[arg(long, value_name = "URL")]
        origin: Vec<String>,
        /// Gateways may not renew their own tokens.
        #[arg(long)]
        no_renewal: bool,
        /// Tell each command as an event of the tenant's audit: who issued it, from where. An existing tenant is changed
        /// with `PATCH /admin/v1/tenants/TENANT` and `{"audit_commands":true}` (docs/TENANTS.md).
        #[arg(long)]
        audit_commands: bool,
        #[command(flatten)]
        plane: Plane,
    },
    /// Show all tenants.
    #[command(after_help = "Example:\n  riser tenant list --json")]
    List {
        #[command(flatten)]
        plane: Plane,
    },
    /// Show one tenant, and what it uses.
    #[command(after_help = "Example:\n  riser tenant show acme")]
    Show {
        /// Its name.
        #[arg(value_name = "TENANT")]
        tenant: TenantId,
        #[command(flatten)]
        plane: Plane,
    },
    /// Close all sessions of a tenant and let none in. Nothing is erased.
    #[command(after_help = "Example:\n  riser tenant suspend acme")]
    Suspend {
        /// Its name.
        #[arg(value_name = "TENANT")]
        tenant: TenantId,
        #[command(flatten)]
        plane: Plane,
    },
    /// Let a suspended tenant's sessions in again.
    #[command(after_help = "Example:\n  riser tenant resume acme")]
    Resume {
        /// Its name.
        #[arg(value_name = "TENANT")]
        tenant: TenantId,
        #[command(flatten)]
        plane: Plane,
    },
    /// Delete a tenant, and erase its events, state, presence, commands and credentials.
    #[command(
        after_help = "Example:\n  riser tenant delete acme --yes\n\nIt cannot be undone. Asked again, it erases what \
        was written meanwhile by sessions that were not closed yet."
    )]
    Delete {
        /// Its name.
        #[arg(value_name = "TENANT")]
        tenant: TenantId,
        /// Do it.
        #[arg(long, required = true)]
        yes: bool,
        #[command(flatten)]
        plane: Plane,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Key {
    #[command(subcommand)]
    pub(crate) act: KeyAct,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyAct {
    /// Make an API key, and print it alone: it is shown this once.
    #[command(after_help = "\
Examples:
  riser key create acme backend --grant '*/*:read,command,event' > backend.key
  riser key create acme lobby --grant 'b12/_:read' --ttl 90d --from 192.0.2.0/24")]
    Create {
        /// Whose.
        #[arg(value_name = "TENANT")]
        tenant: TenantId,
        /// Its name. Two live keys may have one name, so that one can take the place of the other.
        #[arg(value_name = "NAME")]
        name: String,
        /// A right, as PATTERN:VERB,…[:PATHS]; verbs are read, command, event, listen, speak, manage.
        #[arg(long = "grant", value_name = "GRANT", value_parser = grant, required = true)]
        grants: Vec<Grant>,
        /// How long it lasts; without it, until it is revoked.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        ttl: Option<Duration>,
        /// An address or a range that it may be used from; any when it is never given.
        #[arg(long, value_name = "RANGE")]
        from: Vec<String>,
        #[command(flatten)]
        plane: Plane,
    },
    /// Show a tenant's API keys, without the keys themselves.
    #[command(after_help = "Example:\n  riser key list acme")]
    List {
        /// Whose.
        #[arg(value_name = "TENANT")]
        tenant: TenantId,
        #[command(flatten)]
        plane: Plane,
    },
    /// Make a key in the place of another, and print it alone. The old one goes on to work.
    #[command(after_help = "\
Examples:
  riser key rotate acme 3f0a7c21b5d94e68 > backend.key
  riser key rotate acme 3f0a7c21b5d94e68 --old-ends 1d > backend.key")]
    Rotate {
        /// Whose.
        #[arg(value_name = "TENANT")]
        tenant: TenantId,
        /// Which, as `riser key list` shows it.
        #[arg(value_name = "ID", value_parser = id)]
        id: String,
        /// After which time the old one works no more; without it, when it is revoked.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        old_ends: Option<Duration>,
        #[command(flatten)]
        plane: Plane,
    },
    /// Take an API key away. Its sessions are closed within seconds.
    #[command(after_help = "Example:\n  riser key revoke acme 3f0a7c21b5d94e68")]
    Revoke {
        /// Whose.
        #[arg(value_name = "TENANT")]
        tenant: TenantId,
        /// Which, as `riser key list` shows it.
        #[arg(value_name = "ID", value_parser = id)]
        id: String,
        #[command(flatten)]
        plane: Plane,
    },
}

#[derive(Debug, Args)]
pub(crate) struct QuotaArgs {
    #[command(subcommand)]
    pub(crate) act: QuotaAct,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuotaAct {
    /// Set quotas of a tenant; those that are not named stay.
    #[command(after_help = "Example:\n  riser quota set acme gateway_sessions=5000 api_calls_per_s=none")]
    Set {
        /// Whose.
        #[arg(value_name = "TENANT")]
        tenant: TenantId,
        /// A quota and its limit, or none for no limit.
        #[arg(value_name = "QUOTA=LIMIT", required = true, value_parser = quota)]
        quotas: Vec<(Quota, Option<u64>)>,
        #[command(flatten)]
        plane: Plane,
    },
    /// Show a tenant's quotas.
    #[command(after_help = "Example:\n  riser quota show acme")]
    Show {
        /// Whose.
        #[arg(value_name = "TENANT")]
        tenant: TenantId,
        #[command(flatten)]
        plane: Plane,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Gateway {
    #[command(subcommand)]
    pub(crate) act: GatewayAct,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GatewayAct {
    /// Show a tenant's gateways, and whether they are there.
    #[command(after_help = "\
Examples:
  riser gateway list acme --building b12
  riser gateway list acme --token-ends-within 30d

With --token-ends-within it shows the registered flats whose gateways' tokens end within this time, or have ended, to a day: \
those that end first come first. Such a gateway did not renew, and needs looking after. Without --building it looks at all \
buildings from which a gateway ever connected.")]
    List {
        /// Whose.
        #[arg(value_name = "TENANT")]
        tenant: TenantId,
        /// Only this building.
        #[arg(long, value_name = "NAME")]
        building: Option<BuildingId>,
        /// Only flats whose gateways' tokens end within this time: whole days, from 1d to 3650d.
        #[arg(long, value_name = "TIME", value_parser = days)]
        token_ends_within: Option<u64>,
        #[command(flatten)]
        plane: Plane,
    },
    /// Register flats from a list, and print the codes that their gateways are enrolled with.
    #[command(after_help = "\
Examples:
  riser gateway import acme flats.csv > codes.csv
  riser gateway import acme flats.csv --qr codes/ > codes.csv

A line of the list is `address,name,floor,note`, of which the last three may be missing; a first line of these names is left \
out. Bad lines are named by their numbers, the others are registered, and then it exits with 1. Flats that are known and have \
a code or were enrolled get no other one, unless --new-codes is given. Each code is shown this once, and works once.")]
    Import {
        /// Whose.
        #[arg(value_name = "TENANT")]
        tenant: TenantId,
        /// The list, in CSV; - for standard input.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Make a code for every flat of the list. Older codes work no more.
        #[arg(long)]
        new_codes: bool,
        /// For how long codes work, up to a year; 30 days without it.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        code_ttl: Option<Duration>,
        /// Write each code as a QR code, an SVG picture, into this folder.
        #[arg(long, value_name = "FOLDER")]
        qr: Option<PathBuf>,
        #[command(flatten)]
        plane: Plane,
    },
    /// Close a gateway's session. It may come back.
    #[command(after_help = "Example:\n  riser gateway kick acme b12/f0304")]
    Kick {
        /// Whose.
        #[arg(value_name = "TENANT")]
        tenant: TenantId,
        /// Its address.
        #[arg(value_name = "ADDRESS", value_parser = parse::gateway)]
        address: Address,
        #[command(flatten)]
        plane: Plane,
    },
}

/// The id of a key. A key in its place is not repeated.
fn id(text: &str) -> Result<String, String> {
    let good = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if good { Ok(text.to_owned()) } else { Err("not the id of a key, as `riser key list` shows it".into()) }
}

/// Whole days.
fn days(text: &str) -> Result<u64, String> {
    let ms = u64::try_from(duration(text)?.as_millis()).unwrap_or(u64::MAX);
    let days = ms / DAY_MS;
    let good = ms.is_multiple_of(DAY_MS) && (1..=TOKEN_DAYS).contains(&days);
    if good { Ok(days) } else { Err(format!("not whole days from 1d to {TOKEN_DAYS}d")) }
}

fn quota(text: &str) -> Result<(Quota, Option<u64>), String> {
    let (name, limit) = text.split_once('=').ok_or("not QUOTA=LIMIT")?;
    let known = || riser_core::tenant::quota::QUOTAS.map(|about| about.name).join(", ");
    let quota = Quota::named(name).ok_or_else(|| format!("there is no such quota; known are {}", known()))?;
    match limit {
        "none" => Ok((quota, None)),
        number => {
            let limit = number.parse().ok().filter(|limit| *limit > 0);
            limit.map(|limit| (quota, Some(limit))).ok_or_else(|| "a limit is a whole number from 1, or none".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_ends_are_asked_for_in_days() {
        assert_eq!((days("30d"), days("720h"), days("3650d")), (Ok(30), Ok(30), Ok(3_650)));
        for bad in ["", "30", "0d", "1h", "25h", "3651d", "500ms", "86400500ms"] {
            assert!(days(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_quota_is_set_by_its_name_and_taken_away_by_none() {
        assert_eq!(quota("gateway_sessions=5000"), Ok((Quota::GatewaySessions, Some(5_000))));
        assert_eq!(quota("held_commands=none"), Ok((Quota::HeldCommands, None)));
        for bad in ["", "gateway_sessions", "gateways=1", "gateway_sessions=0", "gateway_sessions=-1", "held_commands="]
        {
            assert!(quota(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_in_the_place_of_its_id_is_refused_and_not_repeated() {
        let error = id("rk_secret").expect_err("no id");
        assert!(!error.contains("secret"));
        assert!(id("3f0a7c21b5d94e68").is_ok());
    }
}
