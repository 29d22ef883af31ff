//! Why something that was asked for was not done.

use std::time::Duration;

use crate::frame::Refusal;

/// After a refusal that names no time: when the same is sent again.
pub(crate) const AGAIN: Duration = Duration::from_secs(1);
/// The longest time until the same is sent again, whatever the refusal says.
pub(crate) const AGAIN_MOST: Duration = Duration::from_secs(60);

/// Why something that was asked for was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Over a limit of how many or how large; found here, and not sent.
    #[error("{0}")]
    TooMany(String),
    /// The server refused it.
    #[error("{code:?}: {message:?}")]
    ByServer {
        /// The code (protocol.md §8).
        code: String,
        /// What the server said.
        message: String,
    },
    /// More wait for an answer than can be kept.
    #[error("too many wait for an answer already")]
    Busy,
    /// There is no session now, or it ended before the answer; this is not sent again by itself.
    #[error("there is no session for it")]
    Lost,
    /// A command that was never sent: its deadline passed, or it was cancelled, before there was a session.
    #[error("it was never sent")]
    Unsent,
    /// A command that was sent, and whose outcome never came: it may or may not have been done.
    #[error("its outcome did not come")]
    NoOutcome,
    /// The session ended in a way that forbids coming back.
    #[error("the session has ended for good")]
    Ended,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::ByServer { code: refusal.code, message: refusal.message }
    }
}

impl Refusal {
    /// In how long the same may be sent again; none when that would not help.
    pub(crate) fn again(&self) -> Option<Duration> {
        let later = matches!(self.code.as_str(), "unavailable" | "rate_limited" | "internal");
        later.then(|| self.retry_after_ms.map_or(AGAIN, Duration::from_millis).min(AGAIN_MOST))
    }
}
