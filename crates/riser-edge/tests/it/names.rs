//! What flats are called: in snapshots of who watches them, and in a state that is asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use riser_bus::kv::memory::{Faults, MemoryKvClient};
use riser_bus::kv::{Kv, KvError, Page, Value as Kept, Watch, Written};
use riser_bus::{Bucket, Entry, FLAT_PARTS};
use riser_core::EdgeId;
use riser_edge::{Edge, EdgeConfig, Metrics, Ports, listen};
use riser_tenants::Store;
use riser_tenants::flats::{Codes, Flats, NewFlat};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::harness::*;

const SECOND: Duration = Duration::from_secs(1);

/// The bucket, and how often it was asked for a part of a building.
pub(super) struct Counted {
    pub(super) kv: MemoryKvClient,
    pub(super) reads: Arc<AtomicUsize>,
}

#[async_trait]
impl Kv for Counted {
    async fn get(&self, entry: &Entry) -> Result<Option<Kept>, KvError> {
        if entry.bucket() == Bucket::Flats {
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
        self.kv.get(entry).await
    }
    async fn put(&self, entry: &Entry, value: Bytes, expected: u64, ttl: Option<Duration>) -> Result<Written, KvError> {
        self.kv.put(entry, value, expected, ttl).await
    }
    async fn delete(&self, entry: &Entry, expected: u64) -> Result<Written, KvError> {
        self.kv.delete(entry, expected).await
    }
    async fn list(&self, bucket: Bucket, after: u64) -> Result<Page, KvError> {
        self.kv.list(bucket, after).await
    }
    async fn watch(&self, bucket: Bucket) -> Result<Watch, KvError> {
        self.kv.watch(bucket).await
    }
}

impl Cluster {
    /// An edge whose tenants are kept in the bucket, and how often it asked for a part of a building. Its peers may be silent
    /// for long.
    async fn naming(&self) -> (Edge, Arc<AtomicUsize>) {
        let reads = Arc::new(AtomicUsize::new(0));
        let kv = Counted { kv: self.kv.client(&"edge-0".parse().expect("an edge")), reads: reads.clone() };
        let change = |config: &mut EdgeConfig, ports: &mut Ports| {
            config.heartbeat = Duration::from_secs(3_600);
            ports.keep = Some(Store::new(Arc::new(kv)));
        };
        (self.edge_like("edge-0", change).await.0, reads)
    }

