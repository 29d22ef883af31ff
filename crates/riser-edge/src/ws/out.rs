//! The write half of a connection and what waits for it. Only [`Conn`](super::Conn) uses it, under its lock.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};

use super::frame;
use super::transport::WriteHalf;

/// Frames that go into one vectored write. Most systems take 1 024; more than this no longer pays.
const MAX_SLICES: usize = 64;

/// What is joined into one write where the transport takes no vectors: one TLS record.
const MAX_JOINED_BYTES: usize = 16 * 1024;

/// Live frames that wait for one peer. At fifty a second it is a little over a second of speech: older is of no use.
const LIVE_FRAMES: usize = 64;

/// Bytes of live frames that wait for one peer: half a second of a stream at the highest rate. All peers that wait for
/// a frame share its bytes.
const LIVE_BYTES: usize = 64 * 1024;

/// Frames that are of use now or never.
#[derive(Default)]
struct Live {
    /// Oldest first, each with what [`Out::forget_live`] knows it by.
    frames: VecDeque<(u32, Bytes)>,
    bytes: usize,
}

#[expect(clippy::struct_excessive_bools, reason = "four facts that do not follow from each other")]
pub(super) struct Out {
    /// Gone once the connection has ended.
    write: Option<Box<dyn WriteHalf>>,
    /// What is left of the frame that is being written. Nothing may come before it.
    current: Bytes,
    /// The newest pong that is owed; empty when none is.
    pong: Bytes,
    /// The ping that is to be sent; empty when none is.
    ping: Bytes,
    /// Messages, oldest first, and the close frame at the end. Control frames go before them.
    queue: VecDeque<Bytes>,
    /// Bytes of all of the above, unless `current` is a live frame.
    queued: usize,
    /// What goes after all else; there only while something waits, since most peers hear nothing most of the time.
    live: Option<Box<Live>>,
    /// Whether `current` is a live frame, of which a part was written.
    current_is_live: bool,
    /// Whether the transport holds bytes that it has yet to flush.
    unflushed: bool,
    /// Whether the transport took no more. From then on only the connection's own task writes, because the transport
    /// remembers only the waker of who tried last.
    pub(super) blocked: bool,
    /// Whether nothing more is to be written, because the transport failed or the connection was aborted.
    pub(super) broken: bool,
    pub(super) ending: Option<Ending>,
}

/// Why nothing more is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// A close frame with this code is the last of the queue.
    Close(u16),
    /// The transport failed.
    Failed(io::ErrorKind),
    /// To be dropped without a word.
    Abort,
}

impl Out {
    pub(super) fn new(write: Box<dyn WriteHalf>) -> Self {
        Self {
            write: Some(write),
            current: Bytes::new(),
            pong: Bytes::new(),
            ping: Bytes::new(),
            queue: VecDeque::new(),
            queued: 0,
            live: None,
            current_is_live: false,
            unflushed: false,
            blocked: false,
            broken: false,
            ending: None,
        }
    }

