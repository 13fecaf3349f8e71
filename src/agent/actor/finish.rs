//! The way out: the child is stopped, what is in use is put out of use, and the last word is written.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use super::io::Written;
use super::state::{Doing, Joined, outcome};
use super::{Actor, STORE_PAUSE_FIRST, STORE_PAUSE_MAX, io, work};
use crate::agent::decide::join;
use crate::agent::decide::word::Word;
use crate::agent::exit::{AgentExit, Ending};
use crate::agent::host::LeaveRequest;
use crate::model::names::Revision;
use crate::model::status::{Phase, Status};
use crate::store::api::{LeaseId, StoreError};

/// A store that is away gets this long, then the agent ends all the same.
const LAST_WORD_LIMIT: Duration = Duration::from_secs(2);

/// The answer to whoever asked for a leave is passed on within this.
const DELIVERY_LIMIT: Duration = Duration::from_secs(1);

impl Actor {
    pub(super) async fn finish(mut self: Box<Self>, ending: Ending, asked: Option<LeaveRequest>) -> AgentExit {
        let ending = match ending {
            Ending::Stopped if self.settings.ephemeral => Ending::Left,
            other => other,
        };
        if !self.ever_joined && !self.started {
            // What an earlier process' hook left in use may be in use by whoever holds the id.
            self.hooked.clear();
        }
        self.settle_work().await;
        let phase = match ending {
            Ending::Left => Some(Phase::Left),
            Ending::ChildEnded if self.settings.ephemeral => Some(Phase::Left),
            Ending::Stopped | Ending::ChildEnded | Ending::Settings(_) => Some(Phase::Stopped),
            _ => None,
        };
        info!(phase = phase.map_or("none", Phase::as_str), "ending");
        if phase.is_some() && ending != Ending::ChildEnded {
            self.drain_at_end().await;
        }
        self.put_all_out_of_use(phase).await;
        let left = match phase {
            Some(phase) => {
                let deadline = Instant::now() + LAST_WORD_LIMIT;
                let said = timeout_at(deadline, self.last_word(phase)).await.unwrap_or(Said::Unknown);
                if matches!(said, Said::At(_) | Said::Another) {
                    // Nothing of this run's is on a lease any more. What cannot be revoked in time runs out by itself.
                    let _ = timeout_at(deadline, self.give_leases_back()).await;
                }
                if let Said::At(at) = said {
                    work::remember_word(&*self.host, Word::of(&self.me, &self.status(), at)).await;
                    work::remember_registered(&*self.host, false).await;
                }
                let written = matches!(said, Said::At(_) | Said::Never);
                if matches!(said, Said::Another) {
                    info!(phase = %phase, "another run's word stands there: the last one is not written");
                }
                if matches!(said, Said::Unknown) {
                    warn!(phase = %phase, "the last word could not be written: this node will be taken for silent");
                }
                if phase == Phase::Left && written {
                    work::remember(&*self.host, None).await;
                }
                written
            }
            None => {
                if matches!(ending, Ending::Superseded(_)) {
                    let _ = timeout(LAST_WORD_LIMIT, self.give_leases_back_if_nothing_stands_there()).await;
                }
                true
            }
        };
        if let Some(LeaveRequest { reply, delivered }) = asked {
            let answer = if left {
                Ok(())
            } else {
                Err("etcd did not take the leave: the node stopped, its address is kept for it".into())
            };
            // Whoever asked may have gone.
            let _ = reply.send(answer);
            let _ = timeout(DELIVERY_LIMIT, delivered).await;
        }
        AgentExit { ending, child: self.child_code }
    }

    /// Brings work that must not be dropped to its end, and drops the rest.
    async fn settle_work(&mut self) {
        if let Some(memory) = self.memory.take() {
            memory.await;
        }
        match (&self.doing, self.work.take()) {
            (Doing::Starting(_), Some(work)) => {
                if let work::Done::Started(Ok(Some(child))) = work.await {
                    self.child = Some(child);
                }
            }
            (Doing::Withdrawing, Some(work)) => {
                work.await;
                self.withdrawn();
            }
            _ => {}
        }
        self.doing = Doing::Nothing;
    }

