//! What the control plane works on, and who calls it.

use std::net::IpAddr;
use std::sync::Arc;

use prometheus::{IntCounter, Registry as Metrics};
use riser_bus::Bus;
use riser_bus::kv::Kv;
use riser_bus::log::Log;
use riser_core::tenant::HashKey;
use riser_registry::{CommandStore, Registry, StateStore};

use riser_tenants::Store;

/// What the control plane needs from outside. Each port has an in-memory twin.
#[derive(Clone)]
pub struct Ports {
    /// Where tenants are kept.
    pub kv: Arc<dyn Kv>,
    /// Tenants' events: what is audited goes there, and what a deleted tenant had is erased.
    pub log: Arc<dyn Log>,
    /// Who is connected.
    pub registry: Arc<dyn Registry>,
    /// Which buildings there are.
    pub state: Arc<dyn StateStore>,
    /// Which commands there are.
    pub commands: Arc<dyn CommandStore>,
    /// How edges are told.
    pub bus: Arc<dyn Bus>,
    /// The cluster's clock, or this machine's, in Unix milliseconds.
    pub now_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// What API keys are hashed with; edges must have the same.
    pub hash_key: Option<HashKey>,
}

/// The control plane. Clones are the same.
#[derive(Clone)]
pub struct Control {
    pub(crate) ports: Ports,
    pub(crate) store: Store,
    pub(crate) audit_failures: IntCounter,
}

/// Who asks for something, as the audit has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The name of the credential.
    pub who: String,
    /// From where.
    pub from: IpAddr,
}

impl Control {
    /// Puts it together.
    pub fn new(ports: Ports, metrics: &Metrics) -> prometheus::Result<Self> {
        let about = "Changes that were made and that no event tells of, because the event store did not take it.";
        let audit_failures = IntCounter::new("riser_control_audit_failures_total", about)?;
        metrics.register(Box::new(audit_failures.clone()))?;
        Ok(Self { store: Store::new(ports.kv.clone()), ports, audit_failures })
    }

    /// The tenants.
    pub fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn now_ms(&self) -> u64 {
        (self.ports.now_ms)()
    }
}
