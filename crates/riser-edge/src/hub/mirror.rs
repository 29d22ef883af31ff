//! A mirror: what an edge knows of one watched gateway. Pure; the hub does the reading and the telling.
//!
//! A mirror applies only greater versions, and in a row. On a jump it asks to be read anew and keeps what arrives
//! meanwhile, so that nothing is shown with a hole in it and nobody sees an older value after a newer one.

use std::collections::VecDeque;
use std::sync::Arc;

use riser_core::routed::Up;
use riser_core::state::{State, Touched};
use riser_core::{Epoch, Path, Presence, Reason, Snapshot, Version};

/// Most messages kept while a mirror is read anew. When more arrive it is read once more, which covers them all.
const QUEUED: usize = 64;
/// Most bytes of changes kept meanwhile, beside the first: as much as one state may hold.
const QUEUED_BYTES: usize = 256 * 1024;
/// In how many comparisons in a row the store may know less than the mirror before the mirror believes it. The
/// gateway's edge makes good what a store lost within its audit, so that this much later nobody holds the gateway.
const DOUBTS: u8 = 3;

/// What is known of one gateway.
#[derive(Debug)]
pub(crate) struct Mirror {
    known: Option<Snapshot>,
    feed: Feed,
    doubts: u8,
}

#[derive(Debug)]
enum Feed {
    /// What arrives is applied.
    Live,
    /// What arrives is kept until the store was read.
    Reading(Kept),
}

/// From when on a mirror keeps what arrives: what was read of the store before is no answer to it, because a message
/// between the two would be missing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Phase(Arc<()>);

impl PartialEq for Phase {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Messages without a hole between them, until one was not kept.
#[derive(Debug, Default)]
struct Kept {
    phase: Phase,
    messages: VecDeque<Up>,
    bytes: usize,
    /// Too much arrived: from here on nothing is kept, and the store must be read once more.
    again: bool,
}

impl Kept {
    fn keep(&mut self, up: Up) {
        let bytes = match &up {
            Up::State { change, .. } => change.weight(),
            Up::Online { .. } | Up::Offline { .. } => 0,
        };
        let room = self.messages.is_empty() || self.bytes + bytes <= QUEUED_BYTES;
        self.again |= !room || self.messages.len() >= QUEUED;
        if !self.again {
            self.bytes += bytes;
            self.messages.push_back(up);
        }
    }
}

/// What listeners must be told.
#[derive(Debug, PartialEq)]
pub(crate) enum Effect {
    /// Everything: a snapshot replaces what they had.
    Replaced,
    /// These paths.
    State {
        /// What happened to them.
        touched: Touched,
        /// When.
        at_ms: u64,
        /// The gateway's own clock.
        ts_ms: Option<i64>,
    },
    /// Connected or not.
    Presence,
    /// The description of the devices.
    Devices,
}

/// What came of something that arrived.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// Listeners must be told this, which may be nothing.
    Tell(Vec<Effect>),
    /// The store must be read, and the answer given to [`Mirror::install`].
    Read,
}

impl Mirror {
    /// A mirror that is being read for the first time.
    pub(crate) fn reading() -> Self {
        Self { known: None, feed: Feed::Reading(Kept::default()), doubts: 0 }
    }

    /// A mirror of a gateway of which nothing was known until now.
    pub(crate) fn blank() -> Self {
        Self { known: None, feed: Feed::Live, doubts: 0 }
    }

    /// Since when it waits for the store to be read; none when it does not. To be taken before the store is asked.
    pub(crate) fn phase(&self) -> Option<Phase> {
        match &self.feed {
            Feed::Reading(kept) => Some(kept.phase.clone()),
            Feed::Live => None,
        }
    }

    /// What is known, none when nothing is.
    pub(crate) fn known(&self) -> Option<&Snapshot> {
        self.known.as_ref()
    }

    fn version(&self) -> Option<Version> {
        self.known.as_ref().map(|s| s.version)
    }

    pub(crate) fn is_reading(&self) -> bool {
        matches!(self.feed, Feed::Reading(_))
    }

    /// Whether it was never read: what is known of the gateway is not here yet.
    pub(crate) fn is_unread(&self) -> bool {
        self.known.is_none() && self.is_reading()
    }

    /// Takes a message of the gateway's edge.
    pub(crate) fn take(&mut self, up: Up) -> Step {
        if let Feed::Reading(kept) = &mut self.feed {
            kept.keep(up);
            return Step::Tell(Vec::new());
        }
        match self.place(&up) {
            Place::Old => Step::Tell(Vec::new()),
            Place::Next => Step::Tell(self.apply(up)),
            Place::Jump => {
                let mut kept = Kept::default();
                kept.keep(up);
                self.feed = Feed::Reading(kept);
                Step::Read
            }
        }
    }

