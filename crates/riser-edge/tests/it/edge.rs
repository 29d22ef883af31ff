//! An edge over the memory twins, its peers over in-memory pipes: what frames do, from one end to the other.

use std::time::Duration;

use fastwebsockets::{Frame, Payload};
use serde_json::{Value, json};

use super::harness::*;

#[tokio::test(start_paused = true)]
async fn a_dashboard_on_another_edge_sees_what_a_gateway_reports() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (two, _) = cluster.edge("edge-1").await;
    let (mut gw, welcome) = Peerling::open(&one, gateway("b12/f1")).await;
    assert_eq!((&welcome["peer"], &welcome["address"]), (&json!("gateway"), &json!("b12/f1")));
    assert!(welcome.get("have").is_none());
    gw.send(&json!({"t":"state","n":1,"full":true,"set":{"kitchen/light":true,"hall/lock":"locked"}})).await;
    gw.next("ok").await;
    let (mut watcher, _) = Peerling::open(&two, client_of("acme")).await;
    let snapshots = watcher.subscribe("b12/*", &["state", "presence"]).await;
    assert_eq!(snapshots.len(), 1);
    assert_eq!(snapshots[0]["state"], json!({"hall/lock":"locked","kitchen/light":true}));
    assert_eq!((&snapshots[0]["online"], &snapshots[0]["stale"]), (&json!(true), &json!([])));

    gw.set(2, json!({"kitchen/light":false,"hall/lock":null})).await;
    let state = watcher.next("state").await;
    assert_eq!(state["set"], json!({"kitchen/light":false,"hall/lock":null}));
    gw.send(&json!({"t":"device","n":3,"path":"kitchen","up":false})).await;
    assert_eq!(gw.next("ok").await["n"], 3);
    assert_eq!(watcher.next("state").await["stale"], json!(["kitchen/light"]));
    gw.set(4, json!({"kitchen/light":true})).await;
    let state = watcher.next("state").await;
    assert_eq!((&state["stale"], &state["set"]), (&json!([]), &json!({"kitchen/light":true})));
    gw.send(&json!({"t":"describe","n":5,"devices":{"kitchen/light":{"kind":"switch","name":"Light"}}})).await;
    assert_eq!(watcher.next("devices").await["devices"]["kitchen/light"]["kind"], "switch");
    gw.send(&json!({"t":"state","n":6,"full":true,"set":{"a":1}})).await;
    let snapshot = watcher.next("snapshot").await;
    assert_eq!((&snapshot["state"], &snapshot["rev"]), (&json!({"a":1}), &json!(6)));

    gw.ws.write_frame(Frame::close(1000, b"")).await.expect("written");
    let presence = watcher.next("presence").await;
    assert_eq!((&presence["online"], &presence["reason"]), (&json!(false), &json!("closed")));
    assert_eq!(watcher.next("state").await["stale"], json!(["a"]));
    let (mut gw, welcome) = Peerling::open(&two, gateway("b12/f1")).await;
    assert!(welcome["have"]["rev"].is_u64());
    assert_eq!(watcher.next("presence").await["online"], true);
    assert_eq!(watcher.next("state").await["fresh"], json!(["a"]));
    gw.send(&json!({"t":"ping"})).await;
    assert_eq!(gw.next("pong").await["epoch"], welcome["epoch"]);
}

#[tokio::test(start_paused = true)]
async fn a_takeover_ends_the_older_session_and_never_shows_offline() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (two, registry) = cluster.edge("edge-1").await;
    let (mut watcher, _) = Peerling::open(&one, client_of("acme")).await;
    watcher.subscribe("b12/f1", &["presence"]).await;
    let (mut older, first) = Peerling::open(&one, gateway("b12/f1")).await;
    assert_eq!(watcher.next("presence").await["online"], true);
    let (_newer, second) = Peerling::open(&two, gateway("b12/f1")).await;
    assert_eq!(older.next("closed").await["code"], 4006);
    assert!(second["epoch"].as_u64() > first["epoch"].as_u64());
    let presence = watcher.next("presence").await;
    assert_eq!((&presence["online"], &presence["reason"]), (&json!(true), &json!("takeover")));
    assert_eq!(presence["epoch"], second["epoch"]);
    drop(older);
    tokio::time::sleep(Duration::from_secs(30)).await;
    watcher.send(&json!({"t":"ping"})).await;
    watcher.next("pong").await;
    assert!(watcher.seen.iter().all(|f| f["t"] != "presence"), "{:?}", watcher.seen);
    assert_eq!(counted(&registry, "riser_takeovers_total", None), 1);
}

