//! How a pattern comes to be watched: subscribed to at the bus first, and its gateways read from the store after.
//!
//! Patterns are loaded beside one another, so that one which the store is slow with does not hold up the others; a
//! pattern is loaded once, whoever asks for it meanwhile.

use futures_util::stream::{FuturesUnordered, StreamExt};
use indexmap::IndexMap;
use riser_bus::Filter;
use riser_core::{Address, Pattern};
use tokio::sync::watch;
use tokio::time::timeout;

use super::mirror::Mirror;
use super::names::building_of;
use super::{Hub, SubscribeError, Watch, keeper};
use crate::presence::UNANSWERED;
use crate::shared::Shared;

/// Reads of the store that one hub has under way at once.
pub(super) const READS: usize = 32;
/// Patterns that one hub loads at once. Each asks the store for one building at a time, so that a tenant's dashboards
/// that all come back at once do not all ask it at once.
pub(super) const LOADS: usize = 64;

/// What came of loading a pattern.
pub(super) type Loaded = Result<(), SubscribeError>;

impl Hub {
    /// Sees to it that the pattern is subscribed to and all its gateways are mirrored, and pins it. Who comes while it
    /// is being loaded waits for that load and shares its failure, so that nobody waits for many calls in a row.
    pub(super) async fn watch(&self, shared: &Shared, to: &Pattern) -> Loaded {
        loop {
            let (outcome, under_way) = {
                let mut inner = self.inner.lock();
                // A load that panicked leaves a channel without a sender.
                let load = inner.loads.get(to).filter(|load| load.has_changed().is_ok()).cloned();
                match (load, inner.watches.get_mut(to)) {
                    (Some(load), _) => (None, load),
                    (None, Some(watch)) => {
                        watch.pinned += 1;
                        return Ok(());
                    }
                    (None, None) => {
                        let (outcome, load) = watch::channel(None);
                        inner.loads.insert(to.clone(), load.clone());
                        (Some(outcome), load)
                    }
                }
            };
            let Some(outcome) = outcome else {
                outcome_of(under_way).await?;
                continue;
            };
            let loaded = self.begin(shared, to).await;
            if loaded.is_ok() {
                self.names.settled(to, &self.tenant).await;
            }
            let mut inner = self.inner.lock();
            inner.loads.remove(to);
            match loaded {
                Ok(()) => _ = inner.fresh.insert(to.clone()),
                Err(_) => inner.unload(to),
            }
            drop(inner);
            self.wake.notify_one();
            let _ = outcome.send(Some(loaded));
            return loaded;
        }
    }

    /// Begins a watch: subscribes first, reads after.
    async fn begin(&self, shared: &Shared, to: &Pattern) -> Loaded {
        let unavailable = |_| SubscribeError::Unavailable;
        let place = timeout(shared.config.answer, self.loading.acquire()).await.map_err(unavailable)?;
        let filter = Filter::Up(self.tenant.clone(), to.clone());
        let subscription = timeout(shared.config.call, shared.ports.bus.subscribe(&filter, &self.inbox)).await;
        let Ok(Ok(subscription)) = subscription else { return Err(SubscribeError::Unavailable) };
        let watch = Watch { seats: IndexMap::new(), pinned: 1, _subscription: subscription };
        self.inner.lock().watches.insert(to.clone(), watch);
        let loaded = self.load(shared, to).await;
        drop(place);
        loaded
    }

    async fn load(&self, shared: &Shared, to: &Pattern) -> Loaded {
        let addresses = keeper::addresses(shared, &self.tenant, to).await.map_err(|_| SubscribeError::Unavailable)?;
        // Also those of a building of which the store knows nothing: its first gateway is called by its name as well.
        self.names.want(building_of(to).into_iter().chain(addresses.iter().map(Address::building)));
        let (mut new, mut elsewhere) = (Vec::new(), Vec::new());
        {
            let mut inner = self.inner.lock();
            for address in addresses {
                match inner.mirrors.get(&address) {
                    None => {
                        inner.mirrors.insert(address.clone(), Mirror::reading());
                        new.push(address);
                    }
                    Some(mirror) if mirror.is_unread() => elsewhere.push(address),
                    Some(_) => {}
                }
            }
        }
        let unread = self.read_all(shared, new).await;
        if unread.is_empty() {
            return self.read_elsewhere(shared, elsewhere).await;
        }
        // Another watch may cover them, and then they must not stay unread.
        self.due.lock().extend(unread);
        self.wake.notify_one();
        Err(SubscribeError::Unavailable)
    }

    /// Waits for mirrors that another load reads, each in its turn: two reads of one mirror could cross.
    async fn read_elsewhere(&self, shared: &Shared, addresses: Vec<Address>) -> Loaded {
        for address in addresses {
            let read = async {
                loop {
                    let installed = self.installed.notified();
                    if !self.inner.lock().mirrors.get(&address).is_some_and(Mirror::is_unread) {
                        return;
                    }
                    installed.await;
                }
            };
            timeout(shared.config.answer, read).await.map_err(|_| SubscribeError::Unavailable)?;
        }
        Ok(())
    }

    /// Reads mirrors anew, a few at once; gives back those for which nobody answered. When nobody answers several it
    /// is the store, and the rest is not asked for; what was not asked for comes first.
    pub(super) async fn read_all(&self, shared: &Shared, addresses: impl IntoIterator<Item = Address>) -> Vec<Address> {
        let mut rest = addresses.into_iter();
        let mut reads = FuturesUnordered::new();
        let mut unanswered = Vec::new();
        loop {
            while reads.len() < READS
                && unanswered.len() < UNANSWERED as usize
                && let Some(address) = rest.next()
            {
                let key = self.key(&address);
                reads.push(async move {
                    // It is never closed; all loads of the tenant together keep to it.
                    let _place = self.reading.acquire().await;
                    let phase = self.inner.lock().mirrors.get(&address).and_then(Mirror::phase);
                    match phase {
                        Some(phase) => Some((shared.read(&key).await, address, phase)),
                        // It was read meanwhile, or nobody watches it any more.
                        None => None,
                    }
                });
            }
            match reads.next().await {
                Some(Some((Ok(snapshot), address, phase))) => self.install(shared, &address, snapshot, &phase),
                Some(Some((Err(_), address, _))) => unanswered.push(address),
                Some(None) => {}
                None => return rest.chain(unanswered).collect(),
            }
        }
    }
}

/// Waits for a load that somebody else makes.
async fn outcome_of(mut load: watch::Receiver<Option<Loaded>>) -> Loaded {
    match load.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(loaded)) => *loaded,
        _ => Err(SubscribeError::Unavailable),
    }
}
