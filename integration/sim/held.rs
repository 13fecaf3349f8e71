//! A store whose calls are held: each waits until the scheduler of [`super::small`] lets it through. Watches are not held: what
//! they tell is there at once, so that only the order of the calls is left to choose.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use enlist::Store;
use enlist::store::api::{
    Backend, KeepAlive, LeaseId, MemberInfo, RangeRequest, RangeResponse, StoreError, Txn, TxnResponse, Watch, WatchRequest,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

/// Whose call it is and what it is, e.g. `agent-1 txn`.
type Caller = String;

/// The calls that wait, oldest first.
#[derive(Clone, Default)]
pub(crate) struct Waiting(Arc<Mutex<Calls>>);

#[derive(Default)]
struct Calls {
    next: u64,
    held: BTreeMap<u64, (Caller, oneshot::Sender<()>)>,
}

impl Waiting {
    /// A client of `store` for this process.
    pub(crate) fn client(&self, process: &str, store: Store) -> Store {
        Store::new(Arc::new(Held { waiting: self.clone(), process: process.to_owned(), store }))
    }

    /// Who waits. A call that was given up is not sent.
    pub(crate) fn list(&self) -> Vec<Caller> {
        let mut calls = self.0.lock().unwrap();
        calls.held.retain(|_, (_, go)| !go.is_closed());
        calls.held.values().map(|(caller, _)| caller.clone()).collect()
    }

    /// Lets one through, by its place in the list.
    pub(crate) fn let_through(&self, place: usize) {
        let mut calls = self.0.lock().unwrap();
        let ticket = *calls.held.keys().nth(place).unwrap();
        let (_, go) = calls.held.remove(&ticket).unwrap();
        // Whoever waited may have given up.
        let _ = go.send(());
    }

    async fn turn(&self, caller: Caller) {
        let (go, gone) = oneshot::channel();
        {
            let mut calls = self.0.lock().unwrap();
            calls.next += 1;
            let ticket = calls.next;
            calls.held.insert(ticket, (caller, go));
        }
        // At the end of a run it is never let through.
        if gone.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

struct Held {
    waiting: Waiting,
    process: String,
    store: Store,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").field(&self.process).finish()
    }
}

impl Held {
    fn turn(&self, what: &str) -> impl Future<Output = ()> + Send + 'static {
        let (waiting, caller) = (self.waiting.clone(), format!("{} {what}", self.process));
        async move { waiting.turn(caller).await }
    }
}

impl Backend for Held {
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, StoreError>> {
        let turn = self.turn("read");
        async move {
            turn.await;
            self.store.range(request).await
        }
        .boxed()
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, StoreError>> {
        let turn = self.turn("write");
        async move {
            turn.await;
            self.store.txn(txn).await
        }
        .boxed()
    }

    fn grant(&self, ttl_s: u64) -> BoxFuture<'_, Result<(LeaseId, u64), StoreError>> {
        let turn = self.turn("grant");
        async move {
            turn.await;
            self.store.grant(ttl_s).await
        }
        .boxed()
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        let turn = self.turn("revoke");
        async move {
            turn.await;
            self.store.revoke(lease).await
        }
        .boxed()
    }

    fn time_to_live(&self, lease: LeaseId) -> BoxFuture<'_, Result<(i64, i64), StoreError>> {
        async move { self.store.time_to_live(lease).await }.boxed()
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Box<dyn KeepAlive>, StoreError>> {
        async move {
            let inner = self.store.keep_alive(lease).await?;
            let caller = format!("{} beat", self.process);
            Ok(Box::new(HeldBeat { waiting: self.waiting.clone(), caller, inner }) as Box<dyn KeepAlive>)
        }
        .boxed()
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Box<dyn Watch>, StoreError>> {
        async move { self.store.watch(request).await }.boxed()
    }

    fn member(&self) -> BoxFuture<'_, Result<MemberInfo, StoreError>> {
        async move { self.store.member().await }.boxed()
    }
}

struct HeldBeat {
    waiting: Waiting,
    caller: Caller,
    inner: Box<dyn KeepAlive>,
}

impl KeepAlive for HeldBeat {
    fn beat(&mut self) -> BoxFuture<'_, Result<i64, StoreError>> {
        let (waiting, caller) = (self.waiting.clone(), self.caller.clone());
        async move {
            waiting.turn(caller).await;
            self.inner.beat().await
        }
        .boxed()
    }
}
