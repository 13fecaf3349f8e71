//! Faults between a client and its store: delays, requests that never arrive, arrive twice or arrive late, answers that are lost,
//! writers that were faster, watches that break, stall, lag or repeat, clients that are cut off, or that stand still between two
//! calls. For simulations, on tokio's clock and from a seed: the same seed over the same work injects the same faults.
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

/// What may go wrong, and how often: each `f64` is a probability per call, or per watch message.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultPlan {
    /// Each call takes up to this long on its way and up to this long back.
    pub delay_max: Duration,
    /// The request is not sent (`StoreError::Unreachable`).
    pub unreachable: f64,
    /// The request is done, its answer is lost (`StoreError::Timeout`).
    pub answer_lost: f64,
    /// The request is done late, and the client never hears of it.
    pub late: f64,
    /// A transaction is done twice, the second time later.
    pub duplicate: f64,
    /// A late request arrives this long after it was sent at the least: the client may still wait for it …
    pub late_min: Duration,
    /// … and up to this much later. So does a second one, counted from the first.
    pub late_max: Duration,
    /// Just before a transaction arrives somebody else writes a key that it compares; the value stays the same.
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
    /// After being cut off for so long watches break (HTTP/2 keep-alive).
    pub silence_max: Duration,
}

impl Default for FaultPlan {
    /// Nothing goes wrong and nothing takes time.
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

/// How often each fault was injected. A simulation asserts that its faults had an effect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Calls that were delayed.
    pub delayed: u64,
    /// Requests not sent.
    pub unreachable: u64,
    /// Requests done whose answer was lost.
    pub answers_lost: u64,
    /// Requests done late.
    pub late: u64,
    /// Writes that a [`Snare`] made late.
    pub snared: u64,
    /// Transactions done twice.
    pub duplicates: u64,
    /// Transactions whose keys were written by somebody else just before.
    pub conflicts: u64,
    /// Watches that began too early.
    pub watches_repeated: u64,
    /// Watch messages that were delayed.
    pub watches_delayed: u64,
    /// Watches broken.
    pub watches_broken: u64,
    /// Watches gone silent.
    pub watches_stalled: u64,
    /// Calls of clients that were cut off.
    pub cut_off: u64,
    /// Calls that the store refused because it has no space.
    pub no_space: u64,
    /// Calls and watches that came too late for what they asked for: it was compacted.
    pub compacted: u64,
    /// Clients that came to stand still at a call.
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
    /// Late requests that are still to be done.
    under_way: usize,
    snares: Vec<Snare>,
}

impl Faults {
    /// With a plan, from a seed.
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

    /// From now on by this plan.
    pub fn set_plan(&self, plan: FaultPlan) {
        self.lock().plan = plan;
    }

    /// From now on nothing goes wrong any more. Clients that are cut off stay so, late requests still arrive.
    pub fn calm(&self) {
        self.set_plan(FaultPlan::default());
        self.clear_snares();
    }

    /// Waits for one certain write, of whatever client, and makes it late.
    pub fn set_snare(&self, snare: Snare) {
        self.lock().snares.push(snare);
    }

    /// How many have not caught their write yet.
    pub fn snares_set(&self) -> usize {
        self.lock().snares.len()
    }

    /// Takes them all away.
    pub fn clear_snares(&self) {
        self.lock().snares.clear();
    }

    /// What was injected so far.
    pub fn counts(&self) -> FaultCounts {
        self.lock().counts
    }

    /// Late requests that are still to be done: nothing is quiet before this is 0.
    pub fn under_way(&self) -> usize {
        self.lock().under_way
    }

    /// A client of `store` with a link of its own.
    pub fn client(&self, store: Store) -> FaultyClient {
        let random = self.lock().random.fork();
        let link = Arc::new(Link::new(self.clone(), random));
        FaultyClient { store: Store::new(Arc::new(backend::Faulty::new(store, link.clone()))), link }
    }

    /// How late the snare makes a transaction that is caught in one; it is used up.
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
    /// The store as this client sees it.
    pub fn store(&self) -> Store {
        self.store.clone()
    }

    /// Cuts it off: calls time out without effect, watches are silent and then break.
    pub fn cut(&self) {
        self.link.set_cut(Cut::Both);
    }

    /// Its requests arrive, but it hears nothing.
    pub fn cut_answers(&self) {
        self.link.set_cut(Cut::Answers);
    }

    /// All but its keep-alives is cut off: they need no leave to read, and may go by another connection.
    pub fn cut_all_but_beats(&self) {
        self.link.set_cut(Cut::AllButBeats);
    }

    /// Connects it again.
    pub fn heal(&self) {
        self.link.set_cut(Cut::No);
    }

    /// It stands still: its calls are not sent, and it hears nothing, until it is thawed. So does a process that is paused.
    pub fn freeze(&self) {
        self.link.gate.freeze();
    }

    /// It stands still at one of its calls: after `calls` others, before that one is sent or, if `done`, after the store has
    /// done it. [`frozen`](Self::frozen) tells when.
    pub fn freeze_at(&self, calls: u32, done: bool) {
        self.link.gate.set_fuse(Some(Fuse { calls, done }));
    }

    /// It goes on: what it was about to send is sent, what was answered meanwhile arrives.
    pub fn thaw(&self) {
        self.link.gate.thaw();
    }

    /// Whether it stands still.
    pub fn is_frozen(&self) -> bool {
        self.link.gate.is_frozen()
    }

    /// Ends when it stands still. Cancel-safe.
    pub async fn frozen(&self) {
        self.link.gate.wait(true).await;
    }

    /// Ends when it does not stand still. Cancel-safe.
    pub async fn thawed(&self) {
        self.link.gate.wait(false).await;
    }

    /// Whether it is cut off, in whatever way.
    pub fn is_cut(&self) -> bool {
        self.link.cut() != Cut::No
    }
}
