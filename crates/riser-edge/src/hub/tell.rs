//! How listeners are told: who is interested, what is encoded, and what a slow one is owed instead.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use riser_core::frame::Lanes;
use riser_core::frame::outbound::{self, Delta};
use riser_core::state::Touched;
use riser_core::{Address, Label, PathFilter, Snapshot, Version};

use super::mirror::{Effect, is_stale};
use super::owed::{Debt, Due};
use super::{Hub, Inner, Member, Sub, patterns_of};
use crate::shared::Shared;
use crate::ws::{Pushed, frame};

/// What of one gateway a listener wants.
#[derive(Default)]
struct Interest<'a> {
    state: Option<Cow<'a, Arc<PathFilter>>>,
    presence: bool,
}

impl<'a> Interest<'a> {
    /// Overlapping subscriptions are one interest, so that a frame is delivered once.
    fn of(subs: &'a [Sub], address: &Address) -> Self {
        let mut interest = Self::default();
        for sub in subs.iter().filter(|s| s.to.matches(address)) {
            interest.add(sub.lanes, &sub.filter);
        }
        interest
    }

    fn add(&mut self, lanes: Lanes, filter: &'a Arc<PathFilter>) {
        self.presence |= lanes.presence;
        if lanes.state {
            self.state = Some(match self.state.take() {
                Some(other) if *other != *filter => Cow::Owned(Arc::new(other.union(filter))),
                _ => Cow::Borrowed(filter),
            });
        }
    }

    fn is_none(&self) -> bool {
        self.state.is_none() && !self.presence
    }
}

/// The frames of one effect, one set per distinct filter.
struct Encoded<'a, F: Fn(&PathFilter) -> Vec<String>> {
    encode: F,
    shared: &'a Shared,
    sets: Vec<(Arc<PathFilter>, Vec<Bytes>)>,
}

impl<'a, F: Fn(&PathFilter) -> Vec<String>> Encoded<'a, F> {
    fn new(shared: &'a Shared, encode: F) -> Self {
        Self { encode, shared, sets: Vec::new() }
    }

    fn get(&mut self, filter: &Arc<PathFilter>) -> &[Bytes] {
        let at = self.sets.iter().position(|(f, _)| Arc::ptr_eq(f, filter) || f == filter);
        let at = at.unwrap_or_else(|| {
            let frames = texts(self.shared, &(self.encode)(filter));
            self.sets.push((filter.clone(), frames));
            self.sets.len() - 1
        });
        &self.sets[at].1
    }
}

fn texts(shared: &Shared, frames: &[String]) -> Vec<Bytes> {
    shared.metrics.encoded.inc_by(frames.len() as u64);
    frames.iter().map(|text| frame::text(text)).collect()
}

/// The snapshot that was encoded last: after a full state all listeners of a gateway are owed the same one.
#[derive(Default)]
pub(crate) struct SnapshotCache(Option<CachedSnapshot>);

struct CachedSnapshot {
    of: Address,
    label: Option<Arc<Label>>,
    version: Version,
    state: bool,
    filter: Arc<PathFilter>,
    frames: Vec<Bytes>,
}

impl SnapshotCache {
    fn get(
        &mut self,
        shared: &Shared,
        address: &Address,
        label: Option<Arc<Label>>,
        snap: &Snapshot,
        interest: &Interest<'_>,
    ) -> Vec<Bytes> {
        let state = interest.state.is_some();
        let filter = interest.state.as_deref().cloned().unwrap_or_default();
        if let Some(c) = &self.0
            && (&c.of, &c.label, c.version, c.state, &c.filter) == (address, &label, snap.version, state, &filter)
        {
            return c.frames.clone();
        }
        let frames = texts(shared, &outbound::snapshot(address, label.as_deref(), snap, &filter, state));
        let (of, version) = (address.clone(), snap.version);
        self.0 = Some(CachedSnapshot { of, label, version, state, filter, frames: frames.clone() });
        frames
    }
}

