//! A gateway's state as it is kept: the last value of each path, which of them are stale, what the devices are.

use std::collections::BTreeMap;
use std::ops::Bound::{Included, Unbounded};

use serde::{Deserialize, Serialize};

use crate::change::{Change, Mark};
use crate::devices::Devices;
use crate::json::Json;
use crate::limits::Limits;
use crate::path::Path;
use crate::presence::Presence;
use crate::version::Version;

/// The last value of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// What it is.
    #[serde(rename = "v")]
    pub value: Json,
    /// Whether its device went away since.
    #[serde(rename = "s", default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

/// The values of a gateway, by path.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    /// The last value of each path.
    pub values: BTreeMap<Path, Value>,
    /// What the gateway said its devices are.
    pub devices: Option<Devices>,
}

/// Which limit a change would have broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OverLimit {
    /// Too many paths.
    #[error("more than {0} paths")]
    Paths(usize),
    /// Too many bytes.
    #[error("more than {0} bytes of paths and values")]
    Bytes(usize),
}

/// What happened to a gateway's paths, for those who watch them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Touched {
    /// Paths that were set or deleted.
    pub set: Vec<Path>,
    /// Paths whose value became stale.
    pub stale: Vec<Path>,
    /// Paths whose value became fresh without being set.
    pub fresh: Vec<Path>,
}

impl State {
    /// Bytes of paths and values: what [`Limits::state_bytes`] bounds.
    pub fn bytes(&self) -> usize {
        self.values.iter().map(|(path, v)| path.as_str().len() + v.value.as_str().len()).sum()
    }

    /// Whether the change would keep the state within the limits.
    pub fn admits(&self, change: &Change, limits: &Limits) -> Result<(), OverLimit> {
        let kept = |path: &Path| !change.full && !change.set.contains_key(path);
        let size = |path: &Path, json: &Json| path.as_str().len() + json.as_str().len();
        let old = self.values.iter().filter(|(p, _)| kept(p)).map(|(p, v)| size(p, &v.value));
        let new = change.set.iter().filter_map(|(p, s)| s.value.as_ref().map(|v| size(p, v)));
        let (paths, bytes) = old.chain(new).fold((0, 0), |(n, sum), size| (n + 1, sum + size));
        let described = change.devices.as_ref().map_or(0, |devices| devices.0.len());
        if paths.max(described) > limits.paths {
            return Err(OverLimit::Paths(limits.paths));
        }
        if bytes > limits.state_bytes {
            return Err(OverLimit::Bytes(limits.state_bytes));
        }
        Ok(())
    }

    /// Does what the change says, in the order that [`Change`] gives.
    pub fn apply(&mut self, change: &Change) -> Touched {
        let mut touched = Touched::default();
        if change.full {
            touched.set.extend(std::mem::take(&mut self.values).into_keys().filter(|p| !change.set.contains_key(p)));
        }
        for mark in &change.marks {
            self.mark(mark, &mut touched);
        }
        for (path, set) in &change.set {
            if !set.stale {
                self.freshen_above(path, &mut touched);
            }
            match &set.value {
                Some(value) => {
                    self.values.insert(path.clone(), Value { value: value.clone(), stale: set.stale });
                }
                None => drop(self.values.remove(path)),
            }
            touched.set.push(path.clone());
        }
        if let Some(devices) = &change.devices {
            self.devices = Some(devices.clone());
        }
        touched
    }

    fn mark(&mut self, mark: &Mark, touched: &mut Touched) {
        for (path, value) in &mut self.values {
            let below = path.is_within(&mark.path);
            let above = mark.up && mark.path.is_within(path);
            if (below || above) && value.stale == mark.up {
                value.stale = !mark.up;
                if mark.up { touched.fresh.push(path.clone()) } else { touched.stale.push(path.clone()) }
            }
        }
    }

    fn freshen_above(&mut self, path: &Path, touched: &mut Touched) {
        for above in path.above() {
            if !self.values.get(above).is_some_and(|value| value.stale) {
                continue;
            }
            // Few values have values above them, and few of those are stale.
            if let Some((key, value)) = self.values.range_mut::<str, _>((Included(above), Unbounded)).next() {
                value.stale = false;
                touched.fresh.push(key.clone());
            }
        }
    }
}

