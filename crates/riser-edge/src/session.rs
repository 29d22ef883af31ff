//! A session: one peer's conversation with this edge, from `hello` to the close.
//!
//! Gateways, dashboards and back ends are the same session with different rights. It answers what needs no waiting
//! by itself; what waits (the registry, the store, the bus) runs in a task beside it, so that reading never stops.

mod listener;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use riser_core::command::Word;
use riser_core::event::{Cursor, EventId};
use riser_core::frame::{Broken, Credential, Inbound, N, NewEvent, outbound};
use riser_core::tenant::Quota;
use riser_core::{Address, Change, CloseCode, ErrorCode, GatewayKey, Identity, Pattern, Peer, Reason, Verb};
use riser_tenants::flats::is_noted_after;
use tokio::time::Instant;
use tracing::field;

use crate::admission::Place;
use crate::auth::{AuthError, Lapse, Minted, Proof};
use crate::commands::desk;
use crate::commands::issuer::Issuer;
use crate::gateway::Gateway;
use crate::hub::Sub;
use crate::live::speaker::{self, Speaker, Wish};
use crate::open::{Arrival, Progress, Slot};
use crate::quota::{Own, Seat};
use crate::shared::Shared;
use crate::ws::{Conn, End, Handler, frame};
use crate::{auth, events, open};
use listener::Listener;

/// What the edge keeps of each connection beside its task.
pub(crate) struct SessionHandle {
    pub(crate) conn: Arc<Conn>,
    pub(crate) since: Instant,
    /// Where it comes from; none in a simulation without sockets.
    pub(crate) from: Option<IpAddr>,
    /// What was opened; none before `hello`.
    pub(crate) open: Option<OpenHandle>,
}

#[derive(Clone)]
pub(crate) struct OpenHandle {
    pub(crate) is_gateway: bool,
    /// When the credential runs out, with the leeway that its verification gives; none when it does not.
    pub(crate) ends_at_ms: Option<u64>,
    /// Who it is, and the key that says so: when the key is gone, so is the session.
    pub(crate) identity: Arc<Identity>,
    pub(crate) proof: Option<Proof>,
}

/// Where a credential came from, and which browser page is behind it.
#[derive(Default)]
pub(crate) struct Upgrade {
    /// Who the `Authorization` header proved.
    pub(crate) identity: Option<Identity>,
    /// By which key.
    pub(crate) proof: Option<Proof>,
    /// The `Origin` header of a browser.
    pub(crate) origin: Option<String>,
    /// Where it comes from, as far as sockets and trusted proxies tell.
    pub(crate) from: Option<IpAddr>,
    /// Its place at the door.
    pub(crate) place: Option<Place>,
    /// Its place among the tenant's sessions, when it is known whose it is.
    pub(crate) seat: Option<Seat>,
}

/// Who was let in.
struct Proved {
    identity: Identity,
    proof: Option<Proof>,
    seat: Seat,
}

enum Phase {
    /// Nothing may come but `hello`.
    Hello(Box<Upgrade>),
    /// Who it is, and what it does.
    Open(Box<Open>),
    /// The end was handled.
    Over,
}

struct Open {
    identity: Arc<Identity>,
    /// Its place among the tenant's sessions.
    seat: Seat,
    /// What it may send, when the tenant's quotas say so for each session.
    own: Own,
    /// Until when the session, or its tenant, is ahead of what it may send, once it was far ahead.
    ahead: Option<(Instant, Quota)>,
    /// Set when the session is fenced; until then the connection is paused.
    gateway: Option<Slot>,
    listener: Option<Arc<Listener>>,
    /// Made with a client's first command.
    issuer: Option<Arc<Issuer>>,
    /// Made with the first stream that it asks for.
    speaker: Option<Arc<Speaker>>,
    /// Made with the first event.
    sender: Option<Arc<events::Sender>>,
    /// When the last renewed token ends that was to be noted.
    noted_ms: Option<u64>,
}

