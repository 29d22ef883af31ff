//! A session's part in the live lane: its subscriptions as the tenant's room sees them.

use std::sync::{Arc, OnceLock};

use riser_core::{Address, Identity, Pattern, TenantId};

use super::room::{Pinned, Room};
use crate::hub::{Member, Sub, SubscribeError};
use crate::shared::Shared;

/// The hearing of a session that subscribes. It costs a room only once it asks for the live lane.
pub(crate) struct Ear {
    tenant: TenantId,
    /// A gateway's own address, of which it hears without subscribing.
    own: Option<Address>,
    room: OnceLock<Arc<Room>>,
}

impl Ear {
    pub(crate) fn new(identity: &Identity) -> Self {
        Self { tenant: identity.tenant.clone(), own: identity.address().cloned(), room: OnceLock::new() }
    }

    /// Sees to it that this edge hears what a subscription is about, before it is made.
    pub(crate) async fn prepare(&self, shared: &Arc<Shared>, sub: &Sub) -> Result<Option<Pinned>, SubscribeError> {
        if !sub.lanes.live {
            return Ok(None);
        }
        let room = self.room.get_or_init(|| shared.live.room(shared, &self.tenant));
        room.watch(shared, &sub.to).await.map(Some)
    }

    /// Makes or replaces a subscription: tells which streams are open, and more from now on.
    pub(crate) fn join(&self, shared: &Shared, member: &Arc<Member>, sub: &Sub) {
        let Some(room) = self.room.get() else { return };
        if sub.lanes.live {
            room.join(shared, member, self.own.as_ref(), sub);
        } else {
            room.part(member.id, &sub.to);
        }
    }

    /// Ends a subscription: nothing more of it comes, not even what waits.
    pub(crate) fn part(&self, member: &Member, to: &Pattern) {
        if let Some(room) = self.room.get() {
            room.part(member.id, to);
        }
    }

    /// Ends everything.
    pub(crate) fn leave(&self, member: &Member) {
        if let Some(room) = self.room.get() {
            room.leave(member.id);
        }
    }
}
