//! One connection as everybody sees it who has a frame for it.
//!
//! Whoever has a frame writes it: [`Conn::push`] queues, [`Conn::flush`] hands all that is queued to the kernel in one
//! call. Only when the kernel takes no more is the connection's own task ([`serve`](super::serve)) woken, which then
//! writes alone until the queue is empty. So a delivery to a peer that reads costs no wake-up, frames that are pushed
//! together leave together, and a queue exists only for a peer that does not read.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::codec::Limits;
use super::frame;
use super::out::{Ending, Out};
use super::transport::WriteHalf;

/// How long a closing connection may take to write what is queued, to hear the peer's close frame, and to see the end
/// of the stream. Then it is reset.
pub const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// The unit of the coarse times below, in milliseconds: finer than any heartbeat, and 32 bits of it are 13 years.
const TICK_MS: u64 = 100;

/// What all connections of an edge have in common.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The largest messages that are accepted.
    pub limits: Limits,
    /// The most bytes that may wait for a peer that does not read, frame headers included. Beyond it the connection is
    /// closed with [`Settings::overflow_code`]; who can conflate looks at [`Conn::queued_bytes`] before.
    pub max_queue_bytes: usize,
    /// The close code for a peer that is too slow.
    pub overflow_code: u16,
    /// The frames a peer may send in a second, and in a burst, control frames and empty fragments included. 0 counts as
    /// 1. When they are used up, reading pauses for 100 ms or for the time of one frame, and never for over 1 s.
    pub frames_per_second: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            // Sixteen of the largest messages.
            max_queue_bytes: 1024 * 1024,
            overflow_code: 4002,
            frames_per_second: 2_000,
        }
    }
}

/// One connection. See the module's head; all methods may be called from any thread, and none of them waits.
pub struct Conn {
    settings: Arc<Settings>,
    base: Instant,
    /// The connection's own task.
    task: AtomicWaker,
    out: Mutex<Out>,
    /// `out.queued()`, to be read without the lock.
    queued: AtomicUsize,
    /// Ticks since `base` when bytes last came.
    active: AtomicU32,
    /// Ticks since `base`, and one, when the transport took no more; 0 while it does.
    blocked: AtomicU32,
    flags: AtomicU8,
}

/// Nothing more is accepted: `out.ending` says why.
const ENDING: u8 = 1;
/// The handler is to be asked what it owes.
const REFILL: u8 = 2;
/// Nothing is to be read.
const PAUSED: u8 = 4;
/// The transport is gone.
const GONE: u8 = 8;
/// Somebody is going to flush messages that were pushed.
pub(super) const PUSHED: u8 = 16;
/// The same of live frames.
pub(super) const PUSHED_LIVE: u8 = 32;

impl Conn {
    /// A connection that writes to `write`. It lives when [`serve`](super::serve) runs.
    pub fn new(write: impl WriteHalf + 'static, settings: Arc<Settings>) -> Arc<Self> {
        Arc::new(Self {
            settings,
            base: Instant::now(),
            task: AtomicWaker::new(),
            out: Mutex::new(Out::new(Box::new(write))),
            queued: AtomicUsize::new(0),
            active: AtomicU32::new(0),
            blocked: AtomicU32::new(0),
            flags: AtomicU8::new(0),
        })
    }

    /// Queues a frame that [`frame`](super::frame) made. Follow it, or the last of several, with [`Conn::flush`].
    ///
    /// Returns false, and drops the frame, when the connection ends. If more than
    /// [`Settings::max_queue_bytes`] would wait, all that waits is dropped and the connection closes with
    /// [`Settings::overflow_code`].
    pub fn push(&self, frame: Bytes) -> bool {
        let mut out = self.out.lock();
        if out.ending.is_some() {
            return false;
        }
        if out.queued() + frame.len() > self.settings.max_queue_bytes {
            out.clear();
            self.end(out, self.settings.overflow_code, "too slow");
            return false;
        }
        out.push(frame);
        self.queued.store(out.queued(), Ordering::Relaxed);
        true
    }

    /// Queues a frame that is of use now or never, behind everything else that waits or comes to wait before it is
    /// begun. Of a peer that does not read only the newest 64 such frames, and 64 KiB, wait: the oldest are dropped. They
    /// are no part of [`Conn::queued_bytes`]. `tag` is what [`Conn::forget_live`] knows the frame by.
    ///
    /// Returns how many older frames were dropped. Follow it, or the last of several, with [`Conn::flush`].
    pub fn push_live(&self, tag: u32, frame: Bytes) -> usize {
        let mut out = self.out.lock();
        if out.is_live_full(frame.len()) && !out.blocked {
            // A burst alone makes nobody slow: what the transport takes is written first.
            self.write(out);
            out = self.out.lock();
        }
        if out.ending.is_some() { 0 } else { out.push_live(tag, frame) }
    }

