//! Everything that the registry keeps, and the locks around it.
//!
//! A tenant has one lock, which makes each operation on one of its buildings atomic. The leases have another,
//! taken inside it, so that a building enters a lease's index in the same step in which a gateway gets the lease,
//! and leaves it in the same step in which the last one loses it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use riser_core::command::{CommandId, Record as CommandRecord, Step, Took};
use riser_core::limits::Limits;
use riser_core::live::{Stream, StreamId};
use riser_core::tenant::KeyHash;
use riser_core::{
    Address, BuildingId, Change, EdgeId, Epoch, GatewayId, GatewayKey, Presence, Reason, Snapshot, TenantId, Version,
};

use super::leases::Leases;
use super::record::Record;
use super::shelf::{self, Shelf};
use super::streams::{NotOpened, Streams};
use crate::commands::{OPEN_BYTES, OVERDUE_PAGE, RECORDS_BYTES, SWEEPER_MS};
use crate::{
    Acquired, Applied, Created, Ended, Erased, Held, Holder, Lease, NewCommand, Opened, PRESENCE_PAGE, Restored,
    Stepped, Usage,
};

/// The gateways of one building, in the order of their names.
type Gateways = BTreeMap<GatewayId, Record>;

/// The buildings of one tenant. A building is there when something is known of one of its gateways.
type Buildings = BTreeMap<BuildingId, Gateways>;

/// What is kept of one tenant.
#[derive(Clone, Default)]
struct Tenant {
    buildings: Buildings,
    /// Also of gateways that never connected: commands may be held for them.
    shelves: BTreeMap<Address, Shelf>,
    records: Bytes,
    streams: Streams,
    key_uses: BTreeMap<KeyHash, u64>,
}

/// What the records of a tenant's commands take at most, in bytes: what was counted, and what came since.
#[derive(Clone, Default)]
struct Bytes {
    all: usize,
    open: usize,
}

impl Bytes {
    fn grow(&mut self, bytes: usize) {
        self.all += bytes;
        self.open += bytes;
    }
}

/// What tenants use of an edge, and until when that is to be told.
type Told = (u64, BTreeMap<TenantId, Usage>);

/// The data behind all clients.
#[derive(Default)]
pub(super) struct Store {
    /// Who holds the outer lock for writing has everything to himself, leases included.
    tenants: RwLock<BTreeMap<TenantId, Mutex<Tenant>>>,
    leases: Mutex<Leases>,
    /// Which edge sweeps overdue commands, and until when no other does.
    sweeper: Mutex<Option<(EdgeId, u64)>>,
    told: Mutex<BTreeMap<Lease, Told>>,
    /// How often it lost something.
    lives: AtomicU64,
}

/// A copy of everything that a store held at one moment.
#[derive(Clone, Default)]
pub struct Checkpoint {
    tenants: BTreeMap<TenantId, Tenant>,
    leases: Leases,
}

impl Tenant {
    /// Forgets the oldest decided commands when the records take too much, and some more, so that it is not soon again.
    /// Everything is counted only when what came since the last count may have filled it.
    fn make_room(&mut self) {
        if self.records.all <= RECORDS_BYTES && self.records.open <= OPEN_BYTES {
            return;
        }
        let sum = |(all, open): (usize, usize), shelf: &Shelf| {
            let (more, more_open) = shelf.bytes();
            (all + more, open + more_open)
        };
        let (mut all, open) = self.shelves.values().fold((0, 0), sum);
        if all > RECORDS_BYTES {
            all = self.forget_oldest(all, RECORDS_BYTES / 4 * 3);
        }
        self.records = Bytes { all, open };
    }

    /// Forgets the oldest decided commands until the records take so much; gives what they take then.
    fn forget_oldest(&mut self, mut bytes: usize, until: usize) -> usize {
        let of = |(of, shelf): (&Address, &Shelf)| -> Vec<_> {
            shelf.decided().map(|(at_ms, seq, bytes)| (at_ms, of.clone(), seq, bytes)).collect()
        };
        let mut decided: Vec<_> = self.shelves.iter().flat_map(of).collect();
        decided.sort();
        for (_, of, seq, size) in decided {
            if bytes <= until {
                break;
            }
            bytes -= size;
            if let Some(shelf) = self.shelves.get_mut(&of) {
                shelf.remove(seq);
            }
        }
        bytes
    }

