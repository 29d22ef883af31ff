//! NATS: the bus on its core, the log and the buckets on JetStream. `async_nats` is named here and below, and nowhere else.
//!
//! A process has one connection, [`NatsClient`], and takes its [`NatsBus`], [`NatsLog`] and [`NatsKv`] from it. What the library
//! leaves open is closed here:
//!
//! - While the connection is down nothing is queued for it: publishing fails at once, and has a time limit always.
//! - Answers come to one inbox of our own (`replies`): the library's requests leave a map entry when nobody answers.
//! - Tasks that take messages from the library never wait, and copy what they pass on: a small payload would keep the
//!   64 KiB that were read with it.
//! - The library drops its own events when many come at once. What [`Health`] says is put right every second.
//! - Reconnects have jitter, so that the edges of a dead server do not come all at once.
//!
//! A user of an edge needs to publish and subscribe below `riser.v1.>`, to subscribe `_INBOX.>` and
//! `$JS.EVENT.ADVISORY.STREAM.>`, and to publish below `$KV.riser-held.>`, to `$JS.FC.>` and, below `$JS.API.`, to `DIRECT.GET.*`,
//! `STREAM.MSG.GET.*`, `STREAM.{INFO,CREATE,UPDATE,PURGE}.*` and `CONSUMER.{CREATE,DELETE}.>`; the doctor also asks `INFO`, and
//! a backup `STREAM.NAMES`. It deletes no stream.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, HeaderMap, Message, Statistics};
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use riser_core::ServerVersion;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{error, info, warn};

use riser_core::{Pattern, TenantId};

use crate::Health;
use crate::log::LogError;

mod bus;
mod complaints;
mod config;
mod jetstream;
mod kv;
mod ledger;
mod log;
mod probe;
mod replies;
mod restore;
mod retention;
mod tail;
mod time;
mod version;
mod watches;

pub use bus::NatsBus;
pub use config::{KvConfig, LedgerConfig, LogConfig, NatsAuth, NatsConfig};
pub use kv::NatsKv;
pub use ledger::{LEDGER_PAGE, LedgerEntry, LedgerFrom, LedgerOutcome, LedgerPage, NatsLedger};
pub use log::{CALL_LIMIT, NatsLog};
pub use restore::{FoundStream, Restore, RestoreError};
pub use time::millis as unix_millis;

use complaints::Complaints;
use replies::{Question, Replies};
use version::{OLDEST, has_advisories};

