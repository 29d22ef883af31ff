//! The connection: one for a process, shared by all its calls, and made anew by a task when it is lost.
//!
//! The library's own reconnecting connection would go back to a server that is no master any more. Here every new
//! connection asks the Sentinels again, and whatever looks as if the server cannot do its work (no answer in time, a
//! replica's refusal) ends the old one. Calls that come while there is none wait for the try that is on its way, and fail
//! with it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisError, Value};
use riser_core::ServerVersion;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tracing::{error, info, warn};

use super::config::{ConnectError, RedisConfig};
use super::counts::Counters;
use super::keys::Key;
use super::open::{Opened, greet, open, plain};
use super::scripts::{self, Script};
use crate::RegistryError;

/// Between two looks at the server: whether it answers, and whether it is the master.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The longest wait before the first try to connect, and what it doubles to with each. The real wait is anything below, so
/// that the edges of a dead server do not come all at once.
const RECONNECT_FIRST: Duration = Duration::from_millis(200);
/// See [`RECONNECT_FIRST`].
const RECONNECT_MOST: Duration = Duration::from_secs(3);
/// How often one call is sent at most: again after scripts were loaded, and after keys of the wrong type were removed.
const SENDS: usize = 3;
/// Kinds of errors of which each is logged once.
const LOGGED: usize = 64;

/// The connection of a process.
pub(super) struct Link {
    config: RedisConfig,
    state: watch::Sender<State>,
    pub(super) counters: Counters,
    logged: Mutex<BTreeSet<String>>,
}

enum State {
    Up(Up),
    /// There is none; and whether a try to make one has failed already.
    Down {
        failed: bool,
    },
}

#[derive(Clone)]
struct Up {
    /// Of the connections of this process.
    number: u64,
    connection: MultiplexedConnection,
    server: Arc<str>,
    version: ServerVersion,
}

/// One thing that a call asks for.
enum Part {
    Plain(Cmd),
    Script(&'static Script, Cmd),
}

/// What is sent at once, and all keys that it touches.
#[derive(Default)]
pub(super) struct Call {
    parts: Vec<Part>,
    keys: Vec<Key>,
}

impl Call {
    /// Nothing yet. What is added happens one after the other, and others' calls may come in between.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// A command on one key, or on none.
    pub(super) fn command(mut self, name: &str, key: Option<Key>, arguments: &[&[u8]]) -> Self {
        let mut command = redis::cmd(name);
        if let Some(key) = key {
            command.arg(&key.name);
            self.keys.push(key);
        }
        for argument in arguments {
            command.arg(*argument);
        }
        self.parts.push(Part::Plain(command));
        self
    }

    /// A script.
    pub(super) fn script(mut self, script: &'static Script, keys: Vec<Key>, arguments: &Arguments) -> Self {
        let mut command = redis::cmd("EVALSHA");
        command.arg(script.hash()).arg(keys.len());
        for key in &keys {
            command.arg(&key.name);
        }
        for argument in arguments.iter() {
            command.arg(argument);
        }
        self.keys.extend(keys);
        self.parts.push(Part::Script(script, command));
        self
    }
}

/// What a script is given besides its keys.
#[derive(Default)]
pub(super) struct Arguments {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Arguments {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn add(mut self, argument: impl AsRef<[u8]>) -> Self {
        self.push(argument);
        self
    }

    pub(super) fn push(&mut self, argument: impl AsRef<[u8]>) {
        self.bytes.extend_from_slice(argument.as_ref());
        self.ends.push(self.bytes.len());
    }

    pub(super) fn number(self, number: u64) -> Self {
        self.add(number.to_string())
    }

    pub(super) fn flag(self, flag: bool) -> Self {
        self.add(if flag { "1" } else { "0" })
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }
}

impl Link {
    /// Connects, or says why not.
    pub(super) async fn new(config: RedisConfig) -> Result<Arc<Self>, ConnectError> {
        let opened = open(&config).await?;
        let up = Up::new(0, opened);
        info!(server = %up.server, version = %up.version, "connected to Redis");
        let state = watch::Sender::new(State::Up(up));
        let (counters, logged) = (Counters::default(), Mutex::new(BTreeSet::new()));
        Ok(Arc::new(Self { config, state, counters, logged }))
    }

    /// Sees to it that there is a connection, for as long as it runs.
    pub(super) async fn keep(&self) {
        let mut state = self.state.subscribe();
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_lost = tokio::select! {
                _ = look.tick() => false,
                lost = state.wait_for(|state| matches!(state, State::Down { .. })) => lost.is_ok(),
            };
            if is_lost { self.reconnect().await } else { self.look().await }
        }
    }

    /// Asks the server whether it is still the master.
    async fn look(&self) {
        let State::Up(mut up) = self.state.borrow().clone() else { return };
        let deadline = Instant::now() + self.config.call_timeout;
        match timeout_at(deadline, greet(&mut up.connection)).await {
            Ok(Ok(greeting)) if greeting.is_master() => {}
            Ok(Ok(_)) => self.lost(&up, "it is no master any more"),
            Ok(Err(error)) => self.lost(&up, &plain(&error)),
            Err(_) => self.lost(&up, "no answer in time"),
        }
    }

