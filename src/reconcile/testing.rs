//! What tests of roles need: a role started on paused time, stopped or killed, and conditions with a deadline.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{Context, Wall};
use crate::store::api::{RangeRequest, RangeResponse, Store, StoreError, Txn, TxnResponse};
use crate::store::around::Around;

/// A context as a process would have it.
pub(crate) fn context(identity: &str, seed: u64) -> Context {
    Context { identity: identity.into(), seed, wall: Wall::simulated(Duration::ZERO), shutdown: CancellationToken::new() }
}

/// A role that runs.
pub(crate) struct Running {
    shutdown: CancellationToken,
    task: AbortOnDropHandle<anyhow::Result<()>>,
}

impl Running {
    /// Starts one.
    pub(crate) fn start<F>(context: &Context, role: F) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        Running { shutdown: context.shutdown.clone(), task: AbortOnDropHandle::new(tokio::spawn(role)) }
    }

    /// Ends it in order; answers what it returned.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.ended().await
    }

    /// Ends it as SIGKILL would: nothing more is done.
    pub(crate) fn kill(&self) {
        self.task.abort();
    }

    /// What it returned; it must end by itself soon.
    pub(crate) async fn ended(self) -> anyhow::Result<()> {
        match tokio::time::timeout(Duration::from_secs(60), self.task).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => panic!("the role ended otherwise: {error}"),
            Err(_) => panic!("the role did not end"),
        }
    }
}

/// Waits until `holds`; panics with `what` after `limit` (of paused time: it costs nothing).
pub(crate) async fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A store that refuses reads and writes when told to, as an etcd whose user was deleted; leases and watches live on.
#[derive(Debug, Clone)]
pub(crate) struct Refusing {
    inner: Store,
    refuses: Arc<AtomicBool>,
}

impl Refusing {
    pub(crate) fn new(inner: &Store) -> Refusing {
        Refusing { inner: inner.clone(), refuses: Arc::default() }
    }

    pub(crate) fn store(&self) -> Store {
        Store::new(Arc::new(self.clone()))
    }

    pub(crate) fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Relaxed);
    }

    fn ask(&self) -> Result<(), StoreError> {
        if self.refuses.load(Relaxed) { Err(StoreError::Refused("permission denied".into())) } else { Ok(()) }
    }
}

impl Around for Refusing {
    fn inner(&self) -> &Store {
        &self.inner
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, StoreError>> {
        async move {
            self.ask()?;
            self.inner.range(request).await
        }
        .boxed()
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, StoreError>> {
        async move {
            self.ask()?;
            self.inner.txn(txn).await
        }
        .boxed()
    }

    fn revoke(&self, lease: crate::store::api::LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            self.ask()?;
            self.inner.revoke(lease).await
        }
        .boxed()
    }
}
