//! One tenant's events on this edge: followed by one tail for all listeners, and given to each at its own speed.
//!
//! A listener has a position in the stream. What comes after it is taken from the ring of the newest events, or from a
//! [page](super::pages), and pushed while its connection's queue has room; when that drains it goes on. So a slow listener
//! costs a number, and one that was away is served like any other, only from further behind.

use std::collections::VecDeque;
use std::sync::Arc;

use indexmap::IndexMap;
use parking_lot::Mutex;
use riser_bus::log::{Bounds, LogError, Page, Stored};
use riser_core::event::Cursor;
use riser_core::frame::outbound;
use riser_core::{CloseCode, PathFilter, Pattern, TenantId};
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, sleep, sleep_until, timeout};

use super::follower::{Following, Position};
use super::pages::{Entry, Found, Pages, first_of};
use crate::shared::Shared;
use crate::ws::{Conn, frame};

/// The newest events of a tenant that are kept. A listener that had everything and falls further behind than this while its
/// socket takes nothing is too slow.
const RING: usize = 4_096;
/// Bytes that they take at most: twice what may wait for one connection.
const RING_BYTES: usize = 4 * 1024 * 1024;
/// For how long the socket of who is too far behind must have taken nothing: a burst alone makes nobody slow.
const GRACE: Duration = Duration::from_secs(1);
/// How soon who is too far behind is looked at again.
const LAGGARDS: Duration = Duration::from_millis(250);
/// Events taken from the tail at once, so that a burst is written to each connection once.
const BATCH: usize = 256;
/// How soon the store is asked again when it does not answer.
const RETRY: Duration = Duration::from_millis(500);
/// For how long events are followed that nobody listens to any more: listeners come back.
const IDLE: Duration = Duration::from_secs(30);
/// For how long a position that was read from the store is good enough for who does not listen to events.
const SEEN: Duration = Duration::from_secs(1);

/// Nobody answered for the tenant's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unavailable;

/// Where a subscription begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    life: u64,
    start: u64,
    at: u64,
    /// Whether its cursor was not known.
    pub(crate) gap: bool,
}

pub(crate) struct Feed {
    tenant: TenantId,
    inner: Mutex<Inner>,
    /// Woken when listeners come or go, and when following has begun.
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    /// Whether a task follows the events, or tries to.
    running: bool,
    /// Whether its tail stands.
    tailing: bool,
    stream: Option<Stream>,
    ring: VecDeque<Entry>,
    ring_bytes: usize,
    /// Whether somebody is too far behind, and not yet for long enough to be sent away.
    laggard: bool,
    /// The last event that the ring had no room for any more.
    evicted: u64,
    pages: Pages,
    followers: IndexMap<u64, Follower>,
    /// A position that was read for who does not listen to events.
    seen: Option<(Instant, Option<Cursor>)>,
}

/// The stream as far as it was followed.
#[derive(Clone, Copy)]
struct Stream {
    life: u64,
    last: u64,
}

struct Follower {
    conn: Arc<Conn>,
    position: Position,
    /// Whether it had everything once: from then on it must keep up.
    live: bool,
    /// Whether it waits for a page.
    waits: bool,
}

/// What is to be done once the lock is gone.
#[derive(Default)]
struct After {
    reads: Vec<u64>,
    flush: Vec<Arc<Conn>>,
}

impl Feed {
    pub(crate) fn new(tenant: TenantId) -> Arc<Self> {
        Arc::new(Self { tenant, inner: Mutex::default(), changed: Notify::new() })
    }

