//! One flat: a home, and a gateway session that is lost now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use riser_client::{Api, Backoff, Config, Endpoint, Gateway, Memory, Status};
use riser_core::Address;
use riser_core::frame::Credential;
use tokio::sync::watch;
use tokio::time::sleep;

use super::home::{Home, after};
use super::life::Life;
use crate::clock;

/// How long the gateways' tokens last. They are renewed at half of it.
const TOKEN_TTL_S: u64 = 86_400;
/// The time in which all flats of a building come.
const ARRIVAL: Duration = Duration::from_secs(1);
/// How long a flat keeps its link, in the mean.
const LINK_MEAN: Duration = Duration::from_secs(30 * 60);
/// How long it is away then, in seconds.
const AWAY_S: std::ops::RangeInclusive<u64> = 5..=30;

/// How all flats of a building are.
pub(super) struct Board {
    status: Vec<Mutex<Option<watch::Receiver<Status>>>>,
    changes: AtomicU64,
}

impl Board {
    pub(super) fn new(flats: usize) -> Self {
        Self { status: (0..flats).map(|_| Mutex::default()).collect(), changes: AtomicU64::new(0) }
    }

    /// How many have a session now.
    pub(super) fn online(&self) -> usize {
        let online = |status: &watch::Receiver<Status>| matches!(*status.borrow(), Status::Online(_));
        self.status.iter().filter(|slot| slot.lock().as_ref().is_some_and(online)).count()
    }

    /// A change was stored.
    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// How many changes were stored in all.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }
}

/// A flat of the building.
pub(super) struct Flat {
    pub(super) number: usize,
    pub(super) address: Address,
    pub(super) endpoint: Endpoint,
    pub(super) api: Api,
    pub(super) board: Arc<Board>,
    pub(super) leave: watch::Receiver<bool>,
}

impl Flat {
    /// Lives until the building is left, or the cluster turns it away for good.
    pub(super) async fn live(mut self, mut rng: fastrand::Rng) {
        sleep(ARRIVAL.mul_f64(rng.f64())).await;
        let life = Arc::new(Life::new(Home::new(rng.fork(), clock::now_ms())));
        loop {
            let Some(credential) = self.credential(&mut rng).await else { return };
            if !self.gateway(&life, &mut rng, credential).await {
                return;
            }
            // The cluster wants another credential.
            if !self.rest(Duration::from_secs(rng.u64(AWAY_S))).await {
                return;
            }
        }
    }

    /// Waits. False when everybody leaves.
    async fn rest(&mut self, time: Duration) -> bool {
        tokio::select! {
            () = left(&mut self.leave) => false,
            () = sleep(time) => true,
        }
    }

    /// Asks for a token until there is one; none when that is refused for good.
    async fn credential(&mut self, rng: &mut fastrand::Rng) -> Option<Credential> {
        let mut backoff = Backoff::new(rng.fork());
        loop {
            match self.api.gateway_token(&self.address, Some(TOKEN_TTL_S)).await {
                Ok(minted) => return Some(minted.token),
                Err(end) => {
                    let wait = backoff.after(&end);
                    tracing::warn!(address = %self.address, error = %end, "no token for a flat");
                    if !self.rest(wait?).await {
                        return None;
                    }
                }
            }
        }
    }

    /// Has a gateway until its credential is not taken any more. False when everybody leaves.
    async fn gateway(&mut self, life: &Arc<Life>, rng: &mut fastrand::Rng, credential: Credential) -> bool {
        let agent = concat!("riser-sim/", env!("CARGO_PKG_VERSION"));
        let config = Config::new(self.endpoint.clone(), credential).agent(agent);
        let (gateway, mut commands) = Gateway::serve(config, Memory::default());
        let gateway = Arc::new(gateway);
        *self.board.status[self.number].lock() = Some(gateway.status());
        let stays = tokio::select! {
            () = left(&mut self.leave) => false,
            () = lose(&gateway, rng) => true,
            () = life.run(&gateway, &mut commands, &self.board) => true,
        };
        *self.board.status[self.number].lock() = None;
        if !stays {
            gateway.close().await;
        }
        stays
    }
}

/// Loses the link now and then, for ever.
async fn lose(gateway: &Gateway, rng: &mut fastrand::Rng) {
    loop {
        sleep(after(rng, LINK_MEAN)).await;
        gateway.reconnect(Duration::from_secs(rng.u64(AWAY_S))).await;
    }
}

async fn left(leave: &mut watch::Receiver<bool>) {
    // The sender lives as long as the building, and with it goes this task.
    let _ = leave.wait_for(|&left| left).await;
}
