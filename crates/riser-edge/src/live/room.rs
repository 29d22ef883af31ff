//! A room: who of one tenant hears what on this edge.
//!
//! Each open stream is known with the connections that were told of it, so that a frame costs one look-up, one encoding
//! and a push per connection. Listeners and gateways are two sides of the room, because a frame that both hear comes
//! twice, on two subjects.

mod seats;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indexmap::{IndexMap, IndexSet};
use parking_lot::Mutex;
use riser_bus::{Delivery, Filter, Subject, Subscription};
use riser_core::frame::outbound;
use riser_core::live::{Stream, StreamId};
use riser_core::{Address, BuildingId, EdgeId, Epoch, GatewayKey, PathFilter, Pattern, TenantId};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout};

use super::{INBOX, keeper};
use crate::gateway::Gateway;
use crate::hub::{Member, Sub, SubscribeError};
use crate::metrics::Ignored;
use crate::shared::Shared;
use crate::ws::{Conn, Pushed, frame};

/// Patterns that one room loads at once: each asks the store once.
const LOADS: usize = 64;

/// Who hears, and on which subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Sessions that subscribe.
    Listeners,
    /// The gateways of this edge, at their own addresses.
    Gateways,
}

pub(crate) struct Room {
    pub(super) tenant: TenantId,
    pub(super) inner: Mutex<Inner>,
    /// A place for each pattern that is being loaded.
    loading: Semaphore,
    pub(super) wake: Notify,
    /// Whether the store is to be asked before its time.
    pub(super) look: AtomicBool,
}

#[derive(Default)]
pub(super) struct Inner {
    members: IndexMap<u64, Listening>,
    pub(super) watches: BTreeMap<Pattern, Watch>,
    /// Patterns that are being loaded, and what will have come of it: a thousand listeners of one building cost one load.
    loads: BTreeMap<Pattern, watch::Receiver<Option<Result<(), SubscribeError>>>>,
    /// The gateways of this edge at whose addresses somebody speaks.
    pub(super) gateways: BTreeMap<Address, Arc<Gateway>>,
    listened: BTreeMap<StreamId, Known>,
    heard: BTreeMap<StreamId, Known>,
    /// Streams whose openers were asked to tell a gateway of this edge of them, its session, and when.
    asked: BTreeMap<StreamId, (u64, Instant)>,
    closed: VecDeque<(StreamId, Instant)>,
}

/// To the edge of a stream's opener: it is to tell a gateway of this edge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ask {
    pub(super) opener: EdgeId,
    pub(super) key: GatewayKey,
    pub(super) epoch: Epoch,
}

struct Listening {
    member: Arc<Member>,
    /// A gateway's own address, of which it hears as a gateway.
    own: Option<Address>,
    subs: Vec<(Pattern, Arc<PathFilter>)>,
}

impl Listening {
    fn wants(&self, stream: &Stream) -> bool {
        let covers = |(to, filter): &(Pattern, Arc<PathFilter>)| to.matches(&stream.of) && filter.matches(&stream.path);
        self.own.as_ref() != Some(&stream.of) && self.subs.iter().any(covers)
    }
}

/// A pattern that somebody listens to. Dropping it ends the bus subscription.
pub(super) struct Watch {
    members: IndexSet<u64>,
    /// Subscriptions to it that are being made, whose listeners are no members yet.
    pins: usize,
    _subscription: Subscription,
}

/// An open stream.
struct Known {
    stream: Arc<Stream>,
    /// Who was told, by member or by session.
    told: IndexMap<u64, Told>,
    /// When something was last heard of it.
    heard_at: Instant,
}

struct Told {
    conn: Arc<Conn>,
    /// Whether it is the opener, who does not hear itself.
    mute: bool,
}

/// Keeps a watch while a subscription to it is being made.
pub(crate) struct Pinned {
    room: Arc<Room>,
    to: Pattern,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut inner = self.room.inner.lock();
        if let Some(watch) = inner.watches.get_mut(&self.to) {
            watch.pins -= 1;
        }
        inner.unwatch(&self.to);
    }
}

impl Room {
    pub(super) fn start(shared: &Arc<Shared>, tenant: TenantId) -> Arc<Self> {
        let room = Arc::new(Self {
            tenant,
            inner: Mutex::default(),
            loading: Semaphore::new(LOADS),
            wake: Notify::new(),
            look: AtomicBool::new(false),
        });
        shared.tasks.spawn(keeper::run(shared.clone(), room.clone()));
        room
    }

