//! The registry on real Redis servers.

use std::sync::{Arc, Weak};

use riser_core::GatewayKey;
use riser_core::command::{Body, DEADLINE_MS, Digest};
use riser_core::live::{Stream, StreamId, StreamKind};
use riser_registry::redis::{Address, RedisConfig, RedisRegistry, Servers};
use riser_registry::suite::Bench;
use riser_registry::{Lease, NewCommand};
use riser_testkit::real::redis::{MASTER, RedisOptions, RedisServers};
use tokio::sync::Mutex;

use super::{program, unique};

mod commands;
mod connecting;
mod failover;
mod leases;
mod model;
mod trouble;

/// One server that the conformance cases share: it lives as long as one of them runs.
static SINGLE: Mutex<Weak<RedisServers>> = Mutex::const_new(Weak::new());

async fn start() -> RedisServers {
    start_with(&RedisOptions::default()).await
}

async fn start_with(options: &RedisOptions) -> RedisServers {
    RedisServers::start(&program("RISER_REDIS_SERVER"), options).await.expect("a server that starts")
}

async fn shared() -> Arc<RedisServers> {
    let mut shared = SINGLE.lock().await;
    if let Some(servers) = shared.upgrade() {
        return servers;
    }
    let servers = Arc::new(start().await);
    *shared = Arc::downgrade(&servers);
    servers
}

fn address(port: u16) -> Address {
    Address { host: "127.0.0.1".into(), port }
}

/// How the first server is reached.
fn config(servers: &RedisServers) -> RedisConfig {
    RedisConfig::new(Servers::Single(address(servers.port(0))))
}

/// How the server is reached that the Sentinels name.
fn by_sentinels(servers: &RedisServers) -> RedisConfig {
    RedisConfig::new(Servers::Sentinel {
        addresses: servers.sentinels().into_iter().map(address).collect(),
        master: MASTER.into(),
        user: None,
        password: None,
    })
}

async fn connect(config: RedisConfig) -> RedisRegistry {
    RedisRegistry::connect(config).await.expect("a server that can be reached")
}

/// Cases that need a server of their own: one edge of a cluster is given overdue commands, and its page can be full of
/// another case's.
const ALONE: [&str; 3] = [
    "the_most_overdue_commands_are_given_first",
    "what_is_decided_or_not_yet_due_is_not_given",
    "overdue_commands_are_given_to_one_edge_until_it_is_gone",
];

async fn bench(case: &str) -> Bench<RedisRegistry> {
    let servers = if ALONE.contains(&case) { Arc::new(start().await) } else { shared().await };
    let (one, two) = (connect(config(&servers)).await, connect(config(&servers)).await);
    Bench { one, two, name: unique(), behind: Some(servers) }
}

riser_registry::conformance!(
    #[tokio::test]
    bench
);

fn lease(edge: &str, start: u64) -> Lease {
    Lease { edge: edge.parse().expect("an edge name"), start }
}

fn key(tenant: &str, address: &str) -> GatewayKey {
    GatewayKey::new(tenant.parse().expect("a tenant"), address.parse().expect("an address"))
}

fn command(number: u8, hold: bool) -> NewCommand {
    let (path, action) = ("door/1".parse().expect("a path"), "open".parse().expect("an action"));
    NewCommand {
        digest: Digest([number; 16]),
        body: Body { path, action, args: None, hold },
        by: "client:anna".into(),
        deadline_ms: *DEADLINE_MS.end(),
        edge: "one".parse().expect("an edge name"),
        no_room: false,
    }
}

fn stream(number: u32) -> Stream {
    Stream {
        id: StreamId(number),
        of: "b/g".parse().expect("an address"),
        path: "door/1".parse().expect("a path"),
        kind: StreamKind::Opus,
        params: None,
        from: "client:anna".into(),
        edge: "one".parse().expect("an edge name"),
    }
}
