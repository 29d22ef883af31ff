//! Saving a cluster, which may go on meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use riser_bus::log::Log as _;
use riser_bus::nats::NatsLog;
use riser_core::{Address, BuildingId, GatewayId, GatewayKey, TenantId};
use riser_registry::StateStore as _;
use riser_registry::redis::RedisRegistry;

use super::files::{self, Entry, Writer};
use super::manifest::{FORMAT, Manifest, SavedFile, SavedTenant};
use super::{Progress, Summary, buckets, patiently};
use crate::clock;
use crate::edge::config::{Settings, TenantsFrom};
use crate::edge::connect;
use crate::exit::{self, Failure};
use crate::tenants::file as tenants_file;

/// What is saved from, and where to.
struct Saving<'a> {
    dir: &'a Path,
    log: NatsLog,
    registry: RedisRegistry,
    progress: Progress,
    summary: Summary,
}

/// Saves all of it into a folder.
pub(super) async fn run(settings: &Settings, dir: &Path) -> Result<Summary, Failure> {
    let begun_at_ms = clock::now_ms();
    let file = match &settings.tenants {
        TenantsFrom::File(path) => Some((path, tenants_file::load(path)?)),
        TenantsFrom::Bucket => None,
    };
    let nats = connect::nats(&settings.nats).await?;
    let registry = connect::registry(settings).await?;
    let redis = registry.server_version().unwrap_or_default();
    let log = nats.log(settings.events.clone());
    let streams = patiently("nats: listing streams ($JS.API.STREAM.NAMES)", async || log.streams().await).await?;
    files::make_folder(dir)?;
    let (files, buckets, mut all) = if let Some((path, tenants)) = file {
        let all = tenants.value.iter().map(|(tenant, _)| tenant.clone()).collect();
        (copy_files(dir, path, &tenants.files)?, None, all)
    } else {
        let (entry, all) = buckets::save(&nats.kv(settings.kv.clone()), dir).await?;
        (vec![], Some(entry), all)
    };
    all.extend(streams.into_iter().map(|stream| stream.tenant));
    let mut saving = Saving { dir, log, registry, progress: Progress::new(), summary: Summary::default() };
    let mut saved = vec![];
    for tenant in all {
        saved.push(saving.tenant(tenant).await?);
    }
    let manifest = Manifest {
        format: FORMAT,
        id: format!("{:032x}", fastrand::u128(..)),
        riser: env!("CARGO_PKG_VERSION").into(),
        nats: nats.server().version,
        redis,
        begun_at_ms,
        ended_at_ms: clock::now_ms(),
        files,
        buckets,
        tenants: saved,
    };
    manifest.write(dir)?;
    Ok(saving.summary)
}

/// Copies the tenants file and those that it names.
fn copy_files(dir: &Path, tenants: &Path, named: &[std::path::PathBuf]) -> Result<Vec<SavedFile>, Failure> {
    let folder = tenants.parent().unwrap_or(Path::new(""));
    let mut seen = BTreeSet::new();
    let mut saved = vec![];
    for path in named.iter().filter(|path| seen.insert((*path).clone())) {
        let bytes = std::fs::read(path)
            .map_err(|error| Failure::Unavailable(format!("cannot read {}: {error}", path.display())))?;
        let mut file = Writer::new(dir, &format!("file-{}", saved.len()))?;
        file.write(&bytes)?;
        let below = path.strip_prefix(folder).unwrap_or(path);
        let name = (path != tenants).then(|| below.to_string_lossy().into_owned());
        saved.push(SavedFile { entry: file.finish()?, name });
    }
    Ok(saved)
}

impl Saving<'_> {
    async fn tenant(&mut self, tenant: TenantId) -> Result<SavedTenant, Failure> {
        exit::say(&format!("{tenant}: saving"));
        let events = self.events(&tenant).await?;
        let before = self.summary;
        let gateways = self.gateways(&tenant).await?;
        self.summary.tenants += 1;
        let (values, commands) = (self.summary.values - before.values, self.summary.commands - before.commands);
        Ok(SavedTenant { tenant, events, gateways, values, commands })
    }

    /// Saves the events that there are now; none when the tenant has no stream.
    async fn events(&mut self, tenant: &TenantId) -> Result<Option<Entry>, Failure> {
        let what = format!("{tenant}: reading events");
        let log = self.log.clone();
        let bounds = patiently(&what, async || log.bounds(tenant).await).await?;
        if bounds.life == 0 {
            return Ok(None);
        }
        let mut file = Writer::new(self.dir, &format!("events-{tenant}.jsonl"))?;
        let mut next = bounds.first;
        while next <= bounds.last {
            let page = patiently(&what, async || log.read(tenant, next).await).await?;
            if page.bounds.life != bounds.life {
                return Err(Failure::Rejected(format!(
                    "{tenant}: its stream of events was lost and made anew meanwhile: begin a new backup"
                )));
            }
            // What is gone by then was dropped by retention, or was nobody's event.
            let Some(newest) = page.events.last() else { break };
            next = newest.seq + 1;
            for stored in page.events.iter().filter(|stored| stored.seq <= bounds.last) {
                file.line(&stored.event)?;
                self.summary.events += 1;
            }
            self.progress.say(|| format!("{tenant}: event {} of {}", next - 1, bounds.last));
        }
        file.finish().map(Some)
    }

    async fn gateways(&mut self, tenant: &TenantId) -> Result<Entry, Failure> {
        let what = format!("{tenant}: reading gateways");
        let registry = self.registry.clone();
        let mut file = Writer::new(self.dir, &format!("gateways-{tenant}.jsonl"))?;
        // A gateway may have commands, and never have connected.
        let commanded = patiently(&what, async || registry.commanded(tenant).await).await?;
        let mut by_building: BTreeMap<BuildingId, BTreeSet<GatewayId>> = BTreeMap::new();
        for of in commanded {
            by_building.entry(of.building().clone()).or_default().insert(of.gateway().clone());
        }
        for building in patiently(&what, async || registry.buildings(tenant).await).await? {
            by_building.entry(building).or_default();
        }
        for (building, mut gateways) in by_building {
            gateways.extend(patiently(&what, async || registry.gateways(tenant, &building).await).await?);
            for gateway in gateways {
                let Ok(of) = Address::new(building.clone(), gateway) else { continue };
                let key = GatewayKey::new(tenant.clone(), of);
                let Some(saved) = patiently(&what, async || registry.save(&key).await).await? else { continue };
                file.line(&saved)?;
                self.summary.gateways += 1;
                self.summary.values += saved.values() as u64;
                self.summary.commands += saved.commands() as u64;
                let count = self.summary.gateways;
                self.progress.say(|| format!("{tenant}: {count} gateways in all"));
            }
        }
        file.finish()
    }
}
