//! The hub: what this edge's listeners watch, and how what happens reaches them.
//!
//! One hub per tenant, with a queue and a lock of its own, so that tenants do not wait for each other. It holds one
//! bus subscription per watched pattern, one [`mirror::Mirror`] per watched gateway, and the listeners. A frame is
//! encoded once per distinct filter and shared; connections are written to after the lock is gone, each once.

pub(crate) mod keeper;
mod load;
pub(crate) mod mirror;
pub(crate) mod names;
pub(crate) mod owed;
pub(crate) mod tell;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use indexmap::{IndexMap, IndexSet};
use parking_lot::Mutex;
use riser_bus::{Delivery, Inbox, Subject, Subscription};
use riser_core::frame::Lanes;
use riser_core::routed::{self, RoutedError, Up};
use riser_core::tenant::Quota;
use riser_core::{Address, ErrorCode, GatewayKey, PathFilter, Pattern, TenantId};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::sleep;

use crate::events::feed::{Feed, Listener};
use crate::metrics::Ignored;
use crate::shared::Shared;
use crate::ws::{Conn, Pushed};
use load::{LOADS, Loaded, READS};
use mirror::{Mirror, Phase, Step};
use names::Names;
use owed::Owed;

/// Messages of one tenant that wait for its hub. At some hundred bytes each it bounds a tenant's queue to a few
/// megabytes; what overflows is lost and repaired from the store.
const INBOX: usize = 8_192;
/// Messages taken from the queue at once, so that a burst is written to each connection once.
const BATCH: usize = 256;
/// How long is waited for what comes next, for each listener who is to be told: an eighth of what a write to one takes. What
/// comes meanwhile goes out in the same write, and writing is what telling many costs.
const GATHER_EACH: Duration = Duration::from_micros(1);
/// A shorter pause is none: the runtime's clock ticks in milliseconds.
const GATHER_LEAST: Duration = Duration::from_millis(1);
/// The longest such pause. What one moment brings is there by then.
const GATHER_MOST: Duration = Duration::from_millis(2);
/// Distinct path filters of one tenant on one edge: each costs an encoding of every frame.
const FILTERS: usize = 1_024;

/// One listener: a session that subscribes.
pub(crate) struct Member {
    pub(crate) id: u64,
    pub(crate) conn: Arc<Conn>,
    /// Whether it may see events that say who changed what.
    pub(crate) audits: Arc<AtomicBool>,
    pub(crate) owed: Mutex<Owed>,
    /// Set under the hub's lock when its session has ended: a subscription that was still being made then is not.
    left: AtomicBool,
}

impl Member {
    pub(crate) fn new(id: u64, conn: Arc<Conn>, audits: bool) -> Arc<Self> {
        let audits = Arc::new(AtomicBool::new(audits));
        Arc::new(Self { id, conn, audits, owed: Mutex::default(), left: AtomicBool::new(false) })
    }

    /// Whether its session has ended.
    pub(crate) fn has_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }
}

/// One subscription of a listener.
#[derive(Debug, Clone)]
pub(crate) struct Sub {
    pub(crate) to: Pattern,
    pub(crate) lanes: Lanes,
    pub(crate) filter: Arc<PathFilter>,
    /// Which paths of the live lane: hearing is a right of its own.
    pub(crate) live: Arc<PathFilter>,
    /// After which event it begins.
    pub(crate) cursor: Option<String>,
}

/// A pattern that somebody watches. Dropping it ends the bus subscription.
struct Watch {
    seats: IndexMap<u64, Seat>,
    /// How many subscriptions to it are being made, whose listeners are no members yet.
    pinned: usize,
    _subscription: Subscription,
}

/// Who watches a pattern, and what of it: all that is needed to tell it, so that a frame to many looks up nothing for each.
struct Seat {
    member: Arc<Member>,
    lanes: Lanes,
    filter: Arc<PathFilter>,
}

