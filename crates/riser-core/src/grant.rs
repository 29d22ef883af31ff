//! What a credential allows: grants, verbs, and the identity that a session has for its whole life.

use serde::{Deserialize, Serialize};

use crate::filter::PathFilter;
use crate::id::{Address, Pattern, TenantId};
use crate::path::Path;

/// Most grants of one credential.
pub const GRANTS: usize = 64;
/// Longest subject of a client, in bytes.
pub const SUBJECT_BYTES: usize = 128;

/// Something a grant allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// See state, presence and events.
    Read,
    /// Send commands.
    Command,
    /// Publish events.
    Event,
    /// Hear live streams.
    Listen,
    /// Open live streams.
    Speak,
    /// Erase what is kept of a gateway, and what else is done to flats and not in them.
    Manage,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Verb; 6] = [Self::Read, Self::Command, Self::Event, Self::Listen, Self::Speak, Self::Manage];
    /// All that can be done in a flat: who may do this at an address may have its gateway's token made.
    pub const USE: [Verb; 5] = [Self::Read, Self::Command, Self::Event, Self::Listen, Self::Speak];
}

/// One right: these verbs, on this pattern, for these paths. A member or a verb that is not known makes the
/// whole grant void, so that nothing is allowed by a restriction that was not understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Where.
    pub to: Pattern,
    /// Which paths; all when left out.
    #[serde(default, skip_serializing_if = "PathFilter::is_all")]
    pub path: PathFilter,
    /// What.
    pub may: Vec<Verb>,
}

impl Grant {
    /// Everything in a tenant.
    pub fn everything() -> Self {
        Self { to: Pattern::All, path: PathFilter::ALL, may: Verb::ALL.to_vec() }
    }

    /// Whether this one grant allows the verb on all of the pattern and all of the paths.
    pub fn allows(&self, verb: Verb, to: &Pattern, path: &PathFilter) -> bool {
        self.may.contains(&verb) && self.to.contains(to) && self.path.contains(path)
    }

    /// Whether all that `other` allows is allowed by this grant.
    pub fn covers(&self, other: &Grant) -> bool {
        other.may.iter().all(|&verb| self.allows(verb, &other.to, &other.path))
    }
}

/// Who a session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A flat's gateway: it reports for one address.
    Gateway {
        /// Where it stands.
        address: Address,
    },
    /// A dashboard, a phone or a back end.
    Client {
        /// Its name within the tenant, 1 to 128 bytes.
        subject: String,
    },
}

/// What a credential proved: whose, who, and with which rights. Set once per session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Whose.
    pub tenant: TenantId,
    /// Who.
    pub peer: Peer,
    /// The rights.
    pub grants: Vec<Grant>,
    /// When the credential runs out, Unix milliseconds; none for an API key without an end.
    pub expires_at_ms: Option<u64>,
    /// For how long it was issued, in milliseconds, so that a renewal lasts as long; none for an API key.
    pub lifetime_ms: Option<u64>,
}

impl Identity {
    /// Whether one grant allows the verb on all of the pattern and all of the paths.
    pub fn allows(&self, verb: Verb, to: &Pattern, path: &PathFilter) -> bool {
        self.grants.iter().any(|grant| grant.allows(verb, to, path))
    }

    /// Whether a grant allows the verb at an address on one path.
    pub fn allows_path(&self, verb: Verb, at: &Address, path: &Path) -> bool {
        let at = Pattern::One(at.clone());
        self.grants.iter().any(|g| g.may.contains(&verb) && g.to.contains(&at) && g.path.matches(path))
    }

    /// Which of an address's paths the verb is granted on; none when it is not granted there at all.
    pub fn paths(&self, verb: Verb, to: &Pattern) -> Option<PathFilter> {
        let granted = self.grants.iter().filter(|g| g.may.contains(&verb) && g.to.contains(to));
        granted.map(|g| g.path.clone()).reduce(|a, b| a.union(&b))
    }

    /// Whether the credential is a token, not an API key.
    pub fn is_by_token(&self) -> bool {
        self.lifetime_ms.is_some()
    }

    /// When the token was issued, Unix milliseconds; 0 for an API key.
    pub fn issued_at_ms(&self) -> u64 {
        self.expires_at_ms.unwrap_or_default().saturating_sub(self.lifetime_ms.unwrap_or(u64::MAX))
    }

    /// The address, when it is a gateway.
    pub fn address(&self) -> Option<&Address> {
        match &self.peer {
            Peer::Gateway { address } => Some(address),
            Peer::Client { .. } => None,
        }
    }
}

/// The rights that a gateway's token has by default: the events of its building and of its tenant.
pub fn gateway_grants(address: &Address) -> Vec<Grant> {
    let of = |text: String| text.parse().ok().map(|to| Grant { to, path: PathFilter::ALL, may: vec![Verb::Read] });
    [format!("{}/_", address.building()), "_/_".into()].into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_word_or_member_makes_a_grant_void() {
        for bad in [
            r#"{"to":"b/*","may":["read","fly"]}"#,
            r#"{"to":"b/*","may":["read"],"until":5}"#,
            r#"{"to":"b/**","may":["read"]}"#,
            r#"{"to":"b/*","may":["read"],"path":[]}"#,
            r#"{"to":"b/*"}"#,
        ] {
            assert!(serde_json::from_str::<Grant>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_right_must_lie_within_one_grant() {
        let grant: Grant = serde_json::from_str(r#"{"to":"b/*","path":["hall/+"],"may":["read"]}"#).expect("a grant");
        let to = |s: &str| s.parse().expect("a pattern");
        let path = |s: &str| PathFilter::parse(&[s]).expect("a filter");
        assert!(grant.allows(Verb::Read, &to("b/g"), &path("hall/lock")));
        assert!(!grant.allows(Verb::Read, &to("b/g"), &PathFilter::ALL));
        assert!(!grant.allows(Verb::Command, &to("b/g"), &path("hall/lock")));
        assert!(!grant.allows(Verb::Read, &to("c/g"), &path("hall/lock")));
        assert!(Grant::everything().covers(&grant));
        assert!(!grant.covers(&Grant::everything()));
    }
}
