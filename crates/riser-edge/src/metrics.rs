//! What an edge counts. Labels are enums and, where quotas are counted, tenants; never other names or texts from outside.

use std::sync::Arc;

use prometheus::{
    CounterVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use riser_core::{CloseCode, ErrorCode};
use tracing::warn;

use crate::commands::metrics::CommandMetrics;
use crate::events::metrics::EventMetrics;
use crate::forwarded;
use crate::live::metrics::LiveMetrics;
use crate::quota::metrics::QuotaMetrics;

/// An edge's counters and gauges. They outlive the edge, so that a restart in the same process goes on counting.
#[derive(Debug)]
pub struct Metrics {
    refused: IntCounterVec,
    closed: IntCounterVec,
    errors: IntCounterVec,
    ended: IntCounterVec,
    pub(crate) gateways: IntGauge,
    pub(crate) clients: IntGauge,
    pub(crate) connections: IntGauge,
    pub(crate) frames: IntCounter,
    pub(crate) paced: IntCounter,
    pub(crate) quotas: QuotaMetrics,
    pub(crate) stored: IntCounter,
    pub(crate) merged: IntCounter,
    pub(crate) store_failures: IntCounter,
    pub(crate) encoded: IntCounter,
    pub(crate) delivered: IntCounter,
    pub(crate) conflated: IntCounter,
    pub(crate) repairs: IntCounter,
    pub(crate) doubts: IntCounter,
    pub(crate) resyncs: IntCounter,
    pub(crate) takeovers: IntCounter,
    pub(crate) swept: IntCounter,
    pub(crate) lease_lost: IntCounter,
    pub(crate) registry_up: IntGauge,
    pub(crate) bus_up: IntGauge,
    pub(crate) bus_overflowed: IntCounter,
    bus_ignored: IntCounterVec,
    forwarded_ignored: IntCounterVec,
    pub(crate) publish_failures: IntCounter,
    pub(crate) panics: IntCounter,
    pub(crate) revoked: IntCounter,
    pub(crate) commands: CommandMetrics,
    pub(crate) events: EventMetrics,
    pub(crate) clones: IntCounter,
    pub(crate) live: LiveMetrics,
}

/// Why a message of the bus was ignored.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ignored {
    Version,
    Malformed,
}

impl Metrics {
    /// Registers an edge's metrics. Call it once per registry.
    ///
    /// # Panics
    /// When the registry holds one of these names already, which is a mistake in the program.
    pub fn new(registry: &Registry) -> Arc<Self> {
        let m = Maker(registry);
        let delivered = m.counters(
            "riser_frames_delivered_total",
            "Frames handed to listeners' connections, by lane; snapshots and presence count as state.",
            "lane",
        );
        let sessions = m.gauges("riser_sessions", "Open sessions, by peer.", "peer");
        Arc::new(Self {
            refused: m.counters(
                "riser_refused_total",
                "Requests and connections refused before a session began, by reason.",
                "reason",
            ),
            closed: m.counters(
                "riser_closed_total",
                "Sessions ended, by close code; 1005 and 1006 as in RFC 6455.",
                "code",
            ),
            errors: m.counters("riser_errors_total", "Frames answered with an error, by error code.", "code"),
            ended: m.counters("riser_presence_ended_total", "Gateways that went offline here, by reason.", "reason"),
            gateways: sessions.with_label_values(&["gateway"]),
            clients: sessions.with_label_values(&["client"]),
            connections: m.gauge("riser_connections", "Open WebSocket connections, with or without a session."),
            frames: m.counter("riser_frames_received_total", "Messages received on WebSockets."),
            paced: m.counter(
                "riser_paced_total",
                "Times that a connection's reading was paused because it sent too many frames.",
            ),
            quotas: QuotaMetrics::new(&m),
            stored: m.counter("riser_changes_stored_total", "Changes of gateways' state that were stored."),
            merged: m.counter(
                "riser_changes_merged_total",
                "Frames that were merged into the change of another one before storing.",
            ),
            store_failures: m.counter(
                "riser_store_failures_total",
                "Calls of the registry and the state store that nobody answered.",
            ),
            encoded: m.counter(
                "riser_frames_encoded_total",
                "Frames for listeners that were encoded, each shared by all who get the same.",
            ),
            delivered: delivered.with_label_values(&["state"]),
            conflated: m.counter(
                "riser_conflated_total",
                "Values that a slow listener did not get because a newer one replaced them.",
            ),
            repairs: m.counter(
                "riser_repairs_total",
                "Mirrors read anew after a jump, a loss or a difference with the store.",
            ),
            doubts: m.counter(
                "riser_store_behind_total",
                "Mirrors that knew more than the store for long, and were corrected.",
            ),
            resyncs: m
                .counter("riser_resyncs_total", "Gateways asked for their full state because the store lost some."),
            takeovers: m.counter("riser_takeovers_total", "Sessions that replaced an older one of the same gateway."),
            swept: m.counter("riser_swept_total", "Gateways of ended leases that were marked offline by this edge."),
            lease_lost: m.counter("riser_lease_lost_total", "Times that this edge found its own lease gone."),
            registry_up: m.gauge(
                "riser_registry_up",
                "Whether the registry answered last time; 0 means that presence is degraded.",
            ),
            bus_up: m.gauge("riser_bus_up", "Whether the bus can be reached."),
            bus_overflowed: m
                .counter("riser_bus_overflowed_total", "Messages of the bus lost because a queue was full."),
            bus_ignored: m.counters(
                "riser_bus_ignored_total",
                "Messages of the bus that were not understood, by reason.",
                "reason",
            ),
            forwarded_ignored: m.counters(
                "riser_forwarded_ignored_total",
                "Requests whose Forwarded or X-Forwarded-For did not count, by reason.",
                "reason",
            ),
            publish_failures: m.counter(
                "riser_publish_failures_total",
                "Messages that could not be handed to the bus; mirrors repair what they held.",
            ),
            panics: m.counter("riser_session_panics_total", "Sessions that ended by a defect of this program."),
            revoked: m.counter(
                "riser_revoked_total",
                "Sessions ended because the tenant table no longer allows them as they are.",
            ),
            commands: CommandMetrics::new(&m),
            events: EventMetrics::new(&m, delivered.with_label_values(&["event"])),
            clones: m.counter(
                "riser_clones_suspected_total",
                "Gateways that take over from each other again and again: two devices share a credential.",
            ),
            live: LiveMetrics::new(&m, delivered.with_label_values(&["live"])),
        })
    }

