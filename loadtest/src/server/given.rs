//! A cluster that runs already, wherever it was started.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::{Runs, Server};
use crate::worker::order::Dialect;

/// Where it is, and who gets in.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    at: Vec<SocketAddr>,
    keys: Keys,
}

/// The file with the keys.
#[derive(Clone, Deserialize)]
struct Keys {
    tenant: String,
    kid: String,
    signing_key: String,
    api_key: String,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl Given {
    /// Looks up the edges, and reads the file.
    pub(crate) fn read(urls: &[String], file: &Path) -> Result<Self> {
        let at = urls.iter().map(|url| address(url)).collect::<Result<_>>()?;
        let text = std::fs::read(file).with_context(|| format!("failed to read {}", file.display()))?;
        // What serde says of a wrong one can hold what stands there.
        let keys = serde_json::from_slice(&text).ok().with_context(|| {
            format!("{} is not JSON with the strings tenant, kid, signing_key and api_key", file.display())
        })?;
        Ok(Self { at, keys })
    }

    /// The cluster as a server.
    pub(super) fn server(&self, edges: u16) -> Result<Server> {
        if self.at.len() < usize::from(edges) {
            bail!("{edges} edges are measured, and {} were named with --edges", self.at.len());
        }
        let Keys { tenant, kid, signing_key, api_key } = self.keys.clone();
        Ok(Server {
            runs: Runs::Elsewhere,
            at: self.at.clone(),
            dialect: Dialect::Riser { tenant, kid, key: signing_key },
            other_tenant: None,
            admin: Vec::new(),
            key: api_key,
            _files: None,
        })
    }
}

/// Generators speak no TLS, and IPv4.
fn address(url: &str) -> Result<SocketAddr> {
    let rest = url.strip_prefix("http://").with_context(|| format!("{url} is not http://host:port"))?;
    let found = rest.trim_end_matches('/').to_socket_addrs();
    let mut found = found.with_context(|| format!("{url} is not http://host:port, or its host is unknown"))?;
    found.find(SocketAddr::is_ipv4).with_context(|| format!("{url} has no IPv4 address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_addresses_with_a_port() {
        assert_eq!(address("http://127.0.0.1:80/").expect("an address").port(), 80);
        for bad in ["127.0.0.1:80", "https://127.0.0.1:80", "http://127.0.0.1", "http://[::1]:80"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_broken_file_is_told_without_what_is_in_it() {
        let file = std::env::temp_dir().join(format!("riser-loadtest-keys-{}", std::process::id()));
        std::fs::write(&file, r#"{"tenant":"acme","kid":"a","signing_key":17,"api_key":"hush"}"#).expect("a file");
        let error = Given::read(&["http://127.0.0.1:80".into()], &file).expect_err("no key");
        assert!(!format!("{error:#}").contains("hush"), "{error:#}");
        std::fs::write(&file, r#"{"tenant":"acme","kid":"a","signing_key":"s","api_key":"hush"}"#).expect("a file");
        let given = Given::read(&["http://127.0.0.1:80".into()], &file).expect("good");
        assert!(!format!("{given:?}").contains("hush"));
        assert!(given.server(1).is_ok() && given.server(2).is_err());
        std::fs::remove_file(&file).expect("it was there");
    }
}
