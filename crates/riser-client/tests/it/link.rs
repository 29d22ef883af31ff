//! One connection: the upgrade, the greeting, pings.

use fastwebsockets::{Frame, OpCode, Payload};
use riser_client::{End, Link};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{GOOD, Server, Upgrade, WAIT, welcome};

#[tokio::test]
async fn the_credential_goes_with_the_upgrade_and_not_with_the_hello() {
    let server = Server::new().await;
    let config = server.config();
    let script = async {
        let (mut peer, head) = server.upgrade(&GOOD).await;
        assert!(head.starts_with("GET /v1/ws HTTP/1.1\r\n"), "{head}");
        assert!(head.to_lowercase().contains("authorization: bearer the-token\r\n"), "{head}");
        assert_eq!(peer.recv().await, json!({"t": "hello", "agent": "test", "remembers_ms": 5}));
        peer.send(&welcome(json!({"address": "b/g", "epoch": 7, "have": {"epoch": 6, "rev": 41}}))).await;
        peer.ws
            .write_frame(Frame::new(true, OpCode::Ping, None, Payload::Borrowed(b"are you there")))
            .await
            .expect("it reads");
        peer.send(&json!({"t": "synced", "to": "*/*"})).await;
        let pong = peer.frame().await;
        assert_eq!((pong.opcode, &pong.payload[..]), (OpCode::Pong, &b"are you there"[..]));
        let goodbye = peer.frame().await;
        assert_eq!((goodbye.opcode, &goodbye.payload[..]), (OpCode::Close, &b"\x03\xe8"[..]));
    };
    let client = async {
        let config = riser_client::Config { remembers_ms: Some(5), ..config };
        let (mut link, welcome) = Link::open(&config).await.expect("a session");
        assert_eq!(welcome.have, Some(riser_core::Version::new(6, 41)));
        assert_eq!(link.next().await.expect("a frame"), r#"{"t":"synced","to":"*/*"}"#);
        link.close(1000, "").await;
    };
    tokio::join!(script, client);
}

#[tokio::test]
async fn an_upgrade_that_proves_nothing_is_no_session() {
    for (upgrade, part) in [
        (Upgrade { wrong_key: true, ..GOOD }, "does not fit its key"),
        (Upgrade { protocol: None, ..GOOD }, "does not speak riser.v1"),
        (Upgrade { protocol: Some("mqtt"), ..GOOD }, "does not speak riser.v1"),
    ] {
        let server = Server::new().await;
        let config = server.config();
        let (_, opened) = tokio::join!(server.upgrade(&upgrade), Link::open(&config));
        let end = opened.expect_err("no session");
        assert!(matches!(&end, End::Broken(why) if why.contains(part)), "{end}");
    }
}

#[tokio::test]
async fn a_refused_upgrade_tells_why_and_when_to_come_back() {
    let server = Server::new().await;
    let config = server.config();
    let answer = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Type: application/problem+json\r\n\
        Content-Length: 46\r\n\r\n{\"code\":\"unavailable\",\"detail\":\"starting up\"}\n";
    let ((), opened) = tokio::join!(server.refuse(answer), Link::open(&config));
    let expected = End::Refused {
        status: 503,
        code: Some("unavailable".into()),
        detail: "starting up".into(),
        retry_after_ms: Some(7_000),
    };
    assert_eq!(opened.expect_err("no session"), expected);
}

#[tokio::test]
async fn a_session_that_ends_before_its_welcome_tells_the_close() {
    let server = Server::new().await;
    let config = server.config();
    let script = async {
        let (mut peer, _) = server.upgrade(&GOOD).await;
        peer.recv().await;
        peer.close(4501, "expired").await;
    };
    let ((), opened) = tokio::join!(script, Link::open(&config));
    assert!(matches!(opened, Err(End::Closed { code: 4501, reason, .. }) if reason == "expired"));
}

#[tokio::test]
async fn a_silent_server_is_given_up_after_two_and_a_half_heartbeats() {
    let server = Server::new().await;
    let config = server.config();
    let (_peer, opened) = tokio::join!(server.session(json!({"heartbeat_ms": 100})), Link::open(&config));
    let (mut link, _) = opened.expect("a session");
    assert_eq!(timeout(WAIT, link.next()).await.expect("in time"), Err(End::Silent(250)));
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let server = Server::new().await;
    let config = server.config();
    drop(server);
    assert!(matches!(Link::open(&config).await, Err(End::Unreachable { .. })));
    // A server that accepts and hangs up is there, and broken.
    let server = Server::new().await;
    let config = server.config();
    let ((), opened) = tokio::join!(server.refuse(""), Link::open(&config));
    assert!(matches!(opened, Err(End::Broken(_))));
}

#[tokio::test]
async fn frames_that_no_socket_takes_are_bounded() {
    let server = Server::new().await;
    let config = server.config();
    let (_peer, opened) = tokio::join!(server.session(Value::Null), Link::open(&config));
    let (mut link, _) = opened.expect("a session");
    let frame = "x".repeat(64 * 1024);
    let sent = (0..64).take_while(|_| link.send(&frame).is_ok()).count();
    assert!((8..17).contains(&sent) && !link.has_room(), "{sent} frames of 64 KiB");
}
