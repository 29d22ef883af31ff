//! A simulated gateway: it reports what it has, leaves in all the ways there are, and comes back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use riser_core::close::ComeBack;
use riser_core::{GatewayKey, Identity, Peer};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::duty::{Duty, Takes, Word};
use super::emits::Emits;
use super::talk::{Said, Talk};
use super::{Heard, Link, WELCOME_WAIT, frame, until};
use crate::history::{Body, Event, Leaving, Order, Recorder, Set, Who};
use crate::sim::{Moment, Stage};

/// Bytes between a gateway and its edge.
const BUFFER: usize = 16 * 1024;
/// A gateway's paths.
const PATHS: [&str; 5] = ["hall", "hall/lock", "kitchen/light", "kitchen/oven/on", "meter"];
/// What the protocol's waits are shortened to, so that a seed holds many sessions.
const SHORTER: u32 = 20;

/// What a gateway is.
#[derive(Clone)]
pub struct GatewayPlan {
    /// Whose, and where.
    pub key: GatewayKey,
    /// The tenant's secret, which marks every value.
    pub canary: String,
    /// Seeds what it does.
    pub seed: u64,
}

pub(crate) async fn run(stage: Arc<Stage>, plan: GatewayPlan) {
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let duty = Duty::new(&mut rng);
    let emits = Emits::new(format!("gateway:{}", plan.key.address), &plan.canary);
    let talk = Talk::new(&plan.canary);
    let values = BTreeMap::new();
    let mut gateway =
        Gateway { stage, plan, rng, values, duty, emits, talk, seq: 0, n: 0, sessions: 0, edge: 0, old: None };
    gateway.live().await;
}

struct Gateway {
    stage: Arc<Stage>,
    plan: GatewayPlan,
    rng: fastrand::Rng,
    values: BTreeMap<String, Body>,
    seq: u64,
    n: u64,
    sessions: u32,
    /// What it has to do.
    duty: Duty,
    /// What happens at it.
    emits: Emits,
    talk: Talk,
    /// The edge that it is connected to.
    edge: usize,
    /// A session that a newer one took over while it was still open.
    old: Option<(Link, Who)>,
}

/// Whether a connection goes on, or breaks.
#[derive(PartialEq, Eq)]
enum Goes {
    On,
    Breaks,
}

/// What a session's end means for the next one.
enum Next {
    After(Duration),
    Takeover,
    Never,
}

impl Gateway {
    fn record(&self) -> &Recorder {
        &self.stage.recorder
    }

    async fn live(&mut self) {
        loop {
            let next = self.session().await;
            match next {
                Next::Takeover => {}
                Next::Never => break,
                Next::After(wait) => {
                    if let Some((_, who)) = self.old.take() {
                        self.record().write(&who, Event::Left { how: Leaving::Lost });
                    }
                    sleep(wait).await;
                }
            }
        }
        if let Some((link, who)) = self.old.take() {
            self.drain(link, who).await;
        }
        // Stays where it is until the end, so that nothing of it is dropped at a moment that the seed does not name.
        std::future::pending::<()>().await;
    }

    async fn session(&mut self) -> Next {
        let soon = Next::After(Duration::from_millis(self.rng.u64(50..3_000)));
        let Some(edge) = self.stage.any_edge(&mut self.rng) else { return soon };
        self.sessions += 1;
        let who = Who::Gateway {
            tenant: self.plan.key.tenant.to_string(),
            of: self.plan.key.address.to_string(),
            session: self.sessions,
        };
        let Some(stream) = self.stage.cluster.attach(edge, self.identity(), BUFFER) else { return soon };
        let mut link = Link::new(stream);
        self.record().write(&who, Event::Hello { edge: self.stage.cluster.edge_id(edge).to_string() });
        let hello = json!({"t": "hello", "remembers_ms": self.duty.remembers_ms}).to_string();
        if !link.send(&hello).await {
            self.record().write(&who, Event::Closed { code: None });
            return soon;
        }
        match timeout(WELCOME_WAIT, welcome(&mut link)).await {
            Ok(Ok(epoch)) => self.record().write(&who, Event::Welcome { epoch }),
            Ok(Err(code)) => {
                self.record().write(&who, Event::Closed { code });
                return self.come_back(code);
            }
            Err(_) => {
                self.record().write(&who, Event::Left { how: Leaving::Lost });
                return soon;
            }
        }
        if let Some((link, who)) = self.old.take() {
            self.drain(link, who).await;
        }
        self.edge = edge;
        self.stage.holds(&self.plan.key, edge);
        self.duty.welcomed();
        self.report(&mut link, &who).await;
        self.talk.connected();
        for id in self.emits.connected() {
            self.emit(&mut link, &who, &id).await;
        }
        self.act(link, who).await
    }

