//! Messages that a fault keeps on their way.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use riser_core::EdgeId;
use tokio::time::Instant;

use super::Client;
use super::faults::{Fate, FaultCounts};
use super::routes::Sub;
use crate::Delivery;

/// Most messages on their way at once, over the whole network; further ones are lost. A simulated cluster of
/// a thousand gateways with delays of seconds stays far below.
pub const IN_FLIGHT: usize = 65_536;

/// A message on its way to one subscription.
pub(super) struct Flying {
    pub(super) from: EdgeId,
    pub(super) to: EdgeId,
    /// Gone when the subscription ended meanwhile.
    sub: Weak<Sub>,
    /// The lane it keeps its place in; none for a copy, which keeps no order.
    lane: Option<Lane>,
    delivery: Delivery,
}

/// From one client to one subscription: what keeps its order.
type Lane = (u64, u64);

/// How many messages wait on a lane, and when the last of them lands.
struct Waiting {
    count: usize,
    last: Instant,
}

/// All messages on their way, by when they land. The number keeps the order of those that land together.
#[derive(Default)]
pub(super) struct Flight {
    number: u64,
    by_due: BTreeMap<(Instant, u64), Flying>,
    lanes: BTreeMap<Lane, Waiting>,
}

impl Flight {
    pub(super) fn is_empty(&self) -> bool {
        self.by_due.is_empty()
    }

    /// Does to a message what its fate says; `true` when something took off that lands later.
    pub(super) fn send(
        &mut self,
        from: &Client,
        sub: &Arc<Sub>,
        delivery: &Delivery,
        now: Instant,
        fate: Fate,
        counts: &mut FaultCounts,
    ) -> bool {
        let (delay, copy) = match fate {
            Fate::Early => {
                counts.early += 1;
                return false;
            }
            Fate::Dropped => {
                counts.dropped += 1;
                return false;
            }
            Fate::Arrives { delay, copy } => (delay, copy),
        };
        let lane = (from.id, sub.id);
        let flying = |lane| Flying {
            from: from.edge.clone(),
            to: sub.owner.edge.clone(),
            sub: Arc::downgrade(sub),
            lane,
            delivery: delivery.clone(),
        };
        let before = self.len();
        if delay.is_zero() && !self.lanes.contains_key(&lane) {
            sub.hand(delivery.clone());
        } else if self.len() < IN_FLIGHT {
            counts.delayed += 1;
            let due = self.wait_on(lane, now + delay);
            self.take_off(due, flying(Some(lane)));
        } else {
            counts.dropped += 1;
        }
        if let Some(after) = copy
            && self.len() < IN_FLIGHT
        {
            counts.duplicated += 1;
            self.take_off(now + after, flying(None));
        }
        self.len() > before
    }

    /// Hands over what is due, and says when the next is.
    pub(super) fn land(&mut self, now: Instant) -> Option<Instant> {
        while let Some(first) = self.by_due.first_entry() {
            let (due, _) = *first.key();
            if due > now {
                return Some(due);
            }
            let Flying { sub, lane, delivery, .. } = first.remove();
            lane.inspect(|lane| self.leave(*lane));
            if let Some(sub) = sub.upgrade() {
                sub.hand(delivery);
            }
        }
        None
    }

    /// Loses what the caller chooses, and says how much that was.
    pub(super) fn lose(&mut self, lost: impl Fn(&Flying) -> bool) -> u64 {
        let gone: Vec<_> = self.by_due.iter().filter(|(_, flying)| lost(flying)).map(|(at, _)| *at).collect();
        for at in &gone {
            let flying = self.by_due.remove(at);
            flying.and_then(|f| f.lane).inspect(|lane| self.leave(*lane));
        }
        gone.len() as u64
    }

    fn len(&self) -> usize {
        self.by_due.len()
    }

    /// Takes a place at the end of a lane, not before `earliest`, and says when it lands.
    fn wait_on(&mut self, lane: Lane, earliest: Instant) -> Instant {
        let waiting = self.lanes.entry(lane).or_insert(Waiting { count: 0, last: earliest });
        waiting.count += 1;
        waiting.last = waiting.last.max(earliest);
        waiting.last
    }

    fn leave(&mut self, lane: Lane) {
        if let Some(waiting) = self.lanes.get_mut(&lane) {
            waiting.count -= 1;
            if waiting.count == 0 {
                self.lanes.remove(&lane);
            }
        }
    }

    fn take_off(&mut self, due: Instant, flying: Flying) {
        self.number += 1;
        self.by_due.insert((due, self.number), flying);
    }
}
