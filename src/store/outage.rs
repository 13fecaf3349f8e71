//! When people are told of requests that fail again and again: not of a moment, once when it lasts, then rarely, and when it is over.
//! A process has a dozen views and leases on one etcd, and each of them notices its restart.

use std::time::Duration;

use tokio::time::Instant;

/// What is over by then nobody needs to know: an election, a member that restarts beside others, a new login.
const QUIET: Duration = Duration::from_secs(5);
/// A trouble that lasts is told again after this, then after twice as long each time.
const AGAIN_FIRST: Duration = Duration::from_secs(30);
/// The longest silence: whoever reads the last quarter of an hour of a log finds the trouble in it.
const AGAIN_MAX: Duration = Duration::from_secs(600);

/// One trouble, from its first failure on.
#[derive(Debug, Clone, Default)]
pub struct Outage(Option<Since>);

#[derive(Debug, Clone)]
struct Since {
    begin: Instant,
    next: Instant,
    silence: Duration,
    told: bool,
}

impl Outage {
    /// It failed (again): whether people should be told now.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let since = self.0.get_or_insert(Since { begin: now, next: now + QUIET, silence: AGAIN_FIRST, told: false });
        if now < since.next {
            return false;
        }
        since.next = now + since.silence;
        since.silence = (since.silence * 2).min(AGAIN_MAX);
        since.told = true;
        true
    }

    /// It worked: how long it had failed, if people were told.
    pub fn over(&mut self, now: Instant) -> Option<Duration> {
        self.0.take().filter(|since| since.told).map(|since| now.duration_since(since.begin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(outage: &mut Outage, begin: Instant, seconds: u64) -> Vec<u64> {
        (0..seconds).filter(|second| outage.is_due(begin + Duration::from_secs(*second))).collect()
    }

    #[test]
    fn moment_is_not_told_and_neither_is_its_end() {
        let (begin, mut outage) = (Instant::now(), Outage::default());
        assert_eq!(told(&mut outage, begin, 5), [0; 0]);
        assert_eq!(outage.over(begin + Duration::from_secs(5)), None);
    }

    #[test]
    fn lasting_trouble_is_told_rarely_and_its_end_once() {
        let (begin, mut outage) = (Instant::now(), Outage::default());
        assert_eq!(told(&mut outage, begin, 3_600), [5, 35, 95, 215, 455, 935, 1_535, 2_135, 2_735, 3_335]);
        assert_eq!(outage.over(begin + Duration::from_secs(3_600)), Some(Duration::from_secs(3_600)));
        assert_eq!(outage.over(begin), None);
    }
}
