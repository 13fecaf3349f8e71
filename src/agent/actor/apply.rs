//! Applying an answer, acknowledging it, and putting out of use what is no longer this node's.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::state::{Doing, Target, target};
use super::{Actor, boxed, work};
use crate::agent::decide::applied::Given;
use crate::agent::decide::isolation;
use crate::agent::exit::Ending;
use crate::agent::host::HookEvent;
use crate::model::names::Revision;
use crate::model::status::Phase;

impl Actor {
    /// The answer that stands there, as something to apply.
    fn wanted(&self) -> Option<Target> {
        let view = self.view.newest.as_ref()?;
        let assignment = view.assignment.as_ref()?.ok()?;
        target(view, Given::new(&self.label, assignment)?, self.label.holding.clone())
    }

    /// The answer gives what is in use.
    pub(super) fn same(&mut self) {
        // Race: an apply of something else began and is no longer asked for. It may have written its files, called its hook
        // and told the child to end: what was in use must be put to use again.
        if !self.started || self.tried.is_some() {
            return self.apply();
        }
        self.stop_draining();
        let Some(wanted) = self.wanted() else { return };
        // Terms that make it withdraw from now on: the same proof as at the first use.
        let was_free = self.applied.as_ref().is_some_and(|applied| !applied.withdraws());
        if was_free && wanted.applied.withdraws() && !self.may_use(&wanted) {
            return;
        }
        if self.applied.as_ref() != Some(&wanted.applied) {
            self.applied = Some(wanted.applied.clone());
            let host = self.host.clone();
            let applied = wanted.applied.clone();
            self.record(async move { work::remember(&*host, Some(&applied)).await });
        }
        if self.given.as_ref() != Some(&wanted.given) && self.doing == Doing::Nothing {
            // Another pool or generation for the same addresses and ports: files may name them, nobody is disturbed.
            self.given = Some(wanted.given.clone());
            self.doing = Doing::Refreshing;
            self.work = boxed(work::refresh(self.host.clone(), wanted.given));
        }
        self.acknowledge();
    }

    /// `registered`, once what is in use is ready.
    pub(super) fn acknowledge(&mut self) {
        let Some(applied) = &self.applied else { return };
        let generation = applied.assignment.generation;
        if self.started && self.ready {
            self.wish_for(Phase::Registered, generation, String::new());
            self.forget_holding();
        } else if self.started && self.doing == Doing::Nothing && self.retry_at.is_none_or(|at| at <= Instant::now()) {
            self.check();
        }
    }

    /// Begins to apply the answer that stands there, unless that is under way.
    pub(super) fn apply(&mut self) {
        let Some(wanted) = self.wanted() else { return };
        match &self.doing {
            Doing::Starting(_) | Doing::Withdrawing => return,
            Doing::Preparing(now) | Doing::StoppingOld(now) if now.given == wanted.given => return,
            _ => {}
        }
        if wanted.applied.withdraws() && !self.may_use(&wanted) {
            return;
        }
        // Another answer is tried at once, but not for ever: an allocator that has forgotten refusals gives them again.
        let failed_before = self.tried.as_ref() == Some(&wanted.given) || self.refused.len() >= REFUSED_MAX;
        if failed_before && self.retry_at.is_some_and(|at| at > Instant::now()) {
            return;
        }
        if !self.has_drained(Some(&wanted.given)) {
            return;
        }
        self.retry_at = None;
        self.drop_apply();
        self.prepare(wanted);
    }

    /// Whether an address that must be withdrawn when isolated may be put to use now: only after a read that showed this very
    /// assignment, inside the time that the read allows. (A watch event may be old.)
    fn may_use(&mut self, wanted: &Target) -> bool {
        let settings = &self.settings;
        let hold_s = wanted.applied.bound().map_or(0, |bound| bound.terms.hold_s);
        if let Some(fault) = isolation::fault(settings.lease_ttl, settings.stop_timeout, settings.hook_limit, hold_s) {
            if self.started {
                self.fail(fault);
            } else {
                self.end(Ending::Settings(fault));
            }
            return false;
        }
        let now = self.host.since_boot();
        let shown = self.good_read.is_some_and(|(read, of)| {
            of == wanted.applied.mod_revision && now < isolation::deadline(read, self.last_beat, hold_s)
        });
        if !shown {
            self.read_now = true;
        }
        shown
    }

