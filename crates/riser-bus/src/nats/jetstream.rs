//! What is asked of JetStream: a few calls of its JSON interface, each with a time limit. Those of the log are here; those of
//! the buckets are made of them in `kv`.
//!
//! Only the leader of a stream answers for where it stands. Events are read from whichever copy is nearest, which may be
//! a moment behind: what it does not have is asked of the leader.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, Message, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use riser_core::TenantId;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Link, LogConfig, NotSent, header, time};
use crate::log::Bounds;
use crate::subject::{EventSubject, event_stream};

/// How long one call may take. JetStream answers in milliseconds; when the server that was to answer is gone, another one
/// may answer the next call.
pub(super) const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);
/// The shortest deduplication window that JetStream takes.
const SHORTEST_WINDOW: Duration = Duration::from_millis(100);
/// Bytes of events that one call brings, so that other messages of the connection do not wait for long.
pub(super) const BATCH_BYTES: u64 = 4 << 20;

/// What the mark of a restore is called among what a stream says of itself.
const MARK: &str = "riser-restore";

/// Numbers that JetStream gives its errors, and what they mean here.
mod codes {
    pub(super) const NO_MESSAGE: u64 = 10_037;
    /// Of a message that is to be deleted and is not there, with the store's own words.
    pub(super) const NOT_DELETED: u64 = 10_057;
    pub(super) const STREAM_NOT_FOUND: u64 = 10_059;
    pub(super) const STREAM_NAME_IN_USE: u64 = 10_058;
    /// The same event is being stored at this moment; asked again, JetStream says where.
    pub(super) const IN_PROCESS: u64 = 10_158;
    /// The last message of a subject is not the one that was expected.
    pub(super) const CONFLICT: [u64; 2] = [10_071, 10_164];
    /// A stream that refuses what is new has no room, or its store cannot write.
    pub(super) const STORE_FAILED: u64 = 10_077;
    /// The account, the servers' memory, the number of streams, or the servers' disk.
    pub(super) const FULL: [u64; 6] = [10_002, 10_023, 10_027, 10_028, 10_047, STORE_FAILED];
}

/// Why a call has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nobody answered, or with something that cannot be read.
    Silent,
    /// The store has no room.
    Full,
    /// There is a stream of this name already.
    Taken,
    /// There is no such stream or message.
    Missing,
    /// Something else is there than what was expected.
    Conflict,
    /// Another error of JetStream, by its number.
    Failed(u64),
}

impl From<NotSent> for Trouble {
    fn from(_: NotSent) -> Self {
        Self::Silent
    }
}

/// A tenant's stream as its leader tells.
pub(super) struct Stream {
    pub(super) bounds: Bounds,
    /// How long it finds repeats.
    pub(super) window: Duration,
    /// Events that it keeps.
    pub(super) events: u64,
    /// Bytes that these take in each copy.
    pub(super) bytes: u64,
    /// Servers that have a copy of all of it, or are not known to be others than one.
    pub(super) copies: usize,
    /// Servers that should have one and do not, or are away.
    pub(super) behind: Vec<String>,
    /// All its settings, also those that we know nothing of.
    config: Value,
}

impl Stream {
    /// The mark of the restore that made it.
    pub(super) fn mark(&self) -> Option<&str> {
        self.config["metadata"][MARK].as_str()
    }
}

/// What was stored.
pub(super) struct Kept {
    pub(super) subject: String,
    pub(super) seq: u64,
    pub(super) at_ms: u64,
    pub(super) payload: Bytes,
}

/// Where an event was stored.
#[derive(Deserialize)]
pub(super) struct Ack {
    pub(super) stream: String,
    pub(super) seq: u64,
    #[serde(default)]
    pub(super) duplicate: bool,
}

#[derive(Deserialize)]
pub(super) struct Info {
    pub(super) config: Value,
    state: State,
    cluster: Option<Cluster>,
}

