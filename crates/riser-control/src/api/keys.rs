//! API keys: shown once, kept as a hash, two of a name at a time.

use riser_core::frame::MAX_N;
use riser_core::tenant::api_key::{API_KEY_BYTES, KEYS_PER_NAME, api_key_text};
use riser_core::tenant::doc::API_KEYS;
use riser_core::tenant::{ApiKey, KeyHash, TenantDoc};
use riser_ops::request::bad;
use riser_ops::{Problem, Refused};
use serde_json::{Value, json};

use super::tenants::wrong;
use super::{Answer, Call, conflict, random, refused};
use crate::control::Control;
use riser_tenants::Read;

/// Letters of a key's name in paths: enough that no two of a tenant share them, and that nothing can be found from them.
const ID_LETTERS: usize = 16;

/// What a key is called in paths and on the command line.
fn id(hash: &KeyHash) -> String {
    let text = hash.to_string();
    text.split_once(':').map_or("", |(_, digits)| digits).chars().take(ID_LETTERS).collect()
}

/// `last_used_ms` is for a list to fill in.
fn shown(hash: &KeyHash, key: &ApiKey, now_ms: u64) -> Value {
    json!({
        "id": id(hash),
        "name": key.name,
        "scope": key.scope,
        "created_at_ms": key.created_at_ms,
        "expires_at_ms": key.expires_at_ms,
        "from": key.from,
        "live": key.is_live(now_ms),
        "last_used_ms": null,
    })
}

/// The key of this name in the path.
fn find<'a>(doc: &'a TenantDoc, wanted: &str) -> Result<(&'a KeyHash, &'a ApiKey), Refused> {
    let found = doc.tenant.api_keys.iter().find(|(hash, _)| id(hash) == wanted);
    found.ok_or_else(|| Refused::new("not_found", Problem::not_found("there is no API key of this id")))
}

/// Puts a new key into a document.
fn add(doc: &mut TenantDoc, hash: KeyHash, key: &ApiKey, now_ms: u64) -> Result<(), Refused> {
    // Those whose time is over make room.
    let full = |doc: &TenantDoc| doc.tenant.api_keys.len() >= API_KEYS;
    if full(doc) {
        doc.tenant.api_keys.retain(|_, key| key.is_live(now_ms));
    }
    if full(doc) {
        return Err(Refused::new("conflict", conflict(format!("a tenant has at most {API_KEYS} API keys"))));
    }
    if doc.tenant.live_keys(&key.name, now_ms) >= KEYS_PER_NAME {
        let text = format!("{KEYS_PER_NAME} keys of this name are live: revoke one of them first");
        return Err(Refused::new("conflict", conflict(text)));
    }
    doc.tenant.api_keys.insert(hash, key.clone());
    Ok(())
}

pub(super) async fn list(control: &Control, call: &Call) -> Result<Answer, Refused> {
    let tenant = call.tenant()?;
    let read = control.store.get(&tenant).await.map_err(refused)?;
    let now_ms = control.now_ms();
    // Keys are shown also while the registry does not answer.
    let uses = control.ports.registry.key_uses(&tenant).await.unwrap_or_default();
    let mut keys: Vec<_> = read.doc.tenant.api_keys.iter().collect();
    keys.sort_by(|(_, a), (_, b)| (&a.name, a.created_at_ms).cmp(&(&b.name, b.created_at_ms)));
    let row = |(hash, key): (&KeyHash, &ApiKey)| {
        let mut row = shown(hash, key, now_ms);
        row["last_used_ms"] = json!(uses.get(hash));
        row
    };
    let rows: Vec<Value> = keys.into_iter().map(row).collect();
    Ok(Answer::ok(json!({ "keys": rows })).at(&read))
}

/// Makes the text of a key, puts it into the document, and shows it.
async fn make(
    control: &Control,
    call: &Call,
    what: &'static str,
    terms: impl Fn(&mut TenantDoc) -> Result<ApiKey, Refused> + Send + Sync,
) -> Result<Answer, Refused> {
    let tenant = call.tenant()?;
    let text = api_key_text(&random::<API_KEY_BYTES>()?);
    let hash = KeyHash::of(&text, control.ports.hash_key.as_ref());
    let now_ms = control.now_ms();
    let change = |doc: &mut TenantDoc| {
        let key = ApiKey { created_at_ms: now_ms, ..terms(doc)? };
        add(doc, hash, &key, now_ms).map(|()| key)
    };
    let (key, read): (ApiKey, Read) = control.change(&tenant, call.expected, change).await?;
    control.tell(&tenant, &call.caller, what, json!({ "key": id(&hash), "name": key.name })).await;
    let mut body = shown(&hash, &key, now_ms);
    body["key"] = json!(text);
    Ok(Answer::created(body, format!("/admin/v1/tenants/{tenant}/keys/{}", id(&hash))).at(&read))
}

pub(super) async fn create(control: &Control, mut call: Call) -> Result<Answer, Refused> {
    call.body.only(&["name", "scope", "expires_at_ms", "from"])?;
    let key = ApiKey::wanted(std::mem::take(&mut call.body).rest()).map_err(|error| wrong(&error))?;
    if !key.is_live(control.now_ms()) {
        return Err(bad("`expires_at_ms`: that time is past"));
    }
    make(control, &call, "key.create", |_| Ok(key.clone())).await
}

pub(super) async fn rotate(control: &Control, mut call: Call) -> Result<Answer, Refused> {
    call.body.only(&["old_expires_at_ms"])?;
    let end: Option<u64> = call.body.take("old_expires_at_ms")?;
    if end.is_some_and(|end| end > MAX_N) {
        return Err(bad("`old_expires_at_ms`: not a time in Unix milliseconds"));
    }
    let now_ms = control.now_ms();
    let wanted = call.part(1).to_owned();
    let terms = |doc: &mut TenantDoc| {
        let (hash, old) = find(doc, &wanted).map(|(hash, key)| (*hash, key.clone()))?;
        if !old.is_live(now_ms) {
            return Err(Refused::new("conflict", conflict("this key's time is over: make a new one")));
        }
        if let (Some(end), Some(key)) = (end, doc.tenant.api_keys.get_mut(&hash)) {
            key.expires_at_ms = Some(key.expires_at_ms.map_or(end, |known| known.min(end)));
        }
        // The new one has no end of its own: that of the old one is what it is rotated for.
        Ok(ApiKey { expires_at_ms: None, ..old })
    };
    make(control, &call, "key.rotate", terms).await
}

pub(super) async fn revoke(control: &Control, call: &Call) -> Result<Answer, Refused> {
    let tenant = call.tenant()?;
    let change = |doc: &mut TenantDoc| {
        let hash = *find(doc, call.part(1))?.0;
        doc.tenant.api_keys.remove(&hash).map(|key| (hash, key)).ok_or_else(|| bad("key"))
    };
    let ((hash, key), read) = control.change(&tenant, call.expected, change).await?;
    // What stays when nobody answers goes with the tenant.
    let _ = control.ports.registry.note_key_uses(&tenant, &[(hash, None)].into()).await;
    control.tell(&tenant, &call.caller, "key.revoke", json!({ "key": id(&hash), "name": key.name })).await;
    let mut body = shown(&hash, &key, control.now_ms());
    body["live"] = json!(false);
    Ok(Answer::ok(body).at(&read))
}
