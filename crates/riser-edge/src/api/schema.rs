//! The schemas of what is sent and answered, by the names that routes have them under.

use riser_bus::log::LOG_PAGE;
use riser_core::command::{ACTION_BYTES, Status};
use riser_core::event::EVENT_TYPE_BYTES;
use riser_ops::openapi::schema::{GATEWAY, grant, matching, named, number, object, perhaps, text};
use riser_registry::PRESENCE_PAGE;
use riser_registry::commands::RECORDS_PAGE;
use serde_json::{Map, Value, json};

use crate::auth::{CLIENT_TTL_MAX_S, GATEWAY_TTL_MAX_S};

/// Every schema.
pub(super) fn schemas() -> Map<String, Value> {
    let mut all = Map::new();
    for (name, schema) in [
        ("OpenApi", json!({ "type": "object", "description": "OpenAPI 3.1." })),
        ("Grant", grant()),
        ("Enrolment", object(&["code"], &json!({ "code": text("The code.") }))),
        ("Enrolled", enrolled()),
        ("NewToken", new_token()),
        ("Token", token()),
        ("NewCommand", new_command()),
        ("Accepted", object(&["cmd"], &json!({ "cmd": cmd() }))),
        ("Outcome", outcome()),
        ("Command", object(&["cmd", "of", "outcomes"], &json!({ "cmd": cmd(), "of": of(), "outcomes": outcomes() }))),
        ("CommandRow", command_row()),
        ("CommandPage", page("commands", "CommandRow", RECORDS_PAGE)),
        ("Snapshot", snapshot()),
        ("Presence", presence()),
        ("PresencePage", page("gateways", "Presence", PRESENCE_PAGE)),
        ("NewEvent", new_event()),
        ("Stored", object(&["cursor"], &json!({ "cursor": text("The event's own.") }))),
        ("Event", event()),
        ("EventPage", event_page()),
        ("Kicked", kicked()),
        ("Erased", erased()),
    ] {
        all.insert(name.to_owned(), schema);
    }
    all
}

fn of() -> Value {
    text("building/gateway.")
}

fn gateway() -> Value {
    matching(GATEWAY, "building/gateway.")
}

/// A short text of so many bytes at most.
fn short(most: usize, about: &str) -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": most, "description": about })
}

fn device() -> Value {
    matching("^[^/]+(/[^/]+)*$", "Which device, as a path.")
}

fn cmd() -> Value {
    text("The command's name.")
}

fn ms(about: &str) -> Value {
    number(&format!("{about}, in milliseconds since 1970."))
}

/// Any JSON.
fn any(about: &str) -> Value {
    json!({ "description": about })
}

/// A member that may be null, which is as if it were left out.
fn optional(mut schema: Value) -> Value {
    let kind = schema["type"].take();
    schema["type"] = json!([kind, "null"]);
    schema
}

fn page(rows: &str, row: &str, most: usize) -> Value {
    let rows_of = json!({ "type": "array", "maxItems": most, "items": named(row) });
    object(&[rows, "next"], &json!({ rows: rows_of, "next": perhaps("string", "Where to go on; null at the end.") }))
}

fn enrolled() -> Value {
    let fields = json!({
        "tenant": text("Whose flat it is."),
        "address": of(),
        "token": text("The gateway's credential."),
        "expires_at_ms": ms("When the token ends"),
    });
    object(&["tenant", "address", "token", "expires_at_ms"], &fields)
}

fn new_token() -> Value {
    let ttl =
        |most: u64| json!({ "type": ["integer", "null"], "minimum": 1, "maximum": most, "description": "In seconds." });
    let gateway = object(
        &["peer", "address"],
        &json!({ "peer": { "const": "gateway" }, "address": gateway(), "ttl_s": ttl(GATEWAY_TTL_MAX_S) }),
    );
    let grants = json!({ "type": "array", "minItems": 1, "maxItems": 64, "items": named("Grant") });
    let client = object(
        &["peer", "subject", "grants"],
        &json!({
            "peer": { "const": "client" },
            "subject": { "type": "string", "minLength": 1, "maxLength": 128, "description": "Who it is for." },
            "grants": grants,
            "ttl_s": ttl(CLIENT_TTL_MAX_S),
        }),
    );
    json!({ "oneOf": [gateway, client] })
}

fn token() -> Value {
    let fields = json!({ "token": text("A JWT."), "expires_at_ms": ms("When it ends") });
    object(&["token", "expires_at_ms"], &fields)
}

