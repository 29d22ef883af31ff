//! What every key-value store must do, one function for each sentence of the contract.
//!
//! An implementation gives a [`Bench`] for each case and lets [`kv_conformance!`](crate::kv_conformance) make a test of every
//! case. The cases use entries of their own, so that they can run beside each other and again on servers that are not
//! empty; but for those which lose a bucket, or watch or fill a whole one: they need a store of their own.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use riser_core::GatewayKey;
use riser_core::command::Digest;
use tokio::time::timeout;

use super::{KV_PAGE, Kv, KvError, Seen, VALUE_BYTES, Value, WATCH_QUEUE, Watch, Written};
use crate::subject::{Bucket, Entry};

/// How long a case waits for what must come. A real server takes milliseconds; this is for a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often a case looks whether an entry is gone.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Loses a bucket with all its entries, as a store that lost its data.
pub type Lose = Box<dyn Fn(Bucket) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// What a case runs on.
pub struct Bench<K> {
    /// A client.
    pub one: K,
    /// A client of another edge of the same cluster.
    pub two: K,
    /// What no other case uses, and no other run: 1 to 24 of a-z and 0-9.
    pub name: String,
    /// Loses a bucket.
    pub lose: Lose,
}

/// Makes a test of each case.
///
/// Takes the attribute of the tests and a function that makes a [`Bench`](crate::kv::suite::Bench), as in
/// `riser_bus::kv_conformance!(#[tokio::test(start_paused = true)] bench);`. The function is async and is given the name of
/// the case; a case whose name has `lost` or `watch` in it needs a store that no other case uses.
#[macro_export]
macro_rules! kv_conformance {
    (# $attribute:tt $bench:path) => {
        $crate::kv_conformance! { # $attribute $bench;
            a_value_that_was_put_is_got_by_every_client
            nothing_is_got_under_a_name_that_was_never_put
            a_change_is_made_only_at_the_revision_that_was_expected
            of_many_who_expect_the_same_one_wins
            revisions_grow_over_all_entries
            a_deleted_entry_is_gone_and_can_be_put_again
            a_value_has_a_size
            entries_with_similar_names_are_apart
            an_entry_is_gone_after_its_time_and_can_be_put_again
            a_put_sets_the_time_to_live_anew
            a_list_has_every_entry_page_by_page
            a_watch_tells_what_is_there_then_that_it_was_all_then_changes
            a_watch_without_entries_tells_at_once_that_it_was_all
            a_watch_that_is_not_read_ends
            a_lost_bucket_is_empty_and_revisions_go_on
            a_watch_ends_when_its_bucket_is_lost
        }
    };
    (# $attribute:tt $bench:path; $($case:ident)*) => {
        $(
            # $attribute
            async fn $case() {
                $crate::kv::suite::$case(&$bench(stringify!($case)).await).await;
            }
        )*
    };
}

impl<K: Kv> Bench<K> {
    /// An entry of this case.
    fn entry(&self, number: u8) -> Entry {
        self.entry_of("t", "b1/g1", number)
    }

    fn entry_of(&self, suffix: &str, address: &str, number: u8) -> Entry {
        let tenant = format!("{}-{suffix}", self.name).parse().expect("a tenant name");
        Entry::Held(GatewayKey::new(tenant, address.parse().expect("an address")), Digest([number; 16]))
    }

    /// Puts a value under a name that is free.
    async fn put_new(&self, entry: &Entry, value: &str) -> u64 {
        written(self.one.put(entry, bytes(value), 0, None).await)
    }

    async fn got(&self, entry: &Entry) -> Option<Value> {
        self.two.get(entry).await.expect("an answer")
    }

    /// What is in the bucket of held commands of this case alone, as the pages tell.
    async fn listed(&self) -> BTreeMap<Entry, Value> {
        let (mut all, mut after) = (BTreeMap::new(), 0);
        loop {
            let page = self.two.list(Bucket::Held, after).await.expect("an answer");
            assert!(page.entries.len() <= KV_PAGE, "{} entries", page.entries.len());
            assert!(page.entries.iter().all(|(_, value)| value.revision > after), "an entry of a page before");
            all.extend(page.entries.into_iter().filter(|(entry, _)| self.is_own(entry)));
            match page.next {
                Some(next) => assert!(std::mem::replace(&mut after, next) < next, "pages that do not go on"),
                None => return all,
            }
        }
    }

    fn is_own(&self, entry: &Entry) -> bool {
        matches!(entry, Entry::Held(key, _) if key.tenant.as_str().starts_with(&self.name))
    }

