use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

fn pattern(text: &str) -> Pattern {
    text.parse().expect("a pattern")
}

fn of(text: &str) -> Address {
    text.parse().expect("an address")
}

fn filter(patterns: &[&str]) -> Arc<PathFilter> {
    Arc::new(PathFilter::parse(patterns).expect("a filter"))
}

fn all() -> Arc<PathFilter> {
    Arc::new(PathFilter::ALL)
}

fn after(at: u64) -> Place {
    Place { life: 1, at, goes_on: false, gap: false }
}

fn going_on(at: u64) -> Place {
    Place { goes_on: true, ..after(at) }
}

#[test]
fn a_cursor_is_known_or_waits_for_the_oldest_event_or_is_a_gap() {
    let stream = Stream { life: 7, last: 100 };
    let cursor = |life, seq| Asked::parse(Some(&Cursor { life, seq }.to_string()));
    let known = |at| Some(Place { life: 7, at, goes_on: false, gap: false });
    let gap = Some(Place { life: 7, at: 19, goes_on: false, gap: true });
    let now = Asked::parse(None);
    assert_eq!(Place::of(now, stream, None), None, "the tail may not have brought the newest yet");
    assert_eq!(Place::of(now, stream, Some(20)), Some(Place { life: 7, at: 100, goes_on: true, gap: false }));
    for (asked, expected) in [(cursor(7, 40), 40), (cursor(7, 100), 100), (cursor(7, 0), 0), (cursor(0, 0), 0)] {
        assert_eq!(Place::of(asked, stream, None), known(expected), "{asked:?}");
    }
    for asked in [cursor(7, 101), cursor(6, 40), cursor(0, 1), Asked::parse(Some("7.x"))] {
        assert_eq!(Place::of(asked, stream, None), None, "{asked:?}");
        assert_eq!(Place::of(asked, stream, Some(20)), gap, "{asked:?}");
    }
}

#[test]
fn an_event_that_two_subscriptions_name_is_delivered_once() {
    let mut position = Position::default();
    position.put(&pattern("b/*"), &all(), after(5), 7);
    assert!(position.pass(6, &of("b/g"), None));
    position.put(&pattern("*/*"), &all(), after(3), 7);
    assert_eq!(position.at(), Some(3));
    assert!(position.pass(4, &of("b/g"), None), "it is older than the other subscription");
    assert!(position.pass(5, &of("b/g"), None));
    assert!(!position.pass(6, &of("b/g"), None), "the other one delivered it");
    assert!(position.pass(7, &of("b/g"), None));
    assert_eq!(position.at(), Some(7));
}

#[test]
fn a_subscription_that_is_made_again_goes_on_where_it_stands() {
    let mut position = Position::default();
    position.put(&pattern("b/*"), &all(), after(5), 9);
    assert!(position.pass(6, &of("b/g"), None));
    position.put(&pattern("b/*"), &all(), going_on(9), 9);
    assert_eq!(position.at(), Some(6));
    position.put(&pattern("b/*"), &all(), after(2), 9);
    assert_eq!(position.at(), Some(2), "a cursor says where to begin");
    position.put(&pattern("c/*"), &all(), going_on(9), 9);
    assert_eq!(position.0.iter().map(|f| f.at).collect::<Vec<_>>(), [2, 9], "a new one begins now");
}

#[test]
fn a_wider_filter_claims_nothing_that_the_narrower_one_left_out() {
    let mut position = Position::default();
    let hall: Path = "hall/bell".parse().expect("a path");
    position.put(&pattern("b/g"), &filter(&["kitchen/#"]), after(0), 1);
    assert!(!position.pass(1, &of("b/g"), Some(&hall)));
    position.put(&pattern("b/g"), &all(), going_on(1), 1);
    position.put(&pattern("b/*"), &all(), after(0), 1);
    assert!(position.pass(1, &of("b/g"), Some(&hall)), "nobody has delivered it");
}

#[test]
fn what_has_no_path_passes_every_filter() {
    let mut position = Position::default();
    position.put(&pattern("b/*"), &filter(&["kitchen/#"]), after(0), 3);
    let path = |text: &str| text.parse::<Path>().expect("a path");
    assert!(position.pass(1, &of("b/_"), None));
    assert!(position.pass(2, &of("b/g"), Some(&path("kitchen/light"))));
    assert!(!position.pass(3, &of("b/g"), Some(&path("hall/bell"))));
}

