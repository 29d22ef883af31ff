//! A line: one open stream at the edge of its opener, from `opened` to `closed`.
//!
//! One task says everything about a stream, so that all hear it in order: that it is open, its frames, that it is over.
//! The session only puts frames into a short queue, which loses the oldest when the bus is slow. Beside it, in the same
//! task, the store is told again and again that the stream is open, and who holds the gateway of its address is learned. A
//! gateway that came or moved is told of the stream by this task too, so that whoever knows of the stream gets its frames.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus::IntGauge;
use riser_bus::Subject;
use riser_core::GatewayKey;
use riser_core::frame::outbound;
use riser_core::live::{Stream, StreamEnd};
use riser_core::routed::{self, Live};
use riser_registry::{Holder, Opened};
use tokio::sync::Notify;
use tokio::time::{Instant, interval_at, sleep, timeout};

use super::metrics::Dropped;
use super::rate::Rate;
use super::speaker::Speaker;
use crate::shared::Shared;
use crate::ws::{Conn, frame};

/// For how long the store believes that a stream is open. With [`super::REFRESH`] between two looks of a listener's edge
/// it is how long a dead opener stays unnoticed: 15 s are promised.
pub(super) const TTL: Duration = Duration::from_secs(8);
/// After how long without a frame a stream is closed: nobody leaves a microphone on for a day.
const IDLE: Duration = Duration::from_secs(60);
/// Frames of one stream that wait for the bus: what its rate lets through at once.
const WAITING: usize = 200;
/// Bytes of frames of one stream that wait for the bus: what its rate lets through at once.
const WAITING_BYTES: usize = 128 * 1024;
/// The least time between two words to a speaker that it speaks too much.
const WORD: Duration = Duration::from_secs(1);

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Its opener closed it.
    Asked,
    /// Its opener sent nothing for long.
    Idle,
    /// Its opener's right to speak there is gone.
    Withdrawn,
    /// Its opener is gone, or the store lost its number to another stream.
    Lost,
}

impl Why {
    fn told(self) -> StreamEnd {
        match self {
            Self::Lost => StreamEnd::Lost,
            _ => StreamEnd::Closed,
        }
    }

    /// The word in labels.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "closed",
            Self::Idle => "idle",
            Self::Withdrawn => "withdrawn",
            Self::Lost => "lost",
        }
    }
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Yes,
    /// Over the stream's rate; whether the speaker is to be told.
    TooFast {
        tell: bool,
    },
    /// The stream is over.
    Over,
}

pub(crate) struct Line {
    pub(super) key: GatewayKey,
    pub(super) stream: Stream,
    /// The opener's connection, which hears nothing of its own.
    pub(super) conn: Arc<Conn>,
    /// Whether the opener is the gateway of the address, which then needs no frames of it.
    own: bool,
    side: Mutex<Side>,
    /// Something waits, or the stream is over.
    wake: Notify,
    over: Notify,
    /// Who holds the gateway of the address, and was told of the stream.
    holder: Mutex<Option<Holder>>,
    open: IntGauge,
}

struct Side {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Who holds the gateway of the address now, and is to be told of the stream before the next frame.
    newcomer: Option<Holder>,
    end: Option<Why>,
    spoke: Instant,
    rate: Rate,
    told: Option<Instant>,
}

impl Line {
    pub(super) fn new(
        shared: &Shared,
        key: GatewayKey,
        stream: Stream,
        conn: Arc<Conn>,
        own: bool,
        holder: Option<Holder>,
    ) -> Arc<Self> {
        shared.metrics.live.opened.inc();
        let open = shared.metrics.live.streams.clone();
        open.inc();
        let now = Instant::now();
        let rate = Rate::full(now);
        let side = Side { frames: VecDeque::new(), bytes: 0, newcomer: None, end: None, spoke: now, rate, told: None };
        let (side, holder) = (Mutex::new(side), Mutex::new(holder));
        Arc::new(Self { key, stream, conn, own, side, wake: Notify::new(), over: Notify::new(), holder, open })
    }

    /// Takes a frame of the opener. Never waits: of what the bus does not take the oldest is lost.
    pub(super) fn push(&self, shared: &Shared, message: &[u8]) -> Taken {
        let now = Instant::now();
        let mut side = self.side.lock();
        if side.end.is_some() {
            return Taken::Over;
        }
        side.spoke = now;
        if !side.rate.take(now, message.len()) {
            shared.metrics.live.dropped(Dropped::Rate, 1);
            let tell = side.told.is_none_or(|at| now.saturating_duration_since(at) >= WORD);
            if tell {
                side.told = Some(now);
            }
            return Taken::TooFast { tell };
        }
        let mut dropped = 0;
        while (side.frames.len() >= WAITING || side.bytes + message.len() > WAITING_BYTES)
            && let Some(oldest) = side.frames.pop_front()
        {
            side.bytes -= oldest.len();
            dropped += 1;
        }
        side.bytes += message.len();
        side.frames.push_back(Bytes::copy_from_slice(message));
        drop(side);
        shared.metrics.live.dropped(Dropped::SlowBus, dropped);
        shared.metrics.live.received.inc();
        self.wake.notify_one();
        Taken::Yes
    }

