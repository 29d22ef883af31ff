//! `riser edge`: edges as processes of their own, on real NATS and Redis.

use std::path::PathBuf;
use std::time::Duration;

use riser_client::{End, Link};
use riser_testkit::real::edges::{Edges, EdgesOptions};
use riser_testkit::real::nats::{NatsOptions, NatsServers};
use riser_testkit::real::redis::{RedisOptions, RedisServers};
use tokio::time::timeout;

use super::{PATIENCE, program};

mod doctor;
mod drain;
mod ready;
mod refused;
mod tenants;
mod tls;

/// Between two looks at something that changes by itself.
const LOOK_EVERY: Duration = Duration::from_millis(50);

fn riser() -> PathBuf {
    program("RISER_BIN")
}

/// One NATS server, one Redis, and edges on them.
struct Cluster {
    edges: Edges,
    nats: NatsServers,
    redis: RedisServers,
}

async fn servers(nats: &NatsOptions) -> (NatsServers, RedisServers) {
    let nats = NatsServers::start_with(&program("RISER_NATS_SERVER"), 1, nats).await.expect("NATS");
    let redis = RedisServers::start(&program("RISER_REDIS_SERVER"), &RedisOptions::default()).await.expect("Redis");
    (nats, redis)
}

fn options(nats: &NatsServers, redis: &RedisServers, set: &[&str]) -> EdgesOptions {
    let set = set.iter().map(|&set| set.to_owned()).collect();
    EdgesOptions { nats: nats.urls(), redis: redis.port(0), set, ..EdgesOptions::default() }
}

/// Starts so many edges, each with these options set.
async fn cluster(count: usize, set: &[&str]) -> Cluster {
    let (nats, redis) = servers(&NatsOptions::default()).await;
    let edges = Edges::start(&riser(), count, &options(&nats, &redis, set)).await.expect("edges");
    Cluster { edges, nats, redis }
}

impl Cluster {
    async fn link(&self, number: usize, credential: &str) -> Link {
        self.edges.link(number, credential).await.expect("a session").0
    }

    /// A metric of an edge, with its labels as they are written; 0 when it is not there.
    async fn metric(&self, number: usize, name: &str) -> u64 {
        let (_, body) = self.edges.admin(number, "GET", "/metrics").await.expect("metrics");
        let value = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().expect("a count"))
    }

    async fn until_metric(&self, number: usize, name: &str, least: u64) {
        let reached = async {
            while self.metric(number, name).await < least {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        timeout(PATIENCE, reached).await.expect("a metric that rises");
    }
}

/// The next frame of this type.
async fn frame(link: &mut Link, kind: &str) -> String {
    let begin = format!(r#"{{"t":"{kind}""#);
    let reading = async {
        loop {
            let frame = link.next().await.expect("a frame");
            if frame.starts_with(&begin) {
                return frame;
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("a frame in time")
}

/// How a session ends.
async fn end(link: &mut Link) -> End {
    let reading = async {
        loop {
            if let Err(end) = link.next().await {
                return end;
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("an end in time")
}
