//! Records of held commands survive a loss of the store: copies of them are kept in a bucket ([`riser_bus::kv`]).
//!
//! [`HeldCommands`] stands before any [`CommandStore`]. The store decides, and whatever it decided of a command that was told
//! to be held is in the copy before anybody is told: so a command is not answered `held` before it is kept twice, and not
//! written to a socket before the copy says `sent`. When the copy cannot be written the call fails; a repeated one writes it.
//!
//! A copy only moves forward. One that the store's record does not follow ([`Record::follows`]) tells that the store lost data:
//! then the store is given the copy ([`CommandStore::adopt`]), and the step is taken again. After a loss all copies are given
//! to it: whenever its [life](CommandStore::life) has changed, and twice, since a copy may have been on its way.
//!
//! Commands that were never held cost the bucket nothing, but for a step on one of which the store knows nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use riser_bus::kv::{Kv, KvError, Value, Written};
use riser_bus::{Bucket, Entry};
use riser_core::command::{CommandId, Digest, KEPT_MS, Outcome, Record, Step};
use riser_core::{EdgeId, Epoch, GatewayKey, TenantId};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::{CommandStore, Created, NewCommand, RegistryError, Stepped};

/// Between two looks whether the store lost something.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Between two tries to give the store its copies, when it or the bucket did not answer.
const TRY_EVERY: Duration = Duration::from_secs(1);
/// How often the store is given all copies after a loss: one that was on its way at the first time is there at the second.
const PASSES: u8 = 2;
/// How often a call is decided again, because the store had lost something or others wrote the copy in between.
const TRIES: usize = 8;
/// Copies of which it is remembered how they stand, so that looking at a command again costs the bucket nothing. One costs some
/// 200 bytes; beyond, all are read again.
const KNOWN: usize = 16_384;
/// For how long the copy of an undecided command stays after its deadline, beside [`KEPT_MS`]: a cluster that was away for a
/// day still finds it.
const UNDECIDED_KEPT: Duration = Duration::from_secs(86_400);

/// Who is to hear of final outcomes.
pub type OnFinal = Arc<dyn Fn(&GatewayKey, &Record) + Send + Sync>;

/// A command store whose held commands are kept twice. Clones are the same.
#[derive(Clone)]
pub struct HeldCommands {
    inner: Arc<Inner>,
    _keeper: Arc<Keeper>,
}

/// What was counted since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeldCounts {
    /// Copies that were written.
    pub copies: u64,
    /// Records that the store was given back.
    pub adopted: u64,
    /// Calls that failed because a copy could not be read or written.
    pub failures: u64,
    /// Copies that no edge wrote. They were ignored.
    pub bad: u64,
}

struct Inner {
    store: Arc<dyn CommandStore>,
    kv: Arc<dyn Kv>,
    on_final: OnFinal,
    known: Mutex<BTreeMap<Entry, Mark>>,
    /// In which of its lives the store has been given all copies.
    settled: Mutex<Option<u64>>,
    copies: AtomicU64,
    adopted: AtomicU64,
    failures: AtomicU64,
    bad: AtomicU64,
}

/// The task that gives copies to the store, which ends with it.
struct Keeper(JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How a copy stands. Of one command no two records that follow each other have the same.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mark {
    at_ms: u64,
    sends: u8,
    sent_to: Option<Epoch>,
    outcomes: usize,
    last_ms: u64,
}

impl Mark {
    fn of(record: &Record) -> Self {
        let last_ms = record.outcomes.last().map_or(0, |outcome| outcome.at_ms);
        let Record { sends, sent_to, .. } = *record;
        Self { at_ms: record.cmd.at_ms, sends, sent_to, outcomes: record.outcomes.len(), last_ms }
    }
}

/// What a copy tells, beside the record that the store gave.
enum Copy {
    /// It lacks something of the record, or there is none.
    Behind,
    /// It has all that the record has.
    Same,
    /// The store lost data.
    Lost,
}

impl Copy {
    fn compare(copy: Option<&Record>, record: &Record, now_ms: u64) -> Self {
        let is_over = |copy: &Record| copy.deadline_at_ms.saturating_add(KEPT_MS) <= now_ms;
        match copy {
            None => Self::Behind,
            Some(copy) if copy.follows(record) => Self::Same,
            Some(copy) if record.follows(copy) => Self::Behind,
            // A key that was used again after its time.
            Some(copy) if copy.cmd != record.cmd && is_over(copy) => Self::Behind,
            Some(_) => Self::Lost,
        }
    }
}

impl HeldCommands {
    /// Stands before a store. `on_final` hears of each final outcome that a step through here led to, before it is answered; it
    /// must not wait. Must be called within a runtime.
    pub fn new(store: Arc<dyn CommandStore>, kv: Arc<dyn Kv>, on_final: OnFinal) -> Self {
        let inner = Arc::new(Inner {
            store,
            kv,
            on_final,
            known: Mutex::default(),
            settled: Mutex::new(None),
            copies: AtomicU64::new(0),
            adopted: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            bad: AtomicU64::new(0),
        });
        let keeper = {
            let inner = inner.clone();
            #[expect(clippy::disallowed_methods, reason = "the keeper owns it")]
            tokio::spawn(async move { inner.watch_over().await })
        };
        Self { inner, _keeper: Arc::new(Keeper(keeper)) }
    }

    /// What was counted.
    pub fn counts(&self) -> HeldCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Inner { copies, adopted, failures, bad, .. } = &*self.inner;
        HeldCounts { copies: read(copies), adopted: read(adopted), failures: read(failures), bad: read(bad) }
    }

    /// Whether the store has all that was held, as far as is known.
    pub fn is_settled(&self) -> bool {
        self.inner.settled.lock().is_some()
    }
}

