//! A server's process: ended with its owner, and stopped and continued by its number.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};

/// A process that this one started. Dropping it kills it.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts a program whose output goes to the end of a file.
    pub fn start(program: &Path, arguments: &[&str], output: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments);
        Self::start_command(command, output)
    }

    /// The same for a command that is more than a program and its arguments.
    pub fn start_command(mut command: Command, output: &Path) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(output).context("cannot open a server's output")?;
        let errors = file.try_clone().context("cannot open a server's output")?;
        let child = command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn();
        Ok(Self(child.with_context(|| format!("cannot start {}", command.get_program().display()))?))
    }

    /// Its id, by which the system tells what it costs.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, once it has; none for one that was killed.
    pub fn exit_code(&mut self) -> Option<Option<i32>> {
        self.0.try_wait().ok().flatten().map(|status| status.code())
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) -> anyhow::Result<()> {
        self.signal("TERM")
    }

    /// Whether it still runs; a stopped one does.
    pub fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
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