fn new_command() -> Value {
    let fields = json!({
        "to": gateway(),
        "path": device(),
        "action": short(ACTION_BYTES, "What it is to do."),
        "args": any("With what."),
        "deadline_ms": optional(number("By when, in milliseconds from now.")),
        "if_offline": { "type": ["string", "null"], "enum": ["fail", "hold", null] },
        "key": optional(text("The same key within an hour of the deadline is the same command.")),
        "wait": { "type": ["string", "null"], "enum": ["final", null] },
    });
    object(&["to", "path", "action"], &fields)
}

fn outcome() -> Value {
    let fields = json!({
        "status": { "type": "string", "enum": Status::ALL.map(Status::as_str) },
        "final": { "type": "boolean" },
        "late": { "type": "boolean", "description": "The gateway's word came after the final outcome." },
        "code": perhaps("string", "The gateway's word for why."),
        "data": any("What the gateway says."),
        "at_ms": ms("When"),
    });
    object(&["status", "final", "code", "data", "at_ms"], &fields)
}

fn outcomes() -> Value {
    json!({ "type": "array", "items": named("Outcome") })
}

fn command_row() -> Value {
    let fields = json!({
        "cmd": cmd(),
        "of": of(),
        "path": text("Which device."),
        "action": text("What it was to do."),
        "by": text("Who sent it."),
        "at_ms": ms("When it was recorded"),
        "deadline_at_ms": ms("Its deadline"),
        "outcomes": outcomes(),
    });
    object(&["cmd", "of", "path", "action", "by", "at_ms", "deadline_at_ms", "outcomes"], &fields)
}

fn snapshot() -> Value {
    let paths =
        json!({ "type": "array", "items": { "type": "string" }, "description": "Paths whose values are not fresh." });
    let fields = json!({
        "of": of(),
        "name": text("The flat's name, if it is registered with one."),
        "floor": text("The flat's floor, if it is registered with one."),
        "online": { "type": "boolean" },
        "since_ms": ms("Since when"),
        "epoch": number("Which session."),
        "rev": number("Which change of it."),
        "at_ms": ms("When that was stored"),
        "state": { "type": "object", "description": "Values by path." },
        "stale": paths,
        "devices": { "type": "object", "description": "Descriptions by path." },
    });
    object(&["of", "online", "since_ms", "epoch", "rev", "at_ms", "state", "stale"], &fields)
}

fn presence() -> Value {
    let fields = json!({
        "of": of(),
        "online": { "type": "boolean" },
        "since_ms": perhaps("integer", "Since when, in milliseconds since 1970."),
        "epoch": perhaps("integer", "Which session."),
        "edge": perhaps("string", "Where it is connected."),
        "reason": perhaps("string", "Why it is offline."),
        "name": text("The flat's name, if it is registered with one."),
        "floor": text("The flat's floor, if it is registered with one."),
        "token_expires_at_ms": ms(
            "To who may manage the building: the latest end, to a day, of a token that the gateway of a registered flat was given since \
             it was enrolled last",
        ),
    });
    object(&["of", "online", "since_ms", "epoch", "edge", "reason"], &fields)
}

fn new_event() -> Value {
    let fields = json!({
        "id": optional(text("The same id from the same sender is stored once, for a while.")),
        "path": optional(device()),
        "type": short(EVENT_TYPE_BYTES, "What kind of event."),
        "data": any("More of it."),
        "ts_ms": { "type": ["integer", "null"], "description": "The sender's own time." },
    });
    object(&["type"], &fields)
}

fn event() -> Value {
    let fields = json!({
        "of": of(),
        "cursor": text("Its position."),
        "id": text("Its id."),
        "path": text("Which device."),
        "type": text("What kind of event."),
        "data": any("More of it."),
        "from": text("Who sent it."),
        "at_ms": ms("When it was stored"),
        "ts_ms": { "type": "integer", "description": "The sender's own time." },
    });
    object(&["of", "cursor", "id", "type", "from", "at_ms"], &fields)
}

fn event_page() -> Value {
    let fields = json!({
        "events": { "type": "array", "maxItems": LOG_PAGE, "items": named("Event") },
        "cursor": text("Where to go on."),
        "gap": { "type": "boolean", "description": "Events before these are missing." },
    });
    object(&["events", "cursor", "gap"], &fields)
}

fn kicked() -> Value {
    let fields = json!({ "of": of(), "edge": text("Where it was."), "epoch": number("Which session.") });
    object(&["of", "edge", "epoch"], &fields)
}

fn erased() -> Value {
    let fields = json!({
        "of": of(),
        "values": number("Values that were erased."),
        "commands": number("Commands that were erased."),
        "events": number("Events that were erased."),
        "revoked": { "type": "boolean", "description": "Whether its tokens were revoked." },
    });
    object(&["of", "values", "commands", "events", "revoked"], &fields)
}
