//! The cluster's clock as a peer knows it, and when a credential is renewed by it.

use std::time::Duration;

use tokio::time::Instant;

/// The soonest renewal after another or a failed one.
pub(crate) const RENEW_LEAST: Duration = Duration::from_secs(10);
/// The longest wait for a renewal; timers need not reach further than a credential of 10 years.
pub(crate) const RENEW_MOST: Duration = Duration::from_secs(5 * 365 * 86_400);
/// Later than anything that is waited for.
pub(crate) const NEVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The cluster's clock at a moment of ours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    ms: u64,
    at: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self::at(0)
    }
}

impl Clock {
    /// The clock of a session that begins.
    pub(crate) fn at(now_ms: u64) -> Self {
        Self { ms: now_ms, at: Instant::now() }
    }

    /// The cluster's time, Unix milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        self.ms.saturating_add(u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The server said its time. What it says is older when it arrives than when it was said, by an unknown time: so the
    /// greatest of all is the nearest to the truth.
    pub(crate) fn hear(&mut self, now_ms: u64) {
        if now_ms > self.now_ms() {
            *self = Self::at(now_ms);
        }
    }
}

/// In how long a credential is renewed: when half of what is left of it has passed.
pub(crate) fn renewal(expires_at_ms: u64, now_ms: u64) -> Duration {
    (Duration::from_millis(expires_at_ms.saturating_sub(now_ms)) / 2).clamp(RENEW_LEAST, RENEW_MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_renewed_when_half_of_it_is_left() {
        let day = 86_400_000;
        let rows = [
            (day, 0, day / 2),
            (day, day / 2, day / 4),
            (day, day - 1_000, 10_000),
            (day, day + 1_000, 10_000),
            (u64::MAX, 0, 5 * 365 * day),
        ];
        for (expires_at_ms, now_ms, in_ms) in rows {
            assert_eq!(renewal(expires_at_ms, now_ms), Duration::from_millis(in_ms), "{expires_at_ms} {now_ms}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_goes_on_and_is_only_set_forward() {
        let mut clock = Clock::at(1_000);
        tokio::time::advance(Duration::from_millis(500)).await;
        clock.hear(1_200);
        assert_eq!(clock.now_ms(), 1_500);
        clock.hear(1_600);
        assert_eq!(clock.now_ms(), 1_600);
    }
}