    /// Reads what an older session is still told, until it ends.
    async fn drain(&mut self, mut link: Link, who: Who) {
        let until = Instant::now() + Duration::from_secs(8);
        while let Ok(heard) = tokio::time::timeout_at(until, link.next()).await {
            match heard {
                Heard::Text(text) => {
                    if let Some(event) = frame::read(&text) {
                        self.record().write(&who, event.clone());
                        // It is too late to answer here. What it has to say it says in the newer session.
                        if let Event::Got { cmd, order, deadline_at_ms, .. } = event {
                            let takes = self.take(&who, &cmd, &order, deadline_at_ms);
                            // Nothing that follows one that was lost may be done before it comes again.
                            if takes.breaks {
                                break;
                            }
                            self.duty.later(takes);
                        }
                    }
                }
                Heard::Closed(code) => {
                    self.record().write(&who, Event::Closed { code });
                    return;
                }
                Heard::Binary(bytes) => self.record().write(&who, frame::read_live(&bytes)),
                Heard::Ping(_) | Heard::Pong => {}
            }
        }
        self.record().write(&who, Event::Left { how: Leaving::Lost });
    }

    async fn act(&mut self, mut link: Link, who: Who) -> Next {
        let mut next_act = Instant::now() + Duration::from_millis(self.rng.u64(10..2_000));
        loop {
            tokio::select! {
                biased;
                heard = link.next() => match heard {
                    Heard::Text(text) => {
                        let Some(event) = frame::read(&text) else { continue };
                        self.record().write(&who, event.clone());
                        if self.heard(&mut link, &who, event).await == Goes::Breaks {
                            self.record().write(&who, Event::Left { how: Leaving::Lost });
                            drop(link);
                            return Next::After(Duration::from_millis(self.rng.u64(20..3_000)));
                        }
                    }
                    Heard::Binary(bytes) => self.record().write(&who, frame::read_live(&bytes)),
                    Heard::Ping(payload) => drop(link.pong(payload).await),
                    Heard::Pong => {}
                    Heard::Closed(code) => {
                        self.record().write(&who, Event::Closed { code });
                        return self.come_back(code);
                    }
                },
                () = until(self.talk.next()) => self.talk(&mut link, &who).await,
                () = until(self.duty.next()) => {
                    for word in self.duty.due() {
                        self.say(&mut link, &who, &word).await;
                    }
                    self.stage.reached(Moment::Said, self.edge);
                }
                () = sleep_until(next_act) => {
                    next_act = Instant::now() + Duration::from_millis(self.rng.u64(10..2_000));
                    if self.stage.is_quiet() {
                        if let Some(id) = self.emits.again() {
                            self.emit(&mut link, &who, &id).await;
                        }
                        continue;
                    }
                    if self.rng.u8(..100) < 6 {
                        return self.leave(link, who).await;
                    }
                    while let Some(id) = self.emits.again() {
                        self.emit(&mut link, &who, &id).await;
                    }
                    self.change(&mut link, &who).await;
                }
            }
        }
    }

