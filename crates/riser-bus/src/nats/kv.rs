//! Buckets on JetStream, kept as NATS' own tools keep them: a stream `KV_<bucket>` whose subjects are the entries, with the
//! newest message of each. A revision is a message's number.
//!
//! A deletion is a message without a payload, which is dropped after a while. What is read is read from the stream's
//! leader, or from the nearest copy where more follows anyhow. A bucket that is made begins with the number of the
//! milliseconds of its making, so that revisions grow across a loss of the bucket.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_nats::HeaderMap;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use tokio::time::timeout;

use super::jetstream::{Ack, Info, JetStream, Kept, Trouble, nanos};
use super::log::{CALL_LIMIT, Tries};
use super::{KvConfig, NatsClient, watches};
use crate::kv::{KV_PAGE, Kv, KvError, Page, VALUE_BYTES, Value, Watch, Written};
use crate::subject::{Bucket, Entry};

/// For how long it is known that an entry was deleted, so that a late reader of the stream sees it.
const GONE_KEPT: Duration = Duration::from_secs(3_600);
/// Bytes of a message besides its value: its subject and headers.
const AROUND: usize = 1_024;
/// For how long JetStream finds repeats by a name, which ours do not have: as short as it may be, since it costs memory.
const WINDOW: Duration = Duration::from_millis(100);

/// The buckets of one process. Clones are the same.
#[derive(Clone)]
pub struct NatsKv {
    client: NatsClient,
    jetstream: JetStream,
    config: Arc<KvConfig>,
    /// Buckets that are known to be there and to follow the configuration.
    known: Arc<Mutex<Vec<Bucket>>>,
}

/// What an entry is to become.
struct Change<'a> {
    entry: &'a Entry,
    /// Empty when it is to be deleted.
    payload: Bytes,
    expected: u64,
    ttl: Option<Duration>,
}

impl NatsKv {
    pub(super) fn new(client: NatsClient, config: KvConfig) -> Self {
        let jetstream = JetStream(client.link.clone());
        Self { client, jetstream, config: Arc::new(config), known: Arc::default() }
    }

    /// Makes a bucket if it is not there, and has it follow the configuration. What cannot be followed now, as when there
    /// are too few servers for the copies, is left as it is: it is no reason to refuse values.
    async fn ensure(&self, bucket: Bucket) -> Result<(), Trouble> {
        if self.known.lock().contains(&bucket) {
            return Ok(());
        }
        let stream = bucket.stream();
        match self.jetstream.call::<Info>("STREAM.INFO", &stream, &json!({})).await {
            Ok(Info { config: before, .. }) => {
                if before["subjects"] != json!([bucket.subjects()]) {
                    self.jetstream.0.signals.ignore("a stream");
                    return Err(Trouble::Silent);
                }
                let mut config = before.clone();
                self.set_limits(&mut config, bucket);
                if config != before {
                    match self.jetstream.call::<Json>("STREAM.UPDATE", &stream, &config).await {
                        Ok(_) | Err(Trouble::Failed(_) | Trouble::Full) => {}
                        Err(trouble) => return Err(trouble),
                    }
                }
            }
            Err(Trouble::Missing) => {
                let config = self.new_config(bucket);
                // When somebody else is making it, the next try finds it.
                self.jetstream.call::<Json>("STREAM.CREATE", &stream, &config).await?;
            }
            Err(trouble) => return Err(trouble),
        }
        self.known.lock().push(bucket);
        Ok(())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "revisions grow over the lives of a bucket, which no clock of ours is in"
    )]
    fn new_config(&self, bucket: Bucket) -> Json {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut config = json!({
            "name": bucket.stream(),
            "subjects": [bucket.subjects()],
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "max_consumers": -1,
            "max_msgs": -1,
            "max_msgs_per_subject": 1,
            "max_msg_size": VALUE_BYTES + AROUND,
            "max_age": 0,
            "duplicate_window": nanos(WINDOW),
            "allow_direct": true,
            "allow_rollup_hdrs": true,
            "allow_msg_ttl": true,
            "deny_delete": true,
            "first_seq": u64::try_from(now.as_millis()).unwrap_or(1),
        });
        self.set_limits(&mut config, bucket);
        config
    }

    fn set_limits(&self, config: &mut Json, bucket: Bucket) {
        config["num_replicas"] = json!(self.config.replicas);
        config["max_bytes"] = json!(match bucket {
            Bucket::Held => self.config.held_bytes,
            Bucket::Tenants => self.config.tenants_bytes,
            Bucket::Flats => self.config.flats_bytes,
        });
    }

    /// Makes a change, whatever number of tries it takes.
    async fn change(&self, change: &Change<'_>) -> Result<Written, KvError> {
        let bucket = change.entry.bucket();
        let mut tries = Tries::default();
        // Whether it may be made without our knowing.
        let mut doubt = false;
        let mut expected = change.expected;
        loop {
            let tried = match self.ensure(bucket).await {
                Ok(()) => self.send(change, expected).await,
                Err(trouble) => Err(trouble),
            };
            match tried {
                Ok(revision) => return Ok(Written::Yes(revision)),
                Err(Trouble::Full) => return Err(KvError::Full),
                Err(Trouble::Conflict) => match self.last(change.entry).await {
                    Ok(last) if doubt && change.is_done(last.as_ref()) => {
                        return Ok(Written::Yes(last.map_or(change.expected, |last| last.seq)));
                    }
                    // JetStream was not done yet with the change before, or somebody undid the conflict.
                    Ok(last) if last.as_ref().map_or(0, |last| last.seq) == expected => {}
                    // Nothing is there but the word that something was deleted: that is the one to replace.
                    Ok(Some(last)) if change.expected == 0 && last.payload.is_empty() => expected = last.seq,
                    // What was there a moment ago went by its age.
                    Ok(None) if change.expected == 0 => expected = 0,
                    Ok(_) => return Ok(Written::Conflict),
                    Err(_) => {}
                },
                Err(trouble) => {
                    doubt |= trouble == Trouble::Silent;
                    self.known.lock().retain(|known| *known != bucket);
                }
            }
            tries.pause().await;
        }
    }

    async fn send(&self, change: &Change<'_>, expected: u64) -> Result<u64, Trouble> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", expected.to_string());
        if change.payload.is_empty() {
            headers.insert("KV-Operation", "DEL");
        }
        if let Some(ttl) = change.ttl {
            headers.insert("Nats-TTL", format!("{}s", ttl.as_secs().max(1)));
        }
        let answer = self.jetstream.one(change.entry.to_string(), headers, change.payload.clone()).await?;
        let ack: Ack = self.jetstream.parse("store", &answer)?;
        if ack.stream == change.entry.bucket().stream() { Ok(ack.seq) } else { Err(Trouble::Silent) }
    }

    /// The newest message of an entry, which may say that it was deleted.
    async fn last(&self, entry: &Entry) -> Result<Option<Kept>, Trouble> {
        let asked = json!({ "last_by_subj": entry.to_string() });
        self.jetstream.ask_leader(&entry.bucket().stream(), &asked).await
    }

    async fn page(&self, bucket: Bucket, after: u64) -> Result<Page, Trouble> {
        let (stream, subjects) = (bucket.stream(), bucket.subjects());
        let page = self.jetstream.page_of(&stream, &subjects, after.saturating_add(1), KV_PAGE).await?;
        let next = page.last().map(|newest| newest.seq);
        let mut entries = vec![];
        for kept in page.into_iter().filter(|kept| !kept.payload.is_empty()) {
            match Entry::parse(bucket, &kept.subject) {
                Some(entry) => entries.push((entry, value(&kept))),
                None => self.jetstream.0.signals.ignore("an entry"),
            }
        }
        Ok(Page { entries, next })
    }
}

