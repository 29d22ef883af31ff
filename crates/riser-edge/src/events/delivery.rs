//! Who listens to a tenant's events, and how each is given what comes after its position. Nothing here waits.
//!
//! A listener that has everything is *current*: its position is the stream's, and only an event that its patterns name
//! touches it. All others are given more when their connection drains, or when a page has come that they wait for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use indexmap::{IndexMap, IndexSet};
use riser_bus::log::{Bounds, Stored};
use riser_core::event::Cursor;
use riser_core::frame::outbound;
use riser_core::{Address, CloseCode, PathFilter, Pattern};
use tokio::time::{Duration, Instant};

use super::feed::Listener;
use super::follower::{Place, Position, Stream};
use super::pages::{Entry, Found, Pages, Range, first_of};
use super::ring::Ring;
use crate::hub::patterns_of;
use crate::shared::Shared;
use crate::ws::{Conn, frame};

/// Events that one listener goes past at once, so that a filter that lets nothing through does not keep the others out.
const PAST: usize = 4_096;
/// For how long the connection of a listener must have taken nothing before it counts as too slow: a burst alone makes
/// nobody slow.
const STALLED: Duration = Duration::from_secs(2);

pub(super) struct Inner {
    /// Whether a task follows the events, or tries to.
    pub(super) running: bool,
    /// Whether its tail stands.
    pub(super) tailing: bool,
    /// A position that was read for who does not listen to events.
    pub(super) seen: Option<(Instant, Option<Cursor>)>,
    stream: Option<Stream>,
    ring: Ring,
    pages: Pages,
    followers: IndexMap<u64, Follower>,
    /// Who listens to which pattern.
    watches: BTreeMap<Pattern, IndexSet<u64>>,
}

struct Follower {
    conn: Arc<Conn>,
    /// Whether it may see who changed what.
    audits: Arc<AtomicBool>,
    position: Position,
    /// Whether it has everything and is owed nothing.
    current: bool,
    /// Whether it had everything once: from then on it must keep up.
    live: bool,
    /// Whether it waits for a page.
    waits: bool,
}

/// What is to be done once the lock is gone.
#[derive(Default)]
pub(super) struct After {
    /// What must be read, and in which life of the stream.
    pub(super) reads: Vec<(Range, u64)>,
    pub(super) flush: Vec<Arc<Conn>>,
}

/// What became of an attempt to give a listener one event more.
enum Given {
    /// It was sent, or was not for it; and how many events that were.
    Past(usize, bool),
    /// The store does not keep it, but this one.
    Missing(u64),
    /// It must wait for a page, which may have to be read.
    Waits(Option<Range>),
}

impl Inner {
    pub(super) fn new(all_pages: Arc<AtomicUsize>) -> Self {
        Self {
            running: false,
            tailing: false,
            seen: None,
            stream: None,
            ring: Ring::default(),
            pages: Pages::new(all_pages),
            followers: IndexMap::new(),
            watches: BTreeMap::new(),
        }
    }

    pub(super) fn stream(&self) -> Option<Stream> {
        self.stream
    }

    pub(super) fn nobody(&self) -> bool {
        self.followers.is_empty()
    }

    /// Nobody listens any more. The position is kept, so that who comes at this moment is told when the stream is another.
    pub(super) fn rest(&mut self) {
        self.running = false;
        self.ring = Ring::default();
        self.pages.clear();
    }

    /// Makes or replaces a subscription.
    pub(super) fn put(
        &mut self,
        shared: &Shared,
        who: Listener<'_>,
        to: &Pattern,
        filter: &Arc<PathFilter>,
        mut place: Place,
    ) {
        let last = self.stream.map_or(place.at, |stream| stream.last);
        if self.stream.is_some_and(|stream| stream.life != place.life) {
            // It is another stream since the cursor was looked at. What only came into being since has lost nothing.
            place.gap |= place.life != 0 && !place.goes_on;
            place.at = 0;
        }
        let new = || Follower {
            conn: who.conn.clone(),
            audits: who.audits.clone(),
            position: Position::default(),
            current: false,
            live: false,
            waits: false,
        };
        let follower = self.followers.entry(who.member).or_insert_with(new);
        follower.settle(last);
        follower.live = false;
        follower.position.put(to, filter, place, last);
        if place.gap {
            follower.gap(shared, to);
        }
        self.watches.entry(to.clone()).or_default().insert(who.member);
    }

    pub(super) fn part(&mut self, member: u64, to: &Pattern) {
        let Some(follower) = self.followers.get_mut(&member) else { return };
        if let Some(stream) = self.stream {
            follower.settle(stream.last);
        }
        follower.position.remove(to);
        if follower.position.is_empty() {
            self.followers.swap_remove(&member);
        } else {
            // What it waited for may have been for this one.
            follower.conn.request_refill();
        }
        self.unwatch(member, to);
    }

    pub(super) fn leave(&mut self, member: u64) {
        let Some(follower) = self.followers.swap_remove(&member) else { return };
        for to in follower.position.patterns() {
            self.unwatch(member, to);
        }
    }

