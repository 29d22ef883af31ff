//! A gateway: what a flat's values should be, made known to the broker across reconnects and losses.
//!
//! The handle keeps the whole state. A change is sent at once when there is a session; without one it waits as part
//! of the state that the next session begins with. An `ok` therefore means the same either way: the broker has
//! stored this value or a newer one.

mod book;

use std::collections::BTreeMap;
use std::time::Duration;

use riser_core::frame::Credential;
use riser_core::limits::Limits;
use riser_core::{Change, Devices, Json, Path};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use crate::Config;
use crate::backoff::Backoff;
use crate::end::End;
use crate::frame::{Granted, Received, Refusal, Welcome};
use crate::link::{CLOSE_WAIT, Link};
use crate::task::Task;
use book::Book;

/// Changes that wait for the connection; who makes more waits.
const ASKS: usize = 64;
/// Frames that may be unanswered at a time. One call to the store is in flight per gateway, so that more than a few
/// only fill the edge's buffers.
const OPEN: usize = 64;
/// Callers that may wait for an `ok` at a time.
const WAITERS: usize = 1_024;
/// After a refusal that names no time: when everything is sent again.
const RESEND: Duration = Duration::from_secs(1);
/// The longest time until everything is sent again.
const RESEND_MOST: Duration = Duration::from_secs(60);
/// The soonest renewal after another or a failed one.
const RENEW_LEAST: Duration = Duration::from_secs(10);
/// The longest wait for a renewal; timers need not reach further than a credential of 10 years.
const RENEW_MOST: Duration = Duration::from_secs(5 * 365 * 86_400);

/// A change that the broker will not store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Over a limit of paths or bytes; found here, and not sent.
    #[error("{0}")]
    TooMany(String),
    /// The server refused it.
    #[error("{code:?}: {message:?}")]
    ByServer {
        /// The code (protocol.md §8).
        code: String,
        /// What the server said.
        message: String,
    },
    /// More callers wait for an answer than can be kept.
    #[error("more than {WAITERS} changes wait for an answer")]
    Busy,
    /// The session ended in a way that forbids coming back.
    #[error("the gateway has ended")]
    Ended,
}

/// How a gateway's session stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    /// The first attempt is under way.
    Connecting,
    /// There is a session.
    Online(Box<Welcome>),
    /// The session ended or an attempt failed, and another follows.
    Waiting {
        /// Why.
        end: End,
        /// When the next attempt is made.
        back_in: Duration,
    },
    /// No attempt follows.
    Ended(End),
}

enum Ask {
    Change(Change, Answer),
    Leave,
}

type Answer = oneshot::Sender<Result<(), Refused>>;

/// A gateway's session that comes back by itself. Dropping it ends its task and cuts its connection.
#[derive(Debug)]
pub struct Gateway {
    asks: mpsc::Sender<Ask>,
    status: watch::Receiver<Status>,
    credential: watch::Receiver<Credential>,
    task: Task,
}

impl Gateway {
    /// Begins to connect, and goes on trying. How it stands is in [`Gateway::status`].
    pub fn start(config: Config) -> Self {
        let (asks, asked) = mpsc::channel(ASKS);
        let (show, status) = watch::channel(Status::Connecting);
        let (hand, credential) = watch::channel(config.credential.clone());
        let task = Task::start(Run::new(config, asked, show, hand).run());
        Self { asks, status, credential, task }
    }

    /// Connects. Fails when the first attempt does.
    pub async fn connect(config: Config) -> Result<Self, End> {
        let gateway = Self::start(config);
        let mut status = gateway.status();
        let first = status.wait_for(|status| !matches!(status, Status::Connecting)).await;
        let first = first.map_or(Status::Ended(End::Left), |status| status.clone());
        match first {
            Status::Waiting { end, .. } | Status::Ended(end) => Err(end),
            _ => Ok(gateway),
        }
    }

    /// How the session stands, now and from now on.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// The credential in use: a renewed one replaces the first, and should be kept for the next start.
    pub fn credential(&self) -> Credential {
        self.credential.borrow().clone()
    }

    /// Sets values; none deletes. Ready when the broker has stored them, or newer ones, however many reconnects later.
    pub async fn set(&self, values: BTreeMap<Path, Option<Json>>) -> Result<(), Refused> {
        self.change(Change::values(values, false)).await
    }

    /// Replaces all values. Ready as [`Gateway::set`].
    pub async fn full(&self, values: BTreeMap<Path, Json>) -> Result<(), Refused> {
        self.change(Change::values(values.into_iter().map(|(path, value)| (path, Some(value))), true)).await
    }

    /// A device, and all below it, went away or came back. Ready as [`Gateway::set`].
    pub async fn device(&self, path: Path, up: bool) -> Result<(), Refused> {
        self.change(Change::mark(path, up)).await
    }

    /// Says what the devices are. Ready as [`Gateway::set`].
    pub async fn describe(&self, devices: Devices) -> Result<(), Refused> {
        devices.check().map_err(Refused::TooMany)?;
        self.change(Change::describe(devices)).await
    }

