//! Ranges of stored events in memory, so that many who were away cost the store one read of each range.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use riser_bus::log::{LOG_PAGE, Stored};
use riser_core::event::Cursor;
use riser_core::frame::outbound;
use riser_core::{Address, Path};
use tokio::time::{Duration, Instant};

use crate::events::audit::is_audit;
use crate::shared::Shared;
use crate::ws::frame;

/// Bytes of pages that an edge keeps for all its tenants: more than a hundred thousand events as homes send them. A
/// tenant that brings it to the bound gives up its own oldest, and has one page in any case.
const PAGES_BYTES: usize = 64 * 1024 * 1024;
/// For how long a page is kept that nobody takes from: longer than it takes those who come back together to read it.
const KEPT: Duration = Duration::from_secs(10);
/// What an entry takes besides its frame, roughly.
const ENTRY_BYTES: usize = 128;
/// Events of one page: what one read of the store gives at most.
const PAGE: u64 = LOG_PAGE as u64;

/// A stored event as listeners get it, encoded once.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) seq: u64,
    pub(super) of: Address,
    pub(super) path: Option<Path>,
    /// Whether it says who changed what, which not everybody may see.
    pub(super) audit: bool,
    pub(super) frame: Bytes,
}

impl Entry {
    pub(super) fn new(shared: &Shared, life: u64, stored: Stored) -> Self {
        let Stored { seq, event } = stored;
        shared.metrics.events.encoded.inc();
        let frame = frame::text(&outbound::event(Cursor { life, seq }, &event));
        Self { seq, audit: is_audit(&event), of: event.of, path: event.path, frame }
    }

    pub(super) fn bytes(&self) -> usize {
        self.frame.len() + ENTRY_BYTES
    }
}

/// A range of the store that is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// Which page it belongs to.
    pub(super) page: u64,
    /// The first event that is not known of it.
    pub(super) from: u64,
}

/// What is known of a page.
struct Known {
    /// In order; what is missing between two of them is not kept by the store.
    entries: Arc<Vec<Entry>>,
    bytes: usize,
    used: Instant,
    /// Whether what follows is being read.
    reading: bool,
}

/// What is to be done about an event that is not in the ring.
pub(super) enum Found {
    /// Its page from it on.
    Here(Arc<Vec<Entry>>, usize),
    /// The store does not keep it, but this one of the same page.
    Missing(u64),
    /// It must be read.
    Read(Range),
    /// It is being read.
    Wait,
}

/// The pages of one tenant in one life of its stream.
pub(super) struct Pages {
    known: BTreeMap<u64, Known>,
    bytes: usize,
    /// What the pages of all tenants take.
    all: Arc<AtomicUsize>,
}

/// The page of an event.
fn page_of(seq: u64) -> u64 {
    seq.saturating_sub(1) / PAGE
}

/// The first event of a page.
pub(super) fn first_of(page: u64) -> u64 {
    page * PAGE + 1
}

impl Pages {
    pub(super) fn new(all: Arc<AtomicUsize>) -> Self {
        Self { known: BTreeMap::new(), bytes: 0, all }
    }

    /// Looks for an event. What must be read counts as being read from then on, until it is [put](Pages::put) or
    /// [given up](Pages::give_up).
    pub(super) fn find(&mut self, seq: u64) -> Found {
        let page = page_of(seq);
        let new = || Known { entries: Arc::default(), bytes: 0, used: Instant::now(), reading: false };
        let known = self.known.entry(page).or_insert_with(new);
        known.used = Instant::now();
        match known.entries.binary_search_by_key(&seq, |entry| entry.seq) {
            Ok(at) => return Found::Here(known.entries.clone(), at),
            Err(at) => {
                if let Some(later) = known.entries.get(at) {
                    return Found::Missing(later.seq);
                }
            }
        }
        if std::mem::replace(&mut known.reading, true) {
            return Found::Wait;
        }
        // A page that ended with the stream when it was read has grown since: only the rest is read.
        let from = known.entries.last().map_or(first_of(page), |last| last.seq + 1);
        Found::Read(Range { page, from })
    }

