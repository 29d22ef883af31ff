//! What Sentinels promise when the master is gone, and what a client does about it.

use std::time::Duration;

use riser_core::limits::Limits;
use riser_core::{Reason, Version};
use riser_registry::redis::{Password, RedisConfig, RedisRegistry, Servers};
use riser_registry::{Applied, Lease, Registry, StateStore};
use riser_testkit::real::redis::{MASTER, RedisOptions, RedisServers, Reply};
use tokio::time::timeout;

use super::trouble::{answered, apply, set};
use super::{address, by_sentinels, connect, key, lease};
use crate::{PATIENCE, program};

async fn start_with(options: &RedisOptions) -> RedisServers {
    let program = program("RISER_REDIS_SERVER");
    RedisServers::start_with_sentinels(&program, options).await.expect("servers that start")
}

/// Which server the connection leads to.
async fn server(registry: &RedisRegistry) -> String {
    registry.server_info().await.expect("an answer").server
}

/// Waits until the connection leads to a server that is written to.
async fn leads_to(registry: &RedisRegistry, port: u16) {
    let arrives = async {
        loop {
            match registry.server_info().await {
                Ok(info) if info.server == address(port).to_string() && info.is_master => return,
                // Not faster than the looks at the server that find out.
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(PATIENCE, arrives).await.expect("the new master in time");
}

/// A session that has stored so much, on a server and its replica.
async fn session(servers: &RedisServers, registry: &RedisRegistry, lease: &Lease) -> Version {
    let key = key("t", "b/g");
    registry.renew(lease, Duration::from_secs(600)).await.expect("an answer");
    let version = Version::start(registry.acquire(lease, &key, None).await.expect("an answer").epoch).next();
    assert!(matches!(apply(registry, &key, version, &set("a", 1)).await, Applied::Stored { .. }));
    let mut replica = servers.raw(1).await.expect("a connection");
    let has_it =
        async { while replica.call(&["HLEN", "riser:{t/b}:s:g"]).await.expect("an answer") != Reply::Number(1) {} };
    timeout(PATIENCE, has_it).await.expect("the replica in time");
    version
}

#[tokio::test]
async fn when_the_master_is_killed_its_replica_is_used_and_has_what_reached_it() {
    let mut servers = start_with(&RedisOptions::default()).await;
    let registry = connect(by_sentinels(&servers)).await;
    assert_eq!(server(&registry).await, address(servers.port(0)).to_string());
    let (lease, key) = (lease("one", 1), key("t", "b/g"));
    let version = session(&servers, &registry, &lease).await;
    servers.kill(0);
    answered(&registry).await;
    leads_to(&registry, servers.port(1)).await;
    assert_eq!(registry.read(&key).await.expect("an answer").expect("a gateway").version, version);
    assert!(matches!(apply(&registry, &key, version.next(), &set("a", 2)).await, Applied::Stored { .. }));
    let ended = registry.release(&key, version.epoch, Reason::Closed).await.expect("an answer");
    assert_eq!(ended.expect("an end").version, version.next().next());
    let counts = registry.counts();
    assert!(counts.reconnects >= 1 && counts.script_errors == 0, "{counts:?}");
}

#[tokio::test]
async fn when_the_master_hangs_its_replica_is_used_and_the_old_one_is_not_gone_back_to() {
    let servers = start_with(&RedisOptions::default()).await;
    let limit = Duration::from_secs(1);
    let config = RedisConfig { call_timeout: limit, connect_timeout: limit / 2, ..by_sentinels(&servers) };
    let registry = connect(config).await;
    let (lease, key) = (lease("one", 1), key("t", "b/g"));
    let version = session(&servers, &registry, &lease).await;
    servers.pause(0).expect("a server that can be stopped");
    leads_to(&registry, servers.port(1)).await;
    assert!(matches!(apply(&registry, &key, version.next(), &set("a", 2)).await, Applied::Stored { .. }));
    servers.resume(0).expect("a server that goes on");
    let mut old = servers.raw(0).await.expect("a connection");
    let follows = async {
        while !old.call(&["ROLE"]).await.is_ok_and(|role| role.texts().first() == Some(&"slave")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            old = servers.raw(0).await.expect("a connection");
        }
    };
    timeout(PATIENCE, follows).await.expect("the old master follows in time");
    assert_eq!(server(&registry).await, address(servers.port(1)).to_string());
    let change = set("a", 3);
    let applied = registry.apply(&key, version.next().next(), &change, &Limits::default()).await;
    assert!(matches!(applied, Ok(Applied::Stored { .. })), "{applied:?}");
}

#[tokio::test]
async fn when_the_sentinels_are_told_to_the_master_changes_and_is_found() {
    let servers = start_with(&RedisOptions::default()).await;
    let registry = connect(by_sentinels(&servers)).await;
    let (lease, key) = (lease("one", 1), key("t", "b/g"));
    let version = session(&servers, &registry, &lease).await;
    let mut sentinel = servers.raw(2).await.expect("a connection");
    sentinel.call(&["SENTINEL", "FAILOVER", MASTER]).await.expect("an answer");
    leads_to(&registry, servers.port(1)).await;
    assert!(matches!(apply(&registry, &key, version.next(), &set("a", 2)).await, Applied::Stored { .. }));
}

#[tokio::test]
async fn sentinels_and_servers_have_credentials_of_their_own() {
    let extra = vec!["requirepass right".into()];
    let login = Some(("default".into(), "right".into()));
    let servers = start_with(&RedisOptions { extra, login, ..RedisOptions::default() }).await;
    // The launcher asks Sentinels without credentials, and so these are given theirs when they are ready.
    for number in 2..5 {
        let mut raw = servers.raw(number).await.expect("a connection");
        raw.call(&["ACL", "SETUSER", "asks", "on", ">other", "~*", "&*", "+@all"]).await.expect("an answer");
        raw.call(&["ACL", "SETUSER", "default", "off"]).await.expect("an answer");
    }
    let mut config = by_sentinels(&servers);
    config.password = Some(Password("right".into()));
    RedisRegistry::connect(config.clone()).await.err().expect("a refusal by the Sentinels");
    if let Servers::Sentinel { user, password, .. } = &mut config.servers {
        (*user, *password) = (Some("asks".into()), Some(Password("other".into())));
    }
    connect(config.clone()).await.ping().await.expect("an answer");
    config.password = Some(Password("other".into()));
    RedisRegistry::connect(config).await.err().expect("a refusal by the server");
}
