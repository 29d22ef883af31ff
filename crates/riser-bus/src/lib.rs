//! The bus: routed frames between edges, at most once.
//!
//! [`Bus`] is the contract; [`memory`] is the twin that `riser dev` and the simulation run on, [`nats`] the one for a
//! cluster; [`suite`] holds what every implementation must do. [`subject`] is the only place that knows how a subject is
//! written. [`log`] is the same for events that are stored, [`kv`] for small things that are kept under a name.
//!
//! # What holds for every implementation
//!
//! - A message reaches each matching subscription at most once. It may be lost, and nobody is told.
//! - Messages of one publisher that reach one subscription arrive in the order in which they were published.
//! - A subscription takes effect at some time after `subscribe` returned `Ok`; there is no sign when it has reached
//!   the whole cluster. Who needs more compares with a store.
//! - Delivery never waits for a receiver: a full [`Inbox`] loses the message and counts it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

pub mod kv;
pub mod log;
pub mod memory;
pub mod nats;
pub mod subject;
pub mod suite;

pub use subject::{Bucket, Entry, FLAT_PARTS, Filter, Naming, NoEntry, Subject};

/// Why a message was not sent or a subscription not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The bus cannot be reached.
    #[error("the bus did not answer")]
    Unavailable,
}

/// A message as it arrives. The subject was parsed, so that what did not come from an edge of ours is not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Where it was published.
    pub subject: Subject,
    /// What was published.
    pub payload: Bytes,
}

/// The sending side of a receiver's bounded queue, shared by its subscriptions.
#[derive(Debug, Clone)]
pub struct Inbox {
    sender: mpsc::Sender<Delivery>,
    /// Where losses are counted when they are nobody's trouble.
    lost: Option<Arc<AtomicU64>>,
}

/// A bounded queue of messages: `capacity` messages wait at most, further ones are lost and counted.
pub fn inbox(capacity: usize) -> (Inbox, mpsc::Receiver<Delivery>) {
    let (sender, receiver) = mpsc::channel(capacity);
    (Inbox { sender, lost: None }, receiver)
}

/// A bounded queue for messages that are of use now or never: losses are counted here, and not in [`Health`], so that
/// nobody looks for what was missed.
pub fn lossy_inbox(capacity: usize) -> (Inbox, mpsc::Receiver<Delivery>, Arc<AtomicU64>) {
    let (sender, receiver) = mpsc::channel(capacity);
    let lost = Arc::new(AtomicU64::new(0));
    (Inbox { sender, lost: Some(lost.clone()) }, receiver, lost)
}

impl Inbox {
    /// Puts a message into the queue; `false` when it was full and the message is lost, which is to be counted.
    pub fn deliver(&self, delivery: Delivery) -> bool {
        if !matches!(self.sender.try_send(delivery), Err(mpsc::error::TrySendError::Full(_))) {
            return true;
        }
        self.lost.as_ref().is_some_and(|lost| {
            lost.fetch_add(1, Ordering::Relaxed);
            true
        })
    }
}

/// Ends a subscription when dropped.
#[must_use = "dropping it ends the subscription"]
pub struct Subscription(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Subscription {
    /// A guard that calls `end` once, when it is dropped.
    pub fn new(end: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(end)))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end();
        }
    }
}

/// Trouble that subscribers should know of: what they keep may have missed messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// Whether the bus can be reached now.
    pub connected: bool,
    /// How often it was reached again after it could not be.
    pub reconnects: u64,
    /// Messages lost because an inbox was full.
    pub overflowed: u64,
}

/// Routed frames, at most once.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Publishes a message. `Ok` means that it was handed over, not that anybody got it.
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError>;

    /// Delivers what matches into the inbox until the guard is dropped.
    async fn subscribe(&self, filter: &Filter, inbox: &Inbox) -> Result<Subscription, BusError>;

    /// The bus' health, whenever it changes.
    fn health(&self) -> watch::Receiver<Health>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_full_inbox_loses_is_the_senders_trouble_unless_it_is_lossy() {
        let message = || Delivery { subject: Subject::Edges, payload: Bytes::new() };
        let (strict, _receiver) = inbox(1);
        assert_eq!((strict.deliver(message()), strict.deliver(message())), (true, false));
        let (lossy, mut receiver, lost) = lossy_inbox(1);
        assert_eq!((lossy.deliver(message()), lossy.deliver(message())), (true, true));
        assert_eq!(lost.load(Ordering::Relaxed), 1);
        assert!(receiver.recv().await.is_some());
        assert!(lossy.deliver(message()));
        assert_eq!(lost.load(Ordering::Relaxed), 1);
    }
}
