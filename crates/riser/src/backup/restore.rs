//! Restoring a backup onto empty servers.
//!
//! Everything is read and compared before anything is written. The tenants come last, since without them no edge serves
//! anybody.

use std::io::Write as _;
use std::path::{Component, Path, PathBuf};

use riser_bus::nats::{FoundStream, NatsKv, NatsLog, RestoreError};
use riser_core::event::Event;
use riser_core::{GatewayKey, TenantId};
use riser_registry::held::copy_held;
use riser_registry::redis::{RedisRegistry, SavedGateway};

use super::files::{self, Entry, Lines};
use super::manifest::{Manifest, SavedFile, SavedTenant};
use super::{Progress, Summary, buckets, patiently};
use crate::clock;
use crate::edge::config::{Settings, TenantsFrom};
use crate::edge::connect;
use crate::exit::{self, Failure};

/// Events that are under way to JetStream at once.
const BATCH: usize = 256;
/// Bytes of their data at most, beyond which no further one is added.
const BATCH_BYTES: usize = 2 << 20;

/// What is restored to.
struct Restoring<'a> {
    dir: &'a Path,
    mark: String,
    log: NatsLog,
    /// Where the copies of held commands are, and the tenants that are in a bucket.
    kv: NatsKv,
    registry: RedisRegistry,
    progress: Progress,
    summary: Summary,
}

/// Restores all of it.
pub(super) async fn run(settings: &Settings, dir: &Path, resume: bool) -> Result<Summary, Failure> {
    let manifest = Manifest::read(dir)?;
    check(dir, &manifest)?;
    let texts = placed(dir, &manifest, &settings.tenants)?;
    let nats = connect::nats(&settings.nats).await?;
    let registry = connect::registry(settings).await?;
    let log = nats.log(settings.events.clone());
    check_empty(&log, &registry, &manifest.id, resume).await?;
    patiently("redis: noting the restore", async || registry.set_restoring(Some(&manifest.id)).await).await?;
    let (progress, summary) = (Progress::new(), Summary::default());
    let kv = nats.kv(settings.kv.clone());
    let mut restoring = Restoring { dir, mark: manifest.id, log, kv, registry, progress, summary };
    for tenant in &manifest.tenants {
        restoring.tenant(tenant).await?;
    }
    for placed in texts {
        placed.write()?;
    }
    let Restoring { registry, kv, summary, .. } = restoring;
    if let Some(entry) = &manifest.buckets {
        exit::say("restoring the buckets of tenants and flats");
        buckets::restore(&kv, dir, entry).await?;
    }
    patiently("redis: noting the end of the restore", async || registry.set_restoring(None).await).await?;
    Ok(summary)
}

/// What the backup has of tenants must be what the configuration takes them from.
fn placed(dir: &Path, manifest: &Manifest, tenants: &TenantsFrom) -> Result<Vec<Placed>, Failure> {
    let refused = |what: &str, source: &str| {
        Err(Failure::Rejected(format!("the backup has {what}: restore it with tenants.source = \"{source}\"")))
    };
    match (tenants, &manifest.buckets) {
        (TenantsFrom::File(path), None) => manifest.files.iter().map(|file| Placed::of(dir, file, path)).collect(),
        (TenantsFrom::Bucket, Some(_)) => Ok(vec![]),
        (TenantsFrom::File(_), Some(_)) => refused("the tenants of a bucket", "kv"),
        (TenantsFrom::Bucket, None) => refused("a tenants file", "file"),
    }
}

/// Reads every file, and compares it with the manifest.
fn check(dir: &Path, manifest: &Manifest) -> Result<(), Failure> {
    exit::say("checking the backup");
    let is_name = |entry: &Entry| !entry.file.is_empty() && !entry.file.contains('/') && entry.file != "..";
    if let Some(entry) = manifest.entries().find(|entry| !is_name(entry)) {
        return Err(files::damaged(&dir.join("manifest.json"), &format!("{:?} is no file of it", entry.file)));
    }
    if let Some(entry) = &manifest.buckets {
        buckets::check(dir, entry)?;
    }
    for tenant in &manifest.tenants {
        if let Some(entry) = &tenant.events {
            let mut lines = Lines::open(dir, entry)?;
            while lines.next::<Event>()?.is_some() {}
            lines.is(entry)?;
        }
        let mut lines = Lines::open(dir, &tenant.gateways)?;
        while let Some(saved) = lines.next::<SavedGateway>()? {
            saved.check().map_err(|error| lines.bad(&format!("{}: {error}", saved.of)))?;
        }
        lines.is(&tenant.gateways)?;
    }
    Ok(())
}

/// Sees that nothing is there which this restore did not make.
async fn check_empty(log: &NatsLog, registry: &RedisRegistry, mark: &str, resume: bool) -> Result<(), Failure> {
    let refused = |why: String| Err(Failure::Rejected(why));
    let begun = patiently("redis: looking whether it is empty", async || registry.restoring().await).await?;
    let streams = patiently("nats: listing streams ($JS.API.STREAM.NAMES)", async || log.streams().await).await?;
    let is_other = |stream: &&FoundStream| stream.mark.as_deref() != Some(mark);
    let other = streams.iter().find(is_other).map(|stream| &stream.tenant);
    let empty_it = "restore onto empty servers: stop all edges, then";
    if let Some(tenant) = other {
        return refused(format!("NATS has the stream riser-ev-{tenant}: {empty_it} delete Riser's streams there"));
    }
    match begun {
        Some(begun) if begun != mark => {
            return refused(format!("the restore of another backup was begun here: {empty_it} empty Redis and NATS"));
        }
        Some(_) => {
            let edges = patiently("redis: looking for edges", async || registry.leases().await).await?;
            if let Some(edge) = edges.iter().find(|lease| !lease.ended) {
                return refused(format!("the edge {} runs on these servers: stop all edges first", edge.lease.edge));
            }
        }
        None => {
            let other =
                patiently("nats: listing streams ($JS.API.STREAM.NAMES)", async || log.stream_beside_events().await);
            if let Some(name) = other.await? {
                return refused(format!("NATS has the stream {name}: {empty_it} delete Riser's streams there"));
            }
            if let Some(key) =
                patiently("redis: looking whether it is empty", async || registry.any_key().await).await?
            {
                let key = riser_ops::visible(&key).to_string();
                return refused(format!(
                    "Redis has {key}: {empty_it} empty Redis (FLUSHDB), or name another redis.database"
                ));
            }
        }
    }
    if !resume && (begun.is_some() || !streams.is_empty()) {
        return refused(
            "this restore was begun before and not ended: go on with --resume, or empty both servers".into(),
        );
    }
    Ok(())
}

