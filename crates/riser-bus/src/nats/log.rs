//! The log on JetStream.
//!
//! One stream per tenant, made with its first event. Its life is a random number in its subject
//! (`riser.v1.log.<tenant>.<life>`), so that JetStream's answer to an event is for the life that it was sent to, and every
//! event that is read tells its life. Sender, address and id are hashed into the name by which JetStream finds repeats.
//!
//! A call is tried again until it is answered or its time is over: a stream whose leader died has another one after some
//! seconds, and the name of an event makes repeating it safe, within its window.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use riser_core::event::{Cursor, Event};
use riser_core::tenant::Retention;
use riser_core::{GatewayKey, TenantId};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::jetstream::{ATTEMPT_LIMIT, Ack, JetStream, Kept, Stream, Trouble};
use super::retention::{self, Tables};
use super::{LogConfig, NatsClient, tail};
use crate::log::{Appended, Bounds, Erased, LOG_PAGE, Log, LogError, Page, Stored, Tail};
use crate::subject::EventSubject;

/// How long a call may take in all. NATS fails over in 7 to 8 s: within them some calls fail, and say so.
pub const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Between the first two tries of a call; it doubles with each. Half of it is by chance, so that the calls that a dead
/// leader leaves do not come at once.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest pause, so that a new leader is found soon.
const PAUSE_MOST: Duration = Duration::from_millis(400);
/// Streams that are looked up or made at once. JetStream's leader does that for the whole cluster, and after a failover
/// many calls want it together.
const LOOKUPS: usize = 64;
/// The part of a tenant's bytes after which an edge that wrote it looks whether there are too many.
const LOOK_AFTER_PART: u64 = 16;
/// How often the oldest events are dropped until there are no more bytes than allowed: once, unless the newer ones are much
/// larger than the older.
const TRIMS: usize = 8;
/// Events that are deleted at once: each is a call that the stream's leader agrees on with its copies.
const ERASED_AT_ONCE: usize = 32;
/// Tenants whose stream's life is remembered. One costs some hundred bytes; beyond, all are asked for again.
const KNOWN_STREAMS: usize = 16_384;

/// The log of one process. Clones are the same.
#[derive(Clone)]
pub struct NatsLog {
    client: NatsClient,
    jetstream: JetStream,
    config: Arc<LogConfig>,
    known: Arc<Mutex<BTreeMap<TenantId, Known>>>,
    lookups: Arc<Semaphore>,
    /// What tenants say of themselves; none where nobody knows them.
    tables: Option<Tables>,
}

/// What is remembered of a stream that was stored in.
#[derive(Clone, Copy)]
struct Known {
    life: u64,
    window: Duration,
    /// What its tenant said when the stream followed.
    own: Retention,
    /// Bytes that were stored from here since the stream's were looked at.
    written: u64,
}

/// How often a call was tried in vain.
#[derive(Default)]
pub(super) struct Tries(u32);

impl Tries {
    pub(super) async fn pause(&mut self) {
        let most = PAUSE.saturating_mul(1 << self.0.min(8)).min(PAUSE_MOST);
        self.0 += 1;
        sleep(most.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    }
}

impl NatsLog {
    pub(super) fn new(client: NatsClient, config: LogConfig) -> Self {
        let jetstream = JetStream(client.link.clone());
        let lookups = Arc::new(Semaphore::new(LOOKUPS));
        Self { client, jetstream, config: Arc::new(config), known: Arc::default(), lookups, tables: None }
    }

    /// The same for who knows the tenants: of each no more is kept than its [`Retention`] says. What changes there holds at
    /// once, also for a tenant that stores nothing.
    #[must_use]
    pub fn of_tenants(self, tables: Tables) -> Self {
        // When there are too many tasks, streams follow with their next events.
        self.client.tasks.spawn(retention::keep(self.jetstream.clone(), self.config.clone(), tables.clone()));
        Self { tables: Some(tables), ..self }
    }

    fn own(&self, tenant: &TenantId) -> Retention {
        let of = |tables: &Tables| Some(tables.borrow().get(tenant)?.retention);
        self.tables.as_ref().and_then(of).unwrap_or_default()
    }

    pub(super) fn jetstream(&self) -> &JetStream {
        &self.jetstream
    }

    pub(super) fn config(&self) -> &LogConfig {
        &self.config
    }

    /// The stream that an event is to be stored in, which is made if there is none.
    async fn stream_for(&self, tenant: &TenantId, dedup: Duration) -> Result<Known, Trouble> {
        let own = self.own(tenant);
        let settings = retention::settings(&self.config, own);
        let window = dedup.min(settings.max_age);
        let is_good = |known: &Known| known.window >= window && known.own == own;
        let known = || self.known.lock().get(tenant).copied().filter(is_good);
        if let Some(known) = known() {
            return Ok(known);
        }
        let _turn = self.lookups.acquire().await.map_err(|_| Trouble::Silent)?;
        match known() {
            Some(known) => Ok(known),
            None => self.find_or_make(tenant, own, &settings, window).await,
        }
    }

