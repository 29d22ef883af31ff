//! Limits that `welcome` tells every peer, and that stores and edges enforce alike.

use serde::{Deserialize, Serialize};

/// What one session or gateway may use at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Largest text message, in bytes over all its fragments.
    pub text_bytes: usize,
    /// Largest binary message, in bytes over all its fragments.
    pub binary_bytes: usize,
    /// Subscriptions of one session.
    pub subscriptions: usize,
    /// Paths with a value of one gateway.
    pub paths: usize,
    /// All values of one gateway, in bytes of their paths and JSON texts.
    pub state_bytes: usize,
    /// How long an event's `id` is remembered, in milliseconds.
    pub event_dedup_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            text_bytes: 65_536,
            binary_bytes: 16_384,
            subscriptions: 256,
            paths: 2_048,
            state_bytes: 262_144,
            event_dedup_ms: 120_000,
        }
    }
}
