//! Credentials: what a peer shows, and what it proves.
//!
//! An edge verifies a credential by itself, from the tenant table alone: no look-up stands in the way of a reconnect
//! storm. [`verify`] is a pure function of the table, the credential and the cluster's clock. Nothing in a token is
//! believed before its signature was, except `iss`, `kid` and `alg`, which only choose the key: it is found by all three
//! together, so that a tenant's key never vouches for another tenant, and is used with its own algorithm alone. Tokens
//! are made by [`mint`](fn@mint) and [`renew`], from the same claims.

mod claims;
mod jwt;
mod lockout;
mod mint;
mod order;
mod refusal;
mod standing;
mod uses;

use std::net::IpAddr;
use std::time::Duration;

use riser_core::close::{CloseCode, ErrorCode};
use riser_core::frame::Credential;
use riser_core::frame::inbound::CREDENTIAL_BYTES;
use riser_core::grant::{Identity, Peer, SUBJECT_BYTES};
use riser_core::path::is_hidden;
use riser_core::tenant::api_key::{API_KEY_BYTES, API_KEY_PREFIX, api_key_text, is_api_key};
use riser_core::tenant::{HashKey, KeyHash, TenantTable};

pub(crate) use lockout::{Lockout, WINDOW as LOCKOUT};
pub use mint::{MintError, Minted, mint, renew};
pub use standing::Proof;
pub(crate) use standing::{Lapse, Standing, lapse};
pub(crate) use uses::{KeyUse, KeyUses};

pub use order::{
    CLIENT_TTL_DEFAULT_S, CLIENT_TTL_MAX_S, GATEWAY_TTL_DEFAULT_S, GATEWAY_TTL_MAX_S, ORDER_BYTES, TokenOrder,
};

/// How far a token's `exp`, `nbf` and `iat` may be off: what clocks in flats and in back ends are off by.
pub const LEEWAY: Duration = Duration::from_secs(60);

/// Why a credential was refused. Nothing in it, nor in what it prints, comes out of the credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AuthError {
    /// Too long, no API key and no JWT, or a JWT with a header that is not allowed.
    #[error("the credential is malformed")]
    Malformed,
    /// An `iss` that is no tenant here.
    #[error("{UNPROVEN}")]
    UnknownTenant,
    /// The tenant has no key of this name for this algorithm; `none` is never one.
    #[error("{UNPROVEN}")]
    UnknownKey,
    /// The signature is not the key's.
    #[error("{UNPROVEN}")]
    BadSignature,
    /// No tenant has this API key.
    #[error("{UNPROVEN}")]
    UnknownApiKey,
    /// `exp` is past, by more than [`LEEWAY`].
    #[error("the credential has expired")]
    Expired,
    /// `nbf` or `iat` is to come, by more than [`LEEWAY`].
    #[error("the credential is not valid yet")]
    NotYetValid,
    /// Made for something else than Riser.
    #[error("the credential is for another audience")]
    WrongAudience,
    /// A claim is missing or is not what it must be.
    #[error("the credential's claims are incomplete or wrong")]
    BadClaims,
    /// The credential is good and its tenant is suspended.
    #[error("the tenant is suspended")]
    Suspended,
    /// The token was good until it was revoked.
    #[error("the credential was revoked")]
    Revoked,
    /// The API key is good, and not from here.
    #[error("the API key may not be used from this address")]
    WrongAddress,
    /// Too many wrong API keys came from the same address: this one was not looked at.
    #[error("too many wrong API keys came from this address")]
    LockedOut,
}

/// One text for all that a stranger can cause, so that nobody finds out which tenants and keys there are.
const UNPROVEN: &str = "the credential is not valid";

impl AuthError {
    /// Every reason.
    pub const ALL: [AuthError; 13] = [
        Self::Malformed,
        Self::UnknownTenant,
        Self::UnknownKey,
        Self::BadSignature,
        Self::UnknownApiKey,
        Self::Expired,
        Self::NotYetValid,
        Self::WrongAudience,
        Self::BadClaims,
        Self::Suspended,
        Self::Revoked,
        Self::WrongAddress,
        Self::LockedOut,
    ];

    /// The reason as a label of metrics and a field of logs. Not for the peer, who gets the `Display`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownTenant => "unknown_tenant",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::UnknownApiKey => "unknown_api_key",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongAudience => "wrong_audience",
            Self::BadClaims => "bad_claims",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
            Self::WrongAddress => "wrong_address",
            Self::LockedOut => "locked_out",
        }
    }

    /// The answer to a request that came with it.
    pub fn http_status(self) -> http::StatusCode {
        match self {
            Self::Suspended | Self::WrongAddress => http::StatusCode::FORBIDDEN,
            Self::LockedOut => http::StatusCode::TOO_MANY_REQUESTS,
            _ => http::StatusCode::UNAUTHORIZED,
        }
    }

    /// The end of a session whose `hello` came with it.
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::Suspended | Self::WrongAddress => CloseCode::NotAllowed,
            Self::Revoked => CloseCode::Revoked,
            Self::LockedOut => CloseCode::OverLimit,
            _ => CloseCode::BadCredential,
        }
    }

    /// The answer to an `auth` frame, and the `code` in a problem.
    pub fn error_code(self) -> ErrorCode {
        match self {
            Self::LockedOut => ErrorCode::RateLimited,
            _ => ErrorCode::Forbidden,
        }
    }

    /// When to try again, if waiting helps.
    pub fn retry_after(self) -> Option<Duration> {
        (self == Self::LockedOut).then_some(LOCKOUT)
    }
}

