//! The endpoints of a store under one set of settings, and the health of each. One client per endpoint; health is what calls
//! return. A call stays with the endpoint that answered last. One that fails is left alone for a while (doubling from 50 ms to
//! 1 s, forgotten at its first answer), and the next one is tried: see [`turns`](super::turns).
//!
//! Other settings make another ring: see [`pool`](super::pool). Clients are made in [`slot`](super::slot).

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::address::Address;
use super::cluster::Clusters;
use super::connect::Connect;
use super::settings::StoreSettings;
use super::slot::Slot;
use crate::store::api::StoreError;

/// How long an endpoint is left alone after its first fault.
pub(super) const BACK_OFF_MIN: Duration = Duration::from_millis(50);
/// … and after many, or a quarter of the command time-out if that is less: a call which finds all endpoints left alone waits
/// for one of them, and must have time left for it.
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// A call whose caller gave up after so long says something about its endpoint.
pub(super) const SUSPECT_AFTER: Duration = Duration::from_millis(500);

/// Endpoints, and the settings to reach them.
#[derive(Debug)]
pub(super) struct Ring {
    /// Itself, for what goes on beside a call.
    pub(super) me: Weak<Ring>,
    pub(super) connect: Arc<dyn Connect>,
    pub(super) settings: Arc<StoreSettings>,
    pub(super) slots: Vec<Slot>,
    /// The endpoint that answered last.
    current: AtomicUsize,
    /// How many shared clients were made.
    pub(super) made: AtomicU64,
    clusters: Mutex<Clusters>,
    /// Held by the call that asks the endpoints which cluster they are of.
    pub(super) learning: tokio::sync::Mutex<()>,
    /// Other settings are in force.
    pub(super) retired: CancellationToken,
    /// Whether somebody looks after endpoints in trouble.
    pub(super) has_lookout: AtomicBool,
    /// Whether it looks at all endpoints, not only at those in trouble.
    pub(super) looks_at_all: AtomicBool,
}

/// What calls to an endpoint returned.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Health {
    pub(super) faults: u32,
    /// Left alone until then.
    pub(super) until: Option<Instant>,
    /// When the first of these faults was.
    pub(super) since: Option<Instant>,
}

impl Ring {
    pub(super) fn new(connect: Arc<dyn Connect>, settings: StoreSettings, known: Option<u64>) -> Result<Arc<Self>, StoreError> {
        let mut slots: Vec<Slot> = Vec::new();
        for text in &settings.endpoints {
            let address = Address::parse(text, settings.wants_tls()).map_err(StoreError::Other)?;
            // One that is named twice would count twice where endpoints are counted.
            if slots.iter().all(|slot| slot.address != address) {
                slots.push(Slot::new(address));
            }
        }
        if slots.is_empty() {
            return Err(StoreError::Other("no endpoints were given".to_owned()));
        }
        let mut clusters = Clusters::new(slots.len());
        known.into_iter().for_each(|known| clusters.expect(known));
        Ok(Arc::new_cyclic(|me| Ring {
            me: me.clone(),
            connect,
            settings: Arc::new(settings),
            // Thousands of agents have the same list: they must not all begin with the first.
            current: AtomicUsize::new(fastrand::usize(..slots.len())),
            slots,
            made: AtomicU64::new(0),
            clusters: Mutex::new(clusters),
            learning: tokio::sync::Mutex::default(),
            retired: CancellationToken::new(),
            has_lookout: AtomicBool::new(false),
            looks_at_all: AtomicBool::new(false),
        }))
    }

