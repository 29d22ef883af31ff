//! Tails: what is stored from now on, joined to what was stored before.

use tokio::time::timeout;

use super::{Bench, LONG, PATIENCE, event, event_of, ids, next, take};
use crate::log::{LOG_PAGE, Log, TAIL_QUEUE};

/// "New events as they are stored, in order and without holes from where the tail began": "its first event has the
/// number `last + 1`". They are what is read.
pub async fn a_tail_gives_what_is_stored_after_it_began<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    bench.fill(&tenant, 1..=3).await;
    let mut tail = bench.two.tail(&tenant).await.expect("an answer");
    assert_eq!(tail.bounds, bench.bounds(&tenant).await);
    assert_eq!(tail.bounds.last, 3);
    bench.fill(&tenant, 4..=40).await;
    let heard = take(&mut tail, 37).await;
    assert_eq!(heard, bench.from(&tenant, 4).await);
    assert_eq!(heard[0].seq, 4);
}

/// A tail is its reader's own, also of two readers of one client.
pub async fn every_tail_gets_every_event<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    bench.fill(&tenant, 1..=1).await;
    let mut tails = vec![];
    for client in [&bench.one, &bench.two, &bench.two] {
        tails.push(client.tail(&tenant).await.expect("an answer"));
    }
    bench.fill(&tenant, 2..=10).await;
    let expected = bench.from(&tenant, 2).await;
    for tail in &mut tails {
        assert_eq!(take(tail, 9).await, expected);
    }
}

/// What is stored once is told once.
pub async fn a_tail_hears_nothing_of_repeats<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    bench.fill(&tenant, 1..=1).await;
    let mut tail = bench.two.tail(&tenant).await.expect("an answer");
    for id in ["1", "2", "1", "2", "3", "2"] {
        bench.one.append(&tenant, event(id), LONG).await.expect("an answer");
    }
    bench.append(&tenant, &event("last")).await;
    assert_eq!(ids(&take(&mut tail, 3).await), [(2, "2"), (3, "3"), (4, "last")]);
}

/// A tail is of one tenant.
pub async fn a_tail_hears_nothing_of_other_tenants<L: Log>(bench: &Bench<L>) {
    let tenants = ["a", "aa", "b"].map(|suffix| bench.tenant_of(suffix));
    let mut tails = vec![];
    for tenant in &tenants {
        bench.fill(tenant, 1..=1).await;
        tails.push(bench.two.tail(tenant).await.expect("an answer"));
    }
    for tenant in &tenants {
        bench.append(tenant, &event(tenant.as_str())).await;
    }
    for (tenant, tail) in tenants.iter().zip(&mut tails) {
        bench.append(tenant, &event("last")).await;
        assert_eq!(ids(&take(tail, 2).await), [(2, tenant.as_str()), (3, "last")]);
    }
}

/// Who reads up to where the tail began and goes on with the tail has every event once, while others store.
pub async fn a_tail_and_a_read_join_without_hole_or_double<L: Log>(bench: &Bench<L>) {
    const EACH: usize = 100;
    let tenant = bench.tenant();
    bench.fill(&tenant, 1..=1).await;
    let store = async |client: &L, sender: &str| {
        for number in 0..EACH {
            let event = event_of("b1/g1", sender, &number.to_string());
            client.append(&tenant, event, LONG).await.expect("an answer");
            tokio::task::yield_now().await;
        }
    };
    let join = async |client: &L, wait: usize| {
        for _ in 0..wait {
            tokio::task::yield_now().await;
        }
        let mut tail = client.tail(&tenant).await.expect("an answer");
        let mut events = vec![];
        while events.len() < usize::try_from(tail.bounds.last).expect("a few events") {
            let page = client.read(&tenant, events.len() as u64 + 1).await.expect("an answer");
            assert!(!page.events.is_empty(), "what was stored before the tail cannot be read");
            // What was stored since then comes by the tail.
            events.extend(page.events.into_iter().filter(|stored| stored.seq <= tail.bounds.last));
        }
        let rest = 1 + 2 * EACH - events.len();
        events.extend(take(&mut tail, rest).await);
        events
    };
    let ((), (), early, late) =
        tokio::join!(store(&bench.one, "a"), store(&bench.two, "b"), join(&bench.two, 0), join(&bench.one, EACH / 2));
    let all = bench.all(&tenant).await;
    assert_eq!(all.len(), 1 + 2 * EACH);
    assert_eq!(ids(&early), ids(&all));
    assert_eq!(ids(&late), ids(&all));
}

/// "The receiver ends when the reader was too slow": what came before the end has no hole, those who store do not wait,
/// and the reader reads and begins anew.
pub async fn a_tail_that_is_not_read_ends_and_the_rest_can_be_read<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    bench.fill(&tenant, 1..=1).await;
    let mut slow = bench.two.tail(&tenant).await.expect("an answer");
    let last = (1 + TAIL_QUEUE + LOG_PAGE) as u64;
    bench.fill(&tenant, 2..=last).await;
    let mut heard = 1;
    while let Some(stored) = next(&mut slow).await {
        heard += 1;
        assert_eq!(stored.seq, heard, "a hole in a tail");
    }
    assert!(heard < last, "more waited for the reader than its queue holds");
    let mut tail = bench.two.tail(&tenant).await.expect("an answer");
    let rest = bench.from(&tenant, heard + 1).await;
    assert!(rest.iter().map(|stored| stored.seq).eq(heard + 1..=last));
    bench.append(&tenant, &event("next")).await;
    assert_eq!(ids(&take(&mut tail, 1).await), [(last + 1, "next")]);
}

/// A reader that is gone holds up neither those who store nor other readers.
pub async fn a_dropped_tail_harms_nobody<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    bench.fill(&tenant, 1..=1).await;
    let gone = bench.two.tail(&tenant).await.expect("an answer");
    let mut stays = bench.two.tail(&tenant).await.expect("an answer");
    drop(gone);
    let stored = timeout(PATIENCE, bench.fill(&tenant, 2..=100)).await;
    stored.expect("events are stored in time");
    assert!(take(&mut stays, 99).await.iter().map(|stored| stored.seq).eq(2..=100));
}
