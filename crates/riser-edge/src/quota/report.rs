//! What tenants use of this edge, and when their API keys were used, told to the registry now and then: who wants to see what a
//! tenant uses adds up what edges told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use riser_core::TenantId;
use riser_registry::Usage;
use tokio::time::{Instant, sleep};

use super::{Meters, Use};
use crate::auth::KeyUse;
use crate::shared::Shared;

/// For how many reports' time one is known: one may be lost.
const KEPT: u32 = 3;

/// What was counted of a tenant since it was told last.
#[derive(Default)]
pub(super) struct Counted {
    frames: AtomicU64,
    bytes: AtomicU64,
    /// Nanoseconds.
    busy: AtomicU64,
}

impl Counted {
    pub(super) fn read(&self, frames: u64, bytes: u64) {
        self.frames.fetch_add(frames, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn busy(&self, time: Duration) {
        self.busy.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Use {
    /// What there is now, and what came in the time since this was called last.
    fn report(&self, over: Duration) -> Usage {
        let over = over.as_nanos().max(1);
        // Rounded up, so that what is little is not nothing.
        let rate = |counter: &AtomicU64, per: u128| {
            let rate = (u128::from(counter.swap(0, Ordering::Relaxed)) * per).div_ceil(over);
            u64::try_from(rate).unwrap_or(u64::MAX)
        };
        Usage {
            gateway_sessions: self.gateways.load(Ordering::Relaxed),
            client_sessions: self.clients.load(Ordering::Relaxed),
            // The tenant's hub counts them.
            subscriptions: 0,
            frames_per_s: rate(&self.counted.frames, 1_000_000_000),
            bytes_per_s: rate(&self.counted.bytes, 1_000_000_000),
            busy_ms_per_s: rate(&self.counted.busy, 1_000),
        }
    }
}

impl Meters {
    /// What each tenant uses. Who uses nothing is left out.
    fn report(&self, over: Duration) -> BTreeMap<TenantId, Usage> {
        let uses: Vec<Arc<Use>> = self.uses.lock().values().cloned().collect();
        let used = uses.into_iter().map(|of| (of.tenant.clone(), of.report(over)));
        used.filter(|(_, usage)| *usage != Usage::default()).collect()
    }
}

/// Tells for as long as the edge lives.
pub(crate) async fn keep(shared: Arc<Shared>, every: Duration) {
    let mut told = Instant::now();
    loop {
        sleep(every).await;
        let now = Instant::now();
        let mut usage = shared.meters.report(now - told);
        for (tenant, usage) in &mut usage {
            usage.subscriptions = shared.known_hub(tenant).map_or(0, |hub| hub.subscribed());
        }
        told = now;
        let lease = shared.lease();
        // What nobody takes is not shown; what is counted for quotas and in metrics does not hang on it.
        let _ = shared.call(shared.ports.registry.tell_usage(&lease, &usage, every * KEPT)).await;
        tell_keys(&shared).await;
    }
}

/// Tells when API keys were used. What is not taken is told with the key's next use.
async fn tell_keys(shared: &Shared) {
    let mut uses: BTreeMap<TenantId, BTreeMap<_, _>> = BTreeMap::new();
    for KeyUse { tenant, hash, at_ms } in shared.key_uses.take() {
        uses.entry(tenant).or_default().insert(hash, Some(at_ms));
    }
    for (tenant, uses) in uses {
        let _ = shared.call(shared.ports.registry.note_key_uses(&tenant, &uses)).await;
    }
}
