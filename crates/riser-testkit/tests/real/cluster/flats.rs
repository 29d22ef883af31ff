//! Gateways under load: each sets a number, tells events and does commands, and remembers what it was answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use riser_client::{Api, Commands, Config, Endpoint, Gateway, Memory, Notice, Status};
use riser_core::{Address, Json, Path};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::PATIENCE;

/// The type of the gateways' events.
pub(super) const BEAT: &str = "beat";
/// Between two numbers of one gateway, on average, when nothing else is said.
const EVERY: Duration = Duration::from_secs(2);
/// Between two tries of what was refused.
const AGAIN: Duration = Duration::from_millis(200);
/// Credentials that are asked for at once.
const TOKENS: usize = 16;
/// Every so many numbers it tells an event.
const EVENT_EACH: u64 = 4;
/// How long a gateway knows a command again.
const MEMORY: Duration = Duration::from_secs(3_600);

/// One gateway.
pub(super) struct Flat {
    pub(super) address: Address,
    pub(super) gateway: Gateway,
    every: Duration,
    said: Mutex<Said>,
    /// Whether it is about to say something.
    busy: watch::Sender<bool>,
}

/// What a gateway did, and what it was answered.
#[derive(Debug, Default, Clone)]
pub(super) struct Said {
    /// The newest number that it set.
    pub(super) number: u64,
    /// Its events that were answered `ok`, in that order.
    pub(super) events: Vec<String>,
    /// Tries to tell an event that failed.
    pub(super) refused: u64,
    /// The longest time that it was without a session.
    pub(super) away: Duration,
    /// What became of its attempts in that time, each with when it failed and how long the next one waited.
    pub(super) attempts: Vec<String>,
    /// How often it did each command.
    pub(super) done: BTreeMap<String, u32>,
}

/// Some gateways.
pub(super) struct Flats {
    all: BTreeMap<Address, Arc<Flat>>,
    loaded: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Where a gateway's number is.
pub(super) fn number_path() -> Path {
    "load/number".parse().expect("a path")
}

/// `b0/f0` to `b9/f9` and on, ten buildings.
fn address(number: usize) -> Address {
    format!("b{}/f{}", number % 10, number / 10).parse().expect("an address")
}

impl Flats {
    /// Connects so many, and waits until all are online.
    pub(super) async fn connect(endpoint: &Endpoint, api: &Api, count: usize) -> Self {
        Self::each(endpoint, api, count, EVERY).await
    }

    /// The same, with another time between two numbers of each.
    pub(super) async fn each(endpoint: &Endpoint, api: &Api, count: usize, every: Duration) -> Self {
        let (loaded, mut tasks) = (watch::Sender::new(false), JoinSet::new());
        let token = |number: usize| async move {
            let address = address(number);
            let token = api.gateway_token(&address, Some(86_400)).await.expect("a token").token;
            (address, token)
        };
        let mut tokens = futures_util::stream::iter((0..count).map(token)).buffer_unordered(TOKENS);
        let mut all = BTreeMap::new();
        while let Some((address, token)) = tokens.next().await {
            let config = Config::new(endpoint.clone(), token);
            let (gateway, commands) = Gateway::serve(config, Memory::new(MEMORY));
            let (said, busy) = (Mutex::default(), watch::Sender::new(false));
            let flat = Arc::new(Flat { address: address.clone(), gateway, every, said, busy });
            tasks.spawn(obey(flat.clone(), commands));
            tasks.spawn(tell(flat.clone(), loaded.subscribe()));
            tasks.spawn(miss(flat.clone()));
            all.insert(address, flat);
        }
        let flats = Self { all, loaded, tasks };
        flats.online().await;
        flats
    }

