//! The buckets and their memory twin.

use std::time::Duration;

use bytes::Bytes;
use riser_bus::kv::memory::{Faults, MemoryKv, MemoryKvClient};
use riser_bus::kv::suite::Bench;
use riser_bus::kv::{Kv, KvError, Written};
use riser_bus::{Bucket, Entry};

fn bench_on(kv: &MemoryKv) -> Bench<MemoryKvClient> {
    let client = |name: &str| kv.client(&name.parse().expect("an edge name"));
    let store = kv.clone();
    Bench {
        one: client("edge-1"),
        two: client("edge-2"),
        name: "memory".into(),
        lose: Box::new(move |bucket| {
            store.lose(bucket);
            Box::pin(async {})
        }),
    }
}

async fn bench(_case: &str) -> Bench<MemoryKvClient> {
    bench_on(&MemoryKv::new())
}

riser_bus::kv_conformance!(
    #[tokio::test(start_paused = true)]
    bench
);

/// The same cases when every call takes time.
mod slow {
    use super::{Bench, Duration, Faults, MemoryKv, MemoryKvClient, bench_on};

    async fn bench(case: &str) -> Bench<MemoryKvClient> {
        let kv = MemoryKv::seeded(case.len() as u64);
        kv.set_faults(&Faults { delay: Duration::ZERO..=Duration::from_millis(5), ..Faults::default() });
        bench_on(&kv)
    }

    riser_bus::kv_conformance!(
        #[tokio::test(start_paused = true)]
        bench
    );
}

#[test]
fn every_case_of_the_suite_is_in_its_list() {
    let suite = include_str!("../../src/kv/suite.rs");
    let functions = suite.lines().filter_map(|line| line.strip_prefix("pub async fn "));
    let cases: Vec<_> = functions.filter_map(|rest| rest.split('<').next()).collect();
    let listed: Vec<_> = suite.lines().map(str::trim).filter(|line| cases.contains(line)).collect();
    assert!(cases.len() >= 15, "{cases:?}");
    assert_eq!(cases, listed);
}

fn entry() -> Entry {
    Entry::Tenant("acme".parse().expect("a tenant name"))
}

#[tokio::test]
async fn a_client_that_is_cut_off_changes_nothing_and_its_watches_end() {
    let kv = MemoryKv::new();
    let client = kv.client(&"edge-1".parse().expect("an edge name"));
    let mut watch = client.watch(Bucket::Tenants).await.expect("an answer");
    kv.cut_all(Duration::ZERO);
    let put = async || client.put(&entry(), Bytes::from_static(b"one"), 0, None).await;
    assert_eq!(put().await, Err(KvError::Unavailable));
    while watch.recv().await.is_some() {}
    kv.heal_all();
    assert_eq!(client.get(&entry()).await, Ok(None));
    assert!(matches!(put().await, Ok(Written::Yes(_))));
}

#[tokio::test]
async fn a_store_without_room_says_so_and_keeps_what_it_has() {
    let kv = MemoryKv::new();
    let client = kv.client(&"edge-1".parse().expect("an edge name"));
    let Ok(Written::Yes(revision)) = client.put(&entry(), Bytes::from_static(b"one"), 0, None).await else {
        panic!("a change was not made")
    };
    kv.set_full(true);
    assert_eq!(client.put(&entry(), Bytes::from_static(b"two"), revision, None).await, Err(KvError::Full));
    assert_eq!(client.get(&entry()).await.map(|value| value.map(|value| value.revision)), Ok(Some(revision)));
}
