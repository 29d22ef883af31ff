//! What an edge counts. Labels are enums, never names or texts from outside; handles are resolved once.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use riser_core::command::Outcome;
use riser_core::{CloseCode, ErrorCode};

use crate::live::line::Why;

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
    pub(crate) publish_failures: IntCounter,
    pub(crate) panics: IntCounter,
    commands: IntCounterVec,
    command_outcomes: IntCounterVec,
    commands_sent: IntCounterVec,
    pub(crate) outcomes_told: IntCounter,
    pub(crate) commands_waiting: IntGauge,
    pub(crate) command_looks: IntCounter,
    pub(crate) commands_dispatched_again: IntCounter,
    pub(crate) commands_swept: IntCounter,
    pub(crate) commands_lost: IntCounter,
    pub(crate) clones: IntCounter,
    pub(crate) live_streams: IntGauge,
    pub(crate) live_opened: IntCounter,
    live_closed: IntCounterVec,
    pub(crate) live_received: IntCounter,
    pub(crate) live_sent: IntCounter,
    live_dropped: IntCounterVec,
}

/// Why a live frame was dropped.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LiveDrop {
    /// Its speaker sent too much.
    Rate,
    /// The bus did not take it in time, or not at all.
    SlowBus,
    /// It came to this edge faster than it was handed on.
    SlowEdge,
    /// Its receiver does not read fast enough.
    SlowReceiver,
    /// Nobody here was told of its stream.
    Unknown,
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
            delivered: m.counter("riser_frames_delivered_total", "Frames handed to listeners' connections."),
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
            publish_failures: m.counter(
                "riser_publish_failures_total",
                "Messages that could not be handed to the bus; mirrors repair what they held.",
            ),
            panics: m.counter("riser_session_panics_total", "Sessions that ended by a defect of this program."),
            commands: m.counters(
                "riser_commands_total",
                "Commands that were issued here, by what came of it.",
                "result",
            ),
            command_outcomes: m.counters(
                "riser_command_outcomes_total",
                "Outcomes that records of commands were given here, by status; late for words after the final one.",
                "status",
            ),
            commands_sent: m.counters(
                "riser_commands_sent_total",
                "Commands written to gateways' sockets: first, or again in a later session.",
                "kind",
            ),
            outcomes_told: m.counter("riser_command_outcomes_told_total", "Outcomes told to sessions and HTTP calls."),
            commands_waiting: m
                .gauge("riser_commands_waiting", "Commands of which somebody on this edge wants to hear."),
            command_looks: m
                .counter("riser_command_looks_total", "Records of commands that were read because no notice had come."),
            commands_dispatched_again: m.counter(
                "riser_commands_dispatched_again_total",
                "Commands that a gateway's edge was told of again because they had not been sent.",
            ),
            commands_swept: m.counter(
                "riser_commands_swept_total",
                "Commands past their deadline that this edge looked at as sweeper.",
            ),
            commands_lost: m.counter("riser_commands_lost_total", "Looks at commands whose record the store has lost."),
            clones: m.counter(
                "riser_clones_suspected_total",
                "Gateways that take over from each other again and again: two devices share a credential.",
            ),
            live_streams: m.gauge("riser_live_streams", "Live streams whose openers are on this edge."),
            live_opened: m.counter("riser_live_opened_total", "Live streams that were opened here."),
            live_closed: m.counters(
                "riser_live_closed_total",
                "Live streams of this edge that ended, by reason: closed by the opener, idle, withdrawn with the right, lost.",
                "reason",
            ),
            live_received: m.counter("riser_live_frames_received_total", "Live frames taken from speakers."),
            live_sent: m.counter("riser_live_frames_sent_total", "Live frames handed to hearers' connections."),
            live_dropped: m.counters(
                "riser_live_frames_dropped_total",
                "Live frames dropped, by reason: rate, slow_bus, slow_edge, slow_receiver, unknown (stream).",
                "reason",
            ),
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

    /// What came of issuing a command: one of a closed set of words.
    pub(crate) fn command(&self, result: &'static str) {
        self.commands.with_label_values(&[result]).inc();
    }

    pub(crate) fn command_outcome(&self, outcome: &Outcome) {
        let status = if outcome.late { "late" } else { outcome.status.as_str() };
        self.command_outcomes.with_label_values(&[status]).inc();
    }

    pub(crate) fn command_sent(&self, again: bool) {
        self.commands_sent.with_label_values(&[if again { "again" } else { "first" }]).inc();
    }

    pub(crate) fn live_closed(&self, why: Why) {
        self.live_closed.with_label_values(&[why.as_str()]).inc();
    }

    pub(crate) fn live_dropped(&self, why: LiveDrop, frames: u64) {
        if frames == 0 {
            return;
        }
        let reason = match why {
            LiveDrop::Rate => "rate",
            LiveDrop::SlowBus => "slow_bus",
            LiveDrop::SlowEdge => "slow_edge",
            LiveDrop::SlowReceiver => "slow_receiver",
            LiveDrop::Unknown => "unknown",
        };
        self.live_dropped.with_label_values(&[reason]).inc_by(frames);
    }

    pub(crate) fn ended(&self, reason: riser_core::Reason) {
        self.ended.with_label_values(&[reason.as_str()]).inc();
    }

    pub(crate) fn bus_ignored(&self, why: Ignored) {
        let label = match why {
            Ignored::Version => "version",
            Ignored::Malformed => "malformed",
        };
        self.bus_ignored.with_label_values(&[label]).inc();
    }
}

struct Maker<'a>(&'a Registry);

const ONCE: &str = "an edge's metrics are registered once, under names that are right";

impl Maker<'_> {
    fn counter(&self, name: &str, help: &str) -> IntCounter {
        let counter = IntCounter::new(name, help).expect(ONCE);
        self.0.register(Box::new(counter.clone())).expect(ONCE);
        counter
    }

    fn counters(&self, name: &str, help: &str, label: &str) -> IntCounterVec {
        let counters = IntCounterVec::new(Opts::new(name, help), &[label]).expect(ONCE);
        self.0.register(Box::new(counters.clone())).expect(ONCE);
        counters
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        let gauge = IntGauge::new(name, help).expect(ONCE);
        self.0.register(Box::new(gauge.clone())).expect(ONCE);
        gauge
    }

    fn gauges(&self, name: &str, help: &str, label: &str) -> IntGaugeVec {
        let gauges = IntGaugeVec::new(Opts::new(name, help), &[label]).expect(ONCE);
        self.0.register(Box::new(gauges.clone())).expect(ONCE);
        gauges
    }
}
