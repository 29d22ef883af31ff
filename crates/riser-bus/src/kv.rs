//! Small things that are kept under a name, durably, and changed by compare and set.
//!
//! [`Kv`] is the contract; [`memory`] the twin inside one process, [`NatsKv`](crate::nats::NatsKv) the one on JetStream;
//! [`suite`] holds what every implementation must do. What an entry is called is made from parsed identities alone
//! ([`Entry`]), and says in which bucket it is kept. A bucket comes into being with its first entry or watch.
//!
//! # What holds for every implementation
//!
//! - A revision is a number from 1. Of two changes in a bucket the later has the greater one, also when the store lost the
//!   bucket in between; so a revision that was read before a loss is good for no entry after it.
//! - `Ok` to a change means that it is stored as durably as the implementation can, and that it is in every `get` that
//!   begins afterwards, whichever client asks.
//! - A change is made if and only if the entry has the revision that was expected; 0 stands for an entry that is not there,
//!   and so may the revision of its deletion.
//! - `Err` means that nobody answered: the change may or may not be made. Repeating it is safe, and so the call itself does
//!   until its time is over: then [`Written::Conflict`] may also mean that it was made and that somebody else changed the
//!   entry since.
//! - An entry whose time to live is over is not there. Nobody is told.
//! - What is in a bucket under a name that is none of ours is read by nobody.
//!
//! What a value means is the reader's to judge: another release may have written it, or a hand.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::subject::{Bucket, Entry};

pub mod memory;
pub mod suite;

/// Largest value, in bytes; the smallest has one, since a store may note by an empty one that an entry is gone. The record of
/// a command whose arguments, words and result are as large as they may be has 256 KiB.
pub const VALUE_BYTES: usize = 512 * 1024;
/// Most entries that one [`Kv::list`] gives.
pub const KV_PAGE: usize = 256;
/// Entries and changes that wait for the reader of a watch, who is to keep them in memory. A slower one loses the watch, and
/// so one whose bucket has more: that is for [`Kv::list`].
pub const WATCH_QUEUE: usize = 4_096;

/// Why an entry was not read or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// The store cannot be reached, or did not answer in time.
    #[error("the key-value store did not answer")]
    Unavailable,
    /// The store or the bucket has no room, and nothing was changed.
    #[error("the key-value store is full")]
    Full,
    /// The value is empty or larger than [`VALUE_BYTES`], and nothing was changed.
    #[error("not a value: 1 to 524288 bytes")]
    Size,
}

/// What is kept under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// What was put.
    pub bytes: Bytes,
    /// The change that put it.
    pub revision: u64,
}

/// What came of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It was made, and this is its revision.
    Yes(u64),
    /// The entry has another revision than the one that was expected.
    Conflict,
}

/// Some entries of a bucket, by their revisions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The entries. May be none although there are more.
    pub entries: Vec<(Entry, Value)>,
    /// After which revision the next page begins; none when this was the last.
    pub next: Option<u64>,
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// An entry that was there when the watch began, or was put since.
    Put(Entry, Value),
    /// An entry was deleted by the change of this revision.
    Gone(Entry, u64),
    /// All that was there when the watch began was told; what follows are changes.
    All,
}

/// A bucket's entries, in the order of their revisions, then [`Seen::All`] once, then each change in its order. What was
/// changed in the moment before the watch began may come after [`Seen::All`]. The receiver ends when the reader was too slow, or
/// when something was or may have been missed, as when the store was lost: then the reader begins anew, and compares what it
/// had with what is there until [`Seen::All`].
pub type Watch = mpsc::Receiver<Seen>;

/// Named values.
#[async_trait]
pub trait Kv: Send + Sync + 'static {
    /// What is kept under this name.
    async fn get(&self, entry: &Entry) -> Result<Option<Value>, KvError>;

    /// Keeps a value of 1 to [`VALUE_BYTES`] bytes under this name, in place of the one that has the revision `expected`. With `ttl`,
    /// which counts in whole seconds and is one second at least, it is gone after that; without, it stays. The next `put` sets
    /// it anew.
    async fn put(&self, entry: &Entry, value: Bytes, expected: u64, ttl: Option<Duration>) -> Result<Written, KvError>;

    /// Deletes an entry that has the revision `expected`.
    async fn delete(&self, entry: &Entry, expected: u64) -> Result<Written, KvError>;

    /// The entries with revisions greater than `after`, at most [`KV_PAGE`]. Who begins at 0 and goes on until there is no next
    /// page gets each entry that is there all the time, at least once: one that is changed meanwhile may come again, with
    /// its new revision.
    async fn list(&self, bucket: Bucket, after: u64) -> Result<Page, KvError>;

    /// What is in a bucket, and what happens to it from then on. Costs the store one reader.
    async fn watch(&self, bucket: Bucket) -> Result<Watch, KvError>;
}
