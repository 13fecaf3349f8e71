//! Medians, percentiles, processor time. Pure but for one look at `/proc`.

use std::time::Duration;

use serde::Serialize;

/// The middle one; of an even number the lower middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// How long things took, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half of them took at most this long.
    pub p50_ms: f64,
    /// 99 of 100 took at most this long.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Latency {
    /// Of microseconds.
    pub fn of(mut micros: Vec<u64>) -> Latency {
        micros.sort_unstable();
        // The nearest-rank method: the smallest value that so many of 100 do not exceed.
        let at = |percent: usize| {
            let rank = (micros.len() * percent).div_ceil(100).saturating_sub(1);
            micros.get(rank).copied().unwrap_or(0) as f64 / 1_000.0
        };
        Latency { p50_ms: at(50), p99_ms: at(99), max_ms: at(100) }
    }
}

/// A rate per second.
pub fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}

/// Processor seconds that a process has used (user and system, its threads included); `None` = it is gone.
pub fn cpu_seconds(pid: i32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks = ticks(&stat)?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    Some(ticks as f64 / per_second as f64)
}

/// Processor seconds that this thread has used: for work that waits for nothing.
///
/// # Errors
/// When the kernel has no such clock.
pub fn thread_seconds() -> nix::Result<f64> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9)
}

/// Bytes of memory that a process has in use (resident); `None` = it is gone.
pub fn memory(pid: i32) -> Option<u64> {
    resident(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// `VmRSS` of `/proc/<pid>/status` (proc(5)), which counts in KiB.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// `utime` and `stime` of a line of `/proc/<pid>/stat` (proc(5)); the name in it may hold blanks and parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_tail() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.0);
        assert!(median(vec![]).is_nan());
        let latency = Latency::of((1..=200).map(|n| n * 1_000).collect());
        assert_eq!(latency, Latency { p50_ms: 100.0, p99_ms: 198.0, max_ms: 200.0 });
        assert_eq!(Latency::of(vec![]), Latency::default());
    }

    #[test]
    fn memory_is_counted_in_bytes() {
        assert_eq!(resident("Name:\tenlist\nVmHWM:\t 9 kB\nVmRSS:\t    3 kB\n"), Some(3_072));
        assert_eq!(resident("Name:\tkthreadd\n"), None);
        assert!(memory(std::process::id() as i32).is_some_and(|bytes| bytes > 100_000));
    }

    #[test]
    fn processor_time_is_read_behind_the_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(ticks(stat), Some(200));
        assert!(cpu_seconds(std::process::id() as i32).is_some());
    }
}
