//! The open commands of a client, across its sessions.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use riser_core::command::{DEADLINE_MS, Status};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{OPEN, OUTCOMES, Order, PATIENCE, Told, unique};
use crate::calls::{Numbers, numbered};
use crate::end::End;
use crate::frame::{Granted, Outcome, Refusal, Step};
use crate::link::Link;
use crate::refused::Refused;

/// Outcomes by which repetitions are known; as many as a record keeps before the final one, and a few more.
const SEEN: usize = 64;

/// What an open number stands for.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Order(u64),
    Cancel(u64),
}

/// How the wish to cancel a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cancel {
    No,
    Wanted,
    Sent,
}

#[derive(Debug)]
struct Open {
    order: Order,
    tell: mpsc::Sender<Told>,
    deadline: Instant,
    /// Whether it was ever sent, so that it may have been taken.
    was_sent: bool,
    /// Whether it was sent in this session.
    sent: bool,
    not_before: Option<Instant>,
    cmd: Option<String>,
    cancel: Cancel,
    seen: Vec<(Status, u64)>,
}

/// The open commands of a client.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    open: BTreeMap<u64, Open>,
    numbers: BTreeMap<u64, Asked>,
    by_cmd: BTreeMap<String, u64>,
}

impl Orders {
    /// Takes a command under a number of its own.
    pub(crate) fn take(&mut self, id: u64, mut order: Order, tell: mpsc::Sender<Told>) {
        self.forget();
        if self.open.len() >= OPEN {
            // A fresh channel has room.
            drop(tell.try_send(Err(Refused::Busy)));
            return;
        }
        order.key.get_or_insert_with(unique);
        let deadline = Instant::now() + order.deadline.min(Duration::from_millis(*DEADLINE_MS.end()));
        let (was_sent, sent, cancel) = (false, false, Cancel::No);
        let open =
            Open { order, tell, deadline, was_sent, sent, not_before: None, cmd: None, cancel, seen: Vec::new() };
        self.open.insert(id, open);
    }

    /// Somebody wants a command not to be done. One that is not certainly taken is not sent again from now on: it could
    /// be taken then, and done before it is cancelled.
    pub(crate) fn cancel(&mut self, id: u64) {
        let Some(open) = self.open.get_mut(&id) else { return };
        if open.cancel == Cancel::No {
            open.cancel = Cancel::Wanted;
        }
        if !open.was_sent {
            self.end(id, Refused::Unsent);
        } else if open.is_given_up() {
            self.end(id, Refused::NoOutcome);
        }
    }

    /// Sends what is due: commands that were not sent in this session, and cancels of those that were taken.
    pub(crate) fn send(&mut self, link: &mut Link, numbers: &mut Numbers) -> Result<(), End> {
        self.overdue();
        let (now, most, mut too_large) = (Instant::now(), link.limits().text_bytes, Vec::new());
        for (&id, open) in &mut self.open {
            if !link.has_room() {
                break;
            }
            if open.not_before.is_some_and(|at| at > now) {
                continue;
            }
            open.not_before = None;
            if !open.sent {
                let n = numbers.next();
                let frame = open.frame(n, now);
                if frame.len() > most {
                    too_large.push(id);
                    continue;
                }
                link.send(&frame)?;
                (open.sent, open.was_sent) = (true, true);
                self.numbers.insert(n, Asked::Order(id));
            }
            if let (Some(cmd), Cancel::Wanted) = (&open.cmd, open.cancel) {
                let n = numbers.next();
                link.send(&numbered(&json!({"t": "cancel", "cmd": cmd}).to_string(), n))?;
                open.cancel = Cancel::Sent;
                self.numbers.insert(n, Asked::Cancel(id));
            }
        }
        for id in too_large {
            self.end(id, Refused::TooMany(format!("the command is over {most} bytes")));
        }
        Ok(())
    }

    /// When something is due: the end of waiting for a command and, when something `can_send`, a command that had to wait.
    pub(crate) fn due(&self, can_send: bool) -> Option<Instant> {
        let due = |open: &Open| open.not_before.filter(|_| can_send).map_or(open.ends(), |at| at.min(open.ends()));
        self.open.values().map(due).min()
    }

    /// Whether something could be sent that was not for want of room.
    pub(crate) fn is_behind(&self) -> bool {
        let cancels = |open: &Open| open.cancel == Cancel::Wanted && open.cmd.is_some();
        self.open.values().any(|open| open.not_before.is_none() && (!open.sent || cancels(open)))
    }

    /// An answer. False when it is to none of these.
    pub(crate) fn granted(&mut self, granted: &Granted) -> bool {
        let Some(asked) = self.numbers.remove(&granted.n) else { return false };
        if let (Asked::Order(id), Some(cmd)) = (asked, &granted.cmd)
            && let Some(open) = self.open.get_mut(&id)
        {
            open.cmd = Some(cmd.clone());
            self.by_cmd.insert(cmd.clone(), id);
        }
        true
    }