#[test]
fn what_is_not_kept_is_skipped_and_said_once() {
    let mut position = Position::default();
    position.put(&pattern("b/*"), &all(), after(5), 30);
    position.put(&pattern("c/*"), &all(), after(20), 30);
    assert_eq!(position.skip_to(10), [pattern("b/*")]);
    assert!(position.skip_to(10).is_empty());
    assert_eq!(position.at(), Some(9));
}

#[test]
fn the_word_that_all_was_sent_comes_at_what_was_last_when_it_was_asked_for() {
    let mut position = Position::default();
    position.put(&pattern("b/*"), &all(), after(1), 3);
    assert!(position.owe_synced(&pattern("b/*")) && !position.owe_synced(&pattern("c/*")));
    for seq in 2..=3 {
        assert!(position.synced().is_empty(), "before {seq}");
        position.pass(seq, &of("b/g"), None);
    }
    assert_eq!(position.synced(), [pattern("b/*")]);
    assert!(position.synced().is_empty());
}

/// What happens to a listener.
#[derive(Debug, Clone)]
enum Happens {
    /// It subscribes, with a cursor so far before the end, or without.
    Subscribe(usize, Option<u64>),
    Unsubscribe(usize),
    /// So many events are stored.
    Stored(u64),
    /// It takes so many.
    Takes(u64),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        (0usize..4, prop::option::of(0u64..20)).prop_map(|(to, back)| Happens::Subscribe(to, back)),
        (0usize..4).prop_map(Happens::Unsubscribe),
        (1u64..10).prop_map(Happens::Stored),
        (1u64..20).prop_map(Happens::Takes),
    ]
}

const TO: [&str; 4] = ["b/g", "b/*", "*/*", "c/*"];

fn address(seq: u64) -> Address {
    of(if seq.is_multiple_of(3) { "c/g" } else { "b/g" })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_024, rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..ProptestConfig::default()
    })]

    /// Compares with what was promised, subscription by subscription: what a subscription is due and nobody has delivered
    /// comes, in order, and nothing else.
    #[test]
    fn each_event_that_a_subscription_is_due_comes_once(list in prop::collection::vec(happens(), 1..40)) {
        let (mut position, mut last) = (Position::default(), 0);
        // Of each subscription: what it has yet to see.
        let mut due: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        // What each subscription that still stands has seen.
        let mut seen: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        let wants = |to: usize, seq: u64| pattern(TO[to]).matches(&address(seq));
        for happens in list.into_iter().chain([Happens::Takes(u64::MAX)]) {
            match happens {
                Happens::Stored(count) => {
                    for seq in last + 1..=last + count {
                        due.iter_mut().filter(|(to, _)| wants(**to, seq)).for_each(|(_, list)| list.push(seq));
                    }
                    last += count;
                }
                Happens::Subscribe(to, back) => {
                    let place = back.map_or(going_on(last), |back| after(last.saturating_sub(back)));
                    position.put(&pattern(TO[to]), &all(), place, last);
                    if back.is_some() {
                        let again = (place.at + 1..=last).filter(|seq| wants(to, *seq));
                        due.insert(to, again.collect());
                        seen.insert(to, Vec::new());
                    } else {
                        due.entry(to).or_default();
                    }
                }
                Happens::Unsubscribe(to) => {
                    position.remove(&pattern(TO[to]));
                    due.remove(&to);
                    seen.remove(&to);
                }
                Happens::Takes(count) => {
                    for _ in 0..count {
                        let Some(at) = position.at().filter(|at| *at < last) else { break };
                        let seq = at + 1;
                        let has_it = seen.values().any(|list| list.contains(&seq));
                        let is_due = due.values().any(|list| list.contains(&seq));
                        prop_assert_eq!(position.pass(seq, &address(seq), None), is_due && !has_it, "event {}", seq);
                        for (to, list) in &mut due {
                            if let Some(at) = list.iter().position(|other| *other == seq) {
                                list.remove(at);
                                seen.entry(*to).or_default().push(seq);
                            }
                        }
                    }
                }
            }
        }
        prop_assert!(due.values().all(Vec::is_empty), "left: {:?}", due);
    }
}
