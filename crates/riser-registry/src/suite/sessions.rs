//! Sessions: how they begin, take over and end, and what presence says of them.

use riser_core::{Epoch, Reason, Version};

use super::{Bench, building, set};
use crate::{Ended, Held, Lease, PRESENCE_PAGE, Registry, StateStore};

/// A gateway that nobody knew: no version before, no state, nobody to take over from; online from now.
pub async fn a_first_session_is_online_and_knows_nothing<S: Registry + StateStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let acquired = bench.acquire(&lease, &key).await;
    assert_eq!((acquired.before, acquired.has_state, &acquired.taken_from), (None, false, &None));
    assert_eq!(acquired.since_ms, acquired.now_ms);
    let snapshot = bench.snapshot(&key).await;
    assert_eq!(snapshot.version, Version::start(acquired.epoch));
    assert_eq!(snapshot.at_ms, acquired.now_ms);
    assert_eq!(snapshot.state, super::state_after([]));
    assert_eq!(snapshot.presence, bench.presence(&key).await);
    let presence = snapshot.presence;
    assert!(presence.online);
    assert_eq!((presence.since_ms, presence.epoch), (acquired.since_ms, acquired.epoch));
    assert_eq!((presence.reason, presence.edge), (None, Some(lease.edge)));
}

/// An epoch is roughly a time: it is not below the store's clock.
pub async fn an_epoch_is_at_least_the_clock<S: Registry + StateStore>(bench: &Bench<S>) {
    let lease = bench.held("one").await;
    let acquired = bench.acquire(&lease, &bench.key("b/g")).await;
    assert!(acquired.epoch.0 >= acquired.now_ms);
}

/// "Greater than `floor`", which may be ahead of the clock and of what the store knows.
pub async fn an_epoch_is_greater_than_the_floor<S: Registry + StateStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let first = bench.acquire(&lease, &key).await;
    let floor = Epoch(first.epoch.0 + 1_000_000_000);
    let second = bench.one.acquire(&lease, &key, Some(floor)).await.expect("an answer");
    assert!(second.epoch > floor);
    let third = bench.one.acquire(&lease, &key, Some(first.epoch)).await.expect("an answer");
    assert!(third.epoch > second.epoch, "a floor below what the store knows changes nothing");
}

/// "An epoch greater than every one before it", whoever begins the session.
pub async fn an_epoch_grows_over_a_takeover<S: Registry + StateStore>(bench: &Bench<S>) {
    let (one, two, key) = (bench.held("one").await, bench.held("two").await, bench.key("b/g"));
    let mut last = bench.acquire(&one, &key).await.epoch;
    for lease in [&two, &one, &one, &two] {
        let acquired = bench.two.acquire(lease, &key, None).await.expect("an answer");
        assert!(acquired.epoch > last);
        assert_eq!(acquired.before, Some(Version::start(last)));
        last = acquired.epoch;
    }
}

/// The same, when the session before has ended.
pub async fn an_epoch_grows_over_an_end<S: Registry + StateStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let first = bench.acquire(&lease, &key).await.epoch;
    bench.one.release(&key, first, Reason::Closed).await.expect("an answer");
    assert!(bench.acquire(&lease, &key).await.epoch > first);
}

/// "The lease that held the gateway until now, when a session was online"; "a takeover keeps" since when it is
/// online.
pub async fn a_takeover_never_shows_offline<S: Registry + StateStore>(bench: &Bench<S>) {
    let (one, two, key) = (bench.held("one").await, bench.held("two").await, bench.key("b/g"));
    let first = bench.acquire(&one, &key).await;
    for (from, to) in [(&one, &two), (&two, &two), (&two, &one)] {
        bench.tick().await;
        let acquired = bench.acquire(to, &key).await;
        assert_eq!(acquired.taken_from.as_ref(), Some(from));
        assert_eq!(acquired.since_ms, first.since_ms);
        assert!(acquired.now_ms > first.now_ms);
        let presence = bench.presence(&key).await;
        assert!(presence.online);
        assert_eq!((presence.since_ms, presence.epoch), (first.since_ms, acquired.epoch));
        assert_eq!((presence.reason, presence.edge.as_ref()), (Some(Reason::Takeover), Some(&to.edge)));
    }
}

