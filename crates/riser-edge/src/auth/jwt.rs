//! The outside of a token: three parts, a header that is allowed, a signature that is right.
//!
//! This is the little of RFC 7515 that Riser's tokens need, and deliberately no more: a general library offers keys out
//! of headers, keys behind URLs and unsigned tokens, and each of these has been somebody's hole. What is inside is in
//! [`super::claims`].

use std::str::FromStr as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use riser_core::frame::fields::Fields;
use riser_core::id::TenantId;
use riser_core::json::Json;
use riser_core::tenant::{Algorithm, SigningKey, Tenant};
use sha2::Sha256;

use super::standing::Proof;
use super::{AuthError, SECRET_BYTES};

/// Longest name of a key, in bytes. Names are made by people or are a hash in text.
pub(super) const KID_BYTES: usize = 64;
/// The only members a header may have. What changes how a token is read (`crit`, `b64`) or where its key comes from
/// (`jku`, `jwk`, `x5u`, `x5c`) is refused with all else that is not known.
const HEADER_MEMBERS: [&str; 3] = ["alg", "kid", "typ"];
/// Bytes of a signature.
const SIGNATURE_BYTES: usize = 32;

/// A token whose form is right and of which nothing is proven.
pub(super) struct Unverified<'a> {
    /// The header and the claims as they were signed.
    signed: &'a str,
    kid: String,
    algorithm: Algorithm,
    claims: String,
    signature: [u8; SIGNATURE_BYTES],
}

impl<'a> Unverified<'a> {
    /// Takes a token apart.
    pub(super) fn parse(token: &'a str) -> Result<Self, AuthError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(AuthError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(AuthError::Malformed)?;
        // A fourth part shows as a dot in one of them, which base64url does not have.
        let (kid, algorithm) = read_header(&decode_json(header)?)?;
        let claims = decode_json(claims)?;
        let bytes = URL_SAFE_NO_PAD.decode(signature).map_err(|_| AuthError::Malformed)?;
        let signature = bytes.try_into().map_err(|_| AuthError::BadSignature)?;
        Ok(Self { signed, kid, algorithm, claims, signature })
    }

    /// The tenant that the token says it is of: good for nothing but to find the key.
    pub(super) fn issuer(&self) -> Result<TenantId, AuthError> {
        let fields = Fields::parse(&self.claims).map_err(|_| AuthError::Malformed)?;
        let issuer: String = fields.required("iss").map_err(|_| AuthError::BadClaims)?;
        TenantId::from_str(&issuer).map_err(|_| AuthError::UnknownTenant)
    }

    /// The claims, once the signature is found to be the tenant's.
    pub(super) fn verify(self, tenant: &Tenant) -> Result<(String, Proof), AuthError> {
        let name = (self.kid, self.algorithm);
        let key = tenant.signing_keys.get(&name).filter(|key| is_usable(key)).ok_or(AuthError::UnknownKey)?;
        // The comparison takes the same time wherever the signatures differ.
        mac(key, self.signed).verify_slice(&self.signature).map_err(|_| AuthError::BadSignature)?;
        Ok((self.claims, Proof::of_signing_key(key)))
    }
}

/// Signs a header and claims: the whole token.
pub(super) fn sign(key: &SigningKey, header: &[u8], claims: &[u8]) -> String {
    let mut token = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = mac(key, &token).finalize().into_bytes();
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    token
}

/// Whether tokens are made and believed with this key.
pub(super) fn is_usable(key: &SigningKey) -> bool {
    is_kid(&key.kid) && key.secret.len() >= SECRET_BYTES
}

/// Whether a key may be called so in a token's header.
pub fn is_kid(text: &str) -> bool {
    (1..=KID_BYTES).contains(&text.len())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
}

fn mac(key: &SigningKey, signed: &str) -> Hmac<Sha256> {
    match key.algorithm {
        Algorithm::Hs256 => {
            let mut mac = Hmac::<Sha256>::new_from_slice(&key.secret).expect("HMAC takes keys of any length");
            mac.update(signed.as_bytes());
            mac
        }
    }
}

/// One part as JSON text: no member twice at any depth, no deeper than [`riser_core::json::JSON_DEPTH`].
fn decode_json(part: &str) -> Result<String, AuthError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| AuthError::Malformed)?;
    let text = String::from_utf8(bytes).map_err(|_| AuthError::Malformed)?;
    Json::parse(&text).map_err(|_| AuthError::Malformed)?;
    Ok(text)
}

fn read_header(text: &str) -> Result<(String, Algorithm), AuthError> {
    let fields = Fields::parse(text).map_err(|_| AuthError::Malformed)?;
    if !fields.names().all(|name| HEADER_MEMBERS.contains(&name)) {
        return Err(AuthError::Malformed);
    }
    let algorithm: String = fields.required("alg").map_err(|_| AuthError::Malformed)?;
    let kid: String = fields.required("kid").map_err(|_| AuthError::Malformed)?;
    // Whatever type it says: `aud` tells what a token is for, and back ends name the type as their library does.
    let _typ: Option<String> = fields.optional("typ").map_err(|_| AuthError::Malformed)?;
    if !is_kid(&kid) {
        return Err(AuthError::Malformed);
    }
    let known = Algorithm::Hs256;
    if algorithm == known.as_str() { Ok((kid, known)) } else { Err(AuthError::UnknownKey) }
}
