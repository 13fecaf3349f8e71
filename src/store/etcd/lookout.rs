//! Looks after endpoints that are not in order while others are used: one that does not answer, or is of another cluster. Both
//! are logged once, and once when they are over. Ends when all endpoints are in order.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};

use super::ring::{Health, Ring};

/// An endpoint that failed for so long does not answer. A restart of a member is shorter.
const DEAD_AFTER: Duration = Duration::from_secs(10);
/// How often endpoints in trouble are asked, at first and later: each process asks, and there may be thousands.
const ASKED_EVERY: Duration = Duration::from_secs(5);
const ASKED_EVERY_MAX: Duration = Duration::from_secs(60);
/// How often all endpoints are asked where that was wanted: by roles, of which there are few.
const ALL_ASKED_EVERY: Duration = Duration::from_secs(10);

impl Ring {
    /// From now on endpoints that no call uses are looked at as well.
    pub(super) fn look_at_all(&self) {
        self.looks_at_all.store(true, Ordering::Relaxed);
        self.look_out();
    }

    /// Has somebody look after the endpoints, if nobody does yet.
    pub(super) fn look_out(&self) {
        // Without a runtime the process ends.
        let Ok(runtime) = Handle::try_current() else { return };
        if self.slots.len() < 2 || self.has_lookout.swap(true, Ordering::Relaxed) {
            return;
        }
        let me = self.me.clone();
        runtime.spawn(async move {
            let mut pause = ASKED_EVERY;
            loop {
                sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
                let Some(ring) = me.upgrade() else { return };
                let all = ring.looks_at_all.load(Ordering::Relaxed);
                pause = if all { ALL_ASKED_EVERY } else { (pause * 2).min(ASKED_EVERY_MAX) };
                let again = !ring.retired.is_cancelled() && (ring.look_after(all).await || all);
                if !again {
                    ring.has_lookout.store(false, Ordering::Relaxed);
                    return;
                }
            }
        });
    }

    /// Asks the endpoints that are not in order, or all but the one that is used. Whether any is not in order.
    async fn look_after(&self, all: bool) -> bool {
        let in_trouble = |index: usize| self.slot(index).is_aside() || self.slot(index).health().since.is_some();
        let used = self.used();
        for index in (0..self.len()).filter(|index| in_trouble(*index) || (all && *index != used)) {
            let others_answer = (0..self.len()).any(|other| other != index && !in_trouble(other));
            self.look_at(index, others_answer).await;
        }
        (0..self.len()).any(in_trouble)
    }

    async fn look_at(&self, index: usize, others_answer: bool) {
        let slot = self.slot(index);
        match timeout(self.settings.dial_timeout, self.cluster_of(index)).await {
            Ok(Ok(cluster)) => {
                let chosen = {
                    let mut clusters = self.clusters();
                    if cluster != 0 {
                        clusters.hear(index, cluster, Instant::now());
                    }
                    clusters.chosen()
                };
                match chosen {
                    Some(chosen) if chosen != cluster && cluster != 0 => slot.set_aside(cluster, chosen),
                    Some(chosen) => {
                        slot.is_of_ours(chosen);
                        slot.set_health(|_| Health::default());
                        slot.answers();
                    }
                    None => {}
                }
            }
            Ok(Err(_)) | Err(_) => {
                let now = Instant::now();
                slot.set_health(|health| Health { since: health.since.or(Some(now)), ..health });
                if let Some(since) = slot.health().since
                    && others_answer
                    && since.elapsed() >= DEAD_AFTER
                {
                    slot.is_dead(since);
                }
            }
        }
    }
}
