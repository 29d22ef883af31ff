//! Heartbeats and deadlines of all sessions, by one task: a timer per session would cost more than the session.

use std::sync::Arc;
use std::time::Duration;

use riser_core::CloseCode;
use tokio::time::{Instant, interval};

use crate::session::{SessionHandle, end};
use crate::shared::Shared;

/// How often all sessions are looked at, at most: a deadline is kept to within this.
const LOOK: Duration = Duration::from_millis(500);
/// How many looks fit into one heartbeat at least, so that pings are spread.
const LOOKS: u32 = 8;

/// Runs as long as the edge does.
pub(crate) async fn run(shared: Arc<Shared>) {
    let heartbeat = shared.config.heartbeat;
    let look = LOOK.min(heartbeat / LOOKS).max(Duration::from_millis(1));
    let slices = u64::try_from((heartbeat.as_nanos() / look.as_nanos()).max(1)).unwrap_or(1);
    let mut tick = interval(look);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut slice = 0;
    loop {
        tick.tick().await;
        slice = (slice + 1) % slices;
        let (now, now_ms) = (Instant::now(), shared.clock.now_ms());
        let mut over = Vec::new();
        let mut pinged = Vec::new();
        {
            let sessions = shared.sessions.lock();
            for (id, session) in sessions.iter() {
                if let Some(code) = is_over(&shared, session, now, now_ms) {
                    over.push((session.conn.clone(), code));
                } else if id % slices == slice && session.open.is_some() {
                    pinged.push(session.conn.clone());
                }
            }
        }
        // Closing calls back into the session, which takes the lock.
        for (conn, (code, why)) in over {
            end(&conn, code, why);
        }
        for conn in pinged {
            conn.ping();
            conn.flush();
        }
        tokio::task::yield_now().await;
    }
}

fn is_over(shared: &Shared, session: &SessionHandle, now: Instant, now_ms: u64) -> Option<(CloseCode, &'static str)> {
    let config = &shared.config;
    let Some(open) = &session.open else {
        return (now.saturating_duration_since(session.since) >= config.hello)
            .then_some((CloseCode::NoHello, "no hello in time"));
    };
    if open.ends_at_ms.is_some_and(|at| at <= now_ms) {
        return Some((CloseCode::BadCredential, "the credential has expired"));
    }
    // Nothing is read from it meanwhile, whatever it says.
    if session.conn.is_paused() {
        return None;
    }
    let silent = now.saturating_duration_since(session.conn.last_activity());
    if silent < config.heartbeat * 2 {
        return None;
    }
    // A client whose socket is full cannot have seen our ping: it is slow, not gone. A gateway is sent so little that
    // a full socket says the same as silence.
    match session.conn.blocked_since() {
        Some(since) if !open.is_gateway => (now.saturating_duration_since(since) >= config.slow)
            .then_some((CloseCode::TooSlow, "nothing was read for too long")),
        _ => Some((CloseCode::Heartbeat, "nothing came for two heartbeats")),
    }
}
