//! A lease that a task keeps alive, and its known health.
//!
//! A silent store never means that the lease is lost: an etcd that is away for longer than a TTL may well bring the
//! lease back (an election refreshes all of them), and until etcd answers the lease is only not known to be good. The
//! one exception is a process that stood still until the lease was past its end: if the holder asked for that
//! ([`Overslept::GivenUp`]), the lease is given up without a question.

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

/// The action when the process stood still until the lease was past its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overslept {
    /// Asks the store for the lease, which may still exist.
    Asked,
    /// Gives the lease up at once. This is for a holder that then takes a new lease with a write that compares the keys
    /// of this one: with thousands of leases in one process, each would otherwise send a beat at the worst moment for a
    /// predictable answer. A lease that still exists (the store stood still as well) runs out by itself.
    GivenUp,
}

/// A lease that a task keeps alive: an unshared one, or a place on a shared one ([`Leases`]).
///
/// Dropping an unshared lease stops its beats, and it then runs out by itself. A shared lease runs out too when a holder
/// that may have left a key on it drops its place, and the other holders see it as lost: see [`Lease::give_back`].
#[derive(Debug)]
pub struct Lease {
    state: Arc<State>,
    keeps: Keeps,
}

/// The known state of a lease.
#[derive(Debug)]
struct State {
    id: LeaseId,
    ttl: Duration,
    last_beat: Mutex<Instant>,
    lost: CancellationToken,
    /// The lease was lost because its beats ended; its keys live until it runs out.
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

    /// Ends the beats: the keys stay until the lease runs out.
    fn leave_to_its_end(&self) {
        // Set before the cancellation, because a task that wakes from it reads this flag.
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
        // The server raises TTLs that are too small for its election time-out; only the granted TTL counts.
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

    /// The id of the lease.
    pub fn id(&self) -> LeaseId {
        self.state.id
    }

    /// Runs the first transaction of the holder that puts a key on the lease.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn enter(&self, store: &Store, txn: Txn) -> Result<TxnResponse, StoreError> {
        let Keeps::Shared(place) = &self.keeps else { return store.txn(txn).await };
        // Set before the request: a caller that is dropped meanwhile may have written.
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

    /// The TTL as the server granted it.
    pub fn ttl(&self) -> Duration {
        self.state.ttl
    }

    /// Whether the lease is known to be alive: the last answered beat (or the grant) was *sent* less than a TTL ago,
    /// and the lease is not lost.
    pub fn is_good(&self) -> bool {
        !self.state.is_lost() && self.last_beat().elapsed() < self.ttl()
    }

    /// The time at which the last answered beat (or the grant) was sent.
    pub fn last_beat(&self) -> Instant {
        self.state.last_beat()
    }

    /// Completes when the store reports that the lease is gone, or when it is given up ([`Overslept::GivenUp`], or by
    /// another holder of a shared lease). Cancel-safe.
    pub async fn lost(&self) {
        self.state.lost.cancelled().await;
    }

    /// Whether a lost lease still exists in the store, as far as this process can know: another holder left it to run
    /// out.
    pub fn lives_on(&self) -> bool {
        self.state.lives_on.load(Relaxed)
    }

    /// Notes the answer of the store that it does not know the lease.
    pub fn note_gone(&self) {
        self.state.lost.cancel();
    }

    /// Ends the lease at once and deletes its keys.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn revoke(self, store: &Store) -> Result<(), StoreError> {
        let id = self.id();
        drop(self);
        store.revoke(id).await
    }

    /// Gives the lease back when no key of its holder is left on it. An unshared lease ends at once, a shared one with
    /// its last place. A shared lease runs out instead if it was left to do so, because the keys of another holder keep
    /// their time, or if a late write of this holder may still put a key on it.
    ///
    /// # Errors
    /// See [`StoreError`]. The lease then runs out by itself.
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

/// The lease is gone, so there is nothing to keep alive.
struct Lost;

impl Beater {
    async fn run(mut self) {
        // The drop guard reports the loss when this ends.
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
            // No refusal slows the beats down while they may still save the lease.
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
        // Woken later than two thirds of the TTL after a beat was due, the process stood still and the lease is past
        // its end.
        let late = due.elapsed();
        if late <= self.state.ttl * 2 / 3 || self.overslept == Overslept::Asked {
            return Ok(());
        }
        debug!(
            elapsed_ms = u64::try_from(late.as_millis()).unwrap_or(u64::MAX),
            "process stood still past the end of a lease; giving the lease up"
        );
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

    /// A lease after half a minute of beats, and their counter.
    async fn kept(overslept: Overslept) -> (Lease, Arc<AtomicUsize>) {
        let (store, beats) = counting();
        let lease = Lease::grant(&store, TTL, overslept, fastrand::Rng::with_seed(1)).await.unwrap();
        sleep(Duration::from_secs(31)).await;
        assert_eq!(beats.swap(0, Relaxed), 6, "one beat in five seconds");
        assert!(lease.is_good());
        (lease, beats)
    }

    /// Waits until the lease is lost, which takes a moment. Returns the number of beats until then.
    async fn beats_until_lost(lease: &Lease, beats: &AtomicUsize) -> usize {
        tokio::time::timeout(Duration::from_millis(10), lease.lost()).await.unwrap();
        assert!(!lease.is_good());
        beats.load(Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_process_gives_its_lease_up() {
        let (lease, beats) = kept(Overslept::GivenUp).await;
        // The time passes at once, as for a stopped process that resumes: eleven seconds after the beat was due,
        // sixteen after the last one.
        advance(Duration::from_secs(15)).await;
        assert_eq!(beats_until_lost(&lease, &beats).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_process_asks_for_its_lease_at_once() {
        let (lease, beats) = kept(Overslept::Asked).await;
        advance(Duration::from_secs(60)).await;
        assert_eq!(beats_until_lost(&lease, &beats).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn late_beat_is_still_sent() {
        let (lease, beats) = kept(Overslept::GivenUp).await;
        // Nine seconds after the beat was due: the lease has one second left.
        advance(Duration::from_secs(13)).await;
        sleep(Duration::from_millis(10)).await;
        assert_eq!(beats.load(Relaxed), 1);
        assert!(lease.is_good());
    }

    #[tokio::test(start_paused = true)]
    async fn stall_before_the_first_beat_counts_too() {
        let (store, beats) = counting();
        let lease = Lease::grant(&store, TTL, Overslept::GivenUp, fastrand::Rng::with_seed(1)).await.unwrap();
        // The task begins.
        sleep(Duration::from_millis(1)).await;
        advance(Duration::from_secs(60)).await;
        assert_eq!(beats_until_lost(&lease, &beats).await, 0);
    }
}
