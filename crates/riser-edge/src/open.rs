//! How a gateway's session begins and ends in the registry.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use riser_bus::Subject;
use riser_core::frame::N;
use riser_core::frame::outbound::{self, Welcome};
use riser_core::limits::Limits;
use riser_core::routed::{self, ToEdge, Up};
use riser_core::{CloseCode, Epoch, GatewayKey, Identity, Json, Reason, Rev, Version};
use riser_registry::{Acquired, Ended, TAKEOVER_WINDOW};
use tokio::time::{Instant, sleep, timeout};
use tracing::field;

use crate::admission::Missed;
use crate::commands::desk;
use crate::events;
use crate::gateway::Gateway;
use crate::live;
use crate::session::{answer_ok, key_of, later};
use crate::shared::Shared;
use crate::ws::{Conn, frame};

/// RFC 6455 §7.4.1 with its registry: try again later.
const TRY_LATER: u16 = 1013;
/// What the metric calls a registry that does not answer.
const UNAVAILABLE: &str = "registry_unavailable";

/// After how many takeovers within [`TAKEOVER_WINDOW`] two devices are suspected to share a credential. A gateway whose
/// link breaks now and then takes over from itself, but seldom so often.
const CLONES: u32 = 4;

/// How far a gateway's session has come. Whoever of its beginning and its end comes second sees the other.
pub(crate) enum Progress {
    /// The registry has not answered yet.
    Opening,
    /// It holds the gateway.
    Open(Arc<Gateway>),
    /// It ended before it was open, for this reason; none when the gateway does not go offline.
    Ended(Option<Reason>),
}

/// [`Progress`], shared by the session and the task that opens it.
pub(crate) type Slot = Arc<Mutex<Progress>>;

/// Counts a session that is being fenced, so that the audit does not take it for one that nobody has.
struct Opening {
    shared: Arc<Shared>,
    key: GatewayKey,
}

impl Opening {
    fn new(shared: &Arc<Shared>, key: &GatewayKey, session: u64) -> Self {
        let mut gateways = shared.gateways.lock();
        let (count, newest) = gateways.opening.entry(key.clone()).or_default();
        *count += 1;
        *newest = (*newest).max(session);
        drop(gateways);
        Self { shared: shared.clone(), key: key.clone() }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let mut gateways = self.shared.gateways.lock();
        if let Some((count, _)) = gateways.opening.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                gateways.opening.remove(&self.key);
            }
        }
        drop(gateways);
        self.shared.someone_left.notify_waiters();
    }
}

/// Counts an end that is under way, so that a drain waits for it.
struct Closing(Arc<Shared>);

impl Closing {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.gateways.lock().closing += 1;
        Self(shared.clone())
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.gateways.lock().closing -= 1;
        self.0.someone_left.notify_waiters();
    }
}

/// A gateway whose `hello` was good and whose session is to begin. The connection is paused until it has.
pub(crate) struct Arrival {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: u64,
    pub(crate) conn: Arc<Conn>,
    /// The number of its `hello`, when it had one.
    pub(crate) n: Option<N>,
    pub(crate) identity: Arc<Identity>,
    /// Where it comes from; none in a simulation without sockets.
    pub(crate) from: Option<IpAddr>,
    /// For how long the gateway recognises a command that it has seen, in milliseconds.
    pub(crate) remembers_ms: u64,
    pub(crate) slot: Slot,
}

impl Arrival {
    /// Fences the session, welcomes the gateway, and tells who watches.
    pub(crate) fn begin(self) {
        let Some(key) = key_of(&self.identity) else { return };
        let opening = Opening::new(&self.shared, &key, self.id);
        self.shared.clone().tasks.spawn(async move {
            match self.acquire(&key).await {
                Ok(acquired) => self.open(&key, acquired).await,
                Err(why) => self.send_away(why),
            }
            drop(opening);
        });
    }

    /// Has it come back later, unless it has gone by itself.
    fn send_away(&self, why: &'static str) {
        if !self.conn.is_ending() {
            self.shared.metrics.refused(why);
            let after = later(&self.shared).as_millis();
            self.conn.close(TRY_LATER, &format!("{{\"code\":\"unavailable\",\"retry_after_ms\":{after}}}"));
        }
    }

