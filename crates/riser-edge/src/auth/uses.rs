//! When API keys were used last, coarsely: for whoever tidies up keys that nobody uses.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use riser_core::TenantId;
use riser_core::tenant::{KeyHash, TenantTable};

/// The least time between two uses of a key that are told. Nobody tidies up by the second, and a key may come with
/// thousands of requests in one.
const EVERY: Duration = Duration::from_secs(60);

/// A use of an API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyUse {
    /// Whose.
    pub(crate) tenant: TenantId,
    /// Which.
    pub(crate) hash: KeyHash,
    /// When, Unix milliseconds on the cluster's clock.
    pub(crate) at_ms: u64,
}

/// The last use of each key. Bounded by the keys of the table, since only good ones are noted.
#[derive(Default)]
pub(crate) struct KeyUses(Mutex<HashMap<KeyHash, Last>>);

struct Last {
    tenant: TenantId,
    at_ms: u64,
    /// Whether nobody was told.
    fresh: bool,
}

impl KeyUses {
    pub(crate) fn note(&self, tenant: &TenantId, hash: &KeyHash, now_ms: u64) {
        let every = u64::try_from(EVERY.as_millis()).unwrap_or(u64::MAX);
        let mut uses = self.0.lock();
        match uses.get_mut(hash) {
            Some(last) if now_ms < last.at_ms.saturating_add(every) => {}
            Some(last) => (last.at_ms, last.fresh) = (now_ms, true),
            None => {
                uses.insert(*hash, Last { tenant: tenant.clone(), at_ms: now_ms, fresh: true });
            }
        }
    }

    /// What is new since this was called last.
    pub(crate) fn take(&self) -> Vec<KeyUse> {
        let mut uses = self.0.lock();
        let tell = |(hash, last): (&KeyHash, &mut Last)| {
            let told = KeyUse { tenant: last.tenant.clone(), hash: *hash, at_ms: last.at_ms };
            std::mem::take(&mut last.fresh).then_some(told)
        };
        uses.iter_mut().filter_map(tell).collect()
    }

    /// Forgets keys that are not in the table any more.
    pub(crate) fn forget(&self, table: &TenantTable) {
        self.0.lock().retain(|hash, _| table.api_key(hash).is_some());
    }
}

#[cfg(test)]
mod tests {
    use riser_core::tenant::{ApiKey, Tenant};

    use super::*;

    #[test]
    fn a_use_is_told_once_and_again_after_a_minute() {
        let uses = KeyUses::default();
        let (acme, hash): (TenantId, _) = ("acme".parse().expect("a tenant"), KeyHash::Sha256([1; 32]));
        let at = |now_ms: u64| {
            uses.note(&acme, &hash, now_ms);
            uses.take().into_iter().map(|told| told.at_ms).collect::<Vec<_>>()
        };
        assert_eq!(at(1_000), [1_000]);
        assert!(at(60_999).is_empty() && uses.take().is_empty());
        assert_eq!(at(61_000), [61_000]);
    }

    #[test]
    fn a_key_that_is_gone_is_forgotten() {
        let uses = KeyUses::default();
        let acme: TenantId = "acme".parse().expect("a tenant");
        let [kept, gone] = [1, 2].map(|n| KeyHash::Sha256([n; 32]));
        for hash in [kept, gone] {
            uses.note(&acme, &hash, 1);
        }
        let tenant = Tenant { api_keys: [(kept, ApiKey::new("k", Vec::new()))].into(), ..Tenant::default() };
        uses.forget(&TenantTable::from_iter([(acme, tenant)]));
        assert_eq!(uses.take().into_iter().map(|told| told.hash).collect::<Vec<_>>(), [kept]);
    }
}
