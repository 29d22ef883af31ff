//! A cluster of edges over the memory twins, and peers that speak frames to them over in-memory pipes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fastwebsockets::{Frame, OpCode, Payload, Role, WebSocket};
use riser_bus::kv::memory::MemoryKv;
use riser_bus::log::memory::MemoryLog;
use riser_bus::memory::MemoryNet;
use riser_bus::{Bus, BusError, Filter, Health, Inbox, Subject, Subscription};
use riser_core::grant::gateway_grants;
use riser_core::limits::Limits;
use riser_core::tenant::SigningKey;
use riser_core::{EdgeId, Grant, Identity, Peer, Tenant, TenantTable};
use riser_edge::{Edge, EdgeConfig, Metrics, Ports};
use riser_registry::HeldCommands;
use riser_registry::memory::MemoryRegistry;
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a test waits for a frame before it fails: far longer than anything may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Cluster {
    pub(super) net: MemoryNet,
    pub(super) store: MemoryRegistry,
    pub(super) log: MemoryLog,
    pub(super) kv: MemoryKv,
    pub(super) tenants: watch::Sender<Arc<TenantTable>>,
}

impl Cluster {
    pub(super) fn new() -> Self {
        let mut table = TenantTable::default();
        for name in ["acme", "other"] {
            table.insert(name.parse().expect("a tenant"), tenant());
        }
        let tenants = watch::Sender::new(Arc::new(table));
        let (store, log) = (MemoryRegistry::new(1_000_000), MemoryLog::new(1_000_000));
        Self { net: MemoryNet::new(), store, log, kv: MemoryKv::new(), tenants }
    }

    pub(super) async fn edge(&self, name: &str) -> (Edge, prometheus::Registry) {
        self.edge_with(name, |_| {}).await
    }

    /// An edge whose ports are changed before it starts.
    pub(super) async fn edge_with(&self, name: &str, change: impl FnOnce(&mut Ports)) -> (Edge, prometheus::Registry) {
        self.edge_like(name, |_, ports| change(ports)).await
    }

    /// The same, and its settings too.
    pub(super) async fn edge_like(
        &self,
        name: &str,
        change: impl FnOnce(&mut EdgeConfig, &mut Ports),
    ) -> (Edge, prometheus::Registry) {
        let id: EdgeId = name.parse().expect("an edge");
        let mut ports = self.ports(&id);
        let mut config = EdgeConfig { seed: 7, ..EdgeConfig::new(id) };
        change(&mut config, &mut ports);
        let registry = prometheus::Registry::new();
        let edge = Edge::without_listener(config, ports, Metrics::new(&registry));
        while edge.readiness().is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        (edge, registry)
    }

    /// What an edge of this name is given.
    pub(super) fn ports(&self, id: &EdgeId) -> Ports {
        let client = Arc::new(self.store.client(id));
        let kv = Arc::new(self.kv.client(id));
        Ports {
            bus: Arc::new(self.net.client(id.clone())),
            registry: client.clone(),
            store: client.clone(),
            commands: Arc::new(HeldCommands::new(client.clone(), kv, Arc::new(|_, _| {}))),
            streams: client,
            log: Arc::new(self.log.client(id)),
            tenants: self.tenants.subscribe(),
            keep: None,
        }
    }
}

/// A bus that takes some time for the messages that are chosen.
pub(super) struct SlowBus {
    bus: Arc<dyn Bus>,
    which: fn(&Subject, &[u8]) -> bool,
    takes: Duration,
}

impl SlowBus {
    /// Puts it before an edge's bus.
    pub(super) fn put(ports: &mut Ports, which: fn(&Subject, &[u8]) -> bool, takes: Duration) {
        ports.bus = Arc::new(Self { bus: ports.bus.clone(), which, takes });
    }
}

#[async_trait]
impl Bus for SlowBus {
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        if (self.which)(subject, &payload) {
            tokio::time::sleep(self.takes).await;
        }
        self.bus.publish(subject, payload).await
    }

    async fn subscribe(&self, filter: &Filter, inbox: &Inbox) -> Result<Subscription, BusError> {
        self.bus.subscribe(filter, inbox).await
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.bus.health()
    }
}

