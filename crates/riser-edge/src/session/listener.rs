//! What a session subscribes with: its subscriptions are made, replaced and ended one after the other, within its rights.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use riser_core::frame::{N, outbound};
use riser_core::{ErrorCode, Identity, PathFilter, Pattern, Verb};

use super::answer_error;
use crate::events::audit::may_audit;
use crate::hub::{Hub, Member, Sub, SubscribeError};
use crate::live::ear::Ear;
use crate::shared::Shared;
use crate::ws::{Conn, frame};

/// Subscriptions and their ends that may wait behind one another. A client at its limit may replace each of its
/// subscriptions once without waiting for an answer.
const WAITING: usize = 512;

/// What one session subscribes with.
pub(super) struct Listener {
    hub: Arc<Hub>,
    member: Arc<Member>,
    ear: Ear,
    /// The session's rights as they are now, which is not always what they were when a subscription was asked for.
    identity: Mutex<Arc<Identity>>,
    waiting: Mutex<(VecDeque<Op>, bool)>,
}

enum Op {
    Subscribe(N, Sub),
    Unsubscribe(N, Pattern),
}

/// The subscription with the paths that it shows: those that it names, or all that the credential gives. None when the
/// credential does not cover it.
pub(super) fn narrow(identity: &Identity, sub: Sub) -> Option<Sub> {
    let [filter, live] = granted(identity, &sub)?.map(Arc::new);
    // Most hear where they see, and who hears nothing need not have a filter for it.
    let live = if !sub.lanes.live || live == filter { filter.clone() } else { live };
    Some(Sub { filter, live, ..sub })
}

/// Which paths a subscription shows and which it lets hear: those it names, or all that the credential gives when it names
/// none. None when the credential does not cover them.
fn granted(identity: &Identity, sub: &Sub) -> Option<[PathFilter; 2]> {
    let reads = sub.lanes.state || sub.lanes.event || sub.lanes.presence;
    let of = |wanted: bool, verb: Verb, named: &Arc<PathFilter>| {
        if !wanted {
            return Some((**named).clone());
        }
        let given = identity.paths(verb, &sub.to)?;
        if named.is_all() { Some(given) } else { given.contains(named).then(|| (**named).clone()) }
    };
    Some([of(reads, Verb::Read, &sub.filter)?, of(sub.lanes.live, Verb::Listen, &sub.live)?])
}

/// Whether a credential covers a subscription whose paths were chosen already.
fn is_granted(identity: &Identity, sub: &Sub) -> bool {
    granted(identity, sub).is_some_and(|[shown, heard]| shown.contains(&sub.filter) && heard.contains(&sub.live))
}

impl Listener {
    pub(super) fn new(shared: &Arc<Shared>, identity: &Arc<Identity>, conn: &Arc<Conn>) -> Arc<Self> {
        let hub = shared.hub(&identity.tenant);
        let member = Member::new(hub.next_member(), conn.clone(), may_audit(identity));
        let (ear, identity) = (Ear::new(identity), Mutex::new(identity.clone()));
        Arc::new(Self { hub, member, ear, identity, waiting: Mutex::default() })
    }

    /// Makes or replaces a subscription that was narrowed to what the session may see; answers when it is made.
    pub(super) fn subscribe(self: Arc<Self>, shared: &Arc<Shared>, n: N, sub: Sub) {
        self.queue(shared, n, Op::Subscribe(n, sub));
    }

    /// Ends a subscription, and answers.
    pub(super) fn unsubscribe(self: Arc<Self>, shared: &Arc<Shared>, n: N, to: Pattern) {
        self.queue(shared, n, Op::Unsubscribe(n, to));
    }

    /// Takes the session's new rights, and ends what they do not cover.
    pub(super) fn renewed(&self, identity: &Arc<Identity>) {
        // The rights first, the subscriptions after: what is still being made is either among them or sees the rights.
        *self.identity.lock() = identity.clone();
        self.member.audits.store(may_audit(identity), Ordering::Relaxed);
        for sub in self.hub.subscriptions(&self.member) {
            if !is_granted(identity, &sub) {
                self.part(&sub.to);
                self.member.conn.push(frame::text(&outbound::unsubscribed(&sub.to, ErrorCode::Forbidden)));
            }
        }
    }

    /// Sends what is owed; true when something was sent.
    pub(super) fn refill(&self, shared: &Arc<Shared>) -> bool {
        self.hub.refill(shared, &self.member)
    }

    /// Its name among the listeners of its tenant.
    pub(super) fn id(&self) -> u64 {
        self.member.id
    }

    /// The session ended.
    pub(super) fn leave(&self) {
        self.hub.leave(&self.member);
        self.ear.leave(&self.member);
    }

    /// Has subscriptions and their ends done one after the other, in the order in which they came.
    fn queue(self: Arc<Self>, shared: &Arc<Shared>, n: N, op: Op) {
        let mut waiting = self.waiting.lock();
        if waiting.0.len() >= WAITING {
            drop(waiting);
            let text = "too many subscriptions wait for their answer";
            return answer_error(shared, &self.member.conn, Some(n), ErrorCode::RateLimited, text);
        }
        waiting.0.push_back(op);
        let idle = !std::mem::replace(&mut waiting.1, true);
        drop(waiting);
        if idle {
            let tenant = self.identity.lock().tenant.clone();
            let limit = shared.with_tenant(&tenant, |t| t.limits.subscriptions).unwrap_or(0);
            let shared = shared.clone();
            shared.clone().tasks.spawn(async move { self.work(&shared, limit).await });
        }
    }

    async fn make(&self, shared: &Arc<Shared>, n: N, sub: Sub, limit: usize) -> Result<(), SubscribeError> {
        let _heard = self.ear.prepare(shared, &sub).await?;
        let allowed = |sub: &Sub| is_granted(&self.identity.lock(), sub);
        let begin = |sub: &Sub| {
            self.member.conn.push(frame::text(&outbound::ok(n)));
            self.ear.join(shared, &self.member, sub);
        };
        self.hub.subscribe(shared, &self.member, sub, limit, allowed, begin).await
    }

    /// Ends a subscription; false when there is none.
    fn part(&self, to: &Pattern) -> bool {
        let there = self.hub.unsubscribe(&self.member, to);
        self.ear.part(&self.member, to);
        there
    }

    async fn work(&self, shared: &Arc<Shared>, limit: usize) {
        loop {
            let op = {
                let mut waiting = self.waiting.lock();
                match waiting.0.pop_front() {
                    Some(op) if !self.member.has_left() => op,
                    _ => {
                        waiting.1 = false;
                        return;
                    }
                }
            };
            let conn = &self.member.conn;
            match op {
                Op::Subscribe(n, sub) => {
                    if let Err(error) = self.make(shared, n, sub, limit).await {
                        answer_error(shared, conn, Some(n), error.code(), error.message());
                    }
                }
                Op::Unsubscribe(n, to) if self.part(&to) => {
                    conn.push(frame::text(&outbound::ok(n)));
                }
                Op::Unsubscribe(n, _) => {
                    answer_error(
                        shared,
                        conn,
                        Some(n),
                        ErrorCode::NotFound,
                        "there is no subscription to this pattern",
                    );
                }
            }
            conn.flush();
        }
    }
}
