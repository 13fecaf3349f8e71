//! One look at what is, and what it makes the agent begin. Nothing here waits.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::state::{Doing, Joined, Unanswered, Wish};
use super::{Actor, boxed, io};
use crate::agent::decide::applied::Applied;
use crate::agent::decide::isolation;
use crate::agent::decide::join;
use crate::agent::decide::observe::{self, Do, Known, Next};
use crate::agent::decide::subtree::{Subtree, modified};
use crate::agent::exit::Ending;
use crate::model::assignment::Answer;
use crate::model::names::Revision;
use crate::model::status::{Phase, Refused, Status};

/// While what is in use must be withdrawn when isolated, the clocks are looked at this often.
const TICK: Duration = Duration::from_secs(1);
/// Without anything to wait for, the loop looks around this often.
const IDLE: Duration = Duration::from_secs(3600);

impl Actor {
    /// Looks at what is and begins what is to be done.
    pub(super) fn step(&mut self) {
        self.read_clocks();
        if self.is_overdue() {
            self.withdraw("the store was out of reach for the whole hold");
        }
        if self.doing == Doing::Withdrawing {
            // Nothing is joined, acknowledged or applied before nothing is in use.
            self.keep_status();
            return;
        }
        self.refresh_files();
        if self.joined.is_none() {
            self.start_offline();
            self.try_to_join();
            return;
        }
        // Reads first: writes that the store refuses for a while must not keep them back.
        self.keep_reading();
        self.obey();
        self.recheck();
        self.retry_at.take_if(|at| *at <= Instant::now());
        self.keep_status();
        self.keep_reading();
    }

    /// When to look again although nothing happened.
    pub(super) fn wake(&self) -> Instant {
        let now = Instant::now();
        let mut wake = now + IDLE;
        let mut by = |at: Instant| wake = wake.min(at.max(now));
        if self.joined.is_none() && self.io.is_none() && self.doing != Doing::Withdrawing {
            by(self.attempt_at);
        }
        if let Some(at) = self.offline_start_at() {
            by(at);
        }
        if self.io.is_none() && self.io_at > now {
            by(self.io_at);
        }
        // A moment that is past was looked at by the step before: what is missing now (an answer, a retry) wakes by itself. Still a
        // tick, never at once: otherwise the agent would run without a pause until it comes.
        let soon = |at: Instant| if at > now { at } else { now + TICK };
        if let Some(draining) = self.draining.filter(|_| self.doing == Doing::Nothing && self.joined.is_some()) {
            by(soon(draining.wakes_at()));
        }
        if let Some(unanswered) = self.unanswered.filter(|_| self.joined.is_some()) {
            by(soon(unanswered.next));
        }
        if let Some(at) = self.retry_at.filter(|_| self.joined.is_some()) {
            by(at);
        }
        if let Some(since) = self.joined.as_ref().and_then(|joined| joined.stale_since) {
            by(since + self.settings.lease_ttl);
        }
        // A lease that is not known to be good gets good again by a keep-alive, which wakes nobody.
        let unsaid = self.joined.as_ref().is_some_and(|joined| !self.is_written(joined) && !joined.lease.is_good());
        if unsaid || self.must_withdraw_when_isolated() {
            by(now + TICK);
        }
        // Not a tick later: the promise has no room for it.
        if let Some(left) = self.deadline().map(|at| at.saturating_sub(self.host.since_boot())).filter(|left| !left.is_zero()) {
            by(now + left);
        }
        if self.rechecks() && self.joined.is_some() {
            by(self.recheck_at);
        }
        // Whoever is due already was begun by the step before; what could not be begun is looked at again soon, not at once.
        wake.max(now + Duration::from_millis(1))
    }

    fn try_to_join(&mut self) {
        if self.io.is_some() || self.attempt_at > Instant::now() {
            return;
        }
        // In a box: a future keeps room twice for what it is given, and thousands may wait for their turn.
        let trial = Box::new(io::Trial {
            site: self.site.clone(),
            host: self.host.clone(),
            me: self.me.clone(),
            label: self.label.clone(),
            status: self.status(),
            lease: self.spare_lease.take(),
            lease_ttl: self.settings.lease_ttl,
            leases: self.ties.leases.clone(),
            rng: self.lease_rng(),
            applied: self.applied.clone(),
            first: !self.ever_joined,
            follows: self.feed.is_some(),
            replace: self.settings.replace && !self.ever_joined,
            since: self.since,
            word: self.word.clone(),
            seen: self.seen(),
        });
        self.io = boxed(async move { io::Done::Attempt(Box::new(io::attempt(trial).await)) });
    }

    /// For the beats of a lease.
    pub(super) fn lease_rng(&self) -> fastrand::Rng {
        self.context.rng(&format!("agent/{}/lease", self.me.run))
    }

    /// The sub-tree as it is seen, if this process joined before. A lease that is lost took its keys along, also if the watch has
    /// not shown that yet. (One whose time was overslept may live on all the same: the join compares that they are gone.)
    fn seen(&self) -> Option<Subtree> {
        let mut seen = self.view.newest.clone().filter(|_| self.ever_joined)?;
        seen.status.take_if(|status| self.lost_lease == Some(status.lease));
        Some(seen)
    }

