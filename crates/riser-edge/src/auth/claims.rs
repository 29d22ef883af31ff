//! The inside of a token: its claims, as they are read and as they are written.

use std::borrow::Cow;

use riser_core::frame::MAX_N;
use riser_core::frame::fields::Fields;
use riser_core::grant::{GRANTS, Grant, Identity, Peer, gateway_grants};
use riser_core::id::{Address, TenantId};
use riser_core::tenant::revoked::JTI_BYTES;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{AuthError, LEEWAY, is_subject};

/// What tokens for Riser say in `aud`.
pub(super) const AUDIENCE: &str = "riser";
/// `peer` of a gateway's token.
pub(super) const GATEWAY: &str = "gateway";
/// `peer` of a client's token.
pub(super) const CLIENT: &str = "client";
/// The latest date in a token, in seconds: what every JSON parser keeps exactly.
pub(super) const DATE_MAX: u64 = MAX_N;

/// The claims of a token that is being made.
#[derive(Serialize)]
pub(super) struct Claims<'a> {
    pub(super) iss: &'a TenantId,
    pub(super) aud: &'static str,
    pub(super) sub: Cow<'a, str>,
    pub(super) peer: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) grants: Option<&'a [Grant]>,
    pub(super) iat: u64,
    pub(super) exp: u64,
    pub(super) jti: String,
}

/// `aud` is a string or a list (RFC 7519 §4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    List(Vec<String>),
}

impl Audience {
    /// A list with another audience in it is refused: whoever else takes the token could use it here.
    fn is_riser(&self) -> bool {
        match self {
            Self::One(one) => one == AUDIENCE,
            Self::List(list) => matches!(list.as_slice(), [one] if one == AUDIENCE),
        }
    }
}

/// Reads claims whose signature was verified: who it is, and the token's id. Claims that are not known are ignored.
pub(super) fn identity(claims: &str, tenant: TenantId, now_ms: u64) -> Result<(Identity, Box<str>), AuthError> {
    let fields = Fields::parse(claims).map_err(|_| AuthError::Malformed)?;
    let audience: Audience = fields.required("aud").map_err(|_| AuthError::BadClaims)?;
    if !audience.is_riser() {
        return Err(AuthError::WrongAudience);
    }
    let jti: String = fields.required("jti").map_err(|_| AuthError::BadClaims)?;
    if !(1..=JTI_BYTES).contains(&jti.len()) {
        return Err(AuthError::BadClaims);
    }
    let (peer, grants) = read_peer(&fields)?;
    let (iat, exp) = read_dates(&fields, now_ms)?;
    let identity = Identity {
        tenant,
        peer,
        grants,
        expires_at_ms: Some(exp.saturating_mul(1000)),
        lifetime_ms: Some(exp.saturating_sub(iat).saturating_mul(1000)),
    };
    Ok((identity, jti.into()))
}

fn read_peer(fields: &Fields<'_>) -> Result<(Peer, Vec<Grant>), AuthError> {
    let peer: String = fields.required("peer").map_err(|_| AuthError::BadClaims)?;
    let subject: String = fields.required("sub").map_err(|_| AuthError::BadClaims)?;
    match peer.as_str() {
        GATEWAY => {
            let address: Address = subject.parse().map_err(|_| AuthError::BadClaims)?;
            // A gateway's rights follow from its address. A token that says otherwise was not understood.
            if !address.is_gateway() || fields.names().any(|name| name == "grants") {
                return Err(AuthError::BadClaims);
            }
            let grants = gateway_grants(&address);
            Ok((Peer::Gateway { address }, grants))
        }
        CLIENT if is_subject(&subject) => Ok((Peer::Client { subject }, read_grants(fields)?)),
        _ => Err(AuthError::BadClaims),
    }
}

/// The grants that are understood; the others are void.
fn read_grants(fields: &Fields<'_>) -> Result<Vec<Grant>, AuthError> {
    let list: Vec<&RawValue> = fields.required("grants").map_err(|_| AuthError::BadClaims)?;
    if !(1..=GRANTS).contains(&list.len()) {
        return Err(AuthError::BadClaims);
    }
    Ok(list.into_iter().filter_map(|raw| serde_json::from_str(raw.get()).ok()).collect())
}

/// `iat` and `exp`, in seconds, when `now_ms` lies within them and after `nbf`, give or take [`LEEWAY`].
fn read_dates(fields: &Fields<'_>, now_ms: u64) -> Result<(u64, u64), AuthError> {
    let iat = read_date(fields, "iat")?;
    let exp = read_date(fields, "exp")?;
    let nbf = if fields.names().any(|name| name == "nbf") { read_date(fields, "nbf")? } else { iat };
    let leeway = LEEWAY.as_secs();
    if now_ms >= exp.saturating_add(leeway).saturating_mul(1000) {
        return Err(AuthError::Expired);
    }
    if now_ms < iat.max(nbf).saturating_sub(leeway).saturating_mul(1000) {
        return Err(AuthError::NotYetValid);
    }
    Ok((iat, exp))
}

/// A `NumericDate` as Riser takes it: whole seconds, not negative, at most [`DATE_MAX`].
fn read_date(fields: &Fields<'_>, name: &'static str) -> Result<u64, AuthError> {
    let date: u64 = fields.required(name).map_err(|_| AuthError::BadClaims)?;
    if date <= DATE_MAX { Ok(date) } else { Err(AuthError::BadClaims) }
}
