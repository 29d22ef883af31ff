//! The one task of a connection: it reads, hands messages to the handler, writes when the transport had taken no more,
//! and sees a closing connection to its end.
//!
//! It is a future written by hand rather than an async function because thousands of them lie idle: nothing is kept
//! across a wait but the decoder's few words, bytes are read into a buffer that belongs to the thread, and what happens
//! once is boxed.

use std::cell::Cell;
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::codec::{Decoder, Message};
use super::conn::{CLOSE_WAIT, Conn};
use super::out::Ending;
use super::pace::Pace;
use super::violation::Violation;

/// The most that is read at once, and the size of each thread's read buffer.
const READ_BYTES: usize = 64 * 1024;

/// The least that is read at once, however little of the frame budget is left. It bounds what a paced connection keeps.
const MIN_READ_BYTES: usize = 4 * 1024;

/// The fewest bytes of a client's frame: two, and the mask. A read of six times the budget cannot exceed the budget.
const MIN_FRAME_BYTES: usize = 6;

/// How often a connection reads, or asks its handler for more, before it lets others run.
const ROUNDS_PER_POLL: usize = 16;

thread_local! {
    /// Taken while a connection reads and put back after it, so that a handler may do what it likes.
    static BUFFER: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// What becomes of a connection's messages. All calls come from the connection's task, one at a time, and hold it up:
/// what takes long goes elsewhere. Frames that a call pushes are flushed after it.
pub trait Handler: Send {
    /// A text message came.
    fn text(&mut self, conn: &Arc<Conn>, text: &str);

    /// A binary message came.
    fn binary(&mut self, conn: &Arc<Conn>, data: &[u8]);

    /// Nothing waits any more, after the peer had not read or after [`Conn::request_refill`]: the handler may push what
    /// it owes. Returns whether it pushed something and may owe more; then it is called again once this was written.
    fn drained(&mut self, conn: &Arc<Conn>) -> bool {
        let _ = conn;
        false
    }

    /// After each read: how many bytes and frames it brought, control frames and empty fragments included. Says for how
    /// long nothing more is to be read, which must not be longer than a second.
    fn received(&mut self, conn: &Arc<Conn>, bytes: usize, frames: u32) -> Duration {
        let _ = (conn, bytes, frames);
        Duration::ZERO
    }

    /// After each turn of the connection's task, until the connection ends: how long it was.
    fn spent(&mut self, time: Duration) {
        let _ = time;
    }

    /// The peer used up its budget of frames, and reading pauses.
    fn paced(&mut self, conn: &Arc<Conn>) {
        let _ = conn;
    }

    /// No message will come any more. It is called once, before the closing handshake has ended, so that what follows
    /// from the end need not wait for a peer that has perhaps gone. It is not called when the future is dropped or the
    /// handler panicked: what must happen then is the handler's `Drop`.
    fn ended(&mut self, conn: &Arc<Conn>, end: End) {
        let _ = (conn, end);
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer sent a close frame first, with this code when it gave one.
    Peer {
        /// The peer's close code.
        code: Option<u16>,
    },
    /// This side closed first: [`Conn::close`], or the queue's limit.
    Us {
        /// The code that was sent.
        code: u16,
    },
    /// The peer broke RFC 6455 or a limit, and was closed with [`Violation::code`].
    Violation(Violation),
    /// The stream ended without a close frame, or failed.
    Lost {
        /// How it failed; `None` when it just ended.
        error: Option<io::ErrorKind>,
    },
    /// [`Conn::abort`] was called.
    Aborted,
}

impl End {
    /// The close code that stands for it: 1005 for a close frame without one, 1006 for no close frame.
    pub fn code(self) -> u16 {
        match self {
            Self::Peer { code } => code.unwrap_or(1005),
            Self::Us { code } => code,
            Self::Violation(violation) => violation.code(),
            Self::Lost { .. } | Self::Aborted => 1006,
        }
    }
}

/// Runs a connection until its transport has been let go of, at most [`CLOSE_WAIT`] after it began to end.
///
/// `head` is what was read together with the upgrade request. The future is small (`H`, and about 200 bytes) and should
/// be the whole task: an async block around it costs its size again.
pub fn serve<H: Handler>(
    conn: Arc<Conn>,
    read: impl AsyncRead + Send + Unpin + 'static,
    head: &Bytes,
    handler: H,
) -> Serve<H> {
    let settings = conn.settings();
    let decoder = Decoder::new(settings.limits);
    let pace = Pace::full(settings.frames_per_second);
    Serve {
        conn,
        read: Box::new(read),
        decoder,
        pace,
        rest: head.to_vec().into_boxed_slice(),
        pause: None,
        owes: false,
        lean: false,
        closing: None,
        handler,
    }
}

/// The future that [`serve`] returns.
#[must_use = "a connection lives only while this is polled"]
pub struct Serve<H> {
    conn: Arc<Conn>,
    read: Box<dyn AsyncRead + Send + Unpin>,
    decoder: Decoder,
    pace: Pace,
    /// Bytes that were read and may not be decoded yet. Empty, and without memory, unless paced or paused.
    rest: Box<[u8]>,
    /// Until when nothing is read, because the budget of frames is used up.
    pause: Option<Pin<Box<Sleep>>>,
    /// Whether the handler said that it may owe more.
    owes: bool,
    /// Whether the handler wants less, so that the next read is a short one.
    lean: bool,
    closing: Option<Box<Closing>>,
    handler: H,
}

/// A connection that waits for the end of its stream.
struct Closing {
    end: End,
    /// Whether the peer's close frame came, or cannot be recognised any more.
    heard: bool,
    /// Whether the writing direction has ended.
    shut: bool,
    deadline: Pin<Box<Sleep>>,
}

/// What a piece of input brought.
enum Input {
    More,
    Close(Option<u16>),
    Violation(Violation),
}

// Nothing in it is pinned in place: what must be is in a box.
impl<H> Unpin for Serve<H> {}

impl<H: Handler> Future for Serve<H> {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let this = &mut *self;
        this.conn.register(cx.waker());
        if this.closing.is_none() {
            let began = Instant::now();
            let polled = this.poll_open(cx);
            this.handler.spent(began.elapsed());
            let (end, heard) = ready!(polled);
            this.handler.ended(&this.conn, end);
            if matches!(end, End::Lost { .. } | End::Aborted) {
                this.conn.finish(false);
                return Poll::Ready(end);
            }
            let deadline = Box::pin(sleep(CLOSE_WAIT));
            this.closing = Some(Box::new(Closing { end, heard, shut: false, deadline }));
        }
        this.poll_closing(cx)
    }
}

impl<H: Handler> Serve<H> {
    /// Ready with why the connection ends, and whether the peer's close frame has not to be waited for.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<(End, bool)> {
        for _ in 0..ROUNDS_PER_POLL {
            let refilled = self.poll_write(cx);
            if let Some(ending) = self.conn.ending() {
                return Poll::Ready((asked(ending), false));
            }
            let input = match self.poll_input(cx) {
                // What the handler pushed in `drained` is written in another round.
                Poll::Pending if refilled => continue,
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Some(input))) => input,
                Poll::Ready(Ok(None)) => return Poll::Ready((End::Lost { error: None }, true)),
                Poll::Ready(Err(error)) => {
                    return Poll::Ready((End::Lost { error: Some(error.kind()) }, true));
                }
            };
            let (end, first) = match input {
                Input::More => continue,
                Input::Close(code) => (End::Peer { code }, self.conn.answer_close(code)),
                Input::Violation(violation) => {
                    (End::Violation(violation), self.conn.close(violation.code(), violation.as_str()))
                }
            };
            let end = if first { end } else { self.conn.ending().map_or(end, asked) };
            return Poll::Ready((end, true));
        }
        // Others are to run before the rest.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what waits, and lets the handler push what it owes. Returns whether it did.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool {
        let idle = match self.conn.poll_drain(cx) {
            Poll::Ready(written) => written,
            // Live frames that wait must not keep back what is owed: it goes before them.
            Poll::Pending => self.conn.queued_bytes() == 0,
        };
        if !idle || !(self.conn.take_refill() || self.owes) || self.conn.is_ending() {
            return false;
        }
        self.owes = self.handler.drained(&self.conn);
        self.owes || self.conn.queued_bytes() > 0
    }

    /// Takes the next piece of input, decodes it and passes on what it holds. Ready with `None` at the stream's end.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Input>>> {
        if self.conn.is_paused() {
            return Poll::Pending;
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let rate = self.conn.settings().frames_per_second;
        let allowance = self.pace.allowance(rate, self.conn.now_ms());
        if allowance == 0 {
            self.handler.paced(&self.conn);
            let mut pause = Box::pin(sleep(Pace::pause(rate)));
            // Polled at once, so that it wakes this task.
            let waits = pause.as_mut().poll(cx).is_pending();
            self.pause = waits.then_some(pause);
            return if waits { Poll::Pending } else { Poll::Ready(Ok(Some(Input::More))) };
        }
        if !self.rest.is_empty() {
            let mut rest = std::mem::take(&mut self.rest);
            return Poll::Ready(Ok(Some(self.decode(&mut rest, allowance))));
        }
        let most = (allowance as usize).saturating_mul(MIN_FRAME_BYTES).clamp(MIN_READ_BYTES, READ_BYTES);
        let most = if self.lean { MIN_READ_BYTES } else { most };
        let mut buffer = take_buffer();
        let polled = read(&mut self.read, cx, &mut buffer[..most]);
        let result = match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(0)) => Poll::Ready(Ok(None)),
            Poll::Ready(Ok(count)) => {
                self.conn.heard();
                Poll::Ready(Ok(Some(self.decode(&mut buffer[..count], allowance))))
            }
        };
        BUFFER.set(Some(buffer));
        result
    }

    /// Decodes `input`, keeping what the budget, a pause or the handler's end leaves over.
    fn decode(&mut self, input: &mut [u8], allowance: u32) -> Input {
        let Self { conn, decoder, handler, .. } = self;
        let mut closed = None;
        let fed = decoder.feed(input, allowance, &mut |message| {
            match message {
                Message::Text(text) => handler.text(conn, text),
                Message::Binary(data) => handler.binary(conn, data),
                Message::Ping(payload) => conn.pong(payload),
                Message::Pong(_) => {}
                Message::Close(code, _) => closed = Some(code),
            }
            if conn.is_ending() || conn.is_paused() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match fed {
            Ok(fed) => {
                self.pace.take(fed.frames);
                self.rest = input[fed.bytes..].into();
                let pause = self.handler.received(&self.conn, fed.bytes, fed.frames);
                self.lean = !pause.is_zero();
                if self.lean {
                    self.pause = Some(Box::pin(sleep(pause)));
                }
                closed.map_or(Input::More, Input::Close)
            }
            Err(violation) => Input::Violation(violation),
        }
    }

    /// Writes what waits with the close frame, waits for the peer's, ends the writing direction, waits for the end of
    /// the stream. Whatever the peer sends is read and dropped, because unread bytes would make the kernel reset the
    /// connection, and the peer might never see why it was closed.
    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let Self { conn, read: half, decoder, rest, closing, .. } = self;
        let Some(state) = closing else {
            return Poll::Pending;
        };
        let end = state.end;
        let finish = |in_order| {
            conn.finish(in_order);
            Poll::Ready(end)
        };
        if state.deadline.as_mut().poll(cx).is_ready() {
            return finish(false);
        }
        let mut rest = std::mem::take(rest);
        let mut heard = |input: &mut [u8]| {
            let mut closed = false;
            let fed = decoder.feed(input, u32::MAX, &mut |message| {
                closed |= matches!(message, Message::Close(..));
                ControlFlow::Continue(())
            });
            closed || fed.is_err()
        };
        state.heard |= heard(&mut rest);
        for _ in 0..ROUNDS_PER_POLL {
            let written = match conn.poll_drain(cx) {
                Poll::Ready(true) => true,
                Poll::Ready(false) => return finish(false),
                Poll::Pending => false,
            };
            if written && state.heard && !state.shut {
                match conn.poll_shutdown(cx) {
                    Poll::Ready(Ok(())) => state.shut = true,
                    Poll::Ready(Err(_)) => return finish(false),
                    Poll::Pending => {}
                }
            }
            let mut buffer = take_buffer();
            let polled = read(half, cx, &mut buffer);
            if let Poll::Ready(Ok(count)) = polled {
                state.heard |= heard(&mut buffer[..count]);
            }
            BUFFER.set(Some(buffer));
            match polled {
                Poll::Ready(Ok(0)) => return finish(written),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return finish(false),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<H> Drop for Serve<H> {
    fn drop(&mut self) {
        if self.conn.is_gone() {
            return;
        }
        if std::thread::panicking() {
            // The peer may come back: what failed is this side.
            self.conn.close(1011, "");
        }
        self.conn.finish(std::thread::panicking());
    }
}

fn asked(ending: Ending) -> End {
    match ending {
        Ending::Close(code) => End::Us { code },
        Ending::Failed(error) => End::Lost { error: Some(error) },
        Ending::Abort => End::Aborted,
    }
}

fn take_buffer() -> Box<[u8]> {
    BUFFER.take().unwrap_or_else(|| vec![0; READ_BYTES].into_boxed_slice())
}

fn read(half: &mut (dyn AsyncRead + Send + Unpin), cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(into);
    ready!(Pin::new(half).poll_read(cx, &mut buffer))?;
    Poll::Ready(Ok(buffer.filled().len()))
}
