//! Who gets how much of an edge's processor when there is not enough of it for all.
//!
//! The time that is spent for a tenant is counted: for its sessions, for what its listeners are told, for its calls. A task
//! that asks for its turn at known times sees how late turns come. While they come in time nobody is held back, however
//! much one tenant uses. When they come late, whoever takes more than an even share may take a fifth less, and less again
//! for as long as turns come late, but never less than the even share; once they come in time it gets more, step by step.
//! A tenant is held back by reading its sockets later, up to a second, which loses nothing: it never is refused anything.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::{Meters, PAUSE_MAX, PAUSE_MIN, Use};
use crate::shared::Shared;

/// How often it is looked at how late turns come, and who spent how much.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// From when on a turn is late: ten times what one takes on a loaded edge, and little beside a network's own time.
const LATE: Duration = Duration::from_millis(10);
/// What is left of a tenant's allowance at each look while turns are late.
const LESS: f64 = 0.8;
/// By how much it grows at each look while they are not: by half in a second.
const MORE: f64 = 1.02;
/// For how much longer than it may be held back at once a tenant's debt is remembered.
const REMEMBERED: f64 = 2.0;

/// What was spent for one tenant, and how much may be.
#[derive(Default)]
pub(super) struct Turns {
    /// Nanoseconds since the last look.
    spent: AtomicU64,
    pace: Mutex<Option<Pace>>,
}

/// What a tenant may spend while turns are late.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Seconds of processor time in a second.
    allowance: f64,
    /// Seconds that were spent too early.
    debt: f64,
    paid_at: Instant,
}

impl Pace {
    fn pay(&mut self, now: Instant) {
        let paid = now.saturating_duration_since(self.paid_at).as_secs_f64() * self.allowance;
        self.debt = (self.debt - paid).max(0.0);
        self.paid_at = now;
    }

    /// Until the debt is paid.
    fn wait(&self) -> Duration {
        Duration::try_from_secs_f64(self.debt / self.allowance).unwrap_or(PAUSE_MAX)
    }
}

impl Turns {
    pub(super) fn spend(&self, time: Duration) {
        self.spent.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if let Some(pace) = &mut *self.pace.lock() {
            let most = pace.allowance * PAUSE_MAX.as_secs_f64() * REMEMBERED;
            pace.debt = (pace.debt + time.as_secs_f64()).min(most);
        }
    }

    /// For how long the tenant's sockets are not to be read.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        let mut pace = self.pace.lock();
        let Some(pace) = &mut *pace else { return Duration::ZERO };
        pace.pay(now);
        let wait = pace.wait();
        if wait < PAUSE_MIN { Duration::ZERO } else { wait.min(PAUSE_MAX) }
    }

    /// Gives less to who takes `rate` when the even share is `even`, both in seconds a second.
    fn throttle(&self, rate: f64, even: f64, now: Instant) {
        let mut pace = self.pace.lock();
        let pace = pace.get_or_insert(Pace { allowance: rate, debt: 0.0, paid_at: now });
        pace.pay(now);
        pace.allowance = (pace.allowance.min(rate) * LESS).max(even);
    }

    /// Gives more; as much as there is ends it.
    fn release(&self, all: f64, now: Instant) {
        let mut paced = self.pace.lock();
        if let Some(pace) = &mut *paced {
            pace.pay(now);
            pace.allowance *= MORE;
            if pace.allowance >= all {
                *paced = None;
            }
        }
    }
}

/// Time that is spent for a tenant, until this is dropped.
pub(crate) struct Turn<'a>(&'a Use, Instant);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.turns.spend(self.1.elapsed());
    }
}

impl Use {
    /// Counts the time from now on.
    pub(crate) fn turn(&self) -> Turn<'_> {
        Turn(self, Instant::now())
    }

    /// Counts the time that a future runs, not the time that it waits.
    pub(crate) async fn turns_of<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        poll_fn(|cx| {
            let _turn = self.turn();
            future.as_mut().poll(cx)
        })
        .await
    }

    /// Counts time that was spent.
    pub(crate) fn spend(&self, time: Duration) {
        self.turns.spend(time);
    }
}

impl Meters {
    /// Takes what each tenant spent since the last look, and, when turns come late, holds back who takes too much.
    fn share_out(&self, over: Duration, late: bool, all: f64, now: Instant) -> Vec<(Arc<Use>, Duration)> {
        let uses: Vec<Arc<Use>> = self.uses.lock().values().cloned().collect();
        let spent = |of: Arc<Use>| {
            let time = Duration::from_nanos(of.turns.spent.swap(0, Ordering::Relaxed));
            (of, time)
        };
        let spent: Vec<_> = uses.into_iter().map(spent).collect();
        let rate = |time: Duration| time.as_secs_f64() / over.as_secs_f64().max(f64::MIN_POSITIVE);
        let busy = spent.iter().filter(|(_, time)| !time.is_zero()).count();
        #[expect(clippy::cast_precision_loss, reason = "tenants are fewer than 2^52")]
        let even = spent.iter().map(|(_, time)| rate(*time)).sum::<f64>() / busy.max(1) as f64;
        for (of, time) in &spent {
            match late {
                // Alone it may have everything.
                true if busy > 1 && rate(*time) > even => of.turns.throttle(rate(*time), even, now),
                true => {}
                false => of.turns.release(all, now),
            }
        }
        spent
    }
}

