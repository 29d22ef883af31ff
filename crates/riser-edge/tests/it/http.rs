//! An edge on a real listener: what comes before a session, and what one session's end costs the others.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use riser_bus::log::memory::MemoryLog;
use riser_bus::memory::MemoryNet;
use riser_core::limits::Limits;
use riser_core::tenant::{ApiKey, HashKey, KeyHash, Quota, Quotas, SigningKey, Status};
use riser_core::{BuildingId, Change, GatewayId, GatewayKey, Grant, Snapshot, Tenant, TenantId, TenantTable, Version};
use riser_edge::{Edge, EdgeConfig, Metrics, Ports, ServerTls, auth, listen};
use riser_registry::memory::{MemoryClient, MemoryRegistry};
use riser_registry::{Applied, Registry as _, RegistryError, StateStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Server {
    /// Ends with it.
    _edge: Edge,
    pub(super) address: std::net::SocketAddr,
    registry: prometheus::Registry,
    pub(super) key: String,
    pub(super) tenants: watch::Sender<Arc<TenantTable>>,
    store: MemoryClient,
}

fn acme() -> TenantId {
    "acme".parse().expect("a tenant")
}

fn table(hash: KeyHash, origins: Option<Vec<String>>) -> TenantTable {
    let tenant = Tenant {
        origins,
        signing_kid: "k".into(),
        signing_keys: [SigningKey::hs256("k", [7; 32]).entry()].into(),
        api_keys: [(hash, ApiKey::new("backend", vec![Grant::everything()]))].into(),
        ..Tenant::default()
    };
    TenantTable::from_iter([(acme(), tenant)])
}

pub(super) async fn server(origins: Option<&[&str]>, configure: impl FnOnce(&mut EdgeConfig)) -> Server {
    server_over(None, origins, configure).await
}

/// The same over TLS, when there are certificates.
pub(super) async fn server_over(
    tls: Option<watch::Receiver<ServerTls>>,
    origins: Option<&[&str]>,
    configure: impl FnOnce(&mut EdgeConfig),
) -> Server {
    let (key, hash) = auth::new_api_key(None);
    let id: riser_core::EdgeId = "edge-0".parse().expect("an edge");
    let store = MemoryRegistry::new(1_700_000_000_000).client(&id);
    let origins = origins.map(|list| list.iter().map(ToString::to_string).collect());
    let tenants = watch::Sender::new(Arc::new(table(hash, origins)));
    let ports = Ports {
        bus: Arc::new(MemoryNet::new().client(id.clone())),
        registry: Arc::new(store.clone()),
        commands: Arc::new(store.clone()),
        streams: Arc::new(store.clone()),
        store: Arc::new(Panicky(store.clone())),
        log: Arc::new(MemoryLog::new(1_700_000_000_000).client(&id)),
        tenants: tenants.subscribe(),
        keep: None,
    };
    let registry = prometheus::Registry::new();
    let mut config = EdgeConfig::new(id);
    configure(&mut config);
    let listener = listen("127.0.0.1:0".parse().expect("an address")).expect("a listener");
    let address = listener.local_addr().expect("bound");
    let metrics = Metrics::new(&registry);
    let edge = match tls {
        Some(tls) => Edge::start_tls(config, ports, listener, tls, metrics),
        None => Edge::start(config, ports, listener, metrics),
    };
    timeout(PATIENCE, async {
        while edge.readiness().is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("ready in time");
    Server { _edge: edge, address, registry, key, tenants, store }
}

impl Server {
    pub(super) fn count(&self, metric: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let Some(family) = families.iter().find(|f| f.name() == metric) else { return 0.0 };
        let with =
            family.get_metric().iter().filter(|m| label.is_empty() || m.get_label().iter().any(|l| l.value() == label));
        with.map(|m| m.get_counter().get_value() + m.get_gauge().get_value()).sum()
    }

    /// Sends a request and gives back all that is answered until the connection ends or the head is complete.
    pub(super) async fn head(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("written");
        head_of(&mut stream).await
    }
}

pub(super) async fn head_of(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    let read = async {
        let mut byte = [0];
        while stream.read(&mut byte).await.unwrap_or(0) == 1 {
            answer.push(byte[0]);
            if answer.ends_with(b"\r\n\r\n") {
                break;
            }
        }
    };
    timeout(PATIENCE, read).await.expect("answered in time");
    String::from_utf8_lossy(&answer).into_owned()
}

pub(super) fn upgrade(extra: &str) -> String {
    format!(
        "GET /v1/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: riser.v1\r\n{extra}\r\n"
    )
}

#[tokio::test]
async fn only_the_tenants_origins_may_connect_and_no_origin_is_no_browser() {
    let server = server(Some(&["https://app.example"]), |_| {}).await;
    let rows = [
        ("Origin: https://app.example\r\n", "101"),
        ("", "101"),
        ("Origin: null\r\n", "403"),
        ("Origin: http://app.example\r\n", "403"),
        ("Origin: https://app.example:8443\r\n", "403"),
        ("Origin: https://app.example.evil.com\r\n", "403"),
        ("Origin: https://app.examp1e\r\n", "403"),
        ("Origin: https://APP.example\r\n", "403"),
        ("Origin: https://app.example\r\nOrigin: https://evil.com\r\n", "403"),
        ("Origin: \r\n", "403"),
    ];
    for (header, status) in rows {
        let answer = server.head(&upgrade(header)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{header:?}: {answer}");
    }
    assert!((server.count("riser_refused_total", "origin") - 8.0).abs() < 0.5);
}

#[tokio::test]
async fn a_bad_request_is_refused_counted_and_ends_its_connection() {
    let server = server(None, |_| {}).await;
    let api = |path: &str, key: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n\r\n");
    let rows = [
        ("query_credential", "400", "GET /v1/ws?token=x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("query_credential", "400", api("/v1/presence?building=b&x=rk_abc", &server.key)),
        ("query", "400", "GET /v1/ws?x=1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("not_found", "404", api("/metrics", &server.key)),
        ("not_found", "404", api("/v1/../v1/presence", &server.key)),
        ("absolute_form", "404", "GET http://a/v1/presence HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("host", "400", "GET /v1/presence HTTP/1.1\r\n\r\n".to_owned()),
        ("http_version", "400", "GET /v1/presence HTTP/1.0\r\nHost: a\r\n\r\n".to_owned()),
        ("method", "405", "PUT /v1/presence HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".to_owned()),
        ("no_credential", "401", "GET /v1/presence?building=b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        (
            "malformed_credential",
            "401",
            "GET /v1/presence HTTP/1.1\r\nHost: a\r\nAuthorization: Basic eA==\r\n\r\n".to_owned(),
        ),
        ("bad_request", "400", api("/v1/presence", &server.key)),
        ("bad_request", "400", api("/v1/presence?building=b&page=2", &server.key)),
        ("bad_request", "400", api("/v1/presence?building=b&limit=0", &server.key)),
        ("bad_request", "400", api("/v1/state/b/a.b", &server.key)),
        ("bad_request", "400", api("/v1/state/b/%2e%2e", &server.key)),
        ("unknown_gateway", "404", api("/v1/state/b/g", &server.key)),
        ("malformed_http", "400", "GET / HTTP/1.1\r\nHost: a\r\n bad fold\r\n\r\n".to_owned()),
    ];
    for (reason, status, request) in rows {
        let before = server.count("riser_refused_total", reason);
        let mut stream = TcpStream::connect(server.address).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        // The end of the answer is the end of the connection.
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("closed in time").expect("text");
        assert!(
            answer.starts_with("HTTP/1.") && answer[8..].starts_with(&format!(" {status} ")),
            "{request}: {answer}"
        );
        assert!((server.count("riser_refused_total", reason) - before - 1.0).abs() < 0.5, "{reason}: {request}");
    }
}

#[tokio::test]
async fn a_request_that_never_comes_is_closed_and_counted() {
    let server = server(None, |config| config.hello = Duration::from_millis(100)).await;
    for part in ["", "GET /v1/ws HTT"] {
        let mut stream = TcpStream::connect(server.address).await.expect("connected");
        stream.write_all(part.as_bytes()).await.expect("written");
        let mut rest = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("closed in time").expect("read");
    }
    let counted = async {
        while server.count("riser_refused_total", "header_timeout") < 2.0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, counted).await.expect("counted");
}

#[tokio::test]
async fn connections_beyond_the_bound_are_told_when_to_come_back() {
    let server = server(None, |config| config.handshakes = 1).await;
    let _first = TcpStream::connect(server.address).await.expect("connected");
    let answer = timeout(PATIENCE, async {
        loop {
            let answer = server.head("").await;
            if !answer.is_empty() {
                return answer;
            }
        }
    })
    .await
    .expect("answered");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("Retry-After: "), "{answer}");
    assert!(server.count("riser_refused_total", "busy") >= 1.0);
}

/// A store with a defect: it panics at one path's change.
struct Panicky(MemoryClient);

#[async_trait]
impl StateStore for Panicky {
    async fn apply(
        &self,
        key: &GatewayKey,
        version: Version,
        change: &Change,
        limits: &Limits,
    ) -> Result<Applied, RegistryError> {
        self.0.apply(key, version, change, limits).await
    }
    async fn read(&self, key: &GatewayKey) -> Result<Option<Snapshot>, RegistryError> {
        assert!(key.address.gateway().as_str() != "defect", "a defect");
        self.0.read(key).await
    }
    async fn versions(
        &self,
        tenant: &TenantId,
        building: &BuildingId,
    ) -> Result<Vec<(GatewayId, Version)>, RegistryError> {
        self.0.versions(tenant, building).await
    }
    async fn buildings(&self, tenant: &TenantId) -> Result<Vec<BuildingId>, RegistryError> {
        self.0.buildings(tenant).await
    }
}

#[tokio::test]
async fn a_panic_ends_one_connection_and_nothing_else() {
    let server = server(None, |_| {}).await;
    let ask = |gateway: &str| {
        format!("GET /v1/state/b/{gateway} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", server.key)
    };
    assert_eq!(server.head(&ask("defect")).await, "");
    assert!(server.head(&ask("other")).await.starts_with("HTTP/1.1 404 "));
    assert!(server.head(&upgrade("")).await.starts_with("HTTP/1.1 101 "));
}

/// Waits until the only place for a handshake is free again.
async fn place_comes_back(server: &Server) {
    let served = async { while !server.head(&upgrade("")).await.starts_with("HTTP/1.1 101 ") {} };
    timeout(PATIENCE, served).await.expect("the place came back");
}

#[tokio::test]
async fn a_client_that_reads_no_answer_gives_its_place_back() {
    let server = server(None, |config| {
        config.handshakes = 1;
        config.exchange = Duration::from_millis(100);
    })
    .await;
    let mut deaf = TcpStream::connect(server.address).await.expect("connected");
    let ask =
        format!("GET /v1/presence?building=b HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", server.key);
    let requests = ask.repeat(1_000);
    // It asks until nobody takes a request any more, because its answers cannot go; or it is cut off already.
    let asked = async { while deaf.write_all(requests.as_bytes()).await.is_ok() {} };
    timeout(PATIENCE, asked).await.expect("cut off in time");
    place_comes_back(&server).await;
}

#[tokio::test]
async fn a_connection_that_asks_nothing_more_gives_its_place_back() {
    let server = server(None, |config| {
        config.handshakes = 1;
        config.hello = Duration::from_millis(100);
    })
    .await;
    let mut idle = TcpStream::connect(server.address).await.expect("connected");
    let ask =
        format!("GET /v1/presence?building=b HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", server.key);
    idle.write_all(ask.as_bytes()).await.expect("written");
    assert!(head_of(&mut idle).await.starts_with("HTTP/1.1 200 "));
    place_comes_back(&server).await;
}

/// What comes on a connection until it ends.
async fn rest_of(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    // A connection that is reset after its close frame has ended too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("an end in time");
    String::from_utf8_lossy(&rest).into_owned()
}

#[tokio::test]
async fn a_revoked_key_ends_its_sessions_and_no_others() {
    let server = server(None, |_| {}).await;
    let (other, hash) = auth::new_api_key(None);
    let add = |table: &mut Arc<TenantTable>| {
        let key = ApiKey::new("other", vec![Grant::everything()]);
        Arc::make_mut(table).update(&acme(), |tenant| drop(tenant.api_keys.insert(hash, key)));
    };
    server.tenants.send_modify(add);
    let mut sessions = Vec::new();
    for key in [&server.key, &other] {
        let mut stream = TcpStream::connect(server.address).await.expect("connected");
        let request = upgrade(&format!("Authorization: Bearer {key}\r\n"));
        stream.write_all(request.as_bytes()).await.expect("written");
        assert!(head_of(&mut stream).await.starts_with("HTTP/1.1 101"));
        // A masked text frame with a mask of zeros.
        let hello = br#"{"t":"hello"}"#;
        let mut frame = vec![0x81, 0x80 | u8::try_from(hello.len()).expect("short"), 0, 0, 0, 0];
        frame.extend_from_slice(hello);
        stream.write_all(&frame).await.expect("written");
        sessions.push(stream);
    }
    timeout(PATIENCE, async {
        while server.count("riser_sessions", "client") < 2.0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("two sessions in time");
    server.tenants.send_modify(|table| {
        Arc::make_mut(table).update(&acme(), |tenant| tenant.api_keys.retain(|_, key| key.name == "other"));
    });
    let rest = rest_of(&mut sessions[0]).await;
    assert!(rest.contains("welcome") && rest.contains("the credential was revoked"), "{rest}");
    assert!((server.count("riser_closed_total", "4504") - 1.0).abs() < 0.1);
    assert!((server.count("riser_sessions", "client") - 1.0).abs() < 0.1, "the other key's session goes on");
    server.tenants.send_modify(|table| {
        Arc::make_mut(table).update(&acme(), |tenant| tenant.status = Status::Suspended);
    });
    assert!(rest_of(&mut sessions[1]).await.contains("the tenant is suspended"));
    assert!((server.count("riser_revoked_total", "") - 2.0).abs() < 0.1);
}

fn get(path: &str, key: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n\r\n")
}

impl Server {
    async fn status(&self, key: &str) -> String {
        self.head(&get("/v1/presence?building=b1", key)).await.split(' ').nth(1).unwrap_or_default().to_owned()
    }

    fn change_key(&self, change: impl Fn(&mut ApiKey)) {
        self.tenants.send_modify(|table| {
            Arc::make_mut(table).update(&acme(), |tenant| tenant.api_keys.values_mut().for_each(&change));
        });
    }
}

#[tokio::test]
async fn a_key_works_from_its_ranges_until_its_end() {
    let server = server(None, |_| {}).await;
    assert_eq!(server.status(&server.key).await, "200");
    server.change_key(|key| key.from = vec!["10.0.0.0/8".parse().expect("a range")]);
    assert_eq!(server.status(&server.key).await, "403");
    assert!((server.count("riser_refused_total", "wrong_address") - 1.0).abs() < 0.1);
    server.change_key(|key| key.from.push("127.0.0.0/8".parse().expect("a range")));
    assert_eq!(server.status(&server.key).await, "200");
    server.change_key(|key| key.expires_at_ms = Some(1));
    assert_eq!(server.status(&server.key).await, "401");
    server.change_key(|key| key.expires_at_ms = Some(u64::MAX));
    assert_eq!(server.status(&server.key).await, "200");
}

#[tokio::test]
async fn a_key_may_be_known_by_a_keyed_hash_alone() {
    let hash_key = HashKey::new([5; 32]).expect("a long secret");
    let given = hash_key.clone();
    let often = Some(Duration::from_millis(50));
    let server = server(None, |config| (config.hash_key, config.usage) = (Some(given), often)).await;
    let (key, hash) = auth::new_api_key(Some(&hash_key));
    let (stranger, foreign) = auth::new_api_key(HashKey::new([6; 32]).as_ref());
    server.tenants.send_modify(|table| {
        let keys = [(hash, "new"), (foreign, "foreign")];
        let keys = keys.map(|(hash, name)| (hash, ApiKey::new(name, vec![Grant::everything()])));
        Arc::make_mut(table).update(&acme(), |tenant| tenant.api_keys.extend(keys));
    });
    assert_eq!(server.status(&key).await, "200");
    assert_eq!(server.status(&server.key).await, "200", "the key from before has a plain hash");
    assert_eq!(server.status(&stranger).await, "401", "hashed with another secret");
    let used = timeout(PATIENCE, async {
        loop {
            let used = server.store.key_uses(&acme()).await.expect("an answer");
            if used.len() > 1 {
                break used.into_keys().collect::<Vec<_>>();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert_eq!(used.await.expect("told in time"), [KeyHash::of(&server.key, None), hash]);
}

/// T4: a key with a wrong last byte, again and again.
#[tokio::test]
async fn who_tries_keys_is_locked_out_and_tokens_are_not() {
    let server = server(None, |_| {}).await;
    let (other, _) = auth::new_api_key(None);
    let mut cut = server.key.clone();
    cut.pop();
    let mut refused = Vec::new();
    for i in 0..101 {
        refused.push(server.status(if i % 2 == 0 { &other } else { &cut }).await);
    }
    assert_eq!(refused[..100], vec!["401"; 100]);
    assert_eq!(refused[100], "429");
    let head = server.head(&get("/v1/presence?building=b1", &server.key)).await;
    assert!(head.starts_with("HTTP/1.1 429") && head.to_lowercase().contains("retry-after: 60"), "{head}");
    assert!((server.count("riser_refused_total", "locked_out") - 2.0).abs() < 0.1);
    // A flat behind the same address goes on.
    let token = server.head(&upgrade("Authorization: Bearer ey.ey.ey\r\n")).await;
    assert!(token.starts_with("HTTP/1.1 401"), "{token}");
}

#[tokio::test]
async fn calls_above_the_quota_are_refused_and_told_when_to_come_back() {
    let server = server(None, |_| {}).await;
    let request = get("/v1/presence?building=b1", &server.key);
    assert!(
        !server.head(&request).await.to_lowercase().contains("ratelimit"),
        "without a quota nothing is said of one"
    );
    server.tenants.send_modify(|table| {
        let quotas = Quotas::NONE.with(Quota::ApiCallsPerS, 2).with(Quota::ClientSessions, 1);
        Arc::make_mut(table).update(&acme(), |tenant| tenant.quotas = quotas);
    });
    let refused = async {
        loop {
            let head = server.head(&request).await.to_lowercase();
            assert!(head.contains("ratelimit-policy: \"api\";q=2;w=1") || head.starts_with("http/1.1 200"), "{head}");
            if head.starts_with("http/1.1 429") {
                return head;
            }
        }
    };
    let head = timeout(PATIENCE, refused).await.expect("refused in time");
    assert!(head.contains("ratelimit: \"api\";r=0;t=1") && head.contains("retry-after: 1"), "{head}");
    assert!(server.count("riser_quota_refused_total", "api_calls_per_s") > 0.0);
    let upgrade = upgrade(&format!("Authorization: Bearer {}\r\n", server.key));
    let mut stream = TcpStream::connect(server.address).await.expect("connected");
    stream.write_all(upgrade.as_bytes()).await.expect("written");
    assert!(head_of(&mut stream).await.starts_with("HTTP/1.1 101"));
    let head = server.head(&upgrade).await.to_lowercase();
    assert!(head.starts_with("http/1.1 429") && head.contains("retry-after: "), "{head}");
}
