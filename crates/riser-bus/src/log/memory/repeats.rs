//! What was stored lately, so that a repeat is answered as the first time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use riser_core::Address;
use riser_core::event::{Event, EventId};

/// Names of events that are remembered of one tenant, whatever their age. It stands for a thousand events a second over
/// the two minutes that are usual, and for some 30 MiB; what is older counts as new when it comes again.
pub const DEDUP_IDS: usize = 131_072;

/// What makes two events the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Origin {
    from: Box<str>,
    of: Address,
    id: EventId,
}

/// Where and when an event was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) seq: u64,
    pub(super) at_ms: u64,
}

/// The events of one tenant that may be repeated.
#[derive(Default)]
pub(super) struct Repeats {
    /// The longest time that any call asked for. An event is remembered for as long.
    longest_ms: u64,
    places: BTreeMap<Arc<Origin>, Place>,
    /// The same in the order in which they were stored. What was stored again after its time is here twice for a while.
    order: VecDeque<(Place, Arc<Origin>)>,
}

impl Origin {
    pub(super) fn of(event: &Event) -> Self {
        Self { from: event.from.as_str().into(), of: event.of.clone(), id: event.id.clone() }
    }
}

impl Repeats {
    /// Where the event was stored less than `dedup_ms` ago, if it was.
    pub(super) fn find(&mut self, origin: &Origin, dedup_ms: u64, now_ms: u64) -> Option<Place> {
        self.longest_ms = self.longest_ms.max(dedup_ms);
        while self.order.front().is_some_and(|(place, _)| now_ms - place.at_ms >= self.longest_ms) {
            self.forget_oldest();
        }
        self.places.get(origin).copied().filter(|place| now_ms - place.at_ms < dedup_ms)
    }

    pub(super) fn remember(&mut self, origin: Origin, place: Place) {
        if self.order.len() == DEDUP_IDS {
            self.forget_oldest();
        }
        let origin = Arc::new(origin);
        self.order.push_back((place, origin.clone()));
        self.places.insert(origin, place);
    }

    fn forget_oldest(&mut self) {
        let Some((place, origin)) = self.order.pop_front() else { return };
        if self.places.get(&origin) == Some(&place) {
            self.places.remove(&origin);
        }
    }
}
