//! What a client knows of the gateways it watches: snapshots and deltas applied by the rules of protocol.md §4.

use std::collections::{BTreeMap, BTreeSet};

use riser_core::state::Value;
use riser_core::{Address, Devices, Epoch, Json, Path, Pattern, Reason, Version};

use crate::frame::{Closed, Delta, Described, Happened, Opened, Outcome, Presence, Received, Snapshot};

/// Most gateways that a view holds: four times what one edge is built for.
pub const VIEW_GATEWAYS: usize = 65_536;
/// Most values in the parts of one frame: twice what a gateway may have.
pub const PART_ENTRIES: usize = 4_096;
/// Most frames whose parts are being joined at a time. A server sends the parts of one after the other.
pub const JOINING: usize = 64;

/// A gateway as it was last heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What the flat is called, as its last snapshot said.
    pub name: Option<String>,
    /// On which floor it is, as its last snapshot said.
    pub floor: Option<String>,
    /// Whether it is connected.
    pub online: bool,
    /// Since when, Unix milliseconds on the cluster's clock.
    pub since_ms: u64,
    /// Why that last changed, when it changed before our eyes.
    pub reason: Option<Reason>,
    /// The epoch of its last session.
    pub epoch: Epoch,
    /// The position of its state.
    pub version: Version,
    /// When it came there, Unix milliseconds.
    pub at_ms: u64,
    /// The values.
    pub values: BTreeMap<Path, Value>,
    /// What its devices are, when it described them.
    pub devices: Option<Devices>,
    /// Whether it was heard of since the connection was last made.
    current: bool,
}

/// What a frame says: what it did to a view, or what happened besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// All of a gateway was replaced.
    Snapshot(Address),
    /// Values changed.
    State {
        /// Whose.
        of: Address,
        /// Which were set or deleted.
        set: Vec<Path>,
    },
    /// The devices were described anew.
    Devices(Address),
    /// A gateway came or went.
    Presence(Address),
    /// A subscription was served completely.
    Synced {
        /// Which.
        to: Pattern,
        /// Gateways that a connection before this one knew, and that are no more.
        gone: Vec<Address>,
        /// The position in the tenant's events from which on more will come.
        cursor: Option<String>,
    },
    /// A subscription ended: a right was withdrawn.
    Unsubscribed {
        /// Which.
        to: Pattern,
        /// Why.
        code: String,
    },
    /// Something happened.
    Event(Box<Happened>),
    /// The cursor that a subscription went on from is not known or no longer kept: events follow from the oldest that
    /// is.
    Gap {
        /// Which subscription.
        to: Pattern,
    },
    /// A live stream began, or was there already.
    Opened(Box<Opened>),
    /// A live stream is over.
    Closed(Closed),
    /// Something became of a command that no handle asks for any more.
    Outcome(Box<Outcome>),
}

/// The gateways that a client hears of.
#[derive(Debug, Default)]
pub struct View {
    gateways: BTreeMap<Address, Seen>,
    snapshots: BTreeMap<Address, Snapshot>,
    deltas: BTreeMap<Address, Delta>,
    described: BTreeMap<Address, Described>,
    ignored: u64,
}

impl View {
    /// One gateway.
    pub fn get(&self, of: &Address) -> Option<&Seen> {
        self.gateways.get(of)
    }

    /// All gateways by address.
    pub fn iter(&self) -> impl Iterator<Item = (&Address, &Seen)> {
        self.gateways.iter()
    }

    /// How many gateways there are.
    pub fn len(&self) -> usize {
        self.gateways.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.gateways.is_empty()
    }

    /// How many frames were left out because a limit of the view was reached.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// A new connection begins: halves of frames are dropped, and what is not heard of again until `synced` is gone.
    pub fn reconnected(&mut self) {
        self.snapshots.clear();
        self.deltas.clear();
        self.described.clear();
        for seen in self.gateways.values_mut() {
            seen.current = false;
        }
    }

