//! Storing: numbers, times, and what a repeat is.

use riser_core::Json;
use tokio::time::Instant;

use super::{Bench, LONG, LOOK_EVERY, PATIENCE, SHORT, event, event_of, ids, take};
use crate::log::Log;

/// "`Ok` to `append` means that the event is stored."
pub async fn an_event_that_was_answered_is_read_as_it_was_sent<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    let long = "x".repeat(128);
    let mut sent = vec![
        event("plain"),
        event_of("b1/_", "client:alice", "of a building"),
        event_of("_/_", "client:ünï ☃ \"\\", "01J… any.text*> of its own"),
        event(&long),
    ];
    sent[1].path = None;
    sent[1].data = None;
    sent[2].ts_ms = None;
    sent[2].data = Some(Json::parse(r#"{"a":[1,2.50,null,{"b":"\u0000 é"}],"long":-1.0E+300}"#).expect("JSON"));
    sent[3].data = Some(Json::of(&"x".repeat(60 * 1024)));
    for event in &sent {
        bench.append(&tenant, event).await;
    }
    let mut read: Vec<_> = bench.all(&tenant).await.into_iter().map(|stored| stored.event).collect();
    assert!(read.is_sorted_by_key(|event| event.at_ms), "times that are not in the order of storing");
    for event in &mut read {
        event.at_ms = 0;
    }
    assert_eq!(read, sent);
}

/// "Its `at_ms` is the store's to set, and is told to those who read it": to all the same.
pub async fn an_event_gets_the_time_of_the_store<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    let mut event = event("one");
    event.at_ms = u64::MAX;
    bench.fill(&tenant, 1..=1).await;
    let mut tail = bench.two.tail(&tenant).await.expect("an answer");
    bench.append(&tenant, &event).await;
    let told = take(&mut tail, 1).await[0].event.at_ms;
    assert!(told != 0 && told != u64::MAX, "not a time: {told}");
    for client in [&bench.one, &bench.two] {
        assert_eq!(client.read(&tenant, 2).await.expect("an answer").events[0].event.at_ms, told);
    }
}

/// "Events have numbers 1, 2, 3 … without holes in the order in which they were stored."
pub async fn events_have_numbers_from_one_without_holes<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    let mut life = None;
    for number in 1..=50 {
        let cursor = bench.append(&tenant, &event(&number.to_string())).await.cursor;
        assert_eq!(cursor.seq, number);
        assert_ne!(cursor.life, 0);
        assert_eq!(*life.get_or_insert(cursor.life), cursor.life);
    }
    let all = bench.all(&tenant).await;
    let expected: Vec<_> = (1..=50).map(|number: u64| (number, number.to_string())).collect();
    assert!(ids(&all).into_iter().eq(expected.iter().map(|(seq, id)| (*seq, id.as_str()))), "{:?}", ids(&all));
}

/// The order is one, whoever stores and whoever reads, and each client's own events keep theirs.
pub async fn events_of_all_clients_have_one_order<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    let store = async |client: &L, sender: &str| {
        let mut answered = vec![];
        for number in 0..50 {
            let event = event_of("b1/g1", sender, &format!("{sender} {number}"));
            let cursor = client.append(&tenant, event, LONG).await.expect("an answer").cursor;
            answered.push((cursor.seq, format!("{sender} {number}")));
        }
        answered
    };
    let (one, two, three) = tokio::join!(store(&bench.one, "a"), store(&bench.two, "b"), store(&bench.two, "c"));
    for answered in [&one, &two, &three] {
        assert!(answered.is_sorted(), "a client's events changed their order");
    }
    let mut answered = [one, two, three].concat();
    answered.sort();
    let all = bench.all(&tenant).await;
    let read: Vec<_> = all.iter().map(|stored| (stored.seq, stored.event.id.to_string())).collect();
    assert_eq!(read, answered);
    let seen_by_one = bench.one.read(&tenant, 1).await.expect("an answer").events;
    assert_eq!(seen_by_one, all);
}

/// "The same sender, address and id within `dedup` is stored once and answered the same."
pub async fn a_repeat_is_stored_once_and_answered_the_same<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    let first = bench.append(&tenant, &event("one")).await;
    bench.append(&tenant, &event("two")).await;
    for _ in 0..3 {
        let again = bench.one.append(&tenant, event("one"), LONG).await.expect("an answer");
        assert_eq!((again.duplicate, again.cursor), (true, first.cursor));
    }
    assert_eq!(ids(&bench.all(&tenant).await), [(1, "one"), (2, "two")]);
}

