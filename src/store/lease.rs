//! A lease that is kept alive, and what is known of its health.
//!
//! It never decides that a lease is lost: only the store can. An etcd that is away for longer than a TTL may well bring the
//! lease back (an election refreshes all of them); until it answers the lease is just not known to be good.

use std::sync::Mutex;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use crate::store::api::{LeaseId, Store, StoreError};
use crate::store::backoff::Backoff;

/// A lease with a task that beats for it. Dropping it stops the beating (the lease then runs out by itself).
#[derive(Debug)]
pub struct Lease {
    id: LeaseId,
    ttl: Duration,
    last_beat: Arc<Mutex<Instant>>,
    gone: watch::Receiver<bool>,
    _task: AbortOnDropHandle<()>,
}

impl Lease {
    /// Grants a lease and starts to beat every third of its TTL.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn grant(store: &Store, ttl: Duration, rng: fastrand::Rng) -> Result<Lease, StoreError> {
        let sent = Instant::now();
        let (id, granted_s) = store.grant(ttl.as_secs().max(1)).await?;
        let last_beat = Arc::new(Mutex::new(sent));
        let (gone_sender, gone) = watch::channel(false);
        // The server raises TTLs that are too small for its election time-out; what it said is what counts.
        let ttl = Duration::from_secs(granted_s.max(1));
        let beater = Beater {
            store: store.clone(),
            id,
            ttl,
            last_beat: last_beat.clone(),
            gone: gone_sender,
            backoff: Backoff::new(rng, Duration::from_millis(100), (ttl / 3).min(Duration::from_secs(2))),
        };
        Ok(Lease { id, ttl, last_beat, gone, _task: AbortOnDropHandle::new(tokio::spawn(beater.run())) })
    }

    /// Its id.
    pub fn id(&self) -> LeaseId {
        self.id
    }

    /// Its TTL as the server granted it.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Whether it is known to be alive: the last answered beat (or the grant) was *sent* less than a TTL ago, and the store
    /// has not said that it is gone.
    pub fn is_good(&self) -> bool {
        !*self.gone.borrow() && self.last_beat().elapsed() < self.ttl
    }

    /// When the last answered beat (or the grant) was sent.
    pub fn last_beat(&self) -> Instant {
        *self.last_beat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends when the store said that the lease is gone. Cancel-safe.
    pub async fn lost(&self) {
        let mut gone = self.gone.clone();
        if gone.wait_for(|gone| *gone).await.is_err() {
            // The beating task ended without a word: it cannot, except when the runtime shuts down.
            std::future::pending::<()>().await;
        }
    }

    /// Ends the lease at once; its keys go.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn revoke(self, store: &Store) -> Result<(), StoreError> {
        let id = self.id;
        drop(self);
        store.revoke(id).await
    }
}

struct Beater {
    store: Store,
    id: LeaseId,
    ttl: Duration,
    last_beat: Arc<Mutex<Instant>>,
    gone: watch::Sender<bool>,
    backoff: Backoff,
}

impl Beater {
    async fn run(mut self) {
        tokio::time::sleep(self.ttl / 3).await;
        loop {
            match self.beat_while_it_works().await {
                Ok(()) => {
                    let _ = self.gone.send(true);
                    return;
                }
                Err(error) => {
                    // While the lease may still be saved no refusal slows it down.
                    let doomed = self.last_beat.lock().unwrap_or_else(PoisonError::into_inner).elapsed() > self.ttl;
                    let delay = if doomed { self.backoff.delay_after(&error) } else { self.backoff.next_delay() };
                    if self.backoff.is_news() && self.backoff.failures() > 1 {
                        warn!(%error, "a lease's keep-alive is not answered, trying again");
                    } else {
                        debug!(%error, "a lease's keep-alive is not answered, trying again");
                    }
                    tokio::time::sleep(delay).await;
                }
            }
        }
    }

    /// `Ok` = the lease is gone.
    async fn beat_while_it_works(&mut self) -> Result<(), StoreError> {
        let mut stream = match self.store.keep_alive(self.id).await {
            Err(StoreError::NoLease) => return Ok(()),
            other => other?,
        };
        loop {
            let sent = Instant::now();
            let limit = (self.ttl / 3).max(Duration::from_millis(500));
            let answer = tokio::time::timeout(limit, stream.beat()).await;
            match answer {
                Ok(Ok(remaining)) if remaining <= 0 => return Ok(()),
                Ok(Ok(_)) => {
                    *self.last_beat.lock().unwrap_or_else(PoisonError::into_inner) = sent;
                    self.backoff.reset();
                }
                Ok(Err(StoreError::NoLease)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
                    return Err(StoreError::Timeout { milliseconds });
                }
            }
            tokio::time::sleep_until(sent + self.ttl / 3).await;
        }
    }
}