    /// Where a subscription of this listener begins: after its cursor; without one where the subscription to the same
    /// pattern stands, if there is one, and else now. Follows the events from then on.
    pub(crate) async fn place(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        member: u64,
        to: &Pattern,
        cursor: Option<&str>,
    ) -> Result<Place, Unavailable> {
        let stream = self.follow(shared).await?;
        let now = Place { life: stream.life, start: stream.last, at: stream.last, gap: false };
        let Some(cursor) = cursor else {
            let inner = self.inner.lock();
            let old = inner.followers.get(&member).and_then(|f| f.position.get(to));
            return Ok(old.map_or(now, |old| Place { start: old.start, at: old.at, ..now }));
        };
        let after = |seq| Place { start: seq, at: seq, ..now };
        let cursor = cursor.parse::<Cursor>().ok().filter(|c| c.life == stream.life || *c == Cursor::START);
        if let Some(Cursor { seq, .. }) = cursor
            && seq <= stream.last
        {
            return Ok(after(seq));
        }
        // It is of another life, or of what has not come here yet.
        let bounds = self.bounds(shared).await.map_err(|_| Unavailable)?;
        Ok(match cursor {
            Some(Cursor { life, seq }) if life == bounds.life && seq <= bounds.last => after(seq),
            _ => {
                shared.metrics.events.gaps.inc();
                Place { gap: true, ..after(bounds.first - 1) }
            }
        })
    }

    /// Begins to give a listener the events of a subscription.
    pub(crate) fn join(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        member: u64,
        conn: &Arc<Conn>,
        to: &Pattern,
        filter: &Arc<PathFilter>,
        place: Place,
    ) {
        let mut after = After::default();
        let mut inner = self.inner.lock();
        let new = || Follower { conn: conn.clone(), position: Position::default(), live: false, waits: false };
        let follower = inner.followers.entry(member).or_insert_with(new);
        let Place { start, at, .. } = place;
        follower.live = false;
        follower.position.put(Following { to: to.clone(), filter: filter.clone(), start, at, owes_synced: false });
        if let Some(stream) = inner.stream
            && stream.life != place.life
        {
            inner.begin_anew(shared, member, 1);
        }
        inner.pump(shared, member, &mut after);
        self.start(shared, &mut inner);
        drop(inner);
        self.finish(shared, after);
    }

    /// Has the events followed, if they are not.
    fn start(self: &Arc<Self>, shared: &Arc<Shared>, inner: &mut Inner) {
        if !std::mem::replace(&mut inner.running, true) {
            let (shared, feed) = (shared.clone(), self.clone());
            shared.clone().tasks.spawn(async move { feed.run(&shared).await });
        }
    }

    /// Ends the events of a subscription.
    pub(crate) fn part(&self, member: u64, to: &Pattern) {
        let mut inner = self.inner.lock();
        if let Some(follower) = inner.followers.get_mut(&member) {
            follower.position.remove(to);
            if follower.position.is_empty() {
                inner.followers.swap_remove(&member);
                self.changed.notify_waiters();
            }
        }
    }

    /// Ends everything of a listener.
    pub(crate) fn leave(&self, member: u64) {
        if self.inner.lock().followers.swap_remove(&member).is_some() {
            self.changed.notify_waiters();
        }
    }

    /// Owes a listener the word that a subscription is served, once its events are. False when it follows none with it.
    pub(crate) fn owe_synced(&self, member: u64, to: &Pattern) -> bool {
        let mut inner = self.inner.lock();
        let owed = inner.followers.get_mut(&member).is_some_and(|f| f.position.owe_synced(to));
        if owed && let Some(follower) = inner.followers.get(&member) {
            follower.conn.request_refill();
        }
        owed
    }

    /// Gives a listener what its connection has room for. True when something was sent.
    pub(crate) fn refill(self: &Arc<Self>, shared: &Arc<Shared>, member: u64) -> bool {
        let mut after = After::default();
        let sent = self.inner.lock().pump(shared, member, &mut after);
        // The connection's own task is about to write.
        after.flush.clear();
        self.finish(shared, after);
        sent
    }

    /// Where a listener stands: up to where it was served, or else what is known of the stream.
    pub(crate) fn position(&self, member: Option<u64>) -> Option<Cursor> {
        let inner = self.inner.lock();
        let follower = member.and_then(|member| inner.followers.get(&member));
        match (inner.stream, follower.and_then(|f| f.position.at())) {
            (Some(stream), Some(at)) => Some(Cursor { life: stream.life, seq: at }),
            (Some(stream), None) if inner.tailing => Some(Cursor { life: stream.life, seq: stream.last }),
            _ => inner.seen.and_then(|(_, cursor)| cursor),
        }
    }

