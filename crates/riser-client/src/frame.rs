//! What a server sends, parsed. A frame of a type that is not known here is no error: newer servers may send it.

mod exchange;

use std::collections::BTreeMap;

use riser_core::frame::Credential;
use riser_core::limits::Limits;
use riser_core::live::StreamId;
use riser_core::{Address, Devices, Epoch, Json, Path, Pattern, Reason, Rev, TenantId, Version};
use serde::{Deserialize, Deserializer};

pub use exchange::{CMD_BYTES, Closed, Happened, Opened, Ordered, Outcome, Pong, Step};

/// A text message that is no frame, or one whose fields are not as agreed. It never repeats the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a frame is not as agreed: column {column}")]
pub struct FrameError {
    /// Where.
    pub column: usize,
}

/// `welcome`: the session began.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Welcome {
    /// The session's name in the server's logs.
    pub session: String,
    /// Whose.
    pub tenant: TenantId,
    /// A gateway's address.
    #[serde(default)]
    pub address: Option<Address>,
    /// A gateway's epoch.
    #[serde(default)]
    pub epoch: Option<Epoch>,
    /// The version of what is kept of a gateway's state.
    #[serde(default)]
    pub have: Option<Version>,
    /// When the credential runs out, Unix milliseconds on the cluster's clock.
    #[serde(default)]
    pub token_expires_at_ms: Option<u64>,
    /// Between two pings, in milliseconds.
    pub heartbeat_ms: u64,
    /// What the session may use.
    pub limits: Limits,
    /// Who serves it.
    pub edge: String,
    /// The server's release.
    pub version: String,
    /// The cluster's clock, Unix milliseconds.
    pub now_ms: u64,
}

/// `snapshot`, or one part of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Snapshot {
    /// Whose.
    pub of: Address,
    /// What the flat is called; none when it is registered without, or that cannot be read.
    #[serde(default)]
    pub name: Option<String>,
    /// On which floor it is; none when it is registered without, or that cannot be read.
    #[serde(default)]
    pub floor: Option<String>,
    /// Whether it is connected.
    pub online: bool,
    /// Since when, Unix milliseconds.
    pub since_ms: u64,
    /// The epoch of its last session.
    pub epoch: Epoch,
    /// The change within it.
    pub rev: Rev,
    /// When it came to this version, Unix milliseconds.
    pub at_ms: u64,
    /// Its values; none when only presence was asked for.
    #[serde(default)]
    pub state: Option<BTreeMap<Path, Json>>,
    /// Paths whose values are stale, each with all below it.
    #[serde(default)]
    pub stale: Vec<Path>,
    /// What its devices are, when described.
    #[serde(default)]
    pub devices: Option<Devices>,
    /// Whether further parts follow.
    #[serde(default)]
    pub more: bool,
}

/// `state`, or one part of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Delta {
    /// Whose.
    pub of: Address,
    /// The epoch.
    pub epoch: Epoch,
    /// The change within it.
    pub rev: Rev,
    /// Values by path; none deletes.
    #[serde(default)]
    pub set: BTreeMap<Path, Option<Json>>,
    /// Paths that became stale, each with all below it.
    #[serde(default)]
    pub stale: Vec<Path>,
    /// Paths that became fresh, each with all below it.
    #[serde(default)]
    pub fresh: Vec<Path>,
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// Whether further parts follow.
    #[serde(default)]
    pub more: bool,
}

/// `devices`, or one part of it: described anew.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Described {
    /// Whose.
    pub of: Address,
    /// The devices.
    pub devices: Devices,
    /// Whether further parts follow.
    #[serde(default)]
    pub more: bool,
}

/// `presence`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Presence {
    /// Whose.
    pub of: Address,
    /// Whether it is connected.
    pub online: bool,
    /// The epoch of the session that came or went.
    pub epoch: Epoch,
    /// Why; none for a plain arrival, and for reasons that are not known here.
    #[serde(default, deserialize_with = "known")]
    pub reason: Option<Reason>,
    /// When, Unix milliseconds.
    pub at_ms: u64,
}

/// `ok`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Granted {
    /// What it answers.
    pub n: u64,
    /// A fresh token, to `renew`.
    #[serde(default, deserialize_with = "secret")]
    pub token: Option<Credential>,
    /// When that token runs out, Unix milliseconds.
    #[serde(default)]
    pub expires_at_ms: Option<u64>,
    /// The name under which a command is recorded.
    #[serde(default, deserialize_with = "exchange::some_cmd")]
    pub cmd: Option<String>,
    /// Where an event is stored.
    #[serde(default)]
    pub cursor: Option<String>,
    /// The number of a stream that was opened.
    #[serde(default)]
    pub stream: Option<StreamId>,
}

/// `error`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Refusal {
    /// What it answers, when the frame had a number.
    #[serde(default)]
    pub n: Option<u64>,
    /// The code (protocol.md §8).
    pub code: String,
    /// For the developer.
    #[serde(default)]
    pub message: String,
    /// When to try again, in milliseconds.
    #[serde(default)]
    pub retry_after_ms: Option<u64>,
}

