//! Who subscribed to what, found by the few filters that can match a subject instead of by trying them all.

use std::collections::HashMap;
use std::sync::Arc;

use riser_core::{GatewayKey, Pattern};
use tokio::time::Instant;

use super::Client;
use crate::{Delivery, Filter, Inbox, Subject};

/// One subscription.
pub(super) struct Sub {
    pub(super) id: u64,
    pub(super) owner: Arc<Client>,
    pub(super) inbox: Inbox,
    /// Until when messages pass it by; none when it took effect at once.
    pub(super) takes_effect: Option<Instant>,
}

impl Sub {
    /// Puts a message into the inbox, or counts it as lost.
    pub(super) fn hand(&self, delivery: Delivery) {
        if !self.inbox.deliver(delivery) {
            self.owner.health.send_modify(|h| h.overflowed += 1);
        }
    }
}

/// All subscriptions by filter, those of one filter in the order in which they were made. The map is only ever
/// looked into by key, so that its own order, which differs between runs, shows nowhere.
#[derive(Default)]
pub(super) struct Routes(HashMap<Filter, Vec<Arc<Sub>>>);

impl Routes {
    pub(super) fn add(&mut self, filter: &Filter, sub: Arc<Sub>) {
        self.0.entry(filter.clone()).or_default().push(sub);
    }

    pub(super) fn remove(&mut self, filter: &Filter, id: u64) {
        if let Some(subs) = self.0.get_mut(filter) {
            subs.retain(|s| s.id != id);
            if subs.is_empty() {
                self.0.remove(filter);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// The subscriptions that a message on this subject is for.
    pub(super) fn matching(&self, subject: &Subject) -> impl Iterator<Item = &Arc<Sub>> {
        filters(subject).into_iter().flatten().filter_map(|filter| self.0.get(&filter)).flatten()
    }
}

/// Every filter that matches a subject, the narrowest first.
fn filters(subject: &Subject) -> [Option<Filter>; 3] {
    let patterns = |key: &GatewayKey| {
        [Pattern::One(key.address.clone()), Pattern::Building(key.address.building().clone()), Pattern::All]
    };
    match subject {
        Subject::Up(key) => patterns(key).map(|pattern| Some(Filter::Up(key.tenant.clone(), pattern))),
        Subject::Live(key) => patterns(key).map(|pattern| Some(Filter::Live(key.tenant.clone(), pattern))),
        Subject::Edge(edge, _) => [Some(Filter::Edge(edge.clone())), None, None],
        Subject::EdgeLive(edge, _) => [Some(Filter::EdgeLive(edge.clone())), None, None],
        Subject::Edges => [Some(Filter::Edges), None, None],
    }
}