    /// Drops the live frames with this tag that wait and are not begun. Returns how many there were.
    pub fn forget_live(&self, tag: u32) -> usize {
        self.out.lock().forget_live(tag)
    }

    /// Writes what is queued, as far as the transport takes it at once; the connection's task writes the rest.
    pub fn flush(&self) {
        let out = self.out.lock();
        self.write(out);
    }

    /// Marks that it was pushed to and is going to be flushed. False when somebody else is going to.
    pub(super) fn mark(&self, mark: u8) -> bool {
        self.flags.fetch_or(mark, Ordering::AcqRel) & mark == 0
    }

    /// Flushes it for whoever marked it. The mark goes first: what is pushed later is marked anew.
    pub(super) fn flush_marked(&self, mark: u8) {
        self.flags.fetch_and(!mark, Ordering::AcqRel);
        self.flush();
    }

    /// [`Conn::push`] and [`Conn::flush`] in one.
    pub fn send(&self, frame: Bytes) -> bool {
        let pushed = self.push(frame);
        self.flush();
        pushed
    }

    /// Sends a ping, unless one is waiting to be sent.
    pub fn ping(&self) {
        let mut out = self.out.lock();
        if out.ending.is_none() {
            out.set_ping();
            self.write(out);
        }
    }

    /// Closes with `code` and `reason` (cut to 123 bytes), after what is queued. Nothing more is accepted or delivered
    /// from now on, and within [`CLOSE_WAIT`] the transport is let go of. The first call wins: returns whether it was
    /// this one.
    pub fn close(&self, code: u16, reason: &str) -> bool {
        self.close_with(code, frame::close(code, reason))
    }

    /// The same for a peer that takes nothing: what is queued is dropped, all but the frame that is being written.
    pub fn cut(&self, code: u16, reason: &str) -> bool {
        let mut out = self.out.lock();
        if out.ending.is_some() {
            return false;
        }
        out.clear();
        self.end(out, code, reason);
        true
    }

    /// Ends the connection without a word, dropping what is queued, whatever else goes on.
    pub fn abort(&self) {
        let mut out = self.out.lock();
        out.ending.get_or_insert(Ending::Abort);
        out.give_up();
        self.queued.store(0, Ordering::Relaxed);
        self.flags.fetch_or(ENDING, Ordering::Release);
        drop(out);
        self.task.wake();
    }

    /// Asks the connection's task to call [`Handler::drained`](super::Handler::drained) as soon as nothing waits any
    /// more. Who decided not to push something calls it after noting that it is owed. It costs little while a request
    /// stands, which it does for as long as the peer does not read.
    pub fn request_refill(&self) {
        if self.flags.fetch_or(REFILL, Ordering::AcqRel) & REFILL == 0 {
            self.task.wake();
        }
    }

    /// Delivers no more messages until [`Conn::resume`]. Meanwhile nothing is read, not even pongs or the end of the
    /// stream: whoever pauses must resume or close within some seconds.
    pub fn pause(&self) {
        self.flags.fetch_or(PAUSED, Ordering::Release);
    }

    /// Ends [`Conn::pause`]. The peer counts as heard of: what it said meanwhile nobody took.
    pub fn resume(&self) {
        self.heard();
        if self.flags.fetch_and(!PAUSED, Ordering::AcqRel) & PAUSED != 0 {
            self.task.wake();
        }
    }

    /// Bytes that wait to be written, live frames left out. It takes no lock, and may lag by the calls that are going on.
    pub fn queued_bytes(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// When bytes last came from the peer, to within 100 ms; at first, when the connection began.
    pub fn last_activity(&self) -> Instant {
        self.at(self.active.load(Ordering::Relaxed))
    }

    /// Since when, to within 100 ms, the transport has taken no more, while something waits for it.
    pub fn blocked_since(&self) -> Option<Instant> {
        self.blocked.load(Ordering::Relaxed).checked_sub(1).map(|ticks| self.at(ticks))
    }

    /// Whether the connection is ending or has ended: nothing that is pushed will be sent.
    pub fn is_ending(&self) -> bool {
        self.flag(ENDING)
    }

    /// Whether the transport has been let go of.
    pub fn is_gone(&self) -> bool {
        self.flag(GONE)
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.flag(PAUSED)
    }

    /// Whether a refill was asked for since the last call.
    pub(super) fn take_refill(&self) -> bool {
        self.flag(REFILL) && self.flags.fetch_and(!REFILL, Ordering::AcqRel) & REFILL != 0
    }

    pub(super) fn register(&self, waker: &Waker) {
        self.task.register(waker);
    }

    pub(super) fn ending(&self) -> Option<Ending> {
        if self.flag(ENDING) { self.out.lock().ending } else { None }
    }

    /// Notes that bytes came. Returns the milliseconds since the connection began.
    pub(super) fn heard(&self) -> u64 {
        let now = self.now_ms();
        self.active.store(ticks(now), Ordering::Relaxed);
        now
    }

    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Answers a ping. A pong that waits already is written first if that is possible at once, and else forgotten.
    pub(super) fn pong(&self, payload: &[u8]) {
        if self.out.lock().has_pong() {
            self.flush();
        }
        let mut out = self.out.lock();
        if out.ending.is_none() {
            out.set_pong(frame::pong(payload));
            self.queued.store(out.queued(), Ordering::Relaxed);
        }
    }

    /// Answers the peer's close frame. Returns whether the connection was not closing yet.
    pub(super) fn answer_close(&self, code: Option<u16>) -> bool {
        match code {
            Some(code) => self.close(code, ""),
            None => self.close_with(1000, frame::close_empty()),
        }
    }

    /// Writes, for the connection's own task. It is ready with true when nothing waits, with false when nothing more
    /// can be written.
    pub(super) fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut out = self.out.lock();
        if out.broken {
            return Poll::Ready(false);
        }
        let drained = out.poll_drain(cx);
        self.settle(&mut out, drained)
    }

