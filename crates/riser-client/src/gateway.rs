//! A gateway: what a flat's values should be, made known to the broker across reconnects and losses; its commands, each
//! done once; its events and live streams.
//!
//! The handle keeps the whole state. A change is sent at once when there is a session; without one it waits as part
//! of the state that the next session begins with. An `ok` therefore means the same either way: the broker has
//! stored this value or a newer one.

mod book;
pub mod commands;
mod desk;
pub mod memory;
mod results;
mod run;

use std::collections::BTreeMap;
use std::time::Duration;

use riser_core::frame::Credential;
use riser_core::{Change, Devices, Json, Path};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::Config;
use crate::calls::{Call, Given};
use crate::end::End;
use crate::frame::{Closed, Opened, Welcome};
use crate::link::CLOSE_WAIT;
use crate::live::{FRAMES, LiveFrame, Open, Say, Stream};
use crate::notice::Notice;
use crate::refused::Refused;
use crate::task::Task;
pub use commands::{Commands, Request};
use desk::Desk;
pub use memory::{Memory, MemoryError};
use run::Run;

/// Changes that wait for the connection; who makes more waits.
const ASKS: usize = 64;
/// Frames that may be unanswered at a time. One call to the store is in flight per gateway, so that more than a few
/// only fill the edge's buffers.
const OPEN: usize = 64;
/// Callers that may wait for the `ok` to a change at a time.
const WAITERS: usize = 1_024;
/// Live frames that wait for a listener of the application. One that lags loses the oldest.
const HEARD: usize = 256;

/// How a gateway's session stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    /// The first attempt is under way.
    Connecting,
    /// There is a session.
    Online(Box<Welcome>),
    /// The session ended or an attempt failed, and another follows.
    Waiting {
        /// Why.
        end: End,
        /// When the next attempt is made.
        back_in: Duration,
    },
    /// No attempt follows.
    Ended(End),
}

/// What is heard on the live lane of the gateway's own address.
#[derive(Debug, Clone, PartialEq)]
pub enum Live {
    /// A stream began, or was there already.
    Opened(Opened),
    /// A frame of it.
    Frame(LiveFrame),
    /// It is over. With a session all its streams are over, and those that are still there are told again.
    Closed(Closed),
}

enum Ask {
    Change(Change, Answer),
    Call(Call),
    Reconnect(Duration),
    Leave,
}

type Answer = oneshot::Sender<Result<(), Refused>>;

/// A gateway's session that comes back by itself. Dropping it ends its task and cuts its connection.
#[derive(Debug)]
pub struct Gateway {
    asks: mpsc::Sender<Ask>,
    say: mpsc::Sender<Say>,
    status: watch::Receiver<Status>,
    credential: watch::Receiver<Credential>,
    sessions: watch::Receiver<u64>,
    live: broadcast::Sender<Live>,
    /// Ends with the handle.
    _task: Task,
}

impl Gateway {
    /// Begins to connect, and goes on trying. How it stands is in [`Gateway::status`]. Commands are rejected with the
    /// code `unsupported`.
    pub fn start(config: Config) -> Self {
        Self::begin(config, None)
    }

    /// As [`Gateway::start`], with an application that does commands. Each is given out once, however often it comes,
    /// and a repeated one is answered with what was said of it.
    pub fn serve(config: Config, memory: Memory) -> (Self, Commands) {
        let (requested, requests) = mpsc::channel(commands::REQUESTS);
        let (words, said) = mpsc::channel(commands::WORDS);
        let gateway = Self::begin(config, Some(Desk::new(memory, requested, words, said)));
        (gateway, Commands { requests, turned: None })
    }

    fn begin(config: Config, desk: Option<Desk>) -> Self {
        let (asks, asked) = mpsc::channel(ASKS);
        let (say, said) = mpsc::channel(FRAMES);
        let (show, status) = watch::channel(Status::Connecting);
        let (hand, credential) = watch::channel(config.credential.clone());
        let (count, sessions) = watch::channel(0);
        let live = broadcast::Sender::new(HEARD);
        let run = Run::new(config, run::Ports { asked, said, show, hand, count, live: live.clone() }, desk);
        let task = Task::start(run.run());
        Self { asks, say, status, credential, sessions, live, _task: task }
    }

