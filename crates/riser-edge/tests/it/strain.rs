//! An edge whose ports are slow or silent, and what must hold all the same.

use std::time::Duration;

use riser_core::{Grant, Pattern, Verb};
use riser_edge::auth::{TokenOrder, mint};
use riser_registry::memory::Faults;
use serde_json::json;

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
