//! A request and its reply, as the library does them: what NATS alone takes for one, to compare edges with.
//!
//! Edges do not use it. The library keeps an entry of each request that nobody answers.

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::{NatsClient, PUBLISH_LIMIT};
use crate::subject::probe_subject;
use crate::{BusError, Subscription};

impl NatsClient {
    /// Answers each probe of this name with what it brought, until the guard is dropped.
    pub async fn answer_probes(&self, name: &str) -> Result<Subscription, BusError> {
        let subscribed = timeout(PUBLISH_LIMIT, self.link.client.subscribe(probe_subject(name))).await;
        let Ok(Ok(mut probes)) = subscribed else { return Err(BusError::Unavailable) };
        let link = self.link.clone();
        let answering = async move {
            while let Some(probe) = probes.next().await {
                if let Some(reply) = probe.reply {
                    // Who asked sees that nothing came.
                    drop(link.client.publish(reply, probe.payload).await);
                }
            }
        };
        let task = self.tasks.spawn(answering).ok_or(BusError::Unavailable)?;
        Ok(Subscription::new(move || task.abort()))
    }

    /// Asks whoever answers probes of this name, and gives what comes back.
    pub async fn probe(&self, name: &str, payload: Bytes) -> Result<Bytes, BusError> {
        let asked = timeout(PUBLISH_LIMIT, self.link.client.request(probe_subject(name), payload)).await;
        asked.ok().and_then(Result::ok).map(|answer| answer.payload).ok_or(BusError::Unavailable)
    }
}
