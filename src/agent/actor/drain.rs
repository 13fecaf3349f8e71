//! Before what is in use is put out of use the status says `draining`: those who send requests to this node stop in time.
//!
//! The order is always the same: etcd has acknowledged `draining` (or did not answer for two seconds), the drain time passes, and
//! only then a hook or TERM puts anything out of use. Three things do not wait: an address that may be another node's by now, one
//! whose safe time is over (`on_isolation: withdraw`), and a child that ended by itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::{Actor, STORE_PAUSE_FIRST, child_ended};
use crate::agent::decide::applied::{Applied, Given};
use crate::agent::decide::observe::covers;
use crate::agent::host::Host;
use crate::model::names::Revision;
use crate::model::status::Phase;

/// An etcd that is away gets this long to take `draining`: an election takes less, and a stop must end although etcd does not answer.
pub(super) const ACKNOWLEDGE_LIMIT: Duration = Duration::from_secs(2);

/// How far the drain is, while the agent runs on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draining {
    /// When it began.
    since: Instant,
    /// When it is over; `None` = etcd has not acknowledged it yet.
    until: Option<Instant>,
}

impl Draining {
    /// When to look again.
    pub(super) fn wakes_at(&self) -> Instant {
        self.until.unwrap_or(self.since + ACKNOWLEDGE_LIMIT)
    }
}

impl Actor {
    /// Whether what is in use may be put out of use for the sake of `next`: nothing of it is, or the status has said `draining` for
    /// the drain time. To be asked again until it may.
    pub(super) fn has_drained(&mut self, next: Option<&Given>) -> bool {
        let goes = |now: &Given| next.is_none_or(|next| next.addresses != now.addresses || next.ports != now.ports);
        let in_use = self.started && self.given.as_ref().is_some_and(goes);
        // A node that is not registered gets no requests by way of its groups.
        if !in_use || (self.draining.is_none() && self.wish.phase != Phase::Registered) {
            return true;
        }
        let now = Instant::now();
        let said = self.joined.as_ref().is_some_and(|joined| joined.written.phase == Phase::Draining);
        let draining = self.draining.get_or_insert_with(|| {
            info!("draining before the assignment changes");
            Draining { since: now, until: None }
        });
        if draining.until.is_none() && (said || now >= draining.since + ACKNOWLEDGE_LIMIT) {
            draining.until = Some(now + self.settings.drain_time);
        }
        let is_over = draining.until.is_some_and(|until| until <= now);
        self.wish.phase = Phase::Draining;
        is_over
    }

    /// What was to be put out of use stays in use. The allocator plans nothing for a node that drains, so the status must not stay.
    pub(super) fn stop_draining(&mut self) {
        if self.draining.take().is_some() && self.wish.phase == Phase::Draining {
            self.wish_for(Phase::Joining, Revision::NONE, String::new());
            self.acknowledge();
        }
    }

    /// Whether every claim of what is in use is still this node's, as far as is seen: it may drain. Otherwise it may be another's.
    pub(super) fn is_still_claimed(&self) -> bool {
        let seen = self.view.newest.as_ref().and_then(|view| view.assignment.as_ref()?.ok());
        let own = seen.filter(|seen| seen.node == self.me.id && seen.instance == self.me.instance);
        own.zip(self.applied.as_deref()).is_some_and(|(own, applied): (_, &Applied)| covers(own, applied))
    }

    /// On the way out: says `draining` and lets the drain time pass, at most until the address must be put out of use.
    pub(super) async fn drain_at_end(&mut self) {
        let calls_hook = self.host.has_hook() && !self.hooked.is_empty();
        if self.child.is_none() && !calls_hook && self.settings.drain_time.is_zero() {
            return;
        }
        self.wish.phase = Phase::Draining;
        self.wish.message.clear();
        self.publish();
        let safe_until = self.deadline().filter(|_| self.must_withdraw_when_isolated());
        let (child, host, drain_time) = (self.child.clone(), self.host.clone(), self.settings.drain_time);
        let says = async {
            if timeout(ACKNOWLEDGE_LIMIT, self.say_draining()).await.is_err() {
                warn!("etcd did not acknowledge `draining` in time; stopping all the same");
            }
            if !drain_time.is_zero() {
                // It ends with the time-out.
                let _ = timeout(drain_time, self.say_on()).await;
            }
        };
        tokio::select! {
            biased;
            _ = child_ended(child.as_ref()) => {}
            () = safe_time_over(&host, safe_until) => warn!("the drain is cut short: the address must be given up now"),
            () = host.hurried() => info!("the drain is cut short: a second signal asked for an immediate stop"),
            () = says => {}
        }
    }

    /// Writes the status as wished for, until it is written.
    async fn say_draining(&mut self) {
        loop {
            self.write_wish().await;
            // Without a registration there is nothing to write it on.
            if self.joined.as_ref().is_none_or(|joined| self.is_written(joined)) {
                return;
            }
            sleep(STORE_PAUSE_FIRST).await;
        }
    }
}

/// Ends when this time since boot has come; never if there is none.
async fn safe_time_over(host: &Arc<dyn Host>, until: Option<Duration>) {
    let Some(until) = until else { return std::future::pending().await };
    loop {
        let left = until.saturating_sub(host.since_boot());
        if left.is_zero() {
            return;
        }
        // In steps: the runtime's clock stands still while the host is suspended.
        sleep(left.min(Duration::from_secs(1))).await;
    }
}