    async fn find_or_make(
        &self,
        tenant: &TenantId,
        own: Retention,
        settings: &LogConfig,
        window: Duration,
    ) -> Result<Known, Trouble> {
        let stream = match self.jetstream.stream(tenant).await? {
            Some(stream) => self.jetstream.follow(tenant, stream, settings, window).await?,
            // When somebody else is making it, the next try finds it.
            None => self.jetstream.create(tenant, settings, window, None).await?,
        };
        let found = Known { life: stream.bounds.life, window: stream.window, own, written: 0 };
        let mut known = self.known.lock();
        if known.len() >= KNOWN_STREAMS {
            known.clear();
        }
        known.insert(tenant.clone(), found);
        drop(known);
        if stream.bytes > settings.max_bytes {
            self.trim(tenant, settings.max_bytes);
        }
        Ok(found)
    }

    /// Stores an event, whatever number of tries it takes.
    async fn store(&self, tenant: &TenantId, event: &Event, dedup: Duration) -> Result<Appended, LogError> {
        let name = name(event);
        let payload: Bytes = serde_json::to_vec(event).map_err(|_| LogError::Unavailable)?.into();
        let mut tries = Tries::default();
        // Since when it may be stored without our knowing.
        let mut doubt: Option<Instant> = None;
        loop {
            match self.stream_for(tenant, dedup).await {
                // A repeat that came after the window would be another event.
                Ok(known) if doubt.is_some_and(|since| since.elapsed() + ATTEMPT_LIMIT > known.window) => {
                    return Err(LogError::Unavailable);
                }
                Ok(known) => {
                    let subject = EventSubject { tenant: tenant.clone(), life: known.life };
                    let begun = Instant::now();
                    match self.jetstream.store(&subject, &name, payload.clone()).await {
                        Ok(ack) => return Ok(self.stored(&subject, &ack, name.len() + payload.len())),
                        Err(Trouble::Full) => return Err(LogError::Full),
                        Err(Trouble::Silent) => drop(doubt.get_or_insert(begun)),
                        Err(_) => {}
                    }
                    // The stream may be gone, or have another life by now.
                    self.known.lock().remove(tenant);
                }
                Err(Trouble::Full) => return Err(LogError::Full),
                Err(_) => {}
            }
            tries.pause().await;
        }
    }

    /// What is answered, once what was written is counted.
    fn stored(&self, subject: &EventSubject, ack: &Ack, bytes: usize) -> Appended {
        let most = retention::settings(&self.config, self.own(&subject.tenant)).max_bytes;
        let mut look = false;
        if let Some(known) = self.known.lock().get_mut(&subject.tenant).filter(|_| !ack.duplicate) {
            known.written += bytes as u64;
            look = known.written > most / LOOK_AFTER_PART;
            if look {
                known.written = 0;
            }
        }
        if look {
            self.trim(&subject.tenant, most);
        }
        Appended { cursor: Cursor { life: subject.life, seq: ack.seq }, duplicate: ack.duplicate }
    }

    /// Looks at a stream's bytes in a task of its own. When it fails, the next look does it.
    fn trim(&self, tenant: &TenantId, most: u64) {
        let (jetstream, tenant) = (self.jetstream.clone(), tenant.clone());
        self.client.tasks.spawn(async move { _ = trim(&jetstream, &tenant, most).await });
    }

    /// A tenant's stream, whatever number of tries it takes.
    async fn stream(&self, tenant: &TenantId) -> Option<Stream> {
        let mut tries = Tries::default();
        loop {
            match self.jetstream.stream(tenant).await {
                Ok(stream) => return stream,
                Err(_) => tries.pause().await,
            }
        }
    }

    async fn page(&self, tenant: &TenantId, from: u64) -> Page {
        let mut tried = false;
        let mut tries = Tries::default();
        loop {
            let Some(Stream { bounds, .. }) = self.stream(tenant).await else { return Page::default() };
            let start = from.max(bounds.first);
            if let Ok(events) = self.events(tenant, bounds, start).await {
                // Retention may have gone on meanwhile, which the bounds are to show. When they do not, somebody deleted
                // an event by hand.
                if tried || events.is_empty() || events[0].seq == start {
                    return Page { bounds, events };
                }
                tried = true;
            }
            tries.pause().await;
        }
    }

    /// Deletes a tenant's stream, whatever number of tries it takes. Gives how many events it held.
    async fn erase_stream(&self, tenant: &TenantId) -> u64 {
        let held = self.stream(tenant).await.map_or(0, |stream| stream.events);
        let mut tries = Tries::default();
        while self.jetstream.delete(tenant).await.is_err() {
            tries.pause().await;
        }
        self.known.lock().remove(tenant);
        held
    }

