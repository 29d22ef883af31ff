//! What a gateway's devices are: their kinds, names, units and actions, for people to see and control.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::path::{Path, is_hidden};

/// Longest name or unit, in bytes.
pub const DEVICE_TEXT_BYTES: usize = 128;
/// Most actions of one device.
pub const DEVICE_ACTIONS: usize = 32;

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// On or off.
    Switch,
    /// A level.
    Dimmer,
    /// Locked or not.
    Lock,
    /// A temperature that is held.
    Thermostat,
    /// Counts what is used.
    Meter,
    /// Measures or notices something.
    Sensor,
    /// Rings.
    Bell,
    /// Moves about.
    Position,
    /// Anything else.
    Other,
}

/// One device as its gateway describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// What it is.
    pub kind: Kind,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The unit of its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// What it can be told to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
}

/// All devices of a gateway, by path.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Devices(pub BTreeMap<Path, Device>);

impl Devices {
    /// Says what is wrong with a description, if anything is.
    pub fn check(&self) -> Result<(), String> {
        let text = |s: &str| s.len() <= DEVICE_TEXT_BYTES && !s.is_empty() && !s.chars().any(is_hidden);
        for (path, device) in &self.0 {
            let names = device.name.iter().chain(&device.unit).chain(&device.actions);
            if !names.into_iter().all(|s| text(s)) {
                return Err(format!(
                    "a name, unit or action of {path} is empty, hidden or over {DEVICE_TEXT_BYTES} bytes"
                ));
            }
            if device.actions.len() > DEVICE_ACTIONS {
                return Err(format!("{path} has more than {DEVICE_ACTIONS} actions"));
            }
        }
        Ok(())
    }

    /// Roughly what it holds, in bytes.
    pub fn weight(&self) -> usize {
        let texts = |d: &Device| d.name.iter().chain(&d.unit).chain(&d.actions).map(|s| s.len() + 24).sum::<usize>();
        self.0.iter().map(|(path, d)| path.as_str().len() + 96 + texts(d)).sum()
    }
}
