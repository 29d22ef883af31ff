//! What schemas are made of, and those that every API has.

use riser_core::ErrorCode;
use serde_json::{Value, json};

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
        "to": text("building/gateway, building/* or */*."),
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
