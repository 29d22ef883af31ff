//! The file of a memory: a line for each command and each result, rewritten when most of it is old.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::fs::{self, File, OpenOptions};
use tokio::io::{self, AsyncReadExt as _, AsyncWriteExt as _};

use super::{COMMANDS, Entry};

/// The file is rewritten when it has grown by this many bytes, and to twice what it was: so it stays within twice what
/// is remembered and a megabyte.
const GROWTH_BYTES: u64 = 1024 * 1024;
/// Largest file that is read, in bytes: more than a memory can write.
const FILE_BYTES: u64 = 128 * 1024 * 1024;

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
    /// None when the last write failed: then it is not known what the file ends with, and it is rewritten.
    file: Option<File>,
    bytes: u64,
    /// How large it was when it was rewritten last.
    base: u64,
}

impl Disk {
    /// Opens or makes the file, and reads what it remembers.
    pub(super) async fn open(path: PathBuf) -> io::Result<(Self, BTreeMap<String, Entry>)> {
        let mut text = Vec::new();
        match File::open(&path).await {
            Ok(file) => drop(file.take(FILE_BYTES).read_to_end(&mut text).await?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut entries = BTreeMap::new();
        // A line without its end was torn, and one that cannot be read tells nothing.
        for line in text.split_inclusive(|&b| b == b'\n').filter(|line| line.ends_with(b"\n")) {
            if let Ok(line) = serde_json::from_slice::<Line<'_>>(line) {
                entries.insert(line.cmd.into_owned(), line.entry);
            }
        }
        // Only a file of somebody else's holds more.
        while entries.len() > COMMANDS {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.at_ms).map(|(cmd, _)| cmd.clone());
            oldest.and_then(|cmd| entries.remove(&cmd));
        }
        let mut disk = Self { path, file: None, bytes: 0, base: 0 };
        disk.rewrite(&entries).await?;
        Ok((disk, entries))
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
        let beside = self.path.with_extension("new");
        let mut text = String::new();
        for (cmd, entry) in entries {
            text.push_str(&line(cmd, entry));
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        // Results may hold what only the household is to know.
        #[cfg(unix)]
        options.mode(0o600);
        let mut file = options.open(&beside).await?;
        file.write_all(text.as_bytes()).await?;
        file.flush().await?;
        file.sync_all().await?;
        fs::rename(&beside, &self.path).await?;
        sync_folder(&self.path).await?;
        self.bytes = text.len() as u64;
        self.base = self.bytes;
        self.file = Some(file);
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

fn line(cmd: &str, entry: &Entry) -> String {
    let line = Line { cmd: cmd.into(), entry: entry.clone() };
    format!("{}\n", riser_core::Json::of(&line).as_str())
}

/// Makes a renamed file's name last.
async fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder).await?.sync_all().await
}
