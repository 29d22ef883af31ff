//! Edges that are wrong on purpose, made by breaking their ports: the checker must catch each of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use riser_bus::{Bus, BusError, Filter, Health, Inbox, Subject, Subscription};
use riser_core::limits::Limits;
use riser_core::tenant::KeyHash;
use riser_core::{BuildingId, Change, Epoch, GatewayId, GatewayKey, Presence, Reason, Snapshot, TenantId, Version};
use riser_edge::Ports;
use riser_registry::{
    Acquired, Applied, Ended, Erased, Held, Lease, Registry, RegistryError, Renewed, Restored, StateStore, Usage,
};
use tokio::sync::watch;

use crate::cluster::Decorate;

mod commands;
mod events;

/// Something that may be wrong with an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// State is acknowledged before it is stored, and now and then it never is.
    AckBeforeStored,
    /// Now and then a message goes to the other tenant.
    SwapTenants,
    /// Nobody marks a dead edge's gateways offline.
    PresenceNeverExpires,
    /// A session gets the epoch of an earlier one.
    EpochUsedAgain,
    /// A command is acknowledged and dropped.
    CommandForgotten,
    /// A command is delivered twice to a gateway that does not remember it.
    CommandSentAgain,
    /// A key that comes again is executed again.
    KeyForgotten,
    /// Two commands change places.
    CommandsReordered,
    /// An event is acknowledged and dropped.
    EventForgotten,
    /// An event that comes again is delivered again.
    EventStoredTwice,
    /// Two events change places.
    EventsReordered,
    /// Two frames of a live stream change places.
    LiveReordered,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 12] = [
        Self::AckBeforeStored,
        Self::SwapTenants,
        Self::PresenceNeverExpires,
        Self::EpochUsedAgain,
        Self::CommandForgotten,
        Self::CommandSentAgain,
        Self::KeyForgotten,
        Self::CommandsReordered,
        Self::EventForgotten,
        Self::EventStoredTwice,
        Self::EventsReordered,
        Self::LiveReordered,
    ];

    /// Ports that make every edge this mutant.
    pub fn decorate(self, seed: u64) -> Decorate {
        let rng = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
        let epochs: Arc<Mutex<BTreeMap<GatewayKey, Epoch>>> = Arc::default();
        let seen = commands::Shared { rng: Mutex::new(fastrand::Rng::with_seed(seed)), seen: Mutex::default() };
        let shared = Arc::new(seen);
        Arc::new(move |_, ports| {
            let rng = rng.clone();
            match self {
                Self::AckBeforeStored => {
                    let store = Arc::new(Hasty { inner: ports.store.clone(), rng, ahead: Mutex::default() });
                    Ports { store, ..ports }
                }
                Self::SwapTenants => Ports { bus: Arc::new(Swapping { inner: ports.bus.clone(), rng }), ..ports },
                Self::LiveReordered => Ports {
                    bus: Arc::new(Overtaking { inner: ports.bus.clone(), rng, held: Mutex::default() }),
                    ..ports
                },
                Self::PresenceNeverExpires => {
                    let registry = Wrong { inner: ports.registry.clone(), never_expires: true, epochs: None, rng };
                    Ports { registry: Arc::new(registry), ..ports }
                }
                Self::EpochUsedAgain => {
                    let epochs = Some(epochs.clone());
                    let registry = Wrong { inner: ports.registry.clone(), never_expires: false, epochs, rng };
                    Ports { registry: Arc::new(registry), ..ports }
                }
                Self::CommandForgotten => wrong_commands(ports, commands::Fault::Forgets, &shared),
                Self::CommandSentAgain => wrong_commands(ports, commands::Fault::SendsAgain, &shared),
                Self::KeyForgotten => wrong_commands(ports, commands::Fault::ForgetsKeys, &shared),
                Self::CommandsReordered => wrong_commands(ports, commands::Fault::Reorders, &shared),
                Self::EventForgotten => wrong_events(ports, events::Fault::Forgets, rng),
                Self::EventStoredTwice => wrong_events(ports, events::Fault::StoresTwice, rng),
                Self::EventsReordered => wrong_events(ports, events::Fault::Reorders, rng),
            }
        })
    }
}

