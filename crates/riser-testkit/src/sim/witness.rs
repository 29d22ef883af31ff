//! A reader of the stores, past every edge and every fault.

use std::sync::Arc;
use std::time::Duration;

use riser_core::command::Outcome;
use riser_core::{EdgeId, GatewayKey};
use riser_registry::commands::RECORDS_PAGE;
use riser_registry::memory::MemoryClient;
use riser_registry::{CommandStore as _, StateStore as _};
use tokio::time::sleep;

use super::Stage;
use crate::history::{Became, Body, Event, Stored, Who};

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
