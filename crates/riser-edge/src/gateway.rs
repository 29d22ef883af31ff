//! A gateway's side of its session: how its state becomes stored.
//!
//! The edge numbers the changes. One call of the store is in flight per gateway; what arrives meanwhile merges into
//! the next change, so that a burst costs one call. A call that nobody answered is repeated with the same number and
//! the same content until somebody does. Only then the gateway is told `ok` and the watchers hear of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use riser_bus::Subject;
use riser_core::frame::{N, outbound};
use riser_core::limits::Limits;
use riser_core::routed::{self, Up};
use riser_core::state::OverLimit;
use riser_core::{Change, CloseCode, Epoch, ErrorCode, GatewayKey, Version};
use riser_registry::{Applied, RegistryError, Restored};
use tokio::time::{Instant, sleep};

use crate::commands::desk::Desk;
use crate::shared::Shared;
use crate::ws::{Conn, frame};

/// Frames of one gateway that wait for the store. More are refused: their sender does not wait for answers.
const WAITING: usize = 1_024;
/// Bytes that may wait besides what one state may hold, so that a full state can always wait behind another.
const WAITING_BYTES: usize = 512 * 1024;
/// How soon a call that nobody answered is repeated.
const REPEAT: Duration = Duration::from_millis(250);
/// How soon a gateway is asked again for the full state that it did not send.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// One frame's worth of change, waiting.
#[derive(Debug)]
struct Waiting {
    numbers: Vec<N>,
    change: Change,
    ts_ms: Option<i64>,
    since: Instant,
}

/// The parts of a set that is too large for one frame.
#[derive(Debug)]
struct Parts {
    waiting: Waiting,
    refused: Option<&'static str>,
}

#[derive(Default)]
struct Side {
    waiting: VecDeque<Waiting>,
    weight: usize,
    parts: Option<Parts>,
    storing: bool,
    asked: Option<Instant>,
}

struct Position {
    version: Version,
    since_ms: u64,
}

/// The newest session of a gateway on this edge.
pub(crate) struct Gateway {
    pub(crate) key: GatewayKey,
    pub(crate) session: u64,
    pub(crate) conn: Arc<Conn>,
    pub(crate) epoch: Epoch,
    /// For how long it recognises a command that it has seen, in milliseconds; 0 when it does not.
    pub(crate) remembers_ms: u64,
    pub(crate) desk: Desk,
    /// Whether it was sent its `welcome`: nothing may come before.
    welcomed: AtomicBool,
    /// Whether something of a live stream was kept from it for that.
    missed_live: AtomicBool,
    at: Mutex<Position>,
    unsure: AtomicBool,
    /// Whether somebody had its session closed.
    kicked: AtomicBool,
    /// Boxed, and dropped when nothing waits: most gateways are silent most of the time.
    side: Mutex<Option<Box<Side>>>,
}

