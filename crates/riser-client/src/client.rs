//! A watching client: subscriptions that outlive connections, and every frame as an event.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use riser_core::{PathFilter, Pattern};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::Config;
use crate::backoff::Backoff;
use crate::end::End;
use crate::frame::{Received, Welcome};
use crate::link::{CLOSE_WAIT, Link};
use crate::task::Task;
use crate::view::{Update, View};

/// Events that wait for the owner. When it does not take them the socket is not read, so that the edge conflates.
pub const EVENTS: usize = 256;
/// Asks that wait for the connection.
const ASKS: usize = 64;
/// Most subscriptions of a client: what an edge allows by default.
pub const SUBSCRIPTIONS: usize = 256;

/// What to hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Where.
    pub to: Pattern,
    /// Last values and what the devices are.
    pub state: bool,
    /// Connected or not.
    pub presence: bool,
    /// Which paths.
    pub path: PathFilter,
}

impl Subscription {
    /// State and presence of everything that the pattern names.
    pub fn all(to: Pattern) -> Self {
        Self { to, state: true, presence: true, path: PathFilter::ALL }
    }

    fn frame(&self, n: u64) -> String {
        let lanes = [("state", self.state), ("presence", self.presence)];
        let lanes: Vec<&str> = lanes.into_iter().filter_map(|(lane, wanted)| wanted.then_some(lane)).collect();
        let mut frame = json!({"t": "subscribe", "n": n, "to": self.to, "lanes": lanes});
        if !self.path.is_all() {
            frame["path"] = json!(self.path);
        }
        frame.to_string()
    }
}

/// What happens to a client.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A session began; the subscriptions are asked for again.
    Connected(Box<Welcome>),
    /// A frame came.
    Frame {
        /// As it came.
        text: String,
        /// What it did to the view, when it did something.
        update: Option<Update>,
    },
    /// A subscription was refused. It is not asked for again.
    Refused {
        /// Which.
        to: Pattern,
        /// The code (protocol.md §8).
        code: String,
        /// What the server said.
        message: String,
    },
    /// The session ended, and another attempt follows.
    Disconnected {
        /// Why.
        end: End,
        /// When the next attempt is made.
        back_in: Duration,
    },
    /// The session ended, and no attempt follows: nothing comes after this.
    Ended(End),
}

/// The client is over: its session ended in a way that forbids coming back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// No session, and none to come.
    #[error("the client has ended")]
    Ended,
    /// Too many subscriptions.
    #[error("more than {SUBSCRIPTIONS} subscriptions")]
    TooMany,
}

enum Ask {
    Subscribe(Subscription),
    Unsubscribe(Pattern),
    Leave,
}

/// What the task hands to the owner.
enum Told {
    Event(Event),
    Frame(String, Box<Received>),
    /// The server confirmed that nothing more of it comes.
    Unsubscribed(Pattern),
}

/// A session that comes back by itself. Dropping it ends its task and its connection.
#[derive(Debug)]
pub struct Client {
    asks: mpsc::Sender<Ask>,
    told: mpsc::Receiver<Told>,
    view: View,
    patterns: BTreeSet<Pattern>,
    task: Task,
}

impl Client {
    /// Connects. Fails when the first attempt does; later ones are made again and again.
    pub async fn connect(config: Config) -> Result<Self, End> {
        let first = Link::open(&config).await?;
        let (asks, asked) = mpsc::channel(ASKS);
        let (tell, told) = mpsc::channel(EVENTS);
        let run = Run { config, asked, tell, subscriptions: BTreeMap::new(), open: BTreeMap::new(), n: 0 };
        let task = Task::start(run.run(first));
        Ok(Self { asks, told, view: View::default(), patterns: BTreeSet::new(), task })
    }

    /// Asks for a subscription, now and after each reconnect. Whether it was granted shows in the events: snapshots
    /// and [`Update::Synced`], or [`Event::Refused`]. The same pattern again replaces what was asked for.
    pub async fn subscribe(&mut self, subscription: Subscription) -> Result<(), AskError> {
        if self.patterns.len() >= SUBSCRIPTIONS && !self.patterns.contains(&subscription.to) {
            return Err(AskError::TooMany);
        }
        self.patterns.insert(subscription.to.clone());
        self.asks.send(Ask::Subscribe(subscription)).await.map_err(|_| AskError::Ended)
    }

    /// Ends a subscription. What only it named leaves the view once the server has confirmed.
    pub async fn unsubscribe(&mut self, to: Pattern) -> Result<(), AskError> {
        self.asks.send(Ask::Unsubscribe(to)).await.map_err(|_| AskError::Ended)
    }

    /// The next event; none after [`Event::Ended`]. May be dropped and called again without losing anything.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.told.recv().await? {
                Told::Event(event) => {
                    match &event {
                        Event::Connected(_) => self.view.reconnected(),
                        Event::Refused { to, .. } => drop(self.patterns.remove(to)),
                        _ => {}
                    }
                    return Some(event);
                }
                Told::Frame(text, frame) => {
                    let update = self.view.apply(*frame);
                    if let Some(Update::Unsubscribed { to, .. }) = &update {
                        self.forget(to);
                    }
                    return Some(Event::Frame { text, update });
                }
                Told::Unsubscribed(to) => self.forget(&to),
            }
        }
    }

    /// The gateways as of the last event that was taken.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Closes the session with a goodbye, within about 2 s.
    pub async fn close(mut self) {
        // The task may wait for room to tell what nobody will take any more.
        self.told.close();
        if self.asks.send(Ask::Leave).await.is_ok() {
            let _ = timeout(CLOSE_WAIT * 2, self.task.ended()).await;
        }
    }

    fn forget(&mut self, to: &Pattern) {
        self.patterns.remove(to);
        self.view.retain(&self.patterns);
    }
}