    /// Stops the child, saying `draining` meanwhile if that can be said, and calls the hook with `withdrawn`.
    async fn put_all_out_of_use(&mut self, phase: Option<Phase>) {
        if let Some(child) = self.child.take() {
            let (host, stop_timeout) = (self.host.clone(), self.settings.stop_timeout);
            let stop = async {
                tokio::select! {
                    biased;
                    code = work::stop_child(Arc::clone(&child), stop_timeout) => code,
                    () = host.hurried() => work::stop_child(Arc::clone(&child), Duration::ZERO).await,
                }
            };
            if phase.is_some() {
                self.wish.phase = Phase::Draining;
                self.publish();
                let code = tokio::select! {
                    biased;
                    code = stop => code,
                    never = self.say_on() => match never {},
                };
                self.child_code = Some(code);
            } else {
                self.child_code = Some(stop.await);
            }
        }
        let in_use = std::mem::take(&mut self.hooked);
        work::put_all_out_of_use(&*self.host, in_use, self.settings.hook_limit).await;
    }

    /// Keeps the status as wished for in the store until it is dropped, also if one who shares its lease takes that along.
    pub(super) async fn say_on(&mut self) -> Infallible {
        self.write_wish().await;
        while let Some(lease) = self.joined.as_ref().map(|joined| joined.lease.clone()) {
            lease.lost().await;
            if !lease.lives_on() {
                // The status went with it, as far as can be known. The last word is written all the same.
                break;
            }
            let moved = self.move_wish().await;
            if !moved {
                sleep(self.attempt_backoff.next(STORE_PAUSE_FIRST, STORE_PAUSE_MAX)).await;
            }
        }
        std::future::pending().await
    }

    /// Writes the status as wished for on another lease, if it is still as it was written. What became of it shows in `joined`.
    async fn move_wish(&mut self) -> bool {
        let spare = self.spare_lease.take().filter(|lease| lease.is_good());
        let lease = match spare {
            Some(lease) => lease,
            None => {
                match io::grant(&self.site.store, self.ties.leases.as_deref(), self.settings.lease_ttl, self.lease_rng()).await {
                    Ok(lease) => Arc::new(lease),
                    Err(error) => {
                        self.trouble(&error);
                        return false;
                    }
                }
            }
        };
        let Some(at) = self.joined.as_ref().map(|joined| joined.status_revision) else { return false };
        // Before anything is put on it: whoever cuts this short gives it back after the last word.
        self.spare_lease = Some(lease.clone());
        let status = self.status();
        let txn = join::status_txn(&self.site.prefix, &self.me, at, &status, lease.id());
        let written = io::write_first_status(&self.site, &lease, txn).await;
        if written.as_ref().is_err_and(|error| *error == StoreError::NoLease) {
            // It is this lease that is gone. The status stands where it was.
            lease.note_gone();
            return false;
        }
        let moved = matches!(written, Ok(Written::Yes(_)));
        if let Some(joined) = self.joined.as_mut().filter(|_| moved) {
            joined.lease = lease;
            self.spare_lease = None;
        }
        self.io_done(io::Done::Status(written, status));
        moved
    }

    /// Writes the status as wished for, once; what became of it shows in `joined`.
    pub(super) async fn write_wish(&mut self) {
        self.settle_request().await;
        let status = self.status();
        let unwritten = |joined: &&Joined| joined.lease.is_good() && !self.is_written(joined);
        let Some(joined) = self.joined.as_ref().filter(unwritten) else { return };
        let txn = join::status_txn(&self.site.prefix, &self.me, joined.status_revision, &status, joined.lease.id());
        let written = io::write_status(&self.site, txn).await;
        self.io_done(io::Done::Status(written, status));
    }