    /// Sees to it that a position is known, reading it when it is old. When nobody answers there is none.
    pub(crate) async fn look(&self, shared: &Shared) {
        {
            let mut inner = self.inner.lock();
            let fresh = inner.seen.is_some_and(|(at, _)| at.elapsed() < SEEN);
            if inner.tailing || fresh {
                return;
            }
            // One look serves all who come meanwhile.
            let known = inner.seen.and_then(|(_, cursor)| cursor);
            inner.seen = Some((Instant::now(), known));
        }
        let cursor = self.bounds(shared).await.ok().map(|b| Cursor { life: b.life, seq: b.last });
        self.inner.lock().seen = Some((Instant::now(), cursor));
    }

    async fn bounds(&self, shared: &Shared) -> Result<Bounds, LogError> {
        let call = shared.ports.log.bounds(&self.tenant);
        timeout(shared.config.call, call).await.unwrap_or(Err(LogError::Unavailable))
    }

    /// Follows the events, and waits until it does.
    async fn follow(self: &Arc<Self>, shared: &Arc<Shared>) -> Result<Stream, Unavailable> {
        let followed = async {
            loop {
                let changed = self.changed.notified();
                {
                    let mut inner = self.inner.lock();
                    if let (true, Some(stream)) = (inner.tailing, inner.stream) {
                        return stream;
                    }
                    self.start(shared, &mut inner);
                }
                changed.await;
            }
        };
        timeout(shared.config.answer, followed).await.map_err(|_| Unavailable)
    }

    /// Follows the events until nobody has listened for a while.
    async fn run(self: &Arc<Self>, shared: &Arc<Shared>) {
        shared.metrics.events.feeds.inc();
        let mut idle = Instant::now() + IDLE;
        loop {
            let tail = timeout(shared.config.call, shared.ports.log.tail(&self.tenant)).await;
            if let Ok(Ok(mut tail)) = tail {
                shared.metrics.events.tails.inc();
                self.begin(shared, tail.bounds);
                let mut batch = Vec::with_capacity(BATCH);
                loop {
                    let (nobody, laggard) = {
                        let mut inner = self.inner.lock();
                        (inner.followers.is_empty(), std::mem::take(&mut inner.laggard))
                    };
                    if !nobody {
                        idle = Instant::now() + IDLE;
                    }
                    tokio::select! {
                        biased;
                        count = tail.events.recv_many(&mut batch, BATCH) => if count == 0 || !self.take(shared, &mut batch) {
                            break;
                        },
                        () = self.changed.notified() => {}
                        () = sleep(LAGGARDS), if laggard => self.pump(shared),
                        () = sleep_until(idle), if nobody => break,
                    }
                    // A burst to many listeners must not keep the runtime's thread from other tenants.
                    tokio::task::yield_now().await;
                }
            } else {
                sleep(RETRY).await;
            }
            let mut inner = self.inner.lock();
            inner.tailing = false;
            if inner.followers.is_empty() && Instant::now() >= idle {
                // The position is kept, so that who comes at this moment is told when the stream is another one.
                *inner = Inner { stream: inner.stream, seen: inner.seen, ..Inner::default() };
                break;
            }
        }
        shared.metrics.events.feeds.dec();
        // Who came at this moment begins again.
        self.changed.notify_waiters();
    }

    /// The tail stands: what comes next has the number after its bounds.
    fn begin(self: &Arc<Self>, shared: &Arc<Shared>, bounds: Bounds) {
        let mut after = After::default();
        {
            let mut inner = self.inner.lock();
            let before = inner.stream;
            inner.stream = Some(Stream { life: bounds.life, last: bounds.last });
            inner.tailing = true;
            // Whatever was stored since the last tail is not in the ring, and is read.
            inner.ring.clear();
            inner.ring_bytes = 0;
            if before.is_some_and(|before| before.life != bounds.life) {
                inner.pages = Pages::default();
                inner.evicted = 0;
                let ids: Vec<u64> = inner.followers.keys().copied().collect();
                // A stream that comes into being has lost nothing.
                if before.is_some_and(|before| before.life != 0) {
                    for id in ids {
                        inner.begin_anew(shared, id, bounds.first);
                    }
                }
            }
            inner.pump_all(shared, &mut after);
        }
        self.finish(shared, after);
        self.changed.notify_waiters();
    }