/// Everything known of a gateway at one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The position of the state.
    pub version: Version,
    /// When it came to this version, Unix milliseconds on the registry's clock.
    pub at_ms: u64,
    /// Whether a session holds the gateway.
    pub presence: Presence,
    /// The values.
    pub state: State,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::change::Set;

    fn path(s: &str) -> Path {
        s.parse().expect("a path")
    }

    fn json(s: &str) -> Json {
        Json::parse(s).expect("JSON")
    }

    fn paths() -> impl Strategy<Value = Path> {
        prop::sample::select(vec!["a", "a/b", "a/c", "a/b/d", "e", "e/f"]).prop_map(path)
    }

    fn frames() -> impl Strategy<Value = Change> {
        let values = prop::collection::btree_map(paths(), prop::option::of(0..9u8), 0..4);
        prop_oneof![
            4 => (values, prop::bool::weighted(0.1)).prop_map(|(set, full)| {
                Change::values(set.into_iter().map(|(p, v)| (p, v.map(|v| json(&v.to_string())))), full)
            }),
            2 => (paths(), any::<bool>()).prop_map(|(p, up)| Change::mark(p, up)),
        ]
    }

    proptest! {
        #[test]
        fn merged_changes_do_what_they_did_one_by_one(frames in prop::collection::vec(frames(), 0..12), split in 0..12usize) {
            let mut one_by_one = State::default();
            for change in &frames {
                one_by_one.apply(change);
            }
            let mut merged = State::default();
            for group in [&frames[..split.min(frames.len())], &frames[split.min(frames.len())..]] {
                let mut sum = Change::default();
                for change in group {
                    sum.merge(change.clone()).expect("few marks");
                }
                merged.apply(&sum);
            }
            prop_assert_eq!(one_by_one, merged);
        }

        #[test]
        fn a_stale_value_has_no_fresh_one_below_it(frames in prop::collection::vec(frames(), 0..12)) {
            let mut state = State::default();
            for change in &frames {
                state.apply(change);
                for (p, v) in &state.values {
                    let fresh_below = state.values.iter().any(|(q, w)| q != p && q.is_within(p) && !w.stale);
                    prop_assert!(!(v.stale && fresh_below), "{p}");
                }
            }
        }

        #[test]
        fn what_is_told_as_touched_is_what_differs(frames in prop::collection::vec(frames(), 1..12)) {
            let mut state = State::default();
            for change in &frames {
                let before = state.clone();
                let touched = state.apply(change);
                for p in before.values.keys().chain(state.values.keys()) {
                    let told = touched.set.contains(p) || touched.stale.contains(p) || touched.fresh.contains(p);
                    prop_assert!(told || before.values.get(p) == state.values.get(p), "{p}");
                }
            }
        }
    }

    #[test]
    fn limits_count_what_would_be_there_afterwards() {
        let limits = Limits { paths: 2, state_bytes: 10, ..Limits::default() };
        let mut state = State::default();
        state.apply(&Change::values([(path("a"), Some(json("1"))), (path("b"), Some(json("2")))], false));
        let third = Change::values([(path("c"), Some(json("3")))], false);
        assert_eq!(state.admits(&third, &limits), Err(OverLimit::Paths(2)));
        let swap = Change::values([(path("c"), Some(json("3"))), (path("a"), None)], false);
        assert_eq!(state.admits(&swap, &limits), Ok(()));
        let fat = Change::values([(path("a"), Some(json("12345678")))], false);
        assert_eq!(state.admits(&fat, &limits), Err(OverLimit::Bytes(10)));
        let full = Change::values([(path("a"), Some(json("12345678")))], true);
        assert_eq!(state.admits(&full, &limits), Ok(()));
    }

    #[test]
    fn a_value_set_after_its_device_left_is_fresh() {
        let mut state = State::default();
        state.apply(&Change::values([(path("k/l"), Some(json("1"))), (path("k/t"), Some(json("2")))], false));
        assert_eq!(state.apply(&Change::mark(path("k"), false)).stale, [path("k/l"), path("k/t")]);
        state.apply(&Change::values([(path("k/l"), Some(json("3")))], false));
        assert!(!state.values[&path("k/l")].stale);
        assert!(state.values[&path("k/t")].stale);
        let mut set_then_down = Change::values([(path("k/l"), Some(json("4")))], false);
        set_then_down.merge(Change::mark(path("k"), false)).expect("one mark");
        assert_eq!(set_then_down.set[&path("k/l")], Set { value: Some(json("4")), stale: true });
    }
}
