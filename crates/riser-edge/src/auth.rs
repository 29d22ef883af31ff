//! Credentials: what a peer shows, and what it proves.
//!
//! An edge verifies a credential by itself, from the tenant table alone: no look-up stands in the way of a reconnect
//! storm. [`verify`] is a pure function of the table, the credential and the cluster's clock. Nothing in a token is
//! believed before its signature was, except `iss`, `kid` and `alg`, which only choose the key: it is found by all three
//! together, so that a tenant's key never vouches for another tenant, and is used with its own algorithm alone. Tokens
//! are made by [`mint`](fn@mint) and [`renew`], from the same claims.

mod claims;
mod jwt;
mod mint;
mod order;
mod refusal;
mod standing;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use riser_core::close::{CloseCode, ErrorCode};
use riser_core::frame::Credential;
use riser_core::frame::inbound::CREDENTIAL_BYTES;
use riser_core::grant::{Identity, Peer, SUBJECT_BYTES};
use riser_core::path::is_hidden;
use riser_core::tenant::TenantTable;
pub use riser_ops::request::API_KEY_PREFIX;
use sha2::{Digest, Sha256};

pub use jwt::is_kid;
pub use mint::{MintError, Minted, mint, renew};
pub use standing::Proof;
pub(crate) use standing::{Lapse, Standing, lapse};

pub use order::{
    CLIENT_TTL_DEFAULT_S, CLIENT_TTL_MAX_S, GATEWAY_TTL_DEFAULT_S, GATEWAY_TTL_MAX_S, ORDER_BYTES, TokenOrder,
};

/// How far a token's `exp`, `nbf` and `iat` may be off: what clocks in flats and in back ends are off by.
pub const LEEWAY: Duration = Duration::from_secs(60);
/// Shortest secret that tokens are signed with, in bytes: as long as the hash (RFC 7518 §3.2). A shorter one, above all
/// an empty one, could be guessed, so that keys with it count as unknown.
pub const SECRET_BYTES: usize = 32;
/// Random bytes in an API key: so many that its plain hash cannot be searched.
const API_KEY_BYTES: usize = 32;

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
}

/// One text for all that a stranger can cause, so that nobody finds out which tenants and keys there are.
const UNPROVEN: &str = "the credential is not valid";

impl AuthError {
    /// Every reason.
    pub const ALL: [AuthError; 10] = [
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
        }
    }

    /// The answer to a request that came with it.
    pub fn http_status(self) -> http::StatusCode {
        match self {
            Self::Suspended => http::StatusCode::FORBIDDEN,
            _ => http::StatusCode::UNAUTHORIZED,
        }
    }

    /// The end of a session whose `hello` came with it.
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::Suspended => CloseCode::NotAllowed,
            _ => CloseCode::BadCredential,
        }
    }

    /// The answer to an `auth` frame, and the `code` in a problem.
    pub fn error_code(self) -> ErrorCode {
        ErrorCode::Forbidden
    }
}

/// Says whom a credential proves, at `now_ms` on the cluster's clock, in Unix milliseconds.
///
/// A client's token keeps only the grants that are understood: one with an unknown word or member is void and left out.
/// When none is left, the identity is good and may do nothing.
pub fn verify(table: &TenantTable, credential: &Credential, now_ms: u64) -> Result<Identity, AuthError> {
    verify_with_proof(table, credential, now_ms).map(|(identity, _)| identity)
}

/// The same, with what stands for the key that the credential was checked with.
pub(crate) fn verify_with_proof(
    table: &TenantTable,
    credential: &Credential,
    now_ms: u64,
) -> Result<(Identity, Proof), AuthError> {
    let text = credential.expose();
    if text.len() > CREDENTIAL_BYTES {
        return Err(AuthError::Malformed);
    }
    if text.starts_with(API_KEY_PREFIX) {
        return verify_api_key(table, text);
    }
    let unverified = jwt::Unverified::parse(text)?;
    let tenant_id = unverified.issuer()?;
    let tenant = table.tenants.get(&tenant_id).ok_or(AuthError::UnknownTenant)?;
    let (claims, proof) = unverified.verify(tenant)?;
    let identity = claims::identity(&claims, tenant_id, now_ms)?;
    if tenant.suspended { Err(AuthError::Suspended) } else { Ok((identity, proof)) }
}

fn verify_api_key(table: &TenantTable, text: &str) -> Result<(Identity, Proof), AuthError> {
    let (id, tenant, key) = table.api_key(&hash_api_key(text)).ok_or(AuthError::UnknownApiKey)?;
    if tenant.suspended {
        return Err(AuthError::Suspended);
    }
    let identity = Identity {
        tenant: id.clone(),
        peer: Peer::Client { subject: key.name.clone() },
        grants: key.scope.clone(),
        expires_at_ms: None,
        lifetime_ms: None,
    };
    Ok((identity, Proof::of_api_key(&key.hash)))
}

/// Makes an API key: the key, to be shown once, and its hash, to be kept.
pub fn new_api_key() -> (String, [u8; 32]) {
    let secret: [u8; API_KEY_BYTES] = random().expect("the operating system gives random bytes");
    let key = format!("{API_KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));
    let hash = hash_api_key(&key);
    (key, hash)
}

/// What the tenant table keeps of an API key: SHA-256 of the whole text.
pub fn hash_api_key(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
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