    /// Takes events of the tail; false when one is missing, so that it must begin again.
    fn take(self: &Arc<Self>, shared: &Arc<Shared>, batch: &mut Vec<Stored>) -> bool {
        let mut after = After::default();
        let mut whole = true;
        {
            let mut inner = self.inner.lock();
            let Some(Stream { life, last }) = inner.stream else { return false };
            let mut last = last;
            for stored in batch.drain(..) {
                whole &= stored.seq == last + 1;
                if !whole {
                    break;
                }
                last = stored.seq;
                let entry = Entry::new(shared, life, stored);
                inner.ring_bytes += entry.bytes();
                inner.ring.push_back(entry);
            }
            inner.stream = Some(Stream { life, last });
            while inner.ring.len() > RING || inner.ring_bytes > RING_BYTES {
                let Some(oldest) = inner.ring.pop_front() else { break };
                inner.ring_bytes -= oldest.bytes();
                inner.evicted = oldest.seq;
            }
            inner.pump_all(shared, &mut after);
        }
        self.finish(shared, after);
        whole
    }

    /// Gives everybody what their connections have room for.
    fn pump(self: &Arc<Self>, shared: &Arc<Shared>) {
        let mut after = After::default();
        self.inner.lock().pump_all(shared, &mut after);
        self.finish(shared, after);
    }

    fn finish(self: &Arc<Self>, shared: &Arc<Shared>, after: After) {
        for conn in after.flush {
            conn.flush();
        }
        for page in after.reads {
            let (shared, feed) = (shared.clone(), self.clone());
            shared.clone().tasks.spawn(async move { feed.read(&shared, page).await });
        }
    }

    /// Reads a page, for as long as somebody waits for one.
    async fn read(self: &Arc<Self>, shared: &Arc<Shared>, page: u64) {
        loop {
            shared.metrics.events.pages.inc();
            let call = shared.ports.log.read(&self.tenant, first_of(page));
            if let Ok(Ok(read)) = timeout(shared.config.call, call).await {
                let mut after = After::default();
                self.inner.lock().take_page(shared, page, read, &mut after);
                return self.finish(shared, after);
            }
            if !self.inner.lock().followers.values().any(|f| f.waits) {
                return self.inner.lock().pages.unread(page);
            }
            sleep(RETRY).await;
        }
    }
}

impl Inner {
    fn pump_all(&mut self, shared: &Shared, after: &mut After) {
        for at in 0..self.followers.len() {
            let Some((&id, _)) = self.followers.get_index(at) else { return };
            self.pump(shared, id, after);
        }
    }

