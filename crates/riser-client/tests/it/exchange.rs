//! Events, live streams and credentials of clients, across reconnects.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use riser_client::{Client, Event, Gateway, Live, Notice, Open, Refused, Subscription, Update};
use riser_core::frame::Credential;
use riser_core::live::{Header, StreamId, StreamKind};
use riser_core::{Json, Pattern};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Peer, Server, WAIT};

async fn connected(server: &Server) -> (Client, Peer) {
    let (client, peer) = tokio::join!(Client::connect(server.config()), server.session(Value::Null));
    (client.expect("a session"), peer)
}

/// The next event that says something.
async fn told(client: &mut Client) -> Event {
    loop {
        match timeout(WAIT, client.next()).await.expect("in time").expect("an event") {
            Event::Frame { update: None, .. } | Event::Connected(_) | Event::Disconnected { .. } => {}
            event => return event,
        }
    }
}

async fn update(client: &mut Client) -> Update {
    match told(client).await {
        Event::Frame { update: Some(update), .. } => update,
        other => panic!("{other:?}"),
    }
}

fn pattern(text: &str) -> Pattern {
    text.parse().expect("a pattern")
}

fn event(of: &str, cursor: &str) -> Value {
    json!({"t": "event", "of": of, "cursor": cursor, "id": "i", "path": "hall/bell", "type": "ring", "data": {"x": 1},
        "from": "gateway:b/g", "at_ms": 5})
}

#[tokio::test]
async fn events_go_on_after_the_last_that_was_heard() {
    let server = Server::new().await;
    let (mut client, mut peer) = connected(&server).await;
    client.subscribe(Subscription::events(pattern("b/*"), None)).await.expect("few");
    let asked = peer.recv().await;
    assert_eq!(asked, json!({"t": "subscribe", "n": asked["n"], "to": "b/*", "lanes": ["event"]}));
    peer.ok(&asked).await;
    peer.send(&json!({"t": "synced", "to": "b/*", "cursor": "a.1"})).await;
    peer.send(&event("b/g", "a.2")).await;
    let expected = Update::Synced { to: pattern("b/*"), gone: Vec::new(), cursor: Some("a.1".into()) };
    assert_eq!(update(&mut client).await, expected);
    let Update::Event(happened) = update(&mut client).await else { panic!("not an event") };
    assert_eq!((happened.cursor.as_str(), happened.kind.as_str()), ("a.2", "ring"));
    drop(peer);
    let mut peer = server.session(Value::Null).await;
    let asked = peer.recv().await;
    assert_eq!(asked["cursor"], "a.2");
    peer.ok(&asked).await;
    peer.send(&json!({"t": "gap", "to": "b/*", "lane": "event"})).await;
    assert_eq!(update(&mut client).await, Update::Gap { to: pattern("b/*") });
    // The session ends before it has caught up: what came of it counts.
    peer.send(&event("b/g", "b.7")).await;
    assert!(matches!(update(&mut client).await, Update::Event(_)));
    drop(peer);
    let mut peer = server.session(Value::Null).await;
    assert_eq!(peer.recv().await["cursor"], "b.7");
}

#[tokio::test]
async fn a_replay_to_a_second_subscription_does_not_move_the_first_ones_place_back() {
    let server = Server::new().await;
    let (mut client, mut peer) = connected(&server).await;
    client.subscribe(Subscription::events(pattern("b/*"), None)).await.expect("few");
    let asked = peer.recv().await;
    peer.ok(&asked).await;
    peer.send(&json!({"t": "synced", "to": "b/*", "cursor": "a.5"})).await;
    client.subscribe(Subscription::events(pattern("b/g"), Some("a.1".into()))).await.expect("few");
    let asked = peer.recv().await;
    peer.ok(&asked).await;
    peer.send(&event("b/g", "a.2")).await;
    for _ in 0..2 {
        update(&mut client).await;
    }
    drop(peer);
    let mut peer = server.session(Value::Null).await;
    let (first, second) = (peer.recv().await, peer.recv().await);
    assert_eq!((&first["to"], &first["cursor"]), (&json!("b/g"), &json!("a.1")));
    assert_eq!((&second["to"], &second["cursor"]), (&json!("b/*"), &json!("a.5")));
}

