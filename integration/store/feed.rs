//! Feeds over a store whose reads and watches fail at chosen moments: whatever is told adds up to what the store holds.
//!
//! On the model and on both etcds, because the order of catch-up, compaction and progress is the server's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use enlist::Store;
use enlist::model::names::Revision;
use enlist::store::api::{
    Backend, Event, KeepAlive, Key, KeyRange, LeaseId, MemberInfo, Op, RangeRequest, RangeResponse, StoreError, Txn, TxnResponse,
    Watch, WatchMessage, WatchRequest,
};
use enlist::store::feed::{Feed, FeedSettings, Scope, Update};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::subject::{LIMIT, Subject};
use crate::support::etcd::{Etcd, EtcdVersion};
use crate::support::wait::until;

/// A way to a store on which later pages of reads and watches can be made to fail.
#[derive(Debug, Clone)]
struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    /// Reads that go on from an earlier page fail.
    pages_fail: AtomicBool,
    failed: AtomicUsize,
    /// No new watch.
    closed: AtomicBool,
    /// Each change breaks the watches that are open.
    breaks: watch::Sender<u64>,
}

impl Gate {
    fn before(store: &Store) -> Gate {
        Gate(Arc::new(Inner {
            store: store.clone(),
            pages_fail: AtomicBool::new(false),
            failed: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            breaks: watch::Sender::new(0),
        }))
    }

    fn feed(&self, prefix: &str, progress: Duration) -> Feed {
        let settings = FeedSettings { progress: Some(progress), ..FeedSettings::default() };
        let rng = fastrand::Rng::with_seed(7);
        Feed::open(Store::new(Arc::new(self.clone())), Scope::one(KeyRange::prefix(prefix)), settings, rng)
    }

    fn break_watches(&self) {
        self.0.breaks.send_modify(|breaks| *breaks += 1);
    }

    /// Closed: watches break, and none is opened.
    fn close(&self, closed: bool) {
        self.0.closed.store(closed, Ordering::Relaxed);
        if closed {
            self.break_watches();
        }
    }

    fn failed(&self) -> usize {
        self.0.failed.load(Ordering::Relaxed)
    }
}

fn unreachable<T: Send + 'static>() -> BoxFuture<'static, Result<T, StoreError>> {
    let error = StoreError::Unreachable { endpoints: "the gate".into(), reason: "it is closed".into() };
    std::future::ready(Err(error)).boxed()
}

impl Backend for Gate {
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, StoreError>> {
        // A later page starts right behind a key: with a NUL at its end.
        let is_later = request.range.start.as_bytes().last() == Some(&0);
        if is_later && self.0.pages_fail.load(Ordering::Relaxed) {
            self.0.failed.fetch_add(1, Ordering::Relaxed);
            return unreachable();
        }
        self.0.store.range(request).boxed()
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, StoreError>> {
        self.0.store.txn(txn).boxed()
    }

    fn grant(&self, ttl_s: u64) -> BoxFuture<'_, Result<(LeaseId, u64), StoreError>> {
        self.0.store.grant(ttl_s).boxed()
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.0.store.revoke(lease).boxed()
    }

    fn time_to_live(&self, lease: LeaseId) -> BoxFuture<'_, Result<(i64, i64), StoreError>> {
        self.0.store.time_to_live(lease).boxed()
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Box<dyn KeepAlive>, StoreError>> {
        self.0.store.keep_alive(lease).boxed()
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Box<dyn Watch>, StoreError>> {
        if self.0.closed.load(Ordering::Relaxed) {
            return unreachable();
        }
        let breaks = self.0.breaks.subscribe();
        let open = self.0.store.watch(request);
        async move { Ok(Box::new(Gated { watch: open.await?, breaks }) as Box<dyn Watch>) }.boxed()
    }

    fn member(&self) -> BoxFuture<'_, Result<MemberInfo, StoreError>> {
        self.0.store.member().boxed()
    }
}

/// A watch that can be broken.
struct Gated {
    watch: Box<dyn Watch>,
    breaks: watch::Receiver<u64>,
}

impl Watch for Gated {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<WatchMessage, StoreError>>> {
        async {
            tokio::select! {
                biased;
                _ = self.breaks.changed() => Some(Err(StoreError::Broken("at the gate".into()))),
                message = self.watch.next() => message,
            }
        }
        .boxed()
    }

    fn request_progress(&mut self) -> BoxFuture<'_, ()> {
        self.watch.request_progress()
    }
}

/// What a feed told so far, added up.
#[derive(Default)]
struct Told {
    content: BTreeMap<Key, Vec<u8>>,
    revision: Revision,
    resets: usize,
}

impl Told {
    async fn take(&mut self, feed: &mut Feed) {
        match tokio::time::timeout(LIMIT, feed.next()).await.expect("the feed says nothing any more") {
            Update::Reset { revision, kvs, .. } => {
                self.content = kvs.into_iter().map(|kv| (kv.key, kv.value.to_vec())).collect();
                self.revision = revision;
                self.resets += 1;
            }
            Update::Events { revision, events } => {
                assert!(revision > self.revision, "{revision} after {}", self.revision);
                self.revision = revision;
                for event in events {
                    match event {
                        Event::Put(kv) => drop(self.content.insert(kv.key, kv.value.to_vec())),
                        Event::Delete { key, .. } => drop(self.content.remove(&key)),
                    }
                }
            }
        }
    }

