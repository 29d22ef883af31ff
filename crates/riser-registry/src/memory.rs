//! A registry inside one process: what `riser dev` and the simulation run on. Its data is gone with the process.
//!
//! Faults ([`Faults`], [`MemoryRegistry::cut`]) stand between one edge's client and the store, are drawn from a
//! seeded generator, and are timed by tokio's clock. Losses ([`MemoryRegistry::empty`],
//! [`MemoryRegistry::rewind`]) concern the whole store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use riser_core::command::{CommandId, Record, Step};
use riser_core::limits::Limits;
use riser_core::live::{Stream, StreamId};
use riser_core::tenant::KeyHash;
use riser_core::{
    Address, BuildingId, Change, EdgeId, Epoch, GatewayId, GatewayKey, Presence, Reason, Snapshot, TenantId, Version,
};
use tokio::time::Instant;

use crate::{
    Acquired, Applied, CommandStore, Created, Ended, Erased, Held, Lease, NewCommand, Opened, Registry, RegistryError,
    Renewed, Restored, StateStore, Stepped, StreamStore, Usage,
};

mod faults;
mod leases;
mod record;
mod shelf;
mod store;
mod streams;

pub use faults::{FaultCounts, Faults};
pub use store::Checkpoint;

use faults::{Link, Links};
use store::Store;

/// The store of one cluster. Clones are the same store.
#[derive(Clone)]
pub struct MemoryRegistry(Arc<Inner>);

/// One edge's connection to a [`MemoryRegistry`]. Clones are the same connection.
#[derive(Clone)]
pub struct MemoryClient {
    registry: MemoryRegistry,
    link: Arc<Link>,
}

struct Inner {
    clock: Clock,
    store: Store,
    links: Links,
}

/// Runs with tokio's clock, so that it stands still when a test pauses that.
struct Clock {
    start_ms: u64,
    started: Instant,
    jumped_ms: AtomicI64,
}

impl Clock {
    fn now_ms(&self) -> u64 {
        let ran = self.start_ms.saturating_add(millis(self.started.elapsed()));
        ran.saturating_add_signed(self.jumped_ms.load(Ordering::Relaxed))
    }
}

impl MemoryRegistry {
    /// An empty store whose clock stands at `start_ms`, Unix milliseconds, and runs from there.
    pub fn new(start_ms: u64) -> Self {
        Self::seeded(start_ms, 0)
    }

    /// The same; what its faults draw starts from this seed.
    pub fn seeded(start_ms: u64, seed: u64) -> Self {
        let clock = Clock { start_ms, started: Instant::now(), jumped_ms: AtomicI64::new(0) };
        Self(Arc::new(Inner { clock, store: Store::default(), links: Links::seeded(seed) }))
    }

    /// Connects an edge. Every connection of the same edge shares the faults that are set for its name.
    pub fn client(&self, edge: &EdgeId) -> MemoryClient {
        MemoryClient { registry: self.clone(), link: self.0.links.of(edge) }
    }

    /// The store's clock, Unix milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.0.clock.now_ms()
    }

    /// Makes the store's clock jump by so many milliseconds, back when negative.
    pub fn clock_jump(&self, ms: i64) {
        // What had ended by the clock before the jump stays ended after it.
        self.0.store.settle(self.now_ms());
        self.0.clock.jumped_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Sets what happens to every client's calls, also to those of clients to come.
    pub fn set_faults(&self, faults: &Faults) {
        self.0.links.set_all(faults);
    }

    /// Sets what happens to one edge's calls.
    pub fn set_client_faults(&self, edge: &EdgeId, faults: Faults) {
        self.0.links.of(edge).set(faults);
    }

    /// Cuts an edge off: its calls do nothing and fail after `silence`, or at once when that is zero.
    pub fn cut(&self, edge: &EdgeId, silence: Duration) {
        self.0.links.of(edge).set_cut(Some(silence));
    }

    /// Ends a [`MemoryRegistry::cut`].
    pub fn heal(&self, edge: &EdgeId) {
        self.0.links.of(edge).set_cut(None);
    }

    /// Cuts every edge off, also those to come, as when the store is down.
    pub fn cut_all(&self, silence: Duration) {
        self.0.links.cut_all(Some(silence));
    }

    /// Ends every cut.
    pub fn heal_all(&self) {
        self.0.links.cut_all(None);
    }

    /// Loses everything, leases included. The clock runs on.
    pub fn empty(&self) {
        self.0.store.rewind(&Checkpoint::default());
    }

    /// A copy of everything, to be gone back to.
    pub fn checkpoint(&self) -> Checkpoint {
        self.0.store.checkpoint()
    }

    /// Goes back to an older copy, as when a failover loses its tail. The clock runs on.
    pub fn rewind(&self, to: &Checkpoint) {
        self.0.store.rewind(to);
    }

    /// How often each fault took effect, so that a test can tell that its faults happened.
    pub fn fault_counts(&self) -> FaultCounts {
        self.0.links.counts()
    }
}

