//! Who on this edge wants to know what becomes of which command, and how much of it they know.

use std::sync::Arc;

use bytes::Bytes;
use indexmap::IndexMap;
use parking_lot::Mutex;
use riser_core::GatewayKey;
use riser_core::command::{CommandId, Outcome, Record};
use riser_core::frame::outbound;
use riser_registry::Stepped;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Duration, Instant};

use super::is_decided;
use super::issuer::Issuer;
use crate::shared::Shared;
use crate::ws::{Conn, frame};

/// When a command that should have been sent by now is looked at: a dispatch takes milliseconds.
const UNSENT: Duration = Duration::from_secs(1);
/// The longest time between two such looks.
const UNSENT_MOST: Duration = Duration::from_secs(5);
/// When a gateway that was "not here" is looked for again.
const NOT_HERE: Duration = Duration::from_millis(200);
/// Between two looks at a command that was sent: a lost notice costs no more than this.
const SENT: Duration = Duration::from_secs(10);
/// How long after its deadline a command is looked at: the store's clock must have passed it.
const AFTER_DEADLINE: Duration = Duration::from_millis(300);
/// The longest time between two goes through all of them, so that what nobody woke them for is found.
const REST: Duration = Duration::from_secs(5);
/// For how long after its outcome a command's issuers are told what the gateway says late.
const LINGER: Duration = Duration::from_secs(60);

/// A name that says whose command it is.
type Name = (GatewayKey, CommandId);

/// All commands that somebody on this edge waits for.
#[derive(Default)]
pub(crate) struct Waiters {
    waiting: Mutex<IndexMap<Name, Waiter>>,
    /// When all of them are gone through next.
    next: Mutex<Option<Instant>>,
    /// Woken when that must be sooner.
    pub(super) sooner: Notify,
}

struct Waiter {
    listeners: Vec<Listener>,
    outcomes: Vec<Outcome>,
    deadline: Instant,
    look: Instant,
    looks: u32,
}

enum Listener {
    /// A session, which has been told so many outcomes.
    Session(Arc<Issuer>, usize),
    /// An HTTP call that waits for the final outcome.
    Call(oneshot::Sender<Vec<Outcome>>),
}

impl Waiters {
    /// Adds a session that issued a command or repeated it: tells it `answer`, and what is known from the beginning.
    pub(super) fn listen(
        &self,
        shared: &Shared,
        issuer: &Arc<Issuer>,
        key: &GatewayKey,
        stepped: &Stepped,
        answer: &str,
    ) {
        let Stepped { record, now_ms, .. } = stepped;
        let mut waiting = self.waiting.lock();
        let waiter = waiter(&mut waiting, key, record, *now_ms);
        waiter
            .listeners
            .retain(|listener| !matches!(listener, Listener::Session(other, _) if Arc::ptr_eq(other, issuer)));
        issuer.conn.push(frame::text(answer));
        waiter.listeners.push(Listener::Session(issuer.clone(), 0));
        let told = waiter.tell(&record.cmd);
        self.by(waiter.look);
        drop(waiting);
        shared.metrics.commands.told.inc_by(told);
        issuer.conn.flush();
    }

    /// Adds an HTTP call; what it gets comes once, when the command is decided.
    pub(crate) fn call(&self, shared: &Shared, key: &GatewayKey, stepped: &Stepped) -> oneshot::Receiver<Vec<Outcome>> {
        let Stepped { record, now_ms, .. } = stepped;
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        let waiter = waiter(&mut waiting, key, record, *now_ms);
        waiter.listeners.push(Listener::Call(sender));
        shared.metrics.commands.told.inc_by(waiter.tell(&record.cmd));
        self.by(waiter.look);
        receiver
    }