    /// Bytes that wait, live frames left out.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    fn is_empty(&self) -> bool {
        self.queued == 0 && !self.current_is_live && self.live.is_none()
    }

    pub(super) fn has_pong(&self) -> bool {
        !self.pong.is_empty()
    }

    pub(super) fn push(&mut self, frame: Bytes) {
        self.queued += frame.len();
        // A frame that nothing waits before needs no queue, and hence no allocation.
        if self.queued == frame.len() && self.current.is_empty() {
            self.current = frame;
        } else {
            self.queue.push_back(frame);
        }
    }

    /// Whether a live frame of so many bytes would push out an older one.
    pub(super) fn is_live_full(&self, bytes: usize) -> bool {
        self.live.as_ref().is_some_and(|live| live.frames.len() >= LIVE_FRAMES || live.bytes + bytes > LIVE_BYTES)
    }

    /// Puts a live frame behind all else. Returns how many older ones were dropped for it.
    pub(super) fn push_live(&mut self, tag: u32, frame: Bytes) -> usize {
        let mut dropped = 0;
        while self.is_live_full(frame.len())
            && let Some(live) = &mut self.live
            && let Some((_, oldest)) = live.frames.pop_front()
        {
            live.bytes -= oldest.len();
            dropped += 1;
        }
        let live = self.live.get_or_insert_default();
        live.bytes += frame.len();
        live.frames.push_back((tag, frame));
        dropped
    }

    /// Drops the live frames with this tag that wait. Returns how many there were.
    pub(super) fn forget_live(&mut self, tag: u32) -> usize {
        let Some(live) = &mut self.live else { return 0 };
        let before = live.frames.len();
        live.frames.retain(|(other, _)| *other != tag);
        live.bytes = live.frames.iter().map(|(_, frame)| frame.len()).sum();
        let dropped = before - live.frames.len();
        if live.frames.is_empty() {
            self.live = None;
        }
        dropped
    }

    /// Drops the live frames that wait: nothing may follow a close frame.
    pub(super) fn clear_live(&mut self) {
        self.live = None;
    }

    /// Owes this pong, and no longer the one before it.
    pub(super) fn set_pong(&mut self, pong: Bytes) {
        self.queued = self.queued - self.pong.len() + pong.len();
        self.pong = pong;
    }

    pub(super) fn set_ping(&mut self) {
        if self.ping.is_empty() {
            self.ping = Bytes::from_static(frame::EMPTY_PING);
            self.queued += self.ping.len();
        }
    }

    /// Drops all that waits, except the frame that is being written, which the peer has perhaps seen the start of.
    pub(super) fn clear(&mut self) {
        self.pong = Bytes::new();
        self.ping = Bytes::new();
        self.queue = VecDeque::new();
        self.live = None;
        self.queued = if self.current_is_live { 0 } else { self.current.len() };
    }

    /// Writes nothing more, and drops all that waits.
    pub(super) fn give_up(&mut self) {
        self.broken = true;
        self.current = Bytes::new();
        self.current_is_live = false;
        self.clear();
    }

    /// Writes until nothing waits. It is pending when the transport takes no more for now.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = ready!(self.poll_write(cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.consume(written);
        }
        if self.unflushed {
            ready!(self.pinned()?.poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the writing direction, once all is written.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pinned()?.poll_shutdown(cx)
    }

    /// Lets go of the transport and of all that waits.
    pub(super) fn finish(&mut self, in_order: bool) {
        if let Some(mut write) = self.write.take() {
            if in_order {
                write.settle();
            } else {
                write.abandon();
            }
        }
        self.give_up();
    }

    fn pinned(&mut self) -> io::Result<Pin<&mut dyn WriteHalf>> {
        match &mut self.write {
            Some(write) => Ok(Pin::new(&mut **write)),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(write) = &mut self.write else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let write = Pin::new(&mut **write);
        // The order that `next` keeps to.
        let live = self.live.iter().flat_map(|live| live.frames.iter().map(|(_, frame)| frame));
        let mut waiting = [&self.current, &self.pong, &self.ping]
            .into_iter()
            .chain(&self.queue)
            .chain(live)
            .map(|frame| &frame[..])
            .filter(|frame| !frame.is_empty())
            .peekable();
        let first = waiting.next().unwrap_or_default();
        if waiting.peek().is_none() {
            return write.poll_write(cx, first);
        }
        let all = std::iter::once(first).chain(waiting);
        if write.is_write_vectored() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut count = 0;
            for (slice, frame) in slices.iter_mut().zip(all) {
                *slice = IoSlice::new(frame);
                count += 1;
            }
            return write.poll_write_vectored(cx, &slices[..count]);
        }
        if first.len() >= MAX_JOINED_BYTES {
            return write.poll_write(cx, first);
        }
        let live = self.live.as_ref().map_or(0, |live| live.bytes);
        let mut joined = Vec::with_capacity((self.current.len() + self.queued + live).min(MAX_JOINED_BYTES));
        for frame in all {
            let room = MAX_JOINED_BYTES - joined.len();
            joined.extend_from_slice(&frame[..frame.len().min(room)]);
            if frame.len() >= room {
                break;
            }
        }
        write.poll_write(cx, &joined)
    }

    /// Forgets what was written.
    fn consume(&mut self, mut written: usize) {
        while written > 0 {
            if self.current.is_empty() && !self.next() {
                break;
            }
            let part = written.min(self.current.len());
            self.current.advance(part);
            if !self.current_is_live {
                self.queued -= part;
            }
            written -= part;
        }
        if self.current.is_empty() {
            // An empty remainder would still hold on to its whole frame.
            self.current = Bytes::new();
            self.current_is_live = false;
        }
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
    }

    /// Makes the next frame the current one. It is called only when a part of that frame was written, so that whatever
    /// comes may still go before a live frame that is not begun.
    fn next(&mut self) -> bool {
        self.current_is_live = false;
        self.current = if !self.pong.is_empty() {
            std::mem::take(&mut self.pong)
        } else if !self.ping.is_empty() {
            std::mem::take(&mut self.ping)
        } else if let Some(frame) = self.queue.pop_front() {
            frame
        } else if let Some(frame) = self.next_live() {
            self.current_is_live = true;
            frame
        } else {
            return false;
        };
        true
    }

    fn next_live(&mut self) -> Option<Bytes> {
        let live = self.live.as_mut()?;
        let (_, frame) = live.frames.pop_front()?;
        live.bytes -= frame.len();
        if live.frames.is_empty() {
            self.live = None;
        }
        Some(frame)
    }
}
