//! A lease that is kept alive, and what is known of its health.
//!
//! It never decides that a lease is lost because the store is silent: an etcd that is away for longer than a TTL may well bring
//! the lease back (an election refreshes all of them), and until it answers the lease is just not known to be good. Only where the
//! process itself stood still until the lease was past its end, and its holder asked for that, it is given up without a question.

mod shared;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, debug, info, warn};

use crate::store::api::{LeaseId, Store, StoreError, Txn, TxnResponse};
use crate::store::backoff::Backoff;
use crate::store::outage::Outage;

pub use self::shared::Leases;
use self::shared::{Place, Put};

/// What becomes of a lease when its process stood still until the lease was past its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overslept {
    /// The store is asked for it, and may have it still.
    Asked,
    /// It is given up at once. For whoever takes a new lease then, with a write that compares what became of what was on this one:
    /// of thousands in one process each would otherwise send a beat at the worst moment, to hear what they can know. A lease that the
    /// store has still (it stood still as well) runs out by itself.
    GivenUp,
}

/// A lease that a task beats for, one's own or a place on one that is shared ([`Leases`]).
///
/// Dropping one's own stops the beating: it then runs out by itself. So does one that is shared when somebody drops his place who may
/// have left something on it, and those who share it are told that it is lost: see [`Lease::give_back`].
#[derive(Debug)]
pub struct Lease {
    state: Arc<State>,
    keeps: Keeps,
}

/// What is known of a lease.
#[derive(Debug)]
struct State {
    id: LeaseId,
    ttl: Duration,
    last_beat: Mutex<Instant>,
    lost: CancellationToken,
    /// It was lost by being left to its end.
    lives_on: AtomicBool,
}

#[derive(Debug)]
enum Keeps {
    Alone { _task: AbortOnDropHandle<()> },
    Shared(Place),
}

impl State {
    fn last_beat(&self) -> Instant {
        *self.last_beat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Nobody beats for it any more, and until it runs out its keys stand.
    fn leave_to_its_end(&self) {
        // Before it is told: whoever hears of the loss looks.
        self.lives_on.store(true, Relaxed);
        self.lost.cancel();
    }
}

impl Lease {
    /// Grants a lease and starts to beat every third of its TTL.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn grant(store: &Store, ttl: Duration, overslept: Overslept, rng: fastrand::Rng) -> Result<Lease, StoreError> {
        let (beater, lease) = Lease::granted(store, ttl, overslept, rng).await?;
        Ok(lease.kept(tokio::spawn(beater.run().in_current_span())))
    }

    /// The same for a lease of many holders: what its beats meet is said of none of them.
    async fn grant_common(store: &Store, ttl: Duration, overslept: Overslept, rng: fastrand::Rng) -> Result<Lease, StoreError> {
        let (beater, lease) = Lease::granted(store, ttl, overslept, rng).await?;
        Ok(lease.kept(tokio::spawn(beater.run())))
    }

    async fn granted(
        store: &Store,
        ttl: Duration,
        overslept: Overslept,
        rng: fastrand::Rng,
    ) -> Result<(Beater, Granted), StoreError> {
        let sent = Instant::now();
        let (id, granted_s) = store.grant(ttl.as_secs().max(1)).await?;
        // The server raises TTLs that are too small for its election time-out; what it said is what counts.
        let ttl = Duration::from_secs(granted_s.max(1));
        let state = Arc::new(State {
            id,
            ttl,
            last_beat: Mutex::new(sent),
            lost: CancellationToken::new(),
            lives_on: AtomicBool::new(false),
        });
        let beater = Beater {
            store: store.clone(),
            state: state.clone(),
            overslept,
            _told: state.lost.clone().drop_guard(),
            backoff: Backoff::new(rng, Duration::from_millis(100), (ttl / 3).min(Duration::from_secs(2))),
            outage: Outage::default(),
        };
        Ok((beater, Granted(state)))
    }

    /// Its id.
    pub fn id(&self) -> LeaseId {
        self.state.id
    }