    /// Takes what the store said when it was asked in this phase; true when it must be asked once more. What belongs to
    /// another phase is ignored: the one that is going on has a read of its own.
    pub(crate) fn install(&mut self, read: Option<Snapshot>, phase: &Phase) -> (Vec<Effect>, bool) {
        if self.phase().as_ref() != Some(phase) {
            return (Vec::new(), false);
        }
        let Feed::Reading(Kept { messages, again, .. }) = std::mem::replace(&mut self.feed, Feed::Live) else {
            return (Vec::new(), false);
        };
        let mut effects = match read {
            Some(snapshot) if Some(snapshot.version) > self.version() => self.replace(snapshot),
            _ => Vec::new(),
        };
        for up in messages {
            // A message is published after it was stored, so the store should stand there. When it does not it lost
            // data; the message is the newest there is, and what is missing comes with the gateway's full state.
            // Of a gateway of which nothing is known at all one change would be a state full of holes.
            let whole = self.known.is_some() || matches!(&up, Up::Online { .. });
            if whole && !matches!(self.place(&up), Place::Old) {
                effects.extend(self.apply(up));
            }
        }
        if again {
            self.feed = Feed::Reading(Kept::default());
        }
        (joined(effects), again)
    }

    /// Whether the store, which stands at `stored` (none when it knows nothing), knows more than the mirror. What is missing
    /// may be on its way, and [`Mirror::read_below`] decides a little later.
    pub(crate) fn is_behind(&self, stored: Option<Version>) -> bool {
        !self.is_reading() && stored > self.version()
    }

    /// Takes one round's finding of where the store stands. True when it knew less in so many rounds that it must be believed;
    /// [`Mirror::believe`] takes what it answers.
    pub(crate) fn doubts(&mut self, stored: Option<Version>) -> bool {
        if self.is_reading() {
            return false;
        }
        if stored >= self.version() {
            self.doubts = 0;
            return false;
        }
        self.doubts = self.doubts.saturating_add(1);
        // An offline gateway has nobody to make good what the store lost, and its last values are the best there are.
        self.doubts >= DOUBTS && self.known.as_ref().is_some_and(|s| s.presence.online)
    }

    /// Begins a read when the mirror has not come to `version` by itself. False when there is nothing to read.
    pub(crate) fn read_below(&mut self, version: Version) -> bool {
        let behind = !self.is_reading() && self.version() < Some(version);
        if behind {
            self.feed = Feed::Reading(Kept::default());
        }
        behind
    }

    /// Takes what a store said that knew less than the mirror for long. Values stay, since they were acknowledged; but
    /// a gateway that the store does not know as online is not.
    pub(crate) fn believe(&mut self, read: Option<&Snapshot>, now_ms: u64) -> Vec<Effect> {
        let Some(known) = &self.known else { return Vec::new() };
        if self.is_reading() || read.is_some_and(|s| s.presence.online || s.version >= known.version) {
            return Vec::new();
        }
        let reason = read.and_then(|s| s.presence.reason).unwrap_or(Reason::EdgeLost);
        let version = known.version.next();
        self.doubts = 0;
        self.apply(Up::Offline { version, reason, at_ms: now_ms })
    }

    fn place(&self, up: &Up) -> Place {
        let at = self.version();
        match up {
            Up::State { version, .. } | Up::Offline { version, .. } => match at {
                Some(at) if version.follows(at) => Place::Next,
                Some(at) if *version <= at => Place::Old,
                _ => Place::Jump,
            },
            Up::Online { epoch, before, .. } => match at {
                Some(at) if *epoch <= at.epoch => Place::Old,
                _ if *before == at => Place::Next,
                _ => Place::Jump,
            },
        }
    }

    fn replace(&mut self, mut snapshot: Snapshot) -> Vec<Effect> {
        self.not_a_takeover(&mut snapshot.presence);
        let was = self.known.as_ref().map(|s| (s.presence.online, s.presence.epoch));
        let is = (snapshot.presence.online, snapshot.presence.epoch);
        let first = self.known.is_none();
        self.known = Some(snapshot);
        self.doubts = 0;
        let mut effects = vec![Effect::Replaced];
        // Who sees a gateway for the first time learns its presence from the snapshot, unless it came and is online:
        // that is news to those who watch presence.
        if (first && is.0) || was.is_some_and(|was| was != is) {
            effects.push(Effect::Presence);
        }
        effects
    }

