//! Events: what was sent, what is stored and in which order, and what each client was given of it.
//!
//! The order is the store's, as its reader saw it. What a client was given is judged at the end, when all of the order is
//! known: from where its subscription began it must be all that the subscription names, in that order, but after a `gap`.

use std::collections::BTreeMap;

use super::Rule;
use super::model::{Found, names, passes};
use crate::history::{Event, Happened};

/// For how long a repeated id is the same event, in milliseconds.
const SAME_MS: u64 = 120_000;
/// How long a connection may take until its subscription is served, in milliseconds, when nothing is wrong.
const SERVED_MS: u64 = 20_000;

/// What makes events the same: tenant, sender, address, id.
type Name = (String, String, String, String);

#[derive(Default)]
pub(super) struct Events {
    emitted: BTreeMap<Name, Happened>,
    /// What was sent under which number, by tenant and peer.
    asked: BTreeMap<(String, String, u64), Name>,
    /// Answered `ok`: the tenant, the event and its cursor.
    taken: Vec<(u64, Name, String)>,
    tenants: BTreeMap<String, Stored>,
    followers: BTreeMap<(String, String), Follower>,
    keeps: Option<usize>,
    given: usize,
}

/// A tenant's events in the order of the store.
#[derive(Default)]
struct Stored {
    events: Vec<Happened>,
    places: BTreeMap<String, usize>,
    last: BTreeMap<Name, u64>,
    /// How many there were when the store lost them.
    losses: Vec<usize>,
}

/// What one client did and was given.
#[derive(Default)]
struct Follower {
    asked: BTreeMap<u64, Sub>,
    steps: Vec<(u64, Step)>,
}

#[derive(Clone)]
struct Sub {
    to: String,
    path: Vec<String>,
    cursor: Option<String>,
}

enum Step {
    Connected,
    Over,
    Subscribed(Sub),
    Synced(String),
    Gap(bool),
    Given(String, Happened),
}

/// Where a client stands while its steps are gone through.
#[derive(Default)]
struct Walk {
    connected: Option<u64>,
    sub: Option<Sub>,
    synced: bool,
    at: At,
}

/// Up to where a client has all events of its own.
#[derive(Clone, Copy, Default)]
enum At {
    #[default]
    Unknown,
    /// At the beginning of the stream that there was then. A position before the first event names no stream.
    Beginning,
    /// So many have passed.
    After(usize),
}

impl Events {
    pub(super) fn keeps(&mut self, events: usize) {
        self.keeps = Some(events);
    }

    pub(super) fn lost(&mut self, tenant: &str) {
        let stored = self.tenants.entry(tenant.to_owned()).or_default();
        stored.losses.push(stored.events.len());
        stored.last.clear();
    }

    /// How many events were stored, and how many were given to clients.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.tenants.values().map(|stored| stored.events.len()).sum(), self.given)
    }

    /// Something that a gateway or a client did or saw.
    pub(super) fn peer(&mut self, at: u64, tenant: &str, peer: &str, event: &Event) -> Found {
        match event {
            Event::Emit { n, happened } => {
                let name = name(tenant, happened);
                self.asked.insert((tenant.to_owned(), peer.to_owned(), *n), name.clone());
                self.emitted.insert(name, happened.clone());
            }
            Event::Ok { n, cursor: Some(cursor), .. } => {
                if let Some(name) = self.asked.remove(&(tenant.to_owned(), peer.to_owned(), *n)) {
                    self.taken.push((at, name, cursor.clone()));
                }
            }
            _ => {}
        }
        Vec::new()
    }

    pub(super) fn client(&mut self, at: u64, tenant: &str, client: &str, event: &Event) {
        let losses = self.tenants.get(tenant).map_or(&[][..], |stored| &stored.losses);
        let follower = self.followers.entry((tenant.to_owned(), client.to_owned())).or_default();
        let step = match event {
            Event::Hello { .. } => {
                follower.asked.clear();
                Step::Connected
            }
            Event::Closed { .. } | Event::Left { .. } => Step::Over,
            Event::Subscribe { n, to, event: true, cursor, path, .. } => {
                follower.asked.insert(*n, Sub { to: to.clone(), path: path.clone(), cursor: cursor.clone() });
                return;
            }
            Event::Ok { n, .. } => match follower.asked.remove(n) {
                Some(sub) => Step::Subscribed(sub),
                None => return,
            },
            Event::Synced { to, cursor: Some(cursor) } if follower.wants(to) => Step::Synced(cursor.clone()),
            Event::Gap { .. } => Step::Gap(!losses.is_empty()),
            Event::Heard { cursor, happened } => {
                self.given += 1;
                Step::Given(cursor.clone(), happened.clone())
            }
            _ => return,
        };
        follower.steps.push((at, step));
    }

    /// The store's reader found an event.
    pub(super) fn logged(&mut self, at: u64, tenant: &str, cursor: &str, happened: &Happened) -> Found {
        let name = name(tenant, happened);
        let mut found = Vec::new();
        if happened.from != "broker" && self.emitted.get(&name) != Some(happened) {
            found.push((Rule::Phantom, format!("{} of {} at {} was never sent", name.3, name.1, name.2)));
        }
        let stored = self.tenants.entry(tenant.to_owned()).or_default();
        if stored.last.insert(name.clone(), at).is_some_and(|before| at < before + SAME_MS) {
            found.push((Rule::Twice, format!("{} of {} at {} is stored twice", name.3, name.1, name.2)));
        }
        stored.places.insert(cursor.to_owned(), stored.events.len());
        stored.events.push(happened.clone());
        found
    }

    pub(super) fn end(&self, at: u64) -> Vec<(u64, Rule, String)> {
        let mut found = Vec::new();
        let none = Stored::default();
        for (at, (tenant, from, of, id), cursor) in &self.taken {
            let stored = self.tenants.get(tenant).unwrap_or(&none);
            let there = stored.places.get(cursor).map(|place| &stored.events[*place]);
            if there.is_none_or(|e| (&e.from, &e.of, &e.id) != (from, of, id)) {
                let text = format!("{id} of {from} at {of} was answered ok, and is not stored at {cursor}");
                found.push((*at, Rule::Lost, format!("{tenant}: {text}")));
            }
        }
        for ((tenant, client), follower) in &self.followers {
            let stored = self.tenants.get(tenant).unwrap_or(&none);
            let dropped = self.keeps.is_some_and(|keeps| stored.events.len() > keeps);
            let walked = follower.walk(stored, dropped, at);
            found.extend(walked.into_iter().map(|(at, rule, text)| (at, rule, format!("{tenant}/{client}: {text}"))));
        }
        found
    }
}

