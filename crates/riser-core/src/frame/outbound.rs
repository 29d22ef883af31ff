//! What peers are sent. Each function writes one frame, or the parts of a large one, as text.

use std::fmt::Write as _;

use serde::Serialize;

use super::N;
use crate::close::ErrorCode;
use crate::command::{CommandId, Outcome, Record};
use crate::devices::Devices;
use crate::event::{Cursor, Event};
use crate::filter::PathFilter;
use crate::grant::{Identity, Peer};
use crate::id::{Address, EdgeId, Pattern};
use crate::json::Json;
use crate::label::Label;
use crate::limits::Limits;
use crate::live::{Stream, StreamEnd, StreamId};
use crate::path::Path;
use crate::presence::Reason;
use crate::state::Snapshot;
use crate::version::{Epoch, Version};

/// Bytes of values in one part of a large frame; what stands around them comes on top.
pub const PART_BYTES: usize = 48 * 1024;

/// Writes one JSON object field by field.
struct Frame(String);

impl Frame {
    fn new(t: &str) -> Self {
        let mut text = String::with_capacity(160);
        text.push_str("{\"t\":\"");
        text.push_str(t);
        text.push('"');
        Self(text)
    }

    fn key(mut self, name: &str) -> Self {
        self.0.push_str(",\"");
        self.0.push_str(name);
        self.0.push_str("\":");
        self
    }

    fn num(self, name: &str, value: u64) -> Self {
        let mut frame = self.key(name);
        // Writing to a string cannot fail.
        let _ = write!(frame.0, "{value}");
        frame
    }

    fn raw(self, name: &str, json: &str) -> Self {
        let mut frame = self.key(name);
        frame.0.push_str(json);
        frame
    }

    fn text(self, name: &str, value: &str) -> Self {
        let mut frame = self.key(name);
        quote(&mut frame.0, value);
        frame
    }

    fn shown<T: Serialize + ?Sized>(self, name: &str, value: &T) -> Self {
        self.raw(name, Json::of(value).as_str())
    }

    fn when(self, condition: bool, then: impl FnOnce(Self) -> Self) -> Self {
        if condition { then(self) } else { self }
    }

    fn maybe<T>(self, value: Option<T>, then: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            Some(value) => then(self, value),
            None => self,
        }
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

fn quote(out: &mut String, text: &str) {
    if text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(Json::of(text).as_str());
    }
}

/// The session began.
#[derive(Debug)]
pub struct Welcome<'a> {
    /// The session's name in logs.
    pub session: &'a str,
    /// Who the peer is.
    pub identity: &'a Identity,
    /// A gateway's epoch.
    pub epoch: Option<Epoch>,
    /// The version of what is kept of a gateway's state.
    pub have: Option<Version>,
    /// Between two pings, in milliseconds.
    pub heartbeat_ms: u64,
    /// What the session may use.
    pub limits: &'a Limits,
    /// Who serves it.
    pub edge: &'a EdgeId,
    /// The server's release.
    pub version: &'a str,
    /// The cluster's clock.
    pub now_ms: u64,
}

/// `welcome`.
pub fn welcome(w: &Welcome<'_>) -> String {
    let peer = match &w.identity.peer {
        Peer::Gateway { .. } => "gateway",
        Peer::Client { .. } => "client",
    };
    Frame::new("welcome")
        .text("session", w.session)
        .text("tenant", w.identity.tenant.as_str())
        .text("peer", peer)
        .maybe(w.identity.address(), |f, a| f.shown("address", a))
        .maybe(w.epoch, |f, e| f.num("epoch", e.0))
        .maybe(w.have, |f, v| f.shown("have", &v))
        .maybe(w.identity.expires_at_ms, |f, at| f.num("token_expires_at_ms", at))
        .num("heartbeat_ms", w.heartbeat_ms)
        .shown("limits", w.limits)
        .raw("features", "[]")
        .text("edge", w.edge.as_str())
        .text("version", w.version)
        .num("now_ms", w.now_ms)
        .end()
}

/// `ok`, without more.
pub fn ok(n: N) -> String {
    Frame::new("ok").num("n", n.get()).end()
}

/// `ok` to `renew`: the fresh token and when it runs out.
pub fn ok_token(n: N, token: &str, expires_at_ms: u64) -> String {
    Frame::new("ok").num("n", n.get()).text("token", token).num("expires_at_ms", expires_at_ms).end()
}

/// `ok` to an event: where it is stored.
pub fn ok_cursor(n: N, cursor: Cursor) -> String {
    Frame::new("ok").num("n", n.get()).shown("cursor", &cursor).end()
}

/// `ok` to a command: it is recorded under this name.
pub fn ok_cmd(n: N, cmd: &CommandId) -> String {
    Frame::new("ok").num("n", n.get()).shown("cmd", cmd).end()
}

