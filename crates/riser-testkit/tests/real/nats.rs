//! The bus and the log on real NATS servers.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use riser_bus::log::suite::KEPT_AT_LEAST;
use riser_bus::log::{Appended, Bounds, Erased, Log, LogError, Page, Tail};
use riser_bus::nats::{LogConfig, NatsBus, NatsClient, NatsConfig, NatsLog};
use riser_bus::{Bus, BusError, Filter, Health, Inbox, Subject, Subscription};
use riser_core::event::Event;
use riser_core::{GatewayKey, TenantId};
use riser_testkit::real::nats::NatsServers;
use tokio::sync::{Mutex, watch};

use super::{program, unique};

mod bus;
mod connecting;
mod failover;
mod kv;
mod log;
mod network;
mod rights;

/// One server that the conformance cases share: it lives as long as one of them runs.
static SINGLE: Mutex<Weak<NatsServers>> = Mutex::const_new(Weak::new());
/// A cluster of three, the same.
static CLUSTER: Mutex<Weak<NatsServers>> = Mutex::const_new(Weak::new());

/// A client that keeps its servers running.
struct Held<T> {
    inner: T,
    _servers: Arc<NatsServers>,
}

async fn start(count: usize) -> NatsServers {
    NatsServers::start(&program("RISER_NATS_SERVER"), count).await.expect("servers that start")
}

async fn shared(count: usize) -> Arc<NatsServers> {
    let mut shared = if count == 1 { SINGLE.lock().await } else { CLUSTER.lock().await };
    if let Some(servers) = shared.upgrade() {
        return servers;
    }
    let servers = Arc::new(start(count).await);
    *shared = Arc::downgrade(&servers);
    servers
}

/// A connection that begins at this server.
async fn connect(servers: &NatsServers, number: usize) -> NatsClient {
    let config = NatsConfig::new(vec![servers.url(number)], "test");
    NatsClient::connect(&config).await.expect("a server that can be reached")
}

/// Keeps little, in so many copies.
fn log_config(replicas: usize) -> LogConfig {
    LogConfig { replicas, max_age: Duration::from_secs(3_600), max_bytes: 64 << 20, max_events: KEPT_AT_LEAST }
}

fn tenant() -> TenantId {
    unique().parse().expect("a tenant name")
}

fn event(id: &str) -> Event {
    Event {
        of: "b1/g1".parse().expect("an address"),
        id: id.parse().expect("an event id"),
        path: None,
        kind: "ring".parse().expect("an event type"),
        data: None,
        from: "gateway:b1/g1".into(),
        at_ms: 0,
        ts_ms: None,
    }
}

#[async_trait]
impl Bus for Held<NatsBus> {
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        self.inner.publish(subject, payload).await
    }

    async fn subscribe(&self, filter: &Filter, inbox: &Inbox) -> Result<Subscription, BusError> {
        self.inner.subscribe(filter, inbox).await
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.inner.health()
    }
}

#[async_trait]
impl Log for Held<NatsLog> {
    async fn append(&self, tenant: &TenantId, event: Event, dedup: Duration) -> Result<Appended, LogError> {
        self.inner.append(tenant, event, dedup).await
    }

    async fn read(&self, tenant: &TenantId, from: u64) -> Result<Page, LogError> {
        self.inner.read(tenant, from).await
    }

    async fn bounds(&self, tenant: &TenantId) -> Result<Bounds, LogError> {
        self.inner.bounds(tenant).await
    }

    async fn tail(&self, tenant: &TenantId) -> Result<Tail, LogError> {
        self.inner.tail(tenant).await
    }

    async fn erase(&self, tenant: &TenantId) -> Result<u64, LogError> {
        self.inner.erase(tenant).await
    }

    async fn erase_gateway(&self, key: &GatewayKey, from: u64) -> Result<Erased, LogError> {
        self.inner.erase_gateway(key, from).await
    }
}
