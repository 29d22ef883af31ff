//! The description of the admin API, made from its routes and schemas.

use serde_json::{Map, Value, json};

use super::routes::{ROUTES, Route};
use super::schema::{named, schemas};

/// OpenAPI 3.1 of the whole admin API.
pub fn openapi() -> Value {
    let mut paths = Map::new();
    for route in &ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Riser admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Tenants of a Riser cluster: their keys, quotas and what was revoked. For operators alone.",
        },
        "security": [{ "bearer": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas(),
            "responses": {
                "Problem": {
                    "description": "It was refused, and nothing was changed.",
                    "content": { "application/problem+json": { "schema": named("Problem") } },
                },
            },
        },
    })
}

fn operation(route: &Route) -> Value {
    let (status, schema) = route.answer;
    let mut answer = json!({
        "description": "Done.",
        "content": { "application/json": { "schema": named(schema) } },
    });
    if route.tagged {
        let about = "The tenant's revision, for `If-Match`.";
        answer["headers"] = json!({ "ETag": { "description": about, "schema": { "type": "string" } } });
    }
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.about,
        "parameters": parameters(route),
        "responses": { status.to_string(): answer, "default": { "$ref": "#/components/responses/Problem" } },
    });
    if let Some(schema) = route.body {
        let content = json!({ "application/json": { "schema": named(schema) } });
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    operation
}

fn parameters(route: &Route) -> Vec<Value> {
    let path = route.path_names().map(
        |name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 } }),
    );
    let query = route.query.iter().map(|param| {
        let kind = if param.number { "integer" } else { "string" };
        json!({ "name": param.name, "in": "query", "description": param.about, "schema": { "type": kind } })
    });
    let changes = route.tagged && route.method != "GET" && !route.id.starts_with("create");
    let expected = changes.then(|| {
        let about = "The ETag that the tenant must still have; else 412.";
        json!({ "name": "If-Match", "in": "header", "description": about, "schema": { "type": "string" } })
    });
    path.chain(query).chain(expected).collect()
}
