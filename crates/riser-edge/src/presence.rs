//! What keeps presence true: this edge's lease, the audit of its own gateways, and the sweeping of dead edges.
//!
//! An edge holds one lease. When it ends, one of the others marks the gateways offline that it held. The audit makes
//! good what can be lost: take-over notices, an emptied registry, a failover's tail, the answer to an acquire.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt;
use riser_bus::{Delivery, Subject};
use riser_core::routed::{self, AmongEdges, RoutedError, ToEdge};
use riser_core::{Address, BuildingId, CloseCode, EdgeId, Epoch, GatewayKey, Reason, TenantId};
use riser_registry::{Held, Holder, Lease, Renewed};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, interval};

use crate::commands::{self, desk};
use crate::metrics::Ignored;
use crate::open::{release, tell_offline};
use crate::shared::Shared;

/// After how many unanswered calls a round is given up: then it is not one building, it is the registry.
pub(crate) const UNANSWERED: u32 = 3;
/// How many sessions are registered again at once.
const AT_ONCE: usize = 32;
/// Over how long an edge that lost the registry alone spreads the closes of its gateways.
const FENCE_WINDOW: Duration = Duration::from_secs(3);

/// For how long after an outage sessions are restored as ones that may have been told as gone: several audits.
const RAN_OUT: Duration = Duration::from_secs(30);

/// Where this edge stands with the registry.
pub(crate) struct LeaseState {
    pub(crate) lease: Lease,
    /// When a renewal was answered last.
    answered: Option<Instant>,
    /// Since when every renewal has been answered.
    answering_since: Option<Instant>,
    /// When this edge found that it had been silent for longer than a lease: its gateways may have been told as gone.
    ran_out: Option<Instant>,
    /// When a peer said that it can renew while this edge could not.
    peer_can: Option<Instant>,
    fenced: bool,
}

impl LeaseState {
    pub(crate) fn new(lease: Lease) -> Self {
        Self { lease, answered: None, answering_since: None, ran_out: None, peer_can: None, fenced: false }
    }

    /// Whether what this edge holds may have been told as gone, so that it must be told anew.
    pub(crate) fn may_have_been_swept(&self) -> bool {
        self.ran_out.is_some_and(|at| at.elapsed() < RAN_OUT)
    }

    /// For how long the registry has not answered; none when it never did.
    pub(crate) fn silent_for(&self) -> Option<Duration> {
        self.answered.map(|at| at.elapsed())
    }
}

/// Renews the lease as long as the edge lives.
pub(crate) async fn keep_lease(shared: Arc<Shared>) {
    let mut tick = interval(shared.config.renew);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if shared.is_draining() {
            return;
        }
        let lease = shared.lease();
        match shared.call(shared.ports.registry.renew(&lease, shared.config.lease)).await {
            Ok(renewed) => renewed_lease(&shared, renewed).await,
            Err(_) => not_renewed(&shared).await,
        }
    }
}

async fn renewed_lease(shared: &Arc<Shared>, renewed: Renewed) {
    shared.clock.set(renewed.now_ms);
    shared.meters.set_edges(renewed.edges, &shared.table());
    shared.metrics.quotas.edges.set(i64::try_from(renewed.edges).unwrap_or(i64::MAX));
    let first = {
        let mut state = shared.lease.lock();
        let first = state.answered.is_none();
        if state.silent_for().is_some_and(|silent| silent >= shared.config.lease) {
            state.ran_out = Some(Instant::now());
        }
        state.answered = Some(Instant::now());
        state.answering_since.get_or_insert_with(Instant::now);
        state.peer_can = None;
        state.fenced = false;
        first
    };
    if first || renewed.held {
        shared.set_registered(true);
        return;
    }
    // The lease ended or was lost. A new number keeps what a sweeper does to the old one from the sessions that are
    // registered under the new one.
    shared.metrics.lease_lost.inc();
    tracing::warn!(edge = %shared.config.id, "the registry does not know this edge's lease; registering again");
    shared.set_registered(false);
    let lease = Lease { edge: shared.config.id.clone(), start: shared.next_start() };
    shared.lease.lock().lease = lease.clone();
    let _ = shared.call(shared.ports.registry.renew(&lease, shared.config.lease)).await;
    // In a task of its own, because the new lease has to be renewed meanwhile.
    let again = shared.clone();
    shared.tasks.spawn(async move {
        audit_all(&again).await;
        again.set_registered(true);
    });
}