/// How long a server may take from the connection's first byte until it takes commands. A paused one costs this much
/// before the next is tried.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How long handing a message to the connection may take. It takes longer than microseconds only when the server no longer
/// reads.
pub const PUBLISH_LIMIT: Duration = Duration::from_secs(2);
/// Between two pings to a silent server. The third without an answer ends the connection, so that a paused server is
/// left within 6 to 8 s.
const PING_EVERY: Duration = Duration::from_secs(2);
/// Messages that wait in the library for one subscription's task, which never waits itself. One read of a burst brings
/// some thousand.
const SUBSCRIPTION_CAPACITY: usize = 8_192;
/// Messages that wait for the connection to write them; then publishing waits.
const COMMANDS: usize = 2_048;
/// The longest wait before the first try to connect, and what it doubles to with each. The real wait is anything below.
const RECONNECT_FIRST: Duration = Duration::from_millis(100);
/// See [`RECONNECT_FIRST`].
const RECONNECT_MOST: Duration = Duration::from_secs(4);
/// Between two looks at the connection.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why NATS was not connected to.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// A URL that is none, or has credentials in it.
    #[error("NATS URL number {0} is not nats://host:port or tls://host:port without credentials")]
    Url(usize),
    /// The file with the credentials cannot be used.
    #[error("the credentials file of NATS cannot be read")]
    Credentials(#[source] std::io::Error),
    /// The servers know us not.
    #[error("NATS refused the credentials")]
    Refused,
    /// The server's certificate, or the one it is checked with, is not good.
    #[error("no TLS connection to NATS can be made")]
    Tls(#[source] async_nats::ConnectError),
    /// No server answered in time.
    #[error("no NATS server answered")]
    Unreachable(#[source] async_nats::ConnectError),
    /// The server is too old.
    #[error("the NATS server {name:?} has version {version:?}, and 2.12.0 is the oldest that is supported")]
    TooOld {
        /// What it calls itself.
        name: String,
        /// What it says its version is.
        version: String,
    },
}

/// A process' connection to NATS. Clones are the same connection; it ends with the last of them.
#[derive(Clone)]
pub struct NatsClient {
    link: Arc<Link>,
    tasks: Arc<Tasks>,
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsServer {
    /// What it calls itself.
    pub name: String,
    /// Its version, in its own words.
    pub version: String,
    /// Whether advisories are known of this version.
    pub has_advisories: bool,
    /// Whether it is one of a cluster.
    pub is_clustered: bool,
}

/// The connection, as its own tasks use it.
struct Link {
    client: Client,
    /// What the answers' subjects begin with.
    inbox: String,
    signals: Arc<Signals>,
}

/// What the connection's events change.
struct Signals {
    health: watch::Sender<Health>,
    /// Set as soon as there is a connection.
    statistics: OnceLock<Arc<Statistics>>,
    replies: Replies,
    /// Messages that were not ours.
    ignored: AtomicU64,
    complaints: Complaints,
}

/// Subscriptions and tails of a process at once, each of which has a task. A watched pattern is one and so is a tenant
/// whose events are listened to; every one of them costs each server a kilobyte.
const TASKS: usize = 65_536;

/// The tasks of a connection, which end with it.
struct Tasks(Mutex<JoinSet<()>>);

/// Nothing was handed over: the connection is down, or took nothing in time.
#[derive(Debug)]
struct NotSent;

impl NatsClient {
    /// Connects to one of the servers, within a few seconds, or says why not.
    pub async fn connect(config: &NatsConfig) -> Result<Self, NatsError> {
        check_urls(&config.urls)?;
        let signals = Arc::new(Signals {
            health: watch::Sender::new(Health::default()),
            statistics: OnceLock::new(),
            replies: Replies::default(),
            ignored: AtomicU64::new(0),
            complaints: Complaints::default(),
        });
        let options = options(config, signals.clone()).await?;
        // Looking up a name has no limit of its own.
        let limit = CONNECT_LIMIT + (CONNECT_LIMIT + RECONNECT_MOST).saturating_mul(tries(&config.urls));
        let connected = timeout(limit, options.connect(&config.urls)).await;
        let connected = connected.unwrap_or_else(|_| Err(ConnectErrorKind::TimedOut.into()));
        let client = connected.map_err(|error| match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => NatsError::Refused,
            ConnectErrorKind::Tls => NatsError::Tls(error),
            _ => NatsError::Unreachable(error),
        })?;
        let server = client.server_info();
        if ServerVersion::parse(&server.version).is_none_or(|version| version < OLDEST) {
            return Err(NatsError::TooOld { name: server.server_name, version: server.version });
        }
        drop(signals.statistics.set(client.statistics()));
        signals.look(true);
        let inbox = client.new_inbox();
        let link = Arc::new(Link { client, inbox, signals });
        let answers = timeout(PUBLISH_LIMIT, link.client.subscribe(format!("{}.*", link.inbox))).await;
        let Ok(Ok(answers)) = answers else { return Err(NatsError::Refused) };
        let tasks = Arc::new(Tasks(Mutex::new(JoinSet::new())));
        tasks.spawn(take_answers(link.clone(), answers));
        tasks.spawn(look(link.clone()));
        Ok(Self { link, tasks })
    }

    /// The bus on this connection.
    pub fn bus(&self) -> NatsBus {
        NatsBus::new(self.clone())
    }

    /// The log on this connection. `config` must be the same at all edges, once they are all rolled.
    pub fn log(&self, config: LogConfig) -> NatsLog {
        NatsLog::new(self.clone(), config)
    }

    /// The buckets on this connection. `config` must be the same at all edges, once they are all rolled.
    pub fn kv(&self, config: KvConfig) -> NatsKv {
        NatsKv::new(self.clone(), config)
    }

    /// A writer of the ledger on this connection; none when there are too many tasks. `config` must be the same at all edges,
    /// once they are all rolled.
    pub fn ledger(&self, config: LedgerConfig) -> Option<NatsLedger> {
        NatsLedger::start(self, config)
    }

    /// Entries of a tenant's ledger at the addresses that a pattern names, the oldest first.
    pub async fn read_ledger(
        &self,
        tenant: &TenantId,
        pattern: &Pattern,
        from: LedgerFrom,
    ) -> Result<LedgerPage, LogError> {
        ledger::read(self, tenant, pattern, from).await
    }

    /// Messages on our subjects and in our streams that no edge of ours wrote. They are ignored.
    pub fn ignored(&self) -> u64 {
        self.link.signals.ignored.load(Ordering::Relaxed)
    }

    /// The server that this process is connected to now.
    pub fn server(&self) -> NatsServer {
        let server = self.link.client.server_info();
        let advised = ServerVersion::parse(&server.version).is_some_and(has_advisories);
        NatsServer {
            name: server.server_name,
            version: server.version,
            has_advisories: advised,
            is_clustered: server.cluster.is_some(),
        }
    }

    /// Whether JetStream answers, for this user.
    pub async fn has_jetstream(&self) -> bool {
        jetstream::JetStream(self.link.clone()).answers().await
    }

    /// Waits until what was published has left for the server, for [`PUBLISH_LIMIT`] at most; `false` when it has not.
    pub async fn flush(&self) -> bool {
        self.link.is_up() && matches!(timeout(PUBLISH_LIMIT, self.link.client.flush()).await, Ok(Ok(())))
    }
}

impl Link {
    fn is_up(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Hands a message to the connection.
    async fn send(&self, subject: String, headers: HeaderMap, payload: Bytes) -> Result<(), NotSent> {
        if !self.is_up() {
            return Err(NotSent);
        }
        let sent = timeout(PUBLISH_LIMIT, self.client.publish_with_headers(subject, headers, payload)).await;
        sent.ok().and_then(Result::ok).ok_or(NotSent)
    }

    /// Asks something that has at most so many answers.
    async fn ask(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
        answers: usize,
    ) -> Result<Question<'_>, NotSent> {
        if !self.is_up() {
            return Err(NotSent);
        }
        let question = self.signals.replies.question(answers).ok_or(NotSent)?;
        let reply = format!("{}.{}", self.inbox, question.number);
        let sent = self.client.publish_with_reply_and_headers(subject, reply, headers, payload);
        timeout(PUBLISH_LIMIT, sent).await.ok().and_then(Result::ok).ok_or(NotSent)?;
        Ok(question)
    }
}

impl Signals {
    /// Brings the health up to what the library knows. The count of connections is the library's own, so that no
    /// reconnect is missed.
    fn look(&self, connected: bool) {
        let connects = self.statistics.get().map_or(1, |statistics| statistics.connects.load(Ordering::Relaxed));
        let reconnects = connects.saturating_sub(1);
        self.health.send_if_modified(|health| {
            let changed = (health.connected, health.reconnects) != (connected, reconnects);
            (health.connected, health.reconnects) = (connected, reconnects);
            changed
        });
    }

    fn heard(&self, event: &Event) {
        match event {
            Event::Connected => self.look(true),
            Event::Disconnected | Event::Closed => {
                self.look(false);
                self.replies.give_up();
            }
            Event::SlowConsumer(_) => self.overflowed(),
            Event::LameDuckMode => info!("the NATS server is going to shut down"),
            Event::ServerError(error) => self.complain("the NATS server reported an error", error),
            Event::ClientError(error) => self.complain("NATS could not be reached", error),
            Event::Draining => {}
        }
    }

    /// Counts a message that was lost because a queue was full.
    fn overflowed(&self) {
        self.health.send_modify(|health| health.overflowed += 1);
    }

    /// Logs what somebody else did wrong, unless something else was logged just now.
    fn complain(&self, what: &'static str, error: &dyn fmt::Display) {
        if let Some(left_out) = self.complaints.one_more() {
            warn!(%error, left_out, "{what}");
        }
    }

    /// Counts a message that is not ours. Logged once, since whoever writes one may write many.
    fn ignore(&self, what: &'static str) {
        if self.ignored.fetch_add(1, Ordering::Relaxed) == 0 {
            warn!(what, "ignored a message that no edge wrote; further ones are only counted");
        }
    }
}

impl Tasks {
    /// Starts a task that ends with the connection; none when there are too many.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Option<AbortHandle> {
        let mut tasks = self.0.lock();
        while tasks.try_join_next().is_some() {}
        (tasks.len() < TASKS).then(|| tasks.spawn(task))
    }
}

fn check_urls(urls: &[String]) -> Result<(), NatsError> {
    for (number, url) in (1..).zip(urls) {
        let address = url.parse::<async_nats::ServerAddr>().map_err(|_| NatsError::Url(number))?;
        let plain = address.username().is_none() && address.password().is_none() && !address.host().is_empty();
        if !plain || !matches!(address.scheme(), "nats" | "tls") {
            return Err(NatsError::Url(number));
        }
    }
    if urls.is_empty() { Err(NatsError::Url(1)) } else { Ok(()) }
}

/// How often connecting is tried before it fails: once with each URL.
fn tries(urls: &[String]) -> u32 {
    u32::try_from(urls.len()).unwrap_or(u32::MAX)
}

/// Whether a server that does not encrypt is refused. One URL with TLS decides for all, and for the servers that the
/// cluster tells of by itself, whose addresses say nothing about it.
fn needs_tls(config: &NatsConfig) -> bool {
    let asked = |url: &String| url.parse::<async_nats::ServerAddr>().is_ok_and(|server| server.tls_required());
    config.tls_root.is_some() || config.tls_identity.is_some() || config.urls.iter().any(asked)
}

async fn options(config: &NatsConfig, signals: Arc<Signals>) -> Result<ConnectOptions, NatsError> {
    let options = ConnectOptions::new()
        .name(&config.name)
        .connection_timeout(CONNECT_LIMIT)
        .ping_interval(PING_EVERY)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .client_capacity(COMMANDS)
        .reconnect_delay_callback(|attempt| reconnect_delay(attempt, fastrand::f64()))
        .event_callback(move |event| {
            signals.heard(&event);
            std::future::ready(())
        });
    let options = match &config.tls_root {
        Some(path) => options.add_root_certificates(path.clone()),
        None => options,
    };
    let options = match &config.tls_identity {
        Some((certificate, key)) => options.add_client_certificate(certificate.clone(), key.clone()),
        None => options,
    };
    let options = options.require_tls(needs_tls(config));
    match &config.auth {
        NatsAuth::Nobody => Ok(options),
        NatsAuth::User { user, password } => Ok(options.user_and_password(user.clone(), password.clone())),
        NatsAuth::Token(token) => Ok(options.token(token.clone())),
        NatsAuth::CredsFile(path) => options.credentials_file(path).await.map_err(NatsError::Credentials),
    }
}

/// How long to wait before this try to connect, the first being 1; `draw` is below 1.
fn reconnect_delay(attempt: usize, draw: f64) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    RECONNECT_FIRST.saturating_mul(1 << doublings).min(RECONNECT_MOST).mul_f64(draw)
}

