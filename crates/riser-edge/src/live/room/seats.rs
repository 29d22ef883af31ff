//! What a room knows of its streams and of who hears them, under its lock. Nothing here waits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use indexmap::{IndexMap, IndexSet};
use riser_core::frame::outbound;
use riser_core::live::{Header, Stream, StreamEnd, StreamId};
use riser_core::routed::{self, Live, RoutedError};
use riser_core::{Address, BuildingId, GatewayKey, Pattern, TenantId};
use std::collections::BTreeMap;
use tokio::time::Instant;

use super::{Ask, Inner, Known, Side, Told};
use crate::gateway::Gateway;
use crate::live::REFRESH;
use crate::live::metrics::Dropped;
use crate::metrics::Ignored;
use crate::shared::Shared;
use crate::ws::{Conn, Pushed, frame};

/// How long it is remembered that a stream was closed, so that an answer of the store from before does not open it
/// again: longer than the store keeps a stream of which nobody told it that it is over.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Closed streams that are remembered: as many as a tenant may have open.
const CLOSED: usize = 4_096;

/// The patterns that name an address, the widest first.
fn patterns_of(address: &Address) -> [Pattern; 3] {
    [Pattern::All, Pattern::Building(address.building().clone()), Pattern::One(address.clone())]
}

impl Known {
    /// Forgets somebody who hears the stream no more, with what waits for it.
    pub(super) fn forget(&mut self, who: u64) {
        if let Some(told) = self.told.swap_remove(&who) {
            told.conn.forget_live(self.stream.id.0);
        }
    }
}

impl Inner {
    /// Whether nobody hears anything.
    pub(in crate::live) fn is_idle(&self) -> bool {
        self.watches.is_empty() && self.gateways.is_empty()
    }

    /// The widest watched pattern that names an address.
    pub(super) fn widest(&self, address: &Address) -> Option<Pattern> {
        patterns_of(address).into_iter().find(|pattern| self.watches.contains_key(pattern))
    }

    pub(super) fn table(&mut self, side: Side) -> &mut BTreeMap<StreamId, Known> {
        match side {
            Side::Listeners => &mut self.listened,
            Side::Gateways => &mut self.heard,
        }
    }

    /// Takes a message. True when the store should be asked, because something was missed.
    pub(super) fn take(
        &mut self,
        shared: &Shared,
        side: Side,
        key: &GatewayKey,
        payload: &Bytes,
        pushed: &mut Pushed,
    ) -> bool {
        if payload.first() != Some(&b'{') {
            return self.frame(shared, side, &key.address, payload, pushed);
        }
        match routed::decode::<Live>(payload) {
            Ok(Live::Opened { stream }) if stream.of == key.address => {
                self.opened(shared, &key.tenant, side, &stream, pushed);
            }
            Ok(Live::Closed { id, reason }) => {
                if self.closed.len() == CLOSED {
                    self.closed.pop_front();
                }
                self.closed.push_back((id, Instant::now()));
                self.closed(shared, side, id, reason, pushed);
            }
            Ok(Live::Opened { .. }) | Err(RoutedError::Malformed) => shared.metrics.bus_ignored(Ignored::Malformed),
            Err(RoutedError::Version) => shared.metrics.bus_ignored(Ignored::Version),
        }
        false
    }

    /// Who is to be told of a stream.
    pub(super) fn ears(&self, side: Side, stream: &Stream) -> Vec<(u64, Arc<Conn>)> {
        match side {
            Side::Listeners => {
                let watches = patterns_of(&stream.of).into_iter().filter_map(|pattern| self.watches.get(&pattern));
                let ids: IndexSet<u64> = watches.flat_map(|watch| watch.members.iter().copied()).collect();
                let wanting = ids.iter().filter_map(|id| self.members.get(id)).filter(|l| l.wants(stream));
                wanting.map(|listening| (listening.member.id, listening.member.conn.clone())).collect()
            }
            Side::Gateways => self.gateways.get(&stream.of).map(|g| (g.session, g.conn.clone())).into_iter().collect(),
        }
    }

    /// What the edge of a stream's opener is to be asked, when the gateway of its address is here and was not told of it:
    /// once for each session.
    pub(super) fn ask(&mut self, stream: &Stream) -> Option<Ask> {
        let gateway = self.gateways.get(&stream.of)?;
        let is_told = self.heard.get(&stream.id).is_some_and(|known| known.told.contains_key(&gateway.session));
        let is_closed = self.closed.iter().any(|(id, _)| *id == stream.id);
        let is_asked = self.asked.get(&stream.id).is_some_and(|(session, _)| *session == gateway.session);
        if is_told || is_closed || is_asked {
            return None;
        }
        self.asked.insert(stream.id, (gateway.session, Instant::now()));
        Some(Ask { opener: stream.edge.clone(), key: gateway.key.clone(), epoch: gateway.epoch })
    }

    /// Tells of an open stream whoever was not told yet.
    pub(super) fn opened(
        &mut self,
        shared: &Shared,
        tenant: &TenantId,
        side: Side,
        stream: &Stream,
        pushed: &mut Pushed,
    ) {
        if self.closed.iter().any(|(id, _)| *id == stream.id) {
            return;
        }
        if self.table(side).get(&stream.id).is_some_and(|known| *known.stream != *stream) {
            // The store lost the older one, and its number was given away.
            self.closed(shared, side, stream.id, StreamEnd::Lost, pushed);
        }
        let ears = self.ears(side, stream);
        if side == Side::Gateways {
            if ears.is_empty() {
                return;
            }
            self.asked.remove(&stream.id);
        }
        let known = self.table(side).entry(stream.id).or_insert_with(|| Known {
            stream: Arc::new(stream.clone()),
            told: IndexMap::new(),
            heard_at: Instant::now(),
        });
        known.heard_at = Instant::now();
        if side == Side::Gateways {
            known.told.retain(|session, _| ears.iter().any(|(id, _)| id == session));
        }
        let mut encoded = None;
        for (id, conn) in ears {
            if known.told.contains_key(&id) {
                continue;
            }
            let text = encoded.get_or_insert_with(|| frame::text(&outbound::opened(stream)));
            conn.push(text.clone());
            pushed.to(&conn);
            let mute = shared.live.opened_by(tenant, stream.id, &conn);
            known.told.insert(id, Told { conn, mute });
        }
    }

