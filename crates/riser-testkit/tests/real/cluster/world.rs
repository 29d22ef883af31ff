//! Three edges, NATS and Redis, with a proxy at each seam: before the edges, before NATS, before Redis.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use riser_client::{Api, Endpoint};
use riser_core::frame::Credential;
use riser_testkit::real::edges::{Edges, EdgesOptions};
use riser_testkit::real::nats::{NatsOptions, NatsServers};
use riser_testkit::real::proxy::Proxy;
use riser_testkit::real::redis::{RedisOptions, RedisServers};
use tokio::time::{sleep, timeout};

use crate::{PATIENCE, program};

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

/// What a cluster is made of.
pub(super) struct Shape {
    pub(super) edges: usize,
    /// NATS servers, reached past the proxy when there are three.
    pub(super) nats: usize,
    pub(super) of_nats: NatsOptions,
    /// Whether Redis has a replica and Sentinels, and is reached past the proxy.
    pub(super) sentinels: bool,
    /// Between two pings of an edge to a peer. Short, so that silence is soon noticed.
    pub(super) heartbeat: &'static str,
}

impl Default for Shape {
    fn default() -> Self {
        Self { edges: 3, nats: 1, of_nats: NatsOptions::default(), sentinels: false, heartbeat: "2s" }
    }
}

impl World {
    /// Starts so many edges with one NATS server and one Redis.
    pub(super) async fn start(edges: usize) -> Self {
        Self::shaped(&Shape { edges, ..Shape::default() }).await
    }

    pub(super) async fn shaped(shape: &Shape) -> Self {
        let nats = NatsServers::start_with(&program("RISER_NATS_SERVER"), shape.nats, &shape.of_nats).await;
        let nats = nats.expect("NATS servers");
        let (program_of_redis, options) = (program("RISER_REDIS_SERVER"), RedisOptions::default());
        let redis = if shape.sentinels {
            RedisServers::start_with_sentinels(&program_of_redis, &options).await
        } else {
            RedisServers::start(&program_of_redis, &options).await
        };
        let redis = redis.expect("a Redis");
        let to_nats = Proxy::start(nats.address(0), 1).await.expect("a proxy");
        let to_redis = Proxy::start(local(redis.port(0)), 2).await.expect("a proxy");
        let urls = if shape.nats == 1 { vec![format!("nats://{}", to_nats.address())] } else { nats.urls() };
        // A rolling restart of three is to fit into a minute.
        let mut set = vec!["edge.drain_window=3s".to_owned(), format!("edge.heartbeat={}", shape.heartbeat)];
        set.push(format!("events.replicas={}", shape.nats));
        let sentinels = if shape.sentinels { redis.sentinels() } else { vec![] };
        let options =
            EdgesOptions { nats: urls, redis: to_redis.address().port(), sentinels, set, ..EdgesOptions::default() };
        let edges = Edges::start(&program("RISER_BIN"), shape.edges, &options).await.expect("edges that start");
        let addresses: Vec<_> = (0..shape.edges).map(|number| local(edges.port(number))).collect();
        let gateways = Proxy::among(addresses.clone(), 3).await.expect("a proxy");
        let clients = Proxy::among(addresses, 4).await.expect("a proxy");
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

    /// A credential that may do everything.
    pub(super) fn key(&self) -> Credential {
        Credential::new(self.edges.key.as_str())
    }

    pub(super) fn api(&self) -> Api {
        Api::new(self.clients_at(), self.key())
    }

    /// Waits until an edge's answer to `/readyz` has this status, and gives its text.
    pub(super) async fn readiness(&self, edge: usize, status: u16) -> String {
        let mut last = None;
        let reached = async {
            loop {
                match self.edges.admin(edge, "GET", "/readyz").await {
                    Ok((now, text)) if now == status => break text,
                    other => last = Some(other),
                }
                sleep(LOOK_EVERY).await;
            }
        };
        let reached = timeout(PATIENCE, reached).await;
        reached.unwrap_or_else(|_| panic!("edge-{edge} never answered {status}, but {last:?}"))
    }

    /// The sum of a metric over its labels and some edges; with its labels as they are written, one of them.
    pub(super) async fn count(&self, edges: &[usize], name: &str) -> f64 {
        let mut sum = 0.0;
        for &edge in edges {
            // An edge that is busy may not answer in time, and is asked again.
            let text = timeout(PATIENCE, async {
                loop {
                    if let Ok((200, text)) = self.edges.admin(edge, "GET", "/metrics").await {
                        break text;
                    }
                }
            });
            let text = text.await.expect("metrics in time");
            let of_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
            sum +=
                text.lines().filter(of_it).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
        }
        sum
    }

    /// Waits until a metric of one edge is such.
    pub(super) async fn until(&self, edge: usize, name: &str, holds: impl Fn(f64) -> bool) {
        let reached = async {
            while !holds(self.count(&[edge], name).await) {
                sleep(LOOK_EVERY).await;
            }
        };
        let reached = timeout(PATIENCE, reached).await;
        assert!(reached.is_ok(), "{name} of edge-{edge} stays {}", self.count(&[edge], name).await);
    }
}

/// Where a server of this port is.
pub(super) fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn endpoint(address: SocketAddr) -> Endpoint {
    format!("http://{address}").parse().expect("an endpoint")
}
