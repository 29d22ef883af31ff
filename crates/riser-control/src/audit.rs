//! The audit: who changed what, from where, as events of the tenant that it was done to, kept as long as its other events.
//!
//! An event says which fields were changed and never to what: no key, no secret and no value of a document is in it.

use std::time::Duration;

use riser_core::event::Event;
use riser_core::{Json, TenantId};
use serde_json::{Map, Value, json};

use crate::control::{Caller, Control};

/// The type of these events.
pub const AUDIT: &str = "audit";
/// How long a repeated event would be noticed: each has an id of its own, which only a call that is tried again repeats.
const DEDUP: Duration = Duration::from_secs(120);

impl Control {
    /// Tells what was done. It is done: when nobody takes the event, the log and a metric say so.
    pub(crate) async fn tell(&self, tenant: &TenantId, caller: &Caller, what: &'static str, about: Value) {
        let from = caller.from.to_string();
        tracing::info!(%tenant, who = caller.who, from, what, about = %about, "changed");
        let event = event(caller, &from, what, about);
        let told = match event {
            Some(event) => self.ports.log.append(tenant, event, DEDUP).await.map_err(|error| error.to_string()),
            None => Err("it cannot be written as an event".to_owned()),
        };
        if let Err(error) = told {
            self.audit_failures.inc();
            tracing::error!(%tenant, what, error, "the change was made, and could not be told as an event");
        }
    }
}

fn event(caller: &Caller, from: &str, what: &str, about: Value) -> Option<Event> {
    let mut data = Map::from_iter([
        ("who".to_owned(), json!(caller.who)),
        ("what".to_owned(), json!(what)),
        ("from".to_owned(), json!(from)),
    ]);
    if let Value::Object(about) = about {
        data.extend(about);
    }
    Some(Event {
        of: "_/_".parse().ok()?,
        id: format!("audit-{:032x}", fastrand::u128(..)).parse().ok()?,
        path: None,
        kind: AUDIT.parse().ok()?,
        data: Some(Json::of(&data)),
        from: format!("control:{}", caller.who),
        at_ms: 0,
        ts_ms: None,
    })
}
