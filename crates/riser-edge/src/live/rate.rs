//! How much one stream may carry. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Frames that one stream may carry in a second, and in a burst: four times what speech in pieces of 20 ms needs.
const FRAMES_PER_SECOND: u64 = 200;
/// Bytes that one stream may carry in a second, and in a burst: twice what speech without compression needs.
const BYTES_PER_SECOND: u64 = 128 * 1024;

/// Two token buckets, each of one second's worth.
#[derive(Debug)]
pub(super) struct Rate {
    /// In thousandths, so that a millisecond adds a whole number.
    frames: u64,
    bytes: u64,
    filled_at: Instant,
}

impl Rate {
    /// Full buckets.
    pub(super) fn full(now: Instant) -> Self {
        Self { frames: FRAMES_PER_SECOND * 1_000, bytes: BYTES_PER_SECOND * 1_000, filled_at: now }
    }

    /// Whether a frame of so many bytes may be carried now; then it is counted.
    pub(super) fn take(&mut self, now: Instant, bytes: usize) -> bool {
        let elapsed = now.saturating_duration_since(self.filled_at);
        let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).min(1_000);
        if ms > 0 {
            // What is left of a millisecond counts the next time.
            self.filled_at = if ms == 1_000 { now } else { self.filled_at + Duration::from_millis(ms) };
            self.frames = (self.frames + ms * FRAMES_PER_SECOND).min(FRAMES_PER_SECOND * 1_000);
            self.bytes = (self.bytes + ms * BYTES_PER_SECOND).min(BYTES_PER_SECOND * 1_000);
        }
        let bytes = bytes as u64 * 1_000;
        if self.frames < 1_000 || self.bytes < bytes {
            return false;
        }
        self.frames -= 1_000;
        self.bytes -= bytes;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(rate: &mut Rate, now: Instant, tries: usize, bytes: usize) -> usize {
        (0..tries).filter(|_| rate.take(now, bytes)).count()
    }

    #[test]
    fn a_burst_is_one_second_of_frames_and_more_come_with_time() {
        let begin = Instant::now();
        let mut rate = Rate::full(begin);
        assert_eq!(taken(&mut rate, begin, 500, 60), 200);
        assert_eq!(taken(&mut rate, begin + Duration::from_millis(100), 500, 60), 20);
        assert_eq!(taken(&mut rate, begin + Duration::from_secs(3_600), 500, 60), 200);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let begin = Instant::now();
        let mut rate = Rate::full(begin);
        assert_eq!(taken(&mut rate, begin, 100, 16 * 1024), 8);
        assert_eq!(taken(&mut rate, begin + Duration::from_millis(125), 100, 16 * 1024), 1);
        assert!(!rate.take(begin + Duration::from_millis(125), 1));
    }
}
