//! One tenant's events on this edge: followed by one tail for all listeners, and given to each at its own speed.
//!
//! A listener has a position in the stream. What comes after it is taken from the ring of the newest events, or from a
//! [page](super::pages), and pushed while its connection's queue has room; when that drains it goes on. So a slow listener
//! costs a number, and one that was away is served like any other, only from further behind.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use prometheus::IntGauge;
use riser_bus::log::{Bounds, LogError, Stored, Tail};
use riser_core::event::Cursor;
use riser_core::{PathFilter, Pattern, TenantId};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Duration, Instant, sleep, sleep_until, timeout};

use super::delivery::{After, Inner};
use super::follower::{Asked, Place, Stream};
use super::newest::Newest;
use super::pages::{Entry, Range};
use crate::shared::Shared;
use crate::ws::Conn;

/// Events taken from the tail at once, so that a burst is written to each connection once.
const BATCH: usize = 256;
/// How soon the store is asked again when it does not answer, or ends a tail as soon as it has begun.
const RETRY: Duration = Duration::from_millis(500);
/// For how long events are followed that nobody listens to any more: listeners come back.
const IDLE: Duration = Duration::from_secs(30);
/// How often it is looked for listeners that take nothing and pages that nobody takes from.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// For how long a position that was read from the store is good enough for who does not listen to events.
const SEEN: Duration = Duration::from_secs(1);
/// How long a subscription to state may wait for the position in the events, which it does not need.
const LOOK: Duration = Duration::from_millis(250);
/// Reads of pages of one tenant that are under way at once: each may bring some hundred of the largest events.
const READS: usize = 4;

/// Nobody answered for the tenant's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unavailable;

pub(crate) struct Feed {
    tenant: TenantId,
    inner: Mutex<Inner>,
    /// Woken when following has begun or ended.
    changed: Notify,
    /// Has the tail begin again: the stream is another one than it says.
    anew: Notify,
    reads: Semaphore,
    newest: Newest,
}

/// Who subscribes.
#[derive(Clone, Copy)]
pub(crate) struct Listener<'a> {
    pub(crate) member: u64,
    pub(crate) conn: &'a Arc<Conn>,
    /// Whether it is shown the tenant's audit, which may change.
    pub(crate) audits: &'a Arc<AtomicBool>,
}

impl Feed {
    pub(crate) fn new(shared: &Shared, tenant: TenantId) -> Arc<Self> {
        Arc::new(Self {
            tenant,
            inner: Mutex::new(Inner::new(shared.event_pages.clone())),
            changed: Notify::new(),
            anew: Notify::new(),
            reads: Semaphore::new(READS),
            newest: Newest::default(),
        })
    }

    /// Where a subscription with this cursor begins. Follows the events from then on.
    pub(crate) async fn place(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        cursor: Option<&str>,
    ) -> Result<Place, Unavailable> {
        let asked = Asked::parse(cursor);
        let placed = async {
            loop {
                let stream = self.follow(shared).await;
                if let Some(place) = Place::of(asked, stream, None) {
                    return Ok(place);
                }
                let bounds = match self.newest.ask(self.bounds(shared)).await {
                    Ok(bounds) => bounds,
                    // Who wants what comes is not refused for want of an answer. An event that was stored just before may
                    // come to it.
                    Err(_) if asked == Asked::Now => return Ok(Place::now(stream)),
                    Err(_) => return Err(Unavailable),
                };
                let stands = Stream { life: bounds.life, last: bounds.last };
                if stands.life != stream.life {
                    self.begin_again(stream.life);
                } else if let Some(place) = Place::of(asked, stands, Some(bounds.first)) {
                    return Ok(place);
                }
            }
        };
        timeout(shared.config.answer, placed).await.unwrap_or(Err(Unavailable))
    }

    /// Begins to give a listener the events of a subscription.
    pub(crate) fn join(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        who: Listener<'_>,
        to: &Pattern,
        filter: &Arc<PathFilter>,
        place: Place,
    ) {
        let mut after = After::default();
        let mut inner = self.inner.lock();
        inner.put(shared, who, to, filter, place);
        inner.pump(shared, who.member, &mut after);
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
        self.inner.lock().part(member, to);
    }

    /// Ends everything of a listener.
    pub(crate) fn leave(&self, member: u64) {
        self.inner.lock().leave(member);
    }

