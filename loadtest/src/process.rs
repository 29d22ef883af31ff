//! What a process costs, read from `/proc` by its id, and processes that end with the value that owns them.

use std::fs;
use std::process::{Child, ChildStdout, Command};

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// CPU time and memory of a process at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cost {
    /// User and system time of all its threads since it began, in microseconds. The kernel counts in ticks of 10 ms.
    pub(crate) cpu_us: u64,
    /// Proportional set size, in bytes: user-space memory, shared pages divided among those who share them.
    pub(crate) pss: u64,
}

/// User and system time of a process, in microseconds.
pub(crate) fn cpu_us(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {path}: has the process ended?"))?;
    let ticks = ticks(&text).with_context(|| format!("{path} is not as proc(5) says"))?;
    Ok(ticks * 1_000_000 / rustix::param::clock_ticks_per_second().max(1))
}

/// CPU time and memory of a process. Summing up its pages takes the kernel milliseconds.
pub(crate) fn cost(pid: u32) -> Result<Cost> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {path}: has the process ended?"))?;
    let pss = pss(&text).with_context(|| format!("{path} holds no Pss"))?;
    Ok(Cost { cpu_us: cpu_us(pid)?, pss })
}

/// `utime` and `stime`, the 14th and 15th field. The second, the name, may hold spaces and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn pss(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Raises this process' limit of open files to what it may be, and tells it. Children inherit it.
pub(crate) fn raise_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // When it cannot be raised, what it is now holds; who needs more is told so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The load of the last minute as the kernel tells it.
pub(crate) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

/// A process that this one started. It is killed, by its id, when this is dropped.
#[derive(Debug)]
pub(crate) struct Owned(Child);

impl Owned {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        Ok(Self(command.spawn().with_context(|| format!("failed to start {name}"))?))
    }

    /// Its id.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Its standard output, once, when it was piped.
    pub(crate) fn output(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // It holds nothing that must survive, and an error means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_found_behind_any_name() {
        let rest = "S 1 2 3 0 -1 4194560 5 6 7 8 120 34 0 0 20 0 9 0 11 12 13";
        for name in ["riser", "a) b", "tmux: server", "(("] {
            assert_eq!(ticks(&format!("42 ({name}) {rest}")), Some(154), "{name}");
        }
        assert_eq!(ticks("42 (riser) S 1 2"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn the_set_size_is_in_bytes() {
        assert_eq!(
            pss("5500-7ff ---p 00000000 00:00 0 [rollup]\nRss: 9 kB\nPss:        11 kB\nPss_Dirty: 3 kB\n"),
            Some(11_264)
        );
        assert_eq!(pss("Rss: 9 kB\n"), None);
    }

    #[test]
    fn this_process_has_a_cost() {
        let cost = cost(std::process::id()).expect("its own files");
        assert!(cost.pss > 100_000);
    }
}
