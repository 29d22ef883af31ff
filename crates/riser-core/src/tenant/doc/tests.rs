//! Documents as they are written, and every way to write one wrong.

use serde_json::json;

use super::*;
use crate::tenant::Quota;

const HASH: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const KEYED: &str = "hmac-sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const SECRET: &str = "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M";

fn full() -> Value {
    json!({
        "version": 1,
        "tenant": "acme",
        "status": "suspended",
        "origins": ["https://app.example"],
        "renewal": false,
        "audit_commands": true,
        "signing_kid": "a",
        "signing_keys": [
            {"kid": "a", "alg": "HS256", "secret": SECRET},
            {"kid": "a", "alg": "EdDSA", "public_key":
                "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAM7UFg3IF5x/zDwrIP1nLGIKb07RrXbOIMnNRVQJRfGw=\n-----END PUBLIC KEY-----"},
        ],
        "api_keys": [
            {"name": "back end", "hash": KEYED, "scope": [{"to": "b1/*", "may": ["read"], "path": ["hall/#"]}],
             "created_at_ms": 5, "expires_at_ms": 9, "from": ["10.0.0.0/8", "2001:db8::/32"]},
            {"name": "back end", "hash": HASH, "scope": [{"to": "*/*", "may": ["read"]}]},
        ],
        "limits": {"subscriptions": 8, "event_dedup_ms": 60_000},
        "quotas": {"gateway_sessions": 5_000, "api_calls_per_s": 50},
        "retention": {"age_ms": 86_400_000, "bytes": 1_073_741_824},
        "revoked": {"tokens": {"j1": 7}, "subjects": {"alice": 8}, "gateways": {"b1/f1": 9}},
    })
}

fn read(value: &Value) -> Result<TenantDoc, String> {
    TenantDoc::read(&value.to_string(), Writer::Person).map_err(|error| error.to_string())
}

#[test]
fn a_document_has_one_form() {
    let doc = read(&full()).expect("a good document");
    let text = doc.to_json();
    let expected = concat!(
        r#"{"version":1,"needs":1,"tenant":"acme","status":"suspended","origins":["https://app.example"],"renewal":false,"#,
        r#""audit_commands":true,"#,
        r#""signing_kid":"a","signing_keys":[{"kid":"a","alg":"HS256","secret":"c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M"},"#,
        r#"{"kid":"a","alg":"EdDSA","public_key":{"crv":"Ed25519","kty":"OKP","x":"M7UFg3IF5x_zDwrIP1nLGIKb07RrXbOIMnNRVQJRfGw"}}],"#,
        r#""api_keys":[{"name":"back end","hash":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","#,
        r#""scope":[{"to":"*/*","may":["read"]}],"created_at_ms":0},"#,
        r#"{"name":"back end","hash":"hmac-sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","#,
        r#""scope":[{"to":"b1/*","path":["hall/#"],"may":["read"]}],"created_at_ms":5,"expires_at_ms":9,"#,
        r#""from":["10.0.0.0/8","2001:db8::/32"]}],"#,
        r#""limits":{"subscriptions":8,"paths":2048,"state_bytes":262144,"event_dedup_ms":60000},"#,
        r#""quotas":{"api_calls_per_s":50,"gateway_sessions":5000},"retention":{"age_ms":86400000,"bytes":1073741824},"#,
        r#""revoked":{"tokens":{"j1":7},"subjects":{"alice":8},"gateways":{"b1/f1":9}}}"#,
    );
    assert_eq!(text, expected);
    for writer in [Writer::Person, Writer::Release] {
        assert_eq!(TenantDoc::read(&text, writer).as_ref(), Ok(&doc));
    }
    assert_eq!(doc.tenant.quotas.get(Quota::GatewaySessions), Some(5_000));
    assert_eq!(doc.tenant.quotas.get(Quota::FramesPerS), None);
}

#[test]
fn a_document_that_says_nothing_is_a_tenant_like_any() {
    let doc = read(&json!({"version": 1, "tenant": "t"})).expect("a good document");
    assert_eq!(doc.tenant, Tenant::default());
    assert!(doc.tenant.revoked.is_empty());
}

/// The full document with what stands at a JSON pointer replaced.
fn with(pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let mut doc = full();
    match doc.pointer_mut(parent).expect(pointer) {
        Value::Object(fields) => drop(fields.insert(name.into(), value)),
        Value::Array(list) => list[name.parse::<usize>().expect("an index")] = value,
        _ => panic!("{pointer}"),
    }
    doc
}

