//! The HTTP API of a tenant's own back end.

pub(crate) mod commands;
pub(crate) mod events;
pub(crate) mod gateways;

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use riser_core::frame::outbound;
use riser_core::{Address, BuildingId, GatewayId, GatewayKey, Identity, PathFilter, Pattern, Presence, Verb};
use riser_ops::request::{bad, json, query};
use riser_registry::PRESENCE_PAGE;
use serde::Serialize;

use crate::auth::{self, ORDER_BYTES, TokenOrder};
use crate::http::Refused;
use crate::problem::Problem;
use crate::shared::Shared;

/// Gateways on one page of presence when the request does not say.
const PAGE: usize = 100;

/// Bytes of rows in one answer, more than the last row goes over it by: a caller goes on with the answer's cursor.
const ROWS_BYTES: usize = 1024 * 1024;

type Answer = Result<Response<Full<Bytes>>, Refused>;

fn unavailable() -> Refused {
    Refused::new("registry_unavailable", Problem::unavailable("the registry does not answer", 2))
}

/// The whole body of a request, of at most `limit` bytes.
async fn body(shared: &Shared, request: Request<Incoming>, limit: usize) -> Result<Bytes, Refused> {
    riser_ops::request::body(request, limit, shared.config.hello).await
}

/// `POST /v1/tokens`.
pub(crate) async fn tokens(shared: &Arc<Shared>, identity: &Identity, request: Request<Incoming>) -> Answer {
    let body = body(shared, request, ORDER_BYTES).await?;
    let order = TokenOrder::parse(&body, identity).map_err(|problem| Refused::new("bad_order", problem))?;
    let now_ms = shared.clock.now_ms();
    let minted = shared.with_tenant(&identity.tenant, |tenant| auth::mint(&identity.tenant, tenant, &order, now_ms));
    let minted = minted.ok_or_else(|| Refused::new("unknown_tenant", Problem::unauthorized()))?;
    let minted = minted.map_err(|error| Refused::new("not_minted", error.into()))?;
    let body = TokenBody { token: &minted.token, expires_at_ms: minted.expires_at_ms };
    Ok(json(StatusCode::CREATED, riser_core::Json::of(&body).as_str().to_owned()))
}

/// `GET /v1/state/{building}/{gateway}`.
pub(crate) async fn state(
    shared: &Arc<Shared>,
    identity: &Identity,
    request: &Request<Incoming>,
    building: &str,
    gateway: &str,
) -> Answer {
    query(request, &[])?;
    let address: Address = format!("{building}/{gateway}").parse().map_err(|e| bad(format!("path: {e}")))?;
    let filter = may_read(identity, &Pattern::One(address.clone()))?;
    let key = GatewayKey::new(identity.tenant.clone(), address);
    let snapshot = shared.read(&key).await.map_err(|_| unavailable())?;
    let Some(snapshot) = snapshot else {
        let problem = Problem::not_found("nothing is known of this gateway: it has never connected");
        return Err(Refused::new("unknown_gateway", problem));
    };
    Ok(json(StatusCode::OK, outbound::whole_snapshot(&key.address, &snapshot, &filter)))
}

/// `GET /v1/presence?building=b12`.
pub(crate) async fn presence(shared: &Arc<Shared>, identity: &Identity, request: &Request<Incoming>) -> Answer {
    let [building, next, limit] = query(request, &["building", "next", "limit"])?[..] else {
        return Err(bad("query"));
    };
    let building: BuildingId = building
        .ok_or_else(|| bad("`building` is missing"))?
        .parse()
        .map_err(|error| bad(format!("`building`: {error}")))?;
    let after: Option<GatewayId> =
        next.map(str::parse).transpose().map_err(|_| bad("`next`: not what an answer of this call gave"))?;
    let limit: usize = match limit {
        Some(text) => text
            .parse()
            .ok()
            .filter(|n| (1..=PRESENCE_PAGE).contains(n))
            .ok_or_else(|| bad(format!("`limit`: not an integer from 1 to {PRESENCE_PAGE}")))?,
        None => PAGE,
    };
    may_read(identity, &Pattern::Building(building.clone()))?;
    let call = shared.ports.registry.presence(&identity.tenant, &building, after.as_ref(), limit);
    let page = shared.call(call).await.map_err(|_| unavailable())?;
    let next = (page.len() == limit).then(|| page.last().map(|(gateway, _)| gateway.to_string())).flatten();
    Ok(json(StatusCode::OK, riser_core::Json::of(&Page::new(&building, &page, next)).as_str().to_owned()))
}

#[derive(Serialize)]
struct TokenBody<'a> {
    token: &'a str,
    expires_at_ms: u64,
}

#[derive(Serialize)]
struct Page<'a> {
    gateways: Vec<Row<'a>>,
    next: Option<String>,
}

#[derive(Serialize)]
struct Row<'a> {
    of: String,
    online: bool,
    since_ms: u64,
    epoch: u64,
    edge: Option<&'a str>,
    reason: Option<&'static str>,
}

impl<'a> Page<'a> {
    fn new(building: &BuildingId, page: &'a [(GatewayId, Presence)], next: Option<String>) -> Self {
        let row = |(gateway, p): &'a (GatewayId, Presence)| Row {
            of: format!("{building}/{gateway}"),
            online: p.online,
            since_ms: p.since_ms,
            epoch: p.epoch.0,
            edge: p.edge.as_ref().map(riser_core::EdgeId::as_str),
            reason: p.reason.map(riser_core::Reason::as_str),
        };
        Self { gateways: page.iter().map(row).collect(), next }
    }
}

/// The paths that the credential shows of a pattern.
fn may_read(identity: &Identity, to: &Pattern) -> Result<PathFilter, Refused> {
    let text = "this credential does not show it";
    identity.paths(Verb::Read, to).ok_or_else(|| Refused::new("forbidden", Problem::forbidden(text)))
}

/// A pattern or address as it stands in a query. Its names hold nothing that is escaped; only what joins them may be.
fn unescaped(text: &str) -> String {
    ["%2F", "%2f"]
        .into_iter()
        .fold(text.to_owned(), |text, slash| text.replace(slash, "/"))
        .replace("%2A", "*")
        .replace("%2a", "*")
}
