//! Edges over one bus and one registry in memory, each with its own listeners, and a switch to kill and start it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use http::StatusCode;
use parking_lot::Mutex;
use prometheus::Registry;
use riser_bus::kv::memory::MemoryKv;
use riser_bus::log::memory::MemoryLog;
use riser_bus::memory::MemoryNet;
use riser_control::{Control, Credentials, Server};
use riser_core::frame::Credential;
use riser_core::tenant::{ApiKey, SigningKey, TenantDoc};
use riser_core::{EdgeId, Grant, Tenant, TenantId, TenantTable};
use riser_edge::{Edge, EdgeConfig, Metrics, Ports, auth};
use riser_ops::Admin;
use riser_ops::admin::{Answer, json, text};
use riser_registry::HeldCommands;
use riser_registry::memory::MemoryRegistry;
use riser_tenants::{FollowMetrics, Followed, Store};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{START_WAIT, serving};
use crate::bind::bind;
use crate::cli::Dev;
use crate::clock;
use crate::exit::Failure;

/// The tenant of the simulated building.
pub(super) const TENANT: &str = "dev";
/// Another one, to see that neither sees anything of the other.
const NEIGHBOUR: &str = "neighbour";
/// Where the admin API of the control plane listens unless it is told otherwise.
const CONTROL_PORT: u16 = 8090;
/// The name of its signing key.
const KID: &str = "dev-1";
/// Random bytes of the signing key.
const SIGNING_BYTES: usize = 32;
/// Between two rounds in which it is noted when gateways' tokens end.
const NOTE_TOKENS: Duration = Duration::from_secs(1);

/// A tenant, and one API key that may do everything in it.
pub(super) struct Access {
    pub(super) tenant_id: TenantId,
    pub(super) tenant: Tenant,
    pub(super) api_key: String,
    /// Text; what is signed with are its bytes.
    pub(super) signing_key: String,
}

/// A cluster.
pub(super) struct Cluster {
    pub(super) access: Access,
    pub(super) neighbour: Access,
    pub(super) plane: Plane,
    keep: Store,
    slots: Vec<Arc<Slot>>,
    net: MemoryNet,
    store: MemoryRegistry,
    log: MemoryLog,
    kv: MemoryKv,
    tenants: watch::Receiver<Arc<TenantTable>>,
    args: Settings,
    /// The admin ports, the control plane, and what follows its bucket.
    admins: Mutex<JoinSet<()>>,
}

/// What every edge is started with.
struct Settings {
    heartbeat: std::time::Duration,
    drain_window: std::time::Duration,
}

/// The place of one edge: what stays when it is killed.
struct Slot {
    id: EdgeId,
    listen: SocketAddr,
    admin: SocketAddr,
    metrics: Arc<Metrics>,
    edge: Mutex<Option<Edge>>,
    /// Held while it is killed or started, so that two who do it at once come one after the other.
    switch: tokio::sync::Mutex<()>,
}

impl Cluster {
    /// Binds all ports and starts all edges and the control plane. Must be called within a runtime.
    pub(super) async fn start(args: &Dev) -> Result<Arc<Self>, Failure> {
        let (access, neighbour) = (Access::new(TENANT, &args.origin)?, Access::new(NEIGHBOUR, &args.origin)?);
        let parts = Parts {
            net: MemoryNet::new(),
            store: MemoryRegistry::new(clock::now_ms()),
            log: log(),
            kv: MemoryKv::new(),
        };
        let mut tasks = JoinSet::new();
        let plane = Plane::start(args, &parts, &mut tasks)?;
        let keep = Store::new(Arc::new(parts.kv.client(&plane.id)));
        for access in [&access, &neighbour] {
            let doc = TenantDoc { id: access.tenant_id.clone(), tenant: access.tenant.clone() };
            keep.create(&doc).await.map_err(anyhow::Error::new)?;
        }
        let counted = FollowMetrics::new(&Registry::new()).map_err(anyhow::Error::new)?;
        let followed = Followed::open(Arc::new(parts.kv.client(&plane.id)), counted).await;
        let followed = followed.map_err(anyhow::Error::new)?;
        let tenants = followed.table();
        tasks.spawn(followed.follow());
        let mut slots = Vec::new();
        let mut bound = Vec::new();
        let at = |i| Ok((further(args.listen, i)?, further(args.admin, i)?));
        let addresses: Vec<_> = (0..args.edges).map(at).collect::<Result<_, Failure>>()?;
        for (i, (public, admin)) in addresses.into_iter().enumerate() {
            let (public, admin) = (bind(public)?, bind(admin)?);
            let registry = Registry::new();
            slots.push(Arc::new(Slot {
                id: format!("edge-{i}").parse().map_err(anyhow::Error::new)?,
                listen: public.local_addr()?,
                admin: admin.local_addr()?,
                metrics: Metrics::new(&registry),
                edge: Mutex::new(None),
                switch: tokio::sync::Mutex::default(),
            }));
            bound.push((public, admin, registry));
        }
        let Parts { net, store, log, kv } = parts;
        let cluster = Arc::new(Self {
            access,
            neighbour,
            plane,
            keep,
            slots,
            net,
            store,
            log,
            kv,
            tenants,
            args: Settings { heartbeat: args.heartbeat, drain_window: args.drain_window },
            admins: Mutex::new(tasks),
        });
        for (i, (public, admin, registry)) in bound.into_iter().enumerate() {
            let slot = &cluster.slots[i];
            *slot.edge.lock() = Some(cluster.edge(slot, public));
            let pages = cluster.pages(i, registry);
            cluster.admins.lock().spawn(pages.serve(admin, std::future::pending()));
        }
        Ok(cluster)
    }

