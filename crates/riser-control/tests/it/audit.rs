//! What is told of changes, and what is not.

use riser_bus::log::Log;
use serde_json::{Value, json};

use super::harness::{SECRET, World};

#[tokio::test]
async fn every_change_is_told_with_who_what_and_from_where_and_without_a_secret() {
    let world = World::new().await;
    world.tenant("acme").await;
    let wanted = json!({ "name": "k", "scope": [{ "to": "*/*", "may": ["read"] }] });
    let key = world.ask("POST /acme/keys", &wanted).await.is(201);
    let id = key["id"].as_str().expect("an id");
    let secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA";
    world.ask("POST /acme/signing-keys", &json!({ "kid": "s", "alg": "HS256", "secret": secret })).await.is(201);
    world.ask("PATCH /acme", &json!({ "status": "suspended", "renewal": false })).await.is(200);
    world.ask("PUT /acme/quotas", &json!({ "client_sessions": 7 })).await.is(200);
    world.ask("POST /acme/revocations", &json!({ "subject": "alice" })).await.is(201);
    world.ask(&format!("DELETE /acme/keys/{id}"), &Value::Null).await.is(200);
    world.ask("DELETE /acme/signing-keys/s", &Value::Null).await.is(200);
    // What only looks, and what is refused, is not told.
    world.ask("GET /acme/keys", &Value::Null).await.is(200);
    world.ask("PATCH /acme", &json!({ "status": "asleep" })).await.refused(400, "bad_frame", "`status`");

    let log = world.log.client(&"edge-0".parse().expect("an edge"));
    let page = log.read(&"acme".parse().expect("a tenant"), 1).await.expect("an answer");
    let told: Vec<Value> = page
        .events
        .iter()
        .map(|stored| {
            let event = &stored.event;
            assert_eq!((event.of.to_string().as_str(), event.kind.as_str()), ("_/_", "audit"));
            assert_eq!(event.from, "control:anna");
            let data = event.data.as_ref().expect("data").as_str();
            assert!(![SECRET, secret, key["key"].as_str().expect("a key")].iter().any(|s| data.contains(s)), "{data}");
            serde_json::from_str(data).expect("JSON")
        })
        .collect();
    let what: Vec<_> = told.iter().map(|data| data["what"].as_str().expect("what")).collect();
    let expected = ["tenant.create", "key.create", "signing_key.create", "tenant.change", "quotas.set", "revoke"];
    assert_eq!(what[..6], expected);
    assert_eq!(what[6..], ["key.revoke", "signing_key.remove"]);
    assert!(told.iter().all(|data| data["who"] == "anna" && data["from"] == "127.0.0.1"), "{told:?}");
    assert_eq!(told[3]["changed"], json!(["renewal", "status"]));
    assert_eq!(told[1]["key"], key["id"]);
}

#[tokio::test]
async fn a_change_that_nobody_can_be_told_of_is_made_and_counted() {
    let world = World::new().await;
    world.tenant("acme").await;
    world.log.set_full(true);
    world.ask("PATCH /acme", &json!({ "renewal": false })).await.is(200);
    let families = world.metrics.gather();
    let family = families.iter().find(|family| family.name() == "riser_control_audit_failures_total");
    let failures = family.expect("the metric").get_metric()[0].get_counter().get_value();
    assert!((failures - 1.0).abs() < f64::EPSILON, "{failures}");
}
