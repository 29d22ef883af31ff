//! One connection: the upgrade, `hello` and `welcome`, whole messages in, frames out, heartbeats.
//!
//! This is the only place of the client that knows fastwebsockets. Its reader must not be dropped inside a frame:
//! here it is a stream of its own that keeps its place between polls, so that [`Link::next`] may be an arm of a
//! `select!`. It has no limit over fragments and its writer waits for the socket: here fragments are joined under a
//! limit, and frames are written from a bounded buffer that keeps its place too.

use std::io::Cursor;
use std::pin::Pin;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use fastwebsockets::{Frame, OpCode, Payload, Role, WebSocketError, WebSocketRead, after_handshake_split};
use futures_util::{Stream, StreamExt, stream};
use http::header::{AUTHORIZATION, CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use riser_core::limits::Limits;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::{Instant, timeout, timeout_at};

use crate::Config;
use crate::end::End;
use crate::endpoint::WS_PATH;
use crate::frame::{Received, Welcome};
use crate::{api, wire};

/// The protocol's name in the upgrade.
pub const SUBPROTOCOL: &str = "riser.v1";
/// Largest message that is taken, in bytes over all its fragments. Parts of large frames are about 48 KiB, and one
/// value with its path is under 64 KiB.
pub const MESSAGE_BYTES: usize = 1024 * 1024;
/// Most bytes of frames that wait for the socket: four times the largest state of a gateway.
pub const WAITING_BYTES: usize = 1024 * 1024;
/// How long the closing handshake may take.
pub const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// RFC 6455 §1.3: what a server proves with that it speaks WebSocket.
const ACCEPT_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What came, before it is known whether anyone is to see it.
enum Heard {
    Text(String),
    Binary(Bytes),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>, String),
}

/// A message from the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A frame of the protocol.
    Text(String),
    /// A frame of a live stream, header and payload.
    Binary(Bytes),
}

/// Whole messages, up to the first error.
type Messages = Pin<Box<dyn Stream<Item = Result<Heard, End>> + Send>>;

/// One session of one connection.
pub struct Link {
    incoming: Messages,
    write: OwnedWriteHalf,
    /// Frames as bytes, masked, that wait for the socket.
    out: BytesMut,
    /// Nothing coming for this long means that nobody is there.
    patience: Duration,
    heard: Instant,
    /// When bytes were last taken by the socket, or began to wait for it.
    wrote: Instant,
    limits: Limits,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("patience", &self.patience).finish_non_exhaustive()
    }
}

impl Link {
    /// Connects, says `hello`, and waits for `welcome`; 10 s at most for each of the upgrade and the greeting.
    pub async fn open(config: &Config) -> Result<(Link, Welcome), End> {
        let stream = wire::dial(&config.endpoint).await?;
        let upgrade = upgrade(stream, config);
        let (stream, head) = timeout(wire::ANSWER_WAIT, upgrade).await.map_err(|_| wire::silent())??;
        let (read, write) = stream.into_split();
        let mut link = Link {
            incoming: messages(Cursor::new(head).chain(read)),
            write,
            out: BytesMut::new(),
            patience: wire::ANSWER_WAIT,
            heard: Instant::now(),
            wrote: Instant::now(),
            limits: Limits::default(),
        };
        let mut hello = json!({"t": "hello", "agent": config.agent});
        if let Some(ms) = config.remembers_ms {
            hello["remembers_ms"] = ms.into();
        }
        link.send(&hello.to_string())?;
        let welcome = link.greeted().await?;
        link.limits = welcome.limits;
        // Half a heartbeat more than the server waits, so that it is the server who decides about a slow path.
        link.patience = Duration::from_millis(welcome.heartbeat_ms.clamp(50, 3_600_000) * 5 / 2);
        Ok((link, welcome))
    }

    async fn greeted(&mut self) -> Result<Welcome, End> {
        let until = Instant::now() + wire::ANSWER_WAIT;
        loop {
            let text = timeout_at(until, self.next()).await.map_err(|_| wire::silent())??;
            match Received::parse(&text) {
                Ok(Received::Welcome(welcome)) => return Ok(*welcome),
                // An error before the welcome is followed by a close that says what to do.
                Ok(_) => {}
                Err(error) => return Err(End::Broken(error.to_string())),
            }
        }
    }

    /// The next text frame; binary messages are left out. Otherwise as [`Link::receive`].
    pub async fn next(&mut self) -> Result<String, End> {
        loop {
            if let Message::Text(text) = self.receive().await? {
                return Ok(text);
            }
        }
    }

    /// The next message. Pings are answered and frames that wait are written on the way. May be dropped and called
    /// again without losing anything.
    pub async fn receive(&mut self) -> Result<Message, End> {
        loop {
            if let Some(message) = self.turn().await? {
                return Ok(message);
            }
        }
    }

