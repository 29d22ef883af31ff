//! Commands of a client: what is asked, the handle that hears what becomes of it, and what keeps asking.
//!
//! A command has a `key`, so that sending it again is the same command. After each reconnect an open one is sent again
//! with the time that is left of its deadline: the server answers with its outcomes so far, or takes it for the first
//! time. It is never sent after its deadline, and one that was cancelled only when it is known that it was taken.

mod open;

use std::time::Duration;

use riser_core::command::{DEADLINE_MS, DEFAULT_DEADLINE_MS};
use riser_core::{Address, Json, Path};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::client::Ask;
use crate::frame::Outcome;
use crate::refused::Refused;
pub(crate) use open::Orders;

/// Outcomes of one command that wait for its owner. Of more, `running` words between are left out; the final one never.
pub const OUTCOMES: usize = 64;
/// Most open commands of a client: what an edge allows one session.
pub const OPEN: usize = 256;
/// For how long after its deadline the outcome of a command is waited for, in the session to which it was sent. The server
/// decides within 5 s of it, and what it says may be slow to come.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// What a gateway is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Which gateway.
    pub to: Address,
    /// With which device or property.
    pub path: Path,
    /// What.
    pub action: String,
    /// How.
    pub args: Option<Json>,
    /// In which time an outcome must be there; 100 ms to a day.
    pub deadline: Duration,
    /// Whether it waits for a gateway that is offline.
    pub hold: bool,
    /// What makes a repetition the same command; made at random when there is none.
    pub key: Option<String>,
}

impl Order {
    /// An order without arguments, to be done within 10 s by a gateway that is online.
    pub fn new(to: Address, path: Path, action: impl Into<String>) -> Self {
        let deadline = Duration::from_millis(DEFAULT_DEADLINE_MS);
        Self { to, path, action: action.into(), args: None, deadline, hold: false, key: None }
    }

    /// The order as the HTTP API takes it, or as a frame when it has a number. Values stay the text that they are.
    pub(crate) fn json(&self, n: Option<u64>, deadline_ms: u64, wait: Option<&str>) -> String {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            t: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            n: Option<u64>,
            to: &'a Address,
            path: &'a Path,
            action: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            args: Option<&'a Json>,
            deadline_ms: u64,
            if_offline: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            key: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            wait: Option<&'a str>,
        }
        let body = Body {
            t: n.map(|_| "command"),
            n,
            to: &self.to,
            path: &self.path,
            action: &self.action,
            args: self.args.as_ref(),
            deadline_ms,
            if_offline: if self.hold { "hold" } else { "fail" },
            key: self.key.as_deref(),
            wait,
        };
        Json::of(&body).as_str().to_owned()
    }

    /// The deadline in milliseconds, within what a server takes.
    pub(crate) fn deadline_ms(deadline: Duration) -> u64 {
        let ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        ms.clamp(*DEADLINE_MS.start(), *DEADLINE_MS.end())
    }
}

/// A key or an id that nobody else makes, and nobody can guess: whoever knows a command's key can be told its outcomes.
pub(crate) fn unique() -> String {
    let mut bytes = [0; 16];
    // On a system that gives no randomness an id that could be guessed is still better than two that are the same.
    if getrandom::fill(&mut bytes).is_err() {
        bytes = fastrand::u128(..).to_be_bytes();
    }
    format!("{:032x}", u128::from_be_bytes(bytes))
}

/// What a command's task and its owner say to each other.
pub(crate) type Told = Result<Outcome, Refused>;

/// A command under way. Dropping it ends the interest in it, not the command: it is not sent again then.
#[derive(Debug)]
#[must_use = "a command whose handle is dropped is not sent again after a reconnect"]
pub struct Command {
    pub(crate) id: u64,
    pub(crate) key: String,
    pub(crate) told: mpsc::Receiver<Told>,
    pub(crate) asks: mpsc::Sender<Ask>,
}

impl Command {
    /// What makes a repetition the same command, through whichever edge.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What becomes of it next; after the final outcome or a refusal only [`Refused::Ended`]. May be dropped and called
    /// again without losing anything.
    pub async fn next(&mut self) -> Result<Outcome, Refused> {
        self.told.recv().await.unwrap_or(Err(Refused::Ended))
    }

    /// The final outcome.
    pub async fn outcome(mut self) -> Result<Outcome, Refused> {
        loop {
            let outcome = self.next().await?;
            if outcome.step.is_final {
                return Ok(outcome);
            }
        }
    }

    /// Asks that it be not done. What becomes of that shows in its outcomes: a gateway may have done it already. When the
    /// session is lost before it is known that the command was taken, that is all that is known:
    /// [`Refused::NoOutcome`].
    pub async fn cancel(&self) -> Result<(), Refused> {
        self.asks.send(Ask::Cancel(self.id)).await.map_err(|_| Refused::Ended)
    }
}
