//! Everything that the registry keeps, and the locks around it.
//!
//! A tenant has one lock, which makes each operation on one of its buildings atomic. The leases have another,
//! taken inside it, so that a building enters a lease's index in the same step in which a gateway gets the lease,
//! and leaves it in the same step in which the last one loses it.

use std::collections::BTreeMap;
use std::ops::Bound;

use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use riser_core::limits::Limits;
use riser_core::{BuildingId, Change, Epoch, GatewayId, GatewayKey, Presence, Reason, Snapshot, TenantId, Version};

use super::leases::Leases;
use super::record::Record;
use crate::{Acquired, Applied, Ended, Held, Lease, PRESENCE_PAGE, Restored};

/// The gateways of one building, in the order of their names.
type Gateways = BTreeMap<GatewayId, Record>;

/// The buildings of one tenant. A building is there when something is known of one of its gateways.
type Buildings = BTreeMap<BuildingId, Gateways>;

/// The data behind all clients.
#[derive(Default)]
pub(super) struct Store {
    /// Who holds the outer lock for writing has everything to himself, leases included.
    tenants: RwLock<BTreeMap<TenantId, Mutex<Buildings>>>,
    leases: Mutex<Leases>,
}

/// A copy of everything that a store held at one moment.
#[derive(Clone, Default)]
pub struct Checkpoint {
    tenants: BTreeMap<TenantId, Buildings>,
    leases: Leases,
}

impl Store {
    pub(super) fn renew(&self, lease: &Lease, ttl_ms: u64, now_ms: u64) -> bool {
        self.with_leases(|leases| leases.renew(lease, ttl_ms, now_ms))
    }

    pub(super) fn drain(&self, lease: &Lease, moving_ms: u64, now_ms: u64) {
        self.with_leases(|leases| leases.drain(lease, moving_ms, now_ms));
    }

    pub(super) fn settle(&self, now_ms: u64) {
        self.with_leases(|leases| leases.settle(now_ms));
    }

    pub(super) fn ended_leases(&self, now_ms: u64) -> Vec<(Lease, Reason)> {
        self.with_leases(|leases| leases.ended(now_ms))
    }

    pub(super) fn lease_index(&self, lease: &Lease) -> Vec<(TenantId, BuildingId)> {
        self.with_leases(|leases| leases.index(lease))
    }

    pub(super) fn forget(&self, lease: &Lease, now_ms: u64) {
        self.with_leases(|leases| leases.forget(lease, now_ms));
    }

    pub(super) fn acquire(&self, lease: &Lease, key: &GatewayKey, floor: Option<Epoch>, now_ms: u64) -> Acquired {
        self.make(&key.tenant, |buildings| {
            let holder = self.leases.lock().add(lease, &key.tenant, key.address.building(), now_ms);
            let gateways = buildings.entry(key.address.building().clone()).or_default();
            if let Some(record) = gateways.get_mut(key.address.gateway()) {
                return record.acquire(holder, floor, now_ms);
            }
            let (record, acquired) = Record::first(holder, floor, now_ms);
            gateways.insert(key.address.gateway().clone(), record);
            acquired
        })
    }

    pub(super) fn restore(
        &self,
        lease: &Lease,
        key: &GatewayKey,
        version: Version,
        since_ms: u64,
        now_ms: u64,
    ) -> Restored {
        self.make(&key.tenant, |buildings| {
            let building = key.address.building();
            let holder = || self.leases.lock().add(lease, &key.tenant, building, now_ms);
            let gateways = buildings.entry(building.clone()).or_default();
            if let Some(record) = gateways.get_mut(key.address.gateway()) {
                return record.restore(holder, version, since_ms, now_ms);
            }
            let record = Record::restored(holder(), version, since_ms, now_ms);
            gateways.insert(key.address.gateway().clone(), record);
            Restored::Held { lost: true }
        })
    }

    pub(super) fn release(&self, key: &GatewayKey, epoch: Epoch, reason: Reason, now_ms: u64) -> Option<Ended> {
        self.gateway(key, |record| record.release(epoch, reason, now_ms)).flatten()
    }

    pub(super) fn sweep(
        &self,
        lease: &Lease,
        reason: Reason,
        tenant: &TenantId,
        building: &BuildingId,
        now_ms: u64,
    ) -> Vec<(GatewayId, Ended)> {
        self.make(tenant, |buildings| {
            let end = |(name, record): (&GatewayId, &mut Record)| {
                record.sweep(lease, reason, now_ms).map(|ended| (name.clone(), ended))
            };
            let ended = buildings.get_mut(building).into_iter().flatten().filter_map(end).collect();
            self.leases.lock().remove(lease, tenant, building);
            ended
        })
    }

