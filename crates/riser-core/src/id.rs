//! Who is who: tenants, buildings, gateways, edges, and the patterns that name several of them.
//!
//! This is the one parser of identities. Every name is a short run of ASCII letters, digits, `-` and `_`, so
//! that none can hold what a subject, a key or a log line gives a meaning to (`.`, `*`, `>`, `:`, `{`, blanks).

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest tenant name, in bytes.
pub const TENANT_BYTES: usize = 40;
/// Longest part of an address, in bytes.
pub const PART_BYTES: usize = 64;

/// Why a name was refused. It never repeats the name, which may hold anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a tenant.
    #[error("not a tenant name: 1 to 40 of a-z, 0-9 and -, neither first nor last a -")]
    Tenant,
    /// Not a building or gateway.
    #[error("not a part of an address: 1 to 64 of A-Z, a-z, 0-9, _ and -, first a letter or digit")]
    Part,
    /// Not `building/gateway`.
    #[error("not an address: building/gateway, building/_ or _/_")]
    Address,
    /// Not a pattern.
    #[error("not a pattern: an address, building/* or */*")]
    Pattern,
    /// Not an edge.
    #[error("not an edge name: 1 to 64 of A-Z, a-z, 0-9, _ and -, first a letter or digit")]
    Edge,
}

fn is_tenant(s: &str) -> bool {
    let b = s.as_bytes();
    let edge = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends = matches!((b.first(), b.last()), (Some(&a), Some(&z)) if edge(a) && edge(z));
    ends && b.len() <= TENANT_BYTES && b.iter().all(|&c| edge(c) || c == b'-')
}

fn is_part(s: &str) -> bool {
    let b = s.as_bytes();
    b.first().is_some_and(u8::is_ascii_alphanumeric)
        && b.len() <= PART_BYTES
        && b.iter().all(|&c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:expr, $error:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> bool = $check;
                if check(s) { Ok(Self(s.into())) } else { Err($error) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        text_serde!($name);
    };
}

/// Serialises a type by its `Display` and reads it back by its `FromStr`.
macro_rules! text_serde {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use text_serde;

name!(
    /// An organisation on the cluster.
    TenantId, is_tenant, NameError::Tenant
);
name!(
    /// A building of a tenant, or `_` for the whole tenant.
    BuildingId, |s| s == "_" || is_part(s), NameError::Part
);
name!(
    /// A gateway in a building, or `_` for the building itself.
    GatewayId, |s| s == "_" || is_part(s), NameError::Part
);
name!(
    /// An edge of the cluster.
    EdgeId, is_part, NameError::Edge
);

/// `building/gateway`: where a frame belongs, within one tenant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    building: BuildingId,
    gateway: GatewayId,
}

impl Address {
    /// Joins a building and a gateway. `_/x` is no address: a tenant has no gateways outside its buildings.
    pub fn new(building: BuildingId, gateway: GatewayId) -> Result<Self, NameError> {
        if building.as_str() == "_" && gateway.as_str() != "_" {
            return Err(NameError::Address);
        }
        Ok(Self { building, gateway })
    }

    /// The building.
    pub fn building(&self) -> &BuildingId {
        &self.building
    }

    /// The gateway.
    pub fn gateway(&self) -> &GatewayId {
        &self.gateway
    }

    /// Whether a device can stand behind it; `building/_` and `_/_` are the building and the tenant themselves.
    pub fn is_gateway(&self) -> bool {
        self.gateway.as_str() != "_"
    }
}

impl FromStr for Address {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let (building, gateway) = s.split_once('/').ok_or(NameError::Address)?;
        let parse = || Self::new(building.parse()?, gateway.parse()?);
        parse().map_err(|_| NameError::Address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.building, self.gateway)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

text_serde!(Address);

/// A gateway in the whole cluster: whose, and where. Only a grant's tenant may become part of one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GatewayKey {
    /// Whose it is, from the credential alone.
    pub tenant: TenantId,
    /// Where it is.
    pub address: Address,
}

impl GatewayKey {
    /// Joins the tenant of a credential with a parsed address.
    pub fn new(tenant: TenantId, address: Address) -> Self {
        Self { tenant, address }
    }
}

impl fmt::Display for GatewayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.address)
    }
}