    /// The endpoint that answered last.
    pub(super) fn used(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// How many endpoints there are; at least one.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn clusters(&self) -> MutexGuard<'_, Clusters> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The endpoint to use: the current one, else the next that is not left alone and was not tried; if there is none, the one
    /// whose time is over first, then. (So calls wait, and a dead cluster is not stormed.)
    pub(super) async fn choose(&self, tried: &[bool], deadline: Instant) -> usize {
        let (count, current) = (self.slots.len(), self.current.load(Ordering::Relaxed));
        let now = Instant::now();
        let mut earliest: Option<(Instant, usize)> = None;
        for index in (0..count).map(|step| (current + step) % count) {
            if tried.get(index).copied().unwrap_or(true) {
                continue;
            }
            match self.slot(index).health().until {
                Some(until) if until > now => {
                    if earliest.is_none_or(|(best, _)| until < best) {
                        earliest = Some((until, index));
                    }
                }
                _ => return index,
            }
        }
        let Some((until, index)) = earliest else { return current };
        sleep_until(until.min(deadline)).await;
        index
    }

    /// An endpoint answered.
    pub(super) fn good(&self, index: usize) {
        let slot = self.slot(index);
        slot.set_health(|_| Health::default());
        self.current.store(index, Ordering::Relaxed);
        slot.answers();
    }

    /// From now on a caller that gives up has waited for this endpoint.
    pub(super) fn suspect(&self, index: usize) -> Suspicion<'_> {
        Suspicion { ring: self, index, began: Instant::now(), holds: true }
    }

    /// An endpoint failed.
    pub(super) fn bad(&self, index: usize) {
        if !self.slot(index).is_aside() {
            self.clusters().silent(index);
        }
        self.leave_alone(index);
    }

    /// The next call begins with another endpoint, also when this one's time is over by then.
    pub(super) fn leave_alone(&self, index: usize) {
        let next = (index + 1) % self.slots.len();
        let _ = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
        let now = Instant::now();
        let longest = BACK_OFF_MAX.min(self.settings.command_timeout / 4);
        self.slot(index).set_health(|health| {
            // Calls that were under way together count once.
            if health.until.is_some_and(|until| until > now) {
                return health;
            }
            let wait = BACK_OFF_MIN.saturating_mul(1 << health.faults.min(10)).min(longest);
            let wait = wait.mul_f64(0.75 + fastrand::f64() / 4.0);
            Health { faults: health.faults.saturating_add(1), until: Some(now + wait), since: health.since.or(Some(now)) }
        });
        self.look_out();
    }

    /// The endpoint's name, for logs and errors.
    pub(super) fn endpoint(&self, index: usize) -> &str {
        &self.slot(index).name
    }

    pub(super) fn slot(&self, index: usize) -> &Slot {
        // Invariant: there is at least one slot, and every index came from here.
        &self.slots[index % self.slots.len()]
    }

    /// "Unreachable" names all endpoints, not only the last that was tried.
    pub(super) fn name_all(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Unreachable { reason, .. } => StoreError::Unreachable { endpoints: self.names().join(","), reason },
            other => other,
        }
    }

    /// The endpoints' names.
    pub(super) fn names(&self) -> Vec<&str> {
        self.slots.iter().map(|slot| &*slot.name).collect()
    }
}

/// A call under way at an endpoint. Dropped before its end, after a while, it counts as a fault of the endpoint: who limits a
/// call more tightly than the pool does (a keep-alive by its TTL) would else go back to the same dead endpoint for ever.
pub(super) struct Suspicion<'a> {
    ring: &'a Ring,
    index: usize,
    began: Instant,
    holds: bool,
}

impl Suspicion<'_> {
    /// The call came to an end by itself.
    pub(super) fn dispel(mut self) {
        self.holds = false;
    }
}

impl Drop for Suspicion<'_> {
    fn drop(&mut self) {
        if self.holds && self.began.elapsed() >= SUSPECT_AFTER {
            self.ring.bad(self.index);
        }
    }
}

/// An endpoint of a ring: where a stream goes.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    pub(super) ring: Arc<Ring>,
    pub(super) index: usize,
}

impl Spot {
    pub(super) fn good(&self) {
        self.ring.good(self.index);
    }

    pub(super) fn bad(&self) {
        self.ring.bad(self.index);
    }

    pub(super) fn name(&self) -> &str {
        self.ring.endpoint(self.index)
    }
}
