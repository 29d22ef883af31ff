//! What a server says of itself, for whoever looks after it.

use redis::Value;

use super::link::Call;
use super::replies::{bytes, pairs, time_ms};
use super::sessions::lease;
use super::{RedisRegistry, keys};
use crate::{Lease, RegistryError};

/// How a server runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerInfo {
    /// Where it is reached.
    pub server: String,
    /// Its version.
    pub version: String,
    /// Its clock, in Unix milliseconds; 0 when it does not say.
    pub now_ms: u64,
    /// Whether it is the master; an edge leaves one that is not.
    pub is_master: bool,
    /// Replicas that follow it.
    pub replicas: u64,
    /// Bytes that it may use; 0 when there is no limit.
    pub max_memory: u64,
    /// What it does at that limit. Only `noeviction` forgets nothing.
    pub max_memory_policy: String,
    /// Whether it writes an append-only file.
    pub append_only: bool,
    /// Whether its last write to disk failed.
    pub disk_failed: bool,
    /// When it writes snapshots, in its own words: empty when it does not, none when the user may not ask.
    pub snapshots: Option<String>,
}

/// The lease of an edge, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Which.
    pub lease: Lease,
    /// When it ends, or ended, Unix milliseconds on Redis' clock; 0 when it is known from a session only.
    pub ends_at_ms: u64,
    /// Whether its edge is going away.
    pub drained: bool,
    /// Whether it has ended, and its gateways were not all marked offline yet.
    pub ended: bool,
}

impl RedisRegistry {
    /// The leases that there are. One that ended is there until its gateways are offline.
    pub async fn leases(&self) -> Result<Vec<LeaseInfo>, RegistryError> {
        let call = Call::new().command("TIME", None, &[]).command("HGETALL", Some(keys::leases()), &[]);
        let mut replies = self.link.run(call).await?.into_iter();
        let now_ms = replies.next().and_then(time_ms).ok_or_else(|| self.link.strange("the clock"))?;
        let leases = replies.next().and_then(pairs).ok_or_else(|| self.link.strange("the leases"))?;
        let read = |(name, text): (Vec<u8>, Vec<u8>)| {
            let text = String::from_utf8(text).ok()?;
            let [ends, drained, ended] = text.split(' ').collect::<Vec<_>>().try_into().ok()?;
            let ends_at_ms: u64 = ends.parse().ok()?;
            let ended = ended == "1" || ends_at_ms > 0 && ends_at_ms <= now_ms;
            Some(LeaseInfo { lease: lease(&name)?, ends_at_ms, drained: drained == "1", ended })
        };
        let mut leases: Vec<_> = leases.into_iter().filter_map(read).collect();
        leases.sort_by(|a, b| a.lease.cmp(&b.lease));
        Ok(leases)
    }

    /// The version of the server that it is connected to now; none when it is to none.
    pub fn server_version(&self) -> Option<String> {
        self.link.server().map(|(_, version)| version.to_string())
    }

    /// Asks the server how it runs. The user must be allowed `INFO`.
    pub async fn server_info(&self) -> Result<ServerInfo, RegistryError> {
        let replies = self.link.run(Call::new().command("INFO", None, &[])).await?;
        let text = replies.into_iter().next().and_then(bytes).and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.ok_or_else(|| self.link.strange("what the server says of itself"))?;
        let says = |what: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
            line.unwrap_or_default().trim().to_owned()
        };
        let number = |what| says(what).parse().unwrap_or(0);
        let (server, version) = self.link.server().ok_or(RegistryError::Unavailable)?;
        Ok(ServerInfo {
            server: server.to_string(),
            version: version.to_string(),
            now_ms: number("server_time_usec") / 1_000,
            is_master: says("role") == "master",
            replicas: number("connected_slaves"),
            max_memory: number("maxmemory"),
            max_memory_policy: says("maxmemory_policy"),
            append_only: says("aof_enabled") == "1",
            disk_failed: says("aof_last_write_status") == "err" || says("rdb_last_bgsave_status") == "err",
            snapshots: self.snapshots().await,
        })
    }

    async fn snapshots(&self) -> Option<String> {
        let replies = self.link.run(Call::new().command("CONFIG", None, &[b"GET", b"save"])).await.ok()?;
        let (_, save) = replies.into_iter().next().and_then(|value: Value| pairs(value))?.into_iter().next()?;
        String::from_utf8(save).ok()
    }
}
