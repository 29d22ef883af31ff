//! What the witnesses of a simulation did and saw, line by line.
//!
//! A history is all that the checker gets. Its lines stand in the order in which things happened, since one thread
//! writes them all. A witness writes what it does before it does it, and what it sees as soon as it sees it; what an
//! edge says about itself is no evidence and does not stand here.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

mod event;

pub use event::Event;

/// Most lines of a history. A seed makes some thousands; more would mean that something runs away.
pub const LINES: usize = 200_000;

/// A value that a gateway sends: unique within its gateway, ordered, and marked with its tenant's secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// Greater than that of every value that the same gateway sent before.
    pub s: u64,
    /// The tenant's canary.
    pub c: String,
    /// Something random, so that a made-up value is told from a sent one.
    pub r: u64,
}

/// Values by path; none deletes, or is not there.
pub type Set = BTreeMap<String, Option<Body>>;

/// Who writes a line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// One session of a gateway.
    Gateway {
        /// Whose.
        tenant: String,
        /// Its address.
        of: String,
        /// Numbers the sessions of this gateway, from 1.
        session: u32,
    },
    /// One connection of a client.
    Client {
        /// Whose.
        tenant: String,
        /// Which client.
        name: String,
        /// Numbers the connections of this client, from 1.
        session: u32,
    },
    /// A reader of the store, past every edge and every fault.
    Store,
    /// Whoever injects the faults.
    Faults,
}

/// How a peer left by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leaving {
    /// With a close frame.
    Closed,
    /// The connection broke, and the edge hears of it.
    Lost,
    /// The connection broke, and the edge does not hear of it.
    Silent,
}

/// What stands in the store of one gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Whether a session holds it.
    pub online: bool,
    /// The epoch of its version.
    pub epoch: u64,
    /// The revision of its version.
    pub rev: u64,
    /// Its values.
    pub values: BTreeMap<String, Body>,
    /// The paths whose value is stale.
    pub stale: Vec<String>,
}

/// What a command asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// With which device.
    pub path: String,
    /// What.
    pub action: String,
    /// How: unique within its issuer.
    pub body: Body,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened {
    /// Where.
    pub of: String,
    /// Its sender's name for it.
    pub id: String,
    /// With which device.
    pub path: Option<String>,
    /// Who sent it.
    pub from: String,
    /// What there is to say about it, when a peer sent it: unique within its sender.
    pub body: Option<Body>,
}

/// Something that became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Became {
    /// What.
    pub status: String,
    /// Whether it decided the command.
    #[serde(rename = "final")]
    pub last: bool,
    /// Whether a gateway said it after that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    /// The gateway's own word for it, or the broker's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The command's body, when the gateway said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Body>,
    /// When, on the store's clock.
    pub at_ms: u64,
}

/// A kind of fault that lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The bus loses, delays and repeats messages.
    BusLossy,
    /// The bus loses everything from one edge to another, and tells nobody.
    BusBlocked,
    /// An edge cannot reach the bus and knows it.
    BusCut,
    /// Subscriptions take effect late.
    BusInterest,
    /// Calls of the registry are slow, and requests and replies are lost.
    RegistryLossy,
    /// One edge cannot reach the registry.
    RegistryCut,
    /// Nobody can reach the registry.
    RegistryDown,
    /// Calls of the event store are slow, and requests and replies are lost.
    LogLossy,
    /// One edge cannot reach the event store, and what it followed ends.
    LogCut,
    /// Nobody can reach the event store.
    LogDown,
}

impl Fault {
    /// Whether presence and storing depend on what it breaks.
    pub fn is_of_registry(self) -> bool {
        matches!(self, Self::RegistryLossy | Self::RegistryCut | Self::RegistryDown)
    }
}

/// How often faults took effect, by the counters of the ports' twins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Effects {
    /// Messages of the bus that were lost.
    pub dropped: u64,
    /// Messages of the bus that waited.
    pub delayed: u64,
    /// Messages of the bus that came twice.
    pub duplicated: u64,
    /// Messages of the bus that came before their subscription stood.
    pub early: u64,
    /// Calls of the registry that a cut refused.
    pub refused: u64,
    /// Requests of the registry that were lost.
    pub lost_requests: u64,
    /// Replies of the registry that were lost.
    pub lost_replies: u64,
    /// Calls of the event store that a cut refused.
    pub log_refused: u64,
    /// Requests and replies of the event store that were lost.
    pub log_lost: u64,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Simulated milliseconds since the start.
    pub at: u64,
    /// Who writes.
    pub who: Who,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// A history that is being written. Clones write the same one.
#[derive(Debug, Clone)]
pub struct Recorder {
    start: Instant,
    lines: Arc<Mutex<Vec<Line>>>,
}

impl Recorder {
    /// An empty history that begins now. Must be called within a runtime.
    pub fn start() -> Self {
        Self { start: Instant::now(), lines: Arc::default() }
    }

    /// Writes a line. Nothing is written beyond [`LINES`], and then the verdict is unknown because the end is missing.
    pub fn write(&self, who: &Who, event: Event) {
        let mut lines = self.lines.lock();
        if lines.len() < LINES {
            let at = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
            lines.push(Line { at, who: who.clone(), event });
        }
    }

    /// What was written so far, which is taken out.
    pub fn take(&self) -> Vec<Line> {
        std::mem::take(&mut *self.lines.lock())
    }
}

/// The history as text, one JSON object a line.
pub fn to_json_lines(lines: &[Line]) -> String {
    let mut text = String::new();
    for line in lines {
        // Every key is a string, so that writing cannot fail.
        text.push_str(&serde_json::to_string(line).unwrap_or_default());
        text.push('\n');
    }
    text
}
