//! A result as tables of medians.

use std::fmt::Write as _;

use super::{aligned, number};
use crate::result::{Results, Summary, does};

/// Everything that was found.
pub(crate) fn all(results: &Results) -> String {
    let summaries = results.summaries();
    // Writing to a string cannot fail, here and below.
    let mut out = String::new();
    let mut scenarios: Vec<&str> = summaries.iter().map(|s| s.scenario.as_str()).collect();
    scenarios.dedup();
    for scenario in scenarios {
        let rows: Vec<&Summary> = summaries.iter().filter(|s| s.scenario == scenario).collect();
        let _ = writeln!(out, "\n{scenario} (medians of {} rounds)", rows[0].runs.len());
        out.push_str(&aligned(&cells(&rows)));
        for row in rows {
            for note in row.notes() {
                let _ = writeln!(out, "  {}, {}: {note}", row.variant, row.subject);
            }
        }
    }
    out.push_str(&subjects(results));
    out
}

/// What subjects do, and which are missing.
fn subjects(results: &Results) -> String {
    let mut out = String::from("\n");
    let mut names: Vec<&str> =
        results.runs.iter().map(|run| run.subject.split(' ').next().unwrap_or_default()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let _ = writeln!(out, "{name}: {}", does(name));
    }
    for (name, why) in &results.missing {
        let _ = writeln!(out, "{name} is missing: {why}");
    }
    out
}

/// A scenario's table with its head.
pub(crate) fn cells(summaries: &[&Summary]) -> Vec<Vec<String>> {
    let mut names: Vec<&str> = summaries.iter().flat_map(|summary| summary.names()).collect();
    names.sort_unstable();
    names.dedup();
    let timed = summaries.iter().any(|summary| summary.latency(0.5).is_some());
    let times: &[(f64, &str)] = if timed { &[(0.5, "p50 µs"), (0.99, "p99 µs"), (0.999, "p99.9 µs")] } else { &[] };
    let mut head = vec!["variant".to_owned(), "subject".to_owned()];
    head.extend(names.iter().map(|name| name.replace('_', " ")));
    head.extend(times.iter().map(|(_, title)| (*title).to_owned()));
    head.extend(["generator cores".to_owned(), "its lateness p99 µs".to_owned()]);
    let shown = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), number);
    let mut rows = vec![head];
    for summary in summaries {
        let mut row = vec![summary.variant.clone(), summary.subject.clone()];
        row.extend(names.iter().map(|name| shown(summary.figure(name))));
        row.extend(times.iter().map(|(quantile, _)| shown(summary.latency(*quantile))));
        let last = summary.runs.iter().rev().find_map(|run| run.generator.as_ref());
        row.push(shown(last.map(|generator| generator.cores)));
        row.push(last.map_or_else(|| "–".to_owned(), |generator| generator.late_us[0].to_string()));
        rows.push(row);
    }
    rows
}
