//! The configuration of an edge: read whole before anything else is done, and refused in one line that names the option
//! and where it was set.

mod layers;
mod options;
mod redis;
mod values;

use std::path::{Path, PathBuf};
use std::time::Duration;

use riser_bus::nats::{KvConfig, LedgerConfig, LogConfig, NatsAuth, NatsConfig};
use riser_core::EdgeId;
use riser_core::tenant::HashKey;
use riser_core::tenant::api_key::HASH_KEY_BYTES;
use riser_edge::EdgeConfig;
use riser_ops::logs::Format;
use riser_registry::redis::RedisConfig;
use std::net::SocketAddr;

use crate::exit::Failure;
use layers::Values;
pub(crate) use options::default_file;
use values::Reader;
pub(crate) use values::{read_secret, size};

/// Largest configuration file, in bytes: hundreds of times what all options take.
const FILE_BYTES: u64 = 1 << 20;
/// How much longer than its window a drain may take: what ends then is told to Redis and NATS.
const AFTER_WINDOW: Duration = Duration::from_secs(15);

/// Why a configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    /// Something in it is wrong.
    #[error("{0}")]
    Bad(String),
    /// A file that it names cannot be read.
    #[error("{0}")]
    Unreadable(String),
}

impl ConfigError {
    pub(crate) fn bad(why: impl Into<String>) -> Self {
        Self::Bad(why.into())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Bad(text) => Self::Usage(text),
            ConfigError::Unreadable(text) => Self::Unavailable(text),
        }
    }
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    /// The file's name and what it holds.
    pub(crate) file: Option<(PathBuf, String)>,
    pub(crate) environment: Vec<(String, String)>,
    /// `section.key=value` each.
    pub(crate) flags: Vec<String>,
    /// The machine's name, for an edge that has none of its own.
    pub(crate) machine: String,
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
    pub(crate) held: KvConfig,
    pub(crate) ledger: LedgerConfig,
    pub(crate) redis: RedisConfig,
    pub(crate) tenants: PathBuf,
    pub(crate) log: (Format, String),
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Sources {
    /// Reads the file, and takes the environment and the machine's name as they are.
    pub(crate) fn gather(file: Option<&Path>, flags: &[String]) -> Result<Self, ConfigError> {
        let file =
            file.map(|path| Ok((path.to_owned(), read_file("the configuration", path, FILE_BYTES)?))).transpose()?;
        let text = |os: std::ffi::OsString| os.into_string().ok();
        // What is not UTF-8 is no option, and no value of one.
        let environment = std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect();
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Ok(Self { file, environment, flags: flags.to_vec(), machine: machine.trim().to_owned() })
    }
}

/// A file as text, if it is not too large.
pub(crate) fn read_file(what: &str, path: &Path, most: u64) -> Result<String, ConfigError> {
    use std::io::Read as _;
    let read = || -> std::io::Result<String> {
        let mut text = String::new();
        std::fs::File::open(path)?.take(most + 1).read_to_string(&mut text)?;
        Ok(text)
    };
    let unreadable = |why: String| ConfigError::Unreadable(format!("cannot read {what} {}: {why}", path.display()));
    let text = read().map_err(|error| unreadable(error.to_string()))?;
    if text.len() as u64 > most { Err(unreadable(format!("it is over {most} bytes"))) } else { Ok(text) }
}

impl Settings {
    /// Puts the sources together and reads the secrets that they name. Nothing is connected to.
    pub(crate) fn read(sources: &Sources) -> Result<Self, ConfigError> {
        let mut values = Values::new();
        if let Some((path, text)) = &sources.file {
            layers::take_file(&mut values, &path.display().to_string(), text)?;
        }
        let variables = sources.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        layers::take_environment(&mut values, variables)?;
        layers::take_flags(&mut values, &sources.flags)?;
        let folder = sources.file.as_ref().and_then(|(path, _)| path.parent()).unwrap_or(Path::new(""));
        let reader = Reader { values: &values, folder };
        let (edge, grace) = edge(&reader, &sources.machine)?;
        let events = events(&reader)?;
        let (held, ledger) = commands(&reader, events.replicas)?;
        Ok(Self {
            listen: reader.address("edge", "listen")?,
            admin: reader.address("admin", "listen")?,
            grace,
            tls: tls(&reader, "tls")?,
            shown: [tls(&reader, "nats")?, tls(&reader, "redis")?].into_iter().flatten().collect(),
            nats: nats(&reader, &edge.id)?,
            monitors: monitors(&reader)?,
            events,
            held,
            ledger,
            redis: redis::read(&reader)?,
            tenants: reader.file("tenants", "file")?.unwrap_or_default(),
            log: log(&reader)?,
            edge,
        })
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
        hash_key: hash_key(reader)?,
        ..EdgeConfig::new(edge_id(reader, machine)?)
    };
    let grace = reader.time("edge", "grace", AFTER_WINDOW..=m(20))?;
    if grace < config.drain_window + AFTER_WINDOW {
        let given = reader.text("edge", "grace")?;
        return Err(given.bad("it must be at least 15s more than edge.drain_window"));
    }
    Ok((config, grace))
}