    /// Forgets the gateways that none of these patterns names.
    pub fn retain(&mut self, patterns: &BTreeSet<Pattern>) {
        self.gateways.retain(|of, _| patterns.iter().any(|pattern| pattern.matches(of)));
    }

    /// Does what a frame says. None when it says nothing of gateways, is not the last of its parts, or is older
    /// than what is known.
    pub fn apply(&mut self, frame: Received) -> Option<Update> {
        match frame {
            Received::Snapshot(part) => {
                let whole = self.join_snapshot(part)?;
                self.snapshot(whole)
            }
            Received::State(part) => {
                let whole = self.join_delta(part)?;
                self.delta(whole)
            }
            Received::Devices(part) => {
                let whole = self.join_described(part)?;
                self.described(whole)
            }
            Received::Presence(presence) => self.presence(presence),
            Received::Synced { to, cursor } => {
                let gone = |(of, seen): (&Address, &Seen)| (!seen.current && to.matches(of)).then(|| of.clone());
                let gone: Vec<Address> = self.gateways.iter().filter_map(gone).collect();
                self.gateways.retain(|of, seen| seen.current || !to.matches(of));
                Some(Update::Synced { to, gone, cursor })
            }
            Received::Unsubscribed { to, code } => Some(Update::Unsubscribed { to, code }),
            Received::Event(happened) => Some(Update::Event(happened)),
            Received::Gap { to } => Some(Update::Gap { to }),
            Received::Opened(opened) => Some(Update::Opened(Box::new(opened))),
            Received::Closed(closed) => Some(Update::Closed(closed)),
            Received::Outcome(outcome) => Some(Update::Outcome(Box::new(outcome))),
            _ => None,
        }
    }

    fn snapshot(&mut self, snapshot: Snapshot) -> Option<Update> {
        let of = snapshot.of;
        let seen = self.enter(&of)?;
        seen.name = snapshot.name;
        seen.floor = snapshot.floor;
        seen.online = snapshot.online;
        seen.since_ms = snapshot.since_ms;
        seen.epoch = snapshot.epoch;
        seen.version = Version { epoch: snapshot.epoch, rev: snapshot.rev };
        seen.at_ms = snapshot.at_ms;
        if let Some(state) = snapshot.state {
            seen.values = state.into_iter().map(|(path, value)| (path, fresh(value))).collect();
            seen.devices = snapshot.devices;
            seen.mark(&snapshot.stale, true);
        }
        if !seen.online {
            seen.all_stale();
        }
        Some(Update::Snapshot(of))
    }

    fn delta(&mut self, delta: Delta) -> Option<Update> {
        let of = delta.of;
        let version = Version { epoch: delta.epoch, rev: delta.rev };
        if self.gateways.get(&of).is_some_and(|seen| version <= seen.version) {
            return None;
        }
        let seen = self.enter(&of)?;
        seen.version = version;
        seen.at_ms = delta.at_ms;
        let set = delta.set.keys().cloned().collect();
        for (path, value) in delta.set {
            match value {
                Some(value) => drop(seen.values.insert(path, fresh(value))),
                None => drop(seen.values.remove(&path)),
            }
        }
        seen.mark(&delta.fresh, false);
        seen.mark(&delta.stale, true);
        Some(Update::State { of, set })
    }

    fn described(&mut self, described: Described) -> Option<Update> {
        let seen = self.enter(&described.of)?;
        seen.devices = Some(described.devices);
        Some(Update::Devices(described.of))
    }

    fn presence(&mut self, presence: Presence) -> Option<Update> {
        let known = self.gateways.get(&presence.of).map(|seen| (seen.epoch, seen.online));
        // An epoch goes online once and offline once, so that its coming never follows its going.
        let late = known.is_some_and(|(epoch, online)| {
            presence.epoch < epoch || (presence.epoch == epoch && presence.online && !online)
        });
        if late {
            return None;
        }
        let of = presence.of;
        let seen = self.enter(&of)?;
        // A takeover shows as online again, and does not begin a new stay.
        if seen.online != presence.online || seen.since_ms == 0 {
            seen.since_ms = presence.at_ms;
        }
        seen.online = presence.online;
        seen.epoch = presence.epoch;
        seen.reason = presence.reason;
        if !seen.online {
            seen.all_stale();
        }
        Some(Update::Presence(of))
    }

