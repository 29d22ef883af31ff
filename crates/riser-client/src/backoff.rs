//! When to come back: full jitter over a growing window, after whatever time the other side asked for.

use std::time::Duration;

use riser_core::close::ComeBack;

use crate::end::End;

/// The first window. A cluster that lost one edge gets its gateways back spread over half a second.
pub const FIRST_WINDOW: Duration = Duration::from_millis(500);
/// The largest window. Nobody waits longer than this for a cluster that came back without a word.
pub const LAST_WINDOW: Duration = Duration::from_secs(30);
/// The longest time that another side may ask for; a day, so that a wrong unit does not silence a flat for ever.
pub const LONGEST_ASKED: Duration = Duration::from_secs(86_400);
/// The least time that paces those who are refused; a shorter one would have them come all the time.
pub const PACED: Duration = Duration::from_secs(1);
/// How long a session must have lasted for the next attempt to start with the first window again.
pub const STEADY: Duration = Duration::from_secs(10);

/// Counts attempts and gives the time before the next one.
#[derive(Debug)]
pub struct Backoff {
    attempt: u32,
    rng: fastrand::Rng,
}

impl Backoff {
    /// A fresh count, with randomness of this source.
    pub fn new(rng: fastrand::Rng) -> Self {
        Self { attempt: 0, rng }
    }

    /// A session of this length ended: a steady one starts the count anew.
    pub fn lasted(&mut self, session: Duration) {
        if session >= STEADY {
            self.attempt = 0;
        }
    }

    /// How long to wait after this end; none when it must not come back by itself. Who was refused with a time named comes
    /// back at the pace of whoever refuses, and so does everybody else: the window need not grow. During a rolling restart
    /// several edges may refuse in a row, and a gateway that they keep away for longer than it may move is shown offline.
    pub fn after(&mut self, end: &End) -> Option<Duration> {
        let asked = match end.come_back() {
            ComeBack::Soon => Duration::from_millis(end.retry_after_ms().unwrap_or(0)),
            ComeBack::After(ms) => Duration::from_millis(ms.max(end.retry_after_ms().unwrap_or(0))),
            ComeBack::WithAnotherCredential | ComeBack::Never => return None,
        };
        let window = window(self.attempt);
        if !(matches!(end, End::Refused { .. }) && asked >= PACED) {
            self.attempt = self.attempt.saturating_add(1);
        }
        Some(asked.min(LONGEST_ASKED) + window.mul_f64(self.rng.f64()))
    }
}

/// The window of an attempt, counted from 0.
pub fn window(attempt: u32) -> Duration {
    // Six doublings are past the last window.
    FIRST_WINDOW.saturating_mul(1 << attempt.min(6)).min(LAST_WINDOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(code: u16, reason: &str) -> End {
        End::closed(Some(code), reason.into())
    }

    #[test]
    fn windows_double_up_to_the_last() {
        let seconds: Vec<f64> = (0..9).map(|attempt| window(attempt).as_secs_f64()).collect();
        assert_eq!(seconds, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]);
        assert_eq!(window(u32::MAX), LAST_WINDOW);
    }

    #[test]
    fn each_end_has_its_earliest_and_latest_return() {
        let rows = [
            (closed(4000, ""), Some((0, 500))),
            (closed(1001, ""), Some((0, 500))),
            (closed(4003, r#"{"retry_after_ms":2000}"#), Some((2_000, 2_500))),
            (closed(4006, ""), Some((60_000, 60_500))),
            (closed(1009, ""), Some((60_000, 60_500))),
            (closed(4001, r#"{"retry_after_ms":999999999999}"#), Some((86_400_000, 86_400_500))),
            (End::Silent(1), Some((0, 500))),
            (closed(4500, ""), None),
            (closed(4501, ""), None),
            (closed(4504, ""), None),
            (End::Left, None),
        ];
        for (end, expected) in rows {
            for seed in 0..50 {
                let wait = Backoff::new(fastrand::Rng::with_seed(seed)).after(&end).map(|w| w.as_millis());
                match (wait, expected) {
                    (Some(ms), Some((from, to))) => assert!((from..=to).contains(&ms), "{end}: {ms}"),
                    (wait, expected) => assert_eq!(wait.is_some(), expected.is_some(), "{end}"),
                }
            }
        }
    }

    fn refused(retry_after_ms: Option<u64>) -> End {
        End::Refused { status: 503, code: None, detail: String::new(), retry_after_ms }
    }

    #[test]
    fn who_is_told_when_to_come_back_does_not_wait_longer_each_time() {
        let waits = |retry_after_ms| -> Duration {
            let mut backoff = Backoff::new(fastrand::Rng::with_seed(1));
            (0..20).filter_map(|_| backoff.after(&refused(retry_after_ms))).max().expect("a time")
        };
        assert!(waits(Some(2_000)) <= Duration::from_millis(2_500));
        for unpaced in [None, Some(0), Some(999)] {
            assert!(waits(unpaced) > Duration::from_secs(8), "{unpaced:?}");
        }
        // Whatever came before counts on.
        let mut backoff = Backoff::new(fastrand::Rng::with_seed(1));
        backoff.after(&End::Silent(1));
        backoff.after(&refused(Some(1_000)));
        backoff.after(&closed(1013, r#"{"retry_after_ms":2000}"#));
        assert_eq!(backoff.attempt, 2);
    }

    #[test]
    fn only_a_steady_session_starts_the_count_anew() {
        let mut backoff = Backoff::new(fastrand::Rng::with_seed(1));
        for _ in 0..4 {
            backoff.after(&End::Silent(1));
        }
        backoff.lasted(Duration::from_secs(1));
        assert_eq!(backoff.attempt, 4);
        backoff.lasted(STEADY);
        assert_eq!(backoff.attempt, 0);
    }
}
