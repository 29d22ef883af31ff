//! What edges know of tenants, whatever becomes of the bucket.

use std::sync::Arc;
use std::time::Duration;

use riser_bus::kv::memory::{MemoryKv, MemoryKvClient};
use riser_bus::kv::{Kv, Written};
use riser_bus::{Bucket, Entry};
use riser_core::tenant::TenantDoc;
use riser_core::{Tenant, TenantId, TenantTable};
use riser_tenants::{FollowMetrics, Followed, Store};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::harness::PATIENCE;

struct Bucketed {
    kv: MemoryKv,
    client: MemoryKvClient,
    store: Store,
    metrics: prometheus::Registry,
}

fn id(name: &str) -> TenantId {
    name.parse().expect("a tenant")
}

impl Bucketed {
    fn new() -> Self {
        let kv = MemoryKv::new();
        let client = kv.client(&"edge-0".parse().expect("an edge"));
        let store = Store::new(Arc::new(client.clone()));
        Self { kv, client, store, metrics: prometheus::Registry::new() }
    }

    async fn create(&self, name: &str) {
        let doc = TenantDoc { id: id(name), tenant: Tenant::default() };
        self.store.create(&doc).await.expect("a new tenant");
    }

    /// Writes whatever it is in the place of a tenant's document.
    async fn scribble(&self, name: &str, text: &'static str) {
        let entry = Entry::Tenant(id(name));
        let revision = self.client.get(&entry).await.expect("an answer").map_or(0, |value| value.revision);
        let written = self.client.put(&entry, text.into(), revision, None).await;
        assert!(matches!(written, Ok(Written::Yes(_))), "{written:?}");
    }

    /// Follows the bucket, as an edge that starts now.
    async fn follow(&self, tasks: &mut JoinSet<()>) -> watch::Receiver<Arc<TenantTable>> {
        let metrics = FollowMetrics::new(&prometheus::Registry::new()).expect("metrics");
        let metrics = FollowMetrics::new(&self.metrics).unwrap_or(metrics);
        let followed = Followed::open(Arc::new(self.client.clone()), metrics).await.expect("a bucket");
        let table = followed.table();
        tasks.spawn(followed.follow());
        table
    }

    fn counted(&self, outcome: &str) -> f64 {
        let families = self.metrics.gather();
        let family =
            families.iter().find(|family| family.name() == "riser_tenant_documents_total").expect("the metric");
        let row = family.get_metric().iter().find(|row| row.get_label()[0].value() == outcome).expect("the outcome");
        row.get_counter().get_value()
    }
}

fn names(table: &watch::Receiver<Arc<TenantTable>>) -> Vec<String> {
    table.borrow().iter().map(|(id, _)| id.to_string()).collect()
}

async fn until(table: &mut watch::Receiver<Arc<TenantTable>>, holds: impl Fn(&TenantTable) -> bool) {
    let reached = table.wait_for(|table| holds(table));
    timeout(PATIENCE, reached).await.expect("in time").expect("it is followed");
}

#[tokio::test(start_paused = true)]
async fn a_tenant_comes_changes_and_goes_with_its_stone_alone() {
    let (bucket, mut tasks) = (Bucketed::new(), JoinSet::new());
    bucket.create("acme").await;
    let mut table = bucket.follow(&mut tasks).await;
    assert_eq!(names(&table), ["acme"]);
    bucket.create("other").await;
    until(&mut table, |table| table.len() == 2).await;
    let suspend = |doc: &mut TenantDoc| {
        doc.tenant.status = riser_core::tenant::Status::Suspended;
        Ok::<_, riser_tenants::StoreError>(())
    };
    bucket.store.change(&id("acme"), None, suspend).await.expect("a change");
    until(&mut table, |table| table.get(&id("acme")).is_some_and(|tenant| tenant.is_suspended())).await;
    bucket.store.bury(&id("acme"), None, 7).await.expect("a tenant");
    until(&mut table, |table| table.get(&id("acme")).is_none()).await;
    assert_eq!(names(&table), ["other"]);
    bucket.create("acme").await;
    until(&mut table, |table| table.len() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_changes_nothing_and_is_counted() {
    let (bucket, mut tasks) = (Bucketed::new(), JoinSet::new());
    bucket.create("acme").await;
    bucket.create("other").await;
    let mut table = bucket.follow(&mut tasks).await;
    for text in
        ["{", "{}", r#"{"version":1,"needs":1,"tenant":"other"}"#, r#"{"version":99,"needs":99,"tenant":"acme"}"#]
    {
        bucket.scribble("acme", text).await;
    }
    bucket.create("mark").await;
    until(&mut table, |table| table.len() == 3).await;
    assert_eq!(names(&table), ["acme", "mark", "other"]);
    assert!((bucket.counted("refused") - 4.0).abs() < f64::EPSILON);
    // An edge that starts now has nothing else to go by, and serves the others.
    let fresh = bucket.follow(&mut tasks).await;
    assert_eq!(names(&fresh), ["mark", "other"]);
}

#[tokio::test(start_paused = true)]
async fn an_emptied_bucket_and_one_that_cannot_be_reached_take_nobody_away() {
    let (bucket, mut tasks) = (Bucketed::new(), JoinSet::new());
    bucket.create("acme").await;
    bucket.create("other").await;
    let mut table = bucket.follow(&mut tasks).await;
    let entry = Entry::Tenant(id("acme"));
    let revision = bucket.client.get(&entry).await.expect("an answer").expect("a tenant").revision;
    bucket.client.delete(&entry, revision).await.expect("an answer");
    bucket.create("mark").await;
    until(&mut table, |table| table.len() == 3).await;
    bucket.kv.lose(Bucket::Tenants);
    bucket.create("mark-2").await;
    until(&mut table, |table| table.len() == 4).await;
    bucket.kv.cut_all(Duration::ZERO);
    tokio::time::sleep(Duration::from_secs(60)).await;
    bucket.kv.heal_all();
    bucket.create("mark-3").await;
    until(&mut table, |table| table.len() == 5).await;
    assert_eq!(names(&table), ["acme", "mark", "mark-2", "mark-3", "other"]);
    // What was made anew is taken again, although its tenant was known.
    bucket
        .store
        .create(&TenantDoc { id: id("acme"), tenant: Tenant { renewal: false, ..Tenant::default() } })
        .await
        .expect("new");
    until(&mut table, |table| table.get(&id("acme")).is_some_and(|tenant| !tenant.renewal)).await;
}

#[tokio::test(start_paused = true)]
async fn an_edge_that_cannot_read_the_bucket_says_so_and_does_not_start() {
    let bucket = Bucketed::new();
    bucket.kv.cut_all(Duration::ZERO);
    let metrics = FollowMetrics::new(&bucket.metrics).expect("metrics");
    assert!(Followed::open(Arc::new(bucket.client.clone()), metrics).await.is_err());
}
