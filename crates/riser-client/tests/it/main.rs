//! Clients and gateways against a server that follows a script, over real sockets.

mod client;
mod commands;
mod crowd;
mod desk;
mod exchange;
mod gateway;
mod link;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fastwebsockets::{Frame, OpCode, Payload, Role, WebSocket};
use riser_client::Config;
use riser_core::frame::Credential;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

/// How long anything here may take, on a machine that is busy with other things.
const WAIT: Duration = Duration::from_secs(30);

/// Where the script waits for its client.
struct Server {
    listener: TcpListener,
}

/// The server's side of one connection.
struct Peer {
    ws: WebSocket<TcpStream>,
}

/// What an upgrade is answered with.
struct Upgrade {
    /// Makes the accept key a wrong one.
    wrong_key: bool,
    protocol: Option<&'static str>,
}

const GOOD: Upgrade = Upgrade { wrong_key: false, protocol: Some("riser.v1") };

impl Server {
    async fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.expect("a port") }
    }

    /// One whose sockets hold little that it has not read.
    fn narrow() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(8 * 1024).expect("a buffer");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        Self { listener: socket.listen(8).expect("a listener") }
    }

    fn config(&self) -> Config {
        let url = format!("http://{}", self.listener.local_addr().expect("an address"));
        Config::new(url.parse().expect("an endpoint"), Credential::new("the-token")).agent("test")
    }

    /// The next connection, and the head of its request.
    async fn request(&self) -> (TcpStream, String) {
        let (mut stream, _) = timeout(WAIT, self.listener.accept()).await.expect("in time").expect("a connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a request"));
        }
        (stream, String::from_utf8(head).expect("ASCII"))
    }

    /// The next connection, answered with something else than an upgrade.
    async fn refuse(&self, answer: &str) {
        let (mut stream, _) = self.request().await;
        stream.write_all(answer.as_bytes()).await.expect("it reads");
        stream.shutdown().await.expect("it reads");
    }

    async fn upgrade(&self, upgrade: &Upgrade) -> (Peer, String) {
        let (mut stream, head) = self.request().await;
        let field = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        let key = head.lines().filter_map(field).find(|(name, _)| name == "sec-websocket-key").expect("a key").1;
        let key = if upgrade.wrong_key { "another".into() } else { key };
        let digest = sha1_smol::Sha1::from(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11")).digest().bytes();
        let protocol = upgrade.protocol.map(|p| format!("Sec-WebSocket-Protocol: {p}\r\n")).unwrap_or_default();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n{protocol}\r\n",
            BASE64.encode(digest)
        );
        stream.write_all(answer.as_bytes()).await.expect("it reads");
        (Peer { ws: WebSocket::after_handshake(stream, Role::Server) }, head)
    }

    /// The next connection, upgraded and greeted.
    async fn session(&self, more: Value) -> Peer {
        self.greeted(json!({"t": "hello", "agent": "test"}), more).await
    }

    /// The next connection, upgraded, heard and greeted.
    async fn greeted(&self, hello: Value, more: Value) -> Peer {
        let (peer, said) = self.heard(more).await;
        assert_eq!(said, hello);
        peer
    }

    /// The next connection, upgraded and greeted, and what it said.
    async fn heard(&self, more: Value) -> (Peer, Value) {
        let (mut peer, _) = self.upgrade(&GOOD).await;
        let hello = peer.recv().await;
        peer.send(&welcome(more)).await;
        (peer, hello)
    }
}

/// A `welcome` with these fields besides the usual ones.
fn welcome(more: Value) -> Value {
    let mut welcome = json!({
        "t": "welcome", "session": "s", "tenant": "acme", "peer": "client", "heartbeat_ms": 20_000, "features": [],
        "limits": {"text_bytes": 65_536, "binary_bytes": 16_384, "subscriptions": 256, "paths": 2_048,
            "state_bytes": 262_144, "event_dedup_ms": 120_000},
        "edge": "edge-0", "version": "0.1.0", "now_ms": 1_000_000,
    });
    if let (Some(welcome), Value::Object(more)) = (welcome.as_object_mut(), more) {
        welcome.extend(more);
    }
    welcome
}

impl Peer {
    /// The next text frame.
    async fn recv(&mut self) -> Value {
        let frame = self.frame().await;
        assert_eq!(frame.opcode, OpCode::Text);
        serde_json::from_slice(&frame.payload).expect("JSON")
    }

    async fn frame(&mut self) -> Frame<'_> {
        timeout(WAIT, self.ws.read_frame()).await.expect("in time").expect("a frame")
    }

    async fn send(&mut self, frame: &Value) {
        let text = frame.to_string();
        self.ws.write_frame(Frame::text(Payload::Borrowed(text.as_bytes()))).await.expect("it reads");
    }

    async fn send_binary(&mut self, bytes: &[u8]) {
        self.ws.write_frame(Frame::binary(Payload::Borrowed(bytes))).await.expect("it reads");
    }

    /// Answers a frame with `ok` and these fields.
    async fn ok_with(&mut self, frame: &Value, more: Value) {
        let mut ok = json!({"t": "ok", "n": frame["n"]});
        if let (Some(ok), Value::Object(more)) = (ok.as_object_mut(), more) {
            ok.extend(more);
        }
        self.send(&ok).await;
    }

    /// Refuses a frame.
    async fn refuse(&mut self, frame: &Value, code: &str, retry_after_ms: Option<u64>) {
        let mut error = json!({"t": "error", "n": frame["n"], "code": code, "message": "because"});
        if let Some(ms) = retry_after_ms {
            error["retry_after_ms"] = ms.into();
        }
        self.send(&error).await;
    }

    /// Answers a frame with `ok`.
    async fn ok(&mut self, frame: &Value) {
        self.send(&json!({"t": "ok", "n": frame["n"]})).await;
    }

    async fn close(mut self, code: u16, reason: &str) {
        self.ws.write_frame(Frame::close(code, reason.as_bytes())).await.expect("it reads");
        // The client's answer, or the end of a connection that it has closed by now.
        let _ = timeout(WAIT, self.ws.read_frame()).await.expect("in time");
    }
}
