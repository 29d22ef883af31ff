//! Commands as a gateway's application sees them: requests to take, do and answer.

use std::time::Duration;

use riser_core::command::{ResultCode, Said, Word};
use riser_core::{Json, Path};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::memory::RESULT_BYTES;
use crate::clock::Clock;
use crate::frame::Ordered;
use crate::refused::Refused;

/// Commands that wait for the application. More are rejected with the code [`BUSY`]: a person who opens a door does not
/// want to wait behind dozens of others.
pub const REQUESTS: usize = 64;
/// Words of the application that wait for the connection.
pub(super) const WORDS: usize = 64;
/// The code of a command whose time had passed before it was started.
pub const EXPIRED: &str = "expired";
/// The code of a command for which there was no room.
pub const BUSY: &str = "busy";

/// A word without data.
pub(super) fn word(status: Said, code: Option<&str>) -> Word {
    Word { status, code: code.and_then(|code| code.parse().ok()), data: None }
}

/// The commands of a gateway, as they come.
#[derive(Debug)]
pub struct Commands {
    pub(super) requests: mpsc::Receiver<Request>,
    /// One that must not be started, and what is said of it.
    pub(super) turned: Option<(Request, Word)>,
}

impl Commands {
    /// The next command that may be started; none when the gateway has ended. What was cancelled or became too late
    /// while it waited is answered, and not given out. May be dropped and called again without losing anything.
    pub async fn next(&mut self) -> Option<Request> {
        loop {
            if let Some((request, word)) = &self.turned {
                // The gateway has ended when it cannot be said, and the next request says so.
                let _ = request.words.send((request.order.cmd.clone(), word.clone())).await;
                self.turned = None;
            }
            let request = self.requests.recv().await?;
            let word = match (request.is_cancelled(), request.is_late()) {
                (true, _) => word(Said::Cancelled, None),
                (false, true) => word(Said::Rejected, Some(EXPIRED)),
                (false, false) => return Some(request),
            };
            self.turned = Some((request, word));
        }
    }
}

/// A command to be done and answered. Dropping it says nothing: its outcome is then unknown to whoever issued it.
#[derive(Debug)]
#[must_use = "a command that is dropped is never answered"]
pub struct Request {
    pub(super) order: Ordered,
    pub(super) arrived: Instant,
    pub(super) clock: watch::Receiver<Clock>,
    pub(super) cancel: watch::Receiver<bool>,
    pub(super) words: mpsc::Sender<(String, Word)>,
}

impl Request {
    /// With which device or property.
    pub fn path(&self) -> &Path {
        &self.order.path
    }

    /// What is to be done.
    pub fn action(&self) -> &str {
        &self.order.action
    }

    /// How.
    pub fn args(&self) -> Option<&Json> {
        self.order.args.as_ref()
    }

    /// Its name.
    pub fn cmd(&self) -> &str {
        &self.order.cmd
    }

    /// Who issued it: `client:` and its subject.
    pub fn by(&self) -> &str {
        &self.order.by
    }

    /// Whether it must not be started any more. [`Commands::next`] gives out none that is; one that then waits for
    /// something else asks again before it begins.
    pub fn is_late(&self) -> bool {
        self.arrived.elapsed() >= Duration::from_millis(self.order.ttl_ms)
            || self.clock.borrow().now_ms() >= self.order.deadline_at_ms
    }

    /// Whether somebody wants it not to be done.
    pub fn is_cancelled(&self) -> bool {
        *self.cancel.borrow()
    }

    /// Ready when somebody wants it not to be done; never when nobody does.
    pub async fn cancelled(&mut self) {
        if self.cancel.wait_for(|&cancelled| cancelled).await.is_err() {
            // The gateway has ended: nobody is left who could ask.
            std::future::pending::<()>().await;
        }
    }

    /// Says that it is being done, and perhaps how far it is.
    pub async fn running(&self, data: Option<Json>) -> Result<(), Refused> {
        self.say(Said::Running, None, data).await
    }

    /// It was done.
    pub async fn succeed(self, data: Option<Json>) -> Result<(), Refused> {
        self.say(Said::Succeeded, None, data).await
    }

    /// It was tried and failed; the code says why, in 1 to 64 bytes.
    pub async fn fail(self, code: &str, data: Option<Json>) -> Result<(), Refused> {
        self.say(Said::Failed, Some(code), data).await
    }

    /// It is not done; the code says why, in 1 to 64 bytes.
    pub async fn reject(self, code: &str, data: Option<Json>) -> Result<(), Refused> {
        self.say(Said::Rejected, Some(code), data).await
    }

    /// It was stopped because somebody wanted that.
    pub async fn stop(self) -> Result<(), Refused> {
        self.say(Said::Cancelled, None, None).await
    }

    async fn say(&self, status: Said, code: Option<&str>, data: Option<Json>) -> Result<(), Refused> {
        if data.as_ref().is_some_and(|data| data.as_str().len() > RESULT_BYTES) {
            return Err(Refused::TooMany(format!("the data of a result is over {RESULT_BYTES} bytes")));
        }
        let code: Option<ResultCode> = match code.map(str::parse) {
            Some(Ok(code)) => Some(code),
            Some(Err(error)) => return Err(Refused::TooMany(riser_core::command::CommandTextError::to_string(&error))),
            None => None,
        };
        let word = Word { status, code, data };
        self.words.send((self.order.cmd.clone(), word)).await.map_err(|_| Refused::Ended)
    }
}
