//! What peers send: parsed whole, or refused with what is wrong and where.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::fields::{Fields, NotFields};
use super::{Credential, Lanes, N};
use crate::close::ErrorCode;
use crate::command::{Action, CommandId, CommandKey, DEADLINE_MS, DEFAULT_DEADLINE_MS, ResultCode, Said};
use crate::devices::Devices;
use crate::event::{EventId, EventType};
use crate::filter::PathFilter;
use crate::id::{Address, Pattern};
use crate::json::Json;
use crate::live::{PARAMS_BYTES, StreamId, StreamKind};
use crate::path::Path;

/// Longest `agent`, in bytes.
pub const AGENT_BYTES: usize = 256;
/// Longest credential, in bytes. Whoever verifies it refuses a longer one as any other bad one.
pub const CREDENTIAL_BYTES: usize = 8_192;
/// Longest cursor, in bytes.
pub const CURSOR_BYTES: usize = 256;

/// A frame from a peer.
#[derive(Debug, Clone, PartialEq)]
pub enum Inbound {
    /// The first frame of a session.
    Hello {
        /// To be answered, when there, besides the `welcome`.
        n: Option<N>,
        /// The credential, when it did not come with the upgrade.
        token: Option<Credential>,
        /// What the peer calls itself.
        agent: Option<String>,
        /// For how long a gateway recognises a command that it has seen, in milliseconds.
        remembers_ms: Option<u64>,
    },
    /// A fresh credential of the same peer.
    Auth {
        /// To be answered.
        n: N,
        /// The credential.
        token: Credential,
    },
    /// Asks for a `pong`.
    Ping {
        /// To be answered, when there, besides the `pong`.
        n: Option<N>,
    },
    /// Answers a `ping` of ours.
    Pong {
        /// To be answered, when there.
        n: Option<N>,
    },
    /// New values of a gateway.
    State {
        /// To be answered, when there.
        n: Option<N>,
        /// Values by path; none deletes.
        set: BTreeMap<Path, Option<Json>>,
        /// Whether everything known before is replaced.
        full: bool,
        /// Whether further parts of the same set follow.
        more: bool,
        /// The gateway's own clock.
        ts_ms: Option<i64>,
    },
    /// A device went away or came back.
    Device {
        /// To be answered, when there.
        n: Option<N>,
        /// The device.
        path: Path,
        /// Whether it is there.
        up: bool,
    },
    /// What the devices are.
    Describe {
        /// To be answered, when there.
        n: Option<N>,
        /// The devices.
        devices: Devices,
    },
    /// Asks for a fresh token of the same rights.
    Renew {
        /// To be answered.
        n: N,
    },
    /// Asks for what happens at a pattern.
    Subscribe {
        /// To be answered.
        n: N,
        /// Where.
        to: Pattern,
        /// What.
        lanes: Lanes,
        /// Which paths.
        path: PathFilter,
        /// After which event.
        cursor: Option<String>,
    },
    /// Ends a subscription.
    Unsubscribe {
        /// To be answered.
        n: N,
        /// Which.
        to: Pattern,
    },
    /// Something happened.
    Event {
        /// To be answered, when there.
        n: Option<N>,
        /// Where, when a client says it; a gateway's own address otherwise.
        to: Option<Address>,
        /// What.
        event: NewEvent,
    },
    /// Asks a gateway to do something.
    Command {
        /// To be answered.
        n: N,
        /// The gateway.
        to: Address,
        /// What.
        command: NewCommand,
    },
    /// Asks that a command be not done.
    Cancel {
        /// To be answered.
        n: N,
        /// Which.
        cmd: CommandId,
    },
    /// A gateway's word about a command.
    Result {
        /// To be answered, when there.
        n: Option<N>,
        /// Which.
        cmd: CommandId,
        /// How it stands.
        status: Said,
        /// The gateway's own word for it.
        code: Option<ResultCode>,
        /// What there is to say.
        data: Option<Json>,
    },
    /// Opens a live stream.
    Open {
        /// To be answered.
        n: N,
        /// Where, when a client says it; a gateway's own address otherwise.
        to: Option<Address>,
        /// Which device or property it is about.
        path: Path,
        /// What it carries.
        kind: StreamKind,
        /// What the opener says about it.
        params: Option<Json>,
    },
    /// Closes a live stream.
    Close {
        /// To be answered.
        n: N,
        /// Which.
        stream: StreamId,
    },
    /// Somebody has seen a notice.
    Seen {
        /// To be answered.
        n: N,
        /// Where the notice was.
        of: Address,
        /// Which.
        id: EventId,
    },
}

