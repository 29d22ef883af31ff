//! What can be asked on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Measures Riser, beside its peers.
#[derive(Debug, Parser)]
#[command(name = "riser-loadtest", version, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  cargo build --release --workspace
  target/release/riser-loadtest list
  target/release/riser-loadtest run fanout
  target/release/riser-loadtest run all --rounds 3 --out target/loadtest/results
  target/release/riser-loadtest run fanout --set 'listeners=[500]' --set 'subjects=[\"riser\"]'
  target/release/riser-loadtest run my-scenario.toml
  target/release/riser-loadtest run storm --cluster 3 --nats-server /usr/local/bin/nats-server
  target/release/riser-loadtest run state command --edges http://10.0.0.1:7777,http://10.0.0.2:7777 --key-file key.json
  target/release/riser-loadtest compare before.json after.json
  target/release/riser-loadtest budgets
  target/release/riser-loadtest budgets --from monday.json tuesday.json

Exit codes: 0 done, 1 failed or over a budget, 64 bad usage, 130 ended by Ctrl-C.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run scenarios, and write what was found as JSON and as a page.
    Run(Run),
    /// Run what the budgets need, or take a result, and tell budget by budget what was measured.
    Budgets(Budgets),
    /// Show the medians of two results side by side.
    Compare {
        /// The result to compare with.
        before: PathBuf,
        /// The result to look at.
        after: PathBuf,
    },
    /// Show the scenarios.
    List,
    /// Show which servers can be measured here.
    #[command(after_help = "\
Peers come from package registries:
  mkdir -p target/loadtest && cp loadtest/peers/package.json target/loadtest/
  npm install --prefix target/loadtest       bun (uWebSockets) and ws; needs node
  apt-get install mosquitto redis-server     or the packages of another system
  go install github.com/centrifugal/centrifugo/v6@v6.9.1    Centrifugo; then --centrifugo says where it is
  nats-server                                2.12 or newer, from its releases

A peer that is not there is named as missing in every result.")]
    Peers(Programs),
    /// Be a generator. For this program's own use.
    #[command(hide = true)]
    Generate,
    /// Be the echo. For this program's own use.
    #[command(hide = true)]
    Echo,
    /// Show what the memory registry keeps of a gateway, in bytes: a part of `idle` that leaves the edge with Redis.
    RegistryShare {
        /// Gateways at the first reading.
        #[arg(long, default_value_t = 1_000)]
        least: u32,
        /// Gateways at the last reading.
        #[arg(long, default_value_t = 16_000)]
        most: u32,
    },
}

/// Where programs are.
#[derive(Debug, Clone, Args)]
pub(crate) struct Programs {
    /// The riser binary. Without it: the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub(crate) riser: Option<PathBuf>,
    /// The folder whose `node_modules` holds the peers from npm.
    #[arg(long, default_value = "target/loadtest", value_name = "FOLDER")]
    pub(crate) npm: PathBuf,
    /// The mosquitto binary.
    #[arg(long, default_value = "/usr/sbin/mosquitto", value_name = "FILE")]
    pub(crate) mosquitto: PathBuf,
    /// The centrifugo binary.
    #[arg(long, default_value = "/usr/local/bin/centrifugo", value_name = "FILE")]
    pub(crate) centrifugo: PathBuf,
    /// The nats-server binary, for clusters.
    #[arg(long, env = "RISER_NATS_SERVER", default_value = "/usr/local/bin/nats-server", value_name = "FILE")]
    pub(crate) nats_server: PathBuf,
    /// The redis-server binary, for clusters.
    #[arg(long, env = "RISER_REDIS_SERVER", default_value = "/usr/bin/redis-server", value_name = "FILE")]
    pub(crate) redis_server: PathBuf,
    /// Measure so many edges on a NATS and a Redis that are started for them, and not `riser dev`.
    #[arg(long, value_name = "EDGES", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) cluster: Option<u16>,
    /// Measure a cluster that runs: the URLs of its edges. What it costs is not seen, only what peers see.
    #[arg(long, value_name = "URL", value_delimiter = ',', requires = "key_file", conflicts_with = "cluster")]
    pub(crate) edges: Vec<String>,
    /// Who signs tokens there: JSON with the strings `tenant`, `kid`, `signing_key` and `api_key`.
    #[arg(long, value_name = "FILE", requires = "edges")]
    pub(crate) key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Names of scenarios, files, or `all`.
    #[arg(required = true, value_name = "SCENARIO")]
    pub(crate) scenarios: Vec<String>,
    /// Change a parameter; the value as in TOML.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
    /// Use tiny sizes: to see that everything works, not to measure.
    #[arg(long)]
    pub(crate) smoke: bool,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Debug, Args)]
pub(crate) struct Budgets {
    /// Take results instead of running anything; several files count as one.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) from: Vec<PathBuf>,
    /// Use tiny sizes: to see that everything works, not to measure.
    #[arg(long)]
    pub(crate) smoke: bool,
    #[command(flatten)]
    pub(crate) how: How,
}

/// How scenarios are run.
#[derive(Debug, Args)]
pub(crate) struct How {
    /// How often everything is measured, with the subjects in turn. Medians count.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// The folder for the result: `loadtest.json` and `loadtest.html`.
    #[arg(long, default_value = "target/loadtest", value_name = "FOLDER")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) programs: Programs,
}
