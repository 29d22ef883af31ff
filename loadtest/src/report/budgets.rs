//! The budgets: what may be at most, what was measured, and what a peer took in the same run.

use std::fmt::Write as _;

use super::{aligned, number, sizing};
use crate::result::{Results, Summary};
use crate::run;

/// A line of the table.
struct Line {
    what: String,
    /// The greatest value that keeps it; none for what is only told.
    budget: Option<f64>,
    /// What the budget is called.
    said: String,
    measured: Option<f64>,
    peer: Option<(String, f64)>,
    /// Which scenario measures it.
    scenario: &'static str,
}

/// The table, and whether every budget that was measured is kept.
pub(crate) fn table(results: &Results) -> (String, bool) {
    let lines = lines(results);
    let mut rows = vec![["what", "budget", "measured", "peer", "ratio", "verdict"].map(str::to_owned).to_vec()];
    let mut kept = true;
    for line in &lines {
        let verdict = match (line.budget, line.measured) {
            (_, None) => format!("not measured: {}", why(results, line)),
            (None, Some(_)) if line.said == NOTHING => "told".into(),
            (None, Some(_)) => "not compared: the peer is missing".into(),
            (Some(most), Some(value)) if value <= most => "kept".into(),
            _ => {
                kept = false;
                "MISSED".into()
            }
        };
        let ratio = match (&line.peer, line.measured) {
            (Some((_, peer)), Some(value)) if *peer > 0.0 => format!("{:.2}", value / peer),
            _ => "–".into(),
        };
        let peer = line.peer.as_ref().map_or_else(|| "–".into(), |(name, value)| format!("{} {name}", number(*value)));
        let measured = line.measured.map_or_else(|| "–".into(), number);
        rows.push(vec![line.what.clone(), line.said.clone(), measured, peer, ratio, verdict]);
    }
    let mut text = aligned(&rows);
    text.push_str(&sizing::table(&results.summaries()));
    text.push('\n');
    for (name, why) in &results.missing {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name} is missing: {why}");
    }
    (text, kept)
}

/// Why nothing was measured.
fn why(results: &Results, line: &Line) -> String {
    if !results.runs.iter().any(|run| run.scenario == line.scenario) {
        return format!("`{}` was not run", line.scenario);
    }
    // What else a scenario needs than the subject that is started for it.
    let needs = if matches!(line.scenario, "state" | "command") { "cluster" } else { "riser" };
    results.missing.get(needs).map_or_else(|| "it was not among what was run".into(), Clone::clone)
}

fn lines(results: &Results) -> Vec<Line> {
    let all = results.summaries();
    let mut lines = vec![idle(&all), state(&all)];
    lines.extend(command(&all));
    lines.extend(fanout(&all));
    lines.extend(storm(&all));
    lines.extend(slow(&all));
    lines.push(crowd(&all, "cpu_us_per_frame", "CPU per frame"));
    let above = crowd(&all, "cpu_us_per_frame_above_rest", "the same, less the CPU of rest");
    lines.push(Line { budget: None, said: NOTHING.into(), ..above });
    lines.extend(noisy(&all));
    lines.extend(poll(&all));
    lines
}

/// What stands where there is no budget.
const NOTHING: &str = "–";

fn of<'a>(all: &'a [Summary], scenario: &'a str) -> impl Iterator<Item = &'a Summary> {
    all.iter().filter(move |summary| summary.scenario == scenario)
}

/// Riser, in whichever of its ways was measured.
pub(super) fn is_riser(summary: &Summary) -> bool {
    matches!(summary.subject.split(' ').next(), Some("riser" | "cluster" | "given"))
}

fn told(scenario: &'static str, what: impl Into<String>, measured: Option<f64>, peer: Option<(String, f64)>) -> Line {
    Line { what: what.into(), budget: None, said: NOTHING.into(), measured, peer, scenario }
}

fn at_most(scenario: &'static str, what: impl Into<String>, most: f64, measured: Option<f64>) -> Line {
    Line { budget: Some(most), said: format!("≤ {}", number(most)), ..told(scenario, what, measured, None) }
}

/// At most so many times what a peer takes.
fn times(
    scenario: &'static str,
    what: impl Into<String>,
    (most, name): (f64, &str),
    measured: Option<f64>,
    peer: Option<f64>,
) -> Line {
    let said = if most > 1.0 { format!("≤ {most} × {name}") } else { format!("≤ {name}") };
    let peer = peer.map(|value| (name.to_owned(), value));
    Line { budget: peer.as_ref().map(|(_, value)| most * value), said, ..told(scenario, what, measured, peer) }
}