impl MemoryClient {
    /// Sends one operation to the store and brings its answer back, as far as the faults allow.
    async fn call<T>(&self, operation: impl FnOnce(&Store, u64) -> T) -> Result<T, RegistryError> {
        let Inner { clock, store, links } = &*self.registry.0;
        self.link.request(links).await?;
        let answer = operation(store, clock.now_ms());
        self.link.reply(links).await?;
        Ok(answer)
    }
}

#[async_trait]
impl Registry for MemoryClient {
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Renewed, RegistryError> {
        self.call(|store, now_ms| {
            let (held, edges) = store.renew(lease, millis(ttl), now_ms);
            Renewed { held, now_ms, edges }
        })
        .await
    }

    async fn drain(&self, lease: &Lease, moving: Duration) -> Result<(), RegistryError> {
        self.call(|store, now_ms| store.drain(lease, millis(moving), now_ms)).await
    }

    async fn acquire(&self, lease: &Lease, key: &GatewayKey, floor: Option<Epoch>) -> Result<Acquired, RegistryError> {
        self.call(|store, now_ms| store.acquire(lease, key, floor, now_ms)).await
    }

    async fn restore(
        &self,
        lease: &Lease,
        key: &GatewayKey,
        version: Version,
        since_ms: u64,
    ) -> Result<Restored, RegistryError> {
        self.call(|store, now_ms| store.restore(lease, key, version, since_ms, now_ms)).await
    }

    async fn release(&self, key: &GatewayKey, epoch: Epoch, reason: Reason) -> Result<Option<Ended>, RegistryError> {
        self.call(|store, now_ms| store.release(key, epoch, reason, now_ms)).await
    }

    async fn audit(&self, tenant: &TenantId, building: &BuildingId) -> Result<Vec<Held>, RegistryError> {
        self.call(|store, now_ms| store.audit(tenant, building, now_ms)).await
    }

    async fn ended_leases(&self) -> Result<Vec<(Lease, Reason)>, RegistryError> {
        self.call(Store::ended_leases).await
    }

    async fn lease_index(&self, lease: &Lease) -> Result<Vec<(TenantId, BuildingId)>, RegistryError> {
        self.call(|store, _| store.lease_index(lease)).await
    }

    async fn sweep(
        &self,
        lease: &Lease,
        reason: Reason,
        tenant: &TenantId,
        building: &BuildingId,
    ) -> Result<Vec<(GatewayId, Ended)>, RegistryError> {
        self.call(|store, now_ms| store.sweep(lease, reason, tenant, building, now_ms)).await
    }

    async fn tell_usage(
        &self,
        lease: &Lease,
        usage: &BTreeMap<TenantId, Usage>,
        ttl: Duration,
    ) -> Result<(), RegistryError> {
        self.call(|store, now_ms| store.tell_usage(lease, usage, millis(ttl), now_ms)).await
    }

    async fn usage(&self, tenant: &TenantId) -> Result<Vec<Usage>, RegistryError> {
        self.call(|store, now_ms| store.usage(tenant, now_ms)).await
    }

    async fn note_key_uses(
        &self,
        tenant: &TenantId,
        uses: &BTreeMap<KeyHash, Option<u64>>,
    ) -> Result<(), RegistryError> {
        self.call(|store, _| {
            store.note_key_uses(tenant, uses);
        })
        .await
    }

    async fn key_uses(&self, tenant: &TenantId) -> Result<BTreeMap<KeyHash, u64>, RegistryError> {
        self.call(|store, _| store.key_uses(tenant)).await
    }

