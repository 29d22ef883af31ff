//! What becomes of calls when Redis is slow, gone, emptied, or holds what nobody of ours wrote.

use std::time::Duration;

use riser_core::command::{CommandId, Step, Took};
use riser_core::limits::Limits;
use riser_core::{Change, GatewayKey, Json, Reason, Snapshot, Version};
use riser_registry::redis::{RedisConfig, RedisRegistry};
use riser_registry::{
    Applied, CommandStore, Created, Opened, Registry, RegistryError, Restored, StateStore, Stepped, StreamStore,
};
use riser_testkit::real::redis::{RawRedis, Reply};
use tokio::time::{Instant, timeout};

use super::{command, config, connect, key, lease, start, stream};
use crate::PATIENCE;

/// A lease's time that no test outlasts.
const LONG: Duration = Duration::from_secs(600);

pub(super) fn set(path: &str, value: usize) -> Change {
    Change::values([(path.parse().expect("a path"), Some(Json::of(&value)))], false)
}

pub(super) async fn apply(registry: &RedisRegistry, key: &GatewayKey, version: Version, change: &Change) -> Applied {
    registry.apply(key, version, change, &Limits::default()).await.expect("an answer")
}

async fn issue(registry: &RedisRegistry, key: &GatewayKey, number: u8) -> Stepped {
    match registry.create(key, &command(number, true)).await.expect("an answer") {
        Created::Recorded(stepped) => *stepped,
        refused => panic!("{refused:?}"),
    }
}

async fn snapshot(registry: &RedisRegistry, key: &GatewayKey) -> Option<Snapshot> {
    registry.read(key).await.expect("an answer")
}

/// Does each thing once that an edge does.
pub(super) async fn use_everything(registry: &RedisRegistry) {
    let (one, two, key) = (lease("one", 1), lease("two", 1), key("t", "b/g"));
    let (tenant, building) = (&key.tenant, key.address.building());
    for lease in [&one, &two] {
        registry.renew(lease, LONG).await.expect("an answer");
    }
    let epoch = registry.acquire(&one, &key, None).await.expect("an answer").epoch;
    let version = Version::start(epoch).next();
    let change = Change { full: true, ..set("a/b", 1) };
    assert!(matches!(apply(registry, &key, version, &change).await, Applied::Stored { .. }));
    let away = Change::mark("a".parse().expect("a path"), false);
    assert!(matches!(apply(registry, &key, version.next(), &away).await, Applied::Stored { .. }));
    assert!(snapshot(registry, &key).await.expect("a gateway").state.values.values().all(|value| value.stale));
    let restored = registry.restore(&two, &key, version.next(), 5).await;
    assert_eq!(restored, Ok(Restored::Held { lost: false }));
    let first = issue(registry, &key, 1).await;
    let step = registry.step(&key, &first.record.cmd, &Step::Cancel).await.expect("an answer");
    assert_eq!(step.map(|stepped| stepped.took), Some(Took::Yes));
    issue(registry, &key, 2).await;
    assert_eq!(registry.open(&key, 0, 9).await.expect("an answer").len(), 1);
    assert_eq!(registry.latest(&key, None, 9).await.expect("an answer").len(), 2);
    registry.overdue(&one.edge).await.expect("an answer");
    let opened = registry.open_stream(tenant, &stream(1), LONG).await.expect("an answer");
    assert!(matches!(opened, Opened::Open(Some(_))), "{opened:?}");
    assert_eq!(registry.streams(tenant, None).await.expect("an answer").len(), 1);
    registry.close_stream(tenant, &stream(1).of, stream(1).id).await.expect("an answer");
    assert_eq!(registry.audit(tenant, building).await.expect("an answer")[0].unsent, 1);
    assert_eq!(registry.presence(tenant, building, None, 9).await.expect("an answer").len(), 1);
    assert_eq!(registry.versions(tenant, building).await.expect("an answer").len(), 1);
    assert_eq!(registry.buildings(tenant).await, Ok(vec![building.clone()]));
    registry.drain(&one, Duration::ZERO).await.expect("an answer");
    assert_eq!(registry.ended_leases().await, Ok(vec![(one.clone(), Reason::EdgeDrained)]));
    assert_eq!(registry.sweep(&one, Reason::EdgeDrained, tenant, building).await, Ok(vec![]));
    registry.forget(&one).await.expect("an answer");
    assert_eq!(registry.ended_leases().await, Ok(vec![]));
    assert_eq!(registry.lease_index(&two).await.expect("an answer").len(), 1);
    registry.release(&key, epoch, Reason::Closed).await.expect("an answer").expect("an end");
}

