//! The keys that tokens are verified with: those that the cluster signs with, and those that a tenant registered.

use riser_core::tenant::doc::SIGNING_KEYS;
use riser_core::tenant::{Algorithm, SigningKey, TenantDoc};
use riser_ops::{Problem, Refused};
use serde_json::{Value, json};

use super::tenants::{new_secret, wrong};
use super::{Answer, Call, conflict, refused};
use crate::control::Control;

fn shown(doc: &TenantDoc, key: &SigningKey) -> Value {
    let signs = key.kid == doc.tenant.signing_kid && key.algorithm() == Algorithm::Hs256;
    json!({ "kid": key.kid, "alg": key.algorithm().as_str(), "signs": signs })
}

fn all(doc: &TenantDoc) -> Value {
    let keys: Vec<Value> = doc.tenant.signing_keys.values().map(|key| shown(doc, key)).collect();
    json!({ "signing_keys": keys })
}

pub(super) async fn list(control: &Control, call: &Call) -> Result<Answer, Refused> {
    let read = control.store.get(&call.tenant()?).await.map_err(refused)?;
    Ok(Answer::ok(all(&read.doc)).at(&read))
}

pub(super) async fn create(control: &Control, call: Call) -> Result<Answer, Refused> {
    let tenant = call.tenant()?;
    call.body.only(&["kid", "alg", "public_key", "secret"])?;
    let mut wanted = call.body.rest();
    if wanted["alg"] == "HS256" && wanted["secret"].is_null() && wanted["public_key"].is_null() {
        wanted["secret"] = json!(new_secret()?.1);
    }
    let key = SigningKey::wanted(wanted).map_err(|error| wrong(&error))?;
    let change = |doc: &mut TenantDoc| {
        if doc.tenant.signing_keys.contains_key(&(key.kid.clone(), key.algorithm())) {
            return Err(Refused::new("conflict", conflict("there is a key of this kid and algorithm")));
        }
        if doc.tenant.signing_keys.len() >= SIGNING_KEYS {
            let text = format!("a tenant has at most {SIGNING_KEYS} signing keys");
            return Err(Refused::new("conflict", conflict(text)));
        }
        doc.tenant.signing_keys.extend([key.clone().entry()]);
        Ok(())
    };
    let ((), read) = control.change(&tenant, call.expected, change).await?;
    let about = json!({ "kid": key.kid, "alg": key.algorithm().as_str() });
    control.tell(&tenant, &call.caller, "signing_key.create", about).await;
    let location = format!("/admin/v1/tenants/{tenant}/signing-keys/{}", key.kid);
    Ok(Answer::created(shown(&read.doc, &key), location).at(&read))
}

pub(super) async fn remove(control: &Control, call: &Call) -> Result<Answer, Refused> {
    let (tenant, kid) = (call.tenant()?, call.part(1));
    let change = |doc: &mut TenantDoc| {
        let before = doc.tenant.signing_keys.len();
        if doc.tenant.signing_kid == kid {
            let text = "tokens are signed with this key: first set `signing_kid` of the tenant to another";
            return Err(Refused::new("conflict", conflict(text)));
        }
        doc.tenant.signing_keys.retain(|(known, _), _| known != kid);
        if doc.tenant.signing_keys.len() == before {
            return Err(Refused::new("not_found", Problem::not_found("there is no signing key of this kid")));
        }
        Ok(())
    };
    let ((), read) = control.change(&tenant, call.expected, change).await?;
    control.tell(&tenant, &call.caller, "signing_key.remove", json!({ "kid": kid })).await;
    Ok(Answer::ok(all(&read.doc)).at(&read))
}
