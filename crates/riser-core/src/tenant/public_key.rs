//! Public keys that tenants register: read once, from a JWK (RFC 7517) or from PEM, and kept as their numbers.
//!
//! This is the little of DER that three kinds of `SubjectPublicKeyInfo` need. Whether the numbers make a key that anything
//! can be signed with is not looked at here: with one that does not, no signature is ever good.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::Algorithm;

#[cfg(test)]
mod tests;

/// Bits of an RSA modulus. Fewer can be factored, more cost an edge too much per token.
pub const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=4_096;
/// Longest PEM text, in bytes. A key of 4 096 bits takes 800.
const PEM_BYTES: usize = 4_096;
/// Longest RSA exponent, in bits, as most libraries have it.
const EXPONENT_BITS: usize = 33;

/// A public key.
#[derive(Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// Ed25519, as RFC 8032 writes it.
    Ed25519([u8; 32]),
    /// A point of P-256: its coordinates, without what SEC 1 puts before them.
    P256([u8; 64]),
    /// RSA.
    Rsa {
        /// The modulus, without leading zeros.
        n: Vec<u8>,
        /// The exponent, without leading zeros.
        e: Vec<u8>,
    },
}

/// Why a text is no public key. It repeats nothing of it, since it may be a private one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Neither a JWK nor PEM.
    #[error("neither a JWK nor a public key in PEM (-----BEGIN PUBLIC KEY-----)")]
    Malformed,
    /// Whoever has it can sign: it belongs to the tenant alone.
    #[error("a private key: give the public one, and make a new pair, since this one has left its place")]
    Private,
    /// None of Ed25519, P-256 and RSA.
    #[error("not a kind that is known here: Ed25519, P-256 or RSA")]
    Kind,
    /// A wrong number of bytes.
    #[error("a coordinate or a key of the wrong length")]
    Length,
    /// Not within [`RSA_BITS`].
    #[error("an RSA key has 2048 to 4096 bits here")]
    RsaBits,
    /// An RSA key whose modulus or exponent is even, or whose exponent is 1 or very large.
    #[error("an RSA key whose modulus or exponent is none")]
    RsaNumbers,
    /// The JWK says that it is for something else.
    #[error("its `use`, `key_ops` or `alg` says that it is not for verifying such signatures")]
    Purpose,
}

impl PublicKey {
    /// The only algorithm it is used with.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Ed25519(_) => Algorithm::EdDsa,
            Self::P256(_) => Algorithm::Es256,
            Self::Rsa { .. } => Algorithm::Rs256,
        }
    }

    /// Reads a JWK, given as an object, or PEM, given as a string.
    pub fn read(value: &Value) -> Result<Self, PublicKeyError> {
        match value {
            Value::Object(jwk) => Self::from_jwk(jwk),
            Value::String(pem) => Self::from_pem(pem),
            _ => Err(PublicKeyError::Malformed),
        }
    }

    /// Reads a JWK. Members that say nothing about the key itself are left alone.
    pub fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, PublicKeyError> {
        // `k` is a shared secret, the others are the private halves of RFC 7518 §6.
        if ["d", "k", "p", "q", "dp", "dq", "qi", "oth"].iter().any(|name| jwk.contains_key(*name)) {
            return Err(PublicKeyError::Private);
        }
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| {
            let text = text(name).ok_or(PublicKeyError::Malformed)?;
            URL_SAFE_NO_PAD.decode(text).map_err(|_| PublicKeyError::Malformed)
        };
        let key = match (text("kty"), text("crv")) {
            (Some("OKP"), Some("Ed25519")) => {
                Self::Ed25519(bytes("x")?.try_into().map_err(|_| PublicKeyError::Length)?)
            }
            (Some("EC"), Some("P-256")) => {
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != 32 || y.len() != 32 {
                    return Err(PublicKeyError::Length);
                }
                Self::P256([x, y].concat().try_into().map_err(|_| PublicKeyError::Length)?)
            }
            (Some("RSA"), None) => Self::rsa(&bytes("n")?, &bytes("e")?)?,
            (Some(_), _) => return Err(PublicKeyError::Kind),
            (None, _) => return Err(PublicKeyError::Malformed),
        };
        let good_use = jwk.get("use").is_none_or(|of| of == "sig");
        let good_alg = jwk.get("alg").is_none_or(|of| of == key.algorithm().as_str());
        let verifies = |ops: &Value| ops.as_array().is_some_and(|ops| ops.iter().any(|op| op == "verify"));
        if good_use && good_alg && jwk.get("key_ops").is_none_or(verifies) {
            Ok(key)
        } else {
            Err(PublicKeyError::Purpose)
        }
    }

    /// Reads one `PUBLIC KEY` block of PEM (RFC 7468 §13). Text around it is no part of a key, and refused.
    pub fn from_pem(text: &str) -> Result<Self, PublicKeyError> {
        if text.contains("PRIVATE KEY-----") {
            return Err(PublicKeyError::Private);
        }
        let inner = text.trim().strip_prefix("-----BEGIN PUBLIC KEY-----").filter(|_| text.len() <= PEM_BYTES);
        let inner = inner.and_then(|rest| rest.strip_suffix("-----END PUBLIC KEY-----"));
        let base64: String = inner.ok_or(PublicKeyError::Malformed)?.split_ascii_whitespace().collect();
        let der = STANDARD.decode(base64).map_err(|_| PublicKeyError::Malformed)?;
        Self::from_spki(&der)
    }

    /// Reads a `SubjectPublicKeyInfo` in DER (RFC 5280 §4.1).
    fn from_spki(der: &[u8]) -> Result<Self, PublicKeyError> {
        // DER writes each of these in one way only, so that whole identifiers are compared.
        const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
        const P256: &[u8] = &[
            0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01,
            0x07,
        ];
        const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
        let mut outer = Der(der);
        let mut info = Der(outer.take(SEQUENCE)?);
        let (identifier, key) = (info.take(SEQUENCE)?, info.take(BIT_STRING)?);
        outer.end()?;
        info.end()?;
        // No bit of the last byte is left unused.
        let key = key.strip_prefix(&[0]).ok_or(PublicKeyError::Malformed)?;
        match identifier {
            ED25519 => Ok(Self::Ed25519(key.try_into().map_err(|_| PublicKeyError::Length)?)),
            P256 => {
                let point = key.strip_prefix(&[4]).ok_or(PublicKeyError::Length)?;
                Ok(Self::P256(point.try_into().map_err(|_| PublicKeyError::Length)?))
            }
            RSA => {
                let mut outer = Der(key);
                let mut numbers = Der(outer.take(SEQUENCE)?);
                let (n, e) = (numbers.positive()?, numbers.positive()?);
                outer.end()?;
                numbers.end()?;
                Self::rsa(n, e)
            }
            _ => Err(PublicKeyError::Kind),
        }
    }

    fn rsa(n: &[u8], e: &[u8]) -> Result<Self, PublicKeyError> {
        let (n, e) = (unpadded(n), unpadded(e));
        if !RSA_BITS.contains(&bits(n)) {
            return Err(PublicKeyError::RsaBits);
        }
        let odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
        if odd(n) && odd(e) && (2..=EXPONENT_BITS).contains(&bits(e)) {
            Ok(Self::Rsa { n: n.to_vec(), e: e.to_vec() })
        } else {
            Err(PublicKeyError::RsaNumbers)
        }
    }
}