fn hash_key(reader: &Reader<'_>) -> Result<Option<HashKey>, ConfigError> {
    let Some(secret) = reader.secret("tenants", "hash_key", "hash_key_file")? else { return Ok(None) };
    let short = || ConfigError::bad(format!("tenants.hash_key has under {HASH_KEY_BYTES} bytes"));
    HashKey::new(secret).map(Some).ok_or_else(short)
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

/// A certificate and its key, which one section names.
fn tls(reader: &Reader<'_>, section: &'static str) -> Result<Option<TlsFiles>, ConfigError> {
    match (reader.file(section, "cert_file")?, reader.file(section, "key_file")?) {
        (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert, key })),
        (None, None) => Ok(None),
        _ => Err(ConfigError::bad(format!(
            "{section}.cert_file and {section}.key_file go together: set both or neither"
        ))),
    }
}

fn nats(reader: &Reader<'_>, id: &EdgeId) -> Result<NatsConfig, ConfigError> {
    let servers = reader.text("nats", "servers")?;
    if servers.texts().is_empty() {
        return Err(servers.bad("at least one server is needed"));
    }
    for url in servers.texts() {
        check_url(url, &["nats://", "tls://"]).map_err(|why| servers.bad(why))?;
    }
    let mut config = NatsConfig::new(servers.texts().to_vec(), id.as_str());
    let password = reader.secret("nats", "password", "password_file")?;
    let token = reader.secret("nats", "token", "token_file")?;
    let creds = reader.file("nats", "creds_file")?;
    let user = reader.given("nats", "user").map(|given| given.text().to_owned());
    config.auth = match (user, password, token, creds) {
        (None, None, None, None) => NatsAuth::Nobody,
        (Some(user), Some(password), None, None) => NatsAuth::User { user, password },
        (None, None, Some(token), None) => NatsAuth::Token(token),
        (None, None, None, Some(path)) => NatsAuth::CredsFile(path),
        (Some(_), None, None, None) => return Err(ConfigError::bad("nats.user needs nats.password_file")),
        (None, Some(_), None, None) => return Err(ConfigError::bad("the password of NATS needs nats.user")),
        _ => {
            return Err(ConfigError::bad(
                "nats: set a user with its password, or a token, or creds_file, and only one",
            ));
        }
    };
    config.tls_root = reader.file("nats", "ca_file")?;
    config.tls_identity = tls(reader, "nats")?.map(|files| (files.cert, files.key));
    Ok(config)
}

fn monitors(reader: &Reader<'_>) -> Result<Vec<String>, ConfigError> {
    let Some(given) = reader.given("nats", "monitors") else { return Ok(vec![]) };
    for url in given.texts() {
        check_url(url, &["http://"]).map_err(|why| given.bad(why))?;
    }
    Ok(given.texts().to_vec())
}

fn events(reader: &Reader<'_>) -> Result<LogConfig, ConfigError> {
    let h = |h: u64| Duration::from_secs(3_600 * h);
    Ok(LogConfig {
        replicas: usize::try_from(reader.number("events", "replicas", 1..=5)?).unwrap_or(usize::MAX),
        max_age: reader.time("events", "max_age", h(1)..=h(24 * 3_650))?,
        max_bytes: reader.size("events", "max_size", 1 << 20..=1 << 40)?,
        max_events: reader.number("events", "max_count", 1_000..=1_000_000_000)?,
    })
}

fn commands(reader: &Reader<'_>, replicas: usize) -> Result<(KvConfig, LedgerConfig), ConfigError> {
    let h = |h: u64| Duration::from_secs(3_600 * h);
    let held_bytes = reader.size("commands", "held_size", 1 << 20..=1 << 40)?;
    let max_age = reader.time("commands", "ledger_age", h(1)..=h(24 * 3_650))?;
    let max_bytes = reader.size("commands", "ledger_size", 1 << 20..=1 << 40)?;
    Ok((KvConfig { replicas, held_bytes, ..KvConfig::default() }, LedgerConfig { replicas, max_age, max_bytes }))
}

fn log(reader: &Reader<'_>) -> Result<(Format, String), ConfigError> {
    let format = reader.text("log", "format")?;
    let kind = match format.text() {
        "text" => Format::Text,
        "json" => Format::Json,
        _ => return Err(format.bad("text or json is needed")),
    };
    let level = reader.text("log", "level")?;
    riser_ops::logs::check(level.text()).map_err(|_| level.bad("not a log filter: info, or warn,riser_edge=debug"))?;
    Ok((kind, level.text().to_owned()))
}

/// Checks a server's URL. It is never repeated, for it may have a password in it.
fn check_url(url: &str, schemes: &[&str]) -> Result<(), String> {
    let needed = || format!("{}host:port is needed", schemes.join("host:port or "));
    let rest = schemes.iter().find_map(|scheme| url.strip_prefix(scheme)).ok_or_else(needed)?;
    if rest.contains('@') {
        return Err("no credentials in a URL: it is shown in logs".into());
    }
    let (host, port) = rest.rsplit_once(':').ok_or_else(needed)?;
    let good = !host.is_empty() && !host.contains(['/', '?', '#']) && port.parse::<u16>().is_ok_and(|port| port > 0);
    if good { Ok(()) } else { Err(needed()) }
}

#[cfg(test)]
mod tests;
