//! Leases: when they are held, when they end, and how what they held is swept.

use std::time::Duration;

use riser_core::{GatewayId, GatewayKey, Reason, Version};

use super::{Bench, LONG, SHORT, building};
use crate::{ADOPTED_LEASE, Ended, Lease, Registry, StateStore};

impl<S: Registry + StateStore> Bench<S> {
    async fn sweep(&self, at: &S, lease: &Lease, key: &GatewayKey) -> Vec<(GatewayId, Ended)> {
        at.sweep(lease, Reason::EdgeLost, &key.tenant, key.address.building()).await.expect("an answer")
    }

    async fn renewed(&self, lease: &Lease, ttl: Duration) -> bool {
        self.one.renew(lease, ttl).await.expect("an answer").held
    }

    /// A lease that has ended, while it held these gateways.
    async fn ended_holding(&self, keys: &[&GatewayKey]) -> Lease {
        let lease = self.lease("gone", 1);
        self.renewed(&lease, SHORT).await;
        for key in keys {
            self.acquire(&lease, key).await;
        }
        self.end_of(&lease).await;
        lease
    }
}

/// "Whether the lease was held already": not at the start, then yes. The clock does not go back.
pub async fn a_lease_is_held_from_its_second_renewal_on<S: Registry + StateStore>(bench: &Bench<S>) {
    let lease = bench.lease("one", 1);
    let first = bench.one.renew(&lease, LONG).await.expect("an answer");
    assert!(!first.held);
    let second = bench.two.renew(&lease, LONG).await.expect("an answer");
    assert!(second.held);
    assert!(second.now_ms >= first.now_ms);
}

/// "How many leases stand that are not being drained." Others of the same store come and go meanwhile.
pub async fn a_renewal_tells_of_the_leases_beside_it<S: Registry + StateStore>(bench: &Bench<S>) {
    let [one, two] = [bench.lease("one", 1), bench.lease("two", 1)];
    bench.renewed(&one, LONG).await;
    let edges = bench.two.renew(&two, LONG).await.expect("an answer").edges;
    assert!(edges >= 2, "{edges}");
}

/// "Holds the lease for `ttl` from now."
pub async fn a_lease_that_is_renewed_does_not_end<S: Registry + StateStore>(bench: &Bench<S>) {
    let lease = bench.lease("one", 1);
    bench.renewed(&lease, SHORT).await;
    for _ in 0..5 {
        tokio::time::sleep(SHORT * 2 / 5).await;
        assert!(bench.renewed(&lease, SHORT).await);
        assert_eq!(bench.ended(&lease).await, None);
    }
}

/// A lease that ran out is listed, to be swept as lost. Its gateways are online until then.
pub async fn a_lease_that_is_not_renewed_ends<S: Registry + StateStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.lease("one", 1), bench.key("b/g"));
    let begun = bench.one.renew(&lease, SHORT).await.expect("an answer").now_ms;
    bench.acquire(&lease, &key).await;
    assert_eq!(bench.ended(&lease).await, None);
    assert_eq!(bench.end_of(&lease).await, Reason::EdgeLost);
    let now = bench.one.renew(&bench.lease("other", 1), LONG).await.expect("an answer").now_ms;
    assert!(now >= begun + 1_000, "it ended {} ms early", begun + 1_000 - now);
    assert!(bench.presence(&key).await.online);
}

/// "A lease that ended is not revived."
pub async fn an_ended_lease_is_not_revived<S: Registry + StateStore>(bench: &Bench<S>) {
    let lease = bench.ended_holding(&[&bench.key("b/g")]).await;
    for _ in 0..2 {
        assert!(!bench.renewed(&lease, LONG).await);
        assert_eq!(bench.ended(&lease).await, Some(Reason::EdgeLost));
    }
    assert_eq!(bench.one.lease_index(&lease).await.expect("an answer").len(), 1, "its index is still to be swept");
}

/// A lease is "one life of an edge: its name, and a number that no other life of it has".
pub async fn a_lease_with_another_number_is_another_lease<S: Registry + StateStore>(bench: &Bench<S>) {
    let old = bench.ended_holding(&[]).await;
    let new = Lease { start: 2, ..old.clone() };
    assert!(!bench.renewed(&new, LONG).await);
    assert!(bench.renewed(&new, LONG).await);
    assert_eq!(bench.ended(&new).await, None);
    assert_eq!(bench.ended(&old).await, Some(Reason::EdgeLost));
}