#[tokio::test]
async fn an_event_is_told_with_the_same_id_until_it_is_stored() {
    let server = Server::new().await;
    let (client, mut peer) = connected(&server).await;
    let to = "b/_".parse().expect("an address");
    let notice = Notice::new("notice").data(Json::parse("[1.50]").expect("JSON"));
    let script = async {
        let first = peer.recv().await;
        let expected = json!({"t": "event", "n": first["n"], "to": "b/_", "id": first["id"], "type": "notice",
            "data": [1.50]});
        assert_eq!(first, expected);
        peer.refuse(&first, "rate_limited", Some(1)).await;
        assert_eq!(peer.recv().await["id"], first["id"]);
        drop(peer);
        let mut peer = server.session(Value::Null).await;
        let again = peer.recv().await;
        assert_eq!(again["id"], first["id"]);
        peer.ok_with(&again, json!({"cursor": "a.3"})).await;
        peer
    };
    let (stored, mut peer) = tokio::join!(client.event(&to, &notice), script);
    assert_eq!(stored, Ok(Some("a.3".into())));
    let id = "n1".parse().expect("an id");
    let (seen, ()) = tokio::join!(client.seen(&to, &id), async {
        let seen = peer.recv().await;
        assert_eq!(seen, json!({"t": "seen", "n": seen["n"], "of": "b/_", "id": "n1"}));
        peer.refuse(&seen, "forbidden", None).await;
    });
    assert_eq!(seen, Err(Refused::ByServer { code: "forbidden".into(), message: "because".into() }));
    let fat = Notice::new("notice").data(Json::of(&"x".repeat(70_000)));
    assert!(matches!(client.event(&to, &fat).await, Err(Refused::TooMany(_))));
}

#[tokio::test]
async fn events_are_stored_in_the_order_of_the_calls_and_streams_do_not_wait_for_them() {
    let server = Server::new().await;
    let session = server.session(json!({"peer": "gateway", "address": "b/g", "epoch": 7}));
    let (gateway, mut peer) = tokio::join!(Gateway::connect(server.config()), session);
    let gateway = gateway.expect("a session");
    let full = peer.recv().await;
    peer.ok(&full).await;
    let notices = ["one", "two", "three"].map(Notice::new);
    let mut stored = Vec::new();
    let script = async {
        let first = peer.recv().await;
        assert_eq!(first["type"], "one");
        // It cannot be stored now; what was called after it does not overtake it, and a stream does.
        let open = peer.recv().await;
        assert_eq!(open["t"], "open");
        peer.refuse(&open, "too_many", None).await;
        peer.refuse(&first, "unavailable", Some(1)).await;
        for _ in 0..3 {
            let event = peer.recv().await;
            stored.push(event["type"].clone());
            peer.ok_with(&event, json!({"cursor": "a.1"})).await;
        }
    };
    let events = futures_util::future::join_all(notices.iter().map(|notice| gateway.event(notice)));
    let (told, opened, ()) = tokio::join!(events, gateway.open(talk()), script);
    assert!(told.iter().all(Result::is_ok) && opened.is_err());
    assert_eq!(stored, ["one", "two", "three"]);
}

#[tokio::test]
async fn an_event_that_nobody_waits_for_is_not_told_again() {
    let server = Server::new().await;
    let (client, mut peer) = connected(&server).await;
    let to = "b/_".parse().expect("an address");
    let notice = Notice::new("first");
    tokio::select! {
        _ = client.event(&to, &notice) => panic!("nobody answered"),
        first = peer.recv() => assert_eq!(first["type"], "first"),
    }
    drop(peer);
    let mut peer = server.session(Value::Null).await;
    let notice = Notice::new("second");
    let (stored, ()) = tokio::join!(client.event(&to, &notice), async {
        let frame = peer.recv().await;
        assert_eq!(frame["type"], "second");
        peer.ok(&frame).await;
    });
    assert_eq!(stored, Ok(None));
}

/// A live frame of a peer: its header and payload.
async fn heard(peer: &mut Peer) -> (Header, Vec<u8>) {
    let frame = peer.frame().await;
    assert_eq!(frame.opcode, fastwebsockets::OpCode::Binary);
    (Header::parse(&frame.payload).expect("a header"), frame.payload[16..].to_vec())
}

