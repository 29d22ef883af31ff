//! The buckets do what every key-value store must do, on one server and with three copies, and say when they cannot.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use riser_bus::kv::suite::Bench;
use riser_bus::kv::{Kv, KvError, Page, Seen, VALUE_BYTES, Value, Watch, Written};
use riser_bus::nats::{KvConfig, NatsKv};
use riser_bus::{Bucket, Entry};
use riser_core::GatewayKey;
use riser_core::command::Digest;
use riser_testkit::real::nats::{NatsOptions, NatsServers};
use tokio::time::timeout;

use super::{Held, connect, shared, start, tenant};
use crate::{PATIENCE, program, unique};

/// Keeps little, in so many copies.
pub(super) fn kv_config(replicas: usize) -> KvConfig {
    KvConfig { replicas, held_bytes: 32 << 20, tenants_bytes: 1 << 20, flats_bytes: 1 << 20 }
}

#[async_trait]
impl Kv for Held<NatsKv> {
    async fn get(&self, entry: &Entry) -> Result<Option<Value>, KvError> {
        self.inner.get(entry).await
    }

    async fn put(&self, entry: &Entry, value: Bytes, expected: u64, ttl: Option<Duration>) -> Result<Written, KvError> {
        self.inner.put(entry, value, expected, ttl).await
    }

    async fn delete(&self, entry: &Entry, expected: u64) -> Result<Written, KvError> {
        self.inner.delete(entry, expected).await
    }

    async fn list(&self, bucket: Bucket, after: u64) -> Result<Page, KvError> {
        self.inner.list(bucket, after).await
    }

    async fn watch(&self, bucket: Bucket) -> Result<Watch, KvError> {
        self.inner.watch(bucket).await
    }
}

async fn bench(case: &str, count: usize) -> Bench<Held<NatsKv>> {
    // Who loses a bucket has servers of its own, and so has who watches or fills one.
    let own = case.contains("lost") || case.contains("watch");
    let servers = if own { std::sync::Arc::new(start(count).await) } else { shared(count).await };
    let client = async |number| {
        let kv = connect(&servers, number % count).await.kv(kv_config(count));
        Held { inner: kv, _servers: servers.clone() }
    };
    let (one, two) = (client(0).await, client(1).await);
    let lose = Box::new(move |bucket: Bucket| {
        let servers = servers.clone();
        let lost: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            delete(&servers, bucket).await;
        });
        lost
    });
    Bench { one, two, name: unique(), lose }
}

async fn delete(servers: &NatsServers, bucket: Bucket) {
    let mut raw = servers.raw(0).await.expect("a connection");
    let answer = raw.ask(&format!("$JS.API.STREAM.DELETE.KV_{}", bucket.name()), "").await.expect("an answer");
    assert!(answer.contains("\"success\":true"), "{answer}");
}

mod one_server {
    async fn bench(case: &str) -> super::Bench<super::Held<super::NatsKv>> {
        super::bench(case, 1).await
    }

    riser_bus::kv_conformance!(
        #[tokio::test]
        bench
    );
}

mod three_copies {
    async fn bench(case: &str) -> super::Bench<super::Held<super::NatsKv>> {
        super::bench(case, 3).await
    }

    riser_bus::kv_conformance!(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        bench
    );
}