    async fn heard(&mut self, link: &mut Link, who: &Who, event: Event) -> Goes {
        if let Event::Ok { cursor: Some(_), .. } = &event {
            self.stage.reached(Moment::Stored, self.edge);
        }
        if self.emits.heard(&event) || self.talk.heard(&event, &mut self.rng) {
            return Goes::On;
        }
        match event {
            Event::Ok { n, .. } => drop(self.duty.answered(n, None)),
            Event::Error { n: Some(n), code } if self.duty.answered(n, Some(&code)) => {}
            // What may not have been stored is said again, all of it.
            Event::Resync | Event::Error { .. } => self.report(link, who).await,
            Event::Asked { cmd } => self.duty.cancel(&cmd, &mut self.rng),
            Event::Got { cmd, order, deadline_at_ms, .. } => {
                let takes = self.take(who, &cmd, &order, deadline_at_ms);
                self.stage.reached(Moment::Got, self.edge);
                if takes.breaks {
                    return Goes::Breaks;
                }
                for word in takes.says {
                    self.say(link, who, &word).await;
                }
            }
            _ => {}
        }
        Goes::On
    }

    /// Takes a command and executes it, when it does.
    fn take(&mut self, who: &Who, cmd: &str, order: &Order, deadline_at_ms: u64) -> Takes {
        // The cluster's clock, as `welcome` gives it. In a simulation all clocks are one.
        let overdue = self.stage.cluster.registry.now_ms() >= deadline_at_ms;
        let takes = self.duty.command(cmd, order, overdue, &mut self.rng);
        if takes.does {
            self.record().write(who, Event::Does { cmd: cmd.to_owned() });
        }
        takes
    }

    async fn say(&mut self, link: &mut Link, who: &Who, word: &Word) {
        self.n += 1;
        self.duty.said(self.n, word);
        let (cmd, status, code) = (word.cmd.clone(), word.status.to_owned(), word.code.clone());
        self.record().write(who, Event::Says { n: self.n, cmd, status, code });
        link.send(&word.frame(self.n)).await;
    }

    fn come_back(&mut self, code: Option<u16>) -> Next {
        let most = match ComeBack::after(code) {
            ComeBack::After(ms) => Duration::from_millis(ms) / SHORTER,
            _ => Duration::from_secs(3),
        };
        // Some stay away for long, and some for ever.
        if !self.stage.is_quiet() && self.rng.u8(..100) < 8 {
            return Next::Never;
        }
        Next::After(most.mul_f64(self.rng.f64()) + Duration::from_millis(20))
    }

    async fn leave(&mut self, link: Link, who: Who) -> Next {
        let away = Duration::from_millis(self.rng.u64(20..8_000));
        let how = match self.rng.u8(..10) {
            0..3 => Leaving::Closed,
            3..6 => Leaving::Lost,
            6 => Leaving::Silent,
            _ => {
                self.old = Some((link, who));
                return Next::Takeover;
            }
        };
        self.record().write(&who, Event::Left { how });
        match how {
            Leaving::Closed => link.close().await,
            Leaving::Lost => drop(link),
            Leaving::Silent => self.stage.keep_silent(link),
        }
        if self.rng.u8(..100) < 12 { Next::Never } else { Next::After(away) }
    }

    fn body(&mut self) -> Body {
        self.seq += 1;
        Body { s: self.seq, c: self.plan.canary.clone(), r: self.rng.u64(..1 << 40) }
    }

    /// What a gateway sends first, and when it is asked for everything.
    async fn report(&mut self, link: &mut Link, who: &Who) {
        self.n += 1;
        self.record().write(who, Event::Mention { n: self.n });
        let devices = json!({"hall/lock": {"kind": "lock", "name": self.plan.canary}});
        link.send(&json!({"t": "describe", "n": self.n, "devices": devices}).to_string()).await;
        let set = self.values.iter().map(|(p, b)| (p.clone(), Some(b.clone()))).collect();
        self.send(link, who, true, set).await;
    }