pub(crate) struct Session {
    shared: Arc<Shared>,
    id: u64,
    phase: Phase,
    /// Its place at the door, until the session begins. Who is refused has it until the connection has ended: a socket that
    /// lingers is none that anybody else could have.
    place: Option<Box<Place>>,
}

impl Session {
    /// A session that waits for its `hello`.
    pub(crate) fn new(shared: Arc<Shared>, conn: &Arc<Conn>, mut upgrade: Upgrade) -> Self {
        let id = shared.next_session();
        let handle = SessionHandle { conn: conn.clone(), since: Instant::now(), from: upgrade.from, open: None };
        shared.sessions.lock().insert(id, handle);
        shared.metrics.connections.inc();
        let place = upgrade.place.take().map(Box::new);
        Self { shared, id, phase: Phase::Hello(Box::new(upgrade)), place }
    }

    fn protocol_error(conn: &Conn, message: &str) {
        end(conn, CloseCode::Protocol, message);
    }

    fn hello(&mut self, conn: &Arc<Conn>, n: Option<N>, token: Option<Credential>, remembers_ms: u64) {
        let Phase::Hello(upgrade) = std::mem::replace(&mut self.phase, Phase::Over) else { return };
        let Upgrade { identity, proof, origin, from, place: _, seat } = *upgrade;
        let (identity, proof) = match (identity, token) {
            (Some(_), Some(_)) => {
                return Self::protocol_error(conn, "two credentials: one with the upgrade, one in hello");
            }
            (None, None) => {
                self.shared.metrics.refused("no_credential");
                return end(conn, CloseCode::BadCredential, "hello has no token");
            }
            (Some(identity), None) => (identity, proof),
            (None, Some(token)) => match self.shared.verify(&token, from) {
                Ok((identity, proof)) => (identity, Some(proof)),
                Err(error) => {
                    self.shared.metrics.refused(error.reason());
                    return refuse(conn, error);
                }
            },
        };
        let allowed = self.shared.with_tenant(&identity.tenant, |tenant| tenant.allows_origin(origin.as_deref()));
        if allowed != Some(true) {
            self.shared.metrics.refused("origin");
            return end(conn, CloseCode::NotAllowed, "this origin is not on the tenant's list");
        }
        if self.shared.is_draining() {
            return end(conn, CloseCode::Drain, "the edge is going away");
        }
        let Some(seat) = seat.or_else(|| self.shared.seat(&identity)) else {
            self.shared.metrics.refused("quota");
            let after = self.shared.after_quota().as_millis();
            conn.close(CloseCode::OverLimit.number(), &format!("{{\"retry_after_ms\":{after}}}"));
            return;
        };
        // A gateway's next wait has a bound of its own.
        self.place = None;
        self.open(conn, n, Proved { identity, proof, seat }, remembers_ms);
    }

    fn open(&mut self, conn: &Arc<Conn>, n: Option<N>, proved: Proved, remembers_ms: u64) {
        let shared = &self.shared;
        let Proved { identity, proof, seat } = proved;
        let ends_at_ms = ends_at_ms(&identity);
        let is_gateway = identity.address().is_some();
        let identity = Arc::new(identity);
        let mut from = None;
        if let Some(handle) = shared.sessions.lock().get_mut(&self.id) {
            from = handle.from;
            handle.open = Some(OpenHandle { is_gateway, ends_at_ms, identity: identity.clone(), proof: proof.clone() });
        }
        tracing::debug!(session = self.id, tenant = %identity.tenant, from = from.map(field::display), "session begins");
        if let Some(lapse) = lapsed(shared, &identity, proof.as_ref()) {
            return revoke(shared, conn, lapse);
        }
        let mut gateway = None;
        if is_gateway {
            shared.metrics.gateways.inc();
            let slot = Arc::new(Mutex::new(Progress::Opening));
            conn.pause();
            gateway = Some(slot.clone());
            let (shared, conn, identity) = (shared.clone(), conn.clone(), identity.clone());
            Arrival { shared, id: self.id, conn, n, identity, from, remembers_ms, slot }.begin();
        } else {
            shared.metrics.clients.inc();
            let limits = shared.with_tenant(&identity.tenant, |t| t.limits).unwrap_or_default();
            conn.push(frame::text(&open::welcome(shared, self.id, &identity, None, None, &limits)));
            answer_ok(conn, n);
        }
        self.phase = Phase::Open(Box::new(Open {
            identity,
            seat,
            own: Own::default(),
            ahead: None,
            gateway,
            listener: None,
            issuer: None,
            sender: None,
            speaker: None,
            noted_ms: None,
        }));
    }
}