    pub(super) fn prepare(&mut self, wanted: Target) {
        let previous = self.given.clone().filter(|_| self.started || !self.hooked.is_empty());
        let event = match &previous {
            Some(before) if before.addresses != wanted.given.addresses || before.ports != wanted.given.ports => {
                HookEvent::Changed
            }
            _ => HookEvent::Assigned,
        };
        let strays: Vec<Given> = self
            .hooked
            .iter()
            .filter(|given| Some(*given) != previous.as_ref() && given.addresses != wanted.given.addresses)
            .cloned()
            .collect();
        self.hooked.retain(|given| !strays.contains(given) && *given != wanted.given);
        self.hooked.push(wanted.given.clone());
        self.tried = Some(wanted.given.clone());
        self.files_stale = false;
        let (probe, own_ports) = self.probe(&wanted.given);
        let preparation = work::Preparation {
            host: self.host.clone(),
            probe,
            own_ports,
            given: wanted.given.clone(),
            previous,
            strays,
            event,
            hook_limit: self.settings.hook_limit,
        };
        self.doing = Doing::Preparing(Box::new(wanted));
        self.work = boxed(work::prepare(preparation));
    }

    /// What must be free before the target is put to use: all but what this node itself serves, and the ports that it serves
    /// somewhere. Without a child whatever listens where it was assigned before is the service that was configured then.
    fn probe(&self, given: &Given) -> (Vec<SocketAddr>, BTreeSet<u16>) {
        let serving = self.given.as_ref().filter(|_| self.child.is_some() || !self.host.has_child());
        let own = serving.map(Given::sockets).unwrap_or_default();
        let probe = given.sockets().into_iter().filter(|socket| !own.contains(socket)).collect();
        (probe, own.iter().map(SocketAddr::port).collect())
    }

    /// Whether what was refused is to be looked at, now or at `recheck_at`. What is being applied looks for itself.
    pub(super) fn rechecks(&self) -> bool {
        !self.refused.is_empty() && self.doing == Doing::Nothing && self.tried.is_none()
    }

    /// Looks at what was refused: a node that waits because of it would wait for ever, and others keep clear of it.
    pub(super) fn recheck(&mut self) {
        if self.rechecks() && self.recheck_at <= Instant::now() {
            self.doing = Doing::Rechecking;
            self.work = boxed(work::recheck(self.host.clone(), self.refused.iter().copied().collect()));
        }
    }

    /// Of what was refused, this is still in use.
    pub(super) fn rechecked(&mut self, used: &[SocketAddr]) {
        self.refused.retain(|socket| used.contains(socket));
        self.recheck_at = Instant::now() + super::APPLY_PAUSE_MAX;
    }

    /// Probe, files and hook went well, or not.
    pub(super) fn prepared(&mut self, target: Target, result: Result<(), work::Trouble>) {
        match result {
            Ok(()) => {
                self.refused
                    .retain(|socket| target.given.addresses.contains(&socket.ip()) && !target.given.sockets().contains(socket));
                let other = |given: &Given| given.addresses != target.given.addresses || given.ports != target.given.ports;
                // A child that an apply before this one told to end is of no use any more.
                let restart = self.child_stopping || self.given.as_ref().is_none_or(other);
                match self.child.clone() {
                    Some(child) if restart => {
                        self.child_stopping = true;
                        let stop_timeout = self.settings.stop_timeout;
                        self.doing = Doing::StoppingOld(Box::new(target));
                        self.work = boxed(async move {
                            work::stop_child(child, stop_timeout).await;
                            work::Done::OldStopped
                        });
                    }
                    Some(_) => self.put_to_use(target),
                    None => self.start(target),
                }
            }
            Err(work::Trouble::InUse(sockets)) => {
                let names: Vec<String> = sockets.iter().map(ToString::to_string).collect();
                // Bounded: a host on which everything is taken must not grow its status for ever.
                while self.refused.len() + sockets.len() > REFUSED_MAX && self.refused.pop_first().is_some() {}
                self.refused.extend(sockets);
                self.recheck_at = Instant::now() + super::APPLY_PAUSE_MAX;
                self.fail(format!("{} is in use on this host", names.join(", ")));
            }
            Err(work::Trouble::Host(error)) => self.fail(error.to_string()),
        }
    }

