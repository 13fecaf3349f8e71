//! The shared watch on the model of etcd: each watcher gets its complete sub-tree, and no gap is hidden.
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
async fn each_watcher_gets_its_own_sub_tree_from_one_watch() {
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
async fn hold_wakes_no_agent() {
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
    assert_eq!(events(late.as_mut()).await, told, "a late watch gets no hold either");
}

#[tokio::test(start_paused = true)]
async fn watch_gets_the_events_since_the_read() {
    let etcd = MemoryEtcd::new();
    let store = shared(&etcd);
    let first = put(&etcd, "/n/p/label").await;
    let mut probe = watch(&store, "/n/p/", first.next()).await;
    let read = put(&etcd, "/n/a/label").await;
    let missed = put(&etcd, "/n/a/assignment").await;
    // The hub has seen both writes before the watch starts.
    put(&etcd, "/n/p/x").await;
    events(probe.as_mut()).await;
    let mut a = watch(&store, "/n/a/", read.next()).await;
    assert_eq!(events(a.as_mut()).await, [("/n/a/assignment".to_owned(), missed.0)]);
}

#[tokio::test(start_paused = true)]
async fn start_before_the_kept_events_is_compacted() {
    let etcd = MemoryEtcd::new();
    let old = put(&etcd, "/n/a/label").await;
    put(&etcd, "/n/a/status").await;
    let store = shared(&etcd);
    let mut a = watch(&store, "/n/a/", old.next()).await;
    assert!(matches!(next(a.as_mut()).await, WatchMessage::Canceled { compacted, .. } if compacted > old));
}

#[tokio::test(start_paused = true)]
async fn gap_ends_every_watch() {
    let etcd = MemoryEtcd::new();
    let store = shared(&etcd);
    let at = put(&etcd, "/n/a/label").await;
    let mut a = watch(&store, "/n/a/", at.next()).await;
    // The feed falls behind a compaction: no watch gets the events in between.
    etcd.break_watches();
    put(&etcd, "/n/a/status").await;
    etcd.compact(etcd.revision()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), a.next()).await.unwrap();
    assert!(ended.is_none());
}

#[tokio::test(start_paused = true)]
async fn reader_ahead_of_the_feed_is_not_a_step_back() {
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
    /// The requests answered, each a transaction or a grant.
    answered: Mutex<Vec<Answered>>,
    /// The lease of the statuses.
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
async fn thousands_of_requests_go_in_turn_and_all_are_answered() {
    let (slow, store) = Slow::new().await;
    let puts = (0..REQUESTS_MAX * 3).map(|n| store.txn(slow.status(n)));
    let answers = futures::future::join_all(puts).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(slow.most.load(Relaxed), REQUESTS_MAX);
}

/// Sends grants and writes of statuses, one after the other. Returns the order of the answers.
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
async fn flood_of_grants_precedes_statuses_and_all_are_answered() {
    let (slow, store) = Slow::new().await;
    let nodes = REQUESTS_MAX * 3;
    let answered = mixed(&slow, &store, nodes).await;
    assert_eq!(answered.len(), nodes * 2);
    // The requests before the flood go in the order of arrival.
    let last_grant = answered.iter().rposition(|what| *what == Answered::Grant).unwrap();
    let before = answered[..last_grant].iter().filter(|what| **what == Answered::Txn).count();
    assert!(before <= REQUESTS_MAX + 1, "{before} of {nodes} statuses went before the last grant");
    assert_eq!(slow.most.load(Relaxed), REQUESTS_MAX);
}

#[tokio::test(start_paused = true)]
async fn few_grants_delay_no_status() {
    let (slow, store) = Slow::new().await;
    let began = tokio::time::Instant::now();
    assert_eq!(mixed(&slow, &store, REQUESTS_MAX / 2).await.len(), REQUESTS_MAX);
    assert_eq!(began.elapsed(), Duration::from_secs(1), "all were under way together");
}

#[tokio::test(start_paused = true)]
async fn flood_ends_by_count_or_time_and_delays_no_final_status() {
    // This task alone polls more at a time than the runtime allows.
    use tokio::task::unconstrained;
    let (slow, store) = Slow::new().await;
    let flood = || {
        let mut grants: Vec<_> = (0..=REQUESTS_MAX).map(|_| Box::pin(unconstrained(store.grant(60)))).collect();
        grants.iter_mut().for_each(|grant| assert!(grant.as_mut().now_or_never().is_none()));
        grants
    };
    let under_way = || slow.now.load(Relaxed);
    let mut grants = flood();
    // There is room, but more than a few grants are left.
    grants.truncate(40);
    // The count includes the dropped grants.
    let others = under_way();
    let mut status = Box::pin(unconstrained(store.txn(slow.status(1))));
    assert!(status.as_mut().now_or_never().is_none());
    let mut word = Box::pin(unconstrained(store.txn(Txn { then: vec![Op::put("/n/2/status", "stopped")], ..Txn::default() })));
    assert!(word.as_mut().now_or_never().is_none());
    assert_eq!(under_way(), others + 1, "a final status without a lease goes, a status on a lease does not");
    grants.truncate(32);
    assert!(status.as_mut().now_or_never().is_none());
    assert_eq!(under_way(), others + 2);

    drop((grants, status, word));
    let grants = flood();
    let began = tokio::time::Instant::now();
    let mut status = Box::pin(unconstrained(store.txn(slow.status(3))));
    assert!(status.as_mut().now_or_never().is_none());
    // The test polls these grants no more: as if etcd never answered.
    let some = grants.into_iter().take(40).collect::<Vec<_>>();
    tokio::time::timeout(Duration::from_secs(60), status).await.unwrap().unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(6), "five for the flood, one for the status");
    // The grants were never few since: more of them start no new flood, and do not extend this one.
    let mut more = flood();
    more.truncate(400);
    let others = under_way();
    let mut status = Box::pin(unconstrained(store.txn(slow.status(4))));
    assert!(status.as_mut().now_or_never().is_none());
    assert_eq!(under_way(), others + 1, "the time of the flood is over");
    drop((some, more, status));
}

/// The watch of the feed may be silent at that moment; the feed knows of nothing until it gives the watch up.
#[tokio::test(start_paused = true)]
async fn first_answer_after_a_step_back_ends_the_watches() {
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
    assert!(tokio::time::timeout(Duration::from_secs(1), before.next()).await.unwrap().is_none(), "the watch ends");
    let mut after = watch(&store, "/n/a/", kept.next()).await;
    let again = put(&etcd, "/n/a/status").await;
    assert_eq!(events(after.as_mut()).await, [("/n/a/status".to_owned(), again.0)]);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}