#[tokio::test(start_paused = true)]
async fn what_happens_before_a_subscription_has_spread_is_shown_within_4_seconds() {
    let second = Duration::from_secs(1);
    for (to, quiet) in [("b12/f1", 0), ("b12/*", 3), ("*/*", 60)] {
        let cluster = Cluster::new();
        let (one, _) = cluster.edge("edge-0").await;
        let (two, _) = cluster.edge("edge-1").await;
        // The time since the last round of all must not matter, and is another one for each pattern.
        tokio::time::sleep(second * quiet).await;
        let (mut known, _) = Peerling::open(&one, gateway("b12/f1")).await;
        known.set(1, json!({"a":1})).await;
        cluster.net.set_interest_delay(second..=second);
        let (mut watcher, _) = Peerling::open(&two, client_of("acme")).await;
        watcher.subscribe(to, &["state", "presence"]).await;
        let subscribed = tokio::time::Instant::now();
        known.set(2, json!({"a":2})).await;
        let new = Peerling::open(&one, gateway("b12/f2")).await;
        let mut missing = vec!["b12/f1"];
        missing.extend((to != "b12/f1").then_some("b12/f2"));
        while !missing.is_empty() {
            let snapshot = watcher.next("snapshot").await;
            if snapshot["of"] == "b12/f1" {
                assert_eq!(snapshot["state"], json!({"a":2}), "{to}");
            }
            missing.retain(|of| snapshot["of"] != *of);
        }
        assert!(subscribed.elapsed() < 4 * second, "{to}: {:?}", subscribed.elapsed());
        // Later changes come by themselves.
        let changed = tokio::time::Instant::now();
        known.set(3, json!({"a":3})).await;
        assert_eq!(watcher.next("state").await["set"], json!({"a":3}), "{to}");
        assert!(changed.elapsed() < second / 10, "{to}: {:?}", changed.elapsed());
        drop(new);
    }
}

#[tokio::test(start_paused = true)]
async fn the_gateways_of_a_killed_edge_go_offline_once_within_15_seconds() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (two, _) = cluster.edge("edge-1").await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (mut watcher, _) = Peerling::open(&two, client_of("acme")).await;
    watcher.subscribe("*/*", &["presence"]).await;
    let (gw, _) = Peerling::open(&one, gateway("b12/f1")).await;
    assert_eq!(watcher.next("presence").await["online"], true);
    let killed = tokio::time::Instant::now();
    one.kill().await;
    let presence = watcher.next("presence").await;
    assert_eq!((&presence["online"], &presence["reason"]), (&json!(false), &json!("edge_lost")));
    assert!(killed.elapsed() < Duration::from_secs(15), "{:?}", killed.elapsed());
    drop(gw);
    let (_gw, _) = Peerling::open(&two, gateway("b12/f1")).await;
    assert_eq!(watcher.next("presence").await["online"], true);
    assert!(watcher.seen.iter().all(|f| f["t"] != "presence"), "{:?}", watcher.seen);
}

