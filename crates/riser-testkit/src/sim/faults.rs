//! What goes wrong: faults that last, drawn one after the other, and kills of edges, some of them aimed at a moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use riser_bus::log::memory as log;
use riser_bus::memory as bus;
use riser_core::EdgeId;
use riser_registry::memory as registry;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{ACTIVE, Stage, witness};
use crate::history::{Effects, Event, Fault, Who};

/// How long an aimed kill waits for its moment.
const AIM: Duration = Duration::from_secs(4);

/// A step in a command's or an event's life at which an edge may be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Commands were written to an edge.
    Issued,
    /// A command was answered `ok`.
    Accepted,
    /// An issuer was told that its command was sent.
    Sent,
    /// A gateway got a command.
    Got,
    /// A gateway said something of a command.
    Said,
    /// An issuer was told the final outcome.
    Decided,
    /// Events were written to an edge.
    Emitted,
    /// An event was answered `ok`.
    Stored,
}

impl Moment {
    const ALL: [Moment; 8] =
        [Self::Issued, Self::Accepted, Self::Sent, Self::Got, Self::Said, Self::Decided, Self::Emitted, Self::Stored];
}

pub(super) fn effects(stage: &Stage) -> Effects {
    let bus = stage.cluster.net.fault_counts();
    let registry = stage.cluster.registry.fault_counts();
    let log = stage.cluster.log.fault_counts();
    Effects {
        dropped: bus.dropped,
        delayed: bus.delayed,
        duplicated: bus.duplicated,
        early: bus.early,
        refused: registry.refused,
        lost_requests: registry.lost_requests,
        lost_replies: registry.lost_replies,
        log_refused: log.refused,
        log_lost: log.lost_requests + log.lost_replies,
    }
}

/// Lets faults happen, one or two at a time, until the active time is over.
pub(super) async fn break_things(stage: &Arc<Stage>, rng: &mut fastrand::Rng) {
    let until = Instant::now() + ACTIVE;
    let mut running: BTreeMap<u64, (Fault, Vec<EdgeId>)> = BTreeMap::new();
    let mut count = 0;
    while Instant::now() < until {
        sleep(Duration::from_millis(rng.u64(200..6_000))).await;
        let end = !running.is_empty() && (running.len() > 1 || rng.bool());
        if end {
            let nth = rng.usize(..running.len());
            let at = running.keys().nth(nth).copied();
            if let Some((fault, edges)) = at.and_then(|at| running.remove(&at)) {
                stop(stage, fault, &edges);
            }
            continue;
        }
        match rng.u8(..16) {
            5 if rng.u8(..4) == 0 => lose_events(stage, rng).await,
            0 => {
                stage.recorder.write(&Who::Faults, Event::Emptied);
                stage.cluster.registry.empty();
            }
            1 | 2 => kill_and_start(stage, rng).await,
            3 | 4 => kill_at_a_moment(stage, rng).await,
            _ => {
                let fault = start(stage, rng);
                if running.values().any(|(other, _)| *other == fault.0) {
                    continue;
                }
                begin(stage, rng, fault.0, &fault.1);
                count += 1;
                running.insert(count, fault);
            }
        }
    }
    sleep_until(until).await;
    for (fault, edges) in running.into_values() {
        stop(stage, fault, &edges);
    }
}

/// The event store loses a tenant's events; before that the witness reads them, to know what there was.
async fn lose_events(stage: &Stage, rng: &mut fastrand::Rng) {
    let tenants = stage.tenants();
    let tenant = &tenants[rng.usize(..tenants.len())];
    witness::read_events(stage, tenant).await;
    stage.recorder.write(&Who::Faults, Event::LogLost { tenant: tenant.to_string() });
    stage.cluster.log.lose(tenant);
}

async fn kill_and_start(stage: &Stage, rng: &mut fastrand::Rng) {
    let edge = rng.usize(..stage.cluster.edges());
    if stage.cluster.is_up(edge) {
        kill(stage, edge).await;
    } else {
        restart(stage, edge);
    }
}

/// Waits for a moment in the life of some command or event, kills the edge at which it comes, and starts it again.
async fn kill_at_a_moment(stage: &Stage, rng: &mut fastrand::Rng) {
    if (0..stage.cluster.edges()).filter(|&edge| stage.cluster.is_up(edge)).count() < 2 {
        return;
    }
    stage.aim.lock().at = Some(Moment::ALL[rng.usize(..Moment::ALL.len())]);
    // When the moment does not come, nothing happens.
    let _ = timeout(AIM, stage.hit.notified()).await;
    let hit = std::mem::take(&mut *stage.aim.lock()).hit;
    let Some(edge) = hit else { return };
    // Right then, or while what follows from it is under way.
    if rng.u8(..3) > 0 {
        sleep(Duration::from_millis(rng.u64(1..60))).await;
    }
    if stage.cluster.is_up(edge) {
        kill(stage, edge).await;
        sleep(Duration::from_millis(rng.u64(20..3_000))).await;
        restart(stage, edge);
    }
}