/// Why a credential that was verified a moment ago is not good any more. The table may have changed in between, and a
/// look at all sessions may have missed this one: whoever has noted the session looks again.
fn lapsed(shared: &Shared, identity: &Identity, proof: Option<&Proof>) -> Option<Lapse> {
    auth::lapse(&shared.table(), identity, proof)
}

/// Ends a session whose credential is not good any more.
pub(crate) fn revoke(shared: &Shared, conn: &Conn, lapse: Lapse) {
    shared.metrics.revoked.inc();
    match lapse {
        Lapse::Changed => {
            let after = later(shared).as_millis();
            conn.close(lapse.close_code().number(), &format!("{{\"retry_after_ms\":{after}}}"));
        }
        Lapse::Suspended | Lapse::Revoked => end(conn, lapse.close_code(), lapse.message()),
    }
}

/// When a session must end because its credential ran out.
fn ends_at_ms(identity: &Identity) -> Option<u64> {
    // An API key runs out by the cluster's own clock, a token perhaps by somebody else's.
    let leeway = if identity.is_by_token() { auth::LEEWAY } else { Duration::ZERO };
    Some(identity.expires_at_ms?.saturating_add(u64::try_from(leeway.as_millis()).unwrap_or(0)))
}

/// Closes because of a credential.
fn refuse(conn: &Conn, error: AuthError) {
    let Some(after) = error.retry_after() else { return end(conn, error.close_code(), &error.to_string()) };
    conn.close(error.close_code().number(), &format!("{{\"retry_after_ms\":{}}}", after.as_millis()));
}

/// Closes with a reason that the peer's developer can read.
pub(crate) fn end(conn: &Conn, code: CloseCode, message: &str) {
    // RFC 6455 §5.5 leaves 123 bytes for a reason; the codec cuts what is longer, and a cut object is no JSON.
    let short: String = message.chars().filter(char::is_ascii).take(100).collect();
    let reason = riser_core::Json::of(&serde_json::json!({ "message": short }));
    conn.close(code.number(), reason.as_str());
}

impl Handler for Session {
    fn text(&mut self, conn: &Arc<Conn>, text: &str) {
        self.shared.metrics.frames.inc();
        match (&mut self.phase, Inbound::parse(text)) {
            (Phase::Hello(_), Ok(Inbound::Hello { n, token, agent, remembers_ms })) => {
                tracing::debug!(session = self.id, agent, "hello");
                self.hello(conn, n, token, remembers_ms.unwrap_or(0));
            }
            (Phase::Hello(_), _) => Self::protocol_error(conn, "the first frame is not a good hello"),
            (Phase::Open(_), Err(Broken::NotAFrame(message))) => Self::protocol_error(conn, message),
            (Phase::Open(_), Err(Broken::Refused(refused))) => {
                answer_error(&self.shared, conn, refused.n, refused.code, &refused.message);
            }
            (Phase::Open(open), Ok(inbound)) => open.frame(&self.shared, self.id, conn, inbound),
            (Phase::Over, _) => {}
        }
    }

