//! Tenants themselves.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use riser_core::TenantId;
use riser_core::tenant::doc::DOC_VERSION;
use riser_core::tenant::{DocError, TenantDoc, Writer};
use riser_ops::Refused;
use riser_ops::request::bad;
use serde_json::{Value, json};

use super::{Answer, Call, random, refused};
use crate::control::Control;
use riser_tenants::Read;

/// What may be said of a tenant when it is made.
const NEW: [&str; 8] = ["tenant", "status", "origins", "renewal", "audit_commands", "retention", "limits", "quotas"];
/// What may be changed of one.
const CHANGED: [&str; 7] = ["status", "origins", "renewal", "audit_commands", "retention", "limits", "signing_kid"];
/// Random bytes of a signing key that is made here: as many as the hash that it keys.
pub(super) const SIGNING_BYTES: usize = 32;

/// A tenant as people see it: nothing that lets anybody in.
fn shown(read: &Read) -> Value {
    // The document knows how each of its fields is written.
    let doc: Value = serde_json::from_str(&read.doc.to_json()).unwrap_or(Value::Null);
    let tenant = &read.doc.tenant;
    json!({
            "tenant": doc["tenant"],
            "status": doc["status"],
            "origins": doc["origins"],
            "renewal": doc["renewal"],
            "audit_commands": doc["audit_commands"],
            "retention": doc.get("retention").cloned().unwrap_or_else(|| json!({})),
            "limits": doc["limits"],
            "quotas": doc.get("quotas").cloned().unwrap_or_else(|| json!({})),
            "signing_kid": tenant.signing_kid,
            "api_keys": tenant.api_keys.len(),
            "signing_keys": tenant.signing_keys.len(),
            "revision": read.revision,
    })
}

pub(super) fn wrong(error: &DocError) -> Refused {
    bad(error.to_string())
}

pub(super) async fn list(control: &Control, call: &Call) -> Result<Answer, Refused> {
    let after: Option<TenantId> =
        call.asked(0).map(str::parse).transpose().map_err(|_| bad("`cursor`: not what an answer of this call gave"))?;
    let limit = call.limit(1)?;
    let (all, unreadable) = control.store.all().await.map_err(refused)?;
    if unreadable > 0 {
        tracing::error!(unreadable, "documents of tenants cannot be read, and are not listed");
    }
    let mut rest = all.into_iter().filter(|(id, _)| after.as_ref().is_none_or(|after| id > after));
    let page: Vec<_> = rest.by_ref().take(limit).collect();
    let next = rest.next().and_then(|_| page.last().map(|(id, _)| id.to_string()));
    let rows: Vec<Value> = page.iter().map(|(_, read)| shown(read)).collect();
    Ok(Answer::ok(json!({ "tenants": rows, "next": next })))
}

pub(super) async fn create(control: &Control, call: Call) -> Result<Answer, Refused> {
    call.body.only(&NEW)?;
    let mut doc = call.body.rest();
    let (kid, secret) = new_secret()?;
    doc["version"] = json!(DOC_VERSION);
    doc["signing_kid"] = json!(kid);
    doc["signing_keys"] = json!([{ "kid": kid, "alg": "HS256", "secret": secret }]);
    let doc = TenantDoc::of(doc, Writer::Person).map_err(|error| wrong(&error))?;
    let read = control.store.create(&doc).await.map_err(refused)?;
    control.tell(&doc.id, &call.caller, "tenant.create", json!({})).await;
    Ok(Answer::created(shown(&read), format!("/admin/v1/tenants/{}", doc.id)).at(&read))
}

/// The name and the text of a signing key that is made here.
pub(super) fn new_secret() -> Result<(String, String), Refused> {
    let name = u32::from_be_bytes(random()?);
    Ok((format!("riser-{name:08x}"), URL_SAFE_NO_PAD.encode(random::<SIGNING_BYTES>()?)))
}

pub(super) async fn show(control: &Control, call: &Call) -> Result<Answer, Refused> {
    let read = control.store.get(&call.tenant()?).await.map_err(refused)?;
    Ok(Answer::ok(shown(&read)).at(&read))
}

pub(super) async fn change(control: &Control, call: Call) -> Result<Answer, Refused> {
    let id = call.tenant()?;
    call.body.only(&CHANGED)?;
    let (names, Value::Object(changes)) = (call.body.names(), call.body.rest()) else { return Err(bad("the body")) };
    let change = |doc: &mut TenantDoc| {
        let mut whole: Value = serde_json::from_str(&doc.to_json()).map_err(|_| bad("the document"))?;
        for (name, change) in &changes {
            match (&mut whole[name], change) {
                // Of limits and retention only what is given is changed.
                (Value::Object(fields), Value::Object(changes)) => {
                    fields.extend(changes.iter().map(|(name, value)| (name.clone(), value.clone())));
                }
                (field, change) => *field = change.clone(),
            }
        }
        *doc = TenantDoc::of(whole, Writer::Person).map_err(|error| wrong(&error))?;
        Ok(())
    };
    let ((), read) = control.change(&id, call.expected, change).await?;
    control.tell(&id, &call.caller, "tenant.change", json!({ "changed": names })).await;
    Ok(Answer::ok(shown(&read)).at(&read))
}

pub(super) async fn delete(control: &Control, call: &Call) -> Result<Answer, Refused> {
    let id = call.tenant()?;
    control.store.bury(&id, call.expected, control.now_ms()).await.map_err(refused)?;
    let erased = control.erase(&id).await?;
    // Its events are erased, and this would be the first of another life.
    let (who, from) = (&call.caller.who, call.caller.from);
    tracing::warn!(tenant = %id, who, %from, events = erased.events, gateways = erased.registry.gateways, "deleted");
    let registry = erased.registry;
    Ok(Answer::ok(json!({
        "tenant": id,
        "events": erased.events,
        "gateways": registry.gateways,
        "values": registry.values,
        "commands": registry.commands,
        "flats": erased.flats,
    })))
}
