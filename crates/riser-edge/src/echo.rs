//! Whether this edge's own messages come back to it through the bus: nothing else tells that its subscriptions have
//! reached the servers it is connected to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use riser_bus::Subject;
use riser_core::routed::{self, AmongEdges};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::shared::Shared;

/// How soon an edge calls again when it does not hear itself.
const AGAIN: Duration = Duration::from_millis(500);

/// What this edge heard of itself.
#[derive(Default)]
pub(crate) struct Echo {
    /// The number of the newest call that came back.
    heard: AtomicU64,
    /// One more than how often the bus had been reached again when it did; 0 before the first.
    since: AtomicU64,
    came: Notify,
}

impl Echo {
    /// A call of this edge came back.
    pub(crate) fn came(&self, n: u64) {
        self.heard.store(n, Ordering::Relaxed);
        self.came.notify_waiters();
    }

    /// Whether one came back since the bus was reached for so many times again.
    pub(crate) fn is_heard_since(&self, reconnects: u64) -> bool {
        self.since.load(Ordering::Relaxed) > reconnects
    }

    /// Waits until this call came back.
    async fn hear(&self, n: u64) {
        loop {
            let came = self.came.notified();
            if self.heard.load(Ordering::Relaxed) == n {
                return;
            }
            came.await;
        }
    }
}

/// Calls until this edge hears itself, at the start and whenever the bus was reached again.
pub(crate) async fn keep_calling(shared: Arc<Shared>) {
    let mut health = shared.ports.bus.health();
    // A number that another life of this edge did not begin with, so that its last call is not taken for an answer.
    let first = shared.lease().start;
    loop {
        let now = *health.borrow_and_update();
        if now.connected && !shared.echo.is_heard_since(now.reconnects) {
            let n = first.wrapping_add(now.reconnects);
            let me = &shared.config.id;
            let call = routed::encode(&AmongEdges::Ping { from: me.clone(), to: Some(me.clone()), n });
            shared.publish(&Subject::Edges, call).await;
            if timeout(AGAIN, shared.echo.hear(n)).await.is_ok() {
                shared.echo.since.store(now.reconnects.saturating_add(1), Ordering::Relaxed);
            }
            continue;
        }
        if health.changed().await.is_err() {
            return;
        }
    }
}
