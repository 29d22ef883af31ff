//! What one gateway sent and was told, and what the store may hold because of it.

use std::collections::{BTreeMap, BTreeSet};

use super::model::Found;
use super::{Rule, SETTLED_MS};
use crate::history::{Body, Event, Set, Stored};

#[derive(Default)]
pub(super) struct Gateway {
    sessions: BTreeMap<u32, Session>,
    /// Every value that was sent, by its number.
    bodies: BTreeMap<u64, (String, Body)>,
    /// Every set in the order of sending.
    sends: Vec<Sent>,
    /// For each path the newest acknowledged set that says something about it.
    floor: BTreeMap<String, usize>,
    /// The first set that was sent after the registry was emptied: until a full one from there on is acknowledged
    /// nothing is promised.
    blind_from: Option<usize>,
    emptied: bool,
    epoch: u64,
    acted_late: BTreeSet<u32>,
    stored: Option<Stored>,
}

/// What is at a path after a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Gone,
    Value(u64),
}

#[derive(Default)]
struct Session {
    welcomed_at: Option<u64>,
    over: bool,
    sends: Vec<usize>,
}

struct Sent {
    n: u64,
    full: bool,
    set: Set,
    acked: bool,
    refused: bool,
}

impl Gateway {
    /// `settled` says whether all has been healed for so long that no two sessions may act.
    pub(super) fn event(&mut self, number: u32, at: u64, event: &Event, settled: bool) -> Found {
        let acts = matches!(event, Event::Ok { .. } | Event::Got { .. });
        if acts && settled && self.is_replaced(number, at) {
            return vec![(Rule::Owner, format!("session {number} acts long after a newer one began"))];
        }
        let session = self.sessions.entry(number).or_default();
        match event {
            Event::Welcome { epoch } => {
                session.welcomed_at = Some(at);
                let before = self.epoch;
                self.epoch = before.max(*epoch);
                if *epoch <= before {
                    return vec![(Rule::Owner, format!("epoch {epoch} after {before}"))];
                }
            }
            Event::Closed { .. } | Event::Left { .. } => session.over = true,
            Event::Send { n, full, set } => {
                session.sends.push(self.sends.len());
                for (path, body) in set {
                    self.bodies.extend(body.clone().map(|body| (body.s, (path.clone(), body))));
                }
                self.sends.push(Sent { n: *n, full: *full, set: set.clone(), acked: false, refused: false });
            }
            Event::Ok { n, .. } => {
                if settled {
                    // One after the other may act, as when a connection breaks; two that are both open may not.
                    self.acted_late.retain(|other| self.sessions.get(other).is_some_and(|session| !session.over));
                    self.acted_late.insert(number);
                }
                self.acked(*n);
                if self.acted_late.len() > 1 {
                    return vec![(Rule::Owner, format!("sessions {:?} both act", self.acted_late))];
                }
            }
            Event::Error { n: Some(n), .. } => {
                if let Some(sent) = self.sends.iter_mut().find(|sent| sent.n == *n) {
                    sent.refused = true;
                }
            }
            _ => {}
        }
        Vec::new()
    }

    /// Whether a newer session was welcomed so long ago that this one must have ended.
    fn is_replaced(&self, number: u32, at: u64) -> bool {
        let mut newer = self.sessions.range(number + 1..).filter_map(|(_, session)| session.welcomed_at);
        newer.any(|welcomed| at >= welcomed + SETTLED_MS)
    }

    fn acked(&mut self, n: u64) {
        let Some(k) = self.sends.iter().position(|sent| sent.n == n) else { return };
        self.sends[k].acked = true;
        let full = self.sends[k].full;
        if let Some(from) = self.blind_from {
            if !full || k < from {
                return;
            }
            self.blind_from = None;
            self.floor.clear();
        }
        let said: Vec<String> = if full {
            let all = self.bodies.values().map(|(path, _)| path.clone());
            all.chain(self.sends[k].set.keys().cloned()).collect()
        } else {
            self.sends[k].set.keys().cloned().collect()
        };
        for path in said {
            let at = self.floor.entry(path).or_insert(k);
            *at = (*at).max(k);
        }
    }

    pub(super) fn emptied(&mut self) {
        self.blind_from = Some(self.sends.len());
        self.emptied = true;
    }

    /// Whether this gateway sent this value to this path.
    pub(super) fn sent(&self, path: &str, body: &Body) -> bool {
        self.bodies.get(&body.s).is_some_and(|(at, sent)| at == path && sent == body)
    }

    /// What a set says about a path; none when it says nothing.
    fn says(&self, k: usize, path: &str) -> Option<Said> {
        let sent = &self.sends[k];
        match sent.set.get(path) {
            Some(Some(body)) => Some(Said::Value(body.s)),
            Some(None) => Some(Said::Gone),
            None => sent.full.then_some(Said::Gone),
        }
    }

    pub(super) fn stored(&mut self, found: Option<&Stored>) -> Found {
        self.stored = found.cloned();
        if self.blind_from.is_some() {
            return Vec::new();
        }
        let mut violations = Vec::new();
        for (path, &floor) in &self.floor {
            let there = found.and_then(|f| f.values.get(path)).map_or(Said::Gone, |body| Said::Value(body.s));
            // Any set from the acknowledged one on may have been the last that arrived.
            let possible = (floor..self.sends.len()).any(|k| self.says(k, path) == Some(there));
            if !possible {
                let expected = self.says(floor, path);
                violations.push((Rule::Lost, format!("{path} is {there:?}, acknowledged was {expected:?}")));
            }
        }
        violations
    }

    /// The newest session, when one ever began.
    fn last(&self) -> Option<&Session> {
        self.sessions.values().rev().find(|s| s.welcomed_at.is_some())
    }

    /// Whether the gateway is connected; none when it never was.
    pub(super) fn online(&self) -> Option<bool> {
        self.last().map(|session| !session.over)
    }

    /// What the store holds at the end, when it must be what everybody has.
    pub(super) fn values(&self) -> Option<BTreeMap<String, u64>> {
        if self.online() == Some(false) && self.emptied {
            // Nobody was there to say again what was lost; listeners may still have it.
            return None;
        }
        let values = self.stored.iter().flat_map(|stored| &stored.values);
        Some(values.map(|(path, body)| (path.clone(), body.s)).collect())
    }

    pub(super) fn end(&self) -> Found {
        let Some(session) = self.last() else { return Vec::new() };
        let mut found = Vec::new();
        let online = !session.over;
        let shown = self.stored.as_ref().is_some_and(|s| s.online);
        if shown != online {
            found.push((Rule::Presence, format!("the store says online: {shown}, it is {online}")));
        }
        if !online {
            return found;
        }
        if let Some(k) = session.sends.iter().find(|&&k| !self.sends[k].acked && !self.sends[k].refused) {
            found.push((Rule::Lost, format!("frame {} was never answered", self.sends[*k].n)));
        }
        let mut truth = BTreeMap::new();
        for &k in &session.sends {
            if self.sends[k].full {
                truth.clear();
            }
            for (path, body) in &self.sends[k].set {
                match body {
                    Some(body) => drop(truth.insert(path.clone(), body.s)),
                    None => drop(truth.remove(path)),
                }
            }
        }
        let stored = self.values().unwrap_or_default();
        if stored != truth {
            found.push((Rule::State, format!("the store has {stored:?}, the gateway {truth:?}")));
        }
        found
    }
}
