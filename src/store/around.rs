//! A layer around a store: it forwards each call that it does not handle itself.

use std::fmt;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::api::{
    Backend, EndpointInfo, KeepAlive, LeaseId, MemberInfo, RangeRequest, RangeResponse, Store, StoreError, Txn, TxnResponse,
    Watch, WatchRequest,
};
use super::etcd::StoreSettings;

/// A [`Backend`] around another store: a type overrides the calls that it changes, and the trait forwards the others.
pub trait Around: Send + Sync + fmt::Debug {
    /// The store inside this layer.
    fn inner(&self) -> &Store;
    /// See [`Backend::range`].
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, StoreError>> {
        self.inner().range(request).boxed()
    }
    /// See [`Backend::txn`].
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, StoreError>> {
        self.inner().txn(txn).boxed()
    }
    /// See [`Backend::grant`].
    fn grant(&self, ttl_s: u64) -> BoxFuture<'_, Result<(LeaseId, u64), StoreError>> {
        self.inner().grant(ttl_s).boxed()
    }
    /// See [`Backend::revoke`].
    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner().revoke(lease).boxed()
    }
    /// See [`Backend::time_to_live`].
    fn time_to_live(&self, lease: LeaseId) -> BoxFuture<'_, Result<(i64, i64), StoreError>> {
        self.inner().time_to_live(lease).boxed()
    }
    /// See [`Backend::keep_alive`].
    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Box<dyn KeepAlive>, StoreError>> {
        self.inner().keep_alive(lease).boxed()
    }
    /// See [`Backend::watch`].
    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Box<dyn Watch>, StoreError>> {
        self.inner().watch(request).boxed()
    }
    /// See [`Backend::member`].
    fn member(&self) -> BoxFuture<'_, Result<MemberInfo, StoreError>> {
        self.inner().member().boxed()
    }
    /// See [`Backend::endpoints`].
    fn endpoints(&self) -> BoxFuture<'_, Vec<EndpointInfo>> {
        self.inner().endpoints().boxed()
    }
    /// See [`Backend::expect_cluster`].
    fn expect_cluster(&self, cluster_id: u64) {
        self.inner().expect_cluster(cluster_id);
    }
    /// See [`Backend::look_out`].
    fn look_out(&self) {
        self.inner().look_out();
    }
    /// See [`Backend::reconfigure`].
    fn reconfigure(&self, settings: StoreSettings) -> Result<(), StoreError> {
        self.inner().reconfigure(settings)
    }
}

impl<T: Around> Backend for T {
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, StoreError>> {
        Around::range(self, request)
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, StoreError>> {
        Around::txn(self, txn)
    }

    fn grant(&self, ttl_s: u64) -> BoxFuture<'_, Result<(LeaseId, u64), StoreError>> {
        Around::grant(self, ttl_s)
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        Around::revoke(self, lease)
    }

    fn time_to_live(&self, lease: LeaseId) -> BoxFuture<'_, Result<(i64, i64), StoreError>> {
        Around::time_to_live(self, lease)
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Box<dyn KeepAlive>, StoreError>> {
        Around::keep_alive(self, lease)
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Box<dyn Watch>, StoreError>> {
        Around::watch(self, request)
    }

    fn member(&self) -> BoxFuture<'_, Result<MemberInfo, StoreError>> {
        Around::member(self)
    }

    fn endpoints(&self) -> BoxFuture<'_, Vec<EndpointInfo>> {
        Around::endpoints(self)
    }

    fn expect_cluster(&self, cluster_id: u64) {
        Around::expect_cluster(self, cluster_id);
    }

    fn look_out(&self) {
        Around::look_out(self);
    }

    fn reconfigure(&self, settings: StoreSettings) -> Result<(), StoreError> {
        Around::reconfigure(self, settings)
    }
}
