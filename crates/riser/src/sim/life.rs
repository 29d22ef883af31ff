//! Life in one flat while it has a gateway: what happens by itself is reported, what is told to is done, and the
//! doorbell is heard until somebody answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use riser_client::{Commands, Gateway, Notice, Open, Refused, Request, Stream};
use riser_core::live::StreamKind;
use riser_core::{Json, Path};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::flat::Board;
use super::home::{Act, Home, Step};
use crate::clock;

/// How long the lock turns.
const TURN: Duration = Duration::from_secs(1);
/// How long the door is heard when nobody answers.
const RING: Duration = Duration::from_secs(15);
/// How long a ring waits to be stored. After that nobody stands at the door any more.
const RING_STORED: Duration = Duration::from_secs(15);
/// Between two frames of the door's microphone, and their bytes: 24 kbit/s.
const FRAME: Duration = Duration::from_millis(20);
const FRAME_BYTES: usize = 60;
/// Commands that are being done at a time; more wait.
const BUSY: usize = 32;

/// One flat's home, shared by all that happens in it.
pub(super) struct Life {
    home: Mutex<Home>,
    changes: Mutex<Changes>,
    /// Something changed that was not reported.
    changed: Notify,
    /// The lock turns one way at a time.
    lock: tokio::sync::Mutex<()>,
    /// Whether somebody stands at the door.
    ringing: watch::Sender<bool>,
}

/// What changed and was not reported, by path: the newest counts.
#[derive(Default)]
struct Changes {
    set: BTreeMap<Path, Option<Json>>,
    devices: BTreeMap<Path, bool>,
}

impl Life {
    pub(super) fn new(home: Home) -> Self {
        Self {
            home: Mutex::new(home),
            changes: Mutex::default(),
            changed: Notify::new(),
            lock: tokio::sync::Mutex::new(()),
            ringing: watch::Sender::new(false),
        }
    }

    /// Goes on until the gateway is turned away.
    pub(super) async fn run(self: &Arc<Self>, gateway: &Arc<Gateway>, commands: &mut Commands, board: &Board) {
        self.home.lock().until(clock::now_ms());
        let mut rings = JoinSet::new();
        tokio::select! {
            () = self.report(gateway, board) => {}
            () = self.obey(gateway, commands) => {}
            () = self.pass(gateway, &mut rings) => {}
        }
    }

    fn set(&self, (path, value): (Path, Json)) {
        self.changes.lock().set.insert(path, Some(value));
        self.changed.notify_one();
    }

    /// What happens by itself.
    async fn pass(self: &Arc<Self>, gateway: &Arc<Gateway>, rings: &mut JoinSet<()>) {
        loop {
            let due_ms = self.home.lock().due_ms();
            sleep(Duration::from_millis(due_ms.saturating_sub(clock::now_ms()))).await;
            while rings.try_join_next().is_some() {}
            let step = self.home.lock().step();
            match step {
                Step::Set(path, value) => self.set((path, value)),
                Step::Device(path, up) => {
                    self.changes.lock().devices.insert(path, up);
                    self.changed.notify_one();
                }
                Step::Ring(path, value) => {
                    self.set((path.clone(), value));
                    // A ring while somebody stands there already is one more press of the button, and ends soon.
                    rings.spawn(self.clone().ring(gateway.clone(), path));
                }
            }
        }
    }

    /// Makes the broker know everything, and then what changes. Ready when the gateway is turned away.
    async fn report(&self, gateway: &Gateway, board: &Board) {
        // What is not yet reported is in the values, or is said again.
        let values = self.home.lock().values();
        let mut done = gateway.describe(Home::devices()).await;
        if done.is_ok() {
            done = gateway.full(values).await;
        }
        loop {
            match done {
                Ok(()) => board.changed(),
                Err(Refused::Ended) => return,
                Err(error) => tracing::warn!(%error, "a flat's change was refused"),
            }
            let device = self.changes.lock().devices.pop_first();
            if let Some((path, up)) = device {
                done = gateway.device(path, up).await;
                continue;
            }
            let set = std::mem::take(&mut self.changes.lock().set);
            if set.is_empty() {
                self.changed.notified().await;
                done = Ok(());
                continue;
            }
            done = gateway.set(set).await;
        }
    }

