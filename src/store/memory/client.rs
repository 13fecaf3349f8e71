//! [`Backend`] on the model, which completes every call at once.

use std::fmt;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::state::State;
use super::{Shared, watch};
use crate::store::api::{
    Backend, KeepAlive, LeaseId, MemberInfo, RangeRequest, RangeResponse, StoreError, Txn, TxnResponse, Watch, WatchRequest,
};

/// A client of the model.
pub(super) struct MemoryClient(Arc<Shared>);

impl MemoryClient {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        MemoryClient(shared)
    }

    /// Runs `work` when the call is polled, and sometimes lets other tasks run, as a network would.
    fn call<'a, T: Send + 'a>(
        &'a self,
        work: impl FnOnce(&mut State, std::time::Duration) -> Result<T, StoreError> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        async move {
            tokio::task::consume_budget().await;
            self.0.with(work)
        }
        .boxed()
    }
}

impl fmt::Debug for MemoryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryClient")
    }
}

impl Backend for MemoryClient {
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, StoreError>> {
        self.call(move |state, _| state.range(&request))
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, StoreError>> {
        self.call(move |state, _| state.txn(&txn))
    }

    fn grant(&self, ttl_s: u64) -> BoxFuture<'_, Result<(LeaseId, u64), StoreError>> {
        self.call(move |state, now| state.grant(ttl_s, now))
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(move |state, _| state.revoke(lease))
    }

    fn time_to_live(&self, lease: LeaseId) -> BoxFuture<'_, Result<(i64, i64), StoreError>> {
        self.call(move |state, now| Ok(state.time_to_live(lease, now)))
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Box<dyn KeepAlive>, StoreError>> {
        let keep_alive: Box<dyn KeepAlive> = Box::new(MemoryKeepAlive { client: MemoryClient(self.0.clone()), lease });
        async move { Ok(keep_alive) }.boxed()
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Box<dyn Watch>, StoreError>> {
        async move {
            tokio::task::consume_budget().await;
            Ok(Box::new(watch::open(&self.0, request)) as Box<dyn Watch>)
        }
        .boxed()
    }

    fn member(&self) -> BoxFuture<'_, Result<MemberInfo, StoreError>> {
        self.call(|state, _| {
            let alarms = if state.full { vec!["memberID:1 alarm:NOSPACE ".to_owned()] } else { Vec::new() };
            Ok(MemberInfo { header: state.header(), version: state.options.version.clone(), leader: 1, alarms })
        })
    }
}

struct MemoryKeepAlive {
    client: MemoryClient,
    lease: LeaseId,
}

impl KeepAlive for MemoryKeepAlive {
    fn beat(&mut self) -> BoxFuture<'_, Result<i64, StoreError>> {
        let lease = self.lease;
        self.client.call(move |state, now| Ok(state.keep_alive(lease, now)))
    }
}
