//! Whether the event store serves this edge, for `/readyz` and the metrics: what the edge's own calls are answered, and a
//! question every few seconds for when nobody calls.
//!
//! An edge that cannot store events is ready all the same. Its sessions, their state and commands go on, and every other
//! edge is as badly off.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use prometheus::{IntGauge, Registry};
use riser_bus::log::{Appended, Bounds, Erased, Log, LogError, Page, Tail};
use riser_bus::nats::NatsLog;
use riser_core::event::Event;
use riser_core::{GatewayKey, TenantId, TenantTable};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// Between two questions.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// A call that its caller gave up after so long had no answer; who gives up sooner has gone away.
const GIVEN_UP: Duration = Duration::from_secs(1);
/// How long an event that was refused for want of room counts. Nothing but another event tells whether there is room again.
const FULL_FOR: Duration = Duration::from_secs(60);

/// What is known of the event store.
pub(super) struct Standing {
    state: Mutex<State>,
    up: IntGauge,
    full: IntGauge,
}

#[derive(Debug, Clone, Copy)]
struct State {
    answers: bool,
    /// When an event was refused because there was no room, unless one was stored since.
    full: Option<Instant>,
}

impl Standing {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Arc<Self>> {
        let up = IntGauge::new("riser_log_up", "Whether the event store answers.")?;
        let full =
            IntGauge::new("riser_log_full", "Whether the event store refused an event for want of room lately.")?;
        registry.register(Box::new(up.clone()))?;
        registry.register(Box::new(full.clone()))?;
        up.set(1);
        Ok(Arc::new(Self { state: Mutex::new(State { answers: true, full: None }), up, full }))
    }

    /// A line for `/readyz`, if there is anything to say.
    pub(super) fn note(&self) -> String {
        let state = *self.state.lock();
        let mut note = String::new();
        if !state.answers {
            note.push_str("degraded: the event store does not answer; events are refused\n");
        }
        if state.is_full() {
            note.push_str("degraded: the event store is full; events are refused\n");
        }
        note
    }

    fn answered<T>(&self, answer: &Result<T, LogError>, stored: bool) {
        let mut state = self.state.lock();
        match answer {
            Ok(_) if stored => *state = State { answers: true, full: None },
            Ok(_) => state.answers = true,
            Err(LogError::Full) => *state = State { answers: true, full: Some(Instant::now()) },
            Err(LogError::Unavailable) => state.answers = false,
        }
        self.show(*state);
    }

    fn show(&self, state: State) {
        self.up.set(state.answers.into());
        self.full.set(state.is_full().into());
    }
}

impl State {
    fn is_full(self) -> bool {
        self.full.is_some_and(|since| since.elapsed() < FULL_FOR)
    }
}

/// An event store whose answers are looked at. Clones are the same.
#[derive(Clone)]
pub(super) struct WatchedLog {
    log: NatsLog,
    standing: Arc<Standing>,
}

/// A call that may be given up.
struct Call<'a> {
    standing: &'a Standing,
    begun: Instant,
    answered: bool,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.answered && self.begun.elapsed() > GIVEN_UP {
            self.standing.answered::<()>(&Err(LogError::Unavailable), false);
        }
    }
}

impl WatchedLog {
    pub(super) fn new(log: NatsLog, standing: Arc<Standing>) -> Self {
        Self { log, standing }
    }

    async fn call<T>(
        &self,
        stores: bool,
        call: impl Future<Output = Result<T, LogError>> + Send,
    ) -> Result<T, LogError> {
        let mut guard = Call { standing: &self.standing, begun: Instant::now(), answered: false };
        let answer = call.await;
        guard.answered = true;
        self.standing.answered(&answer, stores);
        answer
    }

    /// Asks where the tenants' streams stand, one after the other, for as long as it runs. A stream without a quorum has
    /// nobody who answers.
    pub(super) async fn keep_asking(self, tenants: watch::Receiver<Arc<TenantTable>>) {
        let mut asked: Option<TenantId> = None;
        loop {
            sleep(ASK_EVERY).await;
            let next = {
                let table = tenants.borrow();
                let all = || table.iter().map(|(tenant, _)| tenant);
                let after = all().find(|tenant| asked.as_ref().is_none_or(|asked| *tenant > asked));
                after.or_else(|| all().next()).cloned()
            };
            if let Some(tenant) = &next {
                // What it answers is noted on the way.
                let _ = self.bounds(tenant).await;
            }
            self.standing.show(*self.standing.state.lock());
            asked = next;
        }
    }
}

#[async_trait]
impl Log for WatchedLog {
    async fn append(&self, tenant: &TenantId, event: Event, dedup: Duration) -> Result<Appended, LogError> {
        self.call(true, self.log.append(tenant, event, dedup)).await
    }

    async fn read(&self, tenant: &TenantId, from: u64) -> Result<Page, LogError> {
        self.call(false, self.log.read(tenant, from)).await
    }

    async fn bounds(&self, tenant: &TenantId) -> Result<Bounds, LogError> {
        self.call(false, self.log.bounds(tenant)).await
    }

    async fn tail(&self, tenant: &TenantId) -> Result<Tail, LogError> {
        self.call(false, self.log.tail(tenant)).await
    }

    async fn erase(&self, tenant: &TenantId) -> Result<u64, LogError> {
        self.call(false, self.log.erase(tenant)).await
    }

    async fn erase_gateway(&self, key: &GatewayKey, from: u64) -> Result<Erased, LogError> {
        self.call(false, self.log.erase_gateway(key, from)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_the_store_answers_is_told_until_it_answers_better() {
        let standing = Standing::new(&Registry::new()).expect("metrics");
        let shows = || (standing.note(), standing.up.get(), standing.full.get());
        assert_eq!(shows(), (String::new(), 1, 0));
        standing.answered::<()>(&Err(LogError::Unavailable), false);
        assert_eq!(shows(), ("degraded: the event store does not answer; events are refused\n".into(), 0, 0));
        standing.answered::<()>(&Err(LogError::Full), true);
        let full = "degraded: the event store is full; events are refused\n";
        assert_eq!(shows(), (full.into(), 1, 1));
        standing.answered(&Ok(()), false);
        assert_eq!(shows(), (full.into(), 1, 1), "reading needs no room");
        standing.answered(&Ok(()), true);
        assert_eq!(shows(), (String::new(), 1, 0));
        standing.answered::<()>(&Err(LogError::Full), true);
        tokio::time::advance(FULL_FOR).await;
        standing.show(*standing.state.lock());
        assert_eq!(shows(), (String::new(), 1, 0), "nobody knows any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_was_given_up_had_no_answer_unless_its_caller_just_went() {
        let standing = Standing::new(&Registry::new()).expect("metrics");
        let begin = || Call { standing: &standing, begun: Instant::now(), answered: false };
        let call = begin();
        drop(call);
        assert_eq!(standing.note(), "");
        let call = begin();
        tokio::time::advance(GIVEN_UP * 2).await;
        drop(call);
        assert_ne!(standing.note(), "");
    }
}
