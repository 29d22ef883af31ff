//! The task behind a client.

use std::collections::BTreeMap;
use std::time::Duration;

use riser_core::Pattern;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{Ask, Event, Told};
use crate::Config;
use crate::backoff::Backoff;
use crate::calls::{Calls, Numbers, numbered};
use crate::clock::{Clock, NEVER, renewal};
use crate::end::End;
use crate::frame::{Received, Refusal, Welcome};
use crate::link::{Link, Message};
use crate::live::{LiveFrame, Say, pass};
use crate::order::Orders;
use crate::refused::AGAIN;
use crate::subs::Subscriptions;

/// How often a session that subscribes to events asks how far it has heard: a quiet subscription's place must not grow
/// older than what is kept.
const POSITION_EVERY: Duration = Duration::from_secs(60);

/// What the number of a subscription's frame stands for.
enum Asked {
    Subscribe(Pattern),
    Unsubscribe(Pattern),
}

pub(super) struct Run {
    config: Config,
    asked: mpsc::Receiver<Ask>,
    said: mpsc::Receiver<Say>,
    tell: mpsc::Sender<Told>,
    /// Counts the sessions that ended.
    count: watch::Sender<u64>,
    subscriptions: Subscriptions,
    open: BTreeMap<u64, Asked>,
    calls: Calls,
    orders: Orders,
    numbers: Numbers,
    clock: Clock,
    /// When the owner is told to fetch another credential, and when this one runs out.
    renew: Option<(Instant, u64)>,
    ask_position: Instant,
}

impl Run {
    pub(super) fn new(
        config: Config,
        asked: mpsc::Receiver<Ask>,
        said: mpsc::Receiver<Say>,
        tell: mpsc::Sender<Told>,
        count: watch::Sender<u64>,
    ) -> Self {
        Self {
            config,
            asked,
            said,
            tell,
            count,
            subscriptions: Subscriptions::default(),
            open: BTreeMap::new(),
            calls: Calls::default(),
            orders: Orders::default(),
            numbers: Numbers::default(),
            clock: Clock::default(),
            renew: None,
            ask_position: Instant::now(),
        }
    }

