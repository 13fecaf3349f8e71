//! A model of etcd in memory: for simulation and tests. It keeps every revision, obeys etcd's rules for transactions, leases and
//! watches (one conformance suite runs on it and on real etcds), and runs on tokio's clock, so paused time works. It is
//! deterministic: no hash order, no randomness, no task of its own. It must never be used where data matter: it is not durable.
//!
//! [`faults`] wraps a client of it (or any other store) with delays, lost answers and cut connections.

mod check;
mod client;
pub mod faults;
mod mvcc;
mod state;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use self::mvcc::Mvcc;
use self::state::{Lease, State};
use crate::model::names::Revision;
use crate::store::api::{Event, Key, KeyValue, Store, StoreError};

/// How a server answers a request for progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProgressKind {
    /// Only when the watcher is in step (etcd ≥ 3.4.25 / 3.5.8).
    #[default]
    Barrier,
    /// At once, with the store's revision, while events are still owed (etcd 3.4.23).
    Lie,
}

/// The model's limits: etcd's defaults. Simulations lower them to see their effects often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryOptions {
    /// `--max-txn-ops`: operations on one level of a transaction.
    pub max_txn_ops: usize,
    /// `--max-request-bytes`: bytes of a request that writes.
    pub request_bytes_max: usize,
    /// Watch responses above this many bytes come in fragments.
    pub fragment_bytes: usize,
    /// A watcher that catches up gets at most this many revisions in one response.
    pub catch_up_revisions: usize,
    /// Smaller TTLs are raised to this, in seconds.
    pub lease_ttl_min_s: u64,
    /// What a progress answer is worth.
    pub progress: ProgressKind,
    /// The version that it claims to be.
    pub version: String,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        MemoryOptions {
            max_txn_ops: 128,
            request_bytes_max: 3 << 19,
            fragment_bytes: 3 << 19,
            catch_up_revisions: 1_000,
            lease_ttl_min_s: 2,
            progress: ProgressKind::Barrier,
            version: "3.5.22".to_owned(),
        }
    }
}

/// A model of an etcd cluster. Clones are handles on the same one.
///
/// ```
/// # use enlist::store::memory::MemoryEtcd;
/// # use enlist::store::api::{Op, Txn};
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let etcd = MemoryEtcd::new();
/// let txn = Txn { then: vec![Op::put("greeting", "hello")], ..Txn::default() };
/// let answer = etcd.store().txn(txn).await.unwrap();
/// assert_eq!(answer.header.revision, etcd.revision());
/// # });
/// ```
#[derive(Clone)]
pub struct MemoryEtcd(Arc<Shared>);

/// A copy of a store at one moment, with its leases.
#[derive(Debug, Clone)]
pub struct Snapshot {
    mvcc: Mvcc,
    leases: BTreeMap<i64, Lease>,
    cluster_id: u64,
}

pub(in crate::store::memory) struct Shared {
    state: Mutex<State>,
    start: Instant,
}

impl Shared {
    /// Works on the state; leases whose time is over have ended before.
    fn with<T>(&self, work: impl FnOnce(&mut State, Duration) -> T) -> T {
        let now = self.start.elapsed();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.tick(now);
        work(&mut state, now)
    }

    fn instant(&self, since_start: Duration) -> Instant {
        self.start + since_start
    }
}

impl Default for MemoryEtcd {
    fn default() -> Self {
        MemoryEtcd::new()
    }
}

impl MemoryEtcd {
    /// An empty one with etcd's default limits.
    pub fn new() -> Self {
        MemoryEtcd::with_options(MemoryOptions::default())
    }

    /// An empty one.
    pub fn with_options(options: MemoryOptions) -> Self {
        MemoryEtcd(Arc::new(Shared { state: Mutex::new(State::new(options)), start: Instant::now() }))
    }

    /// A client.
    pub fn store(&self) -> Store {
        Store::new(Arc::new(client::MemoryClient::new(self.0.clone())))
    }

    /// How many transactions were refused for their form (too wide, too large, a key twice) until now.
    pub fn refused(&self) -> u64 {
        self.0.with(|state, _| state.refused)
    }

    /// The revision of the last write.
    pub fn revision(&self) -> Revision {
        self.0.with(|state, _| Revision(state.mvcc.revision))
    }