#[derive(Default)]
struct Inner {
    /// How many subscriptions all members have.
    subscriptions: u64,
    members: IndexMap<u64, (Arc<Member>, Vec<Sub>)>,
    watches: BTreeMap<Pattern, Watch>,
    /// Patterns that are being loaded, and what will have come of it: a thousand dashboards of one building cost one
    /// load. A session has one subscription under way, so that these are no more than the sessions.
    loads: BTreeMap<Pattern, watch::Receiver<Option<Loaded>>>,
    /// Watches that were begun since the keeper took these last.
    fresh: BTreeSet<Pattern>,
    mirrors: BTreeMap<Address, Mirror>,
    filters: BTreeMap<PathFilter, Arc<PathFilter>>,
    snapshots: tell::SnapshotCache,
}

/// Why a subscription was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SubscribeError {
    TooManySubscriptions,
    OverQuota,
    TooManyFilters,
    Withdrawn,
    Unavailable,
    EventsUnavailable,
}

impl SubscribeError {
    pub(crate) fn code(self) -> ErrorCode {
        match self {
            Self::TooManySubscriptions | Self::OverQuota | Self::TooManyFilters => ErrorCode::TooMany,
            Self::Withdrawn => ErrorCode::Forbidden,
            Self::Unavailable | Self::EventsUnavailable => ErrorCode::Unavailable,
        }
    }

    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::TooManySubscriptions => "this session has as many subscriptions as it may",
            Self::OverQuota => "the tenant's sessions have as many subscriptions here as its quota allows",
            Self::TooManyFilters => "the tenant's sessions on this edge use as many distinct path filters as they may",
            Self::Withdrawn => "the right to it was withdrawn while the subscription was being made",
            Self::Unavailable => "the state store or the bus did not answer; nothing was subscribed",
            Self::EventsUnavailable => "the event store did not answer; nothing was subscribed",
        }
    }
}

pub(crate) struct Hub {
    tenant: TenantId,
    /// The tenant's events. Its lock may be taken under this hub's, and never the other way round.
    pub(crate) feed: Arc<Feed>,
    inner: Mutex<Inner>,
    names: Names,
    /// A place for each pattern that is being loaded.
    loading: Semaphore,
    /// A place for each read of the store that is under way.
    reading: Semaphore,
    /// Woken when a mirror was read.
    installed: Notify,
    /// Mirrors that must be read anew.
    due: Mutex<IndexSet<Address>>,
    wake: Notify,
    /// Whether the mirrors are to be compared with the store before their time.
    look: AtomicBool,
    inbox: Inbox,
    shown: AtomicU64,
}

impl Hub {
    /// A hub for a tenant, with its tasks running.
    pub(crate) fn start(shared: &Arc<Shared>, tenant: TenantId) -> Arc<Self> {
        let (inbox, receiver) = riser_bus::inbox(INBOX);
        let feed = shared.feed(&tenant);
        let hub = Arc::new(Self {
            tenant,
            feed,
            inner: Mutex::default(),
            names: Names::new(shared.ports.keep.is_some()),
            loading: Semaphore::new(LOADS),
            reading: Semaphore::new(READS),
            installed: Notify::new(),
            due: Mutex::default(),
            wake: Notify::new(),
            look: AtomicBool::new(false),
            inbox,
            shown: AtomicU64::new(0),
        });
        shared.tasks.spawn(pump(shared.clone(), hub.clone(), receiver));
        shared.tasks.spawn(keeper::run(shared.clone(), hub.clone()));
        if let Some(store) = &shared.ports.keep {
            shared.tasks.spawn(names::run(shared.clone(), hub.clone(), store.flats()));
        }
        hub
    }

    fn key(&self, address: &Address) -> GatewayKey {
        GatewayKey::new(self.tenant.clone(), address.clone())
    }

