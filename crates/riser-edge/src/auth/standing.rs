//! How sessions stand whose credential was good, once the tenant table is another one.
//!
//! A session keeps with its identity a number that stands for the key its credential was checked with. When the key is
//! gone from the table, or its secret is another one, so is the number.

use std::collections::HashMap;
use std::net::IpAddr;

use riser_core::grant::Identity;
use riser_core::tenant::{ApiKey, KeyHash, Material, PublicKey, SigningKey, Tenant, TenantTable};
use riser_core::{CloseCode, TenantId};
use sha2::{Digest, Sha256};

/// What a session's right to be here hangs on, beside its tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    key: KeyNumber,
    by: By,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum By {
    /// A token of this id.
    Token(Box<str>),
    /// This API key, used from here.
    ApiKey(KeyHash, Option<IpAddr>),
}

/// The key that a credential was checked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct KeyNumber(u64);

impl Proof {
    pub(super) fn of_api_key(hash: &KeyHash, from: Option<IpAddr>) -> Self {
        Self { key: KeyNumber::of_api_key(hash), by: By::ApiKey(*hash, from) }
    }

    pub(super) fn of_token(key: &SigningKey, jti: Box<str>) -> Self {
        Self { key: KeyNumber::of_signing_key(key), by: By::Token(jti) }
    }

    /// The API key, unless it was a token.
    pub(crate) fn api_key(&self) -> Option<&KeyHash> {
        match &self.by {
            By::ApiKey(hash, _) => Some(hash),
            By::Token(_) => None,
        }
    }
}

impl KeyNumber {
    fn of_api_key(hash: &KeyHash) -> Self {
        Self::of_hash(hash.bytes())
    }

    fn of_signing_key(key: &SigningKey) -> Self {
        let mut hash = Sha256::new();
        // Neither a kid nor an algorithm's name holds a zero.
        for part in [key.kid.as_bytes(), b"\0", key.algorithm().as_str().as_bytes(), b"\0"] {
            hash.update(part);
        }
        match &key.material {
            Material::Secret(secret) => hash.update(secret),
            Material::Public(PublicKey::Ed25519(bytes)) => hash.update(bytes),
            Material::Public(PublicKey::P256(bytes)) => hash.update(bytes),
            Material::Public(PublicKey::Rsa { n, e }) => {
                hash.update(u64::try_from(n.len()).unwrap_or(u64::MAX).to_le_bytes());
                hash.update(n);
                hash.update(e);
            }
        }
        Self::of_hash(&hash.finalize().into())
    }

    /// A part of the hash is enough: who could make two keys of the same number would only keep an own one alive.
    fn of_hash(hash: &[u8; 32]) -> Self {
        Self(hash.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)))
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
    tenant: &'a Tenant,
    /// None for a signing key, whose tokens say for themselves what they allow.
    keys: HashMap<KeyNumber, Option<&'a ApiKey>>,
}

impl<'a> Keys<'a> {
    fn of(tenant: &'a Tenant) -> Self {
        let signing = tenant.signing_keys.values().map(|key| (KeyNumber::of_signing_key(key), None));
        let api = tenant.api_keys.iter().map(|(hash, key)| (KeyNumber::of_api_key(hash), Some(key)));
        Self { tenant, keys: signing.chain(api).collect() }
    }
}

impl<'a> Standing<'a> {
    /// Finds them once, for many sessions.
    pub(crate) fn of(table: &'a TenantTable) -> Self {
        Self(table.iter().map(|(id, tenant)| (id, Keys::of(tenant))).collect())
    }

    /// Why a session must end; none when it may go on. One without a proof was let in by other means than a key, and
    /// hangs on its tenant alone.
    pub(crate) fn lapse(&self, identity: &Identity, proof: Option<&Proof>) -> Option<Lapse> {
        let Some(Keys { tenant, keys }) = self.0.get(&identity.tenant) else { return Some(Lapse::Revoked) };
        judge(tenant, identity, proof, |key| keys.get(&key).copied())
    }
}

/// The same for one session.
pub(crate) fn lapse(table: &TenantTable, identity: &Identity, proof: Option<&Proof>) -> Option<Lapse> {
    let Some(tenant) = table.get(&identity.tenant) else { return Some(Lapse::Revoked) };
    judge(tenant, identity, proof, |number| {
        let api = tenant.api_keys.iter().find(|(hash, _)| KeyNumber::of_api_key(hash) == number);
        let signing = || tenant.signing_keys.values().any(|key| KeyNumber::of_signing_key(key) == number);
        api.map(|(_, key)| Some(key)).or_else(|| signing().then_some(None))
    })
}

fn judge<'a>(
    tenant: &Tenant,
    identity: &Identity,
    proof: Option<&Proof>,
    find: impl Fn(KeyNumber) -> Option<Option<&'a ApiKey>>,
) -> Option<Lapse> {
    if tenant.is_suspended() {
        return Some(Lapse::Suspended);
    }
    let proof = proof?;
    match (find(proof.key), &proof.by) {
        (Some(Some(key)), By::ApiKey(_, from)) => {
            let same = key.scope == identity.grants
                && key.expires_at_ms == identity.expires_at_ms
                && is_named(identity, &key.name)
                && key.may_come_from(*from);
            (!same).then_some(Lapse::Changed)
        }
        (Some(None), By::Token(jti)) => {
            let revoked = tenant.revoked.covers(jti, &identity.peer, identity.issued_at_ms());
            revoked.then_some(Lapse::Revoked)
        }
        _ => Some(Lapse::Revoked),
    }
}

