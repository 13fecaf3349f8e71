//! Leases that the agents of one process share.
//!
//! Separate leases cost etcd a grant for each agent, and a keep-alive for each in every third of a TTL. The agents of one
//! process die together, so they may share a lease. If a single agent stops, the others must not keep its keys alive:
//! an agent that removes its keys frees its place, and one that cannot invalidates the whole lease. The other agents
//! then see the lease as lost, take another one and put their keys on that.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::{Keeps, Lease, Overslept, State};
use crate::store::api::{Store, StoreError};

/// Places on a lease. This many save most of the cost of leases, and an agent that dies alone makes 99 others rejoin.
const PLACES: usize = 100;

/// Gives the agents of one process places on leases.
#[derive(Debug, Default)]
pub struct Leases {
    open: tokio::sync::Mutex<Open>,
    /// All leases with at least one holder.
    all: Mutex<Vec<Weak<Common>>>,
}

#[derive(Debug, Default)]
struct Open {
    /// The last lease for each requested TTL.
    leases: Vec<Arc<Common>>,
    /// The last grant that failed.
    failed: Option<(Instant, StoreError)>,
}

/// A lease with several places.
#[derive(Debug)]
struct Common {
    /// The requested TTL.
    asked: Duration,
    state: Arc<State>,
    taken: Mutex<Taken>,
}

#[derive(Debug)]
struct Taken {
    places: usize,
    /// A holder put a key on the lease, removed it and left.
    left: bool,
    /// Keeps the lease alive; `None` = it has ended, or is left to run out.
    beats: Option<Lease>,
}