    fn apply(&mut self, up: Up) -> Vec<Effect> {
        match up {
            Up::State { version, change, at_ms, ts_ms } => self.apply_state(version, &change, at_ms, ts_ms),
            Up::Online { epoch, takeover, since_ms, at_ms, edge, .. } => {
                let reason = takeover.then_some(Reason::Takeover);
                let presence = Presence { online: true, since_ms, epoch, reason, edge: Some(edge) };
                self.set_presence(Version::start(epoch), presence, at_ms)
            }
            Up::Offline { version, reason, at_ms } => {
                let presence =
                    Presence { online: false, since_ms: at_ms, epoch: version.epoch, reason: Some(reason), edge: None };
                self.set_presence(version, presence, at_ms)
            }
        }
    }

    fn apply_state(
        &mut self,
        version: Version,
        change: &riser_core::Change,
        at_ms: u64,
        ts_ms: Option<i64>,
    ) -> Vec<Effect> {
        let known = self.known.get_or_insert_with(|| unknown(version.epoch, at_ms));
        known.version = version;
        known.at_ms = at_ms;
        let touched = known.state.apply(change);
        if change.full {
            return vec![Effect::Replaced];
        }
        let mut effects = Vec::new();
        if touched != Touched::default() {
            effects.push(Effect::State { touched, at_ms, ts_ms });
        }
        if change.devices.is_some() {
            effects.push(Effect::Devices);
        }
        effects
    }

    /// Whoever was told that a gateway is offline must not be told that a session of it was taken over: the one in
    /// between was too short to be seen, as when the answer to an acquire was lost and it was made again.
    fn not_a_takeover(&self, presence: &mut Presence) {
        let offline = self.known.as_ref().is_some_and(|known| !known.presence.online);
        if offline && presence.reason == Some(Reason::Takeover) {
            presence.reason = None;
        }
    }

    /// Presence changes what is stale: a gateway that is offline makes all its values stale, and one that comes back
    /// vouches for those whose devices were there.
    fn set_presence(&mut self, version: Version, mut presence: Presence, at_ms: u64) -> Vec<Effect> {
        self.not_a_takeover(&mut presence);
        let first = self.known.is_none();
        let known = self.known.get_or_insert_with(|| unknown(version.epoch, at_ms));
        let was_online = known.presence.online;
        known.version = version;
        known.at_ms = at_ms;
        let online = presence.online;
        known.presence = presence;
        if first {
            return vec![Effect::Replaced, Effect::Presence];
        }
        let mut effects = vec![Effect::Presence];
        if was_online != online && !known.state.values.is_empty() {
            let own = known.state.values.iter().filter(|(_, v)| !v.stale).map(|(p, _)| p.clone()).collect();
            let touched = if online {
                Touched { fresh: own, ..Touched::default() }
            } else {
                Touched { stale: own, ..Touched::default() }
            };
            effects.push(Effect::State { touched, at_ms, ts_ms: None });
        }
        effects
    }
}

/// Several effects as one of each kind. Listeners are told what is known in the end, under one version, so that a
/// second frame of the same kind would be one that they ignore; and a snapshot stands for all that is about values.
fn joined(effects: Vec<Effect>) -> Vec<Effect> {
    if effects.contains(&Effect::Replaced) {
        let presence = effects.contains(&Effect::Presence);
        return std::iter::once(Effect::Replaced).chain(presence.then_some(Effect::Presence)).collect();
    }
    let mut joined: Vec<Effect> = Vec::new();
    for effect in effects {
        let same = joined.iter_mut().find(|e| std::mem::discriminant(*e) == std::mem::discriminant(&effect));
        match (same, effect) {
            (Some(Effect::State { touched, at_ms, ts_ms }), Effect::State { touched: more, at_ms: at, ts_ms: ts }) => {
                touched.set.extend(more.set);
                touched.stale.extend(more.stale);
                touched.fresh.extend(more.fresh);
                (*at_ms, *ts_ms) = (at, ts);
            }
            (Some(_), _) => {}
            (None, effect) => joined.push(effect),
        }
    }
    joined
}

/// Whether listeners must be told before or after, or the store asked.
enum Place {
    Old,
    Next,
    Jump,
}

fn unknown(epoch: Epoch, at_ms: u64) -> Snapshot {
    Snapshot {
        version: Version::start(epoch),
        at_ms,
        presence: Presence { online: true, since_ms: at_ms, epoch, reason: None, edge: None },
        state: State::default(),
    }
}

