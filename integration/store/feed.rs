//! Feeds on real etcds: what they tell adds up to what is stored, whatever happens to their watches.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use enlist::Store;
use enlist::model::names::Revision;
use enlist::store::api::{Event, Key, KeyRange, KeyValue, Op, StoreError, Txn, Watch, WatchMessage, WatchRequest};
use enlist::store::around::Around;
use enlist::store::feed::{Feed, FeedSettings, Scope, Update};
use enlist::store::memory::faults::{FaultPlan, Faults, FaultyClient};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::subject::LIMIT;
use crate::support::etcd::{Etcd, EtcdVersion};
use crate::support::wait::until;

/// A feed on `n/`, and what it told put together.
struct Follower {
    feed: Feed,
    content: BTreeMap<Key, KeyValue>,
    revision: Revision,
    resets: usize,
    stepped_back: usize,
}

impl Follower {
    fn open(store: &Store) -> Follower {
        let settings = FeedSettings {
            progress: Some(Duration::from_millis(200)),
            verify: Duration::from_secs(3_600),
            ..FeedSettings::default()
        };
        let feed = Feed::open(store.clone(), Scope::one(KeyRange::prefix("n/")), settings, fastrand::Rng::with_seed(1));
        Follower { feed, content: BTreeMap::new(), revision: Revision::NONE, resets: 0, stepped_back: 0 }
    }

    /// Opened through one store, of what another writes, and told something: such a stream is resumed, another one is read again.
    async fn resumable(through: &Store, store: &Store) -> Follower {
        let mut follower = Follower::open(through);
        follower.settle(store).await;
        write(store, 501, 1).await;
        follower.settle(store).await;
        follower
    }

    async fn take(&mut self) {
        // Each answer to a request for progress may be what breaks a stream here; on a busy machine several attempts come to nothing,
        // each later than the one before.
        match tokio::time::timeout(3 * LIMIT, self.feed.next()).await.expect("the feed is silent") {
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

    /// Takes what comes until it is what is stored.
    async fn settle(&mut self, store: &Store) {
        let stored = store.read_all(KeyRange::prefix("n/"), None).await.unwrap();
        // Not the newest write among what is stored: the deletions after it are owed as well.
        let whole = stored.header.revision;
        let stored: BTreeMap<Key, KeyValue> = stored.kvs.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
        while self.resets == 0 || self.content != stored {
            assert!(self.revision < whole, "at {} of {whole} something was lost", self.revision);
            self.take().await;
        }
    }
}

/// So many writes of `n/…`, each of a revision of its own, with deletions among them.
async fn write(store: &Store, from: usize, count: usize) {
    for chunk in (from..from + count).collect::<Vec<_>>().chunks(64) {
        let writes = chunk.iter().map(|at| {
            let key = format!("n/{:03}", at % 499);
            let op = if at % 7 == 3 { Op::delete(key) } else { Op::put(key, at.to_string()) };
            store.txn(Txn { then: vec![op], ..Txn::default() })
        });
        for answer in futures::future::join_all(writes).await {
            answer.unwrap();
        }
    }
}

/// Cuts a client off for longer than a connection lives, writes 12,000 events meanwhile, and heals it to a network with these faults.
async fn fall_behind(faults: &Faults, client: &FaultyClient, store: &Store, then: FaultPlan) {
    let fifty = Duration::from_millis(50);
    faults.set_plan(FaultPlan { silence_max: fifty, timeout: fifty, ..FaultPlan::default() });
    client.cut();
    write(store, 500, 12_000).await;
    faults.set_plan(then);
    client.heal();
}

async fn awake(store: &Store) {
    until("it serves", LIMIT, || async { store.txn(Txn { then: vec![Op::put("awake", "x")], ..Txn::default() }).await.ok() })
        .await;
}

/// 3.4.23 answers progress at once, with the store's revision, while events are still owed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catch_up_of_twelve_thousand_events_that_is_cut_again_and_again_loses_nothing() {
    for version in EtcdVersion::ALL {
        let etcd = Etcd::start(version);
        let store = etcd.store();
        write(&store, 0, 500).await;
        let faults = Faults::new(1, FaultPlan::default());
        let client = faults.client(store.clone());
        let mut follower = Follower::resumable(&client.store(), &store).await;
        // Its watches break in the middle of what they owe.
        fall_behind(&faults, &client, &store, FaultPlan { watch_broken: 0.3, ..FaultPlan::default() }).await;
        follower.settle(&store).await;
        faults.calm();
        assert!(faults.counts().watches_broken >= 3, "{:?}", faults.counts());
        assert_eq!((follower.resets, follower.stepped_back), (1, 0));
    }
}

/// A store that notes of each watch where it began and how many events it told.
#[derive(Debug, Clone)]
struct Watched {
    store: Store,
    told: Arc<Mutex<Vec<(Revision, usize)>>>,
}

impl Watched {
    /// What watches told that began at the present.
    fn told_from_the_present(&self) -> usize {
        self.told.lock().unwrap().iter().filter(|(start, _)| *start == Revision::NONE).map(|(_, told)| told).sum()
    }

