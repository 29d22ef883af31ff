//! What quotas did, by tenant: their number is bounded by the table.

use std::time::Duration;

use prometheus::{CounterVec, Histogram, IntCounterVec, IntGauge};
use riser_core::TenantId;
use riser_core::tenant::Quota;

use crate::metrics::Maker;

/// From what nobody notices to what ends sessions.
const LATE_BUCKETS: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];

#[derive(Debug)]
pub(crate) struct QuotaMetrics {
    pub(crate) edges: IntGauge,
    refused: IntCounterVec,
    near: IntCounterVec,
    spent: CounterVec,
    throttled: IntCounterVec,
    turns: Histogram,
}

impl QuotaMetrics {
    pub(crate) fn new(m: &Maker<'_>) -> Self {
        Self {
            edges: m.gauge("riser_edges", "Edges that serve, as the registry told this one."),
            refused: m.counters_by(
                "riser_quota_refused_total",
                "Sessions, frames, subscriptions, commands and calls that were refused because of a tenant's quota.",
                &["tenant", "quota"],
            ),
            near: m.counters_by(
                "riser_quota_near_total",
                "Times that a tenant was told that it has nearly used up a quota.",
                &["tenant", "quota"],
            ),
            spent: m.seconds_by(
                "riser_tenant_busy_seconds_total",
                "Time that this edge spent for the sessions, listeners and calls of a tenant.",
                "tenant",
            ),
            throttled: m.counters(
                "riser_tenant_throttled_total",
                "Times that a tenant's sockets or calls had to wait because turns came late and it took more than an even share.",
                "tenant",
            ),
            turns: m.histogram(
                "riser_scheduling_delay_seconds",
                "How late a task of this edge got its turn, looked at twenty times a second.",
                LATE_BUCKETS,
            ),
        }
    }

    pub(crate) fn refused(&self, tenant: &TenantId, quota: Quota) {
        self.refused.with_label_values(&[tenant.as_str(), quota.name()]).inc();
    }

    pub(crate) fn near(&self, tenant: &TenantId, quota: Quota) {
        self.near.with_label_values(&[tenant.as_str(), quota.name()]).inc();
    }

    pub(crate) fn spent(&self, tenant: &TenantId, time: Duration) {
        if !time.is_zero() {
            self.spent.with_label_values(&[tenant.as_str()]).inc_by(time.as_secs_f64());
        }
    }

    pub(crate) fn throttled(&self, tenant: &TenantId) {
        self.throttled.with_label_values(&[tenant.as_str()]).inc();
    }

    pub(crate) fn turn(&self, late: Duration) {
        self.turns.observe(late.as_secs_f64());
    }
}
