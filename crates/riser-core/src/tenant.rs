//! The tenant table: all that an edge must know to verify a credential by itself.

use std::collections::BTreeMap;
use std::fmt;

use crate::grant::Grant;
use crate::id::TenantId;
use crate::limits::Limits;

/// How tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
}

impl Algorithm {
    /// The name in a token's header (RFC 7518 §3.1).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
        }
    }
}

/// A key that tokens of a tenant are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// Its name within the tenant, `kid` in a token's header.
    pub kid: String,
    /// The only algorithm it is used with.
    pub algorithm: Algorithm,
    /// The secret itself.
    pub secret: Vec<u8>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// An API key as it is stored: what it hashes to, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its name in logs and as a session's subject; tells nothing about the key.
    pub name: String,
    /// SHA-256 of the whole key. The key is 256 random bits, so that a plain hash cannot be searched.
    pub hash: [u8; 32],
    /// What it may do.
    pub scope: Vec<Grant>,
}

/// A tenant as edges know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Suspended tenants' sessions are refused and ended.
    pub suspended: bool,
    /// Origins that browsers may come from; none means any.
    pub origins: Option<Vec<String>>,
    /// Whether gateways may renew their own tokens.
    pub renewal: bool,
    /// The key that new tokens are signed with.
    pub signing_kid: String,
    /// Keys that tokens are verified with, by (kid, algorithm).
    pub signing_keys: BTreeMap<(String, Algorithm), SigningKey>,
    /// API keys.
    pub api_keys: Vec<ApiKey>,
    /// What one session or gateway of the tenant may use.
    pub limits: Limits,
}

/// All tenants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TenantTable {
    /// The tenants by name.
    pub tenants: BTreeMap<TenantId, Tenant>,
}

impl TenantTable {
    /// The tenant and the API key whose hash this is.
    pub fn api_key(&self, hash: &[u8; 32]) -> Option<(&TenantId, &Tenant, &ApiKey)> {
        // Comparing hashes of 256-bit random keys leaks nothing that helps to find a key.
        self.tenants
            .iter()
            .find_map(|(id, tenant)| tenant.api_keys.iter().find(|key| &key.hash == hash).map(|key| (id, tenant, key)))
    }

    /// Whether any tenant lets a browser of this origin in: what can be checked before the credential is known.
    pub fn allows_origin(&self, origin: &str) -> bool {
        self.tenants.values().any(|tenant| tenant.allows_origin(Some(origin)))
    }
}

impl Tenant {
    /// Whether a peer with this `Origin` may connect. No origin means no browser.
    pub fn allows_origin(&self, origin: Option<&str>) -> bool {
        match (origin, &self.origins) {
            (None, _) | (_, None) => true,
            (Some(origin), Some(list)) => list.iter().any(|allowed| allowed == origin),
        }
    }
}
