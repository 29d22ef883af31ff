//! The configuration that the processes of a cluster share: one file for all of them, the environment, and flags. It is read
//! whole before anything else is done, and refused in one line that names the option and where it was set.

mod layers;
pub mod options;
mod redis;
mod values;

use std::path::{Path, PathBuf};
use std::time::Duration;

use riser_bus::nats::{KvConfig, LedgerConfig, LogConfig, NatsAuth, NatsConfig};
use riser_core::tenant::HashKey;
use riser_core::tenant::api_key::HASH_KEY_BYTES;
use riser_ops::logs::Format;

pub use layers::Values;
pub use options::default_file;
pub use redis::read as redis;
pub use values::{Given, Reader, duration, read_secret, size};

/// Largest configuration file, in bytes: hundreds of times what all options take.
const FILE_BYTES: u64 = 1 << 20;

/// Why a configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Something in it is wrong.
    #[error("{0}")]
    Bad(String),
    /// A file that it names cannot be read.
    #[error("{0}")]
    Unreadable(String),
}

impl ConfigError {
    /// Something in it is wrong.
    pub fn bad(why: impl Into<String>) -> Self {
        Self::Bad(why.into())
    }
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file's name and what it holds.
    pub file: Option<(PathBuf, String)>,
    /// The variables of the environment.
    pub environment: Vec<(String, String)>,
    /// `section.key=value` each.
    pub flags: Vec<String>,
    /// The machine's name, for an edge that has none of its own.
    pub machine: String,
}

impl Sources {
    /// Reads the file, and takes the environment and the machine's name as they are.
    pub fn gather(file: Option<&Path>, flags: &[String]) -> Result<Self, ConfigError> {
        let file =
            file.map(|path| Ok((path.to_owned(), read_file("the configuration", path, FILE_BYTES)?))).transpose()?;
        let text = |os: std::ffi::OsString| os.into_string().ok();
        // What is not UTF-8 is no option, and no value of one.
        let environment = std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect();
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Ok(Self { file, environment, flags: flags.to_vec(), machine: machine.trim().to_owned() })
    }
}

impl Sources {
    /// Puts the sources together.
    pub fn values(&self) -> Result<Values, ConfigError> {
        let mut values = Values::new();
        if let Some((path, text)) = &self.file {
            layers::take_file(&mut values, &path.display().to_string(), text)?;
        }
        let variables = self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        layers::take_environment(&mut values, variables)?;
        layers::take_flags(&mut values, &self.flags)?;
        Ok(values)
    }

    /// Where relative names of files begin.
    pub fn folder(&self) -> &Path {
        self.file.as_ref().and_then(|(path, _)| path.parent()).unwrap_or(Path::new(""))
    }
}

/// A file as text, if it is not too large.
pub fn read_file(what: &str, path: &Path, most: u64) -> Result<String, ConfigError> {
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

/// How NATS is reached; `name` is what it calls the connection.
pub fn nats(reader: &Reader<'_>, name: &str) -> Result<NatsConfig, ConfigError> {
    let servers = reader.text("nats", "servers")?;
    if servers.texts().is_empty() {
        return Err(servers.bad("at least one server is needed"));
    }
    for url in servers.texts() {
        check_url(url, &["nats://", "tls://"]).map_err(|why| servers.bad(why))?;
    }
    let mut config = NatsConfig::new(servers.texts().to_vec(), name);
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

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, in PEM.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// The certificate and its key that one section names.
pub fn tls(reader: &Reader<'_>, section: &'static str) -> Result<Option<TlsFiles>, ConfigError> {
    match (reader.file(section, "cert_file")?, reader.file(section, "key_file")?) {
        (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert, key })),
        (None, None) => Ok(None),
        _ => Err(ConfigError::bad(format!(
            "{section}.cert_file and {section}.key_file go together: set both or neither"
        ))),
    }
}

/// What is shown to NATS and Redis, if anything.
pub fn shown(reader: &Reader<'_>) -> Result<Vec<TlsFiles>, ConfigError> {
    Ok([tls(reader, "nats")?, tls(reader, "redis")?].into_iter().flatten().collect())
}

/// Where NATS' servers tell how they run.
pub fn monitors(reader: &Reader<'_>) -> Result<Vec<String>, ConfigError> {
    let Some(given) = reader.given("nats", "monitors") else { return Ok(vec![]) };
    for url in given.texts() {
        check_url(url, &["http://"]).map_err(|why| given.bad(why))?;
    }
    Ok(given.texts().to_vec())
}

/// What is kept of events.
pub fn events(reader: &Reader<'_>) -> Result<LogConfig, ConfigError> {
    let h = |h: u64| Duration::from_secs(3_600 * h);
    Ok(LogConfig {
        replicas: replicas(reader)?,
        max_age: reader.time("events", "max_age", h(1)..=h(24 * 3_650))?,
        max_bytes: reader.size("events", "max_size", 1 << 20..=1 << 40)?,
        max_events: reader.number("events", "max_count", 1_000..=1_000_000_000)?,
    })
}

/// How buckets are kept: those of held commands, of tenants and of flats.
pub fn kv(reader: &Reader<'_>) -> Result<KvConfig, ConfigError> {
    let held_bytes = reader.size("commands", "held_size", 1 << 20..=1 << 40)?;
    let tenants_bytes = reader.size("tenants", "max_size", 1 << 20..=10 << 30)?;
    Ok(KvConfig { replicas: replicas(reader)?, held_bytes, tenants_bytes, ..KvConfig::default() })
}

/// How the ledger of commands is kept.
pub fn ledger(reader: &Reader<'_>) -> Result<LedgerConfig, ConfigError> {
    let h = |h: u64| Duration::from_secs(3_600 * h);
    let max_age = reader.time("commands", "ledger_age", h(1)..=h(24 * 3_650))?;
    let max_bytes = reader.size("commands", "ledger_size", 1 << 20..=1 << 40)?;
    Ok(LedgerConfig { replicas: replicas(reader)?, max_age, max_bytes })
}

fn replicas(reader: &Reader<'_>) -> Result<usize, ConfigError> {
    Ok(usize::try_from(reader.number("events", "replicas", 1..=5)?).unwrap_or(usize::MAX))
}

/// The secret that API keys are hashed with, if there is one.
pub fn hash_key(reader: &Reader<'_>) -> Result<Option<HashKey>, ConfigError> {
    let Some(secret) = reader.secret("tenants", "hash_key", "hash_key_file")? else { return Ok(None) };
    let short = || ConfigError::bad(format!("tenants.hash_key has under {HASH_KEY_BYTES} bytes"));
    HashKey::new(secret).map(Some).ok_or_else(short)
}

/// How log lines look, and which there are.
pub fn log(reader: &Reader<'_>) -> Result<(Format, String), ConfigError> {
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