    /// Ends the stream; false when it has ended before.
    pub(super) fn end(&self, why: Why) -> bool {
        let mut side = self.side.lock();
        if side.end.is_some() {
            return false;
        }
        side.end = Some(why);
        if why == Why::Withdrawn {
            // What waits was said with a right that is gone.
            side.frames.clear();
            side.bytes = 0;
        }
        drop(side);
        self.wake.notify_one();
        self.over.notify_one();
        true
    }

    /// The life of the stream, once the store knows it.
    pub(super) async fn run(self: &Arc<Self>, shared: &Arc<Shared>, speaker: &Speaker) {
        self.say(shared, &Live::Opened { stream: self.stream.clone() }).await;
        tokio::select! {
            biased;
            () = self.carry(shared) => {}
            () = self.keep(shared) => {}
        }
        let why = self.side.lock().end.unwrap_or(Why::Lost);
        speaker.forget(self.stream.id);
        if matches!(why, Why::Idle | Why::Withdrawn) && !shared.live.hears(self) {
            // Who listens is told as all others are.
            self.conn.send(frame::text(&outbound::closed(&self.stream.of, self.stream.id, why.told())));
        }
        // The store first: who asks it from now on and still finds the stream has subscribed before the next line.
        let closed = shared.ports.streams.close_stream(&self.key.tenant, &self.stream.of, self.stream.id);
        let _ = shared.call(closed).await;
        self.say(shared, &Live::Closed { id: self.stream.id, reason: why.told() }).await;
        shared.live.remove(self);
        shared.metrics.live.closed(why);
        shared.someone_left.notify_waiters();
    }

    /// Says something about the stream to all who hear it.
    async fn say(&self, shared: &Shared, word: &Live) {
        let bytes = routed::encode(word);
        if let Some(subject) = self.to_gateway() {
            shared.publish(&subject, bytes.clone()).await;
        }
        shared.publish(&Subject::Live(self.key.clone()), bytes).await;
    }

    /// The gateway of the address is held by this session, which was not told of the stream, or not for sure.
    pub(super) fn gateway_came(&self, to: &Holder) {
        if self.holder.lock().as_ref().is_some_and(|known| known.epoch > to.epoch) {
            return;
        }
        let mut side = self.side.lock();
        if side.newcomer.as_ref().is_none_or(|known| known.epoch < to.epoch) {
            side.newcomer = Some(to.clone());
        }
        drop(side);
        self.wake.notify_one();
    }

    /// Tells a gateway that came or moved, which gets the frames from then on.
    async fn greet(&self, shared: &Shared, newcomer: Holder) {
        let subject = Subject::EdgeLive(newcomer.edge.clone(), self.key.clone());
        let opened = Live::Opened { stream: self.stream.clone() };
        shared.publish(&subject, routed::encode(&opened)).await;
        *self.holder.lock() = Some(newcomer);
    }

    fn to_gateway(&self) -> Option<Subject> {
        self.holder.lock().as_ref().map(|holder| Subject::EdgeLive(holder.edge.clone(), self.key.clone()))
    }

    /// Publishes frames until the stream is over and nothing waits.
    async fn carry(&self, shared: &Shared) {
        let all = Subject::Live(self.key.clone());
        loop {
            let (newcomer, frame) = {
                let mut side = self.side.lock();
                let newcomer = side.newcomer.take();
                match side.frames.pop_front() {
                    Some(frame) => {
                        side.bytes -= frame.len();
                        (newcomer, Some(frame))
                    }
                    None if side.end.is_some() => return,
                    None => (newcomer, None),
                }
            };
            if let Some(newcomer) = newcomer {
                self.greet(shared, newcomer).await;
            }
            let Some(frame) = frame else {
                self.wake.notified().await;
                continue;
            };
            let gateway = if self.own { None } else { self.to_gateway() };
            for subject in std::iter::once(&all).chain(&gateway) {
                let published = timeout(shared.config.call, shared.ports.bus.publish(subject, frame.clone())).await;
                if !matches!(published, Ok(Ok(()))) {
                    shared.metrics.live.dropped(Dropped::SlowBus, 1);
                }
            }
        }
    }

    /// Keeps the store's knowledge of the stream fresh. Returns when the stream is over and what waited has had its time.
    async fn keep(&self, shared: &Shared) {
        let mut tick = interval_at(Instant::now() + super::REFRESH, super::REFRESH);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.over.notified() => break,
                _ = tick.tick() => {}
            }
            if self.side.lock().spoke.elapsed() >= IDLE {
                self.end(Why::Idle);
                break;
            }
            // In one piece with the others of this task, so that frames go on while the store is slow.
            self.refresh(shared).await;
        }
        sleep(shared.config.call).await;
    }

    async fn refresh(&self, shared: &Shared) {
        let again = shared.ports.streams.open_stream(&self.key.tenant, &self.stream, TTL);
        match shared.call(again).await {
            Ok(Opened::Open(holder)) => {
                let known = self.holder.lock().as_ref().map(|known| known.epoch);
                if let Some(now) = holder.filter(|now| known.is_none_or(|known| known < now.epoch)) {
                    self.gateway_came(&now);
                }
            }
            Ok(Opened::Taken) => {
                // The store lost the stream, and another one got its number before it could be told again.
                self.end(Why::Lost);
            }
            Ok(Opened::TooMany) | Err(_) => {}
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.open.dec();
    }
}
