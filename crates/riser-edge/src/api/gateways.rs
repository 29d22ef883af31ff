//! What a tenant's back end does to its gateways: closing a session, and erasing a flat that somebody moves out of.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use riser_bus::Subject;
use riser_core::routed::{self, ToEdge};
use riser_core::tenant::TenantDoc;
use riser_core::tenant::revoked::Full;
use riser_core::{Address, EdgeId, Epoch, ErrorCode, GatewayKey, Identity, PathFilter, Pattern, Verb};
use riser_tenants::{Store, StoreError};
use serde_json::json as value;
use tokio::time::{Instant, sleep};

use super::{Answer, bad, json, query, unavailable};
use crate::events::audit::tell;
use crate::http::Refused;
use crate::problem::Problem;
use crate::shared::Shared;

/// How long the session of a gateway that is to be erased may take to end.
const GONE: Duration = Duration::from_secs(5);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(100);

/// `DELETE /v1/sessions/{building}/{gateway}`.
pub(crate) async fn kick(
    shared: &Arc<Shared>,
    identity: &Identity,
    request: &Request<Incoming>,
    from: IpAddr,
    building: &str,
    gateway: &str,
) -> Answer {
    let key = key(identity, request, building, gateway)?;
    // Who may have a token made for the gateway may take its place with it, and so may end its session.
    let to = Pattern::One(key.address.clone());
    if !Verb::USE.iter().all(|&verb| identity.allows(verb, &to, &PathFilter::ALL)) {
        return Err(Refused::new("forbidden", Problem::forbidden("this key may not do everything at this address")));
    }
    let Some((edge, epoch)) = holder(shared, &key).await? else {
        return Err(Refused::new("unknown_gateway", Problem::not_found("this gateway is not connected")));
    };
    close(shared, &key, &edge, epoch).await?;
    // It is done: whoever asked does not wait for the event store.
    let (telling, identity, gateway, busy) = (shared.clone(), identity.clone(), key.address.clone(), shared.busy());
    shared.tasks.spawn(async move {
        tell(&telling, &identity, from, "gateway.kick", value!({ "gateway": gateway })).await;
        drop(busy);
    });
    let body = value!({ "of": key.address, "edge": edge, "epoch": epoch });
    Ok(json(StatusCode::OK, body.to_string()))
}

/// `DELETE /v1/gateways/{building}/{gateway}`.
pub(crate) async fn erase(
    shared: &Arc<Shared>,
    identity: &Identity,
    request: &Request<Incoming>,
    from: IpAddr,
    building: &str,
    gateway: &str,
) -> Answer {
    let key = key(identity, request, building, gateway)?;
    if !identity.allows(Verb::Manage, &Pattern::One(key.address.clone()), &PathFilter::ALL) {
        let text = "no grant of this credential lets it manage this address";
        return Err(Refused::new("forbidden", Problem::forbidden(text)));
    }
    // Its device must not come back and fill again what is being emptied.
    let revoked = match &shared.ports.keep {
        Some(store) => revoke(shared, store, &key).await.map(|_| true)?,
        None => false,
    };
    end_session(shared, &key).await?;
    if let Some(store) = &shared.ports.keep {
        // Before the records: a copy of which there is no record is given back to the registry.
        store.forget_held(&key.tenant, Some(&key.address)).await.map_err(|_| unavailable())?;
        store.flats().forget(&key).await.map_err(|_| unavailable())?;
    }
    let erased = shared.call(shared.ports.registry.erase_gateway(&key)).await.map_err(|_| unavailable())?;
    let events = erase_events(shared, &key).await?;
    tell(shared, identity, from, "gateway.erase", value!({ "gateway": key.address })).await;
    let body = value!({
        "of": key.address,
        "values": erased.values,
        "commands": erased.commands,
        "events": events,
        "revoked": revoked,
    });
    Ok(json(StatusCode::OK, body.to_string()))
}

