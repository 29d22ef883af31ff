//! When gateways' tokens end, as an edge notes it with their flats.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use riser_core::{BuildingId, Identity, TenantId};
use riser_edge::{Edge, EdgeConfig};
use riser_tenants::flats::{Codes, NewFlat};
use riser_tenants::{Flats, Store};
use serde_json::json;
use tokio::time::{Duration, timeout};

use super::harness::*;
use super::names::Counted;

const DAY_MS: u64 = 86_400_000;

fn acme() -> TenantId {
    "acme".parse().expect("a tenant")
}

/// An edge that keeps flats.
async fn edge(cluster: &Cluster, change: impl FnOnce(&mut EdgeConfig)) -> (Edge, Flats) {
    let store = Store::new(Arc::new(cluster.kv.client(&"edge-0".parse().expect("an edge"))));
    let flats = store.flats();
    let (edge, _) = cluster
        .edge_like("edge-0", |config, ports| {
            change(config);
            ports.keep = Some(store);
        })
        .await;
    (edge, flats)
}

/// Registers flats of which the first is enrolled, with a token that ends then.
async fn register(flats: &Flats, addresses: &[&str], first_ends_ms: u64) {
    let new = |address: &&str| NewFlat { address: address.parse().expect("an address"), about: [None, None, None] };
    let named: Vec<NewFlat> = addresses.iter().map(new).collect();
    let made = flats.register(&acme(), &named, Codes::Missing, 0, u64::MAX).await.expect("registered");
    let first = made.iter().find(|flat| flat.address == named[0].address).expect("it was made");
    let code = first.code.as_ref().expect("a code").parse().expect("a good code");
    flats.enrol(&code, 1_000, first_ends_ms).await.expect("enrolled");
}

/// A gateway whose token, and each that renews it, lasts so many days.
fn lasting(address: &str, days: u64) -> Identity {
    Identity { lifetime_ms: Some(days * DAY_MS), expires_at_ms: Some(u64::MAX), ..gateway(address) }
}

/// Renews, and gives when the new token ends.
async fn renew(peer: &mut Peerling) -> u64 {
    peer.send(&json!({"t":"renew","n":7})).await;
    let ok = peer.next("ok").await;
    assert!(ok["n"] == 7 && ok["token"].is_string(), "{ok}");
    ok["expires_at_ms"].as_u64().expect("a time")
}

/// What is noted of the building `b`.
async fn noted(flats: &Flats) -> BTreeMap<String, Option<u64>> {
    let building: BuildingId = "b".parse().expect("a building");
    let known = flats.building(&acme(), &building).await.expect("read");
    known.into_iter().map(|(gateway, flat)| (gateway.to_string(), flat.token_expires_at_ms)).collect()
}

fn ends<const N: usize>(of: [(&str, Option<u64>); N]) -> BTreeMap<String, Option<u64>> {
    of.into_iter().map(|(gateway, ends)| (gateway.to_owned(), ends)).collect()
}

