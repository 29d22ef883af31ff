//! Live streams that this side opens: a handle that numbers and stamps frames, now or never.

use bytes::{BufMut as _, Bytes, BytesMut};
use riser_core::live::{HEADER_BYTES, Header, StreamId, StreamKind};
use riser_core::{Address, Json, Path};
use serde::Serialize;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::end::End;
use crate::link::Link;

/// Frames of all streams that wait for the connection: more than a second of one talker. Of more, the newest is dropped.
pub(crate) const FRAMES: usize = 64;
/// Bytes waiting for the socket beyond which live frames are dropped instead of queued: what is said late helps nobody,
/// and commands would wait behind it.
const LATE_BYTES: usize = 32 * 1024;

/// A live stream to be opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Open {
    /// Which device or property it is about.
    pub path: Path,
    /// What it carries.
    pub kind: StreamKind,
    /// What to say about it, at most 1 KiB of JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub params: Option<Json>,
}

impl Open {
    /// The frame without its number; a gateway opens at its own address, and names none. Values stay the text that
    /// they are.
    pub(crate) fn frame(&self, to: Option<&Address>) -> String {
        #[derive(Serialize)]
        struct Frame<'a> {
            t: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            to: Option<&'a Address>,
            #[serde(flatten)]
            open: &'a Open,
        }
        Json::of(&Frame { t: "open", to, open: self }).as_str().to_owned()
    }
}

/// What is to be said on streams, and in which session they were opened.
#[derive(Debug)]
pub(crate) enum Say {
    Frame(u64, Bytes),
    Close(u64, StreamId),
}

/// A frame that was heard on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveFrame {
    /// Its header.
    pub header: Header,
    /// What it carries.
    pub payload: Bytes,
}

impl LiveFrame {
    /// Reads a binary message; none when it is no frame.
    pub(crate) fn parse(mut message: Bytes) -> Option<Self> {
        let header = Header::parse(&message).ok()?;
        Some(Self { header, payload: message.split_off(HEADER_BYTES) })
    }
}

/// An open stream. It is over with the session in which it was opened; dropping it closes it.
#[derive(Debug)]
pub struct Stream {
    id: StreamId,
    kind: StreamKind,
    seq: u32,
    began: Instant,
    session: u64,
    sessions: watch::Receiver<u64>,
    say: mpsc::Sender<Say>,
    closed: bool,
}

impl Stream {
    pub(crate) fn new(
        id: StreamId,
        kind: StreamKind,
        session: u64,
        sessions: watch::Receiver<u64>,
        say: mpsc::Sender<Say>,
    ) -> Self {
        Self { id, kind, seq: 0, began: Instant::now(), session, sessions, say, closed: false }
    }

    /// Its number, which listeners see.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// Whether the session in which it was opened has ended: nothing more can be said on it.
    pub fn is_over(&self) -> bool {
        *self.sessions.borrow() != self.session
    }

    /// Sends a frame; `last` ends a talk spurt. False when it was dropped: the connection is slow, or the stream over.
    /// A dropped frame has its number, so that listeners see the hole.
    pub fn send(&mut self, payload: &[u8], last: bool) -> bool {
        let clock_ms = u32::try_from(self.began.elapsed().as_millis() & u128::from(u32::MAX)).unwrap_or(0);
        let header = Header { kind: self.kind, last, stream: self.id, seq: self.seq, clock_ms };
        self.seq = self.seq.wrapping_add(1);
        let mut frame = BytesMut::with_capacity(HEADER_BYTES + payload.len());
        frame.put_slice(&header.to_bytes());
        frame.put_slice(payload);
        !self.is_over() && self.say.try_send(Say::Frame(self.session, frame.freeze())).is_ok()
    }

    /// Closes it, after the frames that were sent before.
    pub async fn close(mut self) {
        self.closed = true;
        // Without a connection there is nothing to close.
        let _ = self.say.send(Say::Close(self.session, self.id)).await;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.closed {
            // When there is no room, it is closed for want of frames, after a minute.
            let _ = self.say.try_send(Say::Close(self.session, self.id));
        }
    }
}

/// Passes on what is said, unless it is of an earlier session, the socket is slow, or it would end the session by its
/// size.
pub(crate) fn pass(say: Say, link: &mut Link, session: u64, number: impl FnOnce() -> u64) -> Result<(), End> {
    match say {
        Say::Frame(of, frame)
            if of == session && link.waiting() <= LATE_BYTES && frame.len() <= link.limits().binary_bytes =>
        {
            link.send_binary(&frame)
        }
        Say::Close(of, stream) if of == session => {
            link.send(&json!({"t": "close", "n": number(), "stream": stream}).to_string())
        }
        Say::Frame(..) | Say::Close(..) => Ok(()),
    }
}
