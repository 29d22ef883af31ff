//! What a change of the tenant table does to sessions that are open, at two edges, and what quotas let through.

use std::collections::VecDeque;
use std::sync::Arc;

use fastwebsockets::{Role, WebSocket};
use riser_core::tenant::{Quota, Quotas, Status};
use riser_core::{Grant, Peer, Tenant, TenantId};
use riser_edge::Edge;
use riser_edge::auth::{Minted, TokenOrder, mint};
use riser_registry::{Registry as _, Usage};
use serde_json::{Value, json};
use tokio::time::{Duration, timeout};

use super::harness::*;

fn acme() -> TenantId {
    "acme".parse().expect("a tenant")
}

impl Cluster {
    fn change(&self, change: impl FnOnce(&mut Tenant)) {
        self.tenants.send_modify(|table| Arc::make_mut(table).update(&acme(), change));
    }

    fn limit(&self, quota: Quota, limit: u64) {
        self.change(|acme| acme.quotas = Quotas::NONE.with(quota, limit));
    }

    /// A token of acme's for a subject, or for a gateway when it is an address.
    pub(super) fn token(&self, of: &str) -> Minted {
        token_at(of, self.store.now_ms())
    }
}

fn token_at(of: &str, now_ms: u64) -> Minted {
    let (peer, grants) = match of.parse() {
        Ok(address) => (Peer::Gateway { address }, Vec::new()),
        Err(_) => (Peer::Client { subject: of.into() }, vec![Grant::everything()]),
    };
    let order = TokenOrder { peer, grants, ttl_s: 900 };
    mint(&acme(), &tenant(), &order, now_ms).expect("a token")
}

/// A peer that shows its token in `hello`.
fn coming(edge: &Edge) -> Peerling {
    let (here, there) = tokio::io::duplex(4_096);
    let (read, write) = tokio::io::split(there);
    edge.attach(read, write, None);
    let mut ws = WebSocket::after_handshake(here, Role::Client);
    ws.set_auto_pong(true);
    Peerling { ws, seen: VecDeque::new() }
}

async fn open(edge: &Edge, token: &Minted) -> Peerling {
    let mut peer = coming(edge);
    peer.send(&json!({"t":"hello","token":token.token})).await;
    peer.next("welcome").await;
    peer
}

async fn code(peer: &mut Peerling) -> Value {
    peer.next("closed").await["code"].clone()
}

/// Whether the session still answers.
async fn goes_on(peer: &mut Peerling) {
    peer.send(&json!({"t":"ping"})).await;
    peer.next("pong").await;
}

fn jti(token: &Minted) -> String {
    use base64::Engine as _;
    let claims = token.token.split('.').nth(1).expect("three parts");
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).expect("base64url");
    let claims: Value = serde_json::from_slice(&claims).expect("JSON");
    claims["jti"].as_str().expect("an id").to_owned()
}

#[tokio::test(start_paused = true)]
async fn what_is_revoked_ends_at_every_edge_and_nothing_else_does() {
    let cluster = Cluster::new();
    let [(one, _), (two, _)] = [cluster.edge("edge-0").await, cluster.edge("edge-1").await];
    let [alice, bob, other] = ["alice", "bob", "alice"].map(|of| cluster.token(of));
    let (flat, next) = (cluster.token("b/f1"), cluster.token("b/f2"));
    let mut sessions = Vec::new();
    for (edge, token) in [(&one, &alice), (&two, &alice), (&two, &bob), (&one, &other), (&two, &flat), (&one, &next)] {
        sessions.push(open(edge, token).await);
    }
    let [alice_one, alice_two, bob_two, other_one, flat_two, next_one] = &mut sessions[..] else { panic!("six") };
    // One token, wherever it is used.
    cluster.change(|acme| acme.revoked.token(jti(&alice), u64::MAX).expect("room"));
    assert_eq!((code(alice_one).await, code(alice_two).await), (json!(4504), json!(4504)));
    for peer in [&mut *bob_two, other_one, flat_two, next_one] {
        goes_on(peer).await;
    }
    // A subject.
    let now_ms = cluster.store.now_ms();
    cluster.change(|acme| assert!(acme.revoked.subject("alice", now_ms).is_ok()));
    assert_eq!(code(other_one).await, 4504);
    goes_on(bob_two).await;
    // A gateway, which is enrolled again.
    let mut from_ms = 0;
    cluster.change(|acme| from_ms = acme.revoked.gateway("b/f1".parse().expect("an address"), now_ms).expect("room"));
    assert_eq!(code(flat_two).await, 4504);
    goes_on(next_one).await;
    let mut old = coming(&one);
    old.send(&json!({"t":"hello","token":flat.token})).await;
    assert_eq!(code(&mut old).await, 4504);
    goes_on(&mut open(&one, &token_at("b/f1", from_ms)).await).await;
    // All of the tenant.
    cluster.change(|acme| acme.status = Status::Suspended);
    assert_eq!((code(bob_two).await, code(next_one).await), (json!(4502), json!(4502)));
}

