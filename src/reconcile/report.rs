//! `roles/<role>`: how a leader says how it is. On its lease and under its fence, so that it goes with the leadership and
//! a deposed leader says nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::plan::brake::BrakeState;
use crate::reconcile::Site;
use crate::reconcile::election::Leadership;
use crate::reconcile::trouble::{Asked, Troubles};
use crate::store::api::{LeaseId, Op, StoreError, Txn, TxnResponse};
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
    troubles: Troubles,
    /// The last write was refused: the next one waits.
    refused: Arc<AtomicBool>,
    /// So was a write of the leader key: this lead is about to be given up, and is asked for a little sooner.
    doomed: Arc<AtomicBool>,
    /// The last write was not done: the next report is news, whatever it tells.
    failed: Arc<AtomicBool>,
}

impl Reporter {
    /// For this leadership.
    pub fn new(site: &Site, role: Role, leadership: &Leadership) -> Self {
        let (fence, lease) = (leadership.fence.clone(), leadership.lease.id());
        let (refused, doomed, failed) = (Arc::default(), Arc::default(), Arc::default());
        let troubles = leadership.troubles.clone();
        Reporter { site: site.clone(), role, fence, lease, written: None, troubles, refused, doomed, failed }
    }

    /// Whether the brake differs from what was written last: people wait for that, it is written at once.
    pub fn is_urgent(&self, brake: &BrakeReport) -> bool {
        self.written.as_ref().is_none_or(|(last, _)| last.brake_state != Some(brake.state)) && !self.waits()
    }

    /// The write of this report, with what the store answers to the leader; `None` if it is no news. What fails is told again with the next one.
    pub fn write(&mut self, report: RoleReport) -> Option<BoxFuture<'static, ()>> {
        let report = RoleReport { trouble: self.troubles.text(), ..report };
        let now = Instant::now();
        let is_old_news = |(last, at): &(RoleReport, Instant)| *last == report && now.duration_since(*at) < REFRESH;
        let is_told = !self.failed.load(Ordering::Relaxed) && self.written.as_ref().is_some_and(is_old_news);
        if self.waits() || is_told {
            return None;
        }
        let put = Op::Put { key: self.site.prefix.role(self.role), value: report.encode(), lease: self.lease };
        // As the candidate put it: who may lead may write this, and whoever watches it sees the same candidate.
        let lead = Op::Put { key: self.fence.key.clone(), value: report.identity.clone().into(), lease: self.lease };
        let fenced = |op: Op| Txn { compares: vec![self.fence.compare()], then: vec![op], otherwise: Vec::new() };
        let (put, lead) = (fenced(put), fenced(lead));
        self.written = Some((report, now));
        let (store, troubles) = (self.site.store.clone(), self.troubles.clone());
        let (refused, doomed, failed) = (self.refused.clone(), self.doomed.clone(), self.failed.clone());
        Some(Box::pin(async move {
            let answer = note(&troubles, Asked::Report, store.txn(put).await);
            refused.store(matches!(answer, Err(StoreError::Refused(_))), Ordering::Relaxed);
            failed.store(answer.is_err(), Ordering::Relaxed);
            let may_lead = match answer {
                Err(StoreError::Refused(_)) => note(&troubles, Asked::Lead, store.txn(lead).await),
                answer => {
                    troubles.pass(Asked::Lead, answer.is_ok(), None);
                    answer
                }
            };
            doomed.store(matches!(may_lead, Err(StoreError::Refused(_))), Ordering::Relaxed);
        }))
    }

    /// Whether the last report told a lag.
    pub fn tells_lag(&self) -> bool {
        !self.waits() && self.written.as_ref().is_some_and(|(last, _)| last.lag > 0)
    }

    fn waits(&self) -> bool {
        let pause = if self.doomed.load(Ordering::Relaxed) { EVERY } else { REFUSED_CAP };
        self.refused.load(Ordering::Relaxed) && self.written.as_ref().is_some_and(|(_, at)| at.elapsed() < pause)
    }
}

fn note(troubles: &Troubles, asked: Asked, answer: Result<TxnResponse, StoreError>) -> Result<(), StoreError> {
    match &answer {
        Ok(_) => troubles.worked(asked),
        Err(error) => troubles.failed(asked, error, 1),
    }
    answer.map(drop)
}

/// What a leader says of its brake, with the time at which it first saw it so.
#[derive(Debug, Clone, Default)]
pub struct BrakeReport {
    /// What it does.
    pub state: BrakeState,
    /// Why, in words; empty = off.
    pub why: String,
    since: String,
}

impl BrakeReport {
    /// Takes what the brake does now; what changed is logged, in the same words for every role. Answers whether it changed.
    pub fn set(&mut self, role: Role, state: BrakeState, why: impl Into<String>, now: impl FnOnce() -> String) -> bool {
        self.why = if state == BrakeState::Off { String::new() } else { why.into() };
        if self.state == state {
            return false;
        }
        (self.state, self.since) = (state, now());
        match state {
            // An empty source ends by no clock: a human must act.
            BrakeState::On if role == Role::Relay => error!(%role, reason = self.why, "brake on"),
            BrakeState::On => warn!(%role, reason = self.why, "brake on"),
            BrakeState::Released => info!(%role, reason = self.why, "brake released"),
            BrakeState::Off | BrakeState::Unknown => info!(%role, "brake off"),
        }
        true
    }

    /// The same in a role's report.
    pub fn write_to(&self, report: &mut RoleReport) {
        report.brake.clone_from(&self.why);
        report.brake_state = Some(self.state);
        report.brake_since.clone_from(&self.since);
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
