//! Event stores that are wrong on purpose.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use riser_bus::log::{Appended, Bounds, Erased, Log, LogError, Page, Tail};
use riser_core::event::{Cursor, Event};
use riser_core::{GatewayKey, TenantId};

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Now and then it says that an event is stored, and forgets it.
    Forgets,
    /// What comes again is stored again.
    StoresTwice,
    /// Of the events that are read two change places.
    Reorders,
}

/// Between an edge and its event store.
pub(super) struct Wrong {
    pub(super) inner: Arc<dyn Log>,
    pub(super) fault: Fault,
    pub(super) rng: Arc<Mutex<fastrand::Rng>>,
}

#[async_trait]
impl Log for Wrong {
    async fn append(&self, tenant: &TenantId, event: Event, dedup: Duration) -> Result<Appended, LogError> {
        if self.fault == Fault::Forgets && self.rng.lock().u8(..12) == 0 {
            let Bounds { life, last, .. } = self.inner.bounds(tenant).await?;
            return Ok(Appended { cursor: Cursor { life, seq: last + 1 }, duplicate: false });
        }
        let dedup = if self.fault == Fault::StoresTwice { Duration::ZERO } else { dedup };
        self.inner.append(tenant, event, dedup).await
    }

    async fn read(&self, tenant: &TenantId, from: u64) -> Result<Page, LogError> {
        let mut page = self.inner.read(tenant, from).await?;
        if self.fault == Fault::Reorders && page.events.len() > 1 {
            let at = self.rng.lock().usize(1..page.events.len());
            let (before, after) = page.events.split_at_mut(at);
            if let Some(last) = before.last_mut() {
                std::mem::swap(&mut last.event, &mut after[0].event);
            }
        }
        Ok(page)
    }

    async fn bounds(&self, tenant: &TenantId) -> Result<Bounds, LogError> {
        self.inner.bounds(tenant).await
    }

    async fn tail(&self, tenant: &TenantId) -> Result<Tail, LogError> {
        self.inner.tail(tenant).await
    }

    async fn erase(&self, tenant: &TenantId) -> Result<u64, LogError> {
        self.inner.erase(tenant).await
    }

    async fn erase_gateway(&self, key: &GatewayKey, from: u64) -> Result<Erased, LogError> {
        self.inner.erase_gateway(key, from).await
    }
}
