//! A folder that is gone with its owner.

use std::io;
use std::path::{Path, PathBuf};

/// A folder below the system's temporary one. Dropping it removes it with all that is in it.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes a folder with a name of its own.
    pub fn new(purpose: &str) -> io::Result<Self> {
        let name = format!("riser-{purpose}-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is the temporary folder's to keep.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
