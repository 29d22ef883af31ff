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
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum Event {
    /// A peer connected to an edge and is about to say `hello`.
    Hello {
        /// Which edge.
        edge: String,
    },
    /// A peer was welcomed.
    Welcome {
        /// A gateway's epoch; 0 for a client.
        epoch: u64,
    },
    /// A gateway is about to send values.
    Send {
        /// The number to be answered.
        n: u64,
        /// Whether they replace everything.
        full: bool,
        /// The values.
        set: Set,
    },
    /// A gateway is about to send something else that is to be answered.
    Mention {
        /// The number to be answered.
        n: u64,
    },
    /// A frame was answered `ok`.
    Ok {
        /// Its number.
        n: u64,
    },
    /// A frame was answered with an error.
    Error {
        /// Its number, when it had one.
        n: Option<u64>,
        /// The code.
        code: String,
    },
    /// A gateway was asked for its full state.
    Resync,
    /// The edge ended the connection, or it broke; the code of the close frame when there was one.
    Closed {
        /// The code.
        code: Option<u16>,
    },
    /// The peer is about to end the connection.
    Left {
        /// In which way.
        how: Leaving,
    },
    /// A client is about to subscribe.
    Subscribe {
        /// The number to be answered.
        n: u64,
        /// The pattern.
        to: String,
        /// Whether to last values.
        state: bool,
        /// Whether to presence.
        presence: bool,
        /// The path filter; empty for all.
        path: Vec<String>,
    },
    /// A client is about to unsubscribe.
    Unsubscribe {
        /// The number to be answered.
        n: u64,
        /// The pattern.
        to: String,
    },
    /// A subscription was served.
    Synced {
        /// The pattern.
        to: String,
    },
    /// A client got a snapshot.
    Snapshot {
        /// Of which gateway.
        of: String,
        /// Whether it is online.
        online: bool,
        /// The epoch of its version.
        epoch: u64,
        /// The revision of its version.
        rev: u64,
        /// The values, when it is about values.
        values: Option<BTreeMap<String, Body>>,
        /// Stale paths, each with all below it.
        stale: Vec<String>,
    },
    /// A client got a change.
    State {
        /// Of which gateway.
        of: String,
        /// The epoch of its version.
        epoch: u64,
        /// The revision of its version.
        rev: u64,
        /// The values.
        set: Set,
        /// Paths that became stale, each with all below it; to be applied after `fresh`.
        stale: Vec<String>,
        /// Paths that became fresh, each with all below it.
        fresh: Vec<String>,
    },
    /// A client was told of presence.
    Presence {
        /// Of which gateway.
        of: String,
        /// Whether it is online.
        online: bool,
        /// The epoch.
        epoch: u64,
        /// Why.
        reason: Option<String>,
    },
    /// A client was told what the devices are.
    Devices {
        /// Of which gateway.
        of: String,
        /// The names of the devices, each of which is a canary.
        names: Vec<String>,
    },
    /// A client stops reading for a while.
    Slow,
    /// A client reads again.
    Reads,
    /// A frame was not as agreed.
    Broken {
        /// The frame.
        text: String,
    },
    /// The store's reader read a gateway.
    Read {
        /// Whose.
        tenant: String,
        /// Its address.
        of: String,
        /// What it found.
        found: Option<Stored>,
    },
    /// A fault begins.
    Begin {
        /// Which.
        fault: Fault,
        /// Where.
        edges: Vec<String>,
    },
    /// A fault ends.
    End {
        /// Which.
        fault: Fault,
    },
    /// The registry lost everything.
    Emptied,
    /// An edge was killed.
    Killed {
        /// Which.
        edge: String,
    },
    /// An edge was started.
    Started {
        /// Which.
        edge: String,
    },
    /// All faults have ended and gateways send nothing new from now on.
    Quiet,
    /// The quiet time is over: what is known now is what counts.
    Over {
        /// How often the faults took effect.
        effects: Effects,
    },
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