    /// Takes updates until they add up to what the store holds.
    async fn until_equal(&mut self, feed: &mut Feed, store: &Store, prefix: &str) {
        let wanted = content(store, prefix).await;
        while self.content != wanted {
            self.take(feed).await;
        }
    }
}

async fn content(store: &Store, prefix: &str) -> BTreeMap<Key, Vec<u8>> {
    let read = store.read_all(KeyRange::prefix(prefix), None).await.unwrap();
    read.kvs.into_iter().map(|kv| (kv.key, kv.value.to_vec())).collect()
}

async fn subjects() -> Vec<Subject> {
    let [old, new] = EtcdVersion::ALL;
    vec![Subject::memory(), Subject::etcd(Etcd::start(old)).await, Subject::etcd(Etcd::start(new)).await]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_whose_second_page_fails_tells_nothing_and_the_next_one_forgets_no_deletion() {
    let subject = Subject::memory();
    let keys: Vec<String> = (0..11_000).map(|index| format!("k/{index:05}")).collect();
    for chunk in keys.chunks(4_000) {
        let inner =
            |keys: &[String]| Op::Txn(Txn { then: keys.iter().map(|key| Op::put(key.clone(), "x")).collect(), ..Txn::default() });
        subject.commit(chunk.chunks(64).map(inner).collect()).await;
    }
    let gate = Gate::before(&subject.store);
    gate.0.pages_fail.store(true, Ordering::Relaxed);
    let mut feed = gate.feed("k/", Duration::from_secs(1));
    let tries = |count: usize| {
        let gate = gate.clone();
        async move { (gate.failed() >= count).then_some(()) }
    };
    // At the start: an incomplete read is never taken for all there is.
    until("two reads failed", LIMIT, || tries(2)).await;
    gate.0.pages_fail.store(false, Ordering::Relaxed);
    let mut told = Told::default();
    told.take(&mut feed).await;
    assert_eq!(told.content.len(), 11_000);

    // Later: deletions before and between two reads of which the first is cut short.
    gate.close(true);
    gate.0.pages_fail.store(true, Ordering::Relaxed);
    subject.commit(vec![Op::Delete(KeyRange::between("k/00100", "k/06000"))]).await;
    let compacted = subject.put("k/00000", "new").await;
    subject.compact(compacted);
    let before = gate.failed();
    gate.close(false);
    until("two more reads failed", LIMIT, || tries(before + 2)).await;
    subject.commit(vec![Op::Delete(KeyRange::between("k/00050", "k/00060")), Op::Delete(KeyRange::one("k/10999"))]).await;
    gate.0.pages_fail.store(false, Ordering::Relaxed);
    told.take(&mut feed).await;
    assert_eq!((told.resets, told.content.len()), (2, 11_000 - 5_900 - 11));
    assert_eq!(told.content, content(&subject.store, "k/").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compactions_under_a_slow_reader_lose_nothing_and_a_dropped_feed_leaves_no_watch() {
    for subject in subjects().await {
        let gate = Gate::before(&subject.store);
        subject.put("k/0", "x").await;
        let mut feed = gate.feed("k/", Duration::from_millis(200));
        let mut told = Told::default();
        for round in 0..6 {
            gate.close(true);
            for write in 0..20 {
                subject.put(&format!("k/{}", write % 7), &format!("{round}/{write}")).await;
            }
            let last = subject.delete(&format!("k/{round}")).await;
            subject.compact(last);
            gate.close(false);
            // Every other time the reader does not look, and the next compaction meets the feed wherever it is.
            if round % 2 == 1 {
                told.until_equal(&mut feed, &subject.store, "k/").await;
            }
        }
        assert!(told.resets >= 3, "{}: only {} reads", subject.name(), told.resets);
        // Given up in the midst of it.
        gate.break_watches();
        drop(feed);
        let gone = || async { (subject.watchers() == 0).then_some(()) };
        until("its watch is gone on the server", LIMIT, gone).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_reconnects_within_a_catch_up_loses_nothing_although_progress_lies() {
    const WRITERS: usize = 60;
    const EACH: usize = 200;
    for version in EtcdVersion::ALL {
        let subject = Subject::etcd(Etcd::start(version)).await;
        let gate = Gate::before(&subject.store);
        subject.put("k/0", "x").await;
        // It asks for progress all the time: 3.4.23 answers with a revision whose events it still owes.
        let mut feed = gate.feed("k/", Duration::from_millis(5));
        let mut told = Told::default();
        told.take(&mut feed).await;
        gate.close(true);
        let write = |writer: usize| {
            let store = subject.store.clone();
            async move {
                for number in 0..EACH {
                    let key = format!("k/{writer}/{}", number % 50);
                    let op = if number % 9 == 8 { Op::delete(key) } else { Op::put(key, number.to_string()) };
                    store.txn(Txn { then: vec![op], ..Txn::default() }).await.unwrap();
                }
            }
        };
        futures::future::join_all((0..WRITERS).map(write)).await;
        let wanted = content(&subject.store, "k/").await;
        gate.close(false);
        let mut within = 0;
        for _ in 0..4 {
            let before = told.revision;
            while told.revision.0 < before.0 + 500 && told.content != wanted {
                told.take(&mut feed).await;
            }
            within += usize::from(told.content != wanted);
            gate.break_watches();
        }
        told.until_equal(&mut feed, &subject.store, "k/").await;
        assert!(within >= 2, "{version:?}: it was interrupted within the catch-up only {within} times");
        assert_eq!(told.resets, 1, "{version:?}: it read everything again");
    }
}
