//! What must be refused, and with which words.

use riser_control::api::BODY_BYTES;
use riser_control::api::routes::ROUTES;
use serde_json::{Value, json};

use super::harness::{SECRET, World};

/// A route's path with something in the place of each parameter.
fn path(of: &str, with: &str) -> String {
    let part = |part: &str| if part.starts_with('{') { with.to_owned() } else { part.to_owned() };
    of.split('/').map(part).collect::<Vec<_>>().join("/")
}

fn authorized() -> String {
    format!("Authorization: Bearer {SECRET}\r\n")
}

#[tokio::test]
async fn nobody_without_the_credential_is_told_anything() {
    let world = World::new().await;
    world.tenant("acme").await;
    let near = &SECRET[..SECRET.len() - 1];
    for route in &ROUTES {
        let line = format!("{} {}", route.method, path(route.path, "acme"));
        for headers in [
            String::new(),
            format!("Authorization: Bearer {near}x\r\n"),
            format!("Authorization: Bearer {near}\r\n"),
            format!("Authorization: Basic {SECRET}\r\n"),
            format!("Authorization: {SECRET}\r\n"),
            format!("Authorization: Bearer {SECRET}\r\nAuthorization: Bearer {SECRET}\r\n"),
        ] {
            let answer = world.ask_with(&line, &headers, b"{}").await;
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{line} {headers}");
            answer.refused(401, "forbidden", "a credential is needed");
        }
        let line = format!("{line}?token={SECRET}");
        world.ask_with(&line, &authorized(), b"{}").await.refused(400, "bad_frame", "in a URL");
    }
    // Nothing of it was done.
    assert_eq!(world.ask("GET /acme", &Value::Null).await.is(200)["status"], "active");
}

#[tokio::test]
async fn every_path_names_the_methods_that_it_takes() {
    let world = World::new().await;
    for route in &ROUTES {
        let line = format!("OPTIONS {}", path(route.path, "acme"));
        let answer = world.ask_with(&line, &authorized(), b"").await;
        let allowed = answer.header("allow").expect("methods").to_owned();
        assert!(allowed.split(", ").any(|method| method == route.method), "{line}: {allowed}");
        answer.refused(405, "bad_frame", "is served here");
    }
}

