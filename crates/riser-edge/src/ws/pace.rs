//! The budget of frames that a peer may send, so that frames which cost the peer nothing cost the edge little.

use std::time::Duration;

/// The shortest pause once the budget is used up: long enough that a flood costs ten wake-ups a second at most.
const MIN_PAUSE_MS: u64 = 100;

/// The longest pause. A socket is never left unread for longer, since heartbeats come through it.
const MAX_PAUSE_MS: u64 = 1_000;

/// A token bucket of frames that holds one second's worth. Times are milliseconds since the connection began.
#[derive(Debug)]
pub(super) struct Pace {
    /// In thousandths of a frame, so that a millisecond adds a whole number whatever the rate is.
    credit: u64,
    filled_at_ms: u64,
}

impl Pace {
    /// A full bucket of `rate` frames a second.
    pub(super) fn full(rate: u32) -> Self {
        Self { credit: u64::from(rate.max(1)) * 1_000, filled_at_ms: 0 }
    }

    /// How many frames may be taken now.
    pub(super) fn allowance(&mut self, rate: u32, now_ms: u64) -> u32 {
        let rate = u64::from(rate.max(1));
        let elapsed = now_ms.saturating_sub(self.filled_at_ms).min(1_000);
        self.credit = (self.credit + elapsed * rate).min(rate * 1_000);
        self.filled_at_ms = now_ms;
        // At most `rate`, which came from a u32.
        u32::try_from(self.credit / 1_000).unwrap_or(u32::MAX)
    }

    /// Takes `frames`, which are at most what was allowed.
    pub(super) fn take(&mut self, frames: u32) {
        self.credit = self.credit.saturating_sub(u64::from(frames) * 1_000);
    }

    /// For how long to read nothing once the budget is used up.
    pub(super) fn pause(rate: u32) -> Duration {
        let one_frame = 1_000u64.div_ceil(u64::from(rate.max(1)));
        Duration::from_millis(one_frame.clamp(MIN_PAUSE_MS, MAX_PAUSE_MS))
    }
}
