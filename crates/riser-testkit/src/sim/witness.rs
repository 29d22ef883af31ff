//! A reader of the stores, past every edge and every fault.

use std::sync::Arc;
use std::time::Duration;

use riser_bus::log::Log as _;
use riser_core::command::Outcome;
use riser_core::event::Cursor;
use riser_core::{EdgeId, GatewayKey, TenantId};
use riser_registry::commands::RECORDS_PAGE;
use riser_registry::memory::MemoryClient;
use riser_registry::{CommandStore as _, StateStore as _};
use tokio::time::sleep;

use super::Stage;
use crate::history::{Became, Body, Event, Happened, Stored, Who};

/// Between two looks at the events that are stored.
const EVENTS: Duration = Duration::from_millis(200);

pub(super) fn id() -> EdgeId {
    "witness".parse().expect("a good name")
}

pub(super) async fn watch(stage: Arc<Stage>, witness: MemoryClient, keys: Vec<GatewayKey>, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    loop {
        sleep(Duration::from_millis(rng.u64(20..400))).await;
        read(&stage, &witness, &keys[rng.usize(..keys.len())]).await;
    }
}

/// Writes down what the store says of a gateway, past every edge.
pub(super) async fn read(stage: &Stage, witness: &MemoryClient, key: &GatewayKey) {
    // A witness that is not answered has seen nothing.
    let Ok(found) = witness.read(key).await else { return };
    let found = found.map(|snapshot| Stored {
        online: snapshot.presence.online,
        epoch: snapshot.version.epoch.0,
        rev: snapshot.version.rev.0,
        stale: snapshot.state.values.iter().filter(|(_, v)| v.stale).map(|(p, _)| p.to_string()).collect(),
        values: snapshot
            .state
            .values
            .iter()
            .filter_map(|(p, v)| Some((p.to_string(), body(v.value.as_str())?)))
            .collect(),
    });
    let event = Event::Read { tenant: key.tenant.to_string(), of: key.address.to_string(), found };
    stage.recorder.write(&Who::Store, event);
}

fn body(json: &str) -> Option<Body> {
    serde_json::from_str(json).ok()
}

/// Reads events as they are stored, before retention drops them.
pub(super) async fn watch_events(stage: Arc<Stage>) {
    loop {
        sleep(EVENTS).await;
        for tenant in stage.tenants() {
            read_events(&stage, &tenant).await;
        }
    }
}

/// Writes down what is stored of a tenant's events and was not written down yet.
pub(super) async fn read_events(stage: &Stage, tenant: &TenantId) {
    let log = stage.cluster.log.client(&id());
    loop {
        let (life, seq) = stage.read_up_to(tenant, None);
        let Ok(page) = log.read(tenant, seq + 1).await else { return };
        if page.bounds.life != life {
            // Another stream: from its beginning.
            stage.read_up_to(tenant, Some((page.bounds.life, 0)));
            if page.bounds.last == 0 {
                return;
            }
            continue;
        }
        let Some(last) = page.events.last().map(|stored| stored.seq) else { return };
        for stored in page.events {
            let event = Event::Logged {
                tenant: tenant.to_string(),
                cursor: Cursor { life, seq: stored.seq }.to_string(),
                happened: Happened {
                    of: stored.event.of.to_string(),
                    id: stored.event.id.to_string(),
                    path: stored.event.path.map(|path| path.to_string()),
                    from: stored.event.from,
                    body: stored.event.data.and_then(|data| body(data.as_str())),
                },
            };
            stage.recorder.write(&Who::Store, event);
        }
        stage.read_up_to(tenant, Some((life, last)));
    }
}

/// Writes down what the records of a gateway's commands say.
pub(super) async fn read_commands(stage: &Stage, witness: &MemoryClient, key: &GatewayKey) {
    let mut before = None;
    loop {
        let Ok(page) = witness.latest(key, before, RECORDS_PAGE).await else { return };
        for record in &page {
            let event = Event::Record {
                tenant: key.tenant.to_string(),
                of: key.address.to_string(),
                cmd: record.cmd.to_string(),
                outcomes: record.outcomes.iter().map(became).collect(),
            };
            stage.recorder.write(&Who::Store, event);
        }
        match page.last() {
            Some(last) if page.len() == RECORDS_PAGE => before = Some(last.seq),
            _ => return,
        }
    }
}

fn became(outcome: &Outcome) -> Became {
    Became {
        status: outcome.status.as_str().to_owned(),
        last: outcome.is_final(),
        late: outcome.late,
        code: outcome.code.as_ref().map(ToString::to_string),
        body: outcome.data.as_ref().and_then(|data| body(data.as_str())),
        at_ms: outcome.at_ms,
    }
}
