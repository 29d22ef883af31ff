//! An edge that follows what the control plane publishes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use riser_core::EdgeId;
use riser_edge::{Edge, EdgeConfig, Metrics, Ports};
use riser_tenants::{FollowMetrics, Followed, Store};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::harness::{PATIENCE, World, hash_key};

struct Running {
    _edge: Edge,
    at: SocketAddr,
    _tasks: JoinSet<()>,
}

async fn edge(world: &World, name: &str) -> Running {
    let id: EdgeId = name.parse().expect("an edge");
    let kv = Arc::new(world.kv.client(&id));
    let registry = prometheus::Registry::new();
    let metrics = FollowMetrics::new(&registry).expect("metrics");
    let followed = Followed::open(kv.clone(), metrics).await.expect("a bucket");
    let client = Arc::new(world.registry.client(&id));
    let ports = Ports {
        bus: Arc::new(world.net.client(id.clone())),
        registry: client.clone(),
        store: client.clone(),
        commands: client.clone(),
        streams: client,
        log: Arc::new(world.log.client(&id)),
        tenants: followed.table(),
        keep: Some(Store::new(kv)),
    };
    let listener = riser_edge::listen("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let at = listener.local_addr().expect("an address");
    let config = EdgeConfig { hash_key: Some(hash_key()), ..EdgeConfig::new(id) };
    let edge = Edge::start(config, ports, listener, Metrics::new(&registry));
    let mut tasks = JoinSet::new();
    tasks.spawn(followed.follow());
    timeout(PATIENCE, async {
        while edge.readiness().is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("an edge that is ready");
    Running { _edge: edge, at, _tasks: tasks }
}

impl Running {
    async fn ask(&self, line: &str, credential: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.at).await.expect("it listens");
        let head =
            format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {credential}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("it reads");
        let mut text = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut text)).await.expect("in time").expect("an answer");
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, text.split_once("\r\n\r\n").expect("a body").1.to_owned())
    }

    /// Waits until a credential is good, or is not any more.
    async fn until(&self, credential: &str, status: u16) {
        timeout(PATIENCE, async {
            while self.ask("GET /v1/presence?building=b", credential).await.0 != status {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("in time");
    }

    /// Opens a session, and gives it once it was welcomed.
    async fn session(&self, credential: &str) -> Session {
        let mut stream = TcpStream::connect(self.at).await.expect("it listens");
        let head = format!(
            "GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: riser.v1\r\nAuthorization: Bearer {credential}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("it reads");
        let mut bytes = vec![];
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.push(timeout(PATIENCE, stream.read_u8()).await.expect("in time").expect("a byte"));
        }
        assert!(bytes.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&bytes));
        let hello = br#"{"t":"hello"}"#;
        let mut frame = vec![0x81, 0x80 | u8::try_from(hello.len()).expect("short"), 0, 0, 0, 0];
        frame.extend(hello);
        stream.write_all(&frame).await.expect("it reads");
        let mut session = Session(stream);
        let (opcode, payload) = session.frame().await;
        assert!(opcode == 1 && payload.starts_with(br#"{"t":"welcome""#), "{}", String::from_utf8_lossy(&payload));
        session
    }
}

struct Session(TcpStream);

impl Session {
    async fn frame(&mut self) -> (u8, Vec<u8>) {
        let read = async {
            let opcode = self.0.read_u8().await? & 0x0f;
            let length = match self.0.read_u8().await? & 0x7f {
                126 => usize::from(self.0.read_u16().await?),
                length => usize::from(length),
            };
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload).await?;
            Ok::<_, std::io::Error>((opcode, payload))
        };
        timeout(PATIENCE, read).await.expect("a frame in time").expect("a frame")
    }

    /// The code that it is closed with.
    async fn closed(mut self) -> u16 {
        loop {
            let (opcode, payload) = self.frame().await;
            if opcode == 8 {
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
        }
    }
}

fn everything() -> Value {
    json!([{ "to": "*/*", "may": ["read", "command", "event", "listen", "speak", "manage"] }])
}

#[tokio::test]
async fn a_key_works_at_every_edge_once_it_is_made_and_ends_its_sessions_when_it_is_revoked() {
    let world = World::new().await;
    let edges = [edge(&world, "edge-0").await, edge(&world, "edge-1").await];
    world.tenant("acme").await;
    let mut keys = vec![];
    for name in ["one", "two"] {
        keys.push(world.ask("POST /acme/keys", &json!({ "name": name, "scope": everything() })).await.is(201));
    }
    let [one, two] = [0, 1].map(|at| keys[at]["key"].as_str().expect("a key"));
    let mut ending = vec![];
    let mut staying = vec![];
    for edge in &edges {
        edge.until(one, 200).await;
        edge.until(two, 200).await;
        ending.push(edge.session(one).await);
        staying.push(edge.session(two).await);
    }
    let line = format!("DELETE /acme/keys/{}", keys[0]["id"].as_str().expect("an id"));
    world.ask(&line, &Value::Null).await.is(200);
    for session in ending {
        assert_eq!(session.closed().await, 4504);
    }
    for edge in &edges {
        edge.until(one, 401).await;
        edge.until(two, 200).await;
    }
    world.ask("PATCH /acme", &json!({ "status": "suspended" })).await.is(200);
    for session in staying {
        assert_eq!(session.closed().await, 4502);
    }
}

#[tokio::test]
async fn an_edge_starts_and_serves_while_the_control_plane_is_stopped() {
    let mut world = World::new().await;
    world.tenant("acme").await;
    let key = world.ask("POST /acme/keys", &json!({ "name": "k", "scope": everything() })).await.is(201);
    world.stop().await;
    let key = key["key"].as_str().expect("a key");
    let edge = edge(&world, "edge-0").await;
    edge.until(key, 200).await;
    edge.session(key).await;
}

#[tokio::test]
async fn a_deleted_tenants_sessions_are_closed_everywhere() {
    let world = World::new().await;
    let edges = [edge(&world, "edge-0").await, edge(&world, "edge-1").await];
    world.tenant("acme").await;
    let key = world.ask("POST /acme/keys", &json!({ "name": "k", "scope": everything() })).await.is(201);
    let key = key["key"].as_str().expect("a key");
    let mut sessions = vec![];
    for edge in &edges {
        edge.until(key, 200).await;
        sessions.push(edge.session(key).await);
    }
    world.ask("DELETE /acme", &Value::Null).await.is(200);
    for session in sessions {
        assert_eq!(session.closed().await, 4504);
    }
}