#[tokio::test]
async fn every_body_is_an_object_of_known_fields_and_of_a_bounded_size() {
    let world = World::new().await;
    world.tenant("acme").await;
    let huge = vec![b' '; BODY_BYTES + 1];
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    for route in ROUTES.iter().filter(|route| route.body.is_some()) {
        let line = format!("{} {}", route.method, path(route.path, "acme"));
        let ask = |body: Vec<u8>| {
            let (line, world) = (line.clone(), &world);
            async move { world.ask_with(&line, &authorized(), &body).await }
        };
        ask(huge.clone()).await.refused(413, "too_many", "larger than 65536 bytes");
        for (body, words) in [
            (b"{".to_vec(), "body"),
            (b"[]".to_vec(), "not a JSON object"),
            (b"null".to_vec(), "not a JSON object"),
            (b"\xff".to_vec(), "UTF-8"),
            (deep.clone().into_bytes(), "body"),
            (br#"{"name":1,"name":2}"#.to_vec(), "body"),
            (br#"{"no_such_field":1}"#.to_vec(), "no_such_field"),
            (br#"{"\u001b[2Jx":1}"#.to_vec(), "x"),
        ] {
            let answer = ask(body).await;
            let detail = answer.body["detail"].as_str().expect("a detail").to_owned();
            assert!(!detail.chars().any(char::is_control), "{detail:?}");
            answer.refused(400, "bad_frame", words);
        }
    }
    // More than anybody sends, by who does not say how much.
    let head =
        format!("POST /admin/v1/tenants HTTP/1.1\r\nHost: x\r\n{}Transfer-Encoding: chunked\r\n\r\n", authorized());
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    world.send(&head, chunk.repeat(160).as_bytes()).await.refused(413, "too_many", "larger than");
}

#[tokio::test]
async fn fields_of_other_types_are_refused_by_name() {
    let world = World::new().await;
    world.tenant("acme").await;
    let scope = json!([{ "to": "*/*", "may": ["read"] }]);
    for (line, body, words) in [
        ("POST", json!({}), "`tenant`"),
        ("POST", json!({ "tenant": 7 }), "`tenant`"),
        ("POST", json!({ "tenant": "Acme" }), "`tenant`"),
        ("POST", json!({ "tenant": "../acme" }), "`tenant`"),
        ("POST", json!({ "tenant": "b", "signing_kid": "x" }), "signing_kid"),
        ("POST", json!({ "tenant": "b", "version": 1 }), "version"),
        ("POST", json!({ "tenant": "b", "origins": "https://a.example" }), "`origins`"),
        ("POST", json!({ "tenant": "b", "quotas": { "gateway_sessions": -1 } }), "`quotas.gateway_sessions`"),
        ("PATCH /acme", json!({ "status": "deleted" }), "`status`"),
        ("PATCH /acme", json!({ "renewal": "no" }), "`renewal`"),
        ("PATCH /acme", json!({ "origins": ["https://a.example/"] }), "`origins[0]`"),
        ("PATCH /acme", json!({ "limits": { "paths": 1_000_000 } }), "`limits.paths`"),
        ("PATCH /acme", json!({ "limits": { "sessions": 1 } }), "`limits.sessions`"),
        ("PATCH /acme", json!({ "retention": { "age_ms": 1 } }), "`retention.age_ms`"),
        ("PATCH /acme", json!({ "tenant": "other" }), "tenant"),
        ("PATCH /acme", json!({ "api_keys": [] }), "api_keys"),
        ("POST /acme/keys", json!({ "name": "k" }), "`scope`"),
        ("POST /acme/keys", json!({ "name": "", "scope": scope }), "`name`"),
        ("POST /acme/keys", json!({ "name": "k", "scope": [{ "to": "*/*", "may": ["fly"] }] }), "`scope[0]`"),
        ("POST /acme/keys", json!({ "name": "k", "scope": [{ "to": "b/**", "may": ["read"] }] }), "`scope[0]`"),
        ("POST /acme/keys", json!({ "name": "k", "scope": scope, "from": [] }), "`from`"),
        ("POST /acme/keys", json!({ "name": "k", "scope": scope, "from": ["1.2.3.4/99"] }), "`from[0]`"),
        ("POST /acme/keys", json!({ "name": "k", "scope": scope, "expires_at_ms": 1 }), "`expires_at_ms`"),
        ("POST /acme/keys", json!({ "name": "k", "scope": scope, "expires_at_ms": "soon" }), "`expires_at_ms`"),
        ("POST /acme/keys", json!({ "name": "k", "scope": scope, "hash": "sha256:00" }), "hash"),
        ("POST /acme/keys/none/rotate", json!({ "old_expires_at_ms": -1 }), "`old_expires_at_ms`"),
        ("POST /acme/signing-keys", json!({ "kid": "../x", "alg": "HS256" }), "`kid`"),
        ("POST /acme/signing-keys", json!({ "kid": "x", "alg": "none" }), "`alg`"),
        ("POST /acme/signing-keys", json!({ "kid": "x", "alg": "HS256", "secret": "c2hvcnQ" }), "`secret`"),
        ("POST /acme/signing-keys", json!({ "kid": "x", "alg": "EdDSA", "public_key": "no PEM" }), "`public_key`"),
        ("PUT /acme/quotas", json!({ "gateway_sessions": 1.5 }), "`gateway_sessions`"),
    ] {
        world.ask(line, &body).await.refused(400, "bad_frame", words);
    }
    let page = world.ask("GET", &Value::Null).await.is(200);
    assert_eq!(page["tenants"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn names_in_a_path_are_read_once_and_nothing_is_unescaped() {
    let world = World::new().await;
    world.tenant("acme").await;
    for (line, status) in [
        ("GET /..", 400),
        ("GET /acme%2Fkeys", 400),
        ("GET /%61cme", 400),
        ("GET /ACME", 400),
        ("GET /acme%00", 400),
        ("GET /acme/../acme", 404),
        ("GET /acme/./keys", 404),
        ("GET //acme", 404),
        ("GET /none", 404),
        ("GET /none/keys", 404),
        ("GET /none/usage", 404),
        ("DELETE /acme/keys/..", 404),
        ("DELETE /acme/keys/%2e%2e", 404),
        ("DELETE /acme/signing-keys/..%2f..", 404),
        ("DELETE /acme/gateways/b/..%2Fg/session", 400),
        ("DELETE /acme/gateways/b/*/session", 400),
        ("GET /acme/gateways?building=*", 400),
        ("GET /acme/gateways?cursor=x", 400),
        ("GET ?cursor=%2e", 400),
        ("GET ?limit=0", 400),
        ("GET ?limit=1001", 400),
        ("GET ?limit=x", 400),
        ("GET ?limit=1&limit=2", 400),
        ("GET ?order=name", 400),
    ] {
        let answer = world.ask(line, &Value::Null).await;
        assert_eq!(answer.status, status, "{line}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{line}");
    }
    let wanted = json!({ "name": "k", "scope": [{ "to": "*/*", "may": ["read"] }] });
    let foreign = world.ask("POST /acme/keys", &wanted).await.is(201);
    world.tenant("other").await;
    let line = format!("DELETE /other/keys/{}", foreign["id"].as_str().expect("an id"));
    world.ask(&line, &Value::Null).await.refused(404, "not_found", "no API key");
}

#[tokio::test]
async fn a_request_that_two_could_read_in_two_ways_is_refused() {
    let world = World::new().await;
    for (head, words) in [
        ("GET http://x/admin/v1/tenants HTTP/1.1\r\nHost: x", "no proxy"),
        ("GET /admin/v1/tenants HTTP/1.1", "Host"),
        ("GET /admin/v1/tenants HTTP/1.1\r\nHost: x\r\nHost: y", "Host"),
        ("GET /admin/v1/tenants HTTP/1.1\r\nHost: x\r\nIf-Match: 7", "If-Match"),
    ] {
        let head = format!("{head}\r\n{}\r\n", authorized());
        let answer = world.send(&head, b"").await;
        assert!(answer.body["detail"].as_str().expect("a detail").contains(words), "{head}: {answer:?}");
        assert!([400, 404].contains(&answer.status) && answer.header("connection") == Some("close"), "{answer:?}");
    }
}
