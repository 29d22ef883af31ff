//! What the program and its generators say to each other: one JSON object a line, on the generator's standard input and
//! output. Each order is answered once. Keys travel here and not in arguments, which every user of a machine can read.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What a generator is, for as long as it lives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    /// Where it connects; connections take turns.
    pub(crate) at: Vec<SocketAddr>,
    /// What is spoken there.
    pub(crate) dialect: Dialect,
    /// What its connections do.
    pub(crate) role: Role,
    /// How many connections it has.
    pub(crate) count: u32,
    /// The number of its first connection. Names and source addresses follow from it.
    pub(crate) first: u32,
    /// Connections that are opened at once.
    pub(crate) at_once: u32,
}

/// What a server speaks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Dialect {
    /// The Riser protocol, with tokens that the generator signs itself.
    Riser {
        /// The tenant.
        tenant: String,
        /// The name of its signing key.
        kid: String,
        /// The signing key.
        key: String,
    },
    /// WebSocket messages: a subscriber is who connects to `/sub`, and the others' messages go to all subscribers.
    Ws,
    /// MQTT 3.1.1 over WebSocket.
    Mqtt,
    /// Centrifugo's JSON protocol over WebSocket.
    Centrifugo,
    /// No sockets of its own: what stands behind edges is called directly.
    Stores {
        /// NATS' URL.
        nats: String,
        /// Redis' port on this machine.
        redis: u16,
    },
    /// Bytes over TCP that come back as they are.
    Tcp,
}

/// What the connections of a generator do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Gateways, or whoever publishes: they send what the schedule says, and carry out commands.
    Report(Reporter),
    /// Those who listen.
    Watch(Watcher),
    /// Clients that send commands to the gateways `0..gateways` and wait for their final outcomes.
    Command {
        /// How many gateways there are.
        gateways: u32,
        /// Whether a command waits for a gateway that is not connected.
        hold: bool,
        /// Its deadline, in milliseconds.
        deadline_ms: u32,
    },
    /// Flats that ask over HTTP for their newest command.
    Poll {
        /// Between two questions of one flat.
        period_ms: u32,
        /// Whether the connection stays open between them.
        keep_alive: bool,
    },
    /// Clients that subscribe and unsubscribe what belongs to no gateway.
    Churn {
        /// The building of the first pattern.
        building: u32,
        /// How many patterns there are.
        patterns: u32,
    },
    /// What answers the requests of [`Role::Call`].
    Answer,
    /// What edges do for a frame, without the edges.
    Call(Call),
}

/// Calls of the stores; one after the other when there are two.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Call {
    /// The script.
    pub(crate) script: Option<Script>,
    /// Whether a request is sent through NATS, and its reply awaited.
    pub(crate) asks: bool,
}

/// Calls of the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Script {
    /// A change of state: one call of one script.
    State,
    /// A command is looked up that is recorded already: one call of one script.
    Look,
    /// A command is recorded: a look, and then a write.
    Record,
}

/// How a reporter behaves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Reporter {
    /// Gateways of one building.
    pub(crate) per_building: u32,
    /// The number of the first building.
    pub(crate) building: u32,
    /// Frames that each connection sends when it has opened, each of which is answered.
    pub(crate) greet: u32,
    /// Devices of a gateway, which take turns.
    pub(crate) devices: u32,
    /// Whether frames go as binary frames of a live stream.
    pub(crate) live: bool,
    /// Whether frames are events.
    #[serde(default)]
    pub(crate) events: bool,
    /// Whether what is published is acknowledged. Riser always does, but for live frames.
    pub(crate) acknowledged: bool,
}

/// How a listener behaves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Watcher {
    /// What it subscribes to.
    pub(crate) to: String,
    /// The lane.
    pub(crate) lane: String,
    /// Whether it keeps the last value of each path, to be compared.
    pub(crate) track: bool,
}

/// When a reporter or commander sends.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Schedule {
    /// The first tick, on the machine's monotonic clock.
    pub(crate) start_us: u64,
    /// Ticks in a second. Nothing that a server does moves a tick: the loop is open.
    pub(crate) ticks_per_second: f64,
    /// How many ticks there are.
    pub(crate) ticks: u64,
    /// Frames of one tick. They go to connections in turn.
    pub(crate) burst: u32,
    /// For commanders: each connection sends its next command when the last one is decided, up to the last tick.
    pub(crate) closed: bool,
    /// How long answers may take after the last tick, in milliseconds.
    pub(crate) linger_ms: u64,
}

impl Schedule {
    /// When a tick is.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(crate) fn due(&self, tick: u64) -> u64 {
        self.start_us + (tick as f64 * 1_000_000.0 / self.ticks_per_second) as u64
    }
}

/// What a generator is told to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Connect. The first order.
    Open(Box<Job>),
    /// Send, until the schedule is over and everything is answered.
    Go(Schedule),
    /// Say how many values came so far.
    Count,
    /// Read nothing for this long from now on, in milliseconds. Answered at once.
    Pause(u64),
    /// Close all connections, if so told, and wait until they have ended.
    Leave {
        /// Whether to close them; else the server ends them.
        close: bool,
    },
    /// Connect again, all at once.
    Return,
    /// Tell what was counted, and begin anew.
    Report,
}

/// What a generator answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Told {
    /// So many connections are open; comes several times, the last time with all.
    Opened(u32),
    /// The order is done.
    Done,
    /// How many values came.
    Count(u64),
    /// What was counted.
    Report(Box<Report>),
    /// It cannot go on.
    Failed(String),
}

/// What was counted since the last report.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Frames that were sent.
    pub(crate) sent: u64,
    /// Of them those that were answered, or decided.
    pub(crate) answered: u64,
    /// Frames that came for listeners.
    pub(crate) frames: u64,
    /// Values in them.
    pub(crate) values: u64,
    /// Connections that ended unasked.
    pub(crate) lost: u64,
    /// Connections that were refused with a time to come back, and those without.
    pub(crate) refused: [u64; 2],
    /// Bytes read from and written to sockets.
    pub(crate) bytes: [u64; 2],
    /// What went wrong, by the server's word for it.
    pub(crate) errors: BTreeMap<String, u64>,
    /// From the intended moment to the answer or the delivery: microseconds and how often.
    pub(crate) latency: Vec<(u64, u64)>,
    /// From the intended moment to the sending: microseconds and how often.
    pub(crate) late: Vec<(u64, u64)>,
    /// The last value of each path that was sent, or that a listener has; listeners that differ are in `errors`.
    pub(crate) last: BTreeMap<String, u64>,
}