/// "Repeating the call within the deduplication window is safe", whichever edge the sender has come to.
pub async fn a_repeat_through_another_client_is_the_same_event<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    let first = bench.append(&tenant, &event("one")).await;
    let again = bench.two.append(&tenant, event("one"), LONG).await.expect("an answer");
    assert_eq!((again.duplicate, again.cursor), (true, first.cursor));
    assert_eq!(bench.bounds(&tenant).await.last, 1);
}

/// The first content stays, since it was answered.
pub async fn a_repeat_with_another_content_changes_nothing<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    let sent = event("one");
    bench.append(&tenant, &sent).await;
    let mut other = event("one");
    other.kind = "knock".parse().expect("an event type");
    other.path = None;
    other.data = None;
    other.ts_ms = None;
    assert!(bench.two.append(&tenant, other, LONG).await.expect("an answer").duplicate);
    let all = bench.all(&tenant).await;
    assert_eq!(all.len(), 1);
    assert_eq!((&all[0].event.kind, &all[0].event.data), (&sent.kind, &sent.data));
}

/// The same when nobody has been answered yet.
pub async fn repeats_at_once_are_stored_once<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    for number in 1..=20 {
        let append = |client| Log::append(client, &tenant, event(&number.to_string()), LONG);
        let (a, b, c) = tokio::join!(append(&bench.one), append(&bench.two), append(&bench.two));
        let answers = [a, b, c].map(|answer| answer.expect("an answer"));
        assert_eq!(answers.iter().filter(|answer| !answer.duplicate).count(), 1, "{answers:?}");
        assert!(answers.iter().all(|answer| answer.cursor == answers[0].cursor));
        assert_eq!(answers[0].cursor.seq, number);
    }
    assert_eq!(bench.bounds(&tenant).await.last, 20);
}

/// "The same sender, address and id", all three, in one tenant. No text of one runs over into another.
pub async fn an_event_is_the_same_by_sender_address_and_id<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    let events = [
        ("b1/g1", "gateway:b1/g1", "one"),
        ("b1/g1", "gateway:b1/g1", "ONE"),
        ("b1/g1", "gateway:b1/g1", "one "),
        ("b1/g1", "gateway:b1/g1", "one.two"),
        ("b1/g1", "client:a", "one"),
        ("b1/g1", "client:a one", "two"),
        ("b1/g1", "client:a", "one two"),
        ("b1/g1", "client:a.one", "two"),
        ("b1/g1", "client:a", "one.two"),
        ("b1/g2", "client:a", "one"),
        ("b11/g1", "client:a", "one"),
        ("b1/_", "client:a", "one"),
        ("_/_", "client:a", "one"),
    ];
    for (number, (address, from, id)) in (1..).zip(events) {
        let appended = bench.append(&tenant, &event_of(address, from, id)).await;
        assert_eq!(appended.cursor.seq, number, "{address} {from} {id}");
    }
    for (number, (address, from, id)) in (1..).zip(events) {
        let again = bench.two.append(&tenant, event_of(address, from, id), LONG).await.expect("an answer");
        assert_eq!((again.duplicate, again.cursor.seq), (true, number), "{address} {from} {id}");
    }
    let other = bench.append(&bench.tenant_of("other"), &event("one")).await;
    assert_eq!(other.cursor.seq, 1, "another tenant's event is another event");
}

/// "Within `dedup`": afterwards it is a new event, not before. Repeats do not lengthen the window.
pub async fn an_id_is_free_again_after_its_window<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    let append = || bench.one.append(&tenant, event("one"), SHORT);
    let first = append().await.expect("an answer");
    let give_up = Instant::now() + PATIENCE;
    let next = loop {
        assert!(Instant::now() < give_up, "no new event within {PATIENCE:?}");
        let next = append().await.expect("an answer");
        if !next.duplicate {
            break next;
        }
        assert_eq!(next.cursor, first.cursor);
        tokio::time::sleep(LOOK_EVERY).await;
    };
    assert_eq!(next.cursor.seq, 2);
    let again = append().await.expect("an answer");
    assert_eq!((again.duplicate, again.cursor), (true, next.cursor), "a repeat is one of the newer event");
    let all = bench.all(&tenant).await;
    assert_eq!(ids(&all), [(1, "one"), (2, "one")]);
    let apart = all[1].event.at_ms - all[0].event.at_ms;
    assert!(apart >= 1_000, "the window ended after {apart} ms");
}
