//! The ledger: what became of every command, for those who ask later. One stream for all tenants.
//!
//! Nobody waits for it: entries go through a bounded queue, and what does not fit or cannot be written is lost and counted. An
//! entry has neither arguments nor data. Two edges may write the same one, as after an answer that was lost: it is kept once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::future::join_all;
use riser_core::command::{Action, CommandId, Record, ResultCode, Status};
use riser_core::{GatewayKey, Path, Pattern, TenantId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::jetstream::{Ack, BATCH_BYTES, Info, JetStream, Trouble, nanos};
use super::log::{CALL_LIMIT, Tries};
use super::{LedgerConfig, NatsClient};
use crate::log::LogError;
use crate::subject::{LEDGER_STREAM, LedgerSubject};

/// Entries that wait to be written: some seconds of what an edge decides at its busiest. Each has some hundred bytes.
const QUEUE: usize = 16_384;
/// Entries that are written at once.
const IN_FLIGHT: usize = 64;
/// How often an entry is tried to be written: a leader that dies has another after 7 to 8 s.
const TRIES: usize = 5;
/// For how long the same entry is kept once.
const WINDOW: Duration = Duration::from_secs(120);
/// Most entries that one page gives.
pub const LEDGER_PAGE: usize = 256;

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// Its name.
    pub cmd: CommandId,
    /// With which device or property.
    pub path: Path,
    /// What was to be done.
    pub action: Action,
    /// Who issued it.
    pub by: String,
    /// What became of it, up to its final outcome.
    pub outcomes: Vec<LedgerOutcome>,
}

/// An outcome without its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerOutcome {
    /// What.
    pub status: Status,
    /// The gateway's own word for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ResultCode>,
    /// When, Unix milliseconds on the registry's clock.
    pub at_ms: u64,
}

impl LedgerEntry {
    fn of(record: &Record) -> Self {
        let outcomes = record.outcomes.iter().filter(|outcome| !outcome.late);
        let outcome = |outcome: &riser_core::command::Outcome| LedgerOutcome {
            status: outcome.status,
            code: outcome.code.clone(),
            at_ms: outcome.at_ms,
        };
        Self {
            cmd: record.cmd.clone(),
            path: record.body.path.clone(),
            action: record.body.action.clone(),
            by: record.by.clone(),
            outcomes: outcomes.map(outcome).collect(),
        }
    }
}

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerFrom {
    /// With what was written from then on, Unix milliseconds.
    Since(u64),
    /// After the page before.
    After(u64),
}

/// Some entries in the order in which they were written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LedgerPage {
    /// The entries.
    pub entries: Vec<LedgerEntry>,
    /// Where the next page begins; none when this was the last.
    pub next: Option<LedgerFrom>,
}

/// Writes the ledger of one process. Clones are the same.
#[derive(Clone)]
pub struct NatsLedger {
    queue: mpsc::Sender<(GatewayKey, LedgerEntry)>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    written: AtomicU64,
    lost: AtomicU64,
}

struct Writer {
    jetstream: JetStream,
    config: LedgerConfig,
    counts: Arc<Counts>,
}

impl NatsLedger {
    pub(super) fn start(client: &NatsClient, config: LedgerConfig) -> Option<Self> {
        let (queue, entries) = mpsc::channel(QUEUE);
        let counts = Arc::<Counts>::default();
        let writer = Writer { jetstream: JetStream(client.link.clone()), config, counts: counts.clone() };
        client.tasks.spawn(writer.write(entries))?;
        Some(Self { queue, counts })
    }

