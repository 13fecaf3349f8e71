//! Which endpoint a call goes to. One client per endpoint; health is what calls return; nothing is probed.
//!
//! A call stays with the endpoint that answered last. One that fails is left alone for a while (doubling from 50 ms to 1 s,
//! forgotten at its first answer), and the next one is tried: see [`turns`](super::turns).

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::address::Address;
use super::connect::Connect;
use super::dial;
use super::error::{Failure, classify, is_auth_off};
use super::settings::StoreSettings;
use super::turns::{Kind, Turns};
use crate::store::api::StoreError;

/// How long an endpoint is left alone after its first fault.
pub(super) const BACK_OFF_MIN: Duration = Duration::from_millis(50);
/// … and after many, or a quarter of the command time-out if that is less: a call which finds all endpoints left alone waits
/// for one of them, and must have time left for it.
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// A call whose caller gave up after so long says something about its endpoint.
pub(super) const SUSPECT_AFTER: Duration = Duration::from_millis(500);

/// The endpoints of a cluster.
#[derive(Debug)]
pub(super) struct Pool {
    connect: Arc<dyn Connect>,
    settings: Arc<StoreSettings>,
    slots: Vec<Slot>,
    /// The endpoint that answered last.
    current: AtomicUsize,
    version_asked: AtomicBool,
    /// How many shared clients were made.
    made: AtomicU64,
}

/// One endpoint.
struct Slot {
    address: Address,
    /// The address, for logs and errors.
    name: Arc<str>,
    /// Made at the first call; made anew when its credentials are no longer taken.
    client: tokio::sync::Mutex<Option<Numbered>>,
    health: Mutex<Health>,
}

/// A shared client and its number, of all that were ever made.
struct Numbered {
    /// Shared: a clone is eight clients, of which a call needs one.
    client: Arc<Client>,
    number: u64,
}

/// What calls returned.
#[derive(Debug, Default, Clone, Copy)]
struct Health {
    faults: u32,
    /// Left alone until then.
    until: Option<Instant>,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("address", &self.address).field("health", &self.health).finish_non_exhaustive()
    }
}

impl Pool {
    pub(super) fn new(connect: Arc<dyn Connect>, settings: StoreSettings) -> Result<Self, StoreError> {
        let slots = settings.endpoints.iter().map(|text| {
            let address = Address::parse(text, settings.wants_tls()).map_err(StoreError::Other)?;
            Ok(Slot {
                name: address.authority().into(),
                address,
                client: tokio::sync::Mutex::default(),
                health: Mutex::default(),
            })
        });
        let slots: Vec<Slot> = slots.collect::<Result<_, StoreError>>()?;
        if slots.is_empty() {
            return Err(StoreError::Other("no endpoints were given".to_owned()));
        }
        // Thousands of agents have the same list: they must not all begin with the first.
        let current = AtomicUsize::new(fastrand::usize(..slots.len()));
        let (version_asked, made) = (AtomicBool::new(false), AtomicU64::new(0));
        Ok(Pool { connect, settings: Arc::new(settings), slots, current, version_asked, made })
    }

