//! An edge whose ports are slow or silent, and what must hold all the same.

use std::time::Duration;

use fastwebsockets::Frame;
use riser_core::{Grant, Pattern, Verb};
use riser_edge::auth::{TokenOrder, mint};
use riser_registry::StateStore;
use riser_registry::memory::Faults;
use serde_json::json;
use tokio::time::timeout;

use super::harness::*;

/// Calls of the store that take a while, and are answered in time.
fn slow() -> Faults {
    let delay = Duration::from_millis(300);
    Faults { delay: delay..=delay, ..Faults::default() }
}

/// A token of alice's that shows one pattern.
fn token(to: &str, now_ms: u64) -> String {
    let to: Pattern = to.parse().expect("a pattern");
    let grants = vec![Grant { to, may: vec![Verb::Read], ..Grant::everything() }];
    let order = TokenOrder { peer: client_of("acme").peer, grants, ttl_s: 900 };
    mint(&"acme".parse().expect("a tenant"), &tenant(), &order, now_ms).expect("a token").token
}

#[tokio::test(start_paused = true)]
async fn a_right_that_is_withdrawn_while_a_subscription_is_being_made_is_not_in_it() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (mut gw, _) = Peerling::open(&one, gateway("b12/f1")).await;
    let (mut watcher, _) = Peerling::open(&one, client_of("acme")).await;
    cluster.store.set_faults(&slow());
    // One is under way when the right goes, one waits behind it, and one is still allowed.
    for (n, to) in [(1, "b12/*"), (2, "b12/f1"), (3, "b13/*")] {
        watcher.send(&json!({"t":"subscribe","n":n,"to":to,"lanes":["state","presence"]})).await;
    }
    let token = token("b13/*", cluster.store.now_ms());
    watcher.send(&json!({"t":"auth","n":4,"token":token})).await;
    assert_eq!(watcher.next("ok").await["n"], 4);
    for n in [1, 2] {
        let error = watcher.next("error").await;
        assert_eq!((&error["n"], &error["code"]), (&json!(n), &json!("forbidden")));
    }
    assert_eq!(watcher.next("ok").await["n"], 3);
    gw.set(1, json!({"a":1})).await;
    watcher.send(&json!({"t":"ping"})).await;
    watcher.next("pong").await;
    assert!(watcher.seen.iter().all(|frame| frame["t"] == "synced"), "{:?}", watcher.seen);
}

#[tokio::test(start_paused = true)]
async fn with_a_silent_store_every_subscription_is_answered_soon_whoever_else_waits() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let mut watchers = Vec::new();
    for _ in 0..100 {
        watchers.push(Peerling::open(&one, client_of("acme")).await.0);
    }
    cluster.store.cut_all(Duration::from_secs(3_600));
    for (i, watcher) in watchers.iter_mut().enumerate() {
        // Half of them watch the same building.
        let to = if i % 2 == 0 { "b/*".into() } else { format!("b{i}/*") };
        watcher.send(&json!({"t":"subscribe","n":1,"to":to,"lanes":["state"]})).await;
    }
    let asked = tokio::time::Instant::now();
    for watcher in &mut watchers {
        assert_eq!(watcher.next("error").await["code"], "unavailable");
    }
    // Simulated time: a call of 2 s each, one after the other, would be minutes.
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    cluster.store.heal_all();
    for watcher in &mut watchers {
        watcher.subscribe("b/*", &["state"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn many_who_watch_one_building_at_once_cost_one_load_and_all_see_everything() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    for i in 0..3 {
        let (mut gw, _) = Peerling::open(&one, gateway(&format!("b12/f{i}"))).await;
        gw.set(1, json!({"a":1})).await;
    }
    let mut watchers = Vec::new();
    for _ in 0..50 {
        watchers.push(Peerling::open(&one, client_of("acme")).await.0);
    }
    cluster.store.set_faults(&slow());
    let before = cluster.store.fault_counts().delayed;
    for (i, watcher) in watchers.iter_mut().enumerate() {
        // Overlapping patterns share the mirrors that one of them reads.
        let to = ["b12/*", "*/*", "b12/f1"][i % 3];
        watcher.send(&json!({"t":"subscribe","n":1,"to":to,"lanes":["state"]})).await;
    }
    for (i, watcher) in watchers.iter_mut().enumerate() {
        watcher.next("synced").await;
        let snapshots = watcher.seen.iter().filter(|frame| frame["t"] == "snapshot").count();
        assert_eq!(snapshots, if i % 3 == 2 { 1 } else { 3 }, "{:?}", watcher.seen);
    }
    let calls = (cluster.store.fault_counts().delayed - before) / 2;
    assert!(calls < 20, "{calls} calls of the store");
}

#[tokio::test(start_paused = true)]
async fn an_edge_that_drains_waits_for_an_end_whose_last_state_is_still_being_stored() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (two, _) = cluster.edge("edge-1").await;
    let (mut watcher, _) = Peerling::open(&two, client_of("acme")).await;
    watcher.subscribe("*/*", &["presence"]).await;
    let (mut gw, _) = Peerling::open(&one, gateway("b12/f1")).await;
    assert_eq!(watcher.next("presence").await["online"], true);
    cluster.store.set_faults(&slow());
    gw.send(&json!({"t":"state","n":1,"set":{"a":1}})).await;
    gw.ws.write_frame(Frame::close(1000, b"")).await.expect("written");
    drop(gw);
    let gone = async {
        while one.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("gone in time");
    // What is under way takes its time; the drain itself is answered at once.
    cluster.store.set_faults(&Faults::default());
    one.drain().await;
    let presence = watcher.next("presence").await;
    assert_eq!((&presence["online"], &presence["reason"]), (&json!(false), &json!("closed")));
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_loses_nothing_costs_no_gateway_its_full_state() {
    let cluster = Cluster::new();
    let (one, registry) = cluster.edge("edge-0").await;
    let (mut gw, _) = Peerling::open(&one, gateway("b12/f1")).await;
    gw.set(1, json!({"a":1})).await;
    cluster.store.cut_all(Duration::from_millis(10));
    // Longer than a lease, in simulated time.
    tokio::time::sleep(Duration::from_secs(20)).await;
    cluster.store.heal_all();
    let store = cluster.store.client(&"edge-0".parse().expect("an edge"));
    let (tenant, building) = ("acme".parse().expect("a tenant"), "b12".parse().expect("a building"));
    let stepped = async {
        // Rev 2 is what the end of the session would have had.
        while store.versions(&tenant, &building).await.expect("answered")[0].1.rev.0 < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, stepped).await.expect("in time");
    gw.set(2, json!({"a":2})).await;
    assert!(gw.seen.iter().all(|frame| frame["t"] != "resync"), "{:?}", gw.seen);
    assert!(counted(&registry, "riser_lease_lost_total", None) >= 1);
    assert_eq!(counted(&registry, "riser_resyncs_total", None), 0);
    let (mut watcher, _) = Peerling::open(&one, client_of("acme")).await;
    let snapshots = watcher.subscribe("b12/f1", &["state"]).await;
    assert_eq!((&snapshots[0]["state"], &snapshots[0]["rev"]), (&json!({"a":2}), &json!(4)));
}
