//! Tenants: all that an edge must know to verify a credential and to keep a tenant within its bounds by itself.
//!
//! A tenant is one value. It comes from a file or out of a [`doc::TenantDoc`], the one text that the control plane keeps and
//! edges follow, and is checked whole when it is read: what is in a [`Tenant`] that came in so is good.

pub mod api_key;
pub mod doc;
pub mod public_key;
pub mod quota;
pub mod revoked;
pub mod signing;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use api_key::{ApiKey, HashKey, KeyHash};
pub use doc::{DocError, TenantDoc, Writer};
pub use public_key::{PublicKey, PublicKeyError};
pub use quota::{Quota, Quotas};
pub use revoked::Revocations;
pub use signing::{Algorithm, Material, SigningKey};

use crate::id::TenantId;
use crate::limits::Limits;

/// Whether a tenant's sessions are let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Status {
    /// They are.
    #[default]
    Active,
    /// They are refused and ended; nothing is erased.
    Suspended,
}

impl Status {
    /// As documents have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
        }
    }
}

/// What is kept of a tenant's events: never more than the cluster's configuration says, and that where nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// For how long, in milliseconds.
    pub age_ms: Option<u64>,
    /// How much, in bytes.
    pub bytes: Option<u64>,
}

/// A tenant as edges know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Whether its sessions are let in.
    pub status: Status,
    /// Origins that browsers may come from; none means any.
    pub origins: Option<Vec<String>>,
    /// Whether gateways may renew their own tokens.
    pub renewal: bool,
    /// Whether each command is told as an event of its audit.
    pub audit_commands: bool,
    /// The key that new tokens are signed with; empty when the cluster makes none for this tenant.
    pub signing_kid: String,
    /// Keys that tokens are verified with, by (kid, algorithm).
    pub signing_keys: BTreeMap<(String, Algorithm), SigningKey>,
    /// API keys, by what is kept of them.
    pub api_keys: BTreeMap<KeyHash, ApiKey>,
    /// What one session or gateway of the tenant may use.
    pub limits: Limits,
    /// What all of the tenant may use.
    pub quotas: Quotas,
    /// What is kept of its events.
    pub retention: Retention,
    /// Tokens that are good no more.
    pub revoked: Revocations,
}

/// Active, without keys, with the limits that everybody has.
impl Default for Tenant {
    fn default() -> Self {
        Self {
            status: Status::Active,
            origins: None,
            renewal: true,
            audit_commands: false,
            signing_kid: String::new(),
            signing_keys: BTreeMap::new(),
            api_keys: BTreeMap::new(),
            limits: Limits::default(),
            quotas: Quotas::NONE,
            retention: Retention::default(),
            revoked: Revocations::default(),
        }
    }
}

impl Tenant {
    /// Whether its sessions are refused and ended.
    pub fn is_suspended(&self) -> bool {
        self.status == Status::Suspended
    }

    /// Whether a peer with this `Origin` may connect. No origin means no browser.
    pub fn allows_origin(&self, origin: Option<&str>) -> bool {
        match (origin, &self.origins) {
            (None, _) | (_, None) => true,
            (Some(origin), Some(_)) => self.lists_origin(origin),
        }
    }

    /// Whether this `Origin` is on a list, and not only allowed for want of one.
    pub fn lists_origin(&self, origin: &str) -> bool {
        self.origins.as_ref().is_some_and(|list| list.iter().any(|allowed| allowed == origin))
    }

    /// How many keys of this name have not run out: [`api_key::KEYS_PER_NAME`] is what rotation needs.
    pub fn live_keys(&self, name: &str, now_ms: u64) -> usize {
        self.api_keys.values().filter(|key| key.name == name && key.is_live(now_ms)).count()
    }

    /// The key that new tokens are signed with.
    pub fn minting_key(&self) -> Option<&SigningKey> {
        let key = self.signing_keys.get(&(self.signing_kid.clone(), Algorithm::Hs256))?;
        key.secret().is_some().then_some(key)
    }
}