fn idle(all: &[Summary]) -> Line {
    let bytes = |s: &Summary| s.figure("bytes_per_session");
    let riser = of(all, "idle").find(|s| is_riser(s)).and_then(bytes);
    let peer = of(all, "idle").find(|s| s.subject == "uws").and_then(bytes).map(|value| ("uws".into(), value));
    Line { peer, ..at_most("idle", "idle gateway session, bytes", 4_096.0, riser) }
}

/// The p99 of a variant of those subjects.
fn p99(all: &[Summary], scenario: &str, variant: &str, is_one: impl Fn(&Summary) -> bool) -> Option<f64> {
    of(all, scenario).find(|s| s.variant == variant && is_one(s))?.latency(0.99)
}

fn on_stores(summary: &Summary) -> bool {
    matches!(&*summary.subject, "cluster" | "given")
}

fn is_stores(summary: &Summary) -> bool {
    summary.subject == "stores"
}

fn state(all: &[Summary]) -> Line {
    let riser = p99(all, "state", run::state::TWO_EDGES, on_stores);
    let stores = p99(all, "state", run::state::BOTH, is_stores);
    times("state", "state through two edges, p99 µs", (2.0, "request/reply + script"), riser, stores)
}

fn command(all: &[Summary]) -> Vec<Line> {
    let riser = p99(all, "command", run::command::TWO_EDGES, on_stores);
    let look = p99(all, "command", run::command::LOOK, is_stores);
    let record = p99(all, "command", run::command::RECORD, is_stores);
    let what = "command round trip through two edges, p99 µs";
    vec![
        times("command", what, (3.0, "request/reply + script"), riser, look),
        told(
            "command",
            "the same, to a record that is made",
            riser,
            record.map(|us| ("request/reply + record".into(), us)),
        ),
    ]
}

/// A line for each variant, for each of Riser's ways.
fn fanout(all: &[Summary]) -> Vec<Line> {
    let mut lines = Vec::new();
    for riser in of(all, "fanout").filter(|s| is_riser(s)) {
        let peer = of(all, "fanout").find(|s| s.subject == "uws" && s.variant == riser.variant);
        let peer = peer.and_then(|s| s.figure("cpu_us_per_delivery"));
        let way = if riser.subject.ends_with("live") { "live" } else { "state" };
        let what = format!("fan-out {}, {way}, CPU µs per delivery", riser.variant);
        lines.push(times("fanout", what, (1.0, "uWebSockets"), riser.figure("cpu_us_per_delivery"), peer));
        if let Some(encodings) = riser.figure("encodings_per_frame") {
            let what = format!("fan-out {}, encodings of a frame", riser.variant);
            lines.push(at_most("fanout", what, 1.0, Some(encodings)));
        }
    }
    if lines.is_empty() {
        let what = "fan-out to 10 000, CPU µs per delivery";
        lines.push(times("fanout", what, (1.0, "uWebSockets"), None, None));
        lines.push(at_most("fanout", "fan-out to 10 000, encodings of a frame", 1.0, None));
    }
    lines
}

fn storm(all: &[Summary]) -> Vec<Line> {
    let line = |variant: &str, what: &str, most, measured| {
        at_most("storm", format!("storm, {variant}: {what}"), most, measured)
    };
    let mut lines = Vec::new();
    for summary in of(all, "storm") {
        let variant = &summary.variant;
        lines.push(line(variant, "CPU µs per session", 200.0, summary.figure("cpu_us_per_session")));
        lines.push(line(variant, "refused without Retry-After", 0.0, summary.figure("refused_without")));
        lines.push(line(variant, "not online in the end", 0.0, summary.figure("not_online_in_the_end")));
        lines.push(line(variant, "lost afterwards", 0.0, summary.figure("lost_afterwards")));
    }
    if lines.is_empty() {
        lines.push(line("any", "CPU µs per session", 200.0, None));
        lines.push(line("any", "refused without Retry-After", 0.0, None));
    }
    lines
}

fn slow(all: &[Summary]) -> Vec<Line> {
    // What may wait in a connection's queue before it is ended, and what it watches.
    let most = 2.0 * 1024.0 * 1024.0;
    let lines = |variant: &str, summary: Option<&Summary>| {
        let figure = |name: &str| summary.and_then(|s| s.figure(name));
        [
            at_most("slow", format!("{variant}: bytes per stopped listener"), most, figure("peak_bytes_per_stopped")),
            at_most("slow", format!("{variant}: last values that are wrong"), 0.0, figure("last_values_wrong")),
        ]
    };
    let measured: Vec<_> = of(all, "slow").flat_map(|summary| lines(&summary.variant, Some(summary))).collect();
    if measured.is_empty() { lines("listeners that read nothing for 60 s", None).into() } else { measured }
}

