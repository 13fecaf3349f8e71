//! The order in which the requests of many agents go to etcd, and the number sent at a time.
//!
//! The queue never rejects or loses a request, and delays none longer than [`FLOOD_MAX`] in favour of others. Meaning
//! and result of a request belong to its caller.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::REQUESTS_MAX;

/// Up to this many grants, waiting or under way, are no longer a flood.
const GRANTS_FEW: usize = 32;
/// The longest time that a flood goes first: etcd grants 20,000 leases in three or four seconds. If that takes longer,
/// healthy agents must not wait for the others: the waiting requests are acknowledgements of an answer, or reads after
/// one.
const FLOOD_MAX: Duration = Duration::from_secs(5);

/// The requests of many agents. They go in the order of arrival, except that writes of statuses wait for a flood of
/// grants: etcd (3.5) answers each grant with its revision, and for that copies the buffer of all keys written within
/// the last tenth of a second. Thousands of agents that come back at once would make it copy, and collect, the statuses
/// of the earlier agents for each lease.
#[derive(Debug)]
pub(super) struct Queue {
    turns: Semaphore,
    /// A separate line for writes that must not wait behind thousands.
    words: Semaphore,
    grants: Mutex<Grants>,
    over: Notify,
}

#[derive(Debug, Default)]
struct Grants {
    /// The grants waiting or under way.
    count: usize,
    /// The time until which a flood goes first. After that time it remains a flood until few grants are left, so that
    /// the next one does not begin at once.
    flood: Option<Instant>,
}

impl Queue {
    pub(super) fn new() -> Self {
        let line = || Semaphore::new(REQUESTS_MAX);
        Queue { turns: line(), words: line(), grants: Mutex::default(), over: Notify::new() }
    }

    /// Waits for a turn.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.turns.acquire().await.ok()
    }

    /// Waits for the turn of a rare urgent write: the final status of an agent that stops. (All agents may stop at
    /// once, so these writes have a bound too.)
    pub(super) async fn turn_of_word(&self) -> Option<SemaphorePermit<'_>> {
        self.words.acquire().await.ok()
    }

    /// Waits for the turn of a grant. The grant counts from now on, until the returned value is dropped.
    pub(super) async fn turn_to_grant(&self) -> (Option<SemaphorePermit<'_>>, Granting<'_>) {
        let granting = self.begin();
        (self.turn().await, granting)
    }

    /// Waits for the turn of a write that a flood of grants precedes.
    pub(super) async fn turn_after_grants(&self) -> Option<SemaphorePermit<'_>> {
        // One flood may follow another.
        let latest = Instant::now() + FLOOD_MAX;
        loop {
            // Created before the check, so that an end in between is not missed.
            let over = self.over.notified();
            let flood = self.lock().flood.map(|until| until.min(latest));
            let Some(until) = flood.filter(|until| Instant::now() < *until) else { break };
            // A flood that does not end is over when its time is.
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
        // More grants than can be under way: many came at once.
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