    /// Waits for its turn, and tries until somebody answers, the peer is gone, or it has waited long enough. What fails is
    /// named for the metric.
    async fn acquire(&self, key: &GatewayKey) -> Result<Acquired, &'static str> {
        let shared = &self.shared;
        let started = Instant::now();
        let turn = shared.turnstile.turn(&key.tenant, shared.config.answer).await.map_err(Missed::as_str)?;
        // Nobody waits for what a gateway that went away meanwhile would be answered.
        if self.conn.is_gone() {
            return Err(UNAVAILABLE);
        }
        let _turn = turn;
        loop {
            shared.registered().await;
            if self.is_overtaken(key) {
                // A session that waited longer must not take over from one that came after it: its socket may be dead,
                // and nothing has been read from it meanwhile.
                self.conn.close(CloseCode::TakenOver.number(), "{\"retry_after_ms\":60000}");
                return Err(UNAVAILABLE);
            }
            let lease = shared.lease();
            let acquire = shared.ports.registry.acquire(&lease, key, floor(shared, key));
            let answer = shared.call(acquire).await;
            if answer.is_ok() || self.conn.is_gone() || started.elapsed() >= shared.config.answer {
                return answer.map_err(|_| UNAVAILABLE);
            }
            sleep(shared.config.call / 8).await;
        }
    }

    /// Whether a newer session of the same gateway came to this edge.
    fn is_overtaken(&self, key: &GatewayKey) -> bool {
        let gateways = self.shared.gateways.lock();
        let opening = gateways.opening.get(key).is_some_and(|(_, newest)| *newest > self.id);
        opening || gateways.held.get(key).is_some_and(|held| held.session > self.id)
    }

    async fn open(&self, key: &GatewayKey, acquired: Acquired) {
        let shared = &self.shared;
        let (epoch, since_ms) = (acquired.epoch, acquired.since_ms);
        let gateway = Gateway::new(key.clone(), self.id, self.conn.clone(), epoch, since_ms, self.remembers_ms);
        let older = {
            let mut gateways = shared.gateways.lock();
            match gateways.held.get(key) {
                // A yet newer session was answered first.
                Some(newer) if newer.epoch > acquired.epoch => return gateway.taken_over(),
                _ => gateways.held.insert(key.clone(), gateway.clone()),
            }
        };
        if let Some(older) = older {
            older.taken_over();
        }
        let ended = match &mut *self.slot.lock() {
            Progress::Ended(reason) => Some(*reason),
            progress => {
                *progress = Progress::Open(gateway.clone());
                None
            }
        };
        if let Some(reason) = ended {
            return close(shared, gateway, reason);
        }
        tell_online(shared, key, &acquired).await;
        // And again after as many more: the first time may be lost in a storm.
        if acquired.takeovers.is_multiple_of(CLONES) && acquired.taken_from.is_some() {
            suspect_clones(shared, key, &acquired, self.from);
        }
        // The end of a session takes a revision, but what was kept is the gateway's own last change.
        let end = u64::from(acquired.taken_from.is_none());
        let last = |v: Version| Version { rev: Rev(v.rev.0.saturating_sub(end)), ..v };
        let have = acquired.before.filter(|_| acquired.has_state).map(last);
        let limits = shared.with_tenant(&key.tenant, |t| t.limits).unwrap_or_default();
        let welcome = welcome(shared, self.id, &self.identity, Some(acquired.epoch), have, &limits);
        self.conn.push(frame::text(&welcome));
        answer_ok(&self.conn, self.n);
        self.conn.flush();
        let missed_live = gateway.welcome();
        desk::welcomed(shared, &gateway, acquired.open_commands);
        if acquired.has_streams || missed_live {
            live::gateway_came(shared, &gateway);
        }
        self.conn.resume();
    }
}

/// The greatest epoch that this edge knows of the gateway.
fn floor(shared: &Shared, key: &GatewayKey) -> Option<Epoch> {
    let held = shared.gateways.lock().held.get(key).map(|g| g.epoch);
    let seen = shared.known_hub(&key.tenant).and_then(|hub| hub.epoch(&key.address));
    held.max(seen)
}

/// Tells who watches that a gateway came online, and the edge that held it until now.
async fn tell_online(shared: &Shared, key: &GatewayKey, acquired: &Acquired) {
    let epoch = acquired.epoch;
    if acquired.taken_from.is_some() {
        shared.metrics.takeovers.inc();
    }
    let up = Up::Online {
        epoch,
        before: acquired.before,
        takeover: acquired.taken_from.is_some(),
        since_ms: acquired.since_ms,
        at_ms: acquired.now_ms,
        edge: shared.config.id.clone(),
    };
    shared.publish(&Subject::Up(key.clone()), routed::encode(&up)).await;
    if let Some(lease) = acquired.taken_from.as_ref().filter(|lease| lease.edge != shared.config.id) {
        let notice = routed::encode(&ToEdge::TakenOver { epoch });
        shared.publish(&Subject::Edge(lease.edge.clone(), key.clone()), notice).await;
    }
}

