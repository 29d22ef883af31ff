//! Why a connection ended or never began, and what the protocol says to do then.

use riser_core::close::ComeBack;
use serde::Deserialize;

/// The end of a connection, or of an attempt at one. Texts of the other side are escaped when it is shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// Nobody answered there, or not in time.
    #[error("cannot reach {to}: {why}")]
    Unreachable {
        /// Host and port.
        to: String,
        /// What the system said.
        why: String,
    },
    /// An HTTP answer other than the one hoped for.
    #[error("refused with status {status}: {detail:?}")]
    Refused {
        /// The status.
        status: u16,
        /// The code of a problem document (protocol.md §8), when there was one.
        code: Option<String>,
        /// What the problem document says, cut to 512 bytes.
        detail: String,
        /// When to try again, in milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// The other side closed the session.
    #[error("closed with code {code} {reason:?}")]
    Closed {
        /// The close code; 1005 when there was none.
        code: u16,
        /// The reason as it came.
        reason: String,
        /// When to come back, in milliseconds, from the reason's JSON.
        retry_after_ms: Option<u64>,
    },
    /// The connection broke, or what came was not the protocol.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// Nothing came, or nothing could be sent, for 2.5 heartbeats.
    #[error("nothing came for {0} ms")]
    Silent(u64),
    /// Closed by its owner.
    #[error("left")]
    Left,
}

impl End {
    /// A close frame's code and reason.
    pub(crate) fn closed(code: Option<u16>, reason: String) -> Self {
        #[derive(Deserialize)]
        struct Wait {
            retry_after_ms: u64,
        }
        let retry_after_ms = serde_json::from_str::<Wait>(&reason).ok().map(|wait| wait.retry_after_ms);
        Self::Closed { code: code.unwrap_or(1005), reason, retry_after_ms }
    }

    /// What protocol.md §8 says to do.
    pub fn come_back(&self) -> ComeBack {
        match self {
            Self::Closed { code, .. } => ComeBack::after(Some(*code)),
            Self::Refused { status: 401, .. } => ComeBack::WithAnotherCredential,
            Self::Refused { status: 408 | 429 | 500..=599, .. }
            | Self::Unreachable { .. }
            | Self::Broken(_)
            | Self::Silent(_) => ComeBack::Soon,
            Self::Refused { .. } | Self::Left => ComeBack::Never,
        }
    }

    /// The time that the other side asked to be left alone for, in milliseconds.
    pub fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Closed { retry_after_ms, .. } | Self::Refused { retry_after_ms, .. } => *retry_after_ms,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_close_may_name_a_time() {
        let end = End::closed(Some(4003), r#"{"retry_after_ms":1500}"#.into());
        assert_eq!((end.come_back(), end.retry_after_ms()), (ComeBack::Soon, Some(1500)));
        assert_eq!(End::closed(Some(4003), "slow down".into()).retry_after_ms(), None);
        assert_eq!(End::closed(Some(4003), r#"{"retry_after_ms":-1}"#.into()).retry_after_ms(), None);
    }

    #[test]
    fn who_comes_back_after_what() {
        let refused =
            |status| End::Refused { status, code: None, detail: String::new(), retry_after_ms: None }.come_back();
        assert_eq!(refused(400), ComeBack::Never);
        assert_eq!(refused(401), ComeBack::WithAnotherCredential);
        assert_eq!(refused(403), ComeBack::Never);
        assert_eq!(refused(429), ComeBack::Soon);
        assert_eq!(refused(503), ComeBack::Soon);
        assert_eq!(End::closed(None, String::new()).come_back(), ComeBack::Soon);
        assert_eq!(End::closed(Some(4006), String::new()).come_back(), ComeBack::After(60_000));
        assert_eq!(End::Silent(5).come_back(), ComeBack::Soon);
        assert_eq!(End::Left.come_back(), ComeBack::Never);
    }

    #[test]
    fn a_hostile_reason_is_shown_escaped() {
        let shown = End::closed(Some(4500), "\u{1b}[2J\r\n".into()).to_string();
        assert!(!shown.chars().any(char::is_control), "{shown}");
    }
}