    async fn forget(&self, lease: &Lease) -> Result<(), RegistryError> {
        self.call(|store, now_ms| store.forget(lease, now_ms)).await
    }

    async fn presence(
        &self,
        tenant: &TenantId,
        building: &BuildingId,
        after: Option<&GatewayId>,
        limit: usize,
    ) -> Result<Vec<(GatewayId, Presence)>, RegistryError> {
        self.call(|store, _| store.presence(tenant, building, after, limit)).await
    }

    async fn erase_gateway(&self, key: &GatewayKey) -> Result<Erased, RegistryError> {
        self.call(|store, _| store.erase_gateway(key)).await
    }

    async fn erase(&self, tenant: &TenantId) -> Result<Erased, RegistryError> {
        self.call(|store, _| store.erase(tenant)).await
    }
}

#[async_trait]
impl StateStore for MemoryClient {
    async fn apply(
        &self,
        key: &GatewayKey,
        version: Version,
        change: &Change,
        limits: &Limits,
    ) -> Result<Applied, RegistryError> {
        self.call(|store, now_ms| store.apply(key, version, change, limits, now_ms)).await
    }

    async fn read(&self, key: &GatewayKey) -> Result<Option<Snapshot>, RegistryError> {
        self.call(|store, _| store.read(key)).await
    }

    async fn versions(
        &self,
        tenant: &TenantId,
        building: &BuildingId,
    ) -> Result<Vec<(GatewayId, Version)>, RegistryError> {
        self.call(|store, _| store.versions(tenant, building)).await
    }

    async fn buildings(&self, tenant: &TenantId) -> Result<Vec<BuildingId>, RegistryError> {
        self.call(|store, _| store.buildings(tenant)).await
    }
}

#[async_trait]
impl CommandStore for MemoryClient {
    async fn create(&self, key: &GatewayKey, command: &NewCommand) -> Result<Created, RegistryError> {
        self.call(|store, now_ms| store.create(key, command, now_ms)).await
    }

    async fn step(&self, key: &GatewayKey, cmd: &CommandId, step: &Step) -> Result<Option<Stepped>, RegistryError> {
        self.call(|store, now_ms| store.step(key, cmd, step, now_ms)).await
    }

    async fn open(&self, key: &GatewayKey, after: u64, limit: usize) -> Result<Vec<Record>, RegistryError> {
        self.call(|store, _| store.open(key, after, limit)).await
    }

    async fn latest(&self, key: &GatewayKey, before: Option<u64>, limit: usize) -> Result<Vec<Record>, RegistryError> {
        self.call(|store, now_ms| store.latest(key, before, limit, now_ms)).await
    }

    async fn undecided(&self, tenant: &TenantId) -> Result<u64, RegistryError> {
        self.call(|store, _| store.undecided(tenant)).await
    }

    async fn overdue(&self, by: &EdgeId) -> Result<Vec<(TenantId, CommandId)>, RegistryError> {
        self.call(|store, now_ms| store.overdue(by, now_ms)).await
    }

    async fn adopt(&self, key: &GatewayKey, copy: &Record) -> Result<bool, RegistryError> {
        self.call(|store, now_ms| store.adopt(key, copy, now_ms)).await
    }

    async fn life(&self) -> Result<u64, RegistryError> {
        self.call(|store, _| store.life()).await
    }
}

#[async_trait]
impl StreamStore for MemoryClient {
    async fn open_stream(&self, tenant: &TenantId, stream: &Stream, ttl: Duration) -> Result<Opened, RegistryError> {
        self.call(|store, now_ms| store.open_stream(tenant, stream, millis(ttl), now_ms)).await
    }

    async fn close_stream(&self, tenant: &TenantId, of: &Address, id: StreamId) -> Result<(), RegistryError> {
        self.call(|store, _| store.close_stream(tenant, of, id)).await
    }

    async fn streams(&self, tenant: &TenantId, building: Option<&BuildingId>) -> Result<Vec<Stream>, RegistryError> {
        self.call(|store, now_ms| store.streams(tenant, building, now_ms)).await
    }
}

/// Whole milliseconds of a duration; one that no clock reaches stands for the longest.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
