//! What a simulated client wants done: the commands that it issued, and which of them it must repeat.
//!
//! A command whose answer did not come, or whose outcome did not, is repeated under its key on the next connection,
//! through whichever edge. Now and then a decided one is repeated too: it must be told the same again.

use serde_json::json;

use super::Sending;
use crate::history::{Body, Event, Order};

/// A client's paths and what it asks of them. To the gateways all are alike.
const PATHS: [&str; 3] = ["hall/lock", "kitchen/light", "meter"];
const ACTIONS: [&str; 2] = ["unlock", "set"];
/// Commands that one connection repeats at most when it begins.
const REPEATS: usize = 12;

/// One command.
struct Issued {
    key: String,
    to: String,
    order: Order,
    hold: bool,
    deadline_ms: u64,
    /// Under which number it was sent on this connection, when it was.
    n: Option<u64>,
    /// Its name, once it was answered.
    cmd: Option<String>,
    /// Decided, or refused for good.
    over: bool,
    /// To be sent again on this connection, since it was not accepted for now.
    again: bool,
}

/// All commands of one client.
pub(super) struct Orders {
    name: String,
    canary: String,
    seq: u64,
    issued: Vec<Issued>,
}

impl Orders {
    pub(super) fn new(name: &str, canary: &str) -> Self {
        Self { name: name.to_owned(), canary: canary.to_owned(), seq: 0, issued: Vec::new() }
    }

    /// A connection began: which commands are to be sent on it again.
    pub(super) fn connected(&mut self, rng: &mut fastrand::Rng) -> Vec<usize> {
        for issued in &mut self.issued {
            issued.n = None;
            issued.again = false;
        }
        let mut repeats: Vec<usize> = Vec::new();
        for (i, issued) in self.issued.iter().enumerate().rev() {
            if repeats.len() < REPEATS && (!issued.over || rng.u8(..12) == 0) {
                repeats.push(i);
            }
        }
        repeats.reverse();
        repeats
    }

    /// What was refused for now and is to be tried again.
    pub(super) fn again(&mut self) -> Option<usize> {
        let at = self.issued.iter().position(|issued| issued.again)?;
        self.issued[at].again = false;
        Some(at)
    }

    /// Makes a new command.
    pub(super) fn invent(&mut self, to: &str, rng: &mut fastrand::Rng) -> usize {
        self.seq += 1;
        let order = Order {
            path: PATHS[rng.usize(..PATHS.len())].into(),
            action: ACTIONS[rng.usize(..ACTIONS.len())].into(),
            body: Body { s: self.seq, c: self.canary.clone(), r: rng.u64(..1 << 40) },
        };
        let deadline_ms = match rng.u8(..4) {
            0 => rng.u64(100..1_500),
            1 | 2 => rng.u64(1_500..8_000),
            _ => rng.u64(8_000..30_000),
        };
        self.issued.push(Issued {
            // The same keys in every tenant, to the same addresses: they must not be taken for one another.
            key: format!("{}-{}", self.name, self.seq),
            to: to.to_owned(),
            order,
            hold: rng.bool(),
            deadline_ms,
            n: None,
            cmd: None,
            over: false,
            again: false,
        });
        self.issued.len() - 1
    }

    /// Has a command sent under this number.
    pub(super) fn send(&mut self, at: usize, n: u64) -> Sending {
        let issued = &mut self.issued[at];
        issued.n = Some(n);
        let mut frame = json!({"t": "command", "n": n, "to": issued.to, "key": issued.key, "path": issued.order.path,
            "action": issued.order.action, "args": issued.order.body, "deadline_ms": issued.deadline_ms});
        if issued.hold {
            frame["if_offline"] = json!("hold");
        }
        let event = Event::Command {
            n,
            to: issued.to.clone(),
            key: issued.key.clone(),
            order: issued.order.clone(),
            hold: issued.hold,
            deadline_ms: issued.deadline_ms,
        };
        Sending { event, frame: frame.to_string() }
    }

    /// Has one of the open commands cancelled.
    pub(super) fn cancel(&self, n: u64, rng: &mut fastrand::Rng) -> Option<Sending> {
        let open: Vec<&String> = self.issued.iter().filter(|i| !i.over).filter_map(|i| i.cmd.as_ref()).collect();
        let cmd = *open.get(rng.usize(..open.len().max(1)))?;
        let frame = json!({"t": "cancel", "n": n, "cmd": cmd}).to_string();
        Some(Sending { event: Event::Cancel { n, cmd: cmd.clone() }, frame })
    }

    /// Takes what came from the edge; whether it was about one of the commands.
    pub(super) fn heard(&mut self, event: &Event) -> bool {
        match event {
            Event::Ok { n, cmd: Some(cmd), .. } => {
                let Some(issued) = self.issued.iter_mut().find(|issued| issued.n == Some(*n)) else { return false };
                issued.cmd = Some(cmd.clone());
                issued.over = false;
            }
            Event::Error { n: Some(n), code } => {
                let Some(issued) = self.issued.iter_mut().find(|issued| issued.n == Some(*n)) else { return false };
                issued.n = None;
                let later = code == "unavailable" || code == "rate_limited";
                issued.again = later;
                issued.over |= !later;
            }
            Event::Outcome { cmd, became, .. } => {
                for issued in self.issued.iter_mut().filter(|issued| issued.cmd.as_ref() == Some(cmd)) {
                    issued.over |= became.last;
                }
            }
            _ => return false,
        }
        true
    }
}