    /// The gateway, made when it was not known; none when the view is full.
    fn enter(&mut self, of: &Address) -> Option<&mut Seen> {
        if self.gateways.len() >= VIEW_GATEWAYS && !self.gateways.contains_key(of) {
            self.ignored += 1;
            return None;
        }
        let seen = self.gateways.entry(of.clone()).or_insert_with(Seen::unknown);
        seen.current = true;
        Some(seen)
    }

    fn join_snapshot(&mut self, part: Snapshot) -> Option<Snapshot> {
        let same = |a: &Snapshot, b: &Snapshot| (a.epoch, a.rev) == (b.epoch, b.rev);
        let add = |whole: &mut Snapshot, part: Snapshot| {
            whole.state.get_or_insert_default().extend(part.state.unwrap_or_default());
            whole.stale.extend(part.stale);
            if let Some(devices) = part.devices {
                whole.devices.get_or_insert_default().0.extend(devices.0);
            }
            whole.state.as_ref().map_or(0, BTreeMap::len) + whole.stale.len()
        };
        let more = part.more;
        join(&mut self.snapshots, &mut self.ignored, part.of.clone(), part, more, same, add)
    }

    fn join_delta(&mut self, part: Delta) -> Option<Delta> {
        let same = |a: &Delta, b: &Delta| (a.epoch, a.rev) == (b.epoch, b.rev);
        let add = |whole: &mut Delta, part: Delta| {
            whole.set.extend(part.set);
            whole.stale.extend(part.stale);
            whole.fresh.extend(part.fresh);
            whole.set.len() + whole.stale.len() + whole.fresh.len()
        };
        let more = part.more;
        join(&mut self.deltas, &mut self.ignored, part.of.clone(), part, more, same, add)
    }

    fn join_described(&mut self, part: Described) -> Option<Described> {
        let add = |whole: &mut Described, part: Described| {
            whole.devices.0.extend(part.devices.0);
            whole.devices.0.len()
        };
        let more = part.more;
        join(&mut self.described, &mut self.ignored, part.of.clone(), part, more, |_, _| true, add)
    }
}

/// Adds a part to those that came before it. Gives the whole frame with its last part.
fn join<T>(
    joining: &mut BTreeMap<Address, T>,
    ignored: &mut u64,
    of: Address,
    part: T,
    more: bool,
    same: impl Fn(&T, &T) -> bool,
    add: impl Fn(&mut T, T) -> usize,
) -> Option<T> {
    let whole = match joining.remove(&of).filter(|whole| same(whole, &part)) {
        Some(mut whole) => {
            if add(&mut whole, part) > PART_ENTRIES {
                *ignored += 1;
                return None;
            }
            whole
        }
        None => part,
    };
    if !more {
        return Some(whole);
    }
    if joining.len() >= JOINING {
        *ignored += 1;
        return None;
    }
    joining.insert(of, whole);
    None
}

fn fresh(value: Json) -> Value {
    Value { value, stale: false }
}

impl Seen {
    fn unknown() -> Self {
        Self {
            name: None,
            floor: None,
            online: false,
            since_ms: 0,
            reason: None,
            epoch: Epoch(0),
            version: Version::new(0, 0),
            at_ms: 0,
            values: BTreeMap::new(),
            devices: None,
            current: true,
        }
    }

    fn mark(&mut self, paths: &[Path], stale: bool) {
        for (path, value) in &mut self.values {
            if paths.iter().any(|above| path.is_within(above)) {
                value.stale = stale;
            }
        }
    }

    fn all_stale(&mut self) {
        for value in self.values.values_mut() {
            value.stale = true;
        }
    }
}

#[cfg(test)]
mod tests;
