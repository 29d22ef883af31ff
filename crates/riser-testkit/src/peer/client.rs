//! A simulated client: it subscribes, issues commands, reads, is slow at times, and comes back through another edge.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use riser_core::{GatewayKey, Grant, Identity, Peer, TenantId};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use super::emits::Emits;
use super::orders::Orders;
use super::talk::{Said, Talk};
use super::{Heard, Link, Sending, frame, until};
use crate::history::{Event, Leaving, Who};
use crate::sim::{ADDRESSES, Moment, Stage};

/// Bytes between a client and its edge: few, so that one that does not read is slow at once.
const BUFFER: usize = 2 * 1024;

/// Where and of what each client wants events. No other subscription has this pattern, so that none replaces it.
const EVENTS_TO: &str = "b1/*";
const EVENTS_PATH: [&str; 2] = ["hall/#", "+"];

/// What a client is.
#[derive(Clone)]
pub struct ClientPlan {
    /// Whose.
    pub tenant: TenantId,
    /// What it is called.
    pub name: String,
    /// The tenant's secret, which marks all that it asks for.
    pub canary: String,
    /// Seeds what it does.
    pub seed: u64,
}

pub(crate) async fn run(stage: Arc<Stage>, plan: ClientPlan) {
    let rng = fastrand::Rng::with_seed(plan.seed);
    let orders = Orders::new(&plan.name, &plan.canary);
    let emits = Emits::new(format!("client:{}", plan.name), &plan.canary);
    let talk = Talk::new(&plan.canary);
    let mut client = Client { stage, plan, rng, orders, emits, talk, cursor: None };
    for session in 1.. {
        let who = Who::Client { tenant: client.plan.tenant.to_string(), name: client.plan.name.clone(), session };
        client.connection(who).await;
        let away = client.rng.u64(20..2_000);
        sleep(Duration::from_millis(away)).await;
    }
}

struct Client {
    stage: Arc<Stage>,
    plan: ClientPlan,
    rng: fastrand::Rng,
    orders: Orders,
    emits: Emits,
    talk: Talk,
    /// Up to where it has the events of its tenant.
    cursor: Option<String>,
}

/// One connection of a client.
struct Connected {
    link: Link,
    who: Who,
    edge: usize,
    n: u64,
    /// The numbers of its subscriptions.
    subscribed: BTreeSet<u64>,
    /// The number of the last subscription to events; none when it was refused for now.
    follows: Option<u64>,
}

/// Whether a connection goes on.
enum Goes {
    On,
    /// It is to be left.
    Away,
    Over,
}

