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
use riser_core::GatewayKey;
use riser_core::command::{CommandId, CommandKey, Digest, Outcome, Record, Step, Took};
use riser_core::frame::outbound;
use riser_core::routed::{self, ToEdge};
use riser_registry::{Holder, RegistryError, Stepped};
use sha2::{Digest as _, Sha256};

use crate::shared::Shared;
use crate::ws::frame;

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
    let stepped = shared.call(shared.ports.commands.step(key, cmd, step)).await?;
    if let Some(stepped) = &stepped {
        count(shared, stepped);
        let news = stepped.record.outcomes.len() > stepped.before;
        // What an earlier call did that nobody heard the answer of was told to nobody.
        let repeated = !matches!(step, Step::Look) && !matches!(stepped.took, Took::No(_));
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

/// Tells the edges whose sessions want to know all that became of a command.
pub(crate) async fn tell(shared: &Arc<Shared>, key: &GatewayKey, record: &Record) {
    let mut message = None;
    for edge in &record.edges {
        if *edge == shared.config.id {
            shared.waiters.deliver(shared, key, &record.cmd, &record.outcomes);
            continue;
        }
        let message = message.get_or_insert_with(|| {
            routed::encode(&ToEdge::Outcomes { cmd: record.cmd.clone(), outcomes: record.outcomes.clone() })
        });
        shared.publish(&Subject::Edge(edge.clone(), key.clone()), message.clone()).await;
    }
}

/// Lets the edge that holds the gateway know that there is a command for it.
pub(crate) async fn dispatch(shared: &Arc<Shared>, key: &GatewayKey, record: Record, holder: &Holder) {
    shared.waiters.dispatched(key, &record.cmd);
    if holder.edge != shared.config.id {
        let message = ToEdge::Dispatch { from: shared.config.id.clone(), record: Box::new(record) };
        shared.publish(&Subject::Edge(holder.edge.clone(), key.clone()), routed::encode(&message)).await;
        return;
    }
    let cmd = record.cmd.clone();
    if !desk::dispatched(shared, key, record) {
        shared.waiters.not_here(key, &cmd);
    }
}

/// Takes what other edges say about commands.
pub(crate) async fn take(shared: &Arc<Shared>, key: &GatewayKey, message: ToEdge) {
    match message {
        ToEdge::Dispatch { from, record } => {
            let cmd = record.cmd.clone();
            if cmd.of == key.address && !desk::dispatched(shared, key, *record) {
                let answer = routed::encode(&ToEdge::NotHere { cmd });
                shared.publish(&Subject::Edge(from, key.clone()), answer).await;
            }
        }
        ToEdge::NotHere { cmd } => shared.waiters.not_here(key, &cmd),
        ToEdge::Cancel { cmd } => forward_cancel(shared, key, &cmd),
        ToEdge::Outcomes { cmd, outcomes } => shared.waiters.deliver(shared, key, &cmd, &outcomes),
        // These are not about commands.
        ToEdge::TakenOver { .. } | ToEdge::Hears { .. } => {}
    }
}

/// Asks the gateway, when it is here, to cancel a command that it was sent.
pub(crate) fn forward_cancel(shared: &Shared, key: &GatewayKey, cmd: &CommandId) {
    let gateway = shared.gateways.lock().held.get(key).cloned();
    if let Some(gateway) = gateway {
        gateway.conn.send(frame::text(&outbound::cancel(cmd)));
    }
}

/// Whether a list of outcomes holds the one that decided the command.
pub(crate) fn is_decided(outcomes: &[Outcome]) -> bool {
    outcomes.iter().any(Outcome::is_final)
}
