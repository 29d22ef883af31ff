//! Last values: which changes are stored, and what is read of them.

use std::collections::BTreeMap;

use riser_core::devices::{Device, Kind};
use riser_core::limits::Limits;
use riser_core::state::OverLimit;
use riser_core::{Change, Devices, Epoch, Reason, Version};

use super::{Bench, building, full, path, set, state_after};
use crate::{Applied, Registry, StateStore};

fn described() -> Change {
    let device = Device { kind: Kind::Lock, name: Some("Front door".into()), unit: None, actions: vec!["lock".into()] };
    Change::describe(Devices(BTreeMap::from([(path("hall/lock"), device)])))
}

/// A change that was answered `Stored` is read by everybody, at its version and time.
pub async fn a_change_is_stored_and_read<S: Registry + StateStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let mut version = Version::start(bench.acquire(&lease, &key).await.epoch);
    let changes = [set(&[("k/light", r#"{"on": true}"#), ("k/t", "21.50")]), set(&[("k/t", "\"\u{e9}\\n\"")])];
    for count in 1..=changes.len() {
        bench.tick().await;
        version = version.next();
        let Applied::Stored { at_ms } = bench.apply(&key, version, &changes[count - 1]).await else {
            panic!("{version} was not stored");
        };
        let snapshot = bench.snapshot(&key).await;
        assert_eq!((snapshot.version, snapshot.at_ms), (version, at_ms));
        assert_eq!(snapshot.state, state_after(&changes[..count]));
        assert!(snapshot.presence.online);
    }
}

/// "Takes the change if the store stands right before it in the same epoch."
pub async fn a_change_is_stored_only_onto_the_one_before<S: Registry + StateStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let start = Version::start(bench.acquire(&lease, &key).await.epoch);
    let second = start.next().next();
    let change = set(&[("a", "1")]);
    assert_eq!(bench.apply(&key, second, &change).await, Applied::Gap(Some(start)));
    assert_eq!(bench.snapshot(&key).await.state, state_after([]));
    bench.store(&key, start, &change).await;
    bench.store(&key, start.next(), &change).await;
    bench.store(&key, second, &change).await;
    let third = second.next();
    let before = bench.snapshot(&key).await;
    assert_eq!(bench.apply(&key, second, &set(&[("a", "2")])).await, Applied::Gap(Some(third)));
    assert_eq!(bench.apply(&key, third.next().next(), &set(&[("a", "2")])).await, Applied::Gap(Some(third)));
    assert_eq!(bench.snapshot(&key).await, before);
}

/// "When the store stands at `version` already, the call is a repetition and answers `Stored`", with the time at
/// which it was stored.
pub async fn a_repeated_change_answers_the_same<S: Registry + StateStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let version = Version::start(bench.acquire(&lease, &key).await.epoch).next();
    let change = set(&[("a", "1")]);
    let first = bench.apply(&key, version, &change).await;
    assert!(matches!(first, Applied::Stored { .. }), "{first:?}");
    let before = bench.snapshot(&key).await;
    bench.tick().await;
    for _ in 0..2 {
        assert_eq!(bench.apply(&key, version, &change).await, first);
        assert_eq!(bench.snapshot(&key).await, before);
    }
}

/// "A newer session holds the gateway": nothing that comes late from an older one is stored.
pub async fn a_change_of_an_older_session_is_fenced<S: Registry + StateStore>(bench: &Bench<S>) {
    let (one, two, key) = (bench.held("one").await, bench.held("two").await, bench.key("b/g"));
    let old = bench.acquire(&one, &key).await.epoch;
    let stored = bench.store(&key, Version::start(old), &set(&[("a", "1")])).await;
    let new = bench.acquire(&two, &key).await.epoch;
    let before = bench.snapshot(&key).await;
    for version in [stored, stored.next(), Version::start(old)] {
        assert_eq!(bench.apply(&key, version, &set(&[("a", "2")])).await, Applied::Fenced(Some(new)));
    }
    assert_eq!(bench.snapshot(&key).await, before);
    bench.two.release(&key, new, Reason::Closed).await.expect("an answer").expect("an end");
    assert_eq!(bench.apply(&key, stored.next(), &set(&[("a", "2")])).await, Applied::Fenced(Some(new)));
}

/// "This one has ended: nothing was stored."
pub async fn a_change_after_the_end_is_fenced<S: Registry + StateStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let epoch = bench.acquire(&lease, &key).await.epoch;
    let stored = bench.store(&key, Version::start(epoch), &set(&[("a", "1")])).await;
    let ended = bench.one.release(&key, epoch, Reason::Closed).await.expect("an answer").expect("an end");
    let before = bench.snapshot(&key).await;
    for version in [stored, ended.version, ended.version.next()] {
        assert_eq!(bench.apply(&key, version, &set(&[("a", "2")])).await, Applied::Fenced(None));
    }
    assert_eq!(bench.snapshot(&key).await, before);
}

