//! The buckets of tenants and flats, where the control plane has the tenants: their entries as lines of a file.
//!
//! An entry is saved and restored as the text that it is, whatever it says: a document of a newer release is one that this
//! one cannot read. One that changes while the pages are read may come twice, and the later line is what it is then.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use riser_bus::kv::{Kv, VALUE_BYTES, Written};
use riser_bus::nats::NatsKv;
use riser_bus::{Bucket, Entry as Name};
use riser_core::TenantId;
use riser_tenants::Kept;
use riser_tenants::kept::STONE_S;
use serde::{Deserialize, Serialize};

use super::files::{Entry, Lines, Writer};
use super::patiently;
use crate::exit::{self, Failure};

/// What is saved, in this order: a code may come back that was used meanwhile, but no device that was revoked for it.
const BUCKETS: [Bucket; 2] = [Bucket::Flats, Bucket::Tenants];
const FILE: &str = "buckets.jsonl";

/// A line: one entry.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedEntry {
    /// As NATS knows it.
    subject: String,
    /// What it holds.
    text: String,
}

impl SavedEntry {
    /// What it is called, if it may be restored.
    fn name(&self) -> Result<Name, &'static str> {
        let name: Name = self.subject.parse().map_err(|_| "no entry of a bucket")?;
        let fits = BUCKETS.contains(&name.bucket()) && (1..=VALUE_BYTES).contains(&self.text.len());
        if fits { Ok(name) } else { Err("not an entry that a backup saves") }
    }
}

/// Saves both buckets. Gives the tenants that are in them, and not those that were deleted.
pub(super) async fn save(kv: &NatsKv, dir: &Path) -> Result<(Entry, BTreeSet<TenantId>), Failure> {
    let (mut file, mut tenants) = (Writer::new(dir, FILE)?, BTreeSet::new());
    for bucket in BUCKETS {
        let (what, mut after) = (format!("nats: reading the bucket {}", bucket.name()), Some(0));
        while let Some(from) = after {
            let page = patiently(&what, async || kv.list(bucket, from).await).await?;
            for (name, value) in page.entries {
                let Ok(text) = String::from_utf8(value.bytes.to_vec()) else {
                    exit::say(&format!("left out, because it is no text: {name}"));
                    continue;
                };
                if let Name::Tenant(tenant) = &name {
                    match Kept::read(tenant, text.as_bytes()) {
                        Ok(Kept::Deleted(_)) => tenants.remove(tenant),
                        Ok(Kept::Tenant(_)) | Err(_) => tenants.insert(tenant.clone()),
                    };
                }
                file.line(&SavedEntry { subject: name.to_string(), text })?;
            }
            after = page.next;
        }
    }
    Ok((file.finish()?, tenants))
}

/// Reads every line.
pub(super) fn check(dir: &Path, entry: &Entry) -> Result<(), Failure> {
    let mut lines = Lines::open(dir, entry)?;
    while let Some(saved) = lines.next::<SavedEntry>()? {
        saved.name().map_err(|why| lines.bad(&format!("{}: {why}", saved.subject)))?;
    }
    lines.is(entry)
}

/// Puts every entry where it was. Nobody else may change the buckets meanwhile.
pub(super) async fn restore(kv: &NatsKv, dir: &Path, entry: &Entry) -> Result<(), Failure> {
    let mut lines = Lines::open(dir, entry)?;
    while let Some(saved) = lines.next::<SavedEntry>()? {
        let name = saved.name().map_err(|why| lines.bad(why))?;
        let what = format!("nats: writing {name} (see that this user may; go on with --resume)");
        let bytes = Bytes::from(saved.text);
        let there = patiently(&what, async || kv.get(&name).await).await?;
        if there.as_ref().is_some_and(|there| there.bytes == bytes) {
            continue;
        }
        let stands = match &name {
            Name::Tenant(tenant) => matches!(Kept::read(tenant, &bytes), Ok(Kept::Deleted(_))),
            Name::Held(..) | Name::Flats(..) => false,
        };
        let (ttl, expected) = (stands.then(|| Duration::from_secs(STONE_S)), there.map_or(0, |there| there.revision));
        if patiently(&what, async || kv.put(&name, bytes.clone(), expected, ttl).await).await? == Written::Conflict {
            // An own try that nobody answered may have been made.
            let now = patiently(&what, async || kv.get(&name).await).await?;
            if now.is_none_or(|now| now.bytes != bytes) {
                return Err(Failure::Rejected(format!(
                    "somebody else changes {name}: stop riser-control, and go on with --resume"
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_entries_of_tenants_and_flats_are_restored() {
        let read = |subject: &str, bytes: usize| {
            SavedEntry { subject: subject.into(), text: "x".repeat(bytes) }.name().map(|name| name.bucket())
        };
        assert_eq!(read("$KV.riser-tenants.acme", 1), Ok(Bucket::Tenants));
        assert_eq!(read("$KV.riser-flats.acme.b1.7", VALUE_BYTES), Ok(Bucket::Flats));
        for (subject, bytes) in [
            ("$KV.riser-tenants.acme", 0),
            ("$KV.riser-tenants.acme", VALUE_BYTES + 1),
            ("$KV.riser-tenants.acme.b1", 1),
            ("$KV.riser-held.acme.b1.g1.000000000000000000000000000000ab", 1),
            ("$KV.other.acme", 1),
            ("riser.v1.log.acme.00000000000000ab", 1),
            ("", 1),
        ] {
            assert!(read(subject, bytes).is_err(), "{subject} {bytes}");
        }
    }
}