/// Waits until a call is answered again.
pub(super) async fn answered(registry: &RedisRegistry) {
    let answer = async { while registry.ping().await.is_err() {} };
    timeout(PATIENCE, answer).await.expect("an answer in time");
}

#[tokio::test]
async fn whatever_an_edge_does_needs_no_script_to_be_there() {
    let servers = start().await;
    let registry = connect(config(&servers)).await;
    use_everything(&registry).await;
    let mut raw = servers.raw(0).await.expect("a connection");
    raw.call(&["FLUSHALL"]).await.expect("an answer");
    raw.call(&["SCRIPT", "FLUSH"]).await.expect("an answer");
    use_everything(&registry).await;
    let counts = registry.counts();
    assert!(counts.calls > 40, "{counts:?}");
    assert_eq!((counts.errors, counts.bad_values, counts.reconnects, counts.script_errors), (0, 0, 0, 0));
}

#[tokio::test]
async fn what_an_emptied_server_lacks_is_found_by_those_who_held_it() {
    let servers = start().await;
    let registry = connect(config(&servers)).await;
    let (lease, key) = (lease("one", 1), key("t", "b/g"));
    registry.renew(&lease, LONG).await.expect("an answer");
    let epoch = registry.acquire(&lease, &key, None).await.expect("an answer").epoch;
    let version = Version::start(epoch).next();
    apply(&registry, &key, version, &set("a", 1)).await;
    servers.raw(0).await.expect("a connection").call(&["FLUSHALL"]).await.expect("an answer");
    assert_eq!(snapshot(&registry, &key).await, None);
    assert_eq!(registry.audit(&key.tenant, key.address.building()).await, Ok(vec![]));
    assert_eq!(apply(&registry, &key, version.next(), &set("a", 2)).await, Applied::Gap(None));
    assert!(!registry.renew(&lease, LONG).await.expect("an answer").held);
    let restored = registry.restore(&lease, &key, version, 7).await;
    assert_eq!(restored, Ok(Restored::Held { lost: true }));
    let full = Change { full: true, ..set("a", 2) };
    assert!(matches!(apply(&registry, &key, version.next(), &full).await, Applied::Stored { .. }));
    assert_eq!(registry.lease_index(&lease).await.expect("an answer").len(), 1);
    assert!(registry.acquire(&lease, &key, None).await.expect("an answer").has_state);
}

/// Writes something under the key where we keep a gateway's things.
async fn forge(raw: &mut RawRedis, words: &[&str]) {
    raw.call(words).await.expect("an answer");
}

#[tokio::test]
async fn a_head_that_nobody_of_ours_wrote_is_counted_and_treated_as_missing() {
    let servers = start().await;
    let (registry, mut raw) = (connect(config(&servers)).await, servers.raw(0).await.expect("a connection"));
    let (lease, good, bad) = (lease("one", 1), key("t", "b/good"), key("t", "b/bad"));
    for key in [&good, &bad] {
        let epoch = registry.acquire(&lease, key, None).await.expect("an answer").epoch;
        apply(&registry, key, Version::start(epoch).next(), &set("a", 1)).await;
    }
    for (count, head) in (1..).zip(["", "{}", "1 2 3", "99999999999999999999 0 1 1 - one 1 0 0 0 0 0 0"]) {
        forge(&mut raw, &["HSET", "riser:{t/b}:g", "bad", head]).await;
        let before = registry.counts().bad_values;
        assert_eq!(snapshot(&registry, &bad).await, None, "{head:?}");
        let audit = registry.audit(&good.tenant, good.address.building()).await.expect("an answer");
        assert_eq!(audit.iter().map(|held| held.gateway.as_str()).collect::<Vec<_>>(), ["good"]);
        assert_eq!(apply(&registry, &bad, Version::new(5, 1), &set("a", 1)).await, Applied::Gap(None));
        assert_eq!(registry.release(&bad, riser_core::Epoch(5), Reason::Closed).await, Ok(None));
        let restored = registry.restore(&lease, &bad, Version::new(count, 1), 0).await;
        assert_eq!(restored, Ok(Restored::Held { lost: true }), "{head:?}");
        assert_eq!(registry.counts().bad_values - before, 5, "{head:?}");
        let anew = snapshot(&registry, &bad).await.expect("a gateway");
        assert_eq!((anew.version, anew.state.values.len()), (Version::new(count, 1), 0), "{head:?}");
    }
    // A name that is none, beside those that are.
    forge(&mut raw, &["HSET", "riser:{t/b}:g", "no name", "x"]).await;
    assert_eq!(registry.versions(&good.tenant, good.address.building()).await.expect("an answer").len(), 2);
    let acquired = registry.acquire(&lease, &good, None).await.expect("an answer");
    assert!(acquired.has_state, "the others are as they were");
    assert_eq!((registry.counts().errors, registry.counts().script_errors), (0, 0));
}

