//! A store that counts what goes through it, and notes when a node's label, assignment and registration were written. It
//! changes nothing.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::nodes::number_of;
use crate::store::api::{
    Event, KeepAlive, KeyValue, LeaseId, Op, RangeRequest, RangeResponse, Store, StoreError, Txn, TxnResponse, Watch,
    WatchMessage, WatchRequest,
};
use crate::store::around::Around;

/// What went through a store.
#[derive(Debug, Default)]
pub struct Counters {
    txns: AtomicU64,
    units: AtomicU64,
    batch_max: AtomicU64,
    sent_bytes: AtomicU64,
    reads: AtomicU64,
    grants: AtomicU64,
    events: AtomicU64,
    event_bytes: AtomicU64,
}

/// What went through a store, so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Counts {
    /// Transactions.
    pub txns: u64,
    /// All-or-nothing writes in them: nested transactions, or one each.
    pub units: u64,
    /// The most of these in one.
    pub batch_max: u64,
    /// Keys and values in transactions.
    pub sent_bytes: u64,
    /// Range reads.
    pub reads: u64,
    /// Leases granted.
    pub grants: u64,
    /// Events that watches brought.
    pub events: u64,
    /// Their keys and values.
    pub event_bytes: u64,
}

impl Counts {
    /// What came since. The largest batch stays that of all the time.
    pub fn since(&self, before: &Counts) -> Counts {
        Counts {
            txns: self.txns - before.txns,
            units: self.units - before.units,
            batch_max: self.batch_max,
            sent_bytes: self.sent_bytes - before.sent_bytes,
            reads: self.reads - before.reads,
            grants: self.grants - before.grants,
            events: self.events - before.events,
            event_bytes: self.event_bytes - before.event_bytes,
        }
    }
}

impl Counters {
    /// So far.
    pub fn counts(&self) -> Counts {
        Counts {
            txns: self.txns.load(Relaxed),
            units: self.units.load(Relaxed),
            batch_max: self.batch_max.load(Relaxed),
            sent_bytes: self.sent_bytes.load(Relaxed),
            reads: self.reads.load(Relaxed),
            grants: self.grants.load(Relaxed),
            events: self.events.load(Relaxed),
            event_bytes: self.event_bytes.load(Relaxed),
        }
    }
}

/// When each node was how far, in microseconds since the beginning; 0 = not yet.
#[derive(Debug)]
pub struct Log {
    began: Instant,
    /// Its agent was started.
    pub started: Vec<AtomicU64>,
    /// The label was written: when that was first known, by the answer or by the watch.
    pub labelled: Vec<AtomicU64>,
    /// The answer arrived at the node.
    pub assigned: Vec<AtomicU64>,
    /// The acknowledgement was written.
    pub registered: Vec<AtomicU64>,
    /// How many are registered.
    pub done: AtomicU64,
    /// The acknowledgement was written a second time or more.
    pub again: Vec<AtomicU64>,
    /// How many that is.
    pub done_again: AtomicU64,
    /// One permit for each label written.
    pub joined: Semaphore,
    /// The leases that were renewed since somebody emptied this.
    pub beaten: Mutex<HashSet<LeaseId>>,
}

impl Log {
    /// For so many nodes.
    pub fn new(nodes: usize) -> Log {
        let empty = || (0..nodes).map(|_| AtomicU64::new(0)).collect();
        Log {
            began: Instant::now(),
            started: empty(),
            labelled: empty(),
            assigned: empty(),
            registered: empty(),
            done: AtomicU64::new(0),
            again: empty(),
            done_again: AtomicU64::new(0),
            joined: Semaphore::new(0),
            beaten: Mutex::default(),
        }
    }

    /// Microseconds since the beginning, at least 1.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }

    /// Notes the first time only. Answers whether it was.
    fn note(&self, list: &[AtomicU64], node: usize) -> bool {
        let Some(slot) = list.get(node) else { return false };
        slot.compare_exchange(0, self.now(), Relaxed, Relaxed).is_ok()
    }

    /// Notes that a node's agent is started now.
    pub fn start(&self, node: usize) {
        self.note(&self.started, node);
    }

    fn wrote(&self, written: &Written) {
        match written {
            Written::Label(node) => self.label(*node),
            Written::Registered(node) if self.note(&self.registered, *node) => drop(self.done.fetch_add(1, Relaxed)),
            Written::Registered(node) if self.note(&self.again, *node) => drop(self.done_again.fetch_add(1, Relaxed)),
            Written::Registered(_) => {}
        }
    }

    /// A label was written. An answer may be lost: then only the watch tells.
    fn label(&self, node: usize) {
        if self.note(&self.labelled, node) {
            self.joined.add_permits(1);
        }
    }

