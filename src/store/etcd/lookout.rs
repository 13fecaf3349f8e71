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

impl Ring {
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
                pause = (pause * 2).min(ASKED_EVERY_MAX);
                let Some(ring) = me.upgrade() else { return };
                let again = !ring.retired.is_cancelled() && ring.look_after().await;
                if !again {
                    ring.has_lookout.store(false, Ordering::Relaxed);
                    return;
                }
            }
        });
    }

    /// Asks the endpoints that are not in order. Whether there are any left.
    async fn look_after(&self) -> bool {
        let in_trouble = |index: &usize| self.slot(*index).is_aside() || self.slot(*index).health().since.is_some();
        let troubled: Vec<usize> = (0..self.len()).filter(in_trouble).collect();
        for index in &troubled {
            self.look_at(*index, troubled.len() < self.len()).await;
        }
        (0..self.len()).any(|index| in_trouble(&index))
    }

    async fn look_at(&self, index: usize, others_answer: bool) {
        let slot = self.slot(index);
        match timeout(self.settings.dial_timeout, self.cluster_of(index)).await {
            Ok(Ok(cluster)) => {
                let chosen = {
                    let mut clusters = self.clusters();
                    clusters.hear(index, cluster, Instant::now());
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
