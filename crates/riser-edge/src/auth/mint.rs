//! Making tokens: for whoever may order one, and for gateways that renew theirs.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use riser_core::close::ErrorCode;
use riser_core::frame::inbound::CREDENTIAL_BYTES;
use riser_core::grant::{GRANTS, Identity, Peer};
use riser_core::id::TenantId;
use riser_core::tenant::{SigningKey, Tenant};
use serde::Serialize;

use super::claims::{AUDIENCE, CLIENT, Claims, DATE_MAX, GATEWAY};
use super::order::TokenOrder;
use super::{LEEWAY, is_subject, jwt, random};

/// Random bytes in a `jti`: no two tokens share one.
const JTI_RANDOM_BYTES: usize = 16;

/// A token that was made.
#[derive(Clone, PartialEq, Eq)]
pub struct Minted {
    /// The token. It goes to whoever asked for it and nowhere else.
    pub token: String,
    /// Its `iat`, in Unix milliseconds.
    pub issued_at_ms: u64,
    /// Its `exp`, in Unix milliseconds.
    pub expires_at_ms: u64,
}

impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minted").field("expires_at_ms", &self.expires_at_ms).finish_non_exhaustive()
    }
}

/// Why no token was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// Who asks may not have one.
    #[error("this credential may not be renewed")]
    Forbidden,
    /// An order that no token can be made of; says what is wrong with it.
    #[error("{0}")]
    BadOrder(&'static str),
    /// The token would be longer than what [`super::verify`] takes.
    #[error("the grants are too long for a token of {CREDENTIAL_BYTES} bytes")]
    TooLarge,
    /// The tenant's `signing_kid` names no key that may be used.
    #[error("the tenant has no usable key to sign with")]
    NoSigningKey,
    /// The operating system gave no random bytes.
    #[error("no random bytes could be had")]
    NoRandomness,
}

impl MintError {
    /// The code in an `error` frame or a problem.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Forbidden => ErrorCode::Forbidden,
            Self::BadOrder(_) | Self::TooLarge => ErrorCode::BadFrame,
            Self::NoSigningKey | Self::NoRandomness => ErrorCode::Internal,
        }
    }
}

/// Makes the token that was ordered, with the tenant's signing key, valid from `now_ms` (Unix milliseconds on the
/// cluster's clock, cut to the second). Whether the order may be made at all is [`TokenOrder::parse`]'s to say.
pub fn mint(tenant_id: &TenantId, tenant: &Tenant, order: &TokenOrder, now_ms: u64) -> Result<Minted, MintError> {
    let (sub, peer, grants): (Cow<'_, str>, _, _) = match &order.peer {
        Peer::Gateway { address } if !address.is_gateway() => {
            return Err(MintError::BadOrder("a building or a tenant is no gateway"));
        }
        Peer::Gateway { .. } if !order.grants.is_empty() => {
            return Err(MintError::BadOrder("a gateway's grants follow from its address"));
        }
        Peer::Gateway { address } => (address.to_string().into(), GATEWAY, None),
        Peer::Client { subject } if !is_subject(subject) => {
            return Err(MintError::BadOrder("not a subject: 1 to 128 bytes, no control characters"));
        }
        Peer::Client { .. } if !(1..=GRANTS).contains(&order.grants.len()) => {
            return Err(MintError::BadOrder("not 1 to 64 grants"));
        }
        Peer::Client { subject } => (subject.into(), CLIENT, Some(order.grants.as_slice())),
    };
    if order.ttl_s == 0 {
        return Err(MintError::BadOrder("no token is valid for no time"));
    }
    // What was revoked in the second that is running is revoked to its end: a token of the next one is good.
    let revoked_before = match &order.peer {
        Peer::Gateway { address } => tenant.revoked.gateways.get(address),
        Peer::Client { subject } => tenant.revoked.subjects.get(subject),
    };
    let iat = revoked_before.map_or(now_ms, |&before| before.min(now_ms + 1000).max(now_ms)) / 1000;
    let exp = iat.saturating_add(order.ttl_s).min(DATE_MAX);
    let jti = random::<JTI_RANDOM_BYTES>().map_err(|_| MintError::NoRandomness)?;
    let jti = URL_SAFE_NO_PAD.encode(jti);
    let claims = Claims { iss: tenant_id, aud: AUDIENCE, sub, peer, grants, iat, exp, jti };
    let [issued_at_ms, expires_at_ms] = [iat, exp].map(|time| time.saturating_mul(1000));
    Ok(Minted { token: sign(signing_key(tenant)?, &claims)?, issued_at_ms, expires_at_ms })
}

/// The shortest lifetime that a renewed token gets, in seconds: one that has run out already would renew nothing.
const SHORTEST_S: u64 = 60;

/// Makes a gateway a token of the same rights and the same lifetime as the one it came with, valid from `now_ms`.
///
/// [`MintError::Forbidden`] when the tenant forbids renewal or is suspended, when the credential is no gateway's token,
/// and when it has run out itself.
pub fn renew(identity: &Identity, tenant: &Tenant, now_ms: u64) -> Result<Minted, MintError> {
    let (Peer::Gateway { .. }, Some(expires_at_ms), Some(lifetime_ms)) =
        (&identity.peer, identity.expires_at_ms, identity.lifetime_ms)
    else {
        return Err(MintError::Forbidden);
    };
    let leeway_ms = LEEWAY.as_secs().saturating_mul(1000);
    if !tenant.renewal || tenant.is_suspended() || now_ms >= expires_at_ms.saturating_add(leeway_ms) {
        return Err(MintError::Forbidden);
    }
    let order =
        TokenOrder { peer: identity.peer.clone(), grants: Vec::new(), ttl_s: (lifetime_ms / 1000).max(SHORTEST_S) };
    mint(&identity.tenant, tenant, &order, now_ms)
}

fn signing_key(tenant: &Tenant) -> Result<&SigningKey, MintError> {
    tenant.minting_key().ok_or(MintError::NoSigningKey)
}

fn sign(key: &SigningKey, claims: &Claims<'_>) -> Result<String, MintError> {
    #[derive(Serialize)]
    struct Header<'a> {
        alg: &'static str,
        typ: &'static str,
        kid: &'a str,
    }
    let secret = key.secret().ok_or(MintError::NoSigningKey)?;
    let header = Header { alg: key.algorithm().as_str(), typ: "JWT", kid: &key.kid };
    let json = |value: serde_json::Result<Vec<u8>>| value.expect("these types have only strings as keys");
    let token = jwt::sign(secret, &json(serde_json::to_vec(&header)), &json(serde_json::to_vec(claims)));
    if token.len() > CREDENTIAL_BYTES { Err(MintError::TooLarge) } else { Ok(token) }
}
