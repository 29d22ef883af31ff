//! The open live streams of one tenant.

use std::collections::BTreeMap;

use riser_core::live::{Stream, StreamId};
use riser_core::{Address, BuildingId};

use crate::streams::STREAMS;

/// By number, each with the time at which it ends unless it is opened again.
#[derive(Clone, Default)]
pub(super) struct Streams(BTreeMap<StreamId, (Stream, u64)>);

/// Why a stream was not opened.
pub(super) enum NotOpened {
    Taken,
    TooMany,
}

impl Streams {
    pub(super) fn open(&mut self, stream: &Stream, ttl_ms: u64, now_ms: u64) -> Result<(), NotOpened> {
        self.forget(now_ms);
        match self.0.get(&stream.id) {
            Some((other, _)) if other != stream => return Err(NotOpened::Taken),
            None if self.0.len() >= STREAMS => return Err(NotOpened::TooMany),
            _ => {}
        }
        self.0.insert(stream.id, (stream.clone(), now_ms.saturating_add(ttl_ms)));
        Ok(())
    }

    /// Forgets the streams that have ended by now.
    pub(super) fn forget(&mut self, now_ms: u64) {
        self.0.retain(|_, (_, ends_at_ms)| *ends_at_ms > now_ms);
    }

    pub(super) fn close(&mut self, of: &Address, id: StreamId) {
        if self.0.get(&id).is_some_and(|(stream, _)| stream.of == *of) {
            self.0.remove(&id);
        }
    }

    /// Forgets the streams at an address.
    pub(super) fn erase(&mut self, of: &Address) {
        self.0.retain(|_, (stream, _)| stream.of != *of);
    }

    pub(super) fn open_ones(&self, building: Option<&BuildingId>, now_ms: u64) -> Vec<Stream> {
        let open = self.0.values().filter(|(_, ends_at_ms)| *ends_at_ms > now_ms).map(|(stream, _)| stream);
        open.filter(|stream| building.is_none_or(|b| b == stream.of.building())).cloned().collect()
    }

    pub(super) fn any_at(&self, of: &Address, now_ms: u64) -> bool {
        self.0.values().any(|(stream, ends_at_ms)| stream.of == *of && *ends_at_ms > now_ms)
    }
}