    async fn reconnect(&self) {
        for attempt in 0.. {
            tokio::time::sleep(reconnect_delay(attempt, fastrand::f64())).await;
            match open(&self.config).await {
                Ok(opened) => {
                    let number = self.counters.reconnects.add();
                    let up = Up::new(number, opened);
                    info!(server = %up.server, version = %up.version, "connected to Redis again");
                    self.state.send_replace(State::Up(up));
                    return;
                }
                Err(error) => {
                    if attempt == 0 {
                        warn!(%error, "Redis cannot be reached; trying again");
                    }
                    self.state.send_replace(State::Down { failed: true });
                }
            }
        }
    }

    /// Notes that a connection is of no use any more.
    fn lost(&self, up: &Up, reason: &str) {
        let was = self.state.send_if_modified(|state| {
            let is_current = matches!(state, State::Up(now) if now.number == up.number);
            if is_current {
                *state = State::Down { failed: false };
            }
            is_current
        });
        if was {
            warn!(server = %up.server, reason, "lost Redis");
        }
    }

    /// The connection; waits for the try to make one that is on its way.
    async fn up(&self) -> Result<Up, RegistryError> {
        let mut state = self.state.subscribe();
        let settled = state.wait_for(|state| !matches!(state, State::Down { failed: false })).await;
        match settled.as_deref() {
            Ok(State::Up(up)) => Ok(up.clone()),
            _ => Err(RegistryError::Unavailable),
        }
    }

