//! The checker: whether a history is one that a correct cluster may have.
//!
//! It is a pure function of what the witnesses wrote down. The rules are those of the promises: see [`Rule`]. A verdict is
//! `Unknown` when too little happened to say anything.

mod client;
mod commands;
mod events;
mod gateway;
mod live;
mod model;

use std::collections::BTreeMap;
use std::fmt;

use crate::history::{Became, Event, Fault, Happened, Line, Who};
use client::Connection;
use commands::Commands;
use events::Events;
use gateway::Gateway;
use live::Live;
use model::Key;

/// A promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Everything at a witness carries its own tenant's canary.
    Isolation,
    /// Everything seen was sent, with the same body, to the same path.
    Phantom,
    /// What was acknowledged is in the store until something newer replaces it; an accepted command has a record.
    Lost,
    /// A command is executed once, whoever repeats its key, and an event is stored once, whoever repeats its id.
    Twice,
    /// A gateway executes the commands of one sender in the order in which they were accepted; events come in the order in
    /// which they are stored.
    Order,
    /// The frames of a live stream come in their order, as they were said, to who was told that it is open; and who was
    /// told so is told when it is over.
    Live,
    /// A command has one final outcome, in time, told to everybody alike, and true to what its gateway did.
    Outcome,
    /// Nobody sees an older value after a newer one, and in the end everybody has the newest.
    State,
    /// In the end presence is the truth; an epoch comes and goes once, and a takeover is never shown as offline.
    Presence,
    /// Epochs grow, and two sessions of a gateway do not both act for long.
    Owner,
}

/// What contradicts a rule, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// Simulated milliseconds since the start.
    pub at: u64,
    /// What was seen.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {} ms: {}", self.rule, self.at, self.text)
    }
}

/// What a history shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing contradicts a rule, and enough happened to say so.
    Valid,
    /// These contradict one.
    Invalid(Vec<Violation>),
    /// Too little happened.
    Unknown(String),
}

/// Fewest acknowledged frames, and fewest values compared at the end, below which a history says nothing.
const ENOUGH: usize = 20;
/// Fewest commands accepted, and fewest executed, below which it says nothing either.
const ENOUGH_COMMANDS: usize = 3;
/// Fewest events stored, and fewest given to clients, below which it says nothing either.
const ENOUGH_EVENTS: usize = 2;
/// Fewest frames of live streams heard, below which it says nothing either.
const ENOUGH_FRAMES: usize = 5;
/// For how long after everything is healed an older session may still act, in milliseconds.
const SETTLED_MS: u64 = 5_000;

/// Judges a history.
pub fn check(lines: &[Line]) -> Verdict {
    let mut judge = Judge::default();
    for line in lines {
        judge.line(line);
    }
    judge.verdict()
}

#[derive(Default)]
struct Judge {
    gateways: BTreeMap<Key, Gateway>,
    clients: BTreeMap<(String, String), Connection>,
    commands: Commands,
    events: Events,
    live: Live,
    /// The canaries that each tenant's gateways sent.
    canaries: BTreeMap<String, String>,
    quiet_at: Option<u64>,
    over: bool,
    oks: usize,
    seen: usize,
    violations: Vec<Violation>,
}