    /// Tells those who were told of a stream that it is over.
    pub(super) fn closed(&mut self, shared: &Shared, side: Side, id: StreamId, reason: StreamEnd, pushed: &mut Pushed) {
        self.asked.remove(&id);
        let Some(known) = self.table(side).remove(&id) else { return };
        let text = frame::text(&outbound::closed(&known.stream.of, id, reason));
        for told in known.told.into_values() {
            // `closed` goes before live frames that wait. Who reads has them by now; who is slow loses them, since
            // nothing of a stream may come after its end.
            told.conn.flush();
            let dropped = told.conn.forget_live(id.0);
            shared.metrics.live.dropped(Dropped::SlowReceiver, dropped as u64);
            told.conn.push(text.clone());
            pushed.to(&told.conn);
        }
    }

    /// Hands a frame to all who were told of its stream. True when the store should be asked what it is.
    pub(super) fn frame(
        &mut self,
        shared: &Shared,
        side: Side,
        at: &Address,
        payload: &Bytes,
        pushed: &mut Pushed,
    ) -> bool {
        let Ok(header) = Header::parse(payload) else {
            shared.metrics.bus_ignored(Ignored::Malformed);
            return false;
        };
        let gateway = self.gateways.get(at).map(|gateway| gateway.session);
        let known = self.table(side).get_mut(&header.stream).filter(|known| known.stream.of == *at);
        // A gateway's newer session has not been told what the older one was.
        let told = |known: &Known| side == Side::Listeners || gateway.is_some_and(|g| known.told.contains_key(&g));
        let Some(known) = known.filter(|known| told(known)) else {
            shared.metrics.live.dropped(Dropped::Unknown, 1);
            return !self.closed.iter().any(|(id, _)| *id == header.stream);
        };
        known.heard_at = Instant::now();
        let mut encoded = None;
        for told in known.told.values().filter(|told| !told.mute) {
            // Copied out of what it came in, which a slow receiver must not keep alive.
            let bytes = encoded.get_or_insert_with(|| frame::binary(payload));
            let dropped = told.conn.push_live(header.stream.0, bytes.clone());
            shared.metrics.live.delivered.inc();
            shared.metrics.live.dropped(Dropped::SlowReceiver, dropped as u64);
            pushed.to(&told.conn);
        }
        false
    }

    pub(super) fn part(&mut self, member: u64, to: &Pattern) {
        let Some(listening) = self.members.get_mut(&member) else { return };
        listening.subs.retain(|(other, _)| other != to);
        for known in self.listened.values_mut().filter(|known| !listening.wants(&known.stream)) {
            known.forget(member);
        }
        if listening.subs.is_empty() {
            self.members.swap_remove(&member);
        }
        if let Some(watch) = self.watches.get_mut(to) {
            watch.members.swap_remove(&member);
        }
        self.unwatch(to);
    }

    /// Ends a watch that nobody needs, and forgets the streams that no other watch covers.
    pub(super) fn unwatch(&mut self, to: &Pattern) {
        if self.watches.get(to).is_none_or(|watch| watch.pins > 0 || !watch.members.is_empty()) {
            return;
        }
        self.watches.remove(to);
        let listened = std::mem::take(&mut self.listened);
        self.listened = listened.into_iter().filter(|(_, known)| self.widest(&known.stream.of).is_some()).collect();
    }

    /// Ends what the store does not know any more, and of which nobody has heard for a while: an edge that lives has
    /// told the store again by then.
    pub(super) fn end_missing(
        &mut self,
        shared: &Shared,
        building: Option<&BuildingId>,
        open: &[Stream],
        asked_at: Instant,
        pushed: &mut Pushed,
    ) {
        for side in [Side::Listeners, Side::Gateways] {
            let missing = |known: &&Known| {
                building.is_none_or(|b| b == known.stream.of.building())
                    && known.heard_at + REFRESH <= asked_at
                    && !open.iter().any(|stream| stream.id == known.stream.id)
            };
            let lost: Vec<StreamId> = self.table(side).values().filter(missing).map(|known| known.stream.id).collect();
            for id in lost {
                self.closed(shared, side, id, StreamEnd::Lost, pushed);
            }
        }
    }

    /// Forgets those of `asked` that hear nothing, or are here no more, and what was closed long ago. `asked` are
    /// gateways for which the store was asked and answered.
    pub(in crate::live) fn tidy(&mut self, asked: &[Arc<Gateway>], is_here: impl Fn(&Gateway) -> bool) {
        let Self { gateways, heard, asked: openers, closed, .. } = self;
        openers.retain(|_, (_, at)| at.elapsed() < REFRESH);
        for gateway in asked {
            let address = &gateway.key.address;
            let hears = heard.values().any(|known| known.stream.of == *address)
                || openers.values().any(|(session, _)| *session == gateway.session);
            let same = gateways.get(address).is_some_and(|now| now.session == gateway.session);
            if same && !(hears && is_here(gateway)) {
                gateways.remove(address);
            }
        }
        heard.retain(|_, known| gateways.contains_key(&known.stream.of));
        closed.retain(|(_, at)| at.elapsed() < REMEMBERED);
    }
}
