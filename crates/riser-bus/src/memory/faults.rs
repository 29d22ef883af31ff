//! What can happen to a message between its publisher and one subscription, and the draw that decides it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use fastrand::Rng;
use riser_core::EdgeId;
use tokio::time::Instant;

use super::routes::Sub;

/// What happens to the messages of a link, drawn for each message and subscription.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// How likely a message is lost, from 0 to 1.
    pub drop: f64,
    /// How long a message takes. A message never overtakes an earlier one of the same publisher to the same
    /// subscription: it waits behind it.
    pub delay: RangeInclusive<Duration>,
    /// How likely a message comes a second time, from 0 to 1. This is outside the contract of
    /// [`Bus`](crate::Bus): the copy may come after newer messages. Receivers must survive it nevertheless.
    pub duplicate: f64,
    /// How long after its own delay the copy comes.
    pub duplicate_after: RangeInclusive<Duration>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            drop: 0.0,
            delay: Duration::ZERO..=Duration::ZERO,
            duplicate: 0.0,
            duplicate_after: Duration::from_millis(1)..=Duration::from_millis(500),
        }
    }
}

/// How often each fault took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultCounts {
    /// Messages lost by a draw, a block or a cut, or because too many were on their way.
    pub dropped: u64,
    /// Messages that waited.
    pub delayed: u64,
    /// Messages of which a copy was sent.
    pub duplicated: u64,
    /// Messages lost because the subscription had not taken effect yet.
    pub early: u64,
}

/// What becomes of one message on its way to one subscription.
#[derive(Clone, Copy)]
pub(super) enum Fate {
    /// The subscription does not get it because it did not take effect yet.
    Early,
    /// It is lost.
    Dropped,
    /// It arrives, after `delay`, and a copy of it arrives too when there is one.
    Arrives { delay: Duration, copy: Option<Duration> },
}

/// The faults that are set.
#[derive(Default)]
pub(super) struct FaultTable {
    all: Option<Faults>,
    links: BTreeMap<(EdgeId, EdgeId), Faults>,
    blocked: BTreeSet<(EdgeId, EdgeId)>,
    interest: Option<RangeInclusive<Duration>>,
}

impl FaultTable {
    pub(super) fn is_calm(&self) -> bool {
        self.all.is_none() && self.links.is_empty() && self.blocked.is_empty()
    }

    pub(super) fn set_all(&mut self, faults: Faults) {
        self.all = (faults != Faults::default()).then_some(faults);
    }

    pub(super) fn set_link(&mut self, from: &EdgeId, to: &EdgeId, faults: Faults) {
        self.links.insert((from.clone(), to.clone()), faults);
    }

    pub(super) fn set_interest(&mut self, range: RangeInclusive<Duration>) {
        self.interest = (!range.end().is_zero()).then_some(range);
    }

    pub(super) fn block(&mut self, from: &EdgeId, to: &EdgeId) {
        self.blocked.insert((from.clone(), to.clone()));
    }

    pub(super) fn unblock(&mut self, from: &EdgeId, to: &EdgeId) {
        self.blocked.remove(&(from.clone(), to.clone()));
    }

    /// After how long a new subscription takes effect; none for at once.
    pub(super) fn interest(&self, rng: &mut Rng) -> Option<Duration> {
        self.interest.as_ref().map(|range| between(range, rng))
    }

    /// Draws what becomes of a message.
    pub(super) fn fate(&self, from: &EdgeId, to: &Sub, now: Instant, rng: &mut Rng) -> Fate {
        if to.takes_effect.is_some_and(|at| now < at) {
            return Fate::Early;
        }
        let link = (from.clone(), to.owner.edge.clone());
        if self.blocked.contains(&link) {
            return Fate::Dropped;
        }
        let Some(faults) = self.links.get(&link).or(self.all.as_ref()) else {
            return Fate::Arrives { delay: Duration::ZERO, copy: None };
        };
        if happens(faults.drop, rng) {
            return Fate::Dropped;
        }
        let delay = between(&faults.delay, rng);
        let copy = happens(faults.duplicate, rng).then(|| delay + between(&faults.duplicate_after, rng));
        Fate::Arrives { delay, copy }
    }
}

fn happens(probability: f64, rng: &mut Rng) -> bool {
    probability > 0.0 && rng.f64() < probability
}

/// A duration of the range, in whole microseconds. A range that ends before it starts is its start.
fn between(range: &RangeInclusive<Duration>, rng: &mut Rng) -> Duration {
    let micros = |d: &Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
    let (start, end) = (micros(range.start()), micros(range.end()));
    if start >= end { *range.start() } else { Duration::from_micros(rng.u64(start..=end)) }
}