#[tokio::test(start_paused = true)]
async fn an_emptied_registry_is_filled_again_by_those_who_are_connected() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (mut gw, _) = Peerling::open(&one, gateway("b12/f1")).await;
    gw.set(1, json!({"a":1})).await;
    cluster.store.empty();
    let emptied = tokio::time::Instant::now();
    gw.next("resync").await;
    assert!(emptied.elapsed() <= Duration::from_secs(10), "{:?}", emptied.elapsed());
    gw.send(&json!({"t":"state","n":2,"full":true,"set":{"a":2}})).await;
    gw.next("ok").await;
    let (mut watcher, _) = Peerling::open(&one, client_of("acme")).await;
    let snapshots = watcher.subscribe("b12/f1", &["state"]).await;
    assert_eq!((&snapshots[0]["state"], &snapshots[0]["online"]), (&json!({"a":2}), &json!(true)));
}

#[tokio::test(start_paused = true)]
async fn nothing_of_one_tenant_reaches_another() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (mut watcher, _) = Peerling::open(&one, client_of("other")).await;
    watcher.subscribe("*/*", &["state", "presence"]).await;
    let (mut gw, _) = Peerling::open(&one, gateway("b12/f1")).await;
    gw.set(1, json!({"a":1})).await;
    watcher.send(&json!({"t":"ping"})).await;
    watcher.next("pong").await;
    assert!(watcher.seen.is_empty(), "{:?}", watcher.seen);
}

#[tokio::test(start_paused = true)]
async fn limits_are_told_and_kept() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (mut gw, _) = Peerling::open(&one, gateway("b12/f1")).await;
    // Both frames are merged into one change; the good one is stored all the same.
    gw.send(&json!({"t":"state","n":1,"set":{"a":1}})).await;
    gw.send(&json!({"t":"state","n":2,"set":{"b":1,"c":1,"d":1,"e":1}})).await;
    gw.send(&json!({"t":"state","n":3,"set":{"b":1}})).await;
    let mut answers = [gw.read().await, gw.read().await, gw.read().await];
    answers.sort_by_key(|a| a["n"].as_u64());
    let told: Vec<_> = answers.iter().map(|a| (a["t"].as_str().expect("t"), a["code"].as_str())).collect();
    assert_eq!(told, [("ok", None), ("error", Some("too_many")), ("ok", None)]);

    let (mut watcher, _) = Peerling::open(&one, client_of("acme")).await;
    for (i, to) in ["a/*", "b/*", "c/*"].iter().enumerate() {
        watcher.send(&json!({"t":"subscribe","n":i,"to":to,"lanes":["state"]})).await;
        watcher.next("ok").await;
    }
    watcher.send(&json!({"t":"subscribe","n":9,"to":"d/*","lanes":["state"]})).await;
    assert_eq!(watcher.next("error").await["code"], "too_many");
    watcher.send(&json!({"t":"subscribe","n":10,"to":"a/*","lanes":["state"]})).await;
    assert_eq!(watcher.next("ok").await["n"], 10);
    watcher.send(&json!({"t":"unsubscribe","n":11,"to":"a/*"})).await;
    assert_eq!(watcher.next("ok").await["n"], 11);
    watcher.send(&json!({"t":"unsubscribe","n":12,"to":"a/*"})).await;
    assert_eq!(watcher.next("error").await["code"], "not_found");
    watcher.send(&json!({"t":"state","n":13,"set":{}})).await;
    assert_eq!(watcher.next("error").await["code"], "forbidden");
    gw.send(&json!({"t":"subscribe","n":14,"to":"b12/*","lanes":["state"]})).await;
    assert_eq!(gw.next("error").await["code"], "forbidden");
    watcher.send(&json!({"t":"hello"})).await;
    assert_eq!(watcher.next("closed").await["code"], 4500);
}