pub(super) fn tenant() -> Tenant {
    Tenant {
        signing_kid: "k".into(),
        signing_keys: [SigningKey::hs256("k", [7; 32]).entry()].into(),
        limits: Limits { paths: 4, subscriptions: 3, ..Limits::default() },
        ..Tenant::default()
    }
}

pub(super) fn gateway(address: &str) -> Identity {
    let address: riser_core::Address = address.parse().expect("an address");
    Identity {
        tenant: "acme".parse().expect("a tenant"),
        grants: gateway_grants(&address),
        peer: Peer::Gateway { address },
        expires_at_ms: Some(9_000_000_000),
        lifetime_ms: Some(1_000_000),
    }
}

pub(super) fn client_of(tenant: &str) -> Identity {
    Identity {
        tenant: tenant.parse().expect("a tenant"),
        peer: Peer::Client { subject: "alice".into() },
        grants: vec![Grant::everything()],
        expires_at_ms: None,
        lifetime_ms: None,
    }
}

pub(super) struct Peerling {
    pub(super) ws: WebSocket<DuplexStream>,
    pub(super) seen: VecDeque<Value>,
}

impl Peerling {
    pub(super) async fn open(edge: &Edge, identity: Identity) -> (Self, Value) {
        let mut peer = Self::raw(edge, identity);
        peer.send(&json!({"t":"hello"})).await;
        let welcome = peer.next("welcome").await;
        (peer, welcome)
    }

    pub(super) fn raw(edge: &Edge, identity: Identity) -> Self {
        let (here, there) = tokio::io::duplex(4_096);
        let (read, write) = tokio::io::split(there);
        edge.attach(read, write, Some(identity));
        let mut ws = WebSocket::after_handshake(here, Role::Client);
        ws.set_auto_pong(true);
        Self { ws, seen: VecDeque::new() }
    }

    pub(super) async fn send(&mut self, frame: &Value) {
        let text = frame.to_string().into_bytes();
        self.ws.write_frame(Frame::text(Payload::Owned(text))).await.expect("written");
    }

    /// The next frame of this type; what comes before it is kept in `seen`.
    pub(super) async fn next(&mut self, t: &str) -> Value {
        loop {
            let frame = self.read().await;
            if frame["t"] == t {
                return frame;
            }
            self.seen.push_back(frame);
        }
    }

    pub(super) async fn read(&mut self) -> Value {
        loop {
            let frame = timeout(PATIENCE, self.ws.read_frame()).await.expect("in time").expect("a frame");
            match frame.opcode {
                OpCode::Text => return serde_json::from_slice(&frame.payload).expect("JSON"),
                OpCode::Close => {
                    let code = u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
                    return json!({"t":"closed","code":code,"reason":String::from_utf8_lossy(&frame.payload[2..])});
                }
                _ => {}
            }
        }
    }

    pub(super) async fn set(&mut self, n: u64, set: Value) {
        self.send(&json!({"t":"state","n":n,"set":set})).await;
        assert_eq!(self.next("ok").await["n"], n);
    }

    pub(super) async fn subscribe(&mut self, to: &str, lanes: &[&str]) -> Vec<Value> {
        self.send(&json!({"t":"subscribe","n":1,"to":to,"lanes":lanes})).await;
        self.next("ok").await;
        self.seen.clear();
        self.next("synced").await;
        self.seen.drain(..).collect()
    }
}

/// A counter's value, with its label when it has one; 0 when nothing was counted.
pub(super) fn counted(metrics: &prometheus::Registry, name: &str, label: Option<&str>) -> u64 {
    let families = metrics.gather();
    let family = families.iter().find(|family| family.name() == name);
    let metrics = family.into_iter().flat_map(prometheus::proto::MetricFamily::get_metric);
    let of = metrics.filter(|m| label.is_none_or(|label| m.get_label().iter().any(|pair| pair.value() == label)));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters count whole things")]
    of.map(|m| m.get_counter().get_value() as u64).sum()
}
