//! What requests and work brought back.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::io::{Attempt, Entered, Outcome, Written};
use super::state::{Doing, Joined};
use super::{Actor, REFUSED_PAUSE_MAX, STORE_PAUSE_FIRST, STORE_PAUSE_MAX, io, work};
use crate::agent::decide::identity::Holder;
use crate::agent::decide::observe::{Do, Known, Next, Proof, answer, observe};
use crate::agent::decide::subtree::Subtree;
use crate::agent::decide::word::{Word, nothing_since};
use crate::agent::exit::Ending;
use crate::model::label::Label;
use crate::model::status::{Phase, Status};
use crate::store::api::StoreError;
use crate::store::wire::Encoded;

impl Actor {
    /// A request brought this back.
    pub(super) fn io_done(&mut self, done: io::Done) {
        match done {
            io::Done::Attempt(attempt) => self.attempted(*attempt),
            io::Done::Status(Ok(written), status) => self.status_written(written, status),
            io::Done::Label(Ok((written, revision))) => {
                self.answered();
                match (&mut self.joined, written) {
                    (Some(joined), true) => {
                        joined.floor = joined.floor.max(revision);
                        self.since = self.since.max(revision);
                    }
                    // Lost: what stands there is seen soon. Not in a hurry, two might write.
                    _ => self.io_at = Instant::now() + STORE_PAUSE_FIRST,
                }
            }
            io::Done::Read(sent, read) => match *read {
                Ok(subtree) => self.was_read(sent, subtree),
                Err(error) => self.failed(&error),
            },
            io::Done::Proof(at, Ok(proof)) => {
                self.answered();
                if self.view.newest.as_ref().is_some_and(|view| view.revision == at) {
                    self.view.proof = proof;
                }
                if proof == Proof::SteppedBack {
                    warn!("the store no longer knows what this node was given");
                    // The shared watch may not have seen it: with raised revisions nothing goes back.
                    self.ties.leases.iter().for_each(|leases| leases.store_stepped_back());
                }
            }
            io::Done::Status(Err(StoreError::NoLease), _) => {
                // It may have been given up meanwhile.
                if let Some(joined) = &self.joined {
                    joined.lease.note_gone();
                    self.lease_lost();
                }
                // If it has left the store meanwhile, this is the lease that it wrote on.
                if let Some(spare) = self.spare_lease.take() {
                    spare.note_gone();
                }
            }
            io::Done::Status(Err(error), _) | io::Done::Label(Err(error)) | io::Done::Proof(_, Err(error)) => self.failed(&error),
        }
    }

    /// A request failed: not again at once.
    fn failed(&mut self, error: &StoreError) {
        self.trouble(error);
        self.io_at = Instant::now() + self.io_backoff.next(STORE_PAUSE_FIRST, pause_max(error));
    }

