//! A store that sends small writes to etcd together while many come at once.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::api::{Store, StoreError, Txn, TxnResponse};
use super::around::Around;
use super::batch::Unit;
use super::batcher::Batcher;

impl Store {
    /// This store with its small writes in batches: for a process that hosts many agents. A transaction that only
    /// writes single keys, or else only reads, goes at once while few are under way; the transactions that come
    /// meanwhile go together in one request, as nested transactions, with the same compares and the same answers as
    /// alone. (Those of one batch have one revision.) The store forwards other transactions unchanged.
    ///
    /// Must be called within a runtime, which runs the task that sends the batches.
    #[must_use]
    pub fn with_batched_writes(&self) -> Store {
        Store::new(std::sync::Arc::new(Batched { inner: self.clone(), batcher: Batcher::new(self.clone(), None) }))
    }
}

#[derive(Debug)]
struct Batched {
    inner: Store,
    batcher: Batcher,
}

impl Around for Batched {
    fn inner(&self) -> &Store {
        &self.inner
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, StoreError>> {
        let unit = match Unit::try_from(txn) {
            Ok(unit) => unit,
            Err(txn) => return self.inner.txn(txn).boxed(),
        };
        async {
            let refused = || StoreError::Other("a transaction without a condition failed".into());
            self.batcher.send(unit).get().await?.ok_or_else(refused)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
