//! Tokens that are good no more although their time has not come.

use std::collections::BTreeMap;

use crate::grant::Peer;
use crate::id::Address;

/// Most token ids of a tenant that are remembered: what one document can hold. Who must revoke more takes the key away.
pub const REVOKED_TOKENS: usize = 4_096;
/// Most subjects.
pub const REVOKED_SUBJECTS: usize = 1_024;
/// Most gateways: as many as a large tenant has, since each that was enrolled a second time stands here.
pub const REVOKED_GATEWAYS: usize = 16_384;
/// Longest token id, in bytes: a UUID or a hash in text, and a prefix.
pub const JTI_BYTES: usize = 128;

/// What was revoked. API keys and signing keys are not here: they are taken out of the tenant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Revocations {
    /// Token ids, and until when they must be remembered: when the token ends anyway, in Unix milliseconds.
    pub tokens: BTreeMap<String, u64>,
    /// Clients' subjects, and the time before which their tokens were issued, in Unix milliseconds.
    pub subjects: BTreeMap<String, u64>,
    /// Gateways, and the same.
    pub gateways: BTreeMap<Address, u64>,
}

/// There is no room for one more: a kind of entry, and how many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}: {1} are remembered already; take away the signing key instead, which ends all its tokens")]
pub struct Full(pub &'static str, pub usize);

impl Revocations {
    /// Whether a token that was good is not any more.
    pub fn covers(&self, jti: &str, peer: &Peer, issued_at_ms: u64) -> bool {
        let before = match peer {
            Peer::Gateway { address } => self.gateways.get(address),
            Peer::Client { subject } => self.subjects.get(subject.as_str()),
        };
        self.tokens.contains_key(jti) || before.is_some_and(|&before| issued_at_ms < before)
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.subjects.is_empty() && self.gateways.is_empty()
    }

    /// Revokes one token. `until_ms` is when it ends anyway, leeway included.
    pub fn token(&mut self, jti: impl Into<String>, until_ms: u64) -> Result<(), Full> {
        let jti = jti.into();
        if self.tokens.len() >= REVOKED_TOKENS && !self.tokens.contains_key(&jti) {
            return Err(Full("revoked tokens", REVOKED_TOKENS));
        }
        let until = self.tokens.entry(jti).or_default();
        *until = until_ms.max(*until);
        Ok(())
    }

    /// Revokes all tokens of a subject that were issued until now, and says what `iat` its next token needs, in Unix
    /// milliseconds.
    pub fn subject(&mut self, subject: impl Into<String>, now_ms: u64) -> Result<u64, Full> {
        let subject = subject.into();
        if self.subjects.len() >= REVOKED_SUBJECTS && !self.subjects.contains_key(&subject) {
            return Err(Full("revoked subjects", REVOKED_SUBJECTS));
        }
        Ok(later(self.subjects.entry(subject).or_default(), now_ms))
    }

    /// The same for a gateway: this is how enrolling again revokes the old device.
    pub fn gateway(&mut self, address: Address, now_ms: u64) -> Result<u64, Full> {
        if self.gateways.len() >= REVOKED_GATEWAYS && !self.gateways.contains_key(&address) {
            return Err(Full("revoked gateways", REVOKED_GATEWAYS));
        }
        Ok(later(self.gateways.entry(address).or_default(), now_ms))
    }

    /// Forgets the tokens that have ended by themselves. Subjects and gateways stay: nobody knows how long the tokens
    /// of theirs last.
    pub fn forget(&mut self, now_ms: u64) {
        self.tokens.retain(|_, until| *until > now_ms);
    }
}

/// Moves a time forward to the next whole second, and never back. Tokens say when they were issued in whole seconds: those
/// of the second that is running are revoked as well, and the next one is dated at the coming second, which is well within
/// what is allowed for clocks.
fn later(before: &mut u64, now_ms: u64) -> u64 {
    let next = (now_ms / 1000).saturating_add(1).saturating_mul(1000);
    *before = next.max(*before);
    *before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_issued_before_is_covered_and_the_next_token_is_not() {
        let mut revoked = Revocations::default();
        let address: Address = "b1/f1".parse().expect("an address");
        let gateway = Peer::Gateway { address: address.clone() };
        let alice = Peer::Client { subject: "alice".into() };
        let next = revoked.gateway(address.clone(), 10_400).expect("room");
        assert_eq!(next, 11_000);
        assert!(revoked.covers("j", &gateway, 10_000));
        assert!(!revoked.covers("j", &gateway, next));
        assert!(!revoked.covers("j", &alice, 0));
        assert_eq!(revoked.gateway(address, 5_000), Ok(11_000), "never back");
        revoked.subject("alice", 10_000).expect("room");
        assert!(revoked.covers("j", &alice, 10_000) && !revoked.covers("j", &alice, 11_000));
        revoked.token("t", 50_000).expect("room");
        assert!(revoked.covers("t", &gateway, 60_000));
        revoked.forget(50_000);
        assert!(!revoked.covers("t", &gateway, 60_000));
    }

    #[test]
    fn a_full_list_takes_what_it_has_and_nothing_more() {
        let mut revoked = Revocations::default();
        for i in 0..REVOKED_SUBJECTS {
            revoked.subject(i.to_string(), 0).expect("room");
        }
        assert!(revoked.subject("0", 5_000).is_ok());
        assert!(revoked.subject("one more", 5_000).is_err());
    }
}
