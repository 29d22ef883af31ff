//! The schemas of what is sent and answered, by the names that routes have them under.

use riser_core::tenant::quota::{QUOTA_MAX, QUOTAS};
use riser_ops::openapi::schema::{grant, named, number, object, perhaps, text};
use riser_tenants::flats::FLATS_AT_ONCE;
use serde_json::{Map, Value, json};

use super::PAGE_MOST;

/// Every schema.
pub(super) fn schemas() -> Map<String, Value> {
    let mut all = Map::new();
    for (name, schema) in [
        ("OpenApi", json!({ "type": "object", "description": "OpenAPI 3.1." })),
        ("Limits", limits()),
        ("Retention", retention()),
        ("Quotas", quotas()),
        ("Tenant", tenant()),
        ("TenantPage", page("tenants", "Tenant")),
        ("NewTenant", new_tenant()),
        ("TenantChange", tenant_change()),
        ("Erased", erased()),
        ("Grant", grant()),
        ("Key", key(false)),
        ("ShownKey", key(true)),
        ("Keys", list("keys", "Key")),
        ("NewKey", new_key()),
        ("Rotation", rotation()),
        ("SigningKey", signing_key()),
        ("SigningKeys", list("signing_keys", "SigningKey")),
        ("NewSigningKey", new_signing_key()),
        ("Revocations", revocations()),
        ("Revocation", revocation()),
        ("Revoked", revoked()),
        ("Gateway", gateway()),
        ("GatewayPage", page("gateways", "Gateway")),
        ("Kicked", kicked()),
        ("NewFlats", new_flats()),
        ("RegisteredFlats", registered_flats()),
        ("Flat", flat()),
        ("FlatPage", page("flats", "Flat")),
        ("Usage", usage()),
    ] {
        all.insert(name.to_owned(), schema);
    }
    all
}

fn page(rows: &str, of: &str) -> Value {
    let rows_of = json!({ "type": "array", "maxItems": PAGE_MOST, "items": named(of) });
    let next = perhaps("string", "The `cursor` of the next page; null on the last.");
    object(&[rows, "next"], &json!({ rows: rows_of, "next": next }))
}

fn list(rows: &str, of: &str) -> Value {
    object(&[rows], &json!({ rows: { "type": "array", "items": named(of) } }))
}

fn limits() -> Value {
    object(
        &[],
        &json!({
            "subscriptions": number("Subscriptions of one session."),
            "paths": number("Paths with a value of one gateway."),
            "state_bytes": number("All values of one gateway, in bytes."),
            "event_dedup_ms": number("How long an event's id is remembered, in milliseconds."),
        }),
    )
}

fn retention() -> Value {
    object(
        &[],
        &json!({
            "age_ms": perhaps("integer", "How long events are kept, in milliseconds; at most, and else, as the cluster has it."),
            "bytes": perhaps("integer", "Bytes that events take at most in each copy; at most, and else, as the cluster has it."),
        }),
    )
}

fn quotas() -> Value {
    let of = |about: &riser_core::tenant::quota::About| {
        let text = format!("{} In {}.", about.doc, about.unit);
        let schema = json!({ "type": ["integer", "null"], "minimum": 1, "maximum": QUOTA_MAX, "description": text });
        (about.name.to_owned(), schema)
    };
    object(&[], &Value::Object(QUOTAS.iter().map(of).collect()))
}

fn status() -> Value {
    json!({ "type": "string", "enum": ["active", "suspended"] })
}

fn origins() -> Value {
    json!({
        "type": ["array", "null"],
        "items": { "type": "string" },
        "description": "Origins that browsers may come from, as they send them; null for any.",
    })
}

/// What is said of a tenant, whoever says it.
fn settings() -> Map<String, Value> {
    let fields = json!({
        "status": status(),
        "origins": origins(),
        "renewal": { "type": "boolean", "description": "Whether gateways may renew their own tokens." },
        "audit_commands": {
            "type": "boolean",
            "description": "Whether each command is told as an event of the audit. These count for the retention.",
        },
        "retention": named("Retention"),
        "limits": named("Limits"),
    });
    fields.as_object().cloned().unwrap_or_default()
}

