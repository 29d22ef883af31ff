//! The simulation: one seed, one history. Peers live on a cluster while faults happen; then everything is healed, and
//! after a quiet time what everybody knows must be the truth.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use riser_bus::memory as bus;
use riser_core::{EdgeId, GatewayKey, TenantId};
use riser_edge::EdgeConfig;
use riser_registry::StateStore;
use riser_registry::memory::{self as registry, MemoryClient};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::{Cluster, ClusterConfig, Decorate};
use crate::history::{Body, Effects, Event, Fault, Line, Recorder, Stored, Who};
use crate::peer::{ClientPlan, GatewayPlan, Link, run_client, run_gateway};

/// How long faults happen.
const ACTIVE: Duration = Duration::from_secs(60);
/// How long nothing happens any more: more than a lease, an audit, three comparisons and two heartbeats.
const QUIET: Duration = Duration::from_secs(75);
/// Where the registry's clock starts: some day, the same for every seed.
const START_MS: u64 = 1_700_000_000_000;
/// The gateways of each tenant. Tenants share addresses, so that a mistaken tenant shows.
const ADDRESSES: [&str; 3] = ["b1/g1", "b1/g2", "b2/g1"];
const TENANTS: [&str; 2] = ["acme", "bolt"];
const CLIENTS: usize = 2;

/// What the peers and the faults stand on.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) recorder: Recorder,
    quiet: AtomicBool,
    silent: Mutex<Vec<Link>>,
}

impl Stage {
    /// Whether the faults are over and nobody starts anything new.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Relaxed)
    }

    /// Some edge that runs.
    pub(crate) fn any_edge(&self, rng: &mut fastrand::Rng) -> Option<usize> {
        let up: Vec<usize> = (0..self.cluster.edges()).filter(|&e| self.cluster.is_up(e)).collect();
        (!up.is_empty()).then(|| up[rng.usize(..up.len())])
    }

    /// Keeps a connection that nobody serves any more: its edge hears neither data nor an end.
    pub(crate) fn keep_silent(&self, link: Link) {
        self.silent.lock().push(link);
    }
}

/// Runs one seed on a cluster whose ports are decorated, and gives its history.
pub fn run(seed: u64, decorate: Decorate) -> Vec<Line> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    // Without I/O there is nothing that can fail.
    let runtime = runtime.expect("a runtime without I/O");
    runtime.block_on(simulate(seed, decorate))
}

/// The ports as they are.
pub fn undecorated() -> Decorate {
    Arc::new(|_, ports| ports)
}

fn tune(config: &mut EdgeConfig) {
    // More sessions and more lost pings in the same time; nothing else is shortened.
    config.heartbeat = Duration::from_secs(4);
}

async fn simulate(seed: u64, decorate: Decorate) -> Vec<Line> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let tenants: Vec<TenantId> = TENANTS.iter().filter_map(|name| name.parse().ok()).collect();
    let edges = rng.usize(2..4);
    let config =
        ClusterConfig { edges, tenants: tenants.clone(), start_ms: START_MS, seed: rng.u64(..), tune, decorate };
    let stage = Arc::new(Stage {
        recorder: Recorder::start(),
        cluster: Cluster::start(config),
        quiet: AtomicBool::new(false),
        silent: Mutex::default(),
    });
    sleep(Duration::from_secs(1)).await;
    let mut peers = JoinSet::new();
    let mut keys = Vec::new();
    for tenant in &tenants {
        let canary = format!("{tenant}-{:x}", rng.u64(..));
        for address in ADDRESSES.iter().filter_map(|a| a.parse().ok()) {
            let key = GatewayKey::new(tenant.clone(), address);
            keys.push(key.clone());
            let plan = GatewayPlan { key, canary: canary.clone(), seed: rng.u64(..) };
            peers.spawn(run_gateway(stage.clone(), plan));
        }
        for i in 0..CLIENTS {
            let plan = ClientPlan { tenant: tenant.clone(), name: format!("client-{i}"), seed: rng.u64(..) };
            peers.spawn(run_client(stage.clone(), plan));
        }
    }
    let witness = stage.cluster.registry.client(&witness_id());
    peers.spawn(witness_store(stage.clone(), witness.clone(), keys.clone(), rng.u64(..)));
    break_things(&stage, &mut rng).await;
    heal(&stage).await;
    stage.quiet.store(true, Ordering::Relaxed);
    stage.recorder.write(&Who::Faults, Event::Quiet);
    sleep(QUIET).await;
    for key in &keys {
        read(&stage, &witness, key).await;
    }
    stage.recorder.write(&Who::Faults, Event::Over { effects: effects(&stage) });
    let lines = stage.recorder.take();
    peers.shutdown().await;
    lines
}

fn witness_id() -> EdgeId {
    "witness".parse().expect("a good name")
}