impl Inner {
    /// Tells everybody who is interested what happened to a gateway.
    pub(crate) fn tell(&self, shared: &Shared, address: &Address, effects: Vec<Effect>, pushed: &mut Pushed) {
        for effect in effects {
            let Some(snap) = self.mirrors.get(address).and_then(|m| m.known()) else { return };
            match effect {
                Effect::Replaced => {
                    self.each_interested(address, |member, interest| {
                        if interest.state.is_some() {
                            member.owed.lock().snapshot(address);
                            member.conn.request_refill();
                        }
                    });
                }
                Effect::State { touched, at_ms, ts_ms } => {
                    let encode = |filter: &PathFilter| delta(address, snap, &touched, filter, at_ms, ts_ms);
                    let mut frames = Encoded::new(shared, encode);
                    self.each_interested(address, |member, interest| {
                        let Some(filter) = interest.state else { return };
                        let owe = |member: &Member| member.owed.lock().paths(address, &touched);
                        offer(shared, member, address, frames.get(&filter), owe, pushed);
                    });
                }
                Effect::Presence => {
                    let p = &snap.presence;
                    let encode =
                        |_: &PathFilter| vec![outbound::presence(address, p.online, p.epoch, p.reason, snap.at_ms)];
                    let mut frames = Encoded::new(shared, encode);
                    let all = Arc::new(PathFilter::ALL);
                    self.each_interested(address, |member, interest| {
                        if interest.presence {
                            let owe = |member: &Member| {
                                member.owed.lock().presence(address);
                                false
                            };
                            offer(shared, member, address, frames.get(&all), owe, pushed);
                        }
                    });
                }
                Effect::Devices => {
                    let Some(described) = &snap.state.devices else { continue };
                    let mut frames = Encoded::new(shared, |filter| outbound::devices(address, described, filter));
                    self.each_interested(address, |member, interest| {
                        let Some(filter) = interest.state else { return };
                        let owe = |member: &Member| {
                            member.owed.lock().devices(address);
                            false
                        };
                        offer(shared, member, address, frames.get(&filter), owe, pushed);
                    });
                }
            }
        }
    }

    /// Calls for each listener that wants something of the gateway, once, however many of its subscriptions name it.
    fn each_interested<'a>(&'a self, address: &Address, mut then: impl FnMut(&'a Arc<Member>, Interest<'a>)) {
        let watches = patterns_of(address).map(|pattern| self.watches.get(&pattern));
        for (i, watch) in watches.iter().enumerate() {
            let Some(watch) = watch else { continue };
            let (earlier, later) = (&watches[..i], &watches[i + 1..]);
            for (id, seat) in &watch.seats {
                if earlier.iter().flatten().any(|earlier| earlier.seats.contains_key(id)) {
                    continue;
                }
                let mut interest = Interest::default();
                interest.add(seat.lanes, &seat.filter);
                for also in later.iter().flatten().filter_map(|later| later.seats.get(id)) {
                    interest.add(also.lanes, &also.filter);
                }
                then(&seat.member, interest);
            }
        }
    }
}

/// Pushes frames to a listener, or notes what it is owed when it is slow.
fn offer(
    shared: &Shared,
    member: &Arc<Member>,
    address: &Address,
    frames: &[Bytes],
    owe: impl Fn(&Member) -> bool,
    pushed: &mut Pushed,
) {
    if frames.is_empty() {
        return;
    }
    let full = || member.conn.queued_bytes() > shared.config.conflate_above;
    if full() && member.conn.blocked_since().is_none() {
        // A burst alone makes nobody slow: what the socket takes is written first.
        member.conn.flush();
    }
    if member.owed.lock().holds(address) || full() {
        if owe(member) {
            shared.metrics.conflated.inc();
        }
        member.conn.request_refill();
        return;
    }
    shared.metrics.delivered.inc_by(frames.len() as u64);
    for bytes in frames {
        member.conn.push(bytes.clone());
    }
    pushed.to(&member.conn);
}

