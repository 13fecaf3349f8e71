//! A lease's keep-alive stream, which opens at the first beat and again after each error, on another endpoint if need be.

use std::sync::Arc;

use etcd_client::{LeaseKeepAliveStream, LeaseKeeper};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::timeout;

use super::error::{Failure, classify};
use super::pool::Pool;
use super::turns::Kind;
use crate::store::api::{KeepAlive, LeaseId, StoreError};

/// The keep-alive of one lease.
pub(super) struct EtcdKeepAlive {
    pool: Arc<Pool>,
    lease: LeaseId,
    /// Out of here while a beat is under way: a beat that was given up, or failed, must not leave a stream behind whose next
    /// answer belongs to an earlier beat. Who counts from the sending of a beat would count too long.
    stream: Option<Stream>,
}

struct Stream {
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
    endpoint: usize,
}

impl EtcdKeepAlive {
    pub(super) fn new(pool: Arc<Pool>, lease: LeaseId) -> Self {
        EtcdKeepAlive { pool, lease, stream: None }
    }

    async fn open(&self) -> Result<Stream, StoreError> {
        let lease = self.lease.0;
        let call = self.pool.call(Kind::Read, |mut client| async move { client.lease_keep_alive(lease).await });
        let ((keeper, answers), endpoint) = call.await?;
        Ok(Stream { keeper, answers, endpoint })
    }

    async fn beat_once(&mut self) -> Result<i64, StoreError> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => match self.open().await {
                Ok(stream) => stream,
                Err(StoreError::NoLease) => return Ok(0),
                Err(error) => return Err(error),
            },
        };
        let limit = self.pool.settings().command_timeout;
        let suspicion = self.pool.suspect(stream.endpoint);
        let answer = timeout(limit, exchange(&mut stream)).await;
        suspicion.dispel();
        let failure = match answer {
            Ok(Ok(Some(ttl))) => {
                self.pool.good(stream.endpoint);
                self.stream = Some(stream);
                return Ok(ttl);
            }
            Ok(Ok(None)) => return Err(StoreError::Broken("the keep-alive stream ended".to_owned())),
            Ok(Err(error)) => classify(error, &self.pool.endpoint(stream.endpoint)),
            Err(_) => Failure::timeout(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        };
        if failure.endpoint {
            self.pool.bad(stream.endpoint);
        }
        if failure.error == StoreError::NoLease { Ok(0) } else { Err(failure.error) }
    }
}

/// One beat and its answer; `None` = the stream ended.
async fn exchange(stream: &mut Stream) -> Result<Option<i64>, etcd_client::Error> {
    stream.keeper.keep_alive().await?;
    Ok(stream.answers.message().await?.map(|answer| answer.ttl()))
}

impl KeepAlive for EtcdKeepAlive {
    fn beat(&mut self) -> BoxFuture<'_, Result<i64, StoreError>> {
        self.beat_once().boxed()
    }
}
