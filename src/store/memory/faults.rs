//! Faults between a client and its store: delays, requests that never arrive, arrive twice or arrive late, lost
//! answers, faster rival writers, watches that break, stall, lag or repeat, clients that are cut off, or that stand
//! still between two calls. They are for simulations, on tokio's clock and from a seed: the same seed over the same
//! work injects the same faults.
//!
//! ```
//! # use enlist::store::memory::{MemoryEtcd, faults::{FaultPlan, Faults}};
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! let etcd = MemoryEtcd::new();
//! let faults = Faults::new(7, FaultPlan { unreachable: 1.0, ..FaultPlan::default() });
//! let client = faults.client(etcd.store());
//! assert!(client.store().get("a").await.is_err());
//! assert_eq!(faults.counts().unreachable, 1);
//! # });
//! ```

mod backend;
mod gate;
mod link;
mod snare;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use self::snare::Snare;

use self::gate::Fuse;
use self::link::{Cut, Link};
use crate::store::api::{Store, Txn};

/// The faults and their frequency: each `f64` is a probability per call, or per watch message.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultPlan {
    /// Each call takes up to this long on its way and up to this long back.
    pub delay_max: Duration,
    /// The request is not sent (`StoreError::Unreachable`).
    pub unreachable: f64,
    /// The store executes the request, but its answer is lost (`StoreError::Timeout`).
    pub answer_lost: f64,
    /// The store executes the request late, and the client never gets an answer.
    pub late: f64,
    /// The store executes a transaction twice, the second time later.
    pub duplicate: f64,
    /// The smallest delay of a late request: the client may still wait for it …
    pub late_min: Duration,
    /// … and the largest delay after that. The second execution of a duplicate comes at most this long after the first.
    pub late_max: Duration,
    /// Just before a transaction arrives a rival client rewrites a key that it compares; the value stays the same.
    pub conflict: f64,
    /// A watch starts a few revisions too early, and repeats events (etcd before 3.4.24 and 3.5.8).
    pub watch_repeated: f64,
    /// A watch breaks; messages under way are lost.
    pub watch_broken: f64,
    /// A watch goes silent for ever, without an error.
    pub watch_stalled: f64,
    /// Each watch message takes up to this long.
    pub watch_delay_max: Duration,
    /// The time-out of a call.
    pub timeout: Duration,
    /// Watches of a client that is cut off break after this long (HTTP/2 keep-alive).
    pub silence_max: Duration,
}

impl Default for FaultPlan {
    /// No fault occurs and no call takes time.
    fn default() -> Self {
        FaultPlan {
            delay_max: Duration::ZERO,
            unreachable: 0.0,
            answer_lost: 0.0,
            late: 0.0,
            duplicate: 0.0,
            late_min: Duration::from_secs(5),
            late_max: Duration::from_secs(10),
            conflict: 0.0,
            watch_repeated: 0.0,
            watch_broken: 0.0,
            watch_stalled: 0.0,
            watch_delay_max: Duration::ZERO,
            timeout: Duration::from_secs(5),
            silence_max: Duration::from_secs(13),
        }
    }
}

/// The count of each injected fault. A simulation asserts that its faults had an effect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Delayed calls.
    pub delayed: u64,
    /// Requests that were not sent.
    pub unreachable: u64,
    /// Executed requests whose answer was lost.
    pub answers_lost: u64,
    /// Requests executed late.
    pub late: u64,
    /// Writes delayed by a [`Snare`].
    pub snared: u64,
    /// Transactions executed twice.
    pub duplicates: u64,
    /// Transactions whose keys a rival client wrote just before.
    pub conflicts: u64,
    /// Watches that began too early.
    pub watches_repeated: u64,
    /// Delayed watch messages.
    pub watches_delayed: u64,
    /// Broken watches.
    pub watches_broken: u64,
    /// Watches that went silent.
    pub watches_stalled: u64,
    /// Calls of clients that were cut off.
    pub cut_off: u64,
    /// Calls that the store rejected because it has no space.
    pub no_space: u64,
    /// Calls and watches whose revision was already compacted.
    pub compacted: u64,
    /// Clients that stopped at a call.
    pub frozen: u64,
}

/// Injects faults for any number of clients, from one seed.
#[derive(Debug, Clone)]
pub struct Faults(Arc<Mutex<Controller>>);

