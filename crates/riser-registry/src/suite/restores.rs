//! Sessions that are registered again, after the store lost data or under an edge's new lease.

use riser_core::{Epoch, GatewayKey, Reason, Version};

use super::{Bench, full, set, state_after};
use crate::{Applied, Held, Lease, Registry, Restored, StateStore};

const LOST: Restored = Restored::Held { lost: true };
const NOT_LOST: Restored = Restored::Held { lost: false };

impl<S: Registry + StateStore> Bench<S> {
    async fn restore(&self, lease: &Lease, key: &GatewayKey, version: Version, since_ms: u64) -> Restored {
        self.one.restore(lease, key, version, since_ms).await.expect("an answer")
    }
}

/// "A missing record is written anew, online, at `version`."
pub async fn a_missing_record_is_written_anew_and_state_was_lost<S: Registry + StateStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let version = Version::new(1_000, 7);
    assert_eq!(bench.restore(&lease, &key, version, 123).await, LOST);
    let snapshot = bench.snapshot(&key).await;
    assert_eq!((snapshot.version, snapshot.state), (version, state_after([])));
    let presence = snapshot.presence;
    assert!(presence.online);
    assert_eq!((presence.since_ms, presence.epoch), (123, Epoch(1_000)));
    assert_eq!((presence.reason, presence.edge), (None, Some(lease.edge)));
    let change = set(&[("a", "1")]);
    bench.store(&key, version, &change).await;
    assert_eq!(bench.snapshot(&key).await.state, state_after([&change]));
}

/// "Every call says so until a full change is stored": a restore whose answer was lost can be repeated, and a
/// session that takes over does not believe that the values are all there.
pub async fn a_repeated_restore_still_says_that_state_was_lost<S: Registry + StateStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let version = Version::new(1_000, 7);
    for _ in 0..2 {
        assert_eq!(bench.restore(&lease, &key, version, 0).await, LOST);
    }
    let version = bench.store(&key, version, &set(&[("a", "1")])).await;
    assert_eq!(bench.restore(&lease, &key, version, 0).await, LOST);
    assert!(!bench.acquire(&lease, &key).await.has_state);
}

/// "Until a full change is stored."
pub async fn a_full_change_makes_good_what_was_lost<S: Registry + StateStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let version = Version::new(1_000, 7);
    bench.restore(&lease, &key, version, 0).await;
    let version = bench.store(&key, version, &full(&[("a", "1")])).await;
    assert_eq!(bench.restore(&lease, &key, version, 0).await, NOT_LOST);
    assert!(bench.acquire(&lease, &key).await.has_state);
}

/// "A record of the same epoch that is online gets the lease": the edge has a new one, and nothing else changes.
pub async fn restoring_what_is_held_loses_nothing<S: Registry + StateStore>(bench: &Bench<S>) {
    let (old, new) = (bench.held("one").await, Lease { start: 2, ..bench.lease("one", 1) });
    let key = bench.key("b/g");
    let acquired = bench.acquire(&old, &key).await;
    let version = bench.store(&key, Version::start(acquired.epoch), &set(&[("a", "1")])).await;
    let before = bench.snapshot(&key).await;
    bench.tick().await;
    for _ in 0..2 {
        assert_eq!(bench.restore(&new, &key, version, 5).await, NOT_LOST);
        assert_eq!(bench.snapshot(&key).await, before);
    }
    assert_eq!(bench.acquire(&old, &key).await.taken_from, Some(new));
}

/// "Whether changes that had been stored are gone": the record is of the epoch, but older than what was stored.
pub async fn restoring_at_a_greater_version_says_that_state_was_lost<S: Registry + StateStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let epoch = bench.acquire(&lease, &key).await.epoch;
    let change = set(&[("a", "1")]);
    bench.store(&key, Version::start(epoch), &change).await;
    let stored = Version::new(epoch.0, 9);
    for _ in 0..2 {
        assert_eq!(bench.restore(&lease, &key, stored, 5).await, LOST);
        let snapshot = bench.snapshot(&key).await;
        assert_eq!((snapshot.version, snapshot.state), (stored, state_after([&change])));
    }
}

