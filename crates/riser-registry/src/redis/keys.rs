//! The names of all keys.
//!
//! What belongs to one building is in one hash slot (`{tenant/building}`), what belongs to a whole tenant in another
//! (`{tenant}`), and so are all leases and the index of deadlines. No name of ours holds `{`, `}`, `:`, `/` or a blank, and
//! that of a tenant no `_` either, so that no two of these are the same.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `riser:{t/b}:g` | hash | by gateway: its head, all but its values |
//! | `riser:{t/b}:q` | hash | by gateway: its open commands, in a line |
//! | `riser:{t/b}:f` | hash | leases that were swept here a short time ago |
//! | `riser:{t/b}:s:g` | hash | by path: a value; the description has no path |
//! | `riser:{t/b}:c:g` | hash | by digest: a command's record |
//! | `riser:{t/b}:d:g` | zset | decided commands by place |
//! | `riser:{t/b}:x:g` | zset | decided commands by when they are forgotten |
//! | `riser:{t}:b` | set | buildings |
//! | `riser:{t}:k` | hash | by API key's hash: when it was used last |
//! | `riser:{t}:l`, `riser:{t}:z` | hash, zset | open streams, and when they end |
//! | `riser:{t}:a:b/g` | zset | when the streams at one address end |
//! | `riser:{t}:ra`, `riser:{t}:rs`, `riser:{t}:rb` | zset, hash, string | decided commands by age, their bytes, all bytes |
//! | `riser:{t}:oa`, `riser:{t}:os`, `riser:{t}:ob` | zset, hash, string | open commands by deadline, their bytes, all bytes |
//! | `riser:{_leases}:l` | hash | leases |
//! | `riser:{_leases}:i:edge:start` | zset | the buildings of one lease |
//! | `riser:{_leases}:u:edge:start` | string | what tenants use of an edge |
//! | `riser:{_restore}:m` | string | which backup is being restored |
//! | `riser:{_life}:n` | string | a random number: another one tells that everything was lost |
//! | `riser:{_due}:z`, `riser:{_due}:by` | zset, string | open commands by deadline, and which edge sweeps them |

use riser_core::{Address, BuildingId, GatewayKey, TenantId};

use crate::Lease;

/// What a key is when only we write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Hash,
    Set,
    Zset,
    Text,
}

impl Kind {
    /// The word of the command `TYPE`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Set => "set",
            Self::Zset => "zset",
            Self::Text => "string",
        }
    }
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// The key of the heads and the gateway whose head is worth nothing without this key.
    pub(super) head: Option<(String, String)>,
}

impl Key {
    fn new(name: String, kind: Kind) -> Self {
        Self { name, kind, head: None }
    }
}

fn hash(name: String) -> Key {
    Key::new(name, Kind::Hash)
}

fn zset(name: String) -> Key {
    Key::new(name, Kind::Zset)
}

/// The keys of one building.
pub(super) struct Building(String);

impl Building {
    pub(super) fn new(tenant: &TenantId, building: &BuildingId) -> Self {
        Self(format!("riser:{{{tenant}/{building}}}"))
    }

    pub(super) fn of(key: &GatewayKey) -> Self {
        Self::new(&key.tenant, key.address.building())
    }

    pub(super) fn heads(&self) -> Key {
        hash(format!("{}:g", self.0))
    }

    pub(super) fn open(&self) -> Key {
        hash(format!("{}:q", self.0))
    }

    pub(super) fn swept(&self) -> Key {
        hash(format!("{}:f", self.0))
    }

    pub(super) fn state(&self, of: &Address) -> Key {
        let head = Some((self.heads().name, of.gateway().to_string()));
        Key { head, ..hash(format!("{}:s:{}", self.0, of.gateway())) }
    }

    pub(super) fn records(&self, of: &Address) -> Key {
        hash(format!("{}:c:{}", self.0, of.gateway()))
    }

    pub(super) fn decided(&self, of: &Address) -> Key {
        zset(format!("{}:d:{}", self.0, of.gateway()))
    }

    pub(super) fn expiry(&self, of: &Address) -> Key {
        zset(format!("{}:x:{}", self.0, of.gateway()))
    }
}

/// The keys of one tenant.
pub(super) struct Tenant(String);

