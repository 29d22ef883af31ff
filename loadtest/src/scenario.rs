//! Scenarios as files: the built-in ones are those in `loadtest/scenarios`, and any other file can be named.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use toml::{Table, Value};

use crate::run::Plan;

/// The built-in scenarios, in the order in which `all` runs them.
const BUILT_IN: [(&str, &str); 10] = [
    ("idle", include_str!("../scenarios/idle.toml")),
    ("ingest", include_str!("../scenarios/ingest.toml")),
    ("fanout", include_str!("../scenarios/fanout.toml")),
    ("state", include_str!("../scenarios/state.toml")),
    ("building", include_str!("../scenarios/building.toml")),
    ("command", include_str!("../scenarios/command.toml")),
    ("storm", include_str!("../scenarios/storm.toml")),
    ("slow", include_str!("../scenarios/slow.toml")),
    ("noisy", include_str!("../scenarios/noisy.toml")),
    ("poll", include_str!("../scenarios/poll.toml")),
];

/// A scenario that can be run.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    /// Its name in results.
    pub(crate) name: String,
    /// What it is about, in a line.
    pub(crate) about: String,
    /// What it does.
    pub(crate) plan: Plan,
}

/// What changes a scenario.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    /// Use the file's tiny sizes.
    pub(crate) smoke: bool,
    /// Parameters as `name=value`, with values as in TOML.
    pub(crate) set: Vec<String>,
}

/// All built-in scenarios.
pub(crate) fn all(changes: &Changes) -> Result<Vec<Scenario>> {
    BUILT_IN.iter().map(|(name, text)| parse(name, text, changes)).collect()
}

/// A built-in scenario by its name, or a file by its path.
pub(crate) fn find(name: &str, changes: &Changes) -> Result<Scenario> {
    if let Some((name, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
        return parse(name, text, changes);
    }
    let path = Path::new(name);
    if path.extension().is_none_or(|ending| ending != "toml") {
        let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
        bail!("there is no scenario {name:?}; there are {}, and files that end in .toml", names.join(", "));
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {name}"))?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    parse(&stem, &text, changes)
}

fn parse(name: &str, text: &str, changes: &Changes) -> Result<Scenario> {
    let mut table: Table = toml::from_str(text).with_context(|| format!("scenario {name} is not TOML"))?;
    let smoke = table.remove("smoke");
    if changes.smoke {
        let Some(Value::Table(smoke)) = smoke else { bail!("scenario {name} has no [smoke] sizes") };
        table.extend(smoke);
    }
    for change in &changes.set {
        let (key, value) = change.split_once('=').with_context(|| format!("{change:?} is not name=value"))?;
        if !table.contains_key(key) {
            bail!("scenario {name} has no parameter {key:?}");
        }
        let value: Table =
            toml::from_str(&format!("v = {value}")).with_context(|| format!("{change:?}: the value is not TOML"))?;
        table.extend(value.into_iter().map(|(_, value)| (key.to_owned(), value)));
    }
    let Some(Value::String(about)) = table.remove("about") else {
        bail!("scenario {name} does not say what it is about");
    };
    let plan = table.try_into().with_context(|| format!("scenario {name}"))?;
    Ok(Scenario { name: name.to_owned(), about, plan })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_scenario_is_understood_in_both_sizes() {
        for smoke in [false, true] {
            let all = all(&Changes { smoke, set: Vec::new() }).expect("good scenarios");
            assert_eq!(all.len(), BUILT_IN.len());
            assert!(all.iter().all(|scenario| scenario.plan.steps() > 0));
        }
    }

    #[test]
    fn a_parameter_can_be_set_and_a_wrong_one_is_told() {
        let set = |change: &str| find("storm", &Changes { smoke: false, set: vec![change.into()] });
        let Plan::Storm(plan) = set("sessions=12").expect("good").plan else { panic!("another kind") };
        assert_eq!(plan.sessions, 12);
        for bad in ["sessions", "session=12", "sessions=many", "sessions=\"12\""] {
            assert!(set(bad).is_err(), "{bad}");
        }
        assert!(find("stormy", &Changes::default()).is_err());
    }
}