    /// Takes all that became of a command so far.
    pub(super) fn deliver(&self, shared: &Shared, key: &GatewayKey, cmd: &CommandId, outcomes: &[Outcome]) {
        let mut waiting = self.waiting.lock();
        let Some(waiter) = waiting.get_mut(&(key.clone(), cmd.clone())) else { return };
        if outcomes.len() <= waiter.outcomes.len() {
            return;
        }
        let was_decided = is_decided(&waiter.outcomes);
        waiter.outcomes = outcomes.to_vec();
        if is_decided(outcomes) && !was_decided {
            waiter.look = Instant::now() + LINGER;
        } else if !was_decided {
            waiter.look = (Instant::now() + SENT).min(waiter.deadline);
        }
        let told = waiter.tell(cmd);
        let listening = waiter.sessions();
        self.by(waiter.look);
        // Sockets are written to without the lock, which all tenants wait for.
        drop(waiting);
        shared.metrics.commands.told.inc_by(told);
        for conn in listening {
            conn.flush();
        }
    }

    /// Something became of a command: it is looked at.
    pub(super) fn changed(&self, key: &GatewayKey, cmd: &CommandId) {
        if let Some(waiter) = self.waiting.lock().get_mut(&(key.clone(), cmd.clone())) {
            waiter.look = Instant::now();
            self.by(waiter.look);
        }
    }

    /// Sees to it that all are gone through by then.
    fn by(&self, look: Instant) {
        if self.next.lock().is_none_or(|next| look < next) {
            self.sooner.notify_one();
        }
    }

    /// The record of a command was lost: if it was not decided before, this outcome is its last.
    pub(super) fn lost(&self, shared: &Shared, key: &GatewayKey, cmd: &CommandId, outcome: Outcome) {
        let known = self.waiting.lock().get(&(key.clone(), cmd.clone())).map(|waiter| waiter.outcomes.clone());
        if let Some(mut outcomes) = known.filter(|outcomes| !is_decided(outcomes)) {
            outcomes.push(outcome);
            self.deliver(shared, key, cmd, &outcomes);
        }
    }

    /// Forgets a session that ended.
    pub(super) fn leave(&self, issuer: &Arc<Issuer>) {
        for name in issuer.names() {
            self.forget(issuer, &name);
        }
    }

    /// Forgets one command of a session.
    pub(super) fn forget(&self, issuer: &Arc<Issuer>, name: &Name) {
        let mut waiting = self.waiting.lock();
        if let Some(waiter) = waiting.get_mut(name) {
            waiter.listeners.retain(|l| !matches!(l, Listener::Session(other, _) if Arc::ptr_eq(other, issuer)));
            if waiter.listeners.is_empty() {
                waiting.swap_remove(name);
            }
        }
    }

    /// Those of these commands that are decided, as far as is known here.
    pub(super) fn decided(&self, names: &[Name]) -> Vec<Name> {
        let waiting = self.waiting.lock();
        let decided = |name: &&Name| waiting.get(*name).is_none_or(|waiter| is_decided(&waiter.outcomes));
        names.iter().filter(decided).cloned().collect()
    }

    /// A dispatch is on its way; if nothing comes of it, it is looked at again.
    pub(super) fn dispatched(&self, key: &GatewayKey, cmd: &CommandId) {
        self.look_in(key, cmd, |waiter| UNSENT.saturating_mul(1 << waiter.looks.min(3)).min(UNSENT_MOST));
    }

    /// A look was not answered: there is another one soon.
    pub(super) fn unanswered(&self, key: &GatewayKey, cmd: &CommandId) {
        if let Some(waiter) = self.waiting.lock().get_mut(&(key.clone(), cmd.clone())) {
            waiter.look = waiter.look.min(Instant::now() + UNSENT);
            self.by(waiter.look);
        }
    }

    /// The gateway was not where the registry said.
    pub(super) fn not_here(&self, key: &GatewayKey, cmd: &CommandId) {
        self.look_in(key, cmd, |_| NOT_HERE);
    }

    fn look_in(&self, key: &GatewayKey, cmd: &CommandId, wait: impl FnOnce(&Waiter) -> Duration) {
        let mut waiting = self.waiting.lock();
        // A command that was sent has its own rhythm.
        if let Some(waiter) = waiting.get_mut(&(key.clone(), cmd.clone()))
            && !waiter.is_sent()
        {
            waiter.look = (Instant::now() + wait(waiter)).min(waiter.deadline);
            self.by(waiter.look);
        }
    }

    /// How many commands are waited for.
    pub(super) fn len(&self) -> usize {
        self.waiting.lock().len()
    }