#[tokio::test(start_paused = true)]
async fn a_set_in_parts_takes_effect_at_the_last() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (mut gw, _) = Peerling::open(&one, gateway("b12/f1")).await;
    gw.set(1, json!({"old":1})).await;
    gw.send(&json!({"t":"state","n":2,"full":true,"more":true,"set":{"a":1}})).await;
    gw.send(&json!({"t":"state","n":3,"more":true,"set":{"b":1}})).await;
    gw.send(&json!({"t":"ping"})).await;
    gw.next("pong").await;
    assert!(gw.seen.is_empty(), "{:?}", gw.seen);
    gw.send(&json!({"t":"state","n":4,"set":{"c":1}})).await;
    for n in [2, 3, 4] {
        assert_eq!(gw.next("ok").await["n"], n);
    }
    let (mut watcher, _) = Peerling::open(&one, client_of("acme")).await;
    let snapshots = watcher.subscribe("*/*", &["state"]).await;
    assert_eq!(snapshots[0]["state"], json!({"a":1,"b":1,"c":1}));
}

#[tokio::test(start_paused = true)]
async fn filters_select_and_overlapping_subscriptions_deliver_once() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (mut gw, _) = Peerling::open(&one, gateway("b12/f1")).await;
    let (mut watcher, _) = Peerling::open(&one, client_of("acme")).await;
    watcher.send(&json!({"t":"subscribe","n":1,"to":"b12/*","lanes":["state"],"path":["hall/#"]})).await;
    watcher.next("synced").await;
    watcher.send(&json!({"t":"subscribe","n":2,"to":"b12/f1","lanes":["state"],"path":["hall/lock","+/light"]})).await;
    watcher.next("synced").await;
    watcher.seen.clear();
    gw.set(1, json!({"hall/lock":1,"kitchen/light":2,"kitchen/oven":3})).await;
    assert_eq!(watcher.next("state").await["set"], json!({"hall/lock":1,"kitchen/light":2}));
    gw.set(2, json!({"kitchen/oven":4})).await;
    gw.set(3, json!({"hall/lock":5})).await;
    assert_eq!(watcher.next("state").await["set"], json!({"hall/lock":5}));
    assert!(watcher.seen.is_empty(), "{:?}", watcher.seen);
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_gone_after_two_heartbeats() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (mut watcher, _) = Peerling::open(&one, client_of("acme")).await;
    watcher.subscribe("*/*", &["presence"]).await;
    let (gw, _) = Peerling::open(&one, gateway("b12/f1")).await;
    watcher.next("presence").await;
    let silent = tokio::time::Instant::now();
    // `gw` is kept, and not read: its pings are not answered.
    let presence = watcher.next("presence").await;
    assert_eq!((&presence["online"], &presence["reason"]), (&json!(false), &json!("heartbeat")));
    assert!(silent.elapsed() < Duration::from_secs(45), "{:?}", silent.elapsed());
    drop(gw);
}

#[tokio::test(start_paused = true)]
async fn no_hello_in_time_is_closed_4005() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let mut peer = Peerling::raw(&one, client_of("acme"));
    assert_eq!(peer.next("closed").await["code"], 4005);
}