/// "The greater of both versions": a change that was stored without an answer stays stored.
pub async fn restoring_never_goes_back<S: Registry + StateStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let epoch = bench.acquire(&lease, &key).await.epoch;
    let version = bench.store(&key, Version::start(epoch), &set(&[("a", "1")])).await;
    let before = bench.snapshot(&key).await;
    assert_eq!(bench.restore(&lease, &key, Version::start(epoch), 5).await, NOT_LOST);
    assert_eq!(bench.snapshot(&key).await, before);
    assert_eq!(bench.apply(&key, version, &set(&[("a", "1")])).await, Applied::Stored { at_ms: before.at_ms });
}

/// "One of an older epoch is written anew, online, at `version`"; "what remains of the values is kept".
pub async fn restoring_over_an_older_epoch_keeps_its_values<S: Registry + StateStore>(bench: &Bench<S>) {
    let (one, two, key) = (bench.held("one").await, bench.held("two").await, bench.key("b/g"));
    for ended in [false, true] {
        let epoch = bench.acquire(&one, &key).await.epoch;
        bench.store(&key, Version::start(epoch), &full(&[("a", "1")])).await;
        if ended {
            bench.one.release(&key, epoch, Reason::Closed).await.expect("an answer").expect("an end");
        }
        let before = bench.snapshot(&key).await.state;
        let version = Version::new(epoch.0 + 10, 3);
        for _ in 0..2 {
            assert_eq!(bench.restore(&two, &key, version, 5).await, LOST);
            let snapshot = bench.snapshot(&key).await;
            assert_eq!((snapshot.version, &snapshot.state), (version, &before));
            assert!(snapshot.presence.online);
            assert_eq!((snapshot.presence.since_ms, snapshot.presence.epoch), (5, version.epoch));
            assert_eq!((snapshot.presence.reason, snapshot.presence.edge.as_ref()), (None, Some(&two.edge)));
        }
    }
}

/// "A newer session holds the gateway", or held it until it ended.
pub async fn restoring_an_older_session_is_superseded<S: Registry + StateStore>(bench: &Bench<S>) {
    let (one, two, key) = (bench.held("one").await, bench.held("two").await, bench.key("b/g"));
    let old = bench.acquire(&one, &key).await.epoch;
    let new = bench.acquire(&two, &key).await.epoch;
    let online = bench.snapshot(&key).await;
    assert_eq!(bench.restore(&one, &key, Version::new(old.0, 50), 5).await, Restored::Superseded(new));
    assert_eq!(bench.snapshot(&key).await, online);
    bench.two.release(&key, new, Reason::Closed).await.expect("an answer").expect("an end");
    assert_eq!(bench.restore(&one, &key, Version::new(old.0, 50), 5).await, Restored::Superseded(new));
}

/// "The session was ended in the store, as when its lease had run out: it cannot come online twice."
pub async fn restoring_an_ended_session_is_refused<S: Registry + StateStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let epoch = bench.acquire(&lease, &key).await.epoch;
    bench.one.release(&key, epoch, Reason::EdgeLost).await.expect("an answer").expect("an end");
    let before = bench.snapshot(&key).await;
    for rev in [0, 1, 50] {
        assert_eq!(bench.restore(&lease, &key, Version::new(epoch.0, rev), 5).await, Restored::Ended);
        assert_eq!(bench.snapshot(&key).await, before);
    }
}

/// A restored session is its lease's in every respect: audit names it, the index has its building, and a sweep of
/// the old lease leaves it online.
pub async fn a_restored_session_belongs_to_its_lease<S: Registry + StateStore>(bench: &Bench<S>) {
    let (old, new) = (bench.held("one").await, Lease { start: 2, ..bench.lease("one", 1) });
    let key = bench.key("b/g");
    let (tenant, b) = (&key.tenant, key.address.building());
    let epoch = bench.acquire(&old, &key).await.epoch;
    bench.restore(&new, &key, Version::start(epoch), 0).await;
    let gateway = key.address.gateway().clone();
    let held = Held { gateway, version: Version::start(epoch), lease: Some(new.clone()), unsent: 0 };
    assert_eq!(bench.two.audit(tenant, b).await, Ok(vec![held]));
    assert_eq!(bench.two.lease_index(&new).await, Ok(vec![(tenant.clone(), b.clone())]));
    assert_eq!(bench.two.sweep(&old, Reason::EdgeLost, tenant, b).await, Ok(vec![]));
    assert!(bench.presence(&key).await.online);
    let swept = bench.two.sweep(&new, Reason::EdgeLost, tenant, b).await.expect("an answer");
    assert_eq!(swept.len(), 1);
}