impl NatsKv {
    async fn begin_watch(&self, bucket: Bucket) -> Result<Watch, Trouble> {
        self.ensure(bucket).await?;
        let watch = watches::begin(&self.client, bucket).await;
        if watch.is_err() {
            self.known.lock().retain(|known| *known != bucket);
        }
        watch
    }
}

impl Change<'_> {
    /// Whether this, or the same of somebody else, is what an entry's newest message says.
    fn is_done(&self, last: Option<&Kept>) -> bool {
        last.map_or(self.payload.is_empty(), |last| last.payload == self.payload && last.seq > self.expected)
    }
}

#[async_trait]
impl Kv for NatsKv {
    async fn get(&self, entry: &Entry) -> Result<Option<Value>, KvError> {
        let last = within(patiently(|| self.last(entry))).await?;
        Ok(last.filter(|kept| !kept.payload.is_empty()).as_ref().map(value))
    }

    async fn put(&self, entry: &Entry, value: Bytes, expected: u64, ttl: Option<Duration>) -> Result<Written, KvError> {
        if value.is_empty() || value.len() > VALUE_BYTES {
            return Err(KvError::Size);
        }
        within(self.change(&Change { entry, payload: value, expected, ttl })).await?
    }

    async fn delete(&self, entry: &Entry, expected: u64) -> Result<Written, KvError> {
        if expected == 0 {
            return Ok(Written::Conflict);
        }
        let change = Change { entry, payload: Bytes::new(), expected, ttl: Some(GONE_KEPT) };
        within(self.change(&change)).await?
    }

    async fn list(&self, bucket: Bucket, after: u64) -> Result<Page, KvError> {
        within(patiently(|| self.page(bucket, after))).await
    }

    async fn watch(&self, bucket: Bucket) -> Result<Watch, KvError> {
        within(patiently(|| self.begin_watch(bucket))).await
    }
}

/// Makes a call whatever number of tries it takes.
async fn patiently<T, C: Future<Output = Result<T, Trouble>>>(mut call: impl FnMut() -> C) -> T {
    let mut tries = Tries::default();
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(_) => tries.pause().await,
        }
    }
}

/// Gives a call its time.
async fn within<T>(call: impl Future<Output = T>) -> Result<T, KvError> {
    timeout(CALL_LIMIT, call).await.map_err(|_| KvError::Unavailable)
}

/// A message's value. Copied, since a small one would keep the block that was read with it.
fn value(kept: &Kept) -> Value {
    Value { bytes: Bytes::copy_from_slice(&kept.payload), revision: kept.seq }
}
