//! What keeps a room true: which streams are open is compared with the store every now and then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use riser_bus::Subject;
use riser_core::BuildingId;
use riser_core::live::Stream;
use riser_core::routed::{self, ToEdge};
use riser_registry::Holder;
use tokio::time::{Instant, sleep_until};

use super::REFRESH;
use super::room::{Room, building_of};
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

/// Tells the edges of openers where the gateways are that hear them: a gateway that came or moved must not wait for the
/// opener's edge to ask the store again.
async fn tell_openers(shared: &Shared, open: &[Stream], gateways: &[Arc<Gateway>]) {
    for gateway in gateways {
        let edges: BTreeSet<_> = open.iter().filter(|s| s.of == gateway.key.address).map(|s| &s.edge).collect();
        let here = Holder { edge: shared.config.id.clone(), epoch: gateway.epoch };
        for edge in edges {
            if *edge == here.edge {
                shared.live.gateway_moved(&gateway.key, &here);
                continue;
            }
            let notice = routed::encode(&ToEdge::Hears { edge: here.edge.clone(), epoch: here.epoch });
            shared.publish(&Subject::Edge(edge.clone(), gateway.key.clone()), notice).await;
        }
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
        // First, so that what is said once the gateway has heard of a stream finds it.
        tell_openers(shared, &open, &gateways).await;
        room.compared(shared, scope.as_ref(), &open, asked_at, judge);
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
