//! What keeps a room true: which streams are open is compared with the store every now and then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use riser_bus::Subject;
use riser_core::BuildingId;
use riser_core::routed::{self, ToEdge};
use riser_registry::Holder;
use tokio::time::{Instant, sleep_until};

use super::REFRESH;
use super::room::{Ask, Room, building_of};
use crate::gateway::Gateway;
use crate::presence::UNANSWERED;
use crate::shared::Shared;

/// The least time between two looks, however much seems to be missing.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs as long as the edge does.
pub(super) async fn run(shared: Arc<Shared>, room: Arc<Room>) {
    let mut last: Option<Instant> = None;
    let mut answered_before = false;
    loop {
        let wait = if room.look.load(Ordering::Relaxed) { PAUSE } else { REFRESH };
        let idle = room.inner.lock().is_idle();
        let next = last.map_or_else(Instant::now, |last| last + wait);
        tokio::select! {
            biased;
            () = sleep_until(next), if !idle => {}
            () = room.wake.notified() => continue,
        }
        room.look.store(false, Ordering::Relaxed);
        last = Some(Instant::now());
        // After an outage what is open may not have been told to the store again yet.
        answered_before = compare(&shared, &room, answered_before).await;
    }
}

/// Asks the edges of openers to tell gateways of this edge of their streams, and to send them the frames.
pub(super) async fn ask_openers(shared: &Shared, asks: BTreeSet<Ask>) {
    for Ask { opener, key, epoch } in asks {
        let here = Holder { edge: shared.config.id.clone(), epoch };
        if opener == here.edge {
            shared.live.gateway_came(&key, &here);
            continue;
        }
        let notice = routed::encode(&ToEdge::Hears { edge: here.edge, epoch });
        shared.publish(&Subject::Edge(opener, key), notice).await;
    }
}

/// Asks the store what is open, one read per building. True when all was answered.
async fn compare(shared: &Shared, room: &Room, judge: bool) -> bool {
    let (scopes, mut gateways): (BTreeSet<Option<BuildingId>>, Vec<Arc<Gateway>>) = {
        let inner = room.inner.lock();
        let listened: BTreeSet<_> = inner.watches.keys().map(|to| building_of(to).cloned()).collect();
        let heard = inner.gateways.keys().map(|address| Some(address.building().clone()));
        let scopes = if listened.contains(&None) { [None].into() } else { listened.into_iter().chain(heard).collect() };
        (scopes, inner.gateways.values().cloned().collect())
    };
    let mut answered = BTreeSet::new();
    let mut unanswered = 0;
    for scope in &scopes {
        let asked_at = Instant::now();
        let read = shared.ports.streams.streams(&room.tenant, scope.as_ref());
        let Ok(open) = shared.call(read).await else {
            // One building that is not answered must not keep the others from being compared.
            unanswered += 1;
            if unanswered == UNANSWERED {
                break;
            }
            continue;
        };
        let asks = room.compared(shared, scope.as_ref(), &open, asked_at, judge);
        ask_openers(shared, asks).await;
        answered.insert(scope.clone());
    }
    gateways.retain(|g| answered.contains(&None) || answered.contains(&Some(g.key.address.building().clone())));
    let held = |gateway: &Gateway| {
        let gateways = shared.gateways.lock();
        gateways.held.get(&gateway.key).is_some_and(|held| held.session == gateway.session)
    };
    room.inner.lock().tidy(&gateways, held);
    answered.len() == scopes.len()
}