/// Takes answers to their questions for as long as there is a connection. What nobody waits for any more came too late.
async fn take_answers(link: Arc<Link>, mut answers: async_nats::Subscriber) {
    while let Some(message) = answers.next().await {
        link.signals.replies.answer(message);
    }
}

/// Puts right what a lost event left wrong, and looks at each server's version.
async fn look(link: Arc<Link>) {
    let mut server = String::new();
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        link.signals.look(link.is_up());
        let now = link.client.server_info();
        if now.server_id != server {
            note_version(&now);
            server = now.server_id;
        }
    }
}

/// Says what is to be said of a server that was connected to. One that is too old is not left: it is one of a cluster
/// whose others are good enough, and soon rolled.
fn note_version(server: &async_nats::ServerInfo) {
    let name = &server.server_name;
    match ServerVersion::parse(&server.version) {
        Some(version) if version >= OLDEST && has_advisories(version) => {
            warn!(server = ?name, %version, "connected to a NATS server with known advisories");
        }
        Some(version) if version >= OLDEST => info!(server = ?name, %version, "connected to NATS"),
        _ => error!(server = ?name, version = ?server.version, "connected to a NATS server that is too old"),
    }
}

/// The text of a header, if it is there.
fn header<'a>(message: &'a Message, name: &'static str) -> Option<&'a str> {
    message.headers.as_ref()?.get(name).map(async_nats::HeaderValue::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconnects_wait_longer_each_time_and_never_all_the_same() {
        let most = |attempt| reconnect_delay(attempt, 1.0);
        assert_eq!(most(1), RECONNECT_FIRST);
        assert_eq!(most(3), RECONNECT_FIRST * 4);
        for attempt in [7, 8, 40, usize::MAX] {
            assert_eq!(most(attempt), RECONNECT_MOST);
        }
        assert_eq!(reconnect_delay(40, 0.0), Duration::ZERO);
        assert_eq!(reconnect_delay(0, 0.5), RECONNECT_FIRST / 2);
    }

    #[test]
    fn urls_are_of_servers_and_have_no_credentials() {
        let check = |url: &str| check_urls(&[url.to_owned()]);
        for good in ["nats://127.0.0.1:4222", "tls://nats.example:4222", "nats.example", "nats://[::1]:4222"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "nats://",
            "http://a:1",
            "wss://a:1",
            "nats://user@a:1",
            "nats://:secret@a:1",
            "nats://user:secret@a:1",
        ] {
            let error = check(bad).expect_err(bad);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert!(check_urls(&[]).is_err());
    }

    #[test]
    fn one_url_with_tls_or_a_root_requires_it_of_all_servers() {
        let config = |urls: &[&str]| NatsConfig::new(urls.iter().map(|url| (*url).to_owned()).collect(), "edge-1");
        assert!(!needs_tls(&config(&["nats://a:1", "b:1"])));
        assert!(needs_tls(&config(&["nats://a:1", "TLS://b:1"])));
        let identity = Some(("own.pem".into(), "own.key".into()));
        assert!(needs_tls(&NatsConfig { tls_identity: identity, ..config(&["nats://a:1"]) }));
        assert!(needs_tls(&NatsConfig { tls_root: Some("root.pem".into()), ..config(&["nats://a:1"]) }));
    }

    #[test]
    fn a_config_shows_no_secrets() {
        let mut config = NatsConfig::new(vec!["nats://a:1".into()], "edge-1");
        for auth in
            [NatsAuth::User { user: "edge".into(), password: "secret".into() }, NatsAuth::Token("secret".into())]
        {
            config.auth = auth;
            assert!(!format!("{config:?}").contains("secret"));
        }
    }
}
