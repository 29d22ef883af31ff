//! The registry: who holds which gateway, and the last values of each.
//!
//! Four contracts, [`Registry`] (epochs, leases, presence), [`StateStore`] (last values), [`CommandStore`] (records of
//! commands) and [`StreamStore`] (open live streams), kept by one store because taking over, ending, changing and
//! commanding a gateway must exclude each other. [`memory`] is the twin that `riser dev` and the simulation run on;
//! `suite` holds what every implementation must do. [`held`] keeps copies of held commands' records elsewhere.
//!
//! # What holds for every implementation
//!
//! - Each operation on one gateway, and each operation on one building, is atomic.
//! - Time is the store's own clock, in Unix milliseconds. Leases end by it.
//! - `Err` means that nobody answered: the operation may or may not have happened. Every operation can be
//!   repeated with the same arguments and then answers as if it had happened once, unless its own text says
//!   otherwise.
//! - A record of a gateway holds its version, its presence, the lease that owns it, and its state. Losing data
//!   means that records are missing or are older than they were; it never mixes two gateways.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use riser_core::limits::Limits;
use riser_core::state::OverLimit;
use riser_core::tenant::KeyHash;
use riser_core::{
    BuildingId, Change, EdgeId, Epoch, GatewayId, GatewayKey, Presence, Reason, Snapshot, TenantId, Version,
};

pub mod commands;
pub mod held;
pub mod memory;
pub mod redis;
pub mod streams;
pub mod suite;
mod usage;

pub use commands::{CommandStore, Created, Holder, NewCommand, Stepped};
pub use held::HeldCommands;
pub use streams::{Opened, StreamStore};
pub use usage::Usage;

/// Most gateways that one page of [`Registry::presence`] holds.
pub const PRESENCE_PAGE: usize = 1_000;

/// How long a lease is held that the store does not know when it gets a gateway, as after a loss of data. Several
/// times what an edge takes to renew, so that none ends that is alive.
pub const ADOPTED_LEASE: Duration = Duration::from_secs(10);

/// Over how long takeovers of a gateway are counted. Two devices that share a credential and keep to the protocol come
/// back a minute after each takeover.
pub const TAKEOVER_WINDOW: Duration = Duration::from_secs(600);

/// Nobody answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The store cannot be reached, or did not answer in time.
    #[error("the registry did not answer")]
    Unavailable,
}

/// One life of an edge: its name, and a number that no other life of it has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    /// The edge.
    pub edge: EdgeId,
    /// The number of its start.
    pub start: u64,
}

/// The answer to [`Registry::renew`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewed {
    /// Whether the lease was held already. `false` is right at the start; later it means that the lease had
    /// ended, or that the store lost it.
    pub held: bool,
    /// The store's clock.
    pub now_ms: u64,
    /// How many leases stand, this one among them when it does, that are not being drained: so many edges serve. Right
    /// after an edge was killed and started again its old lease counts too, until it ends.
    pub edges: usize,
}

/// The answer to [`Registry::acquire`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acquired {
    /// The fencing number of the new session.
    pub epoch: Epoch,
    /// Where the state stood before, when anything was known of the gateway.
    pub before: Option<Version>,
    /// Whether there are values to keep, and none was lost: what `have` in `welcome` says.
    pub has_state: bool,
    /// The lease that held the gateway until now, when a session was online.
    pub taken_from: Option<Lease>,
    /// Since when it is online; a takeover keeps it.
    pub since_ms: u64,
    /// How often a session was taken over within [`TAKEOVER_WINDOW`] before, this time included: two devices that share a
    /// credential take turns.
    pub takeovers: u32,
    /// How many of its commands are not decided, so that a storm of gateways without any asks for none.
    pub open_commands: usize,
    /// Whether live streams are open at its address.
    pub has_streams: bool,
    /// The store's clock.
    pub now_ms: u64,
}

