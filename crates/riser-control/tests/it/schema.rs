//! What is answered is what the description says.

use riser_control::api::openapi;
use riser_control::api::routes::ROUTES;
use serde_json::{Value, json};

use super::harness::World;

/// What of a value is not as a schema has it, as far as this API's schemas go.
fn wrong(at: &str, value: &Value, schema: &Value, all: &Value) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().expect("a name");
        return wrong(at, value, &all["components"]["schemas"][name], all);
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds = &schema["type"];
    let fits = kinds == kind || kinds.as_array().is_some_and(|kinds| kinds.contains(&json!(kind)));
    if !fits || schema["enum"].as_array().is_some_and(|known| !known.contains(value)) {
        return vec![format!("{at}: {value} is not {schema}")];
    }
    let mut found = vec![];
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        found.extend(wrong(&format!("{at}[{index}]"), item, &schema["items"], all));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().expect("a name")).is_none() {
            found.push(format!("{at}: {name} is missing"));
        }
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        match (schema["properties"].get(name), &schema["additionalProperties"]) {
            (Some(of), _) | (None, of @ Value::Object(_)) => {
                found.extend(wrong(&format!("{at}.{name}"), field, of, all));
            }
            (None, Value::Bool(false)) => found.push(format!("{at}.{name} is not described")),
            _ => {}
        }
    }
    found
}

#[tokio::test]
async fn every_good_answer_is_as_it_is_described() {
    let world = World::new().await;
    let all = openapi();
    let mut seen = vec![];
    let mut key = String::new();
    let scope = json!([{ "to": "b/*", "path": ["hall/#"], "may": ["read", "manage"] }]);
    let calls = [
        (
            "createTenant",
            json!({ "tenant": "acme", "retention": { "bytes": 1 << 20 }, "quotas": { "held_commands": 3 } }),
        ),
        ("showTenant", Value::Null),
        ("listTenants", Value::Null),
        ("changeTenant", json!({ "origins": ["https://a.example"] })),
        ("createKey", json!({ "name": "k", "scope": scope, "from": ["::1"] })),
        ("rotateKey", json!({})),
        ("listKeys", Value::Null),
        ("revokeKey", Value::Null),
        ("createSigningKey", json!({ "kid": "kid", "alg": "HS256" })),
        ("listSigningKeys", Value::Null),
        ("removeSigningKey", Value::Null),
        ("setQuotas", json!({ "api_calls_per_s": 7 })),
        ("showQuotas", Value::Null),
        ("revoke", json!({ "gateway": "b/g" })),
        ("listRevocations", Value::Null),
        ("listGateways", Value::Null),
        ("kickGateway", Value::Null),
        ("registerFlats", json!({ "flats": [{ "address": "b/g", "name": "1 left", "floor": "1" }], "codes": "all" })),
        ("listFlats", Value::Null),
        ("showUsage", Value::Null),
        ("openapi", Value::Null),
        ("deleteTenant", Value::Null),
    ];
    connect(&world).await;
    for (id, body) in calls {
        let route = ROUTES.iter().find(|route| route.id == id).expect("a route");
        let path = route.path.replace("{tenant}", "acme").replace("{key}", &key).replace("{kid}", "kid");
        let path = path.replace("{building}", "b").replace("{gateway}", "g");
        let path = if id == "listFlats" { path + "?building=b" } else { path };
        let headers = format!("Authorization: Bearer {}\r\n", super::harness::SECRET);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = world.ask_with(&format!("{} {path}", route.method), &headers, body.as_bytes()).await;
        assert_eq!(answer.header("etag").is_some(), route.tagged, "{id}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{id}");
        let (status, schema) = route.answer;
        let body = answer.is(status);
        let schema = json!({ "$ref": format!("#/components/schemas/{schema}") });
        let found = wrong(id, &body, &schema, &all);
        assert!(found.is_empty(), "{found:#?}");
        if id == "createKey" {
            body["id"].as_str().expect("an id").clone_into(&mut key);
        }
        seen.push(id);
    }
    let unseen: Vec<_> = ROUTES.iter().map(|route| route.id).filter(|id| !seen.contains(id)).collect();
    assert!(unseen.is_empty(), "nobody asked {unseen:?}");
}

/// Connects a gateway, as far as the registry sees it.
async fn connect(world: &World) {
    use riser_registry::{Lease, Registry};
    let edge: riser_core::EdgeId = "edge-0".parse().expect("an edge");
    let registry = world.registry.client(&edge);
    let key = riser_core::GatewayKey::new("acme".parse().expect("a tenant"), "b/g".parse().expect("an address"));
    registry.acquire(&Lease { edge, start: 1 }, &key, None).await.expect("an answer");
}
