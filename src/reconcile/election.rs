//! Elections of the leader of a role by etcd's own recipe (`clientv3/concurrency.Election`), so that `etcdctl elect`
//! sees them.
//!
//! Every candidate puts its own key on its own lease; the candidate with the oldest key leads. Leadership alone permits
//! no write (an etcd lock never does): every write of a leader compares its key, see [`Fence`].
//!
//! A leader that etcd refuses blocks a candidate that etcd would admit: it gives up leadership and rests before it campaigns
//! again.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::model::names::Revision;
use crate::reconcile::trouble::Troubles;
use crate::reconcile::{Context, Site};
use crate::store::api::{Compare, Event, Key, KeyValue, LeaseId, Op, OpResult, Store, StoreError, Txn};
use crate::store::backoff::{Backoff, REFUSED_CAP};
use crate::store::committer::Fence;
use crate::store::feed::{Feed, FeedSettings, Scope, Update};
use crate::store::keys::Role;
use crate::store::lease::{Lease, Overslept};
use crate::store::outage::Outage;

/// This instance leads until it loses the lease or another client deletes its key.
#[derive(Debug)]
pub struct Leadership {
    /// The fence that every write of the leader carries.
    pub fence: Fence,
    /// The lease of the leader key.
    pub lease: Lease,
    /// The store's answers to the leader's requests, as the role notes them.
    pub troubles: Troubles,
    candidates: Candidates,
    refused: bool,
}

impl Leadership {
    /// Completes when this instance has lost leadership: its key or lease is gone, or etcd has refused its requests for
    /// longer than a TTL. Cancel-safe.
    pub async fn lost(&mut self) {
        loop {
            tokio::select! {
                biased;
                () = self.lease.lost() => return,
                () = self.troubles.refused_for_long() => {
                    self.refused = true;
                    return;
                }
                () = self.candidates.changed() => {
                    if self.candidates.created(&self.fence.key) != Some(self.fence.created) {
                        return;
                    }
                }
            }
        }
    }

    /// Steps down cleanly, so that a standby takes over at once instead of after a TTL.
    pub async fn resign(self, store: &Store) {
        let delete =
            Txn { compares: vec![self.fence.compare()], then: vec![Op::delete(self.fence.key.clone())], otherwise: vec![] };
        // Best effort: if etcd does not answer now, the key expires with the lease.
        let _ = store.txn(delete).await;
        let _ = self.lease.revoke(store).await;
    }
}

/// The interval at which a standby checks that etcd still admits it. A refused standby keeps its lease, and its key leads
/// when it is the oldest.
const ADMITTED_EVERY: Duration = Duration::from_secs(30);

/// The elections of one role in this process, one after the other.
#[derive(Debug)]
pub struct Election<'a> {
    site: &'a Site,
    role: Role,
    ttl: Duration,
    context: &'a Context,
    rest: Backoff,
    rests_until: Option<Instant>,
}

impl<'a> Election<'a> {
    /// The elections of this role at this site. `ttl` is that of the leader's lease.
    pub fn new(site: &'a Site, role: Role, ttl: Duration, context: &'a Context) -> Self {
        // From half a TTL: after a whole TTL, the key of a leader that may not even delete it has expired.
        let rest = Backoff::new(context.rng("election-rest"), ttl, REFUSED_CAP.max(ttl));
        Election { site, role, ttl, context, rest, rests_until: None }
    }

    /// Campaigns until it wins (it retries for ever), after the rest of a refused leader; `None` = a shutdown.
    pub async fn win(&mut self) -> Option<Leadership> {
        if let Some(until) = self.rests_until.take() {
            tokio::select! {
                biased;
                () = self.context.shutdown.cancelled() => return None,
                () = tokio::time::sleep_until(until) => {}
            }
        }
        campaign(self.site, self.role, self.ttl, self.context).await
    }

    /// Ends leadership, for any reason.
    pub async fn leave(&mut self, leadership: Leadership) {
        let refused = leadership.refused;
        let why = leadership.troubles.text();
        leadership.resign(&self.site.store).await;
        if refused {
            let rest = self.rest.next_delay();
            self.rests_until = Some(Instant::now() + rest);
            warn!(reason = why, rest_s = rest.as_secs(), "gave up leadership: etcd refuses its requests");
        } else {
            self.rest.reset();
            info!("lost leadership");
        }
    }
}