    /// Connects. Fails when the first attempt does.
    pub async fn connect(config: Config) -> Result<Self, End> {
        let gateway = Self::start(config);
        let mut status = gateway.status();
        let first = status.wait_for(|status| !matches!(status, Status::Connecting)).await;
        let first = first.map_or(Status::Ended(End::Left), |status| status.clone());
        match first {
            Status::Waiting { end, .. } | Status::Ended(end) => Err(end),
            _ => Ok(gateway),
        }
    }

    /// How the session stands, now and from now on.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// The credential in use: a renewed one replaces the first, and should be kept for the next start.
    pub fn credential(&self) -> Credential {
        self.credential.borrow().clone()
    }

    /// Sets values; none deletes. Ready when the broker has stored them, or newer ones, however many reconnects later.
    pub async fn set(&self, values: BTreeMap<Path, Option<Json>>) -> Result<(), Refused> {
        self.change(Change::values(values, false)).await
    }

    /// Replaces all values. Ready as [`Gateway::set`].
    pub async fn full(&self, values: BTreeMap<Path, Json>) -> Result<(), Refused> {
        self.change(Change::values(values.into_iter().map(|(path, value)| (path, Some(value))), true)).await
    }

    /// A device, and all below it, went away or came back. Ready as [`Gateway::set`].
    pub async fn device(&self, path: Path, up: bool) -> Result<(), Refused> {
        self.change(Change::mark(path, up)).await
    }

    /// Says what the devices are. Ready as [`Gateway::set`].
    pub async fn describe(&self, devices: Devices) -> Result<(), Refused> {
        devices.check().map_err(Refused::TooMany)?;
        self.change(Change::describe(devices)).await
    }

    /// Tells an event of this gateway. Ready with its cursor when it is stored, however many reconnects later; dropping
    /// the future ends the repetitions. Events are stored in the order of these calls: each is sent once the one before
    /// is answered.
    pub async fn event(&self, notice: &Notice) -> Result<Option<String>, Refused> {
        Ok(self.call(notice.frame(None), true).await?.granted.cursor)
    }

    /// Opens a live stream at this gateway's address. It lasts as long as the session.
    pub async fn open(&self, open: Open) -> Result<Stream, Refused> {
        let given = self.call(open.frame(None), false).await?;
        let none = || Refused::ByServer { code: "internal".into(), message: "a stream without a number".into() };
        let id = given.granted.stream.ok_or_else(none)?;
        Ok(Stream::new(id, open.kind, given.session, self.sessions.clone(), self.say.clone()))
    }

    /// What is heard on the live lane of this gateway's address from now on.
    pub fn live(&self) -> broadcast::Receiver<Live> {
        self.live.subscribe()
    }

    /// Cuts the connection without a goodbye and comes back after this time, with all that it knows: for an owner that
    /// knows that the network has changed, or wants to see what happens. Without a session it does nothing.
    pub async fn reconnect(&self, after: Duration) {
        // A gateway that has ended has no connection.
        let _ = self.asks.send(Ask::Reconnect(after)).await;
    }

    /// Closes the session with a goodbye, within about 2 s. What is asked afterwards is refused.
    pub async fn close(&self) {
        if self.asks.send(Ask::Leave).await.is_ok() {
            let mut status = self.status();
            let left = status.wait_for(|status| matches!(status, Status::Ended(_)));
            // Whoever has not left by then is cut off with the handle.
            let _ = timeout(CLOSE_WAIT * 2, left).await;
        }
    }

    async fn call(&self, frame: String, repeats: bool) -> Result<Given, Refused> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(Ask::Call(Call { frame, repeats, answer })).await.map_err(|_| Refused::Ended)?;
        answered.await.unwrap_or(Err(Refused::Ended))
    }

    async fn change(&self, change: Change) -> Result<(), Refused> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(Ask::Change(change, answer)).await.map_err(|_| Refused::Ended)?;
        answered.await.unwrap_or(Err(Refused::Ended))
    }
}