/// "What stands in the store is not the version right before: the store lost data."
pub async fn a_change_of_what_nobody_knows_is_a_gap<S: Registry + StateStore>(bench: &Bench<S>) {
    let key = bench.key("b/g");
    assert_eq!(bench.apply(&key, Version::new(1_000, 1), &set(&[("a", "1")])).await, Applied::Gap(None));
    bench.acquire(&bench.held("one").await, &bench.key("b/h")).await;
    assert_eq!(bench.apply(&key, Version::new(1_000, 1), &set(&[("a", "1")])).await, Applied::Gap(None));
    assert_eq!(bench.one.read(&key).await, Ok(None));
}

/// A session that the store lost finds an older epoch in its place, whether that one was online or not.
pub async fn a_change_of_an_epoch_that_the_store_lost_is_a_gap<S: Registry + StateStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let old = bench.acquire(&lease, &key).await.epoch;
    let lost = Version::start(Epoch(old.0 + 10)).next();
    let before = bench.snapshot(&key).await;
    assert_eq!(bench.apply(&key, lost, &set(&[("a", "1")])).await, Applied::Gap(Some(before.version)));
    assert_eq!(bench.snapshot(&key).await, before);
    let ended = bench.one.release(&key, old, Reason::Closed).await.expect("an answer").expect("an end");
    assert_eq!(bench.apply(&key, lost, &set(&[("a", "1")])).await, Applied::Gap(Some(ended.version)));
}

/// "The state would be over a limit. Nothing was stored, and the version did not change."
pub async fn a_change_over_a_limit_is_not_stored<S: Registry + StateStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let mut version = Version::start(bench.acquire(&lease, &key).await.epoch);
    let limits = Limits { paths: 2, state_bytes: 10, ..Limits::default() };
    let apply = async |at, change: Change| bench.one.apply(&key, at, &change, &limits).await.expect("an answer");
    version = bench.store(&key, version, &set(&[("a", "1"), ("b", "2")])).await;
    let before = bench.snapshot(&key).await;
    let paths = Applied::OverLimit(OverLimit::Paths(2));
    assert_eq!(apply(version.next(), set(&[("c", "3")])).await, paths);
    let bytes = Applied::OverLimit(OverLimit::Bytes(10));
    assert_eq!(apply(version.next(), set(&[("a", "12345678")])).await, bytes);
    assert_eq!(bench.snapshot(&key).await, before);
    let swap = apply(version.next(), set(&[("a", ""), ("c", "3")])).await;
    assert!(matches!(swap, Applied::Stored { .. }), "{swap:?}");
    let anew = apply(version.next().next(), full(&[("long", "123456")])).await;
    assert!(matches!(anew, Applied::Stored { .. }), "a full change counts alone: {anew:?}");
}

/// What each part of a change does is said in [`Change`]; the store does exactly that.
pub async fn changes_do_what_the_vocabulary_says<S: Registry + StateStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let mut version = Version::start(bench.acquire(&lease, &key).await.epoch);
    let mut both = Change::mark(path("k"), false);
    both.merge(set(&[("k/light", "3"), ("h/x", "4")])).expect("one mark");
    let changes = [
        set(&[("k", "0"), ("k/light", "1"), ("k/t", "2"), ("kk", "3"), ("h", "null"), ("h/x", "[1,2]")]),
        described(),
        Change::mark(path("k"), false),
        set(&[("k/t", "5")]),
        Change::mark(path("k/light"), true),
        both,
        set(&[("kk", ""), ("not there", "")]),
        Change::mark(path("h"), false),
        full(&[("k/light", "6")]),
        Change::describe(Devices::default()),
        full(&[]),
    ];
    for count in 1..=changes.len() {
        version = bench.store(&key, version, &changes[count - 1]).await;
        assert_eq!(bench.snapshot(&key).await.state, state_after(&changes[..count]), "after {:?}", changes[count - 1]);
    }
}

