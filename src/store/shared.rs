//! One watch for many: a single watch on the server feeds all watches of a store below one range.
//!
//! A process that hosts thousands of agents would hold thousands of watches and connections, and etcd serves each of
//! them separately. Here one [`Feed`] follows the whole range, and each watch gets the events of its sub-tree, except
//! those of the hold of a node, which no agent reads. Each agent still reads its own sub-tree, decides on it and writes
//! with compares. Together they send no more requests at a time than an etcd answers quickly, in an order that costs it
//! little (`queue`).
//!
//! The store never hides a gap: when the feed has to read everything again, all its watches end, and a start older than
//! the kept events gets the answer for a compacted start, so that the caller reads its sub-tree again. Nor does it
//! report an overwritten past: the answer to each read and transaction shows whether the store stepped back behind the
//! reported events.

mod queue;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use self::queue::Queue;
use super::api::{
    Event, Header, Key, KeyRange, LeaseId, Op, RangeRequest, RangeResponse, Store, StoreError, Txn, TxnResponse, Watch,
    WatchMessage, WatchRequest,
};
use super::around::Around;
use super::feed::{Feed, FeedSettings, Scope, Update};
use super::keys::NodePart;
use super::lease::Leases;
use crate::model::names::Revision;

/// Events kept for a watch that starts a little behind the feed: seconds of events, at full load.
const KEPT_EVENTS_MAX: usize = 50_000;
/// Messages that may wait for one watcher. A watcher that does not drain its watch loses it, and reads again.
const QUEUE: usize = 64;
/// The interval of the feed's own verify: each agent reads its own sub-tree again every few minutes, so this is only a
/// second safety net, and it makes all of them read.
const VERIFY: Duration = Duration::from_secs(24 * 3_600);
/// Requests of all agents under way. Thousands of agents that come back at the same moment (leases lost in a pause) would
/// otherwise send everything at once: etcd would answer a request after its time-out, when the caller has already sent it
/// again, and so without end. Waiting here costs no time-out. The floor of `enlist bench` keeps etcd busy with 256 requests,
/// and twice that keeps it so.
const REQUESTS_MAX: usize = 512;
/// The shortest time between two starts of the feed: behind endpoints of two histories every other answer asks for a
/// new start, and each start reads everything.
const AGAIN: Duration = Duration::from_millis(500);
/// The longest wait of a watch for the first read of the feed.
const FIRST_READ_LIMIT: Duration = Duration::from_secs(10);

impl Store {
    /// This store with one watch for all sub-trees of a folder, and with a bound on the requests under way (the others
    /// wait for their turn, however long): for processes that host many agents. `folder` ends with `/`; a sub-tree is
    /// everything below one name in it (`<folder><name>/`), and its watch reports all changes except those of the hold
    /// of a node, which no agent reads. Watches of other ranges go to the server as before.
    #[must_use]
    pub fn with_shared_watch(&self, folder: KeyRange, rng: fastrand::Rng) -> Store {
        self.with_shared_watch_for(folder, rng, None)
    }

    /// The same, for agents that share these leases: a step back of the store is reported to the leases.
    #[must_use]
    pub(crate) fn with_shared_watch_for(&self, folder: KeyRange, rng: fastrand::Rng, leases: Option<Arc<Leases>>) -> Store {
        let hub = Arc::new(Mutex::new(Hub { leases, ..Hub::default() }));
        let ready = lock(&hub).ready.subscribe();
        let task = AbortOnDropHandle::new(tokio::spawn(distribute(self.clone(), folder.clone(), hub.clone(), rng)));
        Store::new(Arc::new(Shared { inner: self.clone(), folder, hub, ready, queue: Queue::new(), _task: task }))
    }
}

#[derive(Debug)]
struct Shared {
    inner: Store,
    folder: KeyRange,
    hub: Arc<Mutex<Hub>>,
    /// See [`Hub::ready`].
    ready: watch::Receiver<bool>,
    queue: Queue,
    _task: AbortOnDropHandle<()>,
}

/// The known state of the folder, and its watchers.
#[derive(Debug, Default)]
struct Hub {
    /// Whether the state is complete and of the present store.
    ready: watch::Sender<bool>,
    leases: Option<Arc<Leases>>,
    /// Counts the starts of the feed.
    era: u64,
    cluster_id: u64,
    /// `kept` holds the events after this up to `last`, except those for no agent.
    since: Revision,
    last: Revision,
    kept: VecDeque<Event>,
    /// By the start of the watched range.
    watchers: HashMap<Bytes, Vec<mpsc::Sender<WatchMessage>>>,
}

/// The known part of the store.
#[derive(Debug, Clone, Copy)]
struct Known {
    era: u64,
    last: Revision,
}

