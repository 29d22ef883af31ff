//! The description of the admin API, made from its routes and schemas.

use riser_ops::openapi::{About, describe};
use serde_json::Value;

use super::routes::ROUTES;
use super::schema::schemas;

/// OpenAPI 3.1 of the whole admin API.
pub fn openapi() -> Value {
    let about = About {
        title: "Riser admin API",
        text: "Tenants of a Riser cluster: their keys, quotas and what was revoked. For operators alone.",
    };
    describe(about, &ROUTES, schemas())
}