/// Says whom a credential proves, at `now_ms` on the cluster's clock, in Unix milliseconds.
///
/// A client's token keeps only the grants that are understood: one with an unknown word or member is void and left out.
/// When none is left, the identity is good and may do nothing.
pub fn verify(table: &TenantTable, credential: &Credential, now_ms: u64) -> Result<Identity, AuthError> {
    let seen = Seen { now_ms, from: None, hash_key: None };
    verify_with_proof(table, credential, &seen).map(|(identity, _)| identity)
}

/// What a credential is looked at with.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Unix milliseconds on the cluster's clock.
    pub now_ms: u64,
    /// Where it comes from, if that is known.
    pub from: Option<IpAddr>,
    /// The secret that API keys are hashed with, if the cluster has one.
    pub hash_key: Option<&'a HashKey>,
}

/// The same as [`verify`], with all that counts, and with what stands for the key that the credential was checked with.
pub fn verify_with_proof(
    table: &TenantTable,
    credential: &Credential,
    seen: &Seen<'_>,
) -> Result<(Identity, Proof), AuthError> {
    let text = credential.expose();
    if text.len() > CREDENTIAL_BYTES {
        return Err(AuthError::Malformed);
    }
    if is_api_key_like(credential) {
        return verify_api_key(table, text, seen);
    }
    let unverified = jwt::Unverified::parse(text)?;
    let tenant_id = unverified.issuer()?;
    let tenant = table.get(&tenant_id).ok_or(AuthError::UnknownTenant)?;
    let (claims, key) = unverified.verify(tenant)?;
    let (identity, jti) = claims::identity(&claims, tenant_id, seen.now_ms)?;
    if tenant.revoked.covers(&jti, &identity.peer, identity.issued_at_ms()) {
        return Err(AuthError::Revoked);
    }
    let proof = Proof::of_token(key, jti);
    if tenant.is_suspended() { Err(AuthError::Suspended) } else { Ok((identity, proof)) }
}

/// Whether a credential says of itself that it is an API key.
pub(crate) fn is_api_key_like(credential: &Credential) -> bool {
    credential.expose().starts_with(API_KEY_PREFIX)
}

/// What this tells a stranger by how long it takes is whether the checksum is right, which everybody can compute, and
/// whether the hash of what was sent is somebody's, which helps nobody to find the next one.
fn verify_api_key(table: &TenantTable, text: &str, seen: &Seen<'_>) -> Result<(Identity, Proof), AuthError> {
    if !is_api_key(text) {
        return Err(AuthError::UnknownApiKey);
    }
    // Keys from before the cluster had a secret keep their plain hashes.
    let plain = table.api_key(&KeyHash::of(text, None)).map(|found| (KeyHash::of(text, None), found));
    let keyed = || {
        let hash = KeyHash::of(text, Some(seen.hash_key?));
        Some((hash, table.api_key(&hash)?))
    };
    let (hash, (id, tenant, key)) = plain.or_else(keyed).ok_or(AuthError::UnknownApiKey)?;
    if tenant.is_suspended() {
        return Err(AuthError::Suspended);
    }
    if !key.is_live(seen.now_ms) {
        return Err(AuthError::Expired);
    }
    if !key.may_come_from(seen.from) {
        return Err(AuthError::WrongAddress);
    }
    let identity = Identity {
        tenant: id.clone(),
        peer: Peer::Client { subject: key.name.clone() },
        grants: key.scope.clone(),
        expires_at_ms: key.expires_at_ms,
        lifetime_ms: None,
    };
    Ok((identity, Proof::of_api_key(&hash, seen.from)))
}

/// Makes an API key: the key, to be shown once, and what is kept of it.
pub fn new_api_key(hash_key: Option<&HashKey>) -> (String, KeyHash) {
    let secret: [u8; API_KEY_BYTES] = random().expect("the operating system gives random bytes");
    let key = api_key_text(&secret);
    let hash = KeyHash::of(&key, hash_key);
    (key, hash)
}

fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// Whether a text may name a client: 1 to 128 bytes, nothing that a terminal or a log line would not show.
fn is_subject(text: &str) -> bool {
    (1..=SUBJECT_BYTES).contains(&text.len()) && !text.chars().any(is_hidden)
}