    /// Why the cluster does not serve yet: the first edge's reason.
    pub(super) fn readiness(&self) -> Result<(), String> {
        self.slots.iter().try_for_each(|slot| slot.readiness())
    }

    /// Where edges listen, in their order.
    pub(super) fn listens(&self) -> impl Iterator<Item = SocketAddr> {
        self.slots.iter().map(|slot| slot.listen)
    }

    /// Where admin ports listen, in the order of edges.
    pub(super) fn admins(&self) -> impl Iterator<Item = SocketAddr> {
        self.slots.iter().map(|slot| slot.admin)
    }

    /// The key that may do everything in the simulated building's tenant.
    pub(super) fn key(&self) -> Credential {
        Credential::new(self.access.api_key.clone())
    }

    /// The cluster's clock.
    pub(super) fn now_ms(&self) -> u64 {
        self.store.now_ms()
    }

    /// Drains all edges at once, and then closes the admin ports.
    pub(super) async fn drain(&self) {
        let mut draining = JoinSet::new();
        for slot in &self.slots {
            let edge = slot.edge.lock().take();
            if let Some(edge) = edge {
                draining.spawn(edge.drain());
            }
        }
        while draining.join_next().await.is_some() {}
        self.admins.lock().abort_all();
    }

    fn edge(&self, slot: &Slot, listener: TcpListener) -> Edge {
        let mut config = EdgeConfig {
            heartbeat: self.args.heartbeat,
            drain_window: self.args.drain_window,
            ..EdgeConfig::new(slot.id.clone())
        };
        // Who tries things out does not want to wait.
        config.note_tokens = NOTE_TOKENS;
        // Everybody comes from this machine, and most of one tenant.
        config.handshakes_each = config.handshakes;
        let kv = Arc::new(self.kv.client(&slot.id));
        let store = Arc::new(self.store.client(&slot.id));
        let ports = Ports {
            bus: Arc::new(self.net.client(slot.id.clone())),
            registry: store.clone(),
            commands: Arc::new(HeldCommands::new(store.clone(), kv, Arc::new(|_, _| {}))),
            streams: store.clone(),
            store,
            log: Arc::new(self.log.client(&slot.id)),
            tenants: self.tenants.clone(),
            keep: Some(self.keep.clone()),
        };
        Edge::start(config, ports, listener, slot.metrics.clone())
    }

    /// The admin pages of one edge, with the switches of all.
    fn pages(self: &Arc<Self>, of: usize, registry: Registry) -> Admin {
        let slot = self.slots[of].clone();
        let mut admin = Admin::new(move || slot.readiness().map(|()| String::new()), registry);
        for n in 0..self.slots.len() {
            // The pages are served by tasks of the cluster, which must not keep it alive.
            let cluster = Arc::downgrade(self);
            let switch = move |up: bool| {
                let cluster = cluster.clone();
                async move {
                    match cluster.upgrade() {
                        Some(cluster) if up => cluster.bring_back(n).await,
                        Some(cluster) => cluster.kill(n).await,
                        None => text(StatusCode::SERVICE_UNAVAILABLE, "the cluster ends\n"),
                    }
                }
            };
            let (kill, start) = (switch.clone(), switch);
            admin = admin
                .post(format!("/dev/edges/{n}/kill"), move || kill(false))
                .post(format!("/dev/edges/{n}/start"), move || start(true));
        }
        admin
    }

    /// Ends an edge without a goodbye.
    async fn kill(&self, n: usize) -> Answer {
        let slot = &self.slots[n];
        let _one = slot.switch.lock().await;
        let edge = slot.edge.lock().take();
        let Some(edge) = edge else { return conflict(n, "it is down already") };
        edge.kill().await;
        running(n, false)
    }

    /// Brings a killed edge back, on the port that it had. Answers when it serves.
    async fn bring_back(&self, n: usize) -> Answer {
        let slot = &self.slots[n];
        let _one = slot.switch.lock().await;
        if slot.edge.lock().is_some() {
            return conflict(n, "it runs already");
        }
        match riser_edge::listen(slot.listen) {
            Ok(listener) => {
                *slot.edge.lock() = Some(self.edge(slot, listener));
                // Who asked for it connects next, and should not be told that the edge is starting.
                match timeout(START_WAIT, serving(|| slot.readiness())).await {
                    Ok(()) => running(n, true),
                    Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, format!("edge {n}: it does not become ready\n")),
                }
            }
            Err(error) => {
                text(StatusCode::SERVICE_UNAVAILABLE, format!("edge {n}: cannot listen on {}: {error}\n", slot.listen))
            }
        }
    }
}

