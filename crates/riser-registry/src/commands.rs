//! Where commands are recorded, and what became of them.
//!
//! A record is [`riser_core::command::Record`]; what a step does to it is that type's rule, applied here atomically and by
//! the store's clock. What holds for every operation of the registry (the crate's head) holds here too. Records of held
//! commands survive a loss of the store as copies of them ([`crate::held`]), which it is given back by
//! [`CommandStore::adopt`].

use async_trait::async_trait;
use riser_core::command::{Body, CommandId, Digest, Record, Step, Took};
use riser_core::{Address, EdgeId, Epoch, GatewayKey, TenantId};

use crate::RegistryError;

/// Open commands of one gateway, held ones included. A gateway that does not take so many will not do more.
pub const OPEN: usize = 256;
/// Most records that one call gives: with arguments and words of the largest sizes that is 20 MiB.
pub const RECORDS_PAGE: usize = 64;
/// Most overdue commands that one call gives.
pub const OVERDUE_PAGE: usize = 256;
/// Decided commands that are kept of one gateway until their time is over; beyond it the oldest are forgotten first. At
/// one command a second, day and night, nothing is forgotten early.
pub const DECIDED: usize = 4_096;
/// Bytes that decided commands of one gateway take, roughly; beyond it the oldest are forgotten first. [`DECIDED`] of a usual
/// size fit, and who may command one gateway only cannot have those of others forgotten.
pub const DECIDED_BYTES: usize = 4 * 1024 * 1024;
/// Bytes that the records of one tenant take, roughly, before the decided ones are forgotten early, the oldest first: a
/// client that may command everything can name any address, and each has its own [`DECIDED_BYTES`].
pub const RECORDS_BYTES: usize = 64 * 1024 * 1024;
/// Bytes that the commands of one tenant take, roughly, that are not decided: [`OPEN`] is of one gateway, and a tenant may
/// name any. Further ones are refused, since nothing of these may be forgotten.
pub const OPEN_BYTES: usize = 16 * 1024 * 1024;
/// For how long one edge is the only one that is given overdue commands, from its last call on, in milliseconds. Another
/// takes over when it is gone.
pub const SWEEPER_MS: u64 = 3_000;

/// A command to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCommand {
    /// The hash over tenant, address and key.
    pub digest: Digest,
    /// What is to be done.
    pub body: Body,
    /// Who issues it.
    pub by: String,
    /// In how many milliseconds from now an outcome must be there.
    pub deadline_ms: u64,
    /// The edge that is to be told.
    pub edge: EdgeId,
    /// Whether it must not be held, because the tenant has as many commands waiting as it may ([`CommandStore::undecided`]).
    pub no_room: bool,
}

impl NewCommand {
    /// The record of a command that is accepted now, and what becomes of it at once when the gateway is offline. `last` is
    /// the greatest place that was given to a command of the gateway, and becomes this one's: greater than every place
    /// before, also than those of a store that lost its data.
    pub(crate) fn begun(&self, of: &Address, last: &mut u64, online: bool, now_ms: u64) -> Record {
        let seq = (*last + 1).max(now_ms);
        let mut record = Record {
            cmd: CommandId { of: of.clone(), digest: self.digest, at_ms: now_ms },
            seq,
            prev: std::mem::replace(last, seq),
            body: self.body.clone(),
            by: self.by.clone(),
            deadline_at_ms: now_ms.saturating_add(self.deadline_ms),
            sends: 0,
            sent_at_ms: 0,
            sent_to: None,
            outcomes: Vec::new(),
            edges: vec![self.edge.clone()],
        };
        if !online {
            record.step(&Step::Offline, None, now_ms);
        }
        record
    }
}

/// Who holds a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The edge.
    pub edge: EdgeId,
    /// The session.
    pub epoch: Epoch,
}

/// A command after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stepped {
    /// What is kept of it now.
    pub record: Record,
    /// What the step did.
    pub took: Took,
    /// How many outcomes there were before it: what follows in the record is news, whatever `took` says, since a deadline
    /// that has passed is seen first.
    pub before: usize,
    /// Who holds its gateway now; none when it is offline.
    pub holder: Option<Holder>,
    /// The store's clock.
    pub now_ms: u64,
}

/// The answer to [`CommandStore::create`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// It is recorded: now ([`Took::Yes`]), or it was before ([`Took::Nothing`]).
    Recorded(Box<Stepped>),
    /// The same digest was given to another body, which is not forgotten yet.
    Conflict,
    /// As many commands are held for the gateway as may be, or it would have to be held and [has no room](NewCommand::no_room).
    QueueFull,
    /// As many commands of the gateway, or of its tenant ([`OPEN_BYTES`]), are open as may be.
    TooMany,
}

/// Records of commands.
#[async_trait]
pub trait CommandStore: Send + Sync + 'static {
    /// Records a command, in the order of calls: its `seq` is greater than that of every earlier one of the gateway, and its
    /// `prev` is the greatest of those. When
    /// the gateway is offline, [`Step::Offline`] is applied in the same step, so that it is held or decided at once.
    ///
    /// A digest that is known, until [`riser_core::command::KEPT_MS`] after the deadline (or until there are too many: [`DECIDED`],
    /// [`DECIDED_BYTES`], [`RECORDS_BYTES`]), is the same command: if the body
    /// is the same ([`Body::is_same`]) the edge is added to who is told, an overdue command becomes decided, and nothing
    /// else changes.
    async fn create(&self, key: &GatewayKey, command: &NewCommand) -> Result<Created, RegistryError>;

    /// Applies a step; none when nothing is known of such a command. A session holds the gateway as
    /// [`crate::Registry`] has it, in the same instant.
    async fn step(&self, key: &GatewayKey, cmd: &CommandId, step: &Step) -> Result<Option<Stepped>, RegistryError>;

    /// The commands of a gateway that are not decided, in their order, those after `after`, at most `limit` (and at most
    /// [`RECORDS_PAGE`]).
    async fn open(&self, key: &GatewayKey, after: u64, limit: usize) -> Result<Vec<Record>, RegistryError>;

    /// The commands of a gateway, decided or not, the newest first, those before `before`, at most `limit` (and at most
    /// [`RECORDS_PAGE`]).
    async fn latest(&self, key: &GatewayKey, before: Option<u64>, limit: usize) -> Result<Vec<Record>, RegistryError>;

    /// How many commands of a tenant are not decided, about: one that nobody has decided is counted for a minute after its
    /// deadline at most.
    async fn undecided(&self, tenant: &TenantId) -> Result<u64, RegistryError>;

    /// Commands whose deadline has passed and that are not decided, the most overdue first, at most [`OVERDUE_PAGE`]. Given
    /// to one edge only, as long as that asks again within [`SWEEPER_MS`].
    async fn overdue(&self, by: &EdgeId) -> Result<Vec<(TenantId, CommandId)>, RegistryError>;

    /// Records a command as a copy of its record says. What is known under its digest gives way, unless that follows the copy
    /// ([`Record::follows`]), or the copy's time is over. No limit refuses it: it was accepted before. Says whether it was
    /// recorded now. Places that are given from now on are greater than its own.
    async fn adopt(&self, key: &GatewayKey, copy: &Record) -> Result<bool, RegistryError>;

    /// A number that stays the same for this client as long as nothing may have been lost. Another one says that the store
    /// lost its data, went back to older ones, or that the client could not reach it in between.
    async fn life(&self) -> Result<u64, RegistryError>;
}