#[test]
fn what_is_wrong_is_named_by_its_whole_path() {
    let long = "x".repeat(129);
    for (pointer, value, error) in [
        ("/version", json!(0), "`version`: not a whole number from 1"),
        ("/version", json!(null), "`version`: is missing"),
        ("/version", json!(2), "`version`: written for a newer release"),
        ("/needs", json!(2), "`needs`: not a whole number from 1 to 1"),
        ("/tenant", json!("A"), "`tenant`: not a tenant name"),
        ("/status", json!("asleep"), "`status`: neither"),
        ("/status", json!(true), "`status`: not a text"),
        ("/origins", json!({}), "`origins`: not a list"),
        ("/origins/0", json!("https://app.example/"), "`origins[0]`: not as browsers send it"),
        ("/origins/0", json!(1), "`origins[0]`: not a text"),
        ("/renewal", json!("no"), "`renewal`: neither true nor false"),
        ("/audit_commands", json!(1), "`audit_commands`: neither true nor false"),
        ("/suspendet", json!(true), "`suspendet`: unknown; known are version, needs, tenant, status"),
        ("/signing_kid", json!("b"), "`signing_kid`: names none of its keys for HS256"),
        ("/signing_keys/0", json!(1), "`signing_keys[0]`: not an object"),
        ("/signing_keys/0/kid", json!("../a"), "`signing_keys[0].kid`: not 1 to 64"),
        ("/signing_keys/0/alg", json!("none"), "`signing_keys[0].alg`: none of HS256"),
        ("/signing_keys/0/alg", json!("hs256"), "`signing_keys[0].alg`: none of HS256"),
        ("/signing_keys/0/secret", json!("c2hvcnQ"), "`signing_keys[0].secret`: not 32 to 1024 bytes"),
        ("/signing_keys/0/secret", json!("+"), "`signing_keys[0].secret`: not base64url"),
        ("/signing_keys/0/secret", json!(null), "`signing_keys[0].secret`: HS256 needs this"),
        ("/signing_keys/0/public_key", json!("p"), "`signing_keys[0].secret`: HS256 needs this and no public key"),
        ("/signing_keys/1/secret", json!(SECRET), "`signing_keys[1].public_key`: this algorithm needs one"),
        ("/signing_keys/1/alg", json!("RS256"), "`signing_keys[1].alg`: not the algorithm of this kind of key"),
        ("/signing_keys/1/public_key", json!("x"), "`signing_keys[1].public_key`: neither a JWK nor"),
        ("/signing_keys/1/use", json!("sig"), "`signing_keys[1].use`: unknown"),
        ("/api_keys/0/hash", json!("rk_secret"), "`api_keys[0].hash`: not sha256:"),
        ("/api_keys/0/hash", json!(HASH), "`api_keys[1].hash`: another key has the same"),
        ("/api_keys/0/name", json!(long), "`api_keys[0].name`: not 1 to 128 bytes"),
        ("/api_keys/0/scope", json!([]), "`api_keys[0].scope`: at least one right"),
        ("/api_keys/0/scope/0/may/0", json!("fly"), "`api_keys[0].scope[0]`: not a right"),
        ("/api_keys/0/scope/0/until", json!(1), "`api_keys[0].scope[0]`: not a right"),
        ("/api_keys/0/from", json!([]), "`api_keys[0].from`: an empty list"),
        ("/api_keys/0/from/1", json!("10.0.0.1/8"), "`api_keys[0].from[1]`: the address has bits"),
        ("/api_keys/0/expires_at_ms", json!(-1), "`api_keys[0].expires_at_ms`: not a whole number"),
        ("/api_keys/0/expires_at_ms", json!(1.5), "`api_keys[0].expires_at_ms`: not a whole number"),
        ("/limits/paths", json!(2_049), "`limits.paths`: not a whole number from 1 to 2048"),
        ("/limits/text_bytes", json!(1), "`limits.text_bytes`: unknown"),
        ("/quotas/frames", json!(1), "`quotas.frames`: unknown; known are gateway_sessions"),
        ("/quotas/gateway_sessions", json!(0), "`quotas.gateway_sessions`: not a whole number from 1"),
        ("/retention/age_ms", json!(1), "`retention.age_ms`: not a whole number"),
        ("/revoked/gateways", json!({"b1/_": 1}), "`revoked.gateways`: a name that is none"),
        ("/revoked/tokens", json!({"j": "soon"}), "`revoked.tokens`: not names with times"),
        ("/revoked/subjects", json!([]), "`revoked.subjects`: not an object"),
        ("/revoked/keys", json!({}), "`revoked.keys`: unknown"),
    ] {
        let refused = read(&with(pointer, value)).expect_err(pointer);
        assert!(refused.starts_with(error), "{pointer}: {refused}");
        assert!(!refused.contains("rk_secret") && !refused.contains(SECRET), "{refused}");
    }
    let twice = full().to_string().replacen("\"renewal\":", "\"status\":\"active\",\"renewal\":", 1);
    for text in [&twice, "", "[]", "{", &format!("{}{}", "[".repeat(500), "]".repeat(500))] {
        assert!(TenantDoc::read(text, Writer::Person).expect_err(text).to_string().starts_with("`.`: "));
    }
    let large = format!("{}{}", full(), " ".repeat(DOC_BYTES));
    assert_eq!(TenantDoc::read(&large, Writer::Person).expect_err("large").field, ".");
}

