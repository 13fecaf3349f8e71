//! In which order the requests of many agents go to etcd, and how many at a time.
//!
//! It never refuses or loses a request, and keeps none back for longer than [`FLOOD_MAX`] for the sake of others. What a request
//! is, and what became of it, is its caller's.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::REQUESTS_MAX;

/// So few grants, waiting or under way, are no flood any more.
const GRANTS_FEW: usize = 32;
/// A flood goes first for so long, at most: etcd grants 20,000 leases in three or four seconds. If it needs longer, agents in good health
/// must not wait for those that are not: what waits is the acknowledgement of an answer, or a read that comes after it.
const FLOOD_MAX: Duration = Duration::from_secs(5);

/// The requests of many agents. They go as they come, but for a flood of grants, for which writes of statuses wait: etcd (3.5) answers
/// each grant with its revision, and for that copies the buffer of all keys that were written within the last tenth of a second.
/// Thousands that come back at once would make it copy, and collect, the statuses of those before them for each lease.
#[derive(Debug)]
pub(super) struct Queue {
    turns: Semaphore,
    /// A line of its own for what may not wait behind thousands.
    words: Semaphore,
    grants: Mutex<Grants>,
    over: Notify,
}

#[derive(Debug, Default)]
struct Grants {
    /// Waiting or under way.
    count: usize,
    /// There is a flood, which goes first until then. When its time is over it stays one until there are few again, so that the next
    /// does not begin at once.
    flood: Option<Instant>,
}

impl Queue {
    pub(super) fn new() -> Self {
        let line = || Semaphore::new(REQUESTS_MAX);
        Queue { turns: line(), words: line(), grants: Mutex::default(), over: Notify::new() }
    }

    /// Waits for a turn.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.turns.acquire().await.ok()
    }

    /// Waits for the turn of a rare write that has little time: the last word of an agent that stops. (All may stop at once, so these
    /// too have a bound.)
    pub(super) async fn turn_of_word(&self) -> Option<SemaphorePermit<'_>> {
        self.words.acquire().await.ok()
    }

    /// Waits for a grant's turn. It counts from now on, until what is answered is dropped.
    pub(super) async fn turn_to_grant(&self) -> (Option<SemaphorePermit<'_>>, Granting<'_>) {
        let granting = self.begin();
        (self.turn().await, granting)
    }

    /// Waits for the turn of a write that a flood of grants goes before.
    pub(super) async fn turn_after_grants(&self) -> Option<SemaphorePermit<'_>> {
        // One flood may follow another.
        let latest = Instant::now() + FLOOD_MAX;
        loop {
            // Made before the look: an end in between is not missed.
            let over = self.over.notified();
            let flood = self.lock().flood.map(|until| until.min(latest));
            let Some(until) = flood.filter(|until| Instant::now() < *until) else { break };
            // If it does not end, its time does.
            let _ = timeout_at(until, over).await;
        }
        self.turn().await
    }

    fn lock(&self) -> MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> Granting<'_> {
        let mut grants = self.lock();
        grants.count += 1;
        // More than can be under way: many came at once.
        if grants.count > REQUESTS_MAX {
            grants.flood.get_or_insert_with(|| Instant::now() + FLOOD_MAX);
        }
        drop(grants);
        Granting(self)
    }
}

/// A grant that waits or is under way.
pub(super) struct Granting<'a>(&'a Queue);

impl Drop for Granting<'_> {
    fn drop(&mut self) {
        let mut grants = self.0.lock();
        grants.count -= 1;
        let over = grants.count <= GRANTS_FEW && grants.flood.take().is_some();
        drop(grants);
        if over {
            self.0.over.notify_waiters();
        }
    }
}
