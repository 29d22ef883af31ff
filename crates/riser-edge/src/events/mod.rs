//! Events: stored before they are acknowledged, and delivered from the store to whoever listens.
//!
//! [`Sender`] stores what a session sends, one after the other. [`feed`] follows what is stored, for all listeners of a
//! tenant on this edge; [`delivery`] gives it to each at its own speed, from the [`ring`] of the newest and from the
//! [`pages`] that are read for those who were away; [`follower`] knows where each of them stands.
//! [`audit`] makes the broker's own, of who did what.

pub(crate) mod audit;
mod delivery;
pub(crate) mod feed;
mod follower;
pub(crate) mod metrics;
mod newest;
mod pages;
mod ring;

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use riser_bus::log::{Appended, LogError};
use riser_core::event::{Cursor, Event, EventId, EventType};
use riser_core::frame::{N, NewEvent, outbound};
use riser_core::{Address, ErrorCode, GatewayKey, Identity, Json, PathFilter, Pattern, TenantId, Verb};
use sha2::{Digest as _, Sha256};
use tokio::time::{Duration, Instant, sleep, timeout_at};

use crate::commands::issuer::who;
use crate::session::answer_error;
use crate::shared::{Busy, Shared};
use crate::ws::{Conn, frame};

/// Events of one session that wait to be stored.
const WAITING: usize = 512;
/// Bytes of events that wait to be stored: several messages of the largest size.
const WAITING_BYTES: usize = 256 * 1024;
/// How soon a call that nobody answered is repeated.
const REPEAT: Duration = Duration::from_millis(250);

/// Why an event was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotStored {
    pub(crate) code: ErrorCode,
    pub(crate) message: &'static str,
}

/// What stores the events of one session, in the order in which it sent them.
pub(crate) struct Sender {
    conn: Arc<Conn>,
    tenant: TenantId,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<(Option<N>, Event, Instant)>,
    bytes: usize,
    working: bool,
}

impl Sender {
    pub(crate) fn new(conn: &Arc<Conn>, tenant: &TenantId) -> Arc<Self> {
        Arc::new(Self { conn: conn.clone(), tenant: tenant.clone(), waiting: Mutex::default() })
    }

    /// Takes an event; what becomes of it is answered later.
    pub(crate) fn send(self: &Arc<Self>, shared: &Arc<Shared>, n: Option<N>, event: Event) {
        let mut waiting = self.waiting.lock();
        if waiting.events.len() >= WAITING || waiting.bytes + bytes(&event) > WAITING_BYTES {
            drop(waiting);
            shared.metrics.events.stored("rate_limited");
            let text = "more events wait to be stored than may; send it again later";
            return answer_error(shared, &self.conn, n, ErrorCode::RateLimited, text);
        }
        waiting.bytes += bytes(&event);
        waiting.events.push_back((n, event, Instant::now()));
        if !std::mem::replace(&mut waiting.working, true) {
            drop(waiting);
            let (shared, sender, busy) = (shared.clone(), self.clone(), shared.busy());
            shared.clone().tasks.spawn(async move { sender.work(&shared, busy).await });
        }
    }

    async fn work(&self, shared: &Arc<Shared>, _busy: Busy) {
        loop {
            let (n, event, since) = {
                let mut waiting = self.waiting.lock();
                let Some((n, event, since)) = waiting.events.pop_front() else {
                    waiting.working = false;
                    return;
                };
                waiting.bytes -= bytes(&event);
                (n, event, since)
            };
            match store(shared, &self.tenant, event, since).await {
                Ok(cursor) => {
                    if let Some(n) = n {
                        self.conn.push(frame::text(&outbound::ok_cursor(n, cursor)));
                    }
                }
                Err(error) => answer_error(shared, &self.conn, n, error.code, error.message),
            }
            self.conn.flush();
        }
    }
}

fn bytes(event: &Event) -> usize {
    event.data.as_ref().map_or(0, |data| data.as_str().len())
        + event.path.as_ref().map_or(0, |path| path.as_str().len())
}