/// `ok` to `open`: the stream's number.
pub fn ok_stream(n: N, stream: StreamId) -> String {
    Frame::new("ok").num("n", n.get()).num("stream", u64::from(stream.0)).end()
}

/// `error`.
pub fn error(n: Option<N>, code: ErrorCode, message: &str, retry_after_ms: Option<u64>) -> String {
    Frame::new("error")
        .maybe(n, |f, n| f.num("n", n.get()))
        .text("code", code.as_str())
        .text("message", message)
        .maybe(retry_after_ms, |f, ms| f.num("retry_after_ms", ms))
        .end()
}

/// `pong` to a gateway: what the cloud believes of it, and how many commands wait for it.
pub fn pong_gateway(now_ms: u64, epoch: Epoch, held: usize) -> String {
    Frame::new("pong").num("now_ms", now_ms).num("epoch", epoch.0).num("held", held as u64).end()
}

/// `pong` to a client: its position in the tenant's events, when it is known.
pub fn pong(now_ms: u64, cursor: Option<Cursor>) -> String {
    Frame::new("pong").num("now_ms", now_ms).maybe(cursor, |f, c| f.shown("cursor", &c)).end()
}

/// `goaway`: the session will be closed.
pub fn goaway(after_ms: u64, reason: &str) -> String {
    Frame::new("goaway").num("after_ms", after_ms).text("reason", reason).end()
}

/// `resync`: the gateway is asked for its full state.
pub fn resync() -> String {
    Frame::new("resync").end()
}

/// `synced`: everything that a subscription asked for was sent; and the position in the tenant's events from which on
/// more will come, when it is known.
pub fn synced(to: &Pattern, cursor: Option<Cursor>) -> String {
    Frame::new("synced").shown("to", to).maybe(cursor, |f, c| f.shown("cursor", &c)).end()
}

/// `event`.
pub fn event(cursor: Cursor, event: &Event) -> String {
    rest_of_event(Frame::new("event").shown("of", &event.of), cursor, event)
}

/// An event as the HTTP API answers it: the frame's fields without `t`.
pub fn whole_event(cursor: Cursor, event: &Event) -> String {
    rest_of_event(Frame(format!("{{\"of\":{}", Json::of(&event.of).as_str())), cursor, event)
}

fn rest_of_event(frame: Frame, cursor: Cursor, event: &Event) -> String {
    frame
        .shown("cursor", &cursor)
        .text("id", event.id.as_str())
        .maybe(event.path.as_ref(), |f, path| f.text("path", path.as_str()))
        .text("type", event.kind.as_str())
        .maybe(event.data.as_ref(), |f, data| f.raw("data", data.as_str()))
        .text("from", &event.from)
        .num("at_ms", event.at_ms)
        .maybe(event.ts_ms, |f, ts| f.raw("ts_ms", &ts.to_string()))
        .end()
}

/// `command`, to the gateway: what is to be done, and by when.
pub fn command(record: &Record, now_ms: u64) -> String {
    Frame::new("command")
        .shown("cmd", &record.cmd)
        .text("path", record.body.path.as_str())
        .text("action", record.body.action.as_str())
        .maybe(record.body.args.as_ref(), |f, args| f.raw("args", args.as_str()))
        .num("ttl_ms", record.deadline_at_ms.saturating_sub(now_ms))
        .num("deadline_at_ms", record.deadline_at_ms)
        .text("by", &record.by)
        .end()
}

/// `cancel`, to the gateway.
pub fn cancel(cmd: &CommandId) -> String {
    Frame::new("cancel").shown("cmd", cmd).end()
}

/// `outcome`.
pub fn outcome(cmd: &CommandId, outcome: &Outcome) -> String {
    let frame = Frame::new("outcome").shown("cmd", cmd).shown("of", &cmd.of).text("status", outcome.status.as_str());
    rest_of_outcome(frame, outcome).end()
}

/// An outcome as the HTTP API answers it, among others of the same command.
pub fn whole_outcome(outcome: &Outcome) -> String {
    let status = Frame(format!("{{\"status\":\"{}\"", outcome.status.as_str()));
    rest_of_outcome(status, outcome).end()
}

fn rest_of_outcome(frame: Frame, outcome: &Outcome) -> Frame {
    frame
        .raw("final", if outcome.is_final() { "true" } else { "false" })
        .when(outcome.late, |f| f.raw("late", "true"))
        .raw("code", Json::of(&outcome.code).as_str())
        .raw("data", outcome.data.as_ref().map_or("null", Json::as_str))
        .num("at_ms", outcome.at_ms)
}

