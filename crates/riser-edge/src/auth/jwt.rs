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
use riser_core::tenant::signing::is_kid;
use riser_core::tenant::{Algorithm, Material, PublicKey, SigningKey, Tenant};
use sha2::Sha256;

use super::AuthError;

/// The only members a header may have. What changes how a token is read (`crit`, `b64`) or where its key comes from
/// (`jku`, `jwk`, `x5u`, `x5c`) is refused with all else that is not known.
const HEADER_MEMBERS: [&str; 3] = ["alg", "kid", "typ"];
/// A token whose form is right and of which nothing is proven.
pub(super) struct Unverified<'a> {
    /// The header and the claims as they were signed.
    signed: &'a str,
    kid: String,
    algorithm: Algorithm,
    claims: String,
    signature: Vec<u8>,
}

impl<'a> Unverified<'a> {
    /// Takes a token apart.
    pub(super) fn parse(token: &'a str) -> Result<Self, AuthError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(AuthError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(AuthError::Malformed)?;
        // A fourth part shows as a dot in one of them, which base64url does not have.
        let (kid, algorithm) = read_header(&decode_json(header)?)?;
        let claims = decode_json(claims)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| AuthError::Malformed)?;
        Ok(Self { signed, kid, algorithm, claims, signature })
    }

    /// The tenant that the token says it is of: good for nothing but to find the key.
    pub(super) fn issuer(&self) -> Result<TenantId, AuthError> {
        let fields = Fields::parse(&self.claims).map_err(|_| AuthError::Malformed)?;
        let issuer: String = fields.required("iss").map_err(|_| AuthError::BadClaims)?;
        TenantId::from_str(&issuer).map_err(|_| AuthError::UnknownTenant)
    }

    /// The claims, once the signature is found to be the tenant's, and the key that it was found by.
    pub(super) fn verify(self, tenant: &Tenant) -> Result<(String, &SigningKey), AuthError> {
        let name = (self.kid, self.algorithm);
        let key = tenant.signing_keys.get(&name).ok_or(AuthError::UnknownKey)?;
        // What the key is made of decides how: a public key is never a secret, whatever name it stands under.
        match &key.material {
            Material::Secret(_) if self.algorithm == Algorithm::Hs256 => {
                let secret = key.secret().ok_or(AuthError::UnknownKey)?;
                // The comparison takes the same time wherever the signatures differ.
                mac(secret, self.signed).verify_slice(&self.signature).map_err(|_| AuthError::BadSignature)?;
            }
            Material::Public(public) if self.algorithm == public.algorithm() => {
                if !is_signed(public, self.signed.as_bytes(), &self.signature) {
                    return Err(AuthError::BadSignature);
                }
            }
            _ => return Err(AuthError::UnknownKey),
        }
        Ok((self.claims, key))
    }
}

/// Whether a public key finds a signature right: for ES256 the two numbers side by side (RFC 7518 §3.4), never in DER.
fn is_signed(key: &PublicKey, signed: &[u8], signature: &[u8]) -> bool {
    use ring::signature::{
        ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
    };
    let verified = match key {
        PublicKey::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(signed, signature),
        PublicKey::P256(point) => {
            let mut uncompressed = [4; 65];
            uncompressed[1..].copy_from_slice(point);
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, uncompressed).verify(signed, signature)
        }
        PublicKey::Rsa { n, e } => {
            RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature)
        }
    };
    verified.is_ok()
}

/// Signs a header and claims for [`Algorithm::Hs256`]: the whole token.
pub(super) fn sign(secret: &[u8], header: &[u8], claims: &[u8]) -> String {
    let mut token = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = mac(secret, &token).finalize().into_bytes();
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    token
}

fn mac(secret: &[u8], signed: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(signed.as_bytes());
    mac
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
    let algorithm = Algorithm::named(&algorithm).ok_or(AuthError::UnknownKey)?;
    Ok((kid, algorithm))
}
