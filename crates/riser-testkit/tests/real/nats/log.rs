//! The log does what every log must do, on one server and with three copies, and says when it cannot.

use std::sync::Arc;
use std::time::Duration;

use riser_bus::log::suite::{Bench, KEPT_AT_LEAST};
use riser_bus::log::{Bounds, Log, LogError};
use riser_bus::nats::{LogConfig, NatsLog};
use riser_core::event::Event;
use riser_core::tenant::{Retention, Tenant};
use riser_core::{Json, TenantId, TenantTable};
use riser_testkit::real::nats::{NatsOptions, NatsServers};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Held, connect, event, log_config, shared, start, tenant};
use crate::{PATIENCE, program, unique};

/// The window of repeats that are not meant to come too late.
const LONG: Duration = Duration::from_secs(120);

async fn bench(count: usize) -> Bench<Held<NatsLog>> {
    let servers = shared(count).await;
    let client = async |number| {
        let log = connect(&servers, number % count).await.log(log_config(count));
        Held { inner: log, _servers: servers.clone() }
    };
    let (one, two) = (client(0).await, client(1).await);
    let lose = Box::new(move |tenant: TenantId| {
        let servers = servers.clone();
        let lost: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            delete(&servers, &tenant).await;
        });
        lost
    });
    Bench { one, two, name: unique(), kept: KEPT_AT_LEAST, lose }
}

async fn delete(servers: &NatsServers, tenant: &TenantId) {
    let mut raw = servers.raw(0).await.expect("a connection");
    let answer = raw.ask(&format!("$JS.API.STREAM.DELETE.riser-ev-{tenant}"), "").await.expect("an answer");
    assert!(answer.contains("\"success\":true"), "{answer}");
}

mod one_server {
    async fn bench(_case: &str) -> super::Bench<super::Held<super::NatsLog>> {
        super::bench(1).await
    }

    riser_bus::log_conformance!(
        #[tokio::test]
        bench
    );
}

mod three_copies {
    async fn bench(_case: &str) -> super::Bench<super::Held<super::NatsLog>> {
        super::bench(3).await
    }

    riser_bus::log_conformance!(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        bench
    );
}

/// An event of some size.
fn heavy(id: usize, bytes: usize) -> Event {
    Event { data: Some(Json::of(&"x".repeat(bytes))), ..event(&id.to_string()) }
}

#[tokio::test]
async fn a_store_without_room_says_that_it_is_full() {
    let options = NatsOptions { max_file_store: Some(1 << 20), ..NatsOptions::default() };
    let servers = NatsServers::start_with(&program("RISER_NATS_SERVER"), 1, &options).await.expect("a server");
    let (log, tenant) = (connect(&servers, 0).await.log(log_config(1)), tenant());
    let mut stored = 0;
    let full = loop {
        match log.append(&tenant, heavy(stored, 60 * 1024), LONG).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100, "more was stored than there is room for");
    };
    assert_eq!(full, LogError::Full);
    assert!(stored > 5, "room for {stored} events");
    let read = log.read(&tenant, 1).await.expect("an answer");
    assert_eq!(read.events.len(), stored, "what was answered is there");
}

#[tokio::test]
async fn many_tenants_have_their_first_event_on_a_small_server() {
    let options = NatsOptions { max_file_store: Some(64 << 20), ..NatsOptions::default() };
    let servers = NatsServers::start_with(&program("RISER_NATS_SERVER"), 1, &options).await.expect("a server");
    let log = connect(&servers, 0).await.log(LogConfig { replicas: 1, ..LogConfig::default() });
    for _ in 0..40 {
        log.append(&tenant(), event("one"), LONG).await.expect("room for one more");
    }
}

#[tokio::test]
async fn a_tenants_oldest_events_go_when_they_take_too_many_bytes() {
    const EVENTS: usize = 400;
    let servers = start(1).await;
    let most = 1 << 20;
    let (log, tenant) = (connect(&servers, 0).await.log(LogConfig { max_bytes: most, ..log_config(1) }), tenant());
    for id in 0..EVENTS {
        log.append(&tenant, heavy(id, 10 * 1024), LONG).await.expect("an answer");
    }
    let kept = async {
        loop {
            let bounds = log.bounds(&tenant).await.expect("an answer");
            if (bounds.last + 1 - bounds.first) * 10 * 1024 <= most {
                break bounds;
            }
        }
    };
    let Bounds { first, last, .. } = timeout(PATIENCE, kept).await.expect("room in time");
    assert_eq!(last, EVENTS as u64, "numbers go on");
    assert!((last + 1 - first) * 10 * 1024 > most / 2, "more was dropped than need be: {first} to {last}");
    let page = log.read(&tenant, 1).await.expect("an answer");
    assert!(page.events.iter().map(|stored| stored.seq).eq(first..=last), "holes");
}