    /// A refusal. False when it is to none of these.
    pub(crate) fn refused(&mut self, refusal: &Refusal) -> bool {
        let Some(asked) = refusal.n.and_then(|n| self.numbers.remove(&n)) else { return false };
        let (Asked::Order(id) | Asked::Cancel(id)) = asked;
        let Some(open) = self.open.get_mut(&id) else { return true };
        match (asked, refusal.again()) {
            (_, Some(again)) => {
                open.not_before = Some(Instant::now() + again);
                match asked {
                    Asked::Order(_) => open.sent = false,
                    Asked::Cancel(_) => open.cancel = Cancel::Wanted,
                }
                if open.is_given_up() {
                    self.end(id, Refused::NoOutcome);
                }
            }
            (Asked::Order(_), None) => self.end(id, refusal.clone().into()),
            // Too late, or not allowed: the outcome tells how it goes on.
            (Asked::Cancel(_), None) => {}
        }
        true
    }

    /// Something became of a command. Gives it back when no handle asks for it.
    pub(crate) fn outcome(&mut self, outcome: Outcome) -> Option<Outcome> {
        let Some(&id) = self.by_cmd.get(&outcome.cmd) else { return Some(outcome) };
        let Some(open) = self.open.get_mut(&id).filter(|open| !open.tell.is_closed()) else {
            self.forget();
            return Some(outcome);
        };
        if open.is_known(&outcome.step) {
            return None;
        }
        if outcome.step.is_final {
            // There is room: what is not final leaves it.
            drop(open.tell.try_send(Ok(outcome)));
            self.remove(id);
        } else if open.tell.capacity() > 1 {
            drop(open.tell.try_send(Ok(outcome)));
        }
        None
    }

    /// The session ended: everything is asked for again in the next, but what nobody wants done any more.
    pub(crate) fn lost(&mut self) {
        self.numbers.clear();
        for open in self.open.values_mut() {
            open.sent = false;
            if open.cancel == Cancel::Sent {
                open.cancel = Cancel::Wanted;
            }
        }
        let given_up = |(&id, open): (&u64, &Open)| (open.was_sent && open.is_given_up()).then_some(id);
        for id in self.open.iter().filter_map(given_up).collect::<Vec<_>>() {
            self.end(id, Refused::NoOutcome);
        }
    }

    /// Ends what is waited for no longer.
    pub(crate) fn overdue(&mut self) {
        self.forget();
        let now = Instant::now();
        let over = |(&id, open): (&u64, &Open)| (open.ends() <= now).then_some((id, open.was_sent));
        let over: Vec<(u64, bool)> = self.open.iter().filter_map(over).collect();
        for (id, was_sent) in over {
            self.end(id, if was_sent { Refused::NoOutcome } else { Refused::Unsent });
        }
    }

    fn end(&mut self, id: u64, refused: Refused) {
        if let Some(open) = self.open.get(&id) {
            drop(open.tell.try_send(Err(refused)));
        }
        self.remove(id);
    }

    fn forget(&mut self) {
        let gone: Vec<u64> = self.open.iter().filter(|(_, open)| open.tell.is_closed()).map(|(&id, _)| id).collect();
        for id in gone {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: u64) {
        if let Some(cmd) = self.open.remove(&id).and_then(|open| open.cmd) {
            self.by_cmd.remove(&cmd);
        }
    }
}

impl Open {
    /// The frame, with what is left of the deadline: a server that takes it for the first time must not do it later.
    fn frame(&self, n: u64, now: Instant) -> String {
        self.order.json(Some(n), Order::deadline_ms(self.deadline.saturating_duration_since(now)), None)
    }

    /// When it is given up. The session to which it was sent tells its outcome until that must have come. Nothing is
    /// sent after its deadline: a server that took it before, and lost it, would take it for a new one.
    fn ends(&self) -> Instant {
        if self.sent { self.deadline + PATIENCE } else { self.deadline }
    }

    /// Whether it is not to be done, and could only be asked for by sending it again without knowing that it was taken.
    fn is_given_up(&self) -> bool {
        self.cancel != Cancel::No && self.cmd.is_none() && !self.sent
    }

    /// Whether an outcome came before, in this session or an earlier one; notes it.
    fn is_known(&mut self, step: &Step) -> bool {
        let mut hasher = DefaultHasher::new();
        (step.is_final, step.late, step.at_ms).hash(&mut hasher);
        (&step.code, step.data.as_ref()).hash(&mut hasher);
        let this = (step.status, hasher.finish());
        if self.seen.contains(&this) {
            return true;
        }
        if self.seen.len() >= SEEN {
            self.seen.remove(0);
        }
        self.seen.push(this);
        false
    }
}

const _: () = assert!(OUTCOMES > 1, "the final outcome needs a place of its own");

#[cfg(test)]
mod tests;