/// Campaigns until it wins (it retries for ever) or `context.shutdown` is cancelled (`None`).
pub async fn campaign(site: &Site, role: Role, ttl: Duration, context: &Context) -> Option<Leadership> {
    let (mut backoff, mut outage) = (Backoff::reconnect(context.rng("election")), Outage::default());
    while !context.shutdown.is_cancelled() {
        match candidacy(site, role, ttl, context).await {
            Ok(Some(leadership)) => {
                info!(rev = %leadership.fence.created, "leading");
                return Some(leadership);
            }
            Ok(None) => {
                backoff.reset();
                outage = Outage::default();
            }
            Err(error) => {
                let delay = backoff.delay_after(&error);
                if outage.is_due(Instant::now()) {
                    warn!(%error, "cannot stand for election; retrying");
                }
                tokio::select! {
                    biased;
                    () = context.shutdown.cancelled() => return None,
                    () = tokio::time::sleep(delay) => {}
                }
            }
        }
    }
    None
}

/// One candidacy: from the lease to leadership, or to the loss of the key or a shutdown (`None`). A candidate that
/// stops deletes its key: a key left behind would lead for a TTL without a process.
async fn candidacy(site: &Site, role: Role, ttl: Duration, context: &Context) -> Result<Option<Leadership>, StoreError> {
    let lease = Lease::grant(&site.store, ttl, Overslept::Asked, context.rng("leader-lease")).await?;
    let key = site.prefix.key(format_args!("leaders/{role}/{:016x}", lease.id().0));
    let created = stand(&site.store, &key, lease.id(), &context.identity).await?;
    let mut candidates = Candidates::open(site, role, context);
    info!("standing by");
    let mut ask_at = Instant::now() + ADMITTED_EVERY;
    loop {
        tokio::select! {
            biased;
            () = context.shutdown.cancelled() => {
                // Best effort: if etcd does not answer now, the key expires with the lease.
                let _ = lease.revoke(&site.store).await;
                return Ok(None);
            }
            () = lease.lost() => return Ok(None),
            () = candidates.changed() => {}
            () = tokio::time::sleep_until(ask_at) => {
                ask_at = Instant::now() + ADMITTED_EVERY;
                if let Err(error @ StoreError::Refused(_)) = site.store.get(key.clone()).await {
                    return Err(error);
                }
            }
        }
        // A view older than this candidate's key cannot show the key yet.
        if candidates.revision < created {
            continue;
        }
        if candidates.created(&key) != Some(created) {
            return Ok(None);
        }
        if candidates.oldest() == Some(created) {
            let fence = Fence { key, created };
            let troubles = Troubles::new(lease.ttl());
            return Ok(Some(Leadership { fence, lease, troubles, candidates, refused: false }));
        }
    }
}

/// Puts the key of the candidate and returns its create_revision. If the answer to the put was lost, a retry finds the
/// key.
async fn stand(store: &Store, key: &Key, lease: LeaseId, identity: &str) -> Result<Revision, StoreError> {
    let put = Op::Put { key: key.clone(), value: identity.to_owned().into(), lease };
    let txn = Txn {
        compares: vec![Compare::Created(key.clone(), Revision::NONE)],
        then: vec![put],
        otherwise: vec![Op::get(key.clone())],
    };
    let response = store.txn(txn).await?;
    if response.succeeded {
        return Ok(response.header.revision);
    }
    match response.results.first() {
        Some(OpResult::Range(range)) => range
            .kvs
            .first()
            .filter(|kv| kv.lease == lease)
            .map(|kv| kv.create_revision)
            .ok_or_else(|| StoreError::Other(format!("{key} is on another lease"))),
        _ => Err(StoreError::Other("the answer to the election request is missing".into())),
    }
}

/// The candidates, by key. A key without a lease is ignored: it would lead for ever without a process.
#[derive(Debug)]
struct Candidates {
    feed: Feed,
    created: BTreeMap<Key, Revision>,
    revision: Revision,
}

