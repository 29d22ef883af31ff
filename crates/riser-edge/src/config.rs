//! An edge's settings. Each bound has its unit and the reason for its value.

use std::time::Duration;

use riser_core::tenant::HashKey;
use riser_core::{AddressRange, EdgeId};

/// How an edge behaves. [`EdgeConfig::new`] gives values that suit a cluster of any size.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// The edge's name, its own within the cluster.
    pub id: EdgeId,
    /// Between two pings to a peer. A peer from which nothing came for two of them is gone.
    pub heartbeat: Duration,
    /// How long `hello` may take after the upgrade, and the first request after the connection.
    pub hello: Duration,
    /// How long writing the answers to an HTTP client may take until all of them are with the kernel. A state of a
    /// megabyte gets through 300 kbit/s in it; who reads nothing gives its place among the handshakes back.
    pub exchange: Duration,
    /// For how long the registry holds this edge's lease without a word. With [`EdgeConfig::sweep`] it is what a dead edge's
    /// gateways wait before they are marked offline: 15 s are promised.
    pub lease: Duration,
    /// Between two renewals of the lease: four tries before it ends.
    pub renew: Duration,
    /// Between two looks for ended leases.
    pub sweep: Duration,
    /// Between two audits of this edge's own gateways: what a lost take-over notice or an emptied registry costs.
    pub audit: Duration,
    /// Between two comparisons of mirrors with the store: what a lost message costs.
    pub compare: Duration,
    /// Between two reports of what tenants use, which the registry keeps for who wants to see it; none where nobody does.
    pub usage: Option<Duration>,
    /// Between two rounds in which it is noted when gateways' tokens end. A note waits for one to two of them: far longer than
    /// it takes until this edge knows of a device that was replaced meanwhile.
    pub note_tokens: Duration,
    /// How long one call of the registry may take before it counts as unanswered.
    pub call: Duration,
    /// For how long a gateway's answer may wait for the store before it is told `unavailable`.
    pub answer: Duration,
    /// Over how long a draining edge spreads its closes.
    pub drain_window: Duration,
    /// The kernel's send buffer per socket, in bytes. Small, so that a slow reader is seen before megabytes lie in
    /// the kernel; at 100 ms of round trip it still carries 300 KiB/s.
    pub send_buffer: usize,
    /// Bytes that may wait in a connection's own queue before its state conflates.
    pub conflate_above: usize,
    /// How long a client that reads nothing may stay, when the socket cannot take a ping for it.
    pub slow: Duration,
    /// Connections whose session has not begun, in all. Each costs a socket and a few hundred bytes.
    pub handshakes: usize,
    /// The secret that API keys are hashed with. Without one, those are known by their plain hashes alone.
    pub hash_key: Option<HashKey>,
    /// Of these, most from one address (of IPv6: one site, the first 64 bits) and most of one tenant: half, so that the
    /// storm of one leaves room for the others.
    pub handshakes_each: usize,
    /// Gateways that the registry is asked to let in at once. Enough to keep it busy, and few enough that who comes
    /// while a tenant storms waits some milliseconds. As many as [`EdgeConfig::handshakes`] wait for their turn.
    pub openings: usize,
    /// Proxies that are believed when they say for whom they ask.
    pub trusted_proxies: Vec<AddressRange>,
    /// Seeds what is random here: session names and jitter. Tokens and keys do not come from it.
    pub seed: u64,
}

impl EdgeConfig {
    /// The settings that suit most.
    pub fn new(id: EdgeId) -> Self {
        Self {
            id,
            heartbeat: Duration::from_secs(20),
            hello: Duration::from_secs(5),
            exchange: Duration::from_secs(30),
            lease: Duration::from_secs(8),
            renew: Duration::from_secs(2),
            sweep: Duration::from_secs(1),
            audit: Duration::from_secs(5),
            compare: Duration::from_secs(10),
            usage: Some(Duration::from_secs(10)),
            note_tokens: Duration::from_secs(10),
            call: Duration::from_secs(2),
            answer: Duration::from_secs(5),
            drain_window: Duration::from_secs(30),
            send_buffer: 32 * 1024,
            conflate_above: 32 * 1024,
            slow: Duration::from_secs(300),
            handshakes: 4_096,
            hash_key: None,
            handshakes_each: 2_048,
            openings: 256,
            trusted_proxies: Vec::new(),
            seed: fastrand::u64(..),
        }
    }

    /// How long gateways of a drained edge stay online while they move.
    pub(crate) fn moving(&self) -> Duration {
        self.drain_window + Duration::from_secs(15)
    }
}
