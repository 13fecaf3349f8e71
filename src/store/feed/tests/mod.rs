//! What a feed does about faults of reads and watches, on the model of etcd, paused time, and a backend that spoils answers
//! on demand.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod doctored;
mod faults;
mod lag;
mod restores;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::time::timeout;

use super::*;
use crate::store::api::{Header, Key, Op, Txn, WatchMessage};
use crate::store::memory::{MemoryEtcd, MemoryOptions, ProgressKind};
use doctored::{Doctored, Script, Spoilt};

/// An etcd and a feed on its `/n/`, with what the feed told put together as a view would.
struct Rig {
    etcd: MemoryEtcd,
    script: Arc<Mutex<Script>>,
    settings: FeedSettings,
    feed: Option<Feed>,
    content: BTreeMap<Key, KeyValue>,
    revision: Revision,
    resets: usize,
    stepped_back: usize,
}

impl Rig {
    fn with(options: MemoryOptions) -> Rig {
        Rig {
            etcd: MemoryEtcd::with_options(options),
            script: Arc::default(),
            settings: FeedSettings { verify: Duration::from_secs(1_000_000), ..FeedSettings::default() },
            feed: None,
            content: BTreeMap::new(),
            revision: Revision::NONE,
            resets: 0,
            stepped_back: 0,
        }
    }

    fn new() -> Rig {
        Rig::with(MemoryOptions::default())
    }

    /// With keys `a`, `b`, `c` and a feed that has read them.
    async fn started() -> Rig {
        let mut rig = Rig::new();
        for key in ["a", "b", "c"] {
            rig.put(key, "1").await;
        }
        rig.open();
        rig.settle().await;
        assert_eq!(rig.resets, 1);
        // A stream that told nothing would not be resumed.
        rig.put("c", "2").await;
        rig.settle().await;
        rig
    }

    fn open(&mut self) {
        let store = Store::new(Arc::new(Doctored { inner: self.etcd.store(), script: self.script.clone() }));
        let scope = Scope::one(KeyRange::prefix("/n/"));
        self.feed = Some(Feed::open(store, scope, self.settings.clone(), fastrand::Rng::with_seed(1)));
    }

    fn spoil(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    fn opened(&self) -> Vec<(Revision, Instant)> {
        self.script.lock().unwrap().opened.clone()
    }

    async fn write(&self, op: Op) {
        self.etcd.store().txn(Txn { then: vec![op], ..Txn::default() }).await.unwrap();
    }

    async fn put(&self, key: &str, value: &str) {
        self.write(Op::put(format!("/n/{key}"), value.to_owned())).await;
    }

    async fn delete(&self, key: &str) {
        self.write(Op::delete(format!("/n/{key}"))).await;
    }

    fn take(&mut self, update: Update) {
        match update {
            Update::Reset { revision, kvs, stepped_back, .. } => {
                self.content = kvs.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
                self.revision = revision;
                self.resets += 1;
                self.stepped_back += usize::from(stepped_back);
            }
            Update::Events { revision, events } => {
                assert!(revision > self.revision, "{revision} after {}", self.revision);
                self.revision = revision;
                for event in events {
                    match event {
                        Event::Put(kv) => drop(self.content.insert(kv.key.clone(), kv)),
                        Event::Delete { key, .. } => drop(self.content.remove(&key)),
                    }
                }
            }
        }
    }

    /// Takes what comes until the view is what is stored.
    async fn settle(&mut self) {
        let settled = async {
            while !self.is_right() {
                let update = self.feed.as_mut().unwrap().next().await;
                self.take(update);
            }
        };
        if timeout(Duration::from_secs(120), settled).await.is_err() {
            panic!("the view is not what is stored: {:?}", self.content.keys());
        }
    }

    /// Takes what comes within so much time.
    async fn for_a_while(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while let Ok(update) = tokio::time::timeout_at(end, self.feed.as_mut().unwrap().next()).await {
            self.take(update);
        }
    }

    fn is_right(&self) -> bool {
        let mut stored = self.etcd.at_revision(self.etcd.revision());
        stored.retain(|key, _| KeyRange::prefix("/n/").contains(key));
        self.resets > 0 && stored == self.content
    }

    fn header(&self) -> Header {
        Header { cluster_id: 0x00c1, member_id: 1, revision: self.etcd.revision() }
    }
}

#[test]
fn the_future_of_a_feed_is_small() {
    fn size<A, F: Future>(_: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }
    type Plain = Follower<Vec<KeyValue>, fn() -> Vec<KeyValue>>;
    let run = size(|follower: Box<Plain>| follower.run(None));
    assert!(run <= 2_048, "{run} bytes, for each of thousands of agents");
}