    /// The next thing that a watch tells of this case.
    async fn next(&self, watch: &mut Watch) -> Option<Seen> {
        let next = async {
            loop {
                match watch.recv().await {
                    Some(Seen::Put(entry, _) | Seen::Gone(entry, _)) if !self.is_own(&entry) => {}
                    seen => break seen,
                }
            }
        };
        timeout(PATIENCE, next).await.expect("an entry, or the end of the watch, in time")
    }
}

fn bytes(value: &str) -> Bytes {
    Bytes::copy_from_slice(value.as_bytes())
}

fn value(text: &str, revision: u64) -> Value {
    Value { bytes: bytes(text), revision }
}

/// The revision of a change that must have been made.
fn written(answer: Result<Written, KvError>) -> u64 {
    match answer {
        Ok(Written::Yes(revision)) => revision,
        other => panic!("a change was not made: {other:?}"),
    }
}

/// "It is in every `get` that begins afterwards, whichever client asks."
pub async fn a_value_that_was_put_is_got_by_every_client<K: Kv>(bench: &Bench<K>) {
    let entry = bench.entry(1);
    for text in ["one", "two \u{0} \u{1F600}"] {
        let before = bench.got(&entry).await.map_or(0, |value| value.revision);
        let revision = written(bench.one.put(&entry, bytes(text), before, None).await);
        assert_eq!(bench.one.get(&entry).await, Ok(Some(value(text, revision))));
        assert_eq!(bench.two.get(&entry).await, Ok(Some(value(text, revision))));
    }
}

/// An entry that is not there is none.
pub async fn nothing_is_got_under_a_name_that_was_never_put<K: Kv>(bench: &Bench<K>) {
    bench.put_new(&bench.entry(1), "one").await;
    assert_eq!(bench.got(&bench.entry(2)).await, None);
    let tenant = format!("{}-t", bench.name).parse().expect("a tenant name");
    assert_eq!(bench.got(&Entry::Tenant(tenant)).await, None);
}

/// "A change is made if and only if the entry has the revision that was expected; 0 stands for an entry that is not there."
pub async fn a_change_is_made_only_at_the_revision_that_was_expected<K: Kv>(bench: &Bench<K>) {
    let entry = bench.entry(1);
    let conflict = Ok(Written::Conflict);
    assert_eq!(bench.one.put(&entry, bytes("x"), 7, None).await, conflict, "nothing is there");
    assert_eq!(bench.one.delete(&entry, 7).await, conflict, "nothing is there");
    let first = bench.put_new(&entry, "one").await;
    for expected in [0, first - 1, first + 1] {
        assert_eq!(bench.two.put(&entry, bytes("x"), expected, None).await, conflict, "{expected}");
        assert_eq!(bench.two.delete(&entry, expected).await, conflict, "{expected}");
    }
    assert_eq!(bench.got(&entry).await, Some(value("one", first)));
    let second = written(bench.two.put(&entry, bytes("two"), first, None).await);
    assert_eq!(bench.one.put(&entry, bytes("x"), first, None).await, conflict);
    assert_eq!(bench.got(&entry).await, Some(value("two", second)));
}

/// The same, at once.
pub async fn of_many_who_expect_the_same_one_wins<K: Kv>(bench: &Bench<K>) {
    let entry = bench.entry(1);
    let mut expected = 0;
    for round in 0..8 {
        let texts: Vec<_> = (0..8).map(|who| format!("{round} {who}")).collect();
        let clients = [&bench.one, &bench.two];
        let puts =
            texts.iter().enumerate().map(|(who, text)| clients[who % 2].put(&entry, bytes(text), expected, None));
        let answers = futures_util::future::join_all(puts).await;
        let won = answers.iter().zip(&texts).filter_map(|(answer, text)| match answer {
            Ok(Written::Yes(revision)) => Some((*revision, text)),
            Ok(Written::Conflict) => None,
            Err(error) => panic!("no answer: {error}"),
        });
        let won: Vec<_> = won.collect();
        assert_eq!(won.len(), 1, "{won:?}");
        assert_eq!(bench.got(&entry).await, Some(value(won[0].1, won[0].0)));
        expected = won[0].0;
    }
}

/// "Of two changes in a bucket the later has the greater one."
pub async fn revisions_grow_over_all_entries<K: Kv>(bench: &Bench<K>) {
    let mut last = 0;
    for number in 0..4 {
        let entry = bench.entry(number);
        let put = bench.put_new(&entry, "one").await;
        let again = written(bench.two.put(&entry, bytes("two"), put, None).await);
        let gone = written(bench.one.delete(&entry, again).await);
        assert!(last < put && put < again && again < gone, "{last} {put} {again} {gone}");
        last = gone;
    }
}

