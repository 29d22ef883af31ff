//! Each fault of the memory log can be seen to happen, and does no more than it says.

use std::time::Duration;

use riser_bus::log::memory::{FaultCounts, Faults, MemoryLog, MemoryLogClient};
use riser_bus::log::{Appended, Bounds, Log, LogError};
use tokio::time::Instant;

use super::{START_MS, edge, event, next, tenant};

const LONG: Duration = Duration::from_secs(3_600);
const GONE: Result<(), LogError> = Err(LogError::Unavailable);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

async fn append(client: &MemoryLogClient, id: &str) -> Result<Appended, LogError> {
    client.append(&tenant("acme"), event("gateway:b1/g1", id), LONG).await
}

/// When the oldest event was stored.
async fn stored_at(client: &MemoryLogClient) -> u64 {
    client.read(&tenant("acme"), 1).await.expect("an answer").events[0].event.at_ms
}

async fn last(client: &MemoryLogClient) -> Result<u64, LogError> {
    client.bounds(&tenant("acme")).await.map(|bounds| bounds.last)
}

#[tokio::test(start_paused = true)]
async fn the_clock_starts_where_it_is_told_and_runs_with_tokios() {
    let log = MemoryLog::new(START_MS);
    assert_eq!(log.now_ms(), START_MS);
    tokio::time::advance(ms(1_500)).await;
    assert_eq!(log.now_ms(), START_MS + 1_500);
    let client = log.client(&edge("one"));
    append(&client, "a").await.expect("an answer");
    assert_eq!(stored_at(&client).await, START_MS + 1_500);
}

