//! How sessions stand whose credential was good, once the tenant table is another one.
//!
//! A session keeps with its identity a number that stands for the key its credential was checked with. When the key is
//! gone from the table, or its secret is another one, so is the number.

use std::collections::HashMap;
use std::num::NonZeroU64;

use riser_core::grant::Identity;
use riser_core::tenant::{ApiKey, SigningKey, Tenant, TenantTable};
use riser_core::{CloseCode, TenantId};
use sha2::{Digest, Sha256};

/// The key that a credential was checked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Proof(NonZeroU64);

impl Proof {
    pub(super) fn of_api_key(hash: &[u8; 32]) -> Self {
        Self::of_hash(hash)
    }

    pub(super) fn of_signing_key(key: &SigningKey) -> Self {
        let mut hash = Sha256::new();
        // Neither a kid nor an algorithm's name holds a zero.
        for part in [key.kid.as_bytes(), b"\0", key.algorithm.as_str().as_bytes(), b"\0", &key.secret] {
            hash.update(part);
        }
        Self::of_hash(&hash.finalize().into())
    }

    /// A part of the hash is enough: who could make two keys of the same number would only keep an own one alive.
    fn of_hash(hash: &[u8; 32]) -> Self {
        let first = hash.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Self(NonZeroU64::new(first).unwrap_or(NonZeroU64::MIN))
    }
}

/// Why a session whose credential was good must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lapse {
    /// Its tenant is suspended.
    Suspended,
    /// Its tenant or its key is gone.
    Revoked,
    /// Its key has another name or other rights.
    Changed,
}

impl Lapse {
    pub(crate) fn close_code(self) -> CloseCode {
        match self {
            Self::Suspended => CloseCode::NotAllowed,
            Self::Revoked => CloseCode::Revoked,
            // It may come back at once, and gets what the key has now.
            Self::Changed => CloseCode::Drain,
        }
    }

    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Suspended => "the tenant is suspended",
            Self::Revoked => "the credential was revoked",
            Self::Changed => "the rights of the API key have changed",
        }
    }
}

/// All keys of a table, by what stands for them.
pub(crate) struct Standing<'a>(HashMap<&'a TenantId, Keys<'a>>);

struct Keys<'a> {
    suspended: bool,
    /// None for a signing key, whose tokens say for themselves what they allow.
    keys: HashMap<Proof, Option<&'a ApiKey>>,
}

impl<'a> Keys<'a> {
    fn of(tenant: &'a Tenant) -> Self {
        let signing = tenant.signing_keys.values().map(|key| (Proof::of_signing_key(key), None));
        let api = tenant.api_keys.iter().map(|key| (Proof::of_api_key(&key.hash), Some(key)));
        Self { suspended: tenant.suspended, keys: signing.chain(api).collect() }
    }
}

impl<'a> Standing<'a> {
    /// Finds them once, for many sessions.
    pub(crate) fn of(table: &'a TenantTable) -> Self {
        Self(table.tenants.iter().map(|(id, tenant)| (id, Keys::of(tenant))).collect())
    }

    /// Why a session must end; none when it may go on. One without a proof was let in by other means than a key, and
    /// hangs on its tenant alone.
    pub(crate) fn lapse(&self, identity: &Identity, proof: Option<Proof>) -> Option<Lapse> {
        let Some(tenant) = self.0.get(&identity.tenant) else { return Some(Lapse::Revoked) };
        judge(tenant.suspended, identity, proof, |proof| tenant.keys.get(&proof).copied())
    }
}

/// The same for one session.
pub(crate) fn lapse(table: &TenantTable, identity: &Identity, proof: Option<Proof>) -> Option<Lapse> {
    let Some(tenant) = table.tenants.get(&identity.tenant) else { return Some(Lapse::Revoked) };
    judge(tenant.suspended, identity, proof, |proof| {
        let api = tenant.api_keys.iter().find(|key| Proof::of_api_key(&key.hash) == proof);
        let signing = || tenant.signing_keys.values().any(|key| Proof::of_signing_key(key) == proof);
        api.map(Some).or_else(|| signing().then_some(None))
    })
}

