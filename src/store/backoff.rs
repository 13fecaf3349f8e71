//! Jittered exponential back-off: capped, reset by success, quiet in the log. Also the throttle for logs of a lasting
//! problem.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::api::StoreError;

/// The longest delay after a denied permission: a faster retry lets no client in.
pub const REFUSED_CAP: Duration = Duration::from_secs(30);

/// Delays between attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    rng: fastrand::Rng,
    first: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// Starts at `first` and doubles up to `cap`.
    pub fn new(rng: fastrand::Rng, first: Duration, cap: Duration) -> Self {
        Backoff { rng, first, cap, failures: 0 }
    }

    /// The back-off of a reconnect: 0.1 s to 5 s, so that a fleet is back within seconds without hammering a dead etcd.
    pub fn reconnect(rng: fastrand::Rng) -> Self {
        Self::new(rng, Duration::from_millis(100), Duration::from_secs(5))
    }

    /// Notes a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Notes a failure and returns the delay before the next attempt (half of the step, plus up to the other half).
    pub fn next_delay(&mut self) -> Duration {
        self.delay_up_to(self.cap)
    }

    /// Like [`next_delay`](Self::next_delay), with up to 30 s after a denied permission.
    pub fn delay_after(&mut self, error: &StoreError) -> Duration {
        match error {
            error if error.is_denied() => self.delay_up_to(self.cap.max(REFUSED_CAP)),
            _ => self.next_delay(),
        }
    }

    fn delay_up_to(&mut self, cap: Duration) -> Duration {
        let step = self.first.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(cap);
        self.failures = self.failures.saturating_add(1);
        step / 2 + step.mul_f64(self.rng.f64() / 2.0)
    }

    /// Whether to log this failure: the first, and then each that doubles the number of failures.
    pub fn is_news(&self) -> bool {
        self.failures.is_power_of_two()
    }

    /// The number of failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// The delay before a lasting problem is logged again. Attempts are up to 5 s apart, so there is nothing new to log
/// earlier.
const TOLD_AGAIN_FIRST: Duration = Duration::from_secs(5);
/// The longest silence: the last quarter of an hour of a log then shows the problem.
const TOLD_AGAIN_MAX: Duration = Duration::from_secs(600);

/// Throttles the log of a lasting problem: once at first, then at intervals that double.
#[derive(Debug, Clone, Default)]
pub struct Nag(Option<Told>);

#[derive(Debug, Clone)]
struct Told {
    since: Instant,
    last: Instant,
    silence: Duration,
}

impl Nag {
    /// Notes a failure. Returns whether to log it.
    pub fn is_due(&mut self, now: Instant) -> bool {
        match &mut self.0 {
            None => {
                self.0 = Some(Told { since: now, last: now, silence: TOLD_AGAIN_FIRST });
                true
            }
            Some(told) if now.duration_since(told.last) >= told.silence => {
                told.last = now;
                told.silence = (told.silence * 2).min(TOLD_AGAIN_MAX);
                true
            }
            Some(_) => false,
        }
    }

    /// Notes the end of the problem. Returns its duration if it was logged.
    pub fn over(&mut self, now: Instant) -> Option<Duration> {
        self.0.take().map(|told| now.duration_since(told.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lasting_problem_is_logged_at_growing_intervals() {
        let begin = Instant::now();
        let mut nag = Nag::default();
        // The call fails every second, for an hour.
        let told_in = |nag: &mut Nag, seconds: std::ops::Range<u64>| -> Vec<u64> {
            seconds.filter(|second| nag.is_due(begin + Duration::from_secs(*second))).collect()
        };
        assert_eq!(told_in(&mut nag, 0..3_600), [0, 5, 15, 35, 75, 155, 315, 635, 1_235, 1_835, 2_435, 3_035]);
        assert_eq!(nag.over(begin + Duration::from_secs(3_600)), Some(Duration::from_secs(3_600)));
        assert_eq!(nag.over(begin), None, "a problem that was not logged has no end to log");
        // The next failure is a new problem.
        assert_eq!(told_in(&mut nag, 4_000..4_010), [4_000, 4_005]);
    }

    #[test]
    fn delays_double_up_to_the_cap_and_reset_after_success() {
        let mut backoff = Backoff::new(fastrand::Rng::with_seed(1), Duration::from_millis(100), Duration::from_secs(5));
        let mut check = |low_ms: u64, high_ms: u64| {
            let delay = backoff.next_delay();
            assert!(delay >= Duration::from_millis(low_ms) && delay <= Duration::from_millis(high_ms), "{delay:?}");
        };
        check(50, 100);
        check(100, 200);
        check(200, 400);
        for _ in 0..60 {
            backoff.next_delay();
        }
        let delay = backoff.next_delay();
        assert!(delay >= Duration::from_millis(2500) && delay <= Duration::from_secs(5));
        let refused = backoff.delay_after(&StoreError::Refused("permission denied".into()));
        assert!(refused >= Duration::from_secs(15) && refused <= Duration::from_secs(30), "{refused:?}");
        assert!(backoff.delay_after(&StoreError::Timeout { milliseconds: 1 }) <= Duration::from_secs(5));
        // A log of an outage of hours shows it again, at ever longer intervals.
        let mut told = Vec::new();
        for _ in 0..1_000 {
            backoff.next_delay();
            told.extend(Some(backoff.failures()).filter(|_| backoff.is_news()));
        }
        assert_eq!(told, [128, 256, 512, 1024]);
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(100));
        assert!(backoff.delay_after(&StoreError::Refused("permission denied".into())) <= Duration::from_millis(200));
    }
}