    fn binary(&mut self, conn: &Arc<Conn>, data: &[u8]) {
        self.shared.metrics.frames.inc();
        match &self.phase {
            Phase::Hello(_) => Self::protocol_error(conn, "the first frame is not a good hello"),
            Phase::Open(open) => speaker::message(&self.shared, conn, open.speaker.as_ref(), data),
            Phase::Over => {}
        }
    }

    fn received(&mut self, _: &Arc<Conn>, bytes: usize, frames: u32) -> Duration {
        let Phase::Open(open) = &mut self.phase else { return Duration::ZERO };
        let charged = self.shared.charge(open.seat.usage(), &mut open.own, frames, bytes);
        open.ahead = charged.refuse;
        charged.pause
    }

    fn drained(&mut self, _: &Arc<Conn>) -> bool {
        let Phase::Open(open) = &self.phase else { return false };
        open.listener.as_ref().is_some_and(|listener| listener.refill(&self.shared))
    }

    fn spent(&mut self, time: Duration) {
        if let Phase::Open(open) = &self.phase {
            open.seat.usage().spend(time);
        }
    }

    fn paced(&mut self, _: &Arc<Conn>) {
        self.shared.metrics.paced.inc();
    }

    fn ended(&mut self, _: &Arc<Conn>, end: End) {
        self.shared.metrics.closed(end.code());
        tracing::debug!(session = self.id, code = end.code(), "session ended");
        self.over(Some(end));
    }
}

impl Session {
    /// Leaves everything, once. `end` is none when the task was dropped or panicked.
    fn over(&mut self, end: Option<End>) {
        let phase = std::mem::replace(&mut self.phase, Phase::Over);
        let Phase::Open(open) = phase else { return };
        match &open.gateway {
            Some(slot) => {
                self.shared.metrics.gateways.dec();
                let kicked = matches!(&*slot.lock(), Progress::Open(gateway) if gateway.is_kicked());
                let reason = if kicked { Some(Reason::Kicked) } else { offline_reason(end) };
                let before = std::mem::replace(&mut *slot.lock(), Progress::Ended(reason));
                if let Progress::Open(gateway) = before
                    && !self.shared.killed.load(Ordering::Relaxed)
                {
                    open::close(&self.shared, gateway, reason);
                }
            }
            None => self.shared.metrics.clients.dec(),
        }
        if let Some(listener) = &open.listener {
            listener.leave();
        }
        if let Some(speaker) = &open.speaker {
            speaker.leave();
        }
        if let Some(issuer) = &open.issuer {
            issuer.leave(&self.shared);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.metrics.panics.inc();
            self.shared.metrics.closed(CloseCode::Internal.number());
        }
        self.over(None);
        self.shared.sessions.lock().swap_remove(&self.id);
        self.shared.metrics.connections.dec();
        self.shared.someone_left.notify_waiters();
    }
}

/// Why the gateway goes offline; none when it does not: it moves, or a newer session has it.
fn offline_reason(end: Option<End>) -> Option<Reason> {
    match end {
        Some(End::Peer { .. }) => Some(Reason::Closed),
        Some(End::Us { code }) => match CloseCode::from_number(code) {
            Some(CloseCode::Drain | CloseCode::TakenOver) => None,
            Some(CloseCode::Heartbeat) => Some(Reason::Heartbeat),
            Some(CloseCode::Revoked) => Some(Reason::Revoked),
            _ => Some(Reason::Error),
        },
        _ => Some(Reason::Error),
    }
}

/// Answers a frame that asked to be answered.
pub(crate) fn answer_ok(conn: &Conn, n: Option<N>) {
    if let Some(n) = n {
        conn.push(frame::text(&outbound::ok(n)));
    }
}

/// Answers a frame with an error.
pub(crate) fn answer_error(shared: &Shared, conn: &Conn, n: Option<N>, code: ErrorCode, message: &str) {
    shared.metrics.error(code);
    let retry = (code == ErrorCode::RateLimited).then_some(1_000);
    conn.push(frame::text(&outbound::error(n, code, message, retry)));
}

