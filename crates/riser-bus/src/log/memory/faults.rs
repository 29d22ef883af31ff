//! What can happen to a call between one edge and the store, and the draw that decides it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use riser_core::EdgeId;

use crate::log::LogError;

/// What happens to an edge's calls, drawn for each call.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// How long a request takes to the store, and again how long the reply takes back.
    pub delay: RangeInclusive<Duration>,
    /// How likely a request is lost, from 0 to 1: the call fails and nothing was done.
    pub lost_request: f64,
    /// How likely a reply is lost, from 0 to 1: the call fails and everything was done.
    pub lost_reply: f64,
    /// How long the caller waits until a call fails whose request or reply was lost.
    pub silence: Duration,
}

impl Default for Faults {
    fn default() -> Self {
        Self { delay: Duration::ZERO..=Duration::ZERO, lost_request: 0.0, lost_reply: 0.0, silence: Duration::ZERO }
    }
}

/// How often each fault took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultCounts {
    /// Calls that failed because the edge was cut off when they left or arrived. Nothing was done.
    pub refused: u64,
    /// Requests that were lost by a draw.
    pub lost_requests: u64,
    /// Replies that were lost, by a draw or because the edge was cut off meanwhile.
    pub lost_replies: u64,
    /// Requests and replies that took time.
    pub delayed: u64,
}

/// The links of all edges. An edge keeps its link, and so its faults, when it starts again.
pub(crate) struct Links(Mutex<Table>);

struct Table {
    seeds: Rng,
    faults: Faults,
    cut: Option<Duration>,
    links: BTreeMap<EdgeId, Arc<Link>>,
    counts: FaultCounts,
}

/// Between one edge and the store.
pub(crate) struct Link(Mutex<Wire>);

struct Wire {
    faults: Faults,
    /// Set while the edge is cut off: after how long its calls fail.
    cut: Option<Duration>,
    rng: Rng,
}

/// What becomes of a request or a reply.
#[derive(Clone, Copy)]
enum Fate {
    /// It arrives, after a while.
    Arrives(Duration),
    /// It is lost, and the caller notices after a while.
    Lost(Duration),
}

impl Links {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(Mutex::new(Table {
            seeds: Rng::with_seed(seed),
            faults: Faults::default(),
            cut: None,
            links: BTreeMap::new(),
            counts: FaultCounts::default(),
        }))
    }

    pub(crate) fn of(&self, edge: &EdgeId) -> Arc<Link> {
        let Table { seeds, faults, cut, links, .. } = &mut *self.0.lock();
        let mut wire = || Wire { faults: faults.clone(), cut: *cut, rng: seeds.fork() };
        links.entry(edge.clone()).or_insert_with(|| Arc::new(Link(Mutex::new(wire())))).clone()
    }

    pub(crate) fn set_all(&self, faults: &Faults) {
        let mut table = self.0.lock();
        table.faults = faults.clone();
        table.links.values().for_each(|link| link.set(faults.clone()));
    }

    pub(crate) fn cut_all(&self, cut: Option<Duration>) {
        let mut table = self.0.lock();
        table.cut = cut;
        table.links.values().for_each(|link| link.set_cut(cut));
    }

    pub(crate) fn counts(&self) -> FaultCounts {
        self.0.lock().counts
    }

    fn count(&self, add: impl FnOnce(&mut FaultCounts)) {
        add(&mut self.0.lock().counts);
    }
}

impl Link {
    pub(crate) fn set(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    pub(crate) fn set_cut(&self, cut: Option<Duration>) {
        self.0.lock().cut = cut;
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.0.lock().cut.is_some()
    }

    /// Brings a request to the store.
    pub(crate) async fn request(&self, links: &Links) -> Result<(), LogError> {
        self.pass_cut(links, |counts| counts.refused += 1).await?;
        let fate = self.0.lock().draw(|faults| faults.lost_request);
        match fate {
            Fate::Arrives(Duration::ZERO) => return Ok(()),
            Fate::Arrives(delay) => travel(delay, links).await,
            Fate::Lost(silence) => {
                links.count(|counts| counts.lost_requests += 1);
                return fail_after(silence).await;
            }
        }
        self.pass_cut(links, |counts| counts.refused += 1).await
    }

    /// Brings a reply back. What it answers was done, whatever becomes of it.
    pub(crate) async fn reply(&self, links: &Links) -> Result<(), LogError> {
        let fate = self.0.lock().draw(|faults| faults.lost_reply);
        match fate {
            Fate::Arrives(Duration::ZERO) => return Ok(()),
            Fate::Arrives(delay) => travel(delay, links).await,
            Fate::Lost(silence) => {
                links.count(|counts| counts.lost_replies += 1);
                return fail_after(silence).await;
            }
        }
        self.pass_cut(links, |counts| counts.lost_replies += 1).await
    }

    /// Fails, after its silence, while the edge is cut off.
    async fn pass_cut(&self, links: &Links, count: impl FnOnce(&mut FaultCounts)) -> Result<(), LogError> {
        let cut = self.0.lock().cut;
        let Some(silence) = cut else { return Ok(()) };
        links.count(count);
        fail_after(silence).await
    }
}

impl Wire {
    fn draw(&mut self, lost: impl FnOnce(&Faults) -> f64) -> Fate {
        let lost = lost(&self.faults);
        if lost > 0.0 && self.rng.f64() < lost {
            return Fate::Lost(self.faults.silence);
        }
        Fate::Arrives(between(&self.faults.delay, &mut self.rng))
    }
}

async fn travel(delay: Duration, links: &Links) {
    links.count(|counts| counts.delayed += 1);
    tokio::time::sleep(delay).await;
}

async fn fail_after(silence: Duration) -> Result<(), LogError> {
    // Not even a sleep of no length, which would let others run.
    if !silence.is_zero() {
        tokio::time::sleep(silence).await;
    }
    Err(LogError::Unavailable)
}

/// A duration of the range, in whole microseconds. A range that ends before it starts is its start.
fn between(range: &RangeInclusive<Duration>, rng: &mut Rng) -> Duration {
    let micros = |d: &Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
    let (start, end) = (micros(range.start()), micros(range.end()));
    if start >= end { *range.start() } else { Duration::from_micros(rng.u64(start..=end)) }
}
