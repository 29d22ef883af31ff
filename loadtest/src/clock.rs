//! One clock for all processes of a run, and a timer that is finer than tokio's milliseconds.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Microseconds of the machine's monotonic clock, which is the same in all its processes.
pub(crate) fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // It counts from the machine's start, so neither part is negative.
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000
}

/// Seconds of Unix time, for tokens.
pub(crate) fn unix_s() -> u64 {
    u64::try_from(clock_gettime(ClockId::Realtime).tv_sec).unwrap_or(0)
}

/// Waits for moments of [`now_us`].
#[derive(Debug)]
pub(crate) struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// Makes one, inside a runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        #[expect(unsafe_code, reason = "tokio asks for it, so that nobody hands over what may be closed elsewhere")]
        // SAFETY: the descriptor was just made, and the value that is handed over owns it.
        let fd = unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)?;
        Ok(Self(fd))
    }

    /// Waits until `us`. Returns at once when it is past.
    pub(crate) async fn until(&self, us: u64) -> io::Result<()> {
        let wait = us.saturating_sub(now_us());
        if wait == 0 {
            return Ok(());
        }
        let wait = Duration::from_micros(wait);
        let value = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|fd| Ok(rustix::io::read(fd, &mut [0_u8; 8])?));
            if let Ok(read) = read {
                return read.map(|_| ());
            }
        }
    }
}
