//! Where a cluster is: the one parser of the URLs that users give.

use std::fmt;
use std::str::FromStr;

use http::Uri;

/// Where a session's WebSocket is on every edge.
pub const WS_PATH: &str = "/v1/ws";

/// Why a URL was refused. It never repeats the URL, which may hold a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL of a cluster.
    #[error("not a URL of a cluster: http://host[:port] or ws://host[:port]/v1/ws")]
    Malformed,
    /// A user, a password or a query in it: credentials have their own place.
    #[error("a credential does not belong into a URL: it would be logged on the way")]
    Credential,
    /// TLS.
    #[error("TLS is not spoken here yet: use http:// or ws://, and keep it to networks that you trust")]
    Tls,
}

/// A cluster's or an edge's address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// The host without brackets, as it is resolved.
    pub(crate) fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`, as in a `Host` header.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let uri: Uri = text.parse().map_err(|_| EndpointError::Malformed)?;
        let authority = uri.authority().ok_or(EndpointError::Malformed)?;
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(EndpointError::Credential);
        }
        match uri.scheme_str() {
            Some("http" | "ws") => {}
            Some("https" | "wss") => return Err(EndpointError::Tls),
            _ => return Err(EndpointError::Malformed),
        }
        if !matches!(uri.path(), "" | "/" | WS_PATH) || authority.host().is_empty() {
            return Err(EndpointError::Malformed);
        }
        // `host:` and `host:99999` have no port that could be read, and are no ports left out either.
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() == authority.host() => 80,
            None => return Err(EndpointError::Malformed),
        };
        Ok(Self { host: authority.host().to_owned(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_named_by_its_base_or_by_its_socket() {
        let rows = [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://127.0.0.1:8080/", "127.0.0.1:8080"),
            ("ws://riser.example/v1/ws", "riser.example:80"),
            ("ws://[::1]:9/v1/ws", "[::1]:9"),
        ];
        for (text, authority) in rows {
            let endpoint: Endpoint = text.parse().expect(text);
            assert_eq!(endpoint.authority(), authority);
        }
        let six: Endpoint = "http://[::1]:9".parse().expect("an endpoint");
        assert_eq!(six.host(), "::1");
    }

    #[test]
    fn other_urls_are_refused_with_what_is_wrong() {
        let rows = [
            ("", EndpointError::Malformed),
            ("127.0.0.1:8080", EndpointError::Malformed),
            ("ftp://a", EndpointError::Malformed),
            ("http://a/other", EndpointError::Malformed),
            ("http://a:99999", EndpointError::Malformed),
            ("http://a:", EndpointError::Malformed),
            ("https://a", EndpointError::Tls),
            ("wss://a/v1/ws", EndpointError::Tls),
            ("http://u:p@a", EndpointError::Credential),
            ("ws://a/v1/ws?token=x", EndpointError::Credential),
        ];
        for (text, error) in rows {
            assert_eq!(text.parse::<Endpoint>(), Err(error), "{text}");
        }
    }
}
