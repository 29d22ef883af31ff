//! The keys that tokens are signed with.

use std::fmt;

use super::PublicKey;

/// Longest name of a key, in bytes. Names are made by people or are a hash in text.
pub const KID_BYTES: usize = 64;
/// Shortest secret that tokens are signed with, in bytes: as long as the hash (RFC 7518 §3.2). A shorter one, above all
/// an empty one, could be guessed, so that keys with it count as unknown.
pub const SECRET_BYTES: usize = 32;
/// Longest such secret, in bytes. More adds nothing: HMAC hashes what is longer than 64.
pub const SECRET_BYTES_MAX: usize = 1_024;

/// How tokens are signed. What is not here, above all `none`, does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// Ed25519.
    EdDsa,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// RSA PKCS #1 v1.5 with SHA-256.
    Rs256,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Algorithm; 4] = [Self::Hs256, Self::EdDsa, Self::Es256, Self::Rs256];

    /// The name in a token's header (RFC 7518 §3.1, RFC 8037 §3.1).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }

    /// The algorithm of this name, letter by letter: `hs256` is none.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }
}

/// What signatures are verified with. Its kind decides the algorithm, so that no key is ever used with another one.
#[derive(Clone, PartialEq, Eq)]
pub enum Material {
    /// A secret that the tenant and the cluster share: tokens are made with it, too.
    Secret(Vec<u8>),
    /// The public half of a key that the tenant has for itself.
    Public(PublicKey),
}

/// A key that tokens of a tenant are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// Its name within the tenant, `kid` in a token's header.
    pub kid: String,
    /// The key itself.
    pub material: Material,
}

impl SigningKey {
    /// A key for [`Algorithm::Hs256`].
    pub fn hs256(kid: impl Into<String>, secret: impl Into<Vec<u8>>) -> Self {
        Self { kid: kid.into(), material: Material::Secret(secret.into()) }
    }

    /// A key that only the tenant can sign with.
    pub fn public(kid: impl Into<String>, key: PublicKey) -> Self {
        Self { kid: kid.into(), material: Material::Public(key) }
    }

    /// The only algorithm it is used with.
    pub fn algorithm(&self) -> Algorithm {
        match &self.material {
            Material::Secret(_) => Algorithm::Hs256,
            Material::Public(key) => key.algorithm(),
        }
    }

    /// The secret, when it is one that tokens may be made with.
    pub fn secret(&self) -> Option<&[u8]> {
        match &self.material {
            Material::Secret(secret) if is_kid(&self.kid) && secret.len() >= SECRET_BYTES => Some(secret),
            _ => None,
        }
    }

    /// The name in [`super::Tenant::signing_keys`], and the key.
    pub fn entry(self) -> ((String, Algorithm), Self) {
        ((self.kid.clone(), self.algorithm()), self)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm())
            .finish_non_exhaustive()
    }
}

/// Whether a key may be called so in a token's header: it cannot be a path, a query or anything else with a meaning.
pub fn is_kid(text: &str) -> bool {
    (1..=KID_BYTES).contains(&text.len())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
}