fn key(identity: &Identity, request: &Request<Incoming>, building: &str, gateway: &str) -> Result<GatewayKey, Refused> {
    query(request, &[])?;
    let address: Address = format!("{building}/{gateway}").parse().map_err(|error| bad(format!("path: {error}")))?;
    if !address.is_gateway() {
        return Err(bad("path: a building or a tenant is no gateway"));
    }
    Ok(GatewayKey::new(identity.tenant.clone(), address))
}

/// Which session holds a gateway, and where.
async fn holder(shared: &Shared, key: &GatewayKey) -> Result<Option<(EdgeId, Epoch)>, Refused> {
    let audit = shared.ports.registry.audit(&key.tenant, key.address.building());
    let held = shared.call(audit).await.map_err(|_| unavailable())?;
    let held = held.into_iter().find(|held| held.gateway == *key.address.gateway());
    Ok(held.and_then(|held| Some((held.lease?.edge, held.version.epoch))))
}

/// Has a session closed, wherever it is.
async fn close(shared: &Shared, key: &GatewayKey, edge: &EdgeId, epoch: Epoch) -> Result<(), Refused> {
    let notice = routed::encode(&ToEdge::Kick { epoch });
    if shared.publish(&Subject::Edge(edge.clone(), key.clone()), notice).await {
        return Ok(());
    }
    Err(Refused::new("bus_unavailable", Problem::unavailable("the gateway's edge cannot be told now", 2)))
}

/// Why a gateway's tokens were not revoked.
#[derive(Debug, thiserror::Error)]
enum NotRevoked {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Full(#[from] Full),
}

/// Revokes all tokens of a gateway that were issued until now. Gives the time from which on one is good again.
pub(crate) async fn revoke(shared: &Shared, store: &Store, key: &GatewayKey) -> Result<u64, Refused> {
    let now_ms = shared.clock.now_ms();
    let change = |doc: &mut TenantDoc| Ok::<_, NotRevoked>(doc.tenant.revoked.gateway(key.address.clone(), now_ms)?);
    match store.change(&key.tenant, None, change).await {
        Ok((from_ms, _)) => Ok(from_ms),
        Err(NotRevoked::Full(full)) => {
            let problem = Problem::new(StatusCode::CONFLICT, ErrorCode::TooMany, full.to_string());
            Err(Refused::new("too_many", problem))
        }
        Err(NotRevoked::Store(error)) => {
            let tenant = &key.tenant;
            tracing::warn!(%tenant, %error, "cannot revoke the tokens of a gateway");
            let text = "the gateway's credentials cannot be revoked now; try again";
            Err(Refused::new("not_revoked", Problem::unavailable(text, 2)))
        }
    }
}

/// Has a gateway's session closed, and waits until it is.
async fn end_session(shared: &Shared, key: &GatewayKey) -> Result<(), Refused> {
    let until = Instant::now() + GONE;
    while let Some((edge, epoch)) = holder(shared, key).await? {
        if Instant::now() >= until {
            let text = "the gateway is still connected, and nothing is erased; try again";
            return Err(Refused::new("still_connected", Problem::unavailable(text, 15)));
        }
        // Again each time: a word on the bus may be lost, and it may come back at once.
        close(shared, key, &edge, epoch).await?;
        sleep(LOOK).await;
    }
    Ok(())
}

/// Erases what happened at the gateway, page by page.
async fn erase_events(shared: &Shared, key: &GatewayKey) -> Result<u64, Refused> {
    let (mut events, mut from) = (0, 1);
    loop {
        let erased = shared.ports.log.erase_gateway(key, from).await;
        let erased = erased.map_err(|_| {
            let text = "not all of its events are erased, since the event store does not answer; try again";
            Refused::new("events_unavailable", Problem::unavailable(text, 5))
        })?;
        events += erased.events;
        match erased.next {
            Some(next) => from = next,
            None => return Ok(events),
        }
    }
}
