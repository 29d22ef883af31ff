//! Positions of a gateway's state: the epoch that fences its sessions, and the revision within it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The fencing number of a gateway's session; a newer session has a greater one. Roughly a Unix time in
/// milliseconds, because it grows with the registry's clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// How many changes an epoch has seen; the first is 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rev(pub u64);

/// The position of a gateway's state. Ordered by epoch, then by revision.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Version {
    /// The session that made it.
    pub epoch: Epoch,
    /// The change within the session.
    pub rev: Rev,
}

impl Epoch {
    /// The epoch of a new session: greater than the one before, at least the registry's clock, and greater than
    /// what the asking edge has seen, so that it grows even across a registry that lost its data.
    pub fn next(previous: Option<Epoch>, clock_ms: u64, floor: Option<Epoch>) -> Epoch {
        let after = |e: Option<Epoch>| e.map_or(0, |e| e.0 + 1);
        Epoch(after(previous).max(clock_ms).max(after(floor)))
    }
}

impl Version {
    /// A version of these numbers.
    pub fn new(epoch: u64, rev: u64) -> Self {
        Self { epoch: Epoch(epoch), rev: Rev(rev) }
    }

    /// Where a session stands before its first change.
    pub fn start(epoch: Epoch) -> Self {
        Self { epoch, rev: Rev(0) }
    }

    /// The next change of the same epoch.
    #[must_use]
    pub fn next(self) -> Self {
        Self { rev: Rev(self.rev.0 + 1), ..self }
    }

    /// Whether `self` is the change right after `before`, so that nothing is missing between them.
    pub fn follows(self, before: Version) -> bool {
        self == before.next()
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch.0, self.rev.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_grows_whatever_the_registry_forgot() {
        assert_eq!(Epoch::next(None, 1000, None), Epoch(1000));
        assert_eq!(Epoch::next(Some(Epoch(1000)), 1000, None), Epoch(1001));
        assert_eq!(Epoch::next(Some(Epoch(5000)), 1000, None), Epoch(5001));
        assert_eq!(Epoch::next(None, 1000, Some(Epoch(2000))), Epoch(2001));
        assert_eq!(Epoch::next(Some(Epoch(7)), 10, Some(Epoch(3))), Epoch(10));
    }

    #[test]
    fn a_version_orders_by_epoch_first() {
        assert!(Version::new(2, 0) > Version::new(1, 99));
        assert!(Version::new(1, 2).follows(Version::new(1, 1)));
        assert!(!Version::new(2, 1).follows(Version::new(1, 0)));
    }
}
