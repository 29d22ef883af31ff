//! The budgets: what may be at most, what was measured, and what a peer took in the same run.

use std::fmt::Write as _;

use super::{aligned, number};
use crate::result::{Results, Summary};

/// A line of the table.
struct Line {
    what: String,
    /// The greatest value that keeps it; none for what is only told.
    budget: Option<f64>,
    /// What the budget is called.
    said: String,
    measured: Option<f64>,
    peer: Option<(String, f64)>,
}

/// The table, and whether every budget that was measured is kept.
pub(crate) fn table(results: &Results) -> (String, bool) {
    let lines = lines(results);
    let mut rows = vec![["what", "budget", "measured", "peer", "ratio", "verdict"].map(str::to_owned).to_vec()];
    let mut kept = true;
    for line in &lines {
        let verdict = match (line.budget, line.measured) {
            (_, None) => "not measured",
            (None, Some(_)) => "told",
            (Some(most), Some(value)) if value <= most => "kept",
            _ => {
                kept = false;
                "MISSED"
            }
        };
        let ratio = match (&line.peer, line.measured) {
            (Some((_, peer)), Some(value)) if *peer > 0.0 => format!("{:.2}", value / peer),
            _ => "–".into(),
        };
        let peer = line.peer.as_ref().map_or_else(|| "–".into(), |(name, value)| format!("{} {name}", number(*value)));
        let measured = line.measured.map_or_else(|| "–".into(), number);
        rows.push(vec![line.what.clone(), line.said.clone(), measured, peer, ratio, verdict.to_owned()]);
    }
    let mut text = aligned(&rows);
    text.push_str(
        "\nNot measured here, because they need NATS and Redis: state through two edges, and the command round trip.\n",
    );
    for (name, why) in &results.missing {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name} is missing: {why}");
    }
    (text, kept)
}

fn lines(results: &Results) -> Vec<Line> {
    let all = results.summaries();
    let mut lines = vec![idle(&all)];
    lines.extend(fanout(&all));
    lines.extend(storm(&all));
    lines.extend(slow(&all));
    lines.push(crowd(&all, "cpu_us_per_frame", "CPU per frame"));
    let above = crowd(&all, "cpu_us_per_frame_above_rest", "the same, less the CPU of rest");
    lines.push(Line { budget: None, said: "–".into(), ..above });
    lines.extend(poll(&all));
    lines
}

fn of<'a>(all: &'a [Summary], scenario: &'a str) -> impl Iterator<Item = &'a Summary> {
    all.iter().filter(move |summary| summary.scenario == scenario)
}

fn told(what: impl Into<String>, measured: Option<f64>, peer: Option<(String, f64)>) -> Line {
    Line { what: what.into(), budget: None, said: "–".into(), measured, peer }
}

fn at_most(what: impl Into<String>, most: f64, measured: Option<f64>) -> Line {
    Line { what: what.into(), budget: Some(most), said: format!("≤ {}", number(most)), measured, peer: None }
}

fn idle(all: &[Summary]) -> Line {
    let bytes = |subject: &str| of(all, "idle").find(|s| s.subject == subject)?.figure("bytes_per_session");
    let peer = bytes("uws").map(|value| ("uws".into(), value));
    Line { peer, ..at_most("idle gateway session, bytes", 4_096.0, bytes("riser")) }
}

/// A line for each variant, for each of Riser's ways.
fn fanout(all: &[Summary]) -> Vec<Line> {
    let mut lines = Vec::new();
    for riser in of(all, "fanout").filter(|s| s.subject.starts_with("riser")) {
        let peer = of(all, "fanout").find(|s| s.subject == "uws" && s.variant == riser.variant);
        let peer = peer.and_then(|s| s.figure("cpu_us_per_delivery"));
        let way = if riser.subject == "riser" { "state" } else { "live" };
        lines.push(Line {
            what: format!("fan-out {}, {way}, CPU µs per delivery", riser.variant),
            budget: peer,
            said: "≤ uWebSockets".into(),
            measured: riser.figure("cpu_us_per_delivery"),
            peer: peer.map(|value| ("uws".into(), value)),
        });
        if let Some(encodings) = riser.figure("encodings_per_frame") {
            lines.push(at_most(format!("fan-out {}, encodings of a frame", riser.variant), 1.0, Some(encodings)));
        }
    }
    lines
}