    /// Takes what was read of a range.
    pub(super) fn put(&mut self, range: Range, read: impl Iterator<Item = Entry>) {
        let Some(known) = self.known.get_mut(&range.page) else { return };
        known.reading = false;
        known.used = Instant::now();
        let mut entries = (*known.entries).clone();
        entries.extend(read.filter(|entry| entry.seq >= range.from && page_of(entry.seq) == range.page));
        let bytes: usize = entries.iter().map(Entry::bytes).sum();
        let more = bytes - known.bytes;
        (known.entries, known.bytes) = (Arc::new(entries), bytes);
        self.bytes += more;
        self.all.fetch_add(more, Ordering::Relaxed);
        while self.all.load(Ordering::Relaxed) > PAGES_BYTES {
            let others = self.known.iter().filter(|(page, known)| **page != range.page && !known.reading);
            let Some((_, oldest)) = others.map(|(page, known)| (known.used, *page)).min() else { break };
            self.forget(oldest);
        }
    }

    /// Nobody answered, or nobody waits any more.
    pub(super) fn give_up(&mut self, page: u64) {
        if let Some(known) = self.known.get_mut(&page) {
            known.reading = false;
        }
    }

    /// Forgets what nobody has taken from for a while.
    pub(super) fn expire(&mut self) {
        let old = |known: &Known| !known.reading && known.used.elapsed() >= KEPT;
        let old: Vec<u64> = self.known.iter().filter(|(_, known)| old(known)).map(|(page, _)| *page).collect();
        for page in old {
            self.forget(page);
        }
    }

    pub(super) fn clear(&mut self) {
        self.known.clear();
        self.all.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }

    fn forget(&mut self, page: u64) {
        if let Some(known) = self.known.remove(&page) {
            self.bytes -= known.bytes;
            self.all.fetch_sub(known.bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64, bytes: usize) -> Entry {
        let of = "b/g".parse().expect("an address");
        Entry { seq, of, path: None, audit: false, frame: Bytes::from(vec![0; bytes]) }
    }

    fn range(found: &Found) -> Option<(u64, u64)> {
        match found {
            Found::Read(range) => Some((range.page, range.from)),
            _ => None,
        }
    }

    #[test]
    fn a_page_is_read_once_and_then_only_what_it_grew_by() {
        let mut pages = Pages::new(Arc::default());
        assert_eq!(range(&pages.find(5)), Some((0, 1)));
        assert!(matches!(pages.find(7), Found::Wait));
        pages.put(Range { page: 0, from: 1 }, (1..=10).map(|seq| entry(seq, 1)));
        assert!(matches!(pages.find(10), Found::Here(entries, 9) if entries.len() == 10));
        assert_eq!(range(&pages.find(12)), Some((0, 11)));
        pages.put(Range { page: 0, from: 11 }, (11..=PAGE + 3).map(|seq| entry(seq, 1)));
        assert!(matches!(pages.find(PAGE), Found::Here(entries, _) if entries.len() as u64 == PAGE));
        assert_eq!(range(&pages.find(PAGE + 1)), Some((1, PAGE + 1)), "what is of the next page is not of this one");
    }

    #[test]
    fn a_read_that_was_given_up_is_made_again() {
        let mut pages = Pages::new(Arc::default());
        assert!(range(&pages.find(1)).is_some());
        pages.give_up(0);
        assert!(range(&pages.find(1)).is_some());
    }

    #[test]
    fn what_is_not_kept_by_the_store_is_seen_as_missing() {
        let mut pages = Pages::new(Arc::default());
        pages.find(1);
        pages.put(Range { page: 0, from: 1 }, [3, 4, 9].into_iter().map(|seq| entry(seq, 1)));
        for (seq, later) in [(1, 3), (2, 3), (5, 9), (8, 9)] {
            assert!(matches!(pages.find(seq), Found::Missing(found) if found == later), "{seq}");
        }
        assert_eq!(range(&pages.find(10)), Some((0, 10)));
    }

    #[tokio::test(start_paused = true)]
    async fn pages_are_bounded_over_all_tenants_and_forgotten_when_nobody_takes_from_them() {
        let all = Arc::new(AtomicUsize::new(0));
        let (mut one, mut two) = (Pages::new(all.clone()), Pages::new(all.clone()));
        let large = PAGES_BYTES / 4;
        for page in 0..4 {
            let seq = first_of(page);
            one.find(seq);
            one.put(Range { page, from: seq }, [entry(seq, large)].into_iter());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(one.known.keys().copied().collect::<Vec<_>>(), [1, 2, 3], "the oldest went");
        two.find(1);
        two.put(Range { page: 0, from: 1 }, [entry(1, large)].into_iter());
        assert_eq!(two.known.len(), 1, "a tenant has one page in any case");
        assert_eq!(all.load(Ordering::Relaxed), 4 * (large + ENTRY_BYTES));
        tokio::time::advance(KEPT).await;
        one.expire();
        drop(two);
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }
}