fn judge<'a>(
    suspended: bool,
    identity: &Identity,
    proof: Option<Proof>,
    find: impl Fn(Proof) -> Option<Option<&'a ApiKey>>,
) -> Option<Lapse> {
    if suspended {
        return Some(Lapse::Suspended);
    }
    match find(proof?) {
        None => Some(Lapse::Revoked),
        Some(Some(key)) if key.scope != identity.grants || !is_named(identity, &key.name) => Some(Lapse::Changed),
        Some(_) => None,
    }
}

fn is_named(identity: &Identity, name: &str) -> bool {
    matches!(&identity.peer, riser_core::Peer::Client { subject } if subject == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use riser_core::frame::Credential;
    use riser_core::tenant::Algorithm;
    use riser_core::{Grant, Peer};

    use super::super::{TokenOrder, mint, new_api_key, verify_with_proof};
    use super::*;

    fn signing(kid: &str, secret: u8) -> SigningKey {
        SigningKey { kid: kid.into(), algorithm: Algorithm::Hs256, secret: vec![secret; 32] }
    }

    fn table() -> (TenantTable, String) {
        let (text, hash) = new_api_key();
        let tenant = Tenant {
            suspended: false,
            origins: None,
            renewal: true,
            signing_kid: "a".into(),
            signing_keys: BTreeMap::from([(("a".into(), Algorithm::Hs256), signing("a", 1))]),
            api_keys: vec![ApiKey { name: "k".into(), hash, scope: vec![Grant::everything()] }],
            limits: riser_core::limits::Limits::default(),
        };
        (TenantTable { tenants: BTreeMap::from([("acme".parse().expect("a tenant"), tenant)]) }, text)
    }

    /// What becomes of a session with the API key, and of one with a token, when the table changes so.
    fn lapses(change: impl Fn(&mut TenantTable)) -> [Option<Lapse>; 2] {
        let (table, key) = table();
        let (id, tenant) = table.tenants.first_key_value().expect("a tenant");
        let peer = Peer::Client { subject: "alice".into() };
        let order = TokenOrder { peer, grants: vec![Grant::everything()], ttl_s: 60 };
        let token = mint(id, tenant, &order, 1_000_000).expect("a token").token;
        let mut after = table.clone();
        change(&mut after);
        [key, token].map(|text| {
            let proved = verify_with_proof(&table, &Credential::new(text), 1_000_000);
            let (identity, proof) = proved.expect("a good credential");
            let found = lapse(&after, &identity, Some(proof));
            assert_eq!(Standing::of(&after).lapse(&identity, Some(proof)), found);
            found
        })
    }

    fn acme(table: &mut TenantTable) -> &mut Tenant {
        table.tenants.values_mut().next().expect("a tenant")
    }

    #[test]
    fn a_session_ends_with_its_key_and_with_no_other() {
        use Lapse::{Changed, Revoked, Suspended};
        assert_eq!(lapses(|_| {}), [None, None]);
        assert_eq!(lapses(|t| acme(t).api_keys.clear()), [Some(Revoked), None]);
        assert_eq!(lapses(|t| acme(t).api_keys[0].scope[0].may.truncate(1)), [Some(Changed), None]);
        assert_eq!(lapses(|t| acme(t).api_keys[0].name = "other".into()), [Some(Changed), None]);
        assert_eq!(lapses(|t| acme(t).signing_keys.clear()), [None, Some(Revoked)]);
        let other_secret = |t: &mut TenantTable| {
            acme(t).signing_keys.insert(("a".into(), Algorithm::Hs256), signing("a", 2));
        };
        assert_eq!(lapses(other_secret), [None, Some(Revoked)]);
        let further = |t: &mut TenantTable| {
            acme(t).signing_keys.insert(("b".into(), Algorithm::Hs256), signing("b", 2));
            acme(t).signing_kid = "b".into();
        };
        assert_eq!(lapses(further), [None, None]);
        assert_eq!(lapses(|t| acme(t).suspended = true), [Some(Suspended), Some(Suspended)]);
        assert_eq!(lapses(|t| t.tenants.clear()), [Some(Revoked), Some(Revoked)]);
    }
}