    /// As [`Link::receive`], and also ready, with nothing, when there is room that there was not before: what was held
    /// back for want of it can be sent then, and nobody else would notice.
    pub(crate) async fn turn(&mut self) -> Result<Option<Message>, End> {
        loop {
            let (waiting, crowded) = (!self.out.is_empty(), !self.has_room());
            let deadline = if waiting { self.heard.min(self.wrote) } else { self.heard } + self.patience;
            tokio::select! {
                biased;
                heard = self.incoming.next() => {
                    let heard = heard.unwrap_or_else(|| Err(End::Broken("it was closed before".into())))?;
                    self.heard = Instant::now();
                    if let Some(message) = self.take(heard)? {
                        return Ok(Some(message));
                    }
                }
                written = self.write.write_buf(&mut self.out), if waiting => {
                    self.written(written)?;
                    if crowded && self.has_room() {
                        return Ok(None);
                    }
                }
                () = tokio::time::sleep_until(deadline) => {
                    return Err(End::Silent(u64::try_from(self.patience.as_millis()).unwrap_or(u64::MAX)));
                }
            }
        }
    }

    /// Queues a text frame; [`Link::next`] and [`Link::flush`] write it. Fails when [`WAITING_BYTES`] wait already.
    pub fn send(&mut self, text: &str) -> Result<(), End> {
        self.push(Frame::text(Payload::Borrowed(text.as_bytes())))
    }

    /// Queues a binary message as [`Link::send`] does.
    pub fn send_binary(&mut self, message: &[u8]) -> Result<(), End> {
        self.push(Frame::binary(Payload::Borrowed(message)))
    }

    /// What the session may use.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How many bytes wait for the socket.
    pub fn waiting(&self) -> usize {
        self.out.len()
    }

    /// Whether few enough bytes wait for the socket that a large frame may be queued.
    pub fn has_room(&self) -> bool {
        self.out.len() < WAITING_BYTES / 4
    }

    /// Writes all that waits. May be dropped and called again without losing anything.
    pub async fn flush(&mut self) -> Result<(), End> {
        while !self.out.is_empty() {
            let written = self.write.write_buf(&mut self.out).await;
            self.written(written)?;
        }
        Ok(())
    }

    /// Says goodbye and waits for the other side's, [`CLOSE_WAIT`] at most.
    pub async fn close(mut self, code: u16, reason: &str) {
        let goodbye = async {
            self.push(Frame::close(code, reason.as_bytes()))?;
            self.flush().await?;
            while self.next().await.is_ok() {}
            Ok::<(), End>(())
        };
        // Who does not answer a goodbye in time is left all the same.
        let _ = timeout(CLOSE_WAIT, goodbye).await;
    }

    fn push(&mut self, mut frame: Frame<'_>) -> Result<(), End> {
        if self.out.len() + frame.payload.len() > WAITING_BYTES {
            return Err(End::Broken(format!("over {WAITING_BYTES} bytes wait for the socket")));
        }
        if self.out.is_empty() {
            self.wrote = Instant::now();
        }
        frame.mask();
        let mut bytes = Vec::new();
        let bytes = frame.write(&mut bytes);
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    fn written(&mut self, result: std::io::Result<usize>) -> Result<(), End> {
        match result {
            Ok(0) => Err(End::Broken("the socket takes no bytes".into())),
            Ok(_) => {
                self.wrote = Instant::now();
                Ok(())
            }
            Err(error) => Err(End::Broken(error.to_string())),
        }
    }

    fn take(&mut self, heard: Heard) -> Result<Option<Message>, End> {
        match heard {
            Heard::Text(text) => Ok(Some(Message::Text(text))),
            Heard::Binary(bytes) => Ok(Some(Message::Binary(bytes))),
            Heard::Pong => Ok(None),
            Heard::Ping(payload) => {
                self.push(Frame::pong(Payload::Owned(payload)))?;
                Ok(None)
            }
            Heard::Close(code, reason) => {
                // The session is over whether or not the echo still gets out.
                let echo =
                    code.map_or_else(|| Frame::close_raw(Payload::Borrowed(&[])), |code| Frame::close(code, b""));
                if self.push(echo).is_ok() {
                    let _ = self.write.try_write(&self.out);
                }
                Err(End::closed(code, reason))
            }
        }
    }
}

/// Upgrades a connection. Gives it back with the bytes that came after the answer.
async fn upgrade(stream: TcpStream, config: &Config) -> Result<(TcpStream, Bytes), End> {
    let key = BASE64.encode(fastrand::u128(..).to_be_bytes());
    let request = Request::builder()
        .uri(WS_PATH)
        .header(HOST, config.endpoint.authority())
        .header(AUTHORIZATION, api::bearer(&config.credential)?)
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "Upgrade")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", &key)
        .header(SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
        .body(Empty::<Bytes>::new())
        .map_err(|error| End::Broken(error.to_string()))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(wire::broken)?;
    // The connection ends by itself, upgraded or without its sender, so that both are always run to their ends.
    let (_, upgraded) = tokio::join!(connection.with_upgrades(), async {
        let mut answer = sender.send_request(request).await.map_err(wire::broken)?;
        drop(sender);
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(wire::read(answer).await?.refusal());
        }
        check(answer.headers(), &key)?;
        hyper::upgrade::on(&mut answer).await.map_err(wire::broken)
    });
    parts(upgraded?)
}