fn name(tenant: &str, happened: &Happened) -> Name {
    (tenant.to_owned(), happened.from.clone(), happened.of.clone(), happened.id.clone())
}

impl Sub {
    fn names(&self, event: &Happened) -> bool {
        names(&self.to, &event.of) && event.path.as_ref().is_none_or(|path| passes(&self.path, path))
    }
}

impl Follower {
    /// Whether the newest subscription to events has this pattern.
    fn wants(&self, to: &str) -> bool {
        let subs = self.steps.iter().rev().find_map(|(_, step)| match step {
            Step::Subscribed(sub) => Some(sub.to == to),
            _ => None,
        });
        subs.unwrap_or(false)
    }

    /// Goes through all that this client was given.
    fn walk(&self, stored: &Stored, dropped: bool, end: u64) -> Vec<(u64, Rule, String)> {
        let mut found = Vec::new();
        let mut walk = Walk::default();
        for (at, step) in &self.steps {
            let wrong = walk.step(*at, step, stored, dropped);
            found.extend(wrong.into_iter().map(|(rule, text)| (*at, rule, text)));
        }
        let Some(since) = walk.connected else { return found };
        if !walk.synced && end > since + SERVED_MS {
            found.push((end, Rule::Lost, "its subscription to events was never served".into()));
        }
        if walk.synced {
            let missing = walk.missing(stored, stored.events.len());
            found.extend(missing.map(|text| (end, Rule::Lost, format!("it never got {text}"))));
        }
        found
    }
}

impl Walk {
    /// The first place of which it says something, when it is about what stands before this one.
    fn from(&self, stored: &Stored, before: usize) -> Option<usize> {
        match self.at {
            At::Unknown => None,
            At::Beginning => Some(stored.losses.iter().copied().filter(|loss| *loss <= before).max().unwrap_or(0)),
            At::After(place) => Some(place),
        }
    }

    /// The first event of its own before this place that it was not given.
    fn missing(&self, stored: &Stored, before: usize) -> Option<String> {
        let (from, sub) = (self.from(stored, before)?, self.sub.as_ref()?);
        let missed = stored.events.get(from..before)?.iter().find(|event| sub.names(event))?;
        Some(format!("{} of {} at {}", missed.id, missed.from, missed.of))
    }

    fn step(&mut self, at: u64, step: &Step, stored: &Stored, dropped: bool) -> Found {
        let mut found = Vec::new();
        match step {
            Step::Connected => *self = Self { connected: Some(at), ..Self::default() },
            Step::Over => *self = Self::default(),
            Step::Subscribed(sub) => {
                self.synced = false;
                if let Some(cursor) = &sub.cursor {
                    self.at = stored.places.get(cursor).map_or(At::Beginning, |place| At::After(place + 1));
                } else if self.sub.is_none() {
                    self.at = At::Unknown;
                }
                self.sub = Some(sub.clone());
            }
            Step::Synced(cursor) => {
                self.synced = true;
                if let Some(place) = stored.places.get(cursor).map(|place| place + 1) {
                    let missing = self.missing(stored, place);
                    found.extend(missing.map(|text| (Rule::Lost, format!("synced at {cursor} without {text}"))));
                    self.at = At::After(self.from(stored, place).map_or(place, |at| at.max(place)));
                } else if matches!(self.at, At::Unknown) {
                    self.at = At::Beginning;
                }
            }
            Step::Gap(lost) => {
                self.at = At::Unknown;
                if !lost && !dropped {
                    found.push((Rule::Lost, "a gap, though the store kept everything".into()));
                }
            }
            Step::Given(cursor, happened) => {
                let Some(&place) = stored.places.get(cursor) else {
                    return vec![(Rule::Phantom, format!("given {} at {cursor}, which was never stored", happened.id))];
                };
                if stored.events[place] != *happened {
                    // Another one that is stored is out of its place; what is not stored at all is made up.
                    let rule = if stored.events.contains(happened) { Rule::Order } else { Rule::Phantom };
                    found.push((rule, format!("given {} at {cursor}, where another event is stored", happened.id)));
                } else if !self.sub.as_ref().is_some_and(|sub| sub.names(happened)) {
                    found.push((Rule::Phantom, format!("given {} at {cursor}, unasked", happened.id)));
                }
                if self.from(stored, place).is_some_and(|at| place < at) {
                    found.push((Rule::Order, format!("given {} at {cursor} after a later one", happened.id)));
                }
                let missing = self.missing(stored, place);
                found.extend(missing.map(|text| (Rule::Lost, format!("given {cursor} without {text} before it"))));
                self.at = At::After(place + 1);
            }
        }
        found
    }
}
