//! Leases that the agents of one process share.
//!
//! A lease for each costs etcd a grant for each, and a keep-alive for each in every third of a TTL. But agents of one process die
//! together, so that they may stand on one lease. Where one of them goes alone, it must not be kept alive by the others: whoever
//! takes off what he put there gives his place back, and whoever does not takes the lease along. The others are told that it is lost,
//! take another one and put what is theirs on that.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::{Keeps, Lease, Overslept, State};
use crate::store::api::{Store, StoreError};

/// Places on a lease. Most of what leases cost is saved by then, and one that goes without a word makes 99 others join again.
const PLACES: usize = 100;

/// Where agents of one process get places on leases.
#[derive(Debug, Default)]
pub struct Leases {
    open: tokio::sync::Mutex<Open>,
    /// All that somebody has a place on.
    all: Mutex<Vec<Weak<Common>>>,
}

#[derive(Debug, Default)]
struct Open {
    /// The last one of each TTL that was asked for.
    leases: Vec<Arc<Common>>,
    /// The last grant that failed.
    failed: Option<(Instant, StoreError)>,
}

/// A lease with several places.
#[derive(Debug)]
struct Common {
    /// The TTL that was asked for.
    asked: Duration,
    state: Arc<State>,
    taken: Mutex<Taken>,
}

#[derive(Debug)]
struct Taken {
    places: usize,
    /// Somebody put something on it, took it off and left.
    left: bool,
    /// Who beats for it; `None` = it has ended, or is left to its end.
    beats: Option<Lease>,
}

impl Leases {
    /// A place on a lease that was granted for this TTL: one that is good and has room, or a new one.
    ///
    /// # Errors
    /// See [`StoreError`]. Whoever waited for a grant that failed is told of that failure.
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
        // Thousands may have waited: each would wait for a time-out of its own.
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

    /// The store stepped back: what those who left took off their leases may be on them again, and nobody else would take it off. Such a
    /// lease is left to its end. (Whose own past is over finds that himself; those who left do not.)
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
    /// One more place, if there is room.
    fn place(self: &Arc<Self>) -> Option<Lease> {
        let mut taken = lock(&self.taken);
        let is_open = taken.places < PLACES && taken.beats.as_ref().is_some_and(Lease::is_good);
        is_open.then(|| {
            taken.places += 1;
            Lease { state: self.state.clone(), keeps: Keeps::Shared(Place::on(self.clone())) }
        })
    }

    /// One place less. Whether that was the last one.
    fn give_back(&self, used: bool) -> bool {
        let mut taken = lock(&self.taken);
        taken.places -= 1;
        taken.left |= used;
        let last = taken.places == 0;
        taken.beats.take_if(|_| last);
        last
    }

    /// Leaves it to its end, and tells everybody.
    fn give_up(&self) {
        let _ended = lock(&self.taken).beats.take();
        if !self.state.is_lost() {
            info!(
                lease = self.state.id.0,
                "keys may be on a shared lease whose owner left: the lease is left to its end, those who share it take another"
            );
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

/// What is known of what its holder put on a lease.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Put {
    /// Something may have been.
    pub used: bool,
    /// Something may still be: a write that was not answered may arrive late, when the holder is gone and nothing is there that it
    /// would lose a compare to.
    pub unsettled: bool,
}

impl Put {
    /// It was not answered.
    pub(super) const UNKNOWN: Put = Put { used: true, unsettled: true };

    /// After another one.
    pub(super) fn and(self, next: Put) -> Put {
        Put { used: self.used || next.used, unsettled: self.unsettled || next.unsettled }
    }
}

impl Place {
    fn on(common: Arc<Common>) -> Place {
        Place { common, put: Mutex::default(), given_back: AtomicBool::new(false) }
    }

    /// What it was before.
    pub(super) fn set(&self, put: Put) -> Put {
        std::mem::replace(&mut *lock(&self.put), put)
    }

    /// Nothing is on it any more. Whether it was the last place of a lease that then may end.
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
            // As the last one it is nobody's: it runs out by itself.
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
    /// Longer than a TTL and the store's look for what ran out.
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
    async fn a_hundred_share_a_lease_and_the_next_one_gets_another() {
        let (store, leases) = (MemoryEtcd::new().store(), Leases::default());
        let shared = places(&leases, &store, 2 * PLACES + 1).await;
        let mut ids: Vec<_> = shared.iter().map(|lease| lease.id().0).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 3);
        assert_ne!(place(&leases, &store, TTL * 2).await.unwrap().id(), shared[2 * PLACES].id(), "another TTL is another lease");
        sleep(OVER).await;
        assert!(shared.iter().all(Lease::is_good), "they are kept alive");
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_is_given_back_leaves_the_lease_to_the_others() {
        let (store, leases) = (MemoryEtcd::new().store(), Leases::default());
        let [a, b] = places(&leases, &store, 2).await.try_into().unwrap();
        put_on(&a, &store, "/a").await;
        put_on(&b, &store, "/b").await;
        store.txn(put("/a", LeaseId::NONE)).await.unwrap();
        a.give_back(&store).await.unwrap();
        drop(a);
        sleep(OVER).await;
        assert!(b.is_good() && stands(&store, "/b").await);
        // The last one ends it, and its keys go at once.
        b.give_back(&store).await.unwrap();
        assert!(!stands(&store, "/b").await && stands(&store, "/a").await);
        let next = place(&leases, &store, TTL).await.unwrap();
        assert_ne!(next.id(), b.id());
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_without_taking_its_keys_off_takes_the_lease_along_and_the_others_are_told() {
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
    async fn a_place_that_was_never_used_disturbs_nobody_when_it_goes() {
        let (store, leases) = (MemoryEtcd::new().store(), Leases::default());
        let [a, b] = places(&leases, &store, 2).await.try_into().unwrap();
        drop(a);
        sleep(OVER).await;
        assert!(b.is_good());
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_whose_first_put_surely_failed_disturbs_nobody_and_one_of_which_it_is_not_known_does() {
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
    async fn a_place_on_which_something_may_still_arrive_is_not_left_to_the_others() {
        let faults = Faults::new(1, FaultPlan::default());
        let client = faults.client(MemoryEtcd::new().store());
        let (store, leases) = (client.store(), Leases::default());
        let [a, b] = places(&leases, &store, 2).await.try_into().unwrap();
        put_on(&b, &store, "/b").await;
        client.cut_answers();
        assert!(a.enter(&store, put("/a", a.id())).await.is_err());
        client.heal();
        // It is written once more, and that is taken off. What was sent first may come after that.
        put_on(&a, &store, "/a").await;
        store.txn(put("/a", LeaseId::NONE)).await.unwrap();
        a.give_back(&store).await.unwrap();
        assert!(!b.is_good() && stands(&store, "/b").await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_stepped_back_ends_a_lease_that_somebody_left() {
        let (store, leases) = (MemoryEtcd::new().store(), Leases::default());
        let [a, b, c] = places(&leases, &store, 3).await.try_into().unwrap();
        // Who leaves without having put anything leaves nothing that could come back.
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
    async fn a_lease_that_the_store_lost_is_handed_out_no_more() {
        let (store, leases) = (MemoryEtcd::new().store(), Leases::default());
        let [a, b] = places(&leases, &store, 2).await.try_into().unwrap();
        store.revoke(a.id()).await.unwrap();
        timeout(TTL, futures::future::join(a.lost(), b.lost())).await.unwrap();
        let next = place(&leases, &store, TTL).await.unwrap();
        assert!(next.is_good() && next.id() != a.id());
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_waited_for_a_grant_that_failed_are_told_at_once() {
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
