//! What a run found: values that are written as JSON, and from which every table and page is made.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::server::Subject;
use crate::worker::histogram;
use crate::worker::order::Report;

/// Quantiles that are kept of each distribution. Dense enough to draw it.
const QUANTILES: [f64; 14] = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9995, 0.9999, 1.0];
/// A generator process that used more of its one core than this may have been the bottleneck.
const BUSY: f64 = 0.9;
/// A generator whose sends were later than this, for one in a hundred, may have been the bottleneck.
const LATE_US: u64 = 20_000;

/// All that one call of the program found.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    /// The version of this program.
    pub(crate) version: String,
    /// Cores that processes may use.
    pub(crate) cores: usize,
    /// Subjects that could not be measured, and why.
    pub(crate) missing: BTreeMap<String, String>,
    /// The measurements, in the order in which they were made.
    pub(crate) runs: Vec<Run>,
}

/// One measurement of one subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The scenario's name.
    pub(crate) scenario: String,
    /// Which of its variants.
    pub(crate) variant: String,
    /// The subject, with how it was used if there are several ways.
    pub(crate) subject: String,
    /// Rounds interleave the subjects.
    pub(crate) round: u32,
    /// Figures by name; the name ends in the unit.
    pub(crate) figures: BTreeMap<String, f64>,
    /// From the intended moment to the answer or delivery.
    pub(crate) latency: Option<Latency>,
    /// What the generator says of itself.
    pub(crate) generator: Option<Generator>,
    /// What was odd.
    pub(crate) notes: Vec<String>,
}

/// A distribution of microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    /// How many were measured.
    pub(crate) count: u64,
    /// Quantiles with their values.
    pub(crate) quantiles: Vec<(f64, u64)>,
}

/// Whether the generator could have been the bottleneck.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Generator {
    /// CPU time of all its processes, in cores.
    pub(crate) cores: f64,
    /// Its processes.
    pub(crate) processes: usize,
    /// How late sends were, one in a hundred and the latest, in microseconds.
    pub(crate) late_us: [u64; 2],
}

impl Latency {
    /// Of counted microseconds; none when there are none.
    pub(crate) fn of(pairs: &[(u64, u64)]) -> Option<Self> {
        let mut all = histogram();
        for (value, count) in pairs {
            all.saturating_record_n(*value, *count);
        }
        (!all.is_empty()).then(|| Self {
            count: all.len(),
            quantiles: QUANTILES.iter().map(|q| (*q, all.value_at_quantile(*q))).collect(),
        })
    }

    /// The value at one of the kept quantiles.
    pub(crate) fn at(&self, quantile: f64) -> u64 {
        let above = self.quantiles.iter().find(|(q, _)| *q >= quantile);
        above.map_or(0, |(_, value)| *value)
    }
}

impl Generator {
    /// From CPU time, how long it was spent, and what the generator counted.
    pub(crate) fn of(cpu_us: u64, wall_us: u64, processes: usize, late: &[(u64, u64)]) -> Self {
        let late = Latency::of(late);
        let at = |q| late.as_ref().map_or(0, |late| late.at(q));
        Self { cores: ratio(cpu_us, wall_us), processes, late_us: [at(0.99), at(1.0)] }
    }

    /// Why figures may say more about the generator than about the server.
    pub(crate) fn doubt(&self) -> Option<String> {
        #[expect(clippy::cast_precision_loss)]
        let busy = self.cores > BUSY * self.processes as f64;
        if busy {
            return Some(format!("the generator used {:.2} cores in {} processes", self.cores, self.processes));
        }
        let late = self.late_us[0];
        (late > LATE_US).then(|| format!("the generator was {} ms late, one time in a hundred", late / 1_000))
    }
}

impl Run {
    /// An empty one.
    pub(crate) fn new(scenario: &str, variant: impl Into<String>, subject: impl Into<String>, round: u32) -> Self {
        Self {
            scenario: scenario.into(),
            variant: variant.into(),
            subject: subject.into(),
            round,
            figures: BTreeMap::new(),
            latency: None,
            generator: None,
            notes: Vec::new(),
        }
    }

    /// Adds a figure.
    pub(crate) fn figure(&mut self, name: &str, value: f64) {
        self.figures.insert(name.to_owned(), value);
    }

    /// Takes out what was read of processes, when there were none to read.
    pub(crate) fn forget_costs(&mut self) {
        self.figures.retain(|name, _| !name.contains("cpu_us") && !name.contains("cores"));
    }

    /// Adds what a report says of answers, errors and times.
    pub(crate) fn take(&mut self, report: &Report) {
        self.latency = Latency::of(&report.latency);
        for (what, count) in &report.errors {
            self.notes.push(format!("{count} × {what}"));
        }
        if report.lost > 0 {
            self.notes.push(format!("{} connections were lost", report.lost));
        }
    }
}