impl Gateway {
    pub(crate) fn new(
        key: GatewayKey,
        session: u64,
        conn: Arc<Conn>,
        epoch: Epoch,
        since_ms: u64,
        remembers_ms: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            key,
            session,
            conn,
            epoch,
            remembers_ms,
            desk: Desk::default(),
            welcomed: AtomicBool::new(false),
            missed_live: AtomicBool::new(false),
            at: Mutex::new(Position { version: Version::start(epoch), since_ms }),
            unsure: AtomicBool::new(false),
            kicked: AtomicBool::new(false),
            side: Mutex::new(None),
        })
    }

    pub(crate) fn is_welcomed(&self) -> bool {
        self.welcomed.load(Ordering::SeqCst)
    }

    /// It was sent its `welcome`. True when it missed something of a live stream before.
    pub(crate) fn welcome(&self) -> bool {
        // In one order for all with `may_hear`: one of both sees what the other did.
        self.welcomed.store(true, Ordering::SeqCst);
        self.missed_live.load(Ordering::SeqCst)
    }

    /// Whether it may be sent something of a live stream. When not, it is told of all streams after its `welcome`.
    pub(crate) fn may_hear(&self) -> bool {
        self.is_welcomed() || {
            self.missed_live.store(true, Ordering::SeqCst);
            self.is_welcomed()
        }
    }

    /// The greatest version that the store has acknowledged.
    pub(crate) fn version(&self) -> Version {
        self.at.lock().version
    }

    pub(crate) fn since_ms(&self) -> u64 {
        self.at.lock().since_ms
    }

    /// Takes a change that is whole.
    pub(crate) fn change(self: &Arc<Self>, shared: &Arc<Shared>, n: Option<N>, change: Change, ts_ms: Option<i64>) {
        let waiting = Waiting { numbers: n.into_iter().collect(), change, ts_ms, since: Instant::now() };
        self.enqueue(shared, waiting);
    }

    /// Takes a set of values, or a part of one.
    pub(crate) fn values(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        n: Option<N>,
        change: Change,
        ts_ms: Option<i64>,
        more: bool,
        limits: &Limits,
    ) {
        let mut guard = self.side.lock();
        let joined = guard.as_mut().and_then(|side| side.parts.take());
        if joined.is_none() && !more {
            drop(guard);
            return self.change(shared, n, change, ts_ms);
        }
        let mut parts = joined.unwrap_or_else(|| Parts {
            waiting: Waiting { numbers: Vec::new(), change: Change::default(), ts_ms, since: Instant::now() },
            refused: None,
        });
        parts.join(n, change, limits);
        if more {
            guard.get_or_insert_default().parts = Some(parts);
            return;
        }
        drop(guard);
        match parts.refused {
            Some(message) => self.refuse(shared, &parts.waiting.numbers, ErrorCode::TooMany, message),
            None => self.enqueue(shared, parts.waiting),
        }
    }

    fn enqueue(self: &Arc<Self>, shared: &Arc<Shared>, waiting: Waiting) {
        let mut guard = self.side.lock();
        let side = guard.get_or_insert_default();
        let weight = waiting.change.weight();
        if side.waiting.len() >= WAITING || (side.weight > WAITING_BYTES && side.weight + weight > WAITING_BYTES * 2) {
            drop(guard);
            let text = "more state waits for the store than may; send it again later";
            self.refuse(shared, &waiting.numbers, ErrorCode::RateLimited, text);
            return;
        }
        side.weight += weight;
        side.waiting.push_back(waiting);
        if !std::mem::replace(&mut side.storing, true) {
            let (shared, gateway) = (shared.clone(), self.clone());
            shared.clone().tasks.spawn(async move { gateway.store(&shared).await });
        }
    }

    /// Whether everything that came was stored or refused.
    pub(crate) fn is_settled(&self) -> bool {
        self.side.lock().as_ref().is_none_or(|side| !side.storing)
    }

    /// Stores what waits until nothing does.
    async fn store(self: &Arc<Self>, shared: &Arc<Shared>) {
        while let Some(batch) = self.next_batch() {
            shared.metrics.merged.inc_by(batch.len().saturating_sub(1) as u64);
            let limits = shared.with_tenant(&self.key.tenant, |t| t.limits).unwrap_or_default();
            let (change, rest) = merge(&batch);
            let (taken, left): (Vec<_>, Vec<_>) = split(batch, rest);
            self.put_back(left);
            if !self.store_batch(shared, taken, change, &limits).await {
                *self.side.lock() = None;
                break;
            }
        }
        shared.someone_left.notify_waiters();
    }

    fn next_batch(&self) -> Option<Vec<Waiting>> {
        let mut guard = self.side.lock();
        let side = guard.as_mut()?;
        side.weight = 0;
        let batch: Vec<Waiting> = side.waiting.drain(..).collect();
        if batch.is_empty() {
            side.storing = false;
            if side.parts.is_none() && side.asked.is_none() {
                *guard = None;
            }
            return None;
        }
        Some(batch)
    }

    fn put_back(&self, left: Vec<Waiting>) {
        if let Some(side) = self.side.lock().as_mut() {
            for waiting in left.into_iter().rev() {
                side.weight += waiting.change.weight();
                side.waiting.push_front(waiting);
            }
        }
    }

    /// Stores one change, repeating the call until it is answered. False when the session is over.
    async fn store_batch(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        mut batch: Vec<Waiting>,
        change: Change,
        limits: &Limits,
    ) -> bool {
        loop {
            if self.is_unsure() {
                match self.restore(shared).await {
                    Ok(true) => {}
                    Ok(false) => return false,
                    Err(_) if !self.wait(shared, &mut batch).await => return false,
                    Err(_) => continue,
                }
            }
            let version = self.version().next();
            match shared.call(shared.ports.store.apply(&self.key, version, &change, limits)).await {
                Ok(Applied::Stored { at_ms }) => {
                    self.stored(shared, version, &batch, change, at_ms).await;
                    return true;
                }
                Ok(Applied::Fenced(epoch)) => {
                    self.fenced(shared, epoch);
                    return false;
                }
                Ok(Applied::Gap(_)) => {
                    self.unsure.store(true, Ordering::Relaxed);
                    if !self.wait(shared, &mut batch).await {
                        return false;
                    }
                }
                Ok(Applied::OverLimit(over)) => return self.over_limit(shared, batch, over, limits).await,
                Err(_) if !self.wait(shared, &mut batch).await => return false,
                Err(_) => {}
            }
        }
    }

    /// Waits before a call is repeated. False when nobody is left to be told of its answer.
    async fn wait(&self, shared: &Shared, batch: &mut [Waiting]) -> bool {
        if self.conn.is_gone() {
            return false;
        }
        self.tell_unavailable(shared, batch);
        sleep(REPEAT).await;
        true
    }

    async fn stored(&self, shared: &Shared, version: Version, batch: &[Waiting], change: Change, at_ms: u64) {
        self.at.lock().version = version;
        if change.full
            && let Some(side) = self.side.lock().as_mut()
        {
            side.asked = None;
        }
        shared.metrics.stored.inc();
        let ts_ms = batch.last().and_then(|w| w.ts_ms);
        for n in batch.iter().flat_map(|w| &w.numbers) {
            self.conn.push(frame::text(&outbound::ok(*n)));
        }
        self.conn.flush();
        let up = Up::State { version, change, at_ms, ts_ms };
        shared.publish(&Subject::Up(self.key.clone()), routed::encode(&up)).await;
    }

    /// A merged change was over a limit: each frame is tried alone, so that the good ones do not pay for the bad.
    async fn over_limit(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        batch: Vec<Waiting>,
        over: OverLimit,
        limits: &Limits,
    ) -> bool {
        if batch.len() == 1 {
            for waiting in &batch {
                self.refuse(
                    shared,
                    &waiting.numbers,
                    ErrorCode::TooMany,
                    &format!("the gateway's state would have {over}"),
                );
            }
            return true;
        }
        for waiting in batch {
            let change = waiting.change.clone();
            if !Box::pin(self.store_batch(shared, vec![waiting], change, limits)).await {
                return false;
            }
        }
        true
    }

    /// Tells senders who waited too long that nobody answered. The call goes on being repeated all the same.
    fn tell_unavailable(&self, shared: &Shared, batch: &mut [Waiting]) {
        let mut late = Vec::new();
        for waiting in batch.iter_mut().filter(|w| w.since.elapsed() >= shared.config.answer) {
            late.append(&mut waiting.numbers);
        }
        let mut guard = self.side.lock();
        for waiting in guard.as_mut().into_iter().flat_map(|side| &mut side.waiting) {
            if waiting.since.elapsed() >= shared.config.answer {
                late.append(&mut waiting.numbers);
            }
        }
        drop(guard);
        self.refuse(shared, &late, ErrorCode::Unavailable, "the state store does not answer; sending it again is safe");
    }

    fn refuse(&self, shared: &Shared, numbers: &[N], code: ErrorCode, message: &str) {
        // A frame without a number is told too, once: its sender may log it.
        let retry = (code == ErrorCode::RateLimited).then_some(1_000);
        let answers: Vec<Option<N>> = if numbers.is_empty() && code != ErrorCode::Unavailable {
            vec![None]
        } else {
            numbers.iter().map(|n| Some(*n)).collect()
        };
        for n in answers {
            shared.metrics.error(code);
            self.conn.push(frame::text(&outbound::error(n, code, message, retry)));
        }
        self.conn.flush();
    }

    /// The registry holds a newer session, or has ended this one.
    pub(crate) fn fenced(&self, shared: &Shared, epoch: Option<Epoch>) {
        match epoch {
            Some(epoch) if epoch > self.epoch => self.taken_over(),
            _ => {
                let after = shared.jitter(Duration::from_secs(2)).as_millis();
                self.conn.close(CloseCode::Drain.number(), &format!("{{\"retry_after_ms\":{after}}}"));
            }
        }
    }

    /// A newer session of the same gateway began.
    pub(crate) fn taken_over(&self) {
        self.conn.close(CloseCode::TakenOver.number(), "{\"retry_after_ms\":60000}");
    }

    /// Somebody who may wants the session closed. It may come back.
    pub(crate) fn kick(&self, shared: &Shared) {
        self.kicked.store(true, Ordering::Relaxed);
        let after = shared.jitter(Duration::from_secs(2)).as_millis();
        let reason = format!("{{\"message\":\"closed by an operator\",\"retry_after_ms\":{after}}}");
        self.conn.close(CloseCode::Drain.number(), &reason);
    }

    /// Whether that is why it ends.
    pub(crate) fn is_kicked(&self) -> bool {
        self.kicked.load(Ordering::Relaxed)
    }

    /// Registers the session again after the registry lost it. False when the session is over. Only whoever stores calls
    /// it, so that no version changes under a change that is on its way.
    async fn restore(&self, shared: &Shared) -> Result<bool, RegistryError> {
        // Only the answer says whether state was lost: until it has come the call must be made again.
        self.unsure.store(true, Ordering::Relaxed);
        let swept = shared.lease.lock().may_have_been_swept();
        let mut restored = self.restore_at(shared, self.version()).await?;
        // The end that a sweep may have given the session took a revision. Whoever was told of it must find a greater
        // one, even in a registry that has forgotten it.
        if let Restored::Held { lost } = restored
            && swept
            && (lost || !self.step_over(shared).await?)
        {
            restored = self.restore_at(shared, self.version().next().next()).await?;
        }
        self.unsure.store(false, Ordering::Relaxed);
        match restored {
            Restored::Held { lost } => {
                if lost {
                    self.ask_for_everything(shared);
                }
                return Ok(true);
            }
            Restored::Superseded(epoch) => self.fenced(shared, Some(epoch)),
            Restored::Ended => self.fenced(shared, None),
        }
        Ok(false)
    }

    async fn restore_at(&self, shared: &Shared, version: Version) -> Result<Restored, RegistryError> {
        let lease = shared.lease();
        let restore = shared.ports.registry.restore(&lease, &self.key, version, self.since_ms());
        let restored = shared.call(restore).await?;
        if matches!(restored, Restored::Held { .. }) {
            self.reached(version);
        }
        Ok(restored)
    }

    /// Takes two revisions that change nothing, so that the version grows and the store has lost nothing: an outage
    /// costs no gateway its full state. They are not published, because who was told of an end must read the store. False
    /// when the store does not take them.
    async fn step_over(&self, shared: &Shared) -> Result<bool, RegistryError> {
        let limits = shared.with_tenant(&self.key.tenant, |t| t.limits).unwrap_or_default();
        let nothing = Change::default();
        for _ in 0..2 {
            let version = self.version().next();
            let apply = shared.ports.store.apply(&self.key, version, &nothing, &limits);
            let Applied::Stored { .. } = shared.call(apply).await? else { return Ok(false) };
            self.reached(version);
        }
        Ok(true)
    }

    fn reached(&self, version: Version) {
        let mut at = self.at.lock();
        at.version = at.version.max(version);
    }

    /// Has the session registered again, by whoever can: a call of the store that is on its way must not find that the
    /// version has changed under it, so that then its own task does it next; and what comes meanwhile waits.
    pub(crate) async fn restore_soon(self: &Arc<Self>, shared: &Arc<Shared>) {
        let storing = {
            let mut guard = self.side.lock();
            self.unsure.store(true, Ordering::Relaxed);
            std::mem::replace(&mut guard.get_or_insert_default().storing, true)
        };
        if !storing {
            // What is not answered now is asked again in the audit's next round.
            let _ = self.restore(shared).await;
            let (shared, gateway) = (shared.clone(), self.clone());
            shared.clone().tasks.spawn(async move { gateway.store(&shared).await });
        }
    }

    /// Whether the registry was asked to take the session back and has not answered.
    pub(crate) fn is_unsure(&self) -> bool {
        self.unsure.load(Ordering::Relaxed)
    }

    /// Asks again, when the gateway was asked for its full state and has not sent it for a while.
    pub(crate) fn ask_again(&self, shared: &Shared) {
        let overdue = |side: &Side| side.asked.is_some_and(|at| at.elapsed() >= ASK_AGAIN);
        if self.side.lock().as_ref().is_some_and(|side| overdue(side)) {
            self.ask_for_everything(shared);
        }
    }

    /// Asks the gateway for its full state, unless it was asked a short while ago.
    fn ask_for_everything(&self, shared: &Shared) {
        let mut guard = self.side.lock();
        let side = guard.get_or_insert_default();
        if side.asked.is_some_and(|at| at.elapsed() < ASK_AGAIN) {
            return;
        }
        side.asked = Some(Instant::now());
        drop(guard);
        shared.metrics.resyncs.inc();
        self.conn.send(frame::text(&outbound::resync()));
    }
}

