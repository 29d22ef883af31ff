//! The log on JetStream.
//!
//! One stream per tenant, made with its first event. Its life is a random number in its subject
//! (`riser.v1.log.<tenant>.<life>`), so that JetStream's answer to an event is for the life that it was sent to, and every
//! event that is read tells its life. Sender, address and id are hashed into the name by which JetStream finds repeats.
//!
//! A call is tried again until it is answered or its time is over: a stream whose leader died has another one after some
//! seconds, and the name of an event makes repeating it safe.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use parking_lot::Mutex;
use riser_core::TenantId;
use riser_core::event::{Cursor, Event};
use sha2::{Digest, Sha256};
use tokio::time::{sleep, timeout};

use super::jetstream::{JetStream, Kept, Stream, Trouble};
use super::{LogConfig, NatsClient, tail};
use crate::log::{Appended, Bounds, LOG_PAGE, Log, LogError, Page, Stored, Tail};
use crate::subject::EventSubject;

/// How long a call may take in all. NATS fails over in 7 to 8 s: within them some calls fail, and say so.
pub const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Between two tries of a call.
const PAUSE: Duration = Duration::from_millis(50);
/// Tenants whose stream's life is remembered. One costs some hundred bytes; beyond, all are asked for again.
const KNOWN_STREAMS: usize = 16_384;

/// The log of one process. Clones are the same.
#[derive(Clone)]
pub struct NatsLog {
    client: NatsClient,
    jetstream: JetStream,
    config: Arc<LogConfig>,
    known: Arc<Mutex<BTreeMap<TenantId, Known>>>,
}

/// What is remembered of a stream that was stored in.
#[derive(Clone, Copy)]
struct Known {
    life: u64,
    window: Duration,
}

impl NatsLog {
    pub(super) fn new(client: NatsClient, config: LogConfig) -> Self {
        let jetstream = JetStream(client.link.clone());
        Self { client, jetstream, config: Arc::new(config), known: Arc::default() }
    }

    /// The stream that an event is to be stored in, which is made if there is none.
    async fn stream_for(&self, tenant: &TenantId, dedup: Duration) -> Result<EventSubject, Trouble> {
        let known = self.known.lock().get(tenant).copied();
        let window = dedup.min(self.config.max_age);
        let life = match known.filter(|known| known.window >= window) {
            Some(known) => known.life,
            None => self.find_or_make(tenant, window).await?,
        };
        Ok(EventSubject { tenant: tenant.clone(), life })
    }

    async fn find_or_make(&self, tenant: &TenantId, window: Duration) -> Result<u64, Trouble> {
        let stream = match self.jetstream.stream(tenant).await? {
            Some(stream) => self.jetstream.follow(tenant, stream, &self.config, window).await?,
            // When somebody else is making it, the next try finds it.
            None => self.jetstream.create(tenant, &self.config, window).await?,
        };
        let mut known = self.known.lock();
        if known.len() >= KNOWN_STREAMS {
            known.clear();
        }
        known.insert(tenant.clone(), Known { life: stream.bounds.life, window: stream.window });
        Ok(stream.bounds.life)
    }

    /// Stores an event, whatever number of tries it takes.
    async fn store(&self, tenant: &TenantId, event: &Event, dedup: Duration) -> Result<Appended, LogError> {
        let name = name(event);
        let payload: Bytes = serde_json::to_vec(event).map_err(|_| LogError::Unavailable)?.into();
        loop {
            match self.try_store(tenant, &name, &payload, dedup).await {
                Ok(appended) => return Ok(appended),
                Err(Trouble::Full) => return Err(LogError::Full),
                // The stream may be gone, or have another life by now.
                Err(_) => drop(self.known.lock().remove(tenant)),
            }
            sleep(PAUSE).await;
        }
    }

    async fn try_store(
        &self,
        tenant: &TenantId,
        name: &str,
        payload: &Bytes,
        dedup: Duration,
    ) -> Result<Appended, Trouble> {
        let subject = self.stream_for(tenant, dedup).await?;
        let ack = self.jetstream.store(&subject, name, payload.clone()).await?;
        Ok(Appended { cursor: Cursor { life: subject.life, seq: ack.seq }, duplicate: ack.duplicate })
    }

    /// A tenant's stream, whatever number of tries it takes.
    async fn stream(&self, tenant: &TenantId) -> Option<Stream> {
        loop {
            match self.jetstream.stream(tenant).await {
                Ok(stream) => return stream,
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    async fn page(&self, tenant: &TenantId, from: u64) -> Page {
        let mut tried = false;
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
            sleep(PAUSE).await;
        }
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

/// An event as it is read; none when it is not one of ours.
pub(super) fn stored(kept: &Kept) -> Option<Stored> {
    let mut event: Event = serde_json::from_slice(&kept.payload).ok()?;
    event.at_ms = kept.at_ms;
    Some(Stored { seq: kept.seq, event })
}
