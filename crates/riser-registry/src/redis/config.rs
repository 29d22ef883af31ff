//! How Redis is reached, and why it was not.

use std::fmt;
use std::time::Duration;

/// How Redis is reached.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// Which servers.
    pub servers: Servers,
    /// A user of the servers' access list; without one the servers' `default`.
    pub user: Option<String>,
    /// The password of the user.
    pub password: Option<Password>,
    /// The number of the database.
    pub database: u16,
    /// How connections are encrypted, those to Sentinels too; without it they are not.
    pub tls: Option<Tls>,
    /// How long one call to Redis may take, with the wait for a connection and all that it repeats. An operation is one or
    /// two of them.
    pub call_timeout: Duration,
    /// How long one try to connect to one server may take. Shorter than a call, so that calls which wait for it are told
    /// that it failed.
    pub connect_timeout: Duration,
}

impl RedisConfig {
    /// Reaches these servers without credentials or encryption, with the times that suit a server in the same data centre.
    pub fn new(servers: Servers) -> Self {
        Self {
            servers,
            user: None,
            password: None,
            database: 0,
            tls: None,
            call_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(2),
        }
    }
}

/// Where one server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Its name or IP address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Which servers keep the registry.
#[derive(Debug, Clone)]
pub enum Servers {
    /// One server.
    Single(Address),
    /// A master that Sentinels choose.
    Sentinel {
        /// The Sentinels. One that answers is enough.
        addresses: Vec<Address>,
        /// What they call the master.
        master: String,
        /// A user of the Sentinels' own access list.
        user: Option<String>,
        /// The password of that user.
        password: Option<Password>,
    },
}

/// How connections are encrypted.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// The only certificates that a server's may be signed with, in PEM. Without them those of the machine are trusted.
    pub ca_pem: Option<Vec<u8>>,
    /// What this process shows to the servers.
    pub identity: Option<Identity>,
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Identity {
    /// The certificate, and those between it and its root, in PEM.
    pub certificate_pem: Vec<u8>,
    /// Its private key, in PEM.
    pub key_pem: Vec<u8>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

/// A password, which no log shows.
#[derive(Clone)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// Why Redis was not connected to.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Something in the configuration cannot be used.
    #[error("the configuration of Redis cannot be used: {0}")]
    Config(String),
    /// The server did not answer, or not as Redis does.
    #[error("Redis at {server} cannot be reached: {reason}")]
    Unreachable {
        /// Which server.
        server: String,
        /// What happened.
        reason: String,
    },
    /// The server knows the user or the password not, or the user may not do what an edge does.
    #[error("Redis at {server} refused the credentials: {reason}")]
    Refused {
        /// Which server.
        server: String,
        /// What it said.
        reason: String,
    },
    /// The server is too old.
    #[error("Redis at {server} has version {version}, and 7.0.0 is the oldest that is supported")]
    TooOld {
        /// Which server.
        server: String,
        /// What it says its version is.
        version: String,
    },
    /// The server cannot be written to.
    #[error("Redis at {server} is a replica: name its master, or the Sentinels")]
    Replica {
        /// Which server.
        server: String,
    },
    /// The server is one of a Redis Cluster.
    #[error("Redis at {server} is part of a Redis Cluster, which is not supported: name a single server, or Sentinels")]
    Cluster {
        /// Which server.
        server: String,
    },
    /// No Sentinel named a master.
    #[error("no Sentinel named a master {master:?}: {reasons}")]
    NoMaster {
        /// What it should be called.
        master: String,
        /// What each Sentinel said.
        reasons: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_shows_no_secrets() {
        let secret = || Some(Password("secret".into()));
        let addresses = vec![Address { host: "a".into(), port: 1 }];
        let servers =
            Servers::Sentinel { addresses, master: "riser".into(), user: Some("edge".into()), password: secret() };
        let key = b"secret".to_vec();
        let identity = Some(Identity { certificate_pem: vec![], key_pem: key });
        let tls = Some(Tls { ca_pem: None, identity });
        let config = RedisConfig { password: secret(), tls, ..RedisConfig::new(servers) };
        let shown = format!("{config:?}");
        assert!(!shown.contains("secret") && !shown.contains("115, 101"), "{shown}");
        assert!(shown.contains("edge"), "{shown}");
    }

    #[test]
    fn an_address_shows_as_it_is_written() {
        let show = |host: &str| Address { host: host.into(), port: 6379 }.to_string();
        assert_eq!(show("redis.example"), "redis.example:6379");
        assert_eq!(show("::1"), "[::1]:6379");
    }
}
