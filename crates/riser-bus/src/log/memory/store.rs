//! The streams of all tenants, and the locks around them.
//!
//! A tenant has one lock, which makes each operation on its stream atomic: an event gets its number, is kept and is put
//! into the tails in one step, and a tail begins between two events.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use riser_core::event::Event;
use riser_core::{GatewayKey, TenantId};
use tokio::time::Instant;

use super::faults::Link;
use super::millis;
use super::stream::{RETAINED_EVENTS, Stream};
use crate::log::{Appended, Bounds, Erased, LogError, Page, Stored, Tail};

/// The data behind all clients.
pub(super) struct Store {
    start_ms: u64,
    /// The clock runs with tokio's, so that it stands still when a test pauses that.
    started: Instant,
    lives: Mutex<Rng>,
    /// Who holds the outer lock for writing has everything to himself.
    tenants: RwLock<Tenants>,
}

struct Tenants {
    full: bool,
    max_events: usize,
    /// A tenant is here when it has a stream or a tail, or had one.
    streams: BTreeMap<TenantId, Mutex<Stream>>,
}

impl Store {
    pub(super) fn new(start_ms: u64, seed: u64) -> Self {
        let tenants = Tenants { full: false, max_events: RETAINED_EVENTS, streams: BTreeMap::new() };
        let lives = Mutex::new(Rng::with_seed(seed));
        Self { start_ms, started: Instant::now(), lives, tenants: RwLock::new(tenants) }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.start_ms.saturating_add(millis(self.started.elapsed()))
    }

    pub(super) fn set_retention(&self, max_events: usize) {
        let tenants = &mut *self.tenants.write();
        tenants.max_events = max_events;
        tenants.streams.values_mut().for_each(|stream| stream.get_mut().retain(max_events));
    }

    pub(super) fn set_full(&self, full: bool) {
        self.tenants.write().full = full;
    }

    pub(super) fn append(&self, tenant: &TenantId, event: Event, dedup_ms: u64) -> Result<Appended, LogError> {
        self.make(tenant, |stream, tenants| {
            // Read under the lock, so that times are in the order of numbers.
            let now_ms = self.now_ms();
            if let Some(appended) = stream.repeated(&event, dedup_ms, now_ms) {
                return Ok(appended);
            }
            if tenants.full {
                return Err(LogError::Full);
            }
            let appended = stream.store(event, now_ms, || self.lives.lock().u64(1..));
            stream.retain(tenants.max_events);
            Ok(appended)
        })
    }

    pub(super) fn read(&self, tenant: &TenantId, from: u64) -> Page {
        let found = self.find(tenant, |stream| (stream.bounds(), stream.page(from)));
        let (bounds, events) = found.unwrap_or_default();
        // Copied outside the lock, so that a page of large events does not hold up those who append.
        let stored = |(seq, event): (u64, Arc<Event>)| Stored { seq, event: (*event).clone() };
        Page { bounds, events: events.into_iter().map(stored).collect() }
    }

    pub(super) fn bounds(&self, tenant: &TenantId) -> Bounds {
        self.find(tenant, |stream| stream.bounds()).unwrap_or_default()
    }

    pub(super) fn tail(&self, tenant: &TenantId, link: &Arc<Link>) -> Result<Tail, LogError> {
        self.make(tenant, |stream, _| stream.tail(link))
    }

    /// Ends the tails of these links, of all tenants.
    pub(super) fn end_tails(&self, of: impl Fn(&Arc<Link>) -> bool) {
        self.tenants.read().streams.values().for_each(|stream| stream.lock().end_tails(&of));
    }

    /// Loses a tenant's stream, and gives how many events it held.
    pub(super) fn lose(&self, tenant: &TenantId) -> u64 {
        self.tenants.write().streams.remove(tenant).map_or(0, |stream| stream.into_inner().len())
    }

    pub(super) fn erase_gateway(&self, key: &GatewayKey, from: u64) -> Erased {
        self.find(&key.tenant, |stream| stream.erase(&key.address, from)).unwrap_or_default()
    }

    pub(super) fn empty(&self) {
        self.tenants.write().streams.clear();
    }

    /// Does something to a tenant's stream, if the tenant is known.
    fn find<T>(&self, tenant: &TenantId, operation: impl FnOnce(&mut Stream) -> T) -> Option<T> {
        self.tenants.read().streams.get(tenant).map(|stream| operation(&mut stream.lock()))
    }

    /// Does something to a tenant's stream, and makes the tenant known.
    fn make<T>(&self, tenant: &TenantId, operation: impl FnOnce(&mut Stream, &Tenants) -> T) -> T {
        let tenants = self.tenants.read();
        if let Some(stream) = tenants.streams.get(tenant) {
            return operation(&mut stream.lock(), &tenants);
        }
        drop(tenants);
        let mut tenants = self.tenants.write();
        tenants.streams.entry(tenant.clone()).or_default();
        let tenants = RwLockWriteGuard::downgrade(tenants);
        // Nobody came in between who could have removed it.
        operation(&mut tenants.streams[tenant].lock(), &tenants)
    }
}