impl Judge {
    fn line(&mut self, line: &Line) {
        let at = line.at;
        self.commands.next_line();
        match (&line.who, &line.event) {
            (_, Event::Broken { text }) => self.violate(Rule::State, at, format!("a frame that is none: {text}")),
            (Who::Gateway { tenant, of, session }, event) => {
                let key = (tenant.clone(), of.clone());
                if let Event::Send { set, .. } = event {
                    let canary = set.values().flatten().next().map(|body| body.c.clone());
                    self.canaries.extend(canary.map(|c| (tenant.clone(), c)));
                }
                self.oks += usize::from(matches!(event, Event::Ok { .. }));
                let settled = self.quiet_at.is_some_and(|quiet| at >= quiet + SETTLED_MS);
                let found = self.gateways.entry(key).or_default().event(*session, at, event, settled);
                let who = format!("{tenant} {of} session {session}");
                self.violate_all(at, &who, found);
                if let Event::Got { order, .. } = event {
                    self.marked(at, tenant, &order.body, &who);
                }
                let found = self.commands.gateway(tenant, of, event);
                self.violate_all(at, &who, found);
                let found = self.events.peer(at, tenant, of, event);
                self.violate_all(at, &who, found);
                if let Event::Hears { body, .. } = event {
                    self.marked(at, tenant, body, &who);
                }
                let found = self.live.event(at, tenant, of, *session, event);
                self.violate_all(at, &who, found);
            }
            (Who::Client { tenant, name, session }, event) => self.client(at, tenant, name, *session, event),
            (Who::Store, Event::Read { tenant, of, found }) => {
                let key = (tenant.clone(), of.clone());
                let found_values = found.iter().flat_map(|f| &f.values);
                let bodies: Vec<_> = found_values.map(|(p, b)| (p.clone(), b.clone())).collect();
                self.bodies(at, tenant, of, &bodies);
                let violations = self.gateways.entry(key).or_default().stored(found.as_ref());
                self.violate_all(at, &format!("store of {tenant} {of}"), violations);
            }
            (Who::Store, Event::Record { tenant, cmd, outcomes, .. }) => {
                for body in outcomes.iter().filter_map(|became| became.body.as_ref()) {
                    self.marked(at, tenant, body, "store");
                }
                self.commands.record(tenant, cmd, outcomes);
            }
            (Who::Store, Event::Logged { tenant, cursor, happened }) => {
                if let Some(body) = &happened.body {
                    self.marked(at, tenant, body, "store");
                }
                let found = self.events.logged(at, tenant, cursor, happened);
                self.violate_all(at, &format!("events of {tenant}"), found);
            }
            (Who::Faults, Event::Keeps { events }) => self.events.keeps(*events),
            (Who::Faults, Event::LogLost { tenant }) => self.events.lost(tenant),
            (Who::Faults, Event::Begin { fault: Fault::BusLossy, .. }) => self.live.copies(at, true),
            (Who::Faults, Event::End { fault: Fault::BusLossy }) => self.live.copies(at, false),
            (Who::Faults, Event::Begin { fault, .. }) if fault.is_of_registry() => self.commands.trouble(at, true),
            (Who::Faults, Event::End { fault }) if fault.is_of_registry() => self.commands.trouble(at, false),
            (Who::Faults, Event::Emptied) => {
                self.commands.emptied();
                self.gateways.values_mut().for_each(Gateway::emptied);
                self.clients.values_mut().for_each(Connection::emptied);
            }
            (Who::Faults, Event::Quiet) => self.quiet_at = Some(at),
            (Who::Faults, Event::Over { .. }) => {
                self.over = true;
                self.end(at);
            }
            _ => {}
        }
    }

    fn client(&mut self, at: u64, tenant: &str, name: &str, session: u32, event: &Event) {
        let bodies: Vec<_> = match event {
            Event::Snapshot { of, values: Some(values), .. } => {
                values.iter().map(|(p, b)| (of.clone(), p.clone(), b.clone())).collect()
            }
            Event::State { of, set, .. } => {
                set.iter().filter_map(|(p, b)| Some((of.clone(), p.clone(), b.clone()?))).collect()
            }
            _ => Vec::new(),
        };
        for (of, path, body) in bodies {
            self.bodies(at, tenant, &of, &[(path, body)]);
        }
        if let Event::Devices { of, names } = event {
            let own = self.canaries.get(tenant).cloned();
            for name in names.iter().filter(|name| own.as_ref().is_some_and(|own| own != *name)) {
                self.violate(Rule::Isolation, at, format!("a client of {tenant} saw devices of {of} called {name}"));
            }
        }
        let who = format!("client {tenant}/{name} {session}");
        match event {
            Event::Command { order, .. } => drop(self.canaries.insert(tenant.to_owned(), order.body.c.clone())),
            Event::Outcome { became: Became { body: Some(body), .. }, .. }
            | Event::Hears { body, .. }
            | Event::Heard { happened: Happened { body: Some(body), .. }, .. } => self.marked(at, tenant, body, &who),
            _ => {}
        }
        let connection = self.clients.entry((tenant.to_owned(), name.to_owned())).or_default();
        let found = connection.event(event);
        self.violate_all(at, &who, found);
        let found = self.commands.client(at, tenant, name, session, event);
        self.violate_all(at, &who, found);
        let found = self.events.peer(at, tenant, name, event);
        self.violate_all(at, &who, found);
        self.events.client(at, tenant, name, event);
        let found = self.live.event(at, tenant, name, session, event);
        self.violate_all(at, &who, found);
    }