/// A frame from a server.
#[derive(Debug, Clone, PartialEq)]
pub enum Received {
    /// `welcome`.
    Welcome(Box<Welcome>),
    /// `snapshot`.
    Snapshot(Snapshot),
    /// `state`.
    State(Delta),
    /// `devices`.
    Devices(Described),
    /// `presence`.
    Presence(Presence),
    /// `synced`: everything that a subscription asked for was sent.
    Synced {
        /// Which.
        to: Pattern,
        /// The position in the tenant's events from which on more will come.
        cursor: Option<String>,
    },
    /// `gap`: events between the cursor and what follows are gone.
    Gap {
        /// Of which subscription.
        to: Pattern,
    },
    /// `event`.
    Event(Box<Happened>),
    /// `outcome`.
    Outcome(Outcome),
    /// `opened`.
    Opened(Opened),
    /// `closed`.
    Closed(Closed),
    /// `command`, to a gateway.
    Command(Box<Ordered>),
    /// `cancel`, to a gateway.
    Cancel {
        /// Which command.
        cmd: String,
    },
    /// `unsubscribed`: a right was withdrawn.
    Unsubscribed {
        /// Which.
        to: Pattern,
        /// Why.
        code: String,
    },
    /// `ok`.
    Ok(Granted),
    /// `error`.
    Error(Refusal),
    /// `goaway`: the session will be closed.
    Goaway {
        /// In how many milliseconds.
        after_ms: u64,
    },
    /// `resync`: a full state is asked for.
    Resync,
    /// `ping`: asks for a `pong`.
    Ping,
    /// `pong`.
    Pong(Pong),
    /// Anything else.
    Other,
}

impl Received {
    /// Parses a text message.
    pub fn parse(text: &str) -> Result<Self, FrameError> {
        #[derive(Deserialize)]
        struct Head<'a> {
            #[serde(borrow)]
            t: std::borrow::Cow<'a, str>,
        }
        #[derive(Deserialize)]
        struct About {
            to: Pattern,
            #[serde(default)]
            code: String,
            #[serde(default)]
            cursor: Option<String>,
        }
        #[derive(Deserialize)]
        struct Away {
            #[serde(default)]
            after_ms: u64,
        }
        let head: Head<'_> = read(text)?;
        Ok(match &*head.t {
            "welcome" => Self::Welcome(read(text)?),
            "snapshot" => Self::Snapshot(read(text)?),
            "state" => Self::State(read(text)?),
            "devices" => Self::Devices(read(text)?),
            "presence" => Self::Presence(read(text)?),
            "synced" => {
                let About { to, cursor, .. } = read(text)?;
                Self::Synced { to, cursor }
            }
            "gap" => Self::Gap { to: read::<About>(text)?.to },
            "unsubscribed" => {
                let About { to, code, .. } = read(text)?;
                Self::Unsubscribed { to, code }
            }
            "event" => Self::Event(read(text)?),
            "outcome" => {
                let exchange::Whose { cmd, of } = read(text)?;
                Self::Outcome(Outcome { cmd, of, step: read(text)? })
            }
            "opened" => Self::Opened(read(text)?),
            "closed" => Self::Closed(read(text)?),
            "command" => Self::Command(read(text)?),
            "cancel" => Self::Cancel { cmd: read::<exchange::Which>(text)?.cmd },
            "ok" => Self::Ok(read(text)?),
            "error" => Self::Error(read(text)?),
            "goaway" => Self::Goaway { after_ms: read::<Away>(text)?.after_ms },
            "resync" => Self::Resync,
            "ping" => Self::Ping,
            "pong" => Self::Pong(read(text)?),
            _ => Self::Other,
        })
    }
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, FrameError> {
    serde_json::from_str(text).map_err(|error| FrameError { column: error.column() })
}

/// A word that is not known is left out instead of making the whole frame unreadable.
fn known<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Reason>, D::Error> {
    let word = Option::<String>::deserialize(d)?;
    Ok(word.and_then(|word| {
        Reason::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(&word)).ok()
    }))
}

fn secret<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Credential>, D::Error> {
    Ok(Option::<String>::deserialize(d)?.map(Credential::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_no_error() {
        assert_eq!(Received::parse(r#"{"t":"rang","of":"b/g","stream":5}"#), Ok(Received::Other));
        let text = r#"{"t":"presence","of":"b/g","online":false,"epoch":7,"reason":"vanished","at_ms":9,"later":1}"#;
        let Ok(Received::Presence(presence)) = Received::parse(text) else { panic!("not read") };
        assert_eq!((presence.reason, presence.epoch), (None, Epoch(7)));
    }

    #[test]
    fn what_is_no_frame_is_an_error_that_tells_nothing_of_it() {
        for bad in ["", "[]", "{}", r#"{"t":5}"#, r#"{"t":"state","of":"secret//"}"#, r#"{"t":"ok"}"#] {
            let error = Received::parse(bad).expect_err(bad);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn values_stay_as_they_came_and_null_deletes() {
        let text =
            r#"{"t":"state","of":"b/g","epoch":7,"rev":2,"set":{"a":{"x":1.50},"b":null},"stale":["c"],"at_ms":9}"#;
        let Ok(Received::State(delta)) = Received::parse(text) else { panic!("not read") };
        let path = |s: &str| s.parse::<Path>().expect("a path");
        assert_eq!(delta.set[&path("a")].as_ref().map(Json::as_str), Some(r#"{"x":1.50}"#));
        assert_eq!(delta.set[&path("b")], None);
        assert_eq!((delta.stale, delta.fresh, delta.more), (vec![path("c")], vec![], false));
    }

    #[test]
    fn a_fresh_token_never_shows() {
        let frame = Received::parse(r#"{"t":"ok","n":7,"token":"very-secret","expires_at_ms":4}"#).expect("a frame");
        assert!(!format!("{frame:?}").contains("very-secret"));
    }
}
