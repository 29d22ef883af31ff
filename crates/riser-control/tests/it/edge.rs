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
    let note_tokens = Duration::from_millis(10);
    let config = EdgeConfig { hash_key: Some(hash_key()), note_tokens, ..EdgeConfig::new(id) };
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
        self.send(line, credential, "").await
    }

    async fn send(&self, line: &str, credential: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.at).await.expect("it listens");
        let (length, bearer) = (body.len(), format!("Authorization: Bearer {credential}\r\n"));
        let bearer = if credential.is_empty() { String::new() } else { bearer };
        let head = format!(
            "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{bearer}Content-Length: {length}\r\n\r\n{body}"
        );
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
        let mut session = Session(stream);
        session.send(r#"{"t":"hello"}"#).await;
        let (opcode, payload) = session.frame().await;
        assert!(opcode == 1 && payload.starts_with(br#"{"t":"welcome""#), "{}", String::from_utf8_lossy(&payload));
        session
    }
}

struct Session(TcpStream);

impl Session {
    async fn send(&mut self, text: &str) {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 126).expect("a short frame");
        let mut frame = vec![0x81, 0x80 | length, 0, 0, 0, 0];
        frame.extend(text.as_bytes());
        self.0.write_all(&frame).await.expect("it reads");
    }

    /// The types of all events that were ever told to the whole tenant, as this session is shown them.
    async fn told(&mut self) -> Vec<String> {
        self.send(r#"{"t":"subscribe","n":1,"to":"_/_","lanes":["event"],"cursor":"0.0"}"#).await;
        let mut told = vec![];
        loop {
            let (opcode, payload) = self.frame().await;
            if opcode != 1 {
                continue;
            }
            let frame: Value = serde_json::from_slice(&payload).expect("JSON");
            match frame["t"].as_str() {
                Some("synced") => return told,
                Some("event") => told.push(frame["type"].as_str().expect("a type").to_owned()),
                Some("error") => panic!("{frame}"),
                _ => {}
            }
        }
    }

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

impl Running {
    /// A token for a gateway.
    async fn token(&self, key: &str, address: &str) -> String {
        let order = json!({ "peer": "gateway", "address": address }).to_string();
        let (status, body) = self.send("POST /v1/tokens", key, &order).await;
        assert_eq!(status, 201, "{body}");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        body["token"].as_str().expect("a token").to_owned()
    }

    async fn read(&self, line: &str, key: &str) -> Value {
        let (status, body) = self.ask(line, key).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("JSON")
    }
}

/// A tenant with a key that may do everything and one that may not manage.
async fn tenant_with_keys(world: &World, edge: &Running) -> [String; 2] {
    world.tenant("acme").await;
    let mut keys = vec![];
    for (name, may) in [("all", vec!["read", "command", "event", "listen", "speak", "manage"]), ("some", vec!["read"])]
    {
        let wanted = json!({ "name": name, "scope": [{ "to": "*/*", "may": may }] });
        let made = world.ask("POST /acme/keys", &wanted).await.is(201);
        keys.push(made["key"].as_str().expect("a key").to_owned());
        edge.until(&keys[keys.len() - 1], 200).await;
    }
    keys.try_into().expect("two keys")
}

#[tokio::test]
async fn a_flat_that_is_moved_out_of_is_erased_and_its_device_does_not_come_back() {
    let world = World::new().await;
    let edges = [edge(&world, "edge-0").await, edge(&world, "edge-1").await];
    let [all, some] = tenant_with_keys(&world, &edges[0]).await;
    edges[1].until(&all, 200).await;
    let tokens = [edges[0].token(&all, "b/g").await, edges[0].token(&all, "b/h").await];
    let sessions = [edges[1].session(&tokens[0]).await, edges[1].session(&tokens[1]).await];
    let event = json!({ "type": "ring", "id": "1" }).to_string();
    for at in ["b/g", "b/h"] {
        let (status, body) = edges[0].send(&format!("POST /v1/events/{at}"), &all, &event).await;
        assert_eq!(status, 201, "{body}");
    }
    assert_eq!(edges[0].ask("DELETE /v1/gateways/b/g", &some).await.0, 403);
    assert_eq!(edges[0].ask("DELETE /v1/gateways/b/_", &all).await.0, 400);
    // Whom it is asked for is on another edge.
    let erased = edges[0].read("DELETE /v1/gateways/b/g", &all).await;
    assert_eq!((&erased["of"], &erased["events"], &erased["revoked"]), (&json!("b/g"), &json!(1), &json!(true)));
    let [gone, stays] = sessions;
    let code = gone.closed().await;
    assert!([4000, 4504].contains(&code), "closed with {code}");
    for edge in &edges {
        edge.until(&tokens[0], 401).await;
        assert_eq!(edge.ask("GET /v1/state/b/g", &all).await.0, 404);
    }
    let presence = edges[1].read("GET /v1/presence?building=b", &all).await;
    let there: Vec<_> =
        presence["gateways"].as_array().expect("rows").iter().map(|row| (&row["of"], &row["online"])).collect();
    assert_eq!(there, [(&json!("b/h"), &json!(true))]);
    let events = edges[1].read("GET /v1/events?to=*/*&limit=100", &all).await;
    let of: Vec<_> =
        events["events"].as_array().expect("rows").iter().filter(|e| e["type"] == "ring").map(|e| &e["of"]).collect();
    assert_eq!(of, [&json!("b/h")]);
    let told = events["events"].as_array().expect("rows").iter().find(|e| e["data"]["what"] == "gateway.erase");
    let told = told.expect("the audit");
    assert_eq!(
        (&told["of"], &told["data"]["from"], &told["data"]["gateway"]),
        (&json!("_/_"), &json!("127.0.0.1"), &json!("b/g"))
    );
    drop(stays);
    // Somebody moves in.
    let token = edges[0].token(&all, "b/g").await;
    edges[0].session(&token).await;
}

#[tokio::test]
async fn a_gateways_session_is_closed_and_shows_that_somebody_closed_it() {
    let world = World::new().await;
    let edges = [edge(&world, "edge-0").await, edge(&world, "edge-1").await];
    let [all, some] = tenant_with_keys(&world, &edges[0]).await;
    let token = edges[0].token(&all, "b/g").await;
    edges[1].until(&all, 200).await;
    for by_admin in [false, true] {
        let session = edges[1].session(&token).await;
        assert_eq!(edges[0].ask("DELETE /v1/sessions/b/g", &some).await.0, 403);
        if by_admin {
            world.ask("DELETE /acme/gateways/b/g/session", &Value::Null).await.is(200);
        } else {
            edges[0].read("DELETE /v1/sessions/b/g", &all).await;
        }
        assert_eq!(session.closed().await, 4000);
        let offline = async {
            loop {
                let presence = edges[0].read("GET /v1/presence?building=b", &all).await;
                let row = &presence["gateways"][0];
                if row["online"] == false {
                    return row["reason"].clone();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert_eq!(timeout(PATIENCE, offline).await.expect("in time"), "kicked");
    }
    assert_eq!(edges[0].ask("DELETE /v1/sessions/b/g", &all).await.0, 404);
}

#[tokio::test]
async fn a_code_becomes_a_gateways_token_once_and_the_device_before_is_revoked() {
    let world = World::new().await;
    let edges = [edge(&world, "edge-0").await, edge(&world, "edge-1").await];
    let [all, some] = tenant_with_keys(&world, &edges[0]).await;
    edges[1].until(&all, 200).await;
    let rows = json!([{ "address": "b/f1", "name": "1 left", "floor": "1" }, { "address": "b/f2", "name": "1 right" }]);
    let register = async |codes: &str| {
        let made = world.ask("POST /acme/flats", &json!({ "flats": rows, "codes": codes })).await.is(200);
        let rows = made["flats"].as_array().expect("rows").clone();
        let of = |at: &str| rows.iter().find(|row| row["address"] == at).map(|row| row["code"].clone()).expect("a row");
        [of("b/f1"), of("b/f2")]
    };
    let [code, _] = register("missing").await;
    let presence = edges[1].read("GET /v1/presence?building=b", &all).await;
    let never = json!({ "of": "b/f1", "online": false, "since_ms": null, "epoch": null, "edge": null,
        "reason": "never_connected", "name": "1 left", "floor": "1" });
    assert_eq!(presence["gateways"][0], never);
    let paged = edges[1].read("GET /v1/presence?building=b&limit=1", &all).await;
    assert_eq!((&paged["gateways"][0], &paged["next"]), (&never, &json!("f1")));
    let enrol = async |at: usize, code: &Value| {
        edges[at].send("POST /v1/enrol", "", &json!({ "code": code }).to_string()).await
    };
    let (status, body) = enrol(0, &code).await;
    assert_eq!(status, 201, "{body}");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((&body["tenant"], &body["address"]), (&json!("acme"), &json!("b/f1")));
    let first = body["token"].as_str().expect("a token");
    let session = edges[1].session(first).await;
    let presence = edges[0].read("GET /v1/presence?building=b", &all).await;
    assert_eq!(
        (&presence["gateways"][0]["online"], &presence["gateways"][0]["name"]),
        (&json!(true), &json!("1 left"))
    );
    let ends = presence["gateways"].as_array().expect("rows").iter().map(|row| &row["token_expires_at_ms"]);
    assert_eq!(ends.collect::<Vec<_>>(), [&body["expires_at_ms"], &Value::Null]);
    // When credentials end is nothing for who only reads.
    let seen = edges[0].read("GET /v1/presence?building=b", &some).await;
    assert_eq!(seen["gateways"][0]["name"], "1 left");
    assert!(!seen.to_string().contains("token_expires_at_ms"), "{seen}");
    let state = edges[0].read("GET /v1/state/b/f1", &all).await;
    assert_eq!((&state["name"], &state["floor"]), (&json!("1 left"), &json!("1")));
    // Nobody gets anything else out of it: used, wrong, of another tenant or flat, and no code at all.
    let text = code.as_str().expect("a code");
    for wrong in
        [text.to_owned(), text.replace("f1", "f2"), text.replace("acme", "other"), "acme/b/f1/0".into(), String::new()]
    {
        let (status, body) = enrol(1, &json!(wrong)).await;
        assert!(status == 403 && body.contains("the code is not valid") && !body.contains("acme"), "{wrong}: {body}");
    }
    for (bad, words) in [
        ("", "not a JSON object"),
        ("{}", "`code`"),
        (r#"{"code":7}"#, "`code`"),
        (r#"{"code":"x","to":1}"#, "known is code"),
    ] {
        let (status, body) = edges[0].send("POST /v1/enrol", "", bad).await;
        assert!(status == 400 && body.contains(words), "{bad}: {body}");
    }
    assert_eq!(edges[0].ask("GET /v1/enrol", &all).await.0, 405);
    assert_eq!(register("missing").await[0], Value::Null, "it is enrolled");
    let [again, _] = register("all").await;
    let (status, body) = enrol(1, &again).await;
    assert_eq!(status, 201, "{body}");
    assert_eq!(session.closed().await, 4504);
    let body: Value = serde_json::from_str(&body).expect("JSON");
    let second = body["token"].as_str().expect("a token");
    for edge in &edges {
        edge.until(first, 401).await;
        edge.session(second).await;
    }
    let events = edges[0].read("GET /v1/events?to=_/_&limit=100", &all).await;
    let told =
        events["events"].as_array().expect("rows").iter().filter(|event| event["data"]["what"] == "gateway.enrol");
    let from: Vec<_> = told.map(|event| (&event["data"]["who"], &event["data"]["from"])).collect();
    assert_eq!(from, [(&json!("gateway:b/f1"), &json!("127.0.0.1")); 2]);
}

impl World {
    /// The flats of the building `b` whose tokens end so, and where the page after goes on.
    async fn ending(&self, asked: &str) -> (Vec<String>, Value) {
        let page = self.ask(&format!("GET /acme/flats?building=b&{asked}"), &Value::Null).await.is(200);
        let rows = page["flats"].as_array().expect("rows").iter();
        (rows.map(|row| row["address"].as_str().expect("an address").to_owned()).collect(), page["next"].clone())
    }
}

#[tokio::test]
async fn flats_whose_tokens_end_soon_are_listed() {
    const DAY_MS: u64 = 86_400_000;
    let world = World::new().await;
    let edge = edge(&world, "edge-0").await;
    let [all, _] = tenant_with_keys(&world, &edge).await;
    let rows = json!({ "flats": [{ "address": "b/f1" }, { "address": "b/f2" }, { "address": "b/f3" }, { "address": "b/f4" }] });
    let made = world.ask("POST /acme/flats", &rows).await.is(200);
    let code = made["flats"].as_array().expect("rows").iter().find(|row| row["address"] == "b/f1");
    let body = json!({ "code": code.expect("a row")["code"] }).to_string();
    assert_eq!(edge.send("POST /v1/enrol", "", &body).await.0, 201);
    // The first is not registered; the others were not enrolled.
    for (address, days) in [("b/f9", 5), ("b/f2", 10), ("b/f3", 40)] {
        let order = json!({ "peer": "gateway", "address": address, "ttl_s": days * DAY_MS / 1000 }).to_string();
        let (status, body) = edge.send("POST /v1/tokens", &all, &order).await;
        assert_eq!(status, 201, "{body}");
    }
    let noted = async {
        while world.ending("token_ends_within_days=3650").await.0 != ["b/f1", "b/f2", "b/f3"] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, noted).await.expect("noted in time");
    for (days, wanted) in [(9, vec![]), (30, vec!["b/f2"]), (41, vec!["b/f2", "b/f3"]), (364, vec!["b/f2", "b/f3"])] {
        assert_eq!(
            world.ending(&format!("token_ends_within_days={days}")).await,
            (wanted.iter().map(ToString::to_string).collect(), Value::Null),
            "{days}"
        );
    }
    assert_eq!(world.ending("token_ends_within_days=41&limit=1").await, (vec!["b/f2".to_owned()], json!("f2")));
    assert_eq!(
        world.ending("token_ends_within_days=41&limit=1&cursor=f2").await,
        (vec!["b/f3".to_owned()], Value::Null)
    );
    assert_eq!(world.ending("limit=100").await.0, ["b/f1", "b/f2", "b/f3", "b/f4"]);
    for bad in ["0", "3651", "-1", "30d", ""] {
        let line = format!("GET /acme/flats?building=b&token_ends_within_days={bad}");
        world.ask(&line, &Value::Null).await.refused(
            400,
            "bad_frame",
            "`token_ends_within_days`: not a whole number from 1 to 3650",
        );
    }
    // What has ended already stands first in need of a visit.
    world.registry.clock_jump(20 * 86_400_000);
    assert_eq!(world.ending("token_ends_within_days=1").await.0, ["b/f2"]);
}

#[tokio::test]
async fn an_address_that_tries_codes_is_not_listened_to_and_its_keys_are() {
    let world = World::new().await;
    let edge = edge(&world, "edge-0").await;
    let [all, _] = tenant_with_keys(&world, &edge).await;
    let rows = json!({ "flats": [{ "address": "b/f1" }], "codes": "missing" });
    let made = world.ask("POST /acme/flats", &rows).await.is(200);
    let enrol = async |code: &Value| edge.send("POST /v1/enrol", "", &json!({ "code": code }).to_string()).await.0;
    for number in 0..100 {
        assert_eq!(enrol(&json!(format!("acme/b/f1/0000-0000-0000-{number:04}"))).await, 403, "{number}");
    }
    assert_eq!(enrol(&made["flats"][0]["code"]).await, 429, "not even a good one is looked at");
    assert_eq!(edge.ask("GET /v1/presence?building=b", &all).await.0, 200);
}

#[tokio::test]
async fn what_operators_do_is_shown_to_who_may_manage_and_to_no_gateway() {
    let world = World::new().await;
    let edge = edge(&world, "edge-0").await;
    let [all, some] = tenant_with_keys(&world, &edge).await;
    let notice = json!({ "type": "notice", "id": "1" }).to_string();
    assert_eq!(edge.send("POST /v1/events/_/_", &all, &notice).await.0, 201);
    let token = edge.token(&all, "b/g").await;
    for credential in [&token, &some] {
        assert_eq!(edge.session(credential).await.told().await, ["notice"]);
    }
    // That the tenant was made, and its two keys.
    assert_eq!(edge.session(&all).await.told().await, ["audit", "audit", "audit", "notice"]);
    for (key, audits) in [(&some, 0), (&all, 3)] {
        let events = edge.read("GET /v1/events?to=_/_", key).await;
        let shown = events["events"].as_array().expect("rows").iter().filter(|event| event["type"] == "audit");
        assert_eq!(shown.count(), audits);
    }
}

#[tokio::test]
async fn commands_are_told_with_who_and_from_where_for_a_tenant_that_wants_it() {
    let world = World::new().await;
    let edge = edge(&world, "edge-0").await;
    let [all, some] = tenant_with_keys(&world, &edge).await;
    let command = json!({ "to": "b/g", "path": "hall/lock", "action": "unlock", "key": "1", "wait": "final" });
    let issue = async |credential: &str| edge.send("POST /v1/commands", credential, &command.to_string()).await;
    assert_eq!(issue(&all).await.0, 200);
    let audits = async |key: &str| {
        let events = edge.read("GET /v1/events?to=b/g", key).await;
        events["events"].as_array().expect("rows").clone()
    };
    assert!(audits(&all).await.is_empty(), "nobody wants it yet");

    world.ask("PATCH /acme", &json!({ "audit_commands": true })).await.is(200);
    assert_eq!(world.ask("GET /acme", &Value::Null).await.is(200)["audit_commands"], true);
    // The same command by the same caller is the same deed; by another one, or with another key, it is another.
    let told = async |count: usize| loop {
        let (status, body) = issue(&all).await;
        assert_eq!(status, 200, "{body}");
        let rows = audits(&all).await;
        if rows.len() >= count {
            return rows;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    timeout(PATIENCE, told(1)).await.expect("told");
    let short = edge
        .send(
            "POST /v1/tokens",
            &all,
            &json!({ "peer": "client", "subject": "bob", "ttl_s": 60,
        "grants": [{ "to": "b/*", "may": ["read", "command"] }] })
            .to_string(),
        )
        .await
        .1;
    let short: Value = serde_json::from_str(&short).expect("JSON");
    assert_eq!(issue(short["token"].as_str().expect("a token")).await.0, 200);
    assert_eq!(issue(&some).await.0, 403, "what is refused is not told");
    let rows = timeout(PATIENCE, told(2)).await.expect("told");
    let cmd = edge.read("GET /v1/commands?to=b/g", &all).await["commands"][0]["cmd"].clone();
    for (row, who) in rows.iter().zip(["client:all", "client:bob"]) {
        assert_eq!((&row["type"], &row["of"], &row["path"]), (&json!("audit"), &json!("b/g"), &json!("hall/lock")));
        let data = json!({ "what": "command.issue", "who": who, "from": "127.0.0.1", "cmd": cmd, "action": "unlock" });
        assert_eq!(row["data"], data);
    }
    assert_eq!(rows.len(), 2);
    assert!(audits(&some).await.is_empty(), "who may not manage is shown none");
}

#[tokio::test]
async fn a_session_that_is_closed_by_a_call_is_told_in_the_audit() {
    let world = World::new().await;
    let edge = edge(&world, "edge-0").await;
    let [all, _] = tenant_with_keys(&world, &edge).await;
    let token = edge.token(&all, "b/g").await;
    let session = edge.session(&token).await;
    assert_eq!(edge.ask("DELETE /v1/sessions/b/g", &all).await.0, 200);
    session.closed().await;
    let told = async {
        loop {
            let events = edge.read("GET /v1/events?to=_/_", &all).await;
            let mut rows = events["events"].as_array().expect("rows").iter();
            if let Some(row) = rows.find(|row| row["data"]["what"] == "gateway.kick") {
                break row.clone();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let row = timeout(PATIENCE, told).await.expect("told");
    let data = json!({ "what": "gateway.kick", "who": "client:all", "from": "127.0.0.1", "gateway": "b/g" });
    assert_eq!((&row["from"], &row["data"]), (&json!("broker"), &data));
}