    fn told(&self) -> usize {
        self.told.lock().unwrap().iter().map(|(_, told)| told).sum()
    }
}

impl Around for Watched {
    fn inner(&self) -> &Store {
        &self.store
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Box<dyn Watch>, StoreError>> {
        async move {
            let at = {
                let mut told = self.told.lock().unwrap();
                told.push((request.start, 0));
                told.len() - 1
            };
            let watch = self.store.watch(request).await?;
            Ok(Box::new(WatchedWatch { watch, at, told: self.told.clone() }) as Box<dyn Watch>)
        }
        .boxed()
    }
}

struct WatchedWatch {
    watch: Box<dyn Watch>,
    at: usize,
    told: Arc<Mutex<Vec<(Revision, usize)>>>,
}

impl Watch for WatchedWatch {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<WatchMessage, StoreError>>> {
        async {
            let message = self.watch.next().await;
            if let Some(Ok(WatchMessage::Events { events, .. })) = &message {
                self.told.lock().unwrap()[self.at].1 += events.len();
            }
            message
        }
        .boxed()
    }

    fn request_progress(&mut self) -> BoxFuture<'_, ()> {
        self.watch.request_progress()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_lags_is_relieved_by_one_that_begins_at_the_present() {
    for version in EtcdVersion::ALL {
        let etcd = Etcd::start(version);
        let store = etcd.store();
        write(&store, 0, 500).await;
        let faults = Faults::new(1, FaultPlan::default());
        let client = faults.client(store.clone());
        let watched = Watched { store: client.store(), told: Arc::default() };
        let mut follower = Follower::resumable(&Store::new(Arc::new(watched.clone())), &store).await;
        let mut cuts = 0;
        loop {
            fall_behind(&faults, &client, &store, FaultPlan::default()).await;
            follower.settle(&store).await;
            // It takes over a moment later, if it could be opened within a second. Then it alone tells what comes.
            write(&store, 700, 300).await;
            follower.settle(&store).await;
            let before = (watched.told(), watched.told_from_the_present());
            write(&store, 700, 300).await;
            follower.settle(&store).await;
            let (all, present) = (watched.told() - before.0, watched.told_from_the_present() - before.1);
            if all == present && all > 0 {
                break;
            }
            cuts += 1;
            assert!(cuts < 3, "{version:?}: {present} of {all} events, {:?}", watched.told.lock().unwrap());
        }
        assert_eq!((follower.resets, follower.stepped_back), (1, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_and_compactions_are_followed_and_a_restored_backup_is_noticed() {
    for version in EtcdVersion::ALL {
        let mut etcd = Etcd::start(version);
        let store = etcd.store();
        write(&store, 0, 100).await;
        let mut follower = Follower::open(&store);
        follower.settle(&store).await;
        let backup = etcd.backup();
        for round in 0..3 {
            etcd.kill();
            etcd.restart();
            awake(&store).await;
            let revision = store.get("n/").await.unwrap().0.revision;
            // What a feed may need in order to resume is gone.
            if round > 0 {
                write(&store, 100 * round, 50).await;
                let compacted = store.get("n/").await.unwrap().0.revision;
                etcd.etcdctl(&["compaction", &compacted.to_string()]).unwrap();
            }
            write(&store, 1_000 * round, 50).await;
            assert!(store.get("n/").await.unwrap().0.revision > revision);
            follower.settle(&store).await;
        }
        assert_eq!(follower.stepped_back, 0);
        etcd.restore(&backup);
        awake(&store).await;
        write(&store, 7, 400).await;
        follower.settle(&store).await;
        assert_eq!(follower.stepped_back, 1);
    }
}