async fn kill(stage: &Stage, edge: usize) {
    let name = stage.cluster.edge_id(edge).to_string();
    stage.recorder.write(&Who::Faults, Event::Killed { edge: name });
    stage.cluster.kill_edge(edge).await;
}

fn restart(stage: &Stage, edge: usize) {
    let name = stage.cluster.edge_id(edge).to_string();
    stage.recorder.write(&Who::Faults, Event::Started { edge: name });
    stage.cluster.start_edge(edge);
}

fn start(stage: &Stage, rng: &mut fastrand::Rng) -> (Fault, Vec<EdgeId>) {
    let faults = [
        Fault::BusLossy,
        Fault::BusBlocked,
        Fault::BusCut,
        Fault::BusInterest,
        Fault::RegistryLossy,
        Fault::RegistryCut,
        Fault::RegistryDown,
        Fault::LogLossy,
        Fault::LogCut,
        Fault::LogDown,
    ];
    let fault = faults[rng.usize(..faults.len())];
    let some = |rng: &mut fastrand::Rng| stage.cluster.edge_id(rng.usize(..stage.cluster.edges())).clone();
    let edges = match fault {
        Fault::BusBlocked => vec![some(rng), some(rng)],
        Fault::BusCut | Fault::RegistryCut | Fault::LogCut => vec![some(rng)],
        _ => Vec::new(),
    };
    (fault, edges)
}

fn begin(stage: &Stage, rng: &mut fastrand::Rng, fault: Fault, edges: &[EdgeId]) {
    let names = edges.iter().map(ToString::to_string).collect();
    stage.recorder.write(&Who::Faults, Event::Begin { fault, edges: names });
    let (net, store, events) = (&stage.cluster.net, &stage.cluster.registry, &stage.cluster.log);
    let ms = Duration::from_millis;
    match (fault, edges) {
        (Fault::BusLossy, _) => net.set_faults(bus::Faults {
            drop: rng.f64() * 0.3,
            delay: ms(0)..=ms(rng.u64(1..400)),
            duplicate: rng.f64() * 0.2,
            duplicate_after: ms(1)..=ms(3_000),
        }),
        (Fault::BusBlocked, [from, to]) => net.block(from, to),
        (Fault::BusCut, [edge]) => net.cut(edge),
        (Fault::BusInterest, _) => net.set_interest_delay(ms(1)..=ms(800)),
        (Fault::RegistryLossy, _) => {
            store.set_faults(&registry::Faults {
                delay: ms(0)..=ms(rng.u64(1..300)),
                lost_request: rng.f64() * 0.15,
                lost_reply: rng.f64() * 0.15,
                ..registry::Faults::default()
            });
            // A witness whose answers are late would tell of the past.
            store.set_client_faults(&witness::id(), registry::Faults::default());
        }
        (Fault::RegistryCut, [edge]) => store.cut(edge, ms(rng.u64(0..200))),
        (Fault::LogLossy, _) => {
            events.set_faults(&log::Faults {
                delay: ms(0)..=ms(rng.u64(1..300)),
                lost_request: rng.f64() * 0.2,
                lost_reply: rng.f64() * 0.2,
                silence: ms(rng.u64(0..300)),
            });
            events.set_client_faults(&witness::id(), log::Faults::default());
        }
        (Fault::LogCut, [edge]) => events.cut(edge, ms(rng.u64(0..200))),
        (Fault::LogDown, _) => {
            events.cut_all(ms(rng.u64(0..200)));
            events.heal(&witness::id());
        }
        _ => store.cut_all(ms(rng.u64(0..200))),
    }
}

fn stop(stage: &Stage, fault: Fault, edges: &[EdgeId]) {
    stage.recorder.write(&Who::Faults, Event::End { fault });
    let (net, store, events) = (&stage.cluster.net, &stage.cluster.registry, &stage.cluster.log);
    match (fault, edges) {
        (Fault::BusLossy, _) => net.set_faults(bus::Faults::default()),
        (Fault::BusBlocked, [from, to]) => net.unblock(from, to),
        (Fault::BusCut, [edge]) => net.heal(edge),
        (Fault::BusInterest, _) => net.set_interest_delay(Duration::ZERO..=Duration::ZERO),
        (Fault::RegistryLossy, _) => store.set_faults(&registry::Faults::default()),
        (Fault::RegistryCut, [edge]) => store.heal(edge),
        (Fault::LogLossy, _) => events.set_faults(&log::Faults::default()),
        (Fault::LogCut, [edge]) => events.heal(edge),
        (Fault::LogDown, _) => events.heal_all(),
        _ => store.heal_all(),
    }
}

pub(super) async fn heal(stage: &Stage) {
    stage.cluster.net.clear_faults();
    stage.cluster.registry.heal_all();
    stage.cluster.log.heal_all();
    for edge in 0..stage.cluster.edges() {
        if !stage.cluster.is_up(edge) {
            restart(stage, edge);
        }
    }
    tokio::task::yield_now().await;
}
