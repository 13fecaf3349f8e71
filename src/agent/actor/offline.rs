//! A start without etcd: a host that reboots while etcd is away serves with what it had, if its operator allows that.
//!
//! Nobody can tell then whether the address is still this node's: etcd counts the hold, and it may have ended before etcd went away. So
//! it is never done by itself, never where two users of one address must not be (`on_isolation: withdraw`), and never after a
//! stop or a leave that etcd acknowledged. Once etcd answers the join finds out, as it does for any restart.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::state::{Doing, Target};
use super::{Actor, boxed, work};

/// An etcd that does not answer within this is taken to be away: an election, or a network that comes up, takes less.
const OFFLINE_AFTER: Duration = Duration::from_secs(5);

impl Actor {
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