/// Tells the tenant that sessions of a gateway take over from each other again and again.
fn suspect_clones(shared: &Arc<Shared>, key: &GatewayKey, acquired: &Acquired, from: Option<IpAddr>) {
    shared.metrics.clones.inc();
    let (tenant, gateway, from) = (&key.tenant, &key.address, from.map(field::display));
    tracing::warn!(%tenant, %gateway, from, "two devices seem to share the credential of a gateway");
    let (Ok(id), Ok(kind)) = (format!("clone-{}", acquired.epoch).parse(), "clone_suspected".parse()) else { return };
    let data = serde_json::json!({ "takeovers": acquired.takeovers, "within_ms": TAKEOVER_WINDOW.as_millis() });
    let event = events::of_broker(key, id, kind, Json::of(&data));
    let (shared, tenant) = (shared.clone(), key.tenant.clone());
    shared.clone().tasks.spawn(async move {
        // The counter and the log say it in any case.
        let _ = events::store(&shared, &tenant, event, Instant::now()).await;
    });
}

/// `welcome`.
pub(crate) fn welcome(
    shared: &Shared,
    id: u64,
    identity: &Identity,
    epoch: Option<Epoch>,
    have: Option<Version>,
    limits: &Limits,
) -> String {
    // The sizes of messages hold for a connection from its start, when nobody knows the tenant yet.
    let sizes = Limits::default();
    let limits = Limits { text_bytes: sizes.text_bytes, binary_bytes: sizes.binary_bytes, ..*limits };
    outbound::welcome(&Welcome {
        session: &format!("{}-{id:x}", shared.config.id),
        identity,
        epoch,
        have,
        heartbeat_ms: u64::try_from(shared.config.heartbeat.as_millis()).unwrap_or(u64::MAX),
        limits: &limits,
        edge: &shared.config.id,
        version: env!("CARGO_PKG_VERSION"),
        now_ms: shared.clock.now_ms(),
    })
}

/// Ends the session here, and in the registry when there is a reason for the gateway to be offline.
pub(crate) fn close(shared: &Arc<Shared>, gateway: Arc<Gateway>, reason: Option<Reason>) {
    // Before the session is gone, so that nobody finds neither.
    let closing = Closing::new(shared);
    let shared = shared.clone();
    shared.clone().tasks.spawn(async move {
        if reason.is_some() {
            settle(&shared, &gateway).await;
        }
        let (key, epoch) = (&gateway.key, gateway.epoch);
        {
            let mut gateways = shared.gateways.lock();
            if gateways.held.get(key).is_some_and(|g| g.session == gateway.session) {
                gateways.held.swap_remove(key);
            }
            if let Some(reason) = reason
                && gateways.ending.get(key).is_none_or(|(ending, _)| *ending < epoch)
            {
                gateways.ending.insert(key.clone(), (epoch, reason));
            }
        }
        if let Some(reason) = reason {
            release(&shared, key, epoch, reason).await;
        }
        drop(closing);
    });
}

/// Waits until what was on its way to the store when the session ended has arrived: it belongs before the end.
async fn settle(shared: &Shared, gateway: &Gateway) {
    let settled = async {
        loop {
            let left = shared.someone_left.notified();
            if gateway.is_settled() {
                return;
            }
            left.await;
        }
    };
    // When the store does not answer, presence is more than what was not acknowledged anyway.
    let _ = timeout(shared.config.call, settled).await;
}

/// Tells the registry of an end. What it cannot be told now the audit tells it later.
pub(crate) async fn release(shared: &Shared, key: &GatewayKey, epoch: Epoch, reason: Reason) {
    let Ok(ended) = shared.call(shared.ports.registry.release(key, epoch, reason)).await else { return };
    {
        let mut gateways = shared.gateways.lock();
        if gateways.ending.get(key).is_some_and(|(ending, _)| *ending <= epoch) {
            gateways.ending.swap_remove(key);
        }
    }
    shared.someone_left.notify_waiters();
    if let Some(ended) = ended {
        shared.metrics.ended(ended.reason);
        tell_offline(shared, key, &ended).await;
    }
}

/// Tells who watches that a gateway went offline.
pub(crate) async fn tell_offline(shared: &Shared, key: &GatewayKey, ended: &Ended) {
    let up = Up::Offline { version: ended.version, reason: ended.reason, at_ms: ended.at_ms };
    shared.publish(&Subject::Up(key.clone()), routed::encode(&up)).await;
}
