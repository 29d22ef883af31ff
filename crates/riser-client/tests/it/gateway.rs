//! A gateway: what it makes the broker know, again and again.

use std::collections::BTreeMap;

use riser_client::{End, Gateway, Refused, Status};
use riser_core::{Devices, Json, Path};
use serde_json::json;
use tokio::time::timeout;

use super::{Peer, Server, WAIT};

fn values(set: &[(&str, Option<&str>)]) -> BTreeMap<Path, Option<Json>> {
    let one = |(path, value): &(&str, Option<&str>)| {
        (path.parse().expect("a path"), value.map(|value| Json::parse(value).expect("JSON")))
    };
    set.iter().map(one).collect()
}

async fn session(server: &Server) -> Peer {
    server.session(json!({"peer": "gateway", "address": "b/g", "epoch": 7})).await
}

/// A gateway whose first, empty state was taken.
async fn connected(server: &Server) -> (Gateway, Peer) {
    let (gateway, mut peer) = tokio::join!(Gateway::connect(server.config()), session(server));
    let full = peer.recv().await;
    assert_eq!((&full["t"], &full["full"], &full["set"]), (&json!("state"), &json!(true), &json!({})));
    peer.ok(&full).await;
    (gateway.expect("a session"), peer)
}

/// Sets values and answers `ok`.
async fn stored(gateway: &Gateway, peer: &mut Peer, set: &[(&str, Option<&str>)]) {
    let (done, ()) = tokio::join!(gateway.set(values(set)), async {
        let frame = peer.recv().await;
        peer.ok(&frame).await;
    });
    assert_eq!(done, Ok(()));
}

#[tokio::test]
async fn everything_is_told_again_when_asked_and_after_a_reconnect() {
    let server = Server::new().await;
    let (gateway, mut peer) = connected(&server).await;
    stored(&gateway, &mut peer, &[("k", Some("1")), ("m", Some("2")), ("x", Some("3"))]).await;
    stored(&gateway, &mut peer, &[("x", None)]).await;
    let devices: Devices = serde_json::from_str(r#"{"k":{"kind":"dimmer"}}"#).expect("devices");
    let (done, ()) = tokio::join!(gateway.describe(devices), async {
        let frame = peer.recv().await;
        assert_eq!(frame["t"], "describe");
        peer.ok(&frame).await;
    });
    assert_eq!(done, Ok(()));
    let (done, ()) = tokio::join!(gateway.device("m".parse().expect("a path"), false), async {
        let frame = peer.recv().await;
        assert_eq!(frame, json!({"t": "device", "n": frame["n"], "path": "m", "up": false}));
        peer.ok(&frame).await;
    });
    assert_eq!(done, Ok(()));
    peer.send(&json!({"t": "resync"})).await;
    everything(&mut peer).await;
    drop(peer);
    let mut peer = session(&server).await;
    everything(&mut peer).await;
}

async fn everything(peer: &mut Peer) {
    let described = peer.recv().await;
    assert_eq!(described["devices"], json!({"k": {"kind": "dimmer"}}));
    peer.ok(&described).await;
    let full = peer.recv().await;
    assert_eq!(full, json!({"t": "state", "n": full["n"], "full": true, "set": {"k": 1, "m": 2}}));
    peer.ok(&full).await;
    let down = peer.recv().await;
    assert_eq!(down, json!({"t": "device", "n": down["n"], "path": "m", "up": false}));
    peer.ok(&down).await;
}

#[tokio::test]
async fn a_change_without_an_answer_is_answered_by_the_next_session() {
    let server = Server::new().await;
    let (gateway, mut peer) = connected(&server).await;
    let script = async {
        assert_eq!(peer.recv().await["set"], json!({"k": 1}));
        drop(peer);
        let mut peer = session(&server).await;
        let full = peer.recv().await;
        assert_eq!((&full["full"], &full["set"]), (&json!(true), &json!({"k": 1})));
        peer.ok(&full).await;
        peer
    };
    let (done, _peer) = tokio::join!(gateway.set(values(&[("k", Some("1"))])), script);
    assert_eq!(done, Ok(()));
}

#[tokio::test]
async fn a_change_that_is_refused_for_now_is_sent_again() {
    let server = Server::new().await;
    let (gateway, mut peer) = connected(&server).await;
    let script = async {
        let frame = peer.recv().await;
        let refusal =
            json!({"t": "error", "n": frame["n"], "code": "unavailable", "message": "", "retry_after_ms": 10});
        peer.send(&refusal).await;
        let full = peer.recv().await;
        assert_eq!((&full["full"], &full["set"]), (&json!(true), &json!({"k": 1})));
        peer.ok(&full).await;
    };
    let (done, ()) = tokio::join!(gateway.set(values(&[("k", Some("1"))])), script);
    assert_eq!(done, Ok(()));
}

#[tokio::test]
async fn a_change_that_is_refused_for_good_is_told() {
    let server = Server::new().await;
    let (gateway, mut peer) = connected(&server).await;
    let script = async {
        let frame = peer.recv().await;
        peer.send(&json!({"t": "error", "n": frame["n"], "code": "too_many", "message": "of all"})).await;
    };
    let (done, ()) = tokio::join!(gateway.set(values(&[("k", Some("1"))])), script);
    assert_eq!(done, Err(Refused::ByServer { code: "too_many".into(), message: "of all".into() }));
}

#[tokio::test]
async fn a_gateway_that_is_turned_away_ends_and_says_so() {
    let server = Server::new().await;
    let (gateway, peer) = connected(&server).await;
    peer.close(4504, "").await;
    let mut status = gateway.status();
    let ended = timeout(WAIT, status.wait_for(|status| matches!(status, Status::Ended(_)))).await.expect("in time");
    assert!(matches!(&*ended.expect("it lives"), Status::Ended(End::Closed { code: 4504, .. })));
    assert_eq!(gateway.set(values(&[("k", Some("1"))])).await, Err(Refused::Ended));
}

#[tokio::test]
async fn a_gateway_says_goodbye() {
    let server = Server::new().await;
    let (gateway, mut peer) = connected(&server).await;
    let ((), payload) = tokio::join!(gateway.close(), async { peer.frame().await.payload.to_vec() });
    assert_eq!(payload, b"\x03\xe8");
}

#[tokio::test]
async fn a_first_connection_that_fails_is_told() {
    let server = Server::new().await;
    let answer = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
    let (gateway, ()) = tokio::join!(Gateway::connect(server.config()), server.refuse(answer));
    assert!(matches!(gateway, Err(End::Refused { status: 401, .. })));
    let server = Server::new().await;
    let config = server.config();
    drop(server);
    assert!(matches!(Gateway::connect(config).await, Err(End::Unreachable { .. })));
}