    /// How many endpoints there are; at least one.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn settings(&self) -> &StoreSettings {
        &self.settings
    }

    /// Whether this is the first time that this is asked: the server's version is looked at once.
    pub(super) fn first_contact(&self) -> bool {
        !self.version_asked.swap(true, Ordering::Relaxed)
    }

    /// Makes a call on the endpoint's shared client, with fail-over, within the command time-out. Answers also the endpoint.
    pub(super) async fn call<T, F>(&self, kind: Kind, request: impl Fn(&Client) -> F) -> Result<(T, usize), StoreError>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        self.call_shared(kind, |client, endpoint| {
            let answer = request(&client);
            async move { answer.await.map_err(|error| classify(error, &endpoint)) }
        })
        .await
    }

    /// Like [`call`](Self::call), with the endpoint's name.
    pub(super) async fn call_shared<T, F>(
        &self,
        kind: Kind,
        request: impl Fn(Arc<Client>, Arc<str>) -> F,
    ) -> Result<(T, usize), StoreError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut turns = Turns::new(self, kind);
        loop {
            let turn = turns.next().await?;
            let slot = self.slot(turn.index);
            let used = AtomicU64::new(0);
            let attempt = async {
                let (client, number) = slot.client(self, turn.stale).await?;
                used.store(number, Ordering::Relaxed);
                request(client, slot.name.clone()).await
            };
            let suspicion = self.suspect(turn.index);
            let outcome = timeout_at(turn.until, attempt).await;
            suspicion.dispel();
            if let Some(answer) = turns.settle(&turn, used.into_inner(), outcome)? {
                return Ok((answer, turn.index));
            }
        }
    }

    /// Like [`call`](Self::call), with a client, and so a connection, of its own, and the endpoint's name; for what may be done
    /// twice.
    pub(super) async fn call_alone<T, F>(&self, request: impl Fn(Arc<Client>, Arc<str>) -> F) -> Result<(T, usize), StoreError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut turns = Turns::new(self, Kind::Read);
        loop {
            let turn = turns.next().await?;
            let slot = self.slot(turn.index);
            let attempt = async { request(Arc::new(Box::pin(slot.connect(self)).await?), slot.name.clone()).await };
            let suspicion = self.suspect(turn.index);
            let outcome = timeout_at(turn.until, attempt).await;
            suspicion.dispel();
            if let Some(answer) = turns.settle(&turn, 0, outcome)? {
                return Ok((answer, turn.index));
            }
        }
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
            match self.health(index).until {
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
        self.set_health(index, |_| Health::default());
        self.current.store(index, Ordering::Relaxed);
    }

    /// From now on a caller that gives up has waited for this endpoint.
    pub(super) fn suspect(&self, index: usize) -> Suspicion<'_> {
        Suspicion { pool: self, index, began: Instant::now(), holds: true }
    }

    /// An endpoint failed. The next call begins with another one, also when this one's time is over by then.
    pub(super) fn bad(&self, index: usize) {
        let next = (index + 1) % self.slots.len();
        let _ = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
        let now = Instant::now();
        let longest = BACK_OFF_MAX.min(self.settings.command_timeout / 4);
        self.set_health(index, |health| {
            // Calls that were under way together count once.
            if health.until.is_some_and(|until| until > now) {
                return health;
            }
            let wait = BACK_OFF_MIN.saturating_mul(1 << health.faults.min(10)).min(longest);
            let wait = wait.mul_f64(0.75 + fastrand::f64() / 4.0);
            Health { faults: health.faults.saturating_add(1), until: Some(now + wait) }
        });
    }

    /// The endpoint's name, for logs and errors.
    pub(super) fn endpoint(&self, index: usize) -> String {
        self.slot(index).address.authority()
    }

    fn slot(&self, index: usize) -> &Slot {
        // Invariant: there is at least one slot, and every index came from here.
        &self.slots[index % self.slots.len()]
    }

    fn health(&self, index: usize) -> Health {
        *self.slot(index).health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_health(&self, index: usize, change: impl FnOnce(Health) -> Health) {
        let mut health = self.slot(index).health.lock().unwrap_or_else(PoisonError::into_inner);
        *health = change(*health);
    }

    /// "Unreachable" names all endpoints, not only the last that was tried.
    pub(super) fn name_all(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Unreachable { reason, .. } => {
                StoreError::Unreachable { endpoints: self.settings.endpoints.join(","), reason }
            }
            other => other,
        }
    }
}

/// A call under way at an endpoint. Dropped before its end, after a while, it counts as a fault of the endpoint: who limits a
/// call more tightly than the pool does (a keep-alive by its TTL) would else go back to the same dead endpoint for ever.
pub(super) struct Suspicion<'a> {
    pool: &'a Pool,
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
            self.pool.bad(self.index);
        }
    }
}

impl Slot {
    /// The shared client with its number. `stale`: not the one of this number, its token is no longer taken. Of many calls that
    /// find that out together the first makes a new one: each login costs etcd a password hash.
    async fn client(&self, pool: &Pool, stale: Option<u64>) -> Result<(Arc<Client>, u64), Failure> {
        let mut shared = self.client.lock().await;
        if shared.as_ref().is_some_and(|shared| Some(shared.number) == stale) {
            *shared = None;
        }
        let Numbered { client, number } = match &*shared {
            Some(numbered) => numbered,
            None => {
                // In a box of its own: it is needed once, and would be most of every call's future.
                let client = Arc::new(Box::pin(self.connect(pool)).await?);
                shared.insert(Numbered { client, number: pool.made.fetch_add(1, Ordering::Relaxed) + 1 })
            }
        };
        Ok((client.clone(), *number))
    }

    /// A new client. With a user it authenticates, which is a call; without it nothing is sent.
    async fn connect(&self, pool: &Pool) -> Result<Client, Failure> {
        let (endpoint, settings) = (self.address.authority(), &pool.settings);
        let channel = || dial::channel(&self.address, &pool.connect, settings).map(Channel::Tonic).map_err(Failure::request);
        let options = ConnectOptions::new().with_require_leader(true).with_auto_token_refresh(true);
        let Some((name, password)) = settings.credentials() else {
            return Client::from_channel(channel()?, Some(options)).await.map_err(|error| classify(error, &endpoint));
        };
        match Client::from_channel(channel()?, Some(options.clone().with_user(name, password))).await {
            Err(error) if is_auth_off(&error) => {
                Client::from_channel(channel()?, Some(options)).await.map_err(|error| classify(error, &endpoint))
            }
            // Only the authentication was sent: whatever happened to it, the request itself had no effect.
            answer => answer.map_err(|error| Failure { no_effect: true, token: false, ..classify(error, &endpoint) }),
        }
    }
}
