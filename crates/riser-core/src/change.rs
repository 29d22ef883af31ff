//! A change of a gateway's state: what one revision does, and how changes that wait merge into one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::devices::Devices;
use crate::json::Json;
use crate::path::Path;

/// Most device marks that one change keeps; a burst of more is applied in several changes.
pub const CHANGE_MARKS: usize = 256;

/// A device, and all below it, that went away or came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The device.
    pub path: Path,
    /// Whether it is there.
    pub up: bool,
}

/// What one path is set to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// The new value; none deletes the path.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Json>,
    /// Whether its device went away after it was set, within the same change.
    #[serde(rename = "s", default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

/// What one revision does to a gateway's state, in this order: `full` clears the values, the marks make values
/// stale or fresh, each set replaces one value (fresh, unless it says otherwise), and `devices` replaces the
/// description. Setting or deleting a value, or bringing a device back, makes the values on the way up fresh
/// too, so that a stale path always stands for all below it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Change {
    /// Whether everything known before is replaced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub full: bool,
    /// Devices that went away or came back, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<Mark>,
    /// New values by path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<Path, Set>,
    /// A new description of the devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<Devices>,
}

impl Change {
    /// A change that sets values; none deletes.
    pub fn values(set: impl IntoIterator<Item = (Path, Option<Json>)>, full: bool) -> Self {
        let set = set.into_iter().map(|(path, value)| (path, Set { value, stale: false })).collect();
        Self { full, set, ..Self::default() }
    }

    /// A change that marks one device.
    pub fn mark(path: Path, up: bool) -> Self {
        Self { marks: vec![Mark { path, up }], ..Self::default() }
    }

    /// A change that describes the devices anew.
    pub fn describe(devices: Devices) -> Self {
        Self { devices: Some(devices), ..Self::default() }
    }

    /// Roughly what the change holds, in bytes, to bound what waits.
    pub fn weight(&self) -> usize {
        let sets =
            self.set.iter().map(|(p, s)| p.as_str().len() + s.value.as_ref().map_or(0, |v| v.as_str().len()) + 64);
        let marks = self.marks.iter().map(|m| m.path.as_str().len() + 32);
        let devices = self.devices.as_ref().map_or(0, Devices::weight);
        sets.sum::<usize>() + marks.sum::<usize>() + devices
    }

    /// Makes this change do what it and then `later` would have done. Gives `later` back when the two together
    /// would hold more marks than a change may.
    pub fn merge(&mut self, later: Change) -> Result<(), Change> {
        if later.full {
            let devices = later.devices.clone().or_else(|| self.devices.take());
            *self = Change { devices, ..later };
            return Ok(());
        }
        let mut marks = self.marks.clone();
        for mark in &later.marks {
            // A mark undoes what earlier ones said of the same device and of all below it. Only a device that
            // came back and left again keeps both, because its coming back made what stands above it fresh.
            marks.retain(|m| !m.path.is_within(&mark.path) || (m.up && !mark.up));
            if !mark.up && self.set.iter().any(|(path, set)| !set.stale && path.is_within(&mark.path)) {
                marks.push(Mark { path: mark.path.clone(), up: true });
            }
            marks.push(mark.clone());
        }
        if marks.len() > CHANGE_MARKS {
            return Err(later);
        }
        self.marks = marks;
        for mark in &later.marks {
            self.remark(mark);
        }
        for (path, set) in later.set {
            if !set.stale {
                self.freshen_above(&path);
            }
            self.set.insert(path, set);
        }
        self.devices = later.devices.or_else(|| self.devices.take());
        Ok(())
    }

    /// What a later mark does to the values that this change sets.
    fn remark(&mut self, mark: &Mark) {
        for (path, set) in &mut self.set {
            if path.is_within(&mark.path) {
                set.stale = !mark.up;
            } else if mark.up && mark.path.is_within(path) {
                set.stale = false;
            }
        }
    }

    fn freshen_above(&mut self, path: &Path) {
        for above in path.above() {
            if let Some(set) = self.set.get_mut(above) {
                set.stale = false;
            }
        }
    }
}