/// What an open number stands for.
enum Open {
    Subscribe(Pattern),
    Unsubscribe(Pattern),
}

/// The task behind a client.
struct Run {
    config: Config,
    asked: mpsc::Receiver<Ask>,
    tell: mpsc::Sender<Told>,
    subscriptions: BTreeMap<Pattern, Subscription>,
    open: BTreeMap<u64, Open>,
    n: u64,
}

impl Run {
    async fn run(mut self, first: (Link, Welcome)) {
        let mut backoff = Backoff::new(fastrand::Rng::new());
        let mut next = Ok(first);
        loop {
            let end = match next {
                Ok((link, welcome)) => {
                    let began = Instant::now();
                    let end = self.session(link, welcome).await;
                    backoff.lasted(began.elapsed());
                    end
                }
                Err(end) => end,
            };
            let Some(back_in) = backoff.after(&end) else {
                self.event(Event::Ended(end)).await;
                return;
            };
            self.event(Event::Disconnected { end, back_in }).await;
            if !self.wait(back_in).await {
                return;
            }
            next = Link::open(&self.config).await;
        }
    }

    /// Tells the owner, if it is still there; if it is not, the task is about to be ended by its handle.
    async fn event(&self, event: Event) {
        let _ = self.tell.send(Told::Event(event)).await;
    }

    /// Waits, and takes asks meanwhile. False when the owner left.
    async fn wait(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            tokio::select! {
                biased;
                ask = self.asked.recv() => match ask {
                    Some(Ask::Subscribe(subscription)) => {
                        self.subscriptions.insert(subscription.to.clone(), subscription);
                    }
                    Some(Ask::Unsubscribe(to)) => {
                        self.subscriptions.remove(&to);
                        let _ = self.tell.send(Told::Unsubscribed(to)).await;
                    }
                    Some(Ask::Leave) | None => return false,
                },
                () = tokio::time::sleep_until(until) => return true,
            }
        }
    }

    async fn session(&mut self, mut link: Link, welcome: Welcome) -> End {
        self.open.clear();
        self.event(Event::Connected(Box::new(welcome))).await;
        let again: Vec<Subscription> = self.subscriptions.values().cloned().collect();
        for subscription in again {
            if let Err(end) = self.subscribe(&mut link, subscription) {
                return end;
            }
        }
        loop {
            let done = tokio::select! {
                biased;
                ask = self.asked.recv() => match ask {
                    Some(Ask::Subscribe(subscription)) => self.subscribe(&mut link, subscription),
                    Some(Ask::Unsubscribe(to)) => self.unsubscribe(&mut link, to),
                    Some(Ask::Leave) | None => {
                        link.close(1000, "").await;
                        return End::Left;
                    }
                },
                heard = heard(&self.tell, &mut link) => match heard {
                    Ok((room, text)) => self.frame(&mut link, room, text).await,
                    Err(end) => Err(end),
                },
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    fn number(&mut self, open: Open) -> u64 {
        self.n += 1;
        self.open.insert(self.n, open);
        self.n
    }

    fn subscribe(&mut self, link: &mut Link, subscription: Subscription) -> Result<(), End> {
        let n = self.number(Open::Subscribe(subscription.to.clone()));
        link.send(&subscription.frame(n))?;
        self.subscriptions.insert(subscription.to.clone(), subscription);
        Ok(())
    }

    fn unsubscribe(&mut self, link: &mut Link, to: Pattern) -> Result<(), End> {
        self.subscriptions.remove(&to);
        let frame = json!({"t": "unsubscribe", "n": self.n + 1, "to": to}).to_string();
        self.number(Open::Unsubscribe(to));
        link.send(&frame)
    }

    /// Hands a frame to the owner, and then what it means for the subscriptions.
    async fn frame(&mut self, link: &mut Link, room: Option<mpsc::OwnedPermit<Told>>, text: String) -> Result<(), End> {
        // The owner is gone: what came is for nobody, and the next ask ends the session.
        let Some(room) = room else { return Ok(()) };
        let frame = Received::parse(&text).map_err(|error| End::Broken(error.to_string()))?;
        let then = match &frame {
            Received::Ping => {
                link.send(r#"{"t":"pong"}"#)?;
                None
            }
            Received::Unsubscribed { to, .. } => {
                self.subscriptions.remove(to);
                None
            }
            Received::Ok(ok) => match self.open.remove(&ok.n) {
                Some(Open::Unsubscribe(to)) => Some(Told::Unsubscribed(to)),
                _ => None,
            },
            Received::Error(refusal) => match refusal.n.and_then(|n| self.open.remove(&n)) {
                Some(Open::Subscribe(to)) => {
                    self.subscriptions.remove(&to);
                    let (code, message) = (refusal.code.clone(), refusal.message.clone());
                    Some(Told::Event(Event::Refused { to, code, message }))
                }
                Some(Open::Unsubscribe(to)) => Some(Told::Unsubscribed(to)),
                None => None,
            },
            _ => None,
        };
        room.send(Told::Frame(text, Box::new(frame)));
        if let Some(then) = then {
            let _ = self.tell.send(then).await;
        }
        Ok(())
    }
}

/// Waits for room for a frame, then for the frame. May be dropped without losing one.
async fn heard(tell: &mpsc::Sender<Told>, link: &mut Link) -> Result<(Option<mpsc::OwnedPermit<Told>>, String), End> {
    let room = tell.clone().reserve_owned().await.ok();
    Ok((room, link.next().await?))
}