#[tokio::test]
async fn settings_that_a_stream_cannot_follow_are_no_reason_to_refuse_events() {
    let servers = start(1).await;
    let client = connect(&servers, 0).await;
    let tenant = tenant();
    let first = client.log(log_config(1)).append(&tenant, event("1"), LONG).await.expect("an answer");
    let too_many_copies = client.log(log_config(3));
    let second = too_many_copies.append(&tenant, event("2"), LONG).await.expect("an answer");
    assert_eq!((second.cursor.life, second.cursor.seq), (first.cursor.life, 2));
    let longer = too_many_copies.append(&tenant, event("3"), 2 * LONG).await.expect("a window that grows all the same");
    assert_eq!(longer.cursor.seq, 3);
    let mut raw = servers.raw(0).await.expect("a connection");
    let info = raw.ask(&format!("$JS.API.STREAM.INFO.riser-ev-{tenant}"), "").await.expect("an answer");
    assert!(info.contains(&format!("\"duplicate_window\":{}", (2 * LONG).as_nanos())), "{info}");
}

#[tokio::test]
async fn what_no_edge_stored_is_left_out_and_counted() {
    let servers = start(1).await;
    let client = connect(&servers, 0).await;
    let (log, tenant) = (client.log(log_config(1)), tenant());
    let life = log.append(&tenant, event("one"), LONG).await.expect("an answer").cursor.life;
    let mut tail = log.tail(&tenant).await.expect("an answer");
    let subject = format!("riser.v1.log.{tenant}.{life:016x}");
    let mut raw = servers.raw(0).await.expect("a connection");
    raw.ask(&subject, "forged").await.expect("an answer");
    log.append(&tenant, event("three"), LONG).await.expect("an answer");
    let page = log.read(&tenant, 1).await.expect("an answer");
    let read: Vec<_> = page.events.iter().map(|stored| (stored.seq, stored.event.id.as_str())).collect();
    assert_eq!(read, [(1, "one"), (3, "three")]);
    assert_eq!(page.bounds, Bounds { life, first: 1, last: 3 });
    let heard = timeout(PATIENCE, tail.events.recv()).await.expect("an end in time");
    assert_eq!(heard, None, "a tail has no holes");
    assert_eq!(client.ignored(), 2, "one in the page and one in the tail");
    let mut tail = log.tail(&tenant).await.expect("an answer");
    log.append(&tenant, event("four"), LONG).await.expect("an answer");
    let heard = timeout(PATIENCE, tail.events.recv()).await.expect("an event in time").expect("a tail that goes on");
    assert_eq!((heard.seq, heard.event.id.as_str()), (4, "four"));
}

