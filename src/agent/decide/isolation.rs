//! When a node that cannot reach the store must stop using what it has (`on_isolation: withdraw`).
//!
//! The arithmetic alone. All times are readings of one clock that runs while the host is suspended, as durations since
//! its boot; readings of the runtime's clock, which stands still then, are converted by [`Suspends`].

use std::time::Duration;

/// Where the clock of the runtime stood still: pairs of a reading of it and of what the other clock was ahead then.
#[derive(Debug, Clone, Default)]
pub struct Suspends(Vec<(Duration, Duration)>);

impl Suspends {
    /// Steps smaller than this are the time between the two readings, not a suspend.
    const STEP_MIN: Duration = Duration::from_millis(5);
    /// More suspends than this between two answered keep-alives do not happen; the oldest are forgotten.
    const MAX: usize = 64;

    /// Tells both clocks, read one after the other. To be called often: a suspend is dated by the call after it.
    pub fn see(&mut self, runtime: Duration, boot: Duration) {
        let ahead = boot.saturating_sub(runtime);
        if self.0.last().is_none_or(|(_, last)| ahead > *last + Self::STEP_MIN) {
            self.0.push((runtime, ahead));
            if self.0.len() > Self::MAX {
                self.0.remove(0);
            }
        }
    }

    /// The reading of the clock that runs during suspend at a past reading of the runtime's. Never too late: what lies
    /// between two calls is taken to be before the suspend.
    pub fn at(&self, runtime: Duration) -> Duration {
        let known = self.0.iter().rev().find(|(seen, _)| *seen <= runtime).or_else(|| self.0.first());
        runtime + known.map_or(Duration::ZERO, |(_, ahead)| *ahead)
    }
}

/// When the node must have begun to withdraw: its hold after the *earlier* of the sending of the last read that showed its own
/// status and assignment, and of the last answered keep-alive.
///
/// The earlier one, because keep-alives may have failed for a TTL before the last read, or read healthy without a status.
pub fn deadline(last_read: Duration, last_beat: Duration, hold_s: u64) -> Duration {
    last_read.min(last_beat) + Duration::from_secs(hold_s)
}

/// How often the sub-tree is read.
pub fn read_every(lease_ttl: Duration, hold_s: u64) -> Duration {
    lease_ttl.min(Duration::from_secs(hold_s) / 3)
}

/// Why an agent with these settings must not use an address of such a pool; `None` = it may.
pub fn fault(lease_ttl: Duration, stop_timeout: Duration, hook_limit: Duration, hold_s: u64) -> Option<String> {
    let text = |duration| humantime::format_duration(duration).to_string();
    let hold = Duration::from_secs(hold_s);
    if lease_ttl > hold {
        return Some(format!(
            "the pool's nodes withdraw when isolated: a lease TTL of {} is longer than its hold of {}",
            text(lease_ttl),
            text(hold)
        ));
    }
    if stop_timeout + hook_limit > lease_ttl {
        return Some(format!(
            "the pool's nodes withdraw when isolated: stop time-out {} and hook limit {} together are longer than one lease TTL of {}",
            text(stop_timeout),
            text(hook_limit),
            text(lease_ttl)
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_hold_runs_from_the_earlier_sign() {
        assert_eq!(deadline(s(100), s(130), 30), s(130));
        assert_eq!(deadline(s(130), s(100), 30), s(130));
    }

    #[test]
    fn reads_come_often_enough() {
        assert_eq!(read_every(s(15), 600), s(15));
        assert_eq!(read_every(s(15), 30), s(10));
    }

    #[test]
    fn settings_that_would_break_the_promise_are_refused() {
        assert_eq!(fault(s(15), s(8), s(7), 30), None);
        assert_eq!(fault(s(30), s(8), s(7), 30), None);
        assert!(fault(s(31), s(8), s(7), 30).is_some_and(|text| text.contains("hold of 30s")));
        assert!(fault(s(15), s(9), s(7), 30).is_some_and(|text| text.contains("stop time-out 9s")));
    }

    #[test]
    fn a_suspend_counts() {
        let mut clocks = Suspends::default();
        clocks.see(s(10), s(110));
        assert_eq!(clocks.at(s(12)), s(112));
        clocks.see(s(12), s(112));
        // Suspended for 60 s some time after 12.
        clocks.see(s(13), s(173));
        assert_eq!(clocks.at(s(12)), s(112));
        assert_eq!(clocks.at(s(13)), s(173));
        assert_eq!(clocks.at(s(14)), s(174));
        // Unknown: before the suspend is the safe side.
        assert_eq!(clocks.at(Duration::from_millis(12_900)), Duration::from_millis(112_900));
        assert_eq!(clocks.at(s(5)), s(105));
    }
}
