//! Each fault of the memory registry can be seen to happen, and does no more than it says.

use std::collections::BTreeSet;
use std::time::Duration;

use riser_core::limits::Limits;
use riser_core::{Change, EdgeId, Epoch, GatewayKey, Reason, Version};
use riser_registry::memory::{FaultCounts, Faults, MemoryRegistry};
use riser_registry::{Applied, Lease, Registry, RegistryError, Restored, StateStore};
use tokio::time::Instant;

const START_MS: u64 = 1_763_800_000_000;
const LONG: Duration = Duration::from_secs(3_600);
const GONE: Result<(), RegistryError> = Err(RegistryError::Unavailable);

fn edge(name: &str) -> EdgeId {
    name.parse().expect("an edge name")
}

fn lease(name: &str) -> Lease {
    Lease { edge: edge(name), start: 1 }
}

fn key(address: &str) -> GatewayKey {
    GatewayKey::new("acme".parse().expect("a tenant"), address.parse().expect("an address"))
}

fn change() -> Change {
    Change::values([("a".parse().expect("a path"), Some(riser_core::Json::of(&1)))], false)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[tokio::test(start_paused = true)]
async fn the_clock_starts_where_it_is_told_and_runs_with_tokios() {
    let store = MemoryRegistry::new(START_MS);
    assert_eq!(store.now_ms(), START_MS);
    tokio::time::advance(ms(1_500)).await;
    assert_eq!(store.now_ms(), START_MS + 1_500);
    store.clock_jump(-60_000);
    assert_eq!(store.now_ms(), START_MS - 58_500);
    store.clock_jump(60_000);
    let told = store.client(&edge("one")).renew(&lease("one"), LONG).await.expect("an answer").now_ms;
    assert_eq!(told, START_MS + 1_500);
}

#[tokio::test(start_paused = true)]
async fn epochs_grow_when_the_clock_jumps_back() {
    let store = MemoryRegistry::new(START_MS);
    let client = store.client(&edge("one"));
    let before = client.acquire(&lease("one"), &key("b/g"), None).await.expect("an answer").epoch;
    store.clock_jump(-3_600_000);
    let after = client.acquire(&lease("one"), &key("b/g"), None).await.expect("an answer").epoch;
    assert!(after > before);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_ended_stays_ended_when_the_clock_jumps_back() {
    let store = MemoryRegistry::new(START_MS);
    let client = store.client(&edge("one"));
    client.renew(&lease("one"), ms(1_000)).await.expect("an answer");
    store.clock_jump(1_000);
    store.clock_jump(-10_000);
    assert_eq!(client.ended_leases().await, Ok(vec![(lease("one"), Reason::EdgeLost)]));
    assert!(!client.renew(&lease("one"), LONG).await.expect("an answer").held);
}

#[tokio::test(start_paused = true)]
async fn a_cut_edge_gets_no_answer_and_does_nothing() {
    let store = MemoryRegistry::new(START_MS);
    let (one, two) = (store.client(&edge("one")), store.client(&edge("two")));
    store.cut(&edge("one"), Duration::ZERO);
    let started = Instant::now();
    assert_eq!(one.acquire(&lease("one"), &key("b/g"), None).await.map(drop), GONE);
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(two.read(&key("b/g")).await, Ok(None), "others are answered, and nothing was done");
    let again = store.client(&edge("one"));
    assert_eq!(again.read(&key("b/g")).await.map(drop), GONE, "a new connection is cut off too");

    store.cut(&edge("one"), ms(2_000));
    assert_eq!(one.read(&key("b/g")).await.map(drop), GONE);
    assert_eq!(started.elapsed(), ms(2_000));
    store.heal(&edge("one"));
    assert_eq!(one.read(&key("b/g")).await, Ok(None));
    assert_eq!(store.fault_counts(), FaultCounts { refused: 3, ..FaultCounts::default() });
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_answers_nobody() {
    let store = MemoryRegistry::new(START_MS);
    let one = store.client(&edge("one"));
    store.cut_all(Duration::ZERO);
    let two = store.client(&edge("two"));
    for client in [&one, &two] {
        assert_eq!(client.ended_leases().await.map(drop), GONE);
    }
    store.heal_all();
    for client in [&one, &two] {
        assert_eq!(client.ended_leases().await.map(drop), Ok(()));
    }
}

#[tokio::test(start_paused = true)]
async fn calls_take_their_time_each_way() {
    let store = MemoryRegistry::new(START_MS);
    let client = store.client(&edge("one"));
    store.set_client_faults(&edge("one"), Faults { delay: ms(30)..=ms(30), ..Faults::default() });
    let started = Instant::now();
    let done = client.renew(&lease("one"), LONG).await.expect("an answer");
    assert_eq!(started.elapsed(), ms(60));
    assert_eq!(done.now_ms, START_MS + 30, "it was done when the request had arrived");
    assert_eq!(store.fault_counts().delayed, 2);
    let started = Instant::now();
    store.client(&edge("two")).renew(&lease("two"), LONG).await.expect("an answer");
    assert_eq!(started.elapsed(), Duration::ZERO, "another edge's calls take none");
}

#[tokio::test(start_paused = true)]
async fn a_cut_meets_calls_that_are_on_their_way() {
    let store = MemoryRegistry::new(START_MS);
    let client = store.client(&edge("one"));
    store.set_faults(&Faults { delay: ms(30)..=ms(30), ..Faults::default() });
    let cut_after = async |after: u64| {
        tokio::time::sleep(ms(after)).await;
        store.cut(&edge("one"), Duration::ZERO);
    };
    let first = lease("one");
    let (answer, ()) = tokio::join!(client.renew(&first, LONG), cut_after(10));
    assert_eq!(answer.map(drop), GONE);
    store.heal(&edge("one"));
    assert!(!client.renew(&first, LONG).await.expect("an answer").held, "the request had not arrived");
    let other = lease("other");
    let (answer, ()) = tokio::join!(client.renew(&other, LONG), cut_after(40));
    assert_eq!(answer.map(drop), GONE);
    store.heal(&edge("one"));
    assert!(client.renew(&other, LONG).await.expect("an answer").held, "the request had arrived");
    let counts = store.fault_counts();
    assert_eq!((counts.refused, counts.lost_replies), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_lost_request_is_not_done_and_a_lost_reply_is() {
    let store = MemoryRegistry::new(START_MS);
    let (one, two) = (store.client(&edge("one")), store.client(&edge("two")));
    let lost = Faults { silence: ms(2_000), ..Faults::default() };
    store.set_client_faults(&edge("one"), Faults { lost_request: 1.0, ..lost.clone() });
    let started = Instant::now();
    assert_eq!(one.acquire(&lease("one"), &key("b/g"), None).await.map(drop), GONE);
    assert_eq!(started.elapsed(), ms(2_000));
    assert_eq!(two.read(&key("b/g")).await, Ok(None));
    store.set_client_faults(&edge("one"), Faults { lost_reply: 1.0, ..lost });
    assert_eq!(one.acquire(&lease("one"), &key("b/g"), None).await.map(drop), GONE);
    assert_eq!(started.elapsed(), ms(4_000));
    let snapshot = two.read(&key("b/g")).await.expect("an answer").expect("a gateway that is known");
    assert!(snapshot.presence.online);
    let expected = FaultCounts { lost_requests: 1, lost_replies: 1, ..FaultCounts::default() };
    assert_eq!(store.fault_counts(), expected);
}

#[tokio::test(start_paused = true)]
async fn some_calls_are_lost_by_their_probability_and_the_seed_says_which() {
    async fn lost(seed: u64) -> Vec<bool> {
        let store = MemoryRegistry::seeded(START_MS, seed);
        let client = store.client(&edge("one"));
        store.set_faults(&Faults { lost_request: 0.2, lost_reply: 0.2, ..Faults::default() });
        let mut lost = vec![];
        for _ in 0..500 {
            lost.push(client.ended_leases().await.is_err());
        }
        let counts = store.fault_counts();
        let count = lost.iter().filter(|lost| **lost).count();
        assert_eq!(counts.lost_requests + counts.lost_replies, count as u64);
        assert!((120..240).contains(&count), "{count} of 500 were lost");
        assert!(counts.lost_requests > 50 && counts.lost_replies > 50, "{counts:?}");
        lost
    }
    let first = lost(1).await;
    assert_eq!(first, lost(1).await);
    assert_ne!(first, lost(2).await);
}

#[tokio::test(start_paused = true)]
async fn an_emptied_store_knows_nothing_and_its_clock_runs_on() {
    let store = MemoryRegistry::new(START_MS);
    let client = store.client(&edge("one"));
    client.renew(&lease("one"), LONG).await.expect("an answer");
    let epoch = client.acquire(&lease("one"), &key("b/g"), None).await.expect("an answer").epoch;
    tokio::time::advance(ms(500)).await;
    store.empty();
    assert_eq!(client.read(&key("b/g")).await, Ok(None));
    assert_eq!(client.lease_index(&lease("one")).await, Ok(vec![]));
    assert_eq!(client.buildings(&key("b/g").tenant).await, Ok(vec![]));
    let version = Version::start(epoch);
    let applied = client.apply(&key("b/g"), version.next(), &change(), &Limits::default()).await;
    assert_eq!(applied, Ok(Applied::Gap(None)));
    let renewed = client.renew(&lease("one"), LONG).await.expect("an answer");
    assert_eq!((renewed.held, renewed.now_ms), (false, START_MS + 500));
    let restored = client.restore(&lease("one"), &key("b/g"), version, 0).await;
    assert_eq!(restored, Ok(Restored::Held { lost: true }));
}

#[tokio::test(start_paused = true)]
async fn a_rewound_store_has_lost_its_tail() {
    let store = MemoryRegistry::new(START_MS);
    let client = store.client(&edge("one"));
    let stored = async |key: &GatewayKey, version| {
        let applied = client.apply(key, version, &change(), &Limits::default()).await.expect("an answer");
        assert!(matches!(applied, Applied::Stored { .. }), "{applied:?}");
        version
    };
    let (kept, taken, new) = (key("b/kept"), key("b/taken"), key("b/new"));
    let mut versions = vec![];
    for key in [&kept, &taken] {
        let epoch = client.acquire(&lease("one"), key, None).await.expect("an answer").epoch;
        versions.push(stored(key, Version::start(epoch).next()).await);
    }
    let checkpoint = store.checkpoint();
    let later = stored(&kept, versions[0].next()).await;
    let epoch = client.acquire(&lease("two"), &taken, None).await.expect("an answer").epoch;
    client.acquire(&lease("two"), &new, None).await.expect("an answer");

    for _ in 0..2 {
        store.rewind(&checkpoint);
        let version = async |key| client.read(key).await.expect("an answer").map(|snapshot| snapshot.version);
        assert_eq!(version(&kept).await, Some(versions[0]));
        assert_eq!(version(&taken).await, Some(versions[1]));
        assert_eq!(version(&new).await, None);
        assert_eq!(client.lease_index(&lease("two")).await, Ok(vec![]));
        let applied = client.apply(&kept, later.next(), &change(), &Limits::default()).await;
        assert_eq!(applied, Ok(Applied::Gap(Some(versions[0]))));
        let applied = client.apply(&taken, Version::start(epoch).next(), &change(), &Limits::default()).await;
        assert_eq!(applied, Ok(Applied::Gap(Some(versions[1]))));
        let lost = Ok(Restored::Held { lost: true });
        assert_eq!(client.restore(&lease("one"), &kept, later, 0).await, lost);
        assert_eq!(client.restore(&lease("two"), &taken, Version::start(epoch), 0).await, lost);
    }
}

#[tokio::test(start_paused = true)]
async fn an_epoch_grows_across_an_emptied_store_when_the_edge_gives_its_floor() {
    let store = MemoryRegistry::new(START_MS);
    let client = store.client(&edge("one"));
    let mut last = Epoch(0);
    for _ in 0..20 {
        let epoch = client.acquire(&lease("one"), &key("b/g"), Some(last)).await.expect("an answer").epoch;
        assert!(epoch > last);
        last = epoch;
        store.empty();
        store.clock_jump(-10);
    }
}

/// The locks, under real parallelism: every session has an epoch of its own and takes over from the one before, and
/// every session of an ended lease is ended once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn operations_that_run_in_parallel_exclude_each_other() {
    const EDGES: u64 = 4;
    const ROUNDS: usize = 500;
    let store = MemoryRegistry::new(START_MS);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..EDGES {
        let client = store.client(&edge("one"));
        let lease = Lease { start: number, ..lease("one") };
        tasks.spawn(async move {
            client.renew(&lease, Duration::ZERO).await.expect("an answer");
            let (mut befores, mut epochs, mut swept) = (vec![], vec![], 0);
            for round in 0..ROUNDS {
                let acquired = client.acquire(&lease, &key("b/shared"), None).await.expect("an answer");
                befores.push(acquired.before);
                epochs.push(acquired.epoch);
                let own = key(&format!("c/g{round}"));
                client.acquire(&lease, &own, None).await.expect("an answer");
                let (tenant, building) = (&own.tenant, own.address.building());
                let sweep = client.sweep(&lease, Reason::EdgeLost, tenant, building).await;
                swept += sweep.expect("an answer").len();
                tokio::task::yield_now().await;
            }
            (befores, epochs, swept)
        });
    }
    let (mut befores, mut epochs, mut swept) = (vec![], vec![], 0);
    for (b, e, s) in tasks.join_all().await {
        befores.extend(b);
        epochs.extend(e);
        swept += s;
    }
    let sessions = epochs.len();
    let chain: BTreeSet<_> = befores.into_iter().flatten().map(|version| version.epoch).collect();
    let epochs: BTreeSet<_> = epochs.into_iter().collect();
    assert_eq!(epochs.len(), sessions, "an epoch was given twice");
    assert_eq!(chain.len(), sessions - 1, "two sessions took over from the same one");
    assert!(chain.is_subset(&epochs));
    // What was taken over before its sweep is ended by the other's.
    let building = key("c/g").address.building().clone();
    let held = store.client(&edge("one")).audit(&key("c/g").tenant, &building).await.expect("an answer");
    assert_eq!(held.len(), ROUNDS);
    assert!(held.iter().all(|held| held.lease.is_none()), "a session outlived its sweep");
    assert!(swept >= ROUNDS && swept <= sessions, "{swept} ends");
}
