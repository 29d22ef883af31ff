//! The names of all keys, and of what has a tenant in its name below keys that all tenants share.
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

use std::fmt;

use riser_core::command::CommandId;
use riser_core::{Address, BuildingId, GatewayKey, TenantId};

use crate::Lease;

/// What the names of all keys match.
pub(super) const ALL: &[u8] = b"riser:*";

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

/// What has a tenant in it, and is written or read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// The heads of a building's gateways.
    Heads,
    /// Their open commands.
    OpenCommands,
    /// Leases that were swept in a building.
    Swept,
    /// The values of a gateway.
    State,
    /// The records of its commands.
    Records,
    /// Its decided commands by place.
    Decided,
    /// Its decided commands by when they are forgotten.
    Expiry,
    /// The buildings of a tenant.
    Buildings,
    /// When its API keys were used last.
    KeyUses,
    /// Its open streams.
    Streams,
    /// When they end.
    StreamEnds,
    /// When those at one address end.
    StreamsAt,
    /// What its open commands take.
    Opened,
    /// What its decided commands take.
    Room,
    /// A building in the index of a lease.
    LeaseEntry,
    /// A command among all deadlines.
    DueEntry,
}

/// A tenant as a name has it. All names of this module get theirs from here, so that a test can make each of them wrong.
#[cfg(not(feature = "mutants"))]
fn written(_in: Naming, tenant: &TenantId) -> &TenantId {
    tenant
}

/// Whose a name is that was read. All tenants that this module reads come from here.
#[cfg(not(feature = "mutants"))]
fn read(_in: Naming, tenant: TenantId) -> TenantId {
    tenant
}

#[cfg(feature = "mutants")]
mod mutants;
#[cfg(feature = "mutants")]
use mutants::{read, written};

/// The keys of one building.
pub(super) struct Building<'a> {
    tenant: &'a TenantId,
    building: &'a BuildingId,
}

impl<'a> Building<'a> {
    pub(super) fn new(tenant: &'a TenantId, building: &'a BuildingId) -> Self {
        Self { tenant, building }
    }

    pub(super) fn of(key: &'a GatewayKey) -> Self {
        Self::new(&key.tenant, key.address.building())
    }

    fn name(&self, naming: Naming, rest: impl fmt::Display) -> String {
        format!("riser:{{{}/{}}}:{rest}", written(naming, self.tenant), self.building)
    }

    pub(super) fn heads(&self) -> Key {
        hash(self.name(Naming::Heads, 'g'))
    }

    pub(super) fn open(&self) -> Key {
        hash(self.name(Naming::OpenCommands, 'q'))
    }

    pub(super) fn swept(&self) -> Key {
        hash(self.name(Naming::Swept, 'f'))
    }

    pub(super) fn state(&self, of: &Address) -> Key {
        let head = Some((self.heads().name, of.gateway().to_string()));
        Key { head, ..hash(self.name(Naming::State, format_args!("s:{}", of.gateway()))) }
    }

    pub(super) fn records(&self, of: &Address) -> Key {
        hash(self.name(Naming::Records, format_args!("c:{}", of.gateway())))
    }

    pub(super) fn decided(&self, of: &Address) -> Key {
        zset(self.name(Naming::Decided, format_args!("d:{}", of.gateway())))
    }

    pub(super) fn expiry(&self, of: &Address) -> Key {
        zset(self.name(Naming::Expiry, format_args!("x:{}", of.gateway())))
    }
}

/// The keys of one tenant.
pub(super) struct Tenant<'a>(&'a TenantId);

impl<'a> Tenant<'a> {
    pub(super) fn new(tenant: &'a TenantId) -> Self {
        Self(tenant)
    }

    fn name(&self, naming: Naming, rest: impl fmt::Display) -> String {
        format!("riser:{{{}}}:{rest}", written(naming, self.0))
    }

    pub(super) fn buildings(&self) -> Key {
        Key::new(self.name(Naming::Buildings, 'b'), Kind::Set)
    }

    pub(super) fn key_uses(&self) -> Key {
        hash(self.name(Naming::KeyUses, 'k'))
    }

    pub(super) fn streams(&self) -> Key {
        hash(self.name(Naming::Streams, 'l'))
    }

    pub(super) fn stream_ends(&self) -> Key {
        zset(self.name(Naming::StreamEnds, 'z'))
    }

    pub(super) fn streams_at(&self, at: &Address) -> Key {
        zset(self.name(Naming::StreamsAt, format_args!("a:{at}")))
    }

    /// Of the open commands: their deadlines, their bytes, and all bytes.
    pub(super) fn opened(&self) -> [Key; 3] {
        let name = |rest| self.name(Naming::Opened, rest);
        [zset(name("oa")), hash(name("os")), Key::new(name("ob"), Kind::Text)]
    }

    /// Of the decided commands: their ages, their bytes, and all bytes.
    pub(super) fn room(&self) -> [Key; 3] {
        let name = |rest| self.name(Naming::Room, rest);
        [zset(name("ra")), hash(name("rs")), Key::new(name("rb"), Kind::Text)]
    }
}

/// What a building is called in the index of a lease.
pub(super) fn lease_entry(tenant: &TenantId, building: &BuildingId) -> String {
    format!("{}/{building}", written(Naming::LeaseEntry, tenant))
}

/// Reads what a building is called in the index of a lease.
pub(super) fn parse_lease_entry(name: &str) -> Option<(TenantId, BuildingId)> {
    let (tenant, building) = name.split_once('/')?;
    Some((read(Naming::LeaseEntry, tenant.parse().ok()?), building.parse().ok()?))
}

/// What a command is called among the deadlines.
pub(super) fn due_entry(tenant: &TenantId, cmd: &CommandId) -> String {
    format!("{} {cmd}", written(Naming::DueEntry, tenant))
}

/// Reads what a command is called among the deadlines.
pub(super) fn parse_due_entry(name: &str) -> Option<(TenantId, CommandId)> {
    let (tenant, cmd) = name.split_once(' ')?;
    Some((read(Naming::DueEntry, tenant.parse().ok()?), cmd.parse().ok()?))
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
mod tests;
