//! Who gets in while others storm: places at the door, the turnstile before the registry, and what is told to the rest.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream as StdStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use riser_core::tenant::ApiKey;
use riser_core::{Grant, Identity, Tenant, TenantTable};
use riser_edge::auth;
use riser_registry::memory::Faults;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::harness::{Cluster, Peerling, counted, gateway};
use super::http::{Server, head_of, server, upgrade};

const PATIENCE: Duration = Duration::from_secs(20);

/// Connects from one of this machine's own addresses, and asks.
async fn ask(server: &Server, from: &str, request: &str) -> (TcpStream, String) {
    let socket = TcpSocket::new_v4().expect("a socket");
    let from: IpAddr = from.parse().expect("an address");
    socket.bind(SocketAddr::new(from, 0)).expect("an address of this machine");
    let mut stream = socket.connect(server.address).await.expect("connected");
    // Who is refused before anything was read may be gone already.
    let _ = stream.write_all(request.as_bytes()).await;
    let head = head_of(&mut stream).await;
    (stream, head)
}

fn status(head: &str) -> &str {
    head.get(9..12).unwrap_or(head)
}

fn is_told_when(head: &str) -> bool {
    head.contains("\r\nRetry-After: ") || head.contains("\r\nretry-after: ")
}

/// A tenant `other` beside `acme`, and its key.
pub(super) fn add_tenant(server: &Server) -> String {
    let (key, hash) = auth::new_api_key(None);
    server.tenants.send_modify(|table: &mut Arc<TenantTable>| {
        let table = Arc::make_mut(table);
        let (_, first) = table.iter().next().expect("a tenant");
        let api_keys = [(hash, ApiKey::new("other", vec![Grant::everything()]))].into();
        let other = Tenant { api_keys, ..(**first).clone() };
        table.insert("other".parse().expect("a tenant"), other);
    });
    key
}

#[tokio::test]
async fn one_address_leaves_places_at_the_door_to_others() {
    let server = server(None, |config| (config.handshakes, config.handshakes_each) = (4, 2)).await;
    let mut waiting = Vec::new();
    for expected in ["101", "101", "503"] {
        let (stream, head) = ask(&server, "127.0.0.1", &upgrade("")).await;
        assert_eq!(status(&head), expected, "{head}");
        assert!(expected == "101" || is_told_when(&head), "{head}");
        waiting.push(stream);
    }
    let (_stream, head) = ask(&server, "127.0.0.2", &upgrade("")).await;
    assert_eq!(status(&head), "101", "{head}");
    assert!((server.count("riser_refused_total", "busy_address") - 1.0).abs() < 0.1);
    // Who leaves makes room.
    drop(waiting);
    let served = async { while status(&ask(&server, "127.0.0.1", &upgrade("")).await.1) != "101" {} };
    timeout(PATIENCE, served).await.expect("a place in time");
}