    fn unwatch(&mut self, member: u64, to: &Pattern) {
        if let Some(members) = self.watches.get_mut(to) {
            members.swap_remove(&member);
            if members.is_empty() {
                self.watches.remove(to);
            }
        }
    }

    pub(super) fn owe_synced(&mut self, member: u64, to: &Pattern) -> bool {
        let Some(follower) = self.followers.get_mut(&member) else { return false };
        if let Some(stream) = self.stream {
            follower.settle(stream.last);
        }
        follower.position.owe_synced(to)
    }

    pub(super) fn position(&self, member: Option<u64>) -> Option<Cursor> {
        let follower = member.and_then(|member| self.followers.get(&member));
        let at = |last: u64| {
            let at = follower.and_then(|f| f.position.at().map(|at| if f.current { at.max(last) } else { at }));
            at.or_else(|| self.tailing.then_some(last))
        };
        let known = self.stream.and_then(|Stream { life, last }| Some(Cursor { life, seq: at(last)? }));
        known.or_else(|| self.seen.and_then(|(_, cursor)| cursor))
    }

    /// The tail begins anew, at these bounds.
    pub(super) fn begin(&mut self, shared: &Shared, bounds: Bounds, after: &mut After) {
        let now = Stream { life: bounds.life, last: bounds.last };
        let before = self.stream.replace(now);
        self.tailing = true;
        if let Some(before) = before {
            for follower in self.followers.values_mut() {
                follower.settle(before.last);
            }
            // What was stored since the last tail is not in the ring, and is read.
            if before != now {
                self.ring.clear();
            }
            // A stream of the same life that ends before what was known of it has lost events all the same.
            if before.life != now.life || before.last > now.last {
                self.ring = Ring::default();
                self.pages.clear();
                if before.life != 0 {
                    self.begin_anew(shared, bounds);
                }
            }
        }
        for at in 0..self.followers.len() {
            let Some((&id, _)) = self.followers.get_index(at) else { return };
            self.pump(shared, id, after);
        }
    }

    /// Everybody goes on from the oldest event of another stream, and is told so.
    fn begin_anew(&mut self, shared: &Shared, bounds: Bounds) {
        for follower in self.followers.values_mut() {
            follower.live = false;
            for to in follower.position.begin_anew(bounds.first, bounds.last) {
                follower.gap(shared, &to);
            }
        }
    }

    /// Takes events of the tail; false when one is missing, so that it must begin again.
    pub(super) fn take(&mut self, shared: &Shared, batch: &mut Vec<Stored>, after: &mut After) -> bool {
        let Some(before) = self.stream else { return false };
        let Stream { life, mut last } = before;
        let mut touched = IndexSet::new();
        let mut whole = true;
        for stored in batch.drain(..) {
            whole &= stored.seq == last + 1;
            if !whole {
                break;
            }
            last = stored.seq;
            let entry = Entry::new(shared, life, stored);
            self.touches(&entry.of, &mut touched);
            self.ring.push(entry);
        }
        self.stream = Some(Stream { life, last });
        for id in touched {
            if let Some(follower) = self.followers.get_mut(&id)
                && follower.settle(before.last)
            {
                self.pump_as(shared, id, true, after);
            }
        }
        whole
    }

    /// Notes who listens to an address.
    fn touches(&self, of: &Address, touched: &mut IndexSet<u64>) {
        for pattern in patterns_of(of) {
            touched.extend(self.watches.get(&pattern).into_iter().flatten().copied());
        }
    }

    /// Takes what was read of a page, and gives it to who waited.
    pub(super) fn take_page(
        &mut self,
        shared: &Shared,
        range: Range,
        life: u64,
        bounds: Bounds,
        entries: Vec<Entry>,
        after: &mut After,
    ) {
        if self.stream.is_none_or(|stream| stream.life != life) {
            // Another life began meanwhile, with pages of its own.
            return;
        }
        if bounds.life != life {
            // The tail is about to find that it is another stream, and then all begin anew.
            return self.pages.give_up(range.page);
        }
        let nothing = entries.is_empty();
        self.pages.put(range, entries.into_iter());
        let waiting: Vec<u64> = self.followers.iter().filter(|(_, f)| f.waits).map(|(id, _)| *id).collect();
        for id in waiting {
            let Some(follower) = self.followers.get_mut(&id) else { continue };
            let Some(next) = follower.position.at().map(|at| at + 1) else { continue };
            if next < bounds.first {
                follower.skip(shared, bounds.first);
            } else if nothing && (range.from..first_of(range.page + 1)).contains(&next) {
                // The store keeps nothing of the rest of the page: it must not be asked for ever.
                follower.skip(shared, first_of(range.page + 1).min(bounds.last + 1));
            }
            self.pump(shared, id, after);
        }
    }

    /// Nobody answered for a range. True when it is not needed any more.
    pub(super) fn give_up(&mut self, range: Range, life: u64) -> bool {
        let needed = self.stream.is_some_and(|stream| stream.life == life) && self.followers.values().any(|f| f.waits);
        if !needed && self.stream.is_some_and(|stream| stream.life == life) {
            self.pages.give_up(range.page);
        }
        !needed
    }

