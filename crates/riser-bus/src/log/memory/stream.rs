//! One tenant's stream: the events that are kept, what may be repeated, and who listens.

use std::collections::VecDeque;
use std::sync::Arc;

use riser_core::Address;
use riser_core::event::{Cursor, Event};
use tokio::sync::mpsc;

use super::faults::Link;
use super::repeats::{Origin, Place, Repeats};
use crate::log::{Appended, Bounds, Erased, LOG_PAGE, LogError, Stored, TAIL_QUEUE, Tail};

/// Events that are kept of one tenant unless told otherwise: a day of a thousand homes that ring now and then.
pub const RETAINED_EVENTS: usize = 100_000;
/// Bytes that the events of one tenant take at most, counted roughly, so that large ones do not fill the memory long
/// before there are [`RETAINED_EVENTS`]. The newest event is kept whatever it takes.
pub const RETAINED_BYTES: usize = 64 << 20;
/// Tails of one tenant at once. An edge has one, so that this is more edges than a cluster has; further ones fail.
pub const TAILS: usize = 1_024;

/// What is known of one tenant.
#[derive(Default)]
pub(super) struct Stream {
    /// 0 until the first event.
    life: u64,
    last: u64,
    /// The newest events; the last one has the number `last`. The first is never a hole that an erasure left.
    events: VecDeque<Option<Arc<Event>>>,
    /// What `events` take.
    bytes: usize,
    repeats: Repeats,
    tails: Vec<TailEnd>,
}

/// The store's end of a tail. Dropping it ends the tail.
struct TailEnd {
    link: Arc<Link>,
    events: mpsc::Sender<Stored>,
}

impl Stream {
    pub(super) fn bounds(&self) -> Bounds {
        Bounds { life: self.life, first: self.last + 1 - self.events.len() as u64, last: self.last }
    }

    /// What was answered when this event was stored less than `dedup_ms` ago, if it was.
    pub(super) fn repeated(&mut self, event: &Event, dedup_ms: u64, now_ms: u64) -> Option<Appended> {
        let Place { seq, .. } = self.repeats.find(&Origin::of(event), dedup_ms, now_ms)?;
        Some(Appended { cursor: Cursor { life: self.life, seq }, duplicate: true })
    }

    /// Stores an event, in a new life when there is no stream yet.
    pub(super) fn store(&mut self, mut event: Event, now_ms: u64, new_life: impl FnOnce() -> u64) -> Appended {
        if self.life == 0 {
            self.life = new_life();
            self.tails.clear();
        }
        self.last += 1;
        event.at_ms = now_ms;
        let stored = Stored { seq: self.last, event };
        // A tail that is full or whose reader is gone ends here.
        self.tails.retain(|tail| tail.events.try_send(stored.clone()).is_ok());
        self.repeats.remember(Origin::of(&stored.event), Place { seq: self.last, at_ms: now_ms });
        self.bytes += size(&stored.event);
        self.events.push_back(Some(Arc::new(stored.event)));
        Appended { cursor: Cursor { life: self.life, seq: self.last }, duplicate: false }
    }

    /// Drops the oldest events until there are no more than these.
    pub(super) fn retain(&mut self, max_events: usize) {
        while self.events.len() > max_events || (self.bytes > RETAINED_BYTES && self.events.len() > 1) {
            let Some(oldest) = self.events.pop_front() else { return };
            self.bytes -= oldest.map_or(0, |event| size(&event));
        }
        self.skip_holes();
    }

    fn skip_holes(&mut self) {
        while matches!(self.events.front(), Some(None)) {
            self.events.pop_front();
        }
    }

    /// How many events are kept.
    pub(super) fn len(&self) -> u64 {
        self.events.iter().flatten().count() as u64
    }

    /// Erases what happened at an address, among a page's worth of events.
    pub(super) fn erase(&mut self, at: &Address, from: u64) -> Erased {
        let page = self.page(from);
        let next = page.last().map(|(seq, _)| seq + 1).filter(|next| *next <= self.last);
        let first = self.bounds().first;
        let mut events = 0;
        for (seq, event) in page.into_iter().filter(|(_, event)| event.of == *at) {
            let place = usize::try_from(seq - first).ok().and_then(|place| self.events.get_mut(place));
            if place.and_then(Option::take).is_some() {
                self.bytes -= size(&event);
                events += 1;
            }
        }
        self.skip_holes();
        Erased { events, next }
    }

    /// A page of events from this number on, with their numbers.
    pub(super) fn page(&self, from: u64) -> Vec<(u64, Arc<Event>)> {
        let first = self.bounds().first;
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX).min(self.events.len());
        let numbered = (first + skip as u64..).zip(self.events.range(skip..));
        numbered.filter_map(|(seq, event)| Some((seq, event.clone()?))).take(LOG_PAGE).collect()
    }

    /// Begins a tail at the end of the stream.
    pub(super) fn tail(&mut self, link: &Arc<Link>) -> Result<Tail, LogError> {
        self.tails.retain(|tail| !tail.events.is_closed());
        // A cut ends the tails under the stream's lock, so that one that came too late for that is noticed here.
        if link.is_cut() || self.tails.len() >= TAILS {
            return Err(LogError::Unavailable);
        }
        let (sender, events) = mpsc::channel(TAIL_QUEUE);
        self.tails.push(TailEnd { link: link.clone(), events: sender });
        Ok(Tail { bounds: self.bounds(), events })
    }

    /// Ends the tails of these links.
    pub(super) fn end_tails(&mut self, of: impl Fn(&Arc<Link>) -> bool) {
        self.tails.retain(|tail| !of(&tail.link));
    }
}

/// Roughly what an event takes in memory: itself and its texts.
fn size(event: &Event) -> usize {
    let data = event.data.as_ref().map_or(0, |data| data.as_str().len());
    size_of::<Event>() + event.id.as_str().len() + event.kind.as_str().len() + event.from.len() + data
}
