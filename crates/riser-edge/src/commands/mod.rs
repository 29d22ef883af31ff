//! Commands: issued by clients, done by gateways, decided by their records.
//!
//! A record in the [`CommandStore`](riser_registry::CommandStore) says what became of a command, once. What stands around
//! it here only makes it happen and tells of it: [`issuer`] records what a session asks for; [`desk`] writes to a
//! gateway's socket what is recorded for it and takes its word; [`waiters`] tell whoever wants to know; [`keeper`] looks
//! again at what should have happened by now. Everything sent between edges is a hint that may be lost.

pub(crate) mod desk;
pub(crate) mod issuer;
pub(crate) mod keeper;
pub(crate) mod metrics;
pub(crate) mod waiters;

use std::sync::Arc;

use riser_bus::Subject;
use riser_core::command::{CommandId, CommandKey, Digest, Outcome, Record, Step, Took};
use riser_core::routed::{self, ToEdge};
use riser_core::{GatewayKey, Json};
use riser_registry::{Holder, RegistryError, Stepped};
use sha2::{Digest as _, Sha256};

use crate::shared::Shared;

/// Bytes of data in a message to another edge; of a command with more it is told that it changed, and its record is read.
/// All tenants share an edge's inbox, which is bounded by the number of its messages.
const HINT_BYTES: usize = 4 * 1024;

fn size(json: Option<&Json>) -> usize {
    json.map_or(0, |json| json.as_str().len())
}

/// The hash that names a command: the same for the same key at the same address of the same tenant, whoever asks.
pub(crate) fn digest(key: &GatewayKey, of: &CommandKey) -> Digest {
    let mut hash = Sha256::new();
    for part in [key.tenant.as_str(), key.address.building().as_str(), key.address.gateway().as_str(), of.as_str()] {
        // Names hold no NUL, so that no two lists of parts give the same bytes.
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let mut half = [0; 16];
    half.copy_from_slice(&hash.finalize()[..16]);
    Digest(half)
}

/// Applies a step to a command's record and tells what came of it. None when nothing is known of the command.
pub(crate) async fn step(
    shared: &Arc<Shared>,
    key: &GatewayKey,
    cmd: &CommandId,
    step: &Step,
) -> Result<Option<Stepped>, RegistryError> {
    take_step(shared, key, cmd, step, false).await
}

/// The same. `again` says that an earlier call was not answered: what it did was told to nobody then.
async fn take_step(
    shared: &Arc<Shared>,
    key: &GatewayKey,
    cmd: &CommandId,
    step: &Step,
    again: bool,
) -> Result<Option<Stepped>, RegistryError> {
    let stepped = shared.call(shared.ports.commands.step(key, cmd, step)).await?;
    if let Some(stepped) = &stepped {
        count(shared, stepped);
        let news = stepped.record.outcomes.len() > stepped.before;
        let repeated = again && !matches!(stepped.took, Took::No(_));
        if news || repeated {
            tell(shared, key, &stepped.record).await;
        }
    }
    Ok(stepped)
}

/// Counts what a step added, where it was won.
pub(crate) fn count(shared: &Shared, stepped: &Stepped) {
    for outcome in stepped.record.outcomes.iter().skip(stepped.before) {
        shared.metrics.commands.outcome(outcome);
    }
}

/// Tells the edges whose sessions want to know all that became of a command: those of this edge first, whatever the bus does.
pub(crate) async fn tell(shared: &Arc<Shared>, key: &GatewayKey, record: &Record) {
    let me = &shared.config.id;
    if record.edges.contains(me) {
        shared.waiters.deliver(shared, key, &record.cmd, &record.outcomes);
    }
    let mut message = None;
    for edge in record.edges.iter().filter(|edge| *edge != me) {
        let message = message.get_or_insert_with(|| {
            let cmd = record.cmd.clone();
            let large = record.outcomes.iter().map(|outcome| size(outcome.data.as_ref())).sum::<usize>() > HINT_BYTES;
            let outcomes = if large { Vec::new() } else { record.outcomes.clone() };
            routed::encode(&if large { ToEdge::Changed { cmd } } else { ToEdge::Outcomes { cmd, outcomes } })
        });
        shared.hint(&Subject::Edge(edge.clone(), key.clone()), message.clone()).await;
    }
}

/// Lets the edge that holds the gateway know that there is a command for it.
pub(crate) async fn dispatch(shared: &Arc<Shared>, key: &GatewayKey, record: &Record, holder: &Holder) {
    shared.waiters.dispatched(key, &record.cmd);
    if holder.edge != shared.config.id {
        let (from, cmd) = (shared.config.id.clone(), record.cmd.clone());
        let message = routed::encode(&ToEdge::Dispatch { from, cmd, seq: record.seq, prev: record.prev });
        shared.hint(&Subject::Edge(holder.edge.clone(), key.clone()), message).await;
    } else if !desk::dispatched(shared, key, &record.cmd, record.seq, record.prev) {
        shared.waiters.not_here(key, &record.cmd);
    }
}

/// Takes what other edges say about commands.
pub(crate) async fn take(shared: &Arc<Shared>, key: &GatewayKey, message: ToEdge) {
    match message {
        ToEdge::Dispatch { from, cmd, seq, prev } => {
            if cmd.of == key.address && !desk::dispatched(shared, key, &cmd, seq, prev) {
                let answer = routed::encode(&ToEdge::NotHere { cmd });
                shared.hint(&Subject::Edge(from, key.clone()), answer).await;
            }
        }
        ToEdge::NotHere { cmd } => shared.waiters.not_here(key, &cmd),
        ToEdge::Cancel { cmd } => desk::cancel(shared, key, &cmd),
        ToEdge::Changed { cmd } => shared.waiters.changed(key, &cmd),
        ToEdge::Outcomes { cmd, outcomes } => shared.waiters.deliver(shared, key, &cmd, &outcomes),
        // These are not about commands.
        ToEdge::TakenOver { .. } | ToEdge::Hears { .. } | ToEdge::Kick { .. } => {}
    }
}

/// Whether a list of outcomes holds the one that decided the command.
pub(crate) fn is_decided(outcomes: &[Outcome]) -> bool {
    outcomes.iter().any(Outcome::is_final)
}