    /// Starts the child, if there is one.
    pub(super) fn start(&mut self, target: Target) {
        self.child_stopping = false;
        self.child = None;
        let (host, given, applied) = (self.host.clone(), target.given.clone(), target.applied.clone());
        self.doing = Doing::Starting(Box::new(target));
        self.work = boxed(work::start(host, given, applied));
    }

    /// It is in use from now on.
    pub(super) fn put_to_use(&mut self, target: Target) {
        let from = match (&self.given, self.started) {
            (Some(given), true) => given.summary(),
            _ => "nothing".into(),
        };
        let reason = format!("generation {} of pool {}", target.given.generation, target.given.pool);
        info!(from, to = target.given.summary(), reason, "the assignment changed");
        self.hooked = vec![target.given.clone()];
        self.given = Some(target.given);
        self.applied = Some(target.applied);
        self.started = true;
        self.ready = false;
        self.draining = None;
        if self.wish.phase == Phase::Draining {
            self.wish_for(Phase::Joining, Revision::NONE, String::new());
        }
        self.retry_at = None;
        self.tried = None;
        self.doing = Doing::Nothing;
        self.apply_backoff.reset();
        self.acknowledge();
    }

    /// Looks whether the ports accept connections, if somebody is to listen there.
    fn check(&mut self) {
        let settings = &self.settings;
        let listens = self.child.is_some() || settings.expect_listening;
        let sockets = self.given.as_ref().filter(|_| listens && !settings.no_ready_check).map(Given::sockets);
        match sockets {
            Some(sockets) if !sockets.is_empty() => {
                self.retry_at = None;
                self.doing = Doing::Checking;
                self.work = boxed(work::check(self.host.clone(), sockets, settings.ready_timeout));
            }
            _ => {
                self.ready = true;
                self.acknowledge();
            }
        }
    }

    /// Applying failed: say so, and try again later.
    pub(super) fn fail(&mut self, message: String) {
        self.doing = Doing::Nothing;
        // The drain is over: the status says `failed`, and the next try must neither drain nor say so again.
        self.draining = None;
        let pause = self.apply_backoff.next(super::APPLY_PAUSE_FIRST, super::APPLY_PAUSE_MAX);
        self.retry_at = Some(Instant::now() + pause);
        if self.wish.phase != Phase::Failed || self.wish.message != message {
            error!(error = message, "the assignment could not be applied");
        }
        let generation = match &self.applied {
            Some(applied) if self.started => applied.assignment.generation,
            _ => Revision::NONE,
        };
        self.wish_for(Phase::Failed, generation, message);
    }

    /// Gives up an apply that is not asked for any more. A child that is being stopped is stopped on by whoever comes next.
    pub(super) fn drop_apply(&mut self) {
        let may_be_dropped = matches!(
            self.doing,
            Doing::Preparing(_) | Doing::StoppingOld(_) | Doing::Checking | Doing::Refreshing | Doing::Rechecking
        );
        if may_be_dropped {
            self.work = None;
            self.doing = Doing::Nothing;
        }
    }

    /// Puts out of use whatever is in use. What is being started is waited for first.
    pub(super) fn withdraw(&mut self, why: &str) {
        if matches!(self.doing, Doing::Withdrawing | Doing::Starting(_)) {
            return;
        }
        self.drop_apply();
        let was = self.applied.as_ref().and_then(|applied| Given::new(&self.label, &applied.assignment));
        if was.is_none() && self.hooked.is_empty() && self.child.is_none() {
            return;
        }
        let from = was.as_ref().map_or_else(String::new, Given::summary);
        warn!(from, to = "nothing", reason = why, "the assignment changed");
        self.wish_for(Phase::Joining, Revision::NONE, why.to_owned());
        self.child_stopping = true;
        self.doing = Doing::Withdrawing;
        let (stop_timeout, hook_limit) = (self.settings.stop_timeout, self.settings.hook_limit);
        let in_use = std::mem::take(&mut self.hooked);
        self.work = boxed(work::withdraw(self.host.clone(), self.child.clone(), stop_timeout, in_use, hook_limit));
    }

    /// Nothing is in use any more.
    pub(super) fn withdrawn(&mut self) {
        self.doing = Doing::Nothing;
        self.child = None;
        self.child_stopping = false;
        self.applied = None;
        self.given = None;
        self.started = false;
        self.ready = false;
        self.draining = None;
        self.retry_at = None;
        self.tried = None;
        self.good_read = None;
        self.set_holding(None);
    }
}

/// More refusals than this are not kept.
const REFUSED_MAX: usize = 64;