/// The `state` frames of what happened, for one filter; none when nothing passes it.
fn delta(
    address: &Address,
    snap: &Snapshot,
    touched: &Touched,
    filter: &PathFilter,
    at_ms: u64,
    ts_ms: Option<i64>,
) -> Vec<String> {
    let values = &snap.state.values;
    let mut set: Vec<_> = touched.set.iter().filter(|p| filter.matches(p)).collect();
    let mut fresh: Vec<_> = touched.fresh.iter().filter(|p| filter.matches(p) && !is_stale(snap, p)).collect();
    for paths in [&mut set, &mut fresh] {
        paths.sort_unstable();
        paths.dedup();
    }
    // A fresh path stands for all below it, so what stays stale there is named again.
    let again =
        values.keys().filter(|p| p.above().any(|above| fresh.binary_search_by(|f| f.as_str().cmp(above)).is_ok()));
    let mut stale: Vec<_> = touched.stale.iter().chain(set.iter().copied()).chain(again).collect();
    stale.retain(|p| filter.matches(p) && values.contains_key(*p) && is_stale(snap, p));
    stale.sort_unstable();
    stale.dedup();
    if set.is_empty() && fresh.is_empty() && stale.is_empty() {
        return Vec::new();
    }
    let set = set.into_iter().map(|p| (p, values.get(p).map(|v| &v.value))).collect();
    outbound::state(address, &Delta { version: snap.version, set, fresh, stale, at_ms, ts_ms })
}

impl Hub {
    /// Sends a listener what it is owed, as much as its queue should hold. True when something was sent.
    pub(crate) fn refill(&self, shared: &Arc<Shared>, member: &Arc<Member>) -> bool {
        // What is owed of gateways goes first, and then what is newest of the events.
        let owed = self.refill_owed(shared, member);
        self.feed.refill(shared, member.id) || owed
    }

    fn refill_owed(&self, shared: &Shared, member: &Arc<Member>) -> bool {
        let mut inner = self.inner.lock();
        let mut sent = false;
        while member.conn.queued_bytes() <= shared.config.conflate_above && !member.conn.is_ending() {
            let Some(due) = member.owed.lock().next() else { break };
            let delivered = match due {
                // When its events are not yet, the feed says it.
                Due::Synced(to) if self.feed.owe_synced(member.id, &to) => continue,
                Due::Synced(to) => {
                    self.feed.tell_position(Some(member.id), |cursor| {
                        member.conn.push(frame::text(&outbound::synced(&to, cursor)));
                    });
                    1
                }
                Due::Of(address, debt) => {
                    let label = debt.snapshot.then(|| self.names.label(&address)).flatten();
                    let frames = inner.settle(shared, member, &address, &debt, label);
                    let count = frames.len() as u64;
                    for bytes in frames {
                        member.conn.push(bytes);
                    }
                    count
                }
            };
            shared.metrics.delivered.inc_by(delivered);
            sent = true;
        }
        sent
    }
}

impl Inner {
    /// The newest of what is owed, as the listener's subscriptions are now. `label` is what the flat is called.
    fn settle(
        &mut self,
        shared: &Shared,
        member: &Member,
        address: &Address,
        debt: &Debt,
        label: Option<Arc<Label>>,
    ) -> Vec<Bytes> {
        let Some((_, subs)) = self.members.get(&member.id) else { return Vec::new() };
        let interest = Interest::of(subs, address);
        let Some(snap) = self.mirrors.get(address).and_then(|m| m.known()) else { return Vec::new() };
        if interest.is_none() {
            return Vec::new();
        }
        let mut frames = Vec::new();
        if debt.snapshot {
            frames = self.snapshots.get(shared, address, label, snap, &interest);
        } else if let Some(filter) = &interest.state {
            let touched = Touched { set: debt.paths.iter().cloned().collect(), ..Touched::default() };
            frames = texts(shared, &delta(address, snap, &touched, filter, snap.at_ms, None));
            if let (true, Some(described)) = (debt.devices, &snap.state.devices) {
                frames.extend(texts(shared, &outbound::devices(address, described, filter)));
            }
        }
        if debt.presence && interest.presence {
            let p = &snap.presence;
            let text = outbound::presence(address, p.online, p.epoch, p.reason, snap.at_ms);
            frames.extend(texts(shared, &[text]));
        }
        frames
    }
}
