//! What an edge counts of live streams. Labels are words of closed sets.

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::line::Why;
use crate::metrics::Maker;

/// Counters of live streams.
#[derive(Debug)]
pub(crate) struct LiveMetrics {
    pub(super) streams: IntGauge,
    pub(super) opened: IntCounter,
    closed: IntCounterVec,
    pub(super) received: IntCounter,
    pub(super) delivered: IntCounter,
    dropped: IntCounterVec,
}

/// Why a live frame was dropped.
#[derive(Debug, Clone, Copy)]
pub(super) enum Dropped {
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

impl LiveMetrics {
    /// `delivered` counts frames handed to hearers' connections.
    pub(crate) fn new(m: &Maker<'_>, delivered: IntCounter) -> Self {
        Self {
            streams: m.gauge("riser_live_streams", "Live streams whose openers are on this edge."),
            opened: m.counter("riser_live_opened_total", "Live streams that were opened here."),
            closed: m.counters(
                "riser_live_closed_total",
                "Live streams of this edge that ended, by reason: closed by the opener, idle, withdrawn with the right, lost.",
                "reason",
            ),
            received: m.counter("riser_live_frames_received_total", "Live frames taken from speakers."),
            delivered,
            dropped: m.counters(
                "riser_live_frames_dropped_total",
                "Live frames dropped, by reason: rate, slow_bus, slow_edge, slow_receiver, unknown (stream).",
                "reason",
            ),
        }
    }

    pub(super) fn closed(&self, why: Why) {
        self.closed.with_label_values(&[why.as_str()]).inc();
    }

    pub(super) fn dropped(&self, why: Dropped, frames: u64) {
        if frames == 0 {
            return;
        }
        let reason = match why {
            Dropped::Rate => "rate",
            Dropped::SlowBus => "slow_bus",
            Dropped::SlowEdge => "slow_edge",
            Dropped::SlowReceiver => "slow_receiver",
            Dropped::Unknown => "unknown",
        };
        self.dropped.with_label_values(&[reason]).inc_by(frames);
    }
}
