//! Calls with fail-over, on the endpoints that are in force: the [`ring`](super::ring). Other settings make another ring; calls
//! that are under way end on the one that they began with.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use etcd_client::Client;
use tokio::time::timeout_at;

use super::connect::Connect;
use super::error::{Failure, classify};
use super::ring::{Ring, Spot};
use super::settings::StoreSettings;
use super::turns::{Kind, Turns};
use crate::store::api::StoreError;

/// The endpoints of a cluster.
#[derive(Debug)]
pub(super) struct Pool {
    connect: Arc<dyn Connect>,
    ring: RwLock<Arc<Ring>>,
}

impl Pool {
    pub(super) fn new(connect: Arc<dyn Connect>, settings: StoreSettings) -> Result<Self, StoreError> {
        let ring = Ring::new(connect.clone(), settings, None)?;
        Ok(Pool { connect, ring: RwLock::new(ring) })
    }

    /// The endpoints that are in force.
    pub(super) fn ring(&self) -> Arc<Ring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a call on the endpoint's shared client, with fail-over, within the command time-out. Answers also the endpoint.
    pub(super) async fn call<T, F>(&self, kind: Kind, request: impl Fn(&Client) -> F) -> Result<(T, Spot), StoreError>
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
    ) -> Result<(T, Spot), StoreError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let ring = self.ring();
        let mut turns = Turns::new(&ring, kind);
        loop {
            let turn = turns.next().await?;
            let used = AtomicU64::new(0);
            let attempt = async {
                let (client, number) = ring.client(turn.index, turn.stale).await?;
                used.store(number, Ordering::Relaxed);
                request(client, ring.slot(turn.index).name.clone()).await
            };
            let suspicion = ring.suspect(turn.index);
            let outcome = timeout_at(turn.until, attempt).await;
            suspicion.dispel();
            if let Some(answer) = turns.settle(&turn, used.into_inner(), outcome)? {
                return Ok((answer, Spot { index: turn.index, ring: ring.clone() }));
            }
        }
    }

    /// Like [`call`](Self::call), with a client, and so a connection, of its own, and the endpoint's name; for what may be done
    /// twice.
    pub(super) async fn call_alone<T, F>(&self, request: impl Fn(Arc<Client>, Arc<str>) -> F) -> Result<(T, Spot), StoreError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let ring = self.ring();
        let mut turns = Turns::new(&ring, Kind::Read);
        loop {
            let turn = turns.next().await?;
            let attempt = async {
                let client = Arc::new(Box::pin(ring.connect(turn.index)).await?);
                request(client, ring.slot(turn.index).name.clone()).await
            };
            let suspicion = ring.suspect(turn.index);
            let outcome = timeout_at(turn.until, attempt).await;
            suspicion.dispel();
            if let Some(answer) = turns.settle(&turn, 0, outcome)? {
                return Ok((answer, Spot { index: turn.index, ring: ring.clone() }));
            }
        }
    }
}
