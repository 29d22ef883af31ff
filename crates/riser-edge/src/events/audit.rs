//! The audit: who did what, from where, as events of the tenant that it was done to.
//!
//! They are shown to those who may manage the tenant, and are the broker's word: no peer may send their type, and since they are
//! sent by the broker none can take an id of theirs beforehand. The control plane tells such events too. Commands are told for tenants
//! that want it ([`Tenant::audit_commands`](riser_core::Tenant)): then each is an event at its gateway's address, of which
//! nobody waits for the storing, so that a slow event store holds up no command.

use std::net::IpAddr;
use std::sync::Arc;

use riser_core::command::{Action, CommandId};
use riser_core::event::{Event, EventId, EventType};
use riser_core::{Address, GatewayKey, Identity, Json, Path, PathFilter, Pattern, Verb};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{of_broker, store};
use crate::commands::issuer::who;
use crate::shared::Shared;

/// The type of these events.
const AUDIT: &str = "audit";
/// Events of one tenant that wait to be stored without somebody who waits for them. More are lost and counted.
pub(crate) const AUDITS_WAITING: usize = 256;

/// What was done with a command.
pub(crate) struct Deed<'a> {
    pub(crate) what: &'static str,
    pub(crate) cmd: &'a CommandId,
    pub(crate) path: &'a Path,
    pub(crate) action: &'a Action,
}

/// Whether an event says who did what in the tenant.
pub(crate) fn is_audit(event: &Event) -> bool {
    is_type(&event.kind)
}

/// Whether this is the type of such events.
pub(crate) fn is_type(kind: &EventType) -> bool {
    kind.as_str() == AUDIT
}

/// Whether a credential shows such events: who may manage the tenant. Every gateway may read what is told to the whole
/// tenant, and what operators do is none of its business.
pub(crate) fn may_audit(identity: &Identity) -> bool {
    identity.allows(Verb::Manage, &Pattern::All, &PathFilter::ALL)
}

/// Tells that something was done, about the whole tenant. It is done: when nobody takes the event, the log says so.
pub(crate) async fn tell(shared: &Arc<Shared>, identity: &Identity, from: IpAddr, what: &'static str, about: Value) {
    let id = format!("audit-{}", shared.next_key()).parse().expect("an edge's name and a number are a short text");
    let of = "_/_".parse().expect("the address of a tenant");
    let event = event(identity, of, id, what, Some(from), about);
    let about = event.data.clone();
    if store(shared, &identity.tenant, event, Instant::now()).await.is_err() {
        let about = about.as_ref().map(Json::as_str);
        tracing::error!(tenant = %identity.tenant, about, "what was done could not be told as an event");
    }
}

/// Tells what was done with a command, if the tenant wants it, without waiting. The same deed of the same is told once for
/// as long as events are recognised.
pub(crate) fn note(shared: &Arc<Shared>, identity: &Identity, from: Option<IpAddr>, deed: &Deed<'_>) {
    if shared.with_tenant(&identity.tenant, |tenant| tenant.audit_commands) != Some(true) {
        return;
    }
    let Some(place) = shared.usage(&identity.tenant).audit_place() else {
        shared.metrics.events.audits_lost.inc();
        return;
    };
    let about = json!({ "cmd": deed.cmd.to_string(), "action": deed.action });
    let id = id(deed, &who(identity), from);
    let told = event(identity, deed.cmd.of.clone(), id, deed.what, from, about);
    let event = Event { path: Some(deed.path.clone()), ..told };
    let (shared, tenant, busy) = (shared.clone(), identity.tenant.clone(), shared.busy());
    shared.clone().tasks.spawn(async move {
        if store(&shared, &tenant, event, Instant::now()).await.is_err() {
            shared.metrics.events.audits_lost.inc();
        }
        drop((place, busy));
    });
}

/// The name of the event. A hash, because a command's name may be as long as an event's may be.
fn id(deed: &Deed<'_>, who: &str, from: Option<IpAddr>) -> EventId {
    let mut hash = Sha256::new();
    for part in [deed.what, &deed.cmd.to_string(), who, &from.map_or(String::new(), |from| from.to_string())] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let text = hash.finalize().iter().fold("audit-".to_owned(), |text, byte| text + &format!("{byte:02x}"));
    text.parse().expect("a word and a hash are a short text")
}

fn event(
    identity: &Identity,
    of: Address,
    id: EventId,
    what: &'static str,
    from: Option<IpAddr>,
    about: Value,
) -> Event {
    let mut data = Map::from_iter([("who".to_owned(), json!(who(identity))), ("what".to_owned(), json!(what))]);
    data.extend(from.map(|from| ("from".to_owned(), json!(from))));
    if let Value::Object(about) = about {
        data.extend(about);
    }
    let kind = AUDIT.parse().expect("a word is a type");
    of_broker(&GatewayKey::new(identity.tenant.clone(), of), id, kind, Json::of(&data))
}
