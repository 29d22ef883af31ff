//! Where a gateway's commands come in, and the application's words about them.

use std::collections::BTreeMap;

use riser_core::command::{Said, Word};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::commands::{BUSY, EXPIRED, Request, word};
use super::memory::{Memory, is_final};
use crate::clock::Clock;
use crate::frame::Ordered;

/// The code of a command that comes to a gateway without an application for it.
const UNSUPPORTED: &str = "unsupported";

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
}

impl Desk {
    pub(super) fn new(
        memory: Memory,
        requests: mpsc::Sender<Request>,
        words: mpsc::Sender<(String, Word)>,
        said: mpsc::Receiver<(String, Word)>,
    ) -> Self {
        let clock = watch::Sender::new(Clock::default());
        Self { memory, requests, words, said, clock, doing: BTreeMap::new() }
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

    /// A command came. Gives what is said of it at once. What is turned away is not remembered: it is said until the
    /// broker has it, which does not send such a command again, and a command of which it never heard may still be done.
    pub(super) async fn command(&mut self, order: Ordered) -> Option<Word> {
        let (cmd, now_ms) = (order.cmd.clone(), self.clock.borrow().now_ms());
        if let Some(before) = self.memory.known(&cmd) {
            // What was said of it is said again, and it is not done again. When that was nothing, it was begun in an
            // earlier life of this gateway, and nobody knows how it went.
            return Some(before.unwrap_or_else(|| word(Said::Received, None)));
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

    /// Somebody wants a command not to be done.
    pub(super) fn cancel(&mut self, cmd: &str) {
        if let Some(doing) = self.doing.get(cmd) {
            doing.send_replace(true);
        }
    }

    /// The application said something. Gives what is to be told.
    pub(super) async fn word(&mut self, cmd: &str, word: Word) -> Option<Word> {
        // A word after the last one is the application's mistake: a result is not taken back.
        self.doing.get(cmd)?;
        let now_ms = self.clock.borrow().now_ms();
        self.memory.word(cmd, &word, now_ms).await;
        if is_final(word.status) {
            self.doing.remove(cmd);
        }
        Some(word)
    }
}

/// What is said when there is no application.
pub(super) fn nobody() -> Word {
    word(Said::Rejected, Some(UNSUPPORTED))
}
