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
    /// Bytes of all of the above.
    queued: usize,
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
            unflushed: false,
            blocked: false,
            broken: false,
            ending: None,
        }
    }

    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    pub(super) fn has_pong(&self) -> bool {
        !self.pong.is_empty()
    }

    pub(super) fn push(&mut self, frame: Bytes) {
        self.queued += frame.len();
        // A frame that nothing waits before needs no queue, and hence no allocation.
        if self.queued == frame.len() {
            self.current = frame;
        } else {
            self.queue.push_back(frame);
        }
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
        self.queued = self.current.len();
    }

    /// Writes nothing more, and drops all that waits.
    pub(super) fn give_up(&mut self) {
        self.broken = true;
        self.current = Bytes::new();
        self.clear();
    }

    /// Writes until nothing waits. It is pending when the transport takes no more for now.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.queued > 0 {
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
        let mut waiting = [&self.current, &self.pong, &self.ping]
            .into_iter()
            .chain(&self.queue)
            .map(|frame| &frame[..])
            .filter(|frame| !frame.is_empty());
        let first = waiting.next().unwrap_or_default();
        if first.len() == self.queued {
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
        let mut joined = Vec::with_capacity(self.queued.min(MAX_JOINED_BYTES));
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
            self.queued -= part;
            written -= part;
        }
        if self.current.is_empty() {
            // An empty remainder would still hold on to its whole frame.
            self.current = Bytes::new();
        }
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
    }

    /// Makes the next frame the current one.
    fn next(&mut self) -> bool {
        self.current = if !self.pong.is_empty() {
            std::mem::take(&mut self.pong)
        } else if !self.ping.is_empty() {
            std::mem::take(&mut self.ping)
        } else if let Some(frame) = self.queue.pop_front() {
            frame
        } else {
            return false;
        };
        true
    }
}
