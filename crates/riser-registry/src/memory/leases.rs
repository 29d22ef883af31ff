//! The leases of edges, and the buildings in which each may hold gateways.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use riser_core::{BuildingId, Reason, TenantId};

use super::millis;
use crate::{ADOPTED_LEASE, Lease};

/// All leases that were not forgotten. The names are shared with the records that they hold.
#[derive(Clone, Default)]
pub(super) struct Leases(BTreeMap<Arc<Lease>, Entry>);

#[derive(Clone)]
struct Entry {
    ends_at_ms: u64,
    drained: bool,
    /// Once set it stays, whatever the clock does afterwards.
    ended: bool,
    index: BTreeSet<(TenantId, BuildingId)>,
}

impl Entry {
    fn until(ends_at_ms: u64) -> Self {
        Self { ends_at_ms, drained: false, ended: false, index: BTreeSet::new() }
    }

    fn has_ended(&mut self, now_ms: u64) -> bool {
        self.ended |= self.ends_at_ms <= now_ms;
        self.ended
    }
}

impl Leases {
    /// Says whether the lease was held, and holds it from now on unless it has ended or is being drained.
    pub(super) fn renew(&mut self, lease: &Lease, ttl_ms: u64, now_ms: u64) -> bool {
        let ends_at_ms = now_ms.saturating_add(ttl_ms);
        let Some(entry) = self.0.get_mut(lease) else {
            self.0.insert(Arc::new(lease.clone()), Entry::until(ends_at_ms));
            return false;
        };
        let held = !entry.drained && !entry.has_ended(now_ms);
        if held {
            entry.ends_at_ms = ends_at_ms;
        }
        held
    }

    /// How many stand that are not drained: so many edges there are.
    pub(super) fn standing(&mut self, now_ms: u64) -> usize {
        self.0.values_mut().map(|entry| usize::from(!entry.drained && !entry.has_ended(now_ms))).sum()
    }

    /// Lets a lease end after the time for moving. The first call counts.
    pub(super) fn drain(&mut self, lease: &Lease, moving_ms: u64, now_ms: u64) {
        let ends_at_ms = now_ms.saturating_add(moving_ms);
        if !self.0.contains_key(lease) {
            self.0.insert(Arc::new(lease.clone()), Entry::until(ends_at_ms));
        }
        let Some(entry) = self.0.get_mut(lease) else { return };
        if !entry.drained && !entry.has_ended(now_ms) {
            entry.drained = true;
            entry.ends_at_ms = ends_at_ms;
        }
    }

    /// Puts a building into a lease's index, and gives the shared name of the lease.
    pub(super) fn add(&mut self, lease: &Lease, tenant: &TenantId, building: &BuildingId, now_ms: u64) -> Arc<Lease> {
        if !self.0.contains_key(lease) {
            let ends_at_ms = now_ms.saturating_add(millis(ADOPTED_LEASE));
            self.0.insert(Arc::new(lease.clone()), Entry::until(ends_at_ms));
        }
        let building = (tenant.clone(), building.clone());
        if let Some(entry) = self.0.get_mut(lease) {
            entry.index.insert(building);
        }
        self.0.get_key_value(lease).map_or_else(|| Arc::new(lease.clone()), |(name, _)| name.clone())
    }

    /// Marks the leases that have ended by now.
    pub(super) fn settle(&mut self, now_ms: u64) {
        for entry in self.0.values_mut() {
            entry.has_ended(now_ms);
        }
    }

    pub(super) fn ended(&mut self, now_ms: u64) -> Vec<(Lease, Reason)> {
        self.settle(now_ms);
        let reason = |entry: &Entry| if entry.drained { Reason::EdgeDrained } else { Reason::EdgeLost };
        let ended = self.0.iter().filter(|(_, entry)| entry.ended);
        ended.map(|(lease, entry)| (Lease::clone(lease), reason(entry))).collect()
    }

    pub(super) fn index(&self, lease: &Lease) -> Vec<(TenantId, BuildingId)> {
        self.0.get(lease).into_iter().flat_map(|entry| entry.index.iter().cloned()).collect()
    }

    /// Takes a building out of a lease's index.
    pub(super) fn remove(&mut self, lease: &Lease, tenant: &TenantId, building: &BuildingId) {
        if let Some(entry) = self.0.get_mut(lease) {
            entry.index.remove(&(tenant.clone(), building.clone()));
        }
    }

    pub(super) fn forget(&mut self, lease: &Lease, now_ms: u64) {
        if self.0.get_mut(lease).is_some_and(|entry| entry.has_ended(now_ms) && entry.index.is_empty()) {
            self.0.remove(lease);
        }
    }
}
