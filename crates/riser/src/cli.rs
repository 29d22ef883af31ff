//! What can be asked on the command line.

pub(crate) mod control;
mod parse;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use riser_client::Endpoint;
use riser_core::command::{Action, CommandKey};
use riser_core::event::{EventId, EventType};
use riser_core::frame::Credential;
use riser_core::{Address, BuildingId, Grant, Json, Path, Pattern, TenantId};

use crate::exit::{self, Failure};
pub(crate) use parse::{grant, heartbeat, ttl};
pub(crate) use riser_config::duration;

/// Largest key file, in bytes: a key is under 100, and a wrong file need not be read whole.
const KEY_FILE_BYTES: u64 = 16 * 1024;

/// The broker for every flat's one line.
#[derive(Debug, Parser)]
#[command(name = "riser", version, propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  riser dev                         a cluster with a simulated building
  riser watch '*/*'                 its state, in a second terminal
  riser send b1/f0101 hall/lock unlock
  riser token gateway b1/mine       a token for a gateway of your own

Exit codes:
  0    done, or ended by Ctrl-C where that is the way to end
  1    failed
  3    rejected: by the gateway, or by the cluster
  4    the gateway is offline          (send)
  5    expired before it was sent      (send)
  6    the outcome is unknown          (send)
  7    cancelled                       (send)
  64   bad usage
  69   a cluster or a port cannot be had
  77   the credential does not allow it
  130  ended by Ctrl-C before there was an outcome")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole cluster in this process. Its data is gone when it ends.
    Dev(Dev),
    /// Run one edge of a cluster, on NATS and Redis.
    Edge(Edge),
    /// Look for what is wrong with a cluster, from an edge's configuration.
    Doctor(Doctor),
    /// Save all that a cluster must not lose into a folder, while it runs.
    Backup(Backup),
    /// Restore a backup onto empty servers.
    Restore(Restore),
    /// Show what became of a tenant's commands, from an edge's configuration.
    Ledger(Ledger),
    /// Look at a tenants file, and make what belongs into it.
    Tenants(Tenants),
    /// Make, show, suspend and delete tenants, over the control plane.
    Tenant(control::Tenant),
    /// Make, show, rotate and revoke a tenant's API keys, over the control plane.
    Key(control::Key),
    /// Show and set what a tenant may use, over the control plane.
    Quota(control::QuotaArgs),
    /// Show a tenant's gateways and close their sessions, over the control plane.
    Gateway(control::Gateway),
    /// Run a simulated building against a cluster.
    Sim(Sim),
    /// Show the state and presence of the gateways that a pattern names, as they change.
    Watch(Watch),
    /// Have a gateway do something, and wait for what becomes of it.
    Send(Send),
    /// Show the events of what a pattern names.
    Events(Events),
    /// Tell an event at an address: a notice to a building, or to the whole tenant.
    Notify(Notify),
    /// Make a token, and print it alone.
    Token(Token),
    /// Print the version.
    Version,
    /// Print a shell's completions.
    #[command(after_help = "Example:\n  riser completions bash > ~/.local/share/bash-completion/completions/riser")]
    Completions {
        /// For which shell.
        shell: Shell,
    },
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Log {
    /// How log lines look, on standard error.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    log: LogFormat,
    /// Which log lines there are: `info`, `warn,riser_edge=debug`.
    #[arg(long, env = "RUST_LOG", default_value = "warn", value_name = "FILTER")]
    log_filter: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  riser dev
  riser dev --edges 3 --flats 200
  riser dev --listen 127.0.0.1:0 --admin 127.0.0.1:0 --ready-file riser.json

Each admin port also takes `POST /dev/edges/N/kill` and `POST /dev/edges/N/start`: edge N ends without a goodbye, and \
comes back. The first Ctrl-C drains and ends; a second one ends at once, with 130.")]
pub(crate) struct Dev {
    /// Edges, 1 to 16.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) edges: u16,
    /// Where the first edge listens; each further one two ports higher. Port 0: any free ports.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    pub(crate) listen: SocketAddr,
    /// Where the first admin port listens; each further one two ports higher. Port 0: any free ports.
    #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDR")]
    pub(crate) admin: SocketAddr,
    /// Where the control plane's admin API listens; port 8090 of the loopback without it, or any free port when that of
    /// --admin is 0.
    #[arg(long, value_name = "ADDR")]
    pub(crate) control: Option<SocketAddr>,
    /// Between two pings to a peer: 100ms to 10m.
    #[arg(long, default_value = "20s", value_name = "TIME", value_parser = heartbeat)]
    pub(crate) heartbeat: Duration,
    /// Over how long the closes are spread when it ends: 0s to 10m.
    #[arg(long, default_value = "3s", value_name = "TIME", value_parser = parse::drain_window)]
    pub(crate) drain_window: Duration,
    /// Simulated flats, 0 to 2000.
    #[arg(long, default_value_t = 24, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=2000))]
    pub(crate) flats: u16,
    /// Write there, once it serves, one JSON object with URLs and keys.
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
    /// An origin that browsers may come from; any when it is never given.
    #[arg(long, value_name = "URL")]
    pub(crate) origin: Vec<String>,
    #[command(flatten)]
    pub(crate) log: Log,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Examples:
  riser edge default-config > riser.toml        every option, with its default
  riser edge check-config --config riser.toml   what is wrong with it
  riser edge --config riser.toml
  RISER_REDIS_PASSWORD=… riser edge --config riser.toml --set edge.id=edge-2

The file is overridden by the environment (RISER_EDGE_LISTEN is edge.listen), and both by --set. SIGTERM, Ctrl-C and \
`POST /drain` on the admin port drain it; a second signal ends it at once. docs/OPERATIONS.md says more.

Exit codes: 0 drained, 1 failed, 64 a bad configuration, 69 NATS, Redis, a file or a port cannot be had or is too old, \
130 ended by a second signal.")]
pub(crate) struct Edge {
    #[command(subcommand)]
    pub(crate) instead: Option<EdgeInstead>,
    #[command(flatten)]
    pub(crate) from: Configured,
}

/// What `riser edge` does instead of running one.
#[derive(Debug, Subcommand)]
pub(crate) enum EdgeInstead {
    /// Check the configuration and the files that it names, without starting anything.
    CheckConfig {
        #[command(flatten)]
        from: Configured,
    },
    /// Print a configuration file with every option at its default.
    DefaultConfig,
}

/// Where an edge's configuration comes from.
#[derive(Debug, Args)]
pub(crate) struct Configured {
    /// The configuration file, in TOML; without it, defaults and the environment.
    #[arg(long, env = "RISER_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// An option that goes before the file and the environment; lists have commas. Not for secrets.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  riser doctor --config /etc/riser/riser.toml

A line begins with ✓ when all is well, with ! when it is not as it should be, and with ✗ when it must be mended. It asks \
every edge that runs for a sign of life over NATS, and changes nothing.

Exit codes: 0 nothing must be mended, 1 something must, 64 a bad configuration, 69 a file of it cannot be read.")]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) from: Configured,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  riser backup --config /etc/riser/riser.toml /var/backups/2026-11-26
  riser backup --config riser.toml /mnt/$(date +%F)

It saves every tenant's stored events, each gateway's last state, epoch and commands, and the tenants file with the \
secrets that it names. The cluster may go on meanwhile: a tenant's events are those of when its turn began, and each \
gateway is as it was at one moment of its own. The files hold secrets: only their owner can read them. A folder without \
manifest.json, which is written last, is no backup.

Exit codes: 0 saved, 3 the folder has files in it, 64 a bad configuration, 69 NATS, Redis or a file cannot be had.")]
pub(crate) struct Backup {
    #[command(flatten)]
    pub(crate) from: Configured,
    /// A new folder.
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  riser restore --config /etc/riser/riser.toml /var/backups/2026-11-26
  riser restore --config riser.toml --resume DIR    after an abort

No edge may run. NATS and Redis must have nothing of Riser in them, and at the place of the tenants file there must be \
none, or the same one. The whole backup is checked before anything is written. Afterwards start the edges: every gateway \
is offline until it comes back and is then asked for its full state; cursors of before are answered with `gap`, and then \
all events that are kept.

Exit codes: 0 restored, 3 something is there already, 64 a bad configuration, 69 the backup is not whole, or NATS, Redis \
or a file cannot be had.")]
pub(crate) struct Restore {
    #[command(flatten)]
    pub(crate) from: Configured,
    /// Go on with a restore of the same backup that was aborted.
    #[arg(long)]
    pub(crate) resume: bool,
    /// The folder of the backup.
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  riser ledger --config /etc/riser/riser.toml --tenant acme
  riser ledger --tenant acme --of b12/f0304 --since 7d --json

Each command with its outcomes, the oldest first, as far as the edges could write it and the ledger keeps it. Arguments and \
data are not in it.")]
pub(crate) struct Ledger {
    #[command(flatten)]
    pub(crate) from: Configured,
    /// Whose commands.
    #[arg(long, value_name = "TENANT")]
    pub(crate) tenant: TenantId,
    /// At which addresses: one, or those of a building (`b12/*`).
    #[arg(long, default_value = "*/*", value_name = "PATTERN")]
    pub(crate) of: Pattern,
    /// Those that were decided since so long ago.
    #[arg(long, default_value = "24h", value_name = "TIME", value_parser = duration)]
    pub(crate) since: Duration,
    /// One JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Tenants {
    #[command(subcommand)]
    pub(crate) act: TenantsAct,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TenantsAct {
    /// Check a tenants file and the key files that it names.
    #[command(after_help = "Example:\n  riser tenants check /etc/riser/tenants.toml")]
    Check {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Make an API key: print it, and on standard error what to put into the tenants file for it.
    #[command(after_help = "Example:\n  riser tenants new-key > backend.key")]
    NewKey {
        /// Hash it with this file's secret, which is the edges' tenants.hash_key_file.
        #[arg(long, value_name = "FILE")]
        hash_key_file: Option<PathBuf>,
    },
    /// Make a secret for signing tokens, and print it alone.
    #[command(after_help = "Example:\n  (umask 077; riser tenants new-secret > acme-2026.secret)")]
    NewSecret,
}

/// Which cluster, and with which credential.
#[derive(Debug, Args)]
pub(crate) struct Cluster {
    /// The cluster.
    #[arg(
        long,
        env = "RISER_URL",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL",
        hide_env_values = true,
        value_parser = parse::URL
    )]
    pub(crate) url: Endpoint,
    /// The API key or token. Other users of the machine can see it here: better set `RISER_KEY`.
    #[arg(
        long,
        alias = "api-key",
        env = "RISER_KEY",
        hide_env_values = true,
        value_name = "KEY",
        value_parser = parse::unchecked
    )]
    key: Option<Credential>,
    /// A file that holds the API key or token, instead of `--key`.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  RISER_KEY=… riser sim --url http://10.0.0.7:8080 --flats 100
  riser sim --key-file riser.key --building north --seed 7

Its tokens are made with the key, which must be an API key. Ctrl-C ends it.")]
pub(crate) struct Sim {
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// Flats, 1 to 2000.
    #[arg(long, default_value_t = 24, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub(crate) flats: u16,
    /// The same seed makes the same homes.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// The building's name.
    #[arg(long, default_value = "b1", value_name = "NAME")]
    pub(crate) building: BuildingId,
    #[command(flatten)]
    pub(crate) log: Log,
}

/// How `watch` shows what it sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A live table on a terminal, else a line for each change.
    Table,
    /// The protocol's frames as they come, one a line.
    Json,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  riser watch '*/*'                            everything
  riser watch b1/f0304                         one flat
  riser watch 'b1/*' --output json --for 10s   its frames for ten seconds

It shows values and who is online, not events: those are shown by `riser events`. It reconnects by itself. Ctrl-C ends \
it.")]
pub(crate) struct Watch {
    /// What to watch: building/gateway, building/* or */*.
    #[arg(value_name = "PATTERN")]
    pub(crate) pattern: Pattern,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// How to show it.
    #[arg(long, short, value_enum, default_value = "table", value_name = "FORMAT")]
    pub(crate) output: Output,
    /// End after this time.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub(crate) time: Option<Duration>,
}

/// How an answer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people, a line each.
    Text,
    /// One JSON object a line: the protocol's frames.
    Json,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  riser send b1/f0101 hall/lock unlock
  riser send b1/f0101 bedroom/light dim '{\"level\":40}'
  riser send b1/f0101 hall/lock lock --hold --deadline 2h   offline or not
  riser send b1/f0101 hall/lock unlock --output json --command-key 7f3a

What becomes of it shows on standard error, and its final outcome on standard output. It asks again after a reconnect, \
and the same command key is the same command. Ctrl-C cancels it; a second Ctrl-C does not wait for what becomes of that.

Exit codes:
  0    succeeded
  1    failed: the gateway tried
  3    rejected: by the gateway, or by the cluster
  4    offline: nothing was sent
  5    expired: it was never sent
  6    unknown: it may or may not have been done
  7    cancelled
  64   bad usage
  69   the cluster cannot be reached, or cannot take it now
  77   the credential does not allow it
  130  ended by Ctrl-C: before it was sent, or a second time")]
pub(crate) struct Send {
    /// The gateway: building/gateway.
    #[arg(value_name = "ADDRESS", value_parser = parse::gateway)]
    pub(crate) to: Address,
    /// With which device or property.
    #[arg(value_name = "PATH")]
    pub(crate) path: Path,
    /// What to do.
    #[arg(value_name = "ACTION")]
    pub(crate) action: Action,
    /// How: any JSON.
    #[arg(value_name = "JSON", value_parser = parse::json)]
    pub(crate) args: Option<Json>,
    /// In which time there must be an outcome: 100ms to 1d.
    #[arg(
        long,
        default_value = "10s",
        value_name = "TIME",
        value_parser = parse::deadline,
        allow_hyphen_values = true
    )]
    pub(crate) deadline: Duration,
    /// Let it wait for a gateway that is offline.
    #[arg(long)]
    pub(crate) hold: bool,
    /// What makes a repetition the same command; made at random without it.
    #[arg(long, value_name = "TEXT", value_parser = parse::COMMAND_KEY)]
    pub(crate) command_key: Option<CommandKey>,
    /// How to show the final outcome.
    #[arg(long, short, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  riser events '*/*'                           everything from now on
  riser events 'b1/*' --since a1.2f            from this cursor on
  riser events b1/f0101 --output json --for 10s

It reconnects by itself and goes on where it was. When it ends it says from which cursor on nothing was shown.")]
pub(crate) struct Events {
    /// Whose: building/gateway, building/* or */*.
    #[arg(value_name = "PATTERN")]
    pub(crate) pattern: Pattern,
    /// After which cursor; from now on without it.
    #[arg(long, value_name = "CURSOR", value_parser = parse::cursor)]
    pub(crate) since: Option<String>,
    /// How to show them.
    #[arg(long, short, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Format,
    /// End after this time.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub(crate) time: Option<Duration>,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  riser notify b1/_ notice '{\"text\":\"The lift is out of order\"}'
  riser notify _/_ notice '{\"text\":\"New tariffs from May on\"}' --id tariffs-2027

It prints the event's cursor once it is stored. The same id within two minutes is the same event. Ctrl-C ends it with \
130: it may or may not be stored then.")]
pub(crate) struct Notify {
    /// Where: building/_, _/_ or building/gateway.
    #[arg(value_name = "ADDRESS")]
    pub(crate) to: Address,
    /// What kind of event.
    #[arg(value_name = "TYPE")]
    pub(crate) kind: EventType,
    /// What there is to say: any JSON.
    #[arg(value_name = "JSON", value_parser = parse::json)]
    pub(crate) data: Option<Json>,
    /// Which device or property it is about.
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<Path>,
    /// Its name; made at random without it.
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<EventId>,
    /// How to show what was stored.
    #[arg(long, short, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
}

#[derive(Debug, Args)]
pub(crate) struct Token {
    #[command(subcommand)]
    pub(crate) whom: Whom,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Whom {
    /// For a gateway.
    #[command(after_help = "Example:\n  riser token gateway b12/f0304 --ttl 365d")]
    Gateway {
        /// Its address: building/gateway.
        #[arg(value_name = "ADDRESS")]
        address: Address,
        /// How long it lasts, in whole seconds; the cluster's own default without it.
        #[arg(long, value_name = "TIME", value_parser = ttl)]
        ttl: Option<u64>,
        #[command(flatten)]
        cluster: Cluster,
    },
    /// For a dashboard, a phone or a back end.
    #[command(after_help = "\
Examples:
  riser token client alice --grant 'b12/*:read,command' --ttl 15m
  riser token client door --grant 'b12/_:read' --grant 'b12/f0304:read:hall/#'")]
    Client {
        /// Its name within the tenant.
        #[arg(value_name = "SUBJECT")]
        subject: String,
        /// A right, as PATTERN:VERB,…[:PATHS]; verbs are read, command, event, listen, speak.
        #[arg(long = "grant", value_name = "GRANT", value_parser = grant, required = true)]
        grants: Vec<Grant>,
        /// How long it lasts, in whole seconds; the cluster's own default without it.
        #[arg(long, value_name = "TIME", value_parser = ttl)]
        ttl: Option<u64>,
        #[command(flatten)]
        cluster: Cluster,
    },
}

impl Cluster {
    /// The credential, from wherever it was given.
    pub(crate) fn credential(&self) -> Result<Credential, Failure> {
        credential(self.key.as_ref(), self.key_file.as_ref())
    }
}

/// The secret in a file of the control plane: the last word of the first line that holds one.
fn operators_secret(text: &str) -> Option<&str> {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))?;
    line.split_ascii_whitespace().next_back()
}

fn credential_of(file: &std::path::Path) -> Result<Credential, Failure> {
    let text = riser_config::read_file("the credential", file, KEY_FILE_BYTES)?;
    let none = || Failure::Usage(format!("{}: there is no secret in it", file.display()));
    operators_secret(&text).map(|secret| Credential::new(secret.to_owned())).ok_or_else(none)
}

fn credential(key: Option<&Credential>, file: Option<&PathBuf>) -> Result<Credential, Failure> {
    let Some(file) = file else {
        let none = || Failure::Usage("a key is needed: set RISER_KEY or give --key-file".into());
        let key = key.ok_or_else(none)?;
        return parse::key(key.expose()).map_err(|error| Failure::Usage(error.to_owned()));
    };
    if file.to_str().is_some_and(parse::is_credential) && !file.exists() {
        // The error about a file names it.
        return Err(Failure::Usage("--key-file: this is a credential, and no file: set RISER_KEY to it".into()));
    }
    let read = || -> io::Result<String> {
        let mut text = String::new();
        io::Read::read_to_string(&mut io::Read::take(std::fs::File::open(file)?, KEY_FILE_BYTES), &mut text)?;
        Ok(text)
    };
    let text = read().map_err(|error| Failure::Usage(format!("cannot read {}: {error}", file.display())))?;
    parse::key(text.trim()).map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))
}

impl Log {
    /// Begins logging.
    pub(crate) fn begin(&self) -> Result<(), Failure> {
        let format = match self.log {
            LogFormat::Text => riser_ops::logs::Format::Text,
            LogFormat::Json => riser_ops::logs::Format::Json,
        };
        riser_ops::logs::init(&self.log_filter, format).map_err(|error| match error {
            riser_ops::logs::LogError::Filter(_) => Failure::Usage(error.to_string()),
            riser_ops::logs::LogError::Twice(_) => Failure::Other(error.into()),
        })
    }
}

/// `riser version`.
pub(crate) fn version() -> Result<ExitCode, Failure> {
    exit::print(concat!("riser ", env!("CARGO_PKG_VERSION"), "\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// `riser completions`.
pub(crate) fn completions(shell: Shell) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "riser", &mut script);
    exit::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    /// The terminal wraps paragraphs; lines that are wrapped here already would be wrapped twice.
    #[test]
    fn help_is_wrapped_once() {
        fn look(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let mut before = "";
            for line in help.lines() {
                let name = command.get_name();
                if line.starts_with("  ") {
                    assert!(line.chars().count() <= 80, "{name}: a line that narrow terminals wrap: {line}");
                } else {
                    assert!(line.is_empty() || before.is_empty(), "{name}: a paragraph of several lines: {line}");
                }
                before = line;
            }
            command.get_subcommands().for_each(look);
        }
        look(&Cli::command());
    }

    #[test]
    fn no_key_shows_when_arguments_are_logged() {
        let cli = Cli::try_parse_from(["riser", "watch", "*/*", "--key", "rk_very-secret"]).expect("good usage");
        assert!(!format!("{cli:?}").contains("very-secret"));
    }
}
