//! What all connections of a generator share: the job, the counters, and what is done with each frame. A generator has
//! one thread, so that none of it is locked.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use memchr::memmem;

use super::conn::Conn;
use super::order::{Dialect, Job, Report, Role};
use super::wire::{self, centrifugo, mqtt};
use crate::clock::now_us;

/// Longest time that is told apart, in microseconds: longer ones count as this.
const LONGEST_US: u64 = 600_000_000;
/// Numbers of one microsecond that are told apart: frames of one tick have numbers of their own.
pub(crate) const PER_US: u64 = 16;
/// What stands before a value in every frame that is sent.
const VALUE: &[u8] = b"/v\":";
/// Bytes before the moment in a live frame: its header.
const LIVE_HEADER: usize = 16;
/// Bytes of a live frame's payload, which make a message as long as a frame of state.
const LIVE_BYTES: usize = 128;

/// A histogram of microseconds with three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, 3).expect("bounds that are right for the crate")
}

/// Counts a time.
pub(crate) fn record(histogram: &mut Histogram<u64>, us: u64) {
    histogram.saturating_record(us.max(1));
}

/// A histogram as pairs.
pub(crate) fn pairs(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
}

/// What is counted.
pub(crate) struct Counts {
    pub(crate) report: Report,
    pub(crate) latency: Histogram<u64>,
    pub(crate) late: Histogram<u64>,
}

impl Counts {
    fn new() -> Self {
        Self { report: Report::default(), latency: histogram(), late: histogram() }
    }
}

/// The generator.
pub(crate) struct World {
    pub(crate) job: Job,
    pub(crate) counts: RefCell<Counts>,
    /// Open connections, by their place; those that ended are none.
    pub(crate) conns: RefCell<Vec<Option<Rc<Conn>>>>,
    /// Where all connections read into.
    pub(crate) scratch: RefCell<Box<[u8]>>,
    /// No connection reads before this moment.
    pub(crate) paused_until: Cell<u64>,
    /// Whether connections are meant to end.
    pub(crate) leaving: Cell<bool>,
    /// Whether a decided command is followed by the next one.
    pub(crate) closed_until: Cell<u64>,
    /// Frames sent in all, which deals out connections, devices and numbers.
    pub(crate) turn: Cell<u64>,
    /// What listeners have, by connection and path.
    held: RefCell<HashMap<(u32, String), u64>>,
    /// MQTT packets that wait for an acknowledgement.
    waiting: RefCell<HashMap<(u32, u16), u64>>,
}

impl World {
    pub(crate) fn new(job: Job) -> Rc<Self> {
        let conns = (0..job.count).map(|_| None).collect();
        Rc::new(Self {
            job,
            counts: RefCell::new(Counts::new()),
            conns: RefCell::new(conns),
            scratch: RefCell::new(vec![0; 256 * 1024].into()),
            paused_until: Cell::default(),
            leaving: Cell::default(),
            closed_until: Cell::default(),
            turn: Cell::default(),
            held: RefCell::default(),
            waiting: RefCell::default(),
        })
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.conns.borrow().iter().flatten().count()
    }

    pub(crate) fn error(&self, what: &str) {
        *self.counts.borrow_mut().report.errors.entry(what.to_owned()).or_default() += 1;
    }

    pub(crate) fn answered(&self, since_us: u64) {
        let mut counts = self.counts.borrow_mut();
        counts.report.answered += 1;
        record(&mut counts.latency, now_us().saturating_sub(since_us));
    }

    /// What was counted since the last time.
    pub(crate) fn report(&self) -> Report {
        let Counts { mut report, latency, late } = std::mem::replace(&mut *self.counts.borrow_mut(), Counts::new());
        report.latency = pairs(&latency);
        report.late = pairs(&late);
        for ((conn, path), value) in self.held.borrow().iter() {
            let last = report.last.entry(path.clone()).or_insert(*value);
            if *last != *value {
                *last = (*last).max(*value);
                *report.errors.entry(format!("listener {conn} differs")).or_default() += 1;
            }
        }
        report
    }