async fn witness_store(stage: Arc<Stage>, witness: MemoryClient, keys: Vec<GatewayKey>, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    loop {
        sleep(Duration::from_millis(rng.u64(20..400))).await;
        read(&stage, &witness, &keys[rng.usize(..keys.len())]).await;
    }
}

/// Writes down what the store says of a gateway, past every edge.
async fn read(stage: &Stage, witness: &MemoryClient, key: &GatewayKey) {
    // A witness that is not answered has seen nothing.
    let Ok(found) = witness.read(key).await else { return };
    let found = found.map(|snapshot| Stored {
        online: snapshot.presence.online,
        epoch: snapshot.version.epoch.0,
        rev: snapshot.version.rev.0,
        stale: snapshot.state.values.iter().filter(|(_, v)| v.stale).map(|(p, _)| p.to_string()).collect(),
        values: snapshot
            .state
            .values
            .iter()
            .filter_map(|(p, v)| Some((p.to_string(), body(v.value.as_str())?)))
            .collect(),
    });
    let event = Event::Read { tenant: key.tenant.to_string(), of: key.address.to_string(), found };
    stage.recorder.write(&Who::Store, event);
}

fn body(json: &str) -> Option<Body> {
    serde_json::from_str(json).ok()
}

fn effects(stage: &Stage) -> Effects {
    let bus = stage.cluster.net.fault_counts();
    let registry = stage.cluster.registry.fault_counts();
    Effects {
        dropped: bus.dropped,
        delayed: bus.delayed,
        duplicated: bus.duplicated,
        early: bus.early,
        refused: registry.refused,
        lost_requests: registry.lost_requests,
        lost_replies: registry.lost_replies,
    }
}

/// Lets faults happen, one or two at a time, until the active time is over.
async fn break_things(stage: &Arc<Stage>, rng: &mut fastrand::Rng) {
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
        match rng.u8(..10) {
            0 => {
                stage.recorder.write(&Who::Faults, Event::Emptied);
                stage.cluster.registry.empty();
            }
            1 | 2 => kill_and_start(stage, rng).await,
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

async fn kill_and_start(stage: &Stage, rng: &mut fastrand::Rng) {
    let edge = rng.usize(..stage.cluster.edges());
    let name = stage.cluster.edge_id(edge).to_string();
    if stage.cluster.is_up(edge) {
        stage.recorder.write(&Who::Faults, Event::Killed { edge: name });
        stage.cluster.kill_edge(edge).await;
    } else {
        stage.recorder.write(&Who::Faults, Event::Started { edge: name });
        stage.cluster.start_edge(edge);
    }
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
    ];
    let fault = faults[rng.usize(..faults.len())];
    let some = |rng: &mut fastrand::Rng| stage.cluster.edge_id(rng.usize(..stage.cluster.edges())).clone();
    let edges = match fault {
        Fault::BusBlocked => vec![some(rng), some(rng)],
        Fault::BusCut | Fault::RegistryCut => vec![some(rng)],
        _ => Vec::new(),
    };
    (fault, edges)
}

fn begin(stage: &Stage, rng: &mut fastrand::Rng, fault: Fault, edges: &[EdgeId]) {
    let names = edges.iter().map(ToString::to_string).collect();
    stage.recorder.write(&Who::Faults, Event::Begin { fault, edges: names });
    let (net, store) = (&stage.cluster.net, &stage.cluster.registry);
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
            store.set_client_faults(&witness_id(), registry::Faults::default());
        }
        (Fault::RegistryCut, [edge]) => store.cut(edge, ms(rng.u64(0..200))),
        _ => store.cut_all(ms(rng.u64(0..200))),
    }
}

fn stop(stage: &Stage, fault: Fault, edges: &[EdgeId]) {
    stage.recorder.write(&Who::Faults, Event::End { fault });
    let (net, store) = (&stage.cluster.net, &stage.cluster.registry);
    match (fault, edges) {
        (Fault::BusLossy, _) => net.set_faults(bus::Faults::default()),
        (Fault::BusBlocked, [from, to]) => net.unblock(from, to),
        (Fault::BusCut, [edge]) => net.heal(edge),
        (Fault::BusInterest, _) => net.set_interest_delay(Duration::ZERO..=Duration::ZERO),
        (Fault::RegistryLossy, _) => store.set_faults(&registry::Faults::default()),
        (Fault::RegistryCut, [edge]) => store.heal(edge),
        _ => store.heal_all(),
    }
}

async fn heal(stage: &Stage) {
    stage.cluster.net.clear_faults();
    stage.cluster.registry.heal_all();
    for edge in 0..stage.cluster.edges() {
        if !stage.cluster.is_up(edge) {
            let edge_name = stage.cluster.edge_id(edge).to_string();
            stage.recorder.write(&Who::Faults, Event::Started { edge: edge_name });
            stage.cluster.start_edge(edge);
        }
    }
    tokio::task::yield_now().await;
}