    /// Makes or replaces a subscription. `allowed` is asked when it takes effect, under the hub's lock: whoever changes the
    /// rights first and looks at the subscriptions after misses none. `begin` is called when nothing can hinder it any
    /// more, and before anything of it is sent: it sends the answer.
    pub(crate) async fn subscribe(
        &self,
        shared: &Arc<Shared>,
        member: &Arc<Member>,
        sub: Sub,
        limit: usize,
        allowed: impl Fn(&Sub) -> bool,
        begin: impl FnOnce(&Sub),
    ) -> Result<(), SubscribeError> {
        {
            let inner = self.inner.lock();
            let subs = inner.members.get(&member.id).map_or(&[][..], |(_, subs)| subs);
            let is_new = !subs.iter().any(|s| s.to == sub.to);
            if is_new && subs.len() >= limit {
                return Err(SubscribeError::TooManySubscriptions);
            }
            if is_new && inner.is_over_quota(shared, &self.tenant) {
                return Err(SubscribeError::OverQuota);
            }
            if !inner.has_room_for(&sub) {
                return Err(SubscribeError::TooManyFilters);
            }
        }
        let mut place = None;
        if sub.lanes.event {
            let placed = self.feed.place(shared, sub.cursor.as_deref()).await;
            place = Some(placed.map_err(|_| SubscribeError::EventsUnavailable)?);
        } else {
            self.feed.look(shared).await;
        }
        let watches_state = sub.lanes.wants_snapshots();
        if watches_state {
            self.watch(shared, &sub.to).await?;
        }
        let mut inner = self.inner.lock();
        if watches_state {
            inner.unpin(&sub.to);
        }
        let refused = match (inner.has_room_for(&sub), allowed(&sub)) {
            (false, _) => Some(SubscribeError::TooManyFilters),
            (true, false) => Some(SubscribeError::Withdrawn),
            (true, true) => None,
        };
        if member.has_left() || refused.is_some() {
            inner.unwatch(&sub.to);
            return refused.map_or(Ok(()), Err);
        }
        let sub = inner.share_filters(sub);
        begin(&sub);
        inner.join(member, sub.clone());
        match place {
            Some(place) => {
                let who = Listener { member: member.id, conn: &member.conn, audits: &member.audits };
                self.feed.join(shared, who, &sub.to, &sub.filter, place);
            }
            None => self.feed.part(member.id, &sub.to),
        }
        let mut owed = member.owed.lock();
        if watches_state {
            let known = inner.mirrors.iter().filter(|(address, m)| sub.to.matches(address) && m.known().is_some());
            known.for_each(|(address, _)| owed.snapshot(address));
        }
        owed.synced(&sub.to);
        drop(owed);
        drop(inner);
        member.conn.request_refill();
        member.conn.flush();
        Ok(())
    }

    /// Ends a subscription; `false` when there is none.
    pub(crate) fn unsubscribe(&self, member: &Member, to: &Pattern) -> bool {
        // Under the lock, so that none which is being made comes between.
        let mut inner = self.inner.lock();
        self.feed.part(member.id, to);
        inner.part(member.id, to)
    }

    /// Ends everything of a listener.
    pub(crate) fn leave(&self, member: &Member) {
        let mut inner = self.inner.lock();
        member.left.store(true, Ordering::Relaxed);
        self.feed.leave(member.id);
        let subs = inner.members.get(&member.id).map(|(_, subs)| subs.iter().map(|s| s.to.clone()).collect());
        let patterns: Vec<Pattern> = subs.unwrap_or_default();
        for to in &patterns {
            inner.part(member.id, to);
        }
    }

    /// The subscriptions of a listener.
    pub(crate) fn subscriptions(&self, member: &Member) -> Vec<Sub> {
        self.inner.lock().members.get(&member.id).map(|(_, subs)| subs.clone()).unwrap_or_default()
    }

    /// How many subscriptions all listeners have.
    pub(crate) fn subscribed(&self) -> u64 {
        self.inner.lock().subscriptions
    }

    /// The greatest epoch that is known here of a gateway.
    pub(crate) fn epoch(&self, address: &Address) -> Option<riser_core::Epoch> {
        let inner = self.inner.lock();
        inner.mirrors.get(address).and_then(|m| m.known().map(|s| s.version.epoch))
    }

    /// Gives a mirror what the store said.
    fn install(&self, shared: &Shared, address: &Address, snapshot: Option<riser_core::Snapshot>, phase: &Phase) {
        let mut pushed = Pushed::messages();
        {
            let mut inner = self.inner.lock();
            let Some(mirror) = inner.mirrors.get_mut(address) else { return };
            let (effects, again) = mirror.install(snapshot, phase);
            inner.tell(shared, address, effects, &mut pushed);
            if again {
                self.read_again(address);
            }
        }
        self.installed.notify_waiters();
        drop(pushed);
    }