/// What the edges and the control plane share.
struct Parts {
    net: MemoryNet,
    store: MemoryRegistry,
    log: MemoryLog,
    kv: MemoryKv,
}

/// Cursors of another run must not be taken for this one's.
fn log() -> MemoryLog {
    MemoryLog::seeded(clock::now_ms(), fastrand::u64(..))
}

/// The control plane.
pub(super) struct Plane {
    id: EdgeId,
    pub(super) at: SocketAddr,
    /// What lets operators in.
    pub(super) credential: String,
}

impl Plane {
    fn start(args: &Dev, parts: &Parts, tasks: &mut JoinSet<()>) -> Result<Self, Failure> {
        let id: EdgeId = "control".parse().map_err(anyhow::Error::new)?;
        let loopback = SocketAddr::from(([127, 0, 0, 1], if args.admin.port() == 0 { 0 } else { CONTROL_PORT }));
        let listener = bind(args.control.unwrap_or(loopback))?;
        let at = listener.local_addr()?;
        let registry = Arc::new(parts.store.client(&id));
        let ports = riser_control::Ports {
            kv: Arc::new(parts.kv.client(&id)),
            log: Arc::new(parts.log.client(&id)),
            registry: registry.clone(),
            state: registry.clone(),
            commands: registry,
            bus: Arc::new(parts.net.client(id.clone())),
            now_ms: Arc::new(clock::now_ms),
            hash_key: None,
        };
        let control = Control::new(ports, &Registry::new()).map_err(anyhow::Error::new)?;
        let credential = secret()?;
        let credentials = Credentials::read(&credential).map_err(anyhow::Error::new)?;
        tasks.spawn(Server::new(control, credentials).serve(listener, std::future::pending()));
        Ok(Self { id, at, credential })
    }
}

/// Text that nobody can guess.
fn secret() -> Result<String, Failure> {
    let mut secret = [0; SIGNING_BYTES];
    getrandom::fill(&mut secret).map_err(|error| Failure::Other(anyhow::anyhow!("no randomness: {error}")))?;
    Ok(BASE64.encode(secret))
}

impl Slot {
    fn readiness(&self) -> Result<(), String> {
        self.edge.lock().as_ref().map_or_else(|| Err("the edge is down".into()), Edge::readiness)
    }
}

fn running(n: usize, running: bool) -> Answer {
    json(StatusCode::OK, format!("{{\"edge\":{n},\"running\":{running}}}"))
}

fn conflict(n: usize, why: &str) -> Answer {
    text(StatusCode::CONFLICT, format!("edge {n}: {why}\n"))
}

/// The address of the i-th listener: two ports higher each, or any port.
fn further(first: SocketAddr, i: u16) -> Result<SocketAddr, Failure> {
    let port = match first.port() {
        0 => Some(0),
        port => port.checked_add(2 * i),
    };
    let none = || Failure::Usage(format!("{first} leaves too few ports above it for {} edges", i + 1));
    Ok(SocketAddr::new(first.ip(), port.ok_or_else(none)?))
}

impl Access {
    fn new(name: &str, origins: &[String]) -> Result<Self, Failure> {
        let signing_key = secret()?;
        let (api_key, hash) = auth::new_api_key(None);
        let tenant = Tenant {
            origins: (!origins.is_empty()).then(|| origins.to_vec()),
            signing_kid: KID.into(),
            signing_keys: BTreeMap::from([SigningKey::hs256(KID, signing_key.clone()).entry()]),
            api_keys: BTreeMap::from([(hash, ApiKey::new("dev-key", vec![Grant::everything()]))]),
            ..Tenant::default()
        };
        let tenant_id = name.parse().map_err(anyhow::Error::new)?;
        Ok(Self { tenant_id, tenant, api_key, signing_key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_edges_listen_two_ports_higher() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let rows = [
            ("127.0.0.1:8080", 0, Some("127.0.0.1:8080")),
            ("127.0.0.1:8080", 3, Some("127.0.0.1:8086")),
            ("[::1]:0", 3, Some("[::1]:0")),
            ("127.0.0.1:65533", 1, Some("127.0.0.1:65535")),
            ("127.0.0.1:65534", 1, None),
        ];
        for (first, i, expected) in rows {
            assert_eq!(further(at(first), i).ok(), expected.map(at), "{first} {i}");
        }
    }

    #[test]
    fn each_run_has_keys_of_its_own() {
        let (a, b) = (Access::new(TENANT, &[]).expect("randomness"), Access::new(TENANT, &[]).expect("randomness"));
        assert!(a.api_key != b.api_key && a.signing_key != b.signing_key);
        assert_eq!(a.tenant.origins, None);
        let listed = Access::new(TENANT, &["http://localhost:5173".into()]).expect("randomness");
        assert!(listed.tenant.allows_origin(Some("http://localhost:5173")));
        assert!(!listed.tenant.allows_origin(Some("http://localhost:5174")));
    }
}
