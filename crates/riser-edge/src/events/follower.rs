//! Where a listener stands in a tenant's events, subscription by subscription. Nothing here waits or writes.

use std::sync::Arc;

use riser_core::event::Cursor;
use riser_core::{Address, Path, PathFilter, Pattern};

/// Where a stream stands: its life, and the number of its last event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) life: u64,
    pub(super) last: u64,
}

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// In which life of the stream.
    pub(super) life: u64,
    /// After which event.
    pub(super) at: u64,
    /// Whether it came without a cursor, so that it goes on where the subscription to the same pattern stands.
    pub(super) goes_on: bool,
    /// Whether its cursor is not known.
    pub(crate) gap: bool,
}

/// From where on a subscription wants events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// From now on.
    Now,
    /// After this.
    After(Cursor),
    /// After something that no cluster ever called a cursor.
    Garbled,
}

impl Asked {
    pub(super) fn parse(cursor: Option<&str>) -> Self {
        match cursor.map(str::parse) {
            None => Self::Now,
            Some(Ok(cursor)) => Self::After(cursor),
            Some(Err(_)) => Self::Garbled,
        }
    }
}

impl Place {
    /// After what is in the stream now.
    pub(super) fn now(stream: Stream) -> Self {
        Self { life: stream.life, at: stream.last, goes_on: true, gap: false }
    }

    /// Where a subscription begins in a stream as its tail knows it, or, with the number of the oldest event (`first`), as
    /// the store does. The tail may not have brought yet what was stored a moment ago, so that there is no answer without
    /// the store to what now is, nor to a cursor that is not known, which begins at the oldest event.
    pub(super) fn of(asked: Asked, stream: Stream, first: Option<u64>) -> Option<Self> {
        let Stream { life, last } = stream;
        let after = |at| Self { life, at, goes_on: false, gap: false };
        match asked {
            Asked::Now => first.map(|_| Self::now(stream)),
            // Before everything, in whichever life that came to be. What is not kept any more shows when it is read.
            Asked::After(Cursor::START) => Some(after(0)),
            Asked::After(cursor) if cursor.life == life && cursor.seq <= last => Some(after(cursor.seq)),
            // It is of another life, or of what has not come here yet, or of nothing at all.
            Asked::After(_) | Asked::Garbled => first.map(|first| Self { gap: true, ..after(first - 1) }),
        }
    }
}

/// One subscription to events.
#[derive(Debug, Clone)]
pub(super) struct Following {
    pub(super) to: Pattern,
    pub(super) filter: Arc<PathFilter>,
    /// It is about the events after this number.
    pub(super) start: u64,
    /// All events up to this number were delivered, or are not for it.
    pub(super) at: u64,
    /// All that it asked for was sent when it stands here: the last event when it was made.
    pub(super) until: u64,
    /// Whether the listener is owed the word for that.
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

    pub(super) fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.0.iter().map(|f| &f.to)
    }

    /// Adds a subscription, or replaces the one to the same pattern, in a stream that stands at `last`.
    pub(super) fn put(&mut self, to: &Pattern, filter: &Arc<PathFilter>, place: Place, last: u64) {
        let old = self.0.iter().find(|f| f.to == *to).filter(|_| place.goes_on);
        let at = old.map_or(place.at, |old| old.at);
        // With another filter it is not known of what lies before whether it was delivered.
        let start = old.filter(|old| old.filter == *filter).map_or(at, |old| old.start);
        let (to, filter) = (to.clone(), filter.clone());
        self.remove(&to);
        self.0.push(Following { to, filter, start, at, until: last, owes_synced: false });
    }

    pub(super) fn remove(&mut self, to: &Pattern) {
        self.0.retain(|f| f.to != *to);
    }

    /// Notes that nothing up to this number is for any of them, or was delivered.
    pub(super) fn settle(&mut self, at: u64) {
        for following in &mut self.0 {
            following.at = following.at.max(at);
        }
    }

    /// Goes on to the next event, which must be the one after [`Position::at`]; says whether it is to be delivered. A
    /// subscription that is ahead may have delivered it already, and then it is not delivered again.
    pub(super) fn pass(&mut self, seq: u64, of: &Address, path: Option<&Path>) -> bool {
        let behind = |f: &Following| f.at < seq;
        let wanted = self.0.iter().any(|f| behind(f) && f.wants(of, path));
        let delivered = wanted && self.0.iter().any(|f| !behind(f) && f.start < seq && f.wants(of, path));
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

    /// Begins anew in another life of the stream, from its oldest event to its last. Gives all subscriptions.
    pub(super) fn begin_anew(&mut self, first: u64, last: u64) -> Vec<Pattern> {
        for following in &mut self.0 {
            (following.start, following.at, following.until) = (first - 1, first - 1, last);
        }
        self.patterns().cloned().collect()
    }

    /// Notes that the word is owed; false when there is no such subscription.
    pub(super) fn owe_synced(&mut self, to: &Pattern) -> bool {
        let found = self.0.iter_mut().find(|f| f.to == *to);
        found.map(|following| following.owes_synced = true).is_some()
    }

    /// The subscriptions that were sent all they asked for and are owed the word, which is then no longer owed.
    pub(super) fn synced(&mut self) -> Vec<Pattern> {
        let mut done = Vec::new();
        for following in self.0.iter_mut().filter(|f| f.owes_synced && f.at >= f.until) {
            following.owes_synced = false;
            done.push(following.to.clone());
        }
        done
    }
}

#[cfg(test)]
mod tests;
