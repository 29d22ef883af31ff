//! Three edges, NATS and Redis, with a proxy at each seam: before the edges, before NATS, before Redis.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use riser_client::{Api, Endpoint};
use riser_testkit::real::edges::{Edges, EdgesConfig};
use riser_testkit::real::nats::{NatsOptions, NatsServers};
use riser_testkit::real::proxy::Proxy;
use riser_testkit::real::redis::{RedisOptions, RedisServers};
use tokio::time::{sleep, timeout};

use crate::{PATIENCE, program, unique};

/// Between two looks at what only says it when asked.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A cluster. What is first here ends first.
pub(super) struct World {
    pub(super) edges: Edges,
    /// Where gateways connect, which come to the next edge that is there.
    pub(super) gateways: Proxy,
    /// The same for clients.
    pub(super) clients: Proxy,
    /// Before NATS.
    pub(super) to_nats: Proxy,
    /// Before Redis.
    pub(super) to_redis: Proxy,
    pub(super) nats: NatsServers,
    pub(super) redis: RedisServers,
}

impl World {
    /// Starts so many edges with one NATS server and one Redis.
    pub(super) async fn start(edges: usize) -> Self {
        Self::start_with(edges, &NatsOptions::default()).await
    }

    /// The same with another NATS server.
    pub(super) async fn start_with(edges: usize, nats: &NatsOptions) -> Self {
        let nats = NatsServers::start_with(&program("RISER_NATS_SERVER"), 1, nats).await.expect("a NATS server");
        let options = RedisOptions::default();
        let redis = RedisServers::start(&program("RISER_REDIS_SERVER"), &options).await.expect("a Redis");
        let to_nats = Proxy::start(nats.address(0), 1).await.expect("a proxy");
        let of_redis: SocketAddr = (Ipv4Addr::LOCALHOST, redis.port(0)).into();
        let to_redis = Proxy::start(of_redis, 2).await.expect("a proxy");
        let sections = format!(
            "[nats]\nservers = [\"nats://{}\"]\n[redis]\nserver = \"redis://{}\"\n[events]\nreplicas = 1\n",
            to_nats.address(),
            to_redis.address()
        );
        let config = EdgesConfig {
            count: edges,
            tenant: unique().parse().expect("a tenant name"),
            sections,
            // A rolling restart of three is to fit into a minute.
            edge: "drain_window = \"3s\"\nheartbeat = \"2s\"".into(),
            output: None,
        };
        let edges = Edges::start(&program("RISER_PROGRAM"), &config).await.expect("edges that start");
        let gateways = Proxy::among(edges.addresses(), 3).await.expect("a proxy");
        let clients = Proxy::among(edges.addresses(), 4).await.expect("a proxy");
        Self { edges, gateways, clients, to_nats, to_redis, nats, redis }
    }

    /// Where gateways connect.
    pub(super) fn gateways_at(&self) -> Endpoint {
        endpoint(self.gateways.address())
    }

    /// Where clients connect.
    pub(super) fn clients_at(&self) -> Endpoint {
        endpoint(self.clients.address())
    }

    pub(super) fn api(&self) -> Api {
        Api::new(self.clients_at(), self.edges.key())
    }

    /// Waits until an edge's answer to `/readyz` has this status, and gives its text.
    pub(super) async fn readiness(&self, edge: usize, status: u16) -> String {
        let mut last = None;
        let reached = async {
            loop {
                match self.edges.readiness(edge).await {
                    Ok((now, text)) if now == status => break text,
                    other => last = Some(other),
                }
                sleep(LOOK_EVERY).await;
            }
        };
        let reached = timeout(PATIENCE, reached).await;
        reached.unwrap_or_else(|_| panic!("edge-{edge} never answered {status}, but {last:?}"))
    }

    /// The sum of a metric over all edges that run.
    pub(super) async fn count(&mut self, name: &str) -> f64 {
        let mut sum = 0.0;
        for edge in 0..3 {
            if self.edges.is_running(edge) {
                sum += self.edges.metric(edge, name).await.expect("metrics");
            }
        }
        sum
    }

    /// Waits until a metric of one edge is such.
    pub(super) async fn until(&self, edge: usize, name: &str, holds: impl Fn(f64) -> bool) {
        let reached = async {
            loop {
                let value = self.edges.metric(edge, name).await;
                if value.as_ref().is_ok_and(|&value| holds(value)) {
                    break;
                }
                sleep(LOOK_EVERY).await;
            }
        };
        let last = timeout(PATIENCE, reached).await;
        assert!(last.is_ok(), "{name} of edge-{edge} stays {:?}", self.edges.metric(edge, name).await);
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    format!("http://{address}").parse().expect("an endpoint")
}
