//! Two edges in this process, on one NATS server and one Redis, and the connections of whoever looks at these from beside.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use riser_bus::nats::{KvConfig, LedgerConfig, LogConfig, NatsClient, NatsConfig};
use riser_core::TenantTable;
use riser_edge::{Edge, EdgeConfig, Metrics, Ports, listen};
use riser_registry::HeldCommands;
use riser_registry::redis::{Address, RedisConfig, RedisRegistry, Servers};
use riser_testkit::real::nats::{NatsServers, NatsWire, Said};
use riser_testkit::real::redis::{RedisOptions, RedisServers};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::{PATIENCE, program};

/// Between two looks at what only says it when asked.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The edges, the servers, and who may connect. What is first here ends first.
pub(super) struct World {
    edges: Vec<(Edge, SocketAddr)>,
    /// All that was published since the beginning: subject, headers and payload in one line each.
    pub(super) heard: Arc<Mutex<Vec<String>>>,
    listener: JoinHandle<()>,
    pub(super) tenants: watch::Sender<Arc<TenantTable>>,
    /// As an edge has them, for what no peer of an edge can ask.
    pub(super) nats: NatsClient,
    pub(super) registry: RedisRegistry,
    pub(super) nats_servers: NatsServers,
    pub(super) redis_servers: RedisServers,
}

impl Drop for World {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl World {
    pub(super) async fn start() -> Self {
        let nats_servers = NatsServers::start(&program("RISER_NATS_SERVER"), 1).await.expect("NATS");
        let redis_servers = RedisServers::start(&program("RISER_REDIS_SERVER"), &RedisOptions::default()).await;
        let redis_servers = redis_servers.expect("Redis");
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let listener = listen_to_all(nats_servers.address(0).port(), heard.clone()).await;
        let tenants = watch::Sender::new(Arc::new(TenantTable::default()));
        let mut edges = vec![];
        for number in 0..2 {
            let (nats, registry) = connect(&nats_servers, &redis_servers).await;
            edges.push(start_edge(number, &nats, &registry, tenants.subscribe()));
        }
        for (edge, _) in &edges {
            let ready = async {
                while edge.readiness().is_err() {
                    sleep(LOOK_EVERY).await;
                }
            };
            timeout(PATIENCE, ready).await.expect("an edge that is ready");
        }
        let (nats, registry) = connect(&nats_servers, &redis_servers).await;
        Self { edges, heard, listener, tenants, nats, registry, nats_servers, redis_servers }
    }

    /// Where an edge serves.
    pub(super) fn at(&self, edge: usize) -> SocketAddr {
        self.edges[edge].1
    }

    pub(super) fn kv_config() -> KvConfig {
        KvConfig { replicas: 1, held_bytes: 32 << 20, tenants_bytes: 1 << 20, flats_bytes: 1 << 20 }
    }

    pub(super) fn log_config() -> LogConfig {
        LogConfig { replicas: 1, max_age: Duration::from_secs(3_600), max_bytes: 64 << 20, max_events: 1_000 }
    }
}

async fn connect(nats: &NatsServers, redis: &RedisServers) -> (NatsClient, RedisRegistry) {
    let nats = NatsClient::connect(&NatsConfig::new(nats.urls(), "test")).await.expect("a server that can be reached");
    let address = Address { host: "127.0.0.1".into(), port: redis.port(0) };
    let registry = RedisRegistry::connect(RedisConfig::new(Servers::Single(address))).await;
    (nats, registry.expect("a server that can be reached"))
}

/// As the binary puts an edge together.
fn start_edge(
    number: usize,
    nats: &NatsClient,
    registry: &RedisRegistry,
    tenants: watch::Receiver<Arc<TenantTable>>,
) -> (Edge, SocketAddr) {
    let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
    let address = listener.local_addr().expect("an address");
    let ledger = LedgerConfig { replicas: 1, max_age: Duration::from_secs(3_600), max_bytes: 16 << 20 };
    let ledger = nats.ledger(ledger).expect("a task");
    let kv = Arc::new(nats.kv(World::kv_config()));
    let note = Arc::new(move |key: &_, record: &_| ledger.note(key, record));
    let registry = Arc::new(registry.clone());
    let ports = Ports {
        bus: Arc::new(nats.bus()),
        registry: registry.clone(),
        store: registry.clone(),
        commands: Arc::new(HeldCommands::new(registry.clone(), kv, note)),
        streams: registry,
        log: Arc::new(nats.log(World::log_config())),
        tenants,
        keep: None,
    };
    let config = EdgeConfig::new(format!("edge-{number}").parse().expect("an edge name"));
    let metrics = Metrics::new(&prometheus::Registry::new());
    (Edge::start(config, ports, listener, metrics), address)
}

/// Notes all that edges publish.
#[expect(clippy::disallowed_methods, reason = "the world owns it")]
async fn listen_to_all(port: u16, heard: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    let mut wire = NatsWire::connect(port, None).await.expect("a server that can be reached");
    for (subjects, number) in [("riser.v1.>", 1), ("$KV.>", 2)] {
        wire.subscribe(subjects, number).await.expect("a subscription");
    }
    assert_eq!(wire.settled().await.expect("an answer"), []);
    tokio::spawn(async move {
        while let Ok(said) = wire.next().await {
            if let Said::Message(subject, text) = said {
                heard.lock().push(format!("{subject} {text}"));
            }
        }
    })
}
