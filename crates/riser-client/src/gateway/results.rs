//! The final words about a gateway's commands, on their way to the broker: said until they are answered, across sessions.

use std::collections::BTreeMap;

use riser_core::command::Word;
use serde::Serialize;
use tokio::time::Instant;

use crate::calls::Numbers;
use crate::end::End;
use crate::frame::Refusal;
use crate::link::Link;

/// Results that are sent until they are answered. Beyond it the oldest is given up: its command, repeated, is answered
/// from the memory, or looked at anew when it was turned away.
const RESULTS: usize = 256;

/// A final word on its way.
#[derive(Debug)]
struct Owed {
    cmd: String,
    word: Word,
    sent: bool,
    not_before: Option<Instant>,
}

/// The results that are owed, in the order in which they were said.
#[derive(Debug, Default)]
pub(super) struct Results {
    owed: BTreeMap<u64, Owed>,
    /// By the number of the frame.
    numbers: BTreeMap<u64, u64>,
    next: u64,
}

impl Results {
    /// Takes a final word. A command has one at a time.
    pub(super) fn owe(&mut self, cmd: String, word: Word) {
        self.owed.retain(|_, owed| owed.cmd != cmd);
        self.next += 1;
        self.owed.insert(self.next, Owed { cmd, word, sent: false, not_before: None });
        if self.owed.len() > RESULTS {
            self.owed.pop_first();
        }
    }

    /// Whether a final word about a command is on its way: then nothing else is said of it.
    pub(super) fn owes(&self, cmd: &str) -> bool {
        self.owed.values().any(|owed| owed.cmd == cmd)
    }

    /// Sends the results that are due.
    pub(super) fn send(&mut self, link: &mut Link, numbers: &mut Numbers) -> Result<(), End> {
        let now = Instant::now();
        for (&place, owed) in self.owed.iter_mut().filter(|(_, owed)| !owed.sent) {
            if !link.has_room() {
                break;
            }
            if owed.not_before.is_none_or(|at| at <= now) {
                let n = numbers.next();
                link.send(&frame(&owed.cmd, &owed.word, Some(n)))?;
                (owed.sent, owed.not_before) = (true, None);
                self.numbers.insert(n, place);
            }
        }
        Ok(())
    }

    /// When a result is due that had to wait.
    pub(super) fn due(&self) -> Option<Instant> {
        self.owed.values().filter_map(|owed| owed.not_before).min()
    }

    /// Whether a result could be sent that was not for want of room.
    pub(super) fn is_behind(&self) -> bool {
        self.owed.values().any(|owed| !owed.sent && owed.not_before.is_none())
    }

    /// An answer. False when it is to no result.
    pub(super) fn granted(&mut self, n: u64) -> bool {
        self.numbers.remove(&n).map(|place| self.owed.remove(&place)).is_some()
    }

    /// A refusal. False when it is to no result.
    pub(super) fn refused(&mut self, refusal: &Refusal) -> bool {
        let Some(place) = refusal.n.and_then(|n| self.numbers.remove(&n)) else { return false };
        match (self.owed.get_mut(&place), refusal.again()) {
            (Some(owed), Some(again)) => (owed.sent, owed.not_before) = (false, Some(Instant::now() + again)),
            (Some(_), None) => {
                tracing::warn!(code = refusal.code, message = ?refusal.message, "a result was refused");
                self.owed.remove(&place);
            }
            (None, _) => {}
        }
        true
    }

    /// The session ended: results without an answer are sent again in the next.
    pub(super) fn lost(&mut self) {
        self.numbers.clear();
        self.owed.values_mut().for_each(|owed| owed.sent = false);
    }
}

/// The frame of a word.
pub(super) fn frame(cmd: &str, word: &Word, n: Option<u64>) -> String {
    #[derive(Serialize)]
    struct Frame<'a> {
        t: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        n: Option<u64>,
        cmd: &'a str,
        #[serde(flatten)]
        word: &'a Word,
    }
    riser_core::Json::of(&Frame { t: "result", n, cmd, word }).as_str().to_owned()
}