/// An event as it is to be stored.
pub(crate) fn event_of(shared: &Shared, identity: &Identity, of: Address, new: NewEvent) -> Event {
    let NewEvent { id, path, kind, data, ts_ms } = new;
    // Without a name of its sender's it gets one that nobody else has, and is never taken for another.
    let own = || shared.next_key().parse().expect("an edge's name and a number are a short text");
    let id = id.unwrap_or_else(own);
    Event { of, id, path, kind, data, from: who(identity), at_ms: 0, ts_ms }
}

/// The event that somebody has seen a notice.
pub(crate) fn seen(identity: &Identity, of: Address, notice: &EventId) -> Event {
    // One per reader and notice, however often it is said. A hash, because a name may be as long as an id may be.
    let hash = Sha256::digest(notice.as_str().as_bytes());
    let id = hash.iter().fold("seen-".to_owned(), |id, byte| id + &format!("{byte:02x}"));
    Event {
        of,
        id: id.parse().expect("a word and a hash are a short text"),
        path: None,
        kind: "seen".parse().expect("a word is a type"),
        data: Some(Json::of(&serde_json::json!({ "id": notice }))),
        from: who(identity),
        at_ms: 0,
        ts_ms: None,
    }
}

/// Whether a credential may send an event. Nobody may send those of the audit, which are the broker's word. Others it may at
/// the address, and at its path or, without one, at all of its paths. A gateway may at its own address.
pub(crate) fn may_send(identity: &Identity, of: &Address, new: &NewEvent) -> bool {
    if audit::is_type(&new.kind) {
        return false;
    }
    match (identity.address(), &new.path) {
        (Some(own), _) => own == of,
        (None, Some(path)) => identity.allows_path(Verb::Event, of, path),
        (None, None) => identity.allows(Verb::Event, &Pattern::One(of.clone()), &PathFilter::ALL),
    }
}

/// An event of the broker's own about a gateway. The same id is the same event.
pub(crate) fn of_broker(key: &GatewayKey, id: EventId, kind: EventType, data: Json) -> Event {
    let of = key.address.clone();
    Event { of, id, path: None, kind, data: Some(data), from: "broker".into(), at_ms: 0, ts_ms: None }
}

/// Stores an event that came at some time, repeating the call for as long as its sender waits: its id makes that safe.
pub(crate) async fn store(
    shared: &Shared,
    tenant: &TenantId,
    event: Event,
    since: Instant,
) -> Result<Cursor, NotStored> {
    let dedup = shared.with_tenant(tenant, |t| t.limits.event_dedup_ms).unwrap_or_default();
    let dedup = Duration::from_millis(dedup);
    let until = since + shared.config.answer;
    // Beyond the window a repetition would be another event.
    let repeat_until = until.min(Instant::now() + dedup);
    let answer = loop {
        let now = Instant::now();
        if now >= until {
            break Err(LogError::Unavailable);
        }
        let call = shared.ports.log.append(tenant, event.clone(), dedup);
        let answer = timeout_at(until.min(now + shared.config.call), call).await;
        match shared.metrics.events.answered(answer) {
            Err(LogError::Unavailable) if Instant::now() + REPEAT < repeat_until => sleep(REPEAT).await,
            answer => break answer,
        }
    };
    let (result, stored) = match answer {
        Ok(Appended { cursor, duplicate: false, .. }) => ("stored", Ok(cursor)),
        Ok(Appended { cursor, .. }) => ("duplicate", Ok(cursor)),
        Err(LogError::Full) => {
            let message = "the event store is full, and the event is not stored";
            ("full", Err(NotStored { code: ErrorCode::Unavailable, message }))
        }
        Err(LogError::Unavailable) => {
            let message = "the event store does not answer; an event with an id can be sent again safely";
            ("unavailable", Err(NotStored { code: ErrorCode::Unavailable, message }))
        }
    };
    shared.metrics.events.stored(result);
    stored
}
