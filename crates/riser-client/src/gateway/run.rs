//! The task behind a gateway.

use std::collections::BTreeMap;
use std::time::Duration;

use riser_core::Change;
use riser_core::command::Word;
use riser_core::frame::Credential;
use riser_core::limits::Limits;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;

use super::book::Book;
use super::desk::{self, Desk};
use super::memory::is_final;
use super::results::{self, Results};
use super::{Answer, Ask, Live, OPEN, Status, WAITERS};
use crate::Config;
use crate::backoff::Backoff;
use crate::calls::{Calls, Numbers};
use crate::clock::{Clock, NEVER, RENEW_LEAST, renewal};
use crate::end::End;
use crate::frame::{Granted, Pong, Received, Refusal, Welcome};
use crate::link::{Link, Message};
use crate::live::{LiveFrame, Say, pass};
use crate::refused::Refused;

/// How often the cluster's clock is asked for: commands must not be started after their deadlines, and what `welcome`
/// said may have been on its way for long.
const CLOCK_EVERY: Duration = Duration::from_secs(60);

/// What an open number stands for.
enum Open {
    /// These wait for it.
    Change(Vec<Answer>),
    Renewal,
}

/// What the task and its handle say to each other through.
pub(super) struct Ports {
    pub(super) asked: mpsc::Receiver<Ask>,
    pub(super) said: mpsc::Receiver<Say>,
    pub(super) show: watch::Sender<Status>,
    pub(super) hand: watch::Sender<Credential>,
    /// Counts the sessions that ended.
    pub(super) count: watch::Sender<u64>,
    pub(super) live: broadcast::Sender<Live>,
}

pub(super) struct Run {
    config: Config,
    ports: Ports,
    /// None when the application takes no commands.
    desk: Option<Desk>,
    results: Results,
    book: Book,
    calls: Calls,
    numbers: Numbers,
    open: BTreeMap<u64, Open>,
    /// Who waits for a state that was not sent yet.
    owed: Vec<Answer>,
    /// When everything is sent again, because a part of it was refused for now.
    resend: Option<Instant>,
    /// When the credential is renewed.
    renew: Option<Instant>,
    clock: Clock,
    ask_clock: Instant,
    /// When the owner, who cut the connection, wants it back.
    back_in: Option<Duration>,
}

