//! What a gateway remembers of commands, so that none is done twice: bounded in number and time, optionally on disk.
//!
//! A command is remembered before it is handed to the application, and for as long as the gateway promised in `hello`
//! (`remembers_ms`). When the memory is full, nothing is forgotten early: further commands are turned away. A memory
//! promises no more than the time since it began, for it knows nothing of what came before: a broker that believed more
//! would send it a command that was begun in an earlier life of the gateway.

mod disk;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use riser_core::command::{Said, Word};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use disk::Disk;

/// Commands that are remembered at a time: nearly two a second over the usual time.
pub const COMMANDS: usize = 1_024;
/// How long a command is remembered after it came, and after its result.
pub const SPAN: Duration = Duration::from_secs(600);
/// Largest `data` of a result, in bytes of JSON: with [`COMMANDS`] it bounds the memory to 16 MiB.
pub const RESULT_BYTES: usize = 16 * 1024;

/// Why a command cannot be remembered.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// As many are remembered as may be.
    #[error("{COMMANDS} commands are remembered already")]
    Full,
    /// The disk does not take it.
    #[error("failed to write what is remembered")]
    Write(#[source] std::io::Error),
    /// The file cannot be read or made.
    #[error("failed to open {file:?}, which is to hold what is remembered")]
    Open {
        /// Which.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Somebody else's file; it is left as it is.
    #[error("{file:?} holds something else than a memory of commands that this release can read: name another file")]
    Foreign {
        /// Which.
        file: PathBuf,
    },
    /// Another gateway has it open.
    #[error("{file:?} is in use: each gateway needs a memory of its own")]
    InUse {
        /// Which.
        file: PathBuf,
    },
}

/// What is remembered of one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// When it came, or had its result, Unix milliseconds on the cluster's clock.
    at_ms: u64,
    /// The last word about it; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    word: Option<Word>,
}

/// The commands that a gateway recognises.
#[derive(Debug)]
pub struct Memory {
    entries: BTreeMap<String, Entry>,
    span: Duration,
    opened: Instant,
    /// For how long it had remembered everything when it was opened, as far as its file shows.
    before_ms: u64,
    /// Since when it remembers everything, Unix milliseconds on the cluster's clock, which is known with the first command.
    since_ms: Option<u64>,
    disk: Option<Disk>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(SPAN)
    }
}

impl Memory {
    /// A memory that lasts as long as the process.
    pub fn new(span: Duration) -> Self {
        Self { entries: BTreeMap::new(), span, opened: Instant::now(), before_ms: 0, since_ms: None, disk: None }
    }

    /// A memory that survives restarts in a file of its own, which is made when it is not there; beside it are
    /// files of the same name with the endings `.riser-lock` and `.riser-new`. Only one memory at a time may be open in
    /// a file. A last line that was torn by a crash is left out. A command that was begun before a crash and has no result
    /// is not begun again, and nothing is said of it: nobody knows whether it was done. A disk that is full is no
    /// error yet: commands are turned away until it takes something again.
    pub async fn open(file: impl Into<PathBuf>, span: Duration) -> Result<Self, MemoryError> {
        let (disk, read) = Disk::open(file.into(), millis(span)).await?;
        let mut memory = Self { entries: read.entries, disk: Some(disk), ..Self::new(span) };
        if let Some(since_ms) = read.since_ms {
            // The newest command shows how late it is by now at the least, without anybody's clock.
            let latest_ms = memory.entries.values().map(|entry| entry.at_ms).max().unwrap_or(since_ms);
            // A memory that was shorter has forgotten what was older.
            memory.before_ms = latest_ms.saturating_sub(since_ms).min(read.span_ms);
            memory.since_ms = Some(latest_ms.saturating_sub(memory.before_ms));
        }
        memory.begin_file().await?;
        Ok(memory)
    }

    /// For how long it recognises a command by now, in milliseconds: its span, and no more than the time since it began.
    pub fn remembers_ms(&self) -> u64 {
        millis(self.span).min(self.age_ms())
    }

    /// The last word about a command, when it is known; none inside when nothing was said yet.
    #[expect(clippy::option_option, reason = "not known, and known without a word, are answered differently")]
    pub(super) fn known(&self, cmd: &str) -> Option<Option<Word>> {
        self.entries.get(cmd).map(|entry| entry.word.clone())
    }

    /// Remembers a command that came. It is on disk when this is done.
    pub(super) async fn begin(&mut self, cmd: &str, now_ms: u64) -> Result<(), MemoryError> {
        let span_ms = millis(self.span);
        self.entries.retain(|_, entry| now_ms.saturating_sub(entry.at_ms) < span_ms || entry.is_open());
        if self.entries.len() >= COMMANDS {
            // What has stayed without a result for long enough will not get one.
            self.entries.retain(|_, entry| now_ms.saturating_sub(entry.at_ms) < span_ms);
        }
        if self.entries.len() >= COMMANDS {
            return Err(MemoryError::Full);
        }
        let since_ms = *self.since_ms.get_or_insert(now_ms.saturating_sub(self.age_ms()));
        self.entries.insert(cmd.to_owned(), Entry { at_ms: now_ms, word: None });
        if let Some(disk) = &mut self.disk {
            disk.since(since_ms);
        }
        if let Err(error) = self.write(cmd, true).await {
            // It is not begun, so that nothing need be remembered.
            self.entries.remove(cmd);
            return Err(MemoryError::Write(error));
        }
        Ok(())
    }

    /// Remembers what was said of a command. Only final words go to the disk, without waiting for it: when one is lost
    /// in a crash, nothing is said of the command, and it is not done again.
    pub(super) async fn word(&mut self, cmd: &str, word: &Word, now_ms: u64) {
        let Some(entry) = self.entries.get_mut(cmd) else { return };
        entry.word = Some(word.clone());
        entry.at_ms = entry.at_ms.max(now_ms);
        if is_final(word.status)
            && let Err(error) = self.write(cmd, false).await
        {
            tracing::warn!(%error, "failed to write a command's result");
        }
    }

    async fn write(&mut self, cmd: &str, sync: bool) -> std::io::Result<()> {
        match &mut self.disk {
            Some(disk) => disk.note(&self.entries, cmd, sync).await,
            None => Ok(()),
        }
    }

    /// Writes the file as it was read, so that a disk that takes nothing shows now.
    async fn begin_file(&mut self) -> Result<(), MemoryError> {
        let Some(disk) = &mut self.disk else { return Ok(()) };
        if let Some(since_ms) = self.since_ms {
            disk.since(since_ms);
        }
        disk.begin(&self.entries).await
    }

    /// For how long it has remembered everything, in milliseconds.
    fn age_ms(&self) -> u64 {
        self.before_ms.saturating_add(millis(self.opened.elapsed()))
    }
}

impl Entry {
    /// Whether it has no result.
    fn is_open(&self) -> bool {
        !self.word.as_ref().is_some_and(|word| is_final(word.status))
    }
}

/// Whether nothing follows a gateway's word.
pub(super) fn is_final(said: Said) -> bool {
    !matches!(said, Said::Received | Said::Running)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