#[tokio::test]
async fn a_key_of_another_type_is_removed_and_what_hung_on_it_counts_as_lost() {
    let servers = start().await;
    let (registry, mut raw) = (connect(config(&servers)).await, servers.raw(0).await.expect("a connection"));
    let (lease, key) = (lease("one", 1), key("t", "b/g"));
    let held = || async {
        let epoch = registry.acquire(&lease, &key, None).await.expect("an answer").epoch;
        let version = Version::start(epoch).next();
        let full = Change { full: true, ..set("a", 1) };
        assert!(matches!(apply(&registry, &key, version, &full).await, Applied::Stored { .. }));
        version
    };
    for name in ["riser:{t/b}:s:g", "riser:{t/b}:g"] {
        let version = held().await;
        forge(&mut raw, &["SET", name, "forged"]).await;
        let before = registry.counts().bad_values;
        // The values are gone: the next change does not pretend that they are there.
        assert_eq!(apply(&registry, &key, version.next(), &set("b", 2)).await, Applied::Gap(None), "{name}");
        assert_eq!(registry.counts().bad_values, before + 1, "{name}");
        assert_eq!(registry.restore(&lease, &key, version, 0).await, Ok(Restored::Held { lost: true }), "{name}");
        held().await;
        forge(&mut raw, &["SET", name, "forged"]).await;
        assert_eq!(snapshot(&registry, &key).await, None, "{name}");
    }
    for name in ["riser:{_leases}:l", "riser:{_leases}:i:one:1", "riser:{t}:b", "riser:{t/b}:q", "riser:{t/b}:f"] {
        forge(&mut raw, &["DEL", name]).await;
        forge(&mut raw, &["SET", name, "forged"]).await;
        let before = registry.counts().bad_values;
        held().await;
        if name != "riser:{t/b}:q" {
            assert_eq!(registry.lease_index(&lease).await.expect("an answer").len(), 1, "{name}");
        }
        assert_eq!(registry.counts().bad_values, before + 1, "{name}");
    }
    for name in ["c:g", "d:g", "x:g"].map(|end| format!("riser:{{t/b}}:{end}")) {
        raw.call(&["FLUSHALL"]).await.expect("an answer");
        forge(&mut raw, &["LPUSH", &name, "forged"]).await;
        let stepped = issue(&registry, &key, 1).await;
        let cancelled = registry.step(&key, &stepped.record.cmd, &Step::Cancel).await.expect("an answer");
        assert_eq!(cancelled.expect("a command").took, Took::Yes, "{name}");
        assert_eq!(registry.latest(&key, None, 9).await.expect("an answer").len(), 1, "{name}");
    }
    for name in ["{t}:l", "{t}:z", "{t}:a:b/g", "{_due}:z", "{_due}:by", "{t}:ra", "{t}:rs", "{t}:rb"] {
        raw.call(&["FLUSHALL"]).await.expect("an answer");
        forge(&mut raw, &["LPUSH", &format!("riser:{name}"), "forged"]).await;
        let opened = registry.open_stream(&key.tenant, &stream(1), LONG).await;
        assert_eq!(opened, Ok(Opened::Open(None)), "{name}");
        let stepped = issue(&registry, &key, 1).await;
        registry.step(&key, &stepped.record.cmd, &Step::Cancel).await.expect("an answer").expect("a command");
        registry.overdue(&lease.edge).await.expect("an answer");
    }
    assert_eq!((registry.counts().errors, registry.counts().script_errors), (0, 0));
}

