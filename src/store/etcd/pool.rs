//! Calls with fail-over, on the endpoints that are in force: the [`ring`](super::ring). Other settings make another ring; calls
//! that are under way end on the one that they began with.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};

use etcd_client::Client;
use tokio::runtime::Handle;
use tokio::time::timeout_at;

use super::connect::Connect;
use super::error::{Failure, classify};
use super::files;
use super::ring::{Ring, Spot};
use super::settings::StoreSettings;
use super::turns::{Kind, Turns};
use crate::store::api::StoreError;

/// The endpoints of a cluster.
#[derive(Debug)]
pub(super) struct Pool {
    me: Weak<Pool>,
    connect: Arc<dyn Connect>,
    ring: RwLock<Arc<Ring>>,
    /// Whether the files of the settings are looked at for changes.
    watches_files: AtomicBool,
}

impl Pool {
    pub(super) fn new(connect: Arc<dyn Connect>, settings: StoreSettings) -> Result<Arc<Self>, StoreError> {
        let ring = RwLock::new(Ring::new(connect.clone(), settings, None)?);
        Ok(Arc::new_cyclic(|me| Pool { me: me.clone(), connect, ring, watches_files: AtomicBool::new(false) }))
    }

    /// Puts other settings into force. Nothing happens if they are the same.
    pub(super) fn reconfigure(&self, settings: StoreSettings) -> Result<(), StoreError> {
        if *self.ring().settings == settings {
            return Ok(());
        }
        self.replace(settings)?;
        tracing::info!(endpoints = self.ring().names().join(","), "the settings of the store changed; connecting again");
        Ok(())
    }

    /// Makes all connections again.
    pub(super) fn replace(&self, settings: StoreSettings) -> Result<(), StoreError> {
        // The cluster is the same until its endpoints say otherwise: a wrong list is found out.
        let known = self.ring().clusters().chosen();
        let ring = Ring::new(self.connect.clone(), settings, known)?;
        let former = std::mem::replace(&mut *self.ring.write().unwrap_or_else(PoisonError::into_inner), ring);
        former.retired.cancel();
        if former.looks_at_all.load(Ordering::Relaxed) {
            self.ring().look_at_all();
        }
        Ok(())
    }

    /// The endpoints that are in force, for a call: from the first one on the files of the settings are looked at.
    fn ring_of_call(&self) -> Arc<Ring> {
        let ring = self.ring();
        if !self.watches_files.load(Ordering::Relaxed) && !ring.settings.files().is_empty() {
            self.watch_files();
        }
        ring
    }

    fn watch_files(&self) {
        if let Ok(runtime) = Handle::try_current()
            && !self.watches_files.swap(true, Ordering::Relaxed)
        {
            runtime.spawn(files::watch(self.me.clone()));
        }
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
        let ring = self.ring_of_call();
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
        let ring = self.ring_of_call();
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