fn wrong_commands(ports: Ports, fault: commands::Fault, shared: &Arc<commands::Shared>) -> Ports {
    let wrong = commands::Wrong { inner: ports.commands.clone(), fault, shared: shared.clone() };
    Ports { commands: Arc::new(wrong), ..ports }
}

fn wrong_events(ports: Ports, fault: events::Fault, rng: Arc<Mutex<fastrand::Rng>>) -> Ports {
    Ports { log: Arc::new(events::Wrong { inner: ports.log.clone(), fault, rng }), ..ports }
}

struct Hasty {
    inner: Arc<dyn StateStore>,
    rng: Arc<Mutex<fastrand::Rng>>,
    /// Changes that were acknowledged and are not stored yet, with the version they were acknowledged as.
    ahead: Mutex<BTreeMap<GatewayKey, Vec<(Version, Change)>>>,
}

#[async_trait]
impl StateStore for Hasty {
    async fn apply(
        &self,
        key: &GatewayKey,
        version: Version,
        change: &Change,
        limits: &Limits,
    ) -> Result<Applied, RegistryError> {
        if self.rng.lock().u8(..8) == 0 {
            self.ahead.lock().entry(key.clone()).or_default().push((version, change.clone()));
            return Ok(Applied::Stored { at_ms: 0 });
        }
        let late = self.ahead.lock().remove(key).unwrap_or_default();
        for (version, change) in late {
            self.inner.apply(key, version, &change, limits).await?;
        }
        self.inner.apply(key, version, change, limits).await
    }
    async fn read(&self, key: &GatewayKey) -> Result<Option<Snapshot>, RegistryError> {
        self.inner.read(key).await
    }
    async fn versions(&self, t: &TenantId, b: &BuildingId) -> Result<Vec<(GatewayId, Version)>, RegistryError> {
        self.inner.versions(t, b).await
    }
    async fn buildings(&self, tenant: &TenantId) -> Result<Vec<BuildingId>, RegistryError> {
        self.inner.buildings(tenant).await
    }
}

struct Swapping {
    inner: Arc<dyn Bus>,
    rng: Arc<Mutex<fastrand::Rng>>,
}

#[async_trait]
impl Bus for Swapping {
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        if let Subject::Up(key) = subject
            && self.rng.lock().u8(..20) == 0
        {
            let other = if key.tenant.as_str() == "acme" { "bolt" } else { "acme" };
            let tenant = other.parse().expect("a tenant");
            return self.inner.publish(&Subject::Up(GatewayKey::new(tenant, key.address.clone())), payload).await;
        }
        self.inner.publish(subject, payload).await
    }
    async fn subscribe(&self, filter: &Filter, inbox: &Inbox) -> Result<Subscription, BusError> {
        self.inner.subscribe(filter, inbox).await
    }
    fn health(&self) -> watch::Receiver<Health> {
        self.inner.health()
    }
}

/// A bus on which a live message now and then waits until the next one has gone.
struct Overtaking {
    inner: Arc<dyn Bus>,
    rng: Arc<Mutex<fastrand::Rng>>,
    held: Mutex<BTreeMap<GatewayKey, Bytes>>,
}

#[async_trait]
impl Bus for Overtaking {
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        let Subject::Live(key) = subject else { return self.inner.publish(subject, payload).await };
        let held = self.held.lock().remove(key);
        if held.is_none() && self.rng.lock().u8(..8) == 0 {
            self.held.lock().insert(key.clone(), payload);
            return Ok(());
        }
        self.inner.publish(subject, payload).await?;
        match held {
            Some(held) => self.inner.publish(subject, held).await,
            None => Ok(()),
        }
    }
    async fn subscribe(&self, filter: &Filter, inbox: &Inbox) -> Result<Subscription, BusError> {
        self.inner.subscribe(filter, inbox).await
    }
    fn health(&self) -> watch::Receiver<Health> {
        self.inner.health()
    }
}

