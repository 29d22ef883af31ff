//! Events when the store is slow, silent or another one, and when much happens at once.

use riser_core::{Grant, Pattern, Verb};
use riser_edge::auth::{TokenOrder, mint};
use tokio::sync::{Semaphore, mpsc};

use super::*;

/// How long a frame may wait for the store before it is told so, twice: what is promised, and room.
const ANSWER: Duration = Duration::from_secs(10);

/// A log whose reads are held back after they were made, and whose tails may fall silent.
#[derive(Clone)]
struct Held {
    inner: Arc<dyn Log>,
    /// A place for each read that may come back.
    reads: Arc<Semaphore>,
    /// Reads that were made.
    made: Arc<AtomicUsize>,
    /// The other ends of tails that bring nothing.
    silent: Arc<Mutex<Option<Vec<mpsc::Sender<riser_bus::log::Stored>>>>>,
}

impl Held {
    fn new(cluster: &Cluster, reads: usize) -> Self {
        Self {
            inner: Arc::new(cluster.log.client(&"edge-0".parse().expect("an edge"))),
            reads: Arc::new(Semaphore::new(reads)),
            made: Arc::default(),
            silent: Arc::default(),
        }
    }
}

#[async_trait]
impl Log for Held {
    async fn append(&self, tenant: &TenantId, event: Event, dedup: Duration) -> Result<Appended, LogError> {
        self.inner.append(tenant, event, dedup).await
    }

    async fn read(&self, tenant: &TenantId, from: u64) -> Result<Page, LogError> {
        let page = self.inner.read(tenant, from).await;
        self.made.fetch_add(1, Ordering::Relaxed);
        let _place = self.reads.acquire().await;
        page
    }

    async fn bounds(&self, tenant: &TenantId) -> Result<Bounds, LogError> {
        self.inner.bounds(tenant).await
    }

    async fn tail(&self, tenant: &TenantId) -> Result<Tail, LogError> {
        let tail = self.inner.tail(tenant).await?;
        let Some(silent) = &mut *self.silent.lock() else { return Ok(tail) };
        let (sender, events) = mpsc::channel(1);
        silent.push(sender);
        Ok(Tail { bounds: tail.bounds, events })
    }

    async fn erase(&self, tenant: &TenantId) -> Result<u64, LogError> {
        self.inner.erase(tenant).await
    }

    async fn erase_gateway(&self, key: &GatewayKey, from: u64) -> Result<Erased, LogError> {
        self.inner.erase_gateway(key, from).await
    }
}

/// Waits until something holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{what}"));
}

/// What a gauge shows.
fn shows(metrics: &prometheus::Registry, name: &str) -> i64 {
    let families = metrics.gather();
    let family = families.iter().find(|family| family.name() == name);
    #[expect(clippy::cast_possible_truncation, reason = "gauges show whole things")]
    family.map_or(0, |family| family.get_metric()[0].get_gauge().get_value() as i64)
}

/// A cursor of the stream as it is now.
async fn cursor(cluster: &Cluster, seq: u64) -> String {
    let log = cluster.log.client(&"elsewhere".parse().expect("an edge"));
    let life = log.bounds(&acme()).await.expect("an answer").life;
    riser_core::event::Cursor { life, seq }.to_string()
}

#[tokio::test(start_paused = true)]
async fn a_page_that_was_on_its_way_while_the_tail_was_lost_is_read_on() {
    let cluster = Cluster::new();
    store(&cluster, 0..100, "b/g").await;
    let held = Held::new(&cluster, 0);
    let log = held.clone();
    let (edge, metrics) = cluster.edge_with("edge-0", |ports| ports.log = Arc::new(log)).await;
    let (mut early, _) = Peerling::open(&edge, client_of("acme")).await;
    let (mut late, _) = Peerling::open(&edge, client_of("acme")).await;
    early.send(&json!({"t":"subscribe","n":1,"to":"b/*","lanes":["event"],"cursor":"0.0"})).await;
    until("the page is read", || held.made.load(Ordering::Relaxed) == 1).await;
    // What was read ends with the hundredth. The tail is lost, and what comes meanwhile is in no ring.
    cluster.log.cut_all(Duration::ZERO);
    cluster.log.heal_all();
    store(&cluster, 100..150, "b/g").await;
    until("a tail stands again", || counted(&metrics, "riser_event_tails_total", None) == 2).await;
    let after = cursor(&cluster, 120).await;
    late.send(&json!({"t":"subscribe","n":1,"to":"b/*","lanes":["event"],"cursor":after})).await;
    late.next("ok").await;
    held.reads.add_permits(Semaphore::MAX_PERMITS);
    assert_eq!(early.hears(150).await, numbered(0..150));
    assert_eq!(late.hears(30).await, numbered(120..150));
    store(&cluster, 150..151, "b/g").await;
    for client in [&mut early, &mut late] {
        assert_eq!(client.hears(1).await, numbered(150..151));
        assert!(client.seen.iter().all(|frame| frame["t"] != "gap"), "{:?}", client.seen);
    }
    assert_eq!(held.made.load(Ordering::Relaxed), 2, "only the rest was read");
}