async fn not_renewed(shared: &Arc<Shared>) {
    let (alone, fence) = {
        let mut state = shared.lease.lock();
        state.answering_since = None;
        let silent = state.silent_for().unwrap_or_default();
        let peer = state.peer_can.is_some_and(|at| at.elapsed() < shared.config.lease);
        let fence = silent >= shared.config.lease && peer && !state.fenced;
        state.fenced |= fence;
        (silent >= shared.config.lease / 2, fence)
    };
    if alone {
        let question = routed::encode(&AmongEdges::CanYouRenew { from: shared.config.id.clone() });
        shared.publish(&Subject::Edges, question).await;
    }
    if fence {
        tracing::warn!(edge = %shared.config.id, "other edges reach the registry and this one does not: its gateways are sent away");
        let (shared, gateways) = (shared.clone(), held(shared));
        shared.clone().tasks.spawn(async move {
            let pause = FENCE_WINDOW / u32::try_from(gateways.len().max(1)).unwrap_or(u32::MAX);
            for gateway in gateways {
                gateway.conn.close(CloseCode::Drain.number(), "{\"retry_after_ms\":1000}");
                tokio::time::sleep(pause).await;
            }
        });
    }
}

fn held(shared: &Shared) -> Vec<Arc<crate::gateway::Gateway>> {
    shared.gateways.lock().held.values().cloned().collect()
}

/// Compares what this edge holds with what the registry thinks it holds, as long as the edge lives.
pub(crate) async fn keep_audit(shared: Arc<Shared>) {
    let mut tick = interval(shared.config.audit);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        audit_all(&shared).await;
    }
}

async fn audit_all(shared: &Arc<Shared>) {
    let lease = shared.lease();
    let Ok(index) = shared.call(shared.ports.registry.lease_index(&lease)).await else { return };
    let mut buildings: BTreeMap<(TenantId, BuildingId), BTreeSet<GatewayKey>> =
        index.into_iter().map(|building| (building, BTreeSet::new())).collect();
    {
        // Once for the round: going through all gateways for each building would cost their product, under the lock.
        let gateways = shared.gateways.lock();
        for key in gateways.held.keys().chain(gateways.ending.keys()) {
            let building = (key.tenant.clone(), key.address.building().clone());
            buildings.entry(building).or_default().insert(key.clone());
        }
    }
    let mut unanswered = 0;
    for ((tenant, building), keys) in buildings {
        let Ok(records) = shared.call(shared.ports.registry.audit(&tenant, &building)).await else {
            // One building that is not answered must not keep the others from their audit.
            unanswered += 1;
            if unanswered == UNANSWERED {
                return;
            }
            continue;
        };
        let of = |record: &Held| Address::new(building.clone(), record.gateway.clone()).ok();
        let key_of = |record: &Held| of(record).map(|address| GatewayKey::new(tenant.clone(), address));
        let records = records.into_iter().filter_map(|r| Some((key_of(&r)?, r))).collect();
        audit_building(shared, &lease, &keys, &records).await;
    }
}

/// Compares one building's gateways, those that were here when the round began, as they are now.
async fn audit_building(
    shared: &Arc<Shared>,
    lease: &Lease,
    keys: &BTreeSet<GatewayKey>,
    records: &BTreeMap<GatewayKey, Held>,
) {
    let (ours, ending): (Vec<_>, Vec<_>) = {
        let gateways = shared.gateways.lock();
        // One that was not welcomed yet has just been acquired.
        let ours =
            keys.iter().filter_map(|key| gateways.held.get(key).filter(|gateway| gateway.is_welcomed()).cloned());
        let ending = keys.iter().filter_map(|key| Some((key.clone(), *gateways.ending.get(key)?)));
        (ours.collect(), ending.collect())
    };
    let mut lost = Vec::new();
    for gateway in ours {
        match records.get(&gateway.key) {
            Some(record) if record.version.epoch > gateway.epoch => gateway.taken_over(),
            Some(record) if record.version.epoch == gateway.epoch && record.lease.is_none() => {
                gateway.fenced(shared, None);
            }
            Some(record)
                if record.version >= gateway.version()
                    && record.lease.as_ref() == Some(lease)
                    && !gateway.is_unsure() =>
            {
                gateway.ask_again(shared);
                if record.unsent > 0 && gateway.desk.is_idle() {
                    // A hint was lost.
                    desk::everything(shared, &gateway);
                }
            }
            _ => lost.push(gateway),
        }
    }
    let restored = futures_util::stream::iter(lost);
    restored.for_each_concurrent(AT_ONCE, |gateway| async move { gateway.restore_soon(shared).await }).await;
    for (key, (epoch, reason)) in ending {
        release(shared, &key, epoch, reason).await;
    }
    if shared.is_draining() {
        // What is not held any more is moving, and the registry keeps it online meanwhile.
        return;
    }
    for (key, record) in records.iter().filter(|(_, r)| r.lease.as_ref() == Some(lease)) {
        let nobody = {
            let gateways = shared.gateways.lock();
            !gateways.held.contains_key(key)
                && !gateways.opening.contains_key(key)
                && !gateways.ending.contains_key(key)
        };
        if nobody {
            release(shared, key, record.version.epoch, Reason::Error).await;
        }
    }
}

