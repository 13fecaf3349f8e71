//! Paces passes: at once when idle, in batches when busy. Passes that write begin at least a gap apart.
//!
//! Without the pace, at a few hundred changes a second each change is its own pass, transaction and answer, which costs
//! etcd and the role twice as much as batches; and with both cores busy everything takes longer than the delay added
//! here. A change after a pause is not delayed.

use std::time::Duration;

use tokio::time::Instant;

/// The time at which the next pass may begin.
#[derive(Debug)]
pub struct Pace {
    gap: Duration,
    next: Instant,
}

impl Pace {
    /// Lets passes begin at least `gap` apart.
    pub fn new(gap: Duration) -> Pace {
        Pace { gap, next: Instant::now() }
    }

    /// Notes that a pass that writes begins now.
    pub fn begin(&mut self) {
        self.next = Instant::now() + self.gap;
    }

    /// The time at which the next pass may begin; `None` = now.
    pub fn wait(&self) -> Option<Instant> {
        Some(self.next).filter(|next| *next > Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep_until};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn passes_keep_the_gap_and_begin_at_once_after_a_pause() {
        let gap = Duration::from_millis(5);
        let mut pace = Pace::new(gap);
        assert_eq!(pace.wait(), None);
        let began = Instant::now();
        pace.begin();
        assert_eq!(pace.wait(), Some(began + gap));
        advance(Duration::from_millis(2)).await;
        assert_eq!(pace.wait(), Some(began + gap), "the gap counts from the beginning of the last pass");
        sleep_until(began + gap).await;
        assert_eq!(pace.wait(), None);
    }
}
