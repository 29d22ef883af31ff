//! The simulation: one seed, one history. Peers live on a cluster while faults happen; then everything is healed, and
//! after a quiet time what everybody knows must be the truth.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use riser_core::{GatewayKey, TenantId};
use riser_edge::EdgeConfig;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::cluster::{Cluster, ClusterConfig, Decorate};
use crate::history::{Event, Line, Recorder, Who};
use crate::peer::{ClientPlan, GatewayPlan, Link, run_client, run_gateway};

mod faults;
mod witness;

pub(crate) use faults::Moment;

/// How long faults happen.
const ACTIVE: Duration = Duration::from_secs(60);
/// How long nothing happens any more: more than a lease, an audit, three comparisons and two heartbeats.
const QUIET: Duration = Duration::from_secs(75);
/// Where the registry's clock starts: some day, the same for every seed.
const START_MS: u64 = 1_700_000_000_000;
/// The gateways of each tenant. Tenants share addresses, so that a mistaken tenant shows.
pub(crate) const ADDRESSES: [&str; 3] = ["b1/g1", "b1/g2", "b2/g1"];
const TENANTS: [&str; 2] = ["acme", "bolt"];
const CLIENTS: usize = 2;
/// Events of a tenant that are kept where few are: more than are stored between two looks of the witness.
const KEEPS: std::ops::Range<usize> = 24..80;

/// What the peers and the faults stand on.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) recorder: Recorder,
    quiet: AtomicBool,
    silent: Mutex<Vec<Link>>,
    /// Up to where the witness has read each tenant's events: the stream's life, and the number.
    read: Mutex<BTreeMap<TenantId, (u64, u64)>>,
    /// Which edge holds which gateway, as far as gateways know.
    held: Mutex<BTreeMap<GatewayKey, usize>>,
    aim: Mutex<Aim>,
    /// Woken when the aim is hit.
    hit: Notify,
}

/// A moment that is waited for, to kill the edge at which it comes.
#[derive(Default)]
struct Aim {
    at: Option<Moment>,
    hit: Option<usize>,
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

    fn tenants(&self) -> Vec<TenantId> {
        self.read.lock().keys().cloned().collect()
    }

    /// Up to where the witness has read a tenant's events, and from now on.
    fn read_up_to(&self, tenant: &TenantId, now: Option<(u64, u64)>) -> (u64, u64) {
        let mut read = self.read.lock();
        let up_to = read.entry(tenant.clone()).or_default();
        *up_to = now.unwrap_or(*up_to);
        *up_to
    }

    /// Notes where a gateway is.
    pub(crate) fn holds(&self, key: &GatewayKey, edge: usize) {
        self.held.lock().insert(key.clone(), edge);
    }

    /// The edge that a gateway was at last.
    pub(crate) fn holder(&self, key: &GatewayKey) -> Option<usize> {
        self.held.lock().get(key).copied()
    }

    /// A moment came at this edge. Who aims at it is told.
    pub(crate) fn reached(&self, moment: Moment, edge: usize) {
        let mut aim = self.aim.lock();
        if aim.at == Some(moment) {
            *aim = Aim { at: None, hit: Some(edge) };
            self.hit.notify_one();
        }
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
        read: Mutex::new(tenants.iter().map(|tenant| (tenant.clone(), (0, 0))).collect()),
        held: Mutex::default(),
        aim: Mutex::default(),
        hit: Notify::new(),
    });
    if rng.u8(..3) == 0 {
        let events = rng.usize(KEEPS);
        stage.recorder.write(&Who::Faults, Event::Keeps { events });
        stage.cluster.log.set_retention(events);
    }
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
            let (name, canary) = (format!("client-{i}"), canary.clone());
            let plan = ClientPlan { tenant: tenant.clone(), name, canary, seed: rng.u64(..) };
            peers.spawn(run_client(stage.clone(), plan));
        }
    }
    let client = stage.cluster.registry.client(&witness::id());
    peers.spawn(witness::watch(stage.clone(), client.clone(), keys.clone(), rng.u64(..)));
    peers.spawn(witness::watch_events(stage.clone()));
    faults::break_things(&stage, &mut rng).await;
    faults::heal(&stage).await;
    stage.quiet.store(true, Ordering::Relaxed);
    stage.recorder.write(&Who::Faults, Event::Quiet);
    sleep(QUIET).await;
    for key in &keys {
        witness::read(&stage, &client, key).await;
        witness::read_commands(&stage, &client, key).await;
    }
    for tenant in &tenants {
        witness::read_events(&stage, tenant).await;
    }
    stage.recorder.write(&Who::Faults, Event::Over { effects: faults::effects(&stage) });
    let lines = stage.recorder.take();
    peers.shutdown().await;
    lines
}
