//! May this agent take its id? The identity table.
//!
//! | status | assignment | decision |
//! |---|---|---|
//! | none, `stopped` or `left` | neither bound nor `leaving` | take it |
//! | none, `stopped` or `left` | this instance's (`withdraw` and silent: also the label's run is recorded in this directory) | take it; it stays ours |
//! | `stopped` | another instance's | take it with its address: a re-installed host |
//! | live, its run recorded in this directory with this boot | any | a restart of this agent: take it at once |
//! | any other | any | somebody else's, for all we know: ask the temporary endpoint in the label |
//!
//! A live status that is on no lease counts as none, unless this agent wrote it. What cannot be read counts as somebody else's:
//! nothing is taken on a guess.

use std::net::SocketAddr;
use std::time::Duration;

use super::subtree::{Entry, Subtree};
use crate::model::assignment::Assignment;
use crate::model::label::Label;
use crate::model::names::{BootId, InstanceId, NodeId, PoolName, Revision, RunId};
use crate::model::pool::OnIsolation;
use crate::model::status::Phase;

/// Where a state directory is: a copied directory has another inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The device.
    pub device: u64,
    /// The inode.
    pub inode: u64,
}

/// A run that this directory has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedRun {
    /// The run.
    pub run: RunId,
    /// The boot of the host then: a cloned machine has another.
    pub boot: BootId,
    /// Where the directory was then.
    pub place: Place,
}

/// Who this agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Me {
    /// The node.
    pub id: NodeId,
    /// The installation.
    pub instance: InstanceId,
    /// The boot of the host.
    pub boot: BootId,
    /// This process.
    pub run: RunId,
    /// Where its state directory is now.
    pub place: Place,
    /// Every run that the directory recorded, this one included.
    pub runs: Vec<RecordedRun>,
}

impl Me {
    /// Whether `run` was a process of this very directory, on whatever boot.
    pub fn ran_here(&self, run: &RunId) -> bool {
        self.runs.iter().any(|recorded| recorded.run == *run && recorded.place == self.place)
    }

    /// Whether `run` was a process of this very directory on this very boot: it cannot be alive, the directory is locked.
    pub fn ran_here_since_boot(&self, run: &RunId) -> bool {
        self.runs.iter().any(|recorded| recorded.run == *run && recorded.place == self.place && recorded.boot == self.boot)
    }
}

/// May it take its id?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Yes, and by which row.
    Take(Row),
    /// Only if the holder's temporary endpoint does not answer.
    Ask(Holder),
}

/// The rows that take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Row {
    /// Nobody has it.
    Free,
    /// It is this instance's.
    Mine,
    /// The host was installed anew; the old one stopped properly.
    Reinstalled,
    /// This agent was restarted.
    Restart,
    /// The operator said so.
    Replaced,
}

/// Who seems to hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// A live status says so; else it is silent or left.
    pub live: bool,
    /// Its temporary endpoint and who must answer there; `None` = the label is absent or unreadable.
    pub endpoint: Option<(SocketAddr, InstanceId)>,
    /// What its address is kept by while it is silent: the pool, and the hold in seconds; `None` = it has none.
    pub hold: Option<(PoolName, u64)>,
    /// Whether it calls itself this very instance: a copy of the disk or directory, for all we know.
    pub same_instance: bool,
}

impl Holder {
    /// When somebody else may have the id of a silent holder, in words.
    pub fn kept_until(&self) -> String {
        let limit = self.hold.as_ref().map(|(pool, seconds)| {
            let hold = humantime::format_duration(Duration::from_secs(*seconds));
            format!(" ({hold} after it fell silent, by pool {pool}; longer while the allocator's brake is on)")
        });
        format!("until it stops or its hold is over{}", limit.unwrap_or_default())
    }
}

