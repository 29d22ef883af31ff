//! How subjects are written and read. Every subject of the cluster is made and parsed here and nowhere else.

use std::fmt;
use std::str::FromStr;

use riser_core::command::{CommandId, Digest};
use riser_core::{Address, BuildingId, EdgeId, GatewayKey, Pattern, TenantId};

/// First tokens of all subjects of this release.
const ROOT: &str = "riser.v1";

/// What has a tenant in it, and is written or read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// [`Subject::Up`].
    Up,
    /// [`Subject::Edge`].
    Edge,
    /// [`Subject::Live`].
    Live,
    /// [`Subject::EdgeLive`].
    EdgeLive,
    /// [`Filter::Up`].
    UpFilter,
    /// [`Filter::Live`].
    LiveFilter,
    /// The subject of a tenant's events.
    Events,
    /// The name of the stream that keeps them.
    EventStream,
    /// The subject of a gateway's entries in the ledger.
    Ledger,
    /// What the subjects of a tenant's entries in the ledger match.
    LedgerFilter,
    /// [`Entry::Held`].
    HeldEntry,
    /// [`Entry::Tenant`].
    TenantEntry,
    /// [`Entry::Flats`].
    FlatsEntry,
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

/// Where one message goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// What a gateway's edge tells its watchers: `riser.v1.up.<tenant>.<building>.<gateway>`.
    Up(GatewayKey),
    /// What concerns a gateway and goes to the edge that holds it: `riser.v1.edge.<edge>.<tenant>.<building>.<gateway>`.
    Edge(EdgeId, GatewayKey),
    /// What edges tell each other: `riser.v1.edges`.
    Edges,
    /// The live streams of an address, to all who listen: `riser.v1.live.<tenant>.<building>.<gateway>`.
    Live(GatewayKey),
    /// The live streams of a gateway's own address, to the edge that holds it. Apart from [`Subject::Edge`], so that
    /// audio never stands before commands: `riser.v1.edge-live.<edge>.<tenant>.<building>.<gateway>`.
    EdgeLive(EdgeId, GatewayKey),
}

/// Which messages a subscription gets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Filter {
    /// What happens to the gateways of a tenant that a pattern names.
    Up(TenantId, Pattern),
    /// An edge's inbox.
    Edge(EdgeId),
    /// What edges tell each other.
    Edges,
    /// The live streams of the addresses of a tenant that a pattern names.
    Live(TenantId, Pattern),
    /// The live streams for the gateways of an edge.
    EdgeLive(EdgeId),
}

impl Filter {
    /// Whether a message on this subject is for the subscription.
    pub fn matches(&self, subject: &Subject) -> bool {
        match (self, subject) {
            (Self::Up(tenant, pattern), Subject::Up(key)) | (Self::Live(tenant, pattern), Subject::Live(key)) => {
                *tenant == key.tenant && pattern.matches(&key.address)
            }
            (Self::Edge(edge), Subject::Edge(to, _)) | (Self::EdgeLive(edge), Subject::EdgeLive(to, _)) => edge == to,
            (Self::Edges, Subject::Edges) => true,
            _ => false,
        }
    }
}

impl Subject {
    /// Reads a subject as it is written; none when it is not one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let tokens = text.strip_prefix(ROOT)?.strip_prefix('.')?;
        let mut tokens = tokens.split('.');
        let mut next = || tokens.next();
        let subject = match next()? {
            "up" => Self::Up(key(Naming::Up, next()?, next()?, next()?)?),
            "edge" => Self::Edge(next()?.parse().ok()?, key(Naming::Edge, next()?, next()?, next()?)?),
            "edges" => Self::Edges,
            "live" => Self::Live(key(Naming::Live, next()?, next()?, next()?)?),
            "edge-live" => Self::EdgeLive(next()?.parse().ok()?, key(Naming::EdgeLive, next()?, next()?, next()?)?),
            _ => return None,
        };
        next().is_none().then_some(subject)
    }
}

fn key(naming: Naming, tenant: &str, building: &str, gateway: &str) -> Option<GatewayKey> {
    let address = Address::new(building.parse().ok()?, gateway.parse().ok()?).ok()?;
    Some(GatewayKey::new(read(naming, tenant.parse().ok()?), address))
}

