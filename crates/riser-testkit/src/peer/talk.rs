//! What a simulated peer says live: a stream now and then, some numbered frames on it, and often a goodbye.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{Sending, frame};
use crate::history::{Body, Event};

/// Where streams are spoken.
const PATH: &str = "hall/talk";

/// What comes next on the stream.
pub(super) enum Said {
    Frame(Box<Event>, Vec<u8>),
    Close(u32),
}

enum Line {
    Silent,
    /// Asked for under this number.
    Asked(u64),
    /// Open: its number, the next frame's, and how many are to come.
    Open {
        stream: u32,
        seq: u32,
        left: u32,
    },
}

/// One peer's voice: one stream at a time.
pub(super) struct Talk {
    canary: String,
    said: u64,
    line: Line,
    next: Option<Instant>,
}

impl Talk {
    pub(super) fn new(canary: &str) -> Self {
        Self { canary: canary.to_owned(), said: 0, line: Line::Silent, next: None }
    }

    /// A connection began: the streams of the last one are over.
    pub(super) fn connected(&mut self) {
        self.line = Line::Silent;
        self.next = None;
    }

    /// Opens a stream, when none is open. A gateway's own address is not said.
    pub(super) fn open(&mut self, of: &str, n: u64, says_where: bool) -> Option<Sending> {
        if !matches!(self.line, Line::Silent) {
            return None;
        }
        self.line = Line::Asked(n);
        let mut frame = json!({"t": "open", "n": n, "path": PATH, "kind": "other", "params": {}});
        if says_where {
            frame["to"] = json!(of);
        }
        Some(Sending { event: Event::Opens { n, of: of.to_owned() }, frame: frame.to_string() })
    }

    /// Takes what came from the edge; whether it was about the stream's opening.
    pub(super) fn heard(&mut self, event: &Event, rng: &mut fastrand::Rng) -> bool {
        match (event, &self.line) {
            (Event::Ok { n, stream: Some(stream), .. }, Line::Asked(asked)) if n == asked => {
                self.line = Line::Open { stream: *stream, seq: rng.u32(..1_000), left: rng.u32(2..16) };
                self.next = Some(Instant::now());
                true
            }
            (Event::Error { n: Some(n), .. }, Line::Asked(asked)) if n == asked => {
                self.line = Line::Silent;
                true
            }
            (Event::Shut { stream, .. }, Line::Open { stream: own, .. }) if stream == own => {
                self.connected();
                true
            }
            _ => false,
        }
    }

    /// When there is something to say.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// What there is to say now.
    pub(super) fn say(&mut self, rng: &mut fastrand::Rng) -> Option<Said> {
        let Line::Open { stream, seq, left } = &mut self.line else {
            self.next = None;
            return None;
        };
        let stream = *stream;
        if *left == 0 {
            // Some never say goodbye: the broker ends their stream.
            self.connected();
            return (rng.u8(..4) > 0).then_some(Said::Close(stream));
        }
        self.said += 1;
        *left -= 1;
        *seq += rng.u32(1..3);
        let body = Body { s: self.said, c: self.canary.clone(), r: rng.u64(..1 << 40) };
        let bytes = frame::live(stream, *seq, &body);
        let event = Event::Speaks { stream, seq: *seq, body };
        self.next = Some(Instant::now() + Duration::from_millis(rng.u64(5..150)));
        Some(Said::Frame(Box::new(event), bytes))
    }
}
