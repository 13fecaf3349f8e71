//! What an earlier process applied, and a start without etcd: a host that reboots while etcd is away serves with what it had, if its operator allows that.
//!
//! Nobody can tell then whether the address is still this node's: etcd counts the hold, and it may have ended before etcd went away. So
//! it is never done by itself, never where two users of one address must not be (`on_isolation: withdraw`), and never after a
//! stop or a leave that etcd acknowledged. Once etcd answers the join finds out, as it does for any restart.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::state::{Doing, Target};
use super::{Actor, boxed, work};
use crate::agent::decide::applied::{Applied, Given};
use crate::agent::decide::identity::RecordedRun;

/// An etcd that does not answer within this is taken to be away: an election, or a network that comes up, takes less.
const OFFLINE_AFTER: Duration = Duration::from_secs(5);

impl Actor {
    /// What an earlier process applied. Its child is gone; its hook may have left an address in use.
    pub(super) async fn recall(&mut self, applied: Option<Applied>) {
        // A record in a copied directory is not about this agent: what it names may be in use by the original, here too.
        let before = |run: &RecordedRun| run.place == self.me.place && run.run != self.me.run;
        let Some(applied) = applied.filter(|_| self.me.runs.iter().any(before)) else { return };
        let Some(given) = Given::new(&self.label, &applied.assignment) else { return };
        if applied.assignment.node != self.me.id {
            // The directory was another node's before. Its agent is gone (the directory is locked), what its hook put in
            // place may not be; and nothing of it is this node's to ask for.
            let given = Given { id: applied.assignment.node, ..given };
            warn!(was = given.summary(), "this state directory was that of another node: what it had is put out of use");
            work::put_out_of_use(&*self.host, given).await;
            return work::remember(&*self.host, None).await;
        }
        if applied.withdraws() {
            // How long ago that process had its last sign of the store is not known: it is put out of use now, and
            // applied again once the store says so.
            work::put_out_of_use(&*self.host, given.clone()).await;
        } else {
            self.hooked.push(given.clone());
        }
        info!(was = given.summary(), "an earlier process of this agent had an assignment");
        self.given = Some(given);
        self.applied = Some(Arc::new(applied));
    }

    /// When the last assignment is put to use without etcd; `None` = never, or it is under way.
    pub(super) fn offline_start_at(&self) -> Option<Instant> {
        let applied = self.applied.as_ref().filter(|applied| !applied.withdraws())?;
        let allowed = self.settings.offline_start && self.registered && !self.settings.ephemeral;
        // `ever_in`: etcd answered, so the join decides.
        if !allowed || self.started || self.ever_in || self.doing != Doing::Nothing || applied.bound().is_none() {
            return None;
        }
        let at = self.began + OFFLINE_AFTER;
        Some(self.retry_at.map_or(at, |retry| retry.max(at)))
    }

    /// Puts the last assignment to use, if it is time to.
    pub(super) fn start_offline(&mut self) {
        if self.offline_start_at().is_none_or(|at| at > Instant::now()) {
            return;
        }
        let (Some(applied), Some(given)) = (self.applied.clone(), self.given.clone()) else { return };
        warn!(to = given.summary(), "etcd does not answer; starting with the last assignment");
        self.retry_at = None;
        self.prepare(Target { applied, given });
    }

    /// It joined: that is recorded, unless it is already.
    pub(super) fn note_registered(&mut self) {
        if !std::mem::replace(&mut self.registered, true) {
            let host = Arc::clone(&self.host);
            self.record(async move { work::remember_registered(&*host, true).await });
        }
    }

    /// Writes something into the state directory, after what is being written there.
    pub(super) fn record(&mut self, write: impl Future<Output = ()> + Send + 'static) {
        let before = self.memory.take();
        self.memory = boxed(async move {
            if let Some(before) = before {
                before.await;
            }
            write.await;
        });
    }
}
