//! One connection that is open: it is read whenever something came, and written to without waiting.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::order::Dialect;
use super::wire;
use super::world::World;
use crate::clock::now_us;

/// Most bytes that may wait for one socket. Who is not read for so long is counted as an error, and its frames are lost.
const WAITING_BYTES: usize = 1024 * 1024;
/// How long a connection that was told to pause looks away at a time.
const LOOK_AWAY: Duration = Duration::from_millis(20);

/// An open connection.
pub(crate) struct Conn {
    /// Its number, from which its name follows.
    pub(crate) id: u32,
    /// A live stream that it has open.
    pub(crate) stream_id: Cell<u32>,
    /// The number of its last MQTT packet, or of its last result.
    pub(crate) packet: Cell<u16>,
    stream: TcpStream,
    /// What came of a message that is not whole.
    left: RefCell<Vec<u8>>,
    waiting: RefCell<Vec<u8>>,
    wake: Notify,
}

impl Conn {
    pub(crate) fn new(id: u32, stream: TcpStream, left: Vec<u8>) -> Rc<Self> {
        Rc::new(Self {
            id,
            stream_id: Cell::default(),
            packet: Cell::default(),
            stream,
            left: RefCell::new(left),
            waiting: RefCell::default(),
            wake: Notify::new(),
        })
    }

    /// Writes, or keeps what the socket does not take.
    pub(crate) fn send(&self, world: &World, bytes: &[u8]) {
        let mut waiting = self.waiting.borrow_mut();
        let mut rest = bytes;
        if waiting.is_empty() {
            match self.stream.try_write(bytes) {
                Ok(written) => {
                    world.counts.borrow_mut().report.bytes[1] += written as u64;
                    rest = &bytes[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Its reader sees the same, and ends it.
                Err(_) => return,
            }
        }
        if rest.is_empty() {
            return;
        }
        if waiting.len() + rest.len() > WAITING_BYTES {
            return world.error("not taken by the socket");
        }
        waiting.extend_from_slice(rest);
        self.wake.notify_one();
    }

    fn flush(&self, world: &World) -> io::Result<()> {
        let mut waiting = self.waiting.borrow_mut();
        match self.stream.try_write(&waiting) {
            Ok(written) => {
                world.counts.borrow_mut().report.bytes[1] += written as u64;
                waiting.drain(..written);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads until the connection ends. Afterwards it is none of the open ones.
    pub(crate) async fn serve(self: Rc<Self>, world: Rc<World>, place: usize) {
        let ended = self.read(&world).await;
        world.conns.borrow_mut()[place] = None;
        if !world.leaving.get() {
            world.counts.borrow_mut().report.lost += 1;
            if let Err(error) = ended {
                world.error(&format!("{error:#}"));
            }
        }
    }

    async fn read(&self, world: &World) -> Result<()> {
        // What came together with the last answer of the opening.
        let left = std::mem::take(&mut *self.left.borrow_mut());
        self.take(world, &left)?;
        loop {
            while now_us() < world.paused_until.get() {
                tokio::time::sleep(LOOK_AWAY).await;
            }
            let wanted = if self.waiting.borrow().is_empty() {
                Interest::READABLE
            } else {
                Interest::READABLE | Interest::WRITABLE
            };
            let ready = tokio::select! {
                ready = self.stream.ready(wanted) => ready?,
                () = self.wake.notified() => continue,
            };
            if ready.is_writable() && !self.waiting.borrow().is_empty() {
                self.flush(world)?;
            }
            if ready.is_readable() && !self.once(world)? {
                return Ok(());
            }
        }
    }

    /// Reads once. False at the end.
    fn once(&self, world: &World) -> Result<bool> {
        let mut scratch = world.scratch.borrow_mut();
        match self.stream.try_read(&mut scratch) {
            Ok(0) => Ok(false),
            Ok(read) => {
                world.counts.borrow_mut().report.bytes[0] += read as u64;
                self.take(world, &scratch[..read])?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes messages out of what came. What is not whole is kept.
    fn take(&self, world: &World, came: &[u8]) -> Result<()> {
        let mut left = self.left.borrow_mut();
        if left.is_empty() {
            let used = self.messages(world, came)?;
            left.extend_from_slice(&came[used..]);
        } else {
            left.extend_from_slice(came);
            let used = self.messages(world, &left)?;
            left.drain(..used);
            if left.is_empty() {
                // So that a connection that rests holds nothing.
                *left = Vec::new();
            }
        }
        Ok(())
    }

    fn messages(&self, world: &World, bytes: &[u8]) -> Result<usize> {
        if matches!(world.job.dialect, Dialect::Tcp) {
            // The echo is cut anywhere; each message ends with a brace of its own.
            let end = memchr::memrchr(b'}', bytes).map_or(0, |at| at + 1);
            world.message(self, wire::TEXT, &bytes[..end]);
            return Ok(end);
        }
        let mut used = 0;
        while let Some((op, payload, whole)) = wire::first(&bytes[used..])? {
            match op {
                wire::PING => {
                    let mut pong = Vec::new();
                    wire::frame(wire::PONG, payload, &mut pong);
                    self.send(world, &pong);
                }
                wire::CLOSE => return Err(wire::Closed::of(payload).into()),
                op => world.message(self, op, payload),
            }
            used += whole;
        }
        Ok(used)
    }

    /// Says goodbye. The server ends the connection.
    pub(crate) fn close(&self, world: &World) {
        let mut frame = Vec::new();
        wire::frame(wire::CLOSE, &1000_u16.to_be_bytes(), &mut frame);
        self.send(world, &frame);
    }
}

/// A connection that is being opened: whole messages, one after the other.
pub(crate) struct Opening {
    pub(crate) stream: TcpStream,
    pub(crate) left: Vec<u8>,
}

impl Opening {
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("failed to write"),
            }
        }
        Ok(())
    }

    /// Reads some more.
    pub(crate) async fn more(&mut self) -> Result<()> {
        loop {
            self.stream.readable().await?;
            match self.stream.try_read_buf(&mut self.left) {
                Ok(0) => bail!("the server ended the connection"),
                Ok(_) if self.left.len() > wire::MESSAGE_BYTES => bail!("an answer without an end"),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("failed to read"),
            }
        }
    }

    pub(crate) async fn head(&mut self) -> Result<String> {
        loop {
            if let Some(end) = wire::head_end(&self.left) {
                let head: Vec<u8> = self.left.drain(..end).collect();
                return Ok(String::from_utf8_lossy(&head).into_owned());
            }
            self.more().await?;
        }
    }

    /// The next message. Pings that come so early are left to the next one.
    pub(crate) async fn message(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some((op, payload, whole)) = wire::first(&self.left)? {
                if op == wire::CLOSE {
                    return Err(wire::Closed::of(payload).into());
                }
                let payload = payload.to_vec();
                self.left.drain(..whole);
                return Ok(payload);
            }
            self.more().await?;
        }
    }

    pub(crate) async fn send(&mut self, op: u8, payload: &[u8]) -> Result<()> {
        let mut out = Vec::new();
        wire::frame(op, payload, &mut out);
        self.write(&out).await
    }
}