    /// Waits for the outcome of a request under way. If this is cut short, it stays under way.
    async fn settle_request(&mut self) {
        if self.io.is_some() {
            let done = outcome(&mut self.io).await;
            self.io_done(done);
        }
    }

    /// Writes `stopped` or `left`, without a lease.
    async fn last_word(&mut self, phase: Phase) -> Said {
        // A write under way may still land: its outcome first.
        self.settle_request().await;
        if self.joined.is_none() && !self.ever_joined && !self.unheard {
            return Said::Never;
        }
        self.wish.phase = phase;
        self.publish();
        let status = self.status();
        let mut last = self.joined.as_ref().map(|joined| joined.status_revision);
        // One lost compare is expected when an answer got lost.
        for _ in 0..3 {
            let Some(at) = last else { break };
            let txn = join::status_txn(&self.site.prefix, &self.me, at, &status, LeaseId::NONE);
            match io::write_status(&self.site, txn).await {
                Ok(Written::Yes(at)) => return Said::At(at),
                Ok(Written::Lost(Some((there, at)))) if there == status => return Said::At(at),
                Ok(Written::Lost(Some((there, revision)))) if there.run == self.me.run => last = Some(revision),
                Ok(Written::Lost(Some(_))) => return Said::Another,
                Ok(Written::Lost(None)) => last = None,
                // Unknown: try again, the compare tells.
                Err(_) => {}
            }
        }
        // One lost compare is expected when a join that was not answered arrives late.
        for _ in 0..3 {
            let Ok(seen) = io::read(&self.site, &self.me).await else { continue };
            let txn = match &seen.status {
                Some(own) if own.ok() == Some(&status) => return Said::At(own.mod_revision),
                // The answer to a join was lost, or the lease that was given up lives on.
                Some(own) if own.ok().is_some_and(|status| status.run == self.me.run) => {
                    join::status_txn(&self.site.prefix, &self.me, own.mod_revision, &status, LeaseId::NONE)
                }
                Some(other) => return if other.ok().is_some() { Said::Another } else { Said::Unknown },
                // Its lease ran out meanwhile. If nobody joined since, the label is still this run's.
                None => match seen.label.as_ref().filter(|label| label.ok().is_some_and(|label| label.run == self.me.run)) {
                    Some(own) => join::last_word_txn(&self.site.prefix, &self.me, own.mod_revision, &status),
                    None if !self.ever_joined => return Said::Never,
                    None => return Said::Unknown,
                },
            };
            if let Ok(response) = self.site.store.txn(txn).await
                && response.succeeded
            {
                return Said::At(response.header.revision);
            }
        }
        Said::Unknown
    }

    /// What a watch once showed may be out of a past that is over, or in the label alone: so the store is asked.
    async fn give_leases_back_if_nothing_stands_there(&mut self) {
        let Ok(seen) = io::read(&self.site, &self.me).await else { return };
        let is_another = |status: &Status| status.run != self.me.run;
        if seen.status.is_none_or(|status| status.ok().is_some_and(is_another)) {
            self.give_leases_back().await;
        }
    }

    /// Nothing of this agent's is on a lease any more.
    async fn give_leases_back(&mut self) {
        let joined = self.joined.take().map(|joined| joined.lease);
        let leases: Vec<_> = joined.into_iter().chain(self.spare_lease.take()).collect();
        // All places at once: none may be left when a revocation that takes long is cut short.
        join_all(leases.iter().map(|lease| lease.give_back(&self.site.store))).await;
    }
}

/// What became of the last word.
enum Said {
    /// It stands there, written at this revision.
    At(Revision),
    /// Nothing of this run's is in the store, as far as it ever heard: there is nothing to take back.
    Never,
    /// Another run's word stands there.
    Another,
    /// Perhaps nothing, and what stands there is not known.
    Unknown,
}
