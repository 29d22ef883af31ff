//! Reading: pages, bounds, retention, and other tenants.

use super::{Bench, KEPT_AT_LEAST, event, ids};
use crate::log::{Bounds, LOG_PAGE, Log, Page};

/// "An event whose `append` was answered is in every `read` and `bounds` that begins afterwards, whichever client asks."
pub async fn an_answered_event_is_read_by_every_client<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    for number in 1..=50 {
        bench.append(&tenant, &event(&number.to_string())).await;
        for client in [&bench.two, &bench.one] {
            let page = client.read(&tenant, number).await.expect("an answer");
            assert_eq!(ids(&page.events), [(number, number.to_string().as_str())]);
            assert_eq!(client.bounds(&tenant).await.expect("an answer").last, number);
        }
    }
}

/// "At most `LOG_PAGE` of them", and the next page begins after the last one.
pub async fn a_page_is_bounded_and_pages_join<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    let count = LOG_PAGE as u64 * 2 + 10;
    bench.fill(&tenant, 1..=count).await;
    let mut from = 1;
    for size in [LOG_PAGE, LOG_PAGE, 10, 0] {
        let page = bench.two.read(&tenant, from).await.expect("an answer");
        assert_eq!(page.events.len(), size);
        assert!(page.events.iter().map(|stored| stored.seq).eq(from..from + size as u64));
        assert_eq!((page.bounds.first, page.bounds.last), (1, count));
        from += size as u64;
    }
}

/// "The events from number `from` on."
pub async fn reading_begins_at_the_number_that_was_asked_for<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    bench.fill(&tenant, 1..=20).await;
    let bounds = bench.bounds(&tenant).await;
    for from in [0, 1, 2, 10, 19, 20, 21, 22, 1_000, u64::MAX] {
        let page = bench.two.read(&tenant, from).await.expect("an answer");
        let numbers: Vec<_> = page.events.iter().map(|stored| stored.seq).collect();
        assert_eq!(numbers, (from.max(1)..=20).collect::<Vec<_>>(), "from {from}");
        assert_eq!(page.bounds, bounds, "from {from}");
    }
}

/// "0 when the tenant has no stream." Asking makes none.
pub async fn nothing_is_known_of_a_tenant_without_events<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    let nothing = Bounds { life: 0, first: 1, last: 0 };
    for from in [0, 1, 7] {
        assert_eq!(bench.one.read(&tenant, from).await, Ok(Page { bounds: nothing, events: vec![] }));
        assert_eq!(bench.two.bounds(&tenant).await, Ok(nothing));
    }
    assert_eq!(bench.one.tail(&tenant).await.expect("an answer").bounds, nothing);
    assert_eq!(bench.two.bounds(&tenant).await, Ok(nothing));
}

/// The bounds are one thing, wherever they are told: in answers, pages, tails and by themselves.
pub async fn bounds_follow_what_is_stored<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    for last in 1..=20 {
        let cursor = bench.append(&tenant, &event(&last.to_string())).await.cursor;
        let bounds = Bounds { life: cursor.life, first: 1, last };
        assert_eq!(bench.bounds(&tenant).await, bounds);
        assert_eq!(bench.two.read(&tenant, last).await.expect("an answer").bounds, bounds);
        assert_eq!(bench.two.tail(&tenant).await.expect("an answer").bounds, bounds);
    }
}

/// "Retention drops the oldest events; the numbers of the others stay." What was dropped "is left out at the beginning,
/// which shows in the bounds".
pub async fn retention_drops_the_oldest_and_the_other_numbers_stay<L: Log>(bench: &Bench<L>) {
    assert!(bench.kept >= KEPT_AT_LEAST, "a bench that keeps too little for the other cases");
    let tenant = bench.tenant();
    let last = bench.kept + 50;
    bench.fill(&tenant, 1..=last).await;
    let bounds = bench.bounds(&tenant).await;
    assert_eq!((bounds.first, bounds.last), (51, last));
    for from in [0, 1, 50, 51] {
        let page = bench.two.read(&tenant, from).await.expect("an answer");
        assert_eq!(page.bounds, bounds);
        assert_eq!(ids(&page.events[..1]), [(51, "51")], "from {from}");
    }
    let all = bench.all(&tenant).await;
    assert!(all.iter().map(|stored| stored.seq).eq(51..=last));
    assert!(all.iter().all(|stored| stored.event.id.as_str() == stored.seq.to_string()), "an event changed its number");
    let next = bench.append(&tenant, &event("next")).await.cursor;
    assert_eq!((next.life, next.seq), (bounds.life, last + 1));
}

/// "One stream per tenant."
pub async fn tenants_do_not_see_each_others_events<L: Log>(bench: &Bench<L>) {
    let tenants = ["a", "aa", "a-b"].map(|suffix| bench.tenant_of(suffix));
    for round in 1..=5 {
        for (number, tenant) in tenants.iter().enumerate() {
            let appended = bench.append(tenant, &event(&format!("{number} {round}"))).await;
            assert_eq!(appended.cursor.seq, round);
        }
    }
    for (number, tenant) in tenants.iter().enumerate() {
        let all = bench.all(tenant).await;
        let expected: Vec<_> = (1..=5).map(|round| format!("{number} {round}")).collect();
        assert!(all.iter().map(|stored| stored.event.id.as_str()).eq(expected.iter().map(String::as_str)));
    }
}