/// `opened`.
pub fn opened(stream: &Stream) -> String {
    Frame::new("opened")
        .shown("of", &stream.of)
        .text("path", stream.path.as_str())
        .num("stream", u64::from(stream.id.0))
        .shown("kind", &stream.kind)
        .maybe(stream.params.as_ref(), |f, params| f.raw("params", params.as_str()))
        .text("from", &stream.from)
        .end()
}

/// `closed`.
pub fn closed(of: &Address, stream: StreamId, reason: StreamEnd) -> String {
    Frame::new("closed").shown("of", of).num("stream", u64::from(stream.0)).text("reason", reason.as_str()).end()
}

/// `gap`: the cursor of a subscription is not one that is known here.
pub fn gap(to: &Pattern) -> String {
    Frame::new("gap").shown("to", to).text("lane", "event").end()
}

/// `unsubscribed`: a right was withdrawn.
pub fn unsubscribed(to: &Pattern, code: ErrorCode) -> String {
    Frame::new("unsubscribed").shown("to", to).text("code", code.as_str()).end()
}

/// `presence`.
pub fn presence(of: &Address, online: bool, epoch: Epoch, reason: Option<Reason>, at_ms: u64) -> String {
    Frame::new("presence")
        .shown("of", of)
        .raw("online", if online { "true" } else { "false" })
        .num("epoch", epoch.0)
        .maybe(reason, |f, r| f.text("reason", r.as_str()))
        .num("at_ms", at_ms)
        .end()
}

/// `devices`: described anew.
pub fn devices(of: &Address, devices: &Devices, filter: &PathFilter) -> Vec<String> {
    let list = described(devices, filter);
    parts(&list, &[], |part, _, more| {
        Frame::new("devices").shown("of", of).raw("devices", part).when(more, |f| f.raw("more", "true")).end()
    })
}

/// `snapshot` with what passes the filter. `label` is what the flat is called, when that is known. `state` says whether the
/// subscription is about state at all; without it only presence is told.
pub fn snapshot(of: &Address, label: Option<&Label>, snap: &Snapshot, filter: &PathFilter, state: bool) -> Vec<String> {
    let head = || position(labelled(Frame::new("snapshot").shown("of", of), label), snap);
    if !state {
        return vec![head().end()];
    }
    let (values, stale, devices) = contents(snap, filter);
    let extra: Vec<Extra> = stale.into_iter().map(Extra::Stale).chain(devices.into_iter().map(Extra::Device)).collect();
    parts(&values, &extra, |part, extra, more| {
        let (stale, devices) = (Extra::stale(extra), Extra::devices(extra));
        head()
            .raw("state", part)
            .raw("stale", &stale)
            .when(!devices.is_empty(), |f| f.raw("devices", &format!("{{{devices}}}")))
            .when(more, |f| f.raw("more", "true"))
            .end()
    })
}

/// A snapshot as the HTTP API answers it: the frame's fields without `t`, in one piece however large.
pub fn whole_snapshot(of: &Address, label: Option<&Label>, snap: &Snapshot, filter: &PathFilter) -> String {
    let (values, stale, devices) = contents(snap, filter);
    let head = Frame(format!("{{\"of\":{}", Json::of(of).as_str()));
    position(labelled(head, label), snap)
        .raw("state", &format!("{{{}}}", values.join(",")))
        .raw("stale", &format!("[{}]", stale.join(",")))
        .when(!devices.is_empty(), |f| f.raw("devices", &format!("{{{}}}", devices.join(","))))
        .end()
}

/// What a flat is called, as far as it is.
fn labelled(frame: Frame, label: Option<&Label>) -> Frame {
    frame
        .maybe(label.and_then(|l| l.name.as_deref()), |f, name| f.text("name", name))
        .maybe(label.and_then(|l| l.floor.as_deref()), |f, floor| f.text("floor", floor))
}

/// Where a snapshot stands.
fn position(frame: Frame, snap: &Snapshot) -> Frame {
    frame
        .raw("online", if snap.presence.online { "true" } else { "false" })
        .num("since_ms", snap.presence.since_ms)
        .num("epoch", snap.version.epoch.0)
        .num("rev", snap.version.rev.0)
        .num("at_ms", snap.at_ms)
}

/// The values, the stale paths and the devices of a snapshot that pass the filter.
fn contents(snap: &Snapshot, filter: &PathFilter) -> (Vec<String>, Vec<String>, Vec<String>) {
    let passing = || snap.state.values.iter().filter(|(path, _)| filter.matches(path));
    let values = passing().map(|(path, value)| entry(path, value.value.as_str())).collect();
    let stale = if snap.presence.online {
        passing().filter(|(_, v)| v.stale).map(|(path, _)| quoted(path)).collect()
    } else {
        tops(passing().map(|(path, _)| path), filter)
    };
    let devices = snap.state.devices.as_ref().map(|devices| described(devices, filter)).unwrap_or_default();
    (values, stale, devices)
}

