//! What keeps mirrors true: reading what jumped, and comparing with the store every now and then.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use riser_core::{Address, BuildingId, Pattern, TenantId, Version};
use riser_registry::RegistryError;
use tokio::time::{Instant, sleep_until};

use super::Hub;
use super::mirror::Mirror;
use crate::presence::UNANSWERED;
use crate::shared::Shared;
use crate::ws::Pushed;

/// How long a change that the store has may be on its way to the mirror before it counts as lost. Under load messages wait
/// in the hub's inbox; reading a gateway anew because of them would owe a snapshot to each of its listeners.
const ARRIVAL: Duration = Duration::from_secs(1);
/// How long a new subscription may take to reach every server of the bus; until then what is published elsewhere does not
/// come here. The comparison of what is watched anew waits for it, and for no more than twice as long.
const SPREAD: Duration = Duration::from_secs(1);
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
    let (mut retry_at, mut fresh, mut fresh_at) = (None, BTreeSet::new(), None);
    let mut behind: VecDeque<(Instant, Versions)> = VecDeque::new();
    loop {
        let behind_at = behind.front().map(|(at, _)| *at);
        let next = [retry_at, fresh_at, behind_at].into_iter().flatten().fold(compare_at, Instant::min);
        tokio::select! {
            biased;
            () = hub.wake.notified() => {}
            () = sleep_until(next) => {}
        }
        let mut found = Versions::new();
        if hub.look.swap(false, Ordering::Relaxed) || Instant::now() >= compare_at {
            compare_at = Instant::now() + shared.config.compare;
            found = hub.compare_all(&shared).await;
        }
        if fresh_at.is_none_or(|at| at <= Instant::now()) {
            found.extend(hub.compare_some(&shared, &fresh).await);
            fresh = std::mem::take(&mut hub.inner.lock().fresh);
            fresh_at = (!fresh.is_empty()).then(|| Instant::now() + SPREAD);
        }
        if !found.is_empty() {
            behind.push_back((Instant::now() + ARRIVAL, found));
        }
        while behind.front().is_some_and(|(at, _)| *at <= Instant::now()) {
            hub.read_behind(behind.pop_front().map(|(_, lost)| lost).unwrap_or_default());
        }
        retry_at = hub.repair(&shared).await.then(|| Instant::now() + RETRY);
    }
}

/// Where the store stands with gateways whose mirrors know less.
type Versions = BTreeMap<Address, Version>;

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

    /// Compares all that is watched with the store. Gives the mirrors that know less, and asks about those of which the store
    /// has known too little for too long.
    async fn compare_all(&self, shared: &Shared) -> Versions {
        let Ok(mut mirrored) = self.watched_buildings(shared).await else { return Versions::new() };
        let (mut behind, mut doubtful) = (Versions::new(), Vec::new());
        let buildings: Vec<_> = mirrored.keys().cloned().collect();
        let take = |building: &BuildingId, stored: Versions| {
            doubtful.extend(self.find_doubtful(mirrored.remove(building).unwrap_or_default(), &stored));
            behind.extend(self.find_behind(stored));
        };
        self.read_versions(shared, buildings, take).await;
        for address in doubtful {
            if self.settle_doubt(shared, &address).await.is_err() {
                break;
            }
        }
        behind
    }

    /// Compares what these patterns name with the store, and gives the mirrors that know less. Whether the store knows too
    /// little is for [`Hub::compare_all`], whose rounds are far enough apart.
    async fn compare_some(&self, shared: &Shared, patterns: &BTreeSet<Pattern>) -> Versions {
        let mut buildings = BTreeSet::new();
        for pattern in patterns {
            match pattern {
                Pattern::One(address) => _ = buildings.insert(address.building().clone()),
                Pattern::Building(building) => _ = buildings.insert(building.clone()),
                Pattern::All => match shared.call(shared.ports.store.buildings(&self.tenant)).await {
                    Ok(all) => buildings.extend(all),
                    // The next round of all makes up for it.
                    Err(_) => return Versions::new(),
                },
            }
        }
        let mut behind = Versions::new();
        self.read_versions(shared, buildings, |_, stored| behind.extend(self.find_behind(stored))).await;
        behind
    }

    /// Gives where the store stands with each of the buildings to `take`, one read for each, until nobody answers.
    async fn read_versions(
        &self,
        shared: &Shared,
        buildings: impl IntoIterator<Item = BuildingId> + Send,
        mut take: impl FnMut(&BuildingId, Versions) + Send,
    ) {
        let mut unanswered = 0;
        for building in buildings {
            let Ok(stored) = shared.call(shared.ports.store.versions(&self.tenant, &building)).await else {
                // One building that is not answered must not keep the others from being compared.
                unanswered += 1;
                if unanswered == UNANSWERED {
                    return;
                }
                continue;
            };
            let stored = stored
                .into_iter()
                .filter_map(|(gateway, version)| Some((Address::new(building.clone(), gateway).ok()?, version)))
                .collect();
            take(&building, stored);
        }
    }

    /// Has those read that have not come to what the store knew.
    fn read_behind(&self, behind: Versions) {
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

    /// Gives those of which the mirror knows less than the store, and has those read that are watched and have no mirror.
    fn find_behind(&self, stored: Versions) -> Versions {
        let mut inner = self.inner.lock();
        let (mut unknown, mut behind) = (Vec::new(), Versions::new());
        for (address, version) in stored {
            match inner.mirrors.get(&address) {
                Some(mirror) if mirror.is_behind(Some(version)) => _ = behind.insert(address, version),
                None if inner.is_watched(&address) => {
                    inner.mirrors.insert(address.clone(), Mirror::reading());
                    unknown.push(address);
                }
                Some(_) | None => {}
            }
        }
        drop(inner);
        self.due.lock().extend(unknown);
        behind
    }

    /// Gives those of which the store has known too little for too long. `mirrored` are the building's gateways that had a
    /// mirror when the round began: going through all mirrors for each building would cost their product, under the lock.
    fn find_doubtful(&self, mirrored: BTreeSet<Address>, stored: &Versions) -> Vec<Address> {
        let mut inner = self.inner.lock();
        let mut is_doubtful = |address: &Address| {
            inner.mirrors.get_mut(address).is_some_and(|mirror| mirror.doubts(stored.get(address).copied()))
        };
        mirrored.into_iter().filter(|address| is_doubtful(address)).collect()
    }

    /// Takes what the store says of a gateway now.
    async fn settle_doubt(&self, shared: &Shared, address: &Address) -> Result<(), RegistryError> {
        let read = shared.read(&self.key(address)).await?;
        let mut pushed = Pushed::messages();
        {
            let mut inner = self.inner.lock();
            let Some(mirror) = inner.mirrors.get_mut(address) else { return Ok(()) };
            let effects = mirror.believe(read.as_ref(), shared.clock.now_ms());
            if !effects.is_empty() {
                shared.metrics.doubts.inc();
            }
            inner.tell(shared, address, effects, &mut pushed);
        }
        drop(pushed);
        Ok(())
    }
}