    pub(super) fn apply(
        &self,
        key: &GatewayKey,
        version: Version,
        change: &Change,
        limits: &Limits,
        now_ms: u64,
    ) -> Applied {
        self.gateway(key, |record| record.apply(version, change, limits, now_ms)).unwrap_or(Applied::Gap(None))
    }

    pub(super) fn read(&self, key: &GatewayKey) -> Option<Snapshot> {
        self.gateway(key, |record| record.snapshot())
    }

    pub(super) fn audit(&self, tenant: &TenantId, building: &BuildingId) -> Vec<Held> {
        let held = |(name, record): (&GatewayId, &Record)| Held {
            gateway: name.clone(),
            version: record.version(),
            lease: record.holder().cloned(),
        };
        self.building(tenant, building, |gateways| gateways.iter().map(held).collect()).unwrap_or_default()
    }

    pub(super) fn presence(
        &self,
        tenant: &TenantId,
        building: &BuildingId,
        after: Option<&GatewayId>,
        limit: usize,
    ) -> Vec<(GatewayId, Presence)> {
        let page = |gateways: &mut Gateways| {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let rows = gateways.range::<GatewayId, _>((from, Bound::Unbounded));
            rows.take(limit.min(PRESENCE_PAGE)).map(|(name, record)| (name.clone(), record.presence())).collect()
        };
        self.building(tenant, building, page).unwrap_or_default()
    }

    pub(super) fn versions(&self, tenant: &TenantId, building: &BuildingId) -> Vec<(GatewayId, Version)> {
        let version = |(name, record): (&GatewayId, &Record)| (name.clone(), record.version());
        self.building(tenant, building, |gateways| gateways.iter().map(version).collect()).unwrap_or_default()
    }

    pub(super) fn buildings(&self, tenant: &TenantId) -> Vec<BuildingId> {
        self.find(tenant, |buildings| buildings.keys().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn checkpoint(&self) -> Checkpoint {
        let tenants = self.tenants.write();
        let copy = |(name, buildings): (&TenantId, &Mutex<Buildings>)| (name.clone(), buildings.lock().clone());
        Checkpoint { tenants: tenants.iter().map(copy).collect(), leases: self.leases.lock().clone() }
    }

    pub(super) fn rewind(&self, to: &Checkpoint) {
        let mut tenants = self.tenants.write();
        *tenants = to.tenants.clone().into_iter().map(|(name, buildings)| (name, Mutex::new(buildings))).collect();
        *self.leases.lock() = to.leases.clone();
    }

    fn with_leases<T>(&self, operation: impl FnOnce(&mut Leases) -> T) -> T {
        let _shared = self.tenants.read();
        operation(&mut self.leases.lock())
    }

    /// Does something to a tenant's buildings, if any are known.
    fn find<T>(&self, tenant: &TenantId, operation: impl FnOnce(&mut Buildings) -> T) -> Option<T> {
        self.tenants.read().get(tenant).map(|buildings| operation(&mut buildings.lock()))
    }

    /// Does something to a tenant's buildings, and makes the tenant known.
    fn make<T>(&self, tenant: &TenantId, operation: impl FnOnce(&mut Buildings) -> T) -> T {
        let tenants = self.tenants.read();
        if let Some(buildings) = tenants.get(tenant) {
            return operation(&mut buildings.lock());
        }
        drop(tenants);
        let mut tenants = self.tenants.write();
        tenants.entry(tenant.clone()).or_default();
        let tenants = RwLockWriteGuard::downgrade(tenants);
        // Nobody came in between who could have removed it.
        operation(&mut tenants[tenant].lock())
    }

    fn building<T>(
        &self,
        tenant: &TenantId,
        building: &BuildingId,
        operation: impl FnOnce(&mut Gateways) -> T,
    ) -> Option<T> {
        self.find(tenant, |buildings| buildings.get_mut(building).map(operation)).flatten()
    }

    fn gateway<T>(&self, key: &GatewayKey, operation: impl FnOnce(&mut Record) -> T) -> Option<T> {
        self.building(&key.tenant, key.address.building(), |gateways| {
            gateways.get_mut(key.address.gateway()).map(operation)
        })
        .flatten()
    }
}