/// The answer to [`Registry::restore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// The record is the caller's again. `lost` says whether state of this epoch was missing, so that the
    /// gateway must be asked for all of it.
    Held {
        /// Whether changes that had been stored are gone.
        lost: bool,
    },
    /// A newer session holds the gateway.
    Superseded(Epoch),
    /// The session was ended in the store, as when its lease had run out: it cannot come online twice.
    Ended,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The position after the end: the next revision of the epoch, because readers show all values of a gateway that
    /// is offline as stale. What is stored is not touched: a session that comes back vouches for it.
    pub version: Version,
    /// Why.
    pub reason: Reason,
    /// When.
    pub at_ms: u64,
}

/// What [`Registry::audit`] tells of one gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The gateway, within the building that was asked for.
    pub gateway: GatewayId,
    /// Where its state stands.
    pub version: Version,
    /// The lease that holds it; none when it is offline.
    pub lease: Option<Lease>,
    /// How many of its commands wait to be sent for the first time.
    pub unsent: usize,
}

/// Epochs, leases and presence.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// Holds the lease for `ttl` from now. A lease that ended (see [`Registry::ended_leases`]) is not revived: an edge
    /// that is told `held: false` after its start takes a lease with a new number. When an unanswered call has begun
    /// a lease, its repetition is told `held: true`; what the store lost, the audit finds.
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Renewed, RegistryError>;

    /// Says that the edge is going away: its gateways stay online for `moving` from now while they move, and what
    /// has not moved by then ends with [`Reason::EdgeDrained`]. The lease cannot be renewed any more, and a repeated
    /// call leaves the time at what the first one set.
    async fn drain(&self, lease: &Lease, moving: Duration) -> Result<(), RegistryError>;

    /// Begins a session: gives it an epoch greater than every one before it and greater than `floor`
    /// ([`Epoch::next`]), sets the version to (epoch, 0), and makes the lease the holder. The building is
    /// in the lease's index before. Values and descriptions are kept. A lease that the store does not know is held for
    /// [`ADOPTED_LEASE`].
    ///
    /// A repeated call begins a further session, which takes over from the first.
    async fn acquire(&self, lease: &Lease, key: &GatewayKey, floor: Option<Epoch>) -> Result<Acquired, RegistryError>;

    /// Registers a session again after the store lost it, or under the edge's new lease. `version` is the
    /// greatest that was stored, `since_ms` since when the session is online.
    ///
    /// A missing record, or one of an older epoch, is written anew, online, at `version`. A record of the same epoch
    /// that is online gets the lease and the greater of both versions. Otherwise the answer says why not.
    /// What remains of the values is kept. Once state was lost, every call says so until a full change is stored,
    /// so that a repeated one does too. The lease and its index are treated as in [`Registry::acquire`].
    async fn restore(
        &self,
        lease: &Lease,
        key: &GatewayKey,
        version: Version,
        since_ms: u64,
    ) -> Result<Restored, RegistryError>;

    /// Ends a session, if it still holds the gateway. None when a newer session holds it,
    /// or it ended before with another reason; a repeated call with the same reason answers the same.
    async fn release(&self, key: &GatewayKey, epoch: Epoch, reason: Reason) -> Result<Option<Ended>, RegistryError>;

    /// All that is known of a building's gateways, in the order of their names. Costs one read, whatever their state.
    async fn audit(&self, tenant: &TenantId, building: &BuildingId) -> Result<Vec<Held>, RegistryError>;

    /// The leases that ended and were not forgotten yet, each with the reason to mark its gateways offline with:
    /// [`Reason::EdgeLost`] when it ran out, [`Reason::EdgeDrained`] after [`Registry::drain`].
    async fn ended_leases(&self) -> Result<Vec<(Lease, Reason)>, RegistryError>;

    /// The buildings in a lease's index.
    async fn lease_index(&self, lease: &Lease) -> Result<Vec<(TenantId, BuildingId)>, RegistryError>;

    /// Ends the sessions that a lease still holds in one building, and takes the building from the lease's index.
    /// Each session is ended by one caller only, whoever else sweeps at the same time; a repeated call does not name
    /// again what an unanswered one ended. No session of the lease stays online in a building that its index lacks.
    async fn sweep(
        &self,
        lease: &Lease,
        reason: Reason,
        tenant: &TenantId,
        building: &BuildingId,
    ) -> Result<Vec<(GatewayId, Ended)>, RegistryError>;

    /// Says for `ttl` what tenants use of an edge, in the place of what it said before.
    async fn tell_usage(
        &self,
        lease: &Lease,
        usage: &BTreeMap<TenantId, Usage>,
        ttl: Duration,
    ) -> Result<(), RegistryError>;

    /// What a tenant uses of each edge that told of it.
    async fn usage(&self, tenant: &TenantId) -> Result<Vec<Usage>, RegistryError>;

    /// Notes when API keys of a tenant were used last, Unix milliseconds; none forgets a key. Of several edges the last word
    /// counts.
    async fn note_key_uses(
        &self,
        tenant: &TenantId,
        uses: &BTreeMap<KeyHash, Option<u64>>,
    ) -> Result<(), RegistryError>;

    /// When API keys of a tenant were used last, as far as it was noted.
    async fn key_uses(&self, tenant: &TenantId) -> Result<BTreeMap<KeyHash, u64>, RegistryError>;

    /// Forgets an ended lease whose index is empty.
    async fn forget(&self, lease: &Lease) -> Result<(), RegistryError>;

    /// Presence of a building's gateways in the order of their names, those after `after`, at most `limit`
    /// (and at most [`PRESENCE_PAGE`]).
    async fn presence(
        &self,
        tenant: &TenantId,
        building: &BuildingId,
        after: Option<&GatewayId>,
        limit: usize,
    ) -> Result<Vec<(GatewayId, Presence)>, RegistryError>;

    /// Erases all that is known of one gateway: its presence, values and description, the records of its commands, and the
    /// open streams at its address. A session that holds it should have ended: one that has not is fenced from then on, and
    /// its edge finds at its next audit that the record is missing. A repeated call finds nothing.
    async fn erase_gateway(&self, key: &GatewayKey) -> Result<Erased, RegistryError>;

    /// Erases all that is known of a tenant. Not atomic: a call that was not answered, or ran beside others that wrote, is
    /// repeated, and erases what is left.
    async fn erase(&self, tenant: &TenantId) -> Result<Erased, RegistryError>;
}

