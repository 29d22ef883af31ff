//! The configuration of an edge: read whole before anything else is done, and refused in one line that names the option
//! and where it was set.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use riser_bus::nats::{KvConfig, LedgerConfig, LogConfig, NatsConfig};
use riser_core::EdgeId;
use riser_edge::EdgeConfig;
use riser_ops::logs::Format;
use riser_registry::redis::RedisConfig;

pub(crate) use riser_config::{ConfigError, Reader, Sources, TlsFiles, default_file, read_file};

use crate::exit::Failure;

/// How much longer than its window a drain may take: what ends then is told to Redis and NATS.
const AFTER_WINDOW: Duration = Duration::from_secs(15);

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Bad(text) => Self::Usage(text),
            ConfigError::Unreadable(text) => Self::Unavailable(text),
        }
    }
}

/// Everything that an edge is started with. It holds secrets, and is not shown.
pub(crate) struct Settings {
    pub(crate) edge: EdgeConfig,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// How long a drain may take in all.
    pub(crate) grace: Duration,
    pub(crate) tls: Option<TlsFiles>,
    /// What is shown to NATS and Redis, if anything.
    pub(crate) shown: Vec<TlsFiles>,
    pub(crate) nats: NatsConfig,
    /// Where NATS' servers tell how they run.
    pub(crate) monitors: Vec<String>,
    pub(crate) events: LogConfig,
    pub(crate) ledger: LedgerConfig,
    pub(crate) redis: RedisConfig,
    /// Where the tenants come from.
    pub(crate) tenants: TenantsFrom,
    pub(crate) kv: KvConfig,
    pub(crate) log: (Format, String),
}

/// Where an edge has its tenants from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TenantsFrom {
    File(PathBuf),
    /// The bucket that the control plane writes.
    Bucket,
}

impl Settings {
    /// Puts the sources together and reads the secrets that they name. Nothing is connected to.
    pub(crate) fn read(sources: &Sources) -> Result<Self, ConfigError> {
        let values = sources.values()?;
        let reader = Reader { values: &values, folder: sources.folder() };
        let (edge, grace) = edge(&reader, &sources.machine)?;
        Ok(Self {
            listen: reader.address("edge", "listen")?,
            admin: reader.address("admin", "listen")?,
            grace,
            tls: riser_config::tls(&reader, "tls")?,
            shown: riser_config::shown(&reader)?,
            nats: riser_config::nats(&reader, edge.id.as_str())?,
            monitors: riser_config::monitors(&reader)?,
            events: riser_config::events(&reader)?,
            kv: riser_config::kv(&reader)?,
            ledger: riser_config::ledger(&reader)?,
            redis: riser_config::redis(&reader)?,
            tenants: tenants(&reader)?,
            log: riser_config::log(&reader)?,
            edge,
        })
    }
}

fn tenants(reader: &Reader<'_>) -> Result<TenantsFrom, ConfigError> {
    let source = reader.text("tenants", "source")?;
    match source.text() {
        "file" => Ok(TenantsFrom::File(reader.file("tenants", "file")?.unwrap_or_default())),
        "kv" => Ok(TenantsFrom::Bucket),
        _ => Err(source.bad("file or kv is needed")),
    }
}

fn edge(reader: &Reader<'_>, machine: &str) -> Result<(EdgeConfig, Duration), ConfigError> {
    let (ms, s, m) = (Duration::from_millis, Duration::from_secs, |m: u64| Duration::from_secs(60 * m));
    let bytes = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let handshakes = bytes(reader.number("edge", "handshakes", 1..=1_000_000)?);
    let each = reader.given("edge", "handshakes_each");
    let each = each.map(|_| reader.number("edge", "handshakes_each", 1..=1_000_000)).transpose()?;
    let config = EdgeConfig {
        heartbeat: reader.time("edge", "heartbeat", ms(100)..=m(10))?,
        hello: reader.time("edge", "hello", s(1)..=m(1))?,
        handshakes,
        handshakes_each: each.map_or(handshakes.div_ceil(2), bytes),
        openings: bytes(reader.number("edge", "openings", 1..=100_000)?),
        trusted_proxies: reader.ranges("edge", "trusted_proxies")?,
        send_buffer: bytes(reader.size("edge", "send_buffer", 4 << 10..=4 << 20)?),
        conflate_above: bytes(reader.size("edge", "conflate_above", 1 << 10..=1 << 20)?),
        slow: reader.time("edge", "slow", s(10)..=m(60))?,
        drain_window: reader.time("edge", "drain_window", s(0)..=m(10))?,
        hash_key: riser_config::hash_key(reader)?,
        ..EdgeConfig::new(edge_id(reader, machine)?)
    };
    let grace = reader.time("edge", "grace", AFTER_WINDOW..=m(20))?;
    if grace < config.drain_window + AFTER_WINDOW {
        let given = reader.text("edge", "grace")?;
        return Err(given.bad("it must be at least 15s more than edge.drain_window"));
    }
    Ok((config, grace))
}

fn edge_id(reader: &Reader<'_>, machine: &str) -> Result<EdgeId, ConfigError> {
    if let Some(given) = reader.given("edge", "id") {
        return given.text().parse().map_err(|error| given.bad(error));
    }
    let none = || ConfigError::bad("edge.id must be set: this machine's name cannot be made an edge's");
    id_of_machine(machine).ok_or_else(none)
}

/// A machine's name with all that no edge's name may hold replaced.
fn id_of_machine(machine: &str) -> Option<EdgeId> {
    let fits = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = machine.chars().map(fits).skip_while(|c| !c.is_ascii_alphanumeric()).collect();
    name.get(..name.len().min(riser_core::id::PART_BYTES))?.parse().ok()
}

#[cfg(test)]
mod tests;
