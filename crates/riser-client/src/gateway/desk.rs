//! Where a gateway's commands come in and its words about them go out.

use std::collections::BTreeMap;

use riser_core::command::{Said, Word};
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::commands::{BUSY, EXPIRED, Request, word};
use super::memory::{Memory, is_final};
use crate::calls::Numbers;
use crate::clock::Clock;
use crate::end::End;
use crate::frame::{Ordered, Refusal};
use crate::link::Link;

/// Results that are sent until they are answered. Beyond it the oldest is given up: its command, repeated, is answered
/// from the memory.
const RESULTS: usize = 256;
/// The code of a command that comes to a gateway without an application for it.
const UNSUPPORTED: &str = "unsupported";

/// A final word on its way.
#[derive(Debug)]
struct Result {
    word: Word,
    /// In which order it was said.
    place: u64,
    sent: bool,
    not_before: Option<Instant>,
}

/// The commands of a gateway that has an application for them.
#[derive(Debug)]
pub(super) struct Desk {
    memory: Memory,
    requests: mpsc::Sender<Request>,
    words: mpsc::Sender<(String, Word)>,
    said: mpsc::Receiver<(String, Word)>,
    clock: watch::Sender<Clock>,
    /// The commands that are being done, and how to tell the application that they should not.
    doing: BTreeMap<String, watch::Sender<bool>>,
    results: BTreeMap<String, Result>,
    numbers: BTreeMap<u64, String>,
    place: u64,
}

impl Desk {
    pub(super) fn new(
        memory: Memory,
        requests: mpsc::Sender<Request>,
        words: mpsc::Sender<(String, Word)>,
        said: mpsc::Receiver<(String, Word)>,
    ) -> Self {
        let (doing, results, numbers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let clock = watch::Sender::new(Clock::default());
        Self { memory, requests, words, said, clock, doing, results, numbers, place: 0 }
    }

    /// The next word of the application.
    pub(super) async fn said(&mut self) -> Option<(String, Word)> {
        self.said.recv().await
    }

    /// The cluster's clock moved.
    pub(super) fn clock(&mut self, clock: Clock) {
        self.clock.send_replace(clock);
    }

    /// For how long a command is recognised by now, in milliseconds.
    pub(super) fn remembers_ms(&self) -> u64 {
        self.memory.remembers_ms()
    }

    /// A command came. Gives what is said of it at once.
    pub(super) async fn command(&mut self, order: Ordered) -> Option<Word> {
        let (cmd, now_ms) = (order.cmd.clone(), self.clock.borrow().now_ms());
        if let Some(before) = self.memory.known(&cmd) {
            return self.repeated(&cmd, before);
        }
        let (tell, cancel) = watch::channel(false);
        let (arrived, clock, words) = (Instant::now(), self.clock.subscribe(), self.words.clone());
        let request = Request { order, arrived, clock, cancel, words };
        if request.is_late() {
            return Some(word(Said::Rejected, Some(EXPIRED)));
        }
        let Ok(room) = self.requests.clone().try_reserve_owned() else {
            return Some(word(Said::Rejected, Some(BUSY)));
        };
        if let Err(error) = self.memory.begin(&cmd, now_ms).await {
            tracing::warn!(error = %error, "a command is turned away");
            return Some(word(Said::Rejected, Some(BUSY)));
        }
        // What is forgotten was dropped by the application without a word.
        self.doing.retain(|cmd, _| self.memory.known(cmd).is_some());
        self.doing.insert(cmd.clone(), tell);
        let received = word(Said::Received, None);
        self.memory.word(&cmd, &received, now_ms).await;
        room.send(request);
        Some(received)
    }

    /// A command came again: what was said of it is said again, and it is not done again.
    fn repeated(&mut self, cmd: &str, before: Option<Word>) -> Option<Word> {
        match before {
            Some(word) if is_final(word.status) => {
                self.owe(cmd, word);
                None
            }
            // It was begun in an earlier life of this gateway, and nobody knows how it went.
            None => Some(word(Said::Received, None)),
            before => before,
        }
    }

    /// Somebody wants a command not to be done.
    pub(super) fn cancel(&mut self, cmd: &str) {
        if let Some(doing) = self.doing.get(cmd) {
            doing.send_replace(true);
        }
    }

    /// The application said something. Gives what is to be sent now; results are sent by [`Desk::send`].
    pub(super) async fn word(&mut self, cmd: &str, word: Word) -> Option<Word> {
        // A word after the last one is the application's mistake: a result is not taken back.
        self.doing.get(cmd)?;
        let now_ms = self.clock.borrow().now_ms();
        self.memory.word(cmd, &word, now_ms).await;
        if !is_final(word.status) {
            return Some(word);
        }
        self.doing.remove(cmd);
        self.owe(cmd, word);
        None
    }

    fn owe(&mut self, cmd: &str, word: Word) {
        self.place += 1;
        let result = Result { word, place: self.place, sent: false, not_before: None };
        self.results.insert(cmd.to_owned(), result);
        if self.results.len() > RESULTS {
            let oldest = self.results.iter().min_by_key(|(_, result)| result.place).map(|(cmd, _)| cmd.clone());
            oldest.and_then(|cmd| self.results.remove(&cmd));
        }
    }

    /// Sends the results that are due.
    pub(super) fn send(&mut self, link: &mut Link, numbers: &mut Numbers) -> std::result::Result<(), End> {
        let now = Instant::now();
        for (cmd, result) in self.results.iter_mut().filter(|(_, result)| !result.sent) {
            if !link.has_room() {
                break;
            }
            if result.not_before.is_none_or(|at| at <= now) {
                let n = numbers.next();
                link.send(&frame(cmd, &result.word, Some(n)))?;
                (result.sent, result.not_before) = (true, None);
                self.numbers.insert(n, cmd.clone());
            }
        }
        Ok(())
    }

    /// When a result is due that had to wait.
    pub(super) fn due(&self) -> Option<Instant> {
        self.results.values().filter_map(|result| result.not_before).min()
    }

    /// Whether a result could be sent that was not for want of room.
    pub(super) fn is_behind(&self) -> bool {
        self.results.values().any(|result| !result.sent && result.not_before.is_none())
    }

    /// An answer. False when it is to no result.
    pub(super) fn granted(&mut self, n: u64) -> bool {
        self.numbers.remove(&n).map(|cmd| self.results.remove(&cmd)).is_some()
    }

    /// A refusal. False when it is to no result.
    pub(super) fn refused(&mut self, refusal: &Refusal) -> bool {
        let Some(cmd) = refusal.n.and_then(|n| self.numbers.remove(&n)) else { return false };
        match (self.results.get_mut(&cmd), refusal.again()) {
            (Some(result), Some(again)) => (result.sent, result.not_before) = (false, Some(Instant::now() + again)),
            (Some(_), None) => {
                tracing::warn!(code = refusal.code, message = ?refusal.message, "a result was refused");
                self.results.remove(&cmd);
            }
            (None, _) => {}
        }
        true
    }

    /// The session ended: results without an answer are sent again in the next.
    pub(super) fn lost(&mut self) {
        self.numbers.clear();
        self.results.values_mut().for_each(|result| result.sent = false);
    }
}

/// What is said when there is no application.
pub(super) fn nobody() -> Word {
    word(Said::Rejected, Some(UNSUPPORTED))
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