/// Where the copies of a stream are; none when there is one server.
#[derive(Deserialize)]
struct Cluster {
    leader: Option<String>,
    replicas: Option<Vec<Replica>>,
}

#[derive(Deserialize)]
struct Replica {
    name: String,
    #[serde(default)]
    current: bool,
    #[serde(default)]
    offline: bool,
}

#[derive(Deserialize)]
struct State {
    messages: u64,
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
}

#[derive(Deserialize)]
struct Names {
    total: u64,
    /// None when there are none.
    streams: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Consumer {
    /// Messages that it has not sent yet.
    num_pending: u64,
}

#[derive(Deserialize)]
struct Got {
    message: GotMessage,
}

/// A message as the leader of its stream gives it.
#[derive(Deserialize)]
struct GotMessage {
    subject: String,
    seq: u64,
    #[serde(default)]
    data: String,
    time: String,
}

/// JetStream, as seen through the process' connection.
#[derive(Clone)]
pub(super) struct JetStream(pub(super) Arc<Link>);

impl JetStream {
    /// Whether it says anything of this user's account.
    pub(super) async fn answers(&self) -> bool {
        let asked = self.one("$JS.API.INFO".into(), HeaderMap::new(), Bytes::new()).await;
        asked.is_ok_and(|message| self.parse::<Value>("INFO", &message).is_ok())
    }