    /// Ends who takes nothing while events pass it by, and forgets pages that nobody takes from.
    pub(super) fn look(&mut self, shared: &Shared) {
        self.pages.expire();
        let Some(stream) = self.stream else { return };
        for follower in self.followers.values().filter(|f| f.live && !f.current) {
            let stalled = follower.conn.blocked_since().is_some_and(|since| since.elapsed() >= STALLED);
            let passed = follower.position.at().is_some_and(|at| self.ring.has_passed(at + 1, stream.last));
            if stalled && passed && !follower.conn.is_ending() {
                shared.metrics.events.behind.inc();
                let reason = "{\"message\":\"too slow for the events: resume with the cursor\"}";
                follower.conn.cut(CloseCode::TooSlow.number(), reason);
            }
        }
    }

    /// Gives a listener what its connection has room for. True when something was sent.
    pub(super) fn pump(&mut self, shared: &Shared, id: u64, after: &mut After) -> bool {
        self.pump_as(shared, id, false, after)
    }

    /// The same, of events that are `live`, or that it did not get at once.
    fn pump_as(&mut self, shared: &Shared, id: u64, live: bool, after: &mut After) -> bool {
        let Some(stream) = self.stream else { return false };
        let Some(follower) = self.followers.get_mut(&id) else { return false };
        if follower.current {
            return false;
        }
        let (mut sent, mut past) = (false, 0);
        follower.waits = false;
        while !follower.conn.is_ending() {
            for to in follower.position.synced() {
                // Where all its subscriptions stand, so that one cursor is good for all of them.
                let cursor = follower.position.at().map(|seq| Cursor { life: stream.life, seq });
                sent |= follower.conn.push(frame::text(&outbound::synced(&to, cursor)));
            }
            let Some(at) = follower.position.at().filter(|at| *at < stream.last) else {
                (follower.current, follower.live) = (true, true);
                break;
            };
            if !follower.has_room(shared) || past >= PAST {
                follower.conn.request_refill();
                break;
            }
            match give(shared, follower, &self.ring, &mut self.pages, at + 1, live) {
                Given::Past(count, pushed) => {
                    sent |= pushed;
                    past += count;
                }
                Given::Missing(later) => {
                    follower.skip(shared, later);
                    sent = true;
                }
                Given::Waits(read) => {
                    follower.waits = true;
                    after.reads.extend(read.map(|range| (range, stream.life)));
                    break;
                }
            }
        }
        if sent {
            after.flush.push(follower.conn.clone());
        }
        sent
    }
}

impl Follower {
    /// Ends being current, at the event that was the last one until now. False when it was not current.
    fn settle(&mut self, last: u64) -> bool {
        if !std::mem::replace(&mut self.current, false) {
            return false;
        }
        self.position.settle(last);
        true
    }

    /// Goes on from what is kept, and says that something is missing.
    fn skip(&mut self, shared: &Shared, first: u64) {
        for to in self.position.skip_to(first) {
            self.gap(shared, &to);
        }
    }

    fn gap(&self, shared: &Shared, to: &Pattern) {
        shared.metrics.events.gaps.inc();
        self.conn.push(frame::text(&outbound::gap(to)));
    }

    fn has_room(&self, shared: &Shared) -> bool {
        let full = || self.conn.queued_bytes() > shared.config.conflate_above;
        if full() && self.conn.blocked_since().is_none() {
            // A burst alone makes nobody slow: what the socket takes is written first.
            self.conn.flush();
        }
        !full()
    }
}

/// Gives a listener its next event, and those of the same page that its connection has room for.
fn give(shared: &Shared, follower: &mut Follower, ring: &Ring, pages: &mut Pages, seq: u64, live: bool) -> Given {
    if let Some(entry) = ring.get(seq) {
        return Given::Past(1, pass(shared, follower, entry, live));
    }
    match pages.find(seq) {
        Found::Here(entries, from) => {
            shared.metrics.events.page_hits.inc();
            let (mut count, mut sent) = (0, false);
            for entry in &entries[from..] {
                let next = follower.position.at().is_some_and(|at| at + 1 == entry.seq);
                if !next || follower.conn.queued_bytes() > shared.config.conflate_above {
                    break;
                }
                sent |= pass(shared, follower, entry, live);
                count += 1;
            }
            Given::Past(count, sent)
        }
        Found::Missing(later) => Given::Missing(later),
        Found::Read(range) => Given::Waits(Some(range)),
        Found::Wait => Given::Waits(None),
    }
}

/// Goes past an event, and sends it if it is for the listener. True when it was sent.
fn pass(shared: &Shared, follower: &mut Follower, entry: &Entry, live: bool) -> bool {
    if !follower.position.pass(entry.seq, &entry.of, entry.path.as_ref()) {
        return false;
    }
    if entry.audit && !follower.audits.load(Ordering::Relaxed) {
        return false;
    }
    shared.metrics.events.delivered(live);
    follower.conn.push(entry.frame.clone())
}
