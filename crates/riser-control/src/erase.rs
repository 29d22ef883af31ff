//! Deleting a tenant: first nobody can come in any more, then all that it had is erased.

use std::time::Duration;

use riser_bus::log::LogError;
use riser_core::TenantId;
use riser_registry::{Erased, RegistryError};
use riser_tenants::{FlatsError, StoreError};
use tokio::time::sleep;

use crate::control::Control;

/// How long edges get to end what a deleted tenant had open. The table reaches them in milliseconds; an edge that is not
/// reached by then ends its sessions when it is, and what they may write until then is erased by deleting once more.
const SETTLE: Duration = Duration::from_secs(2);

/// What was erased of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ErasedTenant {
    /// Its stored events.
    pub(crate) events: u64,
    /// Flats that were registered.
    pub(crate) flats: u64,
    /// What the registry had of it.
    pub(crate) registry: Erased,
}

/// Why not all was erased.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EraseError {
    /// The event store.
    #[error("the tenant's events are not all erased")]
    Log(#[from] LogError),
    /// The copies of held commands.
    #[error("the copies of the tenant's held commands are not all erased")]
    Held(#[from] StoreError),
    /// The flats.
    #[error("the tenant's flats are not all erased")]
    Flats(#[from] FlatsError),
    /// The registry.
    #[error("the tenant's presence, values and commands are not all erased")]
    Registry(#[from] RegistryError),
}

impl Control {
    /// Erases all that a tenant has, which must be buried already. What sessions write that are not closed yet is erased
    /// too: it is done again once they had the time to end.
    pub(crate) async fn erase(&self, tenant: &TenantId) -> Result<ErasedTenant, EraseError> {
        let first = self.erase_once(tenant).await?;
        sleep(SETTLE).await;
        let mut both = self.erase_once(tenant).await?;
        both.events += first.events;
        both.flats += first.flats;
        both.registry += first.registry;
        Ok(both)
    }

    async fn erase_once(&self, tenant: &TenantId) -> Result<ErasedTenant, EraseError> {
        // Before the records: a copy of which there is no record is given back to the registry.
        self.store.forget_held(tenant, None).await?;
        let flats = self.store.flats().forget_all(tenant).await?;
        Ok(ErasedTenant {
            flats,
            registry: self.ports.registry.erase(tenant).await?,
            events: self.ports.log.erase(tenant).await?,
        })
    }
}
