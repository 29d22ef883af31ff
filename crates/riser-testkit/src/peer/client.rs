//! A simulated client: it subscribes, reads, is slow at times, and comes back through another edge.

use std::sync::Arc;
use std::time::Duration;

use riser_core::{Grant, Identity, Peer, TenantId};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Heard, Link, frame};
use crate::history::{Event, Leaving, Who};
use crate::sim::Stage;

/// Bytes between a client and its edge: few, so that one that does not read is slow at once.
const BUFFER: usize = 2 * 1024;

/// What a client is.
#[derive(Clone)]
pub struct ClientPlan {
    /// Whose.
    pub tenant: TenantId,
    /// What it is called.
    pub name: String,
    /// Seeds what it does.
    pub seed: u64,
}

pub(crate) async fn run(stage: Arc<Stage>, plan: ClientPlan) {
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    for session in 1.. {
        let who = Who::Client { tenant: plan.tenant.to_string(), name: plan.name.clone(), session };
        connection(&stage, &plan, &mut rng, &who).await;
        sleep(Duration::from_millis(rng.u64(20..2_000))).await;
    }
}

async fn connection(stage: &Stage, plan: &ClientPlan, rng: &mut fastrand::Rng, who: &Who) {
    let Some(edge) = stage.any_edge(rng) else { return };
    let identity = Identity {
        tenant: plan.tenant.clone(),
        peer: Peer::Client { subject: plan.name.clone() },
        grants: vec![Grant::everything()],
        expires_at_ms: None,
        lifetime_ms: None,
    };
    let Some(stream) = stage.cluster.attach(edge, identity, BUFFER) else { return };
    let mut link = Link::new(stream);
    stage.recorder.write(who, Event::Hello { edge: stage.cluster.edge_id(edge).to_string() });
    let mut n = 0;
    let mut open = link.send(r#"{"t":"hello"}"#).await;
    for _ in 0..rng.usize(1..3) {
        open = open && subscribe(stage, rng, who, &mut link, &mut n).await;
    }
    if !open {
        stage.recorder.write(who, Event::Closed { code: None });
        return;
    }
    let mut next_act = Instant::now() + Duration::from_millis(rng.u64(1_000..15_000));
    loop {
        tokio::select! {
            biased;
            heard = link.next() => match heard {
                Heard::Text(text) => {
                    let event = frame::read(&text);
                    // What was refused because something was away is asked for again.
                    let again = matches!(&event, Some(Event::Error { code, .. }) if code == "unavailable");
                    if let Some(event) = event {
                        stage.recorder.write(who, event);
                    }
                    if again {
                        stage.recorder.write(who, Event::Left { how: Leaving::Closed });
                        link.close().await;
                        return;
                    }
                }
                Heard::Ping(payload) => drop(link.pong(payload).await),
                Heard::Pong => {}
                Heard::Closed(code) => {
                    stage.recorder.write(who, Event::Closed { code });
                    return;
                }
            },
            () = sleep_until(next_act) => {
                next_act = Instant::now() + Duration::from_millis(rng.u64(1_000..15_000));
                if stage.is_quiet() {
                    next_act += Duration::from_secs(3_600);
                    continue;
                }
                match rng.u8(..10) {
                    0..4 => {
                        stage.recorder.write(who, Event::Slow);
                        sleep(Duration::from_millis(rng.u64(500..9_000))).await;
                        stage.recorder.write(who, Event::Reads);
                    }
                    4..7 => drop(subscribe(stage, rng, who, &mut link, &mut n).await),
                    _ => {
                        stage.recorder.write(who, Event::Left { how: Leaving::Closed });
                        link.close().await;
                        return;
                    }
                }
            }
        }
    }
}

async fn subscribe(stage: &Stage, rng: &mut fastrand::Rng, who: &Who, link: &mut Link, n: &mut u64) -> bool {
    *n += 1;
    let to = ["*/*", "*/*", "b1/*", "b2/*", "b1/g1"][rng.usize(..5)];
    let path: &[&str] = [&[] as &[&str], &[], &["hall/#"], &["+", "kitchen/+"]][rng.usize(..4)];
    let presence = rng.u8(..4) > 0;
    let state = !presence || rng.u8(..4) > 0;
    let lanes: Vec<&str> = [("state", state), ("presence", presence)].iter().filter(|l| l.1).map(|l| l.0).collect();
    let event = Event::Subscribe {
        n: *n,
        to: to.into(),
        state,
        presence,
        path: path.iter().map(ToString::to_string).collect(),
    };
    stage.recorder.write(who, event);
    let mut frame = json!({"t": "subscribe", "n": *n, "to": to, "lanes": lanes});
    if !path.is_empty() {
        frame["path"] = json!(path);
    }
    link.send(&frame.to_string()).await
}