    pub(crate) fn refused(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    pub(crate) fn closed(&self, code: u16) {
        // A peer may close with any of 4000 codes: those that we do not give ourselves share one label.
        let known = CloseCode::from_number(code).is_some() || matches!(code, 1001..=1015);
        let label = if known { code.to_string() } else { "other".to_owned() };
        self.closed.with_label_values(&[label.as_str()]).inc();
    }

    pub(crate) fn error(&self, code: ErrorCode) {
        self.errors.with_label_values(&[code.as_str()]).inc();
    }

    pub(crate) fn forwarded_ignored(&self, why: forwarded::Ignored) {
        self.forwarded_ignored.with_label_values(&[why.as_str()]).inc();
    }

    pub(crate) fn ended(&self, reason: riser_core::Reason) {
        self.ended.with_label_values(&[reason.as_str()]).inc();
    }

    pub(crate) fn bus_ignored(&self, why: Ignored) {
        let label = match why {
            Ignored::Version => "version",
            Ignored::Malformed => "malformed",
        };
        let ignored = self.bus_ignored.with_label_values(&[label]);
        if ignored.get() == 0 {
            // Once, since whoever writes one may write many.
            warn!(reason = label, "ignored a message of the bus; further ones are only counted");
        }
        ignored.inc();
    }
}

/// Makes metrics and registers them, once.
pub(crate) struct Maker<'a>(&'a Registry);

const ONCE: &str = "an edge's metrics are registered once, under names that are right";

impl Maker<'_> {
    pub(crate) fn counter(&self, name: &str, help: &str) -> IntCounter {
        let counter = IntCounter::new(name, help).expect(ONCE);
        self.0.register(Box::new(counter.clone())).expect(ONCE);
        counter
    }

    pub(crate) fn counters(&self, name: &str, help: &str, label: &str) -> IntCounterVec {
        self.counters_by(name, help, &[label])
    }

    pub(crate) fn counters_by(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        let counters = IntCounterVec::new(Opts::new(name, help), labels).expect(ONCE);
        self.0.register(Box::new(counters.clone())).expect(ONCE);
        counters
    }

    pub(crate) fn seconds_by(&self, name: &str, help: &str, label: &str) -> CounterVec {
        let counters = CounterVec::new(Opts::new(name, help), &[label]).expect(ONCE);
        self.0.register(Box::new(counters.clone())).expect(ONCE);
        counters
    }

    pub(crate) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())).expect(ONCE);
        self.0.register(Box::new(histogram.clone())).expect(ONCE);
        histogram
    }

    pub(crate) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        let gauge = IntGauge::new(name, help).expect(ONCE);
        self.0.register(Box::new(gauge.clone())).expect(ONCE);
        gauge
    }

    pub(crate) fn gauges(&self, name: &str, help: &str, label: &str) -> IntGaugeVec {
        let gauges = IntGaugeVec::new(Opts::new(name, help), &[label]).expect(ONCE);
        self.0.register(Box::new(gauges.clone())).expect(ONCE);
        gauges
    }
}