    /// What was written may stand there no more: a store that was restored to a moment between two statuses of one run has the
    /// earlier one, on the lease that this run still keeps alive. Then that is what the next one follows on.
    fn see_own_status(&mut self) {
        let (Some(joined), Some(view)) = (&mut self.joined, &self.view.newest) else { return };
        let stands = view.status.as_ref().and_then(|entry| Some((entry.mod_revision, entry.ok()?)));
        let Some((at, status)) = stands.filter(|(_, status)| status.run == self.me.run) else { return };
        // One under way brings its own outcome.
        if self.io.is_none() && view.revision >= joined.floor && at != joined.status_revision {
            joined.status_revision = at;
            joined.written = status.clone();
        }
    }

    /// Does what the sub-tree asks for.
    fn obey(&mut self) {
        self.see_own_status();
        let (Some(joined), Some(view)) = (&self.joined, &self.view.newest) else { return };
        let known = Known {
            me: &self.me,
            lease: joined.lease.id(),
            label: &self.label,
            floor: joined.floor,
            since: self.since,
            applied: self.applied.as_deref(),
            proof: self.view.proof,
        };
        let next = observe::observe(view, &known);
        self.note_staleness(next == Next::Stale);
        match next {
            Next::Stale => {}
            Next::Rejoin(why) => {
                warn!(reason = why, "joining again");
                self.leave_store();
                self.try_to_join();
            }
            Next::Superseded => self.superseded(),
            Next::TakenBy(instance) => {
                warn!(%instance, "another instance has taken this id");
                self.leave_store();
                self.withdraw("another instance has taken this id");
            }
            Next::WriteLabel => self.write_label(),
            Next::Answer(act) => self.act(act),
        }
    }

    pub(super) fn superseded(&mut self) {
        let id = &self.me.id;
        self.end(Ending::Superseded(format!("another run of this instance of {id} took over: this one goes")));
    }

    fn note_staleness(&mut self, stale: bool) {
        let Some(joined) = &mut self.joined else { return };
        if !stale {
            joined.stale_since = None;
            return;
        }
        let since = *joined.stale_since.get_or_insert_with(Instant::now);
        // A view that never catches up with one's own write: the store stepped back, or the watch is stuck. A read tells.
        if since.elapsed() >= self.settings.lease_ttl {
            joined.stale_since = Some(Instant::now());
            self.read_now = true;
        }
    }

    fn write_label(&mut self) {
        let Some(view) = self.view.newest.as_ref() else { return };
        if self.io.is_some() || self.io_at > Instant::now() {
            return;
        }
        info!("the label is not as it should be: writing it again");
        let (label, status) = (modified(view.label.as_deref()), modified(view.status.as_deref()));
        let txn = join::label_txn(&self.site.prefix, &self.label, label, status);
        let site = self.site.clone();
        self.io = boxed(async move { io::Done::Label(io::write_label(&site, txn).await) });
    }

    fn act(&mut self, act: Do) {
        let answer = self.view.newest.as_ref().and_then(|view| view.assignment.as_ref()).and_then(|entry| entry.ok());
        if act != Do::Wait {
            self.unanswered = None;
        }
        match act {
            // An apply that began (its hook may have been called) for an answer that is gone.
            Do::Wait | Do::Waiting if !self.hooked.is_empty() => self.withdraw("the assignment is gone"),
            Do::Wait => {
                self.wish_for(Phase::Joining, Revision::NONE, String::new());
                self.note_silence();
            }
            Do::Keep if self.label.holding.is_some() => self.wish_while_held(),
            Do::Keep => self.stop_draining(),
            Do::Same => self.same(),
            Do::Apply => self.apply(),
            Do::Waiting => {
                let Some((generation, Answer::Waiting(waiting))) = answer.map(|a| (a.generation, a.answer.clone())) else {
                    return;
                };
                let message = format!("{}: {}", waiting.reason, waiting.message);
                if self.wish.message != message {
                    info!(reason = %waiting.reason, note = waiting.message, "waiting for an assignment");
                }
                self.wish_for(Phase::Joining, generation, message);
                self.forget_holding();
            }
            // What is still claimed for this node is safe to use a little longer.
            Do::Withdraw(_) if self.is_still_claimed() && !self.has_drained(None) => {}
            Do::Withdraw(why) => self.withdraw(&why),
            Do::Prove => self.prove(),
            Do::Hold => {
                let Some(applied) = &self.applied else { return };
                warn!(generation = %applied.assignment.generation, "the store forgot what this node uses: telling it");
                let holding = applied.holding();
                self.set_holding(holding);
                self.wish_while_held();
                self.write_label();
            }
        }
    }

    /// No allocator has answered yet: says so, at growing intervals.
    fn note_silence(&mut self) {
        let now = Instant::now();
        if let Some(waited) = self.unanswered.get_or_insert_with(|| Unanswered::new(now)).is_due(now) {
            let elapsed_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
            info!(elapsed_ms, "waiting for an assignment: no allocator has answered; `enlist get roles` shows whether one runs");
        }
    }