#[tokio::test(start_paused = true)]
async fn a_drained_edge_says_goaway_and_its_gateways_stay_online_while_they_move() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (two, _) = cluster.edge("edge-1").await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (mut watcher, _) = Peerling::open(&two, client_of("acme")).await;
    watcher.subscribe("*/*", &["presence"]).await;
    let (mut mover, _) = Peerling::open(&one, gateway("b12/moves")).await;
    let (mut stayer, _) = Peerling::open(&one, gateway("b12/stays")).await;
    watcher.next("presence").await;
    watcher.next("presence").await;
    let drained = tokio::time::Instant::now();
    let drain = tokio::task::spawn(one.drain());
    assert!(mover.next("goaway").await["after_ms"].is_u64());
    assert_eq!(mover.next("closed").await["code"], 4000);
    let (_mover, _) = Peerling::open(&two, gateway("b12/moves")).await;
    let presence = watcher.next("presence").await;
    assert_eq!((&presence["of"], &presence["reason"]), (&json!("b12/moves"), &json!("takeover")));
    assert_eq!(stayer.next("closed").await["code"], 4000);
    drop((mover, stayer));
    drain.await.expect("drained");
    let presence = watcher.next("presence").await;
    assert_eq!((&presence["of"], &presence["reason"]), (&json!("b12/stays"), &json!("edge_drained")));
    assert!(drained.elapsed() > Duration::from_secs(30), "{:?}", drained.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_slow_listener_ends_with_the_newest_values() {
    let cluster = Cluster::new();
    let (one, registry) = cluster.edge("edge-0").await;
    let (mut gw, _) = Peerling::open(&one, gateway("b12/f1")).await;
    let (mut watcher, _) = Peerling::open(&one, client_of("acme")).await;
    watcher.subscribe("*/*", &["state"]).await;
    let fat = "x".repeat(2_000);
    for i in 0..400 {
        gw.set(i, json!({ "a": i, "b": fat })).await;
    }
    let mut last = Value::Null;
    let mut frames = 0;
    while last != json!(399) {
        last = watcher.next("state").await["set"]["a"].clone();
        frames += 1;
    }
    assert!(frames < 200, "{frames} frames");
    let conflated = registry.gather().into_iter().find(|m| m.name() == "riser_conflated_total").expect("counted");
    assert!(conflated.get_metric()[0].get_counter().get_value() > 100.0);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_readers_that_stop_cost_bounded_memory_and_end_with_the_truth() {
    let cluster = Cluster::new();
    let (one, registry) = cluster.edge("edge-0").await;
    let (mut gw, _) = Peerling::open(&one, gateway("b12/f1")).await;
    let (mut fast, _) = Peerling::open(&one, client_of("acme")).await;
    fast.subscribe("*/*", &["state"]).await;
    let mut readers = Vec::new();
    for _ in 0..100 {
        let (mut reader, _) = Peerling::open(&one, client_of("acme")).await;
        reader.subscribe("*/*", &["state"]).await;
        readers.push(reader);
    }
    let fat = "x".repeat(200);
    for i in 0..10_000 {
        gw.set(i, json!({ "a": i, "b": fat })).await;
        // Whoever reads gets every change, whatever the others do.
        assert_eq!(fast.next("state").await["set"]["a"], i);
    }
    // 10 000 frames of 300 bytes were due to each; what waits for all of them is a few queues of 32 KiB.
    let waiting = one.queued_bytes();
    assert!(waiting < 100 * 40 * 1024, "{waiting} bytes wait");
    for reader in &mut readers {
        while reader.next("state").await["set"]["a"] != json!(9_999) {}
        // A question is answered in its turn, so that nothing was lost on the way.
        reader.send(&json!({"t":"ping"})).await;
        reader.next("pong").await;
    }
    let conflated = registry.gather().into_iter().find(|m| m.name() == "riser_conflated_total").expect("counted");
    assert!(conflated.get_metric()[0].get_counter().get_value() > 100_000.0);
}

#[tokio::test(start_paused = true)]
async fn of_fifty_sessions_of_one_gateway_at_once_the_newest_stays() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (two, _) = cluster.edge("edge-1").await;
    let mut peers = Vec::new();
    for i in 0..50 {
        let mut peer = Peerling::raw(if i % 2 == 0 { &one } else { &two }, gateway("b12/f1"));
        peer.send(&json!({"t":"hello"})).await;
        peers.push(peer);
    }
    // Simulated time, in which everything settles.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut epochs = Vec::new();
    let mut open = 0;
    for peer in &mut peers {
        let first = peer.read().await;
        if first["t"] == "closed" {
            assert_eq!(first["code"], 4006, "{first}");
            continue;
        }
        epochs.push(first["epoch"].as_u64().expect("an epoch"));
        // Who was taken over meanwhile has its close waiting, and cannot be asked any more.
        let ping = Frame::text(Payload::Owned(br#"{"t":"ping"}"#.to_vec()));
        let _ = peer.ws.write_frame(ping).await;
        let next = peer.read().await;
        if next["t"] == "pong" {
            open += 1;
            assert_eq!(next["epoch"].as_u64(), epochs.iter().max().copied());
        } else {
            assert_eq!(next["code"], 4006, "{next}");
        }
    }
    assert_eq!(open, 1);
}
