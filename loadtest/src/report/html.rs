//! A result as one page that needs nothing else: tables, and plots as inline SVG.

use std::fmt::Write as _;

use super::{number, table};
use crate::result::{Results, Summary, does};

/// Width and height of a plot, and the room for its words.
const WIDE: f64 = 640.0;
const HIGH: f64 = 220.0;
const LEFT: f64 = 70.0;
const BELOW: f64 = 30.0;
/// Colours that differ for most eyes, in turn.
const COLOURS: [&str; 8] = ["#0b6e99", "#d9730d", "#2d7d46", "#9b51e0", "#c0392b", "#7f6000", "#555555", "#00838f"];
const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#222}\
    table{border-collapse:collapse;font-size:13px;margin:1rem 0}td,th{padding:.2rem .6rem;border-bottom:1px solid #ddd;\
    text-align:right;font-variant-numeric:tabular-nums}td:nth-child(-n+2),th:nth-child(-n+2){text-align:left}\
    svg{margin:.5rem 1rem .5rem 0;max-width:100%}svg text{font:11px system-ui,sans-serif;fill:#444}\
    .scroll{overflow-x:auto}";

/// The page.
pub(crate) fn page(results: &Results) -> String {
    let summaries = results.summaries();
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Riser load test</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>\n\
         <h1>Riser load test</h1>\n<p>riser-loadtest {} on {} cores. Figures are medians over the rounds.</p>\n",
        escape(&results.version),
        results.cores
    );
    let mut scenarios: Vec<&str> = summaries.iter().map(|s| s.scenario.as_str()).collect();
    scenarios.dedup();
    for scenario in scenarios {
        let rows: Vec<&Summary> = summaries.iter().filter(|s| s.scenario == scenario).collect();
        section(&mut out, scenario, &rows);
    }
    out.push_str("<h2>Subjects</h2>\n<ul>\n");
    let mut names: Vec<&str> =
        results.runs.iter().map(|run| run.subject.split(' ').next().unwrap_or_default()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        line(&mut out, name, does(name));
    }
    for (name, why) in &results.missing {
        line(&mut out, name, &format!("missing: {why}"));
    }
    out.push_str("</ul>\n</body></html>\n");
    out
}

fn line(out: &mut String, name: &str, text: &str) {
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(out, "<li><b>{}</b>: {}</li>", escape(name), escape(text));
}

fn section(out: &mut String, scenario: &str, rows: &[&Summary]) {
    let _ = write!(out, "<h2>{}</h2>\n<div class=\"scroll\"><table>\n", escape(scenario));
    for (i, row) in table::cells(rows).iter().enumerate() {
        let kind = if i == 0 { "th" } else { "td" };
        let cells: Vec<_> = row.iter().map(|cell| format!("<{kind}>{}</{kind}>", escape(cell))).collect();
        let _ = writeln!(out, "<tr>{}</tr>", cells.concat());
    }
    out.push_str("</table></div>\n");
    let notes: Vec<_> = rows.iter().flat_map(|row| row.notes().into_iter().map(|note| (*row, note))).collect();
    for (row, note) in notes {
        let _ = writeln!(out, "<p>{}, {}: {}</p>", escape(&row.variant), escape(&row.subject), escape(&note));
    }
    let steps: Vec<_> = rows.iter().filter_map(|row| Some((row.subject.clone(), memory(row)?))).collect();
    if !steps.is_empty() {
        out.push_str(&plot("PSS in MiB over sessions", &steps, false));
    }
    let times: Vec<_> = rows.iter().filter_map(|row| Some((title(row), times(row)?))).collect();
    if !times.is_empty() {
        out.push_str(&plot("ms by nines: 1 is p90, 2 is p99, 3 is p99.9 (both scales grow by tens)", &times, true));
    }
    for name in
        rows.iter().flat_map(|row| row.names()).filter(|name| name.starts_with("cpu_us_per")).collect::<Unique>().0
    {
        out.push_str(&bars(name, rows));
    }
}

/// Names, each once, in their order.
#[derive(Default)]
struct Unique<'a>(Vec<&'a str>);

impl<'a> FromIterator<&'a str> for Unique<'a> {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        let mut all = Self::default();
        for name in names {
            if !all.0.contains(&name) {
                all.0.push(name);
            }
        }
        all
    }
}

fn title(row: &Summary) -> String {
    format!("{}, {}", row.subject, row.variant)
}

/// Sessions and MiB, of a row that has readings of memory.
fn memory(row: &Summary) -> Option<Vec<(f64, f64)>> {
    let points: Vec<_> = row
        .names()
        .iter()
        .filter_map(|name| {
            let sessions: f64 = name.strip_prefix("pss_bytes_at_")?.parse().ok()?;
            Some((sessions, row.figure(name)? / 1024.0 / 1024.0))
        })
        .collect();
    (!points.is_empty()).then_some(points)
}

