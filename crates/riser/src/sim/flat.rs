//! One flat: a home, and a gateway session that is lost now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use riser_client::{Api, Backoff, Config, Endpoint, Gateway, Refused, Status};
use riser_core::Address;
use riser_core::frame::Credential;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::home::{Home, Step, after};
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

/// Why a session was over.
enum Over {
    /// The link was lost, as it is now and then; the credential is still good.
    Lost(Credential),
    /// The cluster wants another credential.
    Credential,
    /// Everybody leaves.
    Left,
}

impl Flat {
    /// Lives until the building is left, or the cluster turns it away for good.
    pub(super) async fn live(mut self, mut rng: fastrand::Rng) {
        sleep(ARRIVAL.mul_f64(rng.f64())).await;
        let mut home = Home::new(rng.fork(), clock::now_ms());
        let mut held = None;
        loop {
            let credential = match held.take() {
                Some(credential) => credential,
                None => match self.credential(&mut rng).await {
                    Some(credential) => credential,
                    None => return,
                },
            };
            match self.session(&mut home, &mut rng, credential).await {
                Over::Lost(credential) => held = Some(credential),
                Over::Credential => {}
                Over::Left => return,
            }
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

    async fn session(&mut self, home: &mut Home, rng: &mut fastrand::Rng, credential: Credential) -> Over {
        let agent = concat!("riser-sim/", env!("CARGO_PKG_VERSION"));
        let gateway = Gateway::start(Config::new(self.endpoint.clone(), credential).agent(agent));
        *self.board.status[self.number].lock() = Some(gateway.status());
        let lost = Instant::now() + after(rng, LINK_MEAN);
        let over = tokio::select! {
            () = left(&mut self.leave) => None,
            () = tokio::time::sleep_until(lost) => Some(Over::Lost(gateway.credential())),
            () = run(home, &gateway, &self.board) => Some(Over::Credential),
        };
        *self.board.status[self.number].lock() = None;
        if over.is_none() {
            gateway.close().await;
        }
        over.unwrap_or(Over::Left)
    }
}

async fn left(leave: &mut watch::Receiver<bool>) {
    // The sender lives as long as the building, and with it goes this task.
    let _ = leave.wait_for(|&left| left).await;
}

/// Reports what happens in the home until the gateway is turned away.
async fn run(home: &mut Home, gateway: &Gateway, board: &Board) {
    home.until(clock::now_ms());
    let mut done = gateway.describe(Home::devices()).await;
    if done.is_ok() {
        done = gateway.full(home.values()).await;
    }
    loop {
        match done {
            Ok(()) => {
                board.changes.fetch_add(1, Ordering::Relaxed);
            }
            Err(Refused::Ended) => return,
            Err(error) => tracing::warn!(%error, "a flat's change was refused"),
        }
        sleep(Duration::from_millis(home.due_ms().saturating_sub(clock::now_ms()))).await;
        done = match home.step() {
            Step::Set(path, value) => gateway.set([(path, Some(value))].into()).await,
            Step::Device(path, up) => gateway.device(path, up).await,
        };
    }
}
