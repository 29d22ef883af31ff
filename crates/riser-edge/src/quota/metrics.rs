//! What quotas did, by tenant: their number is bounded by the table.

use prometheus::{IntCounterVec, IntGauge};
use riser_core::TenantId;
use riser_core::tenant::Quota;

use crate::metrics::Maker;

#[derive(Debug)]
pub(crate) struct QuotaMetrics {
    pub(crate) edges: IntGauge,
    refused: IntCounterVec,
    near: IntCounterVec,
}

impl QuotaMetrics {
    pub(crate) fn new(m: &Maker<'_>) -> Self {
        Self {
            edges: m.gauge("riser_edges", "Edges that serve, as the registry told this one."),
            refused: m.counters_by(
                "riser_quota_refused_total",
                "Sessions, frames, subscriptions and calls that were refused because of a tenant's quota.",
                &["tenant", "quota"],
            ),
            near: m.counters_by(
                "riser_quota_near_total",
                "Times that a tenant was told that it has nearly used up a quota.",
                &["tenant", "quota"],
            ),
        }
    }

    pub(crate) fn refused(&self, tenant: &TenantId, quota: Quota) {
        self.refused.with_label_values(&[tenant.as_str(), quota.name()]).inc();
    }

    pub(crate) fn near(&self, tenant: &TenantId, quota: Quota) {
        self.near.with_label_values(&[tenant.as_str(), quota.name()]).inc();
    }
}