/// "Its gateways stay online for `moving` from now while they move, and what has not moved by then ends with
/// `EdgeDrained`."
pub async fn a_drained_lease_ends_after_the_time_for_moving<S: Registry + StateStore>(bench: &Bench<S>) {
    let (lease, other) = (bench.held("one").await, bench.held("two").await);
    let (moves, stays) = (bench.key("b/moves"), bench.key("b/stays"));
    for key in [&moves, &stays] {
        bench.acquire(&lease, key).await;
    }
    bench.one.drain(&lease, SHORT).await.expect("an answer");
    assert_eq!(bench.ended(&lease).await, None);
    assert_eq!(bench.acquire(&other, &moves).await.taken_from, Some(lease.clone()));
    assert!(bench.presence(&stays).await.online);
    assert_eq!(bench.end_of(&lease).await, Reason::EdgeDrained);
    let (tenant, b) = (&stays.tenant, stays.address.building());
    let swept = bench.two.sweep(&lease, Reason::EdgeDrained, tenant, b).await.expect("an answer");
    assert_eq!(swept.len(), 1);
    assert_eq!((&swept[0].0, swept[0].1.reason), (stays.address.gateway(), Reason::EdgeDrained));
    assert_eq!(bench.presence(&stays).await.reason, Some(Reason::EdgeDrained));
    assert!(bench.presence(&moves).await.online);
}

/// "The lease cannot be renewed any more": a renewal is refused and gives no more time.
pub async fn a_drained_lease_cannot_be_renewed<S: Registry + StateStore>(bench: &Bench<S>) {
    let lease = bench.held("one").await;
    bench.one.drain(&lease, SHORT).await.expect("an answer");
    assert!(!bench.renewed(&lease, LONG).await);
    assert_eq!(bench.end_of(&lease).await, Reason::EdgeDrained);
    assert!(!bench.renewed(&lease, LONG).await);
}

/// "A repeated call leaves the time at what the first one set."
pub async fn a_repeated_drain_does_not_give_more_time<S: Registry + StateStore>(bench: &Bench<S>) {
    let lease = bench.held("one").await;
    bench.one.drain(&lease, SHORT).await.expect("an answer");
    bench.one.drain(&lease, LONG).await.expect("an answer");
    assert_eq!(bench.end_of(&lease).await, Reason::EdgeDrained);
}

/// "The building is in the lease's index before" its first gateway is acquired or restored there. A takeover leaves
/// the old lease's index alone.
pub async fn a_building_is_in_the_index_of_each_lease_that_held_a_gateway_there<S: Registry + StateStore>(
    bench: &Bench<S>,
) {
    let (one, two) = (bench.held("one").await, bench.held("two").await);
    assert_eq!(bench.two.lease_index(&one).await, Ok(vec![]));
    bench.acquire(&one, &bench.key_of("t", "b1/g1")).await;
    bench.acquire(&one, &bench.key_of("t", "b1/g2")).await;
    bench.acquire(&one, &bench.key_of("u", "b1/g1")).await;
    bench.acquire(&two, &bench.key_of("t", "b1/g1")).await;
    let version = Version::new(5, 0);
    bench.one.restore(&two, &bench.key_of("t", "b2/g1"), version, 0).await.expect("an answer");
    let index = async |lease: &Lease| {
        let mut index = bench.two.lease_index(lease).await.expect("an answer");
        index.sort();
        index
    };
    let in_building = |tenant: &str, name: &str| (bench.tenant(tenant), building(name));
    assert_eq!(index(&one).await, [in_building("t", "b1"), in_building("u", "b1")]);
    assert_eq!(index(&two).await, [in_building("t", "b1"), in_building("t", "b2")]);
}

/// "Ends the sessions that a lease still holds in one building", and no others.
pub async fn a_sweep_ends_what_the_lease_still_holds<S: Registry + StateStore>(bench: &Bench<S>) {
    let (lease, other) = (bench.lease("gone", 1), bench.held("two").await);
    bench.renewed(&lease, SHORT).await;
    let keys = ["b/held", "b/closed", "b/moved", "c/elsewhere"].map(|address| bench.key(address));
    let [held, closed, moved, elsewhere] = &keys;
    let mut epochs = vec![];
    for key in &keys {
        epochs.push(bench.acquire(&lease, key).await.epoch);
    }
    bench.one.release(closed, epochs[1], Reason::Closed).await.expect("an answer");
    bench.acquire(&other, moved).await;
    bench.end_of(&lease).await;

    let swept = bench.sweep(&bench.two, &lease, held).await;
    let version = Version::start(epochs[0]).next();
    let at_ms = bench.snapshot(held).await.at_ms;
    let ended = Ended { version, reason: Reason::EdgeLost, at_ms };
    assert_eq!(swept, [(held.address.gateway().clone(), ended)]);
    let presence = bench.presence(held).await;
    assert_eq!((presence.online, presence.reason, presence.edge), (false, Some(Reason::EdgeLost), None));
    assert_eq!(presence.since_ms, at_ms);
    assert_eq!(bench.presence(closed).await.reason, Some(Reason::Closed));
    assert!(bench.presence(moved).await.online);
    assert!(bench.presence(elsewhere).await.online);
}

