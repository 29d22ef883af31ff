//! Ranges of stored events in memory, so that many who were away cost the store one read of each range.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use riser_bus::log::{LOG_PAGE, Page, Stored};
use riser_core::event::Cursor;
use riser_core::frame::outbound;
use riser_core::{Address, Path};

use crate::shared::Shared;
use crate::ws::frame;

/// Bytes of pages that are kept per tenant and edge: a hundred thousand events as homes send them.
const PAGES_BYTES: usize = 32 * 1024 * 1024;
/// What an entry takes besides its frame, roughly.
const ENTRY_BYTES: usize = 128;
/// Events of one page. A store's page is at least as large, so that one read fills it.
const PAGE: u64 = LOG_PAGE as u64;

/// A stored event as listeners get it, encoded once.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) seq: u64,
    pub(super) of: Address,
    pub(super) path: Option<Path>,
    pub(super) frame: Bytes,
}

impl Entry {
    pub(super) fn new(shared: &Shared, life: u64, stored: Stored) -> Self {
        let Stored { seq, event } = stored;
        shared.metrics.events.encoded.inc();
        let frame = frame::text(&outbound::event(Cursor { life, seq }, &event));
        Self { seq, of: event.of, path: event.path, frame }
    }

    pub(super) fn bytes(&self) -> usize {
        self.frame.len() + ENTRY_BYTES
    }
}

/// What a page is known to hold.
enum Known {
    /// It is being read.
    Reading,
    Here {
        entries: Arc<Vec<Entry>>,
        bytes: usize,
        used: u64,
    },
}

/// What is to be done about an event that is not in the ring.
pub(super) enum Found {
    /// Its page from it on.
    Here(Arc<Vec<Entry>>, usize),
    /// Its page must be read.
    Read(u64),
    /// Its page is being read.
    Wait,
}

/// The pages of one tenant in one life of its stream.
#[derive(Default)]
pub(super) struct Pages {
    known: BTreeMap<u64, Known>,
    bytes: usize,
    uses: u64,
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
    /// Looks for an event; a page that must be read is then being read.
    pub(super) fn find(&mut self, seq: u64) -> Found {
        let page = page_of(seq);
        self.uses += 1;
        match self.known.get_mut(&page) {
            Some(Known::Reading) => return Found::Wait,
            Some(Known::Here { entries, used, .. }) => {
                if let Ok(at) = entries.binary_search_by_key(&seq, |entry| entry.seq) {
                    *used = self.uses;
                    return Found::Here(entries.clone(), at);
                }
            }
            None => {}
        }
        // A page that was not full when it was read has grown since.
        self.forget(page);
        self.known.insert(page, Known::Reading);
        Found::Read(page)
    }

    /// Takes what was read of a page.
    pub(super) fn put(&mut self, shared: &Shared, page: u64, read: Page) {
        self.forget(page);
        let own = read.events.into_iter().filter(|stored| page_of(stored.seq) == page);
        let entries: Vec<Entry> = own.map(|stored| Entry::new(shared, read.bounds.life, stored)).collect();
        let bytes = entries.iter().map(Entry::bytes).sum();
        self.bytes += bytes;
        self.known.insert(page, Known::Here { entries: Arc::new(entries), bytes, used: self.uses });
        while self.bytes > PAGES_BYTES {
            let oldest =
                self.known.iter().filter(|(other, _)| **other != page).filter_map(|(other, known)| match known {
                    Known::Here { used, .. } => Some((*used, *other)),
                    Known::Reading => None,
                });
            let Some((_, oldest)) = oldest.min() else { break };
            self.forget(oldest);
        }
    }

    /// Nobody answered.
    pub(super) fn unread(&mut self, page: u64) {
        self.forget(page);
    }

    fn forget(&mut self, page: u64) {
        if let Some(Known::Here { bytes, .. }) = self.known.remove(&page) {
            self.bytes -= bytes;
        }
    }
}
