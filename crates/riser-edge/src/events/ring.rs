//! The newest events of a tenant, in a row: what a mass resume after a restart of edges needs.

use std::collections::VecDeque;

use super::pages::Entry;

/// Events that are kept. A listener whose next one leaves the ring while its connection takes nothing is too slow.
const RING: usize = 4_096;
/// Bytes that they take at most: twice what may wait for one connection.
const RING_BYTES: usize = 4 * 1024 * 1024;

#[derive(Default)]
pub(super) struct Ring {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// The last one that there was no room for any more.
    evicted: u64,
}

impl Ring {
    /// Takes the event after the newest one.
    pub(super) fn push(&mut self, entry: Entry) {
        debug_assert!(self.entries.back().is_none_or(|newest| newest.seq + 1 == entry.seq), "a ring has no holes");
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        while self.entries.len() > RING || self.bytes > RING_BYTES {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.bytes();
            self.evicted = oldest.seq;
        }
    }

    /// Whether the stream, which ends with `last`, went so far past an event that a ring has no room for both.
    pub(super) fn has_passed(&self, seq: u64, last: u64) -> bool {
        seq <= self.evicted || last.saturating_sub(seq) >= RING as u64
    }

    pub(super) fn get(&self, seq: u64) -> Option<&Entry> {
        let from = self.entries.front()?.seq;
        self.entries.get(usize::try_from(seq.checked_sub(from)?).ok()?)
    }

    /// Forgets them, because what comes next does not follow them.
    pub(super) fn clear(&mut self) {
        *self = Self { evicted: self.evicted, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64, bytes: usize) -> Entry {
        let of = "b/g".parse().expect("an address");
        Entry { seq, of, path: None, audit: false, frame: vec![0; bytes].into() }
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_or_they_are_too_large() {
        let mut ring = Ring::default();
        for seq in 5..5 + RING as u64 + 10 {
            ring.push(entry(seq, 10));
        }
        assert!(ring.get(14).is_none());
        assert_eq!(ring.get(15).map(|entry| entry.seq), Some(15));
        assert!(ring.get(5 + RING as u64 + 10).is_none());
        let next = 5 + RING as u64 + 10;
        ring.push(entry(next, RING_BYTES - 1_000));
        assert!(ring.get(next).is_some() && ring.get(next - 10).is_none());
        assert!(ring.bytes <= RING_BYTES);
        assert!(ring.has_passed(next - 10, next) && !ring.has_passed(next, next));
        ring.clear();
        assert!(ring.has_passed(next - 10, next) && ring.has_passed(next, next + RING as u64));
        assert!(!ring.has_passed(next, next + RING as u64 - 1), "an empty ring alone makes nobody slow");
    }
}
