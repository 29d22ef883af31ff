//! The log and its memory twin.

use std::time::Duration;

use riser_bus::log::Tail;
use riser_core::event::Event;
use riser_core::{EdgeId, TenantId};
use tokio::time::timeout;

mod conformance;
mod faults;
mod joins;
mod limits;
mod model;

/// How long a test waits for what must come, which is for a machine that is busy when the clock runs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the clocks of the tests start.
const START_MS: u64 = 1_763_800_000_000;

fn edge(name: &str) -> EdgeId {
    name.parse().expect("an edge name")
}

fn tenant(name: &str) -> TenantId {
    name.parse().expect("a tenant name")
}

/// The number of the next event of a tail, or none when the tail has ended.
async fn next(tail: &mut Tail) -> Option<u64> {
    let stored = timeout(PATIENCE, tail.events.recv()).await.expect("an event, or the end of the tail, in time");
    stored.map(|stored| stored.seq)
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