/// The identity table.
pub fn decide(seen: &Subtree, me: &Me, replace: bool) -> Identity {
    if replace {
        return Identity::Take(Row::Replaced);
    }
    match seen.status.as_deref() {
        None => away_holder(seen, me, None),
        Some(Entry { value: Ok(status), .. }) if !status.phase.is_live() => away_holder(seen, me, Some(status.phase)),
        Some(Entry { value: Ok(status), .. }) if me.ran_here_since_boot(&status.run) => Identity::Take(Row::Restart),
        Some(entry) if entry.is_unleased() => away_holder(seen, me, None),
        Some(_) => Identity::Ask(holder(seen, me, true)),
    }
}

/// `phase`: `None` = no status at all.
fn away_holder(seen: &Subtree, me: &Me, phase: Option<Phase>) -> Identity {
    let assignment = match seen.assignment.as_deref() {
        None => return Identity::Take(Row::Free),
        Some(Entry { value: Ok(assignment), .. }) => assignment,
        Some(_) => return Identity::Ask(holder(seen, me, false)),
    };
    if assignment.bound().is_none() && assignment.leaving.is_empty() {
        return Identity::Take(Row::Free);
    }
    if assignment.instance == me.instance {
        // A silent holder out of a `withdraw` pool may still use the address until its hold is over. That it was this
        // directory is proof that it does not.
        let proven = phase.is_some() || !withdraws(assignment) || label_ran_here(seen.label.as_deref(), me);
        return if proven { Identity::Take(Row::Mine) } else { Identity::Ask(holder(seen, me, false)) };
    }
    match phase {
        Some(Phase::Stopped) => Identity::Take(Row::Reinstalled),
        _ => Identity::Ask(holder(seen, me, false)),
    }
}

fn withdraws(assignment: &Assignment) -> bool {
    let present = assignment.bound().map(|bound| &bound.terms);
    present
        .into_iter()
        .chain(assignment.leaving.iter().map(|leaving| &leaving.terms))
        .any(|terms| terms.on_isolation == OnIsolation::Withdraw)
}

fn label_ran_here(label: Option<&Entry<Label>>, me: &Me) -> bool {
    label.and_then(Entry::ok).is_some_and(|label| me.ran_here(&label.run))
}

fn holder(seen: &Subtree, me: &Me, live: bool) -> Holder {
    let label = seen.label.as_deref().and_then(Entry::ok);
    let status = seen.status.as_deref().and_then(Entry::ok);
    let assignment = seen.assignment.as_deref().and_then(Entry::ok);
    let instance = status
        .map(|status| &status.instance)
        .or(assignment.map(|assignment| &assignment.instance))
        .or(label.map(|label| &label.instance));
    Holder {
        live,
        endpoint: label.map(|label| (label.temporary, label.instance.clone())),
        hold: assignment.and_then(hold),
        same_instance: instance == Some(&me.instance),
    }
}

/// The longest of what it has. The pool's own may be longer by now, but an agent reads no pools.
fn hold(assignment: &Assignment) -> Option<(PoolName, u64)> {
    let present = assignment.bound().map(|bound| &bound.terms);
    let terms = present.into_iter().chain(assignment.leaving.iter().map(|leaving| &leaving.terms));
    terms.max_by_key(|terms| terms.hold_s).map(|terms| (terms.pool.clone(), terms.hold_s))
}

