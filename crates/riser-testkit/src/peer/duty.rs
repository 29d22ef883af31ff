//! What a simulated gateway does with commands: at once or slowly, well or badly, or not at all.
//!
//! One that remembers executes a command once, however often it comes, and answers a repeat with what it said before. One
//! that does not executes whatever comes. Neither begins what is overdue. A gateway that remembers also says again, in its
//! next session, what was not answered in the last one; one that does not has forgotten it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::history::{Body, Order};

/// For how much longer than it says a gateway remembers a command: for as long as one may be on its way.
const LONGER: Duration = Duration::from_secs(30);
/// How soon a word is said again that was refused for now.
const AGAIN: Duration = Duration::from_secs(1);

/// A gateway's word on a command.
#[derive(Clone)]
pub(super) struct Word {
    pub(super) cmd: String,
    pub(super) status: &'static str,
    pub(super) code: String,
    body: Body,
}

impl Word {
    fn new(cmd: &str, status: &'static str, body: &Body) -> Self {
        Self { cmd: cmd.to_owned(), status, code: format!("{status}-{}", body.s), body: body.clone() }
    }

    pub(super) fn frame(&self, n: u64) -> String {
        let Self { cmd, status, code, body } = self;
        json!({"t": "result", "n": n, "cmd": cmd, "status": status, "code": code, "data": body}).to_string()
    }
}

/// What a gateway has seen of one command.
struct Known {
    until: Instant,
    /// What it said last.
    word: Option<Word>,
}

/// A gateway's commands.
pub(super) struct Duty {
    /// For how long it says that it recognises a command; 0 when it does not.
    pub(super) remembers_ms: u64,
    known: BTreeMap<String, Known>,
    /// What is still being done, or was refused for now, and when there will be a word.
    doing: Vec<(Instant, Word)>,
    /// Words that were not answered yet, by their numbers.
    unanswered: BTreeMap<u64, Word>,
}

/// What a gateway makes of a command that came.
#[derive(Default)]
pub(super) struct Takes {
    /// Whether it executes it now.
    pub(super) does: bool,
    /// What it says at once.
    pub(super) says: Vec<Word>,
    /// Whether its connection breaks right then.
    pub(super) breaks: bool,
}

impl Duty {
    pub(super) fn new(rng: &mut fastrand::Rng) -> Self {
        let remembers_ms = [0, 0, 3_000, 600_000, 600_000][rng.usize(..5)];
        Self { remembers_ms, known: BTreeMap::new(), doing: Vec::new(), unanswered: BTreeMap::new() }
    }

    /// Takes a command. One that is overdue is not begun.
    pub(super) fn command(&mut self, cmd: &str, order: &Order, overdue: bool, rng: &mut fastrand::Rng) -> Takes {
        let now = Instant::now();
        self.known.retain(|_, known| known.until > now);
        if let Some(known) = self.known.get(cmd) {
            return Takes { says: known.word.iter().cloned().collect(), ..Takes::default() };
        }
        let word = |status| Word::new(cmd, status, &order.body);
        let mut takes = Takes::default();
        let temper = if overdue { 0 } else { rng.u8(..24) };
        match temper {
            0 => takes.says.push(word("rejected")),
            // It says nothing, having done it or not.
            1 => {}
            2 => takes.does = true,
            // Its connection breaks before or after it has done it.
            3 => return Takes { breaks: true, ..takes },
            4 | 5 => {
                takes = Takes { does: true, breaks: true, says: Vec::new() };
                self.doing.push((now, word("succeeded")));
            }
            6..12 => {
                takes.does = true;
                takes.says.extend([word("received"), word("running")].into_iter().skip(rng.usize(..3)));
                let last = if rng.u8(..4) == 0 { "failed" } else { "succeeded" };
                self.doing.push((now + Duration::from_millis(rng.u64(50..4_000)), word(last)));
            }
            _ => {
                takes.does = true;
                let last = if rng.u8(..4) == 0 { "failed" } else { "succeeded" };
                takes.says.extend([word("received"), word("running"), word(last)].into_iter().skip(rng.usize(..3)));
            }
        }
        if self.remembers_ms > 0 {
            let until = now + Duration::from_millis(self.remembers_ms) + LONGER;
            self.known.insert(cmd.to_owned(), Known { until, word: takes.says.last().cloned() });
        }
        takes
    }

    /// Takes the wish that a command be not done: it stops when it is still at it, or lets it be.
    pub(super) fn cancel(&mut self, cmd: &str, rng: &mut fastrand::Rng) {
        if rng.bool()
            && let Some((at, word)) = self.doing.iter_mut().find(|(_, word)| word.cmd == cmd)
        {
            *at = Instant::now();
            *word = Word::new(cmd, "cancelled", &word.body);
        }
    }

    /// Keeps what would have been said of a command, for the next session.
    pub(super) fn later(&mut self, takes: Takes) {
        let now = Instant::now();
        self.doing.extend(takes.says.into_iter().map(|word| (now, word)));
    }

    /// When there is something to say.
    pub(super) fn next(&self) -> Option<Instant> {
        self.doing.iter().map(|(at, _)| *at).min()
    }

    /// The words that are due.
    pub(super) fn due(&mut self) -> Vec<Word> {
        let now = Instant::now();
        let (due, doing): (Vec<_>, Vec<_>) = self.doing.drain(..).partition(|(at, _)| *at <= now);
        self.doing = doing;
        due.into_iter().map(|(_, word)| word).collect()
    }

    /// Notes that a word is said under this number.
    pub(super) fn said(&mut self, n: u64, word: &Word) {
        if let Some(known) = self.known.get_mut(&word.cmd) {
            known.word = Some(word.clone());
        }
        self.unanswered.insert(n, word.clone());
    }

    /// An answer came; whether it was about a word.
    pub(super) fn answered(&mut self, n: u64, error: Option<&str>) -> bool {
        let Some(word) = self.unanswered.remove(&n) else { return false };
        if matches!(error, Some("unavailable" | "rate_limited")) {
            self.doing.push((Instant::now() + AGAIN, word));
        }
        true
    }

    /// A session began: what was not answered in the last one is to be said again, in its order.
    pub(super) fn welcomed(&mut self) {
        let unanswered = std::mem::take(&mut self.unanswered);
        if self.remembers_ms == 0 {
            self.doing.clear();
            return;
        }
        let now = Instant::now();
        self.doing.splice(0..0, unanswered.into_values().map(|word| (now, word)));
    }
}