    /// A tenant's stream, if there is one.
    pub(super) async fn stream(&self, tenant: &TenantId) -> Result<Option<Stream>, Trouble> {
        match self.call("STREAM.INFO", &event_stream(tenant), &json!({})).await {
            Ok(info) => self.read_stream(tenant, info).map(Some),
            Err(Trouble::Missing) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// The names of all streams of the account.
    pub(super) async fn names(&self) -> Result<Vec<String>, Trouble> {
        let mut all = vec![];
        let mut seen = 0;
        loop {
            let asked = body(&json!({ "offset": seen }));
            let answer = self.one("$JS.API.STREAM.NAMES".into(), HeaderMap::new(), asked).await?;
            let Names { total, streams } = self.parse("STREAM.NAMES", &answer)?;
            let names = streams.unwrap_or_default();
            seen += names.len() as u64;
            let done = names.is_empty() || seen >= total;
            all.extend(names);
            if done {
                return Ok(all);
            }
        }
    }

    /// Makes a tenant's stream, in a life of its own. A restore marks those that it makes.
    pub(super) async fn create(
        &self,
        tenant: &TenantId,
        log: &LogConfig,
        window: Duration,
        mark: Option<&str>,
    ) -> Result<Stream, Trouble> {
        let name = event_stream(tenant);
        let subject = EventSubject { tenant: tenant.clone(), life: fastrand::u64(1..) };
        let mut config = json!({
            "name": name,
            "subjects": [subject.to_string()],
            "storage": "file",
            "retention": "limits",
            "discard": "old",
            "max_consumers": -1,
            "max_msgs_per_subject": -1,
            "max_msg_size": -1,
            "allow_direct": true,
        });
        set_limits(&mut config, log, window);
        if let Some(mark) = mark {
            config["metadata"] = json!({ MARK: mark });
        }
        let info = self.call("STREAM.CREATE", &name, &config).await?;
        self.read_stream(tenant, info)
    }

    /// Makes a stream follow the settings, if it does not. Its window never becomes shorter. What cannot be followed now,
    /// as when there are too few servers for the copies, is left as it is: it is no reason to refuse events.
    pub(super) async fn follow(
        &self,
        tenant: &TenantId,
        stream: Stream,
        log: &LogConfig,
        window: Duration,
    ) -> Result<Stream, Trouble> {
        let mut config = stream.config.clone();
        set_limits(&mut config, log, window.max(stream.window));
        if config == stream.config {
            return Ok(stream);
        }
        match self.update(tenant, &config).await {
            Err(Trouble::Failed(_) | Trouble::Full) if stream.window >= window => Ok(stream),
            Err(Trouble::Failed(_) | Trouble::Full) => {
                let mut only_window = stream.config;
                only_window["duplicate_window"] = config["duplicate_window"].take();
                self.update(tenant, &only_window).await
            }
            answer => answer,
        }
    }

    async fn update(&self, tenant: &TenantId, config: &Value) -> Result<Stream, Trouble> {
        let info = self.call("STREAM.UPDATE", &event_stream(tenant), config).await?;
        self.read_stream(tenant, info)
    }

    /// Drops the oldest events but for so many.
    pub(super) async fn keep(&self, tenant: &TenantId, events: u64) -> Result<(), Trouble> {
        self.call::<Value>("STREAM.PURGE", &event_stream(tenant), &json!({ "keep": events })).await.map(drop)
    }

    /// Deletes a tenant's stream. One that is not there is deleted already.
    pub(super) async fn delete(&self, tenant: &TenantId) -> Result<(), Trouble> {
        match self.call::<Value>("STREAM.DELETE", &event_stream(tenant), &json!({})).await {
            Err(Trouble::Missing) => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Deletes one event, and writes over what it held. One that is not there is deleted already.
    pub(super) async fn delete_event(&self, tenant: &TenantId, seq: u64) -> Result<(), Trouble> {
        let asked = json!({ "seq": seq, "no_erase": false });
        match self.call::<Value>("STREAM.MSG.DELETE", &event_stream(tenant), &asked).await {
            Err(Trouble::Missing) => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Stores an event under a name that is found again within the stream's window.
    pub(super) async fn store(&self, subject: &EventSubject, id: &str, payload: Bytes) -> Result<Ack, Trouble> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id);
        self.store_with(subject, headers, payload).await
    }

    /// Stores an event right after the one of this number, or not at all.
    pub(super) async fn store_after(&self, subject: &EventSubject, last: u64, payload: Bytes) -> Result<Ack, Trouble> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Sequence", last.to_string());
        self.store_with(subject, headers, payload).await
    }

    async fn store_with(&self, subject: &EventSubject, headers: HeaderMap, payload: Bytes) -> Result<Ack, Trouble> {
        let ack: Ack = self.parse("store", &self.one(subject.to_string(), headers, payload).await?)?;
        if ack.stream != event_stream(&subject.tenant) {
            self.0.signals.ignore("a stream");
            return Err(Trouble::Silent);
        }
        Ok(ack)
    }

    /// The events of a stream from this number on, at least one if there is one.
    pub(super) async fn page(&self, subject: &EventSubject, seq: u64, most: usize) -> Result<Vec<Kept>, Trouble> {
        let stream = event_stream(&subject.tenant);
        let page = self.batch(&stream, &json!({ "seq": seq, "batch": most, "max_bytes": BATCH_BYTES }), most).await?;
        if !page.is_empty() {
            return Ok(page);
        }
        let next = self.ask_leader(&stream, &json!({ "seq": seq, "next_by_subj": subject.to_string() })).await?;
        Ok(next.into_iter().collect())
    }

    /// What a stream has on these subjects from this number on, at least one message if there is one.
    pub(super) async fn page_of(
        &self,
        stream: &str,
        subjects: &str,
        seq: u64,
        most: usize,
    ) -> Result<Vec<Kept>, Trouble> {
        let mut asked = json!({ "seq": seq, "next_by_subj": subjects });
        let of_leader = asked.clone();
        asked["batch"] = json!(most);
        asked["max_bytes"] = json!(BATCH_BYTES);
        let page = self.batch(stream, &asked, most).await?;
        if page.is_empty() { Ok(self.ask_leader(stream, &of_leader).await?.into_iter().collect()) } else { Ok(page) }
    }

    /// Messages of a stream from the nearest copy, which may lack the newest.
    pub(super) async fn batch(&self, stream: &str, asked: &Value, most: usize) -> Result<Vec<Kept>, Trouble> {
        let name = format!("$JS.API.DIRECT.GET.{stream}");
        // One more for the word that ends them.
        let mut question = self.0.ask(name, HeaderMap::new(), body(asked), most + 1).await?;
        let mut page = vec![];
        while page.len() < most {
            let message = timeout(ATTEMPT_LIMIT, question.next()).await.ok().flatten().ok_or(Trouble::Silent)?;
            match read_kept(&message) {
                Some(kept) => page.push(kept),
                None if message.status.is_some() => break,
                None => return Err(Trouble::Silent),
            }
        }
        Ok(page)
    }

    /// The message that was asked for, as the stream's leader has it.
    pub(super) async fn ask_leader(&self, stream: &str, asked: &Value) -> Result<Option<Kept>, Trouble> {
        let got = match self.call::<Got>("STREAM.MSG.GET", stream, asked).await {
            Err(Trouble::Missing) => return Ok(None),
            got => got?.message,
        };
        let GotMessage { subject, seq, data, time } = got;
        let payload = STANDARD.decode(data).map_err(|_| Trouble::Silent)?.into();
        Ok(Some(Kept { subject, seq, at_ms: time::millis(&time).ok_or(Trouble::Silent)?, payload }))
    }

    /// Makes a consumer that sends what is stored from this number on, until nobody listens any more.
    pub(super) async fn consume(&self, tenant: &TenantId, name: &str, to: &str, from: u64) -> Result<(), Trouble> {
        let from = json!({ "deliver_policy": "by_start_sequence", "opt_start_seq": from });
        self.push(&event_stream(tenant), name, to, &from).await.map(drop)
    }

    /// Makes a consumer that sends what it is asked for to a subject, until nobody listens any more, and says how much that is
    /// now.
    pub(super) async fn push(&self, stream: &str, name: &str, to: &str, what: &Value) -> Result<u64, Trouble> {
        let mut config = json!({
            "name": name,
            "deliver_subject": to,
            "ack_policy": "none",
            "max_deliver": 1,
            "replay_policy": "instant",
            "flow_control": true,
            "idle_heartbeat": nanos(super::tail::HEARTBEAT),
            "inactive_threshold": nanos(super::tail::INACTIVE),
            "num_replicas": 1,
            "mem_storage": true,
        });
        for (field, value) in what.as_object().into_iter().flatten() {
            config[field] = value.clone();
        }
        let asked = json!({ "stream_name": stream, "action": "create", "config": config });
        let made: Consumer = self.call("CONSUMER.CREATE", &format!("{stream}.{name}"), &asked).await?;
        Ok(made.num_pending)
    }

    /// Ends a consumer; if that is lost, it ends by itself.
    pub(super) async fn end_consumer(&self, stream: &str, name: &str) {
        let subject = format!("$JS.API.CONSUMER.DELETE.{stream}.{name}");
        drop(self.0.send(subject, HeaderMap::new(), Bytes::new()).await);
    }

    fn read_stream(&self, tenant: &TenantId, info: Info) -> Result<Stream, Trouble> {
        let Info { config, state, cluster } = info;
        let subject = config["subjects"][0].as_str().and_then(EventSubject::parse);
        let Some(EventSubject { life, .. }) = subject.filter(|subject| subject.tenant == *tenant) else {
            self.0.signals.ignore("a stream");
            return Err(Trouble::Silent);
        };
        let (copies, behind) = cluster.map_or((1, vec![]), copies);
        let first = if state.messages == 0 { state.last_seq + 1 } else { state.first_seq };
        Ok(Stream {
            bounds: Bounds { life, first, last: state.last_seq },
            window: Duration::from_nanos(config["duplicate_window"].as_u64().unwrap_or_default()),
            events: state.messages,
            bytes: state.bytes,
            copies,
            behind,
            config,
        })
    }

    /// Makes one call of JetStream's interface.
    pub(super) async fn call<T: for<'de> Deserialize<'de>>(
        &self,
        call: &str,
        of: &str,
        asked: &Value,
    ) -> Result<T, Trouble> {
        self.parse(call, &self.one(format!("$JS.API.{call}.{of}"), HeaderMap::new(), body(asked)).await?)
    }

    /// Reads an answer, or the error in it.
    pub(super) fn parse<T: for<'de> Deserialize<'de>>(&self, call: &str, message: &Message) -> Result<T, Trouble> {
        let value: Value = serde_json::from_slice(&message.payload).map_err(|_| Trouble::Silent)?;
        let Some(error) = value.get("error") else {
            return T::deserialize(value).map_err(|_| Trouble::Silent);
        };
        let code = error["err_code"].as_u64().unwrap_or_default();
        let trouble = match code {
            codes::NO_MESSAGE | codes::NOT_DELETED | codes::STREAM_NOT_FOUND => Trouble::Missing,
            codes::STREAM_NAME_IN_USE => Trouble::Taken,
            codes::IN_PROCESS => Trouble::Silent,
            code if codes::CONFLICT.contains(&code) => Trouble::Conflict,
            code if codes::FULL.contains(&code) => Trouble::Full,
            code => Trouble::Failed(code),
        };
        if matches!(trouble, Trouble::Full | Trouble::Failed(_)) {
            let why = error["description"].as_str().unwrap_or_default();
            self.0.signals.complain("JetStream refused a call", &format_args!("{call}: {why:?} ({code})"));
        }
        Err(trouble)
    }

    /// Asks what has one answer.
    pub(super) async fn one(&self, subject: String, headers: HeaderMap, payload: Bytes) -> Result<Message, Trouble> {
        let answer = async {
            let mut question = self.0.ask(subject, headers, payload, 1).await?;
            question.next().await.ok_or(Trouble::Silent)
        };
        let message = timeout(ATTEMPT_LIMIT, answer).await.map_err(|_| Trouble::Silent)??;
        if message.status == Some(StatusCode::NO_RESPONDERS) { Err(Trouble::Silent) } else { Ok(message) }
    }
}

/// How many servers have a copy of all of a stream, and which should and have not.
fn copies(cluster: Cluster) -> (usize, Vec<String>) {
    let (good, behind): (Vec<_>, Vec<_>) =
        cluster.replicas.unwrap_or_default().into_iter().partition(|replica| replica.current && !replica.offline);
    let leader = usize::from(cluster.leader.is_some_and(|leader| !leader.is_empty()));
    (good.len() + leader, behind.into_iter().map(|replica| replica.name).collect())
}

/// The settings that follow the configuration.
fn set_limits(config: &mut Value, log: &LogConfig, window: Duration) {
    let window = window.max(SHORTEST_WINDOW).min(log.max_age);
    config["num_replicas"] = json!(log.replicas);
    config["max_age"] = json!(nanos(log.max_age));
    // None: see `LogConfig::max_bytes`.
    config["max_bytes"] = json!(-1);
    config["max_msgs"] = json!(log.max_events);
    config["duplicate_window"] = json!(nanos(window));
}

/// JetStream's unit of time; none of its fields holds more than this type's half.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).min(u64::MAX / 2)
}

fn body(value: &Value) -> Bytes {
    value.to_string().into()
}

/// An event as a copy of the stream gives it; none when it is something else.
fn read_kept(message: &Message) -> Option<Kept> {
    if message.status.is_some() {
        return None;
    }
    Some(Kept {
        subject: header(message, "Nats-Subject")?.to_owned(),
        seq: header(message, "Nats-Sequence")?.parse().ok()?,
        at_ms: time::millis(header(message, "Nats-Time-Stamp")?)?,
        payload: message.payload.clone(),
    })
}
