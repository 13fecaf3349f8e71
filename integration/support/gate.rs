//! A path to a store on which a test can make calls fail at chosen moments: later pages of reads, watches, or all
//! calls.
//!
//! Random faults and cut links are in `enlist::store::memory::faults`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use enlist::Store;
use enlist::store::api::{
    Backend, KeepAlive, LeaseId, MemberInfo, RangeRequest, RangeResponse, StoreError, Txn, TxnResponse, Watch, WatchMessage,
    WatchRequest,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;

/// The path. Clones are the same path.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    /// Reads of a second or later page fail.
    pages_fail: AtomicBool,
    failed: AtomicUsize,
    /// No new watch can be opened.
    closed: AtomicBool,
    /// Every call is refused.
    refuses: AtomicBool,
    refused: AtomicUsize,
    /// Each change breaks the open watches.
    breaks: watch::Sender<u64>,
}

/// The answer to a call.
type Answer<T> = Result<T, StoreError>;

impl Gate {
    /// A gate before this store; every call gets through.
    pub(crate) fn before(store: &Store) -> Gate {
        Gate(Arc::new(Inner {
            store: store.clone(),
            pages_fail: AtomicBool::new(false),
            failed: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            refused: AtomicUsize::new(0),
            breaks: watch::Sender::new(0),
        }))
    }

    /// The store behind the gate.
    pub(crate) fn store(&self) -> Store {
        Store::new(Arc::new(self.clone()))
    }

    pub(crate) fn break_watches(&self) {
        self.0.breaks.send_modify(|breaks| *breaks += 1);
    }

    /// Closes or opens the gate: closing breaks watches, and a closed gate opens none.
    pub(crate) fn close(&self, closed: bool) {
        self.0.closed.store(closed, Ordering::Relaxed);
        if closed {
            self.break_watches();
        }
    }

    /// Makes later pages of reads fail from now on, or no longer.
    pub(crate) fn fail_pages(&self, fail: bool) {
        self.0.pages_fail.store(fail, Ordering::Relaxed);
    }

    /// The number of failed pages.
    pub(crate) fn failed(&self) -> usize {
        self.0.failed.load(Ordering::Relaxed)
    }

    /// Refuses every call from now on and breaks watches, as after the deletion of a user; or no longer.
    pub(crate) fn refuse(&self, refuse: bool) {
        self.0.refuses.store(refuse, Ordering::Relaxed);
        if refuse {
            self.break_watches();
        }
    }

    /// The number of refused calls.
    pub(crate) fn refused(&self) -> usize {
        self.0.refused.load(Ordering::Relaxed)
    }

    fn pass(&self) -> Answer<()> {
        if !self.0.refuses.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.0.refused.fetch_add(1, Ordering::Relaxed);
        Err(StoreError::Refused("permission denied".into()))
    }

    fn call<'a, T: Send + 'a>(&'a self, call: impl Future<Output = Answer<T>> + Send + 'a) -> BoxFuture<'a, Answer<T>> {
        async move {
            self.pass()?;
            call.await
        }
        .boxed()
    }
}

fn unreachable<T>() -> Answer<T> {
    Err(StoreError::Unreachable { endpoints: "the gate".into(), reason: "the gate is closed".into() })
}

impl Backend for Gate {
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Answer<RangeResponse>> {
        // A later page starts directly behind a key: with a NUL at its end.
        let is_later = request.range.start.as_bytes().last() == Some(&0);
        self.call(async move {
            if is_later && self.0.pages_fail.load(Ordering::Relaxed) {
                self.0.failed.fetch_add(1, Ordering::Relaxed);
                return unreachable();
            }
            self.0.store.range(request).await
        })
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Answer<TxnResponse>> {
        self.call(self.0.store.txn(txn))
    }

    fn grant(&self, ttl_s: u64) -> BoxFuture<'_, Answer<(LeaseId, u64)>> {
        self.call(self.0.store.grant(ttl_s))
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Answer<()>> {
        self.call(self.0.store.revoke(lease))
    }

    fn time_to_live(&self, lease: LeaseId) -> BoxFuture<'_, Answer<(i64, i64)>> {
        self.call(self.0.store.time_to_live(lease))
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Answer<Box<dyn KeepAlive>>> {
        self.call(async move {
            let beats = self.0.store.keep_alive(lease).await?;
            Ok(Box::new(GatedBeats { beats, gate: self.clone() }) as Box<dyn KeepAlive>)
        })
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Answer<Box<dyn Watch>>> {
        self.call(async move {
            if self.0.closed.load(Ordering::Relaxed) {
                return unreachable();
            }
            let breaks = self.0.breaks.subscribe();
            Ok(Box::new(GatedWatch { watch: self.0.store.watch(request).await?, breaks }) as Box<dyn Watch>)
        })
    }

    fn member(&self) -> BoxFuture<'_, Answer<MemberInfo>> {
        self.call(self.0.store.member())
    }
}

/// A keep-alive that the gate refuses like any other call.
struct GatedBeats {
    beats: Box<dyn KeepAlive>,
    gate: Gate,
}

impl KeepAlive for GatedBeats {
    fn beat(&mut self) -> BoxFuture<'_, Answer<i64>> {
        async {
            self.gate.pass()?;
            self.beats.beat().await
        }
        .boxed()
    }
}

/// A watch that can be broken.
struct GatedWatch {
    watch: Box<dyn Watch>,
    breaks: watch::Receiver<u64>,
}

impl Watch for GatedWatch {
    fn next(&mut self) -> BoxFuture<'_, Option<Answer<WatchMessage>>> {
        async {
            tokio::select! {
                biased;
                _ = self.breaks.changed() => Some(Err(StoreError::Broken("the gate broke the watch".into()))),
                message = self.watch.next() => message,
            }
        }
        .boxed()
    }

    fn request_progress(&mut self) -> BoxFuture<'_, ()> {
        self.watch.request_progress()
    }
}