#[test]
fn a_newer_release_may_say_more_but_not_what_must_be_understood() {
    let publish = |value: &Value| TenantDoc::read(&value.to_string(), Writer::Release);
    let mut newer = with("/quotas/cameras", json!(3));
    newer["version"] = json!(2);
    newer["needs"] = json!(1);
    newer["colour"] = json!("blue");
    newer["api_keys"][0]["note"] = json!("new");
    assert_eq!(publish(&newer), Ok(read(&full()).expect("good")));
    newer["needs"] = json!(2);
    assert!(
        publish(&newer).expect_err("not understood").to_string().starts_with("`version`: written for a newer release")
    );
    // A right with a new restriction is void, and the key stays.
    let half = publish(&with("/api_keys/0/scope/0/until", json!(1))).expect("a good document");
    let key = half.tenant.api_keys.values().find(|key| key.created_at_ms == 5).expect("the key");
    assert!(key.scope.is_empty());
}

#[test]
fn bounds_hold_for_every_list() {
    let key = |i: usize| json!({"name": "k", "hash": format!("sha256:{i:064x}"), "scope": [{"to": "*/*", "may": []}]});
    let keys = |n: usize| Value::Array((0..n).map(key).collect());
    assert!(read(&with("/api_keys", keys(API_KEYS))).is_ok());
    assert!(
        read(&with("/api_keys", keys(API_KEYS + 1)))
            .expect_err("too many")
            .starts_with("`api_keys`: not a list of at most")
    );
    let names = |n: usize| Value::Object((0..n).map(|i| (i.to_string(), json!(1))).collect());
    assert!(read(&with("/revoked/tokens", names(REVOKED_TOKENS))).is_ok());
    assert!(
        read(&with("/revoked/tokens", names(REVOKED_TOKENS + 1)))
            .expect_err("too many")
            .starts_with("`revoked.tokens`: more than")
    );
    let ranges: Vec<String> = (0..=API_KEY_RANGES).map(|i| format!("10.0.0.{i}")).collect();
    assert!(read(&with("/api_keys/0/from", json!(ranges))).is_err());
}

#[test]
fn parts_are_read_on_their_own_by_the_same_rules() {
    let key = ApiKey::wanted(json!({"name": "k", "scope": [{"to": "*/*", "may": ["read"]}], "from": ["10.0.0.0/8"]}));
    assert_eq!(key.expect("a key").from.len(), 1);
    let error = ApiKey::wanted(json!({"name": "k", "scope": [{"to": "*/*", "may": ["read"]}], "hash": HASH}));
    assert_eq!(error.expect_err("a hash").field, "hash");
    assert_eq!(Quotas::wanted(json!({"frames_per_s": 5})).expect("quotas").get(Quota::FramesPerS), Some(5));
    assert_eq!(Quotas::wanted(json!({"fps": 5})).expect_err("unknown").field, "fps");
    let key = SigningKey::wanted(json!({"kid": "a", "alg": "HS256", "secret": SECRET})).expect("a key");
    assert!(!format!("{key:?}").contains(SECRET) && key.secret().is_some());
}