    async fn register(&self, tenant: &str, address: &str, name: Option<&str>, floor: Option<&str>) {
        let flats = Flats::new(Arc::new(self.kv.client(&"control".parse().expect("an edge"))));
        let about = [name, floor, Some("the keys are at the caretaker's")].map(|text| text.map(str::to_owned));
        let flat = NewFlat { address: address.parse().expect("an address"), about };
        let tenant = tenant.parse().expect("a tenant");
        flats.register(&tenant, &[flat], Codes::Missing, 0, 1).await.expect("registered");
    }
}

/// What the last of these snapshots calls a flat: name and floor, null when it does not say.
fn called(frames: &[Value], of: &str) -> [Value; 2] {
    let snapshot = frames.iter().rfind(|frame| frame["t"] == "snapshot" && frame["of"] == of).expect("a snapshot");
    assert!(!snapshot.to_string().contains("caretaker"), "{snapshot}");
    ["name", "floor"].map(|field| snapshot[field].clone())
}

#[tokio::test(start_paused = true)]
async fn snapshots_say_what_flats_are_called_whatever_pattern_watches_them() {
    let cluster = Cluster::new();
    cluster.register("acme", "b/f1", Some("1 left"), Some("1")).await;
    cluster.register("acme", "b/f2", None, Some("2")).await;
    cluster.register("acme", "c/f1", Some("in c"), None).await;
    cluster.register("other", "b/f3", Some("theirs"), Some("9")).await;
    let patterns = [("b/l1", "b/l1"), ("b/*", "b/l2"), ("*/*", "c/l3")];
    for (_, later) in patterns {
        cluster.register("acme", later, Some(later), Some("7")).await;
    }
    let (edge, _) = cluster.naming().await;
    // A bucket that takes its time is waited for.
    let way = Duration::from_millis(100);
    cluster.kv.set_faults(&Faults { delay: way..=way, ..Faults::default() });
    let mut gateways = Vec::new();
    for address in ["b/f1", "b/f2", "b/f3", "c/f1"] {
        gateways.push(Peerling::open(&edge, gateway(address)).await.0);
    }
    let (mut known, none) = (Vec::new(), [Value::Null, Value::Null]);
    for (to, later) in patterns {
        for lane in ["state", "presence"] {
            let (mut watcher, _) = Peerling::open(&edge, client_of("acme")).await;
            let shown = watcher.subscribe(to, &[lane]).await;
            if to != "b/l1" {
                assert_eq!(called(&shown, "b/f1"), [json!("1 left"), json!("1")], "{to}");
                assert_eq!(called(&shown, "b/f2"), [json!(null), json!("2")], "{to}");
                assert_eq!(called(&shown, "b/f3"), none, "another tenant's flat of this address is, {to}");
            }
            if to == "*/*" {
                assert_eq!(called(&shown, "c/f1"), [json!("in c"), json!(null)], "{to}");
            }
            known.push((watcher, lane));
        }
        // A gateway that comes now is called by its name as well.
        gateways.push(Peerling::open(&edge, gateway(later)).await.0);
        let (watcher, _) = known.iter_mut().rfind(|(_, lane)| *lane == "state").expect("a watcher");
        let snapshot = watcher.next("snapshot").await;
        assert_eq!(called(&[snapshot], later), [json!(later), json!("7")], "{to}");
    }
    let (mut other, _) = Peerling::open(&edge, client_of("other")).await;
    assert_eq!(other.subscribe("*/*", &["state"]).await, [] as [Value; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_phones_of_a_building_cost_one_read_of_its_flats() {
    let cluster = Cluster::new();
    cluster.register("acme", "b/f1", Some("1 left"), None).await;
    let (edge, reads) = cluster.naming().await;
    let _gateway = Peerling::open(&edge, gateway("b/f1")).await;
    let mut phones = Vec::new();
    for to in ["b/f1", "b/f2", "b/f3", "b/*", "*/*", "b/f1"] {
        let (mut phone, _) = Peerling::open(&edge, client_of("acme")).await;
        let shown = phone.subscribe(to, &["state"]).await;
        if to != "b/f2" && to != "b/f3" {
            assert_eq!(called(&shown, "b/f1")[0], "1 left", "{to}");
        }
        phones.push(phone);
    }
    assert_eq!(reads.load(Ordering::Relaxed), usize::from(FLAT_PARTS));
    sleep(300 * SECOND).await;
    assert_eq!(reads.load(Ordering::Relaxed), 2 * usize::from(FLAT_PARTS), "anew, once");
    // Who wants no snapshots needs no names, and neither does a building that nobody watches.
    drop(phones);
    let (mut listener, _) = Peerling::open(&edge, client_of("acme")).await;
    listener.subscribe("c/*", &["event"]).await;
    sleep(600 * SECOND).await;
    assert_eq!(reads.load(Ordering::Relaxed), 2 * usize::from(FLAT_PARTS));
}

#[tokio::test(start_paused = true)]
async fn a_flat_that_is_renamed_is_called_so_within_five_minutes() {
    let cluster = Cluster::new();
    cluster.register("acme", "b/f1", Some("1 left"), None).await;
    let (edge, _) = cluster.naming().await;
    let _gateway = Peerling::open(&edge, gateway("b/f1")).await;
    let (mut watcher, _) = Peerling::open(&edge, client_of("acme")).await;
    let shown = watcher.subscribe("b/*", &["state"]).await;
    assert_eq!(called(&shown, "b/f1"), [json!("1 left"), json!(null)]);
    cluster.register("acme", "b/f1", Some("Meyer"), Some("1")).await;
    let shown = watcher.subscribe("b/*", &["state"]).await;
    assert_eq!(called(&shown, "b/f1")[0], "1 left", "it was read lately");
    sleep(300 * SECOND).await;
    // Nothing else has changed, and the frames from before are not sent again.
    let shown = watcher.subscribe("b/*", &["state"]).await;
    assert_eq!(called(&shown, "b/f1"), [json!("Meyer"), json!("1")]);
    // What nobody watched for a while is read at once.
    drop(watcher);
    sleep(30 * SECOND).await;
    cluster.register("acme", "b/f1", None, None).await;
    let (mut watcher, _) = Peerling::open(&edge, client_of("acme")).await;
    let shown = watcher.subscribe("b/f1", &["state"]).await;
    assert_eq!(called(&shown, "b/f1"), [json!(null), json!(null)]);
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_does_not_answer_holds_up_no_subscription() {
    let cluster = Cluster::new();
    cluster.register("acme", "b/f1", Some("1 left"), None).await;
    cluster.register("acme", "c/f1", Some("in c"), None).await;
    let (edge, _) = cluster.naming().await;
    let mut gateways = Vec::new();
    for address in ["b/f1", "c/f1"] {
        gateways.push(Peerling::open(&edge, gateway(address)).await);
    }
    let (mut first, _) = Peerling::open(&edge, client_of("acme")).await;
    assert_eq!(called(&first.subscribe("b/*", &["state"]).await, "b/f1")[0], "1 left");
    cluster.kv.cut_all(3_600 * SECOND);
    for (to, most) in [("c/f1", SECOND), ("c/*", SECOND / 10), ("*/*", SECOND / 10)] {
        let (mut watcher, _) = Peerling::open(&edge, client_of("acme")).await;
        let asked = Instant::now();
        let shown = watcher.subscribe(to, &["state"]).await;
        assert!(asked.elapsed() < most, "{to}: {:?}", asked.elapsed());
        assert_eq!(called(&shown, "c/f1"), [json!(null), json!(null)], "{to}");
        if to == "*/*" {
            assert_eq!(called(&shown, "b/f1")[0], "1 left", "what was known stays known");
        }
        gateways.push((watcher, Value::Null));
    }
    // However long it is away.
    sleep(900 * SECOND).await;
    assert_eq!(called(&first.subscribe("b/*", &["state"]).await, "b/f1")[0], "1 left");
    cluster.kv.heal_all();
    sleep(15 * SECOND).await;
    let shown = first.subscribe("c/*", &["state"]).await;
    assert_eq!(called(&shown, "c/f1")[0], "in c");
}

/// A state as it is asked for by who holds this token.
async fn state(at: std::net::SocketAddr, of: &str, token: &str) -> Value {
    let mut stream = TcpStream::connect(at).await.expect("connected");
    let head =
        format!("GET /v1/state/{of} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("in time").expect("text");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    serde_json::from_str(answer.split_once("\r\n\r\n").expect("a body").1).expect("JSON")
}

#[tokio::test]
async fn a_state_that_is_asked_for_says_what_the_flat_is_called() {
    let cluster = Cluster::new();
    cluster.register("acme", "b/f1", Some("1 left"), Some("1")).await;
    cluster.register("other", "b/f2", Some("theirs"), None).await;
    let id: EdgeId = "edge-0".parse().expect("an edge");
    let mut ports = cluster.ports(&id);
    let reads = Arc::new(AtomicUsize::new(0));
    ports.keep = Some(Store::new(Arc::new(Counted { kv: cluster.kv.client(&id), reads: reads.clone() })));
    let listener = listen("127.0.0.1:0".parse().expect("an address")).expect("a listener");
    let at = listener.local_addr().expect("bound");
    let metrics = Metrics::new(&prometheus::Registry::new());
    let edge = Edge::start(EdgeConfig::new(id), ports, listener, metrics);
    timeout(PATIENCE, async {
        while edge.readiness().is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("ready in time");
    let token = cluster.token("alice").token;
    let mut gateways = Vec::new();
    for address in ["b/f1", "b/f2"] {
        let (mut gateway, _) = Peerling::open(&edge, gateway(address)).await;
        gateway.set(1, json!({"a":1})).await;
        gateways.push(gateway);
    }
    let shown = state(at, "b/f1", &token).await;
    assert_eq!((&shown["of"], &shown["name"], &shown["floor"]), (&json!("b/f1"), &json!("1 left"), &json!("1")));
    assert!(!shown.to_string().contains("caretaker"), "{shown}");
    let shown = state(at, "b/f2", &token).await;
    assert_eq!((&shown["state"], shown.get("name")), (&json!({"a":1}), None));
    // Asked anew each time.
    cluster.register("acme", "b/f1", Some("Meyer"), None).await;
    let shown = state(at, "b/f1", &token).await;
    assert_eq!((&shown["name"], shown.get("floor")), (&json!("Meyer"), None));
    cluster.kv.cut_all(3_600 * SECOND);
    let before = reads.load(Ordering::Relaxed);
    for _ in 0..3 {
        let shown = state(at, "b/f1", &token).await;
        assert_eq!((&shown["state"], shown.get("name")), (&json!({"a":1}), None), "told without");
    }
    assert_eq!(reads.load(Ordering::Relaxed), before + 1, "nobody asks again at once");
}