    /// Something was seen that carries a body: it must be the own tenant's.
    fn marked(&mut self, at: u64, tenant: &str, body: &crate::history::Body, who: &str) {
        if self.canaries.get(tenant).is_some_and(|own| *own != body.c) {
            self.violate(Rule::Isolation, at, format!("{who}: a canary of somebody else"));
        }
    }

    /// What was seen of a gateway's values: its own tenant's, and sent by it.
    fn bodies(&mut self, at: u64, tenant: &str, of: &str, seen: &[(String, crate::history::Body)]) {
        for (path, body) in seen {
            self.seen += 1;
            if self.canaries.get(tenant) != Some(&body.c) {
                self.violate(Rule::Isolation, at, format!("{tenant} saw {of} {path} with a canary of somebody else"));
            } else if !self.gateways.get(&(tenant.into(), of.into())).is_some_and(|g| g.sent(path, body)) {
                self.violate(Rule::Phantom, at, format!("{tenant} saw {of} {path} = {} that was never sent", body.s));
            }
        }
    }

    fn end(&mut self, at: u64) {
        for (key, gateway) in &self.gateways {
            for (rule, text) in gateway.end() {
                self.violations.push(Violation { rule, at, text: format!("{} {}: {text}", key.0, key.1) });
            }
        }
        for (rule, text) in self.live.end() {
            self.violations.push(Violation { rule, at, text });
        }
        for (at, rule, text) in self.events.end(at) {
            self.violations.push(Violation { rule, at, text });
        }
        for (rule, text) in self.commands.end(at) {
            self.violations.push(Violation { rule, at, text });
        }
        for ((tenant, name), connection) in &self.clients {
            let mine = self.gateways.iter().filter(|(key, _)| key.0 == *tenant);
            for (key, gateway) in mine {
                for (rule, text) in connection.end(&key.1, gateway) {
                    let text = format!("client {tenant}/{name} of {}: {text}", key.1);
                    self.violations.push(Violation { rule, at, text });
                }
            }
        }
    }

    fn verdict(self) -> Verdict {
        if !self.violations.is_empty() {
            return Verdict::Invalid(self.violations);
        }
        if !self.over {
            return Verdict::Unknown("the history has no end".into());
        }
        if self.oks < ENOUGH || self.seen < ENOUGH {
            return Verdict::Unknown(format!("{} acknowledged frames, {} values seen", self.oks, self.seen));
        }
        let (accepted, executed) = self.commands.counts();
        let decided = self.commands.decided_by_gateways;
        if accepted < ENOUGH_COMMANDS || executed < ENOUGH_COMMANDS || decided == 0 {
            let text = format!("{accepted} accepted commands, {executed} executed, {decided} decided by gateways");
            return Verdict::Unknown(text);
        }
        let (stored, given) = self.events.counts();
        if stored < ENOUGH_EVENTS || given < ENOUGH_EVENTS {
            return Verdict::Unknown(format!("{stored} events stored, {given} given"));
        }
        let heard = self.live.heard();
        if heard < ENOUGH_FRAMES {
            return Verdict::Unknown(format!("{heard} live frames heard"));
        }
        Verdict::Valid
    }

    fn violate(&mut self, rule: Rule, at: u64, text: String) {
        self.violations.push(Violation { rule, at, text });
    }

    fn violate_all(&mut self, at: u64, who: &str, found: Vec<(Rule, String)>) {
        for (rule, text) in found {
            self.violate(rule, at, format!("{who}: {text}"));
        }
    }
}
