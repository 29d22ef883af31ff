//! Tenants that are written or read wrongly on purpose. Only tests have this: it is behind the feature `mutants`.
//!
//! The modules that make names ask here for each tenant in them. Which is wrong is said by tenant, so that many mutants can
//! run beside each other in one process.

use std::any::type_name;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{PoisonError, RwLock};

use crate::TenantId;

/// What is wrong with a tenant's names: the name of the one that is, on which side, and which tenant is taken for it.
static WRONG: RwLock<BTreeMap<TenantId, (String, Side, TenantId)>> = RwLock::new(BTreeMap::new());

/// Whether a name is wrong where it is written or where it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Where it is written.
    Written,
    /// Where it is read.
    Read,
}

/// From now on takes one tenant for another in this name, on this side, and in no other name.
pub fn confuse<N: Debug>(naming: N, side: Side, tenant: TenantId, with: TenantId) {
    let mut wrong = WRONG.write().unwrap_or_else(PoisonError::into_inner);
    wrong.insert(tenant, (whole(naming), side, with));
}

/// The tenant that a name gets.
pub fn instead<N: Debug>(naming: N, side: Side, tenant: TenantId) -> TenantId {
    let wrong = WRONG.read().unwrap_or_else(PoisonError::into_inner);
    match wrong.get(&tenant) {
        Some((name, at, with)) if *at == side && *name == whole(naming) => with.clone(),
        _ => tenant,
    }
}

/// A name that no other module's is equal to.
fn whole<N: Debug>(naming: N) -> String {
    format!("{}::{naming:?}", type_name::<N>())
}