/// What an erasure found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Erased {
    /// Gateways of which presence or values were known.
    pub gateways: u64,
    /// Their values.
    pub values: u64,
    /// Records of commands, decided or not.
    pub commands: u64,
}

impl std::ops::AddAssign for Erased {
    fn add_assign(&mut self, more: Self) {
        self.gateways += more.gateways;
        self.values += more.values;
        self.commands += more.commands;
    }
}

/// The answer to [`StateStore::apply`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It is stored.
    Stored {
        /// When, on the store's clock.
        at_ms: u64,
    },
    /// A newer session holds the gateway, or this one has ended: nothing was stored.
    Fenced(Option<Epoch>),
    /// What stands in the store is not the version right before: the store lost data. Nothing was stored.
    Gap(Option<Version>),
    /// The state would be over a limit. Nothing was stored, and the version did not change.
    OverLimit(OverLimit),
}

/// Last values.
#[async_trait]
pub trait StateStore: Send + Sync + 'static {
    /// Takes the change as `version` if the store stands right before it in the same epoch and the session is
    /// online. When the store stands at `version` already, the call is a repetition and answers `Stored`.
    async fn apply(
        &self,
        key: &GatewayKey,
        version: Version,
        change: &Change,
        limits: &Limits,
    ) -> Result<Applied, RegistryError>;

    /// Everything known of a gateway, none when nothing is.
    async fn read(&self, key: &GatewayKey) -> Result<Option<Snapshot>, RegistryError>;

    /// Where each gateway of a building stands, in the order of their names. Costs one read.
    async fn versions(
        &self,
        tenant: &TenantId,
        building: &BuildingId,
    ) -> Result<Vec<(GatewayId, Version)>, RegistryError>;

    /// The buildings of a tenant of which anything is known, in order.
    async fn buildings(&self, tenant: &TenantId) -> Result<Vec<BuildingId>, RegistryError>;
}