#[tokio::test(start_paused = true)]
async fn a_cut_edge_gets_no_answer_and_does_nothing() {
    let log = MemoryLog::new(START_MS);
    let (one, two) = (log.client(&edge("one")), log.client(&edge("two")));
    log.cut(&edge("one"), Duration::ZERO);
    let started = Instant::now();
    assert_eq!(append(&one, "a").await.map(drop), GONE);
    assert_eq!(one.tail(&tenant("acme")).await.map(drop), GONE);
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(last(&two).await, Ok(0), "others are answered, and nothing was done");
    let again = log.client(&edge("one"));
    assert_eq!(again.read(&tenant("acme"), 1).await.map(drop), GONE, "a new connection is cut off too");

    log.cut(&edge("one"), ms(2_000));
    assert_eq!(last(&one).await.map(drop), GONE);
    assert_eq!(started.elapsed(), ms(2_000));
    log.heal(&edge("one"));
    assert_eq!(append(&one, "a").await.map(|stored| stored.duplicate), Ok(false));
    assert_eq!(log.fault_counts(), FaultCounts { refused: 4, ..FaultCounts::default() });
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_the_tails_of_that_edge_after_what_they_hold() {
    let log = MemoryLog::new(START_MS);
    let (one, two) = (log.client(&edge("one")), log.client(&edge("two")));
    append(&one, "a").await.expect("an answer");
    let mut cut = one.tail(&tenant("acme")).await.expect("an answer");
    let mut other = two.tail(&tenant("acme")).await.expect("an answer");
    append(&two, "b").await.expect("an answer");
    log.cut(&edge("one"), Duration::ZERO);
    append(&two, "c").await.expect("an answer");
    assert_eq!(next(&mut cut).await, Some(2));
    assert_eq!(next(&mut cut).await, None);
    log.heal(&edge("one"));
    append(&two, "d").await.expect("an answer");
    assert_eq!(next(&mut cut).await, None, "an ended tail does not begin again");
    for seq in 2..=4 {
        assert_eq!(next(&mut other).await, Some(seq));
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_answers_nobody_and_ends_every_tail() {
    let log = MemoryLog::new(START_MS);
    let one = log.client(&edge("one"));
    append(&one, "a").await.expect("an answer");
    let mut tail = one.tail(&tenant("acme")).await.expect("an answer");
    log.cut_all(Duration::ZERO);
    let two = log.client(&edge("two"));
    for client in [&one, &two] {
        assert_eq!(last(client).await.map(drop), GONE);
    }
    assert_eq!(next(&mut tail).await, None);
    log.heal_all();
    for client in [&one, &two] {
        assert_eq!(last(client).await, Ok(1));
    }
}

#[tokio::test(start_paused = true)]
async fn calls_take_their_time_each_way() {
    let log = MemoryLog::new(START_MS);
    let client = log.client(&edge("one"));
    log.set_client_faults(&edge("one"), Faults { delay: ms(30)..=ms(30), ..Faults::default() });
    let started = Instant::now();
    append(&client, "a").await.expect("an answer");
    assert_eq!(started.elapsed(), ms(60));
    assert_eq!(log.fault_counts().delayed, 2);
    let started = Instant::now();
    let other = log.client(&edge("two"));
    assert_eq!(stored_at(&other).await, START_MS + 30, "it was stored when the request had arrived");
    append(&other, "b").await.expect("an answer");
    assert_eq!(started.elapsed(), Duration::ZERO, "another edge's calls take none");
}

#[tokio::test(start_paused = true)]
async fn a_cut_meets_calls_that_are_on_their_way() {
    let log = MemoryLog::new(START_MS);
    let (client, other) = (log.client(&edge("one")), log.client(&edge("two")));
    log.set_client_faults(&edge("one"), Faults { delay: ms(30)..=ms(30), ..Faults::default() });
    let cut_after = async |after: u64| {
        tokio::time::sleep(ms(after)).await;
        log.cut(&edge("one"), Duration::ZERO);
    };
    let (answer, ()) = tokio::join!(append(&client, "a"), cut_after(10));
    assert_eq!(answer.map(drop), GONE);
    log.heal(&edge("one"));
    assert_eq!(last(&other).await, Ok(0), "the request had not arrived");
    let (answer, ()) = tokio::join!(append(&client, "a"), cut_after(40));
    assert_eq!(answer.map(drop), GONE);
    log.heal(&edge("one"));
    assert_eq!(last(&other).await, Ok(1), "the request had arrived");
    let counts = log.fault_counts();
    assert_eq!((counts.refused, counts.lost_replies), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_lost_request_is_not_done_and_a_lost_reply_is() {
    let log = MemoryLog::new(START_MS);
    let (one, two) = (log.client(&edge("one")), log.client(&edge("two")));
    let lost = Faults { silence: ms(2_000), ..Faults::default() };
    log.set_client_faults(&edge("one"), Faults { lost_request: 1.0, ..lost.clone() });
    let started = Instant::now();
    assert_eq!(append(&one, "a").await.map(drop), GONE);
    assert_eq!(started.elapsed(), ms(2_000));
    assert_eq!(last(&two).await, Ok(0));
    log.set_client_faults(&edge("one"), Faults { lost_reply: 1.0, ..lost });
    assert_eq!(append(&one, "a").await.map(drop), GONE);
    assert_eq!(started.elapsed(), ms(4_000));
    assert_eq!(last(&two).await, Ok(1));
    let repeat = append(&two, "a").await.expect("an answer");
    assert_eq!((repeat.duplicate, repeat.cursor.seq), (true, 1), "the repeat is safe");
    let expected = FaultCounts { lost_requests: 1, lost_replies: 1, ..FaultCounts::default() };
    assert_eq!(log.fault_counts(), expected);
}

#[tokio::test(start_paused = true)]
async fn some_calls_are_lost_by_their_probability_and_the_seed_says_which() {
    async fn lost(seed: u64) -> Vec<bool> {
        let log = MemoryLog::seeded(START_MS, seed);
        let client = log.client(&edge("one"));
        log.set_faults(&Faults { lost_request: 0.2, lost_reply: 0.2, ..Faults::default() });
        let mut lost = vec![];
        for _ in 0..500 {
            lost.push(last(&client).await.is_err());
        }
        let counts = log.fault_counts();
        let count = lost.iter().filter(|lost| **lost).count();
        assert_eq!(counts.lost_requests + counts.lost_replies, count as u64);
        assert!((120..240).contains(&count), "{count} of 500 were lost");
        assert!(counts.lost_requests > 50 && counts.lost_replies > 50, "{counts:?}");
        lost
    }
    let first = lost(1).await;
    assert_eq!(first, lost(1).await);
    assert_ne!(first, lost(2).await);
}

#[tokio::test(start_paused = true)]
async fn a_full_store_stores_nothing_and_still_answers_repeats() {
    let log = MemoryLog::new(START_MS);
    let client = log.client(&edge("one"));
    log.set_full(true);
    assert_eq!(append(&client, "a").await, Err(LogError::Full));
    assert_eq!(client.bounds(&tenant("acme")).await, Ok(Bounds::default()), "not even a stream was made");
    log.set_full(false);
    let first = append(&client, "a").await.expect("an answer");
    let mut tail = client.tail(&tenant("acme")).await.expect("an answer");
    log.set_full(true);
    assert_eq!(append(&client, "b").await, Err(LogError::Full));
    let repeat = append(&client, "a").await;
    assert_eq!(repeat, Ok(Appended { duplicate: true, ..first }), "it is stored, so that full would be a lie");
    assert_eq!(last(&client).await, Ok(1));
    log.set_full(false);
    let second = append(&client, "b").await.expect("an answer");
    assert_eq!((second.duplicate, second.cursor.seq), (false, 2));
    assert_eq!(next(&mut tail).await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn an_emptied_store_knows_nothing_and_its_clock_runs_on() {
    let log = MemoryLog::new(START_MS);
    let client = log.client(&edge("one"));
    let tenants = ["acme", "other"].map(tenant);
    let mut before = vec![];
    for tenant in &tenants {
        let stored = client.append(tenant, event("a", "1"), LONG).await.expect("an answer");
        before.push((stored.cursor.life, client.tail(tenant).await.expect("an answer")));
    }
    tokio::time::advance(ms(500)).await;
    log.empty();
    for (tenant, (life, tail)) in tenants.iter().zip(&mut before) {
        assert_eq!(next(tail).await, None);
        assert_eq!(client.bounds(tenant).await, Ok(Bounds::default()));
        let stored = client.append(tenant, event("a", "1"), LONG).await.expect("an answer");
        assert!(!stored.duplicate);
        let page = client.read(tenant, 1).await.expect("an answer");
        assert_eq!((stored.cursor.seq, page.events[0].event.at_ms), (1, START_MS + 500));
        assert_ne!(stored.cursor.life, *life);
    }
}

#[tokio::test(start_paused = true)]
async fn the_seed_says_which_lives_streams_have() {
    async fn lives(seed: u64) -> Vec<u64> {
        let log = MemoryLog::seeded(START_MS, seed);
        let client = log.client(&edge("one"));
        let mut lives = vec![];
        for round in 0..20 {
            let tenant = tenant(if round % 2 == 0 { "acme" } else { "other" });
            let stored = client.append(&tenant, event("a", "1"), LONG).await.expect("an answer");
            lives.push(stored.cursor.life);
            log.lose(&tenant);
        }
        lives
    }
    let first = lives(1).await;
    assert_eq!(first, lives(1).await);
    assert_ne!(first, lives(2).await);
}
