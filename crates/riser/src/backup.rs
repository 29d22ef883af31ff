//! `riser backup` and `riser restore`: all that a cluster must not lose, as files in one folder.
//!
//! The manifest is written last, so that a folder with one is whole. It names every other file with its size and its
//! checksum, which are compared before anything is restored. Events and gateways are lines of JSON, one file of each per
//! tenant: neither side ever holds more than a page of events or one gateway.
//!
//! A restore leaves its mark in Redis while it is under way, and in the streams that it makes: so it can go on where an
//! aborted one stopped, and finds its own work where it would refuse somebody else's.

mod buckets;
mod files;
mod manifest;
mod restore;
mod save;

use std::process::ExitCode;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::cli::{Backup, Restore};
use crate::edge;
use crate::exit::{self, Failure};

/// How long a call is tried again for: longer than a failover of NATS or Redis.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two words about how far it is.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// Runs `riser backup`.
pub(crate) fn back_up(args: &Backup) -> Result<ExitCode, Failure> {
    let settings = edge::settings(&args.from)?;
    let saved = runtime()?.block_on(save::run(&settings, &args.dir))?;
    exit::print(&format!("saved in {}: {saved}\n", args.dir.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs `riser restore`.
pub(crate) fn restore(args: &Restore) -> Result<ExitCode, Failure> {
    let settings = edge::settings(&args.from)?;
    let restored = runtime()?.block_on(restore::run(&settings, &args.dir, args.resume))?;
    exit::print(&format!("restored from {}: {restored}\n", args.dir.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    // Files are read and written where their turn is: there is only one thing to do at a time.
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

/// What was saved or restored.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Summary {
    tenants: usize,
    events: u64,
    gateways: u64,
    values: u64,
    commands: u64,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tenants, events, gateways, values, commands } = self;
        write!(
            f,
            "{tenants} tenant(s), {events} event(s), {gateways} gateway(s) with {values} value(s), {commands} command(s)"
        )
    }
}

/// Says how far it is, but not too often.
struct Progress(Instant);

impl Progress {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn say(&mut self, text: impl FnOnce() -> String) {
        if self.0.elapsed() >= SAY_EVERY {
            self.0 = Instant::now();
            exit::say(&text());
        }
    }
}

/// Makes a call until it is answered, for as long as a failover takes.
async fn patiently<T, E: std::fmt::Display>(
    what: &str,
    mut call: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, Failure> {
    let begun = Instant::now();
    loop {
        match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) if begun.elapsed() > PATIENCE => {
                return Err(Failure::Unavailable(format!("{what}: {error}, for {} s", PATIENCE.as_secs())));
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}
