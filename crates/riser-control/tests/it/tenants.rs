//! Tenants, from their first day to their last.

use std::collections::BTreeMap;
use std::time::Duration;

use riser_bus::Entry;
use riser_bus::kv::Kv;
use riser_bus::log::Log;
use riser_core::command::Digest;
use riser_core::limits::Limits;
use riser_core::{Change, GatewayKey, Json, TenantId, Version};
use riser_registry::{Lease, Registry, StateStore, Usage};
use serde_json::{Value, json};

use super::harness::World;

#[tokio::test]
async fn a_tenant_is_made_changed_and_shown() {
    let world = World::new().await;
    let wanted = json!({ "tenant": "acme", "origins": ["https://a.example"], "limits": { "paths": 9 } });
    let made = world.ask("POST", &wanted).await;
    assert_eq!(made.header("location"), Some("/admin/v1/tenants/acme"));
    let tag = made.header("etag").expect("an ETag").to_owned();
    let body = made.is(201);
    assert_eq!(
        (&body["status"], &body["limits"]["paths"], &body["signing_keys"]),
        (&json!("active"), &json!(9), &json!(1))
    );
    assert_eq!(tag, format!("\"{}\"", body["revision"]));
    world.ask("POST", &json!({ "tenant": "acme" })).await.refused(409, "conflict", "there is a tenant of this name");
    let change = json!({ "status": "suspended", "origins": null, "retention": { "age_ms": 3_600_000 }, "limits": { "subscriptions": 5 } });
    let changed = world.ask_if("PATCH /acme", Some(&tag), &change).await.is(200);
    assert_eq!((&changed["status"], &changed["origins"]), (&json!("suspended"), &Value::Null));
    assert_eq!((&changed["limits"]["paths"], &changed["limits"]["subscriptions"]), (&json!(9), &json!(5)));
    assert_eq!(changed["retention"], json!({ "age_ms": 3_600_000 }));
    assert_eq!(world.ask("GET /acme", &Value::Null).await.is(200), changed);
}

#[tokio::test]
async fn who_knows_an_older_revision_changes_nothing() {
    let world = World::new().await;
    let old = format!("\"{}\"", world.tenant("acme").await["revision"]);
    world.ask("PATCH /acme", &json!({ "renewal": false })).await.is(200);
    for line in ["PATCH /acme", "PUT /acme/quotas", "DELETE /acme"] {
        world.ask_if(line, Some(&old), &json!({})).await.refused(412, "conflict", "read it again");
    }
    let now = world.ask("GET /acme", &Value::Null).await;
    let tag = now.header("etag").expect("an ETag").to_owned();
    assert_eq!(now.is(200)["renewal"], false);
    world.ask_if("PATCH /acme", Some(&tag), &json!({ "renewal": true })).await.is(200);
}

#[tokio::test]
async fn those_who_change_a_tenant_at_once_all_do() {
    let world = World::new().await;
    world.tenant("acme").await;
    let bodies: Vec<Value> = (0..8).map(|n| json!({ "subject": format!("s{n}") })).collect();
    let all = bodies.iter().map(|body| world.ask("POST /acme/revocations", body));
    for answer in futures_util::future::join_all(all).await {
        answer.is(201);
    }
    let revoked = world.ask("GET /acme/revocations", &Value::Null).await.is(200);
    assert_eq!(revoked["subjects"].as_object().map(serde_json::Map::len), Some(8));
}