#[tokio::test]
async fn values_records_and_streams_that_nobody_of_ours_wrote_are_left_out() {
    let servers = start().await;
    let (registry, mut raw) = (connect(config(&servers)).await, servers.raw(0).await.expect("a connection"));
    let (lease, key) = (lease("one", 1), key("t", "b/g"));
    let epoch = registry.acquire(&lease, &key, None).await.expect("an answer").epoch;
    apply(&registry, &key, Version::start(epoch).next(), &set("a", 1)).await;
    for (path, value) in [("b", "0not json"), ("c", ""), ("d", "7{}"), ("+/e", "01"), ("", "no devices")] {
        forge(&mut raw, &["HSET", "riser:{t/b}:s:g", path, value]).await;
    }
    let state = snapshot(&registry, &key).await.expect("a gateway").state;
    assert_eq!((state.values.len(), state.devices), (1, None));
    assert_eq!(registry.counts().bad_values, 5);

    let stepped = issue(&registry, &key, 1).await;
    let digest = stepped.record.cmd.digest.to_string();
    forge(&mut raw, &["HSET", "riser:{t/b}:c:g", &digest, "{\"cmd\":1}"]).await;
    assert_eq!(registry.open(&key, 0, 9).await, Ok(vec![]));
    assert_eq!(registry.step(&key, &stepped.record.cmd, &Step::Look).await, Ok(None));
    assert_eq!(registry.counts().bad_values, 7);
    forge(&mut raw, &["HSET", "riser:{t/b}:q", "g", "forged"]).await;
    assert_eq!(registry.acquire(&lease, &key, None).await.expect("an answer").open_commands, 0);
    forge(&mut raw, &["ZADD", "riser:{_due}:z", "1", "forged"]).await;
    assert_eq!(registry.overdue(&lease.edge).await, Ok(vec![]));
    assert_eq!(registry.counts().bad_values, 9);

    registry.open_stream(&key.tenant, &stream(1), LONG).await.expect("an answer");
    registry.open_stream(&key.tenant, &stream(2), LONG).await.expect("an answer");
    forge(&mut raw, &["HSET", "riser:{t}:l", "2", "forged"]).await;
    assert_eq!(registry.streams(&key.tenant, None).await, Ok(vec![stream(1)]));
    forge(&mut raw, &["HSET", "riser:{_leases}:l", "three:1", "forged"]).await;
    assert_eq!(registry.ended_leases().await, Ok(vec![]));
    forge(&mut raw, &["ZADD", "riser:{_leases}:i:one:1", "1", "forged"]).await;
    assert_eq!(registry.lease_index(&lease).await.expect("an answer").len(), 1);
    forge(&mut raw, &["SADD", "riser:{t}:b", "for ged"]).await;
    assert_eq!(registry.buildings(&key.tenant).await.expect("an answer").len(), 1);
    assert_eq!(registry.counts().bad_values, 13);
    assert_eq!((registry.counts().errors, registry.counts().script_errors), (0, 0));
}

#[tokio::test]
async fn values_that_were_evicted_count_as_lost() {
    let servers = start().await;
    let (registry, mut raw) = (connect(config(&servers)).await, servers.raw(0).await.expect("a connection"));
    let (lease, key) = (lease("one", 1), key("t", "b/g"));
    let mut lose = async || {
        let epoch = registry.acquire(&lease, &key, None).await.expect("an answer").epoch;
        let version = Version::start(epoch).next();
        apply(&registry, &key, version, &Change { full: true, ..set("a", 1) }).await;
        assert_eq!(raw.call(&["DEL", "riser:{t/b}:s:g"]).await.expect("an answer"), Reply::Number(1));
        version
    };
    let version = lose().await;
    assert_eq!(registry.restore(&lease, &key, version, 0).await, Ok(Restored::Held { lost: true }));
    lose().await;
    let acquired = registry.acquire(&lease, &key, None).await.expect("an answer");
    assert!(!acquired.has_state);
    let version = Version::start(acquired.epoch).next();
    apply(&registry, &key, version, &set("b", 1)).await;
    assert!(!registry.acquire(&lease, &key, None).await.expect("an answer").has_state, "it is not made good by a part");
}

#[tokio::test]
async fn a_server_that_hangs_answers_nothing_in_a_calls_time_and_is_used_again_afterwards() {
    const HANGS: Duration = Duration::from_secs(20);
    let servers = start().await;
    let limit = Duration::from_secs(1);
    let registry = connect(RedisConfig { call_timeout: limit, connect_timeout: limit / 2, ..config(&servers) }).await;
    let (lease, key) = (lease("one", 1), key("t", "b/g"));
    let epoch = registry.acquire(&lease, &key, None).await.expect("an answer").epoch;
    servers.pause(0).expect("a server that can be stopped");
    let began = Instant::now();
    let mut calls = 0;
    while began.elapsed() < HANGS {
        let (change, limits) = (set("a", calls), Limits::default());
        let call = registry.apply(&key, Version::start(epoch).next(), &change, &limits);
        let answer = timeout(limit + PATIENCE / 10, call).await.expect("an end in a call's time");
        assert_eq!(answer, Err(RegistryError::Unavailable));
        calls += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!registry.is_connected() && calls > 10, "{calls} calls");
    servers.resume(0).expect("a server that goes on");
    answered(&registry).await;
    assert!(registry.counts().reconnects >= 1);
    // What was on its way may have been done, and is the same then.
    let applied = apply(&registry, &key, Version::start(epoch).next(), &set("a", 0)).await;
    assert!(matches!(applied, Applied::Stored { .. }), "{applied:?}");
}

