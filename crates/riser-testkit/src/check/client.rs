//! What one client was shown, kept as protocol.md tells a client to keep it.

use std::collections::{BTreeMap, BTreeSet};

use super::Rule;
use super::gateway::Gateway;
use super::model::{Found, covered, names, passes};
use crate::history::Event;

/// The connection that a client has now.
#[derive(Default)]
pub(super) struct Connection {
    subs: BTreeMap<String, Sub>,
    asked: BTreeMap<u64, (String, Sub)>,
    views: BTreeMap<String, View>,
    over: bool,
    /// Whether the registry ever lost everything: then it cannot know that an epoch has ended.
    emptied: bool,
}

#[derive(Clone, Default)]
struct Sub {
    state: bool,
    presence: bool,
    path: Vec<String>,
    synced: bool,
}

#[derive(Default)]
struct View {
    version: (u64, u64),
    online: Option<bool>,
    values: Option<BTreeMap<String, u64>>,
    stale: BTreeSet<String>,
    /// The newest value ever seen of each path on this connection.
    newest: BTreeMap<String, u64>,
    told: Option<Told>,
}

/// What a client was told of a gateway's presence last.
struct Told {
    epoch: u64,
    gone: bool,
    /// Whether a snapshot said so: then a `presence` may say it once more.
    by_snapshot: bool,
}

impl Connection {
    pub(super) fn event(&mut self, event: &Event) -> Found {
        match event {
            Event::Hello { .. } => *self = Self { emptied: self.emptied, ..Self::default() },
            Event::Closed { .. } | Event::Left { .. } => self.over = true,
            Event::Subscribe { n, to, state, presence, path, .. } => {
                let sub = Sub { state: *state, presence: *presence, path: path.clone(), synced: false };
                self.asked.insert(*n, (to.clone(), sub));
            }
            Event::Ok { n, .. } => {
                if let Some((to, sub)) = self.asked.remove(n) {
                    self.subs.insert(to, sub);
                }
            }
            Event::Synced { to, .. } => {
                if let Some(sub) = self.subs.get_mut(to) {
                    sub.synced = true;
                }
            }
            Event::Snapshot { of, online, epoch, rev, values, stale } => {
                let view = self.views.entry(of.clone()).or_default();
                view.online = Some(*online);
                view.version = (*epoch, *rev);
                if view.told.as_ref().is_none_or(|told| (told.epoch, told.gone) != (*epoch, !online)) {
                    view.told = Some(Told { epoch: *epoch, gone: !online, by_snapshot: true });
                }
                if let Some(values) = values {
                    view.values = Some(values.iter().map(|(p, b)| (p.clone(), b.s)).collect());
                    view.stale = values.keys().filter(|p| covered(stale, p)).cloned().collect();
                    return values.iter().filter_map(|(p, b)| view.back(p, b.s)).collect();
                }
            }
            Event::State { of, epoch, rev, set, stale, fresh } => {
                let view = self.views.entry(of.clone()).or_default();
                let mut found: Found = set.iter().filter_map(|(p, b)| view.back(p, b.as_ref()?.s)).collect();
                let Some(values) = view.values.as_mut() else {
                    found.push((Rule::State, format!("a change of {of} before its snapshot")));
                    return found;
                };
                if (*epoch, *rev) > view.version {
                    view.version = (*epoch, *rev);
                    for (path, body) in set {
                        view.stale.remove(path);
                        match body {
                            Some(body) => drop(values.insert(path.clone(), body.s)),
                            None => drop(values.remove(path)),
                        }
                    }
                    view.stale.retain(|p| !covered(fresh, p));
                    view.stale.extend(values.keys().filter(|p| covered(stale, p)).cloned());
                }
                return found;
            }
            Event::Presence { of, online, epoch, reason } => {
                let view = self.views.entry(of.clone()).or_default();
                view.online = Some(*online);
                return view.presence(*online, *epoch, reason.as_deref(), self.emptied);
            }
            _ => {}
        }
        Vec::new()
    }

    pub(super) fn emptied(&mut self) {
        self.emptied = true;
    }

    /// Whether what the client knows of a gateway at the end is the truth.
    pub(super) fn end(&self, of: &str, gateway: &Gateway) -> Found {
        let subs: Vec<&Sub> = self.subs.iter().filter(|(to, s)| s.synced && names(to, of)).map(|(_, s)| s).collect();
        let Some(online) = gateway.online() else { return Vec::new() };
        if self.over || subs.is_empty() {
            return Vec::new();
        }
        let mut found = Vec::new();
        let view = self.views.get(of);
        let shown = view.and_then(|v| v.online).unwrap_or(false);
        if shown != online && subs.iter().any(|s| s.presence) {
            found.push((Rule::Presence, format!("shown online: {shown}, it is {online}")));
        }
        let state: Vec<&&Sub> = subs.iter().filter(|s| s.state).collect();
        let Some(stored) = gateway.values().filter(|_| !state.is_empty()) else { return found };
        let passes = |path: &String| state.iter().any(|s| passes(&s.path, path));
        let expected: BTreeMap<String, u64> = stored.into_iter().filter(|(p, _)| passes(p)).collect();
        let seen: BTreeMap<String, u64> = view.and_then(|v| v.values.clone()).unwrap_or_default();
        let seen: BTreeMap<String, u64> = seen.into_iter().filter(|(p, _)| passes(p)).collect();
        if seen != expected {
            found.push((Rule::State, format!("it has {seen:?}, the store {expected:?}")));
        }
        if !online && let Some(path) = seen.keys().find(|p| !view.is_some_and(|v| v.stale.contains(*p))) {
            found.push((Rule::State, format!("{path} of an offline gateway is shown as fresh")));
        }
        found
    }
}

impl View {
    /// Notes a value; says so when a newer one was seen before.
    fn back(&mut self, path: &str, s: u64) -> Option<(Rule, String)> {
        let newest = self.newest.entry(path.to_owned()).or_default();
        let before = std::mem::replace(newest, (*newest).max(s));
        (s < before).then(|| (Rule::State, format!("{path} went back from {before} to {s}")))
    }

    fn presence(&mut self, online: bool, epoch: u64, reason: Option<&str>, emptied: bool) -> Found {
        let told = self.told.replace(Told { epoch, gone: !online, by_snapshot: false });
        let Some(Told { epoch: last, gone, by_snapshot }) = told else { return Vec::new() };
        if epoch < last {
            return vec![(Rule::Presence, format!("epoch {epoch} after {last}"))];
        }
        let again = gone && online && emptied;
        if epoch == last && !again && (gone && online || gone != online && !by_snapshot) {
            return vec![(Rule::Presence, format!("epoch {epoch} online: {online} after it was told gone: {gone}"))];
        }
        if epoch > last && gone && online && reason == Some("takeover") {
            return vec![(Rule::Presence, format!("epoch {epoch} took over from {last}, which was told as gone"))];
        }
        Vec::new()
    }
}
