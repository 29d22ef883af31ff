//! How Redis is reached: one server, or Sentinels that know the master.

use std::path::PathBuf;

use riser_registry::redis::{Address, Identity, Password, RedisConfig, Servers, Tls};

use crate::values::{Given, Reader};
use crate::{ConfigError, TlsFiles, check_url, read_file};

/// Where Redis is when nothing says so.
const DEFAULT: &str = "redis://127.0.0.1:6379";
/// Largest file of certificates, in bytes: a machine's whole list is some hundred thousand.
const PEM_BYTES: u64 = 4 << 20;

/// Reads the section.
pub fn read(reader: &Reader<'_>) -> Result<RedisConfig, ConfigError> {
    let server = reader.given("redis", "server");
    let sentinels = reader.given("redis", "sentinels");
    if let (Some(_), Some(sentinels)) = (&server, &sentinels) {
        return Err(sentinels.bad("redis.server is set as well: choose one"));
    }
    let (addresses, encrypted) = match server.as_ref().or(sentinels.as_ref()) {
        Some(given) => addresses(given)?,
        None => (vec![address(DEFAULT)], false),
    };
    let master = reader.given("redis", "master").map(|given| given.text().to_owned()).filter(|name| !name.is_empty());
    let [user, sentinel_user] = ["user", "sentinel_user"].map(|key| text(reader, key));
    let password = reader.secret("redis", "password", "password_file")?.map(Password);
    let sentinel_password = reader.secret("redis", "sentinel_password", "sentinel_password_file")?.map(Password);
    if user.is_some() && password.is_none() {
        return Err(ConfigError::bad("redis.user needs redis.password_file"));
    }
    if sentinel_user.is_some() && sentinel_password.is_none() {
        return Err(ConfigError::bad("redis.sentinel_user needs redis.sentinel_password_file"));
    }
    let servers = match (sentinels, master) {
        (Some(_), None) => {
            return Err(ConfigError::bad("redis.sentinels needs redis.master: what they call the master"));
        }
        (None, Some(_)) => return Err(ConfigError::bad("redis.master needs redis.sentinels")),
        (Some(_), Some(master)) => {
            Servers::Sentinel { addresses, master, user: sentinel_user, password: sentinel_password }
        }
        (None, None) if sentinel_user.is_some() || sentinel_password.is_some() => {
            return Err(ConfigError::bad("a password for Sentinels needs redis.sentinels"));
        }
        (None, None) => Servers::Single(addresses.into_iter().next().unwrap_or_else(|| address(DEFAULT))),
    };
    let database = reader.number("redis", "database", 0..=u64::from(u16::MAX))?;
    Ok(RedisConfig {
        user,
        password,
        database: u16::try_from(database).unwrap_or(u16::MAX),
        tls: tls(reader.file("redis", "ca_file")?, crate::tls(reader, "redis")?, encrypted)?,
        ..RedisConfig::new(servers)
    })
}

fn text(reader: &Reader<'_>, key: &'static str) -> Option<String> {
    reader.given("redis", key).map(|given| given.text().to_owned())
}

/// The servers that an option names, and whether they are reached over TLS.
fn addresses(given: &Given) -> Result<(Vec<Address>, bool), ConfigError> {
    let urls = given.texts();
    for url in urls {
        check_url(url, &["redis://", "rediss://"]).map_err(|why| given.bad(why))?;
    }
    let encrypted = urls.iter().filter(|url| url.starts_with("rediss://")).count();
    match encrypted {
        _ if urls.is_empty() => Err(given.bad("at least one is needed")),
        some if some != 0 && some != urls.len() => Err(given.bad("either all with redis:// or all with rediss://")),
        some => Ok((urls.iter().map(|url| address(url)).collect(), some > 0)),
    }
}

/// The address in a URL that was checked.
fn address(url: &str) -> Address {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (host, port) = rest.rsplit_once(':').unwrap_or((rest, ""));
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Address { host, port: port.parse().unwrap_or_default() }
}

fn tls(ca: Option<PathBuf>, own: Option<TlsFiles>, encrypted: bool) -> Result<Option<Tls>, ConfigError> {
    let pem = |what: &str, path: PathBuf| read_file(what, &path, PEM_BYTES).map(String::into_bytes);
    if own.is_some() && !encrypted && ca.is_none() {
        return Err(ConfigError::bad("redis.cert_file needs TLS: name servers with rediss://, or redis.ca_file"));
    }
    let identity = |files: TlsFiles| {
        let certificate_pem = pem("redis.cert_file", files.cert)?;
        Ok(Identity { certificate_pem, key_pem: pem("redis.key_file", files.key)? })
    };
    let identity = own.map(identity).transpose()?;
    let ca_pem = ca.map(|path| pem("redis.ca_file", path)).transpose()?;
    Ok((encrypted || ca_pem.is_some()).then_some(Tls { ca_pem, identity }))
}