    /// Forgets all of one gateway.
    fn erase(&mut self, of: &Address) -> Erased {
        let gateways = self.buildings.get_mut(of.building());
        let record = gateways.and_then(|gateways| gateways.remove(of.gateway()));
        if self.buildings.get(of.building()).is_some_and(BTreeMap::is_empty) {
            self.buildings.remove(of.building());
        }
        self.streams.erase(of);
        Erased {
            gateways: u64::from(record.is_some()),
            values: record.map_or(0, |record| record.snapshot().state.values.len() as u64),
            commands: self.shelves.remove(of).map_or(0, |shelf| shelf.len() as u64),
        }
    }

    /// The session that holds a gateway.
    fn holder(&self, of: &Address) -> Option<Holder> {
        let record = self.buildings.get(of.building())?.get(of.gateway())?;
        record.holder().map(|lease| Holder { edge: lease.edge.clone(), epoch: record.version().epoch })
    }

    /// Forgets the commands whose time is over and the streams that have ended.
    fn forget(&mut self, now_ms: u64) {
        self.shelves.values_mut().for_each(|shelf| shelf.forget(now_ms));
        self.shelves.retain(|_, shelf| !shelf.is_needless(now_ms));
        self.streams.forget(now_ms);
    }
}

impl Store {
    pub(super) fn renew(&self, lease: &Lease, ttl_ms: u64, now_ms: u64) -> (bool, usize) {
        self.with_leases(|leases| (leases.renew(lease, ttl_ms, now_ms), leases.standing(now_ms)))
    }

    pub(super) fn drain(&self, lease: &Lease, moving_ms: u64, now_ms: u64) {
        self.with_leases(|leases| leases.drain(lease, moving_ms, now_ms));
    }

    /// Makes sure that what has ended by now stays ended, whatever the clock does afterwards.
    pub(super) fn settle(&self, now_ms: u64) {
        self.with_leases(|leases| leases.settle(now_ms));
        for tenant in self.tenants.read().values() {
            tenant.lock().forget(now_ms);
        }
    }

    pub(super) fn ended_leases(&self, now_ms: u64) -> Vec<(Lease, Reason)> {
        self.with_leases(|leases| leases.ended(now_ms))
    }

    pub(super) fn lease_index(&self, lease: &Lease) -> Vec<(TenantId, BuildingId)> {
        self.with_leases(|leases| leases.index(lease))
    }

    pub(super) fn tell_usage(&self, lease: &Lease, usage: &BTreeMap<TenantId, Usage>, ttl_ms: u64, now_ms: u64) {
        let mut told = self.told.lock();
        told.retain(|_, (until_ms, _)| *until_ms > now_ms);
        told.insert(lease.clone(), (now_ms.saturating_add(ttl_ms), usage.clone()));
    }

    pub(super) fn usage(&self, tenant: &TenantId, now_ms: u64) -> Vec<Usage> {
        let told = self.told.lock();
        let stands = told.values().filter(|(until_ms, _)| *until_ms > now_ms);
        stands.filter_map(|(_, usage)| usage.get(tenant).copied()).collect()
    }

    pub(super) fn note_key_uses(&self, tenant: &TenantId, uses: &BTreeMap<KeyHash, Option<u64>>) {
        self.make(tenant, |tenant| {
            for (hash, at_ms) in uses {
                match at_ms {
                    Some(at_ms) => tenant.key_uses.insert(*hash, *at_ms),
                    None => tenant.key_uses.remove(hash),
                };
            }
        });
    }

    pub(super) fn key_uses(&self, tenant: &TenantId) -> BTreeMap<KeyHash, u64> {
        self.find(tenant, |tenant| tenant.key_uses.clone()).unwrap_or_default()
    }

    pub(super) fn forget(&self, lease: &Lease, now_ms: u64) {
        self.with_leases(|leases| leases.forget(lease, now_ms));
    }