/// What sessions at rest cost a frame: the most beside the fewest of them.
fn crowd(all: &[Summary], figure: &str, title: &str) -> Line {
    let mut beside: Vec<(u32, f64)> = of(all, "ingest")
        .filter(|s| is_riser(s))
        .filter_map(|s| Some((s.variant.split(' ').next()?.parse().ok()?, s.figure(figure)?)))
        .filter(|(idle, _)| *idle > 0)
        .collect();
    beside.sort_unstable_by_key(|(idle, _)| *idle);
    let (few, many) = match beside.as_slice() {
        [few, .., many] => (*few, *many),
        _ => return at_most("ingest", format!("{title}, beside many sessions at rest"), 1.1, None),
    };
    let ratio = (few.1 > 0.0).then(|| many.1 / few.1);
    at_most("ingest", format!("{title}, beside {} sessions at rest, to {}", many.0, few.0), 1.1, ratio)
}

fn noisy(all: &[Summary]) -> Vec<Line> {
    let p99 = |variant| p99(all, "noisy", variant, is_riser);
    let to = |peer: &'static str, label: &'static str| {
        let peer = p99(peer).map(|value| (label.to_owned(), value));
        peer.into_iter().flat_map(move |peer| {
            [run::noisy::BESIDE_ANOTHER, run::noisy::BESIDE_ITS_OWN].into_iter().filter_map(move |variant| {
                let what = format!("a quiet tenant {variant}, p99 µs");
                Some(told("noisy", what, Some(p99(variant)?), Some(peer.clone())))
            })
        })
    };
    to(run::noisy::ALONE, "alone").chain(to(run::noisy::BESIDE_ELSEWHERE, "noise elsewhere")).collect()
}

fn poll(all: &[Summary]) -> Vec<Line> {
    let mut lines = Vec::new();
    let Some(socket) = of(all, "poll").find(|s| s.variant.contains("socket")) else { return lines };
    for asks in of(all, "poll").filter(|s| s.variant.starts_with("asks")) {
        for (figure, unit) in [("bytes_per_command", "bytes"), ("cpu_us_per_command", "CPU µs")] {
            let peer = asks.figure(figure).map(|value| (asks.variant.clone(), value));
            let what = format!("socket instead of polling, {unit} per command");
            lines.push(told("poll", what, socket.figure(figure), peer));
        }
        let peer = asks.latency(0.5).map(|value| (asks.variant.clone(), value));
        lines.push(told("poll", "socket instead of polling, median delay µs", socket.latency(0.5), peer));
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
    fn every_budget_has_a_line_also_when_nothing_was_run() {
        let (text, good) = table(&Results::new());
        let begins = [
            "idle gateway session",
            "state through two edges",
            "command round trip through two edges",
            "fan-out to 10 000, CPU",
            "fan-out to 10 000, encodings",
            "storm, any: CPU",
            "storm, any: refused",
            "listeners that read nothing for 60 s: bytes",
            "listeners that read nothing for 60 s: last values",
            "CPU per frame, beside many sessions at rest",
        ];
        for begin in begins {
            let line = text.lines().find(|line| line.starts_with(begin)).unwrap_or_default();
            assert!(line.contains("not measured: `"), "{begin}: {text}");
        }
        assert!(good);
    }

    #[test]
    fn latencies_over_two_edges_are_compared_with_the_stores_alone() {
        let latency = |us: u64| crate::result::Latency::of(&[(us, 100)]);
        let table = |riser: u64| {
            let mut results = Results::new();
            let runs = [
                ("state", run::state::TWO_EDGES, "cluster", riser),
                ("state", run::state::BOTH, "stores", 500),
                ("state", "script", "stores", 100),
                ("command", run::command::TWO_EDGES, "riser", 1),
                ("command", run::command::TWO_EDGES, "cluster", riser),
                ("command", run::command::LOOK, "stores", 400),
                ("command", run::command::RECORD, "stores", 600),
            ];
            for (scenario, variant, subject, us) in runs {
                let mut run = Run::new(scenario, variant, subject, 1);
                run.latency = latency(us);
                results.runs.push(run);
            }
            table(&results)
        };
        assert!(table(1_000).1, "{}", table(1_000).0);
        assert!(table(1_000).0.contains("2.50"), "{}", table(1_000).0);
        assert!(!table(1_100).1, "more than twice what a state is compared with");
        assert!(!table(1_300).1, "more than thrice what a command is compared with");
    }

    #[test]
    fn what_is_compared_with_a_missing_peer_is_not_told_as_kept() {
        let (text, good) = table(&results(&[("fanout", "10 × 1", "riser", "cpu_us_per_delivery", 4.0)]));
        assert!(good && text.contains("not compared: the peer is missing"), "{text}");
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
