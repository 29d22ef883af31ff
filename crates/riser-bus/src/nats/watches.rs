//! Watches of buckets on JetStream: a consumer that begins with the newest message of each entry.
//!
//! The consumer lives in the memory of one server, and core NATS brings its messages. When a place is skipped, when a sign of
//! life knows of more, or when there is none, the watch ends: its reader begins anew.

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::jetstream::{JetStream, Trouble};
use super::tail::{Position, SILENCE, answer_flow_control, position, subscribe};
use super::{NatsClient, header};
use crate::kv::{Seen, Value, WATCH_QUEUE, Watch};
use crate::subject::{Bucket, Entry};

/// A watch that is fed.
struct Feeder {
    jetstream: JetStream,
    bucket: Bucket,
    consumer: String,
    messages: Subscriber,
    /// Messages that came.
    came: u64,
    /// Whether all that was there was told.
    told: bool,
    seen: mpsc::Sender<Seen>,
}

/// Why a watch is over: something is missing, or nobody reads it.
struct Over;

/// Begins a watch of a bucket that is there.
pub(super) async fn begin(client: &NatsClient, bucket: Bucket) -> Result<Watch, Trouble> {
    let jetstream = JetStream(client.link.clone());
    let to = jetstream.0.client.new_inbox();
    let consumer = format!("riser-{:016x}", fastrand::u64(..));
    let messages = subscribe(&jetstream, to.clone()).await?;
    let what = json!({ "deliver_policy": "last_per_subject", "filter_subject": bucket.subjects() });
    let pending = jetstream.push(&bucket.stream(), &consumer, &to, &what).await?;
    let (seen, watch) = mpsc::channel(WATCH_QUEUE);
    let mut feeder = Feeder { jetstream, bucket, consumer, messages, came: 0, told: false, seen };
    if pending == 0 {
        drop(feeder.tell_all());
    }
    client.tasks.spawn(feeder.feed()).ok_or(Trouble::Silent)?;
    Ok(watch)
}

impl Feeder {
    /// Feeds the watch until it ends.
    async fn feed(mut self) {
        loop {
            let step = tokio::select! {
                () = self.seen.closed() => Err(Over),
                message = timeout(SILENCE, self.messages.next()) => match message {
                    Ok(Some(message)) => self.take(&message).await,
                    Ok(None) | Err(_) => Err(Over),
                },
            };
            if step.is_err() {
                break;
            }
        }
        self.jetstream.end_consumer(&self.bucket.stream(), &self.consumer).await;
    }

    async fn take(&mut self, message: &Message) -> Result<(), Over> {
        if message.status == Some(StatusCode::IDLE_HEARTBEAT) {
            let stalled = answer_flow_control(&self.jetstream, message).await;
            return match header(message, "Nats-Last-Consumer").and_then(|place| place.parse::<u64>().ok()) {
                Some(place) if place > self.came => Err(Over),
                // A consumer that is at rest has sent all, also when the last of what was there is gone meanwhile.
                Some(_) if !stalled => self.tell_all(),
                _ => Ok(()),
            };
        }
        // The stream was deleted, or the consumer.
        if message.status.is_some() {
            return Err(Over);
        }
        let at = message.reply.as_deref().and_then(position);
        let Some(Position { seq, place, pending, .. }) = at.filter(|at| at.place == self.came + 1) else {
            return Err(Over);
        };
        self.came = place;
        match Entry::parse(self.bucket, &message.subject) {
            Some(entry) if message.payload.is_empty() => self.tell(Seen::Gone(entry, seq))?,
            Some(entry) => {
                let value = Value { bytes: Bytes::copy_from_slice(&message.payload), revision: seq };
                self.tell(Seen::Put(entry, value))?;
            }
            None => self.jetstream.0.signals.ignore("an entry"),
        }
        if pending == 0 { self.tell_all() } else { Ok(()) }
    }

    fn tell(&self, seen: Seen) -> Result<(), Over> {
        match seen {
            // What was deleted before the watch began is not there, and not news.
            Seen::Gone(..) if !self.told => Ok(()),
            seen => self.seen.try_send(seen).map_err(|_| Over),
        }
    }

    fn tell_all(&mut self) -> Result<(), Over> {
        if std::mem::replace(&mut self.told, true) { Ok(()) } else { self.tell(Seen::All) }
    }
}
