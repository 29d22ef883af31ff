//! What a backup needs beside reading: which tenants have streams, and storing saved events anew.
//!
//! A restored stream has a life of its own, so that a cursor of before is seen to be meaningless. Its events are stored with
//! the time that they had, which those that an edge stores leave to JetStream. Each names the number of the one before it,
//! which JetStream compares: so none is stored twice or left out, whatever is repeated, and what somebody else stores in
//! between is noticed.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use riser_core::TenantId;
use riser_core::event::Event;
use tokio::time::Instant;

use super::jetstream::{Ack, JetStream, Trouble};
use super::log::{NatsLog, Tries};
use crate::log::LogError;
use crate::subject::{Bucket, EventSubject, LEDGER_STREAM, tenant_of_stream};

/// How long storing may stand still: longer than NATS' failover of 7 to 8 s.
const PATIENCE: Duration = Duration::from_secs(60);
/// The deduplication window of a restored stream until an edge stores in it with its tenant's own.
const WINDOW: Duration = Duration::from_secs(120);

/// Why saved events were not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// JetStream does not answer.
    #[error("JetStream did not answer for 60 s")]
    Unavailable,
    /// JetStream has no room.
    #[error("JetStream is full")]
    Full,
    /// JetStream does not do it, and says why.
    #[error(
        "JetStream refused it with error {0}; fewer servers than events.replicas is 10074, missing rights are no answer"
    )]
    Refused(u64),
    /// There is a stream of the tenant that this restore did not make.
    #[error("there is a stream of this tenant already")]
    Taken,
    /// What is in the stream is not what was restored.
    #[error("somebody else stores in the stream: stop all edges and begin with empty servers")]
    Disturbed,
}

/// A stream that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundStream {
    /// Whose.
    pub tenant: TenantId,
    /// The mark of the restore that made it, if one did.
    pub mark: Option<String>,
    /// How many servers have a copy of all of it.
    pub copies: usize,
    /// The names of servers that should have one and have not, or are away.
    pub behind: Vec<String>,
}

/// A tenant's stream while it is restored.
pub struct Restore {
    jetstream: JetStream,
    subject: EventSubject,
    /// Events that were given here and are stored.
    done: u64,
    /// The newest event that the stream is known to have.
    last: u64,
}

impl NatsLog {
    /// The tenants that have streams of events. The user must be allowed `$JS.API.STREAM.NAMES`.
    pub async fn streams(&self) -> Result<Vec<FoundStream>, LogError> {
        let mut tries = Tries::default();
        let begun = Instant::now();
        loop {
            match self.look_for_streams().await {
                Ok(found) => return Ok(found),
                Err(_) if begun.elapsed() < super::CALL_LIMIT => tries.pause().await,
                Err(_) => return Err(LogError::Unavailable),
            }
        }
    }

    async fn look_for_streams(&self) -> Result<Vec<FoundStream>, Trouble> {
        let mut found = vec![];
        for tenant in self.jetstream().names().await?.iter().filter_map(|name| tenant_of_stream(name)) {
            // One that is gone meanwhile is not there.
            if let Some(stream) = self.jetstream().stream(&tenant).await? {
                let mark = stream.mark().map(str::to_owned);
                found.push(FoundStream { tenant, mark, copies: stream.copies, behind: stream.behind });
            }
        }
        Ok(found)
    }

    /// The name of a stream that keeps something else of Riser: a copy of a held command would be given to Redis, and a
    /// tenant to edges.
    pub async fn stream_beside_events(&self) -> Result<Option<String>, LogError> {
        let names = self.jetstream().names().await.map_err(|_| LogError::Unavailable)?;
        let is_one = |name: &String| name == LEDGER_STREAM || Bucket::ALL.iter().any(|bucket| *name == bucket.stream());
        Ok(names.into_iter().find(is_one))
    }

    /// Makes a tenant's stream to restore events into, or goes on with the one that has this mark.
    pub async fn restore(&self, tenant: &TenantId, mark: &str) -> Result<Restore, RestoreError> {
        let jetstream = self.jetstream().clone();
        let mut tries = Tries::default();
        let begun = Instant::now();
        loop {
            let stream = match jetstream.stream(tenant).await {
                Ok(None) => jetstream.create(tenant, self.config(), WINDOW, Some(mark)).await,
                Ok(Some(stream)) => Ok(stream),
                Err(trouble) => Err(trouble),
            };
            match stream {
                Ok(stream) if stream.mark() == Some(mark) => {
                    let subject = EventSubject { tenant: tenant.clone(), life: stream.bounds.life };
                    return Ok(Restore { jetstream, subject, done: 0, last: stream.bounds.last });
                }
                Ok(_) => return Err(RestoreError::Taken),
                Err(trouble) => given_up(trouble, begun)?,
            }
            tries.pause().await;
        }
    }
}

