//! Presence: whether a gateway is connected, since when, and why it last changed.

use serde::{Deserialize, Serialize};

use crate::id::EdgeId;
use crate::version::Epoch;

/// Why presence changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The gateway closed its session.
    Closed,
    /// Nothing came from it for two heartbeats.
    Heartbeat,
    /// Its connection broke, or it broke the protocol.
    Error,
    /// Its edge died.
    EdgeLost,
    /// Its edge was drained and it did not come back in time.
    EdgeDrained,
    /// Its credential was revoked.
    Revoked,
    /// An operator closed its session.
    Kicked,
    /// A newer session of the same gateway replaced an older one; it stayed online.
    Takeover,
}

impl Reason {
    /// The word on the wire and in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Heartbeat => "heartbeat",
            Self::Error => "error",
            Self::EdgeLost => "edge_lost",
            Self::EdgeDrained => "edge_drained",
            Self::Revoked => "revoked",
            Self::Kicked => "kicked",
            Self::Takeover => "takeover",
        }
    }
}

/// What is known of a gateway's session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Whether a session holds it.
    pub online: bool,
    /// When it came online or went offline, Unix milliseconds on the registry's clock. A takeover keeps it.
    pub since_ms: u64,
    /// The epoch of the last session.
    pub epoch: Epoch,
    /// Why it last changed; none for a plain arrival.
    pub reason: Option<Reason>,
    /// The edge that holds it; none when it is offline.
    pub edge: Option<EdgeId>,
}