fn talk() -> Open {
    let params = Some(Json::parse(r#"{"rate":24000}"#).expect("JSON"));
    Open { path: "talk/door".parse().expect("a path"), kind: StreamKind::Opus, params }
}

#[tokio::test]
async fn a_stream_numbers_its_frames_and_is_over_with_its_session() {
    let server = Server::new().await;
    let (mut client, mut peer) = connected(&server).await;
    let session = async |client: &mut Client| {
        while !matches!(timeout(WAIT, client.next()).await.expect("in time"), Some(Event::Connected(_))) {}
    };
    session(&mut client).await;
    let to = "b/g".parse().expect("an address");
    let (stream, ()) = tokio::join!(client.open(&to, talk()), async {
        let open = peer.recv().await;
        let expected = json!({"t": "open", "n": open["n"], "to": "b/g", "path": "talk/door", "kind": "opus",
            "params": {"rate": 24_000}});
        assert_eq!(open, expected);
        peer.ok_with(&open, json!({"stream": 305_419_896})).await;
    });
    let mut stream = stream.expect("a stream");
    assert_eq!(stream.id(), StreamId(305_419_896));
    assert!(stream.send(b"one", false) && stream.send(b"two", true));
    for (seq, last, payload) in [(0, false, b"one"), (1, true, b"two")] {
        let (header, said) = heard(&mut peer).await;
        assert_eq!((header.kind, header.stream), (StreamKind::Opus, StreamId(305_419_896)));
        assert_eq!((header.seq, header.last, said.as_slice()), (seq, last, &payload[..]));
    }
    // Too large for the session, which lives on.
    assert!(stream.send(&vec![0; 20_000], false) && stream.send(b"three", false));
    assert_eq!(heard(&mut peer).await.0.seq, 3);
    let (second, ()) = tokio::join!(client.open(&to, talk()), async {
        let open = peer.recv().await;
        peer.ok_with(&open, json!({"stream": 7})).await;
    });
    second.expect("a stream").close().await;
    let close = peer.recv().await;
    assert_eq!(close, json!({"t": "close", "n": close["n"], "stream": 7}));
    peer.close(4000, "").await;
    let mut peer = server.session(Value::Null).await;
    session(&mut client).await;
    assert!(stream.is_over() && !stream.send(b"four", false));
    drop(stream);
    // Nothing of the old stream comes in the new session.
    let (third, ()) = tokio::join!(client.open(&to, talk()), async {
        let open = peer.recv().await;
        assert_eq!(open["t"], "open");
        peer.refuse(&open, "too_many", None).await;
    });
    assert!(matches!(third, Err(Refused::ByServer { code, .. }) if code == "too_many"));
}

#[tokio::test]
async fn an_open_that_loses_its_session_is_not_repeated() {
    let server = Server::new().await;
    let (client, mut peer) = connected(&server).await;
    let to = "b/g".parse().expect("an address");
    let (stream, ()) = tokio::join!(client.open(&to, talk()), async {
        peer.recv().await;
        peer.close(4000, r#"{"retry_after_ms":600000}"#).await;
    });
    assert_eq!(stream.map(drop), Err(Refused::Lost));
    assert_eq!(client.open(&to, talk()).await.map(drop), Err(Refused::Lost));
}

#[tokio::test]
async fn streams_of_others_are_heard() {
    let server = Server::new().await;
    let (mut client, mut peer) = connected(&server).await;
    client.subscribe(Subscription::live(pattern("b/g"))).await.expect("few");
    let asked = peer.recv().await;
    assert_eq!(asked["lanes"], json!(["live"]));
    peer.ok(&asked).await;
    say(&mut peer).await;
    let Update::Opened(opened) = update(&mut client).await else { panic!("not opened") };
    assert_eq!((opened.stream, opened.from.as_str()), (StreamId(5), "client:alice"));
    let Event::Live(frame) = told(&mut client).await else { panic!("not a frame") };
    assert_eq!((frame.header.seq, frame.payload), (9, Bytes::from_static(b"sound")));
    let Update::Closed(closed) = update(&mut client).await else { panic!("not closed") };
    assert_eq!(closed.stream, StreamId(5));
}

async fn say(peer: &mut Peer) {
    peer.send(&json!({"t": "opened", "of": "b/g", "path": "talk/door", "stream": 5, "kind": "opus",
        "from": "client:alice"}))
        .await;
    let header = Header { kind: StreamKind::Opus, last: false, stream: StreamId(5), seq: 9, clock_ms: 1 };
    // What is no frame is left out.
    peer.send_binary(b"too short").await;
    peer.send_binary(&[&header.to_bytes()[..], b"sound"].concat()).await;
    peer.send(&json!({"t": "closed", "of": "b/g", "stream": 5, "reason": "lost"})).await;
}

#[tokio::test]
async fn a_gateway_hears_and_speaks_at_its_own_address() {
    let server = Server::new().await;
    let session = server.session(json!({"peer": "gateway", "address": "b/g", "epoch": 7}));
    let (gateway, mut peer) = tokio::join!(Gateway::connect(server.config()), session);
    let gateway = gateway.expect("a session");
    let full = peer.recv().await;
    peer.ok(&full).await;
    let mut live = gateway.live();
    say(&mut peer).await;
    let mut heard_live = async || timeout(WAIT, live.recv()).await.expect("in time").expect("it lives");
    assert!(matches!(heard_live().await, Live::Opened(opened) if opened.stream == StreamId(5)));
    assert!(matches!(heard_live().await, Live::Frame(frame) if frame.payload == "sound"));
    assert!(matches!(heard_live().await, Live::Closed(closed) if closed.stream == StreamId(5)));
    let (stream, ()) = tokio::join!(gateway.open(talk()), async {
        let open = peer.recv().await;
        assert_eq!((&open["t"], open.get("to")), (&json!("open"), None));
        peer.ok_with(&open, json!({"stream": 8})).await;
    });
    let mut stream = stream.expect("a stream");
    assert!(stream.send(b"hello", true));
    assert_eq!(heard(&mut peer).await.0.stream, StreamId(8));
    // A handle that is dropped closes its stream.
    drop(stream);
    assert_eq!(peer.recv().await["t"], "close");
    let notice = Notice::new("ring").at("hall/bell".parse().expect("a path"));
    let (stored, ()) = tokio::join!(gateway.event(&notice), async {
        let event = peer.recv().await;
        let expected = json!({"t": "event", "n": event["n"], "id": notice.id, "type": "ring", "path": "hall/bell"});
        assert_eq!(event, expected);
        peer.ok_with(&event, json!({"cursor": "a.1"})).await;
    });
    assert_eq!(stored, Ok(Some("a.1".into())));
}

#[tokio::test]
async fn a_fresh_credential_is_given_to_the_open_session_and_kept_when_it_is_taken() {
    let server = Server::new().await;
    // Half of what is left is the least time between two renewals: 10 s.
    let expiring = json!({"token_expires_at_ms": 1_000_000});
    let (client, mut peer) = tokio::join!(Client::connect(server.config()), server.session(expiring));
    let client = client.expect("a session");
    for (token, taken) in [("bad", false), ("good", true)] {
        let (done, ()) = tokio::join!(client.set_credential(Credential::new(token), Some(9_000_000)), async {
            let auth = peer.recv().await;
            assert_eq!(auth, json!({"t": "auth", "n": auth["n"], "token": token}));
            if taken {
                peer.ok(&auth).await;
            } else {
                peer.refuse(&auth, "forbidden", None).await;
            }
        });
        assert_eq!(done.is_ok(), taken);
    }
    peer.close(4000, "").await;
    let (_peer, head) = server.upgrade(&super::GOOD).await;
    assert!(head.to_lowercase().contains("authorization: bearer good\r\n"), "{head}");
}

#[tokio::test]
async fn half_of_a_credentials_time_is_told() {
    let server = Server::new().await;
    let expiring = json!({"token_expires_at_ms": 1_060_000});
    let (client, _peer) = tokio::join!(Client::connect(server.config()), server.session(expiring));
    let mut client = client.expect("a session");
    assert!(matches!(timeout(WAIT, client.next()).await.expect("in time"), Some(Event::Connected(_))));
    tokio::time::pause();
    for (advance_s, due) in [(29, false), (2, true)] {
        tokio::time::advance(Duration::from_secs(advance_s)).await;
        // A task that has something to do does it before this yields for the last time.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let expected = due.then_some(Some(Event::CredentialDue { expires_at_ms: 1_060_000 }));
        assert_eq!(client.next().now_or_never(), expected, "after {advance_s} s more");
    }
}

#[tokio::test]
async fn a_quiet_subscription_does_not_grow_old() {
    let server = Server::new().await;
    // Long heartbeats, for time is skipped here.
    let patient = json!({"heartbeat_ms": 600_000});
    let (client, mut peer) = tokio::join!(Client::connect(server.config()), server.session(patient));
    let mut client = client.expect("a session");
    client.subscribe(Subscription::events(pattern("b/*"), None)).await.expect("few");
    let asked = peer.recv().await;
    peer.ok(&asked).await;
    peer.send(&json!({"t": "synced", "to": "b/*", "cursor": "a.1"})).await;
    assert!(matches!(update(&mut client).await, Update::Synced { .. }));
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    assert_eq!(peer.recv().await, json!({"t": "ping"}));
    peer.send(&json!({"t": "pong", "now_ms": 1_061_000, "cursor": "a.9"})).await;
    drop(peer);
    let mut peer = server.session(Value::Null).await;
    assert_eq!(peer.recv().await["cursor"], "a.9");
}

#[tokio::test]
async fn a_gateway_asks_for_the_clusters_clock() {
    let server = Server::new().await;
    let session = server.session(json!({"peer": "gateway", "address": "b/g", "epoch": 7, "heartbeat_ms": 600_000}));
    let (gateway, mut peer) = tokio::join!(Gateway::connect(server.config()), session);
    let _gateway = gateway.expect("a session");
    let full = peer.recv().await;
    peer.ok(&full).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    assert_eq!(peer.recv().await, json!({"t": "ping"}));
}
