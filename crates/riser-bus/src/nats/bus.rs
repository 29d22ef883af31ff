//! The bus on NATS core.
//!
//! Each subscription is one of NATS' and has one task, which parses what comes, copies it and puts it into the inbox
//! without waiting. The library makes the subscriptions again after a reconnect.

use std::sync::Arc;

use async_nats::{HeaderMap, Message};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Link, NatsClient, PUBLISH_LIMIT};
use crate::{Bus, BusError, Delivery, Filter, Health, Inbox, Subject, Subscription};

/// The bus of one process. Clones are the same.
#[derive(Clone)]
pub struct NatsBus(NatsClient);

impl NatsBus {
    pub(super) fn new(client: NatsClient) -> Self {
        Self(client)
    }
}

#[async_trait]
impl Bus for NatsBus {
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        let sent = self.0.link.send(subject.to_string(), HeaderMap::new(), payload).await;
        sent.map_err(|_| BusError::Unavailable)
    }

    async fn subscribe(&self, filter: &Filter, inbox: &Inbox) -> Result<Subscription, BusError> {
        let link = &self.0.link;
        if !link.is_up() {
            return Err(BusError::Unavailable);
        }
        let subscriber = timeout(PUBLISH_LIMIT, link.client.subscribe(filter.to_string())).await;
        let Ok(Ok(subscriber)) = subscriber else { return Err(BusError::Unavailable) };
        // Emptied by the guard, so that nothing is delivered once that is dropped, wherever the task stands.
        let open = Arc::new(Mutex::new(Some(inbox.clone())));
        let task = deliver(link.clone(), subscriber, filter.clone(), open.clone());
        let task = self.0.tasks.spawn(task).ok_or(BusError::Unavailable)?;
        Ok(Subscription::new(move || {
            open.lock().take();
            task.abort();
        }))
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.0.link.signals.health.subscribe()
    }
}

/// Puts what comes into the inbox until the subscription ends.
async fn deliver(
    link: Arc<Link>,
    mut subscriber: async_nats::Subscriber,
    filter: Filter,
    open: Arc<Mutex<Option<Inbox>>>,
) {
    while let Some(message) = subscriber.next().await {
        let Some(delivery) = read(&message, &filter) else {
            link.signals.ignore("a subject");
            continue;
        };
        let delivered = match &*open.lock() {
            Some(inbox) => inbox.deliver(delivery),
            None => return,
        };
        if !delivered {
            link.signals.overflowed();
        }
    }
}

/// A message as it is passed on. That the filter matches is NATS' work, and looked at once more: it is what keeps tenants
/// apart.
fn read(message: &Message, filter: &Filter) -> Option<Delivery> {
    let subject = Subject::parse(&message.subject)?;
    filter.matches(&subject).then(|| Delivery { subject, payload: Bytes::copy_from_slice(&message.payload) })
}
