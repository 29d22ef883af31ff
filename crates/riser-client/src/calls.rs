//! Frames that are answered: kept until they are, and sent again in the next session where that is safe.

use std::collections::BTreeMap;
use std::fmt;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::end::End;
use crate::frame::{Granted, Refusal};
use crate::link::Link;
use crate::refused::Refused;

/// Most calls of a session that wait for their answers: as many as an edge takes of one at a time, and more than a
/// person or a flat has.
const CALLS: usize = 256;

/// What a frame's number adds to it at most, in bytes.
pub(crate) const NUMBER_BYTES: usize = 32;

/// Counts the frames of a session.
#[derive(Debug, Default)]
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// What is to be asked.
pub(crate) struct Call {
    /// The frame without its number.
    pub(crate) frame: String,
    /// Whether it is sent again until it is answered: it names what it is about, so that it counts once. Such calls go
    /// one at a time, each after the answer to the one before: one that is refused for now and sent again would otherwise
    /// be stored behind those that were made later.
    pub(crate) repeats: bool,
    /// Who waits.
    pub(crate) answer: oneshot::Sender<Result<Given, Refused>>,
}

impl fmt::Debug for Call {
    /// The frame is left out: it may hold a token, or what only a household is to know.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("repeats", &self.repeats).finish_non_exhaustive()
    }
}

/// An answer, and the session in which it was given.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) granted: Granted,
    pub(crate) session: u64,
}

/// The frame with its number.
pub(crate) fn numbered(frame: &str, n: u64) -> String {
    format!("{{\"n\":{n},{}", frame.strip_prefix('{').unwrap_or(frame))
}

#[derive(Debug)]
struct Waiting {
    call: Call,
    /// Whether it was sent in this session and is not answered.
    sent: bool,
    /// Not before this, after a refusal for now.
    not_before: Option<Instant>,
}

/// The calls of a session, in the order in which they were made.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    waiting: BTreeMap<u64, Waiting>,
    /// By the number of the frame.
    open: BTreeMap<u64, u64>,
    next: u64,
    session: u64,
}

impl Calls {
    /// Takes a call, or refuses it.
    pub(crate) fn take(&mut self, call: Call, online: bool) {
        self.forget();
        let refused = if !online && !call.repeats {
            Refused::Lost
        } else if self.waiting.len() >= CALLS {
            Refused::Busy
        } else {
            self.next += 1;
            self.waiting.insert(self.next, Waiting { call, sent: false, not_before: None });
            return;
        };
        // A caller that stopped waiting does not hear of it.
        drop(call.answer.send(Err(refused)));
    }

    /// Sends what is due.
    pub(crate) fn send(&mut self, link: &mut Link, numbers: &mut Numbers) -> Result<(), End> {
        let now = Instant::now();
        self.forget();
        let most = link.limits().text_bytes.saturating_sub(NUMBER_BYTES);
        let large = |(&id, waiting): (&u64, &Waiting)| (waiting.call.frame.len() > most).then_some(id);
        for id in self.waiting.iter().filter_map(large).collect::<Vec<_>>() {
            if let Some(waiting) = self.waiting.remove(&id) {
                let refused = Refused::TooMany(format!("the frame is over {most} bytes"));
                drop(waiting.call.answer.send(Err(refused)));
            }
        }
        while let Some(id) = self.sendable(now).filter(|_| link.has_room()) {
            let Some(waiting) = self.waiting.get_mut(&id) else { break };
            let n = numbers.next();
            link.send(&numbered(&waiting.call.frame, n))?;
            (waiting.sent, waiting.not_before) = (true, None);
            self.open.insert(n, id);
        }
        Ok(())
    }

    /// When something is due that had to wait.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.waiting.values().filter_map(|waiting| waiting.not_before).min()
    }

    /// Whether something could be sent that was not for want of room.
    pub(crate) fn is_behind(&self) -> bool {
        self.sendable(Instant::now()).is_some()
    }

    /// The next call that may be sent: of those that are repeated the first, when it is not on its way and need not wait.
    fn sendable(&self, now: Instant) -> Option<u64> {
        let first = self.waiting.iter().find(|(_, waiting)| waiting.call.repeats).map(|(&id, _)| id);
        let may = |(&id, waiting): (&u64, &Waiting)| {
            let turn = !waiting.call.repeats || first == Some(id);
            (turn && !waiting.sent && waiting.not_before.is_none_or(|at| at <= now)).then_some(id)
        };
        self.waiting.iter().find_map(may)
    }

    /// An answer. False when it is to none of these.
    pub(crate) fn granted(&mut self, granted: &Granted) -> bool {
        let Some(id) = self.open.remove(&granted.n) else { return false };
        if let Some(waiting) = self.waiting.remove(&id) {
            let given = Given { granted: granted.clone(), session: self.session };
            drop(waiting.call.answer.send(Ok(given)));
        }
        true
    }

    /// A refusal. False when it is to none of these.
    pub(crate) fn refused(&mut self, refusal: &Refusal) -> bool {
        let Some(id) = refusal.n.and_then(|n| self.open.remove(&n)) else { return false };
        let again = refusal.again();
        match (self.waiting.get_mut(&id), again) {
            (Some(waiting), Some(again)) if waiting.call.repeats => {
                (waiting.sent, waiting.not_before) = (false, Some(Instant::now() + again));
            }
            (Some(_), _) => {
                if let Some(waiting) = self.waiting.remove(&id) {
                    drop(waiting.call.answer.send(Err(refusal.clone().into())));
                }
            }
            (None, _) => {}
        }
        true
    }

    /// The session ended: what must not be repeated is lost.
    pub(crate) fn lost(&mut self) {
        self.session += 1;
        self.open.clear();
        let (again, lost) = std::mem::take(&mut self.waiting).into_iter().partition(|(_, w)| w.call.repeats);
        self.waiting = again;
        for waiting in self.waiting.values_mut() {
            waiting.sent = false;
        }
        let lost: BTreeMap<u64, Waiting> = lost;
        for waiting in lost.into_values() {
            drop(waiting.call.answer.send(Err(Refused::Lost)));
        }
    }

    /// The number of this session.
    pub(crate) fn session(&self) -> u64 {
        self.session
    }

    /// Whoever stopped waiting wants nothing sent again. What is on its way keeps its number, for its answer comes.
    fn forget(&mut self) {
        self.waiting.retain(|_, waiting| !waiting.call.answer.is_closed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_token_shows_when_a_call_is_logged() {
        let (answer, _answered) = oneshot::channel();
        let call = Call { frame: r#"{"t":"auth","token":"very-secret"}"#.into(), repeats: false, answer };
        let mut calls = Calls::default();
        calls.take(call, true);
        assert!(!format!("{calls:?}").contains("very-secret"));
    }
}
