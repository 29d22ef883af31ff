//! The files of a backup: written once with a checksum, and compared with it before anything is taken from them.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read as _, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use riser_core::hex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::exit::Failure;

/// Longest line, in bytes: one gateway with all values and commands that it may have is under a third of that.
const LINE_BYTES: u64 = 32 << 20;

/// A file as the manifest names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) file: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
    /// Lines of JSON; 0 for a file that is something else.
    pub(super) lines: u64,
}

/// Makes the folder of a backup, which must not have anything in it.
pub(super) fn make_folder(dir: &Path) -> Result<(), Failure> {
    let shown = dir.display();
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Failure::Unavailable(format!("cannot make the folder {shown}: {error}"))),
    }
    let has_some = std::fs::read_dir(dir).map(|mut inside| inside.next().is_some());
    match has_some {
        Ok(false) => Ok(()),
        Ok(true) => Err(Failure::Rejected(format!("{shown} has files in it: name a new folder for each backup"))),
        Err(error) => Err(Failure::Unavailable(format!("cannot read the folder {shown}: {error}"))),
    }
}

/// Makes a file that only its owner reads, and that was not there.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// A file that is being written.
pub(super) struct Writer {
    path: PathBuf,
    out: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
    lines: u64,
}

impl Writer {
    pub(super) fn new(dir: &Path, name: &str) -> Result<Self, Failure> {
        let path = dir.join(name);
        let file = create(&path).map_err(|error| unwritten(&path, &error))?;
        Ok(Self { path, out: BufWriter::new(file), hash: Sha256::new(), bytes: 0, lines: 0 })
    }

    pub(super) fn line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(value).map_err(|error| Failure::Other(error.into()))?;
        line.push(b'\n');
        self.lines += 1;
        self.write(&line)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes).map_err(|error| unwritten(&self.path, &error))
    }

    /// Sees the file to the disk.
    pub(super) fn finish(mut self) -> Result<Entry, Failure> {
        let synced = self.out.flush().and_then(|()| self.out.get_ref().sync_all());
        synced.map_err(|error| unwritten(&self.path, &error))?;
        let file = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Entry { file, bytes: self.bytes, sha256: hex(&self.hash.finalize()), lines: self.lines })
    }
}

fn unwritten(path: &Path, error: &io::Error) -> Failure {
    Failure::Unavailable(format!(
        "cannot write {}: {error}; what is there is no backup, and can be removed",
        path.display()
    ))
}

/// A file's lines.
pub(super) struct Lines {
    path: PathBuf,
    file: BufReader<File>,
    line: Vec<u8>,
    number: u64,
    hash: Sha256,
    bytes: u64,
}

impl Lines {
    pub(super) fn open(dir: &Path, entry: &Entry) -> Result<Self, Failure> {
        let path = dir.join(&entry.file);
        let file = File::open(&path).map_err(|error| unread(&path, &error))?;
        let (line, hash) = (Vec::new(), Sha256::new());
        Ok(Self { path, file: BufReader::new(file), line, number: 0, hash, bytes: 0 })
    }

    /// The next line, read as what it is to be.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Failure> {
        self.line.clear();
        let read = self.file.by_ref().take(LINE_BYTES).read_until(b'\n', &mut self.line);
        let read = read.map_err(|error| unread(&self.path, &error))?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        self.bytes += read as u64;
        self.hash.update(&self.line);
        let bad = |why: &str| self.bad(&format!("line {}: {why}", self.number));
        if self.line.last() != Some(&b'\n') {
            return Err(bad("it breaks off"));
        }
        serde_json::from_slice(&self.line).map(Some).map_err(|error| bad(&error.to_string()))
    }

    /// Says of the file what is wrong with it.
    pub(super) fn bad(&self, why: &str) -> Failure {
        damaged(&self.path, why)
    }

    /// Compares what was read, which must be all, with what the manifest says.
    pub(super) fn is(&self, entry: &Entry) -> Result<(), Failure> {
        same(&self.path, entry, self.bytes, &self.hash)
    }
}

/// A whole file that is compared with what the manifest says of it, and is no more than some megabytes.
pub(super) fn whole(dir: &Path, entry: &Entry) -> Result<Vec<u8>, Failure> {
    let path = dir.join(&entry.file);
    let bytes = std::fs::read(&path).map_err(|error| unread(&path, &error))?;
    same(&path, entry, bytes.len() as u64, &Sha256::new_with_prefix(&bytes))?;
    Ok(bytes)
}

fn same(path: &Path, entry: &Entry, bytes: u64, hash: &Sha256) -> Result<(), Failure> {
    if bytes != entry.bytes {
        return Err(damaged(path, &format!("it has {bytes} bytes, and had {} when it was saved", entry.bytes)));
    }
    if hex(&hash.clone().finalize()) == entry.sha256 { Ok(()) } else { Err(damaged(path, "its checksum is another")) }
}

fn unread(path: &Path, error: &io::Error) -> Failure {
    Failure::Unavailable(format!("cannot read {}: {error}", path.display()))
}

/// A file is not as it was written.
pub(super) fn damaged(path: &Path, why: &str) -> Failure {
    let why = riser_ops::visible(why);
    Failure::Unavailable(format!("{} is damaged: {why}; nothing was restored: take another backup", path.display()))
}
