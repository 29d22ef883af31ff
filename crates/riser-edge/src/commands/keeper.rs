//! What makes a command's end certain: looking again at what somebody here waits for, and sweeping what is overdue
//! though nobody waits for it.

use std::sync::Arc;

use riser_core::GatewayKey;
use riser_core::command::{CommandId, Outcome, Status, Step};
use riser_registry::commands::OVERDUE_PAGE;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval, sleep_until};

use super::{dispatch, step};
use crate::presence::UNANSWERED;
use crate::shared::Shared;

/// Between two looks at what is overdue. With a waiter's own look it keeps the promise of 5 s after the deadline.
const SWEEP: Duration = Duration::from_secs(1);
/// Looks that are under way at once.
const AT_ONCE: usize = 16;
/// How soon everything is looked at after messages may have been lost, so that a burst of losses is one look.
const SOON: Duration = Duration::from_millis(500);
/// The least time between two goes through all waiters.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks at commands that sessions of this edge wait for, as long as the edge lives.
pub(crate) async fn keep_waiting(shared: Arc<Shared>) {
    loop {
        let now = Instant::now();
        let (due, next) = shared.waiters.due(now);
        shared.metrics.commands.waiting.set(i64::try_from(shared.waiters.len()).unwrap_or(i64::MAX));
        if due.is_empty() {
            tokio::select! {
                biased;
                () = shared.waiters.sooner.notified() => {}
                () = sleep_until(next) => {}
            }
            // Going through all of them costs time with their number: not for each one that comes.
            sleep_until(now + PAUSE).await;
            continue;
        }
        let mut looks = futures_util::stream::FuturesUnordered::new();
        for (key, cmd) in due {
            while looks.len() >= AT_ONCE {
                futures_util::StreamExt::next(&mut looks).await;
            }
            let shared = &shared;
            looks.push(async move { look(shared, &key, &cmd).await });
        }
        while futures_util::StreamExt::next(&mut looks).await.is_some() {}
    }
}

/// Has all waiters looked at, because notices may have been lost.
pub(crate) fn look_again(shared: &Shared) {
    shared.waiters.look_again(Instant::now() + SOON);
}

/// Sees how a command stands, tells who waits, and moves it on when it should have been sent.
async fn look(shared: &Arc<Shared>, key: &GatewayKey, cmd: &CommandId) {
    shared.metrics.commands.looks.inc();
    let Ok(seen) = step(shared, key, cmd, &Step::Look).await else { return shared.waiters.unanswered(key, cmd) };
    let Some(stepped) = seen else {
        // The record was lost, and nobody can know any more what became of it.
        shared.metrics.commands.lost.inc();
        let (code, at_ms) = ("record_lost".parse().ok(), shared.clock.now_ms());
        let lost = Outcome { status: Status::Unknown, code, data: None, at_ms, late: false };
        shared.waiters.lost(shared, key, cmd, lost);
        return;
    };
    shared.waiters.deliver(shared, key, cmd, &stepped.record.outcomes);
    if !stepped.record.is_unsent() {
        return;
    }
    match &stepped.holder {
        Some(holder) => {
            shared.metrics.commands.dispatched_again.inc();
            dispatch(shared, key, stepped.record, holder).await;
        }
        None if !stepped.record.body.hold || stepped.record.outcomes.is_empty() => {
            // It went offline after the command was recorded. Who loses this race has lost to the truth.
            drop(step(shared, key, cmd, &Step::Offline).await);
        }
        None => {}
    }
}

/// Makes overdue commands final, as long as the edge lives.
pub(crate) async fn keep_sweeping(shared: Arc<Shared>) {
    let mut tick = interval(SWEEP);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if !shared.is_draining() {
            sweep(&shared).await;
        }
    }
}

async fn sweep(shared: &Arc<Shared>) {
    loop {
        let Ok(overdue) = shared.call(shared.ports.commands.overdue(&shared.config.id)).await else { return };
        let count = overdue.len();
        let mut unanswered = 0;
        for (tenant, cmd) in overdue {
            let key = GatewayKey::new(tenant, cmd.of.clone());
            if step(shared, &key, &cmd, &Step::Look).await.is_ok() {
                shared.metrics.commands.swept.inc();
                continue;
            }
            unanswered += 1;
            if unanswered == UNANSWERED {
                return;
            }
        }
        if count < OVERDUE_PAGE {
            return;
        }
    }
}
