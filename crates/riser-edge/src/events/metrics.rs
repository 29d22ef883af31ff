//! What an edge counts of events. Labels are words of closed sets.

use prometheus::{IntCounter, IntCounterVec, IntGauge};
use riser_bus::log::LogError;
use tokio::time::error::Elapsed;

use crate::metrics::Maker;

/// Counters of events.
#[derive(Debug)]
pub(crate) struct EventMetrics {
    stored: IntCounterVec,
    delivered: IntCounter,
    replayed: IntCounter,
    pub(super) encoded: IntCounter,
    pub(super) pages: IntCounter,
    pub(super) page_hits: IntCounter,
    pub(super) gaps: IntCounter,
    pub(super) tails: IntCounter,
    pub(super) feeds: IntGauge,
    pub(super) behind: IntCounter,
    failures: IntCounter,
    pub(super) audits_lost: IntCounter,
}

impl EventMetrics {
    /// `delivered` counts events handed to listeners' connections.
    pub(crate) fn new(m: &Maker<'_>, delivered: IntCounter) -> Self {
        Self {
            stored: m.counters("riser_events_total", "Events that were sent here, by what came of it.", "result"),
            delivered,
            replayed: m.counter(
                "riser_events_replayed_total",
                "Events handed to listeners later than they were stored: to who was away, or slow.",
            ),
            encoded: m.counter("riser_events_encoded_total", "Events encoded, each once for all who get it."),
            pages: m.counter("riser_event_pages_read_total", "Ranges of stored events read for who was away."),
            page_hits: m.counter(
                "riser_event_page_hits_total",
                "Ranges of stored events that somebody needed and that were in memory.",
            ),
            gaps: m.counter("riser_event_gaps_total", "Subscriptions told that events between are not kept."),
            tails: m.counter("riser_event_tails_total", "Times that following a tenant's events began."),
            feeds: m.gauge("riser_event_feeds", "Tenants whose events are being followed."),
            behind: m
                .counter("riser_events_too_slow_total", "Sessions ended because they could not keep up with events."),
            failures: m.counter("riser_log_failures_total", "Calls of the event store that nobody answered."),
            audits_lost: m.counter(
                "riser_audits_lost_total",
                "Commands that could not be told as events of the audit: the event store was too slow, or is full.",
            ),
        }
    }

    /// What came of sending an event: a word of a closed set.
    pub(crate) fn stored(&self, result: &'static str) {
        self.stored.with_label_values(&[result]).inc();
    }

    pub(super) fn delivered(&self, live: bool) {
        self.delivered.inc();
        if !live {
            self.replayed.inc();
        }
    }

    /// What came of a call of the event store that had so long to be answered.
    pub(crate) fn answered<T>(&self, answer: Result<Result<T, LogError>, Elapsed>) -> Result<T, LogError> {
        let answer = answer.unwrap_or(Err(LogError::Unavailable));
        if matches!(answer, Err(LogError::Unavailable)) {
            self.failures.inc();
        }
        answer
    }
}
