//! A tenant that does all it can at once: it floods with state and events, subscribes and unsubscribes, comes and goes, and
//! listens without reading.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use riser_client::{Api, Config, End, Endpoint, Link};
use riser_core::Address;
use riser_core::frame::Credential;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::PATIENCE;

/// Gateways that send state, and as many that send events.
const FLOODS: usize = 8;
/// Clients that subscribe and unsubscribe.
const CHURNS: usize = 4;
/// Gateways that connect and leave, one after the other, in each of so many rows.
const STORMS: usize = 16;
/// Clients that listen to everything and read nothing.
const DEAF: usize = 16;
/// Frames that are written before it is looked at what came.
const BURST: u64 = 200;

/// The noise, until it is dropped.
pub(super) struct Noise {
    sent: Arc<AtomicU64>,
    came: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

/// Where one of those who make noise connects, and as whom.
#[derive(Clone)]
struct Line {
    config: Config,
    sent: Arc<AtomicU64>,
}

impl Noise {
    /// Begins, and waits until all make noise.
    pub(super) async fn begin(endpoint: &Endpoint, key: &Credential) -> Self {
        let api = Api::new(endpoint.clone(), key.clone());
        let (sent, came) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let line =
            |credential: Credential| Line { config: Config::new(endpoint.clone(), credential), sent: sent.clone() };
        let gateway = async |name: String| {
            let address: Address = name.parse().expect("an address");
            line(api.gateway_token(&address, Some(3_600)).await.expect("a token").token)
        };
        let (loud, mut begun) = watch::channel(0);
        let mut tasks = JoinSet::new();
        for number in 0..FLOODS {
            let state = |n: u64| json!({"t":"state","set":{"load/number":n,"load/more":"x".repeat(100)}});
            tasks.spawn(flood(gateway(format!("b0/f{number}")).await, loud.clone(), state));
            let event = |n: u64| json!({"t":"event","id":format!("e{n}"),"type":"beat"});
            tasks.spawn(flood(gateway(format!("b1/f{number}")).await, loud.clone(), event));
        }
        for _ in 0..CHURNS {
            let churn = |n: u64| {
                let what = if n.is_multiple_of(2) { "subscribe" } else { "unsubscribe" };
                json!({"t":what,"n":n,"to":format!("b{}/*", n / 2 % 100)})
            };
            tasks.spawn(flood(line(key.clone()), loud.clone(), churn));
        }
        for number in 0..STORMS {
            let line = gateway(format!("b2/f{number}")).await;
            let came = came.clone();
            tasks.spawn(async move {
                loop {
                    if let Ok((link, _)) = Link::open(&line.config).await {
                        came.fetch_add(1, Ordering::Relaxed);
                        link.close(1000, "").await;
                    }
                }
            });
        }
        for _ in 0..DEAF {
            tasks.spawn(listen(line(key.clone()), loud.clone()));
        }
        drop(loud);
        let all = begun.wait_for(|begun| *begun == 2 * FLOODS + CHURNS + DEAF);
        timeout(PATIENCE, all).await.expect("noise in time").expect("those who make noise");
        Self { sent, came, _tasks: tasks }
    }

    /// How many frames it sent, and how many of its gateways came.
    pub(super) fn made(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.came.load(Ordering::Relaxed))
    }
}

/// Sends as much as the socket takes, for ever; comes back when it is sent away.
async fn flood(line: Line, loud: watch::Sender<usize>, frame: impl Fn(u64) -> Value) {
    let mut number = 0;
    let mut loud = Some(loud);
    loop {
        let Ok((mut link, _)) = Link::open(&line.config).await else { continue };
        if let Some(loud) = loud.take() {
            loud.send_modify(|begun| *begun += 1);
        }
        while send(&mut link, &line, &mut number, &frame).await.is_ok() {}
    }
}

async fn send(link: &mut Link, line: &Line, number: &mut u64, frame: impl Fn(u64) -> Value) -> Result<(), End> {
    for _ in 0..BURST {
        *number += 1;
        link.send(&frame(*number).to_string())?;
    }
    link.flush().await?;
    line.sent.fetch_add(BURST, Ordering::Relaxed);
    // What has come by now, pings among it.
    while let Ok(came) = timeout(Duration::ZERO, link.next()).await {
        came?;
    }
    Ok(())
}

/// Listens without reading, and comes back when it is sent away, which it does not hear.
async fn listen(line: Line, loud: watch::Sender<usize>) {
    let mut loud = Some(loud);
    loop {
        let Ok((mut link, _)) = Link::open(&line.config).await else { continue };
        let subscribe = json!({"t":"subscribe","n":1,"to":"*/*","lanes":["state","event","presence"]}).to_string();
        if link.send(&subscribe).is_err() || link.flush().await.is_err() {
            continue;
        }
        if let Some(loud) = loud.take() {
            loud.send_modify(|begun| *begun += 1);
        }
        // An unread socket tells nothing but that it cannot be written to any more.
        while link.send("{\"t\":\"ping\"}").is_ok() && link.flush().await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