impl Open {
    fn frame(&mut self, shared: &Arc<Shared>, id: u64, conn: &Arc<Conn>, inbound: Inbound) {
        if let Some((until, quota)) = self.ahead
            && can_be_sent_again(&inbound)
            && let Some(wait) = until.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero())
        {
            shared.quota_refused(self.seat.usage(), quota);
            shared.metrics.error(ErrorCode::RateLimited);
            let text = format!("the tenant's quota {} is used up", quota.name());
            let after = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            conn.push(frame::text(&outbound::error(number_of(&inbound), ErrorCode::RateLimited, &text, Some(after))));
            return;
        }
        match inbound {
            Inbound::Hello { .. } => Session::protocol_error(conn, "hello comes once"),
            Inbound::Ping { n } => self.ping(shared, conn, n),
            Inbound::Pong { n } => answer_ok(conn, n),
            Inbound::Auth { n, token } => self.auth(shared, id, conn, n, &token),
            Inbound::Subscribe { n, to, lanes, path, cursor } => {
                let path = Arc::new(path);
                self.subscribe(shared, conn, n, Sub { to, lanes, filter: path.clone(), live: path, cursor });
            }
            Inbound::Open { n, to, path, kind, params } => {
                let speaker = self.speaker.get_or_insert_with(|| Speaker::new(conn, &self.identity));
                speaker.open(shared, n, Wish { to, path, kind, params });
            }
            Inbound::Close { n, stream } => speaker::close(shared, conn, self.speaker.as_ref(), n, stream),
            Inbound::Unsubscribe { n, to } => self.listener(shared, conn).unsubscribe(shared, n, to),
            Inbound::State { n, .. }
            | Inbound::Device { n, .. }
            | Inbound::Describe { n, .. }
            | Inbound::Result { n, .. }
                if self.gateway.is_none() =>
            {
                let text = format!("only a gateway sends `{}`", inbound.kind());
                answer_error(shared, conn, n, ErrorCode::Forbidden, &text);
            }
            Inbound::Renew { n } => self.renew(shared, conn, n),
            Inbound::State { n, set, full, more, ts_ms } => {
                let limits = shared.with_tenant(&self.identity.tenant, |t| t.limits).unwrap_or_default();
                self.with_gateway(|g| g.values(shared, n, Change::values(set, full), ts_ms, more, &limits));
            }
            Inbound::Device { n, path, up } => self.with_gateway(|g| g.change(shared, n, Change::mark(path, up), None)),
            Inbound::Describe { n, devices } => {
                self.with_gateway(|g| g.change(shared, n, Change::describe(devices), None));
            }
            Inbound::Command { n, .. } | Inbound::Cancel { n, .. } | Inbound::Seen { n, .. }
                if self.gateway.is_some() =>
            {
                let text = format!("only a client sends `{}`", inbound.kind());
                answer_error(shared, conn, Some(n), ErrorCode::Forbidden, &text);
            }
            Inbound::Command { n, to, command } => {
                self.issuer(shared, id, conn).command(shared, n, &self.identity, to, command);
            }
            Inbound::Cancel { n, cmd } => self.issuer(shared, id, conn).cancel(shared, n, &self.identity, cmd),
            Inbound::Result { n, cmd, status, code, data } => {
                self.with_gateway(|g| desk::said(shared, g, n, cmd, Word { status, code, data }));
            }
            Inbound::Event { n, to, event } => self.event(shared, conn, n, to, event),
            Inbound::Seen { n, of, id } => self.seen(shared, conn, n, of, &id),
        }
    }

    /// Answers a ping: a client is told where it stands in the tenant's events, which must be asked for when nobody here
    /// follows them.
    fn ping(&self, shared: &Arc<Shared>, conn: &Arc<Conn>, n: Option<N>) {
        if let Some(gateway) = self.gateway() {
            let pong = outbound::pong_gateway(shared.clock.now_ms(), gateway.epoch, gateway.desk.held());
            conn.push(frame::text(&pong));
            return answer_ok(conn, n);
        }
        let feed = shared.feed(&self.identity.tenant);
        let member = self.listener.as_ref().map(|listener| listener.id());
        let pong = move |shared: &Shared, conn: &Conn, position: Option<Cursor>| {
            conn.push(frame::text(&outbound::pong(shared.clock.now_ms(), position)));
            answer_ok(conn, n);
        };
        if feed.is_known() {
            return feed.tell_position(member, |position| pong(shared, conn, position));
        }
        let (shared, conn) = (shared.clone(), conn.clone());
        shared.clone().tasks.spawn(async move {
            feed.look(&shared).await;
            feed.tell_position(member, |position| pong(&shared, &conn, position));
            conn.flush();
        });
    }

    fn event(&mut self, shared: &Arc<Shared>, conn: &Arc<Conn>, n: Option<N>, to: Option<Address>, event: NewEvent) {
        let Some(of) = to.or_else(|| self.identity.address().cloned()) else {
            return answer_error(shared, conn, n, ErrorCode::BadFrame, "`to` is missing");
        };
        if !events::may_send(&self.identity, &of, &event) {
            shared.metrics.events.stored("forbidden");
            let text = "`to`: not a gateway's own address, and no grant of this credential covers it and the path; or \
                        `type`: audit is the broker's own";
            return answer_error(shared, conn, n, ErrorCode::Forbidden, text);
        }
        let event = events::event_of(shared, &self.identity, of, event);
        self.sender(conn).send(shared, n, event);
    }

    fn seen(&mut self, shared: &Arc<Shared>, conn: &Arc<Conn>, n: N, of: Address, id: &EventId) {
        if self.identity.paths(Verb::Read, &Pattern::One(of.clone())).is_none() {
            shared.metrics.events.stored("forbidden");
            let text = "no grant of this credential shows the address";
            return answer_error(shared, conn, Some(n), ErrorCode::Forbidden, text);
        }
        let event = events::seen(&self.identity, of, id);
        self.sender(conn).send(shared, Some(n), event);
    }

    /// What stores the events of this session.
    fn sender(&mut self, conn: &Arc<Conn>) -> Arc<events::Sender> {
        let tenant = &self.identity.tenant;
        self.sender.get_or_insert_with(|| events::Sender::new(conn, tenant)).clone()
    }

    /// What records the commands of this session.
    fn issuer(&mut self, shared: &Shared, id: u64, conn: &Arc<Conn>) -> Arc<Issuer> {
        let from = || shared.sessions.lock().get(&id).and_then(|session| session.from);
        self.issuer.get_or_insert_with(|| Issuer::new(conn, from())).clone()
    }

    /// The open gateway. The connection is paused until it is, so that none of its frames comes before.
    fn gateway(&self) -> Option<Arc<Gateway>> {
        match &*self.gateway.as_ref()?.lock() {
            Progress::Open(gateway) => Some(gateway.clone()),
            _ => None,
        }
    }

    fn with_gateway(&self, then: impl FnOnce(&Arc<Gateway>)) {
        if let Some(gateway) = self.gateway() {
            then(&gateway);
        }
    }

    /// A fresh token of the same peer. Rights that it does not give any more are withdrawn.
    fn auth(&mut self, shared: &Arc<Shared>, id: u64, conn: &Arc<Conn>, n: N, token: &Credential) {
        let from = shared.sessions.lock().get(&id).and_then(|session| session.from);
        let (identity, proof) = match shared.verify(token, from) {
            Ok(proved) => proved,
            Err(error) => {
                shared.metrics.refused(error.reason());
                return answer_error(shared, conn, Some(n), error.error_code(), &error.to_string());
            }
        };
        if identity.tenant != self.identity.tenant || identity.peer != self.identity.peer {
            return Session::protocol_error(conn, "auth as another peer");
        }
        let identity = Arc::new(identity);
        if let Some(handle) = shared.sessions.lock().get_mut(&id)
            && let Some(open) = &mut handle.open
        {
            open.ends_at_ms = ends_at_ms(&identity);
            (open.identity, open.proof) = (identity.clone(), Some(proof.clone()));
        }
        if let Some(lapse) = lapsed(shared, &identity, Some(&proof)) {
            return revoke(shared, conn, lapse);
        }
        self.identity = identity;
        conn.push(frame::text(&outbound::ok(n)));
        if let Some(speaker) = &self.speaker {
            speaker.renewed(&self.identity);
        }
        if let Some(listener) = &self.listener {
            listener.renewed(&self.identity);
        }
    }

    fn subscribe(&mut self, shared: &Arc<Shared>, conn: &Arc<Conn>, n: N, sub: Sub) {
        let Some(sub) = listener::narrow(&self.identity, sub) else {
            let text = "no grant of this credential covers the pattern, its lanes and its paths";
            return answer_error(shared, conn, Some(n), ErrorCode::Forbidden, text);
        };
        self.listener(shared, conn).subscribe(shared, n, sub);
    }

    /// What this session subscribes with.
    fn listener(&mut self, shared: &Arc<Shared>, conn: &Arc<Conn>) -> Arc<Listener> {
        let identity = &self.identity;
        self.listener.get_or_insert_with(|| Listener::new(shared, identity, conn)).clone()
    }

    fn renew(&mut self, shared: &Shared, conn: &Conn, n: N) {
        let now_ms = shared.clock.now_ms();
        let renewed = shared.with_tenant(&self.identity.tenant, |t| auth::renew(&self.identity, t, now_ms));
        match renewed {
            Some(Ok(minted)) => {
                conn.push(frame::text(&outbound::ok_token(n, &minted.token, minted.expires_at_ms)));
                self.note_token(shared, &minted);
            }
            Some(Err(error)) => answer_error(shared, conn, Some(n), error.code(), &error.to_string()),
            None => answer_error(shared, conn, Some(n), ErrorCode::Forbidden, "there is no such tenant any more"),
        }
    }

    /// Has a renewed token's end noted, unless that of one before is nearly the same: who renews all the time costs nothing.
    fn note_token(&mut self, shared: &Shared, minted: &Minted) {
        if let Some(address) = self.identity.address().filter(|_| is_noted_after(self.noted_ms, minted.expires_at_ms)) {
            shared.note_token(&self.identity.tenant, address, minted);
            self.noted_ms = Some(minted.expires_at_ms);
        }
    }
}