fn storm(all: &[Summary]) -> Vec<Line> {
    let mut lines = Vec::new();
    for summary in of(all, "storm") {
        let what = |what: &str| format!("storm, {}: {what}", summary.variant);
        lines.push(at_most(what("CPU µs per session"), 200.0, summary.figure("cpu_us_per_session")));
        lines.push(at_most(what("refused without Retry-After"), 0.0, summary.figure("refused_without")));
        lines.push(at_most(what("not online in the end"), 0.0, summary.figure("not_online_in_the_end")));
        lines.push(at_most(what("lost afterwards"), 0.0, summary.figure("lost_afterwards")));
    }
    lines
}

fn slow(all: &[Summary]) -> Vec<Line> {
    let mut lines = Vec::new();
    for summary in of(all, "slow") {
        let what = |what: &str| format!("{}: {what}", summary.variant);
        // What may wait in a connection's queue before it is ended, and what it watches.
        let most = 2.0 * 1024.0 * 1024.0;
        lines.push(at_most(what("bytes per stopped listener"), most, summary.figure("peak_bytes_per_stopped")));
        lines.push(at_most(what("last values that are wrong"), 0.0, summary.figure("last_values_wrong")));
    }
    lines
}

/// What sessions at rest cost a frame: the most beside the fewest of them.
fn crowd(all: &[Summary], figure: &str, title: &str) -> Line {
    let mut beside: Vec<(u32, f64)> = of(all, "ingest")
        .filter(|s| s.subject == "riser")
        .filter_map(|s| Some((s.variant.split(' ').next()?.parse().ok()?, s.figure(figure)?)))
        .filter(|(idle, _)| *idle > 0)
        .collect();
    beside.sort_unstable_by_key(|(idle, _)| *idle);
    let (few, many) = match beside.as_slice() {
        [few, .., many] => (*few, *many),
        _ => return at_most(format!("{title}, beside many sessions at rest"), 1.1, None),
    };
    let ratio = (few.1 > 0.0).then(|| many.1 / few.1);
    at_most(format!("{title}, beside {} sessions at rest, to {}", many.0, few.0), 1.1, ratio)
}

fn poll(all: &[Summary]) -> Vec<Line> {
    let mut lines = Vec::new();
    let Some(socket) = of(all, "poll").find(|s| s.variant.contains("socket")) else { return lines };
    for asks in of(all, "poll").filter(|s| s.variant.starts_with("asks")) {
        for (figure, unit) in [("bytes_per_command", "bytes"), ("cpu_us_per_command", "CPU µs")] {
            let peer = asks.figure(figure).map(|value| (asks.variant.clone(), value));
            lines.push(told(format!("socket instead of polling, {unit} per command"), socket.figure(figure), peer));
        }
        let peer = asks.latency(0.5).map(|value| (asks.variant.clone(), value));
        lines.push(told("socket instead of polling, median delay µs", socket.latency(0.5), peer));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Run;

    fn results(figures: &[(&str, &str, &str, &str, f64)]) -> Results {
        let mut results = Results::new();
        for (scenario, variant, subject, figure, value) in figures {
            let mut run = Run::new(scenario, *variant, *subject, 1);
            run.figure(figure, *value);
            results.runs.push(run);
        }
        results
    }

    #[test]
    fn a_budget_is_missed_only_when_it_was_measured_to_be() {
        let kept = results(&[("idle", "at rest", "riser", "bytes_per_session", 3_000.0)]);
        let (text, good) = table(&kept);
        assert!(good && text.contains("kept") && text.contains("not measured"), "{text}");
        let (text, good) = table(&results(&[("idle", "at rest", "riser", "bytes_per_session", 5_000.0)]));
        assert!(!good && text.contains("MISSED"), "{text}");
    }

    #[test]
    fn the_peer_of_the_same_variant_is_the_budget() {
        let fanout = |riser: f64, uws: f64| {
            table(&results(&[
                ("fanout", "10 × 1", "riser", "cpu_us_per_delivery", riser),
                ("fanout", "10 × 8", "uws", "cpu_us_per_delivery", 0.1),
                ("fanout", "10 × 1", "uws", "cpu_us_per_delivery", uws),
            ]))
        };
        assert!(fanout(4.0, 5.0).1);
        assert!(!fanout(5.0, 4.0).1);
        assert!(fanout(5.0, 4.0).0.contains("1.25"));
    }

    #[test]
    fn a_crowd_is_compared_with_the_smallest_one() {
        let crowd = |many: f64| {
            table(&results(&[
                ("ingest", "16000 rest", "riser", "cpu_us_per_frame", many),
                ("ingest", "0 rest", "riser", "cpu_us_per_frame", 1.0),
                ("ingest", "1000 rest", "riser", "cpu_us_per_frame", 10.0),
            ]))
        };
        assert!(crowd(10.9).1);
        assert!(!crowd(11.1).1);
    }
}