impl Parts {
    fn join(&mut self, n: Option<N>, change: Change, limits: &Limits) {
        self.waiting.numbers.extend(n);
        if self.refused.is_some() {
            return;
        }
        let full = self.waiting.change.full || change.full;
        // A part that says `full` again does not undo the parts before it.
        let part = Change { full: false, ..change };
        if self.waiting.change.merge(part).is_err() || self.waiting.numbers.len() > WAITING {
            self.refused = Some("a set in too many parts");
        }
        self.waiting.change.full = full;
        let set = &self.waiting.change.set;
        let bytes: usize =
            set.iter().map(|(p, s)| p.as_str().len() + s.value.as_ref().map_or(0, |v| v.as_str().len())).sum();
        // Deletions take no room in the state, but they do here.
        if set.len() > limits.paths * 2 || bytes > limits.state_bytes {
            self.refused = Some("a set in parts that is larger than a gateway's state may be");
            self.waiting.change = Change::default();
        }
    }
}

/// What the frames do together, and how many of them it covers.
fn merge(batch: &[Waiting]) -> (Change, usize) {
    let mut sum = Change::default();
    for (i, waiting) in batch.iter().enumerate() {
        if sum.merge(waiting.change.clone()).is_err() {
            return (sum, i);
        }
    }
    (sum, batch.len())
}

fn split(mut batch: Vec<Waiting>, at: usize) -> (Vec<Waiting>, Vec<Waiting>) {
    let left = batch.split_off(at);
    (batch, left)
}
