//! The cluster's clock as this edge knows it: what the registry said last, and the time since.

use parking_lot::Mutex;
use tokio::time::Instant;

pub(crate) struct Clock(Mutex<(Instant, u64)>);

impl Clock {
    /// A clock that stands at zero until the registry has answered once; nobody is served before.
    pub(crate) fn new() -> Self {
        Self(Mutex::new((Instant::now(), 0)))
    }

    /// Takes the registry's word.
    pub(crate) fn set(&self, now_ms: u64) {
        *self.0.lock() = (Instant::now(), now_ms);
    }

    /// Unix milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        let (at, ms) = *self.0.lock();
        ms.saturating_add(u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}