/// Whether another run of this instance joined since this one did: it was superseded and must go.
///
/// `since`: the revision of this run's last write. What is older is no successor's: a restored backup brings the labels of
/// earlier runs back.
pub fn superseded(seen: &Subtree, me: &Me, since: Revision) -> bool {
    let other = |at: Revision, instance: &InstanceId, run: &RunId| {
        at > since && *instance == me.instance && *run != me.run && !me.ran_here(run)
    };
    let label = seen.label.as_ref().and_then(|entry| Some((entry.mod_revision, entry.ok()?)));
    // A run that takes over writes its status on its lease. One on none was copied, or put by hand.
    let status = seen.status.as_ref().filter(|entry| !entry.is_unleased());
    let status = status.and_then(|entry| Some((entry.mod_revision, entry.ok()?)));
    label.is_some_and(|(at, label)| other(at, &label.instance, &label.run))
        || status.is_some_and(|(at, status)| other(at, &status.instance, &status.run))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use std::sync::Arc;

    use super::super::fixtures::{LEASE, bound, change, entry, label, me, status, waiting};
    use super::*;
    use crate::model::assignment::Answer;
    use crate::model::status::Status;
    use crate::plan::snapshot::Unreadable;
    use crate::store::api::LeaseId;

    /// instance and run of the label and the status; phase "none" = no status; what is assigned.
    fn subtree(instance: &str, run: &str, phase: &str, assignment: Option<Assignment>) -> Subtree {
        let mut label = label();
        label.instance = instance.parse().unwrap();
        label.run = run.parse().unwrap();
        Subtree {
            label: Some(entry(label, 5)),
            status: (phase != "none").then(|| on_its_lease(entry(status(instance, run, phase.parse().unwrap()), 6))),
            assignment: assignment.map(|mut assignment| {
                assignment.instance = instance.parse().unwrap();
                entry(assignment, 7)
            }),
            ..Subtree::default()
        }
    }

    /// As agents write it: on a lease while its phase is a live one.
    fn on_its_lease(mut entry: Arc<Entry<Status>>) -> Arc<Entry<Status>> {
        let is_live = entry.ok().unwrap().phase.is_live();
        Arc::get_mut(&mut entry).unwrap().lease = if is_live { LEASE } else { LeaseId::NONE };
        entry
    }

    fn withdraw(mut assignment: Assignment) -> Assignment {
        if let Answer::Bound(bound) = &mut assignment.answer {
            bound.terms.on_isolation = OnIsolation::Withdraw;
        }
        assignment
    }

    fn check(seen: &Subtree, expected: &str) {
        let got = match decide(seen, &me(), false) {
            Identity::Take(row) => format!("{row:?}"),
            Identity::Ask(holder) => format!("ask live={} same={}", holder.live, holder.same_instance),
        };
        assert_eq!(got, expected, "{seen:#?}");
    }

    #[test]
    fn nobody_has_it() {
        check(&Subtree::default(), "Free");
        for phase in ["none", "stopped", "left"] {
            check(&subtree("other", "run-x", phase, None), "Free");
            check(&subtree("other", "run-x", phase, Some(waiting(9, None))), "Free");
        }
    }

    #[test]
    fn it_is_this_instances() {
        let given = bound(8, "10.0.0.1", &[]);
        for phase in ["none", "stopped", "left"] {
            check(&subtree("mine", "run-x", phase, Some(given.clone())), "Mine");
            check(&subtree("mine", "run-x", phase, Some(waiting(9, Some(&given)))), "Mine");
        }
    }

    #[test]
    fn a_silent_holder_that_withdraws_must_have_been_this_directory() {
        let given = withdraw(bound(8, "10.0.0.1", &[]));
        for (run, expected) in [
            ("run-0", "Mine"),
            ("run-old-boot", "Mine"),
            ("run-copied", "ask live=false same=true"),
            ("run-x", "ask live=false same=true"),
        ] {
            check(&subtree("mine", run, "none", Some(given.clone())), expected);
            check(&subtree("mine", run, "none", Some(waiting(9, Some(&given)))), expected);
            check(&subtree("mine", run, "stopped", Some(given.clone())), "Mine");
        }
        let mut without_label = subtree("mine", "run-0", "none", Some(given));
        without_label.label = None;
        check(&without_label, "ask live=false same=true");
    }

    #[test]
    fn a_reinstalled_host_takes_over_what_stopped_properly() {
        let given = bound(8, "10.0.0.1", &[]);
        check(&subtree("other", "run-x", "stopped", Some(given.clone())), "Reinstalled");
        check(&subtree("other", "run-x", "stopped", Some(waiting(9, Some(&given)))), "Reinstalled");
        check(&subtree("other", "run-x", "none", Some(given.clone())), "ask live=false same=false");
        check(&subtree("other", "run-x", "left", Some(given)), "ask live=false same=false");
    }

    #[test]
    fn how_long_a_silent_holder_keeps_the_id_is_known() {
        let seen = subtree("other", "run-x", "none", Some(bound(8, "10.0.0.1", &[])));
        let Identity::Ask(holder) = decide(&seen, &me(), false) else { panic!("taken") };
        assert_eq!(holder.hold, Some(("eu".parse().unwrap(), 600)));
        assert_eq!(
            holder.kept_until(),
            "until it stops or its hold is over (10m after it fell silent, by pool eu; longer while the allocator's brake is on)"
        );
        let unreadable = Holder { hold: None, ..holder };
        assert_eq!(unreadable.kept_until(), "until it stops or its hold is over");
    }

    #[test]
    fn a_live_status_is_taken_only_by_a_restart() {
        for phase in ["joining", "registered", "failed", "draining"] {
            for given in [None, Some(bound(8, "10.0.0.1", &[])), Some(withdraw(bound(8, "10.0.0.1", &[])))] {
                check(&subtree("mine", "run-0", phase, given.clone()), "Restart");
                check(&subtree("mine", "run-1", phase, given.clone()), "Restart");
                check(&subtree("mine", "run-old-boot", phase, given.clone()), "ask live=true same=true");
                check(&subtree("mine", "run-copied", phase, given.clone()), "ask live=true same=true");
                check(&subtree("other", "run-x", phase, given), "ask live=true same=false");
            }
        }
    }

    #[test]
    fn a_live_status_on_no_lease_counts_as_none() {
        let given = bound(8, "10.0.0.1", &[]);
        let unleased = |instance: &str, run: &str, given: Option<Assignment>| {
            let mut seen = subtree(instance, run, "registered", given);
            change(&mut seen.status).lease = LeaseId::NONE;
            seen
        };
        check(&unleased("other", "run-x", None), "Free");
        check(&unleased("other", "run-x", Some(given.clone())), "ask live=false same=false");
        check(&unleased("mine", "run-x", Some(given.clone())), "Mine");
        check(&unleased("mine", "run-copied", Some(withdraw(given.clone()))), "ask live=false same=true");
        check(&unleased("mine", "run-0", Some(withdraw(given.clone()))), "Restart");
        let mut seen = unleased("mine", "run-x", None);
        change(&mut seen.label).mod_revision = Revision(3);
        assert!(!superseded(&seen, &me(), Revision(4)));
        change(&mut seen.status).lease = LEASE;
        assert!(superseded(&seen, &me(), Revision(4)));
    }

    #[test]
    fn what_cannot_be_read_is_somebody_elses() {
        let mut seen = subtree("mine", "run-0", "registered", None);
        change(&mut seen.status).value = Err(Unreadable::Newer(2));
        check(&seen, "ask live=true same=true");
        let mut seen = subtree("mine", "run-0", "none", Some(bound(8, "10.0.0.1", &[])));
        change(&mut seen.assignment).value = Err(Unreadable::Invalid(String::new()));
        check(&seen, "ask live=false same=true");
    }

    #[test]
    fn the_operator_may_replace_whoever_it_is() {
        let seen = subtree("other", "run-x", "registered", Some(bound(8, "10.0.0.1", &[])));
        assert_eq!(decide(&seen, &me(), true), Identity::Take(Row::Replaced));
    }

    #[test]
    fn only_a_later_run_supersedes() {
        for (instance, run, expected) in [
            ("mine", "run-1", false),
            ("mine", "run-0", false),
            ("mine", "run-old-boot", false),
            ("mine", "run-x", true),
            ("mine", "run-copied", true),
            ("other", "run-x", false),
        ] {
            // The label is of revision 5, the status of 6.
            for (phase, since, expected) in
                [("registered", 5, expected), ("none", 4, expected), ("none", 5, false), ("registered", 6, false)]
            {
                let seen = subtree(instance, run, phase, None);
                assert_eq!(superseded(&seen, &me(), Revision(since)), expected, "{instance} {run} {phase} {since}");
            }
        }
    }
}