    /// Owes a listener the word that a subscription is served, once its events are: its next refill says it. False when it
    /// has no such subscription to events.
    pub(crate) fn owe_synced(&self, member: u64, to: &Pattern) -> bool {
        self.inner.lock().owe_synced(member, to)
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

    /// Has a listener told where it stands (up to where it was served, or else what is known of the stream), with no event
    /// told between looking and telling.
    pub(crate) fn tell_position(&self, member: Option<u64>, tell: impl FnOnce(Option<Cursor>)) {
        let inner = self.inner.lock();
        tell(inner.position(member));
    }

    /// Whether a position is known that is not old.
    pub(crate) fn is_known(&self) -> bool {
        let inner = self.inner.lock();
        inner.tailing || inner.seen.is_some_and(|(at, _)| at.elapsed() < SEEN)
    }

    /// Sees to it that a position is known, reading it when it is old. When nobody answers there is none.
    pub(crate) async fn look(&self, shared: &Shared) {
        if self.is_known() {
            return;
        }
        {
            let mut inner = self.inner.lock();
            // One look serves all who come meanwhile.
            let known = inner.seen.and_then(|(_, cursor)| cursor);
            inner.seen = Some((Instant::now(), known));
        }
        let bounds = timeout(LOOK, self.bounds(shared)).await;
        let cursor = bounds.ok().and_then(Result::ok).map(|b| Cursor { life: b.life, seq: b.last });
        self.inner.lock().seen = Some((Instant::now(), cursor));
    }

    async fn bounds(&self, shared: &Shared) -> Result<Bounds, LogError> {
        let call = shared.ports.log.bounds(&self.tenant);
        shared.metrics.events.answered(timeout(shared.config.call, call).await)
    }

    /// Follows the events, and waits until it does.
    async fn follow(self: &Arc<Self>, shared: &Arc<Shared>) -> Stream {
        loop {
            let changed = self.changed.notified();
            {
                let mut inner = self.inner.lock();
                if let (true, Some(stream)) = (inner.tailing, inner.stream()) {
                    return stream;
                }
                self.start(shared, &mut inner);
            }
            changed.await;
        }
    }

    /// Has the tail begin again, unless it is already of another life than this one.
    fn begin_again(&self, life: u64) {
        let mut inner = self.inner.lock();
        if inner.stream().is_some_and(|stream| stream.life == life) {
            inner.tailing = false;
            self.anew.notify_one();
        }
    }

    /// Follows the events until nobody has listened for a while.
    async fn run(self: &Arc<Self>, shared: &Arc<Shared>) {
        let _running = Running::begin(&shared.metrics.events.feeds);
        let mut idle = Instant::now() + IDLE;
        loop {
            let began = Instant::now();
            let tail = timeout(shared.config.call, shared.ports.log.tail(&self.tenant)).await;
            match shared.metrics.events.answered(tail) {
                Ok(tail) => {
                    let into_being = tail.bounds.life == 0;
                    self.tail(shared, tail, &mut idle).await;
                    if !into_being && began.elapsed() < RETRY {
                        sleep(RETRY).await;
                    }
                }
                Err(_) => sleep(RETRY).await,
            }
            let mut inner = self.inner.lock();
            inner.tailing = false;
            if inner.nobody() && Instant::now() >= idle {
                inner.rest();
                break;
            }
        }
        // Who came at this moment begins again.
        self.changed.notify_waiters();
    }

    /// Follows a tail until it ends, or nobody has listened for a while.
    async fn tail(self: &Arc<Self>, shared: &Arc<Shared>, mut tail: Tail, idle: &mut Instant) {
        shared.metrics.events.tails.inc();
        self.begin(shared, tail.bounds);
        let mut batch = Vec::with_capacity(BATCH);
        let mut look = Instant::now() + LOOK_EVERY;
        loop {
            tokio::select! {
                biased;
                () = self.anew.notified() => return,
                () = sleep_until(look) => {
                    look = Instant::now() + LOOK_EVERY;
                    let mut inner = self.inner.lock();
                    inner.look(shared);
                    if !inner.nobody() {
                        *idle = Instant::now() + IDLE;
                    } else if Instant::now() >= *idle {
                        return;
                    }
                }
                count = tail.events.recv_many(&mut batch, BATCH) => if count == 0 || !self.take(shared, &mut batch) {
                    return;
                },
            }
            // A burst to many listeners must not keep the runtime's thread from other tenants.
            tokio::task::yield_now().await;
        }
    }

    /// The tail stands: what comes next has the number after its bounds.
    fn begin(self: &Arc<Self>, shared: &Arc<Shared>, bounds: Bounds) {
        let mut after = After::default();
        self.inner.lock().begin(shared, bounds, &mut after);
        self.finish(shared, after);
        self.changed.notify_waiters();
    }

    /// Takes events of the tail; false when one is missing, so that it must begin again.
    fn take(self: &Arc<Self>, shared: &Arc<Shared>, batch: &mut Vec<Stored>) -> bool {
        let usage = shared.usage(&self.tenant);
        let _turn = usage.turn();
        let mut after = After::default();
        let whole = self.inner.lock().take(shared, batch, &mut after);
        self.finish(shared, after);
        whole
    }

    fn finish(self: &Arc<Self>, shared: &Arc<Shared>, after: After) {
        for conn in after.flush {
            conn.flush();
        }
        for (range, life) in after.reads {
            let (shared, feed) = (shared.clone(), self.clone());
            shared.clone().tasks.spawn(async move { feed.read(&shared, range, life).await });
        }
    }

    /// Reads a range, for as long as somebody waits for one.
    async fn read(self: &Arc<Self>, shared: &Arc<Shared>, range: Range, life: u64) {
        let Ok(_place) = self.reads.acquire().await else { return };
        loop {
            shared.metrics.events.pages.inc();
            let call = shared.ports.log.read(&self.tenant, range.from);
            let read = shared.metrics.events.answered(timeout(shared.config.call, call).await);
            if let Ok(page) = read {
                let Bounds { life: now, last, .. } = page.bounds;
                if now != life {
                    self.begin_again(life);
                }
                // A store that does not know of what its own tail brought must catch up first.
                if now != life || last >= range.from {
                    let entries = page.events.into_iter().map(|stored| Entry::new(shared, life, stored)).collect();
                    let mut after = After::default();
                    self.inner.lock().take_page(shared, range, life, page.bounds, entries, &mut after);
                    return self.finish(shared, after);
                }
            }
            if self.inner.lock().give_up(range, life) {
                return;
            }
            sleep(RETRY).await;
        }
    }
}

/// Counts a task that follows events, for as long as it does.
struct Running<'a>(&'a IntGauge);

impl<'a> Running<'a> {
    fn begin(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
