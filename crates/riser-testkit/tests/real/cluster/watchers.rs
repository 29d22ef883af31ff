//! Clients that write down what they are shown, and one that commands.

use std::collections::BTreeMap;
use std::time::Duration;

use riser_client::{Client, Config, Endpoint, Event, Order, Subscription, Update};
use riser_core::frame::Credential;
use riser_core::{Address, Pattern, Reason};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::flats::{BEAT, Flats, number_path};
use crate::PATIENCE;

/// What one client was shown.
#[derive(Debug, Default, Clone)]
pub(super) struct Shown {
    /// Sessions that it had.
    pub(super) sessions: u32,
    /// The edge of the newest one.
    pub(super) edge: String,
    /// Whether each gateway is online, at first and at each change.
    pub(super) online: BTreeMap<Address, Vec<bool>>,
    /// How often a gateway was announced to have gone.
    pub(super) gone: BTreeMap<Address, u32>,
    /// Why.
    pub(super) reasons: BTreeMap<Address, Vec<Option<Reason>>>,
    pub(super) numbers: BTreeMap<Address, u64>,
    /// Events in the order in which they came first.
    pub(super) events: BTreeMap<Address, Vec<String>>,
    pub(super) gaps: u32,
    /// Whether its subscription has been served in this session.
    pub(super) synced: bool,
}

/// A client that watches.
pub(super) struct Watcher {
    pub(super) of: Pattern,
    shown: watch::Receiver<Shown>,
}

/// Some of them.
pub(super) struct Watchers {
    pub(super) all: Vec<Watcher>,
    _tasks: JoinSet<()>,
}

impl Watchers {
    /// Connects one for each pattern, and waits until each has been shown all there is.
    pub(super) async fn connect(endpoint: &Endpoint, key: &Credential, patterns: &[&str]) -> Self {
        let (mut all, mut tasks) = (vec![], JoinSet::new());
        for pattern in patterns {
            let of: Pattern = pattern.parse().expect("a pattern");
            let (tell, shown) = watch::channel(Shown::default());
            let config = Config::new(endpoint.clone(), key.clone());
            let mut client = Client::connect(config).await.expect("a session");
            let subscription = Subscription { event: true, ..Subscription::all(of.clone()) };
            client.subscribe(subscription).await.expect("a client that goes on");
            tasks.spawn(write_down(client, tell));
            all.push(Watcher { of, shown });
        }
        let watchers = Self { all, _tasks: tasks };
        watchers.each("all that there is", |_, shown| shown.synced).await;
        watchers
    }

    /// Waits until this holds for each.
    pub(super) async fn each(&self, what: &str, holds: impl Fn(&Watcher, &Shown) -> bool) {
        for watcher in &self.all {
            let mut shown = watcher.shown.clone();
            let reached = timeout(PATIENCE, shown.wait_for(|shown| holds(watcher, shown))).await;
            let reached = reached.map(|reached| reached.map(|_| ()).is_ok());
            assert_eq!(reached, Ok(true), "a client of {} was not shown {what}: {:?}", watcher.of, watcher.shown());
        }
    }

    /// Waits until every client is shown what every gateway said last, and every event that was answered.
    pub(super) async fn converge(&self, flats: &Flats) {
        self.converge_state(flats).await;
        let said: Vec<_> = flats.iter().map(|flat| (flat.address.clone(), flat.said().events)).collect();
        self.each("all events", |watcher, shown| {
            let watched = said.iter().filter(|(address, _)| watcher.of.matches(address));
            watched.into_iter().all(|(address, events)| shown.events.get(address).map_or(0, Vec::len) >= events.len())
        })
        .await;
        for watcher in &self.all {
            let shown = watcher.shown();
            for (address, events) in said.iter().filter(|(address, _)| watcher.of.matches(address)) {
                let heard = shown.events.get(address).cloned().unwrap_or_default();
                assert_eq!(heard, *events, "events of {address} at a client of {}", watcher.of);
            }
            assert_eq!(shown.gaps, 0, "a client of {} was told of a gap", watcher.of);
        }
    }

    /// Waits until every client is shown what every gateway said last.
    pub(super) async fn converge_state(&self, flats: &Flats) {
        let said: Vec<_> = flats.iter().map(|flat| (flat.address.clone(), flat.said().number)).collect();
        self.each("what the gateways said last", |watcher, shown| {
            said.iter().filter(|(address, _)| watcher.of.matches(address)).all(|(address, number)| {
                let online = shown.online.get(address).and_then(|online| online.last()) == Some(&true);
                online && shown.numbers.get(address).copied().unwrap_or_default() == *number
            })
        })
        .await;
    }
}