    async fn send(&mut self, link: &mut Link, who: &Who, full: bool, set: Set) {
        self.n += 1;
        let text = json!({"t": "state", "n": self.n, "full": full, "set": set}).to_string();
        self.record().write(who, Event::Send { n: self.n, full, set });
        link.send(&text).await;
    }

    async fn talk(&mut self, link: &mut Link, who: &Who) {
        match self.talk.say(&mut self.rng) {
            Some(Said::Frame(event, bytes)) => {
                self.record().write(who, *event);
                link.send_binary(bytes).await;
            }
            Some(Said::Close(stream)) => {
                self.n += 1;
                self.record().write(who, Event::Closes { n: self.n, stream });
                link.send(&json!({"t": "close", "n": self.n, "stream": stream}).to_string()).await;
            }
            None => {}
        }
    }

    async fn emit(&mut self, link: &mut Link, who: &Who, id: &str) {
        self.n += 1;
        if let Some(sending) = self.emits.send(id, self.n, false) {
            self.record().write(who, sending.event);
            link.send(&sending.frame).await;
        }
    }

    async fn change(&mut self, link: &mut Link, who: &Who) {
        match self.rng.u8(..13) {
            12 => {
                let of = self.plan.key.address.to_string();
                if let Some(sending) = self.talk.open(&of, self.n + 1, false) {
                    self.n += 1;
                    self.record().write(who, sending.event);
                    link.send(&sending.frame).await;
                }
            }
            10 | 11 => {
                let of = self.plan.key.address.to_string();
                for _ in 0..if self.rng.u8(..5) == 0 { 4 } else { 1 } {
                    let id = self.emits.invent(&of, &mut self.rng);
                    self.emit(link, who, &id).await;
                }
                self.stage.reached(Moment::Emitted, self.edge);
            }
            0 => {
                self.n += 1;
                self.record().write(who, Event::Mention { n: self.n });
                let path = ["hall", "kitchen", "meter"][self.rng.usize(..3)];
                link.send(&json!({"t": "device", "n": self.n, "path": path, "up": self.rng.bool()}).to_string()).await;
            }
            1 => {
                self.values.clear();
                for path in PATHS {
                    if self.rng.bool() {
                        let body = self.body();
                        self.values.insert(path.into(), body);
                    }
                }
                let set = self.values.iter().map(|(p, b)| (p.clone(), Some(b.clone()))).collect();
                self.send(link, who, true, set).await;
            }
            _ => {
                // A burst now and then, so that changes wait for each other and merge.
                for _ in 0..if self.rng.u8(..5) == 0 { 5 } else { 1 } {
                    let mut set = Set::new();
                    for _ in 0..self.rng.usize(1..4) {
                        let path = PATHS[self.rng.usize(..PATHS.len())].to_owned();
                        let body = (self.rng.u8(..10) > 0).then(|| self.body());
                        match &body {
                            Some(body) => drop(self.values.insert(path.clone(), body.clone())),
                            None => drop(self.values.remove(&path)),
                        }
                        set.insert(path, body);
                    }
                    self.send(link, who, false, set).await;
                }
            }
        }
    }

    fn identity(&self) -> Identity {
        Identity {
            tenant: self.plan.key.tenant.clone(),
            peer: Peer::Gateway { address: self.plan.key.address.clone() },
            grants: Vec::new(),
            expires_at_ms: None,
            lifetime_ms: None,
        }
    }
}

/// The epoch of the welcome, or the code of the end that came instead.
async fn welcome(link: &mut Link) -> Result<u64, Option<u16>> {
    loop {
        match link.next().await {
            Heard::Text(text) => {
                if let Some(Event::Welcome { epoch }) = frame::read(&text) {
                    return Ok(epoch);
                }
            }
            Heard::Ping(payload) => drop(link.pong(payload).await),
            // Nothing live comes before it is told that a stream is open, and that not before `welcome`.
            Heard::Pong | Heard::Binary(_) => {}
            Heard::Closed(code) => return Err(code),
        }
    }
}