    /// Whether there is a connection.
    pub(super) fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), State::Up(_))
    }

    /// Where the connection leads, and the version of the server there.
    pub(super) fn server(&self) -> Option<(Arc<str>, ServerVersion)> {
        match &*self.state.borrow() {
            State::Up(up) => Some((up.server.clone(), up.version)),
            State::Down { .. } => None,
        }
    }

    /// Sends a call, and gives the reply to each of its parts.
    pub(super) async fn run(&self, call: Call) -> Result<Vec<Value>, RegistryError> {
        self.counters.calls.add();
        let deadline = Instant::now() + self.config.call_timeout;
        let mut replies = None;
        if let Ok(Ok(up)) = timeout_at(deadline, self.up()).await {
            match timeout_at(deadline, self.send(&up, &call)).await {
                Ok(answered) => replies = answered,
                Err(_) => self.lost(&up, "no answer in time"),
            }
        }
        replies.ok_or_else(|| {
            self.counters.errors.add();
            RegistryError::Unavailable
        })
    }

    /// Gives something that asks again and again no more time than one call has.
    pub(super) async fn within_a_call<T>(
        &self,
        operation: impl Future<Output = Result<T, RegistryError>> + Send,
    ) -> Result<T, RegistryError> {
        tokio::time::timeout(self.config.call_timeout, operation).await.unwrap_or(Err(RegistryError::Unavailable))
    }

    /// Sends a command whose reply nobody waits for.
    pub(super) async fn tell(&self, command: Cmd) {
        let State::Up(mut up) = self.state.borrow().clone() else { return };
        let mut command = command;
        command.set_no_response(true);
        let deadline = Instant::now() + self.config.call_timeout;
        // What is told is found out otherwise when it is lost.
        drop(timeout_at(deadline, up.connection.send_packed_command(&command)).await);
    }

    async fn send(&self, up: &Up, call: &Call) -> Option<Vec<Value>> {
        let mut replies: Vec<Option<Value>> = call.parts.iter().map(|_| None).collect();
        for _ in 0..SENDS {
            let missing: Vec<_> = (0..replies.len()).filter(|at| replies[*at].is_none()).collect();
            let answers = match self.send_parts(up, call, &missing).await {
                Ok(answers) => answers,
                Err(error) => {
                    self.failed(up, &error, None);
                    return None;
                }
            };
            let mut wrong_type = false;
            let mut again = false;
            for (at, answer) in missing.into_iter().zip(answers) {
                let part = &call.parts[at];
                match (answer, part) {
                    // What is read behind a script must not be older than what that does.
                    (Ok(_), Part::Plain(_)) if again => {}
                    (Ok(reply), _) => replies[at] = Some(reply),
                    (Err(error), Part::Script(script, _)) if error.code() == Some("NOSCRIPT") => {
                        again = true;
                        self.load(up, script).await?;
                    }
                    (Err(error), _) if error.code() == Some("WRONGTYPE") => (again, wrong_type) = (true, true),
                    (Err(error), part) => {
                        self.failed(up, &error, Some(part));
                        return None;
                    }
                }
            }
            if wrong_type {
                self.mend(up, &call.keys).await?;
            }
            if replies.iter().all(Option::is_some) {
                return Some(replies.into_iter().flatten().collect());
            }
        }
        self.log_once("mend", || error!("what Redis holds cannot be mended"));
        None
    }

    async fn send_parts(
        &self,
        up: &Up,
        call: &Call,
        which: &[usize],
    ) -> Result<Vec<Result<Value, RedisError>>, RedisError> {
        let mut connection = up.connection.clone();
        let command = |at: usize| match &call.parts[at] {
            Part::Plain(command) | Part::Script(_, command) => command,
        };
        if let [one] = which {
            return Ok(vec![connection.send_packed_command(command(*one)).await?.extract_error()]);
        }
        let mut pipeline = Pipeline::with_capacity(which.len());
        for at in which {
            pipeline.add_command(command(*at).clone());
        }
        pipeline.ignore_errors().query_async(&mut connection).await
    }

    async fn load(&self, up: &Up, script: &'static Script) -> Option<()> {
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(script.code());
        let loaded: Result<(), _> = load.query_async(&mut up.connection.clone()).await;
        loaded.map_err(|error| self.failed(up, &error, None)).ok()
    }

    /// Removes those of the keys that are not what we would have written. Who wrote them should not have: ours was lost with
    /// it.
    async fn mend(&self, up: &Up, keys: &[Key]) -> Option<()> {
        for key in keys {
            let mut command = redis::cmd("EVAL");
            command.arg(scripts::MEND.code());
            match &key.head {
                Some((heads, gateway)) => command.arg(2).arg(&key.name).arg(heads).arg(key.kind.as_str()).arg(gateway),
                None => command.arg(1).arg(&key.name).arg(key.kind.as_str()),
            };
            let removed: Result<u64, _> = command.query_async(&mut up.connection.clone()).await;
            match removed {
                Ok(0) => {}
                Ok(_) => self.bad("a key of another type", 1),
                Err(error) => {
                    self.failed(up, &error, None);
                    return None;
                }
            }
        }
        Some(())
    }

    /// Counts and logs what went wrong, and gives the connection up when it is to blame.
    fn failed(&self, up: &Up, error: &RedisError, part: Option<&Part>) {
        let code = error.code().unwrap_or_default().to_owned();
        if error.is_io_error() || error.is_unrecoverable_error() {
            self.lost(up, &plain(error));
        } else if matches!(code.as_str(), "READONLY" | "MASTERDOWN") {
            self.lost(up, "it is no master any more");
        } else if let (Some(Part::Script(script, _)), "ERR") = (part, code.as_str()) {
            self.counters.script_errors.add();
            self.log_once(script.name, || error!(script = script.name, error = plain(error), "a script failed"));
        } else {
            self.log_once(&code, || warn!(error = plain(error), "Redis refused a call"));
        }
    }

    /// Counts values that none of ours wrote.
    pub(super) fn bad(&self, what: &'static str, count: u64) {
        if count > 0 {
            self.counters.bad_values.add_many(count);
            self.log_once(what, || warn!(what, "ignored a value that no edge wrote; further ones are only counted"));
        }
    }

    /// Notes a reply that no script of ours gives.
    pub(super) fn strange(&self, what: &'static str) -> RegistryError {
        self.counters.errors.add();
        self.counters.script_errors.add();
        self.log_once(what, || error!(what, "Redis gave an answer that is none"));
        RegistryError::Unavailable
    }

    fn log_once(&self, kind: &str, log: impl FnOnce()) {
        let mut logged = self.logged.lock();
        if logged.len() < LOGGED && logged.insert(kind.to_owned()) {
            log();
        }
    }
}

impl Clone for State {
    fn clone(&self) -> Self {
        match self {
            Self::Up(up) => Self::Up(up.clone()),
            Self::Down { failed } => Self::Down { failed: *failed },
        }
    }
}

impl Up {
    fn new(number: u64, opened: Opened) -> Self {
        let Opened { connection, server, version } = opened;
        Self { number, connection, server: server.into(), version }
    }
}

/// How long to wait before this try to connect, the first being 0; `draw` is below 1.
fn reconnect_delay(attempt: u32, draw: f64) -> Duration {
    RECONNECT_FIRST.saturating_mul(1 << attempt.min(16)).min(RECONNECT_MOST).mul_f64(draw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconnects_wait_longer_each_time_and_never_all_the_same() {
        let most = |attempt| reconnect_delay(attempt, 1.0);
        assert_eq!(most(0), RECONNECT_FIRST);
        assert_eq!(most(2), RECONNECT_FIRST * 4);
        for attempt in [4, 16, 40, u32::MAX] {
            assert_eq!(most(attempt), RECONNECT_MOST);
        }
        assert_eq!(reconnect_delay(40, 0.0), Duration::ZERO);
    }

    #[test]
    fn arguments_stay_apart() {
        let arguments = Arguments::new().add("ab").add("").number(7).flag(true).flag(false);
        let all: Vec<_> = arguments.iter().collect();
        assert_eq!(all, [&b"ab"[..], b"", b"7", b"1", b"0"]);
    }
}