    /// Deletes the events at an address among a page, some at once, whatever number of tries it takes.
    async fn erase_page(&self, key: &GatewayKey, from: u64) -> Erased {
        let page = self.page(&key.tenant, from).await;
        let next = page.events.last().map(|stored| stored.seq + 1).filter(|next| *next <= page.bounds.last);
        let delete = |seq: u64| async move {
            let mut tries = Tries::default();
            while self.jetstream.delete_event(&key.tenant, seq).await.is_err() {
                tries.pause().await;
            }
        };
        let there: Vec<u64> =
            page.events.iter().filter(|stored| stored.event.of == key.address).map(|stored| stored.seq).collect();
        let events = stream::iter(there).map(delete).buffer_unordered(ERASED_AT_ONCE).count().await as u64;
        Erased { events, next }
    }

    /// The events from a number on, which is not before the first.
    async fn events(&self, tenant: &TenantId, bounds: Bounds, start: u64) -> Result<Vec<Stored>, Trouble> {
        let subject = EventSubject { tenant: tenant.clone(), life: bounds.life };
        let written = subject.to_string();
        let (mut next, mut events) = (start, vec![]);
        while next <= bounds.last && events.len() < LOG_PAGE {
            let left = usize::try_from(bounds.last - next + 1).unwrap_or(LOG_PAGE);
            let kept = self.jetstream.page(&subject, next, left.min(LOG_PAGE - events.len())).await?;
            let Some(newest) = kept.last() else { break };
            next = newest.seq + 1;
            for kept in kept {
                if kept.subject != written {
                    return Err(Trouble::Missing);
                }
                match stored(&kept) {
                    Some(stored) if stored.seq <= bounds.last => events.push(stored),
                    Some(_) => {}
                    None => self.client.link.signals.ignore("an event"),
                }
            }
        }
        Ok(events)
    }
}

#[async_trait]
impl Log for NatsLog {
    async fn append(&self, tenant: &TenantId, mut event: Event, dedup: Duration) -> Result<Appended, LogError> {
        event.at_ms = 0;
        within(self.store(tenant, &event, dedup)).await?
    }

    async fn read(&self, tenant: &TenantId, from: u64) -> Result<Page, LogError> {
        within(self.page(tenant, from)).await
    }

    async fn bounds(&self, tenant: &TenantId) -> Result<Bounds, LogError> {
        Ok(within(self.stream(tenant)).await?.map(|stream| stream.bounds).unwrap_or_default())
    }

    async fn tail(&self, tenant: &TenantId) -> Result<Tail, LogError> {
        within(tail::begin(&self.client, tenant)).await?.map_err(|_| LogError::Unavailable)
    }

    async fn erase(&self, tenant: &TenantId) -> Result<u64, LogError> {
        within(self.erase_stream(tenant)).await
    }

    async fn erase_gateway(&self, key: &GatewayKey, from: u64) -> Result<Erased, LogError> {
        within(self.erase_page(key, from)).await
    }
}

/// Gives a call its time.
async fn within<T>(call: impl Future<Output = T>) -> Result<T, LogError> {
    timeout(CALL_LIMIT, call).await.map_err(|_| LogError::Unavailable)
}

/// What makes an event the same: a hash of its sender, its address and its id, of which none runs over into another.
fn name(event: &Event) -> String {
    let mut hash = Sha256::new();
    for part in [&event.from, &event.of.to_string(), event.id.as_str()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    URL_SAFE_NO_PAD.encode(hash.finalize())
}

/// Looks at a stream's bytes, and drops the oldest events while there are too many.
pub(super) async fn trim(jetstream: &JetStream, tenant: &TenantId, most: u64) -> Result<(), Trouble> {
    for _ in 0..TRIMS {
        let Some(keep) = jetstream.stream(tenant).await?.and_then(|stream| keep(&stream, most)) else { return Ok(()) };
        jetstream.keep(tenant, keep).await?;
    }
    Ok(())
}

/// How many of its newest events a stream is to keep so that they take no more than so many bytes, with a little room; none
/// when they do not.
fn keep(stream: &Stream, most: u64) -> Option<u64> {
    let share = u128::from(stream.events) * u128::from(most) * 15 / 16 / u128::from(stream.bytes.max(1));
    (stream.bytes > most && stream.events > 1).then(|| u64::try_from(share).unwrap_or(u64::MAX).max(1))
}

/// An event as it is read; none when it is not one of ours.
pub(super) fn stored(kept: &Kept) -> Option<Stored> {
    let mut event: Event = serde_json::from_slice(&kept.payload).ok()?;
    // One that was restored keeps the time it had; an edge leaves that to the store.
    if event.at_ms == 0 {
        event.at_ms = kept.at_ms;
    }
    Some(Stored { seq: kept.seq, event })
}
