//! The lines' contents: everything that a witness may write down.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Became, Body, Effects, Fault, Happened, Leaving, Order, Set, Stored};

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
        /// The name of the command that was recorded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cmd: Option<String>,
        /// Where the event is stored.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
        /// The number of the stream that is open.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stream: Option<u32>,
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
        /// Whether to events.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        event: bool,
        /// After which event.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
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
        /// The position in the events.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    },
    /// A peer is about to send an event, or to repeat one.
    Emit {
        /// The number to be answered.
        n: u64,
        /// What.
        happened: Happened,
    },
    /// A client got an event.
    Heard {
        /// Its position.
        cursor: String,
        /// What.
        happened: Happened,
    },
    /// A client was told that events may be missing.
    Gap {
        /// Of which subscription.
        to: String,
    },
    /// A peer is about to open a live stream.
    Opens {
        /// The number to be answered.
        n: u64,
        /// At which address.
        of: String,
    },
    /// A peer is about to close one of its live streams.
    Closes {
        /// The number to be answered.
        n: u64,
        /// Which.
        stream: u32,
    },
    /// A peer is about to send a frame of a live stream.
    Speaks {
        /// Which.
        stream: u32,
        /// The frame's number.
        seq: u32,
        /// What.
        body: Body,
    },
    /// A peer was told that a live stream is open.
    Opened {
        /// At which address.
        of: String,
        /// Which.
        stream: u32,
    },
    /// A peer was told that a live stream is over.
    Shut {
        /// Which.
        stream: u32,
        /// Why.
        reason: String,
    },
    /// A peer got a frame of a live stream.
    Hears {
        /// Which.
        stream: u32,
        /// The frame's number.
        seq: u32,
        /// What.
        body: Body,
    },
    /// The store's reader found an event that is stored, in the order in which they are.
    Logged {
        /// Whose.
        tenant: String,
        /// Its position.
        cursor: String,
        /// What.
        happened: Happened,
    },
    /// The event store keeps no more than so many events of each tenant.
    Keeps {
        /// How many.
        events: usize,
    },
    /// The event store lost a tenant's events.
    LogLost {
        /// Whose.
        tenant: String,
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
    /// A client is about to issue a command, or to repeat one.
    Command {
        /// The number to be answered.
        n: u64,
        /// To which gateway.
        to: String,
        /// The same for the same command.
        key: String,
        /// What is to be done.
        order: Order,
        /// Whether it waits for a gateway that is offline.
        hold: bool,
        /// How long it may take, from when it is first recorded.
        deadline_ms: u64,
    },
    /// A client is about to cancel a command.
    Cancel {
        /// The number to be answered.
        n: u64,
        /// Which.
        cmd: String,
    },
    /// A client was told what became of a command.
    Outcome {
        /// Which.
        cmd: String,
        /// Of which gateway.
        of: String,
        /// What.
        #[serde(flatten)]
        became: Became,
    },
    /// A gateway got a command.
    Got {
        /// Which.
        cmd: String,
        /// What is to be done.
        order: Order,
        /// For how long from now it may be begun.
        ttl_ms: u64,
        /// Until when it may be begun, on the cluster's clock.
        deadline_at_ms: u64,
    },
    /// A gateway got the wish that a command be not done.
    Asked {
        /// Which.
        cmd: String,
    },
    /// A gateway does what a command asks for: it is executed, now.
    Does {
        /// Which.
        cmd: String,
    },
    /// A gateway is about to say how a command stands.
    Says {
        /// The number to be answered.
        n: u64,
        /// Which.
        cmd: String,
        /// How.
        status: String,
        /// In its own word.
        code: String,
    },
    /// The store's reader read a command's record.
    Record {
        /// Whose.
        tenant: String,
        /// Its gateway.
        of: String,
        /// Which.
        cmd: String,
        /// What became of it.
        outcomes: Vec<Became>,
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
