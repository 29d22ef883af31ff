//! The file of a memory: a line that says what it is, then a line for each command and each result; rewritten when most
//! of it is old.

use std::collections::BTreeMap;
use std::fs::TryLockError;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::fs::{self, File, OpenOptions};
use tokio::io::{self, AsyncReadExt as _, AsyncWriteExt as _};

use super::{COMMANDS, Entry, MemoryError};

/// The file is rewritten when it has grown by this many bytes, and to twice what it was: so it stays within twice what
/// is remembered and a megabyte.
const GROWTH_BYTES: u64 = 1024 * 1024;
/// Largest file that is read, in bytes: more than a memory can write.
const FILE_BYTES: u64 = 128 * 1024 * 1024;
/// What the first line calls the file, and in which form the others are.
const KIND: &str = "memory of commands, 1";
/// What is added to the file's name for the one that is locked, which is never replaced, and for the one that replaces
/// it. Nobody else uses such names, so that no file but the memory's own is written over.
const LOCK: &str = ".riser-lock";
const NEW: &str = ".riser-new";

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    riser: std::borrow::Cow<'a, str>,
    /// How long a command was remembered, in milliseconds.
    span_ms: u64,
    /// Since when everything is, Unix milliseconds on the cluster's clock; none before the first command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    cmd: std::borrow::Cow<'a, str>,
    #[serde(rename = "is")]
    entry: Entry,
}

/// A memory's file.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    /// Held as long as the memory is open. None when the disk was too full to make it: then nothing is written.
    lock: Option<std::fs::File>,
    /// None when the last write failed: then it is not known what the file ends with, and it is rewritten.
    file: Option<File>,
    span_ms: u64,
    since_ms: Option<u64>,
    bytes: u64,
    /// How large it was when it was rewritten last.
    base: u64,
}

/// What a file remembers.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) entries: BTreeMap<String, Entry>,
    pub(super) span_ms: u64,
    pub(super) since_ms: Option<u64>,
}

impl Disk {
    /// Reads what a file remembers, if it is there, and keeps others from it. Nothing is written yet.
    pub(super) async fn open(path: PathBuf, span_ms: u64) -> Result<(Self, Read), MemoryError> {
        let lock = match lock(&path) {
            Ok(lock) => Some(lock),
            Err(TryLockError::WouldBlock) => return Err(MemoryError::InUse { file: path }),
            // Whoever holds the lock has made its file.
            Err(TryLockError::Error(error)) if is_full(&error) => None,
            Err(TryLockError::Error(source)) => return Err(MemoryError::Open { file: path, source }),
        };
        let mut text = Vec::new();
        match read(&path, &mut text).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(MemoryError::Open { file: path, source }),
        }
        let Some(read) = parse(&text) else { return Err(MemoryError::Foreign { file: path }) };
        Ok((Self { path, lock, file: None, span_ms, since_ms: None, bytes: 0, base: 0 }, read))
    }

    /// Notes since when everything is remembered; it is written with what comes next.
    pub(super) fn since(&mut self, since_ms: u64) {
        if self.since_ms.replace(since_ms) != Some(since_ms) {
            // It stands in the first line.
            self.file = None;
        }
    }

    /// Writes what is remembered at the beginning. A disk that is full may have room later.
    pub(super) async fn begin(&mut self, entries: &BTreeMap<String, Entry>) -> Result<(), MemoryError> {
        match self.rewrite(entries).await {
            Err(error) if is_full(&error) => {
                tracing::warn!(%error, "no room for what is remembered: commands are turned away");
                Ok(())
            }
            written => written.map_err(|source| MemoryError::Open { file: self.path.clone(), source }),
        }
    }

    /// Notes what is remembered of one command now; with `sync` it is on the disk when this is done.
    pub(super) async fn note(&mut self, entries: &BTreeMap<String, Entry>, cmd: &str, sync: bool) -> io::Result<()> {
        let Some(entry) = entries.get(cmd) else { return Ok(()) };
        if self.file.is_none() || self.bytes > self.base.saturating_mul(2).max(self.base + GROWTH_BYTES) {
            return self.rewrite(entries).await;
        }
        let written = self.append(&line(cmd, entry), sync).await;
        if written.is_err() {
            self.file = None;
        }
        written
    }

    async fn append(&mut self, text: &str, sync: bool) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotConnected.into()) };
        file.write_all(text.as_bytes()).await?;
        file.flush().await?;
        self.bytes += text.len() as u64;
        if sync { file.sync_data().await } else { Ok(()) }
    }

    /// Writes everything anew beside the file, and puts it in its place.
    async fn rewrite(&mut self, entries: &BTreeMap<String, Entry>) -> io::Result<()> {
        self.file = None;
        if self.lock.is_none() {
            self.lock = Some(lock(&self.path)?);
        }
        let head = Head { riser: KIND.into(), span_ms: self.span_ms, since_ms: self.since_ms };
        let mut text = format!("{}\n", riser_core::Json::of(&head).as_str());
        for (cmd, entry) in entries {
            text.push_str(&line(cmd, entry));
        }
        let beside = beside(&self.path, NEW);
        let written = async {
            let file = write(&beside, &text).await?;
            fs::rename(&beside, &self.path).await?;
            sync_folder(&self.path).await?;
            Ok(file)
        };
        let written: io::Result<File> = written.await;
        if written.is_err() {
            // Half a file only takes room. One that has been renamed is not there any more.
            let _ = fs::remove_file(&beside).await;
        }
        self.file = Some(written?);
        self.bytes = text.len() as u64;
        self.base = self.bytes;
        Ok(())
    }
}

