//! Quotas: what one tenant may use of the whole cluster.

/// The largest value of a quota: what every JSON parser keeps exactly.
pub const QUOTA_MAX: u64 = crate::frame::MAX_N;

/// Something that a tenant may use so much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quota {
    /// Gateways' sessions.
    GatewaySessions,
    /// Clients' sessions.
    ClientSessions,
    /// Messages received from all sessions.
    FramesPerS,
    /// Bytes received from all sessions.
    BytesPerS,
    /// Messages received from one session.
    SessionFramesPerS,
    /// Bytes received from one session.
    SessionBytesPerS,
    /// Subscriptions of all sessions.
    Subscriptions,
    /// Commands that wait for gateways which are away, counted with those that are under way.
    HeldCommands,
    /// Calls of the HTTP API.
    ApiCallsPerS,
}

/// Whose use is counted, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// All edges together: each gets its share of it.
    Shared,
    /// Each session for itself.
    Session,
    /// One place that all edges ask.
    Stored,
}

/// A quota as people see it.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// Which.
    pub quota: Quota,
    /// Its name in documents, on the command line and as a label of metrics.
    pub name: &'static str,
    /// What is counted.
    pub unit: &'static str,
    /// Who shares it.
    pub sharing: Sharing,
    /// For people.
    pub doc: &'static str,
}

const fn about(quota: Quota, name: &'static str, unit: &'static str, sharing: Sharing, doc: &'static str) -> About {
    About { quota, name, unit, sharing, doc }
}

/// Every quota, once, in the order of [`Quota`].
pub const QUOTAS: [About; 9] = [
    about(
        Quota::GatewaySessions,
        "gateway_sessions",
        "sessions",
        Sharing::Shared,
        "Gateways that may be connected at a time.",
    ),
    about(
        Quota::ClientSessions,
        "client_sessions",
        "sessions",
        Sharing::Shared,
        "Clients that may be connected at a time.",
    ),
    about(Quota::FramesPerS, "frames_per_s", "frames/s", Sharing::Shared, "Messages from all its sessions together."),
    about(
        Quota::BytesPerS,
        "bytes_per_s",
        "bytes/s",
        Sharing::Shared,
        "Bytes of messages from all its sessions together.",
    ),
    about(Quota::SessionFramesPerS, "session_frames_per_s", "frames/s", Sharing::Session, "Messages from one session."),
    about(
        Quota::SessionBytesPerS,
        "session_bytes_per_s",
        "bytes/s",
        Sharing::Session,
        "Bytes of messages from one session.",
    ),
    about(
        Quota::Subscriptions,
        "subscriptions",
        "subscriptions",
        Sharing::Shared,
        "Subscriptions of all its sessions together.",
    ),
    about(
        Quota::HeldCommands,
        "held_commands",
        "commands",
        Sharing::Stored,
        "Commands that may wait for gateways which are away; those that are under way count, too.",
    ),
    about(Quota::ApiCallsPerS, "api_calls_per_s", "calls/s", Sharing::Shared, "Calls of the HTTP API."),
];

impl Quota {
    /// How many there are.
    pub const COUNT: usize = QUOTAS.len();

    /// All about it.
    pub fn about(self) -> &'static About {
        &QUOTAS[self as usize]
    }

    /// Its name in documents, on the command line and as a label of metrics.
    pub fn name(self) -> &'static str {
        self.about().name
    }

    /// The quota of this name.
    pub fn named(name: &str) -> Option<Self> {
        QUOTAS.iter().find(|about| about.name == name).map(|about| about.quota)
    }
}

/// What a tenant may use. Where nothing is said there is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quotas([Option<u64>; Quota::COUNT]);

impl Quotas {
    /// No limits.
    pub const NONE: Quotas = Quotas([None; Quota::COUNT]);

    /// The limit, if there is one.
    pub fn get(&self, quota: Quota) -> Option<u64> {
        self.0[quota as usize]
    }

    /// Sets or takes away a limit. What is above [`QUOTA_MAX`] is that much, and zero is one: a tenant that may do nothing
    /// is suspended.
    pub fn set(&mut self, quota: Quota, limit: Option<u64>) {
        self.0[quota as usize] = limit.map(|limit| limit.clamp(1, QUOTA_MAX));
    }

    /// The same with one limit more.
    #[must_use]
    pub fn with(mut self, quota: Quota, limit: u64) -> Self {
        self.set(quota, Some(limit));
        self
    }

    /// All limits there are, in the order of [`QUOTAS`].
    pub fn iter(&self) -> impl Iterator<Item = (Quota, u64)> + '_ {
        QUOTAS.iter().filter_map(|about| Some((about.quota, self.get(about.quota)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_quotas_is_in_order_and_each_name_is_there_once() {
        for (at, about) in QUOTAS.iter().enumerate() {
            assert_eq!(about.quota as usize, at);
            assert_eq!(Quota::named(about.name), Some(about.quota));
        }
        assert_eq!(Quota::named("frames"), None);
    }
}
