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

/// An etcd that needs a second for each transaction, however many there are, and counts those under way.
#[derive(Debug)]
struct Slow {
    inner: Store,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Around for Slow {
    fn inner(&self) -> &Store {
        &self.inner
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, StoreError>> {
        async move {
            let now = self.now.fetch_add(1, Relaxed) + 1;
            self.most.fetch_max(now, Relaxed);
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.now.fetch_sub(1, Relaxed);
            self.inner.txn(txn).await
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn thousands_that_come_at_once_are_sent_in_turn_and_all_are_answered() {
    let etcd = MemoryEtcd::new();
    let slow = Arc::new(Slow { inner: etcd.store(), now: AtomicUsize::new(0), most: AtomicUsize::new(0) });
    let store = Store::new(slow.clone()).with_shared_watch(KeyRange::prefix("/n/"), fastrand::Rng::with_seed(1));
    let puts = (0..REQUESTS_MAX * 3).map(|n| {
        let txn = Txn { then: vec![Op::put(format!("/n/{n}/status"), "v")], ..Txn::default() };
        let store = store.clone();
        async move { store.txn(txn).await }
    });
    let answers = futures::future::join_all(puts).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(slow.most.load(Relaxed), REQUESTS_MAX);
}
