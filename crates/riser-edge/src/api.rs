//! The HTTP API of a tenant's own back end.

pub(crate) mod commands;
pub(crate) mod enrol;
pub(crate) mod events;
pub(crate) mod gateways;
pub(crate) mod routes;
mod schema;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use riser_core::frame::outbound;
use riser_core::{
    Address, BuildingId, GatewayId, GatewayKey, Identity, Label, PathFilter, Pattern, Peer, Presence, TenantId, Verb,
};
use riser_ops::request::{bad, json, query};
use riser_registry::PRESENCE_PAGE;
use riser_tenants::flats::Flat;
use serde::Serialize;
use tokio::time::timeout;

use crate::auth::{self, ORDER_BYTES, TokenOrder};
use crate::http::Refused;
use crate::hub::names;
use crate::problem::Problem;
use crate::shared::Shared;

/// Gateways on one page of presence when the request does not say.
const PAGE: usize = 100;

/// Why a flat is offline that is registered and never was connected.
const NEVER: &str = "never_connected";

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
    if let Peer::Gateway { address } = &order.peer {
        shared.note_token(&identity.tenant, address, &minted);
    }
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
    let (snapshot, label) = tokio::join!(shared.read(&key), label(shared, &key));
    let Some(snapshot) = snapshot.map_err(|_| unavailable())? else {
        let problem = Problem::not_found("nothing is known of this gateway: it has never connected");
        return Err(Refused::new("unknown_gateway", problem));
    };
    Ok(json(StatusCode::OK, outbound::whole_snapshot(&key.address, label.as_ref(), &snapshot, &filter)))
}

/// What a flat is called. Its state is told also when that cannot be read, and while that is so nobody waits for it.
async fn label(shared: &Shared, key: &GatewayKey) -> Option<Label> {
    let store = shared.ports.keep.as_ref().filter(|_| !shared.names_silence.holds())?;
    let read = timeout(names::WAIT, store.flats().flat(key)).await;
    if let Ok(Ok(flat)) = read {
        return flat.and_then(Flat::into_label);
    }
    if shared.names_silence.begin() {
        let GatewayKey { tenant, address } = key;
        tracing::warn!(%tenant, %address, "cannot read a flat; its state goes without its name, and so do others for a while");
    }
    None
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
    let flats = flats(shared, &identity.tenant, &building).await;
    // When credentials end is for those who look after them.
    let manages = identity.allows(Verb::Manage, &Pattern::Building(building.clone()), &PathFilter::ALL);
    let page = Page::new(&building, &page, &flats, after.as_ref(), limit, manages);
    Ok(json(StatusCode::OK, riser_core::Json::of(&page).as_str().to_owned()))
}

/// What is registered of a building. Presence is told also when that cannot be read.
async fn flats(shared: &Shared, tenant: &TenantId, building: &BuildingId) -> BTreeMap<GatewayId, Flat> {
    let Some(store) = &shared.ports.keep else { return BTreeMap::new() };
    let read = timeout(shared.config.call, store.flats().building(tenant, building)).await;
    if let Ok(Ok(flats)) = read {
        return flats;
    }
    tracing::warn!(%tenant, %building, "cannot read the flats of a building; presence goes without their names");
    BTreeMap::new()
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
    since_ms: Option<u64>,
    epoch: Option<u64>,
    edge: Option<&'a str>,
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    floor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_expires_at_ms: Option<u64>,
}

impl<'a> Page<'a> {
    /// A page of what is known of a building, by name: gateways that were ever connected, and flats that are registered.
    /// `page` has the first of the former, as many as a page may have.
    fn new(
        building: &BuildingId,
        page: &'a [(GatewayId, Presence)],
        flats: &'a BTreeMap<GatewayId, Flat>,
        after: Option<&GatewayId>,
        limit: usize,
        manages: bool,
    ) -> Self {
        // Behind the last of a full page there may be more that are not in it.
        let last = (page.len() == limit).then(|| page.last().map(|(gateway, _)| gateway)).flatten();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let registered = flats.range::<GatewayId, _>((from, last.map_or(Bound::Unbounded, Bound::Included)));
        let mut all: BTreeMap<&GatewayId, Option<&Presence>> = registered.map(|(gateway, _)| (gateway, None)).collect();
        all.extend(page.iter().map(|(gateway, presence)| (gateway, Some(presence))));
        let row = |(gateway, presence): (&'a GatewayId, Option<&'a Presence>)| {
            let flat = flats.get(gateway);
            Row {
                of: format!("{building}/{gateway}"),
                online: presence.is_some_and(|p| p.online),
                since_ms: presence.map(|p| p.since_ms),
                epoch: presence.map(|p| p.epoch.0),
                edge: presence.and_then(|p| p.edge.as_ref()).map(riser_core::EdgeId::as_str),
                reason: presence.map_or(Some(NEVER), |p| p.reason.map(riser_core::Reason::as_str)),
                name: flat.and_then(|flat| flat.name.as_deref()),
                floor: flat.and_then(|flat| flat.floor.as_deref()),
                token_expires_at_ms: flat.filter(|_| manages).and_then(|flat| flat.token_expires_at_ms),
            }
        };
        let more = all.len() > limit || last.is_some();
        let furthest = all.keys().take(limit).next_back().map(ToString::to_string);
        let gateways = all.into_iter().take(limit).map(row).collect();
        let next = furthest.filter(|_| more);
        Self { gateways, next }
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
