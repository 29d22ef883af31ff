//! What the servers complain of, one line at a time: whoever lacks a right is told so with each message.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Between two lines. What is wrong for longer is said again, and nobody's disk fills.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Lets one complaint through from time to time, and counts the others.
#[derive(Default)]
pub(super) struct Complaints(Mutex<(Option<Instant>, u64)>);

impl Complaints {
    /// How many were left out since the last one, when this one is to be logged.
    pub(super) fn one_more(&self) -> Option<u64> {
        let now = Instant::now();
        let (said, left_out) = &mut *self.0.lock();
        if said.is_some_and(|said| now - said < SAY_EVERY) {
            *left_out += 1;
            return None;
        }
        *said = Some(now);
        Some(std::mem::take(left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_logged_and_then_one_in_a_while_that_tells_of_the_others() {
        let complaints = Complaints::default();
        assert_eq!(complaints.one_more(), Some(0));
        for _ in 0..3 {
            assert_eq!(complaints.one_more(), None);
        }
        tokio::time::advance(SAY_EVERY).await;
        assert_eq!(complaints.one_more(), Some(3));
        assert_eq!(complaints.one_more(), None);
    }
}
