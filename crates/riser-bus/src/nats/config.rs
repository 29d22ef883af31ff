//! How NATS is reached, and how much its streams keep.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How NATS is reached.
#[derive(Debug, Clone)]
pub struct NatsConfig {
    /// Servers of one cluster, `nats://host:port` or `tls://host:port`. One that answers is enough; it names the others.
    /// One with `tls` requires it of all of them. Credentials do not belong here: URLs are logged.
    pub urls: Vec<String>,
    /// What the servers call this connection in their own logs and monitoring: the edge's name.
    pub name: String,
    /// Who this process is.
    pub auth: NatsAuth,
    /// The only certificates that a server's may be signed with, in PEM. Without it those of the machine are trusted; with
    /// it TLS is required.
    pub tls_root: Option<PathBuf>,
    /// The certificate that this process shows to the servers, and its key, in PEM. With it TLS is required.
    pub tls_identity: Option<(PathBuf, PathBuf)>,
}

impl NatsConfig {
    /// Reaches these servers without credentials.
    pub fn new(urls: Vec<String>, name: impl Into<String>) -> Self {
        Self { urls, name: name.into(), auth: NatsAuth::Nobody, tls_root: None, tls_identity: None }
    }
}

/// Who a process is to NATS.
#[derive(Clone)]
pub enum NatsAuth {
    /// The servers ask for nothing.
    Nobody,
    /// A user of the servers' own configuration.
    User {
        /// Its name.
        user: String,
        /// Its password.
        password: String,
    },
    /// A token that all who may connect share.
    Token(String),
    /// A file with a user's JWT and key, as NATS' own tools write it.
    CredsFile(PathBuf),
}

impl fmt::Debug for NatsAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::User { .. } => "User",
            Self::Token(_) => "Token",
            Self::CredsFile(_) => "CredsFile",
        })
    }
}

/// How the streams of events are kept, of tenants that say nothing of their own ([`super::NatsLog::of_tenants`]). A stream follows
/// when an edge with other settings first stores in it.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Servers that keep a copy of each event: 1, or 3 of a cluster, so that one may die.
    pub replicas: usize,
    /// How old an event becomes. No deduplication window is longer.
    pub max_age: Duration,
    /// Bytes that the events of one tenant take at most, in each copy. The edges see to it: JetStream's own limit would set
    /// that much aside for every tenant, and refuse the first event of one for whom that is not left. Each edge looks after
    /// every sixteenth that it wrote itself, so that a stream may be larger by as many sixteenths as there are edges.
    pub max_bytes: u64,
    /// Most events of one tenant.
    pub max_events: u64,
}

impl Default for LogConfig {
    /// A week of a thousand homes that ring every ten minutes, in three copies.
    fn default() -> Self {
        Self { replicas: 3, max_age: Duration::from_secs(7 * 24 * 3_600), max_bytes: 512 << 20, max_events: 1_000_000 }
    }
}

/// How the buckets are kept. A bucket follows when an edge with other settings first writes into it.
#[derive(Debug, Clone)]
pub struct KvConfig {
    /// Servers that keep a copy of each entry, as [`LogConfig::replicas`].
    pub replicas: usize,
    /// Bytes that the records of held commands take at most, in each copy. JetStream sets them aside when the bucket is made.
    pub held_bytes: u64,
    /// The same of the tenant table.
    pub tenants_bytes: u64,
    /// The same of the flats that are registered.
    pub flats_bytes: u64,
}

impl Default for KvConfig {
    /// Some hundred thousand held commands of a usual size and some ten thousand tenants, in three copies.
    fn default() -> Self {
        Self { replicas: 3, held_bytes: 256 << 20, tenants_bytes: 64 << 20, flats_bytes: 64 << 20 }
    }
}

/// How the ledger is kept. Its stream follows when an edge with other settings first writes into it.
#[derive(Debug, Clone)]
pub struct LedgerConfig {
    /// Servers that keep a copy of each entry, as [`LogConfig::replicas`].
    pub replicas: usize,
    /// How old an entry becomes.
    pub max_age: Duration,
    /// Bytes that the entries of all tenants take at most, in each copy; beyond it the oldest go. JetStream sets them aside when
    /// the stream is made.
    pub max_bytes: u64,
}
