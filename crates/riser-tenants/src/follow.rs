//! How an edge follows the bucket of tenants: the table that it verifies credentials with, kept up as long as the process
//! lives.
//!
//! A tenant that is known stays known until a stone says that it was deleted. An entry that is gone, a bucket that is empty or
//! cannot be reached, and a document that cannot be read change nothing: edges serve what they know.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use riser_bus::kv::{Kv, Seen, Value, Watch};
use riser_bus::{Bucket, Entry};
use riser_core::{TenantId, TenantTable};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::kept::Kept;

/// Before a watch that could not begin, or has ended, is begun again.
const RETRY: Duration = Duration::from_secs(1);
/// How long the first look at the bucket may take: NATS fails over in 8 s.
const FIRST: Duration = Duration::from_secs(30);
/// Changes that are taken before the table is published: what a watch begins with makes one table, not thousands.
const BATCH: usize = 256;

/// The bucket could not be read in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the bucket of tenants cannot be read: see that JetStream answers, and that this user may read KV_riser-tenants"
)]
pub struct NotRead;

/// What is counted of documents.
#[derive(Clone)]
pub struct FollowMetrics {
    /// `taken`, `refused`, `deleted`.
    documents: IntCounterVec,
    tenants: IntGauge,
}

impl FollowMetrics {
    /// Registers them.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let about = "Documents of tenants that were seen in the bucket, by what became of them.";
        let documents = IntCounterVec::new(Opts::new("riser_tenant_documents_total", about), &["outcome"])?;
        for outcome in ["taken", "refused", "deleted"] {
            documents.with_label_values(&[outcome]);
        }
        let tenants = IntGauge::new("riser_tenants", "Tenants that are known here.")?;
        registry.register(Box::new(documents.clone()))?;
        registry.register(Box::new(tenants.clone()))?;
        Ok(Self { documents, tenants })
    }

    fn count(&self, outcome: &str) {
        self.documents.with_label_values(&[outcome]).inc();
    }
}

/// A table that follows the bucket.
pub struct Followed {
    kv: Arc<dyn Kv>,
    table: watch::Sender<Arc<TenantTable>>,
    /// The revisions of what was taken, refused or deleted last.
    seen: BTreeMap<TenantId, u64>,
    metrics: FollowMetrics,
    watch: Option<Watch>,
}

impl Followed {
    /// Reads all that is there.
    pub async fn open(kv: Arc<dyn Kv>, metrics: FollowMetrics) -> Result<Self, NotRead> {
        let table = watch::Sender::new(Arc::new(TenantTable::default()));
        let mut followed = Self { kv, table, seen: BTreeMap::new(), metrics, watch: None };
        timeout(FIRST, followed.begin()).await.map_err(|_| NotRead)?;
        Ok(followed)
    }

    /// The tenants, now and later.
    pub fn table(&self) -> watch::Receiver<Arc<TenantTable>> {
        self.table.subscribe()
    }

    /// Follows the bucket, until it is dropped.
    pub async fn follow(mut self) {
        loop {
            while let Some(watch) = &mut self.watch {
                let mut batch = vec![];
                if watch.recv_many(&mut batch, BATCH).await == 0 {
                    self.watch = None;
                }
                self.take(batch);
            }
            sleep(RETRY).await;
            self.begin().await;
        }
    }

    /// Begins a watch and takes what was there, as often as it must be tried.
    async fn begin(&mut self) {
        loop {
            match self.kv.watch(Bucket::Tenants).await {
                Ok(mut watch) => {
                    let mut all = false;
                    while !all {
                        let mut batch = vec![];
                        if watch.recv_many(&mut batch, BATCH).await == 0 {
                            break;
                        }
                        all = batch.contains(&Seen::All);
                        self.take(batch);
                    }
                    if all {
                        self.watch = Some(watch);
                        return;
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot watch the bucket of tenants; what is known stays"),
            }
            sleep(RETRY).await;
        }
    }

    fn take(&mut self, batch: Vec<Seen>) {
        let mut table = None;
        for seen in batch {
            // What is gone from the bucket without a stone was lost, or its stone was old.
            let Seen::Put(Entry::Tenant(id), value) = seen else { continue };
            if self.seen.get(&id).is_some_and(|seen| *seen >= value.revision) {
                continue;
            }
            self.seen.insert(id.clone(), value.revision);
            self.take_one(table.get_or_insert_with(|| (**self.table.borrow()).clone()), &id, &value);
        }
        let Some(table) = table else { return };
        self.metrics.tenants.set(i64::try_from(table.len()).unwrap_or(i64::MAX));
        self.table.send_if_modified(|known| {
            let changed = **known != table;
            if changed {
                *known = Arc::new(table);
            }
            changed
        });
    }

    fn take_one(&self, table: &mut TenantTable, id: &TenantId, value: &Value) {
        match Kept::read(id, &value.bytes) {
            Ok(Kept::Tenant(doc)) => {
                table.insert(id.clone(), doc.tenant);
                self.metrics.count("taken");
            }
            Ok(Kept::Deleted(_)) => {
                if table.remove(id).is_some() {
                    tracing::info!(tenant = %id, "the tenant was deleted");
                }
                self.metrics.count("deleted");
            }
            Err(error) => {
                let revision = value.revision;
                tracing::error!(tenant = %id, revision, %error, "a tenant's document is refused; what was known stays");
                self.metrics.count("refused");
            }
        }
    }
}