/// What a `state` frame tells of a gateway's paths.
#[derive(Debug, Default)]
pub struct Delta<'a> {
    /// The position after it.
    pub version: Version,
    /// Values that were set; none deletes.
    pub set: Vec<(&'a Path, Option<&'a Json>)>,
    /// Paths that became fresh, each with all below it.
    pub fresh: Vec<&'a Path>,
    /// Paths that became stale, each with all below it. To be applied after `fresh`.
    pub stale: Vec<&'a Path>,
    /// When, on the cluster's clock.
    pub at_ms: u64,
    /// The gateway's own clock.
    pub ts_ms: Option<i64>,
}

/// `state`.
pub fn state(of: &Address, delta: &Delta<'_>) -> Vec<String> {
    let null = "null";
    let set: Vec<String> =
        delta.set.iter().map(|(path, value)| entry(path, value.map_or(null, |v| v.as_str()))).collect();
    let stale = delta.stale.iter().map(|path| Extra::Stale(quoted(path)));
    let fresh = delta.fresh.iter().map(|path| Extra::Fresh(quoted(path)));
    let extra: Vec<Extra> = stale.chain(fresh).collect();
    parts(&set, &extra, |part, extra, more| {
        Frame::new("state")
            .shown("of", of)
            .num("epoch", delta.version.epoch.0)
            .num("rev", delta.version.rev.0)
            .raw("set", part)
            .raw("stale", &Extra::stale(extra))
            .raw("fresh", &Extra::fresh(extra))
            .num("at_ms", delta.at_ms)
            .maybe(delta.ts_ms, |f, ts| f.raw("ts_ms", &ts.to_string()))
            .when(more, |f| f.raw("more", "true"))
            .end()
    })
}

/// The fewest paths that stand, each with all below it, for all of these.
fn tops<'a>(paths: impl Iterator<Item = &'a Path>, filter: &PathFilter) -> Vec<String> {
    let mut list: Vec<Path> = paths.map(|p| if filter.is_all() { p.top() } else { p.clone() }).collect();
    list.dedup();
    list.iter().map(quoted).collect()
}

fn quoted(path: &Path) -> String {
    let mut text = String::new();
    quote(&mut text, path.as_str());
    text
}

fn entry(path: &Path, json: &str) -> String {
    let mut text = quoted(path);
    text.push(':');
    text.push_str(json);
    text
}

fn described(devices: &Devices, filter: &PathFilter) -> Vec<String> {
    let passing = devices.0.iter().filter(|(path, _)| filter.matches(path));
    passing.map(|(path, device)| entry(path, Json::of(device).as_str())).collect()
}

/// What stands beside the values and may be long too.
enum Extra {
    Stale(String),
    Fresh(String),
    Device(String),
}

impl Extra {
    fn len(&self) -> usize {
        match self {
            Self::Stale(s) | Self::Fresh(s) | Self::Device(s) => s.len() + 1,
        }
    }

    fn pick<'a>(list: &'a [Extra], pick: impl Fn(&'a Extra) -> Option<&'a str>) -> String {
        list.iter().filter_map(pick).collect::<Vec<_>>().join(",")
    }

    fn stale(list: &[Extra]) -> String {
        format!("[{}]", Self::pick(list, |e| if let Self::Stale(s) = e { Some(s) } else { None }))
    }

    fn fresh(list: &[Extra]) -> String {
        format!("[{}]", Self::pick(list, |e| if let Self::Fresh(s) = e { Some(s) } else { None }))
    }

    fn devices(list: &[Extra]) -> String {
        Self::pick(list, |e| if let Self::Device(s) = e { Some(s) } else { None })
    }
}

/// Cuts entries into frames of about [`PART_BYTES`]; every frame but the last says that more follows.
fn parts(entries: &[String], extra: &[Extra], frame: impl Fn(&str, &[Extra], bool) -> String) -> Vec<String> {
    let mut frames = Vec::new();
    let (mut e, mut x) = (0, 0);
    loop {
        let mut size = 0;
        let (from, beside) = (e, x);
        while e < entries.len() && (size == 0 || size + entries[e].len() < PART_BYTES) {
            size += entries[e].len() + 1;
            e += 1;
        }
        while e == entries.len() && x < extra.len() && (size == 0 || size + extra[x].len() < PART_BYTES) {
            size += extra[x].len();
            x += 1;
        }
        let more = e < entries.len() || x < extra.len();
        frames.push(frame(&format!("{{{}}}", entries[from..e].join(",")), &extra[beside..x], more));
        if !more {
            return frames;
        }
    }
}

#[cfg(test)]
mod tests;
