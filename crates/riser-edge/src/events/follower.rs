//! Where a listener stands in a tenant's events, subscription by subscription. Nothing here waits or writes.

use std::sync::Arc;

use riser_core::{Address, Path, PathFilter, Pattern};

/// One subscription to events.
#[derive(Debug, Clone)]
pub(super) struct Following {
    pub(super) to: Pattern,
    pub(super) filter: Arc<PathFilter>,
    /// It is about the events after this number.
    pub(super) start: u64,
    /// All events up to this number were delivered, or are not for it.
    pub(super) at: u64,
    /// Whether the listener is owed the word that all it asked for was sent.
    pub(super) owes_synced: bool,
}

impl Following {
    pub(super) fn wants(&self, of: &Address, path: Option<&Path>) -> bool {
        // What is about the address as a whole is no device's: it passes every filter.
        self.to.matches(of) && path.is_none_or(|path| self.filter.matches(path))
    }
}

/// All subscriptions of one listener.
#[derive(Debug, Default)]
pub(super) struct Position(Vec<Following>);

impl Position {
    /// The number of the last event up to which all subscriptions were served; none when there are none.
    pub(super) fn at(&self) -> Option<u64> {
        self.0.iter().map(|f| f.at).min()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, to: &Pattern) -> Option<&Following> {
        self.0.iter().find(|f| f.to == *to)
    }

    /// Adds a subscription, or replaces the one to the same pattern.
    pub(super) fn put(&mut self, following: Following) {
        self.remove(&following.to);
        self.0.push(following);
    }

    pub(super) fn remove(&mut self, to: &Pattern) {
        self.0.retain(|f| f.to != *to);
    }

    /// Goes on to the next event, which must be the one after [`Position::at`]; says whether it is to be delivered. A
    /// subscription that is ahead may have delivered it already, and then it is not delivered again.
    pub(super) fn pass(&mut self, seq: u64, of: &Address, path: Option<&Path>) -> bool {
        let behind = |f: &Following| f.at < seq;
        let wanted = self.0.iter().any(|f| behind(f) && f.wants(of, path));
        let delivered = self.0.iter().any(|f| !behind(f) && f.start < seq && f.wants(of, path));
        for following in self.0.iter_mut().filter(|f| f.at < seq) {
            following.at = seq;
        }
        wanted && !delivered
    }

    /// Skips what is not kept: everything before `first`. Gives the subscriptions for which something is missing.
    pub(super) fn skip_to(&mut self, first: u64) -> Vec<Pattern> {
        let mut missing = Vec::new();
        for following in self.0.iter_mut().filter(|f| f.at + 1 < first) {
            following.at = first - 1;
            following.start = first - 1;
            missing.push(following.to.clone());
        }
        missing
    }

    /// Begins anew in another life of the stream, from its oldest event. Gives all subscriptions.
    pub(super) fn begin_anew(&mut self, first: u64) -> Vec<Pattern> {
        for following in &mut self.0 {
            (following.start, following.at) = (first - 1, first - 1);
        }
        self.0.iter().map(|f| f.to.clone()).collect()
    }

    /// Notes that the word is owed; false when there is no such subscription.
    pub(super) fn owe_synced(&mut self, to: &Pattern) -> bool {
        let found = self.0.iter_mut().find(|f| f.to == *to);
        found.map(|following| following.owes_synced = true).is_some()
    }

    /// The subscriptions that were served up to `at` and are owed the word, which is then no longer owed; and where they
    /// stand.
    pub(super) fn synced(&mut self, at: u64) -> Vec<(Pattern, u64)> {
        let mut done = Vec::new();
        for following in self.0.iter_mut().filter(|f| f.owes_synced && f.at >= at) {
            following.owes_synced = false;
            done.push((following.to.clone(), following.at));
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn following(to: &str, start: u64) -> Following {
        let to = to.parse().expect("a pattern");
        Following { to, filter: Arc::new(PathFilter::ALL), start, at: start, owes_synced: false }
    }

    fn of(text: &str) -> Address {
        text.parse().expect("an address")
    }

    #[test]
    fn an_event_that_two_subscriptions_name_is_delivered_once() {
        let mut position = Position::default();
        position.put(following("b/*", 5));
        assert!(position.pass(6, &of("b/g"), None));
        position.put(following("*/*", 3));
        assert_eq!(position.at(), Some(3));
        assert!(position.pass(4, &of("b/g"), None), "it is older than the other subscription");
        assert!(position.pass(5, &of("b/g"), None));
        assert!(!position.pass(6, &of("b/g"), None), "the other one delivered it");
        assert!(position.pass(7, &of("b/g"), None));
        assert_eq!(position.at(), Some(7));
    }

    #[test]
    fn what_is_not_kept_is_skipped_and_said_once() {
        let mut position = Position::default();
        position.put(following("b/*", 5));
        position.put(following("c/*", 20));
        assert_eq!(position.skip_to(10), vec!["b/*".parse().expect("a pattern")]);
        assert!(position.skip_to(10).is_empty());
        assert_eq!(position.at(), Some(9));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 1_024, rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..ProptestConfig::default()
        })]

        #[test]
        fn each_event_after_a_start_that_names_it_is_delivered_exactly_once(
            starts in prop::collection::vec((0u64..30, 0u64..30, 0usize..4), 1..6),
        ) {
            const TO: [&str; 4] = ["b/g", "b/*", "*/*", "c/*"];
            let address = |seq: u64| of(if seq.is_multiple_of(3) { "c/g" } else { "b/g" });
            let mut position = Position::default();
            let mut delivered = Vec::new();
            let mut expected = std::collections::BTreeSet::new();
            for now in 0..=30u64 {
                for (when, start, to) in &starts {
                    if *when == now && *start <= now {
                        let f = following(TO[*to], *start);
                        // A pattern that is replaced goes on elsewhere, which is another story.
                        if position.get(&f.to).is_none() {
                            expected.extend((f.start + 1..=30).filter(|s| f.wants(&address(*s), None)));
                            position.put(f);
                        }
                    }
                }
                while let Some(at) = position.at().filter(|at| *at < now) {
                    let seq = at + 1;
                    if position.pass(seq, &address(seq), None) {
                        delivered.push(seq);
                    }
                }
            }
            let once: std::collections::BTreeSet<u64> = delivered.iter().copied().collect();
            prop_assert_eq!(once.len(), delivered.len());
            prop_assert_eq!(once, expected);
        }
    }
}
