//! `roles/<role>`: how a leader says how it is. On its lease and under its fence, so that it goes with the leadership and
//! a deposed leader says nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;
use tracing::debug;

use crate::reconcile::Site;
use crate::reconcile::election::Leadership;
use crate::store::api::{LeaseId, Op, StoreError, Txn};
use crate::store::backoff::REFUSED_CAP;
use crate::store::committer::Fence;
use crate::store::keys::Role;
use crate::store::wire::{RoleReport, Stored};

/// How often a role looks whether its report changed.
pub const EVERY: Duration = Duration::from_secs(5);
/// An unchanged report is written again after this: somebody may have deleted the key.
const REFRESH: Duration = Duration::from_secs(60);

/// Writes a leader's report when it is news.
#[derive(Debug)]
pub struct Reporter {
    site: Site,
    role: Role,
    fence: Fence,
    lease: LeaseId,
    written: Option<(RoleReport, Instant)>,
    /// The last write was refused: the next one waits as everything that is refused does.
    refused: Arc<AtomicBool>,
}

impl Reporter {
    /// For this leadership.
    pub fn new(site: &Site, role: Role, leadership: &Leadership) -> Self {
        let (fence, lease) = (leadership.fence.clone(), leadership.lease.id());
        Reporter { site: site.clone(), role, fence, lease, written: None, refused: Arc::default() }
    }

    /// Whether the brake's word differs from what was written last: people wait for that, it is written at once.
    pub fn is_urgent(&self, brake: &str) -> bool {
        self.written.as_ref().is_none_or(|(last, _)| last.brake != brake) && !self.waits()
    }

    /// The write of this report; `None` if it is no news. What fails is told again with the next one.
    pub fn write(&mut self, report: RoleReport) -> Option<BoxFuture<'static, ()>> {
        let now = Instant::now();
        let is_old_news = |(last, at): &(RoleReport, Instant)| *last == report && now.duration_since(*at) < REFRESH;
        if self.waits() || self.written.as_ref().is_some_and(is_old_news) {
            return None;
        }
        let put = Op::Put { key: self.site.prefix.role(self.role), value: report.encode(), lease: self.lease };
        let txn = Txn { compares: vec![self.fence.compare()], then: vec![put], otherwise: Vec::new() };
        self.written = Some((report, now));
        let (store, role, refused) = (self.site.store.clone(), self.role, self.refused.clone());
        Some(Box::pin(async move {
            let answer = store.txn(txn).await;
            refused.store(matches!(answer, Err(StoreError::Refused(_))), Ordering::Relaxed);
            if let Err(error) = answer {
                debug!(%role, %error, "the role's report was not written");
            }
        }))
    }

    fn waits(&self) -> bool {
        self.refused.load(Ordering::Relaxed) && self.written.as_ref().is_some_and(|(_, at)| at.elapsed() < REFUSED_CAP)
    }
}

/// The end of a future that may not be there; it is taken out then. Cancel-safe.
pub async fn finish<T>(job: &mut Option<BoxFuture<'static, T>>) -> T {
    match job {
        Some(running) => {
            let done = running.await;
            *job = None;
            done
        }
        None => std::future::pending().await,
    }
}

/// Sleeps until then; for ever if there is no then. Cancel-safe.
pub async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
