//! What the tests of the program have in common: a folder for each, and looking into results. What is asserted is what was
//! counted, and never a time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

/// The program.
pub(crate) const LOADTEST: &str = env!("CARGO_BIN_EXE_riser-loadtest");

/// A folder for one test.
pub(crate) fn folder(test: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("smoke-{test}"));
    // Of an earlier run.
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a folder");
    path
}

pub(crate) fn told(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// The runs in the result that a folder holds. None of them has anything to note.
pub(crate) fn runs(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("loadtest.json")).expect("a result");
    let result: Value = serde_json::from_str(&text).expect("JSON");
    let runs = result["runs"].as_array().expect("runs").clone();
    for run in &runs {
        assert_eq!(run["notes"], serde_json::json!([]), "{run}");
    }
    runs
}

/// A figure of all runs that have it, by subject and variant.
pub(crate) fn figures(runs: &[Value], name: &str) -> BTreeMap<String, f64> {
    let figure = |run: &Value| {
        let value = run["figures"][name].as_f64()?;
        Some((format!("{}, {}", run["subject"].as_str()?, run["variant"].as_str()?), value))
    };
    runs.iter().filter_map(figure).collect()
}

/// Asserts that a figure is zero in so many runs.
pub(crate) fn none(runs: &[Value], name: &str, count: usize) {
    let figures = figures(runs, name);
    assert_eq!(figures.len(), count, "{name}: {figures:?}");
    assert!(figures.values().all(|value| *value == 0.0), "{name}: {figures:?}");
}

/// How many answers or deliveries were measured in all.
pub(crate) fn measured(runs: &[Value]) -> Vec<u64> {
    runs.iter().map(|run| run["latency"]["count"].as_u64().unwrap_or(0)).collect()
}
