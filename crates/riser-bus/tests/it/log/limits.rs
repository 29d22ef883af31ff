//! Each bound of the memory log is reached, and holds.

use std::time::Duration;

use riser_bus::log::memory::{DEDUP_IDS, MemoryLog, RETAINED_BYTES, RETAINED_EVENTS, TAILS};
use riser_bus::log::{Log, LogError, TAIL_QUEUE};
use riser_core::Json;

use super::{START_MS, edge, event, next, tenant};

const LONG: Duration = Duration::from_secs(3_600);

#[tokio::test(start_paused = true)]
async fn a_tenant_keeps_so_many_events_unless_told_otherwise() {
    let log = MemoryLog::new(START_MS);
    let (client, acme) = (log.client(&edge("one")), tenant("acme"));
    let count = RETAINED_EVENTS as u64 + 10;
    for number in 0..count {
        client.append(&acme, event("a", &number.to_string()), Duration::ZERO).await.expect("an answer");
    }
    let bounds = client.bounds(&acme).await.expect("an answer");
    assert_eq!((bounds.first, bounds.last), (11, count));
    log.set_retention(7);
    let page = client.read(&acme, 0).await.expect("an answer");
    assert_eq!(page.bounds.first, count - 6, "a shorter retention is kept at once");
    assert!(page.events.iter().map(|stored| stored.seq).eq(count - 6..=count));
    log.set_retention(0);
    let page = client.read(&acme, 0).await.expect("an answer");
    assert_eq!((page.bounds.first, page.bounds.last, page.events.len()), (count + 1, count, 0));
}

#[tokio::test(start_paused = true)]
async fn large_events_leave_sooner() {
    const SIZE: usize = 1 << 20;
    let log = MemoryLog::new(START_MS);
    let (client, acme) = (log.client(&edge("one")), tenant("acme"));
    let large = Json::of(&"x".repeat(SIZE));
    let count = (RETAINED_BYTES / SIZE) as u64 + 10;
    for number in 1..=count {
        let mut event = event("a", &number.to_string());
        event.data = Some(large.clone());
        client.append(&acme, event, LONG).await.expect("an answer");
    }
    let bounds = client.bounds(&acme).await.expect("an answer");
    // Each takes a little more than its data, so that one fewer fits.
    assert_eq!((bounds.first, bounds.last), (12, count));
    let mut event = event("a", "over everything");
    event.data = Some(Json::of(&"x".repeat(RETAINED_BYTES)));
    client.append(&acme, event, LONG).await.expect("an answer");
    let page = client.read(&acme, 0).await.expect("an answer");
    assert_eq!(page.bounds.first, count + 1);
    assert_eq!(page.events.len(), 1, "the newest is kept whatever it takes");
}

#[tokio::test(start_paused = true)]
async fn a_tail_holds_so_many_events_and_then_ends() {
    let log = MemoryLog::new(START_MS);
    let (client, acme) = (log.client(&edge("one")), tenant("acme"));
    client.append(&acme, event("a", "first"), LONG).await.expect("an answer");
    let mut tail = client.tail(&acme).await.expect("an answer");
    for number in 0..=TAIL_QUEUE {
        client.append(&acme, event("a", &number.to_string()), LONG).await.expect("an answer");
    }
    for number in 0..TAIL_QUEUE as u64 {
        assert_eq!(next(&mut tail).await, Some(number + 2));
    }
    assert_eq!(next(&mut tail).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_has_so_many_tails_and_a_dropped_one_makes_room() {
    let log = MemoryLog::new(START_MS);
    let (client, acme) = (log.client(&edge("one")), tenant("acme"));
    let mut tails = vec![];
    for _ in 0..TAILS {
        tails.push(client.tail(&acme).await.expect("an answer"));
    }
    assert_eq!(client.tail(&acme).await.map(drop), Err(LogError::Unavailable));
    assert!(client.tail(&tenant("other")).await.is_ok(), "another tenant has tails of its own");
    tails.pop();
    assert!(client.tail(&acme).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_oldest_of_too_many_ids_is_free_again() {
    let log = MemoryLog::new(START_MS);
    let (client, acme) = (log.client(&edge("one")), tenant("acme"));
    let append = async |number: usize| {
        client.append(&acme, event("a", &number.to_string()), LONG).await.expect("an answer").duplicate
    };
    for number in 0..=DEDUP_IDS {
        assert!(!append(number).await);
    }
    assert!(append(DEDUP_IDS).await && append(1).await);
    assert!(!append(0).await, "more are remembered than the bound says");
}

#[tokio::test(start_paused = true)]
async fn a_call_with_a_short_window_does_not_shorten_that_of_others() {
    let log = MemoryLog::new(START_MS);
    let (client, acme) = (log.client(&edge("one")), tenant("acme"));
    let append = async |id: &str, window_ms: u64| {
        let window = Duration::from_millis(window_ms);
        let stored = client.append(&acme, event("a", id), window).await.expect("an answer");
        (stored.duplicate, stored.cursor.seq)
    };
    assert_eq!(append("a", 1_000).await, (false, 1));
    tokio::time::advance(Duration::from_millis(999)).await;
    assert_eq!(append("b", 1).await, (false, 2));
    assert_eq!(append("a", 1_000).await, (true, 1));
    assert_eq!(append("a", 999).await, (false, 3), "its own window has passed");
    tokio::time::advance(Duration::from_millis(500)).await;
    assert_eq!(append("a", 1_000).await, (true, 3), "the newer one is remembered when the older one is forgotten");
}
