//! Erasures: of all that a tenant has, and of what happened at one address.

use riser_core::{GatewayKey, TenantId};

use super::{Bench, event, event_of, ids, next, take};
use crate::log::{Bounds, Erased, LOG_PAGE, Log};

impl<L: Log> Bench<L> {
    /// Erases what happened at an address, call by call. Gives how many events that were, and in how many calls.
    async fn erase_at(&self, tenant: &TenantId, at: &str) -> (u64, u64) {
        let key = GatewayKey::new(tenant.clone(), at.parse().expect("an address"));
        let (mut events, mut calls, mut from) = (0, 0, 1);
        loop {
            let Erased { events: some, next } = self.one.erase_gateway(&key, from).await.expect("an answer");
            (events, calls) = (events + some, calls + 1);
            match next {
                Some(next) => from = next,
                None => return (events, calls),
            }
        }
    }

    /// What is kept from a number on, whatever numbers are missing.
    async fn kept(&self, tenant: &TenantId, from: u64) -> Vec<(u64, String)> {
        let page = self.two.read(tenant, from).await.expect("an answer");
        page.events.into_iter().map(|stored| (stored.seq, stored.event.id.to_string())).collect()
    }
}

/// "Its tails end, and a next event begins another life."
pub async fn an_erased_stream_is_gone_and_begins_another_life<L: Log>(bench: &Bench<L>) {
    let (tenant, other) = (bench.tenant_of("a"), bench.tenant_of("aa"));
    bench.fill(&tenant, 1..=5).await;
    bench.fill(&other, 1..=2).await;
    let life = bench.bounds(&tenant).await.life;
    let mut tail = bench.two.tail(&tenant).await.expect("an answer");
    assert_eq!(bench.one.erase(&tenant).await, Ok(5));
    assert_eq!(bench.bounds(&tenant).await, Bounds::default());
    assert_eq!(bench.all(&tenant).await, []);
    bench.append(&tenant, &event("1")).await;
    assert_ne!(bench.bounds(&tenant).await.life, life);
    assert_eq!(next(&mut tail).await, None);
    assert_eq!(ids(&bench.all(&tenant).await), [(1, "1")]);
    assert_eq!(bench.all(&other).await.len(), 2);
}

/// "A repeated call finds nothing", and so does one that comes before there was anything.
pub async fn erasing_what_is_not_there_erases_nothing<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    assert_eq!(bench.one.erase(&tenant).await, Ok(0));
    assert_eq!(bench.erase_at(&tenant, "b1/g1").await, (0, 1));
    bench.fill(&tenant, 1..=1).await;
    assert_eq!(bench.one.erase(&tenant).await, Ok(1));
    assert_eq!(bench.two.erase(&tenant).await, Ok(0));
}

/// "The numbers of the others stay, and those of the erased are missing": over more than one call, and for a tail that goes
/// on meanwhile.
pub async fn what_happened_at_one_address_is_erased_and_nothing_else<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    let many = LOG_PAGE as u64 + 6;
    for id in 1..=many {
        // The first, the last, some in a row, and those around the end of the first page.
        let erased = [1, 5, 6, 7, LOG_PAGE as u64, LOG_PAGE as u64 + 1, many].contains(&id);
        let at = if erased { "b1/g1" } else { "b1/g2" };
        bench.append(&tenant, &event_of(at, "client:a", &id.to_string())).await;
    }
    let mut tail = bench.two.tail(&tenant).await.expect("an answer");
    assert_eq!(bench.erase_at(&tenant, "b1/g1").await, (7, 2));
    assert_eq!(bench.erase_at(&tenant, "b1/g1").await.0, 0);
    let left = bench.kept(&tenant, 1).await;
    let named = |ids: &[u64]| ids.iter().map(|id| (*id, id.to_string())).collect::<Vec<_>>();
    assert_eq!(left[..5], named(&[2, 3, 4, 8, 9]));
    assert_eq!(bench.kept(&tenant, LOG_PAGE as u64 - 1).await[..2], named(&[LOG_PAGE as u64 - 1, LOG_PAGE as u64 + 2]));
    assert_eq!(bench.bounds(&tenant).await.first, 2);
    bench.append(&tenant, &event("next")).await;
    assert_eq!(ids(&take(&mut tail, 1).await), [(many + 1, "next")]);
}

/// Numbers only grow, also when the last one is missing.
pub async fn the_newest_event_is_erased_and_its_number_is_not_given_again<L: Log>(bench: &Bench<L>) {
    let tenant = bench.tenant();
    bench.append(&tenant, &event_of("b1/g2", "client:a", "kept")).await;
    bench.append(&tenant, &event("erased")).await;
    assert_eq!(bench.erase_at(&tenant, "b1/g1").await, (1, 1));
    assert_eq!(bench.bounds(&tenant).await.last, 2);
    assert_eq!(bench.kept(&tenant, 2).await, []);
    let appended = bench.append(&tenant, &event("new")).await;
    assert_eq!(appended.cursor.seq, 3);
    assert_eq!(bench.kept(&tenant, 1).await, [(1, "kept".to_owned()), (3, "new".to_owned())]);
}