    /// Runs a transaction that is the first to put something of its holder's on it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn enter(&self, store: &Store, txn: Txn) -> Result<TxnResponse, StoreError> {
        let Keeps::Shared(place) = &self.keeps else { return store.txn(txn).await };
        // Before it is sent: whoever is dropped meanwhile may have written.
        let before = place.set(Put::UNKNOWN);
        let answer = store.txn(txn).await;
        let put = match &answer {
            Ok(response) => Put { used: response.succeeded, unsettled: false },
            Err(error) if error.is_unknown_outcome() => Put::UNKNOWN,
            Err(_) => Put::default(),
        };
        place.set(before.and(put));
        answer
    }

    /// Its TTL as the server granted it.
    pub fn ttl(&self) -> Duration {
        self.state.ttl
    }

    /// Whether it is known to be alive: the last answered beat (or the grant) was *sent* less than a TTL ago, and it is
    /// not lost.
    pub fn is_good(&self) -> bool {
        !self.state.is_lost() && self.last_beat().elapsed() < self.ttl()
    }

    /// When the last answered beat (or the grant) was sent.
    pub fn last_beat(&self) -> Instant {
        self.state.last_beat()
    }

    /// Ends when the store said that the lease is gone, or when it is given up ([`Overslept::GivenUp`], or by one who shares it).
    /// Cancel-safe.
    pub async fn lost(&self) {
        self.state.lost.cancelled().await;
    }

    /// Whether what is lost still stands in the store, as far as this process can know: one who shares the lease left it to its end.
    pub fn lives_on(&self) -> bool {
        self.state.lives_on.load(Relaxed)
    }

    /// The store said that it does not know it.
    pub fn note_gone(&self) {
        self.state.lost.cancel();
    }

    /// Ends the lease at once; its keys go.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn revoke(self, store: &Store) -> Result<(), StoreError> {
        let id = self.id();
        drop(self);
        store.revoke(id).await
    }

    /// Gives it back: nothing of its holder's is on it any more. One's own ends at once, one that is shared when its last place is given
    /// back, but for one that is left to its end: what somebody left on it has its time. One on which something may still
    /// be put, late, is left to its end now.
    ///
    /// # Errors
    /// See [`StoreError`]. It then runs out by itself.
    pub async fn give_back(&self, store: &Store) -> Result<(), StoreError> {
        match &self.keeps {
            Keeps::Shared(place) if !place.give_back() || self.lives_on() => Ok(()),
            _ => store.revoke(self.id()).await,
        }
    }
}

/// A lease that nobody beats for yet.
struct Granted(Arc<State>);

impl Granted {
    fn kept(self, beater: tokio::task::JoinHandle<()>) -> Lease {
        Lease { state: self.0, keeps: Keeps::Alone { _task: AbortOnDropHandle::new(beater) } }
    }
}

struct Beater {
    store: Store,
    state: Arc<State>,
    overslept: Overslept,
    backoff: Backoff,
    outage: Outage,
    /// Also if the task ends with its runtime, or by a panic: nobody beats any more.
    _told: DropGuard,
}

/// There is no lease to beat for any more.
struct Lost;

impl Beater {
    async fn run(mut self) {
        // Its end tells.
        let Lost = self.beat().await;
    }

    async fn beat(&mut self) -> Lost {
        if let Err(lost) = self.sleep_until(Instant::now() + self.state.ttl / 3).await {
            return lost;
        }
        loop {
            let error = match self.beat_while_it_works().await {
                Ok(lost) => return lost,
                Err(error) => error,
            };
            // While the lease may still be saved no refusal slows it down.
            let delay = if self.is_doomed() { self.backoff.delay_after(&error) } else { self.backoff.next_delay() };
            if self.outage.is_due(Instant::now()) {
                warn!(%error, "the keep-alive of a lease is not answered; retrying");
            } else {
                debug!(%error, "the keep-alive of a lease is not answered; retrying");
            }
            tokio::time::sleep(delay).await;
        }
    }

