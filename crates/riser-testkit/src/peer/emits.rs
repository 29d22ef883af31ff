//! The events that a simulated peer sends: each under an id of its own, and again under the same one when nobody answered.

use serde_json::json;

use super::Sending;
use crate::history::{Body, Event, Happened};

/// What events are about.
const PATHS: [&str; 3] = ["hall/bell", "kitchen/smoke", "meter"];
/// Events that one connection repeats at most when it begins.
const REPEATS: usize = 12;

struct Open {
    happened: Happened,
    /// Under which number it was sent on this connection, when it was.
    n: Option<u64>,
    /// To be sent again on this connection, since it was not taken for now.
    again: bool,
}

/// All events of one peer that were not answered yet.
pub(super) struct Emits {
    from: String,
    canary: String,
    seq: u64,
    open: Vec<Open>,
}

impl Emits {
    pub(super) fn new(from: String, canary: &str) -> Self {
        Self { from, canary: canary.to_owned(), seq: 0, open: Vec::new() }
    }

    /// A connection began: which events are to be sent on it again.
    pub(super) fn connected(&mut self) -> Vec<String> {
        for open in &mut self.open {
            open.n = None;
            open.again = false;
        }
        self.open.iter().take(REPEATS).map(|open| open.happened.id.clone()).collect()
    }

    /// What was not taken for now and is to be tried again.
    pub(super) fn again(&mut self) -> Option<String> {
        let open = self.open.iter_mut().find(|open| open.again)?;
        open.again = false;
        Some(open.happened.id.clone())
    }

    /// Something new happens at an address.
    pub(super) fn invent(&mut self, of: &str, rng: &mut fastrand::Rng) -> String {
        self.seq += 1;
        // The same ids in every tenant and of every sender: they must not be taken for one another.
        let id = format!("event-{}", self.seq);
        let body = Body { s: self.seq, c: self.canary.clone(), r: rng.u64(..1 << 40) };
        let path = Some(PATHS[rng.usize(..PATHS.len())].to_owned());
        let happened = Happened { of: of.to_owned(), id: id.clone(), path, from: self.from.clone(), body: Some(body) };
        self.open.push(Open { happened, n: None, again: false });
        id
    }

    /// Has an event sent under this number; a gateway's own address is not said.
    pub(super) fn send(&mut self, id: &str, n: u64, says_where: bool) -> Option<Sending> {
        let open = self.open.iter_mut().find(|open| open.happened.id == id)?;
        open.n = Some(n);
        let Happened { of, id, path, body, .. } = &open.happened;
        let mut frame = json!({"t": "event", "n": n, "id": id, "type": "test", "path": path, "data": body});
        if says_where {
            frame["to"] = json!(of);
        }
        Some(Sending { event: Event::Emit { n, happened: open.happened.clone() }, frame: frame.to_string() })
    }

    /// Takes what came from the edge; whether it was about one of the events.
    pub(super) fn heard(&mut self, event: &Event) -> bool {
        let of = |open: &Open, n: u64| open.n == Some(n);
        match event {
            Event::Ok { n, .. } => {
                let before = self.open.len();
                self.open.retain(|open| !of(open, *n));
                self.open.len() < before
            }
            Event::Error { n: Some(n), code } => {
                let Some(at) = self.open.iter().position(|open| of(open, *n)) else { return false };
                if code == "unavailable" || code == "rate_limited" {
                    self.open[at].n = None;
                    self.open[at].again = true;
                } else {
                    self.open.remove(at);
                }
                true
            }
            _ => false,
        }
    }
}