/// An event as its sender says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The sender's own name for it; without one it is never taken for another's repetition.
    pub id: Option<EventId>,
    /// Which device or property.
    pub path: Option<Path>,
    /// What kind of event.
    pub kind: EventType,
    /// What there is to say about it.
    pub data: Option<Json>,
    /// The sender's own clock.
    pub ts_ms: Option<i64>,
}

/// A command as its issuer says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCommand {
    /// With which device or property.
    pub path: Path,
    /// What is to be done.
    pub action: Action,
    /// How.
    pub args: Option<Json>,
    /// In how many milliseconds an outcome must be there.
    pub deadline_ms: u64,
    /// Whether it waits for a gateway that is offline.
    pub hold: bool,
    /// What makes a retry the same command.
    pub key: Option<CommandKey>,
}

impl NewEvent {
    /// Takes an event's fields out of an object: a frame, or the body of an HTTP call.
    pub fn from_fields(fields: &Fields<'_>) -> Result<Self, String> {
        Ok(Self {
            id: fields.optional("id")?,
            path: fields.optional("path")?,
            kind: fields.required("type")?,
            data: fields.json("data")?,
            ts_ms: fields.optional("ts_ms")?,
        })
    }
}

impl NewCommand {
    /// Takes a command's fields out of an object: a frame, or the body of an HTTP call.
    pub fn from_fields(fields: &Fields<'_>) -> Result<Self, String> {
        let deadline_ms = fields.optional("deadline_ms")?.unwrap_or(DEFAULT_DEADLINE_MS);
        if !DEADLINE_MS.contains(&deadline_ms) {
            return Err(format!("`deadline_ms`: not from {} to {}", DEADLINE_MS.start(), DEADLINE_MS.end()));
        }
        let if_offline = fields.optional("if_offline")?.unwrap_or(IfOffline::Fail);
        Ok(Self {
            path: fields.required("path")?,
            action: fields.required("action")?,
            args: fields.json("args")?,
            deadline_ms,
            hold: matches!(if_offline, IfOffline::Hold),
            key: fields.optional("key")?,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum IfOffline {
    Fail,
    Hold,
}

/// A frame that was understood as a frame and refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The number to answer with, when the frame had a good one.
    pub n: Option<N>,
    /// Why.
    pub code: ErrorCode,
    /// What is wrong and where, for the peer's developer.
    pub message: String,
}

/// What is wrong with a text message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// It is no frame at all: the session ends.
    NotAFrame(&'static str),
    /// It is answered with an error, and the session goes on.
    Refused(Refused),
}

impl Inbound {
    /// Parses a text message.
    pub fn parse(text: &str) -> Result<Self, Broken> {
        let fields = match Fields::parse(text) {
            Ok(fields) => fields,
            Err(NotFields::Malformed) => return Err(Broken::NotAFrame("a text message is not a JSON object")),
            Err(NotFields::Ambiguous(n)) => {
                return Err(refused(
                    n.and_then(N::new),
                    ErrorCode::BadFrame,
                    "a field stands there twice, or there are over 64".into(),
                ));
            }
        };
        let Ok(Some(t)) = fields.optional::<String>("t") else {
            return Err(Broken::NotAFrame("a frame has no string field `t`"));
        };
        let n = number(&fields).map_err(|message| refused(None, ErrorCode::BadFrame, message))?;
        let Some(known) = known_fields(&t) else {
            let t: String = t.chars().take(48).collect();
            return Err(refused(n, ErrorCode::UnknownType, format!("there is no frame {t:?}")));
        };
        let bad = |message: String| refused(n, ErrorCode::BadFrame, message);
        let must: Option<Vec<String>> = fields.optional("must").map_err(bad)?;
        for name in must.iter().flatten() {
            if !known.contains(&name.as_str()) {
                let name: String = name.chars().take(48).collect();
                return Err(refused(
                    n,
                    ErrorCode::Unsupported,
                    format!("the field {name:?} of `{t}` is not known here"),
                ));
            }
        }
        build(&t, n, &fields).map_err(bad)
    }

    /// The frame's type, for logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "hello",
            Self::Auth { .. } => "auth",
            Self::Ping { .. } => "ping",
            Self::Pong { .. } => "pong",
            Self::State { .. } => "state",
            Self::Device { .. } => "device",
            Self::Describe { .. } => "describe",
            Self::Renew { .. } => "renew",
            Self::Subscribe { .. } => "subscribe",
            Self::Unsubscribe { .. } => "unsubscribe",
            Self::Event { .. } => "event",
            Self::Command { .. } => "command",
            Self::Cancel { .. } => "cancel",
            Self::Result { .. } => "result",
            Self::Open { .. } => "open",
            Self::Close { .. } => "close",
            Self::Seen { .. } => "seen",
        }
    }
}

fn refused(n: Option<N>, code: ErrorCode, message: String) -> Broken {
    Broken::Refused(Refused { n, code, message })
}

fn number(fields: &Fields<'_>) -> Result<Option<N>, String> {
    if !fields.has("n") {
        return Ok(None);
    }
    let n: Option<u64> = fields.optional("n").unwrap_or(None);
    n.and_then(N::new).map(Some).ok_or_else(|| "`n`: not an integer from 0 to 2^53-1".into())
}

/// The fields that a frame of this type may have; none when there is no such frame.
fn known_fields(t: &str) -> Option<&'static [&'static str]> {
    Some(match t {
        "hello" => &["t", "n", "must", "token", "agent", "remembers_ms"],
        "auth" => &["t", "n", "must", "token"],
        "ping" | "pong" => &["t", "n", "must", "now_ms"],
        "state" => &["t", "n", "must", "set", "full", "more", "ts_ms"],
        "device" => &["t", "n", "must", "path", "up"],
        "describe" => &["t", "n", "must", "devices"],
        "renew" => &["t", "n", "must"],
        "subscribe" => &["t", "n", "must", "to", "lanes", "path", "cursor"],
        "unsubscribe" => &["t", "n", "must", "to"],
        "event" => &["t", "n", "must", "to", "id", "path", "type", "data", "ts_ms"],
        "command" => &["t", "n", "must", "to", "path", "action", "args", "deadline_ms", "if_offline", "key"],
        "cancel" => &["t", "n", "must", "cmd"],
        "result" => &["t", "n", "must", "cmd", "status", "code", "data"],
        "open" => &["t", "n", "must", "to", "path", "kind", "params"],
        "close" => &["t", "n", "must", "stream"],
        "seen" => &["t", "n", "must", "of", "id"],
        _ => return None,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Lane {
    State,
    Event,
    Presence,
    Live,
}

fn build(t: &str, n: Option<N>, fields: &Fields<'_>) -> Result<Inbound, String> {
    let needs_n = || n.ok_or_else(|| format!("`n` is missing, and `{t}` is always answered"));
    Ok(match t {
        "hello" => Inbound::Hello {
            n,
            token: credential(fields)?,
            agent: short(fields, "agent", AGENT_BYTES)?,
            remembers_ms: fields.optional("remembers_ms")?,
        },
        "auth" => Inbound::Auth { n: needs_n()?, token: credential(fields)?.ok_or("`token` is missing")? },
        "ping" => Inbound::Ping { n },
        "pong" => Inbound::Pong { n },
        "state" => {
            let full = fields.optional("full")?.unwrap_or(false);
            let set = match fields.values("set")? {
                Some(set) => set,
                None if full => BTreeMap::new(),
                None => return Err("`set` is missing".into()),
            };
            let more = fields.optional("more")?.unwrap_or(false);
            Inbound::State { n, set, full, more, ts_ms: fields.optional("ts_ms")? }
        }
        "device" => Inbound::Device { n, path: fields.required("path")?, up: fields.required("up")? },
        "describe" => {
            let devices: Devices = fields.required("devices")?;
            devices.check().map_err(|error| format!("`devices`: {error}"))?;
            Inbound::Describe { n, devices }
        }
        "renew" => Inbound::Renew { n: needs_n()? },
        "subscribe" => Inbound::Subscribe {
            n: needs_n()?,
            to: fields.required("to")?,
            lanes: lanes(fields)?,
            path: fields.optional("path")?.unwrap_or(PathFilter::ALL),
            cursor: short(fields, "cursor", CURSOR_BYTES)?,
        },
        "unsubscribe" => Inbound::Unsubscribe { n: needs_n()?, to: fields.required("to")? },
        _ => return exchange(t, n, fields),
    })
}

/// The frames of commands, events and live streams.
fn exchange(t: &str, n: Option<N>, fields: &Fields<'_>) -> Result<Inbound, String> {
    let needs_n = || n.ok_or_else(|| format!("`n` is missing, and `{t}` is always answered"));
    Ok(match t {
        "event" => Inbound::Event { n, to: fields.optional("to")?, event: NewEvent::from_fields(fields)? },
        "command" => {
            let to: Address = fields.required("to")?;
            if !to.is_gateway() {
                return Err("`to`: a command goes to a gateway, not to a building or a tenant".into());
            }
            Inbound::Command { n: needs_n()?, to, command: NewCommand::from_fields(fields)? }
        }
        "cancel" => Inbound::Cancel { n: needs_n()?, cmd: fields.required("cmd")? },
        "result" => Inbound::Result {
            n,
            cmd: fields.required("cmd")?,
            status: fields.required("status")?,
            code: fields.optional("code")?,
            data: fields.json("data")?,
        },
        "open" => {
            let params = fields.json("params")?;
            if params.as_ref().is_some_and(|params| params.as_str().len() > PARAMS_BYTES) {
                return Err(format!("`params`: over {PARAMS_BYTES} bytes"));
            }
            let (to, path, kind) = (fields.optional("to")?, fields.required("path")?, fields.required("kind")?);
            Inbound::Open { n: needs_n()?, to, path, kind, params }
        }
        "close" => Inbound::Close { n: needs_n()?, stream: fields.required("stream")? },
        _ => Inbound::Seen { n: needs_n()?, of: fields.required("of")?, id: fields.required("id")? },
    })
}

fn lanes(fields: &Fields<'_>) -> Result<Lanes, String> {
    let list: Vec<Lane> = fields.required("lanes")?;
    let mut lanes = Lanes::default();
    for lane in &list {
        match lane {
            Lane::State => lanes.state = true,
            Lane::Event => lanes.event = true,
            Lane::Presence => lanes.presence = true,
            Lane::Live => lanes.live = true,
        }
    }
    if list.is_empty() { Err("`lanes`: an empty list".into()) } else { Ok(lanes) }
}

fn credential(fields: &Fields<'_>) -> Result<Option<Credential>, String> {
    Ok(fields.optional::<String>("token")?.map(Credential::new))
}

fn short(fields: &Fields<'_>, name: &'static str, bytes: usize) -> Result<Option<String>, String> {
    let text: Option<String> = fields.optional(name)?;
    match text {
        Some(text) if text.len() > bytes => Err(format!("`{name}`: over {bytes} bytes")),
        text => Ok(text),
    }
}

#[cfg(test)]
mod tests;
