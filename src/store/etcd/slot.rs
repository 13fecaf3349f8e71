//! One endpoint: its clients, and how each is made. A client is *one* connection, whose member said of which cluster it is
//! before the first request: see [`admit`](super::admit). When the connection breaks, the next call makes another client.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions};
use tokio::time::Instant;
use tracing::{info, warn};

use super::address::Address;
use super::dial;
use super::error::{Failure, classify, is_auth_off};
use super::ring::{Health, Ring};
use super::version;
use crate::store::api::StoreError;

/// How long a login or handshake that was refused is not tried again, at first and later. Meanwhile the refusal is the answer, so
/// that callers may ask again soon. Other settings and other files make new slots.
const REFUSED_FIRST: Duration = Duration::from_millis(500);
/// Each login costs etcd a password hash.
const LOGIN_REFUSED_MAX: Duration = Duration::from_secs(30);
/// The certificate may be the server's, which nothing here sees change.
const TLS_REFUSED_MAX: Duration = Duration::from_secs(4);

/// One endpoint.
pub(super) struct Slot {
    pub(super) address: Address,
    /// The address, for logs and errors.
    pub(super) name: Arc<str>,
    /// Made at the first call; made anew when its connection broke, or its credentials are no longer taken.
    client: tokio::sync::Mutex<Option<Numbered>>,
    health: Mutex<Health>,
    trouble: Mutex<Trouble>,
    refusal: Mutex<Option<Refusal>>,
}

/// A login or a TLS handshake was refused: another one with the same settings and files would be as well.
#[derive(Debug, Clone)]
struct Refusal {
    failure: Failure,
    /// It is tried again then.
    until: Instant,
    pause: Duration,
}

/// A shared client and its number, of all that were ever made.
struct Numbered {
    /// Shared: a clone is eight clients, of which a call needs one.
    client: Arc<Client>,
    number: u64,
}

/// What was logged of an endpoint that is not in order.
#[derive(Debug, Default, Clone, Copy)]
struct Trouble {
    /// It does not answer, and this was logged then.
    dead: Option<Instant>,
    /// It is of this other cluster.
    aside: Option<u64>,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("address", &self.address).field("health", &self.health).finish_non_exhaustive()
    }
}

impl Slot {
    pub(super) fn new(address: Address) -> Self {
        Slot {
            name: address.authority().into(),
            address,
            client: tokio::sync::Mutex::default(),
            health: Mutex::default(),
            trouble: Mutex::default(),
            refusal: Mutex::default(),
        }
    }

    /// The refusal that still counts, if there is one.
    fn refused_lately(&self) -> Option<Failure> {
        let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        refusal.as_ref().filter(|refusal| Instant::now() < refusal.until).map(|refusal| refusal.failure.clone())
    }

    fn note_refusal(&self, failure: &Failure) {
        if !matches!(failure.error, StoreError::Refused(_)) {
            return;
        }
        let mut refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = if failure.endpoint { TLS_REFUSED_MAX } else { LOGIN_REFUSED_MAX };
        let pause = refusal.as_ref().map_or(REFUSED_FIRST, |before| (before.pause * 2).min(longest));
        *refusal = Some(Refusal { failure: failure.clone(), until: Instant::now() + pause, pause });
    }

    pub(super) fn health(&self) -> Health {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_health(&self, change: impl FnOnce(Health) -> Health) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        *health = change(*health);
    }

    /// It answered a call.
    pub(super) fn answers(&self) {
        let dead = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).dead.take();
        if let Some(since) = dead {
            info!(endpoint = %self.name, silent_s = since.elapsed().as_secs(), "an endpoint answers again");
        }
    }

    /// It does not answer, while others do. Logged once until it answers.
    pub(super) fn is_dead(&self, since: Instant) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.dead.is_none() && trouble.aside.is_none() {
            trouble.dead = Some(since);
            warn!(endpoint = %self.name, "an endpoint does not answer; the others are used");
        }
    }

    /// Whether it was of another cluster when it answered last.
    pub(super) fn is_aside(&self) -> bool {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).aside.is_some()
    }

    /// It is of another cluster than the one that is used. Logged once for each.
    pub(super) fn set_aside(&self, cluster: u64, chosen: u64) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.aside.replace(cluster) != Some(cluster) {
            let (cluster, used) = (format!("{cluster:x}"), format!("{chosen:x}"));
            warn!(endpoint = %self.name, cluster, used, "an endpoint is a member of another etcd cluster; it is not used");
        }
    }

    /// It is of the cluster that is used.
    pub(super) fn is_of_ours(&self, cluster: u64) {
        let aside = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).aside.take();
        if aside.is_some() {
            let cluster = format!("{cluster:x}");
            info!(endpoint = %self.name, cluster, "an endpoint is a member of the etcd cluster in use again");
        }
    }
}