/// Where one life of a tenant's event stream stores: `riser.v1.log.<tenant>.<life>`. The life is in the subject, so that
/// what was sent to a stream that is lost is not stored in the one that came after it, and nobody hears of it in the
/// wrong life. No [`Filter`] matches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventSubject {
    pub(crate) tenant: TenantId,
    pub(crate) life: u64,
}

impl EventSubject {
    /// Reads a subject as it is written; none when it is not one of a stream of events.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (tenant, life) = text.strip_prefix(ROOT)?.strip_prefix(".log.")?.split_once('.')?;
        let number = u64::from_str_radix(life, 16).ok()?;
        // One way to write it.
        let is_ours = number != 0 && format!("{number:016x}") == life;
        is_ours.then_some(Self { tenant: read(Naming::Events, tenant.parse().ok()?), life: number })
    }
}

impl fmt::Display for EventSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ROOT}.log.{}.{:016x}", written(Naming::Events, &self.tenant), self.life)
    }
}

/// The name of the stream that keeps a tenant's events: `riser-ev-<tenant>`.
pub(crate) fn event_stream(tenant: &TenantId) -> String {
    format!("riser-ev-{}", written(Naming::EventStream, tenant))
}

/// Whose events the stream of this name keeps; none when it is no such stream.
pub(crate) fn tenant_of_stream(name: &str) -> Option<TenantId> {
    name.strip_prefix("riser-ev-")?.parse().ok().map(|tenant| read(Naming::EventStream, tenant))
}

/// The stream of the ledger.
pub(crate) const LEDGER_STREAM: &str = "riser-ledger";

/// Where a gateway's entries in the ledger are stored: `riser.v1.ledger.<tenant>.<building>.<gateway>`. No [`Filter`] matches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LedgerSubject(pub(crate) GatewayKey);

impl LedgerSubject {
    /// Reads a subject as it is written; none when it is not one of the ledger.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut tokens = text.strip_prefix(ROOT)?.strip_prefix(".ledger.")?.split('.');
        let key = key(Naming::Ledger, tokens.next()?, tokens.next()?, tokens.next()?)?;
        tokens.next().is_none().then_some(Self(key))
    }

    /// What finds the repetition of an entry, in the stream that all tenants share. It has no [`Naming`]: the digest in `cmd` is
    /// over the tenant too, so that nobody could tell if the tenant were another one here.
    pub(crate) fn id(&self, cmd: &CommandId) -> String {
        format!("{} {cmd}", self.0.tenant)
    }

    /// What the subjects of all entries match.
    pub(crate) fn all() -> String {
        format!("{ROOT}.ledger.*.*.*")
    }

    /// What the subjects of those entries of a tenant match whose address a pattern names.
    pub(crate) fn of(tenant: &TenantId, pattern: &Pattern) -> String {
        format!("{ROOT}.ledger.{}", PatternTokens(Naming::LedgerFilter, tenant, pattern))
    }
}

impl fmt::Display for LedgerSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ROOT}.ledger.{}", Tokens(Naming::Ledger, &self.0))
    }
}

/// The subject of probes of this name. Names are those of this workspace's own programs, and no part of a tenant's subjects.
pub(crate) fn probe_subject(name: &str) -> String {
    format!("{ROOT}.probe.{name}")
}

/// A bucket of [`crate::kv::Kv`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// Copies of the records of held commands: `riser-held`.
    Held,
    /// The tenant table: `riser-tenants`.
    Tenants,
    /// Flats that are registered: `riser-flats`.
    Flats,
}

impl Bucket {
    /// Every bucket.
    pub const ALL: [Self; 3] = [Self::Held, Self::Tenants, Self::Flats];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "riser-held",
            Self::Tenants => "riser-tenants",
            Self::Flats => "riser-flats",
        }
    }

    /// The stream that keeps it, as NATS' own tools call it.
    pub(crate) fn stream(self) -> String {
        format!("KV_{}", self.name())
    }

    /// What the subjects of all its entries match.
    pub(crate) fn subjects(self) -> String {
        format!("$KV.{}.>", self.name())
    }
}

/// What an entry of a bucket is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    /// The record of a held command, in [`Bucket::Held`]: `<tenant>.<building>.<gateway>.<digest>`.
    Held(GatewayKey, Digest),
    /// What edges are to know of a tenant, in [`Bucket::Tenants`]: `<tenant>`.
    Tenant(TenantId),
    /// A part of a building's flats, in [`Bucket::Flats`]: `<tenant>.<building>.<part>`, the part from 0 to 9.
    Flats(TenantId, BuildingId, u8),
}