/// A deleted entry is not there, for everybody, and its name is free.
pub async fn a_deleted_entry_is_gone_and_can_be_put_again<K: Kv>(bench: &Bench<K>) {
    let (entry, other) = (bench.entry(1), bench.entry(2));
    bench.put_new(&other, "stays").await;
    for _ in 0..2 {
        let put = bench.put_new(&entry, "one").await;
        written(bench.two.delete(&entry, put).await);
        assert_eq!(bench.got(&entry).await, None);
        assert_eq!(bench.two.delete(&entry, put).await, Ok(Written::Conflict));
        assert_eq!(bench.two.put(&entry, bytes("x"), put, None).await, Ok(Written::Conflict));
        assert_eq!(bench.two.delete(&entry, 0).await, Ok(Written::Conflict));
    }
    assert_eq!(bench.listed().await.into_keys().collect::<Vec<_>>(), [other]);
}

/// "A value of 1 to `VALUE_BYTES` bytes."
pub async fn a_value_has_a_size<K: Kv>(bench: &Bench<K>) {
    let (entry, large) = (bench.entry(1), Bytes::from(vec![b'x'; VALUE_BYTES]));
    for bad in [Bytes::new(), Bytes::from(vec![b'x'; VALUE_BYTES + 1])] {
        assert_eq!(bench.one.put(&entry, bad, 0, None).await, Err(KvError::Size));
    }
    assert_eq!(bench.got(&entry).await, None);
    let revision = written(bench.one.put(&entry, large.clone(), 0, None).await);
    assert_eq!(bench.got(&entry).await, Some(Value { bytes: large, revision }));
    // What is large is not left behind for cases that read everything.
    written(bench.one.delete(&entry, revision).await);
}

/// A name is compared as a whole.
pub async fn entries_with_similar_names_are_apart<K: Kv>(bench: &Bench<K>) {
    let addresses = ["b1/g1", "b1/g", "b/g1", "B1/g1", "b1/_", "_/_"];
    let mut entries: Vec<_> = addresses.iter().map(|address| bench.entry_of("t", address, 1)).collect();
    entries.extend([bench.entry_of("tt", "b1/g1", 1), bench.entry_of("t", "b1/g1", 2)]);
    let mut expected = BTreeMap::new();
    for (number, entry) in entries.iter().enumerate() {
        let text = number.to_string();
        let revision = bench.put_new(entry, &text).await;
        expected.insert(entry.clone(), value(&text, revision));
    }
    for entry in &entries {
        assert_eq!(bench.got(entry).await.as_ref(), expected.get(entry));
    }
    assert_eq!(bench.listed().await, expected);
}

