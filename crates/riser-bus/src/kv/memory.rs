//! Buckets inside one process: what `riser dev` and the simulation run on. They are gone with the process.
//!
//! Faults and cuts stand between one edge's client and the store, as those of the [log](crate::log::memory) do; a store
//! without room ([`MemoryKv::set_full`]) concerns everybody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use riser_core::EdgeId;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{KV_PAGE, Kv, KvError, Page, Seen, VALUE_BYTES, Value, WATCH_QUEUE, Watch, Written};
use crate::log::memory::faults::{Link, Links};
pub use crate::log::memory::{FaultCounts, Faults};
use crate::subject::{Bucket, Entry};

/// Bytes that the values of one bucket take at most.
pub const BUCKET_BYTES: usize = 64 << 20;

/// The store of one cluster. Clones are the same store.
#[derive(Clone)]
pub struct MemoryKv(Arc<Inner>);

/// One edge's connection to a [`MemoryKv`]. Clones are the same connection.
#[derive(Clone)]
pub struct MemoryKvClient {
    kv: MemoryKv,
    link: Arc<Link>,
}

struct Inner {
    table: Mutex<Table>,
    links: Links,
}

struct Table {
    /// The greatest revision that was given, in any bucket and any life of it.
    last: u64,
    full: bool,
    buckets: BTreeMap<Bucket, Shelf>,
    watches: Vec<WatchEnd>,
}

#[derive(Default)]
struct Shelf {
    entries: BTreeMap<Entry, Kept>,
    /// What is kept, by revision.
    order: BTreeMap<u64, Entry>,
    bytes: usize,
}

struct Kept {
    value: Value,
    until: Option<Instant>,
}

/// The store's end of a watch. Dropping it ends the watch.
struct WatchEnd {
    bucket: Bucket,
    link: Arc<Link>,
    seen: mpsc::Sender<Seen>,
}

impl MemoryKv {
    /// An empty store.
    pub fn new() -> Self {
        Self::seeded(0)
    }

    /// The same; what its faults draw starts from this seed.
    pub fn seeded(seed: u64) -> Self {
        let table = Table { last: 0, full: false, buckets: BTreeMap::new(), watches: vec![] };
        Self(Arc::new(Inner { table: Mutex::new(table), links: Links::seeded(seed) }))
    }

    /// Connects an edge. Every connection of the same edge shares the faults that are set for its name.
    pub fn client(&self, edge: &EdgeId) -> MemoryKvClient {
        MemoryKvClient { kv: self.clone(), link: self.0.links.of(edge) }
    }

    /// Whether the store has no room for a new value.
    pub fn set_full(&self, full: bool) {
        self.0.table.lock().full = full;
    }

    /// Sets what happens to every client's calls, also to those of clients to come.
    pub fn set_faults(&self, faults: &Faults) {
        self.0.links.set_all(faults);
    }

    /// Cuts every edge off, also those to come: watches end, and calls do nothing and fail after `silence`, or at once when
    /// that is zero.
    pub fn cut_all(&self, silence: Duration) {
        self.0.links.cut_all(Some(silence));
        self.0.table.lock().watches.clear();
    }

    /// Ends a [`MemoryKv::cut_all`].
    pub fn heal_all(&self) {
        self.0.links.cut_all(None);
    }

    /// Loses a bucket: its watches end.
    pub fn lose(&self, bucket: Bucket) {
        let mut table = self.0.table.lock();
        table.buckets.remove(&bucket);
        table.watches.retain(|watch| watch.bucket != bucket);
    }

    /// How often each fault took effect, so that a test can tell that its faults happened.
    pub fn fault_counts(&self) -> FaultCounts {
        self.0.links.counts()
    }
}

impl Default for MemoryKv {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryKvClient {
    /// Sends one operation to the store and brings its answer back, as far as the faults allow.
    async fn call<T>(&self, operation: impl FnOnce(&mut Table) -> Result<T, KvError>) -> Result<T, KvError> {
        let Inner { table, links } = &*self.kv.0;
        self.link.request(links).await.map_err(|_| KvError::Unavailable)?;
        let answer = operation(&mut table.lock());
        self.link.reply(links).await.map_err(|_| KvError::Unavailable)?;
        answer
    }
}

#[async_trait]
impl Kv for MemoryKvClient {
    async fn get(&self, entry: &Entry) -> Result<Option<Value>, KvError> {
        self.call(|table| Ok(table.shelf(entry.bucket()).entries.get(entry).map(|kept| kept.value.clone()))).await
    }