    /// The generation that is in use means nothing to this store, or, by chance, something else.
    fn wish_while_held(&mut self) {
        self.wish_for(Phase::Joining, Revision::NONE, "the store forgot what this node uses, and was told".into());
    }

    fn prove(&mut self) {
        let (Some(applied), Some(view)) = (self.applied.clone(), &self.view.newest) else { return };
        if self.io.is_some() || self.io_at > Instant::now() {
            return;
        }
        let (site, me, at) = (self.site.clone(), self.me.clone(), view.revision);
        self.io = boxed(async move { io::Done::Proof(at, io::prove(&site, &me, &applied).await) });
    }

    /// The store's answer to what was held is acknowledged: the label need not say it any more.
    pub(super) fn forget_holding(&mut self) {
        if self.label.holding.is_some() && self.joined.as_ref().is_some_and(|joined| self.is_written(joined)) {
            self.set_holding(None);
            self.write_label();
        }
    }

    pub(super) fn wish_for(&mut self, phase: Phase, generation: Revision, message: String) {
        self.wish = Wish { phase, generation, message };
    }

    /// The status as it should stand.
    pub(super) fn status(&self) -> Status {
        Status {
            instance: self.me.instance.clone(),
            boot: self.me.boot.clone(),
            run: self.me.run.clone(),
            phase: self.wish.phase,
            generation: self.wish.generation,
            message: self.wish.message.clone(),
            refused: self.refused.iter().map(|socket| Refused { ip: socket.ip(), port: socket.port() }).collect(),
        }
    }

    /// Whether that is what was written: after every step, so nothing is made for it.
    pub(super) fn is_written(&self, joined: &Joined) -> bool {
        let Status { instance, boot, run, phase, generation, message, refused } = &joined.written;
        (instance, boot, run) == (&self.me.instance, &self.me.boot, &self.me.run)
            && (*phase, *generation, message) == (self.wish.phase, self.wish.generation, &self.wish.message)
            && refused
                .iter()
                .map(|&Refused { ip, port }| (ip, port))
                .eq(self.refused.iter().map(|socket| (socket.ip(), socket.port())))
    }

    /// Writes the status if it should say something else, while the lease is known to be good.
    fn keep_status(&mut self) {
        if self.io.is_some() || self.io_at > Instant::now() {
            return;
        }
        let Some(joined) = &self.joined else { return };
        if self.is_written(joined) || !joined.lease.is_good() {
            return;
        }
        let status = self.status();
        let txn = join::status_txn(&self.site.prefix, &self.me, joined.status_revision, &status, joined.lease.id());
        let site = self.site.clone();
        self.io = boxed(async move { io::Done::Status(io::write_status(&site, txn).await, status) });
    }

    // Isolation: reads that prove that this node is still in the store.

    fn read_clocks(&mut self) {
        self.suspends.see(self.began.elapsed(), self.host.since_boot());
        if let Some(joined) = &self.joined {
            let beat = joined.lease.last_beat().saturating_duration_since(self.began);
            self.last_beat = self.suspends.at(beat);
        }
    }

    /// What is, or comes into, use and must be withdrawn when isolated.
    fn withdrawing(&self) -> impl Iterator<Item = &Applied> {
        let target = match &self.doing {
            Doing::Preparing(target) | Doing::StoppingOld(target) | Doing::Starting(target) => Some(&*target.applied),
            _ => None,
        };
        let serving = self.applied.as_deref().filter(|_| self.started);
        target.into_iter().chain(serving).filter(|applied| applied.withdraws())
    }

    pub(super) fn must_withdraw_when_isolated(&self) -> bool {
        self.withdrawing().next().is_some()
    }

    /// The shortest hold under which something is or comes into use.
    fn hold_s(&self) -> Option<u64> {
        self.withdrawing().filter_map(|applied| Some(applied.bound()?.terms.hold_s)).min()
    }

    fn is_overdue(&self) -> bool {
        self.must_withdraw_when_isolated() && !self.is_inside_the_hold()
    }

    /// Whether the last signs of the store are young enough.
    fn is_inside_the_hold(&self) -> bool {
        self.deadline().is_some_and(|at| self.host.since_boot() < at)
    }

    /// When what is or comes into use must be withdrawn, if it must when isolated.
    pub(super) fn deadline(&self) -> Option<Duration> {
        Some(isolation::deadline(self.good_read?.0, self.last_beat, self.hold_s()?))
    }

    /// Reads the sub-tree when it is time to, or when something is in doubt.
    fn keep_reading(&mut self) {
        let now = Instant::now();
        let due = self.must_withdraw_when_isolated() && self.read_at <= now;
        if self.io.is_some() || self.io_at > now || !(due || self.read_now) {
            return;
        }
        self.read_now = false;
        if let Some(hold_s) = self.hold_s() {
            self.read_at = now + isolation::read_every(self.settings.lease_ttl, hold_s);
        }
        let (site, me, sent) = (self.site.clone(), self.me.clone(), self.host.since_boot());
        self.io = boxed(async move { io::Done::Read(sent, Box::new(io::read(&site, &me).await)) });
    }
}
