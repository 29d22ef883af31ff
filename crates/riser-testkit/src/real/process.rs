//! A server's process: ended with its owner, and stopped and continued by its number.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep};

/// Between two looks whether a process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A process that this one started. Dropping it kills it.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts a program whose output goes to the end of a file. It gets nothing of this process' environment, where the
    /// programs' names look like an edge's options.
    pub fn start(program: &Path, arguments: &[&str], output: &Path) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(output).context("cannot open a server's output")?;
        let errors = file.try_clone().context("cannot open a server's output")?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().stdin(Stdio::null()).stdout(file).stderr(errors);
        let child = command.spawn();
        Ok(Self(child.with_context(|| format!("cannot start {}", program.display()))?))
    }

    /// Whether it still runs; a stopped one does.
    pub fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) -> anyhow::Result<()> {
        self.signal("TERM")
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let give_up = Instant::now() + within;
        loop {
            if let Some(status) = self.0.try_wait().context("cannot wait for a process")? {
                return Ok(status);
            }
            ensure!(Instant::now() < give_up, "the process has not ended within {within:?}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// Stops it, as if its machine hung (SIGSTOP).
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal("STOP")
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal("CONT")
    }

    // The number is that of a child that was not waited for, so that no other process has it.
    fn signal(&self, name: &str) -> anyhow::Result<()> {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.0.id().to_string()).status();
        ensure!(status.context("cannot start kill")?.success(), "cannot send SIG{name}");
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL also ends what is stopped; one that has ended already needs neither.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