#[tokio::test(start_paused = true)]
async fn a_cursor_of_a_stream_that_the_tail_has_not_seen_yet_is_good() {
    let cluster = Cluster::new();
    store(&cluster, 0..3, "b/g").await;
    let held = Held::new(&cluster, Semaphore::MAX_PERMITS);
    *held.silent.lock() = Some(Vec::new());
    let log = held.clone();
    let (edge, _) = cluster.edge_with("edge-0", |ports| ports.log = Arc::new(log)).await;
    let (mut old, _) = Peerling::open(&edge, client_of("acme")).await;
    old.listen("b/*", None).await;
    cluster.log.lose(&acme());
    store(&cluster, 3..8, "b/g").await;
    let (mut new, _) = Peerling::open(&edge, client_of("acme")).await;
    let frames = new.listen("b/*", Some(&cursor(&cluster, 2).await)).await;
    assert_eq!((ids(&frames), frames.len()), (numbered(5..8), 4), "no gap, and only what follows: {frames:?}");
    assert_eq!(old.next("gap").await["to"], "b/*");
    assert_eq!(old.hears(5).await, numbered(3..8), "who listened to the lost one is told");
}

#[tokio::test(start_paused = true)]
async fn who_comes_without_a_cursor_gets_nothing_that_the_tail_has_not_brought_yet() {
    let cluster = Cluster::new();
    store(&cluster, 0..3, "b/g").await;
    let held = Held::new(&cluster, Semaphore::MAX_PERMITS);
    *held.silent.lock() = Some(Vec::new());
    let log = held.clone();
    let (edge, _) = cluster.edge_with("edge-0", |ports| ports.log = Arc::new(log)).await;
    let (mut old, _) = Peerling::open(&edge, client_of("acme")).await;
    old.listen("b/*", None).await;
    store(&cluster, 3..5, "b/g").await;
    let (mut new, _) = Peerling::open(&edge, client_of("acme")).await;
    let frames = new.listen("b/*", None).await;
    assert_eq!(frames.last().expect("synced")["cursor"], cursor(&cluster, 5).await);
    store(&cluster, 5..8, "b/g").await;
    // The tail that brought nothing ends, and the next one begins where the stream is then.
    drop(held.silent.lock().take());
    assert_eq!(old.hears(5).await, numbered(3..8));
    assert_eq!(new.hears(3).await, numbered(5..8));
    store(&cluster, 8..9, "b/g").await;
    for client in [&mut old, &mut new] {
        assert_eq!(client.hears(1).await, numbered(8..9));
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_without_a_cursor_is_served_while_the_store_answers_nothing() {
    let cluster = Cluster::new();
    store(&cluster, 0..3, "b/g").await;
    let (one, _) = cluster.edge("edge-0").await;
    let (mut old, _) = Peerling::open(&one, client_of("acme")).await;
    old.listen("b/*", None).await;
    let deaf = Faults { lost_request: 1.0, ..Faults::default() };
    cluster.log.set_client_faults(&"edge-0".parse().expect("an edge"), deaf);
    let (mut new, _) = Peerling::open(&one, client_of("acme")).await;
    let (mut back, _) = Peerling::open(&one, client_of("acme")).await;
    new.listen("b/*", None).await;
    // Who must know what it missed cannot be.
    back.send(&json!({"t":"subscribe","n":1,"to":"b/*","lanes":["event"],"cursor":"1.1"})).await;
    assert_eq!(back.reply(1).await["code"], "unavailable");
    store(&cluster, 3..4, "b/g").await;
    for client in [&mut old, &mut new] {
        assert_eq!(client.hears(1).await, numbered(3..4));
    }
}

#[tokio::test(start_paused = true)]
async fn subscribing_again_while_it_takes_long_has_no_hole_and_no_double() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (mut gw, _) = Peerling::open(&one, gateway("b/g")).await;
    gw.set(1, json!({"x":1})).await;
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    client.listen("b/*", None).await;
    let wait = Duration::from_millis(100);
    cluster.store.set_faults(&riser_registry::memory::Faults { delay: wait..=wait, ..Default::default() });
    let sending = async {
        for i in 0..200 {
            store(&cluster, i..i + 1, "b/g").await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let subscribing = async {
        // Its state must be read first, and meanwhile the events go on.
        client.send(&json!({"t":"subscribe","n":6,"to":"b/*","lanes":["state","event"]})).await;
        client.hears(200).await
    };
    let ((), heard) = tokio::join!(sending, subscribing);
    assert_eq!(heard, numbered(0..200));
    let before = client.seen.iter().position(|frame| frame["t"] == "synced").expect("it was made while they came");
    assert_eq!(client.seen[before - 1]["t"], "snapshot");
}

#[tokio::test(start_paused = true)]
async fn all_that_waits_for_a_silent_store_is_told_in_time_and_state_does_not_wait() {
    let cluster = Cluster::new();
    let (one, metrics) = cluster.edge("edge-0").await;
    let (mut gw, _) = Peerling::open(&one, gateway("b/g")).await;
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    let (mut other, _) = Peerling::open(&one, client_of("acme")).await;
    cluster.log.cut_all(Duration::from_secs(3_600));
    for n in 0..100 {
        gw.send(&json!({"t":"event","n":n,"type":"ring"})).await;
    }
    client.send(&json!({"t":"subscribe","n":1,"to":"b/*","lanes":["event"]})).await;
    // The one is still waiting for the events when the other is answered.
    let state = other.subscribe("b/*", &["state"]).await;
    assert_eq!(state.len(), 1, "the gateway's own");
    assert!(client.so_far().await.is_empty());
    assert_eq!(client.reply(1).await["code"], "unavailable");
    tokio::time::timeout(ANSWER, async {
        for n in 0..100 {
            assert_eq!(gw.reply(n).await["code"], "unavailable", "event {n}");
        }
    })
    .await
    .expect("each is told in the time that one may take");
    assert_eq!(counted(&metrics, "riser_events_total", Some("unavailable")), 100);
    assert!(counted(&metrics, "riser_log_failures_total", None) > 0);
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_lost_store_an_event_once() {
    let cluster = Cluster::new();
    let (one, metrics) = cluster.edge("edge-0").await;
    let (mut gw, _) = Peerling::open(&one, gateway("b/g")).await;
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    client.listen("b/*", None).await;
    let edge = "edge-0".parse().expect("an edge");
    cluster.log.set_client_faults(&edge, Faults { lost_reply: 0.5, lost_request: 0.2, ..Faults::default() });
    for id in numbered(0..50) {
        gw.event(&id, &json!({})).await;
    }
    // Without an id of its own it is stored once all the same.
    gw.send(&json!({"t":"event","n":1,"type":"last"})).await;
    assert_eq!(gw.reply(1).await["t"], "ok");
    cluster.log.set_client_faults(&edge, Faults::default());
    assert_eq!(client.hears(50).await, numbered(0..50));
    assert_eq!(client.next("event").await["type"], "last");
    assert!(ids(&client.so_far().await).is_empty());
    assert!(cluster.log.fault_counts().lost_replies > 0);
    assert!(counted(&metrics, "riser_events_total", Some("duplicate")) > 0);
}

#[tokio::test(start_paused = true)]
async fn who_listens_to_little_gets_it_out_of_much() {
    const MUCH: usize = 20_000;
    let cluster = Cluster::new();
    for i in [0, 7_000, 15_000] {
        store(&cluster, MUCH + i..MUCH + i + 1, "b/h").await;
        store(&cluster, i..i + 1_000, "b/g").await;
    }
    let (one, metrics) = cluster.edge("edge-0").await;
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    let frames = client.listen("b/h", Some("0.0")).await;
    assert_eq!(ids(&frames), [0, 7_000, 15_000].map(|i| format!("e{}", MUCH + i)));
    let at = frames.last().expect("synced")["cursor"].as_str().expect("a cursor").to_owned();
    assert_eq!(at, cursor(&cluster, 3_003).await, "it stands at the end of what is for others too");
    store(&cluster, 0..5, "c/g").await;
    let now = cursor(&cluster, 3_008).await;
    until("the feed has gone past what is for nobody", || {
        counted(&metrics, "riser_events_encoded_total", None) > 3_007
    })
    .await;
    client.send(&json!({"t":"ping"})).await;
    assert_eq!(client.next("pong").await["cursor"], now);
}

#[tokio::test(start_paused = true)]
async fn a_right_that_is_withdrawn_takes_its_events_with_it() {
    let cluster = Cluster::new();
    let (one, _) = cluster.edge("edge-0").await;
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    client.listen("b/*", None).await;
    client.listen("c/*", None).await;
    let to: Pattern = "c/*".parse().expect("a pattern");
    let grants = vec![Grant { to, may: vec![Verb::Read], ..Grant::everything() }];
    let order = TokenOrder { peer: client_of("acme").peer, grants, ttl_s: 900 };
    let token = mint(&acme(), &tenant(), &order, cluster.store.now_ms()).expect("a token").token;
    client.send(&json!({"t":"auth","n":1,"token":token})).await;
    assert_eq!(client.next("unsubscribed").await["to"], "b/*");
    store(&cluster, 0..1, "b/g").await;
    store(&cluster, 1..2, "c/g").await;
    assert_eq!(client.hears(1).await, numbered(1..2));
}

#[tokio::test(start_paused = true)]
async fn events_are_followed_while_somebody_listens_and_a_little_longer() {
    let cluster = Cluster::new();
    let (one, metrics) = cluster.edge("edge-0").await;
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    let synced = client.subscribe("b/*", &["state"]).await;
    assert!(synced.is_empty());
    assert_eq!(shows(&metrics, "riser_event_feeds"), 0, "who watches state alone costs no tail");
    client.send(&json!({"t":"ping"})).await;
    assert_eq!(client.next("pong").await["cursor"], "0.0", "but is told where events stand");
    client.listen("b/*", None).await;
    assert_eq!(shows(&metrics, "riser_event_feeds"), 1);
    client.send(&json!({"t":"unsubscribe","n":2,"to":"b/*"})).await;
    client.next("ok").await;
    until("nobody listens any more", || shows(&metrics, "riser_event_feeds") == 0).await;
    store(&cluster, 0..1, "b/g").await;
    assert!(ids(&client.so_far().await).is_empty());
    client.listen("b/*", None).await;
    store(&cluster, 1..2, "b/g").await;
    assert_eq!(client.hears(1).await, numbered(1..2));
}

#[tokio::test(start_paused = true)]
async fn large_events_leave_the_ring_and_come_from_pages() {
    let cluster = Cluster::new();
    // The first event of all ends a tail, and is read.
    store(&cluster, 100..101, "c/g").await;
    let (one, metrics) = cluster.edge("edge-0").await;
    let (mut gw, _) = Peerling::open(&one, gateway("b/g")).await;
    let (mut client, _) = Peerling::open(&one, client_of("acme")).await;
    client.listen("b/*", None).await;
    let data = json!({"data":"x".repeat(60_000)});
    for id in numbered(0..100) {
        let (_, heard) = tokio::join!(gw.event(&id, &data), client.hears(1));
        assert_eq!(heard, [id]);
    }
    assert_eq!(counted(&metrics, "riser_event_pages_read_total", None), 0, "who keeps up costs no read");
    let (mut back, _) = Peerling::open(&one, client_of("acme")).await;
    assert_eq!(ids(&back.listen("b/*", Some("0.0")).await), numbered(0..100));
    assert!(counted(&metrics, "riser_event_pages_read_total", None) > 0);
    assert!(counted(&metrics, "riser_events_replayed_total", None) >= 100);
}
