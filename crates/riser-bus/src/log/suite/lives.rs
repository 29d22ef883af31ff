//! Lives: what a loss of a stream does, and how it is seen.

use super::{Bench, LONG, event, ids, next, take};
use crate::log::{Bounds, Log};

/// A stream has a life that "a stream made anew after a loss does not share", and its numbers begin again.
pub async fn a_lost_stream_is_gone_and_begins_another_life<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    let mut lives = vec![];
    for _ in 0..4 {
        bench.fill(&tenant, 1..=5).await;
        let bounds = bench.bounds(&tenant).await;
        assert_ne!(bounds.life, 0);
        assert_eq!((bounds.first, bounds.last), (1, 5));
        assert!(!lives.contains(&bounds.life), "a life came twice");
        lives.push(bounds.life);
        (bench.lose)(tenant.clone()).await;
        assert_eq!(bench.bounds(&tenant).await, Bounds::default());
        assert_eq!(bench.all(&tenant).await, []);
    }
}

/// An answer for an event that is lost would name a position that means nothing.
pub async fn an_event_of_a_lost_stream_is_stored_again<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    let lost = bench.append(&tenant, &event("one")).await;
    (bench.lose)(tenant.clone()).await;
    let stored = bench.append(&tenant, &event("one")).await;
    assert_eq!(stored.cursor.seq, 1);
    assert_ne!(stored.cursor.life, lost.cursor.life);
    let again = bench.two.append(&tenant, event("one"), LONG).await.expect("an answer");
    assert_eq!((again.duplicate, again.cursor), (true, stored.cursor));
    assert_eq!(ids(&bench.all(&tenant).await), [(1, "one")]);
}

/// "The receiver ends when the stream's life changed": nothing of the next life comes before that.
pub async fn a_tail_ends_when_its_stream_is_lost<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    bench.fill(&tenant, 1..=1).await;
    let mut tail = bench.two.tail(&tenant).await.expect("an answer");
    bench.append(&tenant, &event("heard")).await;
    assert_eq!(ids(&take(&mut tail, 1).await), [(2, "heard")]);
    (bench.lose)(tenant.clone()).await;
    bench.append(&tenant, &event("of the next life")).await;
    assert_eq!(next(&mut tail).await, None);
    let mut tail = bench.two.tail(&tenant).await.expect("an answer");
    assert_eq!(tail.bounds, bench.bounds(&tenant).await);
    bench.append(&tenant, &event("last")).await;
    assert_eq!(ids(&take(&mut tail, 1).await), [(2, "last")]);
}

/// "One that began without a stream ends, without an event, when the stream comes into being", so that its reader learns
/// the life.
pub async fn a_tail_without_a_stream_ends_when_the_stream_comes_into_being<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    let mut tail = bench.two.tail(&tenant).await.expect("an answer");
    assert_eq!(tail.bounds, Bounds::default());
    bench.append(&tenant, &event("first")).await;
    assert_eq!(next(&mut tail).await, None);
    let mut tail = bench.two.tail(&tenant).await.expect("an answer");
    assert_eq!(tail.bounds, bench.bounds(&tenant).await);
    assert_eq!(ids(&bench.all(&tenant).await), [(1, "first")]);
    bench.append(&tenant, &event("second")).await;
    assert_eq!(ids(&take(&mut tail, 1).await), [(2, "second")]);
}

/// A stream is lost alone.
pub async fn a_loss_leaves_other_tenants_alone<L: Log>(bench: &Bench<L>) {
    let (lost, other) = (bench.tenant_of("a"), bench.tenant_of("aa"));
    bench.fill(&lost, 1..=3).await;
    bench.fill(&other, 1..=3).await;
    let bounds = bench.bounds(&other).await;
    let mut tail = bench.two.tail(&other).await.expect("an answer");
    (bench.lose)(lost).await;
    assert_eq!(bench.bounds(&other).await, bounds);
    let next = bench.append(&other, &event("next")).await;
    assert_eq!((next.cursor.life, next.cursor.seq), (bounds.life, 4));
    assert_eq!(ids(&take(&mut tail, 1).await), [(4, "next")]);
}
