//! Names that are wrong on purpose, for the test that shows what would be noticed.

use riser_core::TenantId;
use riser_core::mutants::{Side, instead};

use super::Naming;

impl Naming {
    /// What is written.
    pub const WRITTEN: [Self; 13] = [
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
        Self::FlatsEntry,
    ];
    /// What is read. Not the ledger's, of whose subjects only the address is used; filters are never read.
    pub const READ: [Self; 9] = [
        Self::Up,
        Self::Edge,
        Self::Live,
        Self::EdgeLive,
        Self::Events,
        Self::EventStream,
        Self::HeldEntry,
        Self::TenantEntry,
        Self::FlatsEntry,
    ];
}

pub(super) fn written(naming: Naming, tenant: &TenantId) -> TenantId {
    instead(naming, Side::Written, tenant.clone())
}

pub(super) fn read(naming: Naming, tenant: TenantId) -> TenantId {
    instead(naming, Side::Read, tenant)
}