#[tokio::test(start_paused = true)]
async fn many_sessions_of_a_revoked_subject_end_within_seconds_and_others_stay() {
    const EACH: usize = 500;
    let cluster = Cluster::new();
    let [(one, _), (two, _)] = [cluster.edge("edge-0").await, cluster.edge("edge-1").await];
    let (alice, bob) = (cluster.token("alice"), cluster.token("bob"));
    let (mut gone, mut staying) = (Vec::new(), Vec::new());
    for _ in 0..EACH {
        for edge in [&one, &two] {
            gone.push(open(edge, &alice).await);
            staying.push(open(edge, &bob).await);
        }
    }
    let now_ms = cluster.store.now_ms();
    cluster.change(|acme| assert!(acme.revoked.subject("alice", now_ms).is_ok()));
    let all = async {
        for peer in &mut gone {
            assert_eq!(code(peer).await, 4504);
        }
    };
    timeout(Duration::from_secs(5), all).await.expect("within the time that is promised");
    drop(gone);
    for peer in &mut staying {
        goes_on(peer).await;
    }
    assert_eq!((one.connections(), two.connections()), (EACH, EACH));
}

#[tokio::test(start_paused = true)]
async fn a_tenant_has_its_share_of_sessions_at_each_edge() {
    let cluster = Cluster::new();
    let [(one, metrics), (_two, _)] = [cluster.edge("edge-0").await, cluster.edge("edge-1").await];
    cluster.limit(Quota::ClientSessions, 4);
    // Until each edge has heard of the other.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (mut first, _) = Peerling::open(&one, client_of("acme")).await;
    let (mut second, _) = Peerling::open(&one, client_of("acme")).await;
    let mut third = Peerling::raw(&one, client_of("acme"));
    third.send(&json!({"t":"hello"})).await;
    let closed = third.next("closed").await;
    let reason: Value = serde_json::from_str(closed["reason"].as_str().expect("a reason")).expect("JSON");
    assert_eq!(closed["code"], 4003);
    assert!(reason["retry_after_ms"].as_u64().is_some_and(|after| (15_000..=30_000).contains(&after)), "{reason}");
    assert_eq!(counted(&metrics, "riser_quota_refused_total", Some("client_sessions")), 1);
    // Others are not touched: another kind, another tenant, and those who are in.
    Peerling::open(&one, gateway("b/f")).await;
    Peerling::open(&one, client_of("other")).await;
    goes_on(&mut first).await;
    goes_on(&mut second).await;
    drop(first);
    timeout(PATIENCE, async {
        while one.connections() > 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it has left");
    Peerling::open(&one, client_of("acme")).await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_comes_back_finds_its_own_place() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    cluster.limit(Quota::GatewaySessions, 1);
    let (mut before, _) = Peerling::open(&one, gateway("b/f1")).await;
    let (mut after, _) = Peerling::open(&one, gateway("b/f1")).await;
    assert_eq!(code(&mut before).await, 4006);
    let mut another = Peerling::raw(&one, gateway("b/f2"));
    another.send(&json!({"t":"hello"})).await;
    assert_eq!(code(&mut another).await, 4003);
    goes_on(&mut after).await;
}

#[tokio::test(start_paused = true)]
async fn who_sends_too_much_is_slowed_then_refused_and_its_state_arrives() {
    let cluster = Cluster::new();
    let (one, metrics) = cluster.edge("edge-0").await;
    cluster.limit(Quota::SessionFramesPerS, 10);
    let (mut gw, _) = Peerling::open(&one, gateway("b/f1")).await;
    let (mut quiet, _) = Peerling::open(&one, gateway("b/f2")).await;
    for n in 0..100 {
        gw.send(&json!({"t":"event","n":n,"id":format!("e{n}"),"type":"ring"})).await;
    }
    gw.send(&json!({"t":"state","n":1_000,"set":{"a":1}})).await;
    let mut answered = Vec::new();
    while answered.len() < 101 {
        answered.push(gw.read().await);
    }
    let state = answered.iter().find(|frame| frame["n"] == 1_000).expect("each is answered");
    assert_eq!(state["t"], "ok", "state is never refused");
    let refused: Vec<_> = answered.iter().filter(|frame| frame["code"] == "rate_limited").collect();
    assert!(!refused.is_empty() && refused.len() < 100, "{}", refused.len());
    assert!(refused.iter().all(|frame| frame["retry_after_ms"].as_u64().is_some_and(|after| after > 1_000)));
    assert!(counted(&metrics, "riser_quota_refused_total", Some("session_frames_per_s")) > 0);
    quiet.send(&json!({"t":"event","n":1,"id":"q","type":"ring"})).await;
    assert_eq!(quiet.next("ok").await["n"], 1);
    // Who waits is let in again.
    tokio::time::sleep(Duration::from_secs(30)).await;
    gw.send(&json!({"t":"event","n":2_000,"id":"late","type":"ring"})).await;
    assert_eq!(gw.next("ok").await["n"], 2_000);
}

#[tokio::test(start_paused = true)]
async fn bytes_of_all_sessions_are_counted_together() {
    let cluster = Cluster::new();
    let (one, metrics) = cluster.edge("edge-0").await;
    cluster.limit(Quota::BytesPerS, 2_000);
    let (mut first, _) = Peerling::open(&one, gateway("b/f1")).await;
    let (mut second, _) = Peerling::open(&one, gateway("b/f2")).await;
    for n in 0..3 {
        let data = "x".repeat(2_000);
        first.send(&json!({"t":"event","n":n,"id":format!("e{n}"),"type":"ring","data":data})).await;
    }
    first.send(&json!({"t":"ping"})).await;
    first.next("pong").await;
    // The other one's next read finds the tenant ahead.
    second.send(&json!({"t":"ping"})).await;
    second.next("pong").await;
    second.send(&json!({"t":"event","n":1,"id":"e","type":"ring"})).await;
    let answer = second.read().await;
    assert_eq!((&answer["t"], &answer["code"]), (&json!("error"), &json!("rate_limited")));
    assert!(counted(&metrics, "riser_quota_refused_total", Some("bytes_per_s")) > 0);
}

#[tokio::test(start_paused = true)]
async fn subscriptions_of_all_sessions_are_counted_together() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    cluster.limit(Quota::Subscriptions, 3);
    let (mut first, _) = Peerling::open(&one, client_of("acme")).await;
    let (mut second, _) = Peerling::open(&one, client_of("acme")).await;
    first.subscribe("a/*", &["state"]).await;
    first.subscribe("b/*", &["state"]).await;
    second.subscribe("a/*", &["state"]).await;
    second.subscribe("a/*", &["state"]).await;
    second.send(&json!({"t":"subscribe","n":9,"to":"b/*","lanes":["state"]})).await;
    assert_eq!(second.next("error").await["code"], "too_many");
    first.send(&json!({"t":"unsubscribe","n":2,"to":"b/*"})).await;
    first.next("ok").await;
    second.subscribe("b/*", &["state"]).await;
    drop(first);
    timeout(PATIENCE, async {
        while one.connections() > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it has left");
    second.subscribe("c/*", &["state"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_tenant_is_told_once_when_a_quota_is_nearly_used_up() {
    let cluster = Cluster::new();
    let (one, metrics) = cluster.edge("edge-0").await;
    let (mut watcher, _) = Peerling::open(&one, client_of("acme")).await;
    watcher.send(&json!({"t":"subscribe","n":1,"to":"_/_","lanes":["event"]})).await;
    watcher.next("ok").await;
    cluster.limit(Quota::ClientSessions, 5);
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(Peerling::open(&one, client_of("acme")).await.0);
    }
    let event = watcher.next("event").await;
    assert_eq!((&event["of"], &event["type"], &event["from"]), (&json!("_/_"), &json!("quota"), &json!("broker")));
    assert_eq!(event["data"], json!({"quota":"client_sessions","used":4,"share":5,"edge":"edge-0"}));
    goes_on(&mut watcher).await;
    assert!(watcher.seen.iter().all(|frame| frame["t"] != "event"), "{:?}", watcher.seen);
    assert_eq!(counted(&metrics, "riser_quota_near_total", Some("client_sessions")), 1);
}

#[tokio::test(start_paused = true)]
async fn commands_that_wait_are_counted_for_all_of_the_tenant_and_at_every_edge() {
    let cluster = Cluster::new();
    let [(one, metrics), (two, _)] = [cluster.edge("edge-0").await, cluster.edge("edge-1").await];
    cluster.limit(Quota::HeldCommands, 3);
    let (mut first, _) = Peerling::open(&one, client_of("acme")).await;
    let (mut second, _) = Peerling::open(&two, client_of("acme")).await;
    let command = |n: u64, to: &str, key: &str| json!({"t":"command","n":n,"to":to,"path":"a","action":"x","key":key,"if_offline":"hold","deadline_ms":60_000});
    let mut held = Vec::new();
    for n in 1..=3 {
        let peer = if n == 1 { &mut first } else { &mut second };
        peer.send(&command(n, &format!("b/f{n}"), "k")).await;
        held.push(peer.next("ok").await["cmd"].clone());
    }
    first.send(&command(4, "b/f4", "k")).await;
    assert_eq!(first.next("error").await["code"], "queue_full");
    assert_eq!(counted(&metrics, "riser_quota_refused_total", Some("held_commands")), 1);
    assert_eq!(counted(&metrics, "riser_quota_near_total", Some("held_commands")), 1);
    // What was taken is answered again, what need not wait is taken, and so is another tenant's.
    first.send(&command(5, "b/f2", "k")).await;
    assert_eq!(first.next("ok").await["cmd"], held[1]);
    let (_gw, _) = Peerling::open(&two, gateway("b/f5")).await;
    first.send(&command(6, "b/f5", "k")).await;
    first.next("ok").await;
    let (mut other, _) = Peerling::open(&one, client_of("other")).await;
    other.send(&command(1, "b/f4", "k")).await;
    other.next("ok").await;
    // There is room again when enough are decided: the one that is under way counts, too.
    for (n, cmd) in [(7, &held[0]), (8, &held[2])] {
        second.send(&json!({"t":"cancel","n":n,"cmd":cmd})).await;
        second.next("ok").await;
    }
    second.send(&command(9, "b/f4", "k")).await;
    second.next("ok").await;
}

#[tokio::test(start_paused = true)]
async fn what_a_tenant_uses_of_an_edge_is_told_to_the_registry() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    client.subscribe("b/f", &["state"]).await;
    client.subscribe("b/*", &["event"]).await;
    let (mut gw, _) = Peerling::open(&one, gateway("b/f")).await;
    Peerling::open(&one, client_of("other")).await;
    let watcher = cluster.store.client(&"watcher".parse().expect("an edge"));
    let told = async |until: &dyn Fn(&Usage) -> bool| {
        timeout(PATIENCE, async {
            loop {
                match watcher.usage(&acme()).await.expect("an answer")[..] {
                    [usage] if until(&usage) => break usage,
                    _ => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        })
        .await
        .expect("it is told")
    };
    let usage = told(&|usage| usage.frames_per_s > 0).await;
    assert_eq!((usage.gateway_sessions, usage.client_sessions, usage.subscriptions), (1, 1, 2));
    assert!(usage.bytes_per_s >= usage.frames_per_s);
    // Nothing more comes, and one leaves.
    goes_on(&mut gw).await;
    goes_on(&mut client).await;
    drop(gw);
    client.send(&json!({"t":"unsubscribe","n":9,"to":"b/*"})).await;
    client.next("ok").await;
    let usage = told(&|usage| usage.gateway_sessions == 0 && usage.frames_per_s == 0).await;
    assert_eq!((usage.client_sessions, usage.subscriptions), (1, 1));
}