    /// Gives a listener what its connection has room for. True when something was sent.
    fn pump(&mut self, shared: &Shared, id: u64, after: &mut After) -> bool {
        let Some(stream) = self.stream else { return false };
        let Some(follower) = self.followers.get_mut(&id) else { return false };
        let mut sent = false;
        while !follower.conn.is_ending() {
            for (to, at) in follower.position.synced(stream.last) {
                let cursor = Cursor { life: stream.life, seq: at };
                sent |= follower.conn.push(frame::text(&outbound::synced(&to, Some(cursor))));
            }
            let Some(at) = follower.position.at().filter(|at| *at < stream.last) else {
                follower.live = true;
                break;
            };
            let seq = at + 1;
            let front = self.ring.front().map(|entry| entry.seq);
            let gone = at < self.evicted || stream.last - at > RING as u64;
            if let Some(since) = follower.conn.blocked_since().filter(|_| follower.live && gone) {
                if since.elapsed() < GRACE {
                    self.laggard = true;
                    break;
                }
                shared.metrics.events.behind.inc();
                follower.conn.close(
                    CloseCode::TooSlow.number(),
                    "{\"message\":\"too slow for the events: resume with the cursor\"}",
                );
                break;
            }
            if follower.conn.queued_bytes() > shared.config.conflate_above {
                if follower.conn.blocked_since().is_none() {
                    // A burst alone makes nobody slow: what the socket takes is written first.
                    follower.conn.flush();
                }
                if follower.conn.queued_bytes() > shared.config.conflate_above {
                    follower.conn.request_refill();
                    break;
                }
            }
            if let Some(front) = front.filter(|front| *front <= seq)
                && let Some(entry) = usize::try_from(seq - front).ok().and_then(|at| self.ring.get(at))
            {
                sent |= give(shared, follower, entry);
                continue;
            }
            match self.pages.find(seq) {
                Found::Here(entries, from) => {
                    shared.metrics.events.page_hits.inc();
                    for entry in &entries[from..] {
                        let next = follower.position.at().is_some_and(|at| at + 1 == entry.seq);
                        if !next || follower.conn.queued_bytes() > shared.config.conflate_above {
                            break;
                        }
                        sent |= give(shared, follower, entry);
                    }
                }
                Found::Read(page) => {
                    follower.waits = true;
                    after.reads.push(page);
                    break;
                }
                Found::Wait => {
                    follower.waits = true;
                    break;
                }
            }
        }
        if sent {
            after.flush.push(follower.conn.clone());
        }
        sent
    }

    /// Takes what was read of a page, and gives it to who waited.
    fn take_page(&mut self, shared: &Shared, page: u64, read: Page, after: &mut After) {
        let Some(stream) = self.stream.filter(|stream| stream.life == read.bounds.life) else {
            // The tail finds that it is another stream.
            return self.pages.unread(page);
        };
        let first = read.bounds.first;
        let held = |seq: u64| read.events.iter().any(|stored| stored.seq == seq);
        let next = |seq: u64| {
            let later = read.events.iter().map(|stored| stored.seq).find(|other| *other > seq);
            later.unwrap_or(stream.last + 1).min(first_of(page + 1))
        };
        let waiting: Vec<u64> = self.followers.iter().filter(|(_, f)| f.waits).map(|(id, _)| *id).collect();
        let mut skips = Vec::new();
        for id in &waiting {
            let Some(seq) = self.followers.get(id).and_then(|f| f.position.at()).map(|at| at + 1) else { continue };
            if seq < first {
                skips.push((*id, first));
            } else if (first_of(page)..first_of(page + 1)).contains(&seq) && !held(seq) {
                // A stream without holes has it. One that has none of it must not be asked for ever.
                skips.push((*id, next(seq)));
            }
        }
        self.pages.put(shared, page, read);
        for (id, to) in skips {
            self.skip(shared, id, to);
        }
        for id in waiting {
            if let Some(follower) = self.followers.get_mut(&id) {
                follower.waits = false;
                self.pump(shared, id, after);
            }
        }
    }

    /// Goes on from what is kept, and says that something is missing.
    fn skip(&mut self, shared: &Shared, id: u64, first: u64) {
        let Some(follower) = self.followers.get_mut(&id) else { return };
        for to in follower.position.skip_to(first) {
            shared.metrics.events.gaps.inc();
            follower.conn.push(frame::text(&outbound::gap(&to)));
        }
    }

    /// Goes on from the oldest event of another stream, and says so.
    fn begin_anew(&mut self, shared: &Shared, id: u64, first: u64) {
        let Some(follower) = self.followers.get_mut(&id) else { return };
        (follower.live, follower.waits) = (false, false);
        for to in follower.position.begin_anew(first) {
            shared.metrics.events.gaps.inc();
            follower.conn.push(frame::text(&outbound::gap(&to)));
        }
    }
}

/// Gives a listener the next event, if it is for it. True when it was sent.
fn give(shared: &Shared, follower: &mut Follower, entry: &Entry) -> bool {
    if !follower.position.pass(entry.seq, &entry.of, entry.path.as_ref()) {
        return false;
    }
    shared.metrics.events.delivered.inc();
    follower.conn.push(entry.frame.clone())
}
