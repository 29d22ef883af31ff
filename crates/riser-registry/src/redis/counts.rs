//! What is counted of a connection.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that grows.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// Adds one, and gives the sum.
    pub(super) fn add(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn add_many(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) calls: Counter,
    pub(super) errors: Counter,
    pub(super) bad_values: Counter,
    pub(super) script_errors: Counter,
    pub(super) conflicts: Counter,
    pub(super) reconnects: Counter,
}

/// What was counted since the process connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Calls to Redis.
    pub calls: u64,
    /// Calls that nobody answered, or that Redis refused.
    pub errors: u64,
    /// Values in Redis that no edge wrote. They were treated as missing.
    pub bad_values: u64,
    /// Scripts that failed or answered what they should not: each is a mistake of ours.
    pub script_errors: u64,
    /// Steps of commands that were decided again because another came in between.
    pub conflicts: u64,
    /// New connections after the first.
    pub reconnects: u64,
}

impl Counters {
    pub(super) fn counts(&self) -> Counts {
        Counts {
            calls: self.calls.get(),
            errors: self.errors.get(),
            bad_values: self.bad_values.get(),
            script_errors: self.script_errors.get(),
            conflicts: self.conflicts.get(),
            reconnects: self.reconnects.get(),
        }
    }
}