/// The number without leading zeros.
fn unpadded(number: &[u8]) -> &[u8] {
    &number[number.iter().position(|&byte| byte != 0).unwrap_or(number.len())..]
}

fn bits(unpadded: &[u8]) -> usize {
    unpadded.first().map_or(0, |first| unpadded.len() * 8 - first.leading_zeros() as usize)
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;

/// What is left of some DER.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The inside of the next element, which must be of this kind and written in the shortest way.
    fn take(&mut self, tag: u8) -> Result<&'a [u8], PublicKeyError> {
        let (length, rest) = match *self.0 {
            [found, length @ 0..=0x7f, ref rest @ ..] if found == tag => (usize::from(length), rest),
            [found, 0x81, length @ 0x80..=0xff, ref rest @ ..] if found == tag => (usize::from(length), rest),
            [found, 0x82, high @ 1..=0xff, low, ref rest @ ..] if found == tag => {
                (usize::from(u16::from_be_bytes([high, low])), rest)
            }
            _ => return Err(PublicKeyError::Malformed),
        };
        let (inside, rest) = rest.split_at_checked(length).ok_or(PublicKeyError::Malformed)?;
        self.0 = rest;
        Ok(inside)
    }

    /// A whole number that is not negative.
    fn positive(&mut self) -> Result<&'a [u8], PublicKeyError> {
        match self.take(INTEGER)? {
            [] | [0x80..=0xff, ..] | [0, 0..=0x7f, ..] => Err(PublicKeyError::Malformed),
            number => Ok(number),
        }
    }

    fn end(&self) -> Result<(), PublicKeyError> {
        if self.0.is_empty() { Ok(()) } else { Err(PublicKeyError::Malformed) }
    }
}

/// As a JWK of the members that make the key, in the order of RFC 7638.
impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Ed25519(x) => {
                let mut jwk = serializer.serialize_struct("Jwk", 3)?;
                jwk.serialize_field("crv", "Ed25519")?;
                jwk.serialize_field("kty", "OKP")?;
                jwk.serialize_field("x", &text(x))?;
                jwk.end()
            }
            Self::P256(point) => {
                let mut jwk = serializer.serialize_struct("Jwk", 4)?;
                jwk.serialize_field("crv", "P-256")?;
                jwk.serialize_field("kty", "EC")?;
                jwk.serialize_field("x", &text(&point[..32]))?;
                jwk.serialize_field("y", &text(&point[32..]))?;
                jwk.end()
            }
            Self::Rsa { n, e } => {
                let mut jwk = serializer.serialize_struct("Jwk", 3)?;
                jwk.serialize_field("e", &text(e))?;
                jwk.serialize_field("kty", "RSA")?;
                jwk.serialize_field("n", &text(n))?;
                jwk.end()
            }
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm().as_str())
    }
}
