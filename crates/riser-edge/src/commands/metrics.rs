//! What an edge counts of commands. Labels are words of closed sets.

use prometheus::{IntCounter, IntCounterVec, IntGauge};
use riser_core::command::Outcome;

use crate::metrics::Maker;

/// Counters of commands.
#[derive(Debug)]
pub(crate) struct CommandMetrics {
    issued: IntCounterVec,
    outcomes: IntCounterVec,
    sent: IntCounterVec,
    pub(super) told: IntCounter,
    pub(super) waiting: IntGauge,
    pub(super) looks: IntCounter,
    pub(super) dispatched_again: IntCounter,
    pub(super) swept: IntCounter,
    pub(super) lost: IntCounter,
}

impl CommandMetrics {
    pub(crate) fn new(m: &Maker<'_>) -> Self {
        Self {
            issued: m.counters("riser_commands_total", "Commands that were issued here, by what came of it.", "result"),
            outcomes: m.counters(
                "riser_command_outcomes_total",
                "Outcomes that records of commands were given here, by status; late for words after the final one.",
                "status",
            ),
            sent: m.counters(
                "riser_commands_sent_total",
                "Commands written to gateways' sockets: first, or again in a later session.",
                "kind",
            ),
            told: m.counter("riser_command_outcomes_told_total", "Outcomes told to sessions and HTTP calls."),
            waiting: m.gauge("riser_commands_waiting", "Commands of which somebody on this edge wants to hear."),
            looks: m
                .counter("riser_command_looks_total", "Records of commands that were read because no notice had come."),
            dispatched_again: m.counter(
                "riser_commands_dispatched_again_total",
                "Commands that a gateway's edge was told of again because they had not been sent.",
            ),
            swept: m.counter(
                "riser_commands_swept_total",
                "Commands past their deadline that this edge looked at as sweeper.",
            ),
            lost: m.counter("riser_commands_lost_total", "Looks at commands whose record the store has lost."),
        }
    }

    /// What came of issuing a command.
    pub(super) fn issued(&self, result: &'static str) {
        self.issued.with_label_values(&[result]).inc();
    }

    pub(super) fn outcome(&self, outcome: &Outcome) {
        let status = if outcome.late { "late" } else { outcome.status.as_str() };
        self.outcomes.with_label_values(&[status]).inc();
    }

    pub(super) fn sent(&self, again: bool) {
        self.sent.with_label_values(&[if again { "again" } else { "first" }]).inc();
    }
}