    /// The events of every revision since the store was made, compacted ones included. After a restore, those of the restored
    /// store.
    pub fn history(&self) -> BTreeMap<Revision, Vec<Event>> {
        self.0.with(|state, _| state.mvcc.log().iter().map(|(revision, events)| (Revision(*revision), events.clone())).collect())
    }

    /// The events of the revisions from `first` on: what a checker has not seen yet.
    pub fn history_from(&self, first: Revision) -> BTreeMap<Revision, Vec<Event>> {
        let copy = |(revision, events): (&i64, &Vec<Event>)| (Revision(*revision), events.clone());
        self.0.with(|state, _| state.mvcc.log().range(first.0..).map(copy).collect())
    }

    /// Everything as it was at a revision, compacted ones included.
    pub fn at_revision(&self, revision: Revision) -> BTreeMap<Key, KeyValue> {
        self.0.with(|state, _| state.mvcc.at(revision.0))
    }

    /// Compacts up to `revision`: older ones cannot be read any more, and watchers that still owe events of theirs are
    /// cancelled.
    ///
    /// # Errors
    /// [`StoreError::Future`], [`StoreError::Compacted`] if it already is.
    pub fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.0.with(|state, _| {
            if revision.0 > state.mvcc.revision {
                return Err(StoreError::Future);
            }
            if revision.0 <= state.mvcc.compacted {
                return Err(StoreError::Compacted(Revision::NONE));
            }
            state.mvcc.compacted = revision.0;
            state.watchers.compacted(&state.mvcc);
            Ok(())
        })
    }

    /// A backup.
    pub fn snapshot(&self) -> Snapshot {
        self.0.with(|state, _| Snapshot { mvcc: state.mvcc.clone(), leases: state.leases.clone(), cluster_id: state.cluster_id })
    }

    /// Puts a backup in: the revision goes back, all watches break, leases are there again with their full time. The cluster id
    /// stays what it was in the backup.
    pub fn restore(&self, snapshot: Snapshot) {
        self.0.with(|state, now| {
            state.mvcc = snapshot.mvcc;
            state.leases = snapshot.leases;
            state.cluster_id = snapshot.cluster_id;
            state.refresh_leases(now);
            state.watchers.drop_all();
        });
    }

    /// [`restore`](Self::restore) as by `etcdutl snapshot restore --bump-revision BY --mark-compacted`: the revision is `by` above the
    /// backup's, and nothing before it can be read any more. Keys keep the revisions at which they were written.
    pub fn restore_raised(&self, mut snapshot: Snapshot, by: i64) {
        snapshot.mvcc.revision = snapshot.mvcc.revision.saturating_add(by);
        snapshot.mvcc.compacted = snapshot.mvcc.revision;
        self.restore(snapshot);
    }

    /// Somebody starts the cluster anew with empty disks: another cluster id, revision 1, no leases, all watches break.
    pub fn empty(&self) {
        self.0.with(|state, _| {
            state.mvcc = Mvcc::new();
            state.leases.clear();
            state.cluster_id += 1;
            state.watchers.drop_all();
        });
    }

    /// An election: every lease has its full time again.
    pub fn elect(&self) {
        self.0.with(|state, now| state.refresh_leases(now));
    }

    /// The cluster loses its leader, or has one again: meanwhile no lease ends, and then each has its full time again. (What the
    /// members answer meanwhile is not the model's business: it is one store, and they are in front of it.)
    pub fn set_leaderless(&self, leaderless: bool) {
        self.0.with(|state, now| {
            if state.leaderless && !leaderless {
                state.refresh_leases(now);
            }
            state.leaderless = leaderless;
            // Those who sleep until the next end must look again.
            state.watchers.wake_all();
        });
    }

    /// All watches break, as at a restart of the server; data stay.
    pub fn break_watches(&self) {
        self.0.with(|state, _| state.watchers.drop_all());
    }

    /// Whether the store is out of space: puts and grants are refused.
    pub fn set_full(&self, full: bool) {
        self.0.with(|state, _| state.full = full);
    }

    /// How many watches are open.
    pub fn watchers(&self) -> usize {
        self.0.with(|state, _| state.watchers.len())
    }
}

impl fmt::Debug for MemoryEtcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryEtcd").field("revision", &self.revision()).finish_non_exhaustive()
    }
}