    /// Closes the session with a goodbye, within about 2 s.
    pub async fn close(mut self) {
        if self.asks.send(Ask::Leave).await.is_ok() {
            let _ = timeout(CLOSE_WAIT * 2, self.task.ended()).await;
        }
    }

    async fn change(&self, change: Change) -> Result<(), Refused> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(Ask::Change(change, answer)).await.map_err(|_| Refused::Ended)?;
        answered.await.unwrap_or(Err(Refused::Ended))
    }
}

/// What an open number stands for.
enum Open {
    /// These wait for it.
    Change(Vec<Answer>),
    Renewal,
}

/// The task behind a gateway.
struct Run {
    config: Config,
    asked: mpsc::Receiver<Ask>,
    show: watch::Sender<Status>,
    hand: watch::Sender<Credential>,
    book: Book,
    n: u64,
    open: BTreeMap<u64, Open>,
    /// Who waits for a state that was not sent yet.
    owed: Vec<Answer>,
    /// When everything is sent again, because a part of it was refused for now.
    resend: Option<Instant>,
    /// When the credential is renewed.
    renew: Option<Instant>,
    /// The cluster's clock at a moment of ours.
    clock: (u64, Instant),
}

impl Run {
    fn new(
        config: Config,
        asked: mpsc::Receiver<Ask>,
        show: watch::Sender<Status>,
        hand: watch::Sender<Credential>,
    ) -> Self {
        let (book, open, owed) = (Book::new(Limits::default()), BTreeMap::new(), Vec::new());
        let clock = (0, Instant::now());
        Self { config, asked, show, hand, book, n: 0, open, owed, resend: None, renew: None, clock }
    }

    async fn run(mut self) {
        let mut backoff = Backoff::new(fastrand::Rng::new());
        loop {
            let opened = {
                let config = self.config.clone();
                let mut opening = std::pin::pin!(Link::open(&config));
                loop {
                    tokio::select! {
                        biased;
                        opened = &mut opening => break opened,
                        ask = self.asked.recv() => if !self.keep(ask) { return },
                    }
                }
            };
            let end = match opened {
                Ok((link, welcome)) => {
                    let began = Instant::now();
                    let end = self.session(link, welcome).await;
                    backoff.lasted(began.elapsed());
                    end
                }
                Err(end) => end,
            };
            self.unanswered();
            let Some(back_in) = backoff.after(&end) else {
                self.show.send_replace(Status::Ended(end));
                return;
            };
            self.show.send_replace(Status::Waiting { end, back_in });
            if !self.wait(back_in).await {
                return;
            }
        }
    }

