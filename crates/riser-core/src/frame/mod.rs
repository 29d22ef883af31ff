//! Frames: what peers send and what they are sent, one JSON object in each text message.
//!
//! [`inbound`] parses what comes in, [`outbound`] writes what goes out. The tenant is in neither: it comes from
//! the credential alone.

pub mod fields;
pub mod inbound;
pub mod outbound;

use std::fmt;

pub use inbound::{Broken, Inbound, NewCommand, NewEvent, Refused};

/// The largest `n`: integers up to it survive every JSON parser.
pub const MAX_N: u64 = (1 << 53) - 1;

/// The number a sender gave its frame, 0 to [`MAX_N`], to be answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct N(u64);

impl N {
    /// The number, when it is in range.
    pub fn new(n: u64) -> Option<Self> {
        (n <= MAX_N).then_some(Self(n))
    }

    /// The number on the wire.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// What a subscription is about.
#[expect(clippy::struct_excessive_bools, reason = "a set of four lanes is clearest as four flags")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lanes {
    /// Last values.
    pub state: bool,
    /// Stored events.
    pub event: bool,
    /// Connected or not.
    pub presence: bool,
    /// Live streams.
    pub live: bool,
}

impl Lanes {
    /// Whether a subscription to these lanes gets snapshots.
    pub fn wants_snapshots(self) -> bool {
        self.state || self.presence
    }

    /// What either of them is about.
    #[must_use]
    pub fn union(self, other: Lanes) -> Lanes {
        Lanes {
            state: self.state || other.state,
            event: self.event || other.event,
            presence: self.presence || other.presence,
            live: self.live || other.live,
        }
    }
}

/// A credential on its way to be verified. It never shows in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential(String);

impl Credential {
    /// Wraps what came in.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The credential itself, to be verified or sent.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}