    /// Where a connection goes.
    pub(crate) fn at(&self, id: u32) -> anyhow::Result<SocketAddr> {
        let turn = (id as usize).checked_rem(self.job.at.len());
        turn.map(|turn| self.job.at[turn]).context("there is nowhere to connect to")
    }

    /// The building and the name of a gateway.
    pub(crate) fn address(&self, id: u32) -> String {
        let (per_building, building) = match &self.job.role {
            Role::Report(reporter) => (reporter.per_building.max(1), reporter.building),
            _ => (200, 0),
        };
        format!("b{}/g{id}", building + id / per_building)
    }

    /// The next frame of a connection, which was due at `due_us`.
    pub(crate) fn next_frame(&self, conn: &Conn, due_us: u64) -> Vec<u8> {
        let turn = self.turn.get();
        self.turn.set(turn + 1);
        let n = due_us * PER_US + turn % PER_US;
        self.counts.borrow_mut().report.sent += 1;
        match &self.job.role {
            Role::Command { gateways, hold, deadline_ms } => {
                let g = u32::try_from(turn % u64::from((*gateways).max(1))).unwrap_or(0);
                let (to, offline) = (self.address(g), if *hold { "hold" } else { "fail" });
                let text = format!(
                    r#"{{"t":"command","n":{n},"to":"{to}","path":"d0/v","action":"t{n}","args":{n},"if_offline":"{offline}","deadline_ms":{deadline_ms}}}"#
                );
                self.encode(conn, n, &text)
            }
            Role::Report(reporter) if reporter.live => live_frame(conn.stream_id.get(), turn, n),
            Role::Report(reporter) if reporter.events => {
                let text =
                    format!(r#"{{"t":"event","n":{n},"id":"{n}-{}","path":"d0","type":"load","data":{n}}}"#, conn.id);
                self.encode(conn, n, &text)
            }
            Role::Churn { building, patterns } => {
                // Each pattern is subscribed to in one turn of the connection and given up in its next.
                let step = turn / u64::from(self.job.count.max(1));
                let to = u64::from(*building) + step / 2 % u64::from((*patterns).max(1));
                let text = if step.is_multiple_of(2) {
                    format!(r#"{{"t":"subscribe","n":{n},"to":"b{to}/*","lanes":["state","event","presence"]}}"#)
                } else {
                    format!(r#"{{"t":"unsubscribe","n":{n},"to":"b{to}/*"}}"#)
                };
                self.encode(conn, n, &text)
            }
            Role::Report(reporter) => {
                let device = turn / u64::from(self.job.count.max(1)) % u64::from(reporter.devices.max(1));
                let text = match self.job.dialect {
                    Dialect::Riser { .. } => {
                        let path = format!("{} d{device}/v", self.address(conn.id));
                        self.counts.borrow_mut().report.last.insert(path, n);
                        format!(r#"{{"t":"state","n":{n},"set":{{"d{device}/v":{n}}}}}"#)
                    }
                    _ => as_delivered(n),
                };
                self.encode(conn, n, &text)
            }
            Role::Watch(_) | Role::Poll { .. } | Role::Answer | Role::Call(_) => Vec::new(),
        }
    }

    fn encode(&self, conn: &Conn, n: u64, text: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() + 32);
        match (&self.job.dialect, &self.job.role) {
            (Dialect::Tcp, _) => out.extend_from_slice(text.as_bytes()),
            (Dialect::Centrifugo, _) => {
                let command = centrifugo::publish(self.numbered(conn, n), text);
                wire::frame(wire::TEXT, command.as_bytes(), &mut out);
            }
            (Dialect::Mqtt, Role::Report(reporter)) => {
                let number = reporter.acknowledged.then(|| self.numbered(conn, n));
                wire::frame(wire::BINARY, &mqtt::publish(number, text.as_bytes()), &mut out);
            }
            _ => wire::frame(wire::TEXT, text.as_bytes(), &mut out),
        }
        out
    }

    /// A number for a frame whose answer will repeat it.
    fn numbered(&self, conn: &Conn, n: u64) -> u16 {
        let number = conn.packet.get().checked_add(1).unwrap_or(1);
        conn.packet.set(number);
        self.waiting.borrow_mut().insert((conn.id, number), n / PER_US);
        number
    }

    /// A frame with this number was answered.
    fn answered_number(&self, conn: &Conn, number: u16) {
        let since = self.waiting.borrow_mut().remove(&(conn.id, number));
        if let Some(since) = since {
            self.answered(since);
        }
    }

    fn of_centrifugo(&self, conn: &Conn, bytes: &[u8]) {
        for line in centrifugo::lines(bytes) {
            match centrifugo::answer(line) {
                Some(Ok(number)) => self.answered_number(conn, number),
                Some(Err(_)) => self.error("refused"),
                None if line == centrifugo::BEAT => {
                    let mut beat = Vec::new();
                    wire::frame(wire::TEXT, centrifugo::BEAT, &mut beat);
                    conn.send(self, &beat);
                }
                None => {}
            }
        }
        if matches!(self.job.role, Role::Watch(_)) {
            let values = memmem::find_iter(bytes, VALUE);
            self.delivered(values.filter_map(|at| wire::digits(&bytes[at + VALUE.len()..])));
        }
    }

    /// Takes a message that came.
    pub(crate) fn message(&self, conn: &Conn, op: u8, bytes: &[u8]) {
        match (&self.job.role, &self.job.dialect) {
            (Role::Report(_) | Role::Churn { .. }, Dialect::Riser { .. }) => self.to_gateway(conn, bytes),
            (Role::Report(_) | Role::Watch(_), Dialect::Centrifugo) => self.of_centrifugo(conn, bytes),
            (Role::Report(_), Dialect::Mqtt) => {
                for (first, body) in mqtt::packets(bytes) {
                    if let (0x40, &[a, b]) = (first, body) {
                        self.answered_number(conn, u16::from_be_bytes([a, b]));
                    }
                }
            }
            (Role::Report(_), _) => {
                for at in memmem::find_iter(bytes, VALUE) {
                    let n = wire::digits(&bytes[at + VALUE.len()..]);
                    if let Some(n) = n {
                        self.answered(n / PER_US);
                    }
                }
            }
            (Role::Watch(watcher), _) if watcher.track => self.tracked(conn, bytes),
            (Role::Watch(_), _) if op == wire::BINARY && matches!(self.job.dialect, Dialect::Riser { .. }) => {
                let n = bytes.get(LIVE_HEADER..LIVE_HEADER + 8).and_then(|n| n.try_into().ok()).map(u64::from_be_bytes);
                self.delivered(n.into_iter());
            }
            (Role::Watch(_), _) => {
                let values = memmem::find_iter(bytes, VALUE);
                self.delivered(values.filter_map(|at| wire::digits(&bytes[at + VALUE.len()..])));
            }
            (Role::Command { .. }, _) => self.to_commander(conn, bytes),
            (Role::Poll { .. } | Role::Churn { .. } | Role::Answer | Role::Call(_), _) => {}
        }
    }

    fn delivered(&self, values: impl Iterator<Item = u64>) {
        let now = now_us();
        let mut counts = self.counts.borrow_mut();
        let before = counts.report.values;
        for n in values {
            counts.report.values += 1;
            record(&mut counts.latency, now.saturating_sub(n / PER_US));
        }
        counts.report.frames += u64::from(counts.report.values > before);
    }

    fn tracked(&self, conn: &Conn, bytes: &[u8]) {
        let Ok(frame) = serde_json::from_slice::<serde_json::Value>(bytes) else { return self.error("not JSON") };
        let (set, counted) = match frame["t"].as_str() {
            Some("state") => (&frame["set"], true),
            Some("snapshot") => (&frame["state"], false),
            _ => return,
        };
        let of = frame["of"].as_str().unwrap_or_default();
        let values = set.as_object().into_iter().flatten();
        let values: Vec<_> = values.filter_map(|(path, value)| Some((path, value.as_u64()?))).collect();
        let mut held = self.held.borrow_mut();
        for (path, value) in &values {
            held.insert((conn.id, format!("{of} {path}")), *value);
        }
        if counted {
            self.delivered(values.into_iter().map(|(_, value)| value));
        }
    }

    fn to_gateway(&self, conn: &Conn, bytes: &[u8]) {
        if let Some(n) = wire::number_after(head(bytes), br#"{"t":"ok","n":"#) {
            // Answers to results have small numbers.
            if n > u64::from(u32::MAX) {
                self.answered(n / PER_US);
            }
        } else if bytes.starts_with(br#"{"t":"error""#) {
            self.error(wire::text_after(bytes, br#""code":""#).unwrap_or("error"));
        } else if bytes.starts_with(br#"{"t":"command""#) {
            let (cmd, args) = (wire::text_after(bytes, br#""cmd":""#), wire::number_after(bytes, br#""args":"#));
            if let (Some(cmd), Some(n)) = (cmd, args) {
                self.delivered(std::iter::once(n));
                let packet = conn.packet.get().checked_add(1).unwrap_or(1);
                conn.packet.set(packet);
                let text = format!(r#"{{"t":"result","n":{packet},"cmd":"{cmd}","status":"succeeded","data":{n}}}"#);
                let mut out = Vec::new();
                wire::frame(wire::TEXT, text.as_bytes(), &mut out);
                conn.send(self, &out);
            }
        }
    }

    fn to_commander(&self, conn: &Conn, bytes: &[u8]) {
        if bytes.starts_with(br#"{"t":"error""#) {
            self.error(wire::text_after(bytes, br#""code":""#).unwrap_or("error"));
        } else if memmem::find(bytes, br#""final":true"#).is_some() {
            match wire::number_after(bytes, br#""data":"#) {
                Some(n) => self.answered(n / PER_US),
                None => self.error(wire::text_after(bytes, br#""status":""#).unwrap_or("outcome")),
            }
        } else {
            return;
        }
        let now = now_us();
        if now < self.closed_until.get() {
            let next = self.next_frame(conn, now);
            conn.send(self, &next);
        }
    }

    /// Answers that are missing.
    pub(crate) fn unanswered(&self) -> u64 {
        let report = &self.counts.borrow().report;
        let errors: u64 = report.errors.values().sum();
        report.sent.saturating_sub(report.answered + errors)
    }

    /// Forgets what listeners had, when they begin anew.
    pub(crate) fn clear_held(&self, conn: u32) {
        self.held.borrow_mut().retain(|(id, _), _| *id != conn);
    }
}

fn head(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(48)]
}

/// A message as long as the frame that a Riser client is delivered.
pub(crate) fn as_delivered(n: u64) -> String {
    format!(
        r#"{{"t":"state","of":"b0/g0","epoch":1763812345678,"rev":1000,"set":{{"d0/v":{n}}},"at_ms":1763812345678,"ts_ms":1763812345}}"#
    )
}

fn live_frame(stream: u32, turn: u64, n: u64) -> Vec<u8> {
    let mut payload = vec![16, 0, 0, 0];
    payload.extend(stream.to_be_bytes());
    // Both wrap, as the protocol says.
    payload.extend(u32::try_from(turn & u64::from(u32::MAX)).unwrap_or(0).to_be_bytes());
    payload.extend([0; 4]);
    payload.extend(n.to_be_bytes());
    payload.resize(LIVE_BYTES, 0);
    let mut out = Vec::new();
    wire::frame(wire::BINARY, &payload, &mut out);
    out
}

/// Adds what two generators counted.
pub(crate) fn add(into: &mut Report, other: Report) {
    into.sent += other.sent;
    into.answered += other.answered;
    into.frames += other.frames;
    into.values += other.values;
    into.lost += other.lost;
    for i in 0..2 {
        into.refused[i] += other.refused[i];
        into.bytes[i] += other.bytes[i];
    }
    for (what, count) in other.errors {
        *into.errors.entry(what).or_default() += count;
    }
    let add = |into: &mut Vec<(u64, u64)>, other: Vec<(u64, u64)>| {
        let mut all: BTreeMap<u64, u64> = into.drain(..).collect();
        for (value, count) in other {
            *all.entry(value).or_default() += count;
        }
        into.extend(all);
    };
    add(&mut into.latency, other.latency);
    add(&mut into.late, other.late);
    into.last.extend(other.last);
}
