//! What all launchers of servers do: start them, also with other ports when somebody took one in between, and wait until
//! they are ready.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};

use super::process::Process;

/// How long servers may take until they are ready: seconds, on a machine that is busy.
pub(super) const READY_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often servers are started with other ports because somebody took one of them in between.
const STARTS: usize = 5;
/// Lines of each output that are shown of servers that are not ready.
const LAST_LINES: usize = 3;

/// Servers that belong together.
pub(super) trait Servers: Sized {
    /// Those that were started and not killed.
    fn processes(&mut self) -> impl Iterator<Item = &mut Process>;

    /// The files that they write their output to.
    fn outputs(&self) -> Vec<PathBuf>;

    /// Whether they are ready; the error says what is missing.
    async fn look(&self) -> anyhow::Result<()>;
}

/// Makes servers and begins with them, until all of them stay.
pub(super) async fn start<S: Servers>(
    prepare: impl Fn() -> anyhow::Result<S>,
    begin: impl AsyncFn(&mut S) -> anyhow::Result<()>,
) -> anyhow::Result<S> {
    let mut tries = 1;
    loop {
        let mut servers = prepare()?;
        match begin(&mut servers).await {
            Ok(()) => return Ok(servers),
            Err(_) if tries < STARTS && has_ended(&mut servers) => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Waits until they are ready.
pub(super) async fn ready(servers: &mut impl Servers) -> anyhow::Result<()> {
    let give_up = Instant::now() + READY_WITHIN;
    loop {
        let Err(error) = servers.look().await else { return Ok(()) };
        if has_ended(servers) {
            bail!("a server ended at once: {}", last_words(servers));
        }
        if Instant::now() > give_up {
            return Err(error.context(format!("the servers are not ready: {}", last_words(servers))));
        }
        sleep(LOOK_EVERY).await;
    }
}

fn has_ended(servers: &mut impl Servers) -> bool {
    servers.processes().any(|process| !process.is_running())
}

/// The end of each server's output.
fn last_words(servers: &impl Servers) -> String {
    let last = |path: &PathBuf| {
        let output = std::fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<_> = output.lines().rev().take(LAST_LINES).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    };
    servers.outputs().iter().map(last).collect::<Vec<_>>().join("; ")
}