impl Leases {
    /// A place on a lease for this TTL: on a good one with room, or on a new one.
    ///
    /// # Errors
    /// See [`StoreError`]. A caller that waited for a failed grant gets the error of that grant.
    pub async fn place(
        &self,
        store: &Store,
        ttl: Duration,
        overslept: Overslept,
        rng: fastrand::Rng,
    ) -> Result<Lease, StoreError> {
        let asked_at = Instant::now();
        let mut open = self.open.lock().await;
        if let Some(place) = open.leases.iter().find(|common| common.asked == ttl).and_then(Common::place) {
            return Ok(place);
        }
        // Thousands may have waited: without this, each would wait for its own time-out.
        if let Some((at, error)) = &open.failed
            && *at > asked_at
        {
            return Err(error.clone());
        }
        let lease = match Lease::grant_common(store, ttl, overslept, rng).await {
            Ok(lease) => lease,
            Err(error) => {
                open.failed = Some((Instant::now(), error.clone()));
                return Err(error);
            }
        };
        let state = lease.state.clone();
        let common =
            Arc::new(Common { asked: ttl, state, taken: Mutex::new(Taken { places: 1, left: false, beats: Some(lease) }) });
        open.leases.retain(|other| other.asked != ttl);
        open.leases.push(common.clone());
        let mut all = lock(&self.all);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&common));
        drop(all);
        Ok(Lease { state: common.state.clone(), keeps: Keeps::Shared(Place::on(common)) })
    }

    /// Handles a store that stepped back: keys that former holders removed may be on their leases again, and no agent
    /// would remove them. Such a lease is left to run out. (A present holder notices the step back by itself; a former
    /// one does not.)
    pub fn store_stepped_back(&self) {
        let all: Vec<_> = lock(&self.all).iter().filter_map(Weak::upgrade).collect();
        for common in all {
            let left = lock(&common.taken).left;
            if left {
                common.give_up();
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Common {
    /// Takes one more place, if there is room.
    fn place(self: &Arc<Self>) -> Option<Lease> {
        let mut taken = lock(&self.taken);
        let is_open = taken.places < PLACES && taken.beats.as_ref().is_some_and(Lease::is_good);
        is_open.then(|| {
            taken.places += 1;
            Lease { state: self.state.clone(), keeps: Keeps::Shared(Place::on(self.clone())) }
        })
    }

    /// Frees a place. Returns whether it was the last one.
    fn give_back(&self, used: bool) -> bool {
        let mut taken = lock(&self.taken);
        taken.places -= 1;
        taken.left |= used;
        let last = taken.places == 0;
        taken.beats.take_if(|_| last);
        last
    }

    /// Leaves the lease to run out, and reports the loss to every holder.
    fn give_up(&self) {
        let _ended = lock(&self.taken).beats.take();
        if !self.state.is_lost() {
            info!(lease = self.state.id.0, "abandoning a shared lease that may still carry a departed agent's keys");
            self.state.leave_to_its_end();
        }
    }
}

/// A place on a lease.
#[derive(Debug)]
pub(super) struct Place {
    common: Arc<Common>,
    put: Mutex<Put>,
    given_back: AtomicBool,
}

/// The known effects of a holder's puts on a lease.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Put {
    /// A key of the holder may be on the lease.
    pub used: bool,
    /// A key may still be put on it: a write without an answer may arrive late, when the holder is gone and no key
    /// exists that would fail its compare.
    pub unsettled: bool,
}

impl Put {
    /// The write was not answered.
    pub(super) const UNKNOWN: Put = Put { used: true, unsettled: true };

    /// Adds the state of a later put.
    pub(super) fn and(self, next: Put) -> Put {
        Put { used: self.used || next.used, unsettled: self.unsettled || next.unsettled }
    }
}

impl Place {
    fn on(common: Arc<Common>) -> Place {
        Place { common, put: Mutex::default(), given_back: AtomicBool::new(false) }
    }

    /// Sets the state and returns the former one.
    pub(super) fn set(&self, put: Put) -> Put {
        std::mem::replace(&mut *lock(&self.put), put)
    }

    /// Gives the place back when no key of its holder is left. Returns whether the lease may end because this was its
    /// last place.
    pub(super) fn give_back(&self) -> bool {
        if self.given_back.swap(true, Relaxed) {
            return false;
        }
        let put = *lock(&self.put);
        if put.unsettled {
            self.common.give_up();
        }
        !put.unsettled && self.common.give_back(put.used)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let is_used = lock(&self.put).used;
        if is_used && !self.given_back.load(Relaxed) {
            self.common.give_up();
        } else {
            // A lease without a holder runs out by itself.
            self.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use futures::future::join_all;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::model::names::Revision;
    use crate::store::api::{Compare, LeaseId, Op, Txn};
    use crate::store::memory::MemoryEtcd;
    use crate::store::memory::faults::{FaultPlan, Faults};

    const TTL: Duration = Duration::from_secs(15);
    /// Longer than a TTL and the interval at which the store looks for expired leases.
    const OVER: Duration = Duration::from_secs(30);

    async fn place(leases: &Leases, store: &Store, ttl: Duration) -> Result<Lease, StoreError> {
        leases.place(store, ttl, Overslept::GivenUp, fastrand::Rng::with_seed(1)).await
    }

    async fn places(leases: &Leases, store: &Store, count: usize) -> Vec<Lease> {
        join_all((0..count).map(|_| place(leases, store, TTL))).await.into_iter().map(Result::unwrap).collect()
    }

    fn put(key: &str, lease: LeaseId) -> Txn {
        Txn { then: vec![Op::Put { key: key.into(), value: "v".into(), lease }], ..Txn::default() }
    }

    async fn put_on(lease: &Lease, store: &Store, key: &str) {
        assert!(lease.enter(store, put(key, lease.id())).await.unwrap().succeeded);
    }

    async fn stands(store: &Store, key: &str) -> bool {
        store.get(key).await.unwrap().1.is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn hundred_places_share_a_lease_and_the_next_gets_another() {
        let (store, leases) = (MemoryEtcd::new().store(), Leases::default());
        let shared = places(&leases, &store, 2 * PLACES + 1).await;
        let mut ids: Vec<_> = shared.iter().map(|lease| lease.id().0).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 3);
        assert_ne!(place(&leases, &store, TTL * 2).await.unwrap().id(), shared[2 * PLACES].id(), "another TTL is another lease");
        sleep(OVER).await;
        assert!(shared.iter().all(Lease::is_good), "the leases are kept alive");
    }

    #[tokio::test(start_paused = true)]
    async fn returned_place_leaves_the_lease_to_the_others() {
        let (store, leases) = (MemoryEtcd::new().store(), Leases::default());
        let [a, b] = places(&leases, &store, 2).await.try_into().unwrap();
        put_on(&a, &store, "/a").await;
        put_on(&b, &store, "/b").await;
        store.txn(put("/a", LeaseId::NONE)).await.unwrap();
        a.give_back(&store).await.unwrap();
        drop(a);
        sleep(OVER).await;
        assert!(b.is_good() && stands(&store, "/b").await);
        // The last place ends the lease, and its keys go at once.
        b.give_back(&store).await.unwrap();
        assert!(!stands(&store, "/b").await && stands(&store, "/a").await);
        let next = place(&leases, &store, TTL).await.unwrap();
        assert_ne!(next.id(), b.id());
    }

    #[tokio::test(start_paused = true)]
    async fn holder_that_leaves_its_keys_invalidates_the_lease() {
        let (store, leases) = (MemoryEtcd::new().store(), Leases::default());
        let [a, b] = places(&leases, &store, 2).await.try_into().unwrap();
        put_on(&a, &store, "/a").await;
        put_on(&b, &store, "/b").await;
        drop(a);
        timeout(Duration::from_millis(10), b.lost()).await.unwrap();
        assert!(!b.is_good());
        let again = place(&leases, &store, TTL).await.unwrap();
        put_on(&again, &store, "/b").await;
        drop(b);
        sleep(OVER).await;
        assert!(again.is_good() && stands(&store, "/b").await && !stands(&store, "/a").await);
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_unused_place_keeps_the_lease_good() {
        let (store, leases) = (MemoryEtcd::new().store(), Leases::default());
        let [a, b] = places(&leases, &store, 2).await.try_into().unwrap();
        drop(a);
        sleep(OVER).await;
        assert!(b.is_good());
    }

    #[tokio::test(start_paused = true)]
    async fn failed_put_keeps_the_lease_and_unknown_put_ends_it() {
        let faults = Faults::new(1, FaultPlan::default());
        let client = faults.client(MemoryEtcd::new().store());
        let (store, leases) = (client.store(), Leases::default());
        let [a, b, c] = places(&leases, &store, 3).await.try_into().unwrap();
        put_on(&b, &store, "/x").await;
        let taken = Txn { compares: vec![Compare::Modified("/x".into(), Revision::NONE)], ..put("/x", a.id()) };
        assert!(!a.enter(&store, taken).await.unwrap().succeeded);
        assert_eq!(a.enter(&store, put("/y", LeaseId(99))).await, Err(StoreError::NoLease));
        drop(a);
        sleep(OVER).await;
        assert!(b.is_good());
        client.cut_answers();
        assert!(c.enter(&store, put("/z", c.id())).await.is_err());
        drop(c);
        assert!(!b.is_good());
    }

    #[tokio::test(start_paused = true)]
    async fn returned_place_with_a_late_write_ends_the_lease() {
        let faults = Faults::new(1, FaultPlan::default());
        let client = faults.client(MemoryEtcd::new().store());
        let (store, leases) = (client.store(), Leases::default());
        let [a, b] = places(&leases, &store, 2).await.try_into().unwrap();
        put_on(&b, &store, "/b").await;
        client.cut_answers();
        assert!(a.enter(&store, put("/a", a.id())).await.is_err());
        client.heal();
        // The key is written again and then removed. The first write may arrive after that.
        put_on(&a, &store, "/a").await;
        store.txn(put("/a", LeaseId::NONE)).await.unwrap();
        a.give_back(&store).await.unwrap();
        assert!(!b.is_good() && stands(&store, "/b").await);
    }

    #[tokio::test(start_paused = true)]
    async fn step_back_ends_a_lease_that_a_holder_left() {
        let (store, leases) = (MemoryEtcd::new().store(), Leases::default());
        let [a, b, c] = places(&leases, &store, 3).await.try_into().unwrap();
        // A holder that put no key leaves none that could come back.
        a.give_back(&store).await.unwrap();
        leases.store_stepped_back();
        assert!(b.is_good());
        put_on(&c, &store, "/c").await;
        c.give_back(&store).await.unwrap();
        assert!(b.is_good());
        leases.store_stepped_back();
        assert!(!b.is_good());
    }

    #[tokio::test(start_paused = true)]
    async fn lost_lease_gives_no_more_places() {
        let (store, leases) = (MemoryEtcd::new().store(), Leases::default());
        let [a, b] = places(&leases, &store, 2).await.try_into().unwrap();
        store.revoke(a.id()).await.unwrap();
        timeout(TTL, futures::future::join(a.lost(), b.lost())).await.unwrap();
        let next = place(&leases, &store, TTL).await.unwrap();
        assert!(next.is_good() && next.id() != a.id());
    }

    #[tokio::test(start_paused = true)]
    async fn failed_grant_fails_all_waiting_callers_at_once() {
        let faults = Faults::new(1, FaultPlan::default());
        let client = faults.client(MemoryEtcd::new().store());
        let (store, leases) = (client.store(), Leases::default());
        client.cut();
        let began = Instant::now();
        let answers = join_all((0..50).map(|_| place(&leases, &store, TTL))).await;
        assert!(answers.iter().all(Result::is_err));
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        client.heal();
        assert!(place(&leases, &store, TTL).await.unwrap().is_good());
    }
}