fn lock(hub: &Mutex<Hub>) -> MutexGuard<'_, Hub> {
    hub.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn distribute(store: Store, folder: KeyRange, hub: Arc<Mutex<Hub>>, mut rng: fastrand::Rng) {
    let mut ready = lock(&hub).ready.subscribe();
    loop {
        let opened = Instant::now();
        let settings = FeedSettings { verify: VERIFY, ..FeedSettings::default() };
        let mut feed = Feed::open(store.clone(), Scope::one(folder.clone()), settings, rng.fork());
        let update = feed.next().await;
        lock(&hub).apply(&folder, update);
        let mut is_ready = *ready.borrow_and_update();
        while is_ready {
            tokio::select! {
                biased;
                // Only a step back ends this loop. (The sender is in the hub.)
                _ = ready.changed() => is_ready = false,
                update = feed.next() => lock(&hub).apply(&folder, update),
            }
        }
        drop(feed);
        tokio::time::sleep_until(opened + AGAIN).await;
    }
}

/// The sub-tree that a key is in: `<folder><name>/`.
fn subtree<'k>(folder: &KeyRange, key: &'k Key) -> Option<&'k [u8]> {
    let start = folder.start.as_bytes();
    let rest = key.as_bytes().strip_prefix(start)?;
    let end = rest.iter().position(|byte| *byte == b'/')?;
    key.as_bytes().get(..start.len() + end + 1)
}

/// Whether an agent reads this key. A hold and its clock belong to the allocator; when very many nodes are away at
/// once, most wake-ups of their agents would be for these keys.
fn is_for_agents(folder: &KeyRange, key: &Key) -> bool {
    let name = subtree(folder, key).map_or(0, <[u8]>::len);
    let part = key.as_bytes().get(name..).unwrap_or_default();
    ![NodePart::Hold, NodePart::Clock].iter().any(|unheard| part == unheard.as_str().as_bytes())
}

impl Hub {
    fn header(&self, revision: Revision) -> Header {
        Header { cluster_id: self.cluster_id, member_id: 0, revision }
    }

    fn apply(&mut self, folder: &KeyRange, update: Update) {
        match update {
            Update::Reset { revision, cluster_id, stepped_back, .. } => {
                if stepped_back {
                    self.tell_leases();
                }
                // The feed missed the events in between, so every agent reads again.
                self.watchers.clear();
                self.kept.clear();
                (self.cluster_id, self.since, self.last) = (cluster_id, revision, revision);
                self.era += 1;
                self.ready.send_if_modified(|ready| !std::mem::replace(ready, true));
            }
            Update::Events { revision, events } => {
                self.last = self.last.max(revision);
                let header = self.header(self.last);
                let events: Vec<Event> = events.into_iter().filter(|event| is_for_agents(folder, event.key())).collect();
                // Sorted, so that each run has the same order.
                let mut parts: BTreeMap<&[u8], Vec<Event>> = BTreeMap::new();
                for event in &events {
                    if let Some(part) = subtree(folder, event.key()).filter(|part| self.watchers.contains_key(*part)) {
                        parts.entry(part).or_default().push(event.clone());
                    }
                }
                for (part, events) in parts {
                    self.tell(part, WatchMessage::Events { header, events, fragment: false });
                }
                self.keep(events);
            }
        }
    }

    fn tell(&mut self, part: &[u8], message: WatchMessage) {
        if let Some(watchers) = self.watchers.get_mut(part) {
            watchers.retain(|watcher| watcher.try_send(message.clone()).is_ok());
            if watchers.is_empty() {
                self.watchers.remove(part);
            }
        }
    }

    fn keep(&mut self, events: Vec<Event>) {
        self.kept.extend(events);
        // Only whole revisions: a watch must not get half of one.
        while self.kept.len() > KEPT_EVENTS_MAX {
            let Some(revision) = self.kept.front().map(Event::revision) else { return };
            while self.kept.front().is_some_and(|event| event.revision() == revision) {
                self.kept.pop_front();
            }
            self.since = revision;
        }
    }

    /// Takes the answer to a request that was sent when this much was known.
    fn was_answered(&mut self, known: Known, answer: &Header) {
        let is_behind = answer.revision < known.last || answer.cluster_id != self.cluster_id;
        // An answer proves nothing if the feed has started again since, or if it names no revision.
        if known.era != self.era || !*self.ready.borrow() || answer.revision == Revision::NONE || !is_behind {
            return;
        }
        // A restored backup: the kept events are of an overwritten past. The feed may not know that yet, because its
        // watch may be silent.
        warn!(known = %known.last, rev = %answer.revision, "store revision went backwards (restored backup?); restarting the shared watch");
        self.watchers.clear();
        self.kept.clear();
        self.ready.send_replace(false);
        self.tell_leases();
    }

    fn tell_leases(&self) {
        self.leases.iter().for_each(|leases| leases.store_stepped_back());
    }