#[tokio::test]
async fn a_stream_of_somebody_else_is_not_used() {
    let servers = start(1).await;
    let (log, tenant) = (connect(&servers, 0).await.log(log_config(1)), tenant());
    let config = format!(r#"{{"name":"riser-ev-{tenant}","subjects":["riser.v1.log.other.00000000000000ab"]}}"#);
    let mut raw = servers.raw(0).await.expect("a connection");
    let made = raw.ask(&format!("$JS.API.STREAM.CREATE.riser-ev-{tenant}"), &config).await.expect("an answer");
    assert!(!made.contains("error"), "{made}");
    let (stored, bounds) = tokio::join!(log.append(&tenant, event("one"), LONG), log.bounds(&tenant));
    assert_eq!(stored, Err(LogError::Unavailable));
    assert_eq!(bounds, Err(LogError::Unavailable));
}

#[tokio::test]
async fn a_stream_follows_changed_settings_and_keeps_its_life() {
    let servers = start(1).await;
    let client = connect(&servers, 0).await;
    let tenant = tenant();
    let before = client.log(log_config(1));
    for id in ["1", "2", "3"] {
        before.append(&tenant, event(id), LONG).await.expect("an answer");
    }
    let life = before.bounds(&tenant).await.expect("an answer").life;
    let after = client.log(LogConfig { max_events: 2, ..log_config(1) });
    let repeat = after.append(&tenant, event("3"), 2 * LONG).await.expect("an answer");
    assert!(repeat.duplicate, "what was stored was forgotten");
    assert_eq!(after.bounds(&tenant).await, Ok(Bounds { life, first: 2, last: 3 }));
    let stored = after.append(&tenant, event("4"), 2 * LONG).await.expect("an answer");
    assert_eq!((stored.cursor.life, stored.cursor.seq), (life, 4));
    assert_eq!(after.bounds(&tenant).await, Ok(Bounds { life, first: 3, last: 4 }));
}

#[tokio::test]
async fn a_tenants_own_retention_is_kept_and_followed_when_it_changes() {
    const EVENTS: usize = 400;
    let servers = start(1).await;
    let tenant = tenant();
    let own = |age_ms: Option<u64>, bytes: Option<u64>| {
        let new = Tenant { retention: Retention { age_ms, bytes }, ..Tenant::default() };
        Arc::new(TenantTable::from_iter([(tenant.clone(), new)]))
    };
    let (tables, table) = watch::channel(own(Some(1_800_000), None));
    let log = connect(&servers, 0).await.log(log_config(1)).of_tenants(table);
    let mut raw = servers.raw(0).await.expect("a connection");
    let asked = format!("$JS.API.STREAM.INFO.riser-ev-{tenant}");
    for id in 0..EVENTS {
        log.append(&tenant, heavy(id, 10 * 1024), LONG).await.expect("an answer");
    }
    let info = raw.ask(&asked, "").await.expect("an answer");
    assert!(info.contains(r#""max_age":1800000000000,"#), "{info}");
    // Nothing is stored from here on, and the bytes of before are too many.
    tables.send_replace(own(Some(u64::MAX), Some(1 << 20)));
    let follows = async {
        loop {
            let bounds = log.bounds(&tenant).await.expect("an answer");
            let info = raw.ask(&asked, "").await.expect("an answer");
            if info.contains(r#""max_age":3600000000000,"#) && (bounds.last + 1 - bounds.first) * 10 * 1024 <= 1 << 20 {
                break bounds;
            }
        }
    };
    let bounds = timeout(PATIENCE, follows).await.expect("a stream that follows in time");
    assert_eq!(bounds.last, EVENTS as u64);
    assert!(bounds.first < bounds.last, "more was dropped than need be: {bounds:?}");
    let stored = log.append(&tenant, event("next"), LONG).await.expect("an answer");
    assert_eq!((stored.cursor.life, stored.cursor.seq), (bounds.life, bounds.last + 1));
}

#[tokio::test]
async fn a_repeat_of_an_event_that_retention_dropped_is_answered() {
    let servers = start(1).await;
    let (log, tenant) = (connect(&servers, 0).await.log(LogConfig { max_events: 2, ..log_config(1) }), tenant());
    let mut first = None;
    for id in ["1", "2", "3", "4"] {
        let appended = log.append(&tenant, event(id), LONG).await.expect("an answer");
        first.get_or_insert(appended);
    }
    let first = first.expect("four events");
    let again = log.append(&tenant, event("1"), LONG).await.expect("an answer");
    assert_eq!((again.duplicate, again.cursor), (true, first.cursor));
}

#[tokio::test]
async fn nothing_answers_without_a_server_and_everything_is_there_when_it_is_back() {
    let mut servers = start(1).await;
    let (log, tenant) = (connect(&servers, 0).await.log(log_config(1)), tenant());
    let stored = log.append(&tenant, event("one"), LONG).await.expect("an answer");
    servers.kill(0);
    let (append, read, bounds, tail) = tokio::join!(
        log.append(&tenant, event("two"), LONG),
        log.read(&tenant, 1),
        log.bounds(&tenant),
        log.tail(&tenant)
    );
    assert_eq!(append, Err(LogError::Unavailable));
    assert_eq!(read, Err(LogError::Unavailable));
    assert_eq!(bounds, Err(LogError::Unavailable));
    assert_eq!(tail.err(), Some(LogError::Unavailable));
    servers.start_again(0).expect("a server that starts");
    servers.ready().await.expect("a server that is ready");
    let back = async {
        loop {
            if let Ok(again) = log.append(&tenant, event("one"), LONG).await {
                break again;
            }
        }
    };
    let again = timeout(PATIENCE, back).await.expect("an answer in time");
    assert_eq!((again.duplicate, again.cursor), (true, stored.cursor));
}