    /// Notes what became of a command. Does not wait.
    pub fn note(&self, key: &GatewayKey, record: &Record) {
        if self.queue.try_send((key.clone(), LedgerEntry::of(record))).is_err() {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Entries that were written, and entries that were lost.
    pub fn counts(&self) -> (u64, u64) {
        (self.counts.written.load(Ordering::Relaxed), self.counts.lost.load(Ordering::Relaxed))
    }
}

impl Writer {
    async fn write(self, mut entries: mpsc::Receiver<(GatewayKey, LedgerEntry)>) {
        let (mut batch, mut is_first) = (Vec::with_capacity(IN_FLIGHT), true);
        while entries.recv_many(&mut batch, IN_FLIGHT).await > 0 {
            if std::mem::take(&mut is_first) {
                self.ensure().await;
            }
            join_all(batch.iter().map(|(key, entry)| self.write_one(key, entry))).await;
            batch.clear();
        }
    }

    async fn write_one(&self, key: &GatewayKey, entry: &LedgerEntry) {
        let mut tries = Tries::default();
        for _ in 0..TRIES {
            match self.store(key, entry).await {
                Ok(()) => {
                    self.counts.written.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(Trouble::Full) => break,
                // There may be no stream, or none any more.
                Err(_) => self.ensure().await,
            }
            tries.pause().await;
        }
        self.counts.lost.fetch_add(1, Ordering::Relaxed);
    }

    async fn store(&self, key: &GatewayKey, entry: &LedgerEntry) -> Result<(), Trouble> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("{} {}", key.tenant, entry.cmd));
        let payload: Bytes = serde_json::to_vec(entry).map_err(|_| Trouble::Full)?.into();
        let subject = LedgerSubject(key.clone()).to_string();
        let ack: Ack = self.jetstream.parse("store", &self.jetstream.one(subject, headers, payload).await?)?;
        if ack.stream == LEDGER_STREAM { Ok(()) } else { Err(Trouble::Silent) }
    }

    /// Makes the stream, or has it follow the configuration. When that fails, writing shows it.
    async fn ensure(&self) {
        let _shown_by_writing = self.try_ensure().await;
    }

    async fn try_ensure(&self) -> Result<(), Trouble> {
        let mut config = match self.jetstream.call::<Info>("STREAM.INFO", LEDGER_STREAM, &json!({})).await {
            Ok(info) => info.config,
            Err(Trouble::Missing) => Value::Null,
            Err(trouble) => return Err(trouble),
        };
        let before = config.clone();
        if before.is_null() {
            config = json!({
                "name": LEDGER_STREAM,
                "subjects": [LedgerSubject::all()],
                "storage": "file",
                "retention": "limits",
                "discard": "old",
                "max_consumers": -1,
                "max_msgs": -1,
                "max_msgs_per_subject": -1,
                "max_msg_size": -1,
                "allow_direct": true,
            });
        }
        let LedgerConfig { replicas, max_age, max_bytes } = &self.config;
        config["num_replicas"] = json!(replicas);
        config["max_age"] = json!(nanos(*max_age));
        config["max_bytes"] = json!(max_bytes);
        config["duplicate_window"] = json!(nanos(WINDOW));
        if config == before {
            return Ok(());
        }
        let call = if before.is_null() { "STREAM.CREATE" } else { "STREAM.UPDATE" };
        self.jetstream.call::<Value>(call, LEDGER_STREAM, &config).await.map(drop)
    }
}

/// Reads a page.
pub(super) async fn read(
    client: &NatsClient,
    tenant: &TenantId,
    pattern: &Pattern,
    from: LedgerFrom,
) -> Result<LedgerPage, LogError> {
    let subjects = LedgerSubject::of(tenant, pattern);
    timeout(CALL_LIMIT, page(client, &subjects, from)).await.ok().and_then(Result::ok).ok_or(LogError::Unavailable)
}

async fn page(client: &NatsClient, subjects: &str, from: LedgerFrom) -> Result<LedgerPage, Trouble> {
    let jetstream = JetStream(client.link.clone());
    // An empty answer may also come of nobody being there to answer.
    match jetstream.call::<Value>("STREAM.INFO", LEDGER_STREAM, &json!({})).await {
        Err(Trouble::Missing) => return Ok(LedgerPage::default()),
        info => drop(info?),
    }
    let mut asked = json!({ "next_by_subj": subjects, "batch": LEDGER_PAGE, "max_bytes": BATCH_BYTES });
    match from {
        LedgerFrom::Since(at_ms) => asked["start_time"] = json!(riser_core::time::rfc3339(at_ms)),
        LedgerFrom::After(seq) => asked["seq"] = json!(seq.saturating_add(1)),
    }
    let page = jetstream.batch(LEDGER_STREAM, &asked, LEDGER_PAGE).await?;
    let next = page.last().map(|newest| LedgerFrom::After(newest.seq));
    let mut entries = vec![];
    for kept in page {
        let of = LedgerSubject::parse(&kept.subject).map(|LedgerSubject(key)| key.address);
        let entry = serde_json::from_slice::<LedgerEntry>(&kept.payload).ok();
        match entry.filter(|entry| of.is_some_and(|of| of == entry.cmd.of)) {
            Some(entry) => entries.push(entry),
            None => jetstream.0.signals.ignore("an entry of the ledger"),
        }
    }
    Ok(LedgerPage { entries, next })
}
