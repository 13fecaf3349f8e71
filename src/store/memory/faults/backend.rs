//! [`Backend`] over a link that can fail.

use std::fmt;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use super::link::{Call, Cut, Link};
use crate::model::names::Revision;
use crate::store::api::{
    Backend, Compare, KeepAlive, Key, LeaseId, MemberInfo, Op, RangeRequest, RangeResponse, Store, StoreError, Txn, TxnResponse,
    Watch, WatchMessage, WatchRequest,
};

/// The number of revisions by which a repeating watch starts too early.
const REPEATED: i64 = 5;

/// The store at the other end of a link.
pub(super) struct Faulty {
    inner: Store,
    link: Arc<Link>,
}

impl Faulty {
    pub(super) fn new(inner: Store, link: Arc<Link>) -> Self {
        Faulty { inner, link }
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Faulty").field(&self.inner).finish()
    }
}

impl Backend for Faulty {
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, StoreError>> {
        let inner = self.inner.clone();
        self.link.call(Call::new(async move { inner.range(request).await }.boxed())).boxed()
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, StoreError>> {
        let rival = Some(self.link.plan().conflict).filter(|chance| self.link.chance(*chance)).and_then(|_| compared(&txn));
        let (inner, faults) = (self.inner.clone(), self.link.faults.clone());
        let snared = self.link.faults.spring(&txn);
        let second = {
            let (inner, txn) = (inner.clone(), txn.clone());
            async move { inner.txn(txn).await }.boxed()
        };
        let first = async move {
            if let Some(key) = rival
                && write_again(&inner, key).await?
            {
                faults.count(|counts| counts.conflicts += 1);
            }
            inner.txn(txn).await
        };
        self.link.call(Call::txn(first.boxed(), second, snared)).boxed()
    }

    fn grant(&self, ttl_s: u64) -> BoxFuture<'_, Result<(LeaseId, u64), StoreError>> {
        let inner = self.inner.clone();
        self.link.call(Call::new(async move { inner.grant(ttl_s).await }.boxed())).boxed()
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        let inner = self.inner.clone();
        self.link.call(Call::new(async move { inner.revoke(lease).await }.boxed())).boxed()
    }

    fn time_to_live(&self, lease: LeaseId) -> BoxFuture<'_, Result<(i64, i64), StoreError>> {
        let inner = self.inner.clone();
        self.link.call(Call::new(async move { inner.time_to_live(lease).await }.boxed())).boxed()
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Box<dyn KeepAlive>, StoreError>> {
        let keep_alive: Box<dyn KeepAlive> =
            Box::new(FaultyKeepAlive { inner: self.inner.clone(), link: self.link.clone(), lease });
        async move { Ok(keep_alive) }.boxed()
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Box<dyn Watch>, StoreError>> {
        let inner = self.inner.clone();
        let mut request = request;
        if request.start.0 > REPEATED && self.link.chance(self.link.plan().watch_repeated) {
            self.link.faults.count(|counts| counts.watches_repeated += 1);
            request.start.0 -= REPEATED;
        }
        let open = self.link.call(Call::new(async move { inner.watch(request).await }.boxed()));
        async move {
            let inner = Some(open.await?);
            let watch = FaultyWatch { inner, link: self.link.clone(), pending: None, stalled: false };
            Ok(Box::new(watch) as Box<dyn Watch>)
        }
        .boxed()
    }

    fn member(&self) -> BoxFuture<'_, Result<MemberInfo, StoreError>> {
        let inner = self.inner.clone();
        self.link.call(Call::new(async move { inner.member().await }.boxed())).boxed()
    }
}

/// A key whose mod_revision the transaction compares and expects to exist.
fn compared(txn: &Txn) -> Option<Key> {
    let own = txn.compares.iter().find_map(|compare| match compare {
        Compare::Modified(key, seen) if *seen > Revision::NONE => Some(key.clone()),
        _ => None,
    });
    let nested = || {
        txn.then.iter().find_map(|op| match op {
            Op::Txn(inner) => compared(inner),
            _ => None,
        })
    };
    own.or_else(nested)
}

/// Writes the value of a key once more, on its lease. Returns whether the key exists.
async fn write_again(store: &Store, key: Key) -> Result<bool, StoreError> {
    let Some(kv) = store.get(key).await?.1 else { return Ok(false) };
    let put = Op::Put { key: kv.key, value: kv.value, lease: kv.lease };
    store.txn(Txn { then: vec![put], ..Txn::default() }).await?;
    Ok(true)
}

struct FaultyKeepAlive {
    inner: Store,
    link: Arc<Link>,
    lease: LeaseId,
}

impl KeepAlive for FaultyKeepAlive {
    fn beat(&mut self) -> BoxFuture<'_, Result<i64, StoreError>> {
        let (inner, lease) = (self.inner.clone(), self.lease);
        self.link.call(Call::beat(async move { inner.keep_alive(lease).await?.beat().await }.boxed())).boxed()
    }
}

type Next = Option<Result<WatchMessage, StoreError>>;

struct FaultyWatch {
    /// `None` = broken.
    inner: Option<Box<dyn Watch>>,
    link: Arc<Link>,
    /// A message under way and the time of its arrival. This field keeps the message when a caller drops a `next`.
    pending: Option<(Next, Instant)>,
    stalled: bool,
}

impl FaultyWatch {
    async fn next_message(&mut self) -> Next {
        let plan = self.link.plan();
        if self.pending.is_none() {
            let received = tokio::select! {
                biased;
                () = self.link.given_up(plan.silence_max) => None,
                received = self.inner.as_mut()?.next() => Some(received),
            };
            let Some(received) = received else { return self.broken() };
            if let Some(Ok(WatchMessage::Canceled { compacted, .. })) = &received
                && *compacted > Revision::NONE
            {
                self.link.faults.count(|counts| counts.compacted += 1);
            }
            self.stalled |= !self.stalled && self.link.chance(plan.watch_stalled) && self.count_stall();
            if self.link.chance(plan.watch_broken) {
                return self.broken();
            }
            self.pending = Some((received, Instant::now() + self.link.watch_delay(&plan)));
        }
        if self.stalled {
            return std::future::pending().await;
        }
        if let Some((_, arrives)) = &self.pending {
            sleep_until(*arrives).await;
        }
        self.link.gate.wait(false).await;
        if !self.link.connected(plan.silence_max).await {
            return self.broken();
        }
        self.pending.take()?.0
    }

    fn count_stall(&self) -> bool {
        self.link.faults.count(|counts| counts.watches_stalled += 1);
        true
    }

    fn broken(&mut self) -> Next {
        self.link.faults.count(|counts| counts.watches_broken += 1);
        self.inner = None;
        self.pending = None;
        Some(Err(StoreError::Broken("the connection was reset (injected)".to_owned())))
    }
}

impl Watch for FaultyWatch {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<WatchMessage, StoreError>>> {
        self.next_message().boxed()
    }

    fn request_progress(&mut self) -> BoxFuture<'_, ()> {
        async {
            // No request arrives while the client is cut off.
            if !matches!(self.link.cut(), Cut::Both | Cut::AllButBeats)
                && let Some(inner) = &mut self.inner
            {
                inner.request_progress().await;
            }
        }
        .boxed()
    }
}
