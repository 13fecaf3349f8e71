//! At once when idle, in batches when busy: passes that write begin at least so far apart.
//!
//! Without it, at a few hundred changes a second each of them is a pass, a transaction and an answer of its own, which costs etcd and
//! us twice of what it costs in batches; and with both cores busy everything takes longer than what is waited for here. A
//! change after a pause is not kept back.

use std::time::Duration;

use tokio::time::Instant;

/// When the next pass may begin.
#[derive(Debug)]
pub struct Pace {
    gap: Duration,
    next: Instant,
}

impl Pace {
    /// Passes begin at least `gap` apart.
    pub fn new(gap: Duration) -> Pace {
        Pace { gap, next: Instant::now() }
    }

    /// A pass that writes begins now.
    pub fn begin(&mut self) {
        self.next = Instant::now() + self.gap;
    }

    /// When the next one may begin; `None` = now.
    pub fn wait(&self) -> Option<Instant> {
        Some(self.next).filter(|next| *next > Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep_until};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn passes_begin_apart_and_the_first_after_a_pause_at_once() {
        let gap = Duration::from_millis(5);
        let mut pace = Pace::new(gap);
        assert_eq!(pace.wait(), None);
        let began = Instant::now();
        pace.begin();
        assert_eq!(pace.wait(), Some(began + gap));
        advance(Duration::from_millis(2)).await;
        assert_eq!(pace.wait(), Some(began + gap), "it counts from the beginning of the last one");
        sleep_until(began + gap).await;
        assert_eq!(pace.wait(), None);
    }
}
