//! `riser`: an edge of a cluster, a development cluster, a simulated building, and the tools to look at a cluster. This file
//! wires.

mod backup;
mod bind;
mod cli;
mod clock;
mod control;
mod dev;
mod doctor;
mod edge;
mod events;
mod exit;
mod ledger;
mod notify;
mod send;
mod sim;
mod tenants;
mod token;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use exit::Failure;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    let done = match cli.command {
        Command::Dev(args) => dev::run(&args),
        Command::Edge(args) => edge::run(&args),
        Command::Backup(args) => backup::back_up(&args),
        Command::Restore(args) => backup::restore(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Ledger(args) => ledger::run(&args),
        Command::Tenants(args) => tenants::run(&args),
        Command::Tenant(args) => control::tenant(&args),
        Command::Key(args) => control::key(&args),
        Command::Quota(args) => control::quota(&args),
        Command::Gateway(args) => control::gateway(&args),
        Command::Sim(args) => sim::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Send(args) => send::run(&args),
        Command::Events(args) => events::run(&args),
        Command::Notify(args) => notify::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Version => cli::version(),
        Command::Completions { shell } => cli::completions(shell),
    };
    done.unwrap_or_else(Failure::report)
}