impl Inner {
    /// Gives the store all copies whenever it may have lost something.
    async fn watch_over(&self) {
        let (mut seen, mut passes) = (None, PASSES);
        loop {
            let pause = match self.look(&mut seen, &mut passes).await {
                Ok(()) => LOOK_EVERY,
                Err(_) => TRY_EVERY,
            };
            sleep(pause).await;
        }
    }

    async fn look(&self, seen: &mut Option<u64>, passes: &mut u8) -> Result<(), RegistryError> {
        let life = self.store.life().await?;
        if seen.replace(life) != Some(life) {
            // What is known of copies stays true; what the store has does not.
            *self.settled.lock() = None;
            *passes = PASSES;
        }
        if *passes > 0 {
            self.adopt_all().await?;
            *passes -= 1;
            *self.settled.lock() = Some(life);
        }
        Ok(())
    }

    async fn adopt_all(&self) -> Result<(), RegistryError> {
        let (mut after, mut adopted) = (0, 0_u64);
        loop {
            let page = self.kv.list(Bucket::Held, after).await.map_err(|error| self.failed(error))?;
            for (entry, value) in page.entries {
                let (Entry::Held(key, _), Some(copy)) = (&entry, self.read(&entry, &value)) else { continue };
                adopted += u64::from(self.adopt(key, &copy).await?);
            }
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        if adopted > 0 {
            info!(adopted, "the registry had lost held commands, and was given them back");
        }
        Ok(())
    }

    async fn adopt(&self, key: &GatewayKey, copy: &Record) -> Result<bool, RegistryError> {
        let adopted = self.store.adopt(key, copy).await?;
        self.adopted.fetch_add(u64::from(adopted), Ordering::Relaxed);
        Ok(adopted)
    }

    /// Reads a copy; none when it is something else.
    fn read(&self, entry: &Entry, value: &Value) -> Option<Record> {
        let record = serde_json::from_slice::<Record>(&value.bytes).ok().filter(|record| {
            matches!(entry, Entry::Held(key, digest) if (&key.address, *digest) == (&record.cmd.of, record.cmd.digest))
        });
        if record.is_none() && self.bad.fetch_add(1, Ordering::Relaxed) == 0 {
            warn!("ignored the copy of a held command that no edge wrote; further ones are only counted");
        }
        record
    }

    async fn copy(&self, entry: &Entry) -> Result<Option<(Option<Record>, u64)>, RegistryError> {
        let value = self.kv.get(entry).await.map_err(|error| self.failed(error))?;
        Ok(value.map(|value| (self.read(entry, &value), value.revision)))
    }

    fn failed(&self, error: KvError) -> RegistryError {
        self.failures.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%error, "the copy of a held command could not be read or written");
        RegistryError::Unavailable
    }

    /// Gives the store the copy of a command of which it knows nothing, if there is one.
    async fn recall(&self, key: &GatewayKey, digest: Digest, cmd: Option<&CommandId>) -> Result<bool, RegistryError> {
        let copy = self.copy(&Entry::Held(key.clone(), digest)).await?.and_then(|(copy, _)| copy);
        match copy.filter(|copy| cmd.is_none_or(|cmd| *cmd == copy.cmd)) {
            Some(copy) => self.adopt(key, &copy).await.map(|_| true),
            None => Ok(false),
        }
    }

    /// Sees to it that the copy of a held command has what was decided. False when the store had lost data, and has been given
    /// them: then what was decided is void.
    async fn keep(&self, key: &GatewayKey, stepped: &Stepped) -> Result<bool, RegistryError> {
        let record = &stepped.record;
        if !record.was_held() {
            self.tell(key, stepped);
            return Ok(true);
        }
        let entry = Entry::Held(key.clone(), record.cmd.digest);
        if self.known.lock().get(&entry) == Some(&Mark::of(record)) {
            return Ok(true);
        }
        for _ in 0..TRIES {
            let (copy, revision) = self.copy(&entry).await?.unwrap_or_default();
            match Copy::compare(copy.as_ref(), record, stepped.now_ms) {
                Copy::Same => {
                    self.note(&entry, copy.as_ref().unwrap_or(record));
                    return Ok(true);
                }
                Copy::Lost => {
                    if let Some(copy) = &copy {
                        self.adopt(key, copy).await?;
                    }
                    return Ok(false);
                }
                Copy::Behind => {}
            }
            let bytes = serde_json::to_vec(record).map_err(|_| RegistryError::Unavailable)?.into();
            let ttl = time_to_live(record, stepped.now_ms);
            match self.kv.put(&entry, bytes, revision, Some(ttl)).await.map_err(|error| self.failed(error))? {
                Written::Yes(_) => {
                    self.copies.fetch_add(1, Ordering::Relaxed);
                    self.note(&entry, record);
                    // Whoever writes the final outcome into the copy tells of it, also when the answer to who decided it was lost.
                    if copy.is_none_or(|copy| copy.cmd != record.cmd || copy.decided().is_none()) {
                        self.tell_final(key, record);
                    }
                    return Ok(true);
                }
                Written::Conflict => {}
            }
        }
        Err(RegistryError::Unavailable)
    }