/// What a subscription or a grant names: one address, all of a building, or all of the tenant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Pattern {
    /// One address.
    One(Address),
    /// `building/*`: all its gateways and `building/_`.
    Building(BuildingId),
    /// `*/*`: everything of the tenant.
    All,
}

impl Pattern {
    /// Whether the pattern names this address.
    pub fn matches(&self, address: &Address) -> bool {
        match self {
            Self::One(one) => one == address,
            Self::Building(building) => building == address.building(),
            Self::All => true,
        }
    }

    /// Whether everything that `other` names is named by this pattern too.
    pub fn contains(&self, other: &Pattern) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (_, Self::One(address)) => self.matches(address),
            (Self::Building(a), Self::Building(b)) => a == b,
            _ => false,
        }
    }
}

impl FromStr for Pattern {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        if s == "*/*" {
            return Ok(Self::All);
        }
        match s.strip_suffix("/*") {
            Some("_") | None => Ok(Self::One(s.parse().map_err(|_| NameError::Pattern)?)),
            Some(building) => Ok(Self::Building(building.parse().map_err(|_| NameError::Pattern)?)),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(address) => address.fmt(f),
            Self::Building(building) => write!(f, "{building}/*"),
            Self::All => f.write_str("*/*"),
        }
    }
}

text_serde!(Pattern);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_no_identities() {
        let long = "a".repeat(1024);
        for bad in [
            "",
            "*",
            ">",
            "a.b",
            " ",
            "a b",
            "a\r\nPUB x",
            "$SYS",
            "_INBOX",
            "a\0",
            "a\u{202e}",
            "e\u{301}",
            "\u{e9}",
            "\u{430}",
            "-a",
            "a/b",
            "{}",
            ":",
            "a:b",
            "+",
            "#",
            "__",
            long.as_str(),
        ] {
            assert!(bad.parse::<TenantId>().is_err(), "tenant {bad:?}");
            assert!(bad.parse::<GatewayId>().is_err(), "gateway {bad:?}");
            assert!(bad.parse::<BuildingId>().is_err(), "building {bad:?}");
            assert!(bad.parse::<EdgeId>().is_err(), "edge {bad:?}");
            assert!(format!("b/{bad}").parse::<Address>().is_err(), "address b/{bad:?}");
        }
        for bad in ["A", "a-", "-", "a_b", &"a".repeat(41)] {
            assert!(bad.parse::<TenantId>().is_err(), "tenant {bad:?}");
        }
        for bad in ["_/x", "b", "b/", "/g", "b/g/x", "*/g", "b/*", "_/*"] {
            assert!(bad.parse::<Address>().is_err(), "address {bad:?}");
        }
        for bad in ["_/*", "*/g", "*", "*/*/*", "b/**", "b*/*"] {
            assert!(bad.parse::<Pattern>().is_err(), "pattern {bad:?}");
        }
    }

    #[test]
    fn names_print_as_they_were_read() {
        for good in ["b12/f0304", "b12/_", "_/_", "fleet/ambulance-7", "A/0"] {
            assert_eq!(good.parse::<Address>().expect("an address").to_string(), good);
            assert_eq!(good.parse::<Pattern>().expect("a pattern").to_string(), good);
        }
        for good in ["b12/*", "*/*"] {
            assert_eq!(good.parse::<Pattern>().expect("a pattern").to_string(), good);
        }
        assert!("a-b".parse::<TenantId>().is_ok());
        assert!("a".repeat(40).parse::<TenantId>().is_ok());
    }

    #[test]
    fn a_pattern_contains_what_it_names_and_no_more() {
        let p = |s: &str| s.parse::<Pattern>().expect("a pattern");
        let rows = [
            ("*/*", "b/*", true),
            ("*/*", "_/_", true),
            ("*/*", "*/*", true),
            ("b/*", "b/g", true),
            ("b/*", "b/_", true),
            ("b/*", "b/*", true),
            ("b/*", "c/g", false),
            ("b/*", "*/*", false),
            ("b/g", "b/*", false),
            ("b/g", "b/h", false),
        ];
        for (outer, inner, expected) in rows {
            assert_eq!(p(outer).contains(&p(inner)), expected, "{outer} contains {inner}");
        }
    }
}