impl Client {
    async fn connection(&mut self, who: Who) {
        let Some(edge) = self.stage.any_edge(&mut self.rng) else { return };
        let identity = Identity {
            tenant: self.plan.tenant.clone(),
            peer: Peer::Client { subject: self.plan.name.clone() },
            grants: vec![Grant::everything()],
            expires_at_ms: None,
            lifetime_ms: None,
        };
        let Some(stream) = self.stage.cluster.attach(edge, identity, BUFFER) else { return };
        let mut at = Connected { link: Link::new(stream), who, edge, n: 0, subscribed: BTreeSet::new(), follows: None };
        self.write(&at, Event::Hello { edge: self.stage.cluster.edge_id(edge).to_string() });
        let mut open = at.link.send(r#"{"t":"hello"}"#).await;
        self.talk.connected();
        open = open && self.follow(&mut at).await;
        for _ in 0..self.rng.usize(1..3) {
            open = open && self.subscribe(&mut at).await;
        }
        for order in self.orders.connected(&mut self.rng) {
            open = open && self.order(&mut at, order).await;
        }
        for id in self.emits.connected() {
            open = open && self.emit(&mut at, &id).await;
        }
        if !open {
            self.write(&at, Event::Closed { code: None });
            return;
        }
        self.live(at).await;
    }

    async fn live(&mut self, mut at: Connected) {
        let mut next_act = self.soon(1_000..15_000);
        let mut next_order = self.soon(100..5_000);
        loop {
            tokio::select! {
                biased;
                heard = at.link.next() => match self.heard(&mut at, heard).await {
                    Goes::On => {}
                    Goes::Away => return self.leave(at).await,
                    Goes::Over => return,
                },
                () = until(self.talk.next()) => self.talk(&mut at).await,
                () = sleep_until(next_order) => {
                    next_order = self.soon(300..5_000);
                    self.command(&mut at).await;
                }
                () = sleep_until(next_act) => {
                    next_act = self.soon(1_000..15_000);
                    if self.stage.is_quiet() {
                        next_act += Duration::from_secs(3_600);
                        continue;
                    }
                    match self.rng.u8(..10) {
                        0..4 => {
                            self.write(&at, Event::Slow);
                            let pause = self.rng.u64(500..9_000);
                            sleep(Duration::from_millis(pause)).await;
                            self.write(&at, Event::Reads);
                        }
                        4..6 => drop(self.subscribe(&mut at).await),
                        6 => drop(self.follow(&mut at).await),
                        _ => return self.leave(at).await,
                    }
                }
            }
        }
    }

    async fn heard(&mut self, at: &mut Connected, heard: Heard) -> Goes {
        match heard {
            Heard::Text(text) => {
                let Some(event) = frame::read(&text) else { return Goes::On };
                // A subscription that was refused because something was away is asked for again.
                let again = matches!(&event, Event::Error { n: Some(n), code }
                    if code == "unavailable" && at.subscribed.contains(n));
                self.orders.heard(&event);
                self.talk.heard(&event, &mut self.rng);
                self.emits.heard(&event);
                match &event {
                    Event::Heard { cursor, .. } => self.cursor = Some(cursor.clone()),
                    Event::Synced { to, cursor } if to == EVENTS_TO => self.cursor.clone_from(cursor),
                    Event::Error { n, .. } if n.is_some() && *n == at.follows => at.follows = None,
                    _ => {}
                }
                let moment = self.moment(at, &event);
                self.write(at, event);
                if let Some((moment, edge)) = moment {
                    self.stage.reached(moment, edge);
                }
                if again {
                    return Goes::Away;
                }
            }
            Heard::Binary(bytes) => self.write(at, frame::read_live(&bytes)),
            Heard::Ping(payload) => drop(at.link.pong(payload).await),
            Heard::Pong => {}
            Heard::Closed(code) => {
                self.write(at, Event::Closed { code });
                return Goes::Over;
            }
        }
        Goes::On
    }

    /// The moment in a command's life that this is, and the edge that a kill would meet worst.
    fn moment(&self, at: &Connected, event: &Event) -> Option<(Moment, usize)> {
        match event {
            Event::Ok { cursor: Some(_), .. } => Some((Moment::Stored, at.edge)),
            Event::Ok { cmd: Some(_), .. } => Some((Moment::Accepted, at.edge)),
            Event::Outcome { of, became, .. } if became.status == "sent" => {
                let key = GatewayKey::new(self.plan.tenant.clone(), of.parse().ok()?);
                Some((Moment::Sent, self.stage.holder(&key)?))
            }
            Event::Outcome { became, .. } if became.last => Some((Moment::Decided, at.edge)),
            _ => None,
        }
    }

    async fn leave(&self, at: Connected) {
        self.write(&at, Event::Left { how: Leaving::Closed });
        at.link.close().await;
    }

    /// Issues something new, several things at once now and then, or repeats what was refused for now.
    async fn command(&mut self, at: &mut Connected) {
        while let Some(order) = self.orders.again() {
            self.order(at, order).await;
        }
        while let Some(id) = self.emits.again() {
            self.emit(at, &id).await;
        }
        if at.follows.is_none() {
            self.follow(at).await;
        }
        if self.stage.is_quiet() {
            return;
        }
        if self.rng.u8(..6) == 0 {
            // To a gateway, to a building, or to everybody.
            let to = ["b1/g1", "b1/_", "_/_"][self.rng.usize(..3)];
            let id = self.emits.invent(to, &mut self.rng);
            self.emit(at, &id).await;
            self.stage.reached(Moment::Emitted, at.edge);
        }
        if self.rng.u8(..5) == 0 {
            let of = ADDRESSES[self.rng.usize(..ADDRESSES.len())];
            if let Some(sending) = self.talk.open(of, at.n + 1, true) {
                at.n += 1;
                self.send(at, sending).await;
            }
        }
        if self.rng.u8(..8) == 0 {
            if let Some(sending) = self.orders.cancel(at.n + 1, &mut self.rng) {
                at.n += 1;
                self.send(at, sending).await;
            }
            return;
        }
        let to = ADDRESSES[self.rng.usize(..ADDRESSES.len())];
        for _ in 0..if self.rng.u8(..4) == 0 { 4 } else { 1 } {
            let order = self.orders.invent(to, &mut self.rng);
            self.order(at, order).await;
        }
        self.stage.reached(Moment::Issued, at.edge);
    }

    async fn talk(&mut self, at: &mut Connected) {
        match self.talk.say(&mut self.rng) {
            Some(Said::Frame(event, bytes)) => {
                self.write(at, *event);
                at.link.send_binary(bytes).await;
            }
            Some(Said::Close(stream)) => {
                at.n += 1;
                let frame = json!({"t": "close", "n": at.n, "stream": stream}).to_string();
                self.send(at, Sending { event: Event::Closes { n: at.n, stream }, frame }).await;
            }
            None => {}
        }
    }

    async fn emit(&mut self, at: &mut Connected, id: &str) -> bool {
        at.n += 1;
        let Some(sending) = self.emits.send(id, at.n, true) else { return true };
        self.send(at, sending).await
    }

    /// Subscribes to events after the last one that it has. Without a cursor, when it subscribes again on the same
    /// connection, they must go on where they are.
    async fn follow(&mut self, at: &mut Connected) -> bool {
        at.n += 1;
        let cursor = self.cursor.clone().filter(|_| at.follows.is_none() || self.rng.bool());
        at.follows = Some(at.n);
        let mut frame =
            json!({"t": "subscribe", "n": at.n, "to": EVENTS_TO, "lanes": ["event", "live"], "path": EVENTS_PATH});
        if let Some(cursor) = &cursor {
            frame["cursor"] = json!(cursor);
        }
        let event = Event::Subscribe {
            n: at.n,
            to: EVENTS_TO.into(),
            state: false,
            presence: false,
            event: true,
            cursor,
            path: EVENTS_PATH.iter().map(ToString::to_string).collect(),
        };
        self.send(at, Sending { event, frame: frame.to_string() }).await
    }

    async fn order(&mut self, at: &mut Connected, order: usize) -> bool {
        at.n += 1;
        let sending = self.orders.send(order, at.n);
        self.send(at, sending).await
    }

    async fn send(&self, at: &mut Connected, sending: Sending) -> bool {
        self.write(at, sending.event);
        at.link.send(&sending.frame).await
    }

    async fn subscribe(&mut self, at: &mut Connected) -> bool {
        let rng = &mut self.rng;
        at.n += 1;
        at.subscribed.insert(at.n);
        let to = ["*/*", "*/*", "b2/*", "b1/g1"][rng.usize(..4)];
        let path: &[&str] = [&[] as &[&str], &[], &["hall/#"], &["+", "kitchen/+"]][rng.usize(..4)];
        let presence = rng.u8(..4) > 0;
        let state = !presence || rng.u8(..4) > 0;
        let lanes: Vec<&str> = [("state", state), ("presence", presence)].iter().filter(|l| l.1).map(|l| l.0).collect();
        let event = Event::Subscribe {
            n: at.n,
            to: to.into(),
            state,
            presence,
            event: false,
            cursor: None,
            path: path.iter().map(ToString::to_string).collect(),
        };
        let mut frame = json!({"t": "subscribe", "n": at.n, "to": to, "lanes": lanes});
        if !path.is_empty() {
            frame["path"] = json!(path);
        }
        self.send(at, Sending { event, frame: frame.to_string() }).await
    }

    fn write(&self, at: &Connected, event: Event) {
        self.stage.recorder.write(&at.who, event);
    }

    fn soon(&mut self, ms: std::ops::Range<u64>) -> Instant {
        Instant::now() + Duration::from_millis(self.rng.u64(ms))
    }
}
