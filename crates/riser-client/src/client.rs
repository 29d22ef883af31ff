//! A client: subscriptions, commands, events and streams that outlive connections, and every frame as an event.

mod run;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use riser_core::event::EventId;
use riser_core::frame::Credential;
use riser_core::{Address, Pattern};
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::Config;
use crate::calls::{Call, Given};
use crate::end::End;
use crate::frame::{Received, Welcome};
use crate::link::{CLOSE_WAIT, Link};
use crate::live::{FRAMES, LiveFrame, Open, Say, Stream};
use crate::notice::{Notice, seen};
use crate::order::{Command, OUTCOMES, Order, Told as Progress, unique};
use crate::refused::Refused;
use crate::subs::Subscription;
use crate::task::Task;
use crate::view::{Update, View};
use run::Run;

/// Events that wait for the owner. When it does not take them the socket is not read, so that the edge conflates.
pub const EVENTS: usize = 256;
/// Asks that wait for the connection.
const ASKS: usize = 64;
/// Most subscriptions of a client: what an edge allows by default.
pub const SUBSCRIPTIONS: usize = 256;

/// What happens to a client.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A session began; the subscriptions are asked for again. Streams that were heard before are over; those that are
    /// still there are told again.
    Connected(Box<Welcome>),
    /// A frame came.
    Frame {
        /// As it came.
        text: String,
        /// What it says, when it is about more than this connection.
        update: Option<Update>,
    },
    /// A frame of a live stream came.
    Live(LiveFrame),
    /// Half of what was left of the credential has passed: fetch another one and give it to
    /// [`Client::set_credential`].
    CredentialDue {
        /// When it runs out, Unix milliseconds on the cluster's clock.
        expires_at_ms: u64,
    },
    /// A subscription was refused for good: it is not asked for again. One that was refused for now is, by itself.
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

/// What the owner asks the task for.
#[derive(Debug)]
pub(crate) enum Ask {
    Subscribe(Box<Subscription>),
    Unsubscribe(Pattern),
    Call(Call),
    Order(u64, Box<Order>, mpsc::Sender<Progress>),
    Cancel(u64),
    /// It was taken: the next sessions begin with it.
    Credential(Credential, Option<u64>),
    Leave,
}

/// What the task hands to the owner.
enum Told {
    Event(Event),
    Frame(String, Box<Received>),
    /// The server confirmed that nothing more of it comes.
    Unsubscribed(Pattern),
}

/// A session that comes back by itself. Its events must be taken with [`Client::next`], also by those who only wait for
/// answers: when too many wait, nothing more is read. Dropping it ends its task and its connection.
#[derive(Debug)]
pub struct Client {
    asks: mpsc::Sender<Ask>,
    say: mpsc::Sender<Say>,
    told: mpsc::Receiver<Told>,
    sessions: watch::Receiver<u64>,
    orders: AtomicU64,
    view: View,
    patterns: BTreeSet<Pattern>,
    task: Task,
}

impl Client {
    /// Connects. Fails when the first attempt does; later ones are made again and again.
    pub async fn connect(config: Config) -> Result<Self, End> {
        let first = Link::open(&config).await?;
        let (asks, asked) = mpsc::channel(ASKS);
        let (say, said) = mpsc::channel(FRAMES);
        let (tell, told) = mpsc::channel(EVENTS);
        let (count, sessions) = watch::channel(0);
        let task = Task::start(Run::new(config, asked, said, tell, count).run(first));
        let (view, patterns) = (View::default(), BTreeSet::new());
        Ok(Self { asks, say, told, sessions, orders: AtomicU64::new(0), view, patterns, task })
    }

    /// Asks for a subscription, now and after each reconnect; of events, from then on after the last that was heard.
    /// Whether it was granted shows in the events: snapshots and [`Update::Synced`], or [`Event::Refused`]. The same
    /// pattern again replaces what was asked for.
    pub async fn subscribe(&mut self, subscription: Subscription) -> Result<(), AskError> {
        if self.patterns.len() >= SUBSCRIPTIONS && !self.patterns.contains(&subscription.to) {
            return Err(AskError::TooMany);
        }
        self.patterns.insert(subscription.to.clone());
        self.asks.send(Ask::Subscribe(Box::new(subscription))).await.map_err(|_| AskError::Ended)
    }

    /// Ends a subscription. What only it named leaves the view once the server has confirmed.
    pub async fn unsubscribe(&mut self, to: Pattern) -> Result<(), AskError> {
        self.asks.send(Ask::Unsubscribe(to)).await.map_err(|_| AskError::Ended)
    }

    /// Asks a gateway to do something, now or in the next session within its deadline, and again in each further
    /// session until its outcome is there. Gives the handle that hears what becomes of it.
    pub async fn command(&self, mut order: Order) -> Result<Command, Refused> {
        let key = order.key.get_or_insert_with(unique).clone();
        let (tell, told) = mpsc::channel(OUTCOMES);
        let id = self.orders.fetch_add(1, Ordering::Relaxed);
        self.asks.send(Ask::Order(id, Box::new(order), tell)).await.map_err(|_| Refused::Ended)?;
        Ok(Command { id, key, told, asks: self.asks.clone() })
    }

    /// Tells an event at an address. Ready with its cursor when it is stored, however many reconnects later; dropping
    /// the future ends the repetitions. Events are stored in the order of these calls: each is sent once the one before
    /// is answered.
    pub async fn event(&self, to: &Address, notice: &Notice) -> Result<Option<String>, Refused> {
        Ok(self.call(notice.frame(Some(to)), true).await?.granted.cursor)
    }

    /// Says that a notice was seen. Ready as [`Client::event`].
    pub async fn seen(&self, of: &Address, id: &EventId) -> Result<(), Refused> {
        self.call(seen(of, id), true).await.map(drop)
    }

    /// Opens a live stream to an address. It lasts as long as the session.
    pub async fn open(&self, to: &Address, open: Open) -> Result<Stream, Refused> {
        let given = self.call(open.frame(Some(to)), false).await?;
        let none = || Refused::ByServer { code: "internal".into(), message: "a stream without a number".into() };
        let id = given.granted.stream.ok_or_else(none)?;
        Ok(Stream::new(id, open.kind, given.session, self.sessions.clone(), self.say.clone()))
    }

    /// Gives the session a fresh credential of the same peer; without a session, the next attempt uses it. When it runs
    /// out is in Unix milliseconds on the cluster's clock, none for never. A refused one changes nothing.
    pub async fn set_credential(&self, token: Credential, expires_at_ms: Option<u64>) -> Result<(), Refused> {
        let frame = json!({"t": "auth", "token": token.expose()}).to_string();
        match self.call(frame, false).await {
            // The next session begins with it.
            Ok(_) | Err(Refused::Lost) => {}
            Err(refused) => return Err(refused),
        }
        self.asks.send(Ask::Credential(token, expires_at_ms)).await.map_err(|_| Refused::Ended)
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

    async fn call(&self, frame: String, repeats: bool) -> Result<Given, Refused> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(Ask::Call(Call { frame, repeats, answer })).await.map_err(|_| Refused::Ended)?;
        answered.await.unwrap_or(Err(Refused::Ended))
    }

    fn forget(&mut self, to: &Pattern) {
        self.patterns.remove(to);
        self.view.retain(&self.patterns);
    }
}