    pub(super) async fn run(mut self, first: (Link, Welcome)) {
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
            self.lost();
            let Some(back_in) = backoff.after(&end) else {
                self.event(Event::Ended(end)).await;
                return;
            };
            self.event(Event::Disconnected { end, back_in }).await;
            let until = Instant::now() + back_in;
            if self.meanwhile(tokio::time::sleep_until(until)).await.is_none() {
                return;
            }
            let config = self.config.clone();
            match self.meanwhile(Link::open(&config)).await {
                Some(opened) => next = opened,
                None => return,
            }
        }
    }

    /// The session ended: what was unanswered waits for the next one.
    fn lost(&mut self) {
        self.open.clear();
        self.calls.lost();
        self.orders.lost();
        self.renew = None;
        self.count.send_replace(self.calls.session());
    }

    /// Tells the owner, if it is still there; if it is not, the task is about to be ended by its handle.
    async fn event(&self, event: Event) {
        let _ = self.tell.send(Told::Event(event)).await;
    }

    /// Takes asks while there is no session. None when the owner left.
    async fn meanwhile<T>(&mut self, until: impl Future<Output = T>) -> Option<T> {
        let mut until = std::pin::pin!(until);
        loop {
            let due = self.orders.due(false).unwrap_or_else(|| Instant::now() + NEVER);
            tokio::select! {
                biased;
                ask = self.asked.recv() => match ask {
                    Some(Ask::Leave) | None => return None,
                    Some(ask) => self.keep(ask).await,
                },
                done = &mut until => return Some(done),
                // What is said on a stream now is heard by nobody.
                Some(_) = self.said.recv() => {}
                () = tokio::time::sleep_until(due) => self.orders.overdue(),
            }
        }
    }

    /// Notes what is asked while there is no session.
    async fn keep(&mut self, ask: Ask) {
        match ask {
            Ask::Subscribe(subscription) => self.subscriptions.keep(*subscription),
            Ask::Unsubscribe(to) => {
                self.subscriptions.remove(&to);
                let _ = self.tell.send(Told::Unsubscribed(to)).await;
            }
            Ask::Call(call) => self.calls.take(call, false),
            Ask::Order(id, order, tell) => self.orders.take(id, *order, tell),
            Ask::Cancel(id) => self.orders.cancel(id),
            Ask::Credential(token, _) => self.config.credential = token,
            Ask::Leave => {}
        }
    }

    async fn session(&mut self, mut link: Link, welcome: Welcome) -> End {
        self.clock = Clock::at(welcome.now_ms);
        self.renew_at(welcome.token_expires_at_ms);
        self.ask_position = Instant::now() + POSITION_EVERY;
        self.event(Event::Connected(Box::new(welcome))).await;
        let (numbers, open) = (&mut self.numbers, &mut self.open);
        let again = self.subscriptions.again(|to| subscribes(numbers, open, to));
        for frame in again {
            if let Err(end) = link.send(&frame) {
                return end;
            }
        }
        loop {
            if let Err(end) = self.send(&mut link) {
                return end;
            }
            let (room, due) = (link.has_room(), self.due(&link));
            let done = tokio::select! {
                biased;
                () = tokio::time::sleep_until(due) => self.on_time(&mut link),
                ask = self.asked.recv(), if room => match ask {
                    Some(Ask::Leave) | None => {
                        link.close(1000, "").await;
                        return End::Left;
                    }
                    Some(ask) => self.ask(&mut link, ask),
                },
                heard = heard(&self.tell, &mut link) => match heard {
                    Ok((_, None)) => Ok(()),
                    Ok((room, Some(Message::Text(text)))) => self.frame(&mut link, room, text).await,
                    Ok((room, Some(Message::Binary(bytes)))) => {
                        if let (Some(room), Some(frame)) = (room, LiveFrame::parse(bytes)) {
                            room.send(Told::Event(Event::Live(frame)));
                        }
                        Ok(())
                    }
                    Err(end) => Err(end),
                },
                Some(say) = self.said.recv(), if room => {
                    pass(say, &mut link, self.calls.session(), || self.numbers.next())
                }
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// Sends what waits for it.
    fn send(&mut self, link: &mut Link) -> Result<(), End> {
        while link.has_room() {
            let (numbers, open) = (&mut self.numbers, &mut self.open);
            let Some(frame) = self.subscriptions.overdue(|to| subscribes(numbers, open, to)) else { break };
            link.send(&frame)?;
        }
        self.orders.send(link, &mut self.numbers)?;
        self.calls.send(link, &mut self.numbers)
    }

    /// When something is due by itself. Without room nothing is due that would need it: the link says when there is some.
    fn due(&self, link: &Link) -> Instant {
        let room = link.has_room();
        let sends = [self.calls.due(), self.subscriptions.due()].into_iter().flatten().filter(|_| room).min();
        let waiting = [self.orders.due(room), sends, self.renew.map(|(at, _)| at), Some(self.ask_position)];
        let behind = room && (self.orders.is_behind() || self.calls.is_behind());
        let now = Instant::now();
        if behind { now } else { waiting.into_iter().flatten().min().unwrap_or(now + NEVER) }
    }

    fn on_time(&mut self, link: &mut Link) -> Result<(), End> {
        let now = Instant::now();
        self.orders.overdue();
        if let Some((_, expires_at_ms)) = self.renew.filter(|(at, _)| *at <= now) {
            // An owner who takes nothing is asked later: what it asks for itself must not wait for it.
            self.renew = match self.tell.try_send(Told::Event(Event::CredentialDue { expires_at_ms })) {
                Err(mpsc::error::TrySendError::Full(_)) => Some((now + AGAIN, expires_at_ms)),
                _ => None,
            };
        }
        if self.ask_position <= now {
            self.ask_position = now + POSITION_EVERY;
            if self.subscriptions.any_events() {
                return link.send(r#"{"t":"ping"}"#);
            }
        }
        Ok(())
    }

    fn ask(&mut self, link: &mut Link, ask: Ask) -> Result<(), End> {
        match ask {
            Ask::Subscribe(subscription) => {
                let n = self.number(Asked::Subscribe(subscription.to.clone()));
                let frame = self.subscriptions.insert(*subscription, n);
                return link.send(&frame);
            }
            Ask::Unsubscribe(to) => {
                self.subscriptions.remove(&to);
                let frame = json!({"t": "unsubscribe", "to": to}).to_string();
                let n = self.number(Asked::Unsubscribe(to));
                return link.send(&numbered(&frame, n));
            }
            Ask::Call(call) => self.calls.take(call, true),
            Ask::Order(id, order, tell) => self.orders.take(id, *order, tell),
            Ask::Cancel(id) => self.orders.cancel(id),
            Ask::Credential(token, expires_at_ms) => {
                self.config.credential = token;
                self.renew_at(expires_at_ms);
            }
            Ask::Leave => {}
        }
        Ok(())
    }

    fn renew_at(&mut self, expires_at_ms: Option<u64>) {
        let now_ms = self.clock.now_ms();
        self.renew = expires_at_ms.map(|at_ms| (Instant::now() + renewal(at_ms, now_ms), at_ms));
    }

    fn number(&mut self, asked: Asked) -> u64 {
        let n = self.numbers.next();
        self.open.insert(n, asked);
        n
    }

    /// Hands a frame to who waits for it or to the owner, and then what it means for the subscriptions.
    async fn frame(&mut self, link: &mut Link, room: Option<mpsc::OwnedPermit<Told>>, text: String) -> Result<(), End> {
        // The owner is gone: what came is for nobody, and the next ask ends the session.
        let Some(room) = room else { return Ok(()) };
        let mut frame = Received::parse(&text).map_err(|error| End::Broken(error.to_string()))?;
        let mut then = None;
        match &frame {
            Received::Ping => link.send(r#"{"t":"pong"}"#)?,
            Received::Pong(pong) => {
                pong.now_ms.into_iter().for_each(|now_ms| self.clock.hear(now_ms));
                pong.cursor.iter().for_each(|cursor| self.subscriptions.position(cursor));
            }
            Received::Unsubscribed { to, .. } => self.subscriptions.remove(to),
            Received::Event(event) => self.subscriptions.heard(event),
            Received::Synced { to, cursor } => self.subscriptions.synced(to, cursor.as_ref()),
            Received::Ok(granted) => {
                if self.orders.granted(granted) || self.calls.granted(granted) {
                    return Ok(());
                }
                match self.open.remove(&granted.n) {
                    Some(Asked::Subscribe(to)) => self.subscriptions.granted(&to, granted.n),
                    Some(Asked::Unsubscribe(to)) => then = self.unsubscribed(to),
                    None => {}
                }
            }
            Received::Error(refusal) => {
                if self.orders.refused(refusal) || self.calls.refused(refusal) {
                    return Ok(());
                }
                then = self.refused(refusal);
            }
            _ => {}
        }
        if let Received::Outcome(outcome) = frame {
            let Some(outcome) = self.orders.outcome(outcome) else { return Ok(()) };
            frame = Received::Outcome(outcome);
        }
        room.send(Told::Frame(text, Box::new(frame)));
        if let Some(then) = then {
            let _ = self.tell.send(then).await;
        }
        Ok(())
    }

    /// A subscription, or the end of one, was refused.
    fn refused(&mut self, refusal: &Refusal) -> Option<Told> {
        let n = refusal.n?;
        match self.open.remove(&n)? {
            Asked::Subscribe(to) => {
                let (code, message) = (refusal.code.clone(), refusal.message.clone());
                let gone = self.subscriptions.refused(&to, n, refusal.again());
                gone.then_some(Told::Event(Event::Refused { to, code, message }))
            }
            Asked::Unsubscribe(to) => self.unsubscribed(to),
        }
    }

    /// The end of a subscription is certain. When there is another one to the same pattern by now, nothing ends.
    fn unsubscribed(&self, to: Pattern) -> Option<Told> {
        (!self.subscriptions.contains(&to)).then_some(Told::Unsubscribed(to))
    }
}

/// A number for a subscription's frame.
fn subscribes(numbers: &mut Numbers, open: &mut BTreeMap<u64, Asked>, to: &Pattern) -> u64 {
    let n = numbers.next();
    open.insert(n, Asked::Subscribe(to.clone()));
    n
}

/// Waits for room for a message, then for the message, or for room towards the other side. May be dropped without losing
/// anything.
async fn heard(
    tell: &mpsc::Sender<Told>,
    link: &mut Link,
) -> Result<(Option<mpsc::OwnedPermit<Told>>, Option<Message>), End> {
    let room = tell.clone().reserve_owned().await.ok();
    Ok((room, link.turn().await?))
}
