//! `POST /v1/enrol`: a one-time code becomes the token of a flat's gateway.

use std::net::IpAddr;
use std::sync::Arc;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use riser_core::frame::fields::Fields;
use riser_core::{ErrorCode, Identity, Peer};
use riser_tenants::flats::{Code, Flats};
use riser_tenants::{FlatsError, Store};
use serde_json::json as value;

use super::gateways::revoke;
use super::{Answer, bad, body, json, query};
use crate::auth::{self, GATEWAY_TTL_DEFAULT_S, LOCKOUT, TokenOrder};
use crate::events::audit::tell;
use crate::http::Refused;
use crate::problem::Problem;
use crate::shared::Shared;

/// Largest body, in bytes: a code and what is around it.
const BODY_BYTES: usize = 1_024;

/// Why a code was refused.
const BAD_CODE: &str = "bad_code";

/// Answers whoever has a code. There is no other credential. A wrong one may cost a read of the store, so that an address
/// that sends many is not listened to for a while.
pub(crate) async fn post(shared: &Arc<Shared>, request: Request<Incoming>, from: IpAddr) -> Answer {
    if shared.is_locked_out_of_enrolment(from) {
        let problem = Problem::rate_limited(u32::try_from(LOCKOUT.as_secs()).unwrap_or(u32::MAX));
        return Err(Refused::new("locked_out", problem));
    }
    let answer = enrol(shared, request, from).await;
    if answer.as_ref().is_err_and(|refused| refused.reason() == BAD_CODE) {
        shared.count_wrong_code(from);
    }
    answer
}

async fn enrol(shared: &Arc<Shared>, request: Request<Incoming>, from: IpAddr) -> Answer {
    query(&request, &[])?;
    let bytes = body(shared, request, BODY_BYTES).await?;
    let Some(store) = &shared.ports.keep else {
        let text = "nothing is enrolled here: the tenants of this cluster come from a file";
        return Err(Refused::new("not_found", Problem::not_found(text)));
    };
    let code = read(&bytes)?;
    let flats = store.flats();
    let now_ms = shared.clock.now_ms();
    let (tenant, address) = (&code.key.tenant, &code.key.address);
    let active = shared.with_tenant(tenant, |tenant| !tenant.is_suspended() && tenant.minting_key().is_some());
    if active != Some(true) {
        // Nobody finds out in this way which tenants there are.
        return Err(refused(FlatsError::BadCode));
    }
    let from_ms = use_up(shared, store, &flats, &code, now_ms).await?;
    let peer = Peer::Gateway { address: address.clone() };
    let order = TokenOrder { peer: peer.clone(), grants: Vec::new(), ttl_s: GATEWAY_TTL_DEFAULT_S };
    let minted = shared.with_tenant(tenant, |of| auth::mint(tenant, of, &order, from_ms));
    let minted = minted.ok_or_else(|| refused(FlatsError::BadCode))?;
    let minted = minted.map_err(|error| Refused::new("not_minted", error.into()))?;
    let who = Identity {
        tenant: tenant.clone(),
        peer,
        grants: Vec::new(),
        expires_at_ms: Some(minted.expires_at_ms),
        lifetime_ms: None,
    };
    tell(shared, &who, from, "gateway.enrol", value!({ "gateway": address })).await;
    let body = value!({
        "tenant": tenant,
        "address": address,
        "token": minted.token,
        "expires_at_ms": minted.expires_at_ms,
    });
    Ok(json(StatusCode::CREATED, body.to_string()))
}

/// Uses a code up, and revokes the device that was enrolled before. Gives the time from which on a token is good.
///
/// The token is made only afterwards, by the one who used the code up and revoked what was before. So its end is noted as that
/// of a token that is made now: earlier by what the revocation takes.
async fn use_up(shared: &Shared, store: &Store, flats: &Flats, code: &Code, now_ms: u64) -> Result<u64, Refused> {
    let again = flats.look(code, now_ms).await.map_err(refused)?;
    let expires_at_ms = (now_ms / 1000).saturating_add(GATEWAY_TTL_DEFAULT_S).saturating_mul(1000);
    flats.enrol(code, now_ms, expires_at_ms).await.map_err(refused)?;
    if again { revoke(shared, store, &code.key).await } else { Ok(now_ms) }
}

fn read(bytes: &[u8]) -> Result<Code, Refused> {
    let text = std::str::from_utf8(bytes).map_err(|_| bad("the body is not UTF-8"))?;
    let fields = Fields::parse(text).map_err(|_| bad("the body is not a JSON object with each field once"))?;
    if fields.names().any(|name| name != "code") {
        return Err(bad("a field that is not known here; known is code"));
    }
    let code: String = fields.required("code").map_err(bad)?;
    code.parse().map_err(refused)
}

fn refused(error: FlatsError) -> Refused {
    let text = error.to_string();
    match error {
        FlatsError::BadCode => Refused::new(BAD_CODE, Problem::forbidden(text)),
        FlatsError::Unavailable | FlatsError::Busy => {
            Refused::new("flats_unavailable", Problem::unavailable("enrolling does not work now; try again", 2))
        }
        FlatsError::TooMany | FlatsError::Unreadable | FlatsError::NoRandomness => {
            tracing::error!(%error, "cannot enrol a gateway");
            let problem = Problem::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Internal, "something broke here");
            Refused::new("internal", problem)
        }
    }
}
