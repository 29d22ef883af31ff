//! Whose address counts: the peer's own, or what trusted proxies say of it (`Forwarded`, RFC 7239, and
//! `X-Forwarded-For`).
//!
//! Each proxy adds whom it was asked by, so that the list is to be believed from its right end, as far as trusted
//! addresses go: the first that is not trusted is the client. What stands left of it the client itself may have written,
//! and is not looked at.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};
use riser_core::AddressRange;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Why such a header did not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ignored {
    /// It came from an address that is not trusted.
    Untrusted,
    /// It cannot be read, names no address where one is needed, or the two headers name different ones.
    Malformed,
}

impl Ignored {
    /// A word of a closed set, fit for a metric's label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Malformed => "malformed",
        }
    }
}

/// Whether what this address says of others is believed.
pub(crate) fn is_trusted(address: IpAddr, trusted: &[AddressRange]) -> bool {
    trusted.iter().any(|range| range.contains(address))
}

/// The client's address, and what of the headers was ignored.
pub(crate) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[AddressRange]) -> (IpAddr, Option<Ignored>) {
    let peer = peer.to_canonical();
    let forwarded = headers.contains_key(FORWARDED);
    let x_forwarded = headers.contains_key(X_FORWARDED_FOR);
    if !forwarded && !x_forwarded {
        return (peer, None);
    }
    if !is_trusted(peer, trusted) {
        return (peer, Some(Ignored::Untrusted));
    }
    let forwarded = forwarded.then(|| rightmost(&nodes_of_forwarded(headers)?, trusted));
    let x_forwarded = x_forwarded.then(|| rightmost(&nodes_of_x_forwarded(headers)?, trusted));
    let client = match (forwarded, x_forwarded) {
        // A proxy that writes the one may pass the other on as the client sent it.
        (Some(one), Some(other)) => one.filter(|_| one == other),
        (one, other) => one.or(other).flatten(),
    };
    client.map_or((peer, Some(Ignored::Malformed)), |client| (client, None))
}

/// The rightmost address that is not trusted, or the first of all when all are; none when what is needed is no address.
fn rightmost(nodes: &[&str], trusted: &[AddressRange]) -> Option<IpAddr> {
    let mut first = None;
    for node in nodes.iter().rev() {
        let address = address(node)?;
        if !is_trusted(address, trusted) {
            return Some(address);
        }
        first = Some(address);
    }
    first
}

fn nodes_of_x_forwarded(headers: &HeaderMap) -> Option<Vec<&str>> {
    let mut nodes = Vec::new();
    for value in headers.get_all(X_FORWARDED_FOR) {
        nodes.extend(value.to_str().ok()?.split(',').map(str::trim).filter(|node| !node.is_empty()));
    }
    Some(nodes)
}

/// What `for` is in each element. A line that is not in the form of RFC 7239 §4 spoils all, since nobody can tell where
/// what the client wrote ends.
fn nodes_of_forwarded(headers: &HeaderMap) -> Option<Vec<&str>> {
    let mut nodes = Vec::new();
    for value in headers.get_all(FORWARDED) {
        for element in split(value.to_str().ok()?, b',')? {
            if !element.is_empty() {
                nodes.push(node_of(element)?);
            }
        }
    }
    Some(nodes)
}

/// The one `for` of an element, without its quotes.
fn node_of(element: &str) -> Option<&str> {
    let mut node = None;
    for pair in split(element, b';')? {
        if pair.is_empty() {
            continue;
        }
        let (name, value) = pair.split_once('=')?;
        if name.eq_ignore_ascii_case("for") && node.replace(unquoted(value)?).is_some() {
            return None;
        }
    }
    node
}

/// A value without its quotes; none when it has some inside.
fn unquoted(value: &str) -> Option<&str> {
    let inner = match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => value,
    };
    (!inner.contains(['"', '\\'])).then_some(inner)
}