    async fn put(&self, entry: &Entry, value: Bytes, expected: u64, ttl: Option<Duration>) -> Result<Written, KvError> {
        if value.is_empty() || value.len() > VALUE_BYTES {
            return Err(KvError::Size);
        }
        self.call(|table| table.put(entry, value, expected, ttl)).await
    }

    async fn delete(&self, entry: &Entry, expected: u64) -> Result<Written, KvError> {
        self.call(|table| Ok(table.delete(entry, expected))).await
    }

    async fn list(&self, bucket: Bucket, after: u64) -> Result<Page, KvError> {
        self.call(|table| Ok(table.shelf(bucket).page(after))).await
    }

    async fn watch(&self, bucket: Bucket) -> Result<Watch, KvError> {
        self.call(|table| Ok(table.watch(bucket, &self.link))).await
    }
}

impl Table {
    /// A bucket without what is over.
    fn shelf(&mut self, bucket: Bucket) -> &mut Shelf {
        let shelf = self.buckets.entry(bucket).or_default();
        let now = Instant::now();
        let over = |kept: &Kept| kept.until.is_some_and(|until| until <= now);
        let gone: Vec<_> =
            shelf.entries.iter().filter(|(_, kept)| over(kept)).map(|(entry, _)| entry.clone()).collect();
        for entry in gone {
            shelf.remove(&entry);
        }
        shelf
    }

    fn put(&mut self, entry: &Entry, bytes: Bytes, expected: u64, ttl: Option<Duration>) -> Result<Written, KvError> {
        let (full, revision) = (self.full, self.last + 1);
        let shelf = self.shelf(entry.bucket());
        if shelf.revision(entry) != expected {
            return Ok(Written::Conflict);
        }
        let before = shelf.entries.get(entry).map_or(0, |kept| kept.value.bytes.len());
        if full || shelf.bytes - before + bytes.len() > BUCKET_BYTES {
            return Err(KvError::Full);
        }
        shelf.remove(entry);
        shelf.bytes += bytes.len();
        let value = Value { bytes, revision };
        let until = ttl.map(|ttl| Instant::now() + Duration::from_secs(ttl.as_secs().max(1)));
        shelf.entries.insert(entry.clone(), Kept { value: value.clone(), until });
        shelf.order.insert(revision, entry.clone());
        self.last = revision;
        self.tell(entry.bucket(), &Seen::Put(entry.clone(), value));
        Ok(Written::Yes(revision))
    }

    fn delete(&mut self, entry: &Entry, expected: u64) -> Written {
        let shelf = self.shelf(entry.bucket());
        if expected == 0 || shelf.revision(entry) != expected {
            return Written::Conflict;
        }
        shelf.remove(entry);
        self.last += 1;
        self.tell(entry.bucket(), &Seen::Gone(entry.clone(), self.last));
        Written::Yes(self.last)
    }

    fn watch(&mut self, bucket: Bucket, link: &Arc<Link>) -> Watch {
        let (seen, watch) = mpsc::channel(WATCH_QUEUE);
        let shelf = self.shelf(bucket);
        let there = shelf.order.values().filter_map(|entry| Some((entry, shelf.entries.get(entry)?)));
        let there = there.map(|(entry, kept)| Seen::Put(entry.clone(), kept.value.clone()));
        // One that does not take all that is there ends before it has begun.
        if there.chain([Seen::All]).all(|told| seen.try_send(told).is_ok()) {
            self.watches.push(WatchEnd { bucket, link: link.clone(), seen });
        }
        watch
    }

    /// Tells those who watch; who is too slow, or gone, is not told any more.
    fn tell(&mut self, bucket: Bucket, seen: &Seen) {
        self.watches.retain(|watch| {
            watch.bucket != bucket || !watch.link.is_cut() && watch.seen.try_send(seen.clone()).is_ok()
        });
    }
}

impl Shelf {
    fn revision(&self, entry: &Entry) -> u64 {
        self.entries.get(entry).map_or(0, |kept| kept.value.revision)
    }

    fn remove(&mut self, entry: &Entry) {
        if let Some(kept) = self.entries.remove(entry) {
            self.order.remove(&kept.value.revision);
            self.bytes -= kept.value.bytes.len();
        }
    }

    fn page(&self, after: u64) -> Page {
        let mut left = self.order.range(after.saturating_add(1)..);
        let page = left.by_ref().take(KV_PAGE);
        let entries: Vec<_> =
            page.filter_map(|(_, entry)| Some((entry.clone(), self.entries.get(entry)?.value.clone()))).collect();
        let newest = entries.last().map(|(_, value)| value.revision);
        Page { next: newest.filter(|_| left.next().is_some()), entries }
    }
}