    /// Does what is told to. Ready when the gateway has ended.
    async fn obey(self: &Arc<Self>, gateway: &Arc<Gateway>, commands: &mut Commands) {
        let mut doing = JoinSet::new();
        while let Some(request) = commands.next().await {
            while doing.try_join_next().is_some() {}
            if doing.len() >= BUSY {
                doing.join_next().await;
            }
            let act = self.home.lock().act(request.path(), request.action(), request.args());
            doing.spawn(self.clone().done(gateway.clone(), request, act));
        }
    }

    async fn done(self: Arc<Self>, gateway: Arc<Gateway>, request: Request, act: Act) {
        let answered = match act {
            Act::Done(path, value) => {
                self.set((path, value.clone()));
                request.succeed(Some(value)).await
            }
            Act::Turn(locked) => self.turn(request, locked).await,
            Act::Ring => {
                let path = request.path().clone();
                let rung = self.home.lock().rung(clock::now_ms());
                self.set(rung);
                let answered = request.succeed(None).await;
                self.ring(gateway, path).await;
                answered
            }
            Act::Answer => {
                if self.ringing.send_if_modified(std::mem::take) {
                    request.succeed(None).await
                } else {
                    request.fail("not_ringing", None).await
                }
            }
            Act::Rejected(code) => request.reject(code, None).await,
        };
        if let Err(error) = answered {
            tracing::warn!(%error, "a flat's word about a command was not taken");
        }
    }

    async fn turn(&self, mut request: Request, locked: bool) -> Result<(), Refused> {
        let _turning = self.lock.lock().await;
        if request.is_late() {
            return request.reject("expired", None).await;
        }
        request.running(None).await?;
        tokio::select! {
            () = request.cancelled() => return request.stop().await,
            () = sleep(TURN) => {}
        }
        let turned = self.home.lock().turned(locked);
        match turned {
            Some((path, value)) => {
                self.set((path, value.clone()));
                request.succeed(Some(value)).await
            }
            None => request.fail("jammed", None).await,
        }
    }

    /// Somebody rings: an event, and then what the door's microphone hears, until it is answered or they leave.
    async fn ring(self: Arc<Self>, gateway: Arc<Gateway>, path: Path) {
        let first = self.ringing.send_if_modified(|ringing| !std::mem::replace(ringing, true));
        let told = timeout(RING_STORED, gateway.event(&Notice::new("ring").at(path))).await;
        if !matches!(told, Ok(Ok(_))) {
            tracing::warn!("a ring was not stored");
        }
        if first {
            self.speak(&gateway).await;
            self.ringing.send_replace(false);
        }
    }

    /// Lets the door be heard, as far as the connection allows it, until it is answered.
    async fn speak(&self, gateway: &Gateway) {
        let mut ringing = self.ringing.subscribe();
        let until = Instant::now() + RING;
        let mut stream = match open(gateway).await {
            Ok(stream) => Some(stream),
            Err(error) => {
                tracing::warn!(%error, "the door cannot be heard");
                None
            }
        };
        let mut frames = interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut sound = [0; FRAME_BYTES];
        loop {
            tokio::select! {
                biased;
                // The sender lives as long as this home.
                _ = ringing.wait_for(|&ringing| !ringing) => break,
                () = sleep_until(until) => break,
                _ = frames.tick() => {
                    fastrand::fill(&mut sound);
                    // A frame that the connection does not take is one that nobody hears.
                    let _ = stream.as_mut().is_some_and(|stream| stream.send(&sound, false));
                }
            }
        }
        if let Some(mut stream) = stream {
            let _ = stream.send(&sound, true);
            stream.close().await;
        }
    }
}

/// Opens the door's microphone.
async fn open(gateway: &Gateway) -> Result<Stream, Refused> {
    let path = "talk/door".parse().map_err(|_| Refused::Lost)?;
    let params = Json::of(&json!({"rate": 24_000, "channels": 1}));
    gateway.open(Open { path, kind: StreamKind::Opus, params: Some(params) }).await
}