/// Whether a frame may be refused for a while, because whoever sent it can send it again. State is not among them: it
/// merges, and a gateway's results and marks are what others wait for.
fn can_be_sent_again(inbound: &Inbound) -> bool {
    matches!(
        inbound,
        Inbound::Event { .. }
            | Inbound::Command { .. }
            | Inbound::Subscribe { .. }
            | Inbound::Open { .. }
            | Inbound::Seen { .. }
    )
}

/// The number to answer such a frame with.
fn number_of(inbound: &Inbound) -> Option<N> {
    match inbound {
        Inbound::Event { n, .. } => *n,
        Inbound::Command { n, .. }
        | Inbound::Subscribe { n, .. }
        | Inbound::Open { n, .. }
        | Inbound::Seen { n, .. } => Some(*n),
        _ => None,
    }
}

/// The key of a gateway's own address.
pub(crate) fn key_of(identity: &Identity) -> Option<GatewayKey> {
    match &identity.peer {
        Peer::Gateway { address } => Some(GatewayKey::new(identity.tenant.clone(), address.clone())),
        Peer::Client { .. } => None,
    }
}

/// How long a peer that could not be served should wait before it comes back.
pub(crate) fn later(shared: &Shared) -> Duration {
    Duration::from_millis(500) + shared.jitter(Duration::from_secs(4))
}