/// Whether a path's value is shown as stale.
pub(crate) fn is_stale(snapshot: &Snapshot, path: &Path) -> bool {
    !snapshot.presence.online || snapshot.state.values.get(path).is_some_and(|v| v.stale)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use riser_core::{Change, Json};

    use super::*;

    fn set(version: (u64, u64), path: &str, value: u64) -> Up {
        let value = Json::parse(&value.to_string()).expect("JSON");
        let change = Change::values([(path.parse().expect("a path"), Some(value))], false);
        Up::State { version: Version::new(version.0, version.1), change, at_ms: 1, ts_ms: None }
    }

    fn online(epoch: u64, before: Option<(u64, u64)>) -> Up {
        Up::Online {
            epoch: Epoch(epoch),
            before: before.map(|(e, r)| Version::new(e, r)),
            takeover: before.is_some(),
            since_ms: 1,
            at_ms: 1,
            edge: "edge-0".parse().expect("an edge"),
        }
    }

    fn offline(epoch: u64, rev: u64) -> Up {
        Up::Offline { version: Version::new(epoch, rev), reason: Reason::Closed, at_ms: 2 }
    }

    /// Gives a mirror what the store says now.
    fn installed(mirror: &mut Mirror, read: Option<Snapshot>) -> (Vec<Effect>, bool) {
        let phase = mirror.phase().expect("it waits for the store");
        mirror.install(read, &phase)
    }

    fn live(history: &[Up]) -> Mirror {
        let mut mirror = Mirror::blank();
        for up in history {
            assert!(matches!(mirror.take(up.clone()), Step::Tell(_)), "{up:?}");
        }
        mirror
    }

    #[test]
    fn versions_in_a_row_are_applied_and_old_ones_ignored() {
        let mut mirror = live(&[online(7, None), set((7, 1), "a", 1), set((7, 2), "a", 2)]);
        assert_eq!(mirror.take(set((7, 1), "a", 1)), Step::Tell(vec![]));
        assert_eq!(mirror.take(set((6, 9), "a", 9)), Step::Tell(vec![]));
        assert_eq!(mirror.known().expect("known").version, Version::new(7, 2));
    }

    #[test]
    fn an_answer_to_an_earlier_question_is_not_one_to_a_later() {
        let mut mirror = live(&[online(7, None)]);
        assert_eq!(mirror.take(set((7, 2), "a", 2)), Step::Read);
        let before = mirror.phase().expect("it waits for the store");
        // It was forgotten, and is read anew: what arrived between the two is not kept.
        let mut mirror = Mirror::reading();
        assert_eq!(mirror.take(set((7, 4), "b", 4)), Step::Tell(vec![]));
        let old = live(&[online(7, None), set((7, 1), "a", 1), set((7, 2), "a", 2)]);
        assert_eq!(mirror.install(old.known().cloned(), &before), (vec![], false));
        assert!(mirror.is_unread());
        let now = live(&[
            online(7, None),
            set((7, 1), "a", 1),
            set((7, 2), "a", 2),
            set((7, 3), "a", 3),
            set((7, 4), "b", 4),
        ]);
        installed(&mut mirror, now.known().cloned());
        assert_eq!(mirror.known(), now.known());
    }

    #[test]
    fn a_jump_is_read_and_what_came_meanwhile_is_applied_on_top() {
        let mut mirror = live(&[online(7, None), set((7, 1), "a", 1)]);
        assert_eq!(mirror.take(set((7, 3), "b", 3)), Step::Read);
        assert_eq!(mirror.take(set((7, 4), "a", 4)), Step::Tell(vec![]));
        let stored = live(&[online(7, None), set((7, 1), "a", 1), set((7, 2), "c", 2), set((7, 3), "b", 3)]);
        let (effects, again) = installed(&mut mirror, stored.known().cloned());
        assert!(!again);
        assert_eq!(effects[0], Effect::Replaced);
        let known = mirror.known().expect("known");
        assert_eq!(known.version, Version::new(7, 4));
        assert_eq!(known.state.values.len(), 3);
    }

    #[test]
    fn a_takeover_from_where_the_mirror_stands_needs_no_read() {
        let mut mirror = live(&[online(7, None), set((7, 1), "a", 1)]);
        assert_eq!(mirror.take(online(8, Some((7, 1)))), Step::Tell(vec![Effect::Presence]));
        assert_eq!(mirror.take(online(10, Some((9, 5)))), Step::Read);
    }

    #[test]
    fn an_end_makes_values_stale_and_a_late_one_changes_nothing() {
        let mut mirror = live(&[online(7, None), set((7, 1), "a", 1)]);
        let Step::Tell(effects) = mirror.take(offline(7, 2)) else { panic!("no read") };
        assert!(matches!(&effects[1], Effect::State { touched, .. } if touched.stale.len() == 1));
        assert!(matches!(mirror.take(online(8, Some((7, 2)))), Step::Tell(_)));
        assert_eq!(mirror.take(offline(7, 3)), Step::Tell(vec![]));
        assert!(mirror.known().expect("known").presence.online);
    }

    #[test]
    fn a_store_that_knows_less_is_believed_only_after_a_while() {
        let mut mirror = live(&[online(7, None), set((7, 1), "a", 1)]);
        assert!(!mirror.doubts(None));
        assert!(!mirror.doubts(Some(Version::new(6, 1))));
        assert!(mirror.doubts(None));
        let effects = mirror.believe(None, 9);
        assert_eq!(effects[0], Effect::Presence);
        let known = mirror.known().expect("known");
        assert_eq!(known.presence.reason, Some(Reason::EdgeLost));
        assert_eq!(known.state.values.len(), 1, "acknowledged values stay");
    }

    #[test]
    fn a_change_that_was_only_on_its_way_is_not_read() {
        let mut mirror = live(&[online(7, None), set((7, 1), "a", 1)]);
        assert!(mirror.is_behind(Some(Version::new(7, 2))));
        assert!(matches!(mirror.take(set((7, 2), "a", 2)), Step::Tell(_)), "it is told meanwhile");
        assert!(!mirror.read_below(Version::new(7, 2)));
        assert!(mirror.read_below(Version::new(7, 3)));
        assert!(!mirror.read_below(Version::new(7, 4)), "one read is enough");
    }

    #[test]
    fn what_came_during_a_read_is_told_once_under_one_version() {
        let mut mirror = live(&[online(7, None), set((7, 1), "a", 1)]);
        assert!(mirror.is_behind(Some(Version::new(7, 9))));
        assert!(mirror.read_below(Version::new(7, 9)));
        let stored = mirror.known().cloned();
        mirror.take(set((7, 2), "a", 2));
        mirror.take(set((7, 3), "b", 3));
        let (effects, _) = installed(&mut mirror, stored);
        let [Effect::State { touched, .. }] = &effects[..] else { panic!("{effects:?}") };
        assert_eq!(touched.set.len(), 2);
    }

    #[test]
    fn too_much_during_a_read_is_read_once_more() {
        let mut mirror = live(&[online(7, None)]);
        assert_eq!(mirror.take(set((7, 2), "a", 2)), Step::Read);
        for rev in 3..200 {
            mirror.take(set((7, rev), "a", rev));
        }
        assert!(installed(&mut mirror, None).1);
        assert!(mirror.is_reading());
    }

    #[test]
    fn what_is_kept_during_a_read_is_bounded_in_bytes_and_has_no_hole() {
        let fat = |rev| {
            let value = Json::parse(&format!("\"{}\"", "x".repeat(100_000))).expect("JSON");
            let change = Change::values([(format!("p{rev}").parse().expect("a path"), Some(value))], false);
            Up::State { version: Version::new(7, rev), change, at_ms: 1, ts_ms: None }
        };
        let mut mirror = live(&[online(7, None)]);
        assert_eq!(mirror.take(fat(2)), Step::Read);
        for rev in 3..6 {
            mirror.take(fat(rev));
        }
        // A small one would still fit, but what is between is missing.
        mirror.take(set((7, 6), "a", 6));
        let (_, again) = installed(&mut mirror, None);
        assert!(again && mirror.is_reading(), "read once more");
        assert_eq!(mirror.known().expect("known").version, Version::new(7, 3));
        assert_eq!(mirror.take(set((7, 7), "a", 7)), Step::Tell(vec![]));
    }

    proptest! {
        #[test]
        fn whatever_is_lost_repeated_or_reordered_no_version_goes_back(order in prop::collection::vec(0..12usize, 0..40)) {
            let mut history = vec![online(7, None)];
            history.extend((1..5).map(|rev| set((7, rev), "a", rev)));
            history.push(offline(7, 5));
            history.push(online(8, Some((7, 5))));
            history.extend((1..6).map(|rev| set((8, rev), "a", 10 + rev)));
            let mut mirror = live(&[]);
            let mut last = None;
            for i in order {
                if mirror.take(history[i].clone()) == Step::Read {
                    // The store stands at least where the message was published.
                    installed(&mut mirror, live(&history[..=i]).known().cloned());
                }
                let now = mirror.known().map(|s| s.version);
                prop_assert!(now >= last);
                last = now;
            }
            if last == Some(Version::new(8, 5)) {
                let whole = live(&history);
                prop_assert_eq!(&mirror.known().expect("known").state, &whole.known().expect("known").state);
            }
        }
    }
}