impl Run {
    pub(super) fn new(config: Config, ports: Ports, desk: Option<Desk>) -> Self {
        Self {
            config,
            ports,
            desk,
            results: Results::default(),
            book: Book::new(Limits::default()),
            calls: Calls::default(),
            numbers: Numbers::default(),
            open: BTreeMap::new(),
            owed: Vec::new(),
            resend: None,
            renew: None,
            clock: Clock::default(),
            ask_clock: Instant::now(),
            back_in: None,
        }
    }

    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(fastrand::Rng::new());
        loop {
            let mut config = self.config.clone();
            if let Some(desk) = &self.desk {
                config.remembers_ms = Some(desk.remembers_ms());
            }
            let Some(opened) = self.meanwhile(Link::open(&config)).await else { return };
            let end = match opened {
                Ok((link, welcome)) => {
                    let began = Instant::now();
                    let end = self.session(link, welcome).await;
                    backoff.lasted(began.elapsed());
                    end
                }
                Err(end) => end,
            };
            self.lost();
            let asked = self.back_in.take();
            let Some(back_in) = asked.or_else(|| backoff.after(&end)) else {
                self.ports.show.send_replace(Status::Ended(end));
                return;
            };
            self.ports.show.send_replace(Status::Waiting { end, back_in });
            let until = Instant::now() + back_in;
            if self.meanwhile(tokio::time::sleep_until(until)).await.is_none() {
                return;
            }
        }
    }

    /// Takes what is asked and said while there is no session. None when the owner left.
    async fn meanwhile<T>(&mut self, until: impl Future<Output = T>) -> Option<T> {
        let mut until = std::pin::pin!(until);
        loop {
            tokio::select! {
                biased;
                ask = self.ports.asked.recv() => match ask {
                    Some(Ask::Change(change, answer)) => {
                        self.note(&change, answer, |run, answer| run.owed.push(answer));
                    }
                    Some(Ask::Call(call)) => self.calls.take(call, false),
                    Some(Ask::Reconnect(_)) => {}
                    Some(Ask::Leave) | None => {
                        self.ports.show.send_replace(Status::Ended(End::Left));
                        return None;
                    }
                },
                Some((cmd, word)) = said(&mut self.desk) => {
                    // A result is sent in the next session; how far a command is, is of no use then.
                    if let Some(word) = self.word(&cmd, word).await.filter(|word| is_final(word.status)) {
                        self.results.owe(cmd, word);
                    }
                }
                // What is said on a stream now is heard by nobody.
                Some(_) = self.ports.said.recv() => {}
                done = &mut until => return Some(done),
            }
        }
    }

    async fn word(&mut self, cmd: &str, word: Word) -> Option<Word> {
        self.desk.as_mut()?.word(cmd, word).await
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
    fn lost(&mut self) {
        for open in std::mem::take(&mut self.open).into_values() {
            if let Open::Change(answers) = open {
                self.owed.extend(answers);
            }
        }
        (self.resend, self.renew) = (None, None);
        self.calls.lost();
        self.results.lost();
        self.ports.count.send_replace(self.calls.session());
    }

    async fn session(&mut self, mut link: Link, welcome: Welcome) -> End {
        self.book.limits(welcome.limits);
        self.set_clock(Clock::at(welcome.now_ms));
        self.ask_clock = Instant::now() + CLOCK_EVERY;
        self.renew_at(welcome.token_expires_at_ms);
        self.ports.show.send_replace(Status::Online(Box::new(welcome)));
        if let Err(end) = self.everything(&mut link) {
            return end;
        }
        loop {
            if let Err(end) = self.send(&mut link) {
                return end;
            }
            let (room, due) = (link.has_room(), self.due(&link));
            let done = tokio::select! {
                biased;
                () = tokio::time::sleep_until(due) => self.on_time(&mut link),
                message = link.turn() => match message {
                    Ok(None) => Ok(()),
                    Ok(Some(Message::Text(text))) => self.frame(&mut link, &text).await,
                    Ok(Some(Message::Binary(bytes))) => {
                        if let Some(frame) = LiveFrame::parse(bytes) {
                            self.hear(Live::Frame(frame));
                        }
                        Ok(())
                    }
                    Err(end) => Err(end),
                },
                Some((cmd, word)) = said(&mut self.desk), if room => match self.word(&cmd, word).await {
                    Some(word) => self.tell(&mut link, cmd, word),
                    None => Ok(()),
                },
                ask = self.ports.asked.recv(), if room && self.open.len() < OPEN => match ask {
                    Some(Ask::Change(change, answer)) => self.change(&mut link, &change, answer),
                    Some(Ask::Call(call)) => {
                        self.calls.take(call, true);
                        Ok(())
                    }
                    Some(Ask::Reconnect(after)) => {
                        self.back_in = Some(after);
                        return End::Broken("its owner cut it".into());
                    }
                    Some(Ask::Leave) | None => {
                        link.close(1000, "").await;
                        return End::Left;
                    }
                },
                Some(say) = self.ports.said.recv(), if room => {
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
        self.results.send(link, &mut self.numbers)?;
        self.calls.send(link, &mut self.numbers)
    }

    /// When something is due by itself. Without room nothing is due that would need it: the link says when there is some.
    fn due(&self, link: &Link) -> Instant {
        let room = link.has_room();
        let sends = [self.calls.due(), self.results.due()].into_iter().flatten().filter(|_| room).min();
        let waiting = [self.resend, self.renew, sends, Some(self.ask_clock)];
        let behind = room && (self.calls.is_behind() || self.results.is_behind());
        let now = Instant::now();
        if behind { now } else { waiting.into_iter().flatten().min().unwrap_or(now + NEVER) }
    }

    fn on_time(&mut self, link: &mut Link) -> Result<(), End> {
        let now = Instant::now();
        if self.resend.is_some_and(|at| at <= now) {
            self.everything(link)?;
        }
        if self.renew.take_if(|at| *at <= now).is_some() {
            let n = self.number(Open::Renewal);
            link.send(&format!(r#"{{"t":"renew","n":{n}}}"#))?;
        }
        if self.ask_clock <= now {
            self.ask_clock = now + CLOCK_EVERY;
            link.send(r#"{"t":"ping"}"#)?;
        }
        Ok(())
    }

    fn set_clock(&mut self, clock: Clock) {
        self.clock = clock;
        if let Some(desk) = &mut self.desk {
            desk.clock(clock);
        }
    }

    /// Tells the application's listeners, if there are any.
    fn hear(&self, live: Live) {
        let _ = self.ports.live.send(live);
    }

    fn number(&mut self, open: Open) -> u64 {
        let n = self.numbers.next();
        self.open.insert(n, open);
        n
    }

    /// Sends what the devices are and the full state; whoever waits for something not yet sent waits for this.
    fn everything(&mut self, link: &mut Link) -> Result<(), End> {
        self.resend = None;
        let owed = std::mem::take(&mut self.owed);
        let frames = self.book.everything(|| self.numbers.next());
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

    /// Tells a word about a command: a final one until it is answered, another once.
    fn tell(&mut self, link: &mut Link, cmd: String, word: Word) -> Result<(), End> {
        if is_final(word.status) {
            self.results.owe(cmd, word);
            return Ok(());
        }
        link.send(&results::frame(&cmd, &word, None))
    }

    async fn frame(&mut self, link: &mut Link, text: &str) -> Result<(), End> {
        match Received::parse(text).map_err(|error| End::Broken(error.to_string()))? {
            Received::Ping => link.send(r#"{"t":"pong"}"#)?,
            Received::Pong(Pong { now_ms: Some(now_ms), .. }) => {
                let mut clock = self.clock;
                clock.hear(now_ms);
                self.set_clock(clock);
            }
            Received::Resync => self.everything(link)?,
            Received::Command(order) => {
                let cmd = order.cmd.clone();
                if self.results.owes(&cmd) {
                    return Ok(());
                }
                let word = match &mut self.desk {
                    Some(desk) => desk.command(*order).await,
                    None => Some(desk::nobody()),
                };
                if let Some(word) = word {
                    self.tell(link, cmd, word)?;
                }
            }
            Received::Cancel { cmd } => {
                if let Some(desk) = &mut self.desk {
                    desk.cancel(&cmd);
                }
            }
            Received::Opened(opened) => self.hear(Live::Opened(opened)),
            Received::Closed(closed) => self.hear(Live::Closed(closed)),
            Received::Ok(granted) => self.granted(granted),
            Received::Error(refusal) => self.refused(refusal),
            _ => {}
        }
        Ok(())
    }

    fn granted(&mut self, granted: Granted) {
        if self.calls.granted(&granted) || self.results.granted(granted.n) {
            return;
        }
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
                    self.ports.hand.send_replace(token);
                }
                self.renew_at(granted.expires_at_ms);
            }
            None => {}
        }
    }

    fn refused(&mut self, refusal: Refusal) {
        if self.calls.refused(&refusal) || self.results.refused(&refusal) {
            return;
        }
        match (refusal.n.and_then(|n| self.open.remove(&n)), refusal.again()) {
            // Sending the same again is safe, and the full state holds it.
            (Some(Open::Change(answers)), Some(again)) => {
                self.owed.extend(answers);
                self.resend = Some(Instant::now() + again);
            }
            (Some(Open::Change(answers)), None) => {
                tracing::warn!(code = refusal.code, message = ?refusal.message, "a change was refused");
                let refused = Refused::from(refusal);
                for answer in answers {
                    drop(answer.send(Err(refused.clone())));
                }
            }
            (Some(Open::Renewal), Some(again)) => self.renew = Some(Instant::now() + again.max(RENEW_LEAST)),
            // Whoever forbids it forbids it for the rest of the session.
            (Some(Open::Renewal), None) => {
                tracing::warn!(code = refusal.code, message = ?refusal.message, "the credential is not renewed");
            }
            (None, _) => tracing::warn!(code = refusal.code, message = ?refusal.message, "the server complained"),
        }
    }

    fn renew_at(&mut self, expires_at_ms: Option<u64>) {
        let now_ms = self.clock.now_ms();
        self.renew = expires_at_ms.map(|expires_at_ms| Instant::now() + renewal(expires_at_ms, now_ms));
    }
}

/// The next word of the application, never when there is none.
async fn said(desk: &mut Option<Desk>) -> Option<(String, Word)> {
    match desk {
        Some(desk) => desk.said().await,
        None => std::future::pending().await,
    }
}

impl Open {
    fn waiters(&self) -> usize {
        match self {
            Self::Change(answers) => answers.len(),
            Self::Renewal => 0,
        }
    }
}
