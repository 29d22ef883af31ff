//! Tails on JetStream: a consumer whose events are counted here, and that is made anew when one is missing.
//!
//! The consumer lives in the memory of one server and is lost with it, and core NATS brings its events, which may lose
//! some. Both are seen: by a number that was skipped, by a heartbeat that knows of more, or by a silence. What has
//! another life than the tail's ends it.

use std::time::Duration;

use async_nats::{HeaderMap, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use riser_core::TenantId;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::jetstream::{JetStream, Kept, Trouble};
use super::log::stored;
use super::{NatsClient, NotSent, PUBLISH_LIMIT, header};
use crate::log::{Bounds, Stored, TAIL_QUEUE, Tail};
use crate::subject::{EventSubject, event_stream};

/// Between two signs of life of a consumer that has nothing to send.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(2);
/// After so long without a sign a consumer is gone: two signs may be late.
pub(super) const SILENCE: Duration = Duration::from_secs(5);
/// How long a consumer stays that nobody listens to.
pub(super) const INACTIVE: Duration = Duration::from_secs(10);
/// How long a tail tries to go on before it ends: a failover and some.
const TAIL_PATIENCE: Duration = Duration::from_secs(15);
/// Between two tries to go on.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two looks for a stream that there was none of, for the case that the word of its making is lost.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A tail that is fed.
struct Feeder {
    jetstream: JetStream,
    tenant: TenantId,
    life: u64,
    /// The number of the next event.
    next: u64,
    /// Whether the consumer has not sent an event yet: one that begins with a hole will not fill it.
    fresh: bool,
    events: mpsc::Sender<Stored>,
}

/// A consumer, and what it sends.
struct Consumer {
    name: String,
    messages: Subscriber,
}

/// What follows from a message.
enum Step {
    On,
    /// Something is missing: the consumer must be made anew.
    Again,
    /// The tail is over.
    Over,
}

/// Begins a tail, whatever number of tries it takes.
pub(super) async fn begin(client: &NatsClient, tenant: &TenantId) -> Result<Tail, NotSent> {
    let jetstream = JetStream(client.link.clone());
    // Before the stream is looked at, so that nothing happens to it unheard.
    let news = subscribe(&jetstream, format!("$JS.EVENT.ADVISORY.STREAM.*.{}", event_stream(tenant))).await?;
    let (sender, events) = mpsc::channel(TAIL_QUEUE);
    loop {
        match jetstream.stream(tenant).await {
            Ok(None) => {
                client.tasks.spawn(wait_for_stream(jetstream, tenant.clone(), news, sender)).ok_or(NotSent)?;
                return Ok(Tail { bounds: Bounds::default(), events });
            }
            Ok(Some(stream)) => {
                let bounds = stream.bounds;
                let mut feeder = Feeder {
                    jetstream: jetstream.clone(),
                    tenant: tenant.clone(),
                    life: bounds.life,
                    next: bounds.last + 1,
                    fresh: true,
                    events: sender.clone(),
                };
                if let Ok(consumer) = feeder.consume().await {
                    client.tasks.spawn(feeder.feed(consumer, news)).ok_or(NotSent)?;
                    return Ok(Tail { bounds, events });
                }
            }
            Err(_) => {}
        }
        sleep(PAUSE).await;
    }
}

pub(super) async fn subscribe(jetstream: &JetStream, subject: String) -> Result<Subscriber, NotSent> {
    if !jetstream.0.is_up() {
        return Err(NotSent);
    }
    timeout(PUBLISH_LIMIT, jetstream.0.client.subscribe(subject)).await.ok().and_then(Result::ok).ok_or(NotSent)
}

/// Ends a tail that began without a stream when there is one.
async fn wait_for_stream(jetstream: JetStream, tenant: TenantId, mut news: Subscriber, tail: mpsc::Sender<Stored>) {
    loop {
        if let Ok(Some(_)) = jetstream.stream(&tenant).await {
            return;
        }
        tokio::select! {
            () = tail.closed() => return,
            _ = timeout(LOOK_EVERY, news.next()) => {}
        }
    }
}

impl Feeder {
    /// Feeds the tail until it ends.
    async fn feed(mut self, mut consumer: Consumer, mut news: Subscriber) {
        loop {
            let step = self.follow(&mut consumer, &mut news).await;
            self.jetstream.end_consumer(&event_stream(&self.tenant), &consumer.name).await;
            if !matches!(step, Step::Again) {
                return;
            }
            let events = self.events.clone();
            let again = tokio::select! {
                () = events.closed() => return,
                again = timeout(TAIL_PATIENCE, self.again()) => again,
            };
            match again {
                Ok(Some(anew)) => consumer = anew,
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Passes on what a consumer sends until something is wrong.
    async fn follow(&mut self, consumer: &mut Consumer, news: &mut Subscriber) -> Step {
        loop {
            let step = tokio::select! {
                () = self.events.closed() => Step::Over,
                message = timeout(SILENCE, consumer.messages.next()) => match message {
                    Ok(Some(message)) => self.take(&message).await,
                    Ok(None) | Err(_) => Step::Again,
                },
                Some(_) = news.next() => match self.jetstream.stream(&self.tenant).await {
                    Ok(Some(stream)) if stream.bounds.life == self.life => Step::On,
                    Ok(_) => Step::Over,
                    Err(_) => Step::Again,
                },
            };
            if !matches!(step, Step::On) {
                return step;
            }
        }
    }

    async fn take(&mut self, message: &Message) -> Step {
        if message.status == Some(StatusCode::IDLE_HEARTBEAT) {
            return self.control(message).await;
        }
        let Some(Position { seq, at_ms, .. }) = message.reply.as_deref().and_then(position) else {
            return self.foreign();
        };
        match EventSubject::parse(&message.subject) {
            Some(subject) if subject.tenant == self.tenant && subject.life == self.life => {}
            Some(subject) if subject.tenant == self.tenant => return Step::Over,
            _ => return self.foreign(),
        }
        let fresh = std::mem::take(&mut self.fresh);
        if seq < self.next {
            return Step::On;
        }
        if seq > self.next {
            return if fresh { Step::Over } else { Step::Again };
        }
        self.next += 1;
        let kept = Kept { subject: String::new(), seq, at_ms, payload: message.payload.clone() };
        let Some(stored) = stored(&kept) else {
            // Its number has no event, and a tail has no holes.
            self.foreign();
            return Step::Over;
        };
        match self.events.try_send(stored) {
            Ok(()) => Step::On,
            // A reader that is slower than its queue loses the tail.
            Err(_) => Step::Over,
        }
    }

    /// Answers the consumer when it asks whether what it sent has come, and looks at what it says it sent.
    async fn control(&self, message: &Message) -> Step {
        answer_flow_control(&self.jetstream, message).await;
        match header(message, "Nats-Last-Stream").and_then(|seq| seq.parse::<u64>().ok()) {
            Some(sent) if sent >= self.next => Step::Again,
            _ => Step::On,
        }
    }

    fn foreign(&self) -> Step {
        self.jetstream.0.signals.ignore("an event");
        Step::On
    }

    /// Makes another consumer when the stream still has the tail's life and place; none when it does not.
    async fn again(&mut self) -> Option<Consumer> {
        loop {
            match self.jetstream.stream(&self.tenant).await {
                Ok(Some(stream)) if stream.bounds.life == self.life && stream.bounds.last + 1 >= self.next => {
                    if let Ok(consumer) = self.consume().await {
                        return Some(consumer);
                    }
                }
                Ok(_) => return None,
                Err(_) => {}
            }
            sleep(PAUSE).await;
        }
    }

    async fn consume(&mut self) -> Result<Consumer, Trouble> {
        let to = self.jetstream.0.client.new_inbox();
        let name = format!("riser-{:016x}", fastrand::u64(..));
        let messages = subscribe(&self.jetstream, to.clone()).await?;
        self.jetstream.consume(&self.tenant, &name, &to, self.next).await?;
        self.fresh = true;
        Ok(Consumer { name, messages })
    }
}

/// Tells a consumer that what it sent has come, when that is what its message asks; whether it was.
pub(super) async fn answer_flow_control(jetstream: &JetStream, message: &Message) -> bool {
    let asked = message.reply.as_deref().or_else(|| header(message, "Nats-Consumer-Stalled"));
    let Some(asked) = asked.filter(|asked| asked.starts_with("$JS.FC.")) else { return false };
    drop(jetstream.0.send(asked.to_owned(), HeaderMap::new(), Bytes::new()).await);
    true
}

/// What a consumer says of a message that it sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The message's number in its stream.
    pub(super) seq: u64,
    /// The message's place among all that the consumer sent, from 1.
    pub(super) place: u64,
    /// When it was stored, Unix milliseconds.
    pub(super) at_ms: u64,
    /// How many more the consumer has to send now.
    pub(super) pending: u64,
}

/// Reads it from the subject that a consumer names for answers:
/// `$JS.ACK.<stream>.<consumer>.<deliveries>.<number>.<place>.<time>.<pending>`, where two more tokens may stand before
/// the stream, and then one at the end.
pub(super) fn position(reply: &str) -> Option<Position> {
    let tokens: Vec<_> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
    let from = match tokens.len() {
        7 => 0,
        9.. => 2,
        _ => return None,
    };
    let number = |at: usize| tokens[from + at].parse::<u64>().ok();
    Some(Position { seq: number(3)?, place: number(4)?, at_ms: number(5)? / 1_000_000, pending: number(6)? })
}

#[cfg(test)]
mod tests {
    use super::{Position, position};

    #[test]
    fn the_place_of_an_event_is_read_from_either_form() {
        let here = || Some(Position { seq: 41, place: 7, at_ms: 1_795_691_374_215, pending: 3 });
        for reply in [
            "$JS.ACK.riser-ev-acme.riser-1.1.41.7.1795691374215999999.3",
            "$JS.ACK._.hash.riser-ev-acme.riser-1.1.41.7.1795691374215999999.3",
            "$JS.ACK.hub.hash.riser-ev-acme.riser-1.1.41.7.1795691374215999999.3.random",
        ] {
            assert_eq!(position(reply), here(), "{reply}");
        }
        for bad in ["", "$JS.ACK.", "$JS.ACK.a.b.1.x.7.1.0", "$JS.ACK.a.b.1.41.7.1", "_INBOX.a.b.1.41.7.1.0"] {
            assert_eq!(position(bad), None, "{bad}");
        }
    }
}
