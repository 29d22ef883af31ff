//! The manifest: what a backup holds, and of when.

use std::io::Write as _;
use std::path::Path;

use riser_core::TenantId;
use serde::{Deserialize, Serialize};

use super::files::{self, Entry};
use crate::exit::Failure;

/// What the file is called.
const NAME: &str = "manifest.json";
/// The format that is written, and the newest that is read.
pub(super) const FORMAT: u32 = 1;
/// Largest manifest, in bytes: room for a hundred thousand tenants.
const BYTES: u64 = 64 << 20;

/// A whole backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) format: u32,
    /// A name that no other backup has.
    pub(super) id: String,
    /// Which release of Riser made it.
    pub(super) riser: String,
    pub(super) nats: String,
    pub(super) redis: String,
    /// On this machine's clock, Unix milliseconds.
    pub(super) begun_at_ms: u64,
    pub(super) ended_at_ms: u64,
    /// The tenants file and what it names; none when the tenants are in a bucket.
    pub(super) files: Vec<SavedFile>,
    /// Lines are entries of the buckets of tenants and flats; none when the tenants are in a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) buckets: Option<Entry>,
    pub(super) tenants: Vec<SavedTenant>,
}

/// The tenants file, or one that it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedFile {
    pub(super) entry: Entry,
    /// Its name as the tenants file gives it, relative to that one's folder where it is below; none for the tenants file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
}

/// What there is of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedTenant {
    pub(super) tenant: TenantId,
    /// Lines are events in their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) events: Option<Entry>,
    /// Lines are gateways.
    pub(super) gateways: Entry,
    /// Values and commands of all gateways.
    pub(super) values: u64,
    pub(super) commands: u64,
}

/// All that is read of a manifest whose format is not known yet.
#[derive(Deserialize)]
struct Head {
    format: u32,
    #[serde(default)]
    riser: String,
}

impl Manifest {
    /// Writes it, which makes the folder a backup.
    pub(super) fn write(&self, dir: &Path) -> Result<(), Failure> {
        let (path, beside) = (dir.join(NAME), dir.join("manifest.json.new"));
        let write = || {
            let mut file = files::create(&beside)?;
            serde_json::to_writer_pretty(&mut file, self)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            std::fs::rename(&beside, &path)?;
            std::fs::File::open(dir)?.sync_all()
        };
        write().map_err(|error| Failure::Unavailable(format!("cannot write {}: {error}", path.display())))
    }

    /// Reads the manifest of a folder.
    pub(super) fn read(dir: &Path) -> Result<Self, Failure> {
        use std::io::Read as _;
        let path = dir.join(NAME);
        let mut text = String::new();
        let read = std::fs::File::open(&path).and_then(|file| file.take(BYTES).read_to_string(&mut text));
        read.map_err(|error| {
            let shown = dir.display();
            Failure::Unavailable(match error.kind() {
                std::io::ErrorKind::NotFound if dir.is_dir() => {
                    format!("{shown} is no whole backup: it has no {NAME}, which is written last")
                }
                _ => format!("cannot read {}: {error}", path.display()),
            })
        })?;
        let bad = |error: serde_json::Error| files::damaged(&path, &error.to_string());
        let Head { format, riser } = serde_json::from_str(&text).map_err(bad)?;
        if !(1..=FORMAT).contains(&format) {
            return Err(Failure::Unavailable(format!(
                "{} has format {format}, and this riser reads {FORMAT}: restore it with riser {} or newer",
                path.display(),
                riser_ops::visible(&riser),
            )));
        }
        serde_json::from_str(&text).map_err(bad)
    }

    /// Every file that it names.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        let of_tenants = self.tenants.iter().flat_map(|tenant| tenant.events.iter().chain([&tenant.gateways]));
        self.files.iter().map(|file| &file.entry).chain(&self.buckets).chain(of_tenants)
    }
}