fn is_named(identity: &Identity, name: &str) -> bool {
    matches!(&identity.peer, riser_core::Peer::Client { subject } if subject == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use riser_core::frame::Credential;
    use riser_core::tenant::{Algorithm, Status};
    use riser_core::{AddressRange, Grant, Peer};

    use super::super::{Seen, TokenOrder, mint, new_api_key, verify_with_proof};
    use super::*;

    const NOW_MS: u64 = 1_000_000;

    fn table() -> (TenantTable, String) {
        let (text, hash) = new_api_key(None);
        let tenant = Tenant {
            signing_kid: "a".into(),
            signing_keys: BTreeMap::from([SigningKey::hs256("a", [1; 32]).entry()]),
            api_keys: BTreeMap::from([(hash, ApiKey::new("k", vec![Grant::everything()]))]),
            ..Tenant::default()
        };
        ([("acme".parse().expect("a tenant"), tenant)].into_iter().collect(), text)
    }

    /// What becomes of a session with the API key, and of one with a token, when the table changes so.
    fn lapses(change: impl Fn(&mut TenantTable)) -> [Option<Lapse>; 2] {
        let (table, key) = table();
        let (id, tenant) = table.iter().next().expect("a tenant");
        let peer = Peer::Client { subject: "alice".into() };
        let order = TokenOrder { peer, grants: vec![Grant::everything()], ttl_s: 60 };
        let token = mint(id, tenant, &order, NOW_MS).expect("a token").token;
        let mut after = table.clone();
        change(&mut after);
        [key, token].map(|text| {
            let from = Some("10.1.2.3".parse().expect("an address"));
            let seen = Seen { now_ms: NOW_MS, from, hash_key: None };
            let proved = verify_with_proof(&table, &Credential::new(text), &seen);
            let (identity, proof) = proved.expect("a good credential");
            let found = lapse(&after, &identity, Some(&proof));
            assert_eq!(Standing::of(&after).lapse(&identity, Some(&proof)), found);
            found
        })
    }

    fn tenant_lapses(change: impl Fn(&mut Tenant)) -> [Option<Lapse>; 2] {
        lapses(|table| table.update(&"acme".parse().expect("a tenant"), &change))
    }

    fn key(tenant: &mut Tenant) -> &mut ApiKey {
        tenant.api_keys.values_mut().next().expect("a key")
    }

    #[test]
    fn a_session_ends_with_its_key_and_with_no_other() {
        use Lapse::{Changed, Revoked, Suspended};
        assert_eq!(lapses(|_| {}), [None, None]);
        assert_eq!(tenant_lapses(|t| t.api_keys.clear()), [Some(Revoked), None]);
        assert_eq!(tenant_lapses(|t| key(t).scope[0].may.truncate(1)), [Some(Changed), None]);
        assert_eq!(tenant_lapses(|t| key(t).name = "other".into()), [Some(Changed), None]);
        assert_eq!(tenant_lapses(|t| key(t).expires_at_ms = Some(NOW_MS * 2)), [Some(Changed), None]);
        let ranges = |of: &str| -> Vec<AddressRange> { vec![of.parse().expect("a range")] };
        assert_eq!(tenant_lapses(|t| key(t).from = ranges("10.0.0.0/8")), [None, None]);
        assert_eq!(tenant_lapses(|t| key(t).from = ranges("10.2.0.0/16")), [Some(Changed), None]);
        assert_eq!(tenant_lapses(|t| t.signing_keys.clear()), [None, Some(Revoked)]);
        let put = |t: &mut Tenant, key: SigningKey| t.signing_keys.extend([key.entry()]);
        assert_eq!(tenant_lapses(|t| put(t, SigningKey::hs256("a", [2; 32]))), [None, Some(Revoked)]);
        assert_eq!(tenant_lapses(|t| put(t, SigningKey::hs256("b", [2; 32]))), [None, None]);
        assert_eq!(tenant_lapses(|t| t.status = Status::Suspended), [Some(Suspended), Some(Suspended)]);
        assert_eq!(lapses(|t| drop(t.remove(&"acme".parse().expect("a tenant")))), [Some(Revoked), Some(Revoked)]);
    }

    #[test]
    fn a_token_ends_with_its_id_and_its_subject_and_with_no_other() {
        use Lapse::Revoked;
        let subject = |of: &'static str, at: u64| tenant_lapses(move |t| assert!(t.revoked.subject(of, at).is_ok()));
        assert_eq!(subject("alice", NOW_MS), [None, Some(Revoked)]);
        assert_eq!(subject("alice", NOW_MS - 1), [None, None], "issued after");
        assert_eq!(subject("bob", NOW_MS), [None, None]);
        assert_eq!(subject("k", NOW_MS), [None, None], "an API key is no token of its name");
        assert_eq!(tenant_lapses(|t| t.revoked.token("another", u64::MAX).expect("room")), [None, None]);
    }

    #[test]
    fn keys_of_another_kind_are_told_apart() {
        let public = PublicKey::Ed25519([1; 32]);
        let keys = [
            SigningKey::hs256("a", [1; 32]),
            SigningKey::public("a", public),
            SigningKey::public("a", PublicKey::P256([1; 64])),
            SigningKey::public("a", PublicKey::Rsa { n: vec![1; 256], e: vec![1, 0, 1] }),
            SigningKey::public("a", PublicKey::Rsa { n: vec![1; 257], e: vec![0, 1] }),
        ];
        let numbers: std::collections::HashSet<_> = keys.iter().map(KeyNumber::of_signing_key).collect();
        assert_eq!(numbers.len(), keys.len());
        assert_eq!(keys[1].algorithm(), Algorithm::EdDsa);
    }
}