/// "Values and descriptions are kept", and what was fresh stays fresh.
pub async fn a_takeover_keeps_the_values<S: Registry + StateStore>(bench: &Bench<S>) {
    let (one, two, key) = (bench.held("one").await, bench.held("two").await, bench.key("b/g"));
    let first = bench.acquire(&one, &key).await;
    let change = set(&[("a", "1"), ("b", r#"{"on":true}"#)]);
    let version = bench.store(&key, Version::start(first.epoch), &change).await;
    let second = bench.acquire(&two, &key).await;
    assert_eq!((second.before, second.has_state), (Some(version), true));
    let snapshot = bench.snapshot(&key).await;
    assert_eq!(snapshot.version, Version::start(second.epoch));
    assert_eq!(snapshot.state, super::state_after([&change]));
}

/// "How often a session was taken over before, this time included": neither an arrival nor an end counts, and each
/// gateway has its own count.
pub async fn a_session_is_told_how_often_it_was_taken_over<S: Registry + StateStore>(bench: &Bench<S>) {
    let (one, two, key) = (bench.held("one").await, bench.held("two").await, bench.key("b/g"));
    for (lease, takeovers) in [(&one, 0), (&two, 1), (&one, 2), (&one, 3)] {
        assert_eq!(bench.acquire(lease, &key).await.takeovers, takeovers);
    }
    assert_eq!(bench.acquire(&one, &bench.key("b/other")).await.takeovers, 0);
    let epoch = bench.acquire(&two, &key).await.epoch;
    bench.one.release(&key, epoch, Reason::Closed).await.expect("an answer").expect("an end");
    assert_eq!(bench.acquire(&one, &key).await.takeovers, 4, "nobody was taken over from");
    assert_eq!(bench.acquire(&two, &key).await.takeovers, 5);
}

/// Taking over excludes itself: of sessions that begin at once, each takes over from one other, and the one with
/// the greatest epoch holds the gateway.
pub async fn sessions_that_begin_at_once_take_over_one_after_another<S: Registry + StateStore>(bench: &Bench<S>) {
    let (one, two, key) = (bench.held("one").await, bench.held("two").await, bench.key("b/g"));
    let (a, b, c, d) = tokio::join!(
        bench.one.acquire(&one, &key, None),
        bench.two.acquire(&two, &key, None),
        bench.one.acquire(&one, &key, None),
        bench.two.acquire(&two, &key, None),
    );
    let mut sessions: Vec<_> = [(a, &one), (b, &two), (c, &one), (d, &two)]
        .into_iter()
        .map(|(acquired, lease)| (acquired.expect("an answer"), lease))
        .collect();
    sessions.sort_by_key(|(acquired, _)| acquired.epoch);
    assert_eq!((sessions[0].0.before, &sessions[0].0.taken_from), (None, &None));
    for pair in sessions.windows(2) {
        let [(before, lease), (after, _)] = pair else { unreachable!("windows of two") };
        assert_eq!(after.before, Some(Version::start(before.epoch)));
        assert_eq!(after.taken_from.as_ref(), Some(*lease));
        assert_eq!(after.since_ms, sessions[0].0.since_ms);
    }
    let (last, lease) = &sessions[3];
    let presence = bench.presence(&key).await;
    assert_eq!((presence.epoch, presence.edge.as_ref()), (last.epoch, Some(&lease.edge)));
}

/// After an end nobody is taken over from, and the gateway is online from now.
pub async fn a_session_after_an_end_is_a_plain_arrival<S: Registry + StateStore>(bench: &Bench<S>) {
    let (one, two, key) = (bench.held("one").await, bench.held("two").await, bench.key("b/g"));
    let first = bench.acquire(&one, &key).await;
    let ended = bench.one.release(&key, first.epoch, Reason::Closed).await.expect("an answer").expect("an end");
    bench.tick().await;
    let second = bench.acquire(&two, &key).await;
    assert_eq!((second.before, second.taken_from), (Some(ended.version), None));
    assert_eq!(second.since_ms, second.now_ms);
    assert!(second.since_ms > first.since_ms);
    let presence = bench.presence(&key).await;
    assert!(presence.online);
    assert_eq!((presence.since_ms, presence.reason), (second.since_ms, None));
}

/// An end is "the next revision of the epoch", offline from now, with its reason.
pub async fn a_release_ends_the_session<S: Registry + StateStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let acquired = bench.acquire(&lease, &key).await;
    let version = bench.store(&key, Version::start(acquired.epoch), &set(&[("a", "1")])).await;
    bench.tick().await;
    let ended = bench.two.release(&key, acquired.epoch, Reason::Heartbeat).await.expect("an answer").expect("an end");
    assert_eq!((ended.version, ended.reason), (version.next(), Reason::Heartbeat));
    assert!(ended.at_ms > acquired.now_ms);
    let snapshot = bench.snapshot(&key).await;
    assert_eq!((snapshot.version, snapshot.at_ms), (ended.version, ended.at_ms));
    assert!(!snapshot.presence.online);
    assert_eq!((snapshot.presence.since_ms, snapshot.presence.epoch), (ended.at_ms, acquired.epoch));
    assert_eq!((snapshot.presence.reason, &snapshot.presence.edge), (Some(Reason::Heartbeat), &None));
    assert_eq!(snapshot.presence, bench.presence(&key).await);
}

/// "A repeated call with the same reason answers the same."
pub async fn a_repeated_release_answers_the_same<S: Registry + StateStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let epoch = bench.acquire(&lease, &key).await.epoch;
    let first = bench.one.release(&key, epoch, Reason::Closed).await;
    assert!(matches!(first, Ok(Some(_))), "{first:?}");
    bench.tick().await;
    for _ in 0..2 {
        assert_eq!(bench.one.release(&key, epoch, Reason::Closed).await, first);
    }
}

/// "None when it ended before with another reason."
pub async fn a_release_with_another_reason_changes_nothing<S: Registry + StateStore>(bench: &Bench<S>) {
    let (lease, key) = (bench.held("one").await, bench.key("b/g"));
    let epoch = bench.acquire(&lease, &key).await.epoch;
    bench.one.release(&key, epoch, Reason::Closed).await.expect("an answer");
    let before = bench.snapshot(&key).await;
    assert_eq!(bench.one.release(&key, epoch, Reason::Heartbeat).await, Ok(None));
    assert_eq!(bench.snapshot(&key).await, before);
}

/// "None when a newer session holds it": what comes late from an older one undoes nothing.
pub async fn a_release_of_an_older_session_changes_nothing<S: Registry + StateStore>(bench: &Bench<S>) {
    let (one, two, key) = (bench.held("one").await, bench.held("two").await, bench.key("b/g"));
    let old = bench.acquire(&one, &key).await.epoch;
    let new = bench.acquire(&two, &key).await.epoch;
    let online = bench.snapshot(&key).await;
    assert_eq!(bench.one.release(&key, old, Reason::Closed).await, Ok(None));
    assert_eq!(bench.snapshot(&key).await, online);
    bench.two.release(&key, new, Reason::Closed).await.expect("an answer").expect("an end");
    let offline = bench.snapshot(&key).await;
    assert_eq!(bench.one.release(&key, old, Reason::Closed).await, Ok(None));
    assert_eq!(bench.snapshot(&key).await, offline);
}

/// There is nothing to end of a gateway that is not known, and it does not become known by it.
pub async fn a_release_of_what_nobody_knows_is_none<S: Registry + StateStore>(bench: &Bench<S>) {
    let key = bench.key("b/g");
    assert_eq!(bench.one.release(&key, Epoch(7), Reason::Closed).await, Ok(None));
    assert_eq!(bench.one.read(&key).await, Ok(None));
    bench.acquire(&bench.held("one").await, &bench.key("b/h")).await;
    assert_eq!(bench.one.release(&key, Epoch(7), Reason::Closed).await, Ok(None));
    assert_eq!(bench.one.read(&key).await, Ok(None));
}

/// "All that is known of a building's gateways, in the order of their names": whether online or not, and whoever
/// holds them.
pub async fn an_audit_tells_of_every_gateway_of_its_building<S: Registry + StateStore>(bench: &Bench<S>) {
    let (one, two) = (bench.held("one").await, bench.held("two").await);
    let mut expected = vec![];
    let held = |name: &str, version: Version, lease: Option<&Lease>| Held {
        gateway: name.parse().expect("a gateway name"),
        version,
        lease: lease.cloned(),
        unsent: 0,
    };
    for (name, lease) in [("g1", &two), ("_", &one), ("G", &one)] {
        let key = bench.key(&format!("b/{name}"));
        let epoch = bench.acquire(lease, &key).await.epoch;
        let version = bench.store(&key, Version::start(epoch), &set(&[("a", "1")])).await;
        expected.push(held(name, version, Some(lease)));
    }
    let gone = bench.key("b/g10");
    let epoch = bench.acquire(&one, &gone).await.epoch;
    let ended = bench.one.release(&gone, epoch, Reason::Closed).await.expect("an answer").expect("an end");
    expected.push(held("g10", ended.version, None));
    bench.acquire(&one, &bench.key("bb/g1")).await;
    bench.acquire(&one, &bench.key_of("u", "b/g1")).await;
    expected.sort_by(|a, b| a.gateway.cmp(&b.gateway));
    assert_eq!(bench.two.audit(&bench.tenant("t"), &building("b")).await, Ok(expected));
    assert_eq!(bench.two.audit(&bench.tenant("t"), &building("none")).await, Ok(vec![]));
}

/// "Presence of a building's gateways in the order of their names, those after `after`, at most `limit`."
pub async fn presence_comes_in_pages_in_the_order_of_names<S: Registry + StateStore>(bench: &Bench<S>) {
    let lease = bench.held("one").await;
    let mut names = vec!["g1", "g10", "g2", "B", "a", "_"];
    for name in &names {
        bench.acquire(&lease, &bench.key(&format!("b/{name}"))).await;
    }
    names.sort_unstable();
    let page = async |after: Option<&str>, limit| {
        let after = after.map(|name| name.parse().expect("a gateway name"));
        let (tenant, b) = (bench.tenant("t"), building("b"));
        let rows = bench.two.presence(&tenant, &b, after.as_ref(), limit).await.expect("an answer");
        rows.into_iter().map(|(gateway, _)| gateway.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 100).await, names);
    assert_eq!(page(None, 2).await, names[..2]);
    assert_eq!(page(Some(names[1]), 2).await, names[2..4]);
    assert_eq!(page(Some("f"), 100).await, names[3..], "a name that is not there stands where it would be");
    assert_eq!(page(Some(names[5]), 100).await, [] as [&str; 0]);
    assert_eq!(page(None, 0).await, [] as [&str; 0]);
}

/// "And at most `PRESENCE_PAGE`", whatever the caller asks for.
pub async fn a_page_of_presence_is_bounded<S: Registry + StateStore>(bench: &Bench<S>) {
    let lease = bench.held("one").await;
    for number in 0..=PRESENCE_PAGE {
        bench.acquire(&lease, &bench.key(&format!("b/g{number:05}"))).await;
    }
    let (tenant, b) = (bench.tenant("t"), building("b"));
    let first = bench.one.presence(&tenant, &b, None, usize::MAX).await.expect("an answer");
    assert_eq!(first.len(), PRESENCE_PAGE);
    let last = first.last().map(|(gateway, _)| gateway);
    let second = bench.one.presence(&tenant, &b, last, usize::MAX).await.expect("an answer");
    assert_eq!(second.len(), 1);
}

/// The same address in two tenants is two gateways.
pub async fn tenants_do_not_see_each_other<S: Registry + StateStore>(bench: &Bench<S>) {
    let lease = bench.held("one").await;
    let (t, u) = (bench.key_of("t", "b/g"), bench.key_of("u", "b/g"));
    let first = bench.acquire(&lease, &t).await;
    bench.store(&t, Version::start(first.epoch), &set(&[("secret", "1")])).await;
    let before = bench.snapshot(&t).await;
    let second = bench.acquire(&lease, &u).await;
    assert_eq!((second.before, second.has_state, second.taken_from), (None, false, None));
    bench.store(&u, Version::start(second.epoch), &set(&[("other", "2")])).await;
    let ended = bench.one.release(&u, second.epoch, Reason::Closed).await.expect("an answer");
    let version = Version::start(second.epoch).next().next();
    assert!(matches!(ended, Some(Ended { version: v, .. }) if v == version), "{ended:?}");
    assert_eq!(bench.snapshot(&t).await, before);
    bench.acquire(&lease, &bench.key_of("u", "only/g")).await;
    assert_eq!(bench.one.buildings(&t.tenant).await, Ok(vec![building("b")]));
    assert_eq!(bench.one.audit(&t.tenant, &building("only")).await, Ok(vec![]));
}