#[cfg(test)]
impl Disk {
    /// As if the last write had failed, and the file were here.
    pub(super) fn fail(&mut self, path: PathBuf) {
        (self.file, self.path) = (None, path);
    }
}

/// Reads a whole file.
async fn read(path: &Path, text: &mut Vec<u8>) -> io::Result<()> {
    File::open(path).await?.take(FILE_BYTES + 1).read_to_end(text).await?;
    if text.len() as u64 > FILE_BYTES { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(()) }
}

/// What a file remembers; none when it is somebody else's. An empty one remembers nothing.
fn parse(text: &[u8]) -> Option<Read> {
    // A line without its end was torn, and one that cannot be read tells nothing.
    let mut lines = text.split_inclusive(|&b| b == b'\n');
    let Some(head) = lines.next() else { return Some(Read::default()) };
    let head: Head<'_> = serde_json::from_slice(head).ok().filter(|head: &Head<'_>| head.riser == KIND)?;
    let mut entries = BTreeMap::new();
    for line in lines.filter(|line| line.ends_with(b"\n")) {
        if let Ok(line) = serde_json::from_slice::<Line<'_>>(line) {
            entries.insert(line.cmd.into_owned(), line.entry);
        }
    }
    // Only a file that somebody else has written to holds more.
    while entries.len() > COMMANDS {
        let oldest = entries.iter().min_by_key(|(_, entry)| entry.at_ms).map(|(cmd, _)| cmd.clone());
        oldest.and_then(|cmd| entries.remove(&cmd));
    }
    Some(Read { entries, span_ms: head.span_ms, since_ms: head.since_ms })
}

fn line(cmd: &str, entry: &Entry) -> String {
    let line = Line { cmd: cmd.into(), entry: entry.clone() };
    format!("{}\n", riser_core::Json::of(&line).as_str())
}

async fn write(path: &Path, text: &str) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    // Results may hold what only the household is to know.
    #[cfg(unix)]
    options.mode(0o600);
    let mut file = options.open(path).await?;
    file.write_all(text.as_bytes()).await?;
    file.flush().await?;
    file.sync_all().await?;
    Ok(file)
}

/// Keeps others from a memory, in this process and in others, for as long as the file lives. The memory's own file could
/// not be locked, because it is replaced.
fn lock(path: &Path) -> Result<std::fs::File, TryLockError> {
    let open = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(beside(path, LOCK));
    let file = open.map_err(TryLockError::Error)?;
    file.try_lock().map(|()| file)
}

/// The same name with something added to it.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Makes a renamed file's name last.
async fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder).await?.sync_all().await
}