fn check(headers: &HeaderMap, key: &str) -> Result<(), End> {
    let has = |name, expected: &str| headers.get(name).is_some_and(|value| value.as_bytes() == expected.as_bytes());
    let accept = BASE64.encode(sha1_smol::Sha1::from(format!("{key}{ACCEPT_GUID}")).digest().bytes());
    if !has(SEC_WEBSOCKET_ACCEPT, &accept) {
        return Err(End::Broken("the upgrade's answer does not fit its key".into()));
    }
    if !has(SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        return Err(End::Broken(format!("the other side does not speak {SUBPROTOCOL}")));
    }
    Ok(())
}

fn parts(upgraded: Upgraded) -> Result<(TcpStream, Bytes), End> {
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().map_err(|_| End::Broken("not a TCP connection".into()))?;
    Ok((parts.io.into_inner(), parts.read_buf))
}

/// A stream of whole messages that ends with its first error.
fn messages(read: impl AsyncRead + Unpin + Send + 'static) -> Messages {
    // The write half of the pair is not used: frames are encoded and written by the link itself.
    let (mut reader, _) = after_handshake_split(read, tokio::io::empty(), Role::Client);
    reader.set_auto_close(false);
    reader.set_auto_pong(false);
    reader.set_max_message_size(MESSAGE_BYTES);
    let state = Some((reader, Joined::default()));
    Box::pin(stream::unfold(state, |state| async {
        let (mut reader, mut joined) = state?;
        match message(&mut reader, &mut joined).await {
            Ok(heard) => Some((Ok(heard), Some((reader, joined)))),
            Err(end) => Some((Err(end), None)),
        }
    }))
}

/// The fragments of a message so far.
#[derive(Default)]
struct Joined {
    text: Option<bool>,
    bytes: Vec<u8>,
}

async fn message<R: AsyncRead + Unpin>(reader: &mut WebSocketRead<R>, joined: &mut Joined) -> Result<Heard, End> {
    loop {
        let mut unused = |_: Frame<'_>| async { Ok::<(), WebSocketError>(()) };
        let frame = reader.read_frame(&mut unused).await.map_err(|error| End::Broken(error.to_string()))?;
        match frame.opcode {
            OpCode::Ping => return Ok(Heard::Ping(frame.payload.to_vec())),
            OpCode::Pong => return Ok(Heard::Pong),
            OpCode::Close => return goodbye(&frame.payload),
            OpCode::Text | OpCode::Binary if joined.text.is_some() => {
                return Err(End::Broken("a message began inside another".into()));
            }
            OpCode::Text | OpCode::Binary => joined.text = Some(frame.opcode == OpCode::Text),
            OpCode::Continuation if joined.text.is_none() => {
                return Err(End::Broken("a message went on that had not begun".into()));
            }
            OpCode::Continuation => {}
        }
        if joined.bytes.len() + frame.payload.len() > MESSAGE_BYTES {
            return Err(End::Broken(format!("a message over {MESSAGE_BYTES} bytes")));
        }
        joined.bytes.extend_from_slice(&frame.payload);
        if frame.fin {
            let Joined { text, bytes } = std::mem::take(joined);
            if text != Some(true) {
                return Ok(Heard::Binary(bytes.into()));
            }
            return String::from_utf8(bytes).map(Heard::Text).map_err(|_| End::Broken("text that is not UTF-8".into()));
        }
    }
}

fn goodbye(payload: &[u8]) -> Result<Heard, End> {
    let reason =
        |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| End::Broken("a reason that is not UTF-8".into()));
    match payload {
        [] => Ok(Heard::Close(None, String::new())),
        [high, low, rest @ ..] => Ok(Heard::Close(Some(u16::from_be_bytes([*high, *low])), reason(rest)?)),
        [_] => Err(End::Broken("half a close code".into())),
    }
}

#[cfg(test)]
mod tests;
