//! API keys, signing keys, quotas and revocations.

use riser_bus::Entry;
use riser_bus::kv::Kv;
use riser_core::tenant::KeyHash;
use riser_core::tenant::api_key::is_api_key;
use riser_registry::Registry as _;
use serde_json::{Value, json};

use super::harness::{NOW_MS, World, hash_key};

fn wanted(name: &str) -> Value {
    json!({ "name": name, "scope": [{ "to": "b1/*", "may": ["read"] }], "from": ["192.0.2.0/24"] })
}

#[tokio::test]
async fn a_key_is_shown_once_and_kept_as_its_hash() {
    let world = World::new().await;
    world.tenant("acme").await;
    let made = world.ask("POST /acme/keys", &wanted("back end")).await.is(201);
    let key = made["key"].as_str().expect("a key");
    assert!(is_api_key(key), "{key}");
    let listed = world.ask("GET /acme/keys", &Value::Null).await.is(200);
    let row = &listed["keys"][0];
    assert_eq!((&row["id"], &row["name"], &row["live"]), (&made["id"], &json!("back end"), &json!(true)));
    assert_eq!((&row["scope"], &row["from"]), (&made["scope"], &json!(["192.0.2.0/24"])));
    let client = world.kv.client(&"edge-0".parse().expect("an edge"));
    let kept =
        client.get(&Entry::Tenant("acme".parse().expect("a tenant"))).await.expect("an answer").expect("a tenant");
    let kept = String::from_utf8(kept.bytes.to_vec()).expect("UTF-8");
    assert!(!kept.contains(key) && kept.contains(&KeyHash::of(key, Some(&hash_key())).to_string()), "{kept}");
    assert!(!listed.to_string().contains(key));
    // As an edge notes it.
    assert_eq!(row["last_used_ms"], Value::Null);
    let registry = world.registry.client(&"edge-0".parse().expect("an edge"));
    let (acme, hash) = ("acme".parse().expect("a tenant"), KeyHash::of(key, Some(&hash_key())));
    registry.note_key_uses(&acme, &[(hash, Some(NOW_MS))].into()).await.expect("an answer");
    let listed = world.ask("GET /acme/keys", &Value::Null).await.is(200);
    assert_eq!(listed["keys"][0]["last_used_ms"], NOW_MS);
    world.ask(&format!("DELETE /acme/keys/{}", made["id"].as_str().expect("an id")), &Value::Null).await.is(200);
    assert!(registry.key_uses(&acme).await.expect("an answer").is_empty());
}

#[tokio::test]
async fn a_key_is_rotated_and_no_third_one_of_its_name_is_live() {
    let world = World::new().await;
    world.tenant("acme").await;
    let old = world.ask("POST /acme/keys", &wanted("k")).await.is(201);
    let path = |key: &Value, rest: &str| format!("/acme/keys/{}{rest}", key["id"].as_str().expect("an id"));
    let end = NOW_MS + 3_600_000;
    let rotate = format!("POST {}", path(&old, "/rotate"));
    let new = world.ask(&rotate, &json!({ "old_expires_at_ms": end })).await.is(201);
    assert_eq!((&new["name"], &new["scope"], &new["from"]), (&old["name"], &old["scope"], &old["from"]));
    assert_ne!(new["key"], old["key"]);
    assert_eq!(new["expires_at_ms"], Value::Null);
    let listed = world.ask("GET /acme/keys", &Value::Null).await.is(200);
    let rows = listed["keys"].as_array().expect("rows");
    assert!(rows.iter().any(|row| row["id"] == old["id"] && row["expires_at_ms"] == end), "{listed}");
    world.ask(&rotate, &Value::Null).await.refused(409, "conflict", "revoke one of them");
    world.ask("POST /acme/keys", &wanted("k")).await.refused(409, "conflict", "revoke one of them");
    let revoked = world.ask(&format!("DELETE {}", path(&old, "")), &Value::Null).await.is(200);
    assert_eq!((&revoked["id"], &revoked["live"]), (&old["id"], &json!(false)));
    world.ask(&rotate, &Value::Null).await.refused(404, "not_found", "no API key");
    world.ask(&format!("POST {}", path(&new, "/rotate")), &Value::Null).await.is(201);
}

