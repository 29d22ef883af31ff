//! A cluster inside one process: edges over one memory bus and one memory registry, without sockets.

use std::sync::Arc;

use parking_lot::Mutex;
use riser_bus::kv::memory::MemoryKv;
use riser_bus::log::memory::MemoryLog;
use riser_bus::memory::MemoryNet;
use riser_core::{EdgeId, Identity, Tenant, TenantId, TenantTable};
use riser_edge::{Edge, EdgeConfig, Metrics, Ports};
use riser_registry::HeldCommands;
use riser_registry::memory::MemoryRegistry;
use tokio::io::{DuplexStream, duplex, split};
use tokio::sync::watch;

/// Changes the ports that an edge gets: how a test puts something between an edge and its ports.
pub type Decorate = Arc<dyn Fn(&EdgeId, Ports) -> Ports + Send + Sync>;

/// What a cluster is made of.
#[derive(Clone)]
pub struct ClusterConfig {
    /// How many edges. They are called `edge-0` and so on.
    pub edges: usize,
    /// The tenants' names.
    pub tenants: Vec<TenantId>,
    /// Where the registry's clock starts, in Unix milliseconds.
    pub start_ms: u64,
    /// Seeds the bus, the registry and each start of an edge.
    pub seed: u64,
    /// Sets what is not to be as [`EdgeConfig::new`] has it.
    pub tune: fn(&mut EdgeConfig),
    /// Changes the ports of each edge.
    pub decorate: Decorate,
}

/// A running cluster. Dropping it ends its edges without a goodbye.
pub struct Cluster {
    config: ClusterConfig,
    /// The bus, for faults.
    pub net: MemoryNet,
    /// The registry, for faults and for reading.
    pub registry: MemoryRegistry,
    /// The event store, for faults and for reading.
    pub log: MemoryLog,
    /// The copies of held commands, for faults and for reading.
    pub kv: MemoryKv,
    places: Vec<Place>,
    tenants: watch::Sender<Arc<TenantTable>>,
    seeds: Mutex<fastrand::Rng>,
}

/// Where an edge runs, or could.
struct Place {
    id: EdgeId,
    edge: Mutex<Option<Edge>>,
    metrics: Arc<Metrics>,
}

impl Cluster {
    /// Starts all edges. Must be called within a runtime.
    pub fn start(config: ClusterConfig) -> Self {
        let mut seeds = fastrand::Rng::with_seed(config.seed);
        let net = MemoryNet::seeded(seeds.u64(..));
        let registry = MemoryRegistry::seeded(config.start_ms, seeds.u64(..));
        let log = MemoryLog::seeded(config.start_ms, seeds.u64(..));
        let table: TenantTable = config.tenants.iter().map(|name| (name.clone(), tenant())).collect();
        let cluster = Self {
            net,
            registry,
            log,
            kv: MemoryKv::new(),
            places: (0..config.edges).map(place).collect(),
            tenants: watch::Sender::new(Arc::new(table)),
            seeds: Mutex::new(seeds),
            config,
        };
        for edge in 0..cluster.places.len() {
            cluster.start_edge(edge);
        }
        cluster
    }

    /// How many edges there are, running or not.
    pub fn edges(&self) -> usize {
        self.places.len()
    }

    /// An edge's name.
    pub fn edge_id(&self, edge: usize) -> &EdgeId {
        &self.places[edge].id
    }

    /// Whether an edge runs.
    pub fn is_up(&self, edge: usize) -> bool {
        self.places[edge].edge.lock().is_some()
    }

    /// Starts an edge that does not run.
    pub fn start_edge(&self, edge: usize) {
        let place = &self.places[edge];
        let mut running = place.edge.lock();
        if running.is_some() {
            return;
        }
        let client = Arc::new(self.registry.client(&place.id));
        let kv = Arc::new(self.kv.client(&place.id));
        let ports = Ports {
            bus: Arc::new(self.net.client(place.id.clone())),
            registry: client.clone(),
            store: client.clone(),
            commands: Arc::new(HeldCommands::new(client.clone(), kv, Arc::new(|_, _| {}))),
            streams: client,
            log: Arc::new(self.log.client(&place.id)),
            tenants: self.tenants.subscribe(),
            keep: None,
        };
        let mut config = EdgeConfig::new(place.id.clone());
        config.usage = None;
        (self.config.tune)(&mut config);
        config.seed = self.seeds.lock().u64(..);
        let ports = (self.config.decorate)(&place.id, ports);
        *running = Some(Edge::without_listener(config, ports, place.metrics.clone()));
    }

    /// Ends an edge without a goodbye; its peers' connections break.
    pub async fn kill_edge(&self, edge: usize) {
        let running = self.places[edge].edge.lock().take();
        if let Some(running) = running {
            running.kill().await;
        }
    }

    /// Connects a peer whose handshake is done and whose credential proved this identity. `buffer` is how many bytes
    /// lie between the two ends, in each direction. None when the edge does not run.
    pub fn attach(&self, edge: usize, identity: Identity, buffer: usize) -> Option<DuplexStream> {
        let running = self.places[edge].edge.lock();
        let (ours, theirs) = duplex(buffer);
        let (read, write) = split(theirs);
        running.as_ref()?.attach(read, write, Some(identity));
        Some(ours)
    }
}

fn place(number: usize) -> Place {
    let id = format!("edge-{number}").parse().expect("a number makes a good name");
    Place { id, edge: Mutex::new(None), metrics: Metrics::new(&prometheus::Registry::new()) }
}

fn tenant() -> Tenant {
    Tenant::default()
}