/// Looks for as long as the edge lives.
pub(crate) async fn keep(shared: Arc<Shared>) {
    #[expect(clippy::cast_precision_loss, reason = "processors are fewer than 2^52")]
    let all = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let mut looked = Instant::now();
    loop {
        let due = looked + LOOK_EVERY;
        sleep_until(due).await;
        let now = Instant::now();
        let late = now.saturating_duration_since(due);
        shared.metrics.quotas.turn(late);
        for (of, time) in shared.meters.share_out(now - looked, late >= LATE, all, now) {
            shared.metrics.quotas.spent(&of.tenant, time);
            of.counted.busy(time);
        }
        looked = now;
    }
}

#[cfg(test)]
mod tests {
    use riser_core::tenant::Quotas;

    use super::*;

    const ALL: f64 = 2.0;

    /// Tenants of an edge with two processors, whose clock is the test's.
    struct Bench {
        meters: Meters,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { meters: Meters::default(), now: Instant::now() }
        }

        fn of(&self, tenant: &str) -> Arc<Use> {
            self.meters.of(&tenant.parse().expect("a tenant"), || Quotas::NONE)
        }

        /// A look after which tenants spent so many milliseconds.
        fn look(&mut self, late: bool, spent: &[(&str, u64)]) {
            for (tenant, ms) in spent {
                self.of(tenant).spend(Duration::from_millis(*ms));
            }
            self.now += LOOK_EVERY;
            self.meters.share_out(LOOK_EVERY, late, ALL, self.now);
        }

        fn pause(&self, tenant: &str) -> Duration {
            self.of(tenant).turns.pause(self.now)
        }

        fn allowance(&self, tenant: &str) -> Option<f64> {
            self.of(tenant).turns.pace.lock().map(|pace| pace.allowance)
        }
    }

    #[test]
    fn while_turns_come_in_time_nobody_is_throttled() {
        let mut bench = Bench::new();
        for _ in 0..100 {
            bench.look(false, &[("a", 90), ("b", 1)]);
        }
        assert_eq!((bench.pause("a"), bench.allowance("a")), (Duration::ZERO, None));
    }

    #[test]
    fn who_takes_more_than_an_even_share_gets_less_down_to_that_share_and_the_others_nothing_less() {
        let mut bench = Bench::new();
        bench.look(true, &[("a", 90), ("b", 2), ("c", 1)]);
        let first = bench.allowance("a").expect("it is held back");
        assert!((first - 1.8 * LESS).abs() < 1e-9, "{first}");
        for _ in 0..100 {
            bench.look(true, &[("a", 90), ("b", 2), ("c", 1)]);
        }
        let even = 93.0 / 50.0 / 3.0;
        let last = bench.allowance("a").expect("it is held back");
        assert!((last - even).abs() < 1e-9, "{last}");
        assert_eq!(bench.pause("a"), PAUSE_MAX, "it spends three times as much");
        for other in ["b", "c"] {
            assert_eq!((bench.pause(other), bench.allowance(other)), (Duration::ZERO, None));
        }
    }

    #[test]
    fn two_who_take_too_much_are_both_throttled() {
        let mut bench = Bench::new();
        bench.look(true, &[("a", 45), ("b", 45), ("c", 5)]);
        assert!(bench.allowance("a").is_some() && bench.allowance("b").is_some() && bench.allowance("c").is_none());
    }

    #[test]
    fn who_is_alone_has_everything() {
        let mut bench = Bench::new();
        bench.of("b");
        for _ in 0..10 {
            bench.look(true, &[("a", 100)]);
        }
        assert_eq!(bench.allowance("a"), None, "the other one does nothing");
    }

    #[test]
    fn what_was_throttled_is_let_go_step_by_step_once_turns_come_in_time() {
        let mut bench = Bench::new();
        for _ in 0..10 {
            bench.look(true, &[("a", 90), ("b", 2)]);
        }
        let before = bench.allowance("a").expect("it is held back");
        bench.look(false, &[("a", 10), ("b", 2)]);
        let after = bench.allowance("a").expect("still");
        assert!((after - before * MORE).abs() < 1e-9);
        let mut looks = 1;
        while bench.allowance("a").is_some() {
            bench.look(false, &[("b", 2)]);
            looks += 1;
            assert!(looks < 100, "it ends");
        }
        assert_eq!(bench.pause("a"), Duration::ZERO);
    }

    #[test]
    fn a_debt_is_paid_by_waiting_and_no_longer_than_was_said() {
        let mut bench = Bench::new();
        bench.look(true, &[("a", 50), ("b", 50)]);
        bench.look(true, &[("a", 80), ("b", 20)]);
        let allowance = bench.allowance("a").expect("it is held back");
        bench.of("a").spend(Duration::from_millis(500));
        let pause = bench.pause("a");
        assert!((pause.as_secs_f64() - 0.5 / allowance).abs() < 0.001, "{pause:?}");
        bench.now += pause;
        assert_eq!(bench.pause("a"), Duration::ZERO);
        // However much was spent, two seconds of good conduct make up for it.
        bench.of("a").spend(Duration::from_secs(3_600));
        assert_eq!(bench.pause("a"), PAUSE_MAX);
        bench.now += PAUSE_MAX.mul_f64(REMEMBERED);
        assert_eq!(bench.pause("a"), Duration::ZERO);
    }
}
