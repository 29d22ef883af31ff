//! A control plane that listens, on twins that tests can look into, and one who calls it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use riser_bus::kv::memory::MemoryKv;
use riser_bus::log::memory::MemoryLog;
use riser_bus::memory::MemoryNet;
use riser_control::{Control, Credentials, Ports, Server};
use riser_core::EdgeId;
use riser_core::tenant::HashKey;
use riser_registry::memory::MemoryRegistry;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a test waits for what must come: far longer than anything takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// The admin's secret.
pub(super) const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef";
/// Where the clocks begin, Unix milliseconds.
pub(super) const NOW_MS: u64 = 1_800_000_000_000;

pub(super) struct World {
    pub(super) kv: MemoryKv,
    pub(super) log: MemoryLog,
    pub(super) registry: MemoryRegistry,
    pub(super) net: MemoryNet,
    pub(super) metrics: prometheus::Registry,
    pub(super) at: SocketAddr,
    serving: JoinSet<()>,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    pub(super) body: Value,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The answer's body, if its status is this one.
    #[track_caller]
    pub(super) fn is(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{:?}", self.body);
        self.body
    }

    /// That it is a problem with this status and code, and these words in its text.
    #[track_caller]
    pub(super) fn refused(self, status: u16, code: &str, words: &str) {
        assert_eq!((self.status, self.header("content-type")), (status, Some("application/problem+json")), "{self:?}");
        assert_eq!(self.body["code"], code, "{self:?}");
        let detail = self.body["detail"].as_str().expect("a detail");
        assert!(detail.contains(words), "{words:?} is not in {detail:?}");
    }
}

pub(super) fn hash_key() -> HashKey {
    HashKey::new([7; 32]).expect("long enough")
}

impl World {
    pub(super) async fn new() -> Self {
        let id: EdgeId = "control".parse().expect("a name");
        let (kv, log, registry) = (MemoryKv::new(), MemoryLog::new(NOW_MS), MemoryRegistry::new(NOW_MS));
        let (net, metrics) = (MemoryNet::new(), prometheus::Registry::new());
        let client = Arc::new(registry.client(&id));
        let clock = registry.clone();
        let ports = Ports {
            kv: Arc::new(kv.client(&id)),
            log: Arc::new(log.client(&id)),
            registry: client.clone(),
            state: client.clone(),
            commands: client,
            bus: Arc::new(net.client(id)),
            now_ms: Arc::new(move || clock.now_ms()),
            hash_key: Some(hash_key()),
        };
        let control = Control::new(ports, &metrics).expect("metrics of these names");
        let credentials = Credentials::read(&format!("anna {SECRET}")).expect("a good file");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address");
        let mut serving = JoinSet::new();
        serving.spawn(Server::new(control, credentials).serve(listener, std::future::pending()));
        Self { kv, log, registry, net, metrics, at, serving }
    }

    /// Ends the control plane, and leaves what it works on.
    pub(super) async fn stop(&mut self) {
        self.serving.shutdown().await;
    }

    /// Sends a request as it is, and reads the answer.
    pub(super) async fn send(&self, head: &str, body: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.at).await.expect("it listens");
        let request = async {
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body).await
        };
        // Whoever is refused early need not read all.
        drop(timeout(PATIENCE, request).await.expect("written in time"));
        read(&mut stream).await
    }

    pub(super) async fn ask_with(&self, line: &str, headers: &str, body: &[u8]) -> Answer {
        let length = body.len();
        let head =
            format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
        self.send(&head, body).await
    }

    /// Asks as the admin. `line` is a method and what comes after `/admin/v1/tenants`.
    pub(super) async fn ask(&self, line: &str, body: &Value) -> Answer {
        self.ask_if(line, None, body).await
    }

    pub(super) async fn ask_if(&self, line: &str, tag: Option<&str>, body: &Value) -> Answer {
        let (method, path) = line.split_once(' ').unwrap_or((line, ""));
        let line = format!("{method} /admin/v1/tenants{path}");
        let tag = tag.map(|tag| format!("If-Match: {tag}\r\n")).unwrap_or_default();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.ask_with(&line, &format!("Authorization: Bearer {SECRET}\r\n{tag}"), body.as_bytes()).await
    }

    /// Makes a tenant.
    pub(super) async fn tenant(&self, name: &str) -> Value {
        self.ask("POST", &serde_json::json!({ "tenant": name })).await.is(201)
    }
}

async fn read(stream: &mut TcpStream) -> Answer {
    let mut bytes = vec![];
    let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("an answer in time");
    // A connection that is cut behind the answer, because not all was read, is no trouble.
    drop(read);
    let text = String::from_utf8(bytes).expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: serde_json::from_str(body).unwrap_or(Value::Null) }
}
