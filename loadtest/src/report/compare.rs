//! Two results side by side.

use super::{aligned, number};
use crate::result::{Results, Summary};

/// The medians that both have, with their ratio.
pub(crate) fn table(before: &Results, after: &Results) -> String {
    let old = before.summaries();
    let mut rows = vec![["what", "before", "after", "after / before"].map(str::to_owned).to_vec()];
    for new in after.summaries() {
        let same = |s: &&Summary| s.scenario == new.scenario && s.variant == new.variant && s.subject == new.subject;
        let Some(old) = old.iter().find(same) else { continue };
        let title = |figure: &str| format!("{}, {}, {}: {figure}", new.scenario, new.variant, new.subject);
        for name in new.names() {
            if let (Some(a), Some(b)) = (old.figure(name), new.figure(name)) {
                rows.push(row(title(&name.replace('_', " ")), a, b));
            }
        }
        for (quantile, name) in [(0.5, "p50 µs"), (0.99, "p99 µs")] {
            if let (Some(a), Some(b)) = (old.latency(quantile), new.latency(quantile)) {
                rows.push(row(title(name), a, b));
            }
        }
    }
    if rows.len() == 1 {
        return "the two results have nothing in common\n".into();
    }
    aligned(&rows)
}

fn row(title: String, before: f64, after: f64) -> Vec<String> {
    let ratio = if before == 0.0 { "–".to_owned() } else { format!("{:.2}", after / before) };
    vec![title, number(before), number(after), ratio]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Run;

    #[test]
    fn only_what_both_have_is_compared() {
        let result = |variant: &str, value: f64| {
            let mut results = Results::new();
            let mut run = Run::new("fanout", variant, "riser", 1);
            run.figure("cpu_us", value);
            results.runs.push(run);
            results
        };
        let text = table(&result("10 × 1", 4.0), &result("10 × 1", 2.0));
        assert!(text.contains("fanout, 10 × 1, riser: cpu us") && text.trim_end().ends_with("0.50"), "{text}");
        assert!(table(&result("10 × 1", 4.0), &result("10 × 8", 2.0)).contains("nothing in common"));
    }
}