#[derive(Debug)]
struct Controller {
    plan: FaultPlan,
    counts: FaultCounts,
    random: fastrand::Rng,
    /// Late requests that the store has yet to execute.
    under_way: usize,
    snares: Vec<Snare>,
}

impl Faults {
    /// Creates the faults of a plan, from a seed.
    pub fn new(seed: u64, plan: FaultPlan) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Faults(Arc::new(Mutex::new(Controller {
            plan,
            counts: FaultCounts::default(),
            random,
            under_way: 0,
            snares: Vec::new(),
        })))
    }

    /// Replaces the plan from now on.
    pub fn set_plan(&self, plan: FaultPlan) {
        self.lock().plan = plan;
    }

    /// Injects no new faults from now on. Clients stay cut off, and late requests still arrive.
    pub fn calm(&self) {
        self.set_plan(FaultPlan::default());
        self.clear_snares();
    }

    /// Waits for one specific write of any client, and makes it late.
    pub fn set_snare(&self, snare: Snare) {
        self.lock().snares.push(snare);
    }

    /// The number of snares that have not caught their write yet.
    pub fn snares_set(&self) -> usize {
        self.lock().snares.len()
    }

    /// Removes all snares.
    pub fn clear_snares(&self) {
        self.lock().snares.clear();
    }

    /// The counts so far.
    pub fn counts(&self) -> FaultCounts {
        self.lock().counts
    }

    /// Late requests that the store has yet to execute: a simulation is not quiet before this is 0.
    pub fn under_way(&self) -> usize {
        self.lock().under_way
    }

    /// A client of `store` with its own link.
    pub fn client(&self, store: Store) -> FaultyClient {
        let random = self.lock().random.fork();
        let link = Arc::new(Link::new(self.clone(), random));
        FaultyClient { store: Store::new(Arc::new(backend::Faulty::new(store, link.clone()))), link }
    }

    /// The delay of a transaction that a snare catches; this uses the snare up.
    fn spring(&self, txn: &Txn) -> Option<Duration> {
        let mut controller = self.lock();
        let caught = controller.snares.iter().position(|snare| snare.catches(txn))?;
        controller.counts.snared += 1;
        Some(controller.snares.remove(caught).late)
    }

    fn lock(&self) -> MutexGuard<'_, Controller> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, change: impl FnOnce(&mut FaultCounts)) {
        change(&mut self.lock().counts);
    }
}

/// A client whose link to the store can fail.
#[derive(Debug, Clone)]
pub struct FaultyClient {
    store: Store,
    link: Arc<Link>,
}

impl FaultyClient {
    /// The store through the link of this client.
    pub fn store(&self) -> Store {
        self.store.clone()
    }

    /// Cuts the client off: calls time out without effect, watches are silent and then break.
    pub fn cut(&self) {
        self.link.set_cut(Cut::Both);
    }

    /// Lets requests arrive, but no answers.
    pub fn cut_answers(&self) {
        self.link.set_cut(Cut::Answers);
    }

    /// Cuts off all but the keep-alives: they need no read permission, and may use another connection.
    pub fn cut_all_but_beats(&self) {
        self.link.set_cut(Cut::AllButBeats);
    }

    /// Connects the client again.
    pub fn heal(&self) {
        self.link.set_cut(Cut::No);
    }

    /// Freezes the client, like a paused process: it sends no call and receives nothing until it is thawed.
    pub fn freeze(&self) {
        self.link.gate.freeze();
    }

    /// Freezes the client at one of its calls: after `calls` others, before it sends that one or, if `done`, after the
    /// store has executed it. [`frozen`](Self::frozen) waits for that.
    pub fn freeze_at(&self, calls: u32, done: bool) {
        self.link.gate.set_fuse(Some(Fuse { calls, done }));
    }

    /// Resumes the client: it sends its pending call, and the answers received meanwhile arrive.
    pub fn thaw(&self) {
        self.link.gate.thaw();
    }

    /// Whether the client is frozen.
    pub fn is_frozen(&self) -> bool {
        self.link.gate.is_frozen()
    }

    /// Completes when the client is frozen. Cancel-safe.
    pub async fn frozen(&self) {
        self.link.gate.wait(true).await;
    }

    /// Completes when the client is not frozen. Cancel-safe.
    pub async fn thawed(&self) {
        self.link.gate.wait(false).await;
    }

    /// Whether the client is cut off in any way.
    pub fn is_cut(&self) -> bool {
        self.link.cut() != Cut::No
    }
}
