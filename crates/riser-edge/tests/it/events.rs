//! Events from a frame to the store and to whoever listens, was away, or is slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use fastwebsockets::OpCode;
use parking_lot::Mutex;
use riser_bus::log::memory::Faults;
use riser_bus::log::{Appended, Bounds, Erased, Log, LogError, Page, Tail};
use riser_core::event::Event;
use riser_core::{GatewayKey, TenantId};
use serde_json::{Value, json};

use super::harness::*;

mod trouble;

impl Peerling {
    /// Sends an event and gives its cursor.
    async fn event(&mut self, id: &str, more: &Value) -> String {
        let mut frame = json!({"t":"event","n":7,"id":id,"type":"ring"});
        frame.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        self.send(&frame).await;
        let ok = self.reply(7).await;
        assert_eq!(ok["t"], "ok", "{ok}");
        ok["cursor"].as_str().expect("a cursor").to_owned()
    }

    async fn reply(&mut self, n: u64) -> Value {
        loop {
            let frame = self.read().await;
            if frame["n"] == n {
                return frame;
            }
            self.seen.push_back(frame);
        }
    }

    /// Listens to events, from a cursor or from now, and gives what came up to `synced`, which comes last.
    async fn listen(&mut self, to: &str, cursor: Option<&str>) -> Vec<Value> {
        self.send(&json!({"t":"subscribe","n":5,"to":to,"lanes":["event"],"cursor":cursor})).await;
        assert_eq!(self.reply(5).await["t"], "ok");
        let mut frames = Vec::new();
        loop {
            let frame = self.read().await;
            let last = frame["t"] == "synced" && frame["to"] == to;
            frames.push(frame);
            if last {
                return frames;
            }
        }
    }

    /// The ids of the next events.
    async fn hears(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        while ids.len() < count {
            ids.push(self.next("event").await["id"].as_str().expect("an id").to_owned());
        }
        ids
    }

    /// What came until now, by the answer to a ping.
    async fn so_far(&mut self) -> Vec<Value> {
        self.send(&json!({"t":"ping"})).await;
        self.next("pong").await;
        self.seen.drain(..).collect()
    }
}

fn ids(frames: &[Value]) -> Vec<String> {
    let events = frames.iter().filter(|frame| frame["t"] == "event");
    events.map(|frame| frame["id"].as_str().expect("an id").to_owned()).collect()
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|i| format!("e{i}")).collect()
}

fn acme() -> TenantId {
    "acme".parse().expect("a tenant")
}

