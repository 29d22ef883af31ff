//! A bucket that holds one second's worth of something, and may be overdrawn. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// In thousandths, so that a millisecond adds a whole number whatever the rate is.
const UNIT: i128 = 1_000;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    /// Below zero when it is overdrawn.
    level: i128,
    filled_at: Instant,
}

impl Bucket {
    /// A full one.
    pub(crate) fn full(rate: u64, now: Instant) -> Self {
        Self { level: i128::from(rate) * UNIT, filled_at: now }
    }

    fn fill(&mut self, rate: u64, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled_at);
        let ms = elapsed.as_millis();
        if ms > 0 {
            // What is left of a millisecond counts the next time.
            self.filled_at += Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX));
        }
        let added = i128::try_from(ms).unwrap_or(i128::MAX).saturating_mul(i128::from(rate));
        self.level = self.level.saturating_add(added).min(i128::from(rate) * UNIT);
    }

    /// Takes so much, whether it is there or not. Says how long it will be overdrawn.
    pub(crate) fn charge(&mut self, rate: u64, now: Instant, amount: u64) -> Duration {
        self.fill(rate, now);
        self.level -= i128::from(amount) * UNIT;
        self.wait(rate, 0)
    }

    /// Takes one if it is there; else says when it will be.
    pub(crate) fn take(&mut self, rate: u64, now: Instant) -> Result<(), Duration> {
        self.fill(rate, now);
        let wait = self.wait(rate, UNIT);
        if wait.is_zero() {
            self.level -= UNIT;
            Ok(())
        } else {
            Err(wait)
        }
    }

    /// How long until this level is reached.
    fn wait(&self, rate: u64, level: i128) -> Duration {
        let missing = (level - self.level).max(0).unsigned_abs();
        let ms = missing.div_ceil(u128::from(rate.max(1)));
        Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
    }

    /// How much is left.
    pub(crate) fn left(&self) -> u64 {
        u64::try_from(self.level / UNIT).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_a_second_at_once_and_then_the_rate() {
        let begin = Instant::now();
        let ms = |n: u64| begin + Duration::from_millis(n);
        let mut bucket = Bucket::full(10, begin);
        let given = |bucket: &mut Bucket, now: Instant| (0..100).filter(|_| bucket.take(10, now).is_ok()).count();
        assert_eq!(given(&mut bucket, begin), 10);
        assert_eq!(bucket.take(10, begin), Err(Duration::from_millis(100)));
        assert_eq!(given(&mut bucket, ms(250)), 2);
        assert_eq!(given(&mut bucket, ms(300)), 1, "what was left of a tenth is not lost");
        assert_eq!(given(&mut bucket, ms(60_000)), 10);
        assert_eq!(bucket.left(), 0);
    }

    #[test]
    fn what_is_overdrawn_must_be_waited_for() {
        let begin = Instant::now();
        let mut bucket = Bucket::full(1_000, begin);
        assert_eq!(bucket.charge(1_000, begin, 800), Duration::ZERO);
        assert_eq!(bucket.left(), 200);
        assert_eq!(bucket.charge(1_000, begin, 1_200), Duration::from_secs(1));
        assert_eq!(bucket.left(), 0);
        assert_eq!(bucket.charge(1_000, begin + Duration::from_secs(2), 0), Duration::ZERO);
        assert_eq!(bucket.left(), 1_000, "never more than a second's worth");
    }
}
