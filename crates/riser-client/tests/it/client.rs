//! A client: what it asks for again, and when it comes back.

use std::time::Duration;

use riser_client::{Client, End, Event, Subscription, Update};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::{Server, WAIT};

async fn connected(server: &Server) -> (Client, super::Peer) {
    let (client, peer) = tokio::join!(Client::connect(server.config()), server.session(Value::Null));
    (client.expect("a session"), peer)
}

async fn next(client: &mut Client) -> Event {
    timeout(WAIT, client.next()).await.expect("in time").expect("an event")
}

/// The next event that is no plain answer.
async fn update(client: &mut Client) -> Event {
    loop {
        match next(client).await {
            Event::Frame { update: None, .. } | Event::Connected(_) => {}
            event => return event,
        }
    }
}

fn snapshot(of: &str) -> Value {
    json!({"t": "snapshot", "of": of, "online": true, "since_ms": 1, "epoch": 7, "rev": 1, "at_ms": 2, "state": {}, "stale": []})
}

#[tokio::test]
async fn subscriptions_are_asked_for_again_and_what_is_gone_is_told() {
    let server = Server::new().await;
    let (mut client, mut peer) = connected(&server).await;
    client.subscribe(Subscription::all("b/*".parse().expect("a pattern"))).await.expect("few");
    let asked = peer.recv().await;
    assert_eq!(asked, json!({"t": "subscribe", "n": 1, "to": "b/*", "lanes": ["state", "presence"]}));
    peer.ok(&asked).await;
    for of in ["b/g", "b/h"] {
        peer.send(&snapshot(of)).await;
        assert!(matches!(update(&mut client).await, Event::Frame { update: Some(Update::Snapshot(_)), .. }));
    }
    let closed = Instant::now();
    peer.close(4000, r#"{"retry_after_ms":200}"#).await;
    let Event::Disconnected { end: End::Closed { code: 4000, .. }, back_in } = update(&mut client).await else {
        panic!("not disconnected");
    };
    assert!(back_in >= Duration::from_millis(200));
    let mut peer = server.session(Value::Null).await;
    assert!(closed.elapsed() >= Duration::from_millis(200));
    assert_eq!(peer.recv().await["to"], "b/*");
    peer.send(&snapshot("b/h")).await;
    peer.send(&json!({"t": "synced", "to": "b/*"})).await;
    assert!(matches!(update(&mut client).await, Event::Frame { update: Some(Update::Snapshot(_)), .. }));
    let Event::Frame { update: Some(Update::Synced { gone, .. }), text } = update(&mut client).await else {
        panic!("not synced");
    };
    assert_eq!(gone, ["b/g".parse().expect("an address")]);
    assert_eq!(text, r#"{"t":"synced","to":"b/*"}"#);
}

#[tokio::test]
async fn a_refused_subscription_is_told_and_not_asked_for_again() {
    let server = Server::new().await;
    let (mut client, mut peer) = connected(&server).await;
    for to in ["b/*", "c/*"] {
        client.subscribe(Subscription::all(to.parse().expect("a pattern"))).await.expect("few");
        let asked = peer.recv().await;
        if to == "b/*" {
            peer.send(&json!({"t": "error", "n": asked["n"], "code": "forbidden", "message": "not yours"})).await;
        } else {
            peer.ok(&asked).await;
        }
    }
    let Event::Refused { to, code, .. } = update(&mut client).await else { panic!("not refused") };
    assert_eq!((to.to_string().as_str(), code.as_str()), ("b/*", "forbidden"));
    drop(peer);
    let mut peer = server.session(Value::Null).await;
    assert_eq!(peer.recv().await["to"], "c/*");
}

#[tokio::test]
async fn a_subscription_that_was_refused_for_now_is_asked_for_again() {
    let server = Server::new().await;
    let (mut client, mut peer) = connected(&server).await;
    client.subscribe(Subscription::all("b/*".parse().expect("a pattern"))).await.expect("few");
    for code in ["unavailable", "rate_limited"] {
        let asked = peer.recv().await;
        assert_eq!((&asked["t"], &asked["to"]), (&json!("subscribe"), &json!("b/*")));
        peer.refuse(&asked, code, Some(1)).await;
    }
    let asked = peer.recv().await;
    peer.ok(&asked).await;
    peer.send(&snapshot("b/g")).await;
    assert!(matches!(update(&mut client).await, Event::Frame { update: Some(Update::Snapshot(_)), .. }));
}

#[tokio::test]
async fn answers_to_an_earlier_subscription_end_no_newer_one() {
    let server = Server::new().await;
    let (mut client, mut peer) = connected(&server).await;
    let to = || "b/*".parse().expect("a pattern");
    client.subscribe(Subscription::all(to())).await.expect("few");
    client.subscribe(Subscription::live(to())).await.expect("few");
    let (first, second) = (peer.recv().await, peer.recv().await);
    peer.refuse(&first, "forbidden", None).await;
    peer.ok(&second).await;
    client.unsubscribe(to()).await.expect("it lives");
    client.subscribe(Subscription::all(to())).await.expect("few");
    let (end, third) = (peer.recv().await, peer.recv().await);
    assert_eq!((&end["t"], &third["t"]), (&json!("unsubscribe"), &json!("subscribe")));
    peer.send(&snapshot("b/g")).await;
    for asked in [&end, &third] {
        peer.ok(asked).await;
    }
    peer.send(&json!({"t": "synced", "to": "b/*"})).await;
    assert!(matches!(update(&mut client).await, Event::Frame { update: Some(Update::Snapshot(_)), .. }));
    assert!(matches!(update(&mut client).await, Event::Frame { update: Some(Update::Synced { .. }), .. }));
    assert_eq!(client.view().iter().count(), 1);
    drop(peer);
    let mut peer = server.session(Value::Null).await;
    assert_eq!(peer.recv().await["lanes"], json!(["state", "presence"]));
}

#[tokio::test]
async fn what_only_an_ended_subscription_named_leaves_the_view() {
    let server = Server::new().await;
    let (mut client, mut peer) = connected(&server).await;
    for to in ["b/*", "c/*"] {
        client.subscribe(Subscription::all(to.parse().expect("a pattern"))).await.expect("few");
        peer.recv().await;
    }
    for of in ["b/g", "c/g"] {
        peer.send(&snapshot(of)).await;
        update(&mut client).await;
    }
    client.unsubscribe("b/*".parse().expect("a pattern")).await.expect("it lives");
    let asked = peer.recv().await;
    assert_eq!((&asked["t"], &asked["to"]), (&json!("unsubscribe"), &json!("b/*")));
    peer.ok(&asked).await;
    peer.send(&json!({"t": "synced", "to": "c/*"})).await;
    assert!(matches!(update(&mut client).await, Event::Frame { update: Some(Update::Synced { .. }), .. }));
    let left: Vec<String> = client.view().iter().map(|(of, _)| of.to_string()).collect();
    assert_eq!(left, ["c/g"]);
}

#[tokio::test]
async fn an_end_that_forbids_it_is_not_come_back_from() {
    for code in [4500, 4501, 4504] {
        let server = Server::new().await;
        let (mut client, peer) = connected(&server).await;
        peer.close(code, "").await;
        let Event::Ended(End::Closed { code: told, .. }) = update(&mut client).await else { panic!("not ended") };
        assert_eq!(told, code);
        assert_eq!(timeout(WAIT, client.next()).await.expect("in time"), None);
        let refused = client.subscribe(Subscription::all("b/*".parse().expect("a pattern"))).await;
        assert!(refused.is_err());
    }
}

#[tokio::test]
async fn an_owner_that_takes_no_events_can_still_leave() {
    let server = Server::new().await;
    let (client, mut peer) = connected(&server).await;
    let sent = async {
        // More than wait for the owner: the rest stays in the socket.
        for _ in 0..riser_client::client::EVENTS + 50 {
            peer.send(&snapshot("b/g")).await;
        }
        while let Ok(frame) = peer.ws.read_frame().await {
            if frame.opcode == fastwebsockets::OpCode::Close {
                return;
            }
        }
        panic!("it left without a goodbye");
    };
    let ((), left) = tokio::join!(sent, timeout(WAIT, client.close()));
    left.expect("in time");
}