fn tenant() -> Value {
    let mut fields = settings();
    fields.insert("tenant".into(), text("Its name."));
    fields.insert("quotas".into(), named("Quotas"));
    fields.insert("signing_kid".into(), text("The key that its new tokens are signed with; empty for none."));
    fields.insert("api_keys".into(), number("How many API keys it has."));
    fields.insert("signing_keys".into(), number("How many signing keys it has."));
    fields.insert("revision".into(), number("The change that made it so, which is also the ETag."));
    let required: Vec<String> = fields.keys().cloned().collect();
    object(&required.iter().map(String::as_str).collect::<Vec<_>>(), &Value::Object(fields))
}

fn new_tenant() -> Value {
    let mut fields = settings();
    fields.insert("tenant".into(), json!({ "type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$" }));
    fields.insert("quotas".into(), named("Quotas"));
    object(&["tenant"], &Value::Object(fields))
}

fn tenant_change() -> Value {
    let mut fields = settings();
    fields.insert("signing_kid".into(), text("Which of its HS256 keys new tokens are signed with."));
    object(&[], &Value::Object(fields))
}

fn erased() -> Value {
    let fields = json!({
        "tenant": text("Its name."),
        "events": number("Stored events that were erased."),
        "gateways": number("Gateways of which presence or values were known."),
        "values": number("Their values."),
        "commands": number("Records of commands."),
        "flats": number("Flats that were registered."),
    });
    object(&["tenant", "events", "gateways", "values", "commands", "flats"], &fields)
}

fn key(shown: bool) -> Value {
    let mut fields = json!({
        "id": text("What it is called here; tells nothing about the key."),
        "name": text("Its name in logs, and the subject of its sessions."),
        "scope": { "type": "array", "items": named("Grant") },
        "created_at_ms": number("When it was made, Unix milliseconds."),
        "expires_at_ms": perhaps("integer", "When it stops working, Unix milliseconds; null for never."),
        "from": { "type": "array", "items": { "type": "string" }, "description": "From where it may be used; empty for anywhere." },
        "live": { "type": "boolean", "description": "Whether it works now." },
        "last_used_ms": perhaps("integer", "When it was used last, to a minute or so, Unix milliseconds; null when that is not known, and where it is not listed."),
    });
    let mut required = vec!["id", "name", "scope", "created_at_ms", "expires_at_ms", "from", "live", "last_used_ms"];
    if shown {
        fields["key"] = text("The key itself. It is kept nowhere, and shown this once.");
        required.push("key");
    }
    object(&required, &fields)
}

fn new_key() -> Value {
    let fields = json!({
        "name": text("1 to 128 bytes. Two live keys may have one name, so that one can take the place of the other."),
        "scope": { "type": "array", "minItems": 1, "maxItems": 64, "items": named("Grant") },
        "expires_at_ms": perhaps("integer", "When it stops working, Unix milliseconds."),
        "from": {
            "type": ["array", "null"],
            "minItems": 1,
            "items": { "type": "string" },
            "description": "Addresses or ranges that it may be used from, as 192.0.2.0/24.",
        },
    });
    object(&["name", "scope"], &fields)
}

fn rotation() -> Value {
    let old = perhaps("integer", "When the old key stops working, Unix milliseconds; without it, when it is revoked.");
    object(&[], &json!({ "old_expires_at_ms": old }))
}

fn algorithm() -> Value {
    json!({ "type": "string", "enum": ["HS256", "EdDSA", "ES256", "RS256"] })
}

fn signing_key() -> Value {
    let signs = json!({ "type": "boolean", "description": "Whether new tokens are signed with it." });
    object(
        &["kid", "alg", "signs"],
        &json!({ "kid": text("Its name in a token's header."), "alg": algorithm(), "signs": signs }),
    )
}

fn new_signing_key() -> Value {
    let fields = json!({
        "kid": { "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" },
        "alg": algorithm(),
        "public_key": { "type": ["object", "string", "null"], "description": "A JWK, or PEM." },
        "secret": perhaps("string", "For HS256: 32 to 1024 bytes in base64url; one is made without it."),
    });
    object(&["kid", "alg"], &fields)
}

fn revocations() -> Value {
    let times =
        |about: &str| json!({ "type": "object", "additionalProperties": { "type": "integer" }, "description": about });
    let fields = json!({
        "tokens": times("Ids of tokens, and until when they are remembered, Unix milliseconds."),
        "subjects": times("Subjects, and the time before which their tokens were issued."),
        "gateways": times("Addresses of gateways, and the same."),
    });
    object(&["tokens", "subjects", "gateways"], &fields)
}

