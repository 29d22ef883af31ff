//! Why a session ends, and what a refused frame is told: the closed lists of protocol.md §8.

use serde::{Deserialize, Serialize};

/// The end of a session, as the close code that the peer sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CloseCode {
    /// A clean end asked for by the peer.
    Normal = 1000,
    /// The frame layer was broken (RFC 6455 §7.4.1).
    WsProtocol = 1002,
    /// Text that is not UTF-8.
    WsUtf8 = 1007,
    /// A message over the limit.
    WsTooBig = 1009,
    /// The edge is going away.
    Drain = 4000,
    /// Nothing came for two heartbeats.
    Heartbeat = 4001,
    /// The peer reads too slowly.
    TooSlow = 4002,
    /// Over a limit.
    OverLimit = 4003,
    /// Something broke here.
    Internal = 4004,
    /// No `hello` in time.
    NoHello = 4005,
    /// A newer session of the same gateway took over.
    TakenOver = 4006,
    /// The peer broke the protocol.
    Protocol = 4500,
    /// The credential is invalid or expired.
    BadCredential = 4501,
    /// Not allowed, or the tenant is suspended.
    NotAllowed = 4502,
    /// The credential was revoked.
    Revoked = 4504,
}

impl CloseCode {
    /// Every code that an edge gives.
    pub const ALL: [CloseCode; 15] = [
        Self::Normal,
        Self::WsProtocol,
        Self::WsUtf8,
        Self::WsTooBig,
        Self::Drain,
        Self::Heartbeat,
        Self::TooSlow,
        Self::OverLimit,
        Self::Internal,
        Self::NoHello,
        Self::TakenOver,
        Self::Protocol,
        Self::BadCredential,
        Self::NotAllowed,
        Self::Revoked,
    ];

    /// The number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The code of a number, when an edge gives it.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }
}

/// What to do after a session ended with a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComeBack {
    /// With full jitter, not before `retry_after_ms` when the reason names it.
    Soon,
    /// Not before this many milliseconds.
    After(u64),
    /// Only with another credential.
    WithAnotherCredential,
    /// Not by itself.
    Never,
}

impl ComeBack {
    /// What protocol.md §8 says of a close code; none stands for a connection that broke without one.
    pub fn after(code: Option<u16>) -> Self {
        match code {
            Some(1002 | 1007 | 1009 | 4006) => Self::After(60_000),
            Some(4501) => Self::WithAnotherCredential,
            Some(4500..=4999) => Self::Never,
            _ => Self::Soon,
        }
    }
}

/// Why a frame or a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// No such frame.
    UnknownType,
    /// A field that must be understood is not.
    Unsupported,
    /// A frame of a known type with something wrong in it.
    BadFrame,
    /// The credential does not allow it.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// It contradicts what is there.
    Conflict,
    /// No more is held.
    QueueFull,
    /// Over a limit of how many or how much.
    TooMany,
    /// Too fast.
    RateLimited,
    /// A backing service did not answer: it may or may not have been accepted.
    Unavailable,
    /// Something broke here.
    Internal,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [ErrorCode; 11] = [
        Self::UnknownType,
        Self::Unsupported,
        Self::BadFrame,
        Self::Forbidden,
        Self::NotFound,
        Self::Conflict,
        Self::QueueFull,
        Self::TooMany,
        Self::RateLimited,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The word on the wire and in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownType => "unknown_type",
            Self::Unsupported => "unsupported",
            Self::BadFrame => "bad_frame",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::QueueFull => "queue_full",
            Self::TooMany => "too_many",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_number() {
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_number(code.number()), Some(code));
        }
        assert_eq!(CloseCode::from_number(4999), None);
    }

    #[test]
    fn who_comes_back_and_when() {
        assert_eq!(ComeBack::after(None), ComeBack::Soon);
        assert_eq!(ComeBack::after(Some(1011)), ComeBack::Soon);
        assert_eq!(ComeBack::after(Some(4000)), ComeBack::Soon);
        assert_eq!(ComeBack::after(Some(4006)), ComeBack::After(60_000));
        assert_eq!(ComeBack::after(Some(1009)), ComeBack::After(60_000));
        assert_eq!(ComeBack::after(Some(4501)), ComeBack::WithAnotherCredential);
        assert_eq!(ComeBack::after(Some(4504)), ComeBack::Never);
    }
}