/// "Values and descriptions are kept": the end shows in the presence alone, and a session that comes back vouches for
/// them.
pub async fn values_outlive_the_session<S: Registry + StateStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let epoch = bench.acquire(&lease, &key).await.epoch;
    let change = set(&[("a", "1"), ("b", "2")]);
    let version = bench.store(&key, Version::start(epoch), &change).await;
    bench.store(&key, version, &described()).await;
    let mut expected = state_after([&change, &described()]);
    assert_eq!(bench.snapshot(&key).await.state, expected);
    bench.one.release(&key, epoch, Reason::Closed).await.expect("an answer").expect("an end");
    assert_eq!(bench.snapshot(&key).await.state, expected);
    let again = bench.acquire(&lease, &key).await;
    assert!(again.has_state);
    assert_eq!(bench.snapshot(&key).await.state, expected);
    let changed = set(&[("a", "3")]);
    bench.store(&key, Version::start(again.epoch), &changed).await;
    expected.apply(&changed);
    assert_eq!(bench.snapshot(&key).await.state, expected);
}

/// "Whether there are values to keep", descriptions included.
pub async fn a_session_has_state_when_there_are_values_or_descriptions<S: Registry + StateStore>(bench: &Bench<S>) {
    let lease = bench.held("one").await;
    let rows = [
        ("b/nothing", vec![], false),
        ("b/values", vec![set(&[("a", "1")])], true),
        ("b/devices", vec![described()], true),
        ("b/deleted", vec![set(&[("a", "1")]), set(&[("a", "")])], false),
        ("b/emptied", vec![set(&[("a", "1")]), full(&[])], false),
    ];
    for (address, changes, has_state) in rows {
        let key = bench.key(address);
        let mut version = Version::start(bench.acquire(&lease, &key).await.epoch);
        for change in &changes {
            version = bench.store(&key, version, change).await;
        }
        let again = bench.acquire(&lease, &key).await;
        assert_eq!((again.has_state, again.before), (has_state, Some(version)), "{address}");
    }
}

/// "Where each gateway of a building stands, in the order of their names"; "the buildings of a tenant of which
/// anything is known, in order".
pub async fn versions_and_buildings_come_in_the_order_of_names<S: Registry + StateStore>(bench: &Bench<S>) {
    let lease = bench.held("one").await;
    let mut expected = vec![];
    for name in ["g2", "g10", "A", "_", "g1"] {
        let key = bench.key(&format!("b/{name}"));
        let epoch = bench.acquire(&lease, &key).await.epoch;
        let version = bench.store(&key, Version::start(epoch), &set(&[("a", "1")])).await;
        expected.push((key.address.gateway().clone(), version));
    }
    let gone = bench.key("b/gone");
    let epoch = bench.acquire(&lease, &gone).await.epoch;
    let ended = bench.one.release(&gone, epoch, Reason::Closed).await.expect("an answer").expect("an end");
    expected.push((gone.address.gateway().clone(), ended.version));
    expected.sort();
    assert_eq!(bench.two.versions(&gone.tenant, &building("b")).await, Ok(expected));
    for address in ["c/g", "B/g", "b1/g", "_/_"] {
        bench.acquire(&lease, &bench.key(address)).await;
    }
    bench.acquire(&lease, &bench.key_of("u", "other/g")).await;
    let names = ["B", "_", "b", "b1", "c"].map(building).to_vec();
    assert_eq!(bench.two.buildings(&gone.tenant).await, Ok(names));
}

/// "None when nothing is" known, and empty lists; asking makes nothing known.
pub async fn nothing_is_known_of_what_was_never_acquired<S: Registry + StateStore>(bench: &Bench<S>) {
    let key = bench.key("b/g");
    let b = key.address.building();
    let lease = bench.lease("one", 1);
    for _ in 0..2 {
        assert_eq!(bench.one.read(&key).await, Ok(None));
        assert_eq!(bench.one.versions(&key.tenant, b).await, Ok(vec![]));
        assert_eq!(bench.one.audit(&key.tenant, b).await, Ok(vec![]));
        assert_eq!(bench.one.presence(&key.tenant, b, None, 10).await, Ok(vec![]));
        assert_eq!(bench.one.lease_index(&lease).await, Ok(vec![]));
        assert_eq!(bench.one.sweep(&lease, Reason::EdgeLost, &key.tenant, b).await, Ok(vec![]));
        assert_eq!(bench.one.buildings(&key.tenant).await, Ok(vec![]));
    }
    assert_eq!(bench.ended(&lease).await, None);
}