async fn until(flats: &Flats, wanted: &BTreeMap<String, Option<u64>>) {
    timeout(PATIENCE, async {
        while noted(flats).await != *wanted {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await
    .expect("noted in time");
}

#[tokio::test(start_paused = true)]
async fn a_renewed_tokens_end_is_noted_with_its_flat_and_registers_nothing() {
    let cluster = Cluster::new();
    let (edge, flats) = edge(&cluster, |_| {}).await;
    register(&flats, &["b/f1", "b/f2", "b/f3"], 10 * DAY_MS).await;
    let (mut unknown, _) = Peerling::open(&edge, lasting("b/f9", 365)).await;
    let (mut longer, _) = Peerling::open(&edge, lasting("b/f1", 365)).await;
    let (mut first, _) = Peerling::open(&edge, lasting("b/f2", 1)).await;
    renew(&mut unknown).await;
    let (one, two) = (renew(&mut longer).await, renew(&mut first).await);
    assert_eq!(noted(&flats).await, ends([("f1", Some(10 * DAY_MS)), ("f2", None), ("f3", None)]), "no answer waits");
    let all = ends([("f1", Some(one)), ("f2", Some(two)), ("f3", None)]);
    until(&flats, &all).await;
    // One that ends sooner sets nothing back, and one that ends hardly later is not written.
    let (mut shorter, _) = Peerling::open(&edge, lasting("b/f1", 30)).await;
    renew(&mut shorter).await;
    assert!(renew(&mut first).await > two);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(noted(&flats).await, all);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_revoked_meanwhile_is_not_noted() {
    let cluster = Cluster::new();
    let (edge, flats) = edge(&cluster, |_| {}).await;
    register(&flats, &["b/f1", "b/f2"], 10 * DAY_MS).await;
    let (mut replaced, _) = Peerling::open(&edge, lasting("b/f1", 365)).await;
    let (mut other, _) = Peerling::open(&edge, lasting("b/f2", 365)).await;
    renew(&mut replaced).await;
    let now_ms = cluster.store.now_ms();
    cluster.tenants.send_modify(|table| {
        Arc::make_mut(table).update(&acme(), |of| {
            of.revoked.gateway("b/f1".parse().expect("an address"), now_ms).expect("room");
        });
    });
    let two = renew(&mut other).await;
    until(&flats, &ends([("f1", Some(10 * DAY_MS)), ("f2", Some(two))])).await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_written_when_the_store_answers_again_and_when_the_edge_is_drained() {
    let cluster = Cluster::new();
    let (first, flats) = edge(&cluster, |_| {}).await;
    register(&flats, &["b/f1"], 10 * DAY_MS).await;
    let (mut gw, _) = Peerling::open(&first, lasting("b/f1", 365)).await;
    let one = renew(&mut gw).await;
    cluster.kv.set_full(true);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(noted(&flats).await, ends([("f1", Some(10 * DAY_MS))]), "there is no room");
    cluster.kv.set_full(false);
    until(&flats, &ends([("f1", Some(one))])).await;
    drop((gw, first));
    let (second, flats) = edge(&cluster, |config| config.note_tokens = Duration::from_secs(86_400)).await;
    let (mut gw, _) = Peerling::open(&second, lasting("b/f1", 730)).await;
    let two = renew(&mut gw).await;
    assert!(two > one);
    drop(gw);
    second.drain().await;
    assert_eq!(noted(&flats).await, ends([("f1", Some(two))]));
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_does_not_answer_is_not_asked_for_every_building() {
    let cluster = Cluster::new();
    let reads = Arc::new(AtomicUsize::new(0));
    let kv = Counted { kv: cluster.kv.client(&"edge-0".parse().expect("an edge")), reads: reads.clone() };
    let store = Store::new(Arc::new(kv));
    let flats = store.flats();
    let (edge, _) = cluster.edge_with("edge-0", |ports| ports.keep = Some(store)).await;
    let all: Vec<String> = (0..40).map(|n| format!("b{n}/g")).collect();
    register(&flats, &all.iter().map(String::as_str).collect::<Vec<_>>(), DAY_MS).await;
    let mut peers = Vec::new();
    for address in &all {
        let (mut peer, _) = Peerling::open(&edge, lasting(address, 30)).await;
        renew(&mut peer).await;
        peers.push(peer);
    }
    let before = reads.load(Ordering::Relaxed);
    cluster.kv.cut_all(Duration::from_secs(3_600));
    // One round in which notes ripen, and one in which they are written.
    tokio::time::sleep(Duration::from_secs(25)).await;
    let asked = reads.load(Ordering::Relaxed) - before;
    assert!((1..=16).contains(&asked), "{asked}");
    cluster.kv.heal_all();
    timeout(PATIENCE, async {
        for address in &all {
            let building = address.split_once('/').expect("an address").0.parse().expect("a building");
            let ends = async || {
                let known = flats.building(&acme(), &building).await.expect("read");
                known.into_values().next().and_then(|flat| flat.token_expires_at_ms)
            };
            while ends().await.is_none_or(|ends| ends <= DAY_MS) {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    })
    .await
    .expect("noted in time");
}