impl Ring {
    /// The shared client of an endpoint with its number. `stale`: not the one of this number, its connection broke or its token
    /// is no longer taken. Of many calls that find that out together the first makes a new one: each login costs etcd a password
    /// hash.
    pub(super) async fn client(&self, index: usize, stale: Option<u64>) -> Result<(Arc<Client>, u64), Failure> {
        let mut shared = self.slot(index).client.lock().await;
        // The former client stays until there is another: keep-alives go on over its connection while a login is refused.
        let is_stale = shared.as_ref().is_some_and(|shared| Some(shared.number) == stale);
        let Numbered { client, number } = match &*shared {
            Some(numbered) if !is_stale => numbered,
            _ => {
                // In a box of its own: it is needed once, and would be most of every call's future.
                let client = Arc::new(Box::pin(self.connect(index)).await?);
                shared.insert(Numbered { client, number: next(&self.made) })
            }
        };
        Ok((client.clone(), *number))
    }

    /// A new client, on a connection whose member is of the cluster that is used.
    pub(super) async fn connect(&self, index: usize) -> Result<Client, Failure> {
        let slot = self.slot(index);
        if let Some(failure) = slot.refused_lately() {
            return Err(failure);
        }
        let client = self.login(slot).await.inspect_err(|failure| slot.note_refusal(failure))?;
        match client.maintenance_client().status().await {
            Ok(status) => {
                version::warn_once(status.version(), self.settings.user_name().is_some());
                let cluster = status.header().map_or(0, |header| header.cluster_id());
                self.admit(index, cluster, &client).await?;
                *slot.refusal.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Ok(client)
            }
            Err(error) => {
                let failure = classify(error, &slot.name);
                let may_not_ask = matches!(failure.error, StoreError::Refused(_)) && !failure.endpoint && !failure.token;
                // A user that may not ask for the status may be let in elsewhere: nothing is known of its cluster then.
                if may_not_ask {
                    return Ok(client);
                }
                slot.note_refusal(&failure);
                Err(Failure { no_effect: true, ..failure })
            }
        }
    }

    /// A new client. With a user it authenticates, which is a call; without it nothing is sent.
    pub(super) async fn login(&self, slot: &Slot) -> Result<Client, Failure> {
        let refused = |reason| Failure::request(StoreError::Refused(reason));
        let Some((name, password)) = self.settings.credentials().map_err(refused)? else { return self.anonymous(slot).await };
        let options = options().with_user(name, password);
        match Client::from_channel(self.channel(slot)?, Some(options)).await {
            Err(error) if is_auth_off(&error) => self.anonymous(slot).await,
            // Only the authentication was sent: whatever happened to it, the request itself had no effect.
            answer => answer.map_err(|error| Failure { no_effect: true, token: false, ..classify(error, &slot.name) }),
        }
    }

    /// A client without a user.
    pub(super) async fn anonymous(&self, slot: &Slot) -> Result<Client, Failure> {
        let client = Client::from_channel(self.channel(slot)?, Some(options())).await;
        client.map_err(|error| classify(error, &slot.name))
    }

    fn channel(&self, slot: &Slot) -> Result<Channel, Failure> {
        dial::channel(&slot.address, &self.connect, &self.settings).map(Channel::Tonic).map_err(Failure::request)
    }
}

/// The client must not log in again by itself: it would with the password that it began with, and once for each of its calls.
fn options() -> ConnectOptions {
    ConnectOptions::new().with_require_leader(true)
}

fn next(number: &AtomicU64) -> u64 {
    number.fetch_add(1, Ordering::Relaxed) + 1
}
