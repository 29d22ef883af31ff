//! The frames of commands, events and live streams.

use riser_core::command::{ResultCode, Status};
use riser_core::event::{EventId, EventType};
use riser_core::live::{StreamEnd, StreamId, StreamKind};
use riser_core::{Address, Epoch, Json, Path};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// Longest `cmd`, in bytes: what the settled form of a command's name needs at most.
pub const CMD_BYTES: usize = 192;

/// `event`: something happened.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Happened {
    /// Where.
    pub of: Address,
    /// The position after it; opaque.
    pub cursor: String,
    /// Its sender's name for it.
    pub id: EventId,
    /// Which device or property; none when it is about the address itself.
    #[serde(default)]
    pub path: Option<Path>,
    /// What kind of event.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// What there is to say about it.
    #[serde(default)]
    pub data: Option<Json>,
    /// Who sent it: `gateway:` and its address, or `client:` and its subject.
    #[serde(default)]
    pub from: String,
    /// When it was stored, Unix milliseconds.
    pub at_ms: u64,
    /// The sender's own clock.
    #[serde(default)]
    pub ts_ms: Option<i64>,
}

/// `outcome`: something became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "t", rename = "outcome")]
pub struct Outcome {
    /// Of which command.
    pub cmd: String,
    /// The gateway's address.
    pub of: Address,
    /// What.
    #[serde(flatten)]
    pub step: Step,
}

/// What became of a command, without its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What.
    pub status: Status,
    /// Whether it decided the command.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// Whether it is a word of the gateway that came after the final outcome.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    /// The gateway's own word for it.
    #[serde(default)]
    pub code: Option<ResultCode>,
    /// What the gateway had to say.
    #[serde(default)]
    pub data: Option<Json>,
    /// When, Unix milliseconds.
    pub at_ms: u64,
}

/// `command`, as a gateway gets it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Ordered {
    /// Its name.
    #[serde(deserialize_with = "cmd")]
    pub cmd: String,
    /// With which device or property.
    pub path: Path,
    /// What is to be done.
    pub action: String,
    /// How.
    #[serde(default)]
    pub args: Option<Json>,
    /// For how long after its arrival it may be started, in milliseconds.
    pub ttl_ms: u64,
    /// Until when it may be started, Unix milliseconds on the cluster's clock.
    pub deadline_at_ms: u64,
    /// Who issued it: `client:` and its subject.
    #[serde(default)]
    pub by: String,
}

/// `opened`: a live stream began, or was there already.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Opened {
    /// Where it is heard.
    pub of: Address,
    /// Which device or property it is about.
    pub path: Path,
    /// Its number, which its frames carry.
    pub stream: StreamId,
    /// What it carries.
    pub kind: StreamKind,
    /// What the opener says about it.
    #[serde(default)]
    pub params: Option<Json>,
    /// Who opened it.
    #[serde(default)]
    pub from: String,
}

/// `closed`: a live stream is over.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Closed {
    /// Where it was heard.
    pub of: Address,
    /// Its number.
    pub stream: StreamId,
    /// Why.
    pub reason: StreamEnd,
}

/// `pong`: the cluster's clock, and what the cloud believes of the peer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Pong {
    /// The cluster's clock, Unix milliseconds; none when a server only answers.
    #[serde(default)]
    pub now_ms: Option<u64>,
    /// A client's position in the tenant's events.
    #[serde(default)]
    pub cursor: Option<String>,
    /// The epoch that a gateway is believed to have.
    #[serde(default)]
    pub epoch: Option<Epoch>,
    /// How many commands wait for a gateway.
    #[serde(default)]
    pub held: Option<u64>,
}

/// Whose outcome it is.
#[derive(Deserialize)]
pub(super) struct Whose {
    #[serde(deserialize_with = "cmd")]
    pub(super) cmd: String,
    pub(super) of: Address,
}

/// Which command a `cancel` is about.
#[derive(Deserialize)]
pub(super) struct Which {
    #[serde(deserialize_with = "cmd")]
    pub(super) cmd: String,
}

fn cmd<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    let cmd = String::deserialize(d)?;
    if (1..=CMD_BYTES).contains(&cmd.len()) { Ok(cmd) } else { Err(D::Error::custom("not a `cmd`")) }
}

pub(super) fn some_cmd<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    cmd(d).map(Some)
}