impl Watcher {
    pub(super) fn shown(&self) -> Shown {
        self.shown.borrow().clone()
    }
}

async fn write_down(mut client: Client, shown: watch::Sender<Shown>) {
    while let Some(event) = client.next().await {
        let view = client.view();
        shown.send_modify(|shown| match event {
            Event::Connected(welcome) => {
                (shown.sessions, shown.synced) = (shown.sessions + 1, false);
                shown.edge = welcome.edge;
            }
            Event::Frame { update: Some(update), .. } => {
                if let Update::Snapshot(of) | Update::State { of, .. } | Update::Presence(of) = &update
                    && let Some(seen) = view.get(of)
                {
                    let online = shown.online.entry(of.clone()).or_default();
                    if online.last() != Some(&seen.online) {
                        online.push(seen.online);
                    }
                    if let Some(value) = seen.values.get(&number_path()) {
                        let number = value.value.as_str().parse().expect("a number");
                        shown.numbers.insert(of.clone(), number);
                    }
                }
                match update {
                    Update::Presence(of) if view.get(&of).is_some_and(|seen| !seen.online) => {
                        let why = view.get(&of).and_then(|seen| seen.reason);
                        shown.reasons.entry(of.clone()).or_default().push(why);
                        *shown.gone.entry(of).or_default() += 1;
                    }
                    Update::Event(happened) if happened.kind.as_str() == BEAT => {
                        let heard = shown.events.entry(happened.of.clone()).or_default();
                        let id = happened.id.to_string();
                        if !heard.contains(&id) {
                            heard.push(id);
                        }
                    }
                    Update::Gap { .. } => shown.gaps += 1,
                    Update::Synced { .. } => shown.synced = true,
                    _ => {}
                }
            }
            _ => {}
        });
    }
}

/// What became of one command: the gateway, and the final outcome's name and word, or why there is none.
pub(super) type Outcome = (Address, Result<(String, String), String>);

/// A client that commands gateways one after the other.
pub(super) struct Commander {
    on: watch::Sender<bool>,
    outcomes: JoinSet<Vec<Outcome>>,
}

impl Commander {
    /// Commands one of these gateways in every such time, until it is ended.
    pub(super) async fn start(endpoint: &Endpoint, key: &Credential, to: Vec<Address>, every: Duration) -> Self {
        let client = Client::connect(Config::new(endpoint.clone(), key.clone())).await.expect("a session");
        let on = watch::Sender::new(true);
        let mut outcomes = JoinSet::new();
        outcomes.spawn(command(client, to, every, on.subscribe()));
        Self { on, outcomes }
    }

    /// Sends no more, and gives what became of all.
    pub(super) async fn finish(mut self) -> Vec<Outcome> {
        self.on.send_replace(false);
        let ended = timeout(PATIENCE, self.outcomes.join_next()).await.expect("all outcomes in time");
        ended.expect("a client").expect("a client that does not panic")
    }
}

async fn command(mut client: Client, to: Vec<Address>, every: Duration, mut on: watch::Receiver<bool>) -> Vec<Outcome> {
    let (mut open, mut outcomes) = (JoinSet::new(), vec![]);
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let sending = *on.borrow();
        tokio::select! {
            _ = client.next() => {}
            _ = on.changed() => {}
            _ = tick.tick(), if sending => {
                let to = to[fastrand::usize(..to.len())].clone();
                let order = Order::new(to.clone(), "hall/light".parse().expect("a path"), "toggle");
                match client.command(order).await {
                    Ok(command) => drop(open.spawn(async move {
                        let outcome = command.outcome().await;
                        (to, outcome.map(|outcome| (outcome.cmd, word(&outcome.step.status))).map_err(|e| e.to_string()))
                    })),
                    Err(refused) => outcomes.push((to, Err(refused.to_string()))),
                }
            }
            Some(outcome) = open.join_next() => outcomes.push(outcome.expect("a command that does not panic")),
        }
        if !*on.borrow() && open.is_empty() {
            return outcomes;
        }
    }
}

/// A status as it is on the wire.
fn word(status: &impl serde::Serialize) -> String {
    serde_json::to_value(status).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