/// "Each session is ended by one caller only, whoever else sweeps at the same time."
pub async fn a_session_is_swept_by_one_caller_only<S: Registry + StateStore>(bench: &Bench<S>) {
    let keys: Vec<_> = (0..20).map(|n| bench.key(&format!("b/g{n}"))).collect();
    let lease = bench.ended_holding(&keys.iter().collect::<Vec<_>>()).await;
    let (first, second) =
        tokio::join!(bench.sweep(&bench.one, &lease, &keys[0]), bench.sweep(&bench.two, &lease, &keys[0]));
    let mut swept: Vec<_> = first.into_iter().chain(second).map(|(gateway, _)| gateway).collect();
    swept.sort();
    let mut expected: Vec<_> = keys.iter().map(|key| key.address.gateway().clone()).collect();
    expected.sort();
    assert_eq!(swept, expected);
    assert_eq!(bench.sweep(&bench.one, &lease, &keys[0]).await, []);
}

/// A sweep "takes the building from the lease's index".
pub async fn a_swept_building_leaves_the_index<S: Registry + StateStore>(bench: &Bench<S>) {
    let (b1, b2) = (bench.key("b1/g"), bench.key("b2/g"));
    let lease = bench.ended_holding(&[&b1, &b2]).await;
    bench.sweep(&bench.one, &lease, &b1).await;
    assert_eq!(bench.one.lease_index(&lease).await, Ok(vec![(b2.tenant.clone(), building("b2"))]));
    bench.sweep(&bench.one, &lease, &b2).await;
    assert_eq!(bench.one.lease_index(&lease).await, Ok(vec![]));
}

/// "No session of the lease stays online in a building that its index lacks", also when an edge that does not know
/// yet that its lease ended begins a session beside a sweep.
pub async fn a_session_of_an_ended_lease_is_always_found<S: Registry + StateStore>(bench: &Bench<S>) {
    for round in 0..10 {
        let (lease, key) = (bench.lease("gone", round), bench.key(&format!("b{round}/g")));
        bench.renewed(&lease, Duration::ZERO).await;
        bench.end_of(&lease).await;
        let (acquired, _) = tokio::join!(bench.one.acquire(&lease, &key, None), bench.sweep(&bench.two, &lease, &key));
        acquired.expect("an answer");
        if bench.presence(&key).await.online {
            let index = bench.one.lease_index(&lease).await.expect("an answer");
            assert_eq!(index, [(key.tenant.clone(), key.address.building().clone())]);
            bench.one.forget(&lease).await.expect("an answer");
            assert_eq!(bench.ended(&lease).await, Some(Reason::EdgeLost));
        }
        bench.sweep(&bench.two, &lease, &key).await;
        assert!(!bench.presence(&key).await.online);
    }
}

/// "The leases that ended and were not forgotten yet", also when nothing is left to sweep.
pub async fn an_ended_lease_is_listed_until_it_is_forgotten<S: Registry + StateStore>(bench: &Bench<S>) {
    let lease = bench.ended_holding(&[]).await;
    assert_eq!(bench.ended(&lease).await, Some(Reason::EdgeLost));
    bench.one.forget(&lease).await.expect("an answer");
    bench.one.forget(&lease).await.expect("an answer");
    assert_eq!(bench.ended(&lease).await, None);
}

/// "Forgets an ended lease whose index is empty", and no other.
pub async fn only_an_ended_lease_with_an_empty_index_is_forgotten<S: Registry + StateStore>(bench: &Bench<S>) {
    let alive = bench.held("one").await;
    bench.one.forget(&alive).await.expect("an answer");
    assert!(bench.renewed(&alive, LONG).await);
    let key = bench.key("b/g");
    let ended = bench.ended_holding(&[&key]).await;
    bench.one.forget(&ended).await.expect("an answer");
    assert_eq!(bench.ended(&ended).await, Some(Reason::EdgeLost));
    assert_eq!(bench.one.lease_index(&ended).await.expect("an answer").len(), 1);
    bench.sweep(&bench.one, &ended, &key).await;
    bench.one.forget(&ended).await.expect("an answer");
    assert_eq!(bench.ended(&ended).await, None);
}

/// "A lease that the store does not know is held for `ADOPTED_LEASE`": a loss of data ends no session of an edge
/// that lives, and leaves no session behind of one that does not.
pub async fn a_lease_that_the_store_does_not_know_is_adopted_and_ends<S: Registry + StateStore>(bench: &Bench<S>) {
    let (acquired, restored) = (bench.lease("one", 1), bench.lease("two", 1));
    let before = bench.acquire(&acquired, &bench.key("b/g")).await.now_ms;
    bench.one.restore(&restored, &bench.key("b/h"), Version::new(5, 0), 0).await.expect("an answer");
    for lease in [&acquired, &restored] {
        assert_eq!(bench.ended(lease).await, None);
    }
    for lease in [&acquired, &restored] {
        assert_eq!(bench.end_of(lease).await, Reason::EdgeLost);
    }
    let now = bench.one.renew(&bench.lease("other", 1), LONG).await.expect("an answer").now_ms;
    assert!(Duration::from_millis(now - before) >= ADOPTED_LEASE);
}