/// Marks offline what ended leases held, as long as the edge lives.
pub(crate) async fn keep_sweeping(shared: Arc<Shared>) {
    let mut tick = interval(shared.config.sweep);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        // After an outage every lease looks ended until its edge has had the time to renew it.
        let steady = shared.lease.lock().answering_since.is_some_and(|at| at.elapsed() >= shared.config.lease);
        if steady && !shared.is_draining() {
            sweep(&shared).await;
        }
    }
}

async fn sweep(shared: &Shared) {
    let Ok(ended) = shared.call(shared.ports.registry.ended_leases()).await else { return };
    let mut unanswered = 0;
    for (lease, reason) in ended {
        let Ok(index) = shared.call(shared.ports.registry.lease_index(&lease)).await else { return };
        let mut whole = true;
        for (tenant, building) in index {
            let sweep = shared.ports.registry.sweep(&lease, reason, &tenant, &building);
            let Ok(swept) = shared.call(sweep).await else {
                // It stays in the lease's index, and the next round comes to it again.
                whole = false;
                unanswered += 1;
                if unanswered == UNANSWERED {
                    return;
                }
                continue;
            };
            for (gateway, ended) in swept {
                let Ok(address) = Address::new(building.clone(), gateway) else { continue };
                shared.metrics.swept.inc();
                shared.metrics.ended(ended.reason);
                tell_offline(shared, &GatewayKey::new(tenant.clone(), address), &ended).await;
            }
        }
        if !whole || shared.call(shared.ports.registry.forget(&lease)).await.is_err() {
            continue;
        }
        tracing::info!(edge = %lease.edge, reason = reason.as_str(), "swept an ended lease");
    }
}

/// Takes what other edges say to this one.
pub(crate) async fn listen(shared: Arc<Shared>, mut inbox: mpsc::Receiver<Delivery>) {
    while let Some(Delivery { subject, payload }) = inbox.recv().await {
        let understood = match subject {
            Subject::Edge(_, key) => match routed::decode::<ToEdge>(&payload) {
                Ok(ToEdge::TakenOver { epoch }) => {
                    taken_over(&shared, &key, epoch);
                    Ok(())
                }
                Ok(ToEdge::Kick { epoch }) => {
                    kicked(&shared, &key, epoch);
                    Ok(())
                }
                Ok(ToEdge::Hears { edge, epoch }) => {
                    shared.live.gateway_came(&key, &Holder { edge, epoch });
                    Ok(())
                }
                Ok(message) => {
                    commands::take(&shared, &key, message).await;
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Subject::Edges => match routed::decode::<AmongEdges>(&payload) {
                Ok(message) => {
                    among_edges(&shared, message).await;
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Subject::Up(_) | Subject::Live(_) | Subject::EdgeLive(..) => Ok(()),
        };
        match understood {
            Ok(()) => {}
            Err(RoutedError::Version) => shared.metrics.bus_ignored(Ignored::Version),
            Err(RoutedError::Malformed) => shared.metrics.bus_ignored(Ignored::Malformed),
        }
    }
}

fn taken_over(shared: &Shared, key: &GatewayKey, epoch: Epoch) {
    let older = shared.gateways.lock().held.get(key).filter(|g| g.epoch < epoch).cloned();
    if let Some(gateway) = older {
        gateway.taken_over();
    }
}

fn kicked(shared: &Shared, key: &GatewayKey, epoch: Epoch) {
    let held = shared.gateways.lock().held.get(key).filter(|gateway| gateway.epoch == epoch).cloned();
    if let Some(gateway) = held {
        gateway.kick(shared);
    }
}

async fn among_edges(shared: &Shared, message: AmongEdges) {
    let me: &EdgeId = &shared.config.id;
    match message {
        AmongEdges::CanYouRenew { from } if from != *me => {
            let can = shared.lease.lock().silent_for().is_some_and(|silent| silent < shared.config.renew * 2);
            if can {
                shared.publish(&Subject::Edges, routed::encode(&AmongEdges::ICan { to: from })).await;
            }
        }
        AmongEdges::ICan { to } if to == *me => shared.lease.lock().peer_can = Some(Instant::now()),
        AmongEdges::Ping { from, to, n } if from == *me && to.as_ref() == Some(me) => shared.echo.came(n),
        AmongEdges::Ping { from, to, n } if from != *me && to.as_ref().is_none_or(|to| to == me) => {
            let pong = AmongEdges::Pong { from: me.clone(), to: from, n };
            shared.publish(&Subject::Edges, routed::encode(&pong)).await;
        }
        _ => {}
    }
}
