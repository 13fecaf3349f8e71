//! Feeds over a store whose reads and watches fail at chosen moments: whatever is told adds up to what the store holds.
//!
//! On the model and on both etcds, because the order of catch-up, compaction and progress is the server's.

use std::collections::BTreeMap;
use std::time::Duration;

use enlist::Store;
use enlist::model::names::Revision;
use enlist::store::api::{Event, Key, KeyRange, Op, Txn};
use enlist::store::feed::{Feed, FeedSettings, Scope, Update};

use super::subject::{LIMIT, Subject};
use crate::support::etcd::{Etcd, EtcdVersion};
use crate::support::gate::Gate;
use crate::support::wait::until;

fn feed(gate: &Gate, prefix: &str, progress: Duration) -> Feed {
    let settings = FeedSettings { progress: Some(progress), ..FeedSettings::default() };
    Feed::open(gate.store(), Scope::one(KeyRange::prefix(prefix)), settings, fastrand::Rng::with_seed(7))
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
    gate.fail_pages(true);
    let mut feed = feed(&gate, "k/", Duration::from_secs(1));
    let tries = |count: usize| {
        let gate = gate.clone();
        async move { (gate.failed() >= count).then_some(()) }
    };
    // At the start: an incomplete read is never taken for all there is.
    until("two reads failed", LIMIT, || tries(2)).await;
    gate.fail_pages(false);
    let mut told = Told::default();
    told.take(&mut feed).await;
    assert_eq!(told.content.len(), 11_000);

    // Later: deletions before and between two reads of which the first is cut short.
    gate.close(true);
    gate.fail_pages(true);
    subject.commit(vec![Op::Delete(KeyRange::between("k/00100", "k/06000"))]).await;
    let compacted = subject.put("k/00000", "new").await;
    subject.compact(compacted);
    let before = gate.failed();
    gate.close(false);
    until("two more reads failed", LIMIT, || tries(before + 2)).await;
    subject.commit(vec![Op::Delete(KeyRange::between("k/00050", "k/00060")), Op::Delete(KeyRange::one("k/10999"))]).await;
    gate.fail_pages(false);
    told.take(&mut feed).await;
    assert_eq!((told.resets, told.content.len()), (2, 11_000 - 5_900 - 11));
    assert_eq!(told.content, content(&subject.store, "k/").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compactions_under_a_slow_reader_lose_nothing_and_a_dropped_feed_leaves_no_watch() {
    for subject in subjects().await {
        let gate = Gate::before(&subject.store);
        subject.put("k/0", "x").await;
        let mut feed = feed(&gate, "k/", Duration::from_millis(200));
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
    const WRITERS: usize = 200;
    const EACH: usize = 20;
    for version in EtcdVersion::ALL {
        let subject = Subject::etcd(Etcd::start(version)).await;
        let gate = Gate::before(&subject.store);
        subject.put("k/0", "x").await;
        // It asks for progress all the time: 3.4.23 answers with a revision whose events it still owes.
        let mut feed = feed(&gate, "k/", Duration::from_millis(5));
        let mut told = Told::default();
        told.take(&mut feed).await;
        // A stream that has told something is resumed; one that has not is read again.
        subject.put("k/0", "y").await;
        told.until_equal(&mut feed, &subject.store, "k/").await;
        gate.close(true);
        let write = |writer: usize| {
            let store = subject.store.clone();
            async move {
                for number in 0..EACH {
                    let key = format!("k/{writer}/{}", number % 7);
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
