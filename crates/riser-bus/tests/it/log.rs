//! The log and its memory twin.

use riser_core::event::Event;
use riser_core::{EdgeId, TenantId};

mod conformance;
mod faults;
mod joins;
mod limits;
mod model;

/// Where the clocks of the tests start.
const START_MS: u64 = 1_763_800_000_000;

fn edge(name: &str) -> EdgeId {
    name.parse().expect("an edge name")
}

fn tenant(name: &str) -> TenantId {
    name.parse().expect("a tenant name")
}

/// A small event with nothing in it but its names.
fn event(from: &str, id: &str) -> Event {
    Event {
        of: "b1/g1".parse().expect("an address"),
        id: id.parse().expect("an event id"),
        path: None,
        kind: "ring".parse().expect("an event type"),
        data: None,
        from: from.into(),
        at_ms: 0,
        ts_ms: None,
    }
}