/// How many nines, and milliseconds.
fn times(row: &Summary) -> Option<Vec<(f64, f64)>> {
    let latency = row.runs.iter().find_map(|run| run.latency.as_ref())?;
    let points = latency.quantiles.iter().filter(|(q, _)| *q < 1.0).filter_map(|(q, _)| {
        let ms = row.latency(*q)? / 1_000.0;
        Some((-(1.0 - q).log10(), ms.max(0.001).log10()))
    });
    Some(points.collect())
}

/// Lines through points. With `tens` the values are logarithms and shown as what they are of.
fn plot(title: &str, lines: &[(String, Vec<(f64, f64)>)], tens: bool) -> String {
    let all = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    let mut right: f64 = 1e-9;
    for (x, y) in all() {
        right = right.max(x);
        (low, high) = (low.min(y), high.max(y));
    }
    let bottom = if tens { low.floor() } else { 0.0 };
    let top = if tens { high.ceil().max(bottom + 1.0) } else { high.max(1e-9) };
    let at = |x: f64, y: f64| {
        (LEFT + x / right * (WIDE - LEFT - 10.0), 20.0 + (top - y) / (top - bottom) * (HIGH - 20.0 - BELOW))
    };
    let tall = HIGH + 16.0 * f64::from(u32::try_from(lines.len()).unwrap_or(0));
    let mut out = head(title, tall);
    for i in 0..=4_u32 {
        let (x, y) = (right * f64::from(i) / 4.0, bottom + (top - bottom) * f64::from(i) / 4.0);
        let ((px, _), (_, py)) = (at(x, bottom), at(0.0, y));
        let shown = number(if tens { 10_f64.powf(y) } else { y });
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" y1=\"{py:.1}\" x2=\"{WIDE}\" y2=\"{py:.1}\" stroke=\"#e4e4e4\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{shown}</text>\
             <text x=\"{px:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            LEFT - 6.0,
            py + 4.0,
            HIGH - BELOW + 16.0,
            number(x)
        );
    }
    for (i, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let path: Vec<_> = points.iter().map(|(x, y)| at(*x, *y)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let below = HIGH + 4.0 + 16.0 * f64::from(u32::try_from(i).unwrap_or(0));
        let _ = write!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>\
             <rect x=\"{LEFT}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            path.join(" "),
            below - 9.0,
            LEFT + 16.0,
            below,
            escape(name)
        );
    }
    out.push_str("</svg>\n");
    out
}

/// A bar for each row that has the figure.
fn bars(figure: &str, rows: &[&Summary]) -> String {
    let values: Vec<_> = rows.iter().filter_map(|row| Some((title(row), row.figure(figure)?))).collect();
    let most = values.iter().map(|(_, value)| *value).fold(1e-9, f64::max);
    let tall = 30.0 + 20.0 * f64::from(u32::try_from(values.len()).unwrap_or(0));
    let mut out = head(&figure.replace('_', " "), tall);
    for (i, (name, value)) in values.iter().enumerate() {
        let y = 24.0 + 20.0 * f64::from(u32::try_from(i).unwrap_or(0));
        let colour = if name.starts_with("riser") { COLOURS[0] } else { "#999999" };
        let _ = write!(
            out,
            "<text x=\"230\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect x=\"236\" y=\"{y:.1}\" width=\"{:.1}\" height=\"14\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            y + 11.0,
            escape(name),
            value / most * 330.0,
            242.0 + value / most * 330.0,
            y + 11.0,
            number(*value)
        );
    }
    out.push_str("</svg>\n");
    out
}

fn head(title: &str, tall: f64) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDE} {tall}\" width=\"{WIDE}\" role=\"img\" aria-label=\"{0}\"><text x=\"0\" y=\"12\">{0}</text>",
        escape(title)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Latency, Run};

    #[test]
    fn the_page_holds_everything_and_asks_for_nothing() {
        let mut results = Results::new();
        let mut run = Run::new("fanout", "<10>", "riser", 1);
        run.figure("cpu_us_per_delivery", 7.5);
        run.figure("pss_bytes_at_001000", 1e7);
        run.latency = Latency::of(&[(100, 5), (900, 1)]);
        run.notes.push("3 × a & b".into());
        results.runs.push(run);
        let page = page(&results);
        assert_eq!(page.matches("<svg").count(), 3);
        assert!(page.contains("&lt;10&gt;") && page.contains("a &amp; b") && page.contains("7.50"));
        for from_elsewhere in ["http:", "https:", "src=", "<script", "<link", "url("] {
            assert!(!page.contains(from_elsewhere), "{from_elsewhere}");
        }
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }
}