    /// Begins the load, or ends it; what is under way is finished.
    pub(super) fn load(&self, on: bool) {
        self.loaded.send_replace(on);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Flat>> {
        self.all.values()
    }

    pub(super) fn get(&self, address: &Address) -> &Flat {
        self.all.get(address).expect("a gateway of that name")
    }

    /// Waits until all are online.
    pub(super) async fn online(&self) {
        for flat in self.all.values() {
            let mut status = flat.gateway.status();
            let online = status.wait_for(|status| matches!(status, Status::Online(_)));
            let online = timeout(PATIENCE, online).await.map(|online| online.is_ok());
            assert_eq!(online, Ok(true), "{} is {:?}", flat.address, flat.gateway.status().borrow().clone());
        }
    }

    /// The gateways that an edge of this name holds.
    pub(super) fn at(&self, edge: &str) -> Vec<Address> {
        let at = |flat: &&Arc<Flat>| matches!(&*flat.gateway.status().borrow(), Status::Online(welcome) if welcome.edge == edge);
        self.all.values().filter(at).map(|flat| flat.address.clone()).collect()
    }

    /// Ends the load and waits until every gateway has said what it began to say.
    pub(super) async fn finish(&mut self) {
        self.loaded.send_replace(false);
        for flat in self.all.values() {
            let mut busy = flat.busy.subscribe();
            let said = async {
                busy.wait_for(|busy| !busy).await.expect("a gateway that is there");
                let last = flat.said().number;
                while flat.gateway.set(number(last)).await.is_err() {
                    sleep(AGAIN).await;
                }
            };
            timeout(PATIENCE, said).await.expect("an answer in time");
        }
        while let Some(ended) = self.tasks.try_join_next() {
            ended.expect("a gateway that does not panic");
        }
    }
}

impl Flat {
    pub(super) fn said(&self) -> Said {
        self.said.lock().clone()
    }
}

fn number(number: u64) -> BTreeMap<Path, Option<Json>> {
    [(number_path(), Some(Json::of(&number)))].into()
}

/// Does each command at once.
async fn obey(flat: Arc<Flat>, mut commands: Commands) {
    while let Some(request) = commands.next().await {
        *flat.said.lock().done.entry(request.cmd().to_owned()).or_default() += 1;
        // An answer that cannot be given is given when the command comes again.
        drop(request.succeed(None).await);
    }
}

/// Notes how long the gateway has no session.
async fn miss(flat: Arc<Flat>) {
    let mut status = flat.gateway.status();
    let mut gone: Option<(Instant, Vec<String>)> = None;
    while status.changed().await.is_ok() {
        let now = status.borrow_and_update().clone();
        if !matches!(now, Status::Online(_)) {
            let (since, attempts) = gone.get_or_insert_with(|| (Instant::now(), vec![]));
            if let Status::Waiting { end, back_in } = now {
                attempts.push(format!("after {:?}: {end}; back in {back_in:?}", since.elapsed()));
            }
        } else if let Some((since, attempts)) = gone.take() {
            let mut said = flat.said.lock();
            if since.elapsed() > said.away {
                (said.away, said.attempts) = (since.elapsed(), attempts);
            }
        }
    }
}

/// Sets numbers and tells events while there is load.
async fn tell(flat: Arc<Flat>, mut loaded: watch::Receiver<bool>) {
    while loaded.wait_for(|&loaded| loaded).await.is_ok() {
        sleep(flat.every.mul_f64(0.5 + fastrand::f64())).await;
        flat.busy.send_replace(true);
        if *loaded.borrow() {
            beat(&flat).await;
        }
        flat.busy.send_replace(false);
    }
}

async fn beat(flat: &Flat) {
    let next = flat.said.lock().number + 1;
    flat.said.lock().number = next;
    // The gateway keeps what its values should be, whatever is answered.
    drop(flat.gateway.set(number(next)).await);
    if !next.is_multiple_of(EVENT_EACH) {
        return;
    }
    let mut notice = Notice::new(BEAT);
    notice.id = format!("{}-{next}", flat.address.to_string().replace('/', "-"));
    while flat.gateway.event(&notice).await.is_err() {
        flat.said.lock().refused += 1;
        sleep(AGAIN).await;
    }
    flat.said.lock().events.push(notice.id);
}