    pub(super) fn acquire(&self, lease: &Lease, key: &GatewayKey, floor: Option<Epoch>, now_ms: u64) -> Acquired {
        self.make(&key.tenant, |tenant| {
            let holder = self.leases.lock().add(lease, &key.tenant, key.address.building(), now_ms);
            let gateways = tenant.buildings.entry(key.address.building().clone()).or_default();
            let acquired = if let Some(record) = gateways.get_mut(key.address.gateway()) {
                record.acquire(holder, floor, now_ms)
            } else {
                let (record, acquired) = Record::first(holder, floor, now_ms);
                gateways.insert(key.address.gateway().clone(), record);
                acquired
            };
            let open_commands = tenant.shelves.get(&key.address).map_or(0, |shelf| shelf.counts(now_ms).0);
            let has_streams = tenant.streams.any_at(&key.address, now_ms);
            Acquired { open_commands, has_streams, ..acquired }
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
        self.make(&key.tenant, |Tenant { buildings, .. }| {
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
        self.make(tenant, |Tenant { buildings, .. }| {
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

    pub(super) fn audit(&self, tenant: &TenantId, building: &BuildingId, now_ms: u64) -> Vec<Held> {
        let all = |tenant: &mut Tenant| {
            let Some(gateways) = tenant.buildings.get(building) else { return Vec::new() };
            let unsent = |name: &GatewayId| {
                let of = Address::new(building.clone(), name.clone()).ok()?;
                Some(tenant.shelves.get(&of)?.counts(now_ms).1)
            };
            let held = |(name, record): (&GatewayId, &Record)| Held {
                gateway: name.clone(),
                version: record.version(),
                lease: record.holder().cloned(),
                unsent: unsent(name).unwrap_or(0),
            };
            gateways.iter().map(held).collect()
        };
        self.find(tenant, all).unwrap_or_default()
    }

    pub(super) fn create(&self, key: &GatewayKey, new: &NewCommand, now_ms: u64) -> Created {
        self.make(&key.tenant, |tenant| {
            let holder = tenant.holder(&key.address);
            tenant.make_room();
            let full = tenant.records.open > OPEN_BYTES;
            let shelf = tenant.shelves.entry(key.address.clone()).or_default();
            let created = shelf.create(&key.address, new, holder, now_ms, full);
            if let Created::Recorded(stepped) = &created
                && stepped.took == Took::Yes
            {
                tenant.records.grow(shelf::bytes(&stepped.record));
            }
            created
        })
    }

    pub(super) fn undecided(&self, tenant: &TenantId) -> u64 {
        let count = |tenant: &mut Tenant| tenant.shelves.values().map(Shelf::undecided).sum::<usize>();
        self.find(tenant, count).unwrap_or_default() as u64
    }

    pub(super) fn step(&self, key: &GatewayKey, cmd: &CommandId, step: &Step, now_ms: u64) -> Option<Stepped> {
        self.find(&key.tenant, |tenant| {
            let holder = tenant.holder(&key.address);
            let stepped = tenant.shelves.get_mut(&key.address)?.step(cmd, step, holder, now_ms)?;
            if stepped.record.outcomes.len() > stepped.before {
                tenant.records.grow(shelf::bytes(&stepped.record));
                tenant.make_room();
            }
            Some(stepped)
        })
        .flatten()
    }

    pub(super) fn adopt(&self, key: &GatewayKey, copy: &CommandRecord, now_ms: u64) -> bool {
        self.make(&key.tenant, |tenant| {
            let adopted = tenant.shelves.entry(key.address.clone()).or_default().adopt(copy, now_ms);
            if adopted {
                tenant.records.grow(shelf::bytes(copy));
            }
            adopted
        })
    }

    /// How often everything was lost or went back.
    pub(super) fn life(&self) -> u64 {
        self.lives.load(Ordering::Relaxed)
    }

    pub(super) fn open(&self, key: &GatewayKey, after: u64, limit: usize) -> Vec<CommandRecord> {
        self.shelf(key, |shelf| shelf.open(after, limit))
    }

    pub(super) fn latest(
        &self,
        key: &GatewayKey,
        before: Option<u64>,
        limit: usize,
        now_ms: u64,
    ) -> Vec<CommandRecord> {
        self.shelf(key, |shelf| {
            shelf.forget(now_ms);
            shelf.latest(before, limit)
        })
    }

    pub(super) fn overdue(&self, by: &EdgeId, now_ms: u64) -> Vec<(TenantId, CommandId)> {
        let tenants = self.tenants.read();
        {
            let mut sweeper = self.sweeper.lock();
            let ends_ms = now_ms.saturating_add(SWEEPER_MS);
            // A claim that ends later than one of now was made before the clock jumped back.
            let claimed = |until_ms: u64| (now_ms + 1..=ends_ms).contains(&until_ms);
            if sweeper.as_ref().is_some_and(|(edge, until_ms)| edge != by && claimed(*until_ms)) {
                return Vec::new();
            }
            *sweeper = Some((by.clone(), ends_ms));
        }
        let mut overdue = Vec::new();
        for (name, tenant) in tenants.iter() {
            let mut tenant = tenant.lock();
            tenant.forget(now_ms);
            let of = tenant.shelves.values().flat_map(|shelf| shelf.overdue(now_ms));
            overdue.extend(of.map(|(deadline, cmd)| (deadline, name.clone(), cmd)));
        }
        overdue.sort();
        overdue.into_iter().take(OVERDUE_PAGE).map(|(_, name, cmd)| (name, cmd)).collect()
    }

    pub(super) fn open_stream(&self, tenant: &TenantId, stream: &Stream, ttl_ms: u64, now_ms: u64) -> Opened {
        self.make(tenant, |tenant| match tenant.streams.open(stream, ttl_ms, now_ms) {
            Ok(()) => Opened::Open(tenant.holder(&stream.of)),
            Err(NotOpened::Taken) => Opened::Taken,
            Err(NotOpened::TooMany) => Opened::TooMany,
        })
    }

    pub(super) fn close_stream(&self, tenant: &TenantId, of: &Address, id: StreamId) {
        self.find(tenant, |tenant| tenant.streams.close(of, id));
    }

    pub(super) fn streams(&self, tenant: &TenantId, building: Option<&BuildingId>, now_ms: u64) -> Vec<Stream> {
        self.find(tenant, |tenant| tenant.streams.open_ones(building, now_ms)).unwrap_or_default()
    }

    fn shelf<T: Default>(&self, key: &GatewayKey, operation: impl FnOnce(&mut Shelf) -> T) -> T {
        self.find(&key.tenant, |tenant| tenant.shelves.get_mut(&key.address).map(operation))
            .flatten()
            .unwrap_or_default()
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
        let known = |tenant: &mut Tenant| tenant.buildings.keys().cloned().collect();
        self.find(tenant, known).unwrap_or_default()
    }

    pub(super) fn checkpoint(&self) -> Checkpoint {
        let tenants = self.tenants.write();
        let copy = |(name, tenant): (&TenantId, &Mutex<Tenant>)| (name.clone(), tenant.lock().clone());
        Checkpoint { tenants: tenants.iter().map(copy).collect(), leases: self.leases.lock().clone() }
    }

    pub(super) fn rewind(&self, to: &Checkpoint) {
        let mut tenants = self.tenants.write();
        self.lives.fetch_add(1, Ordering::Relaxed);
        *tenants = to.tenants.clone().into_iter().map(|(name, tenant)| (name, Mutex::new(tenant))).collect();
        *self.leases.lock() = to.leases.clone();
        *self.sweeper.lock() = None;
    }

    pub(super) fn erase_gateway(&self, key: &GatewayKey) -> Erased {
        self.find(&key.tenant, |tenant| tenant.erase(&key.address)).unwrap_or_default()
    }

    pub(super) fn erase(&self, tenant: &TenantId) -> Erased {
        let mut erased = Erased::default();
        let Some(tenant) = self.tenants.write().remove(tenant) else { return erased };
        let mut tenant = tenant.into_inner();
        let known = tenant.buildings.iter().flat_map(|(building, gateways)| {
            gateways.keys().filter_map(|gateway| Address::new(building.clone(), gateway.clone()).ok())
        });
        let all: std::collections::BTreeSet<Address> = known.chain(tenant.shelves.keys().cloned()).collect();
        for of in &all {
            erased += tenant.erase(of);
        }
        erased
    }

    fn with_leases<T>(&self, operation: impl FnOnce(&mut Leases) -> T) -> T {
        let _shared = self.tenants.read();
        operation(&mut self.leases.lock())
    }

    /// Does something to what is kept of a tenant, if it is known.
    fn find<T>(&self, tenant: &TenantId, operation: impl FnOnce(&mut Tenant) -> T) -> Option<T> {
        self.tenants.read().get(tenant).map(|tenant| operation(&mut tenant.lock()))
    }

    /// Does something to what is kept of a tenant, and makes it known.
    fn make<T>(&self, tenant: &TenantId, operation: impl FnOnce(&mut Tenant) -> T) -> T {
        let tenants = self.tenants.read();
        if let Some(tenant) = tenants.get(tenant) {
            return operation(&mut tenant.lock());
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
        self.find(tenant, |tenant| tenant.buildings.get_mut(building).map(operation)).flatten()
    }

    fn gateway<T>(&self, key: &GatewayKey, operation: impl FnOnce(&mut Record) -> T) -> Option<T> {
        self.building(&key.tenant, key.address.building(), |gateways| {
            gateways.get_mut(key.address.gateway()).map(operation)
        })
        .flatten()
    }
}
