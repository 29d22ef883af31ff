//! What a slow listener is owed: not frames, only which gateways and paths it has not seen the newest of.
//!
//! This is the conflation. It is bounded by what the listener watches, whatever the traffic: when the listener can
//! take something again it is sent the newest values of what it is owed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use riser_core::state::Touched;
use riser_core::{Address, Path, Pattern};

/// Paths of one gateway that are owed one by one; beyond it everything is. Twice what a gateway may have by default,
/// because deleted paths are owed too, also those that were never there.
const PATHS: usize = 4_096;

/// What is owed of one gateway.
#[derive(Debug, Default)]
pub(crate) struct Debt {
    /// Everything; the rest does not matter then.
    pub(crate) snapshot: bool,
    /// The newest values of these paths.
    pub(crate) paths: BTreeSet<Path>,
    /// Whether it is connected.
    pub(crate) presence: bool,
    /// What its devices are.
    pub(crate) devices: bool,
}

/// The next thing to send.
#[derive(Debug)]
pub(crate) enum Due {
    /// What is owed of a gateway.
    Of(Address, Debt),
    /// All that a subscription asked for was sent.
    Synced(Pattern),
}

enum Place {
    Of(Address),
    Synced(Pattern),
}

/// Everything that one listener is owed, in the order in which it came to be owed.
#[derive(Default)]
pub(crate) struct Owed {
    order: VecDeque<Place>,
    debts: BTreeMap<Address, Debt>,
}

impl Owed {
    /// Whether something of this gateway is owed already, so that what follows must wait behind it.
    pub(crate) fn holds(&self, address: &Address) -> bool {
        self.debts.contains_key(address)
    }

    fn debt(&mut self, address: &Address) -> &mut Debt {
        if !self.debts.contains_key(address) {
            self.order.push_back(Place::Of(address.clone()));
        }
        self.debts.entry(address.clone()).or_default()
    }

    pub(crate) fn snapshot(&mut self, address: &Address) {
        let debt = self.debt(address);
        *debt = Debt { snapshot: true, presence: debt.presence, ..Debt::default() };
    }

    /// Owes the newest values of these paths. True when some were owed already: a value was skipped.
    pub(crate) fn paths(&mut self, address: &Address, touched: &Touched) -> bool {
        let debt = self.debt(address);
        if debt.snapshot {
            return false;
        }
        if debt.paths.len() > PATHS {
            // So much is owed that all of it is less.
            debt.paths.clear();
            debt.snapshot = true;
            debt.devices = false;
            return true;
        }
        let mut skipped = false;
        for path in touched.set.iter().chain(&touched.stale).chain(&touched.fresh) {
            skipped |= !debt.paths.insert(path.clone());
        }
        skipped
    }

    pub(crate) fn presence(&mut self, address: &Address) {
        self.debt(address).presence = true;
    }

    pub(crate) fn devices(&mut self, address: &Address) {
        let debt = self.debt(address);
        debt.devices = !debt.snapshot;
    }

    /// Owes the word that a subscription is served; again when it is made again.
    pub(crate) fn synced(&mut self, to: &Pattern) {
        self.order.retain(|place| !matches!(place, Place::Synced(old) if old == to));
        self.order.push_back(Place::Synced(to.clone()));
    }

    /// Forgets the word about a subscription that ended.
    pub(crate) fn not_synced(&mut self, to: &Pattern) {
        self.order.retain(|place| !matches!(place, Place::Synced(old) if old == to));
    }

    pub(crate) fn next(&mut self) -> Option<Due> {
        let due = match self.order.pop_front()? {
            Place::Synced(to) => Due::Synced(to),
            Place::Of(address) => {
                let debt = self.debts.remove(&address).unwrap_or_default();
                Due::Of(address, debt)
            }
        };
        if self.order.is_empty() {
            // A session that was slow once should not cost more for ever.
            *self = Self::default();
        }
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touched(path: &str) -> Touched {
        Touched { set: vec![path.parse().expect("a path")], ..Touched::default() }
    }

    #[test]
    fn a_thousand_changes_of_one_path_are_one_debt() {
        let address: Address = "b/g".parse().expect("an address");
        let mut owed = Owed::default();
        assert!(!owed.paths(&address, &touched("a")), "the first is not skipped");
        for _ in 0..999 {
            assert!(owed.paths(&address, &touched("a")));
        }
        let Some(Due::Of(_, debt)) = owed.next() else { panic!("a debt") };
        assert_eq!(debt.paths.len(), 1);
        assert!(owed.next().is_none());
    }

    #[test]
    fn deletions_of_what_never_was_do_not_pile_up() {
        let address: Address = "b/g".parse().expect("an address");
        let mut owed = Owed::default();
        for i in 0..10_000 {
            owed.paths(&address, &touched(&format!("p{i}")));
        }
        let Some(Due::Of(_, debt)) = owed.next() else { panic!("a debt") };
        assert!(debt.snapshot && debt.paths.is_empty());
    }

    #[test]
    fn the_word_that_all_was_sent_comes_after_all() {
        let a: Address = "b/a".parse().expect("an address");
        let b: Address = "b/b".parse().expect("an address");
        let to = Pattern::Building("b".parse().expect("a building"));
        let mut owed = Owed::default();
        owed.paths(&a, &touched("x"));
        owed.snapshot(&b);
        owed.snapshot(&a);
        owed.synced(&to);
        assert!(
            matches!(owed.next(), Some(Due::Of(address, debt)) if address == a && debt.snapshot && debt.paths.is_empty())
        );
        assert!(matches!(owed.next(), Some(Due::Of(address, _)) if address == b));
        assert!(matches!(owed.next(), Some(Due::Synced(_))));
    }
}
