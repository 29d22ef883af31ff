//! A simulated peer's end of a connection: the WebSocket client side over an in-memory stream, and the frames.
//!
//! A peer knows protocol.md and nothing else: what it gets it parses by itself, not with the types of the edge. Its
//! reader keeps its place between polls, so that waiting for a frame may be an arm of a `select!`.

mod client;
mod duty;
mod emits;
mod frame;
mod gateway;
mod orders;
mod talk;

use std::pin::Pin;
use std::time::Duration;

use fastwebsockets::{
    Frame, OpCode, Payload, Role, WebSocketError, WebSocketRead, WebSocketWrite, after_handshake_split,
};
use futures_util::{Stream, StreamExt, stream};
use tokio::io::{DuplexStream, ReadHalf, WriteHalf, split};
use tokio::time::timeout;

use crate::history::Event;

pub use client::ClientPlan;
pub use gateway::GatewayPlan;

pub(crate) use client::run as run_client;
pub(crate) use gateway::run as run_gateway;

/// How long a peer waits until an edge takes what it writes. Edges read always, so that more means a broken one.
const WRITE_WAIT: Duration = Duration::from_secs(30);
/// How long a peer waits for the answer to its goodbye.
const CLOSE_WAIT: Duration = Duration::from_secs(3);
/// How long a peer waits for `welcome`.
const WELCOME_WAIT: Duration = Duration::from_secs(12);

/// What comes from an edge.
#[derive(Debug)]
pub(crate) enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    /// The connection ended, with this code when there was a close frame.
    Closed(Option<u16>),
}

/// What is to be written down, and then sent.
struct Sending {
    event: Event,
    frame: String,
}

/// Waits until then, or for ever.
async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

type Incoming = Pin<Box<dyn Stream<Item = Heard> + Send>>;

/// One connection.
pub(crate) struct Link {
    incoming: Incoming,
    write: WebSocketWrite<WriteHalf<DuplexStream>>,
}

impl Link {
    pub(crate) fn new(stream: DuplexStream) -> Self {
        let (read, write) = split(stream);
        let (mut read, write) = after_handshake_split(read, write, Role::Client);
        read.set_auto_close(false);
        read.set_auto_pong(false);
        Self { incoming: incoming(read), write }
    }

    /// The next thing that comes. May be dropped and called again without losing anything.
    pub(crate) async fn next(&mut self) -> Heard {
        self.incoming.next().await.unwrap_or(Heard::Closed(None))
    }

    /// Sends a text frame; false when the connection is gone. Must not be dropped before it is done.
    pub(crate) async fn send(&mut self, text: &str) -> bool {
        self.write(Frame::text(Payload::Borrowed(text.as_bytes()))).await
    }

    /// Sends a binary frame, in the same way.
    pub(crate) async fn send_binary(&mut self, bytes: Vec<u8>) -> bool {
        self.write(Frame::binary(Payload::Owned(bytes))).await
    }

    pub(crate) async fn pong(&mut self, payload: Vec<u8>) -> bool {
        self.write(Frame::pong(Payload::Owned(payload))).await
    }

    /// Says goodbye and waits for the answer, for a while.
    pub(crate) async fn close(mut self) {
        if self.write(Frame::close(1000, b"")).await {
            let answered = async { while !matches!(self.next().await, Heard::Closed(_)) {} };
            // Who does not answer is left all the same.
            let _ = timeout(CLOSE_WAIT, answered).await;
        }
    }

    async fn write(&mut self, frame: Frame<'_>) -> bool {
        let written = async {
            self.write.write_frame(frame).await?;
            self.write.flush().await
        };
        matches!(timeout(WRITE_WAIT, written).await, Ok(Ok(())))
    }
}

fn incoming(read: WebSocketRead<ReadHalf<DuplexStream>>) -> Incoming {
    Box::pin(stream::unfold(Some(read), |read| async {
        let mut read = read?;
        let heard = heard(&mut read).await;
        let left = if matches!(heard, Heard::Closed(_)) { None } else { Some(read) };
        Some((heard, left))
    }))
}

async fn heard(read: &mut WebSocketRead<ReadHalf<DuplexStream>>) -> Heard {
    let mut unused = |_: Frame<'_>| async { Ok::<(), WebSocketError>(()) };
    let Ok(frame) = read.read_frame(&mut unused).await else { return Heard::Closed(None) };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match (frame.opcode, &*frame.payload) {
        (OpCode::Ping, payload) => Heard::Ping(payload.to_vec()),
        (OpCode::Pong, _) => Heard::Pong,
        (OpCode::Close, [high, low, ..]) => Heard::Closed(Some(u16::from_be_bytes([*high, *low]))),
        (OpCode::Close, _) => Heard::Closed(Some(1005)),
        (OpCode::Binary, payload) => Heard::Binary(payload.to_vec()),
        // An edge sends no fragments: what is one will not parse.
        (_, payload) => Heard::Text(text(payload)),
    }
}
