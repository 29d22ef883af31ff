//! A log inside one process: what `riser dev` and the simulation run on. Its events are gone with the process.
//!
//! Faults ([`Faults`], [`MemoryLog::cut`]) stand between one edge's client and the store, are drawn from a seeded
//! generator, and are timed by tokio's clock. Losses ([`MemoryLog::lose`], [`MemoryLog::empty`]) and a store that is
//! full ([`MemoryLog::set_full`]) concern everybody. Tails have no delay: an event is in them when it is stored.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use riser_core::event::Event;
use riser_core::{EdgeId, GatewayKey, TenantId};

use super::{Appended, Bounds, Erased, Log, LogError, Page, Tail};

pub(crate) mod faults;
mod repeats;
mod store;
mod stream;

pub use faults::{FaultCounts, Faults};
pub use repeats::DEDUP_IDS;
pub use stream::{RETAINED_BYTES, RETAINED_EVENTS, TAILS};

use faults::{Link, Links};
use store::Store;

/// The store of one cluster. Clones are the same store.
#[derive(Clone)]
pub struct MemoryLog(Arc<Inner>);

/// One edge's connection to a [`MemoryLog`]. Clones are the same connection.
#[derive(Clone)]
pub struct MemoryLogClient {
    log: MemoryLog,
    link: Arc<Link>,
}

struct Inner {
    store: Store,
    links: Links,
}

impl MemoryLog {
    /// An empty store whose clock stands at `start_ms`, Unix milliseconds, and runs from there with tokio's.
    pub fn new(start_ms: u64) -> Self {
        Self::seeded(start_ms, 0)
    }

    /// The same; what its faults draw and the lives of its streams start from this seed.
    pub fn seeded(start_ms: u64, seed: u64) -> Self {
        Self(Arc::new(Inner { store: Store::new(start_ms, seed), links: Links::seeded(seed) }))
    }

    /// Connects an edge. Every connection of the same edge shares the faults that are set for its name.
    pub fn client(&self, edge: &EdgeId) -> MemoryLogClient {
        MemoryLogClient { log: self.clone(), link: self.0.links.of(edge) }
    }

    /// The store's clock, Unix milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.0.store.now_ms()
    }

    /// Keeps so many events of each tenant, from now on; at first these are [`RETAINED_EVENTS`].
    pub fn set_retention(&self, max_events: usize) {
        self.0.store.set_retention(max_events);
    }

    /// Whether the store has no room. It still answers repeats of what it has stored.
    pub fn set_full(&self, full: bool) {
        self.0.store.set_full(full);
    }

    /// Sets what happens to every client's calls, also to those of clients to come.
    pub fn set_faults(&self, faults: &Faults) {
        self.0.links.set_all(faults);
    }

    /// Sets what happens to one edge's calls.
    pub fn set_client_faults(&self, edge: &EdgeId, faults: Faults) {
        self.0.links.of(edge).set(faults);
    }

    /// Cuts an edge off: its tails end, and its calls do nothing and fail after `silence`, or at once when that is zero.
    pub fn cut(&self, edge: &EdgeId, silence: Duration) {
        let link = self.0.links.of(edge);
        link.set_cut(Some(silence));
        self.0.store.end_tails(|other| Arc::ptr_eq(other, &link));
    }

    /// Ends a [`MemoryLog::cut`].
    pub fn heal(&self, edge: &EdgeId) {
        self.0.links.of(edge).set_cut(None);
    }

    /// Cuts every edge off, also those to come, as when the store is down.
    pub fn cut_all(&self, silence: Duration) {
        self.0.links.cut_all(Some(silence));
        self.0.store.end_tails(|_| true);
    }

    /// Ends every cut.
    pub fn heal_all(&self) {
        self.0.links.cut_all(None);
    }

    /// Loses a tenant's stream: its tails end, and its next event begins another life.
    pub fn lose(&self, tenant: &TenantId) {
        self.0.store.lose(tenant);
    }

    /// Loses every stream.
    pub fn empty(&self) {
        self.0.store.empty();
    }

    /// How often each fault took effect, so that a test can tell that its faults happened.
    pub fn fault_counts(&self) -> FaultCounts {
        self.0.links.counts()
    }
}

impl MemoryLogClient {
    /// Sends one operation to the store and brings its answer back, as far as the faults allow.
    async fn call<T>(&self, operation: impl FnOnce(&Store) -> Result<T, LogError>) -> Result<T, LogError> {
        let Inner { store, links } = &*self.log.0;
        self.link.request(links).await?;
        let answer = operation(store);
        self.link.reply(links).await?;
        answer
    }
}

#[async_trait]
impl Log for MemoryLogClient {
    async fn append(&self, tenant: &TenantId, event: Event, dedup: Duration) -> Result<Appended, LogError> {
        self.call(|store| store.append(tenant, event, millis(dedup))).await
    }

    async fn read(&self, tenant: &TenantId, from: u64) -> Result<Page, LogError> {
        self.call(|store| Ok(store.read(tenant, from))).await
    }

    async fn bounds(&self, tenant: &TenantId) -> Result<Bounds, LogError> {
        self.call(|store| Ok(store.bounds(tenant))).await
    }

    async fn tail(&self, tenant: &TenantId) -> Result<Tail, LogError> {
        self.call(|store| store.tail(tenant, &self.link)).await
    }

    async fn erase(&self, tenant: &TenantId) -> Result<u64, LogError> {
        self.call(|store| Ok(store.lose(tenant))).await
    }

    async fn erase_gateway(&self, key: &GatewayKey, from: u64) -> Result<Erased, LogError> {
        self.call(|store| Ok(store.erase_gateway(key, from))).await
    }
}

/// Whole milliseconds of a duration; one that no clock reaches stands for the longest.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
