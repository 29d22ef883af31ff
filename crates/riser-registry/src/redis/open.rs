//! Finding the server that may be written to, and connecting to it.

use std::fmt::Write;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, ServerErrorKind, TlsCertificates, Value,
};
use riser_core::ServerVersion;

use super::config::{Address, ConnectError, Password, RedisConfig, Servers};

/// The oldest server that is supported.
const OLDEST: ServerVersion = ServerVersion(7, 0, 0);
/// Commands that wait in the library to be written; then calls wait.
const COMMANDS: usize = 1_024;

/// A connection to a server that may be written to.
pub(super) struct Opened {
    pub(super) connection: MultiplexedConnection,
    /// Where it leads.
    pub(super) server: String,
    pub(super) version: ServerVersion,
}

/// Connects to the server that may be written to now.
pub(super) async fn open(config: &RedisConfig) -> Result<Opened, ConnectError> {
    match &config.servers {
        Servers::Single(address) => open_at(config, address).await,
        Servers::Sentinel { addresses, master, .. } => open_at(config, &ask(config, addresses, master).await?).await,
    }
}

async fn open_at(config: &RedisConfig, address: &Address) -> Result<Opened, ConnectError> {
    let mut connection = connect(config, address, config.user.as_deref(), config.password.as_ref(), config.database)
        .await
        .map_err(|error| why_not(address, &error))?;
    let greeting = greet(&mut connection).await.map_err(|error| why_not(address, &error))?;
    let version = check(address, &greeting)?;
    Ok(Opened { connection, server: address.to_string(), version })
}

/// What a server says of itself.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    version: String,
    mode: String,
    role: String,
}

impl Greeting {
    pub(super) fn is_master(&self) -> bool {
        self.role == "master"
    }
}

/// Asks a server what it is. `HELLO` is allowed to every user; servers that are far too old know it not.
pub(super) async fn greet(connection: &mut MultiplexedConnection) -> Result<Greeting, RedisError> {
    let said = connection.send_packed_command(&redis::cmd("HELLO")).await?;
    let mut greeting = Greeting::default();
    match said {
        Value::ServerError(error) if error.kind() == Some(ServerErrorKind::ResponseError) => {
            let info: String = redis::cmd("INFO").arg("server").query_async(connection).await?;
            let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
            version.unwrap_or_default().trim().clone_into(&mut greeting.version);
        }
        said => {
            let pairs: Vec<Value> = redis::from_redis_value(said.extract_error()?)?;
            let text = |value: &Value| match value {
                Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Value::SimpleString(text) => text.clone(),
                _ => String::new(),
            };
            for pair in pairs.chunks_exact(2) {
                match text(&pair[0]).as_str() {
                    "version" => greeting.version = text(&pair[1]),
                    "mode" => greeting.mode = text(&pair[1]),
                    "role" => greeting.role = text(&pair[1]),
                    _ => {}
                }
            }
        }
    }
    Ok(greeting)
}

fn check(address: &Address, greeting: &Greeting) -> Result<ServerVersion, ConnectError> {
    let server = address.to_string();
    let version = ServerVersion::parse(&greeting.version);
    let Some(version) = version.filter(|version| *version >= OLDEST) else {
        return Err(ConnectError::TooOld { server, version: shown(&greeting.version) });
    };
    match (greeting.mode.as_str(), greeting.is_master()) {
        ("cluster", _) => Err(ConnectError::Cluster { server }),
        ("sentinel", _) => {
            let reason = "it is a Sentinel, which keeps nothing: name it as such, or name the server".into();
            Err(ConnectError::Unreachable { server, reason })
        }
        (_, false) => Err(ConnectError::Replica { server }),
        _ => Ok(version),
    }
}

/// Asks the Sentinels, in any order, until one names the master.
async fn ask(config: &RedisConfig, addresses: &[Address], master: &str) -> Result<Address, ConnectError> {
    let mut reasons = String::new();
    let first = fastrand::usize(..addresses.len().max(1));
    for sentinel in addresses[first..].iter().chain(&addresses[..first]) {
        let reason = match ask_one(config, sentinel, master).await {
            Ok(Some(address)) => return Ok(address),
            Ok(None) => "knows no such master".to_owned(),
            Err(error) => plain(&error),
        };
        let comma = if reasons.is_empty() { "" } else { ", " };
        // Writing into a string does not fail.
        let _ = write!(reasons, "{comma}{sentinel} {reason}");
    }
    if addresses.is_empty() {
        reasons.push_str("none is configured");
    }
    Err(ConnectError::NoMaster { master: master.to_owned(), reasons })
}