    /// The store answered.
    fn answered(&mut self) {
        self.io_backoff.reset();
        if let Some(lasted) = self.nag.over(Instant::now()) {
            info!(elapsed_ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX), "the store answers again");
        }
    }

    /// Says that the store does not answer: once, then at longer intervals.
    pub(super) fn trouble(&mut self, error: &StoreError) {
        if self.nag.is_due(Instant::now()) {
            warn!(%error, "the store does not answer; trying on");
        }
    }

    /// Says a lasting state once.
    fn say(&mut self, text: String) {
        if self.said != text {
            warn!(reason = text, "cannot join yet");
            self.said = text;
        }
    }

    fn attempted(&mut self, mut attempt: Attempt) {
        self.spare_lease = attempt.lease;
        if attempt.contact {
            self.ever_in = true;
            self.answered();
            let known = if let Outcome::Joined(entered) = &mut attempt.outcome { entered.known.take() } else { None };
            self.open_feed(known);
        }
        let pause = match attempt.outcome {
            Outcome::Joined(entered) => {
                let Entered { label, status, row, header, .. } = *entered;
                info!(rev = %header.revision, row = ?row, cluster = format!("{:x}", header.cluster_id), "joined");
                return self.is_in(header.revision, label, status);
            }
            Outcome::Again => self.attempt_backoff.next(Duration::from_millis(10), STORE_PAUSE_MAX),
            // Credentials that were good before may be so again (a user that is being set up anew, an authority that is renewed).
            Outcome::Failed(error @ StoreError::Refused(_)) if !self.ever_in && !self.let_in_before => {
                return self.end(Ending::Refused(error));
            }
            Outcome::Failed(error) => {
                self.unheard |= self.spare_lease.is_some() && error.is_unknown_outcome();
                self.trouble(&error);
                self.attempt_backoff.next(STORE_PAUSE_FIRST, pause_max(&error))
            }
            Outcome::Held(message) if !self.ever_joined => {
                let advice = "; stop it, choose another id, or take it over with --replace";
                return self.end(Ending::Conflict(format!("{message}{advice}")));
            }
            Outcome::Held(message) => {
                self.withdraw(&message);
                self.say(message);
                self.attempt_backoff.next(STORE_PAUSE_FIRST, REFUSED_PAUSE_MAX)
            }
            Outcome::Wait(holder, why) => self.wait_for(holder, why),
            Outcome::WithdrawFirst(why) => {
                self.withdraw(&why);
                Duration::ZERO
            }
            Outcome::Over(generation, mark) => {
                warn!(%generation, "the store stepped back behind what this node gave up: what it gives is not used before it is given anew");
                (self.applied, self.given) = (None, None);
                self.set_holding(Some(Box::new(nothing_since(generation, mark))));
                Duration::ZERO
            }
            Outcome::Superseded => return self.superseded(),
        };
        self.attempt_at = Instant::now() + pause;
    }

    /// Somebody who does not answer seems to hold the id. How long to wait before the next look (the feed wakes it earlier).
    fn wait_for(&mut self, holder: Holder, why: String) -> Duration {
        let pause = self.settings.lease_ttl / 3;
        if self.ever_joined {
            self.say(why);
            return pause;
        }
        let limit = self.settings.join_timeout();
        self.say(format!("{why}; --replace would take it at once"));
        let since = match (holder.live, self.waits_since) {
            (true, Some(since)) => since,
            _ => Instant::now(),
        };
        self.waits_since = Some(since);
        let waited = since.elapsed();
        if holder.live && waited >= limit {
            let limit = humantime::format_duration(limit);
            self.end(Ending::Conflict(format!("{why}, and still has it after {limit}; --replace would take it")));
        }
        if holder.live { pause.min(limit.saturating_sub(waited)) } else { pause }
    }

    fn is_in(&mut self, revision: crate::model::names::Revision, label: Arc<Encoded<Label>>, status: Status) {
        let Some(lease) = self.spare_lease.take() else { return };
        self.word = Some(Word::of(&self.me, &status, revision));
        let (at, floor) = (Instant::now(), revision);
        self.joined = Some(Joined { lease, at, written: status, status_revision: revision, floor, stale_since: None });
        if self.label.variables == label.variables && self.label.description == label.description {
            self.label = label;
        } else {
            // Race: something else was said while the join was under way. The next look writes that label.
            self.set_holding(label.holding.clone());
        }
        self.ever_joined = true;
        self.note_registered();
        self.since = self.since.max(revision);
        self.waits_since = None;
        self.said.clear();
        self.attempt_backoff.reset();
    }

    fn status_written(&mut self, written: Written, status: Status) {
        self.answered();
        let Some(joined) = &mut self.joined else { return };
        match written {
            Written::Yes(revision) => {
                if joined.written.phase != status.phase || joined.written.generation != status.generation {
                    info!(phase = %status.phase, generation = %status.generation, note = note(&status), "status");
                }
                self.word = Some(Word::of(&self.me, &status, revision));
                joined.written = status;
                joined.status_revision = revision;
                joined.floor = joined.floor.max(revision);
                self.since = self.since.max(revision);
            }
            // An answer got lost: go on from what was written.
            Written::Lost(Some((there, revision))) if there.run == self.me.run && there.phase.is_live() => {
                joined.written = there;
                joined.status_revision = revision;
                joined.floor = joined.floor.max(revision);
            }
            // Gone, or another's: the next try to join finds out whose.
            Written::Lost(_) => {
                warn!("the status is not this run's any more: joining again");
                self.leave_store();
            }
        }
    }

    /// A linearizable read of the sub-tree, sent at `sent`.
    fn was_read(&mut self, sent: Duration, subtree: Subtree) {
        self.answered();
        let Some(joined) = &mut self.joined else { return };
        // No request but this one was under way: a read below one's own last write is proof of a step back.
        let stepped_back = subtree.revision < joined.floor;
        if stepped_back {
            warn!(rev = %subtree.revision, "the store stepped back: it was emptied, or restored from a backup");
            joined.floor = subtree.revision;
        }
        let known = Known {
            me: &self.me,
            lease: joined.lease.id(),
            label: &self.label,
            floor: joined.floor,
            since: self.since,
            applied: self.applied.as_deref(),
            proof: Proof::Unknown,
        };
        let act = match observe(&subtree, &known) {
            Next::Answer(act) => Some(act),
            // The status is this run's: that the label cannot be written for a while takes nothing away.
            Next::WriteLabel => {
                Some(answer(&subtree, &self.me.id, &self.me.instance, &self.label, self.applied.as_deref(), Proof::Unknown))
            }
            _ => None,
        };
        let good = match act {
            Some(Do::Same | Do::Apply) => true,
            Some(Do::Keep) => self.label.holding.is_none(),
            _ => false,
        };
        if good {
            self.good_read = Some((sent, crate::agent::decide::subtree::modified(subtree.assignment.as_deref())));
        }
        self.view.offer(subtree, stepped_back);
    }

    /// A piece of work brought this back.
    pub(super) fn work_done(&mut self, done: work::Done) {
        let doing = std::mem::replace(&mut self.doing, Doing::Nothing);
        match (done, doing) {
            (work::Done::Prepared(result), Doing::Preparing(target)) => self.prepared(*target, result),
            (work::Done::OldStopped, Doing::StoppingOld(target)) => self.start(*target),
            (work::Done::Started(Ok(child)), Doing::Starting(target)) => {
                if let Some(child) = &child {
                    info!(pid = child.pid(), "the child is started");
                }
                self.child = child;
                self.put_to_use(*target);
            }
            (work::Done::Started(Err(error)), Doing::Starting(_)) => {
                // The old child is gone: nothing serves.
                self.started = false;
                self.fail(error.to_string());
            }
            (work::Done::Checked(Ok(())), Doing::Checking) => {
                self.ready = true;
                self.retry_at = None;
                self.apply_backoff.reset();
                self.acknowledge();
            }
            (work::Done::Checked(Err(message)), Doing::Checking) => self.fail(message),
            (work::Done::Refreshed(Err(error)), Doing::Refreshing) => warn!(%error, "files could not be written again"),
            (work::Done::Rechecked(used), Doing::Rechecking) => self.rechecked(&used),
            (work::Done::Withdrawn, Doing::Withdrawing) => self.withdrawn(),
            _ => {}
        }
        if self.wish.phase == Phase::Registered && !self.started {
            self.wish_for(Phase::Joining, crate::model::names::Revision::NONE, String::new());
        }
    }
}

fn pause_max(error: &StoreError) -> Duration {
    if error.is_denied() { REFUSED_PAUSE_MAX } else { STORE_PAUSE_MAX }
}

/// What a status says beside its phase, if it says anything.
fn note(status: &Status) -> Option<&str> {
    Some(status.message.as_str()).filter(|message| !message.is_empty())
}