    /// The commands that are to be looked at now, and when the next one is.
    pub(super) fn due(&self, now: Instant) -> (Vec<Name>, Instant) {
        let mut waiting = self.waiting.lock();
        waiting.retain(|_, waiter| {
            waiter.listeners.retain(Listener::is_there);
            let over = is_decided(&waiter.outcomes) && waiter.look <= now;
            if over {
                waiter.over();
            }
            !over && !waiter.listeners.is_empty()
        });
        let mut due = Vec::new();
        let mut next = now + REST;
        for (name, waiter) in waiting.iter_mut() {
            if waiter.look <= now {
                due.push(name.clone());
                waiter.looks += 1;
                // At the latest then again, whatever comes of this look.
                let wait = if now >= waiter.deadline { UNSENT } else { SENT };
                waiter.look = now + wait;
                if now < waiter.deadline {
                    waiter.look = waiter.look.min(waiter.deadline);
                }
            }
            next = next.min(waiter.look);
        }
        *self.next.lock() = Some(next);
        (due, next)
    }

    /// Has everything looked at soon, because notices may have been lost.
    pub(crate) fn look_again(&self, soon: Instant) {
        let mut waiting = self.waiting.lock();
        for waiter in waiting.values_mut().filter(|waiter| !is_decided(&waiter.outcomes)) {
            waiter.look = waiter.look.min(soon);
        }
        self.by(soon);
    }
}

/// The waiter of a command, made when it is the first; it knows at least what the record says.
fn waiter<'a>(
    waiting: &'a mut IndexMap<Name, Waiter>,
    key: &GatewayKey,
    record: &Record,
    now_ms: u64,
) -> &'a mut Waiter {
    let now = Instant::now();
    let left = Duration::from_millis(record.deadline_at_ms.saturating_sub(now_ms));
    let waiter = waiting.entry((key.clone(), record.cmd.clone())).or_insert_with(|| Waiter {
        listeners: Vec::new(),
        outcomes: Vec::new(),
        deadline: now + left + AFTER_DEADLINE,
        look: now,
        looks: 0,
    });
    if record.outcomes.len() > waiter.outcomes.len() {
        waiter.outcomes.clone_from(&record.outcomes);
    }
    waiter.look = if is_decided(&waiter.outcomes) { now + LINGER } else { (now + UNSENT).min(waiter.deadline) };
    waiter
}

impl Waiter {
    fn is_sent(&self) -> bool {
        self.outcomes.iter().any(|outcome| outcome.status != riser_core::command::Status::Held)
    }

    /// Tells everybody what they have not been told; gives how many frames that were.
    fn tell(&mut self, cmd: &CommandId) -> u64 {
        let mut frames: Vec<Option<Bytes>> = vec![None; self.outcomes.len()];
        let decided = is_decided(&self.outcomes);
        let mut count = 0;
        for listener in std::mem::take(&mut self.listeners) {
            match listener {
                Listener::Session(issuer, told) => {
                    for (frame, outcome) in frames.iter_mut().zip(&self.outcomes).skip(told) {
                        let bytes = frame.get_or_insert_with(|| frame::text(&outbound::outcome(cmd, outcome)));
                        issuer.conn.push(bytes.clone());
                        count += 1;
                    }
                    self.listeners.push(Listener::Session(issuer, self.outcomes.len()));
                }
                Listener::Call(sender) if decided => {
                    // Who stopped waiting does not hear of it.
                    let _ = sender.send(self.outcomes.clone());
                    count += 1;
                }
                call @ Listener::Call(_) => self.listeners.push(call),
            }
        }
        count
    }

    /// The connections of the sessions that are told.
    fn sessions(&self) -> Vec<Arc<Conn>> {
        let conn = |listener: &Listener| match listener {
            Listener::Session(issuer, _) => Some(issuer.conn.clone()),
            Listener::Call(_) => None,
        };
        self.listeners.iter().filter_map(conn).collect()
    }

    /// Nobody is told any more.
    fn over(&mut self) {
        self.listeners.clear();
    }
}

impl Listener {
    fn is_there(&self) -> bool {
        match self {
            Self::Session(issuer, _) => !issuer.conn.is_gone(),
            Self::Call(sender) => !sender.is_closed(),
        }
    }
}