async fn ask_one(config: &RedisConfig, sentinel: &Address, master: &str) -> Result<Option<Address>, RedisError> {
    let Servers::Sentinel { user, password, .. } = &config.servers else { return Ok(None) };
    let mut connection = connect(config, sentinel, user.as_deref(), password.as_ref(), 0).await?;
    let mut question = redis::cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let answer: Option<(String, u16)> = question.query_async(&mut connection).await?;
    Ok(answer.map(|(host, port)| Address { host, port }))
}

/// Connects to a server, and says who we are.
async fn connect(
    config: &RedisConfig,
    address: &Address,
    user: Option<&str>,
    password: Option<&Password>,
    database: u16,
) -> Result<MultiplexedConnection, RedisError> {
    let mut settings = RedisConnectionInfo::default().set_db(i64::from(database)).set_skip_set_lib_name();
    if let Some(user) = user {
        settings = settings.set_username(user);
    }
    if let Some(password) = password {
        settings = settings.set_password(&password.0);
    }
    let client = client(config, address, settings)?;
    let timing = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(config.connect_timeout))
        .set_response_timeout(Some(config.call_timeout))
        .set_pipeline_buffer_size(COMMANDS);
    client.get_multiplexed_async_connection_with_config(&timing).await
}

fn client(config: &RedisConfig, address: &Address, settings: RedisConnectionInfo) -> Result<Client, RedisError> {
    let (host, port) = (address.host.clone(), address.port);
    let Some(tls) = &config.tls else {
        let info: ConnectionInfo = ConnectionAddr::Tcp(host, port).into_connection_info()?;
        return Client::open(info.set_redis_settings(settings));
    };
    let addr = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
    let info = addr.into_connection_info()?.set_redis_settings(settings);
    let client_tls = tls.identity.as_ref().map(|identity| ClientTlsConfig {
        client_cert: identity.certificate_pem.clone(),
        client_key: identity.key_pem.clone(),
    });
    Client::build_with_tls(info, TlsCertificates { client_tls, root_cert: tls.ca_pem.clone() })
}

/// Sees that what is configured can be used at all, before anything is connected to.
pub(super) fn check_config(config: &RedisConfig) -> Result<(), ConnectError> {
    let refuse = |what: &str| Err(ConnectError::Config(what.into()));
    match &config.servers {
        Servers::Single(address) if address.host.is_empty() => return refuse("the server has no name"),
        Servers::Sentinel { addresses, .. } if addresses.is_empty() => return refuse("no Sentinel is named"),
        Servers::Sentinel { master, .. } if master.is_empty() => return refuse("the master has no name"),
        _ => {}
    }
    if config.user.is_some() && config.password.is_none() {
        return refuse("there is a user without a password");
    }
    if config.tls.as_ref().is_some_and(|tls| tls.ca_pem.as_ref().is_some_and(|pem| !holds_certificate(pem))) {
        return refuse("the trusted certificates are not in PEM");
    }
    let probe = Address { host: "localhost".into(), port: 0 };
    client(config, &probe, RedisConnectionInfo::default())
        .map(drop)
        .map_err(|error| ConnectError::Config(plain(&error)))
}

/// The library takes a text without a certificate for one that trusts nobody.
fn holds_certificate(pem: &[u8]) -> bool {
    pem.windows(27).any(|window| window == b"-----BEGIN CERTIFICATE-----")
}

fn why_not(address: &Address, error: &RedisError) -> ConnectError {
    let (server, reason) = (address.to_string(), plain(error));
    let refused = error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED"));
    if refused { ConnectError::Refused { server, reason } } else { ConnectError::Unreachable { server, reason } }
}

/// An error in one line, of a length that a log line can take.
pub(super) fn plain(error: &RedisError) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    shown(&error.to_string())
}

/// A text of a server, in one line and not too long.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}