/// All tenants, and whose API key is whose. It is cheap to copy and to change in one place: tenants are shared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TenantTable {
    tenants: BTreeMap<TenantId, Arc<Tenant>>,
    /// Almost always one tenant each. A key that two tenants have is nobody's, so that it never opens the wrong one.
    owners: HashMap<KeyHash, Vec<TenantId>>,
}

impl TenantTable {
    /// The tenant of this name.
    pub fn get(&self, id: &TenantId) -> Option<&Arc<Tenant>> {
        self.tenants.get(id)
    }

    /// All tenants, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&TenantId, &Arc<Tenant>)> {
        self.tenants.iter()
    }

    /// How many tenants there are.
    pub fn len(&self) -> usize {
        self.tenants.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }

    /// Puts a tenant in, in the place of what had its name.
    pub fn insert(&mut self, id: TenantId, tenant: impl Into<Arc<Tenant>>) {
        let tenant = tenant.into();
        self.remove(&id);
        for hash in tenant.api_keys.keys() {
            self.owners.entry(*hash).or_default().push(id.clone());
        }
        self.tenants.insert(id, tenant);
    }

    /// Takes a tenant out.
    pub fn remove(&mut self, id: &TenantId) -> Option<Arc<Tenant>> {
        let tenant = self.tenants.remove(id)?;
        for hash in tenant.api_keys.keys() {
            if let Some(owners) = self.owners.get_mut(hash) {
                owners.retain(|owner| owner != id);
                if owners.is_empty() {
                    self.owners.remove(hash);
                }
            }
        }
        Some(tenant)
    }

    /// Changes a tenant; nothing when there is none of this name.
    pub fn update(&mut self, id: &TenantId, change: impl FnOnce(&mut Tenant)) {
        if let Some(mut tenant) = self.remove(id) {
            change(Arc::make_mut(&mut tenant));
            self.insert(id.clone(), tenant);
        }
    }

    /// The tenant and the API key of which this is kept.
    pub fn api_key(&self, hash: &KeyHash) -> Option<(&TenantId, &Arc<Tenant>, &ApiKey)> {
        // How long the look-up takes hangs on the hash, which tells nobody what to try next.
        let [owner] = self.owners.get(hash)?.as_slice() else { return None };
        let (id, tenant) = self.tenants.get_key_value(owner)?;
        Some((id, tenant, tenant.api_keys.get(hash)?))
    }

    /// Whether any tenant lets a browser of this origin in: what can be checked before the credential is known.
    pub fn allows_origin(&self, origin: &str) -> bool {
        self.tenants.values().any(|tenant| tenant.allows_origin(Some(origin)))
    }
}

impl<T: Into<Arc<Tenant>>> FromIterator<(TenantId, T)> for TenantTable {
    fn from_iter<I: IntoIterator<Item = (TenantId, T)>>(tenants: I) -> Self {
        let mut table = Self::default();
        for (id, tenant) in tenants {
            table.insert(id, tenant);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_key(hash: KeyHash) -> Tenant {
        Tenant { api_keys: [(hash, ApiKey::new("k", Vec::new()))].into(), ..Tenant::default() }
    }

    #[test]
    fn a_key_is_found_while_exactly_one_tenant_has_it() {
        let [a, b]: [TenantId; 2] = ["a", "b"].map(|id| id.parse().expect("a tenant"));
        let (one, two) = (KeyHash::Sha256([1; 32]), KeyHash::Sha256([2; 32]));
        let mut table: TenantTable = [(a.clone(), with_key(one))].into_iter().collect();
        let owner = |table: &TenantTable, hash: &KeyHash| table.api_key(hash).map(|(id, ..)| id.clone());
        assert_eq!(owner(&table, &one), Some(a.clone()));
        assert_eq!(owner(&table, &KeyHash::HmacSha256([1; 32])), None, "another kind of hash");
        table.insert(b.clone(), with_key(one));
        assert_eq!(owner(&table, &one), None, "two tenants have it");
        table.update(&b, |tenant| *tenant = with_key(two));
        assert_eq!((owner(&table, &one), owner(&table, &two)), (Some(a.clone()), Some(b.clone())));
        table.remove(&a);
        assert_eq!((owner(&table, &one), owner(&table, &two)), (None, Some(b)));
        assert_eq!(table.owners.len(), 1);
    }
}
