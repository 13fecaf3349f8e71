//! Elections of a role's leader: etcd's own recipe (`clientv3/concurrency.Election`), so that `etcdctl elect` sees them.
//!
//! Every candidate puts a key of its own on its own lease; the one whose key is oldest leads. Leading is no licence by
//! itself (an etcd lock never is): every write of a leader compares its key, see [`Fence`].
//!
//! A leader that etcd refuses is in the way of one that etcd would let in: it gives its lead up, and rests before it campaigns again.

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

/// This instance leads, until the lease is lost or somebody deletes its key.
#[derive(Debug)]
pub struct Leadership {
    /// The fence that every write of the leader carries.
    pub fence: Fence,
    /// The lease the leader key is on.
    pub lease: Lease,
    /// What the store answers to the leader's requests. The role notes it here.
    pub troubles: Troubles,
    candidates: Candidates,
    refused: bool,
}

impl Leadership {
    /// Ends when this instance leads no more: its key or lease is gone, or its requests have been refused for longer than a
    /// TTL. Cancel-safe.
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

    /// Steps down in order, so that a standby takes over at once instead of after a TTL.
    pub async fn resign(self, store: &Store) {
        let delete =
            Txn { compares: vec![self.fence.compare()], then: vec![Op::delete(self.fence.key.clone())], otherwise: vec![] };
        // Best effort: an etcd that does not answer now forgets us when the lease runs out.
        let _ = store.txn(delete).await;
        let _ = self.lease.revoke(store).await;
    }
}

/// How often a candidate that stands by asks whether it is still let in. Its lease lives on if it is not, and the oldest key leads.
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
    /// Of this role at this site. `ttl` = of the leader's lease.
    pub fn new(site: &'a Site, role: Role, ttl: Duration, context: &'a Context) -> Self {
        // From half a TTL: the key of a leader that may not even take it away is gone after one.
        let rest = Backoff::new(context.rng("election-rest"), ttl, REFUSED_CAP.max(ttl));
        Election { site, role, ttl, context, rest, rests_until: None }
    }

    /// Campaigns until it wins (retries for ever), after the rest that a refused leader owes; `None` = told to stop.
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

    /// Ends a lead, whatever ended it.
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

/// Campaigns until it wins (retries for ever) or `context.shutdown` is cancelled (`None`).
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

/// One candidacy: from the lease to leading, or to losing the key or being told to stop (`None`). A candidate that stops
/// takes its key with it: left behind, it would lead for a TTL without anybody there.
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
                // Best effort: an etcd that does not answer now forgets us when the lease runs out.
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
        // A view that is older than our own key says nothing about it yet.
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

/// Puts the candidate's key; answers its create_revision. A put whose answer was lost is found again.
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
        _ => Err(StoreError::Other("the answer of an election is missing".into())),
    }
}

/// Who stands for election, by key. A key on no lease is nobody's candidacy: it would lead for ever, with nobody there.
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
    async fn a_key_that_no_candidate_stands_behind_does_not_lead() {
        let etcd = MemoryEtcd::new();
        let site = Site { store: etcd.store(), prefix: Default::default() };
        // It is older than every candidate's, and no lease ever takes it away.
        let by_hand = Txn { then: vec![Op::put("/enlist/leaders/relay/1", "host/1")], ..Txn::default() };
        site.store.txn(by_hand).await.unwrap();
        let context = context(&CancellationToken::new());
        let won = tokio::time::timeout(Duration::from_secs(10), campaign(&site, Role::Relay, Duration::from_secs(5), &context));
        let mut leadership = won.await.unwrap().unwrap();
        // A leader whose key loses its lease stands behind it no more either.
        let take = Txn { then: vec![Op::put(leadership.fence.key.clone(), "host/2")], ..Txn::default() };
        site.store.txn(take).await.unwrap();
        tokio::time::timeout(Duration::from_secs(1), leadership.lost()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_leads_at_once_when_the_leader_resigns_and_a_stopped_candidate_leaves_no_key() {
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
        // Somebody deletes the key: it leads no more.
        let delete = Txn { then: vec![Op::delete(second.fence.key.clone())], ..Txn::default() };
        site.store.txn(delete).await.unwrap();
        tokio::time::timeout(Duration::from_secs(1), second.lost()).await.unwrap();
    }
}