    /// The state that no later answer may be behind.
    fn known(&self) -> Known {
        Known { era: self.era, last: self.last }
    }

    /// Starts a watch.
    fn watch(&mut self, request: &WatchRequest) -> mpsc::Receiver<WatchMessage> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        // The queue is new and its receiver is here: there is room.
        let tell = |message| drop(sender.try_send(message));
        // The reader may be ahead of the feed: then the feed lags, and the store did not step back.
        let header = self.header(self.last.max(Revision(request.start.0 - 1)));
        tell(WatchMessage::Created(header));
        // None = from now on, which is the position of the feed: the watch gets every event after it.
        let start = if request.start == Revision::NONE { self.last.next() } else { request.start };
        if start <= self.since {
            tell(WatchMessage::Canceled {
                reason: "older than the events that the shared watch keeps".to_owned(),
                compacted: self.since,
            });
            return receiver;
        }
        let begin = self.kept.partition_point(|event| event.revision() < start);
        let owed: Vec<Event> = self.kept.range(begin..).filter(|event| request.range.contains(event.key())).cloned().collect();
        if !owed.is_empty() {
            tell(WatchMessage::Events { header, events: owed, fragment: false });
        }
        // One agent watches a name, rarely two for a moment; this removes the closed watches.
        let watchers = self.watchers.entry(request.range.start.clone().into_bytes()).or_default();
        watchers.retain(|watcher| !watcher.is_closed());
        watchers.push(sender);
        receiver
    }
}

impl Shared {
    /// Whether this range is one sub-tree of the folder.
    fn covers(&self, range: &KeyRange) -> bool {
        subtree(&self.folder, &range.start).is_some_and(|part| KeyRange::prefix(part.to_vec()) == *range)
    }

    /// Makes a call in its turn: a call before its turn would take kilobytes, and thousands may wait.
    async fn in_turn<T, F>(&self, call: impl FnOnce() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let _turn = self.queue.turn().await;
        call().await
    }
}

/// A watch fed by the shared one. Dropping it is enough: the hub removes it at the next event of its sub-tree.
struct Hanging(mpsc::Receiver<WatchMessage>);

impl Watch for Hanging {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<WatchMessage, StoreError>>> {
        async { self.0.recv().await.map(Ok) }.boxed()
    }

    fn request_progress(&mut self) -> BoxFuture<'_, ()> {
        futures::future::ready(()).boxed()
    }
}

impl Around for Shared {
    fn inner(&self) -> &Store {
        &self.inner
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, StoreError>> {
        async move {
            let _turn = self.queue.turn().await;
            let known = lock(&self.hub).known();
            let answer = self.inner.range(request).await?;
            lock(&self.hub).was_answered(known, &answer.header);
            Ok(answer)
        }
        .boxed()
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, StoreError>> {
        async move {
            // A transaction without a lease is rare, and may be the final status of an agent that has little time for
            // it.
            let on_lease = |op: &Op| matches!(op, Op::Put { lease, .. } if *lease != LeaseId::NONE);
            let waits = txn.then.iter().any(on_lease);
            let _turn = if waits { self.queue.turn_after_grants().await } else { self.queue.turn_of_word().await };
            let known = lock(&self.hub).known();
            let answer = self.inner.txn(txn).await?;
            lock(&self.hub).was_answered(known, &answer.header);
            Ok(answer)
        }
        .boxed()
    }

    fn grant(&self, ttl_s: u64) -> BoxFuture<'_, Result<(LeaseId, u64), StoreError>> {
        async move {
            let _turn = self.queue.turn_to_grant().await;
            self.inner.grant(ttl_s).await
        }
        .boxed()
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.in_turn(move || self.inner.revoke(lease)).boxed()
    }

    fn time_to_live(&self, lease: LeaseId) -> BoxFuture<'_, Result<(i64, i64), StoreError>> {
        self.in_turn(move || self.inner.time_to_live(lease)).boxed()
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Box<dyn Watch>, StoreError>> {
        if !self.covers(&request.range) {
            return self.inner.watch(request).boxed();
        }
        async move {
            let mut ready = self.ready.clone();
            let first = tokio::time::timeout(FIRST_READ_LIMIT, ready.wait_for(|ready| *ready)).await;
            let late = || StoreError::Timeout { milliseconds: FIRST_READ_LIMIT.as_millis() as u64 };
            first.map_err(|_| late())?.map_err(|_| StoreError::Broken("the shared watch ended".to_owned()))?;
            let mut hub = lock(&self.hub);
            let is_ready = *hub.ready.borrow();
            // The store may have stepped back just now: then the feed of the caller opens the watch again.
            let stepped_back = || StoreError::Broken("store revision went backwards: the shared watch restarts".to_owned());
            if is_ready { Ok(Box::new(Hanging(hub.watch(&request))) as Box<dyn Watch>) } else { Err(stepped_back()) }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