    pub(super) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.lock().poll_shutdown(cx)
    }

    /// Lets go of the transport.
    pub(super) fn finish(&self, in_order: bool) {
        let mut out = self.out.lock();
        out.ending.get_or_insert(Ending::Abort);
        out.finish(in_order);
        self.queued.store(0, Ordering::Relaxed);
        self.blocked.store(0, Ordering::Relaxed);
        self.flags.fetch_or(ENDING | GONE, Ordering::Release);
    }

    fn close_with(&self, code: u16, frame: Bytes) -> bool {
        let out = self.out.lock();
        if out.ending.is_some() {
            return false;
        }
        self.end_with(out, code, frame);
        true
    }

    fn end(&self, out: MutexGuard<'_, Out>, code: u16, reason: &str) {
        self.end_with(out, code, frame::close(code, reason));
    }

    fn end_with(&self, mut out: MutexGuard<'_, Out>, code: u16, frame: Bytes) {
        out.clear_live();
        out.push(frame);
        out.ending = Some(Ending::Close(code));
        self.flags.fetch_or(ENDING, Ordering::Release);
        self.write(out);
        self.task.wake();
    }

    /// Writes for whoever has the lock, who is not necessarily the connection's own task.
    fn write(&self, mut out: MutexGuard<'_, Out>) {
        if out.blocked || out.broken {
            self.queued.store(out.queued(), Ordering::Relaxed);
            return;
        }
        // Without a budget: a task that serves thousands of connections must not find the hundredth blocked because
        // tokio wants it to yield.
        let drained = {
            let attempt = std::future::poll_fn(|cx| Poll::Ready(out.poll_drain(cx)));
            let mut attempt = std::pin::pin!(tokio::task::unconstrained(attempt));
            match Future::poll(attempt.as_mut(), &mut Context::from_waker(Waker::noop())) {
                Poll::Ready(drained) => drained,
                Poll::Pending => Poll::Pending,
            }
        };
        let done = self.settle(&mut out, drained).is_ready() && out.ending.is_none();
        drop(out);
        if !done {
            self.task.wake();
        }
    }

    /// Notes how an attempt to write went.
    fn settle(&self, out: &mut Out, drained: Poll<io::Result<()>>) -> Poll<bool> {
        let done = match drained {
            Poll::Ready(Ok(())) => {
                out.blocked = false;
                self.blocked.store(0, Ordering::Relaxed);
                Poll::Ready(true)
            }
            Poll::Ready(Err(error)) => {
                out.ending.get_or_insert(Ending::Failed(error.kind()));
                out.give_up();
                self.flags.fetch_or(ENDING, Ordering::Release);
                Poll::Ready(false)
            }
            Poll::Pending => {
                if !out.blocked || out.queued() == 0 {
                    // Whoever takes all but the live frames is not too slow, however long those never end.
                    self.blocked.store(ticks(self.now_ms()).saturating_add(1), Ordering::Relaxed);
                }
                if !out.blocked {
                    out.blocked = true;
                    // What the peer missed meanwhile is to be made good once it reads again.
                    self.flags.fetch_or(REFILL, Ordering::Release);
                }
                Poll::Pending
            }
        };
        self.queued.store(out.queued(), Ordering::Relaxed);
        done
    }

    fn flag(&self, flag: u8) -> bool {
        self.flags.load(Ordering::Acquire) & flag != 0
    }

    fn at(&self, ticks: u32) -> Instant {
        self.base + Duration::from_millis(u64::from(ticks) * TICK_MS)
    }
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn")
            .field("queued_bytes", &self.queued_bytes())
            .field("blocked_since", &self.blocked_since())
            .field("is_ending", &self.is_ending())
            .field("is_gone", &self.is_gone())
            .finish_non_exhaustive()
    }
}

fn ticks(ms: u64) -> u32 {
    u32::try_from(ms / TICK_MS).unwrap_or(u32::MAX)
}
