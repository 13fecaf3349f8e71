//! How often a write was asked for, and how often it was sent: an adapter that sends one again whose outcome it does not know does
//! it twice. The roles and agents compare what they write on, so that in the store nobody would see it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use enlist::Store;
use enlist::store::api::{StoreError, Txn, TxnResponse};
use enlist::store::around::Around;
use futures::FutureExt;
use futures::future::BoxFuture;

/// Clones are the same ledger.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger(Arc<Mutex<BTreeMap<Entry, Count>>>);

/// A host, and what it writes.
type Entry = (String, String);

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    asked: u64,
    sent: u64,
}

impl Ledger {
    fn change(&self, host: &str, txn: &Txn, change: impl FnOnce(&mut Count)) {
        change(self.0.lock().unwrap().entry((host.to_owned(), format!("{txn:?}"))).or_default());
    }

    /// A member took it on: from now on it may be done.
    pub(super) fn sent(&self, host: &str, txn: &Txn) {
        self.change(host, txn, |count| count.sent += 1);
    }

    /// … but did not, after all.
    pub(super) fn turned_away(&self, host: &str, txn: &Txn) {
        self.change(host, txn, |count| count.sent -= 1);
    }

    /// What was sent more often than it was asked for.
    pub(super) fn sent_again(&self) -> Option<String> {
        let counts = self.0.lock().unwrap();
        let again = counts.iter().find(|(_, count)| count.sent > count.asked);
        again.map(|((host, txn), Count { asked, sent })| format!("{host} asked {asked} times and sent {sent} times: {txn}"))
    }

    /// The same store, whose writes are noted.
    pub(super) fn noted(&self, host: &str, store: Store) -> Store {
        Store::new(Arc::new(Noted { ledger: self.clone(), host: host.to_owned(), inner: store }))
    }
}

/// A store of a host.
#[derive(Debug)]
struct Noted {
    ledger: Ledger,
    host: String,
    inner: Store,
}

impl Around for Noted {
    fn inner(&self) -> &Store {
        &self.inner
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, StoreError>> {
        if txn.writes() {
            self.ledger.change(&self.host, &txn, |count| count.asked += 1);
        }
        self.inner.txn(txn).boxed()
    }
}