    fn note(&self, entry: &Entry, copy: &Record) {
        let mut known = self.known.lock();
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(entry.clone(), Mark::of(copy));
    }

    /// Tells of a command that was not held.
    fn tell(&self, key: &GatewayKey, stepped: &Stepped) {
        if stepped.record.outcomes.iter().skip(stepped.before).any(Outcome::is_final) {
            self.tell_final(key, &stepped.record);
        }
    }

    fn tell_final(&self, key: &GatewayKey, record: &Record) {
        if record.decided().is_some() {
            (self.on_final)(key, record);
        }
    }
}

/// Writes the copies of those commands that are held, unless they are there: of a gateway that was restored from a backup.
/// `now_ms` is any clock that is about right.
pub async fn copy_held(kv: &dyn Kv, key: &GatewayKey, records: &[Record], now_ms: u64) -> Result<(), KvError> {
    for record in records.iter().filter(|record| record.was_held() && record.decided().is_none()) {
        let bytes = serde_json::to_vec(record).map_err(|_| KvError::Unavailable)?.into();
        let entry = Entry::Held(key.clone(), record.cmd.digest);
        // One that is there was written by a restore that was aborted.
        kv.put(&entry, bytes, 0, Some(time_to_live(record, now_ms))).await?;
    }
    Ok(())
}

/// For how long a copy stays.
fn time_to_live(record: &Record, now_ms: u64) -> Duration {
    let known = Duration::from_millis(record.deadline_at_ms.saturating_add(KEPT_MS).saturating_sub(now_ms));
    if record.decided().is_some() { known } else { known + UNDECIDED_KEPT }
}

#[async_trait]
impl CommandStore for HeldCommands {
    async fn create(&self, key: &GatewayKey, command: &NewCommand) -> Result<Created, RegistryError> {
        let inner = &*self.inner;
        if command.body.hold {
            let life = inner.store.life().await?;
            let is_settled = *inner.settled.lock() == Some(life);
            if !is_settled {
                // It may be one that was held, also when its gateway is connected now.
                inner.recall(key, command.digest, None).await?;
            }
        }
        for _ in 0..TRIES {
            let created = inner.store.create(key, command).await?;
            match &created {
                Created::Recorded(stepped) if !inner.keep(key, stepped).await? => {}
                _ => return Ok(created),
            }
        }
        Err(RegistryError::Unavailable)
    }

    async fn step(&self, key: &GatewayKey, cmd: &CommandId, step: &Step) -> Result<Option<Stepped>, RegistryError> {
        let inner = &*self.inner;
        for _ in 0..TRIES {
            match inner.store.step(key, cmd, step).await? {
                Some(stepped) if inner.keep(key, &stepped).await? => return Ok(Some(stepped)),
                Some(_) => {}
                None if inner.recall(key, cmd.digest, Some(cmd)).await? => {}
                None => return Ok(None),
            }
        }
        // A copy that the store does not take any more, since its time is over; or the store loses data again and again.
        let known = inner.store.step(key, cmd, &Step::Look).await?;
        if known.is_none() { Ok(None) } else { Err(RegistryError::Unavailable) }
    }

    async fn open(&self, key: &GatewayKey, after: u64, limit: usize) -> Result<Vec<Record>, RegistryError> {
        self.inner.store.open(key, after, limit).await
    }

    async fn latest(&self, key: &GatewayKey, before: Option<u64>, limit: usize) -> Result<Vec<Record>, RegistryError> {
        self.inner.store.latest(key, before, limit).await
    }

    async fn undecided(&self, tenant: &TenantId) -> Result<u64, RegistryError> {
        self.inner.store.undecided(tenant).await
    }

    async fn overdue(&self, by: &EdgeId) -> Result<Vec<(TenantId, CommandId)>, RegistryError> {
        self.inner.store.overdue(by).await
    }

    async fn adopt(&self, key: &GatewayKey, copy: &Record) -> Result<bool, RegistryError> {
        self.inner.store.adopt(key, copy).await
    }

    async fn life(&self) -> Result<u64, RegistryError> {
        self.inner.store.life().await
    }
}