    /// Waits, and takes changes meanwhile. False when the owner left.
    async fn wait(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            tokio::select! {
                biased;
                ask = self.asked.recv() => if !self.keep(ask) { return false },
                () = tokio::time::sleep_until(until) => return true,
            }
        }
    }

    /// Notes a change that cannot be sent now. False when the owner left.
    fn keep(&mut self, ask: Option<Ask>) -> bool {
        let Some(Ask::Change(change, answer)) = ask else {
            self.show.send_replace(Status::Ended(End::Left));
            return false;
        };
        self.note(&change, answer, |run, answer| run.owed.push(answer));
        true
    }

    /// Puts a change into the book, or refuses it.
    fn note(&mut self, change: &Change, answer: Answer, then: impl FnOnce(&mut Self, Answer)) {
        let waiting = self.owed.len() + self.open.values().map(Open::waiters).sum::<usize>();
        let noted = if waiting < WAITERS { self.book.note(change) } else { Err(Refused::Busy) };
        match noted {
            Ok(()) => then(self, answer),
            // A caller that stopped waiting does not hear of it.
            Err(refused) => drop(answer.send(Err(refused))),
        }
    }

    /// A session ended: who waited for an answer waits for the next one's full state.
    fn unanswered(&mut self) {
        for open in std::mem::take(&mut self.open).into_values() {
            if let Open::Change(answers) = open {
                self.owed.extend(answers);
            }
        }
        (self.resend, self.renew) = (None, None);
    }

    async fn session(&mut self, mut link: Link, welcome: Welcome) -> End {
        self.book.limits(welcome.limits);
        self.clock = (welcome.now_ms, Instant::now());
        self.renew_at(welcome.token_expires_at_ms);
        self.show.send_replace(Status::Online(Box::new(welcome)));
        if let Err(end) = self.everything(&mut link) {
            return end;
        }
        let never = Instant::now() + RENEW_MOST * 2;
        loop {
            let room = self.open.len() < OPEN && link.has_room();
            let done = tokio::select! {
                biased;
                text = link.next() => match text {
                    Ok(text) => self.frame(&mut link, &text),
                    Err(end) => Err(end),
                },
                ask = self.asked.recv(), if room => match ask {
                    Some(Ask::Change(change, answer)) => self.change(&mut link, &change, answer),
                    Some(Ask::Leave) | None => {
                        link.close(1000, "").await;
                        return End::Left;
                    }
                },
                () = tokio::time::sleep_until(self.resend.unwrap_or(never)) => self.everything(&mut link),
                () = tokio::time::sleep_until(self.renew.unwrap_or(never)) => self.ask_renewal(&mut link),
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

    /// Sends what the devices are and the full state; whoever waits for something not yet sent waits for this.
    fn everything(&mut self, link: &mut Link) -> Result<(), End> {
        self.resend = None;
        let owed = std::mem::take(&mut self.owed);
        let frames = self.book.everything(|| {
            self.n += 1;
            self.n
        });
        let last = frames.len().saturating_sub(1);
        let mut owed = Some(owed);
        for (i, (n, text)) in frames.into_iter().enumerate() {
            if let Some(n) = n {
                let answers = if i == last { owed.take().unwrap_or_default() } else { Vec::new() };
                self.open.insert(n, Open::Change(answers));
            }
            link.send(&text)?;
        }
        self.owed.extend(owed.into_iter().flatten());
        Ok(())
    }

    fn change(&mut self, link: &mut Link, change: &Change, answer: Answer) -> Result<(), End> {
        let mut noted = None;
        self.note(change, answer, |_, answer| noted = Some(answer));
        let Some(answer) = noted else { return Ok(()) };
        let n = self.number(Open::Change(vec![answer]));
        for text in self.book.frames(change, n) {
            link.send(&text)?;
        }
        Ok(())
    }

    fn ask_renewal(&mut self, link: &mut Link) -> Result<(), End> {
        self.renew = None;
        let n = self.number(Open::Renewal);
        link.send(&format!(r#"{{"t":"renew","n":{n}}}"#))
    }

    fn frame(&mut self, link: &mut Link, text: &str) -> Result<(), End> {
        match Received::parse(text).map_err(|error| End::Broken(error.to_string()))? {
            Received::Ping => link.send(r#"{"t":"pong"}"#),
            Received::Resync => self.everything(link),
            Received::Ok(granted) => {
                self.granted(granted);
                Ok(())
            }
            Received::Error(refusal) => {
                self.refused(refusal);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn granted(&mut self, granted: Granted) {
        match self.open.remove(&granted.n) {
            Some(Open::Change(answers)) => {
                for answer in answers {
                    // A caller that stopped waiting does not hear of it.
                    drop(answer.send(Ok(())));
                }
            }
            Some(Open::Renewal) => {
                if let Some(token) = granted.token {
                    self.config.credential = token.clone();
                    self.hand.send_replace(token);
                }
                self.renew_at(granted.expires_at_ms);
            }
            None => {}
        }
    }

    fn refused(&mut self, refusal: Refusal) {
        let later = matches!(refusal.code.as_str(), "unavailable" | "rate_limited" | "internal");
        let wait = refusal.retry_after_ms.map_or(RESEND, Duration::from_millis).min(RESEND_MOST);
        match refusal.n.and_then(|n| self.open.remove(&n)) {
            // Sending the same again is safe, and the full state holds it.
            Some(Open::Change(answers)) if later => {
                self.owed.extend(answers);
                self.resend = Some(Instant::now() + wait);
            }
            Some(Open::Change(answers)) => {
                tracing::warn!(code = refusal.code, message = ?refusal.message, "a change was refused");
                let refused = Refused::ByServer { code: refusal.code, message: refusal.message };
                for answer in answers {
                    drop(answer.send(Err(refused.clone())));
                }
            }
            Some(Open::Renewal) if later => self.renew = Some(Instant::now() + wait.max(RENEW_LEAST)),
            // Whoever forbids it forbids it for the rest of the session.
            Some(Open::Renewal) => {
                tracing::warn!(code = refusal.code, message = ?refusal.message, "the credential is not renewed");
            }
            None => tracing::warn!(code = refusal.code, message = ?refusal.message, "the server complained"),
        }
    }

    fn renew_at(&mut self, expires_at_ms: Option<u64>) {
        let (clock_ms, at) = self.clock;
        let now_ms = clock_ms.saturating_add(u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX));
        self.renew = expires_at_ms.map(|expires_at_ms| Instant::now() + renewal(expires_at_ms, now_ms));
    }
}

/// In how long a credential is renewed: when half of what is left of it has passed.
fn renewal(expires_at_ms: u64, now_ms: u64) -> Duration {
    (Duration::from_millis(expires_at_ms.saturating_sub(now_ms)) / 2).clamp(RENEW_LEAST, RENEW_MOST)
}

impl Open {
    fn waiters(&self) -> usize {
        match self {
            Self::Change(answers) => answers.len(),
            Self::Renewal => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_renewed_when_half_of_it_is_left() {
        let day = 86_400_000;
        let rows = [
            (day, 0, day / 2),
            (day, day / 2, day / 4),
            (day, day - 1_000, 10_000),
            (day, day + 1_000, 10_000),
            (u64::MAX, 0, 5 * 365 * day),
        ];
        for (expires_at_ms, now_ms, in_ms) in rows {
            assert_eq!(renewal(expires_at_ms, now_ms), Duration::from_millis(in_ms), "{expires_at_ms} {now_ms}");
        }
    }
}
