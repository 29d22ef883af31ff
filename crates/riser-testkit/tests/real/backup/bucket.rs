//! A backup of a cluster whose tenants the control plane keeps in a bucket.

use std::collections::BTreeMap;

use http::Method;
use riser_bus::kv::Kv as _;
use riser_bus::nats::{KvConfig, NatsClient, NatsConfig, NatsKv};
use riser_bus::{Bucket, Entry};
use serde_json::{Value, json};

use super::super::control::{link, plane};
use super::{Ended, Site, events, notice, of};

const OF_BUCKET: &str = "tenants.source=kv";
const OF_FILE: &str = "tenants.source=file";

/// What the buckets of tenants and flats hold.
async fn kept(kv: &NatsKv) -> BTreeMap<Entry, String> {
    let mut all = BTreeMap::new();
    for bucket in [Bucket::Tenants, Bucket::Flats] {
        let mut after = Some(0);
        while let Some(from) = after {
            let page = kv.list(bucket, from).await.expect("a page");
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("a text");
            all.extend(page.entries.into_iter().map(|(entry, value)| (entry, text(&value.bytes))));
            after = page.next;
        }
    }
    all
}

async fn buckets(site: &Site) -> NatsKv {
    let client = NatsClient::connect(&NatsConfig::new(site.nats.urls(), "test")).await.expect("NATS");
    client.kv(KvConfig { replicas: 1, ..KvConfig::default() })
}

/// In how many seconds a tenant's entry goes by itself.
async fn ttl(site: &Site, tenant: &str) -> Option<String> {
    let mut nats = site.nats.raw(0).await.expect("NATS");
    let asked = json!({ "last_by_subj": format!("$KV.riser-tenants.{tenant}") }).to_string();
    let said = nats.ask("$JS.API.STREAM.MSG.GET.KV_riser-tenants", &asked).await.expect("an answer");
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let headers = said["message"]["hdrs"].as_str().expect("headers");
    let headers = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, headers).expect("base64");
    let headers = String::from_utf8(headers).expect("a text");
    headers.lines().find_map(|line| line.strip_prefix("Nats-TTL: ")).map(str::to_owned)
}

fn is_refused(ended: &Ended, part: &str) {
    assert!(ended.code == Some(3) && ended.err.contains(part), "{part} {ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_and_flats_of_the_control_plane_come_back_as_they_were() {
    let mut old = Site::prepare_with(1, &[OF_BUCKET]).await;
    old.launch().await;
    let control = plane(&old.nats, &old.redis).await;
    for tenant in ["acme", "gone", "idle"] {
        control.ask(Method::POST, "/tenants", &json!({ "tenant": tenant })).await;
    }
    let ((_, key), (revoked, _)) = (control.key("one").await, control.key("two").await);
    control.ask(Method::DELETE, &format!("/tenants/acme/keys/{revoked}"), &Value::Null).await;
    control.ask(Method::POST, "/tenants/acme/revocations", &json!({ "subject": "alice" })).await;
    let flats: Vec<_> = (0..20).map(|flat| json!({ "address": format!("b1/f{flat}"), "name": "Meyer" })).collect();
    control.ask(Method::POST, "/tenants/acme/flats", &json!({ "flats": flats })).await;
    control.ask(Method::DELETE, "/tenants/gone", &Value::Null).await;
    link(&old.edges, 0, &key).await;
    old.api(0, &key).event(&of("b1/f1"), &notice("e1".into())).await.expect("stored");
    let before = (kept(&buckets(&old).await).await, events(&old.api(0, &key), None).await);
    let dir = old.back_up().await;
    let of_file = old.edges.path("of-file");
    old.set.push(OF_FILE.into());
    let ended = old.run(&["backup"], &of_file).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");

    let mut new = Site::prepare_with(1, &[OF_BUCKET]).await;
    new.forget_tenants();
    let nothing = new.holds().await;
    new.set.push(OF_FILE.into());
    let other = new.run(&["restore"], &dir).await;
    new.set.pop();
    is_refused(&other, "the tenants of a bucket: restore it with tenants.source = \"kv\"");
    is_refused(&new.run(&["restore"], &of_file).await, "a tenants file: restore it with tenants.source = \"file\"");
    assert_eq!(new.holds().await, nothing);
    let ended = new.run(&["restore"], &dir).await;
    assert!(ended.code == Some(0) && ended.out.contains("2 tenant(s)"), "{ended:?}");
    assert_eq!(kept(&buckets(&new).await).await, before.0);
    assert_eq!((ttl(&new, "gone").await.as_deref(), ttl(&new, "acme").await), (Some("2592000s"), None));

    new.launch().await;
    link(&new.edges, 1, &key).await;
    assert_eq!(events(&new.api(1, &key), None).await, before.1);
    let control = plane(&new.nats, &new.redis).await;
    control.ask(Method::DELETE, "/tenants/idle", &Value::Null).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_has_tenants_already_is_not_written_over() {
    let old = Site::prepare_with(1, &[OF_BUCKET]).await;
    let control = plane(&old.nats, &old.redis).await;
    control.ask(Method::POST, "/tenants", &json!({ "tenant": "acme" })).await;
    let dir = old.back_up().await;
    let new = Site::prepare_with(1, &[OF_BUCKET]).await;
    let control = plane(&new.nats, &new.redis).await;
    control.ask(Method::POST, "/tenants", &json!({ "tenant": "another" })).await;
    let mut nats = new.nats.raw(0).await.expect("NATS");
    // Its audit is in a stream of events, which is named before a bucket is.
    is_refused(&new.run(&["restore"], &dir).await, "NATS has the stream riser-ev-another");
    nats.ask("$JS.API.STREAM.DELETE.riser-ev-another", "").await.expect("an answer");
    is_refused(&new.run(&["restore", "--resume"], &dir).await, "NATS has the stream KV_riser-tenants");
}