    fn read_again(&self, address: &Address) {
        self.due.lock().insert(address.clone());
        self.wake.notify_one();
    }

    /// Takes messages of the bus, and writes to each connection once.
    fn take(&self, shared: &Shared, deliveries: &mut Vec<Delivery>) {
        let usage = shared.usage(&self.tenant);
        let _turn = usage.turn();
        // Before the lock, which every listener of the tenant waits for.
        let ups: Vec<(Address, Up)> = deliveries.drain(..).filter_map(|d| self.decode(shared, d)).collect();
        let mut pushed = Pushed::messages();
        let mut inner = self.inner.lock();
        for (address, up) in ups {
            self.take_up(shared, &mut inner, &address, up, &mut pushed);
        }
        drop(inner);
        drop(pushed);
    }

    /// Most listeners that one of these messages is told to, at most.
    fn audience(&self, deliveries: &[Delivery]) -> usize {
        let inner = self.inner.lock();
        let seats = |address: &Address| -> usize {
            patterns_of(address).iter().filter_map(|pattern| inner.watches.get(pattern)).map(|w| w.seats.len()).sum()
        };
        let audiences = deliveries.iter().map(|delivery| match &delivery.subject {
            Subject::Up(key) => seats(&key.address),
            _ => 0,
        });
        audiences.max().unwrap_or(0)
    }

    fn decode(&self, shared: &Shared, delivery: Delivery) -> Option<(Address, Up)> {
        let Subject::Up(key) = delivery.subject else { return None };
        // The subscription's subject names the tenant; a message of another one is a defect of the bus.
        if key.tenant != self.tenant {
            shared.metrics.bus_ignored(Ignored::Malformed);
            return None;
        }
        match routed::decode::<Up>(&delivery.payload) {
            Ok(up) => Some((key.address, up)),
            Err(RoutedError::Version) => {
                shared.metrics.bus_ignored(Ignored::Version);
                None
            }
            Err(RoutedError::Malformed) => {
                shared.metrics.bus_ignored(Ignored::Malformed);
                None
            }
        }
    }

    fn take_up(&self, shared: &Shared, inner: &mut Inner, address: &Address, up: Up, pushed: &mut Pushed) {
        if !inner.is_watched(address) {
            return;
        }
        // Nobody had heard of this gateway when the pattern was loaded, when there is no mirror.
        let mirror = inner.mirrors.entry(address.clone()).or_insert_with(|| {
            // It may be the first of its building.
            self.names.want([address.building()]);
            Mirror::blank()
        });
        match mirror.take(up) {
            Step::Tell(effects) => inner.tell(shared, address, effects, pushed),
            Step::Read => self.read_again(address),
        }
    }

    /// A name for a new listener.
    pub(crate) fn next_member(&self) -> u64 {
        self.shown.fetch_add(1, Ordering::Relaxed)
    }
}

impl Inner {
    fn is_watched(&self, address: &Address) -> bool {
        patterns_of(address).iter().any(|p| self.watches.contains_key(p))
    }

    /// Whether all members together have as many subscriptions as the tenant may have on this edge. Those that are being
    /// made are not among them: each session has at most one.
    fn is_over_quota(&self, shared: &Arc<Shared>, tenant: &TenantId) -> bool {
        let usage = shared.usage(tenant);
        let Some(most) = usage.share(Quota::Subscriptions) else { return false };
        shared.note_use(&usage, Quota::Subscriptions, self.subscriptions + 1);
        let over = self.subscriptions >= most;
        if over {
            shared.quota_refused(&usage, Quota::Subscriptions);
        }
        over
    }

    /// Whether a subscription's filters are among the distinct ones that may be.
    fn has_room_for(&self, sub: &Sub) -> bool {
        let is_new = |filter: &PathFilter| !self.filters.contains_key(filter);
        let further = is_new(&sub.filter) || is_new(&sub.live);
        !further || self.filters.len() + usize::from(sub.filter != sub.live) < FILTERS
    }