struct Wrong {
    inner: Arc<dyn Registry>,
    never_expires: bool,
    /// The epochs that were given last.
    epochs: Option<Arc<Mutex<BTreeMap<GatewayKey, Epoch>>>>,
    rng: Arc<Mutex<fastrand::Rng>>,
}

#[async_trait]
impl Registry for Wrong {
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Renewed, RegistryError> {
        self.inner.renew(lease, ttl).await
    }
    async fn drain(&self, lease: &Lease, moving: Duration) -> Result<(), RegistryError> {
        self.inner.drain(lease, moving).await
    }
    async fn acquire(&self, l: &Lease, key: &GatewayKey, floor: Option<Epoch>) -> Result<Acquired, RegistryError> {
        let mut acquired = self.inner.acquire(l, key, floor).await?;
        if let Some(epochs) = &self.epochs {
            let again = self.rng.lock().u8(..6) == 0;
            let mut epochs = epochs.lock();
            match epochs.get(key) {
                Some(last) if again => acquired.epoch = *last,
                _ => drop(epochs.insert(key.clone(), acquired.epoch)),
            }
        }
        Ok(acquired)
    }
    async fn restore(&self, l: &Lease, key: &GatewayKey, v: Version, since_ms: u64) -> Result<Restored, RegistryError> {
        self.inner.restore(l, key, v, since_ms).await
    }
    async fn release(&self, key: &GatewayKey, epoch: Epoch, reason: Reason) -> Result<Option<Ended>, RegistryError> {
        self.inner.release(key, epoch, reason).await
    }
    async fn audit(&self, tenant: &TenantId, building: &BuildingId) -> Result<Vec<Held>, RegistryError> {
        self.inner.audit(tenant, building).await
    }
    async fn ended_leases(&self) -> Result<Vec<(Lease, Reason)>, RegistryError> {
        if self.never_expires { Ok(Vec::new()) } else { self.inner.ended_leases().await }
    }
    async fn tell_usage(
        &self,
        l: &Lease,
        told: &BTreeMap<TenantId, Usage>,
        ttl: Duration,
    ) -> Result<(), RegistryError> {
        self.inner.tell_usage(l, told, ttl).await
    }
    async fn usage(&self, tenant: &TenantId) -> Result<Vec<Usage>, RegistryError> {
        self.inner.usage(tenant).await
    }
    async fn note_key_uses(&self, t: &TenantId, uses: &BTreeMap<KeyHash, Option<u64>>) -> Result<(), RegistryError> {
        self.inner.note_key_uses(t, uses).await
    }
    async fn key_uses(&self, tenant: &TenantId) -> Result<BTreeMap<KeyHash, u64>, RegistryError> {
        self.inner.key_uses(tenant).await
    }
    async fn lease_index(&self, lease: &Lease) -> Result<Vec<(TenantId, BuildingId)>, RegistryError> {
        self.inner.lease_index(lease).await
    }
    async fn sweep(
        &self,
        lease: &Lease,
        reason: Reason,
        tenant: &TenantId,
        building: &BuildingId,
    ) -> Result<Vec<(GatewayId, Ended)>, RegistryError> {
        self.inner.sweep(lease, reason, tenant, building).await
    }
    async fn forget(&self, lease: &Lease) -> Result<(), RegistryError> {
        self.inner.forget(lease).await
    }
    async fn presence(
        &self,
        tenant: &TenantId,
        building: &BuildingId,
        after: Option<&GatewayId>,
        limit: usize,
    ) -> Result<Vec<(GatewayId, Presence)>, RegistryError> {
        self.inner.presence(tenant, building, after, limit).await
    }
    async fn erase_gateway(&self, key: &GatewayKey) -> Result<Erased, RegistryError> {
        self.inner.erase_gateway(key).await
    }
    async fn erase(&self, tenant: &TenantId) -> Result<Erased, RegistryError> {
        self.inner.erase(tenant).await
    }
}