/// Stores events past every edge.
async fn store(cluster: &Cluster, range: std::ops::Range<usize>, of: &str) {
    let log = cluster.log.client(&"elsewhere".parse().expect("an edge"));
    for id in numbered(range) {
        let event = Event {
            of: of.parse().expect("an address"),
            id: id.parse().expect("an id"),
            path: None,
            kind: "ring".parse().expect("a type"),
            data: None,
            from: "gateway:b/g".into(),
            at_ms: 0,
            ts_ms: None,
        };
        log.append(&acme(), event, Duration::from_secs(120)).await.expect("stored");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_is_stored_once_and_heard_at_the_other_edge() {
    let cluster = Cluster::new();
    let ((one, _), (two, metrics)) = (cluster.edge("edge-0").await, cluster.edge("edge-1").await);
    let (mut gw, _) = Peerling::open(&one, gateway("b/g")).await;
    let (mut client, _) = Peerling::open(&two, client_of("acme")).await;
    let (mut other, _) = Peerling::open(&two, client_of("other")).await;
    assert!(ids(&client.listen("b/*", None).await).is_empty());
    other.listen("b/*", None).await;
    let more = json!({"path":"hall/bell","data":{"times":2},"ts_ms":-5});
    let cursor = gw.event("e1", &more).await;
    assert_eq!(gw.event("e1", &more).await, cursor, "the same id is the same event");
    let event = client.next("event").await;
    assert_eq!((&event["cursor"], &event["id"], &event["type"]), (&json!(cursor), &json!("e1"), &json!("ring")));
    assert_eq!((&event["of"], &event["path"]), (&json!("b/g"), &json!("hall/bell")));
    assert_eq!((&event["data"], &event["ts_ms"]), (&json!({"times":2}), &json!(-5)));
    assert_eq!(event["from"], "gateway:b/g");
    assert!(ids(&client.so_far().await).is_empty());
    assert!(ids(&other.so_far().await).is_empty(), "another tenant hears nothing");
    assert_eq!(counted(&metrics, "riser_frames_delivered_total", Some("event")), 1);
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_with_a_cursor_has_no_hole_and_no_double() {
    let cluster = Cluster::new();
    let ((one, _), (two, _)) = (cluster.edge("edge-0").await, cluster.edge("edge-1").await);
    let (mut gw, _) = Peerling::open(&one, gateway("b/g")).await;
    let mut cursors = Vec::new();
    for id in numbered(0..600) {
        cursors.push(gw.event(&id, &json!({})).await);
    }
    for at in [0, 1, 300, 511, 512, 598] {
        let (mut client, _) = Peerling::open(&two, client_of("acme")).await;
        let frames = client.listen("b/*", Some(&cursors[at])).await;
        assert_eq!(ids(&frames), numbered(at + 1..600), "after {at}");
        assert_eq!(frames.last().map(|frame| frame["cursor"].clone()), Some(json!(cursors[599])));
    }
    let (mut client, _) = Peerling::open(&two, client_of("acme")).await;
    assert!(ids(&client.listen("*/*", None).await).is_empty(), "without a cursor from now on");
    let sending = async {
        for id in numbered(600..700) {
            gw.event(&id, &json!({})).await;
        }
    };
    let coming = async {
        let (mut late, _) = Peerling::open(&two, client_of("acme")).await;
        let mut heard = ids(&late.listen("b/g", Some(&cursors[500])).await);
        heard.extend(late.hears(700 - 501 - heard.len()).await);
        assert_eq!(heard, numbered(501..700));
    };
    tokio::join!(sending, coming);
    assert_eq!(client.hears(100).await, numbered(600..700));
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_is_not_known_is_a_gap_and_then_everything() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    cluster.log.set_retention(10);
    store(&cluster, 0..20, "b/g").await;
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    let last = client.listen("b/g", None).await.pop().expect("synced")["cursor"].as_str().expect("a cursor").to_owned();
    let (life, seq) = last.split_once('.').expect("two numbers");
    assert_eq!(seq, "14", "twenty events, in hexadecimal");
    let future = format!("{life}.15");
    let old = format!("{life}.3");
    for cursor in ["nonsense", "5.1", &future, &old] {
        let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
        let frames = client.listen("b/*", Some(cursor)).await;
        let gaps = frames.iter().filter(|frame| frame["t"] == "gap").count();
        assert_eq!((gaps, ids(&frames)), (1, numbered(10..20)), "{cursor}");
        assert_eq!(frames[0], json!({"t":"gap","to":"b/*","lane":"event"}));
    }
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    let frames = client.listen("b/*", Some(&format!("{life}.a"))).await;
    assert_eq!((frames.len(), ids(&frames)), (11, numbered(10..20)), "the oldest kept is no gap");
}

#[tokio::test(start_paused = true)]
async fn overlapping_subscriptions_deliver_once_and_each_has_its_filter() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (mut gw, _) = Peerling::open(&one, gateway("b/g")).await;
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    client.listen("b/*", None).await;
    client.listen("*/*", None).await;
    client.send(&json!({"t":"subscribe","n":1,"to":"b/g","lanes":["event"],"path":["hall/#"]})).await;
    client.next("synced").await;
    let (mut narrow, _) = Peerling::open(&one, client_of("acme")).await;
    narrow.send(&json!({"t":"subscribe","n":1,"to":"b/g","lanes":["event"],"path":["hall/#"]})).await;
    narrow.next("synced").await;
    gw.event("hall", &json!({"path":"hall/bell"})).await;
    gw.event("roof", &json!({"path":"roof/antenna"})).await;
    gw.event("none", &json!({})).await;
    assert_eq!(client.hears(3).await, ["hall", "roof", "none"]);
    assert_eq!(narrow.hears(2).await, ["hall", "none"], "what is about the whole address passes every filter");
    client.send(&json!({"t":"unsubscribe","n":2,"to":"*/*"})).await;
    client.next("ok").await;
    client.send(&json!({"t":"unsubscribe","n":3,"to":"b/*"})).await;
    client.next("ok").await;
    gw.event("attic", &json!({"path":"attic/x"})).await;
    gw.event("hall2", &json!({"path":"hall/bell"})).await;
    assert_eq!(client.hears(1).await, ["hall2"]);
}

#[tokio::test(start_paused = true)]
async fn subscribing_again_goes_on_where_it_stood() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (mut gw, _) = Peerling::open(&one, gateway("b/g")).await;
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    client.listen("b/*", None).await;
    let mut heard = Vec::new();
    for round in 0..10 {
        for id in numbered(round * 10..round * 10 + 10) {
            gw.event(&id, &json!({})).await;
        }
        client.send(&json!({"t":"subscribe","n":5,"to":"b/*","lanes":["event"]})).await;
        loop {
            let frame = client.read().await;
            if frame["t"] == "synced" {
                break;
            }
            heard.push(frame);
        }
    }
    assert_eq!(ids(&heard), numbered(0..100));
}

#[tokio::test(start_paused = true)]
async fn who_may_not_is_told_so_and_a_notice_reaches_the_gateways_of_its_building() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (mut gw, _) = Peerling::open(&one, gateway("b/g")).await;
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    gw.listen("b/_", None).await;
    let cursor = client.event("n1", &json!({"to":"b/_","type":"notice","data":"water off at 10"})).await;
    let notice = gw.next("event").await;
    assert_eq!((&notice["of"], &notice["from"]), (&json!("b/_"), &json!("client:alice")));
    gw.send(&json!({"t":"event","n":1,"to":"b/h","type":"x"})).await;
    assert_eq!(gw.reply(1).await["code"], "forbidden");
    gw.send(&json!({"t":"subscribe","n":2,"to":"b/h","lanes":["event"]})).await;
    assert_eq!(gw.reply(2).await["code"], "forbidden");
    client.send(&json!({"t":"event","n":3,"type":"x"})).await;
    assert_eq!(client.reply(3).await["code"], "bad_frame");
    let mut weak = client_of("acme");
    weak.grants = vec![serde_json::from_value(json!({"to":"b/*","may":["read"]})).expect("a grant")];
    let (mut weak, _) = Peerling::open(&one, weak).await;
    weak.send(&json!({"t":"event","n":1,"to":"b/g","type":"x"})).await;
    assert_eq!(weak.reply(1).await["code"], "forbidden");
    weak.send(&json!({"t":"seen","n":2,"of":"c/_","id":"n1"})).await;
    assert_eq!(weak.reply(2).await["code"], "forbidden");
    weak.listen("b/_", Some(&cursor)).await;
    for n in 3..5 {
        weak.send(&json!({"t":"seen","n":n,"of":"b/_","id":"n1"})).await;
        assert_eq!(weak.reply(n).await["t"], "ok");
    }
    let seen: Vec<Value> = weak.so_far().await.into_iter().filter(|frame| frame["t"] == "event").collect();
    assert_eq!(seen.len(), 1, "seen twice is seen once");
    assert_eq!((&seen[0]["type"], &seen[0]["data"]), (&json!("seen"), &json!({"id":"n1"})));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_silent_or_full_is_said_to_be() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (mut gw, _) = Peerling::open(&one, gateway("b/g")).await;
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    client.listen("b/*", None).await;
    cluster.log.cut_all(Duration::ZERO);
    gw.send(&json!({"t":"event","n":1,"id":"e0","type":"ring"})).await;
    assert_eq!(gw.reply(1).await["code"], "unavailable");
    let (mut late, _) = Peerling::open(&one, client_of("acme")).await;
    late.send(&json!({"t":"subscribe","n":5,"to":"b/*","lanes":["event"]})).await;
    assert_eq!(late.reply(5).await["code"], "unavailable");
    late.send(&json!({"t":"subscribe","n":6,"to":"b/*","lanes":["state"]})).await;
    assert_eq!(late.reply(6).await["t"], "ok", "state does not need the events");
    cluster.log.heal_all();
    store(&cluster, 1..5, "b/g").await;
    gw.event("e5", &json!({})).await;
    assert_eq!(client.hears(5).await, numbered(1..6), "what came while nobody followed is made good");
    cluster.log.set_full(true);
    gw.send(&json!({"t":"event","n":2,"id":"e6","type":"ring"})).await;
    assert_eq!(gw.reply(2).await["code"], "unavailable");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_lost_begins_again_with_a_gap() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    client.listen("b/*", None).await;
    store(&cluster, 0..3, "b/g").await;
    assert_eq!(client.hears(3).await, numbered(0..3), "a stream that comes into being is no gap");
    cluster.log.lose(&acme());
    assert_eq!(client.next("gap").await["to"], "b/*");
    store(&cluster, 3..6, "b/g").await;
    assert_eq!(client.hears(3).await, numbered(3..6));
    assert!(client.so_far().await.iter().all(|frame| frame["t"] != "gap"));
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_reads_nothing_is_sent_away_and_resumes_by_its_cursor() {
    let cluster = Cluster::new();
    let (one, metrics) = cluster.edge("edge-0").await;
    let (mut slow, _) = Peerling::open(&one, client_of("acme")).await;
    let (mut quick, _) = Peerling::open(&one, client_of("acme")).await;
    slow.listen("b/*", None).await;
    quick.listen("b/*", None).await;
    let storing = store(&cluster, 0..6_000, "b/g");
    let hearing = quick.hears(6_000);
    let (heard, ()) = tokio::join!(hearing, storing);
    assert_eq!(heard, numbered(0..6_000), "who reads is not sent away, whatever the burst");
    tokio::time::timeout(PATIENCE, async {
        while counted(&metrics, "riser_events_too_slow_total", None) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("who does not read is sent away");
    assert!(one.queued_bytes() < 256 * 1024, "{} bytes wait", one.queued_bytes());
    // Whether the close frame still finds room in the socket is chance; what came before it is whole.
    let mut got: Vec<Value> = Vec::new();
    while let Ok(Ok(frame)) = tokio::time::timeout(PATIENCE, slow.ws.read_frame()).await {
        if frame.opcode == OpCode::Text {
            got.push(serde_json::from_slice(&frame.payload).expect("JSON"));
        }
    }
    assert_eq!(counted(&metrics, "riser_closed_total", Some("4002")), 1);
    let cursor = got.last().expect("some came")["cursor"].as_str().expect("a cursor").to_owned();
    let (mut again, _) = Peerling::open(&one, client_of("acme")).await;
    let rest = again.listen("b/*", Some(&cursor)).await;
    let mut all = ids(&got);
    all.extend(ids(&rest));
    assert_eq!(all, numbered(0..6_000));
}

/// Counts what is read of a log, and how often the same range.
#[derive(Clone)]
struct Counting {
    inner: Arc<dyn Log>,
    ranges: Arc<Mutex<Vec<u64>>>,
    tails: Arc<AtomicUsize>,
}

#[async_trait]
impl Log for Counting {
    async fn append(&self, tenant: &TenantId, event: Event, dedup: Duration) -> Result<Appended, LogError> {
        self.inner.append(tenant, event, dedup).await
    }

    async fn read(&self, tenant: &TenantId, from: u64) -> Result<Page, LogError> {
        self.ranges.lock().push(from);
        self.inner.read(tenant, from).await
    }

    async fn bounds(&self, tenant: &TenantId) -> Result<Bounds, LogError> {
        self.inner.bounds(tenant).await
    }

    async fn tail(&self, tenant: &TenantId) -> Result<Tail, LogError> {
        self.tails.fetch_add(1, Ordering::Relaxed);
        self.inner.tail(tenant).await
    }

    async fn erase(&self, tenant: &TenantId) -> Result<u64, LogError> {
        self.inner.erase(tenant).await
    }

    async fn erase_gateway(&self, key: &GatewayKey, from: u64) -> Result<Erased, LogError> {
        self.inner.erase_gateway(key, from).await
    }
}

#[tokio::test(start_paused = true)]
async fn two_hundred_who_resume_at_once_cost_one_read_of_each_range() {
    const EVENTS: usize = 100_000;
    let cluster = Cluster::new();
    store(&cluster, 0..EVENTS, "b/g").await;
    let id = "edge-0".parse().expect("an edge");
    let counting = Counting { inner: Arc::new(cluster.log.client(&id)), ranges: Arc::default(), tails: Arc::default() };
    // Answers take a while, so that many wait for the same.
    cluster
        .log
        .set_client_faults(&id, Faults { delay: Duration::ZERO..=Duration::from_millis(5), ..Faults::default() });
    let log = counting.clone();
    let (edge, _) = cluster.edge_with("edge-0", |ports| ports.log = Arc::new(log)).await;
    let (mut first, _) = Peerling::open(&edge, client_of("acme")).await;
    let synced = first.listen("b/*", None).await.pop().expect("synced");
    let cursor = synced["cursor"].as_str().expect("a cursor");
    let life = cursor.split_once('.').expect("two numbers").0.to_owned();
    let mut rng = fastrand::Rng::with_seed(7);
    let mut resuming = tokio::task::JoinSet::new();
    for _ in 0..200 {
        // Most were away for a while, and some for very long.
        let away = if rng.u8(..20) == 0 { rng.usize(..EVENTS) } else { rng.usize(..4_000) };
        let after = EVENTS - away;
        let (mut client, _) = Peerling::open(&edge, client_of("acme")).await;
        let cursor = format!("{life}.{after:x}");
        resuming.spawn(async move {
            let frames = client.listen("b/*", Some(&cursor)).await;
            // e0 is the first event, so that the one after number n is called en.
            assert_eq!(ids(&frames), numbered(after..EVENTS));
        });
    }
    while let Some(done) = resuming.join_next().await {
        done.expect("each gets exactly what it missed");
    }
    let mut ranges = counting.ranges.lock().clone();
    let count = ranges.len();
    ranges.sort_unstable();
    ranges.dedup();
    assert_eq!(ranges.len(), count, "some range was read twice");
    assert!(count > 100, "hardly anything was read: {count}");
    assert_eq!(counting.tails.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn no_cursor_is_ahead_of_what_was_heard() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    store(&cluster, 0..3_000, "b/g").await;
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    client.send(&json!({"t":"subscribe","n":1,"to":"b/*","lanes":["event"],"cursor":"0.0"})).await;
    assert_eq!(client.reply(1).await["t"], "ok");
    client.send(&json!({"t":"subscribe","n":2,"to":"c/*","lanes":["state"]})).await;
    client.send(&json!({"t":"ping"})).await;
    let (mut heard, mut told) = (0, 0);
    while heard < 3_000 || told < 3 {
        let frame = client.seen.pop_front();
        let frame = if let Some(frame) = frame { frame } else { client.read().await };
        if frame["t"] == "event" {
            heard += 1;
        } else if let Some(cursor) = frame["cursor"].as_str() {
            told += 1;
            let seq = u64::from_str_radix(cursor.split_once('.').expect("two numbers").1, 16).expect("a number");
            assert!(seq <= heard, "{frame} after {heard} events");
        }
    }
}