#[tokio::test]
async fn a_server_that_was_restarted_is_reached_again() {
    let mut servers = start().await;
    let registry = connect(config(&servers)).await;
    servers.kill(0);
    let gone = async { while registry.ping().await.is_ok() {} };
    timeout(PATIENCE, gone).await.expect("the loss in time");
    servers.start_again(0).expect("a server that starts");
    answered(&registry).await;
    assert_eq!(registry.counts().reconnects, 1);
    use_everything(&registry).await;
}

#[tokio::test]
async fn a_master_that_became_a_replica_is_left() {
    let (servers, other) = (start().await, start().await);
    let registry = connect(config(&servers)).await;
    let mut raw = servers.raw(0).await.expect("a connection");
    raw.call(&["REPLICAOF", "127.0.0.1", &other.port(0).to_string()]).await.expect("an answer");
    let refused = registry.acquire(&lease("one", 1), &key("t", "b/g"), None).await;
    assert_eq!(refused, Err(RegistryError::Unavailable));
    assert!(!registry.is_connected(), "the refusal itself tells that it is no master");
    raw.call(&["REPLICAOF", "NO", "ONE"]).await.expect("an answer");
    answered(&registry).await;
    registry.acquire(&lease("one", 1), &key("t", "b/g"), None).await.expect("an answer");
}

#[tokio::test]
async fn a_server_that_is_full_refuses_and_nothing_is_half_done() {
    let servers = start().await;
    let (registry, mut raw) = (connect(config(&servers)).await, servers.raw(0).await.expect("a connection"));
    let (lease, key) = (lease("one", 1), key("t", "b/g"));
    let epoch = registry.acquire(&lease, &key, None).await.expect("an answer").epoch;
    let before = snapshot(&registry, &key).await;
    raw.call(&["CONFIG", "SET", "maxmemory", "1"]).await.expect("an answer");
    let full = registry.apply(&key, Version::start(epoch).next(), &set("a", 1), &Limits::default()).await;
    assert_eq!(full, Err(RegistryError::Unavailable));
    assert_eq!(snapshot(&registry, &key).await, before);
    raw.call(&["CONFIG", "SET", "maxmemory", "0"]).await.expect("an answer");
    assert!(matches!(apply(&registry, &key, Version::start(epoch).next(), &set("a", 1)).await, Applied::Stored { .. }));
    assert_eq!((registry.counts().reconnects, registry.counts().script_errors), (0, 0));
}

#[tokio::test]
async fn tenants_of_one_server_do_not_see_each_other() {
    let servers = start().await;
    let registry = connect(config(&servers)).await;
    let lease = lease("one", 1);
    // Names that could be taken for others if they were only put together.
    let keys = [key("t", "b/g"), key("t", "b/b"), key("t-b", "g/g"), key("leases", "b/g"), key("due", "b/g")];
    let mut held: Vec<(CommandId, Version)> = vec![];
    for (number, key) in (0..).zip(&keys) {
        let epoch = registry.acquire(&lease, key, None).await.expect("an answer").epoch;
        let version = Version::start(epoch).next();
        apply(&registry, key, version, &set("a", number)).await;
        registry.open_stream(&key.tenant, &stream(1), LONG).await.expect("an answer");
        held.push((issue(&registry, key, 1).await.record.cmd, version));
    }
    for ((number, key), (cmd, version)) in (0usize..).zip(&keys).zip(held) {
        let snapshot = snapshot(&registry, key).await.expect("a gateway");
        assert_eq!(snapshot.version, version);
        let value = &snapshot.state.values["a"].value;
        assert_eq!(value.as_str(), number.to_string());
        let latest = registry.latest(key, None, 9).await.expect("an answer");
        assert_eq!(latest.iter().map(|record| &record.cmd).collect::<Vec<_>>(), [&cmd]);
        assert_eq!(registry.streams(&key.tenant, None).await.expect("an answer").len(), 1);
        assert_eq!(registry.buildings(&key.tenant).await.expect("an answer").len(), 1);
    }
    assert_eq!(registry.lease_index(&lease).await.expect("an answer").len(), 4);
}
