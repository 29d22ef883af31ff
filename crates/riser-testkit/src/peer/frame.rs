//! Frames as a peer reads them: by protocol.md, not by the edge's own types.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::history::{Became, Body, Event, Happened, Order, Set};

#[derive(Deserialize)]
struct Raw {
    t: String,
    n: Option<u64>,
    code: Option<String>,
    epoch: Option<u64>,
    rev: Option<u64>,
    of: Option<String>,
    to: Option<String>,
    online: Option<bool>,
    reason: Option<String>,
    state: Option<BTreeMap<String, Body>>,
    set: Option<Set>,
    #[serde(default)]
    stale: Vec<String>,
    #[serde(default)]
    fresh: Vec<String>,
    devices: Option<BTreeMap<String, Value>>,
    cmd: Option<String>,
    path: Option<String>,
    action: Option<String>,
    args: Option<Body>,
    ttl_ms: Option<u64>,
    deadline_at_ms: Option<u64>,
    status: Option<String>,
    #[serde(rename = "final")]
    last: Option<bool>,
    #[serde(default)]
    late: bool,
    data: Option<Value>,
    cursor: Option<String>,
    stream: Option<u32>,
    id: Option<String>,
    from: Option<String>,
    at_ms: Option<u64>,
}

impl Raw {
    fn outcome(self) -> Option<Event> {
        let (status, last, at_ms) = (self.status?, self.last?, self.at_ms?);
        let body = match self.data {
            Some(data) => Some(serde_json::from_value(data).ok()?),
            None => None,
        };
        let became = Became { status, last, late: self.late, code: self.code, body, at_ms };
        Some(Event::Outcome { cmd: self.cmd?, of: self.of?, became })
    }

    fn event(self) -> Option<Event> {
        // What the broker itself has to say is no peer's body.
        let body = self.data.and_then(|data| serde_json::from_value(data).ok());
        let happened = Happened { of: self.of?, id: self.id?, path: self.path, from: self.from?, body };
        Some(Event::Heard { cursor: self.cursor?, happened })
    }

    fn command(self) -> Option<Event> {
        let order = Order { path: self.path?, action: self.action?, body: self.args? };
        Some(Event::Got { cmd: self.cmd?, order, ttl_ms: self.ttl_ms?, deadline_at_ms: self.deadline_at_ms? })
    }
}

/// What a frame tells; `Broken` when it is not as agreed, and none when it is of no interest.
pub(crate) fn read(text: &str) -> Option<Event> {
    let broken = || Some(Event::Broken { text: text.to_owned() });
    let Ok(raw) = serde_json::from_str::<Raw>(text) else { return broken() };
    match raw.t.as_str() {
        "outcome" => return raw.outcome().or_else(broken),
        "command" => return raw.command().or_else(broken),
        "event" => return raw.event().or_else(broken),
        _ => {}
    }
    let epoch = raw.epoch.unwrap_or(0);
    let event = match (raw.t.as_str(), raw.n, raw.of, raw.rev) {
        ("welcome", ..) => Event::Welcome { epoch },
        ("ok", Some(n), ..) => Event::Ok { n, cmd: raw.cmd, cursor: raw.cursor, stream: raw.stream },
        ("cancel", ..) => Event::Asked { cmd: raw.cmd? },
        ("error", n, ..) => Event::Error { n, code: raw.code.unwrap_or_default() },
        ("resync", ..) => Event::Resync,
        ("synced", ..) => Event::Synced { to: raw.to?, cursor: raw.cursor },
        ("opened", _, Some(of), _) => Event::Opened { of, stream: raw.stream? },
        ("closed", ..) => Event::Shut { stream: raw.stream?, reason: raw.reason? },
        ("gap", ..) => Event::Gap { to: raw.to? },
        ("pong" | "goaway", ..) => return None,
        ("snapshot", _, Some(of), Some(rev)) => {
            let online = raw.online?;
            Event::Snapshot { of, online, epoch, rev, values: raw.state, stale: raw.stale }
        }
        ("state", _, Some(of), Some(rev)) => {
            Event::State { of, epoch, rev, set: raw.set?, stale: raw.stale, fresh: raw.fresh }
        }
        ("presence", _, Some(of), _) => Event::Presence { of, online: raw.online?, epoch, reason: raw.reason },
        ("devices", _, Some(of), _) => {
            let name = |device: &Value| device["name"].as_str().unwrap_or_default().to_owned();
            Event::Devices { of, names: raw.devices?.values().map(name).collect() }
        }
        _ => return broken(),
    };
    Some(event)
}

/// The kind of the streams that are spoken: anything.
const OTHER: u8 = 16;

/// A frame of a live stream, as protocol.md lays it out.
pub(crate) fn live(stream: u32, seq: u32, body: &Body) -> Vec<u8> {
    let mut bytes = vec![OTHER, 0, 0, 0];
    for word in [stream, seq, 0] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(serde_json::to_vec(body).unwrap_or_default());
    bytes
}

/// What a binary message tells.
pub(crate) fn read_live(bytes: &[u8]) -> Event {
    let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let read = || {
        let body = serde_json::from_slice(bytes.get(16..)?).ok()?;
        Some(Event::Hears { stream: word(4)?, seq: word(8)?, body })
    };
    let head = bytes.get(..4) == Some(&[OTHER, 0, 0, 0]);
    read().filter(|_| head).unwrap_or_else(|| Event::Broken { text: String::from_utf8_lossy(bytes).into_owned() })
}