#[tokio::test]
async fn signing_keys_are_registered_made_and_taken_away() {
    let world = World::new().await;
    let first = world.tenant("acme").await["signing_kid"].as_str().expect("a kid").to_owned();
    let made = world.ask("POST /acme/signing-keys", &json!({ "kid": "next", "alg": "HS256" })).await.is(201);
    assert_eq!(made, json!({ "kid": "next", "alg": "HS256", "signs": false }));
    let public = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
    let own = json!({ "kid": "own", "alg": "EdDSA", "public_key": public });
    world.ask("POST /acme/signing-keys", &own).await.is(201);
    world.ask("POST /acme/signing-keys", &own).await.refused(409, "conflict", "there is a key of this kid");
    let both = json!({ "kid": "x", "alg": "HS256", "public_key": public });
    world.ask("POST /acme/signing-keys", &both).await.refused(400, "bad_frame", "`secret`");
    let line = format!("DELETE /acme/signing-keys/{first}");
    world.ask(&line, &Value::Null).await.refused(409, "conflict", "tokens are signed with this key");
    world.ask("PATCH /acme", &json!({ "signing_kid": "own" })).await.refused(400, "bad_frame", "`signing_kid`");
    world.ask("PATCH /acme", &json!({ "signing_kid": "next" })).await.is(200);
    let left = world.ask(&line, &Value::Null).await.is(200);
    assert_eq!(left["signing_keys"].as_array().map(Vec::len), Some(2));
    assert!(!left.to_string().contains("11qY"), "{left}");
    world.ask(&line, &Value::Null).await.refused(404, "not_found", "no signing key");
}

#[tokio::test]
async fn quotas_are_set_all_at_once() {
    let world = World::new().await;
    world.tenant("acme").await;
    let quotas = json!({ "gateway_sessions": 10, "api_calls_per_s": 5 });
    assert_eq!(world.ask("PUT /acme/quotas", &quotas).await.is(200), quotas);
    assert_eq!(world.ask("GET /acme", &Value::Null).await.is(200)["quotas"], quotas);
    let bad = json!({ "gateway_sessions": 10, "frames": 1 });
    world.ask("PUT /acme/quotas", &bad).await.refused(400, "bad_frame", "`frames`");
    assert_eq!(world.ask("PUT /acme/quotas", &json!({})).await.is(200), json!({}));
}

#[tokio::test]
async fn a_revocation_says_from_when_on_tokens_are_good_again() {
    let world = World::new().await;
    world.tenant("acme").await;
    let gateway = world.ask("POST /acme/revocations", &json!({ "gateway": "b/g" })).await.is(201);
    assert!(gateway["issued_before_ms"].as_u64().is_some_and(|ms| ms > NOW_MS), "{gateway}");
    let token = json!({ "token": "j", "until_ms": NOW_MS + 3_600_000 });
    assert_eq!(world.ask("POST /acme/revocations", &token).await.is(201)["issued_before_ms"], Value::Null);
    let all = world.ask("GET /acme/revocations", &Value::Null).await.is(200);
    assert_eq!((&all["tokens"]["j"], &all["gateways"]["b/g"]), (&token["until_ms"], &gateway["issued_before_ms"]));
    for (body, words) in [
        (json!({}), "one of `token`"),
        (json!({ "token": "j", "subject": "s" }), "only one"),
        (json!({ "gateway": "b/_" }), "no gateway"),
        (json!({ "gateway": "b" }), "`gateway`"),
        (json!({ "subject": "s", "until_ms": 7 }), "`until_ms`"),
        (json!({ "token": "j".repeat(200) }), "`token`"),
    ] {
        world.ask("POST /acme/revocations", &body).await.refused(400, "bad_frame", words);
    }
}