    /// Has the store asked soon.
    pub(super) fn look_again(&self) {
        if !self.look.swap(true, Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    pub(super) fn gateway_came(&self, gateway: &Arc<Gateway>) {
        self.inner.lock().gateways.insert(gateway.key.address.clone(), gateway.clone());
        self.look.store(true, Ordering::Relaxed);
        // Also when a look is asked for already: an idle room does not do it.
        self.wake.notify_one();
    }

    pub(super) fn hears(&self, stream: StreamId, conn: &Arc<Conn>) -> bool {
        let inner = self.inner.lock();
        let known = inner.listened.get(&stream).into_iter().chain(inner.heard.get(&stream));
        known.flat_map(|known| known.told.values()).any(|told| Arc::ptr_eq(&told.conn, conn))
    }

    /// Sees to it that this edge hears the pattern. Who comes while it is being loaded waits for that load and shares its
    /// failure, so that nobody waits for many calls in a row.
    pub(super) async fn watch(self: &Arc<Self>, shared: &Arc<Shared>, to: &Pattern) -> Result<Pinned, SubscribeError> {
        loop {
            let (outcome, mut under_way) = {
                let mut inner = self.inner.lock();
                // A load that panicked leaves a channel without a sender.
                let load = inner.loads.get(to).filter(|load| load.has_changed().is_ok()).cloned();
                match (load, inner.watches.get_mut(to)) {
                    (Some(load), _) => (None, load),
                    (None, Some(watch)) => {
                        watch.pins += 1;
                        return Ok(Pinned { room: self.clone(), to: to.clone() });
                    }
                    (None, None) => {
                        let (outcome, load) = watch::channel(None);
                        inner.loads.insert(to.clone(), load.clone());
                        (Some(outcome), load)
                    }
                }
            };
            let Some(outcome) = outcome else {
                if let Ok(loaded) = under_way.wait_for(Option::is_some).await
                    && let Some(Err(error)) = *loaded
                {
                    return Err(error);
                }
                continue;
            };
            let loaded = self.load(shared, to).await;
            self.inner.lock().loads.remove(to);
            let _ = outcome.send(Some(loaded.as_ref().map(|_| ()).map_err(|error| *error)));
            return loaded;
        }
    }

    /// Begins a watch: subscribes first, reads which streams are open after.
    async fn load(self: &Arc<Self>, shared: &Arc<Shared>, to: &Pattern) -> Result<Pinned, SubscribeError> {
        let unavailable = |_| SubscribeError::Unavailable;
        let _place = timeout(shared.config.answer, self.loading.acquire()).await.map_err(unavailable)?;
        let (inbox, receiver, lost) = riser_bus::lossy_inbox(INBOX);
        let filter = Filter::Live(self.tenant.clone(), to.clone());
        let subscription = timeout(shared.config.call, shared.ports.bus.subscribe(&filter, &inbox)).await;
        let Ok(Ok(subscription)) = subscription else { return Err(SubscribeError::Unavailable) };
        let watch = Watch { members: IndexSet::new(), pins: 1, _subscription: subscription };
        self.inner.lock().watches.insert(to.clone(), watch);
        let pinned = Pinned { room: self.clone(), to: to.clone() };
        let (room, pattern, with) = (self.clone(), to.clone(), shared.clone());
        shared.tasks.spawn(async move { room.pump(&with, &pattern, receiver, &lost).await });
        let building = building_of(to);
        let asked_at = Instant::now();
        let read = shared.ports.streams.streams(&self.tenant, building);
        let open = shared.call(read).await.map_err(|_| SubscribeError::Unavailable)?;
        let asks = self.compared(shared, building, &open, asked_at, false);
        keeper::ask_openers(shared, asks).await;
        // The keeper may have had nobody to compare for until now.
        self.wake.notify_one();
        Ok(pinned)
    }

    /// Takes what comes for one watched pattern until it is watched no more.
    async fn pump(
        &self,
        shared: &Arc<Shared>,
        to: &Pattern,
        mut receiver: tokio::sync::mpsc::Receiver<Delivery>,
        lost: &std::sync::atomic::AtomicU64,
    ) {
        let mut batch = Vec::new();
        while super::take(shared, &mut receiver, &mut batch, lost).await {
            // Where watched patterns overlap, a message comes once for each of them: the widest is listened to.
            let widest = |delivery: &Delivery| match &delivery.subject {
                Subject::Live(key) => self.inner.lock().widest(&key.address).as_ref() == Some(to),
                _ => false,
            };
            let mine = batch.drain(..).filter(widest).collect();
            self.take(shared, Side::Listeners, mine);
            // A burst to many listeners must not keep the runtime's thread from the other tenants.
            tokio::task::yield_now().await;
        }
    }

    /// Takes messages of the bus, and writes to each connection once.
    pub(super) fn take(&self, shared: &Shared, side: Side, deliveries: Vec<Delivery>) {
        let usage = shared.usage(&self.tenant);
        let _turn = usage.turn();
        let mut pushed = Pushed::live();
        let mut look = false;
        for Delivery { subject, payload } in deliveries {
            let (Subject::Live(key) | Subject::EdgeLive(_, key)) = subject else { continue };
            if key.tenant != self.tenant {
                shared.metrics.bus_ignored(Ignored::Malformed);
                continue;
            }
            // A gateway that is here no more hears elsewhere.
            let gateway = match side {
                Side::Listeners => None,
                Side::Gateways => match shared.gateways.lock().held.get(&key).cloned() {
                    Some(gateway) if gateway.may_hear() => Some(gateway),
                    Some(_) | None => continue,
                },
            };
            let mut inner = self.inner.lock();
            if let Some(gateway) = gateway
                && inner.gateways.insert(key.address.clone(), gateway).is_none()
            {
                // What somebody hears is compared.
                self.wake.notify_one();
            }
            look |= inner.take(shared, side, &key, &payload, &mut pushed);
        }
        drop(pushed);
        if look {
            self.look_again();
        }
    }

    /// Makes or replaces a subscription, and tells of all open streams that it is about.
    pub(super) fn join(&self, shared: &Shared, member: &Arc<Member>, own: Option<&Address>, sub: &Sub) {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        if let Some(watch) = inner.watches.get_mut(&sub.to) {
            watch.members.insert(member.id);
        }
        let listening = inner.members.entry(member.id).or_insert_with(|| Listening {
            member: member.clone(),
            own: own.cloned(),
            subs: Vec::new(),
        });
        listening.subs.retain(|(to, _)| *to != sub.to);
        listening.subs.push((sub.to.clone(), sub.live.clone()));
        for known in inner.listened.values_mut() {
            let stream = &known.stream;
            if !listening.wants(stream) {
                known.forget(member.id);
            } else if sub.to.matches(&stream.of) && sub.live.matches(&stream.path) {
                let mute = shared.live.opened_by(&self.tenant, stream.id, &member.conn);
                member.conn.push(frame::text(&outbound::opened(stream)));
                known.told.insert(member.id, Told { conn: member.conn.clone(), mute });
            }
        }
    }

    /// Ends a subscription, when there is one: nothing more of it comes, not even what waits.
    pub(super) fn part(&self, member: u64, to: &Pattern) {
        self.inner.lock().part(member, to);
    }

    pub(super) fn leave(&self, member: u64) {
        let mut inner = self.inner.lock();
        let subs = inner.members.get(&member).map(|listening| listening.subs.clone()).unwrap_or_default();
        for (to, _) in subs {
            inner.part(member, &to);
        }
    }

    /// Takes which streams of a building, or of the whole tenant, were open when the store was asked. `judge` says
    /// whether those that are missing are over. A gateway is told of a stream by the edge of its opener, which then sends
    /// it the frames: what is given is to be asked for. When nothing has come of it by the next look, it is told here.
    pub(super) fn compared(
        &self,
        shared: &Shared,
        building: Option<&BuildingId>,
        open: &[Stream],
        asked_at: Instant,
        judge: bool,
    ) -> BTreeSet<Ask> {
        let mut pushed = Pushed::live();
        let mut asks = BTreeSet::new();
        {
            let mut inner = self.inner.lock();
            for stream in open {
                if inner.widest(&stream.of).is_some() {
                    inner.opened(shared, &self.tenant, Side::Listeners, stream, &mut pushed);
                }
                match inner.ask(stream) {
                    Some(ask) => drop(asks.insert(ask)),
                    None => inner.opened(shared, &self.tenant, Side::Gateways, stream, &mut pushed),
                }
            }
            if judge {
                inner.end_missing(shared, building, open, asked_at, &mut pushed);
            }
        }
        drop(pushed);
        if !asks.is_empty() {
            self.look_again();
        }
        asks
    }
}

/// Which building's streams a pattern is about; none when all are.
pub(super) fn building_of(to: &Pattern) -> Option<&BuildingId> {
    match to {
        Pattern::One(address) => Some(address.building()),
        Pattern::Building(building) => Some(building),
        Pattern::All => None,
    }
}