/// Splits where a separator stands outside of quotes; none when a quote is not closed.
fn split(text: &str, separator: u8) -> Option<Vec<&str>> {
    let (mut parts, mut from, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => {
                parts.push(text[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[from..].trim());
    (!quoted).then_some(parts)
}

/// An address as proxies write it: with a port or without, IPv6 in brackets or not. `unknown` and hidden names are none.
fn address(node: &str) -> Option<IpAddr> {
    let is_port =
        |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    let found = if let Some(rest) = node.strip_prefix('[') {
        let (inner, port) = rest.split_once(']')?;
        let port_is_good = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        IpAddr::V6(inner.parse().ok().filter(|_| port_is_good)?)
    } else if let Ok(address) = node.parse() {
        address
    } else {
        let (inner, port) = node.split_once(':')?;
        IpAddr::V4(inner.parse().ok().filter(|_| is_port(port))?)
    };
    Some(found.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[(&HeaderName, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value).expect("a header"));
        }
        headers
    }

    fn trusted() -> Vec<AddressRange> {
        ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().expect("a range")).to_vec()
    }

    fn seen(peer: &str, lines: &[(&HeaderName, &str)]) -> (String, Option<Ignored>) {
        let lines: Vec<_> = lines.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let (address, ignored) = client(peer.parse().expect("an address"), &headers(&lines), &trusted());
        (address.to_string(), ignored)
    }

    fn good(address: &str) -> (String, Option<Ignored>) {
        (address.to_owned(), None)
    }

    #[test]
    fn the_rightmost_address_that_is_not_trusted_counts() {
        let rows: &[(&str, &str)] = &[
            ("for=192.0.2.1", "192.0.2.1"),
            ("For=192.0.2.1;proto=https;by=10.0.0.9", "192.0.2.1"),
            ("for=\"192.0.2.1:4711\"", "192.0.2.1"),
            ("for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("for=\"[2001:db8::1]\"", "2001:db8::1"),
            ("for=\"[::ffff:192.0.2.1]\"", "192.0.2.1"),
            ("for=198.51.100.1, for=192.0.2.1, for=10.0.0.2", "192.0.2.1"),
            ("for=198.51.100.1,for=192.0.2.1,, for=\"[fd00::2]\" ", "192.0.2.1"),
            ("for=unknown, for=192.0.2.1", "192.0.2.1"),
            ("host=\"a,b;c\";for=192.0.2.1", "192.0.2.1"),
            ("for=10.0.0.3, for=10.0.0.2", "10.0.0.3"),
        ];
        for (line, address) in rows {
            assert_eq!(seen("10.0.0.1", &[(&FORWARDED, line)]), good(address), "{line}");
        }
        let rows: &[(&[&str], &str)] = &[
            (&["192.0.2.1"], "192.0.2.1"),
            (&["junk, 192.0.2.1 , 10.0.0.2"], "192.0.2.1"),
            (&["198.51.100.1", "192.0.2.1", "10.0.0.2"], "192.0.2.1"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["192.0.2.1:80"], "192.0.2.1"),
        ];
        let name = X_FORWARDED_FOR;
        for (lines, address) in rows {
            let lines: Vec<_> = lines.iter().map(|line| (&name, *line)).collect();
            assert_eq!(seen("::ffff:10.0.0.1", &lines), good(address), "{lines:?}");
        }
    }

    #[test]
    fn nobody_is_believed_who_is_not_trusted() {
        let expected = ("192.0.2.9".to_owned(), Some(Ignored::Untrusted));
        assert_eq!(seen("192.0.2.9", &[(&FORWARDED, "for=198.51.100.1")]), expected);
        assert_eq!(seen("192.0.2.9", &[(&X_FORWARDED_FOR, "10.0.0.1")]), expected);
        assert_eq!(seen("192.0.2.9", &[]), good("192.0.2.9"));
        assert_eq!(seen("10.0.0.1", &[]), good("10.0.0.1"));
    }

    #[test]
    fn what_cannot_be_read_leaves_the_peers_own_address() {
        let expected = ("10.0.0.1".to_owned(), Some(Ignored::Malformed));
        for line in [
            "",
            ",",
            "192.0.2.1",
            "for",
            "for=",
            "for=unknown",
            "for=_hidden",
            "by=192.0.2.1",
            "for=192.0.2.1;for=198.51.100.1",
            "for=\"192.0.2.1",
            "for=\"192.0.2.1\\\"\"",
            "for=\", for=192.0.2.1",
            "for=192.0.2.1, for=nonsense",
            "for=192.0.2.1, for=10.0.0.2, for=_x",
            "for=\"[192.0.2.1]\"",
            "for=\"[2001:db8::1]x\"",
            "for=192.0.2.1:",
            "for=300.0.2.1",
        ] {
            assert_eq!(seen("10.0.0.1", &[(&FORWARDED, line)]), expected, "{line}");
        }
        for line in ["", "unknown", "192.0.2.1, x", "\"192.0.2.1\"", "for=192.0.2.1", "1.2.3.4.5", "\u{e9}"] {
            assert_eq!(seen("10.0.0.1", &[(&X_FORWARDED_FOR, line)]), expected, "{line}");
        }
    }

    #[test]
    fn two_headers_count_when_they_agree() {
        let both = |one, other| seen("10.0.0.1", &[(&FORWARDED, one), (&X_FORWARDED_FOR, other)]);
        assert_eq!(both("for=192.0.2.1", "198.51.100.1, 192.0.2.1"), good("192.0.2.1"));
        let expected = ("10.0.0.1".to_owned(), Some(Ignored::Malformed));
        assert_eq!(both("for=198.51.100.1", "192.0.2.1"), expected);
        assert_eq!(both("nonsense", "192.0.2.1"), expected);
        assert_eq!(both("nonsense", "nonsense"), expected);
    }

    proptest! {
        /// Whatever a client writes before it, what a trusted proxy adds decides, or nothing does.
        #[test]
        fn a_client_cannot_choose_its_address(forged in "[ -~]{0,60}", x: bool) {
            let line = if x { format!("{forged}, 192.0.2.1") } else { format!("{forged}, for=192.0.2.1") };
            let name = if x { X_FORWARDED_FOR } else { FORWARDED };
            let (address, ignored) = seen("10.0.0.1", &[(&name, &line)]);
            let spoilt = !x && address == "10.0.0.1" && ignored == Some(Ignored::Malformed);
            prop_assert!(spoilt || (address == "192.0.2.1" && ignored.is_none()), "{} {:?}", address, ignored);
        }
    }
}
