//! What schemas are made of, and those that every API has.

use riser_core::ErrorCode;
use serde_json::{Value, json};

/// A tenant's name, as `riser_core::id` has it.
pub const TENANT: &str = "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$";
/// A part of an address.
pub const PART: &str = "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$";
/// The address of a gateway.
pub const GATEWAY: &str = "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}/[A-Za-z0-9][A-Za-z0-9_-]{0,63}$";
/// Addresses: one, those of a building, or all.
pub const ADDRESSES: &str = "^(\\*|_|[A-Za-z0-9][A-Za-z0-9_-]{0,63})/(\\*|_|[A-Za-z0-9][A-Za-z0-9_-]{0,63})$";

/// What a parameter of a path may be, by its name.
pub(super) fn of_name(name: &str) -> Value {
    match name {
        "tenant" => json!({ "type": "string", "pattern": TENANT }),
        // The gateway `_` stands for its building.
        "gateway" => json!({ "type": "string", "pattern": "^(_|[A-Za-z0-9][A-Za-z0-9_-]{0,63})$" }),
        "building" => json!({ "type": "string", "pattern": PART }),
        _ => json!({ "type": "string", "minLength": 1 }),
    }
}

/// A text that matches a regular expression.
pub fn matching(pattern: &str, about: &str) -> Value {
    json!({ "type": "string", "pattern": pattern, "description": about })
}

/// A reference to a schema.
pub fn named(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// An object of which these fields are always there, and nothing that is not named.
pub fn object(required: &[&str], properties: &Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties, "additionalProperties": false })
}

/// A text.
pub fn text(about: &str) -> Value {
    json!({ "type": "string", "description": about })
}

/// A whole number from 0.
pub fn number(about: &str) -> Value {
    json!({ "type": "integer", "minimum": 0, "description": about })
}

/// Null, or what is of this kind.
pub fn perhaps(kind: &str, about: &str) -> Value {
    json!({ "type": [kind, "null"], "description": about })
}

/// A right of a credential.
pub fn grant() -> Value {
    let fields = json!({
        "to": matching(ADDRESSES, "building/gateway, building/* or */*."),
        "path": { "type": "array", "items": { "type": "string" }, "description": "Which paths; all without it." },
        "may": {
            "type": "array",
            "items": { "type": "string", "enum": riser_core::Verb::ALL },
            "description": "What.",
        },
    });
    object(&["to", "may"], &fields)
}

/// An error.
pub(super) fn problem() -> Value {
    json!({
        "type": "object",
        "description": "RFC 9457.",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": text("about:blank"),
            "title": text("The words of the status."),
            "status": number("The status."),
            "detail": text("What is wrong with this request."),
            "code": {
                "type": "string",
                "enum": ErrorCode::ALL,
                "description": "As in an error frame of the wire protocol.",
            },
        },
    })
}
