//! What the actor knows, and small values of it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::agent::decide::applied::{Applied, Given};
use crate::agent::decide::observe::Proof;
use crate::agent::decide::subtree::Subtree;
use crate::model::assignment::Assignment;
use crate::model::label::Holding;
use crate::model::names::Revision;
use crate::model::status::{Phase, Status};
use crate::store::lease::Lease;

/// What an agent tells whoever watches it in this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentState {
    /// How far it is, as in its status.
    pub phase: Phase,
    /// What it uses; `None` = nothing.
    pub assignment: Option<Assignment>,
    /// Why it waits or fails; empty = it does not.
    pub message: String,
    /// Whether it is joined at the moment: its status is in the store on a good lease, as far as it knows.
    pub joined: bool,
}

/// This agent's status is in the store, as far as it knows.
pub(super) struct Joined {
    pub lease: Arc<Lease>,
    /// When it joined.
    pub at: Instant,
    /// As it was written last.
    pub written: Status,
    /// Its mod_revision then.
    pub status_revision: Revision,
    /// The revision of this run's last write of anything.
    pub floor: Revision,
    /// Since when the view is older than that.
    pub stale_since: Option<Instant>,
}

/// What the status should say, apart from who says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    pub phase: Phase,
    pub generation: Revision,
    pub message: String,
}

/// An assignment to apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub applied: Arc<Applied>,
    pub given: Given,
}

/// Which piece of work is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Doing {
    Nothing,
    Preparing(Box<Target>),
    StoppingOld(Box<Target>),
    Starting(Box<Target>),
    Checking,
    Refreshing,
    Rechecking,
    Withdrawing,
}

/// A slot for one future under way.
pub(super) type Slot<T> = Option<BoxFuture<'static, T>>;

/// The slot's outcome; for ever pending while it is empty. Cancel-safe: the future stays in its slot.
pub(super) async fn outcome<T>(slot: &mut Slot<T>) -> T {
    match slot {
        Some(future) => {
            let value = future.await;
            *slot = None;
            value
        }
        None => std::future::pending().await,
    }
}

/// The two sources of what is seen of the sub-tree: the feed, and reads of one's own. The newest is what counts.
#[derive(Default)]
pub(super) struct View {
    feed: Option<Subtree>,
    pub newest: Option<Subtree>,
    /// For [`View::newest`]; unknown again whenever it changes.
    pub proof: Proof,
}

impl View {
    /// The feed read everything again.
    pub(super) fn reset(&mut self, subtree: Subtree, stepped_back: bool) {
        self.feed = Some(subtree.clone());
        self.offer(subtree, stepped_back);
    }

    /// The feed told events.
    pub(super) fn advance(&mut self, change: impl FnOnce(&mut Subtree)) {
        if let Some(feed) = &mut self.feed {
            change(feed);
            let subtree = feed.clone();
            self.offer(subtree, false);
        }
    }

    /// Something was seen. `anyhow`: although it is older (the store stepped back).
    pub(super) fn offer(&mut self, subtree: Subtree, anyhow: bool) {
        let newer = self
            .newest
            .as_ref()
            .is_none_or(|newest| newest.cluster_id != subtree.cluster_id || newest.revision <= subtree.revision);
        if newer || anyhow {
            self.newest = Some(subtree);
            self.proof = Proof::Unknown;
        }
    }
}

/// Pauses between tries: twice as long each time, with jitter, up to a limit.
#[derive(Debug)]
pub(super) struct Backoff {
    tries: u32,
    rng: fastrand::Rng,
}

impl Backoff {
    pub(super) fn new(rng: fastrand::Rng) -> Self {
        Backoff { tries: 0, rng }
    }

    /// The next pause.
    pub(super) fn next(&mut self, first: Duration, limit: Duration) -> Duration {
        let pause = first.saturating_mul(1 << self.tries.min(16)).min(limit);
        self.tries = self.tries.saturating_add(1);
        pause.mul_f64(0.75 + self.rng.f64() / 2.0)
    }

    /// It worked.
    pub(super) fn reset(&mut self) {
        self.tries = 0;
    }
}

/// An allocator that runs answers within this.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// The longest silence about an answer that does not come.
const UNANSWERED_SILENCE_MAX: Duration = Duration::from_secs(600);

/// How long no allocator has answered, and when that is said next: first after five seconds, then after twice as long each time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unanswered {
    since: Instant,
    pub next: Instant,
}

impl Unanswered {
    pub(super) fn new(now: Instant) -> Self {
        Unanswered { since: now, next: now + ANSWERED_WITHIN }
    }

    /// For how long it has been so, if that is to be said now.
    pub(super) fn is_due(&mut self, now: Instant) -> Option<Duration> {
        let waited = now.duration_since(self.since);
        (now >= self.next).then(|| {
            self.next = now + waited.min(UNANSWERED_SILENCE_MAX);
            waited
        })
    }
}

/// What the label that is answered holds.
pub(super) fn target(view: &Subtree, given: Given, answered: Option<Box<Holding>>) -> Option<Target> {
    let entry = view.assignment.as_ref()?;
    let assignment = entry.ok()?.clone();
    let applied = Applied { assignment, mod_revision: entry.mod_revision, cluster_id: view.cluster_id, answered };
    Some(Target { applied: Arc::new(applied), given })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_answer_is_told_at_growing_intervals() {
        let begin = Instant::now();
        let mut unanswered = Unanswered::new(begin);
        let is_due = |second: &u64| unanswered.is_due(begin + Duration::from_secs(*second)).is_some();
        assert_eq!((0..2_000).filter(is_due).collect::<Vec<_>>(), [5, 10, 20, 40, 80, 160, 320, 640, 1_240, 1_840]);
    }
}
