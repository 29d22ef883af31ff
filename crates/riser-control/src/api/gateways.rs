//! A tenant's gateways, as the registry knows them.

use riser_bus::Subject;
use riser_core::routed::{self, ToEdge};
use riser_core::{Address, BuildingId, GatewayId, GatewayKey, Presence};
use riser_ops::request::bad;
use riser_ops::{Problem, Refused};
use serde_json::{Value, json};

use super::{Answer, Call, refused, unavailable};
use crate::control::Control;

fn row(building: &BuildingId, gateway: &GatewayId, presence: &Presence) -> Value {
    json!({
        "of": format!("{building}/{gateway}"),
        "online": presence.online,
        "since_ms": presence.since_ms,
        "epoch": presence.epoch.0,
        "edge": presence.edge,
        "reason": presence.reason.map(riser_core::Reason::as_str),
    })
}

pub(super) async fn list(control: &Control, call: &Call) -> Result<Answer, Refused> {
    let tenant = call.tenant()?;
    let only: Option<BuildingId> =
        call.asked(0).map(str::parse).transpose().map_err(|error| bad(format!("`building`: {error}")))?;
    let unknown = |_| bad("`cursor`: not what an answer of this call gave");
    let after: Option<Address> = call.asked(1).map(str::parse).transpose().map_err(unknown)?;
    let limit = call.limit(2)?;
    control.store.get(&tenant).await.map_err(refused)?;
    let nobody = |_| unavailable("the registry does not answer");
    let buildings = match only {
        Some(building) => vec![building],
        None => control.ports.state.buildings(&tenant).await.map_err(nobody)?,
    };
    let mut rows = vec![];
    let mut last = None;
    for building in buildings {
        if after.as_ref().is_some_and(|after| *after.building() > building) {
            continue;
        }
        let from = after.as_ref().filter(|after| *after.building() == building).map(Address::gateway);
        // One more than wanted shows whether there are more.
        let left = limit + 1 - rows.len();
        let page = control.ports.registry.presence(&tenant, &building, from, left).await.map_err(nobody)?;
        for (gateway, presence) in page {
            if rows.len() == limit {
                return Ok(Answer::ok(json!({ "gateways": rows, "next": last })));
            }
            rows.push(row(&building, &gateway, &presence));
            last = Some(format!("{building}/{gateway}"));
        }
    }
    Ok(Answer::ok(json!({ "gateways": rows, "next": null })))
}

pub(super) async fn kick(control: &Control, call: &Call) -> Result<Answer, Refused> {
    let tenant = call.tenant()?;
    let address = format!("{}/{}", call.part(1), call.part(2));
    let address: Address = address.parse().map_err(|error| bad(format!("path: {error}")))?;
    control.store.get(&tenant).await.map_err(refused)?;
    let audit = control.ports.registry.audit(&tenant, address.building()).await;
    let audit = audit.map_err(|_| unavailable("the registry does not answer"))?;
    let held = audit.into_iter().find(|held| held.gateway == *address.gateway());
    let Some((held, lease)) = held.and_then(|held| held.lease.clone().map(|lease| (held, lease))) else {
        let problem = Problem::not_found("this gateway is not connected");
        return Err(Refused::new("not_found", problem));
    };
    let (epoch, of) = (held.version.epoch, address.to_string());
    let subject = Subject::Edge(lease.edge.clone(), GatewayKey::new(tenant.clone(), address));
    let notice = routed::encode(&ToEdge::Kick { epoch });
    let told = control.ports.bus.publish(&subject, notice.into()).await;
    told.map_err(|_| unavailable("the bus does not take the word to the gateway's edge"))?;
    control.tell(&tenant, &call.caller, "gateway.kick", json!({ "gateway": of })).await;
    Ok(Answer::ok(json!({ "of": of, "edge": lease.edge, "epoch": epoch.0 })))
}
