//! What a tenant may use, and what it uses.

use riser_core::tenant::{Quotas, TenantDoc};
use riser_ops::Refused;
use riser_registry::Usage;
use serde_json::{Map, Value, json};

use super::tenants::wrong;
use super::{Answer, Call, refused, unavailable};
use crate::control::Control;

fn shown(quotas: &Quotas) -> Value {
    Value::Object(quotas.iter().map(|(quota, limit)| (quota.name().to_owned(), json!(limit))).collect::<Map<_, _>>())
}

pub(super) async fn show(control: &Control, call: &Call) -> Result<Answer, Refused> {
    let read = control.store.get(&call.tenant()?).await.map_err(refused)?;
    Ok(Answer::ok(shown(&read.doc.tenant.quotas)).at(&read))
}

pub(super) async fn set(control: &Control, call: Call) -> Result<Answer, Refused> {
    let tenant = call.tenant()?;
    let quotas = Quotas::wanted(call.body.rest()).map_err(|error| wrong(&error))?;
    let change = |doc: &mut TenantDoc| {
        doc.tenant.quotas = quotas;
        Ok(())
    };
    let ((), read) = control.change(&tenant, call.expected, change).await?;
    control.tell(&tenant, &call.caller, "quotas.set", json!({ "quotas": shown(&quotas) })).await;
    Ok(Answer::ok(shown(&quotas)).at(&read))
}

/// What the registry knows: how many gateways there are and how many of them are connected, and what edges told.
pub(super) async fn usage(control: &Control, call: &Call) -> Result<Answer, Refused> {
    let tenant = call.tenant()?;
    control.store.get(&tenant).await.map_err(refused)?;
    let nobody = |_| unavailable("the registry does not answer");
    let (mut known, mut connected) = (0_u64, 0_u64);
    for building in control.ports.state.buildings(&tenant).await.map_err(nobody)? {
        for held in control.ports.registry.audit(&tenant, &building).await.map_err(nobody)? {
            known += 1;
            connected += u64::from(held.lease.is_some());
        }
    }
    let mut used = Usage::default();
    for usage in control.ports.registry.usage(&tenant).await.map_err(nobody)? {
        used += usage;
    }
    let undecided = control.ports.commands.undecided(&tenant).await.map_err(nobody)?;
    let bounds = control.ports.log.bounds(&tenant).await.map_err(|_| unavailable("the event store does not answer"))?;
    Ok(Answer::ok(json!({
        "gateways_known": known,
        "gateway_sessions": connected,
        "client_sessions": used.client_sessions,
        "subscriptions": used.subscriptions,
        "undecided_commands": undecided,
        "frames_per_s": used.frames_per_s,
        "bytes_per_s": used.bytes_per_s,
        "busy_ms_per_s": used.busy_ms_per_s,
        "events": (bounds.last + 1).saturating_sub(bounds.first),
    })))
}
