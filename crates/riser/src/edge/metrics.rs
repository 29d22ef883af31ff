//! What a process counts beside its edge.

use std::collections::HashMap;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// Counters that somebody else keeps, copied when they are asked for.
struct Copied<F> {
    /// Held while copying, so that two scrapes at once do not add the same twice.
    counters: Mutex<Vec<IntCounter>>,
    descriptions: Vec<Desc>,
    read: F,
}

impl<F: Fn() -> Vec<u64> + Send + Sync> Collector for Copied<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let counters = self.counters.lock();
        for (counter, now) in counters.iter().zip((self.read)()) {
            counter.inc_by(now.saturating_sub(counter.get()));
        }
        counters.iter().flat_map(Collector::collect).collect()
    }
}

/// Registers counters by name and help, whose values `read` gives in the same order.
pub(super) fn copied(
    registry: &Registry,
    names: &[(&str, &str)],
    read: impl Fn() -> Vec<u64> + Send + Sync + 'static,
) -> prometheus::Result<()> {
    let counters: Vec<_> = names.iter().map(|(name, help)| IntCounter::new(*name, *help)).collect::<Result<_, _>>()?;
    let descriptions = counters.iter().flat_map(Collector::desc).cloned().collect();
    registry.register(Box::new(Copied { counters: Mutex::new(counters), descriptions, read }))
}

/// Counts what became of changed files.
pub(super) fn reloads(registry: &Registry) -> prometheus::Result<IntCounterVec> {
    let opts =
        Opts::new("riser_reloads_total", "Changed files of configuration, by what they are and what became of them.");
    let counters = IntCounterVec::new(opts.const_labels(HashMap::new()), &["what", "outcome"])?;
    registry.register(Box::new(counters.clone()))?;
    Ok(counters)
}