    async fn beat_while_it_works(&mut self) -> Result<Lost, StoreError> {
        let mut stream = match self.store.keep_alive(self.state.id).await {
            Err(StoreError::NoLease) => return Ok(Lost),
            other => other?,
        };
        loop {
            let sent = Instant::now();
            let limit = (self.state.ttl / 3).max(Duration::from_millis(500));
            let answer = tokio::time::timeout(limit, stream.beat()).await;
            match answer {
                Ok(Ok(remaining)) if remaining <= 0 => return Ok(Lost),
                Ok(Ok(_)) => {
                    *self.state.last_beat.lock().unwrap_or_else(PoisonError::into_inner) = sent;
                    self.backoff.reset();
                    if let Some(lasted) = self.outage.over(Instant::now()) {
                        info!(elapsed_s = lasted.as_secs(), "the keep-alive of a lease is answered again");
                    }
                }
                Ok(Err(StoreError::NoLease)) => return Ok(Lost),
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
                    return Err(StoreError::Timeout { milliseconds });
                }
            }
            if let Err(lost) = self.sleep_until(sent + self.state.ttl / 3).await {
                return Ok(lost);
            }
        }
    }

    /// Sleeps until the next beat is due, a third of the TTL after the one before.
    async fn sleep_until(&self, due: Instant) -> Result<(), Lost> {
        tokio::time::sleep_until(due).await;
        // By the other two thirds it overslept: the process stood still, and its lease is past its end.
        let late = due.elapsed();
        if late <= self.state.ttl * 2 / 3 || self.overslept == Overslept::Asked {
            return Ok(());
        }
        debug!(elapsed_ms = u64::try_from(late.as_millis()).unwrap_or(u64::MAX), "a beat was overslept: the lease is given up");
        Err(Lost)
    }

    /// Whether the lease is gone by now, as far as this process can know without the store.
    fn is_doomed(&self) -> bool {
        self.state.last_beat().elapsed() > self.state.ttl
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use futures::FutureExt;
    use futures::future::BoxFuture;
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::store::api::KeepAlive;
    use crate::store::around::Around;
    use crate::store::memory::MemoryEtcd;

    /// Counts beats.
    #[derive(Debug)]
    struct Counting {
        inner: Store,
        beats: Arc<AtomicUsize>,
    }

    struct CountedBeats {
        inner: Box<dyn KeepAlive>,
        beats: Arc<AtomicUsize>,
    }

    impl Around for Counting {
        fn inner(&self) -> &Store {
            &self.inner
        }

        fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Box<dyn KeepAlive>, StoreError>> {
            async move {
                let (inner, beats) = (self.inner.keep_alive(lease).await?, self.beats.clone());
                Ok(Box::new(CountedBeats { inner, beats }) as Box<dyn KeepAlive>)
            }
            .boxed()
        }
    }

    impl KeepAlive for CountedBeats {
        fn beat(&mut self) -> BoxFuture<'_, Result<i64, StoreError>> {
            self.beats.fetch_add(1, Relaxed);
            self.inner.beat()
        }
    }

    const TTL: Duration = Duration::from_secs(15);

    fn counting() -> (Store, Arc<AtomicUsize>) {
        let beats = Arc::new(AtomicUsize::new(0));
        (Store::new(Arc::new(Counting { inner: MemoryEtcd::new().store(), beats: beats.clone() })), beats)
    }

    /// A lease that has been kept for half a minute, and the number of its beats.
    async fn kept(overslept: Overslept) -> (Lease, Arc<AtomicUsize>) {
        let (store, beats) = counting();
        let lease = Lease::grant(&store, TTL, overslept, fastrand::Rng::with_seed(1)).await.unwrap();
        sleep(Duration::from_secs(31)).await;
        assert_eq!(beats.swap(0, Relaxed), 6, "one in five seconds");
        assert!(lease.is_good());
        (lease, beats)
    }

    /// It is lost within a moment. Answers how many beats that took.
    async fn beats_until_lost(lease: &Lease, beats: &AtomicUsize) -> usize {
        tokio::time::timeout(Duration::from_millis(10), lease.lost()).await.unwrap();
        assert!(!lease.is_good());
        beats.load(Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_stood_still_gives_its_lease_up() {
        let (lease, beats) = kept(Overslept::GivenUp).await;
        // All at once, as for a process that is stopped and goes on: eleven seconds after the beat was due, sixteen after the last one.
        advance(Duration::from_secs(15)).await;
        assert_eq!(beats_until_lost(&lease, &beats).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_to_be_asked_for_is_asked_for_at_once() {
        let (lease, beats) = kept(Overslept::Asked).await;
        advance(Duration::from_secs(60)).await;
        assert_eq!(beats_until_lost(&lease, &beats).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_beat_that_is_only_late_is_sent() {
        let (lease, beats) = kept(Overslept::GivenUp).await;
        // Nine seconds after it was due: the lease has one left.
        advance(Duration::from_secs(13)).await;
        sleep(Duration::from_millis(10)).await;
        assert_eq!(beats.load(Relaxed), 1);
        assert!(lease.is_good());
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_beat_may_be_overslept_as_well() {
        let (store, beats) = counting();
        let lease = Lease::grant(&store, TTL, Overslept::GivenUp, fastrand::Rng::with_seed(1)).await.unwrap();
        // Its task begins.
        sleep(Duration::from_millis(1)).await;
        advance(Duration::from_secs(60)).await;
        assert_eq!(beats_until_lost(&lease, &beats).await, 0);
    }
}
