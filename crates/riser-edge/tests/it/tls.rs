//! The public listener over TLS: who gets in, with which certificate, and for how long a handshake may take.

use std::sync::Arc;
use std::time::Duration;

use fastwebsockets::{Frame, OpCode, Payload, Role, WebSocket};
use riser_edge::ServerTls;
use riser_edge::tls::TlsError;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::harness::PATIENCE;
use super::http::{Server, head_of, server_over, upgrade};

/// A certificate for this machine that only it itself has signed.
struct Own {
    cert: rcgen::Certificate,
    key: rcgen::KeyPair,
}

impl Own {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
        Self { cert: made.cert, key: made.signing_key }
    }

    fn tls(&self) -> ServerTls {
        self.tls_with_key_of(self).expect("a good pair")
    }

    fn tls_with_key_of(&self, other: &Self) -> Result<ServerTls, TlsError> {
        ServerTls::new(self.cert.pem().as_bytes(), other.key.serialize_pem().as_bytes())
    }

    /// Connects, trusting this certificate alone and offering these protocols.
    async fn connect(&self, server: &Server, alpn: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.cert.der().clone()).expect("a certificate");
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(server.address).await.expect("connected");
        let name = ServerName::try_from("localhost").expect("a name");
        timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name, stream)).await.expect("in time")
    }
}

async fn session(server: &Server, stream: TlsStream<TcpStream>) -> WebSocket<TlsStream<TcpStream>> {
    let mut stream = stream;
    let request = upgrade(&format!("Authorization: Bearer {}\r\n", server.key));
    stream.write_all(request.as_bytes()).await.expect("written");
    assert!(head_of(&mut stream).await.starts_with("HTTP/1.1 101"));
    let mut ws = WebSocket::after_handshake(stream, Role::Client);
    send(&mut ws, &json!({"t":"hello"})).await;
    assert_eq!(next(&mut ws).await["t"], "welcome");
    ws
}

async fn send(ws: &mut WebSocket<TlsStream<TcpStream>>, frame: &Value) {
    let text = frame.to_string().into_bytes();
    ws.write_frame(Frame::text(Payload::Owned(text))).await.expect("written");
    // TLS holds back what the socket did not take at once.
    ws.flush().await.expect("written");
}

async fn next(ws: &mut WebSocket<TlsStream<TcpStream>>) -> Value {
    loop {
        let frame = timeout(PATIENCE, ws.read_frame()).await.expect("in time").expect("a frame");
        match frame.opcode {
            OpCode::Text => return serde_json::from_slice(&frame.payload).expect("JSON"),
            OpCode::Close => panic!("closed: {:?}", String::from_utf8_lossy(&frame.payload)),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_session_lives_in_tls_as_it_does_without() {
    let own = Own::new();
    let (_certificate, receiver) = watch::channel(own.tls());
    let server = server_over(Some(receiver), None, |_| {}).await;
    let stream = own.connect(&server, &["h2", "http/1.1"]).await.expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let mut ws = session(&server, stream).await;
    // More at once than a record or the kernel's buffer holds, in both directions.
    for n in 0..2_000 {
        send(&mut ws, &json!({"t":"subscribe","n":n,"to":"b1/*","lanes":["state"],"pad":"x".repeat(200)})).await;
    }
    let mut answered = 0;
    while answered < 2_000 {
        let frame = next(&mut ws).await;
        if frame["t"] == "ok" || frame["t"] == "error" {
            answered += 1;
        }
    }
    ws.write_frame(Frame::close(1000, b"")).await.expect("written");
    ws.flush().await.expect("written");
    let mut rest = Vec::new();
    // The end of the stream shows that TLS said goodbye too.
    timeout(PATIENCE, ws.into_inner().read_to_end(&mut rest)).await.expect("in time").expect("an end in order");
    assert_eq!(rest, [0x88, 2, 0x03, 0xe8]);
    timeout(PATIENCE, async {
        while server.count("riser_closed_total", "1000") < 1.0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("an end in order");
}

#[tokio::test]
async fn who_does_not_speak_tls_or_wants_another_protocol_is_refused() {
    let own = Own::new();
    let (_certificate, receiver) = watch::channel(own.tls());
    let server = server_over(Some(receiver), None, |_| {}).await;
    assert!(own.connect(&server, &["h2"]).await.is_err(), "only HTTP/1.1 is spoken");
    assert!(Own::new().connect(&server, &[]).await.is_err(), "another certificate is trusted");
    let mut plain = TcpStream::connect(server.address).await.expect("connected");
    plain.write_all(upgrade("").as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, plain.read_to_end(&mut answer)).await.expect("an end in time");
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    timeout(PATIENCE, async {
        while server.count("riser_refused_total", "tls") < 3.0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("three refusals");
}

#[tokio::test]
async fn a_handshake_that_does_not_come_gives_its_place_back() {
    let own = Own::new();
    let (_certificate, receiver) = watch::channel(own.tls());
    let configure = |config: &mut riser_edge::EdgeConfig| {
        config.handshakes = 1;
        config.hello = Duration::from_secs(1);
    };
    let server = server_over(Some(receiver), None, configure).await;
    let mut silent = TcpStream::connect(server.address).await.expect("connected");
    let mut end = [0];
    assert_eq!(timeout(PATIENCE, silent.read(&mut end)).await.expect("an end in time").unwrap_or(0), 0);
    timeout(PATIENCE, async {
        while server.count("riser_refused_total", "tls_timeout") < 1.0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("a refusal");
    own.connect(&server, &[]).await.expect("its place");
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections_and_ends_no_old_one() {
    let (old, new) = (Own::new(), Own::new());
    let (certificate, receiver) = watch::channel(old.tls());
    let server = server_over(Some(receiver), None, |_| {}).await;
    let mut ws = session(&server, old.connect(&server, &[]).await.expect("a handshake")).await;
    certificate.send_replace(new.tls());
    new.connect(&server, &[]).await.expect("the new certificate");
    assert!(old.connect(&server, &[]).await.is_err(), "the old certificate is shown still");
    send(&mut ws, &json!({"t":"ping","n":1})).await;
    assert_eq!(next(&mut ws).await["t"], "pong");
}

#[test]
fn what_makes_no_pair_is_refused() {
    let (one, other) = (Own::new(), Own::new());
    assert!(matches!(one.tls_with_key_of(&other), Err(TlsError::Pair(_))));
    let (cert, key) = (one.cert.pem(), one.key.serialize_pem());
    let of = |cert: &str, key: &str| ServerTls::new(cert.as_bytes(), key.as_bytes());
    assert!(matches!(of("", &key), Err(TlsError::Certificate)));
    assert!(matches!(of(&key, &key), Err(TlsError::Certificate)));
    assert!(matches!(of(&cert, ""), Err(TlsError::Key)));
    assert!(matches!(of(&cert, &cert), Err(TlsError::Key)));
    let cut = &cert[..cert.len() / 2];
    assert!(matches!(of(cut, &key), Err(TlsError::Certificate)));
}
