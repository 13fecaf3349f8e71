//! [`Backend`] on a real etcd: each call is a conversion around [`Pool::call`].

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::connect::Connect;
use super::convert;
use super::denied;
use super::keep_alive::{EtcdKeepAlive, KeepAlives};
use super::pool::Pool;
use super::settings::StoreSettings;
use super::turns::Kind;
use super::watch;
use crate::store::api::{
    Backend, EndpointInfo, KeepAlive, LeaseId, MemberInfo, RangeRequest, RangeResponse, StoreError, Txn, TxnResponse, Watch,
    WatchRequest,
};

/// The largest message that is taken. etcd bounds requests at 1.5 MiB and fragments watch responses by it, but what was
/// buffered before a watch was created comes in one piece, and a page of large values is larger still.
pub(super) const DECODED_BYTES_MAX: usize = 64 << 20;

/// An etcd cluster.
#[derive(Debug)]
pub(super) struct Etcd {
    pool: Arc<Pool>,
    keep_alives: Arc<KeepAlives>,
}

impl Etcd {
    pub(super) fn new(connect: Arc<dyn Connect>, settings: StoreSettings) -> Result<Self, StoreError> {
        let pool = Pool::new(connect, settings)?;
        Ok(Etcd { keep_alives: Arc::new(KeepAlives::new(pool.clone())), pool })
    }

    /// etcd says "permission denied" only: who may not do what is added.
    fn denied(&self, error: StoreError, what: impl FnOnce() -> String) -> StoreError {
        if !error.is_denied() {
            return error;
        }
        let ring = self.pool.ring();
        let settings = &ring.settings;
        let who = match (settings.user_name(), &settings.cert) {
            (Some(user), _) => format!("user {user:?}"),
            (None, Some(_)) => "the user named by the client certificate".to_owned(),
            (None, None) => "a client without a user".to_owned(),
        };
        StoreError::Refused(format!("permission denied: {who} may not {}", what()))
    }
}

impl Backend for Etcd {
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, StoreError>> {
        async move {
            let answer = self.pool.call(Kind::Read, |client| {
                let mut client = client.kv_client().max_decoding_message_size(DECODED_BYTES_MAX);
                let (key, options) = (convert::bytes(&request.range.start), convert::get_options(&request));
                async move { client.get(key, Some(options)).await }
            });
            let answer = answer.await.map_err(|error| self.denied(error, || denied::of_range(&request.range)))?;
            Ok(convert::range_response(answer.0.0))
        }
        .boxed()
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, StoreError>> {
        async move {
            let kind = if txn.writes() { Kind::Write } else { Kind::Read };
            let answer = self.pool.call(kind, |client| {
                let mut client = client.kv_client().max_decoding_message_size(DECODED_BYTES_MAX);
                let txn = convert::txn(&txn);
                async move { client.txn(txn).await }
            });
            let response = answer.await.map_err(|error| self.denied(error, || denied::of_txn(&txn)))?.0.0;
            convert::txn_response(response).ok_or_else(|| StoreError::Other("a transaction's answer is incomplete".to_owned()))
        }
        .boxed()
    }

    fn grant(&self, ttl_s: u64) -> BoxFuture<'_, Result<(LeaseId, u64), StoreError>> {
        async move {
            let ttl = i64::try_from(ttl_s).unwrap_or(i64::MAX);
            // A lease whose grant was not answered has no keys and ends by itself: granting another does no harm.
            let answer = self.pool.call(Kind::Read, |client| {
                let mut client = client.lease_client();
                async move { client.grant(ttl, None).await }
            });
            let (response, _) = answer.await?;
            Ok((LeaseId(response.id()), u64::try_from(response.ttl()).unwrap_or(0)))
        }
        .boxed()
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let answer = self.pool.call(Kind::Write, |client| {
                let mut client = client.lease_client();
                async move { client.revoke(lease.0).await }
            });
            let what = || "end a lease with keys that it may not write".to_owned();
            answer.await.map(|_| ()).map_err(|error| self.denied(error, what))
        }
        .boxed()
    }

    fn time_to_live(&self, lease: LeaseId) -> BoxFuture<'_, Result<(i64, i64), StoreError>> {
        async move {
            let answer = self.pool.call(Kind::Read, |client| {
                let mut client = client.lease_client();
                async move { client.time_to_live(lease.0, None).await }
            });
            let (response, _) = answer.await?;
            Ok((response.ttl(), response.granted_ttl()))
        }
        .boxed()
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Box<dyn KeepAlive>, StoreError>> {
        let keep_alive: Box<dyn KeepAlive> = Box::new(EtcdKeepAlive::new(self.keep_alives.clone(), lease));
        async move { Ok(keep_alive) }.boxed()
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Box<dyn Watch>, StoreError>> {
        async move {
            let range = request.range.clone();
            let opened = watch::open(self.pool.clone(), request).await;
            opened.map_err(|error| self.denied(error, || denied::of_watch(&range)))
        }
        .boxed()
    }

    fn member(&self) -> BoxFuture<'_, Result<MemberInfo, StoreError>> {
        async move {
            let answer = self.pool.call(Kind::Read, |client| {
                let mut client = client.maintenance_client();
                async move { client.status().await }
            });
            let (response, _) = answer.await?;
            let status = response.0;
            let header = convert::header(status.header);
            Ok(MemberInfo { header, version: status.version, leader: status.leader, alarms: status.errors })
        }
        .boxed()
    }

    fn endpoints(&self) -> BoxFuture<'_, Vec<EndpointInfo>> {
        async move { self.pool.ring().endpoints().await }.boxed()
    }

    fn expect_cluster(&self, cluster_id: u64) {
        self.pool.ring().clusters().expect(cluster_id);
    }

    fn look_out(&self) {
        self.pool.ring().look_at_all();
    }

    fn reconfigure(&self, settings: StoreSettings) -> Result<(), StoreError> {
        self.pool.reconfigure(settings)
    }
}
