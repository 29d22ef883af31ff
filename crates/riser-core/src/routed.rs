//! What edges tell each other over the bus.
//!
//! Every message is one JSON object in an envelope with a version number. An edge that does not know the version
//! counts the message and ignores it, so that edges of two releases run side by side.

use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::command::{CommandId, Outcome};
use crate::id::EdgeId;
use crate::live::{Stream, StreamEnd, StreamId};
use crate::presence::Reason;
use crate::version::{Epoch, Version};

/// The version of the envelope that this release writes and reads.
pub const ENVELOPE: u32 = 1;

/// Why a message was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RoutedError {
    /// Another release's.
    #[error("an envelope of another version")]
    Version,
    /// Not one of ours.
    #[error("not a routed message")]
    Malformed,
}

/// From a gateway's edge to all who watch it, on the subject of its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Up {
    /// Its state changed; the change is stored already.
    State {
        /// The position after the change.
        version: Version,
        /// What changed.
        change: Change,
        /// When it was stored, Unix milliseconds on the registry's clock.
        at_ms: u64,
        /// The gateway's own clock, passed on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ts_ms: Option<i64>,
    },
    /// A session of it began.
    Online {
        /// The new session.
        epoch: Epoch,
        /// Where its state stood before, so that who stands there too need not read it again.
        before: Option<Version>,
        /// Whether it replaced a session that was still online.
        takeover: bool,
        /// When it came online, Unix milliseconds on the registry's clock. A takeover keeps it.
        since_ms: u64,
        /// When this happened.
        at_ms: u64,
        /// The edge that holds it.
        edge: EdgeId,
    },
    /// Its session ended.
    Offline {
        /// The position after the end: all values became stale.
        version: Version,
        /// Why.
        reason: Reason,
        /// When, Unix milliseconds on the registry's clock.
        at_ms: u64,
    },
}

/// To one edge, on its inbox, about the gateway that the subject names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToEdge {
    /// To the edge that held it: a newer session began elsewhere.
    TakenOver {
        /// The newer session.
        epoch: Epoch,
    },
    /// To the edge that holds it: somebody who may wants its session closed.
    Kick {
        /// Which session. A newer one is not meant.
        epoch: Epoch,
    },
    /// To the edge that holds it: there is a command for it. A hint only: the record decides.
    Dispatch {
        /// Who asks, to be told when it is not here.
        from: EdgeId,
        /// Which command.
        cmd: CommandId,
        /// Its place among the gateway's.
        seq: u64,
        /// The place before it.
        prev: u64,
    },
    /// To who asked for a dispatch: the gateway is not here.
    NotHere {
        /// Which command.
        cmd: CommandId,
    },
    /// To the edge that holds it: a command that was sent is to be cancelled by the gateway.
    Cancel {
        /// Which.
        cmd: CommandId,
    },
    /// To the edge of a stream's opener: the gateway of its address is held by this session, which is to be told that the
    /// stream is open and to get the frames.
    Hears {
        /// The edge that holds it.
        edge: EdgeId,
        /// Its session.
        epoch: Epoch,
    },
    /// To an edge whose sessions want to know: something became of a command that is too large for a message among many.
    Changed {
        /// Which command.
        cmd: CommandId,
    },
    /// To an edge whose sessions want to know: all that became of a command so far. Who lost one of these has lost
    /// nothing once it has the next.
    Outcomes {
        /// Which command.
        cmd: CommandId,
        /// From the first on.
        outcomes: Vec<Outcome>,
    },
}

/// About a live stream, to who hears it. Binary frames travel on the same subject as they are: they begin with a kind,
/// and no kind is the byte that an object begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Live {
    /// It is open.
    Opened {
        /// What it is.
        stream: Stream,
    },
    /// It is over.
    Closed {
        /// Its number.
        id: StreamId,
        /// Why.
        reason: StreamEnd,
    },
}

/// From an edge to all edges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AmongEdges {
    /// An edge that cannot renew its lease asks whether the others can.
    CanYouRenew {
        /// Who asks.
        from: EdgeId,
    },
    /// An edge whose lease is good answers.
    ICan {
        /// Who asked.
        to: EdgeId,
    },
    /// Asks edges to say that they are there. An edge that asks itself finds out whether messages come back to it.
    Ping {
        /// Who asks.
        from: EdgeId,
        /// Who is to answer; all when it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<EdgeId>,
        /// What the answer repeats.
        n: u64,
    },
    /// The answer.
    Pong {
        /// Who answers.
        from: EdgeId,
        /// Who asked.
        to: EdgeId,
        /// The question's.
        n: u64,
    },
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    v: u32,
    b: T,
}

#[derive(Deserialize)]
struct JustVersion {
    v: u32,
}

/// Writes a message in its envelope.
pub fn encode<T: Serialize>(body: &T) -> Vec<u8> {
    // The types of this module have string keys only, so that serialising them cannot fail.
    serde_json::to_vec(&Envelope { v: ENVELOPE, b: body }).unwrap_or_default()
}

/// Reads a message out of its envelope.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, RoutedError> {
    if let Ok(envelope) = serde_json::from_slice::<Envelope<T>>(bytes)
        && envelope.v == ENVELOPE
    {
        return Ok(envelope.b);
    }
    match serde_json::from_slice::<JustVersion>(bytes) {
        Ok(JustVersion { v }) if v != ENVELOPE => Err(RoutedError::Version),
        _ => Err(RoutedError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Json;

    #[test]
    fn the_bytes_between_edges_are_these() {
        let set = [("k/l".parse().expect("a path"), Some(Json::parse("true").expect("JSON")))];
        let up = Up::State { version: Version::new(7, 2), change: Change::values(set, false), at_ms: 9, ts_ms: None };
        let bytes = encode(&up);
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            r#"{"v":1,"b":{"state":{"version":{"epoch":7,"rev":2},"change":{"set":{"k/l":{"v":true}}},"at_ms":9}}}"#
        );
        assert_eq!(decode::<Up>(&bytes), Ok(up));
        let bytes = encode(&ToEdge::TakenOver { epoch: Epoch(8) });
        assert_eq!(String::from_utf8_lossy(&bytes), r#"{"v":1,"b":{"taken_over":{"epoch":8}}}"#);
        let bytes = encode(&ToEdge::Kick { epoch: Epoch(8) });
        assert_eq!(String::from_utf8_lossy(&bytes), r#"{"v":1,"b":{"kick":{"epoch":8}}}"#);
        let edge: EdgeId = "e-1".parse().expect("an edge");
        let bytes = encode(&AmongEdges::Ping { from: edge.clone(), to: None, n: 7 });
        assert_eq!(String::from_utf8_lossy(&bytes), r#"{"v":1,"b":{"ping":{"from":"e-1","n":7}}}"#);
        let bytes = encode(&AmongEdges::Pong { from: edge.clone(), to: edge, n: 7 });
        assert_eq!(String::from_utf8_lossy(&bytes), r#"{"v":1,"b":{"pong":{"from":"e-1","to":"e-1","n":7}}}"#);
    }

    #[test]
    fn another_version_and_no_message_are_told_apart() {
        assert_eq!(decode::<ToEdge>(br#"{"v":2,"b":{"new":{}}}"#), Err(RoutedError::Version));
        assert_eq!(decode::<ToEdge>(br#"{"v":1,"b":{"new":{}}}"#), Err(RoutedError::Malformed));
        assert_eq!(decode::<ToEdge>(b"\xff"), Err(RoutedError::Malformed));
    }
}