impl Candidates {
    fn open(site: &Site, role: Role, context: &Context) -> Self {
        let scope = Scope::one(site.prefix.leaders(role));
        let feed = Feed::open(site.store.clone(), scope, FeedSettings::default(), context.rng("leaders-feed"));
        Candidates { feed, created: BTreeMap::new(), revision: Revision::NONE }
    }

    async fn changed(&mut self) {
        match self.feed.next().await {
            Update::Reset { revision, kvs, .. } => {
                self.revision = revision;
                self.created.clear();
                kvs.into_iter().for_each(|kv| self.put(kv));
            }
            Update::Events { revision, events } => {
                self.revision = revision;
                for event in events {
                    match event {
                        Event::Put(kv) => self.put(kv),
                        Event::Delete { key, .. } => drop(self.created.remove(&key)),
                    }
                }
            }
        }
    }

    fn put(&mut self, kv: KeyValue) {
        if kv.lease == LeaseId::NONE {
            self.created.remove(&kv.key);
        } else {
            self.created.insert(kv.key, kv.create_revision);
        }
    }

    fn created(&self, key: &Key) -> Option<Revision> {
        self.created.get(key).copied()
    }

    fn oldest(&self) -> Option<Revision> {
        self.created.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::reconcile::Wall;
    use crate::store::api::KeyRange;
    use crate::store::memory::MemoryEtcd;

    fn context(shutdown: &CancellationToken) -> Context {
        let wall = Wall::simulated(Duration::ZERO);
        Context { identity: "a".into(), seed: 1, wall, shutdown: shutdown.clone() }
    }

    async fn candidates(store: &Store) -> usize {
        store.read_all(KeyRange::prefix("/enlist/leaders/"), None).await.unwrap().kvs.len()
    }

    #[tokio::test(start_paused = true)]
    async fn key_without_a_lease_does_not_lead() {
        let etcd = MemoryEtcd::new();
        let site = Site { store: etcd.store(), prefix: Default::default() };
        // The key is older than that of every candidate, and no lease ever deletes it.
        let by_hand = Txn { then: vec![Op::put("/enlist/leaders/relay/1", "host/1")], ..Txn::default() };
        site.store.txn(by_hand).await.unwrap();
        let context = context(&CancellationToken::new());
        let won = tokio::time::timeout(Duration::from_secs(10), campaign(&site, Role::Relay, Duration::from_secs(5), &context));
        let mut leadership = won.await.unwrap().unwrap();
        // A leader whose key loses its lease has lost leadership too.
        let take = Txn { then: vec![Op::put(leadership.fence.key.clone(), "host/2")], ..Txn::default() };
        site.store.txn(take).await.unwrap();
        tokio::time::timeout(Duration::from_secs(1), leadership.lost()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn standby_leads_at_once_and_stopped_candidate_leaves_no_key() {
        let etcd = MemoryEtcd::new();
        let site = Site { store: etcd.store(), prefix: Default::default() };
        let ttl = Duration::from_secs(10);
        let stops: Vec<CancellationToken> = (0..3).map(|_| CancellationToken::new()).collect();
        let first = campaign(&site, Role::Relay, ttl, &context(&stops[0])).await.unwrap();
        let stand_by = |stop: &CancellationToken| {
            let (site, context) = (site.clone(), context(stop));
            tokio::spawn(async move { campaign(&site, Role::Relay, ttl, &context).await })
        };
        let second = stand_by(&stops[1]);
        while candidates(&site.store).await < 2 {
            tokio::task::yield_now().await;
        }
        let third = stand_by(&stops[2]);
        while candidates(&site.store).await < 3 {
            tokio::task::yield_now().await;
        }
        stops[2].cancel();
        assert!(third.await.unwrap().is_none());
        assert_eq!(candidates(&site.store).await, 2);
        let asked = tokio::time::Instant::now();
        first.resign(&site.store).await;
        let mut second = second.await.unwrap().unwrap();
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        // Another client deletes the key: the instance has lost leadership.
        let delete = Txn { then: vec![Op::delete(second.fence.key.clone())], ..Txn::default() };
        site.store.txn(delete).await.unwrap();
        tokio::time::timeout(Duration::from_secs(1), second.lost()).await.unwrap();
    }
}