fn entry(number: u8) -> Entry {
    let address = "b1/g1".parse().expect("an address");
    Entry::Held(GatewayKey::new(tenant(), address), Digest([number; 16]))
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn put_new(kv: &NatsKv, entry: &Entry) -> u64 {
    match kv.put(entry, bytes("one"), 0, None).await {
        Ok(Written::Yes(revision)) => revision,
        other => panic!("a change was not made: {other:?}"),
    }
}

#[tokio::test]
async fn a_bucket_without_room_says_that_it_is_full() {
    let servers = start(1).await;
    let kv = connect(&servers, 0).await.kv(KvConfig { held_bytes: 1 << 20, ..kv_config(1) });
    let large = Bytes::from(vec![b'x'; VALUE_BYTES]);
    let mut kept = vec![];
    let full = loop {
        let entry = entry(1);
        match kv.put(&entry, large.clone(), 0, None).await {
            Ok(written) => kept.push((entry, written)),
            Err(error) => break error,
        }
        assert!(kept.len() < 10, "more was kept than there is room for");
    };
    assert_eq!(full, KvError::Full);
    let (entry, Written::Yes(revision)) = kept.remove(0) else { panic!("{kept:?}") };
    assert!(matches!(kv.get(&entry).await, Ok(Some(value)) if value.bytes == large));
    assert!(matches!(kv.delete(&entry, revision).await, Ok(Written::Yes(_))), "what makes room is refused");
}

#[tokio::test]
async fn a_server_without_room_for_a_bucket_says_that_it_is_full() {
    let options = NatsOptions { max_file_store: Some(16 << 20), ..NatsOptions::default() };
    let servers = NatsServers::start_with(&program("RISER_NATS_SERVER"), 1, &options).await.expect("a server");
    let kv = connect(&servers, 0).await.kv(kv_config(1));
    assert_eq!(kv.put(&entry(1), bytes("one"), 0, None).await, Err(KvError::Full));
}

#[tokio::test]
async fn what_is_no_entry_of_ours_is_left_out_and_counted() {
    let servers = start(1).await;
    let client = connect(&servers, 0).await;
    let (kv, ours) = (client.kv(kv_config(1)), entry(1));
    put_new(&kv, &ours).await;
    let mut raw = servers.raw(0).await.expect("a connection");
    for foreign in ["$KV.riser-held.x", "$KV.riser-held.acme.b1.g1.xx", "$KV.riser-held.a.b.c.d.e"] {
        let stored = raw.ask(foreign, "forged").await.expect("an answer");
        assert!(stored.contains("\"seq\""), "{stored}");
    }
    let page = kv.list(Bucket::Held, 0).await.expect("an answer");
    assert_eq!(page.entries.iter().map(|(entry, _)| entry).collect::<Vec<_>>(), [&ours]);
    assert_eq!(client.ignored(), 3);
    let mut watch = kv.watch(Bucket::Held).await.expect("an answer");
    let first = timeout(PATIENCE, watch.recv()).await.expect("an entry in time");
    assert!(matches!(&first, Some(Seen::Put(entry, _)) if *entry == ours), "{first:?}");
    assert_eq!(timeout(PATIENCE, watch.recv()).await, Ok(Some(Seen::All)));
    assert_eq!(client.ignored(), 6);
}

#[tokio::test]
async fn a_stream_of_somebody_else_is_no_bucket() {
    let servers = start(1).await;
    let kv = connect(&servers, 0).await.kv(kv_config(1));
    let mut raw = servers.raw(0).await.expect("a connection");
    let config = r#"{"name":"KV_riser-held","subjects":["other"]}"#;
    let made = raw.ask("$JS.API.STREAM.CREATE.KV_riser-held", config).await.expect("an answer");
    assert!(!made.contains("error"), "{made}");
    assert_eq!(kv.put(&entry(1), bytes("one"), 0, None).await, Err(KvError::Unavailable));
}

#[tokio::test]
async fn a_bucket_follows_changed_settings_and_keeps_its_entries() {
    let servers = start(1).await;
    let client = connect(&servers, 0).await;
    let ours = entry(1);
    put_new(&client.kv(kv_config(1)), &ours).await;
    let after = client.kv(KvConfig { held_bytes: 2 << 20, ..kv_config(1) });
    put_new(&after, &entry(2)).await;
    assert!(matches!(after.get(&ours).await, Ok(Some(_))));
    let mut raw = servers.raw(0).await.expect("a connection");
    let info = raw.ask("$JS.API.STREAM.INFO.KV_riser-held", "").await.expect("an answer");
    assert!(info.contains(&format!("\"max_bytes\":{}", 2 << 20)), "{info}");
    // Three copies cannot be had of one server, which is no reason to refuse values.
    put_new(&client.kv(kv_config(3)), &entry(3)).await;
}

#[tokio::test]
async fn nothing_answers_without_a_server_and_everything_is_there_when_it_is_back() {
    let mut servers = start(1).await;
    let kv = connect(&servers, 0).await.kv(kv_config(1));
    let ours = entry(1);
    let revision = put_new(&kv, &ours).await;
    let mut watch = kv.watch(Bucket::Held).await.expect("an answer");
    servers.kill(0);
    let (get, put, delete, list, began) = tokio::join!(
        kv.get(&ours),
        kv.put(&ours, bytes("two"), revision, None),
        kv.delete(&ours, revision),
        kv.list(Bucket::Held, 0),
        kv.watch(Bucket::Held)
    );
    assert_eq!(get, Err(KvError::Unavailable));
    assert_eq!(put, Err(KvError::Unavailable));
    assert_eq!(delete, Err(KvError::Unavailable));
    assert_eq!(list, Err(KvError::Unavailable));
    assert_eq!(began.err(), Some(KvError::Unavailable));
    while timeout(PATIENCE, watch.recv()).await.expect("the end of the watch in time").is_some() {}
    servers.start_again(0).expect("a server that starts");
    servers.ready().await.expect("a server that is ready");
    let back = async {
        loop {
            if let Ok(got) = kv.get(&ours).await {
                break got;
            }
        }
    };
    let got = timeout(PATIENCE, back).await.expect("an answer in time");
    assert_eq!(got.map(|value| value.revision), Some(revision));
}

/// While a leader dies and another is chosen, changes are repeated: each happens once, or somebody knows that it did not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_counts_every_answered_change_once_while_servers_die() {
    let mut servers = start(3).await;
    let kv = connect(&servers, 0).await.kv(kv_config(3));
    let ours = entry(1);
    let (mut answered, mut revision) = (0_u64, 0);
    for round in 0..60_u64 {
        if round == 20 {
            servers.kill(1);
        }
        if round == 40 {
            servers.start_again(1).expect("a server that starts");
            servers.ready().await.expect("servers that are ready");
            servers.kill(2);
        }
        let next = bytes(&(answered + 1).to_string());
        let changed = async {
            loop {
                match kv.put(&ours, next.clone(), revision, None).await {
                    Ok(written) => break written,
                    Err(error) => assert_eq!(error, KvError::Unavailable),
                }
            }
        };
        match timeout(PATIENCE, changed).await.expect("an answer in time") {
            Written::Yes(now) => (answered, revision) = (answered + 1, now),
            // An earlier call that was given up had been made.
            Written::Conflict => {
                let got = kv.get(&ours).await.expect("an answer").expect("an entry");
                assert_eq!(got.bytes, next, "a change that nobody made");
                (answered, revision) = (answered + 1, got.revision);
            }
        }
    }
    let got = kv.get(&ours).await.expect("an answer").expect("an entry");
    assert_eq!((got.bytes, got.revision), (bytes("60"), revision));
}
