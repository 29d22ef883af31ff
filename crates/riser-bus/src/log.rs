//! The log: a tenant's events, durable, in one order, deduplicated.
//!
//! One stream per tenant, which comes into being with its first event. It has a life: a number that a stream made anew
//! after a loss does not share, so that a position in a lost stream is seen to be meaningless.
//!
//! # What holds for every implementation
//!
//! - `Ok` to `append` means that the event is stored as durably as the implementation can; it is never lost but by
//!   retention, erasure, or a loss of the store that changes the stream's life.
//! - Events have numbers 1, 2, 3 … without holes in the order in which they were stored.
//! - An event whose `append` was answered is in every `read` and `bounds` that begins afterwards, whichever client asks.
//! - `Err` means that nobody answered: the event may or may not be stored. Repeating the call within the
//!   deduplication window is safe.
//! - Retention drops the oldest events; the numbers of the others stay.
//! - What is in a stream and was not stored by an `append` is read by nobody: its number is missing. So is that of an
//!   event that was erased.

use std::time::Duration;

use async_trait::async_trait;
use riser_core::event::{Cursor, Event};
use riser_core::{GatewayKey, TenantId};
use tokio::sync::mpsc;

pub mod memory;
pub mod suite;

/// Most events that one [`Log::read`] gives.
pub const LOG_PAGE: usize = 512;
/// Events that wait for the reader of a tail. A reader that is slower loses the tail and reads what it missed.
pub const TAIL_QUEUE: usize = 4_096;

/// Why an event was not stored or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The store cannot be reached, or did not answer in time.
    #[error("the event store did not answer")]
    Unavailable,
    /// The store has no room, and the event is not stored.
    #[error("the event store is full")]
    Full,
}

/// What came of an `append`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The event's own position: what follows it comes after this cursor.
    pub cursor: Cursor,
    /// Whether it had been stored before under the same sender, address and id.
    pub duplicate: bool,
}

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The stream's life; 0 when the tenant has no stream.
    pub life: u64,
    /// The number of the oldest event that is kept; `last + 1` when none is.
    pub first: u64,
    /// The number of the newest event ever stored in this life; 0 when none was.
    pub last: u64,
}

impl Default for Bounds {
    /// Where a tenant stands that has no stream.
    fn default() -> Self {
        Self { life: 0, first: 1, last: 0 }
    }
}

/// An event in its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its number.
    pub seq: u64,
    /// What happened.
    pub event: Event,
}

/// Some events in a row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Where the stream stood when they were read.
    pub bounds: Bounds,
    /// The events, in order and without holes, but where somebody else wrote into the stream or deleted from it.
    pub events: Vec<Stored>,
}

/// New events as they are stored, in order and without holes from where the tail began. The receiver ends when the
/// reader was too slow, when the stream's life changed, when a number has no event, or when the store was lost: then it reads
/// and begins anew. All events of a tail are of the life that its bounds name: one that began without a stream ends,
/// without an event, when the stream comes into being.
#[derive(Debug)]
pub struct Tail {
    /// Where the stream stood when the tail began: its first event has the number `last + 1`.
    pub bounds: Bounds,
    /// What comes.
    pub events: mpsc::Receiver<Stored>,
}

/// What one call of [`Log::erase_gateway`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Erased {
    /// Events that it erased.
    pub events: u64,
    /// The number from which the next call goes on; none when the stream's end was reached.
    pub next: Option<u64>,
}

/// A tenant's stored events.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// Stores an event; its `at_ms` is the store's to set, and is told to those who read it: when it was stored first, also
    /// once it was restored from a backup. The same sender, address and id
    /// within `dedup` is stored once and answered the same. The longest window that was asked for of a tenant may hold for
    /// all of its calls; one that is longer than any before holds for what is stored from then on. No window is longer than
    /// events are kept.
    async fn append(&self, tenant: &TenantId, event: Event, dedup: Duration) -> Result<Appended, LogError>;

    /// The events from number `from` on, at most [`LOG_PAGE`] of them. What retention dropped is left out at the
    /// beginning, which shows in the bounds.
    async fn read(&self, tenant: &TenantId, from: u64) -> Result<Page, LogError>;

    /// Where the stream stands.
    async fn bounds(&self, tenant: &TenantId) -> Result<Bounds, LogError>;

    /// What is stored from now on. Costs the store one reader, so that an edge has one per tenant that is listened to.
    async fn tail(&self, tenant: &TenantId) -> Result<Tail, LogError>;

    /// Erases a tenant's stream, and gives how many events it held. Its tails end, and a next event begins another life. A
    /// repeated call finds nothing.
    async fn erase(&self, tenant: &TenantId) -> Result<u64, LogError>;

    /// Erases what happened at one address, among the next [`LOG_PAGE`] events from number `from` on. The numbers of the
    /// others stay, and those of the erased are missing; an erased event's id counts as known for as long as its window.
    async fn erase_gateway(&self, key: &GatewayKey, from: u64) -> Result<Erased, LogError>;
}
