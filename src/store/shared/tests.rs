//! The shared watch on the model of etcd: each watcher gets its own sub-tree, whole, and no gap is hidden.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::*;
use crate::store::api::Op;
use crate::store::around::Around;
use crate::store::memory::MemoryEtcd;

async fn put(etcd: &MemoryEtcd, key: &str) -> Revision {
    let txn = Txn { then: vec![Op::put(key, "v")], ..Txn::default() };
    etcd.store().txn(txn).await.unwrap().header.revision
}

fn shared(etcd: &MemoryEtcd) -> Store {
    etcd.store().with_shared_watch(KeyRange::prefix("/n/"), fastrand::Rng::with_seed(1))
}

async fn watch(store: &Store, range: &str, start: Revision) -> Box<dyn Watch> {
    let mut watch = store.watch(WatchRequest { range: KeyRange::prefix(range), start, beside: false }).await.unwrap();
    assert!(matches!(next(watch.as_mut()).await, WatchMessage::Created(_)));
    watch
}

async fn next(watch: &mut dyn Watch) -> WatchMessage {
    tokio::time::timeout(Duration::from_secs(5), watch.next()).await.unwrap().unwrap().unwrap()
}

/// The keys and revisions of the next events.
async fn events(watch: &mut dyn Watch) -> Vec<(String, i64)> {
    match next(watch).await {
        WatchMessage::Events { events, .. } => events.iter().map(|e| (e.key().to_string(), e.revision().0)).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn each_watcher_gets_its_own_sub_tree_through_one_watch() {
    let etcd = MemoryEtcd::new();
    let store = shared(&etcd);
    let start = put(&etcd, "/n/a/label").await;
    let mut a = watch(&store, "/n/a/", start.next()).await;
    let mut ab = watch(&store, "/n/ab/", start.next()).await;
    assert_eq!(etcd.watchers(), 1, "one watch on the server");
    let (first, second) = (put(&etcd, "/n/ab/status").await, put(&etcd, "/n/a/status").await);
    assert_eq!(events(a.as_mut()).await, [("/n/a/status".to_owned(), second.0)]);
    assert_eq!(events(ab.as_mut()).await, [("/n/ab/status".to_owned(), first.0)]);
}

#[tokio::test(start_paused = true)]
async fn a_hold_wakes_no_agent() {
    let etcd = MemoryEtcd::new();
    let store = shared(&etcd);
    let start = put(&etcd, "/n/a/label").await;
    let mut a = watch(&store, "/n/a/", start.next()).await;
    let (_hold, _clock) = (put(&etcd, "/n/a/hold").await, put(&etcd, "/n/a/hold/clock").await);
    let (named, status) = (put(&etcd, "/n/a/on/hold").await, put(&etcd, "/n/a/status").await);
    let mut told = Vec::new();
    while told.last().is_none_or(|(_, at)| *at < status.0) {
        told.extend(events(a.as_mut()).await);
    }
    assert_eq!(told, [("/n/a/on/hold".to_owned(), named.0), ("/n/a/status".to_owned(), status.0)]);
    let mut late = watch(&store, "/n/a/", start.next()).await;
    assert_eq!(events(late.as_mut()).await, told, "nor is it owed");
}

#[tokio::test(start_paused = true)]
async fn what_came_between_the_read_and_the_watch_is_owed() {
    let etcd = MemoryEtcd::new();
    let store = shared(&etcd);
    let first = put(&etcd, "/n/p/label").await;
    let mut probe = watch(&store, "/n/p/", first.next()).await;
    let read = put(&etcd, "/n/a/label").await;
    let missed = put(&etcd, "/n/a/assignment").await;
    // The hub has seen both before the watch begins.
    put(&etcd, "/n/p/x").await;
    events(probe.as_mut()).await;
    let mut a = watch(&store, "/n/a/", read.next()).await;
    assert_eq!(events(a.as_mut()).await, [("/n/a/assignment".to_owned(), missed.0)]);
}

#[tokio::test(start_paused = true)]
async fn a_start_before_what_is_kept_must_be_read_again() {
    let etcd = MemoryEtcd::new();
    let old = put(&etcd, "/n/a/label").await;
    put(&etcd, "/n/a/status").await;
    let store = shared(&etcd);
    let mut a = watch(&store, "/n/a/", old.next()).await;
    assert!(matches!(next(a.as_mut()).await, WatchMessage::Canceled { compacted, .. } if compacted > old));
}

#[tokio::test(start_paused = true)]
async fn a_gap_ends_every_watch() {
    let etcd = MemoryEtcd::new();
    let store = shared(&etcd);
    let at = put(&etcd, "/n/a/label").await;
    let mut a = watch(&store, "/n/a/", at.next()).await;
    // The feed falls behind a compaction: what happened in between is told to nobody.
    etcd.break_watches();
    put(&etcd, "/n/a/status").await;
    etcd.compact(etcd.revision()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), a.next()).await.unwrap();
    assert!(ended.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_reader_ahead_of_the_feed_is_no_restored_store() {
    let etcd = MemoryEtcd::new();
    let store = shared(&etcd);
    let at = put(&etcd, "/n/a/label").await;
    let range = KeyRange::prefix("/n/a/");
    let mut ahead = store.watch(WatchRequest { range, start: Revision(at.0 + 5), beside: false }).await.unwrap();
    match next(ahead.as_mut()).await {
        WatchMessage::Created(header) => assert!(header.revision.0 >= at.0 + 4),
        other => panic!("{other:?}"),
    }
}

/// An etcd that needs a second for each transaction and each grant, however many there are, and counts those under way.
#[derive(Debug)]
struct Slow {
    inner: Store,
    now: AtomicUsize,
    most: AtomicUsize,
    /// What was answered: a transaction or a grant.
    answered: Mutex<Vec<Answered>>,
    /// Statuses are on it.
    lease: LeaseId,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Answered {
    Txn,
    Grant,
}

impl Slow {
    async fn new() -> (Arc<Slow>, Store) {
        let inner = MemoryEtcd::new().store();
        let (lease, _) = inner.grant(3_600).await.unwrap();
        let slow = Arc::new(Slow { inner, now: 0.into(), most: 0.into(), answered: Mutex::default(), lease });
        let store = Store::new(slow.clone()).with_shared_watch(KeyRange::prefix("/n/"), fastrand::Rng::with_seed(1));
        (slow, store)
    }

    fn status(&self, n: usize) -> Txn {
        let (key, lease) = (Key::from(format!("/n/{n}/status")), self.lease);
        Txn { then: vec![Op::Put { key, value: "v".into(), lease }], ..Txn::default() }
    }

    async fn work(&self, what: Answered) {
        let now = self.now.fetch_add(1, Relaxed) + 1;
        self.most.fetch_max(now, Relaxed);
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.now.fetch_sub(1, Relaxed);
        self.answered.lock().unwrap().push(what);
    }
}

impl Around for Slow {
    fn inner(&self) -> &Store {
        &self.inner
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, StoreError>> {
        async move {
            self.work(Answered::Txn).await;
            self.inner.txn(txn).await
        }
        .boxed()
    }

    fn grant(&self, ttl_s: u64) -> BoxFuture<'_, Result<(LeaseId, u64), StoreError>> {
        async move {
            self.work(Answered::Grant).await;
            self.inner.grant(ttl_s).await
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn thousands_that_come_at_once_are_sent_in_turn_and_all_are_answered() {
    let (slow, store) = Slow::new().await;
    let puts = (0..REQUESTS_MAX * 3).map(|n| store.txn(slow.status(n)));
    let answers = futures::future::join_all(puts).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(slow.most.load(Relaxed), REQUESTS_MAX);
}

/// Grants and writes of statuses, one after the other; in which order they were answered.
async fn mixed(slow: &Slow, store: &Store, nodes: usize) -> Vec<Answered> {
    let requests = (0..nodes).map(async |n| {
        let grant = async { store.grant(60).await.map(drop) };
        let write = async { store.txn(slow.status(n)).await.map(drop) };
        futures::future::try_join(grant, write).await.unwrap();
    });
    futures::future::join_all(requests).await;
    slow.answered.lock().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_grants_goes_before_the_statuses_and_all_are_answered() {
    let (slow, store) = Slow::new().await;
    let nodes = REQUESTS_MAX * 3;
    let answered = mixed(&slow, &store, nodes).await;
    assert_eq!(answered.len(), nodes * 2);
    // What came before the flood was one goes as it came.
    let last_grant = answered.iter().rposition(|what| *what == Answered::Grant).unwrap();
    let before = answered[..last_grant].iter().filter(|what| **what == Answered::Txn).count();
    assert!(before <= REQUESTS_MAX + 1, "{before} of {nodes} statuses went before the last grant");
    assert_eq!(slow.most.load(Relaxed), REQUESTS_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_few_grants_hold_up_no_status() {
    let (slow, store) = Slow::new().await;
    let began = tokio::time::Instant::now();
    assert_eq!(mixed(&slow, &store, REQUESTS_MAX / 2).await.len(), REQUESTS_MAX);
    assert_eq!(began.elapsed(), Duration::from_secs(1), "all were under way together");
}

#[tokio::test(start_paused = true)]
async fn a_flood_ends_when_few_are_left_or_its_time_is_over_and_no_last_word_waits_for_it() {
    // This one task polls more at a time than the runtime lets one.
    use tokio::task::unconstrained;
    let (slow, store) = Slow::new().await;
    let flood = || {
        let mut grants: Vec<_> = (0..=REQUESTS_MAX).map(|_| Box::pin(unconstrained(store.grant(60)))).collect();
        grants.iter_mut().for_each(|grant| assert!(grant.as_mut().now_or_never().is_none()));
        grants
    };
    let under_way = || slow.now.load(Relaxed);
    let mut grants = flood();
    // There is room, but more than a few are left.
    grants.truncate(40);
    // Those that were given up are counted on.
    let others = under_way();
    let mut status = Box::pin(unconstrained(store.txn(slow.status(1))));
    assert!(status.as_mut().now_or_never().is_none());
    let mut word = Box::pin(unconstrained(store.txn(Txn { then: vec![Op::put("/n/2/status", "stopped")], ..Txn::default() })));
    assert!(word.as_mut().now_or_never().is_none());
    assert_eq!(under_way(), others + 1, "a word on no lease goes, the status does not");
    grants.truncate(32);
    assert!(status.as_mut().now_or_never().is_none());
    assert_eq!(under_way(), others + 2);

    drop((grants, status, word));
    let grants = flood();
    let began = tokio::time::Instant::now();
    let mut status = Box::pin(unconstrained(store.txn(slow.status(3))));
    assert!(status.as_mut().now_or_never().is_none());
    // Nobody goes on with them: as if etcd never answered.
    let some = grants.into_iter().take(40).collect::<Vec<_>>();
    tokio::time::timeout(Duration::from_secs(60), status).await.unwrap().unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(6), "five for the flood, one for the status");
    // There were never few since: more of them are no new flood, and do not make that one longer.
    let mut more = flood();
    more.truncate(400);
    let others = under_way();
    let mut status = Box::pin(unconstrained(store.txn(slow.status(4))));
    assert!(status.as_mut().now_or_never().is_none());
    assert_eq!(under_way(), others + 1, "its time is over");
    drop((some, more, status));
}

/// The feed's own watch may be silent just then; until it is given up for that the feed knows of nothing.
#[tokio::test(start_paused = true)]
async fn a_store_that_stepped_back_is_found_out_by_the_first_answer_and_nothing_of_its_past_is_told() {
    use crate::store::memory::faults::{FaultPlan, Faults};
    let etcd = MemoryEtcd::new();
    let faults = Faults::new(1, FaultPlan { watch_stalled: 1.0, ..FaultPlan::default() });
    let store = faults.client(etcd.store()).store().with_shared_watch(KeyRange::prefix("/n/"), fastrand::Rng::with_seed(1));
    let kept = put(&etcd, "/n/a/label").await;
    let backup = etcd.snapshot();
    put(&etcd, "/n/a/status").await;
    let lost = put(&etcd, "/n/a/status").await;
    let mut before = watch(&store, "/n/a/", lost.next()).await;

    etcd.restore(backup);
    faults.calm();
    let began = tokio::time::Instant::now();
    let (header, _) = store.get("/n/a/label").await.unwrap();
    assert_eq!(header.revision, kept);
    assert!(tokio::time::timeout(Duration::from_secs(1), before.next()).await.unwrap().is_none(), "it ends");
    let mut after = watch(&store, "/n/a/", kept.next()).await;
    let again = put(&etcd, "/n/a/status").await;
    assert_eq!(events(after.as_mut()).await, [("/n/a/status".to_owned(), again.0)]);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}