impl Restoring<'_> {
    async fn tenant(&mut self, saved: &SavedTenant) -> Result<(), Failure> {
        let SavedTenant { tenant, events, gateways, .. } = saved;
        exit::say(&format!("{tenant}: restoring"));
        if let Some(entry) = events {
            self.events(tenant, entry).await?;
        }
        self.gateways(tenant, gateways).await?;
        self.summary.tenants += 1;
        Ok(())
    }

    async fn events(&mut self, tenant: &TenantId, entry: &Entry) -> Result<(), Failure> {
        let failed = |error: RestoreError| {
            let text = format!("{tenant}: restoring events: {error}");
            match error {
                RestoreError::Unavailable | RestoreError::Full => {
                    Failure::Unavailable(format!("{text}; when that is mended, go on with --resume"))
                }
                _ => Failure::Rejected(text),
            }
        };
        let mut stream = self.log.restore(tenant, &self.mark).await.map_err(failed)?;
        let mut lines = Lines::open(self.dir, entry)?;
        let (mut batch, mut bytes, mut more) = (Vec::with_capacity(BATCH), 0, true);
        while more {
            match lines.next::<Event>()? {
                Some(event) => {
                    bytes += event.data.as_ref().map_or(0, |data| data.as_str().len());
                    batch.push(event);
                }
                None => more = false,
            }
            if batch.len() < BATCH && bytes < BATCH_BYTES && more {
                continue;
            }
            stream.add(&batch).await.map_err(failed)?;
            self.summary.events += batch.len() as u64;
            let done = self.summary.events;
            self.progress.say(|| format!("{tenant}: {done} events in all"));
            batch.clear();
            bytes = 0;
        }
        stream.finish().await.map_err(failed)
    }

    async fn gateways(&mut self, tenant: &TenantId, entry: &Entry) -> Result<(), Failure> {
        let what = format!("{tenant}: restoring gateways (go on with --resume)");
        let (registry, kv) = (self.registry.clone(), self.kv.clone());
        let mut lines = Lines::open(self.dir, entry)?;
        while let Some(saved) = lines.next::<SavedGateway>()? {
            let key = GatewayKey::new(tenant.clone(), saved.of.clone());
            let (records, now_ms) = (saved.records(), clock::now_ms());
            // Before the records: a copy without a record gives it back, and a record without its copy is kept once only.
            patiently(&what, async || copy_held(&kv, &key, records, now_ms).await).await?;
            patiently(&what, async || registry.load(tenant, &saved).await).await?;
            self.summary.gateways += 1;
            self.summary.values += saved.values() as u64;
            self.summary.commands += saved.commands() as u64;
            let count = self.summary.gateways;
            self.progress.say(|| format!("{tenant}: {count} gateways in all"));
        }
        Ok(())
    }
}

/// The tenants file or a secret, and where it is to be.
enum Placed {
    /// It is there already, as it was.
    There,
    /// It belongs outside of the tenants file's folder, where nothing is written.
    Elsewhere {
        file: PathBuf,
        name: String,
    },
    Missing {
        path: PathBuf,
        bytes: Vec<u8>,
    },
}

impl Placed {
    fn of(dir: &Path, file: &SavedFile, tenants: &Path) -> Result<Self, Failure> {
        let bytes = files::whole(dir, &file.entry)?;
        let path = match &file.name {
            None => tenants.to_owned(),
            Some(name) if Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) => {
                tenants.parent().unwrap_or(Path::new("")).join(name)
            }
            Some(name) => return Ok(Self::Elsewhere { file: dir.join(&file.entry.file), name: name.clone() }),
        };
        match std::fs::read(&path) {
            Ok(there) if there == bytes => Ok(Self::There),
            Ok(_) => Err(Failure::Rejected(format!(
                "{} is there, and is not the saved one: move it away, or set tenants.file to another",
                path.display()
            ))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::Missing { path, bytes }),
            Err(error) => Err(Failure::Unavailable(format!("cannot read {}: {error}", path.display()))),
        }
    }

    fn write(self) -> Result<(), Failure> {
        match self {
            Self::There => Ok(()),
            Self::Elsewhere { file, name } => {
                let name = riser_ops::visible(&name).to_string();
                exit::say(&format!("put {name} there by hand, if it is not: it is {}", file.display()));
                Ok(())
            }
            Self::Missing { path, bytes } => {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                let made = folder.map_or(Ok(()), std::fs::create_dir_all);
                let written = made.and_then(|()| files::create(&path)).and_then(|mut file| {
                    file.write_all(&bytes)?;
                    file.sync_all()
                });
                written.map_err(|error| {
                    Failure::Unavailable(format!("cannot write {}: {error}; go on with --resume", path.display()))
                })
            }
        }
    }
}