/// Parts of a building's flats, each an entry of its own: as many as one digit names.
pub const FLAT_PARTS: u8 = 8;

impl Entry {
    /// Where it is kept.
    pub fn bucket(&self) -> Bucket {
        match self {
            Self::Held(..) => Bucket::Held,
            Self::Tenant(_) => Bucket::Tenants,
            Self::Flats(..) => Bucket::Flats,
        }
    }

    /// Reads the subject of an entry as it is written; none when it is not one of this bucket's.
    pub(crate) fn parse(bucket: Bucket, subject: &str) -> Option<Self> {
        let name = subject.strip_prefix("$KV.")?.strip_prefix(bucket.name())?.strip_prefix('.')?;
        let mut tokens = name.split('.');
        let mut next = || tokens.next();
        let entry = match bucket {
            Bucket::Held => Self::Held(key(Naming::HeldEntry, next()?, next()?, next()?)?, next()?.parse().ok()?),
            Bucket::Tenants => Self::Tenant(read(Naming::TenantEntry, next()?.parse().ok()?)),
            Bucket::Flats => {
                Self::Flats(read(Naming::FlatsEntry, next()?.parse().ok()?), next()?.parse().ok()?, part(next()?)?)
            }
        };
        next().is_none().then_some(entry)
    }
}

/// Not the subject of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the subject of an entry of Riser's buckets")]
pub struct NoEntry;

/// The subject of an entry, of whichever bucket.
impl FromStr for Entry {
    type Err = NoEntry;
    fn from_str(subject: &str) -> Result<Self, NoEntry> {
        Bucket::ALL.into_iter().find_map(|bucket| Self::parse(bucket, subject)).ok_or(NoEntry)
    }
}

/// The subject of an entry.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "$KV.{}.", self.bucket().name())?;
        match self {
            Self::Held(key, digest) => write!(f, "{}.{digest}", Tokens(Naming::HeldEntry, key)),
            Self::Tenant(tenant) => write!(f, "{}", written(Naming::TenantEntry, tenant)),
            Self::Flats(tenant, building, part) => {
                write!(f, "{}.{building}.{part}", written(Naming::FlatsEntry, tenant))
            }
        }
    }
}

/// A part of a building's flats, as it is written.
fn part(text: &str) -> Option<u8> {
    text.parse().ok().filter(|part| *part < FLAT_PARTS && text.len() == 1)
}

struct Tokens<'a>(Naming, &'a GatewayKey);

impl fmt::Display for Tokens<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(naming, GatewayKey { tenant, address }) = self;
        write!(f, "{}.{}.{}", written(*naming, tenant), address.building(), address.gateway())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up(key) => write!(f, "{ROOT}.up.{}", Tokens(Naming::Up, key)),
            Self::Edge(edge, key) => write!(f, "{ROOT}.edge.{edge}.{}", Tokens(Naming::Edge, key)),
            Self::Edges => write!(f, "{ROOT}.edges"),
            Self::Live(key) => write!(f, "{ROOT}.live.{}", Tokens(Naming::Live, key)),
            Self::EdgeLive(edge, key) => write!(f, "{ROOT}.edge-live.{edge}.{}", Tokens(Naming::EdgeLive, key)),
        }
    }
}

struct PatternTokens<'a>(Naming, &'a TenantId, &'a Pattern);

impl fmt::Display for PatternTokens<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(naming, tenant, pattern) = self;
        let tenant = written(*naming, tenant);
        match pattern {
            Pattern::One(address) => write!(f, "{tenant}.{}.{}", address.building(), address.gateway()),
            Pattern::Building(building) => write!(f, "{tenant}.{building}.*"),
            Pattern::All => write!(f, "{tenant}.*.*"),
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up(tenant, pattern) => write!(f, "{ROOT}.up.{}", PatternTokens(Naming::UpFilter, tenant, pattern)),
            Self::Edge(edge) => write!(f, "{ROOT}.edge.{edge}.*.*.*"),
            Self::Edges => write!(f, "{ROOT}.edges"),
            Self::Live(tenant, pattern) => {
                write!(f, "{ROOT}.live.{}", PatternTokens(Naming::LiveFilter, tenant, pattern))
            }
            Self::EdgeLive(edge) => write!(f, "{ROOT}.edge-live.{edge}.*.*.*"),
        }
    }
}

#[cfg(test)]
mod tests;
