//! Names that are wrong on purpose, for the test that shows what would be noticed.

use riser_core::TenantId;
use riser_core::mutants::{Side, instead};

use super::Naming;

impl Naming {
    /// What is written.
    pub const WRITTEN: [Self; 16] = [
        Self::Heads,
        Self::OpenCommands,
        Self::Swept,
        Self::State,
        Self::Records,
        Self::Decided,
        Self::Expiry,
        Self::Buildings,
        Self::KeyUses,
        Self::Streams,
        Self::StreamEnds,
        Self::StreamsAt,
        Self::Opened,
        Self::Room,
        Self::LeaseEntry,
        Self::DueEntry,
    ];
    /// What is read: the names of keys are not.
    pub const READ: [Self; 2] = [Self::LeaseEntry, Self::DueEntry];
}

pub(super) fn written(naming: Naming, tenant: &TenantId) -> TenantId {
    instead(naming, Side::Written, tenant.clone())
}

pub(super) fn read(naming: Naming, tenant: TenantId) -> TenantId {
    instead(naming, Side::Read, tenant)
}
