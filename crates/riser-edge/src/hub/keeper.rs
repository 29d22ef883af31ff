//! What keeps mirrors true: reading what jumped, and comparing with the store every now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use riser_core::{Address, BuildingId, Pattern, TenantId, Version};
use riser_registry::RegistryError;
use tokio::time::{Instant, sleep_until};

use super::mirror::{Compared, Mirror};
use super::{Hub, tell};
use crate::presence::UNANSWERED;
use crate::shared::Shared;

/// How long a change that the store has may be on its way to the mirror before it counts as lost. Under load messages wait
/// in the hub's inbox; reading a gateway anew because of them would owe a snapshot to each of its listeners.
const ARRIVAL: Duration = Duration::from_secs(1);
/// How soon a read that nobody answered is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// The gateways that a pattern names and of which the store knows something.
pub(super) async fn addresses(shared: &Shared, tenant: &TenantId, to: &Pattern) -> Result<Vec<Address>, RegistryError> {
    let buildings = match to {
        Pattern::One(address) => return Ok(vec![address.clone()]),
        Pattern::Building(building) => vec![building.clone()],
        Pattern::All => shared.call(shared.ports.store.buildings(tenant)).await?,
    };
    let mut addresses = Vec::new();
    for building in buildings {
        let versions = shared.call(shared.ports.store.versions(tenant, &building)).await?;
        addresses.extend(versions.into_iter().filter_map(|(gateway, _)| Address::new(building.clone(), gateway).ok()));
    }
    Ok(addresses)
}

/// Runs as long as the edge does.
pub(super) async fn run(shared: Arc<Shared>, hub: Arc<Hub>) {
    let mut compare_at = Instant::now() + shared.config.compare;
    let (mut retry_at, mut behind, mut behind_at) = (None, BTreeMap::new(), None);
    loop {
        let next = [retry_at, behind_at].into_iter().flatten().fold(compare_at, Instant::min);
        tokio::select! {
            biased;
            () = hub.wake.notified() => {}
            () = sleep_until(next) => {}
        }
        if hub.look.swap(false, Ordering::Relaxed) || Instant::now() >= compare_at {
            compare_at = Instant::now() + shared.config.compare;
            let found = hub.compare(&shared).await;
            if behind.is_empty() && !found.is_empty() {
                behind_at = Some(Instant::now() + ARRIVAL);
            }
            // What was found first waits for no longer because more is found.
            for (address, version) in found {
                behind.entry(address).or_insert(version);
            }
        }
        if behind_at.is_some_and(|at| at <= Instant::now()) {
            hub.read_behind(std::mem::take(&mut behind));
            behind_at = None;
        }
        retry_at = hub.repair(&shared).await.then(|| Instant::now() + RETRY);
    }
}

impl Hub {
    /// Has everything compared with the store soon: messages may be missing.
    pub(crate) fn look_again(&self) {
        self.look.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Reads what is due. True when some of it must be tried again.
    async fn repair(&self, shared: &Shared) -> bool {
        let due: Vec<Address> = std::mem::take(&mut *self.due.lock()).into_iter().collect();
        let asked = due.len();
        let unread = self.read_all(shared, due).await;
        shared.metrics.repairs.inc_by((asked - unread.len()) as u64);
        let again = !unread.is_empty();
        self.due.lock().extend(unread);
        again
    }

    /// Compares what is watched with the store, one read per building. Gives the mirrors that know less, and what the
    /// store knew.
    async fn compare(&self, shared: &Shared) -> BTreeMap<Address, Version> {
        let mut behind = BTreeMap::new();
        let Ok(buildings) = self.watched_buildings(shared).await else { return behind };
        let mut unanswered = 0;
        for (building, mirrored) in buildings {
            let Ok(stored) = shared.call(shared.ports.store.versions(&self.tenant, &building)).await else {
                // One building that is not answered must not keep the others from being compared.
                unanswered += 1;
                if unanswered == UNANSWERED {
                    return behind;
                }
                continue;
            };
            let stored: BTreeMap<Address, Version> = stored
                .into_iter()
                .filter_map(|(gateway, version)| Some((Address::new(building.clone(), gateway).ok()?, version)))
                .collect();
            for address in self.compare_building(mirrored, &stored, &mut behind) {
                self.settle_doubt(shared, &address).await;
            }
        }
        behind
    }

    /// Has those read that have not come to what the store knew.
    fn read_behind(&self, behind: BTreeMap<Address, Version>) {
        let mut inner = self.inner.lock();
        let mut lost = |address: &Address, version: Version| {
            inner.mirrors.get_mut(address).is_some_and(|mirror| mirror.read_below(version))
        };
        let due: Vec<_> = behind.into_iter().filter(|(address, version)| lost(address, *version)).collect();
        drop(inner);
        self.due.lock().extend(due.into_iter().map(|(address, _)| address));
    }

    /// The buildings that are watched, with those of their gateways that have a mirror.
    async fn watched_buildings(
        &self,
        shared: &Shared,
    ) -> Result<BTreeMap<BuildingId, BTreeSet<Address>>, RegistryError> {
        let (mut buildings, all) = {
            let inner = self.inner.lock();
            let mut buildings: BTreeMap<BuildingId, BTreeSet<Address>> = BTreeMap::new();
            for address in inner.mirrors.keys() {
                buildings.entry(address.building().clone()).or_default().insert(address.clone());
            }
            for pattern in inner.watches.keys() {
                if let Pattern::Building(building) = pattern {
                    buildings.entry(building.clone()).or_default();
                }
            }
            (buildings, inner.watches.contains_key(&Pattern::All))
        };
        if all {
            for building in shared.call(shared.ports.store.buildings(&self.tenant)).await? {
                buildings.entry(building).or_default();
            }
        }
        Ok(buildings)
    }

    /// Marks what is not known at all to be read, and adds to `behind` what knows less than the store; gives the gateways
    /// of which the store has known too little for too long. `mirrored` are the building's gateways that had a mirror when
    /// the round began: going through all mirrors for each building would cost their product, under the lock.
    fn compare_building(
        &self,
        mut mirrored: BTreeSet<Address>,
        stored: &BTreeMap<Address, Version>,
        behind: &mut BTreeMap<Address, Version>,
    ) -> Vec<Address> {
        mirrored.extend(stored.keys().cloned());
        let mut inner = self.inner.lock();
        let (mut unknown, mut doubtful) = (Vec::new(), Vec::new());
        for address in mirrored {
            let Some(mirror) = inner.mirrors.get_mut(&address) else {
                if stored.contains_key(&address) && inner.is_watched(&address) {
                    inner.mirrors.insert(address.clone(), Mirror::reading());
                    unknown.push(address);
                }
                continue;
            };
            let version = stored.get(&address).copied();
            match mirror.compare(version) {
                Compared::Fine => {}
                Compared::Behind => behind.extend(version.map(|version| (address, version))),
                Compared::Doubtful => doubtful.push(address),
            }
        }
        drop(inner);
        self.due.lock().extend(unknown);
        doubtful
    }

    async fn settle_doubt(&self, shared: &Shared, address: &Address) {
        let Ok(read) = shared.read(&self.key(address)).await else { return };
        let mut told = tell::Told::default();
        {
            let mut inner = self.inner.lock();
            let Some(mirror) = inner.mirrors.get_mut(address) else { return };
            let effects = mirror.believe(read.as_ref(), shared.clock.now_ms());
            if !effects.is_empty() {
                shared.metrics.doubts.inc();
            }
            inner.tell(shared, address, effects, &mut told);
        }
        told.flush();
    }
}