    fn saw(&self, kv: &KeyValue) {
        if let Some(node) = kv.key.as_bytes().strip_suffix(b"/label").and_then(number_of) {
            self.label(node);
        }
        let Some(name) = kv.key.as_bytes().strip_suffix(b"/assignment") else { return };
        if let Some(node) = number_of(name).filter(|_| contains(&kv.value, b"\"state\":\"bound\"")) {
            self.note(&self.assigned, node);
        }
    }
}

/// What a node's own transaction writes.
enum Written {
    Label(usize),
    Registered(usize),
}

fn written(op: &Op) -> Option<Written> {
    let Op::Put { key, value, .. } = op else { return None };
    if let Some(name) = key.as_bytes().strip_suffix(b"/label") {
        return number_of(name).map(Written::Label);
    }
    let name = key.as_bytes().strip_suffix(b"/status")?;
    number_of(name).filter(|_| contains(value, b"\"phase\":\"registered\"")).map(Written::Registered)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// A metered store: its counters, and a log of nodes if their agents use it.
pub fn metered(store: Store, log: Option<Arc<Log>>) -> (Store, Arc<Counters>) {
    let counters = Arc::new(Counters::default());
    (Store::new(Arc::new(Metered { inner: store, counters: counters.clone(), log })), counters)
}

#[derive(Debug)]
struct Metered {
    inner: Store,
    counters: Arc<Counters>,
    log: Option<Arc<Log>>,
}

fn bytes(op: &Op) -> u64 {
    match op {
        Op::Put { key, value, .. } => (key.as_bytes().len() + value.len()) as u64,
        Op::Delete(range) => range.start.as_bytes().len() as u64,
        Op::Get(_) => 0,
        Op::Txn(txn) => txn.then.iter().map(bytes).sum(),
    }
}

impl Around for Metered {
    fn inner(&self) -> &Store {
        &self.inner
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, StoreError>> {
        self.counters.reads.fetch_add(1, Relaxed);
        self.inner.range(request).boxed()
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, StoreError>> {
        let nested = txn.then.iter().filter(|op| matches!(op, Op::Txn(_))).count().max(1) as u64;
        self.counters.txns.fetch_add(1, Relaxed);
        self.counters.units.fetch_add(nested, Relaxed);
        self.counters.batch_max.fetch_max(nested, Relaxed);
        self.counters.sent_bytes.fetch_add(txn.then.iter().map(bytes).sum(), Relaxed);
        let wrote: Vec<Written> = self.log.iter().flat_map(|_| txn.then.iter().filter_map(written)).collect();
        async move {
            let answer = self.inner.txn(txn).await;
            if let (Some(log), Ok(true)) = (&self.log, answer.as_ref().map(|answer| answer.succeeded)) {
                wrote.iter().for_each(|written| log.wrote(written));
            }
            answer
        }
        .boxed()
    }

    fn grant(&self, ttl_s: u64) -> BoxFuture<'_, Result<(LeaseId, u64), StoreError>> {
        self.counters.grants.fetch_add(1, Relaxed);
        self.inner.grant(ttl_s).boxed()
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Box<dyn KeepAlive>, StoreError>> {
        async move {
            let inner = self.inner.keep_alive(lease).await?;
            Ok(match self.log.clone() {
                Some(log) => Box::new(LoggedBeats { inner, lease, log }),
                None => inner,
            })
        }
        .boxed()
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Box<dyn Watch>, StoreError>> {
        async move {
            let inner = self.inner.watch(request).await?;
            Ok(Box::new(MeteredWatch { inner, counters: self.counters.clone(), log: self.log.clone() }) as Box<dyn Watch>)
        }
        .boxed()
    }
}

struct LoggedBeats {
    inner: Box<dyn KeepAlive>,
    lease: LeaseId,
    log: Arc<Log>,
}

impl KeepAlive for LoggedBeats {
    fn beat(&mut self) -> BoxFuture<'_, Result<i64, StoreError>> {
        async {
            let remaining = self.inner.beat().await?;
            if remaining > 0 {
                self.log.beaten.lock().unwrap_or_else(PoisonError::into_inner).insert(self.lease);
            }
            Ok(remaining)
        }
        .boxed()
    }
}

struct MeteredWatch {
    inner: Box<dyn Watch>,
    counters: Arc<Counters>,
    log: Option<Arc<Log>>,
}

impl Watch for MeteredWatch {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<WatchMessage, StoreError>>> {
        async {
            let message = self.inner.next().await;
            if let Some(Ok(WatchMessage::Events { events, .. })) = &message {
                self.counters.events.fetch_add(events.len() as u64, Relaxed);
                for event in events {
                    let Event::Put(kv) = event else { continue };
                    self.counters.event_bytes.fetch_add((kv.key.as_bytes().len() + kv.value.len()) as u64, Relaxed);
                    if let Some(log) = &self.log {
                        log.saw(kv);
                    }
                }
            }
            message
        }
        .boxed()
    }

    fn request_progress(&mut self) -> BoxFuture<'_, ()> {
        self.inner.request_progress()
    }
}
