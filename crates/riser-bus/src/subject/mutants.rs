//! Names that are wrong on purpose, for the test that shows what would be noticed.

use riser_core::TenantId;
use riser_core::mutants::{Side, instead};

use super::Naming;

impl Naming {
    /// What is written.
    pub const WRITTEN: [Self; 12] = [
        Self::Up,
        Self::Edge,
        Self::Live,
        Self::EdgeLive,
        Self::UpFilter,
        Self::LiveFilter,
        Self::Events,
        Self::EventStream,
        Self::Ledger,
        Self::LedgerFilter,
        Self::HeldEntry,
        Self::TenantEntry,
    ];
    /// What is read. Not the ledger's, of whose subjects only the address is used; filters are never read.
    pub const READ: [Self; 8] = [
        Self::Up,
        Self::Edge,
        Self::Live,
        Self::EdgeLive,
        Self::Events,
        Self::EventStream,
        Self::HeldEntry,
        Self::TenantEntry,
    ];
}

pub(super) fn written(naming: Naming, tenant: &TenantId) -> TenantId {
    instead(naming, Side::Written, tenant.clone())
}

pub(super) fn read(naming: Naming, tenant: TenantId) -> TenantId {
    instead(naming, Side::Read, tenant)
}
