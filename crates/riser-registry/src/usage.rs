//! What tenants use of each edge, as edges tell the registry for whoever wants to see it. Nothing is decided by it.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// What a tenant uses of one edge, or of several. Rates are those of the time since the edge told before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Gateways that are connected.
    pub gateway_sessions: u64,
    /// Clients that are connected.
    pub client_sessions: u64,
    /// Subscriptions of all its sessions, those of gateways included.
    pub subscriptions: u64,
    /// Messages received in a second.
    pub frames_per_s: u64,
    /// Bytes received in a second.
    pub bytes_per_s: u64,
    /// Milliseconds of processor time in a second.
    pub busy_ms_per_s: u64,
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.gateway_sessions += other.gateway_sessions;
        self.client_sessions += other.client_sessions;
        self.subscriptions += other.subscriptions;
        self.frames_per_s += other.frames_per_s;
        self.bytes_per_s += other.bytes_per_s;
        self.busy_ms_per_s += other.busy_ms_per_s;
    }
}
