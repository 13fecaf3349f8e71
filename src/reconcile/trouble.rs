//! What the store answers to a leader's requests: one line when a trouble begins, few while it lasts, one when it ends;
//! and since when requests are refused, because a leader that is refused must give its lead up ([`super::election`]).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::store::api::StoreError;
use crate::store::backoff::Nag;

/// Which requests of a leader are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// Its own work: what the role is for.
    Work,
    /// Reads of another store that the work needs (the relay's source).
    Source,
    /// A write of its own leader key: whether it may lead at all.
    Lead,
    /// The report in `roles/<role>`. A role that cannot report can still work, so a refusal ends no lead.
    Report,
}

impl Asked {
    fn words(self) -> &'static str {
        match self {
            Asked::Work => "writes of the role",
            Asked::Source => "reads of the source",
            Asked::Lead => "writes of the leader key",
            Asked::Report => "writes of the report",
        }
    }
}

/// The troubles of one lead. A cheap handle.
#[derive(Debug, Clone)]
pub struct Troubles(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// A lead is given up when it is refused for this long.
    limit: Duration,
    now: Mutex<BTreeMap<Asked, Trouble>>,
    changed: Notify,
}

#[derive(Debug)]
struct Trouble {
    error: StoreError,
    nag: Nag,
    /// The first refusal since the last success.
    refused_since: Option<Instant>,
}

impl Trouble {
    /// When it has been refused for too long. A store that does not answer at all refuses nothing.
    fn deadline(&self, limit: Duration) -> Option<Instant> {
        self.refused_since.filter(|_| matches!(self.error, StoreError::Refused(_))).map(|since| since + limit)
    }
}

impl Troubles {
    /// None yet. `limit` = the TTL of the leader's lease.
    pub fn new(limit: Duration) -> Troubles {
        Troubles(Arc::new(Shared { limit, now: Mutex::default(), changed: Notify::new() }))
    }

    fn now(&self) -> MutexGuard<'_, BTreeMap<Asked, Trouble>> {
        self.0.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Such a request was answered well.
    pub fn worked(&self, asked: Asked) {
        let Some(mut trouble) = self.now().remove(&asked) else { return };
        if let Some(lasted) = trouble.nag.over(Instant::now()) {
            info!(requests = asked.words(), elapsed_ms = milliseconds(lasted), "etcd answers again");
        }
    }

    /// Such requests failed, so many at once.
    pub fn failed(&self, asked: Asked, error: &StoreError, count: usize) {
        let mut now = self.now();
        let fresh = || Trouble { error: error.clone(), nag: Nag::default(), refused_since: None };
        let trouble = now.entry(asked).or_insert_with(fresh);
        // Another kind of trouble is news.
        if std::mem::discriminant(&trouble.error) != std::mem::discriminant(error) {
            trouble.nag = Nag::default();
        }
        trouble.error = error.clone();
        if matches!(error, StoreError::Refused(_)) {
            trouble.refused_since.get_or_insert_with(Instant::now);
        }
        if trouble.nag.is_due(Instant::now()) {
            log(asked, error, count);
        }
        drop(now);
        self.0.changed.notify_waiters();
    }

    /// What came of many such requests at once: whether any was answered well, and how many failed with (say) this error.
    pub fn pass(&self, asked: Asked, answered: bool, failure: Option<(&StoreError, usize)>) {
        match failure {
            None if answered => self.worked(asked),
            None => {}
            Some((error, count)) => {
                if answered && let Some(trouble) = self.now().get_mut(&asked) {
                    trouble.refused_since = None;
                }
                self.failed(asked, error, count);
            }
        }
    }

    /// What goes wrong now, for people; empty = nothing.
    pub fn text(&self) -> String {
        let now = self.now();
        let all: Vec<String> = now.iter().map(|(asked, trouble)| format!("{}: {}", asked.words(), trouble.error)).collect();
        all.join("; ")
    }

    fn deadline(&self) -> Option<Instant> {
        let ends_the_lead = |(asked, _): &(&Asked, &Trouble)| **asked != Asked::Report;
        let now = self.now();
        now.iter().filter(ends_the_lead).filter_map(|(_, trouble)| trouble.deadline(self.0.limit)).min()
    }

    /// Ends when requests have been refused for longer than the limit. Cancel-safe.
    pub async fn refused_for_long(&self) {
        loop {
            let changed = self.0.changed.notified();
            match self.deadline() {
                Some(deadline) if deadline <= Instant::now() => return,
                Some(deadline) => tokio::select! {
                    biased;
                    () = changed => {}
                    () = tokio::time::sleep_until(deadline) => {}
                },
                None => changed.await,
            }
        }
    }
}

/// A refusal and a full store wait for people; everything else heals.
fn log(asked: Asked, error: &StoreError, count: usize) {
    let requests = asked.words();
    match error {
        StoreError::Refused(_) | StoreError::NoSpace => error!(requests, changes = count, %error, "etcd refuses; retrying"),
        _ => warn!(requests, changes = count, %error, "requests to etcd fail; retrying"),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use tokio::time::{sleep, timeout};

    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn refused() -> StoreError {
        StoreError::Refused("permission denied".into())
    }

    /// How long it takes until the lead is given up; `None` = a minute is not enough.
    async fn until_given_up(troubles: &Troubles) -> Option<Duration> {
        let began = Instant::now();
        timeout(Duration::from_secs(60), troubles.refused_for_long()).await.ok().map(|()| began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_of_a_ttl_end_the_lead() {
        for asked in [Asked::Work, Asked::Source, Asked::Lead] {
            let troubles = Troubles::new(TTL);
            troubles.failed(asked, &refused(), 1);
            sleep(Duration::from_secs(4)).await;
            troubles.failed(asked, &refused(), 1);
            assert_eq!(until_given_up(&troubles).await, Some(Duration::from_secs(6)), "{asked:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn success_silence_and_reports_end_no_lead() {
        let troubles = Troubles::new(TTL);
        troubles.failed(Asked::Work, &refused(), 1);
        troubles.worked(Asked::Work);
        troubles.failed(Asked::Report, &refused(), 1);
        troubles.failed(Asked::Source, &refused(), 1);
        troubles.failed(Asked::Source, &StoreError::Timeout { milliseconds: 1 }, 1);
        assert_eq!(until_given_up(&troubles).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_noticed_while_somebody_waits() {
        let troubles = Troubles::new(TTL);
        let waiting = tokio::spawn({
            let troubles = troubles.clone();
            async move { until_given_up(&troubles).await }
        });
        sleep(Duration::from_secs(5)).await;
        troubles.failed(Asked::Work, &refused(), 1);
        assert_eq!(waiting.await.unwrap(), Some(Duration::from_secs(15)));
    }

    #[test]
    fn what_goes_wrong_is_said_for_people() {
        let troubles = Troubles::new(TTL);
        assert_eq!(troubles.text(), "");
        troubles.failed(Asked::Report, &refused(), 1);
        troubles.failed(Asked::Work, &StoreError::NoSpace, 40);
        let text = troubles.text();
        assert!(text.starts_with("writes of the role: etcd is out of space"), "{text}");
        assert!(text.ends_with("writes of the report: etcd refused: permission denied"), "{text}");
    }
}