#[tokio::test]
async fn tenants_are_listed_by_name_page_by_page() {
    let world = World::new().await;
    for name in ["c", "a", "b", "b-1", "aa"] {
        world.tenant(name).await;
    }
    let (mut names, mut cursor) = (vec![], String::new());
    loop {
        let page = world.ask(&format!("GET ?limit=2{cursor}"), &Value::Null).await.is(200);
        let rows = page["tenants"].as_array().expect("rows").iter();
        names.extend(rows.map(|row| row["tenant"].as_str().expect("a name").to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(names, ["a", "aa", "b", "b-1", "c"]);
}

#[tokio::test]
async fn a_deleted_tenant_is_erased_and_its_name_is_free() {
    let world = World::new().await;
    world.tenant("acme").await;
    world.tenant("other").await;
    let edge = "edge-0".parse().expect("an edge");
    let registry = world.registry.client(&edge);
    let lease = Lease { edge, start: 1 };
    for tenant in ["acme", "other"] {
        let key = GatewayKey::new(tenant.parse().expect("a tenant"), "b/g".parse().expect("an address"));
        let acquired = registry.acquire(&lease, &key, None).await.expect("an answer");
        let value = [("k/l".parse().expect("a path"), Some(Json::parse("1").expect("JSON")))];
        let version = Version::start(acquired.epoch).next();
        let limits = Limits::default();
        registry.apply(&key, version, &Change::values(value, false), &limits).await.expect("an answer");
    }
    let held = ["acme", "other"].map(|tenant| {
        let key = GatewayKey::new(tenant.parse().expect("a tenant"), "b/never".parse().expect("an address"));
        Entry::Held(key, Digest([7; 16]))
    });
    let kv = world.kv.client(&lease.edge);
    for entry in &held {
        kv.put(entry, "a copy".into(), 0, None).await.expect("an answer");
    }
    let erased = world.ask("DELETE /acme", &Value::Null).await.is(200);
    assert_eq!(kv.get(&held[0]).await, Ok(None));
    assert!(kv.get(&held[1]).await.expect("an answer").is_some());
    // The event is that the tenant was made.
    assert_eq!(erased, json!({ "tenant": "acme", "events": 1, "gateways": 1, "values": 1, "commands": 0, "flats": 0 }));
    world.ask("GET /acme", &Value::Null).await.refused(404, "not_found", "no tenant");
    let page = world.ask("GET", &Value::Null).await.is(200);
    assert_eq!(page["tenants"].as_array().map(Vec::len), Some(1));
    let log = world.log.client(&"edge-0".parse().expect("an edge"));
    assert_eq!(log.bounds(&"acme".parse().expect("a tenant")).await.expect("an answer").last, 0);
    assert_eq!(log.bounds(&"other".parse().expect("a tenant")).await.expect("an answer").last, 1);
    let again = world.ask("DELETE /acme", &Value::Null).await.is(200);
    assert_eq!((&again["events"], &again["gateways"]), (&json!(0), &json!(0)));
    world.ask("DELETE /never", &Value::Null).await.refused(404, "not_found", "no tenant");
    assert_eq!(world.tenant("acme").await["api_keys"], 0);
}

#[tokio::test]
async fn a_tenant_that_was_not_all_erased_is_gone_and_can_be_deleted_again() {
    let world = World::new().await;
    world.tenant("acme").await;
    world.registry.cut_all(Duration::ZERO);
    world.ask("DELETE /acme", &Value::Null).await.refused(503, "unavailable", "delete it once more");
    world.ask("GET /acme", &Value::Null).await.refused(404, "not_found", "no tenant");
    world.registry.heal_all();
    world.ask("DELETE /acme", &Value::Null).await.is(200);
}

#[tokio::test]
async fn gateways_and_what_is_used_are_shown_and_a_session_is_closed() {
    let world = World::new().await;
    world.tenant("acme").await;
    let edge = "edge-0".parse().expect("an edge");
    let registry = world.registry.client(&edge);
    let lease = Lease { edge, start: 1 };
    for address in ["b/g1", "b/g2", "b/g3", "c/g1"] {
        let key = GatewayKey::new("acme".parse().expect("a tenant"), address.parse().expect("an address"));
        let acquired = registry.acquire(&lease, &key, None).await.expect("an answer");
        if address == "b/g2" {
            registry.release(&key, acquired.epoch, riser_core::Reason::Closed).await.expect("an answer");
        }
    }
    let acme: TenantId = "acme".parse().expect("a tenant");
    let used = Usage {
        gateway_sessions: 3,
        client_sessions: 2,
        subscriptions: 5,
        frames_per_s: 10,
        bytes_per_s: 900,
        busy_ms_per_s: 1,
    };
    for start in [1, 2] {
        let lease = Lease { start, ..lease.clone() };
        let told = BTreeMap::from([(acme.clone(), used), ("other".parse().expect("a tenant"), used)]);
        registry.tell_usage(&lease, &told, Duration::from_secs(30)).await.expect("an answer");
    }
    let usage = world.ask("GET /acme/usage", &Value::Null).await.is(200);
    let all = json!({
        "gateways_known": 4, "gateway_sessions": 3, "events": 1,
        "client_sessions": 4, "subscriptions": 10, "undecided_commands": 0, "frames_per_s": 20, "bytes_per_s": 1_800, "busy_ms_per_s": 2,
    });
    assert_eq!(usage, all);
    let (mut seen, mut cursor) = (vec![], String::new());
    loop {
        let page = world.ask(&format!("GET /acme/gateways?limit=3{cursor}"), &Value::Null).await.is(200);
        for row in page["gateways"].as_array().expect("rows") {
            seen.push((row["of"].as_str().expect("an address").to_owned(), row["online"] == true));
        }
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let seen: Vec<_> = seen.iter().map(|(of, online)| (of.as_str(), *online)).collect();
    assert_eq!(seen, [("b/g1", true), ("b/g2", false), ("b/g3", true), ("c/g1", true)]);
    let only = world.ask("GET /acme/gateways?building=c", &Value::Null).await.is(200);
    assert_eq!(only["gateways"].as_array().map(Vec::len), Some(1));
    let kicked = world.ask("DELETE /acme/gateways/b/g1/session", &Value::Null).await.is(200);
    assert_eq!((&kicked["of"], &kicked["edge"]), (&json!("b/g1"), &json!("edge-0")));
    world.ask("DELETE /acme/gateways/b/g2/session", &Value::Null).await.refused(404, "not_found", "not connected");
}