impl Tenant {
    pub(super) fn new(tenant: &TenantId) -> Self {
        Self(format!("riser:{{{tenant}}}"))
    }

    pub(super) fn buildings(&self) -> Key {
        Key::new(format!("{}:b", self.0), Kind::Set)
    }

    pub(super) fn key_uses(&self) -> Key {
        hash(format!("{}:k", self.0))
    }

    pub(super) fn streams(&self) -> Key {
        hash(format!("{}:l", self.0))
    }

    pub(super) fn stream_ends(&self) -> Key {
        zset(format!("{}:z", self.0))
    }

    pub(super) fn streams_at(&self, at: &Address) -> Key {
        zset(format!("{}:a:{at}", self.0))
    }

    /// Of the open commands: their deadlines, their bytes, and all bytes.
    pub(super) fn opened(&self) -> [Key; 3] {
        let total = Key::new(format!("{}:ob", self.0), Kind::Text);
        [zset(format!("{}:oa", self.0)), hash(format!("{}:os", self.0)), total]
    }

    /// Of the decided commands: their ages, their bytes, and all bytes.
    pub(super) fn room(&self) -> [Key; 3] {
        let total = Key::new(format!("{}:rb", self.0), Kind::Text);
        [zset(format!("{}:ra", self.0)), hash(format!("{}:rs", self.0)), total]
    }
}

pub(super) fn leases() -> Key {
    hash("riser:{_leases}:l".into())
}

pub(super) fn lease_index(lease: &Lease) -> Key {
    zset(format!("riser:{{_leases}}:i:{}:{}", lease.edge, lease.start))
}

pub(super) fn usage(lease: &Lease) -> Key {
    Key::new(format!("riser:{{_leases}}:u:{}:{}", lease.edge, lease.start), Kind::Text)
}

pub(super) fn due() -> Key {
    zset("riser:{_due}:z".into())
}

pub(super) fn mark() -> Key {
    Key::new("riser:{_restore}:m".into(), Kind::Text)
}

/// A number that is drawn when there is none.
pub(super) fn life() -> Key {
    Key::new("riser:{_life}:n".into(), Kind::Text)
}

pub(super) fn sweeper() -> Key {
    Key::new("riser:{_due}:by".into(), Kind::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Redis Cluster hashes: what is between the first `{` and the first `}` after it.
    fn tag(key: &Key) -> &str {
        let inner = key.name.split_once('{').expect("a tag").1;
        inner.split_once('}').expect("a tag").0
    }

    #[test]
    fn all_keys_of_a_building_are_in_one_slot_and_no_two_are_the_same() {
        let building = |tenant: &str, name: &str| {
            let key = GatewayKey::new(tenant.parse().expect("a tenant"), name.parse().expect("an address"));
            let (b, of) = (Building::of(&key), &key.address);
            [b.heads(), b.open(), b.swept(), b.state(of), b.records(of), b.decided(of), b.expiry(of)]
        };
        let tenant = |tenant: &str| {
            let (tenant, at) = (tenant.parse().expect("a tenant"), "b/g".parse().expect("an address"));
            let keys = Tenant::new(&tenant);
            let mut all =
                vec![keys.buildings(), keys.key_uses(), keys.streams(), keys.stream_ends(), keys.streams_at(&at)];
            all.extend(keys.room().into_iter().chain(keys.opened()));
            all
        };
        let lease = Lease { edge: "i".parse().expect("an edge"), start: 1 };
        let mut all = vec![leases(), due(), sweeper(), mark(), usage(&lease), lease_index(&lease)];
        for keys in [building("t", "b/g").to_vec(), building("t", "b/h").to_vec(), building("t", "_/_").to_vec()] {
            assert!(keys.iter().all(|key| tag(key) == tag(&keys[0])));
            all.extend(keys);
        }
        for keys in [tenant("t"), tenant("leases"), tenant("due")] {
            assert!(keys.iter().all(|key| tag(key) == tag(&keys[0])));
            all.extend(keys);
        }
        let mut names: Vec<_> = all.iter().map(|key| &key.name).collect();
        names.sort();
        // The heads, the open commands and the swept leases of a building are shared by its gateways.
        names.dedup();
        assert_eq!(names.len(), all.len() - 3);
    }
}