fn revocation() -> Value {
    let fields = json!({
        "token": perhaps("string", "The id of one token (`jti`)."),
        "until_ms": perhaps("integer", "When that token ends anyway, Unix milliseconds."),
        "subject": perhaps("string", "All tokens of a client's subject that were issued until now."),
        "gateway": perhaps("string", "All tokens of a gateway that were issued until now, by its address."),
    });
    object(&[], &fields)
}

fn revoked() -> Value {
    let fields = json!({
        "token": text("The token's id."),
        "subject": text("The subject."),
        "gateway": text("The gateway's address."),
        "issued_before_ms": perhaps("integer", "Tokens that were issued before this time are good no more."),
    });
    object(&["issued_before_ms"], &fields)
}

fn gateway() -> Value {
    let fields = json!({
        "of": text("Its address."),
        "online": { "type": "boolean" },
        "since_ms": number("Since when, Unix milliseconds."),
        "epoch": number("The epoch of its last session."),
        "edge": perhaps("string", "The edge that holds it."),
        "reason": perhaps("string", "Why it came or went."),
    });
    object(&["of", "online", "since_ms", "epoch", "edge", "reason"], &fields)
}

fn kicked() -> Value {
    let fields = json!({
        "of": text("Its address."),
        "edge": text("The edge that was told to close its session."),
        "epoch": number("Which session."),
    });
    object(&["of", "edge", "epoch"], &fields)
}

fn new_flats() -> Value {
    let row = object(
        &["address"],
        &json!({
            "address": text("building/gateway."),
            "name": perhaps("string", "What people call it, at most 128 bytes."),
            "floor": perhaps("string", "On which floor it is."),
            "note": perhaps("string", "What else there is to say."),
        }),
    );
    let fields = json!({
        "flats": { "type": "array", "maxItems": FLATS_AT_ONCE, "items": row },
        "codes": { "type": ["string", "null"], "enum": ["missing", "all", null], "description": "Which get a code: those \
            that have none and were never enrolled, or all, whose older codes are good no more." },
        "code_ttl_ms": perhaps("integer", "For how long codes are good, in milliseconds; 30 days without it."),
    });
    object(&["flats"], &fields)
}

fn registered_flats() -> Value {
    let row = object(
        &["address", "new", "code"],
        &json!({
            "address": text("Its address."),
            "new": { "type": "boolean", "description": "Whether it was not known before." },
            "code": perhaps("string", "Its code, when one was made. It is kept nowhere, and shown this once."),
        }),
    );
    let fields = json!({
        "flats": { "type": "array", "items": row },
        "codes_until_ms": number("Until when the codes are good, Unix milliseconds."),
    });
    object(&["flats", "codes_until_ms"], &fields)
}

fn flat() -> Value {
    let fields = json!({
        "address": text("Its address."),
        "name": perhaps("string", "What people call it."),
        "floor": perhaps("string", "On which floor it is."),
        "note": perhaps("string", "What else there is to say."),
        "enrolled_at_ms": perhaps("integer", "When its gateway was enrolled last, Unix milliseconds."),
        "code_waits": { "type": "boolean", "description": "Whether a code of it is good." },
        "token_expires_at_ms": perhaps(
            "integer",
            "The latest end of a token that its gateway was given since it was enrolled last, to a day, Unix milliseconds; null \
             when none is known.",
        ),
    });
    let always = ["address", "name", "floor", "note", "enrolled_at_ms", "code_waits", "token_expires_at_ms"];
    object(&always, &fields)
}

fn usage() -> Value {
    let fields = json!({
        "gateways_known": number("Gateways of which the registry knows."),
        "gateway_sessions": number("Of these, how many are connected."),
        "client_sessions": number("Clients that are connected, as edges told within the last half minute."),
        "subscriptions": number("Subscriptions of all sessions, those of gateways included, as edges told."),
        "undecided_commands": number("Commands that have no final outcome yet, held ones included."),
        "frames_per_s": number("Messages from all its sessions in a second, about: the last ten."),
        "bytes_per_s": number("Bytes of these in a second."),
        "busy_ms_per_s": number("Milliseconds that edges spend for it in a second, of all their processors."),
        "events": number("Events that are kept, those between that were erased included."),
    });
    let all = fields.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
    object(&all, &fields)
}