async fn until_gone<K: Kv>(bench: &Bench<K>, entry: &Entry) {
    let gone = async {
        while bench.got(entry).await.is_some() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("an entry that goes after its time");
}

/// "With `ttl` it is gone after that; without, it stays."
pub async fn an_entry_is_gone_after_its_time_and_can_be_put_again<K: Kv>(bench: &Bench<K>) {
    let (entry, other) = (bench.entry(1), bench.entry(2));
    bench.put_new(&other, "stays").await;
    let first = written(bench.one.put(&entry, bytes("goes"), 0, Some(Duration::from_millis(1))).await);
    until_gone(bench, &entry).await;
    assert_eq!(bench.one.put(&entry, bytes("x"), first, None).await, Ok(Written::Conflict));
    bench.put_new(&entry, "again").await;
    assert_eq!(bench.listed().await.into_keys().collect::<Vec<_>>(), [entry, other]);
}

/// "The next `put` sets it anew."
pub async fn a_put_sets_the_time_to_live_anew<K: Kv>(bench: &Bench<K>) {
    let (longer, witness) = (bench.entry(1), bench.entry(2));
    let second = Some(Duration::from_secs(1));
    let first = written(bench.one.put(&longer, bytes("one"), 0, second).await);
    let revision = written(bench.one.put(&longer, bytes("two"), first, None).await);
    written(bench.one.put(&witness, bytes("goes"), 0, second).await);
    until_gone(bench, &witness).await;
    assert_eq!(bench.got(&longer).await, Some(value("two", revision)));
}

/// "Who begins at 0 and goes on until there is no next page gets each entry."
pub async fn a_list_has_every_entry_page_by_page<K: Kv>(bench: &Bench<K>) {
    let addresses: Vec<_> = (0..=KV_PAGE).map(|number| format!("b{}/g{number}", number % 7)).collect();
    let mut expected = BTreeMap::new();
    for address in &addresses {
        let entry = bench.entry_of("t", address, 1);
        let revision = bench.put_new(&entry, address).await;
        expected.insert(entry, value(address, revision));
    }
    assert_eq!(bench.listed().await, expected);
}

/// "In the order of their revisions, then `All` once, then each change in its order."
pub async fn a_watch_tells_what_is_there_then_that_it_was_all_then_changes<K: Kv>(bench: &Bench<K>) {
    let [a, b, c, gone] = [1, 2, 3, 4].map(|number| bench.entry(number));
    // Told first, and not expected below: it may be in the watch or not, since it is deleted right before.
    let put = bench.put_new(&gone, "gone").await;
    let first = bench.put_new(&a, "one").await;
    let second = bench.put_new(&b, "two").await;
    written(bench.one.delete(&gone, put).await);
    let third = written(bench.one.put(&a, bytes("three"), first, None).await);
    let mut watch = bench.two.watch(Bucket::Held).await.expect("an answer");
    // A copy of the bucket may be a moment behind: what it lacks comes after `All`.
    let mut now = BTreeMap::new();
    let mut all = 0;
    while all == 0 || now.len() < 2 || now.get(&a) != Some(&value("three", third)) {
        match bench.next(&mut watch).await.expect("a watch that goes on") {
            Seen::Put(entry, value) => drop(now.insert(entry, value)),
            Seen::Gone(entry, _) => drop(now.remove(&entry)),
            Seen::All => all += 1,
        }
        now.remove(&gone);
    }
    assert_eq!((all, now), (1, [(a.clone(), value("three", third)), (b.clone(), value("two", second))].into()));
    let fourth = bench.put_new(&c, "four").await;
    let fifth = written(bench.one.delete(&b, second).await);
    let sixth = written(bench.one.put(&a, bytes("six"), third, None).await);
    for expected in [Seen::Put(c, value("four", fourth)), Seen::Gone(b, fifth), Seen::Put(a, value("six", sixth))] {
        assert_eq!(bench.next(&mut watch).await, Some(expected));
    }
}

/// "Then `All` once", also when there is nothing; the bucket comes into being.
pub async fn a_watch_without_entries_tells_at_once_that_it_was_all<K: Kv>(bench: &Bench<K>) {
    let mut watch = bench.one.watch(Bucket::Tenants).await.expect("an answer");
    assert_eq!(bench.next(&mut watch).await, Some(Seen::All));
    let entry = Entry::Tenant(format!("{}-t", bench.name).parse().expect("a tenant name"));
    let revision = bench.put_new(&entry, "one").await;
    assert_eq!(timeout(PATIENCE, watch.recv()).await, Ok(Some(Seen::Put(entry.clone(), value("one", revision)))));
    let gone = written(bench.one.delete(&entry, revision).await);
    assert_eq!(timeout(PATIENCE, watch.recv()).await, Ok(Some(Seen::Gone(entry, gone))));
}

/// "The receiver ends when the reader was too slow", and others are not held up.
pub async fn a_watch_that_is_not_read_ends<K: Kv>(bench: &Bench<K>) {
    let mut slow = bench.one.watch(Bucket::Held).await.expect("an answer");
    let entries: Vec<_> = (0..WATCH_QUEUE + 16).map(|number| bench.entry_of("t", &format!("b/g{number}"), 1)).collect();
    // Changes of one entry might be told as its newest only.
    for some in entries.chunks(64) {
        let puts = some.iter().map(|entry| bench.two.put(entry, bytes("x"), 0, None));
        futures_util::future::join_all(puts).await.into_iter().for_each(|answer| assert!(written(answer) > 0));
    }
    let mut told = 0;
    while timeout(PATIENCE, slow.recv()).await.expect("the end of the watch in time").is_some() {
        told += 1;
    }
    assert!(told <= WATCH_QUEUE, "{told}");
    assert!(bench.got(&entries[WATCH_QUEUE]).await.is_some());
}

/// "Also when the store lost the bucket in between."
pub async fn a_lost_bucket_is_empty_and_revisions_go_on<K: Kv>(bench: &Bench<K>) {
    let entry = bench.entry(1);
    let before = bench.put_new(&entry, "one").await;
    (bench.lose)(Bucket::Held).await;
    assert_eq!(bench.got(&entry).await, None);
    assert!(bench.listed().await.is_empty());
    assert_eq!(bench.one.put(&entry, bytes("x"), before, None).await, Ok(Written::Conflict));
    let after = bench.put_new(&entry, "two").await;
    assert!(before < after, "{before} {after}");
}

/// "Or when something was or may have been missed, as when the store was lost."
pub async fn a_watch_ends_when_its_bucket_is_lost<K: Kv>(bench: &Bench<K>) {
    bench.put_new(&bench.entry(1), "one").await;
    let mut watch = bench.one.watch(Bucket::Held).await.expect("an answer");
    while bench.next(&mut watch).await.expect("a watch that goes on") != Seen::All {}
    (bench.lose)(Bucket::Held).await;
    assert_eq!(bench.next(&mut watch).await, None);
}