    /// Has a subscription use the filters that others use.
    fn share_filters(&mut self, mut sub: Sub) -> Sub {
        for filter in [&mut sub.filter, &mut sub.live] {
            *filter = self.filters.entry((**filter).clone()).or_insert_with(|| filter.clone()).clone();
        }
        sub
    }

    fn join(&mut self, member: &Arc<Member>, sub: Sub) {
        if let Some(watch) = self.watches.get_mut(&sub.to) {
            let seat = Seat { member: member.clone(), lanes: sub.lanes, filter: sub.filter.clone() };
            watch.seats.insert(member.id, seat);
        }
        let (_, subs) = self.members.entry(member.id).or_insert_with(|| (member.clone(), Vec::new()));
        if let Some(old) = subs.iter_mut().find(|s| s.to == sub.to) {
            *old = sub;
        } else {
            subs.push(sub);
            self.subscriptions += 1;
        }
        self.forget_filters();
    }

    fn part(&mut self, id: u64, to: &Pattern) -> bool {
        let Some((member, subs)) = self.members.get_mut(&id) else { return false };
        let Some(at) = subs.iter().position(|s| s.to == *to) else { return false };
        subs.remove(at);
        self.subscriptions -= 1;
        member.owed.lock().not_synced(to);
        if subs.is_empty() {
            self.members.swap_remove(&id);
        }
        if let Some(watch) = self.watches.get_mut(to) {
            watch.seats.swap_remove(&id);
        }
        self.unwatch(to);
        self.forget_filters();
        true
    }

    fn unpin(&mut self, to: &Pattern) {
        if let Some(watch) = self.watches.get_mut(to) {
            watch.pinned = watch.pinned.saturating_sub(1);
        }
    }

    /// Ends a watch that could not be loaded. Its only members are listeners that want no state.
    fn unload(&mut self, to: &Pattern) {
        if let Some(watch) = self.watches.get_mut(to) {
            watch.seats.clear();
            watch.pinned = 0;
        }
        self.unwatch(to);
    }

    /// Ends a watch that nobody needs, and the mirrors that no other watch covers.
    fn unwatch(&mut self, to: &Pattern) {
        if self.watches.get(to).is_none_or(|watch| watch.pinned > 0 || !watch.seats.is_empty()) {
            return;
        }
        self.watches.remove(to);
        self.fresh.remove(to);
        let watches = &self.watches;
        let covered = |address: &Address| patterns_of(address).iter().any(|p| watches.contains_key(p));
        self.mirrors.retain(|address, _| !to.matches(address) || covered(address));
    }

    fn forget_filters(&mut self) {
        self.filters.retain(|_, filter| Arc::strong_count(filter) > 1);
    }
}

/// The patterns that name an address.
pub(crate) fn patterns_of(address: &Address) -> [Pattern; 3] {
    [Pattern::One(address.clone()), Pattern::Building(address.building().clone()), Pattern::All]
}

/// For how long what comes next is waited for before so many listeners are told; none when it is not worth it.
fn gather(listeners: usize) -> Option<Duration> {
    let pause = GATHER_EACH.saturating_mul(u32::try_from(listeners).unwrap_or(u32::MAX));
    (pause >= GATHER_LEAST).then(|| pause.min(GATHER_MOST))
}

async fn pump(shared: Arc<Shared>, hub: Arc<Hub>, mut receiver: mpsc::Receiver<Delivery>) {
    let mut batch = Vec::with_capacity(BATCH);
    while receiver.recv_many(&mut batch, BATCH).await > 0 {
        if let Some(pause) = gather(hub.audience(&batch)) {
            sleep(pause).await;
            while batch.len() < BATCH
                && let Ok(delivery) = receiver.try_recv()
            {
                batch.push(delivery);
            }
        }
        hub.take(&shared, &mut batch);
        // A burst to many listeners must not keep the runtime's thread from the other tenants.
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_told_at_once_and_many_after_a_moment() {
        assert_eq!([0, 1, 999].map(gather), [None; 3]);
        assert_eq!(gather(1_000), Some(Duration::from_millis(1)));
        assert_eq!([2_000, 100_000, usize::MAX].map(gather), [Some(GATHER_MOST); 3]);
    }
}