#[tokio::test]
async fn one_tenant_leaves_places_at_the_door_to_others() {
    let server = server(None, |config| (config.handshakes, config.handshakes_each) = (8, 2)).await;
    let other = add_tenant(&server);
    let with = |key: &str| upgrade(&format!("Authorization: Bearer {key}\r\n"));
    let presence =
        |key: &str| format!("GET /v1/presence?building=b HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n\r\n");
    let mut waiting = Vec::new();
    // From an address each, so that none of these has too many.
    for (from, expected) in [("127.0.0.1", "101"), ("127.0.0.2", "101"), ("127.0.0.3", "503")] {
        let (stream, head) = ask(&server, from, &with(&server.key)).await;
        assert_eq!(status(&head), expected, "{head}");
        assert!(expected == "101" || is_told_when(&head), "{head}");
        waiting.push(stream);
    }
    assert_eq!(status(&ask(&server, "127.0.0.4", &presence(&server.key)).await.1), "503");
    assert_eq!(status(&ask(&server, "127.0.0.5", &presence(&other)).await.1), "200");
    assert_eq!(status(&ask(&server, "127.0.0.6", &with(&other)).await.1), "101");
    assert!((server.count("riser_refused_total", "busy_tenant") - 2.0).abs() < 0.1);
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_clients_own_address_counts() {
    let server = server(None, |config| {
        (config.handshakes, config.handshakes_each) = (8, 1);
        config.trusted_proxies = vec!["127.0.0.1".parse().expect("a range")];
    })
    .await;
    let mut waiting = Vec::new();
    let rows = [
        ("127.0.0.1", "Forwarded: for=192.0.2.1\r\n", "101"),
        ("127.0.0.1", "Forwarded: for=192.0.2.2\r\n", "101"),
        ("127.0.0.1", "Forwarded: for=192.0.2.9, for=192.0.2.1\r\n", "503"),
        ("127.0.0.1", "X-Forwarded-For: 192.0.2.2\r\n", "503"),
        // What cannot be believed counts for the proxy, and for nobody else.
        ("127.0.0.1", "Forwarded: for=nobody\r\n", "101"),
        ("127.0.0.1", "Forwarded: for=\", for=192.0.2.5\r\n", "503"),
        ("127.0.0.2", "Forwarded: for=192.0.2.3\r\n", "101"),
        ("127.0.0.2", "Forwarded: for=192.0.2.4\r\n", "503"),
    ];
    for (from, header, expected) in rows {
        let (stream, head) = ask(&server, from, &upgrade(header)).await;
        assert_eq!(status(&head), expected, "{from} {header}: {head}");
        waiting.push(stream);
    }
    assert!((server.count("riser_refused_total", "busy_address") - 4.0).abs() < 0.1);
    assert!((server.count("riser_forwarded_ignored_total", "malformed") - 2.0).abs() < 0.1);
    // Nobody read the last one's header.
    assert!((server.count("riser_forwarded_ignored_total", "untrusted") - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn who_is_beyond_the_bound_is_answered_before_anything_of_it_is_parsed() {
    const STORM: usize = 100;
    let server = server(None, |config| config.handshakes = 1).await;
    let (_holder, head) = ask(&server, "127.0.0.1", &upgrade("")).await;
    assert_eq!(status(&head), "101");
    let mut seconds = std::collections::BTreeSet::new();
    for number in 0..STORM {
        let (mut stream, head) = ask(&server, "127.0.0.2", if number % 2 == 0 { "\0\r\n\r\n" } else { "" }).await;
        assert_eq!(status(&head), "503", "{head}");
        let (_, after) = head.split_once("Retry-After: ").expect("a time to come back");
        seconds.insert(after.split_once("\r\n").expect("a line").0.parse::<u32>().expect("seconds"));
        let mut body = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut body)).await.expect("an end in time").expect("a whole answer");
        assert!(body.contains(r#""code":"unavailable""#), "{body}");
    }
    assert!((server.count("riser_refused_total", "busy") - 100.0).abs() < 0.1);
    assert!(server.count("riser_refused_total", "malformed_http") < 0.1, "something was parsed");
    assert!(seconds.len() > 3 && seconds.iter().all(|s| (1..=10).contains(s)), "{seconds:?}");
}

#[tokio::test]
async fn who_was_refused_has_its_place_until_it_has_gone() {
    let server = server(None, |config| config.handshakes = 1).await;
    let (mut stranger, head) = ask(&server, "127.0.0.1", &upgrade("")).await;
    assert_eq!(status(&head), "101");
    // A masked text frame with a mask of zeros.
    let hello = br#"{"t":"hello","token":"nobody's"}"#;
    let mut frame = vec![0x81, 0x80 | u8::try_from(hello.len()).expect("short"), 0, 0, 0, 0];
    frame.extend_from_slice(hello);
    stranger.write_all(&frame).await.expect("written");
    let mut close = [0; 4];
    timeout(PATIENCE, stranger.read_exact(&mut close)).await.expect("in time").expect("a close frame");
    assert_eq!((close[0], u16::from_be_bytes([close[2], close[3]])), (0x88, 4501));
    // It has not answered yet, and its socket is there.
    assert_eq!(status(&ask(&server, "127.0.0.2", &upgrade("")).await.1), "503");
    drop(stranger);
    let served = async { while status(&ask(&server, "127.0.0.2", &upgrade("")).await.1) != "101" {} };
    timeout(PATIENCE, served).await.expect("the place in time");
}

/// A gateway of a tenant that says hello.
async fn comes(edge: &riser_edge::Edge, tenant: &str, address: &str) -> Peerling {
    let identity = Identity { tenant: tenant.parse().expect("a tenant"), ..gateway(address) };
    let mut peer = Peerling::raw(edge, identity);
    peer.send(&json!({"t":"hello"})).await;
    peer
}

#[tokio::test(start_paused = true)]
async fn a_gateway_does_not_wait_behind_the_storm_of_another_tenant() {
    let cluster = Cluster::new();
    let (edge, metrics) = cluster.edge_like("edge-0", |config, _| (config.openings, config.handshakes) = (1, 8)).await;
    let delay = Duration::from_millis(300);
    cluster.store.set_faults(&Faults { delay: delay..=delay, ..Faults::default() });
    let mut storm = Vec::new();
    for number in 0..30 {
        storm.push(comes(&edge, "acme", &format!("b1/f{number}")).await);
    }
    tokio::task::yield_now().await;
    let mut other = comes(&edge, "other", "b1/f1").await;
    other.next("welcome").await;
    let (mut welcomed, mut refused) = (0, 0);
    for peer in &mut storm {
        let Some(frame) = peer.read().now_or_never() else { continue };
        if frame["t"] == "welcome" {
            welcomed += 1;
        } else {
            let reason: serde_json::Value =
                serde_json::from_str(frame["reason"].as_str().expect("a reason")).expect("JSON");
            assert!(frame["code"] == 1013 && reason["retry_after_ms"].is_u64(), "{frame}");
            refused += 1;
        }
    }
    // One was at it and one more had its turn before; eight waited, of whom one made room.
    assert_eq!((welcomed, refused), (2, 22));
    assert_eq!(counted(&metrics, "riser_refused_total", Some("busy_openings")), 22);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_left_before_its_turn_is_not_let_in() {
    let cluster = Cluster::new();
    let (edge, _) = cluster.edge_like("edge-0", |config, _| config.openings = 1).await;
    let delay = Duration::from_millis(300);
    cluster.store.set_faults(&Faults { delay: delay..=delay, ..Faults::default() });
    let mut first = comes(&edge, "acme", "b1/f1").await;
    let gone = comes(&edge, "acme", "b1/f2").await;
    let mut last = comes(&edge, "acme", "b1/f3").await;
    drop(gone);
    first.next("welcome").await;
    last.next("welcome").await;
    cluster.store.set_faults(&Faults::default());
    let (mut watcher, _) = Peerling::open(&edge, super::harness::client_of("acme")).await;
    let seen = watcher.subscribe("b1/*", &["state", "presence"]).await;
    assert!(seen.iter().all(|frame| frame["of"] != "b1/f2"), "{seen:?}");
}

/// Runs this test in a process of its own, which may open few files; true within it.
fn with_few_files(test: &str) -> bool {
    const MARK: &str = "RISER_TEST_WITH_FEW_FILES";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let program = std::env::current_exe().expect("this program");
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""]).arg(program).args(["--exact", test, "--nocapture"]);
    let status = shell.env(MARK, "1").status().expect("a shell");
    assert!(status.success(), "{test} fails when few files may be opened");
    false
}

#[test]
fn an_edge_that_is_out_of_descriptors_neither_turns_in_circles_nor_stops_accepting() {
    if !with_few_files("door::an_edge_that_is_out_of_descriptors_neither_turns_in_circles_nor_stops_accepting") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        const ROUNDS: u32 = 1_000;
        let server = server(None, |_| {}).await;
        let ask = format!("GET /v1/state/b/none HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", server.key);
        let list = ask.replace("/v1/state/b/none", "/v1/presence?building=b");
        let mut open = TcpStream::connect(server.address).await.expect("connected");
        let round = async |open: &mut TcpStream| {
            open.write_all(list.as_bytes()).await.expect("written");
            assert_eq!(status(&head_of(open).await), "200");
            let mut body = [0; 64];
            let read = timeout(PATIENCE, open.read(&mut body)).await.expect("a body in time").expect("a body");
            assert!(body[..read].ends_with(b"}"), "{:?}", String::from_utf8_lossy(&body[..read]));
        };
        round(&mut open).await;
        // All descriptors that are left go to this end of connections, and the edge has none for its end.
        let mut others = Vec::new();
        let error = loop {
            match StdStream::connect(server.address) {
                Ok(stream) => others.push(stream),
                Err(error) => break error,
            }
        };
        assert!(error.kind() != ErrorKind::ConnectionRefused && others.len() > 20, "{error}: {}", others.len());
        // Sessions that are there are served, and while they are the edge tries now and then.
        for _ in 0..ROUNDS {
            round(&mut open).await;
        }
        let failed = server.count("riser_refused_total", "accept");
        assert!(failed >= 1.0, "it could accept");
        assert!(failed < f64::from(ROUNDS), "{failed} tries in {ROUNDS} rounds");
        drop(others);
        let served = async { while status(&server.head(&ask).await) != "404" {} };
        timeout(PATIENCE, served).await.expect("it accepts again");
    });
}