impl Restore {
    /// Stores the next events, in this order, unless they are stored already. A batch is under way at once, so that it
    /// should be no more than some megabytes.
    pub async fn add(&mut self, events: &[Event]) -> Result<(), RestoreError> {
        let payloads: Vec<Bytes> =
            events.iter().map(|event| serde_json::to_vec(event).unwrap_or_default().into()).collect();
        let mut rest = &payloads[..];
        let mut tries = Tries::default();
        let mut moved = Instant::now();
        while !rest.is_empty() {
            let step = if self.done < self.last { self.compare(rest).await? } else { self.store(rest).await };
            let (taken, trouble) = step;
            if taken > 0 {
                (tries, moved) = (Tries::default(), Instant::now());
            }
            self.done += taken as u64;
            self.last = self.last.max(self.done);
            rest = &rest[taken..];
            if let Some(trouble) = trouble {
                given_up(trouble, moved)?;
                tries.pause().await;
                self.look().await?;
            }
        }
        Ok(())
    }

    /// Whether the stream holds what was given, and nothing else.
    pub async fn finish(&mut self) -> Result<(), RestoreError> {
        self.look().await?;
        if self.last == self.done { Ok(()) } else { Err(RestoreError::Disturbed) }
    }

    /// Stores as many as it can; how many, and what hindered the next one.
    async fn store(&self, payloads: &[Bytes]) -> (usize, Option<Trouble>) {
        let sends = payloads.iter().zip(self.done..).map(|(payload, after)| {
            let jetstream = &self.jetstream;
            async move { jetstream.store_after(&self.subject, after, payload.clone()).await }
        });
        let answers = join_all(sends).await;
        let is_next = |(answer, seq): &(&Result<Ack, Trouble>, u64)| matches!(answer, Ok(ack) if ack.seq == *seq);
        let taken = answers.iter().zip(self.done + 1..).take_while(is_next).count();
        let trouble = answers.get(taken).map(|answer| answer.as_ref().err().copied().unwrap_or(Trouble::Silent));
        (taken, trouble)
    }

    /// Compares what is stored already with what was to be stored; how many are the same.
    async fn compare(&self, payloads: &[Bytes]) -> Result<(usize, Option<Trouble>), RestoreError> {
        let known = usize::try_from(self.last - self.done).unwrap_or(usize::MAX).min(payloads.len());
        let kept = match self.jetstream.page(&self.subject, self.done + 1, known).await {
            Ok(kept) if kept.is_empty() => return Ok((0, Some(Trouble::Silent))),
            Ok(kept) => kept,
            Err(trouble) => return Ok((0, Some(trouble))),
        };
        let mut same = 0;
        for kept in kept {
            // Those between were dropped by retention, as the oldest are.
            let at = usize::try_from(kept.seq - self.done - 1).unwrap_or(usize::MAX);
            if at >= known {
                same = known;
                break;
            }
            if payloads[at] != kept.payload {
                return Err(RestoreError::Disturbed);
            }
            same = at + 1;
        }
        Ok((same, None))
    }

    /// Asks where the stream stands. When that is not answered, storing goes on as if nothing had come to it.
    async fn look(&mut self) -> Result<(), RestoreError> {
        match self.jetstream.stream(&self.subject.tenant).await {
            Ok(Some(stream)) if stream.bounds.life == self.subject.life && stream.bounds.last >= self.done => {
                self.last = stream.bounds.last;
                Ok(())
            }
            Ok(_) => Err(RestoreError::Disturbed),
            Err(_) => Ok(()),
        }
    }
}

/// Whether to give up because of some trouble, when nothing has moved since then.
fn given_up(trouble: Trouble, since: Instant) -> Result<(), RestoreError> {
    /// Another event has the number. Looking tells whether it is ours.
    const WRONG_LAST: [u64; 2] = [10_071, 10_164];
    match trouble {
        Trouble::Full => Err(RestoreError::Full),
        Trouble::Failed(code) if !WRONG_LAST.contains(&code) && since.elapsed() > super::CALL_LIMIT => {
            Err(RestoreError::Refused(code))
        }
        _ if since.elapsed() > PATIENCE => Err(RestoreError::Unavailable),
        _ => Ok(()),
    }
}