impl Results {
    /// An empty one about this machine.
    pub(crate) fn new() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            ..Self::default()
        }
    }

    /// Reads one that was written.
    pub(crate) fn read(path: &std::path::Path) -> Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is not a result of this program", path.display()))
    }

    /// The summaries: for each scenario, variant and subject the medians over the rounds, in the order of the first round.
    pub(crate) fn summaries(&self) -> Vec<Summary> {
        let mut all: Vec<Summary> = Vec::new();
        for run in &self.runs {
            let key = |s: &Summary| s.scenario == run.scenario && s.variant == run.variant && s.subject == run.subject;
            let at = all.iter().position(key).unwrap_or_else(|| {
                all.push(Summary::of(run));
                all.len() - 1
            });
            all[at].runs.push(run.clone());
        }
        all
    }
}

/// The rounds of one subject in one variant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Summary {
    /// The scenario's name.
    pub(crate) scenario: String,
    /// The variant.
    pub(crate) variant: String,
    /// The subject.
    pub(crate) subject: String,
    /// The rounds.
    pub(crate) runs: Vec<Run>,
}

impl Summary {
    fn of(run: &Run) -> Self {
        Self {
            scenario: run.scenario.clone(),
            variant: run.variant.clone(),
            subject: run.subject.clone(),
            runs: Vec::new(),
        }
    }

    /// The median of a figure over the rounds.
    pub(crate) fn figure(&self, name: &str) -> Option<f64> {
        median(self.runs.iter().filter_map(|run| run.figures.get(name).copied()).collect())
    }

    /// The median of a quantile over the rounds, in microseconds.
    pub(crate) fn latency(&self, quantile: f64) -> Option<f64> {
        #[expect(clippy::cast_precision_loss)]
        let at = |run: &Run| Some(run.latency.as_ref()?.at(quantile) as f64);
        median(self.runs.iter().filter_map(at).collect())
    }

    /// The names of all figures.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.runs.iter().flat_map(|run| run.figures.keys().map(String::as_str)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// What was odd in any round.
    pub(crate) fn notes(&self) -> Vec<String> {
        let doubts = self.runs.iter().filter_map(|run| run.generator.as_ref()?.doubt());
        let mut notes: Vec<String> = self.runs.iter().flat_map(|run| run.notes.clone()).chain(doubts).collect();
        notes.dedup();
        notes
    }
}

/// The median; of an even number what is in the middle of the two.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}

/// A quotient of counts; nothing when divided by nothing.
#[expect(clippy::cast_precision_loss)]
pub(crate) fn ratio(of: u64, by: u64) -> f64 {
    if by == 0 { 0.0 } else { of as f64 / by as f64 }
}

/// What a subject does, for a name as it stands in a result.
pub(crate) fn does(subject: &str) -> &'static str {
    let name = subject.split(' ').next().unwrap_or_default();
    Subject::ALL.into_iter().find(|known| known.name() == name).map_or("", Subject::does)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_come_from_all_that_was_counted() {
        let pairs: Vec<_> = (1..=1_000).map(|us| (us, 2)).collect();
        let latency = Latency::of(&pairs).expect("some");
        assert_eq!((latency.count, latency.at(0.5), latency.at(0.99), latency.at(1.0)), (2_000, 500, 990, 1_000));
        assert_eq!(Latency::of(&[]), None);
    }

    #[test]
    fn a_generator_that_was_late_or_busy_is_doubted() {
        assert_eq!(Generator::of(800_000, 1_000_000, 1, &[(50, 100)]).doubt(), None);
        assert!(Generator::of(950_000, 1_000_000, 1, &[]).doubt().is_some());
        assert_eq!(Generator::of(950_000, 1_000_000, 2, &[]).doubt(), None);
        assert!(Generator::of(1, 1_000_000, 1, &[(50, 98), (90_000, 2)]).doubt().is_some());
    }

    #[test]
    fn summaries_hold_the_medians_of_interleaved_rounds() {
        let mut results = Results::new();
        for (round, a, b) in [(1, 3.0, 30.0), (2, 1.0, 10.0), (3, 9.0, 20.0)] {
            for (subject, value) in [("riser", a), ("uws", b)] {
                let mut run = Run::new("fanout", "10 × 1", subject, round);
                run.figure("cpu_us", value);
                results.runs.push(run);
            }
        }
        let medians: Vec<_> = results.summaries().iter().map(|summary| summary.figure("cpu_us")).collect();
        assert_eq!(medians, [Some(3.0), Some(20.0)]);
        assert_eq!((median(vec![]), median(vec![2.0, 1.0])), (None, Some(1.5)));
    }
}
