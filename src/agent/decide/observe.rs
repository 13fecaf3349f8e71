//! What an observed sub-tree asks of an agent that has joined.
//!
//! Level-triggered: it looks at what is, never at what happened. Calling it again on the same state gives the same answer.

use super::applied::{Applied, same_place};
use super::identity::{Me, superseded};
use super::subtree::{Entry, Subtree};
use crate::model::assignment::{Answer, Assignment};
use crate::model::label::Label;
use crate::model::lineage::Verdict;
use crate::model::names::{InstanceId, NodeId, Revision};
use crate::store::api::LeaseId;
use crate::store::wire::Encoded;

/// What is known beside the sub-tree.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Who this agent is.
    pub me: &'a Me,
    /// The lease that its status is on.
    pub lease: LeaseId,
    /// The label as it should stand.
    pub label: &'a Encoded<Label>,
    /// The revision of this run's last write: an older view says nothing.
    pub floor: Revision,
    /// The revision of this run's last write, also if the store stepped back behind it.
    pub since: Revision,
    /// What is in use.
    pub applied: Option<&'a Applied>,
    /// Whether the store is known to have forgotten it.
    pub proof: Proof,
}

/// Whether the store stepped back behind what was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Proof {
    /// Not asked yet.
    #[default]
    Unknown,
    /// It did: it was emptied, or restored from a backup.
    SteppedBack,
    /// It did not, or that cannot be told any more.
    No,
}

/// What to do about status and label first, then about the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The view is older than this run's last write: wait for a newer one.
    Stale,
    /// The status is gone, or not on this agent's lease: join again.
    Rejoin(&'static str),
    /// Another run of this instance took over: go.
    Superseded,
    /// Another instance has the id now: withdraw, and keep trying.
    TakenBy(InstanceId),
    /// The label was deleted or changed by somebody: write it again.
    WriteLabel,
    /// All in order; the answer says this.
    Answer(Do),
}

/// What the answer asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Do {
    /// There is no answer to this label yet, and nothing in use.
    Wait,
    /// What is in use goes on; the next answer is awaited.
    Keep,
    /// It gives what is in use: acknowledge this generation.
    Same,
    /// Apply it.
    Apply,
    /// It says why there is nothing; nothing is in use: acknowledge.
    Waiting,
    /// Stop using what is in use, for this reason.
    Withdraw(String),
    /// What is in use is not what the store says: find out whether the store stepped back ([`Proof`]).
    Prove,
    /// The store forgot what is in use: tell it, by `holding` in the label.
    Hold,
}

/// What to do.
pub fn observe(view: &Subtree, known: &Known<'_>) -> Next {
    if view.revision < known.floor {
        return Next::Stale;
    }
    if superseded(view, known.me, known.since) {
        return Next::Superseded;
    }
    match view.status.as_deref() {
        None => return Next::Rejoin("the status is gone"),
        Some(entry) if entry.is_unleased() => return Next::Rejoin("the status is on no lease"),
        Some(Entry { value: Ok(status), .. }) if status.instance != known.me.instance => {
            return Next::TakenBy(status.instance.clone());
        }
        Some(Entry { value: Ok(status), lease, .. }) => {
            // A restored backup brings earlier statuses back, on leases of then.
            if status.run != known.me.run {
                return Next::Rejoin("the status is that of an earlier run");
            }
            if !status.phase.is_live() {
                return Next::Rejoin("somebody declared this node gone");
            }
            if *lease != known.lease {
                return Next::Rejoin("the status is not on this agent's lease");
            }
        }
        Some(_) => return Next::Rejoin("the status cannot be read"),
    }
    if view.label.as_ref().is_none_or(|label| label.bytes != known.label.bytes()) {
        return Next::WriteLabel;
    }
    Next::Answer(answer(view, &known.me.id, &known.me.instance, known.label, known.applied, known.proof))
}

/// What the assignment asks for. Used before a join as well: what is somebody else's by now is withdrawn first.
pub fn answer(view: &Subtree, id: &NodeId, instance: &InstanceId, label: &Label, applied: Option<&Applied>, proof: Proof) -> Do {
    let present = match view.assignment.as_deref() {
        None => None,
        Some(Entry { value: Ok(assignment), .. }) => Some(assignment),
        // A newer enlist wrote it, or it was edited: what cannot be understood takes nothing away and gives nothing.
        Some(_) => return if applied.is_some() { Do::Keep } else { Do::Wait },
    };
    let mine = present.filter(|assignment| assignment.node == *id && assignment.instance == *instance);
    let answers = mine.filter(|assignment| assignment.asked.answers(label));
    let Some((applied, in_use)) = applied.and_then(|applied| Some((applied, applied.bound()?))) else {
        return match answers.map(|assignment| &assignment.answer) {
            None => Do::Wait,
            Some(Answer::Bound(_)) => Do::Apply,
            Some(Answer::Waiting(_)) => Do::Waiting,
        };
    };
    // The store forgot, and was told what is held: only its answer to that counts.
    if label.holding.is_some() && answers.is_none() {
        return Do::Keep;
    }
    if mine.and_then(Assignment::bound).is_some_and(|bound| same_place(bound, in_use)) {
        return if answers.is_some() { Do::Same } else { Do::Keep };
    }
    // A restore may raise the revisions, so a newer generation excuses only what is this node's still, or another's by now.
    let newer = present.is_some_and(|assignment| assignment.generation > applied.assignment.generation);
    let is_settled = mine.map_or(present.is_some(), |mine| covers(mine, applied));
    if !(newer && is_settled) && label.holding.is_none() {
        match proof {
            Proof::Unknown => return Do::Prove,
            Proof::SteppedBack => return Do::Hold,
            Proof::No => {}
        }
    }
    match answers.map(|assignment| &assignment.answer) {
        // What is in use serves until the new answer does, if it is still claimed for this node.
        Some(Answer::Bound(_)) if mine.is_some_and(|mine| covers(mine, applied)) => Do::Apply,
        Some(Answer::Bound(_)) => Do::Withdraw("the assignment no longer gives what is in use".into()),
        Some(Answer::Waiting(waiting)) => Do::Withdraw(format!("{}: {}", waiting.reason, waiting.message)),
        None => match (present, mine) {
            (None, _) => Do::Withdraw("the assignment is gone".into()),
            (Some(other), None) => Do::Withdraw(format!("the assignment is that of instance {}", other.instance)),
            (_, Some(mine)) if covers(mine, applied) => Do::Keep,
            (_, Some(_)) => Do::Withdraw("the assignment no longer gives what is in use".into()),
        },
    }
}

/// Whether every claim of what is in use is still this node's, as present or as `leaving`.
pub fn covers(assignment: &Assignment, applied: &Applied) -> bool {
    let claims = assignment.claims();
    applied.assignment.present_claims().iter().all(|claim| claims.binary_search(claim).is_ok())
}

/// What a store's past says of what was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past<'a> {
    /// The assignment as of the revision at which it was applied.
    AsOf(Option<&'a Assignment>),
    /// That revision is compacted: the lineage's verdict on the mark.
    Compacted(Verdict),
}

/// What a look at the store's past proves. A pass that began and did not end here may have written what was applied, or may not:
/// then the store is told what is held, and its allocator decides by the generations.
pub fn proof(applied: &Applied, cluster_id: u64, now: Revision, past: Past<'_>) -> Proof {
    if cluster_id != applied.cluster_id || now < applied.mod_revision || now < applied.assignment.generation {
        return Proof::SteppedBack;
    }
    let lacks_it = match past {
        // An agent from before there were marks kept the assignment without its mark.
        Past::AsOf(then) => then.is_none_or(|then| {
            let kept = &applied.assignment;
            let is_kept = then == kept || (kept.mark.is_none() && Assignment { mark: None, ..then.clone() } == *kept);
            !is_kept
        }),
        Past::Compacted(verdict) => matches!(verdict, Verdict::Lost | Verdict::Unfinished),
    };
    if lacks_it { Proof::SteppedBack } else { Proof::No }
}

/// Whether this node's assignment is an older one than what was applied. A key is never older than it was, so that proves a restore,
/// whatever it gives.
pub fn is_older(view: &Subtree, applied: &Applied) -> bool {
    let older = |entry: &Entry<Assignment>| entry.mod_revision < applied.mod_revision;
    view.cluster_id == applied.cluster_id && view.assignment.as_deref().is_some_and(older)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::super::fixtures::{self, LEASE, applied, bound, joined, label, leaving_of, me, waiting};
    use super::*;
    use crate::model::asked::Asked;
    use crate::model::lineage::{Mark, Nonce};
    use crate::model::pool::Sharing;
    use crate::model::status::Phase;
    use crate::plan::snapshot::Unreadable;

    fn next(view: &Subtree, label: &Label, applied: Option<&Applied>, proof: Proof) -> Next {
        let (me, label) = (me(), &Encoded::new(label.clone()));
        observe(view, &Known { me: &me, lease: LEASE, label, floor: Revision(11), since: Revision(11), applied, proof })
    }

    fn act(assignment: Option<Assignment>, applied: Option<&Applied>, proof: Proof) -> Do {
        match next(&joined(assignment), &label(), applied, proof) {
            Next::Answer(act) => act,
            other => panic!("{other:?}"),
        }
    }

    fn withdraws(act: Do, word: &str) {
        match act {
            Do::Withdraw(why) if why.contains(word) => {}
            other => panic!("{other:?}, not a withdraw with {word:?}"),
        }
    }

    #[test]
    fn an_old_view_says_nothing() {
        let mut view = joined(None);
        view.status = None;
        view.revision = Revision(10);
        assert_eq!(next(&view, &label(), None, Proof::Unknown), Next::Stale);
    }

    #[test]
    fn a_status_that_is_not_ours_any_more() {
        let with = |change: &dyn Fn(&mut Subtree)| {
            let mut view = joined(Some(bound(8, "10.0.0.1", &[])));
            change(&mut view);
            next(&view, &label(), None, Proof::Unknown)
        };
        let status = |instance: &str, run: &str, phase| {
            let mut entry = Some(fixtures::entry(fixtures::status(instance, run, phase), 12));
            fixtures::change(&mut entry).lease = LEASE;
            entry
        };
        assert!(matches!(with(&|view| view.status = None), Next::Rejoin(_)));
        assert!(matches!(with(&|view| fixtures::change(&mut view.status).lease = LeaseId(5)), Next::Rejoin(_)));
        // Nobody's, whoever it names: copied, or put by hand.
        for (instance, run) in [("mine", "run-1"), ("mine", "run-2"), ("other", "run-2")] {
            let unleased = |view: &mut Subtree| {
                view.status = status(instance, run, Phase::Registered);
                fixtures::change(&mut view.status).lease = LeaseId::NONE;
            };
            assert_eq!(with(&unleased), Next::Rejoin("the status is on no lease"), "{instance} {run}");
        }
        assert!(matches!(with(&|view| view.status = status("mine", "run-1", Phase::Left)), Next::Rejoin(_)));
        assert!(matches!(with(&|view| view.status = status("mine", "run-0", Phase::Registered)), Next::Rejoin(_)));
        assert_eq!(with(&|view| view.status = status("mine", "run-2", Phase::Joining)), Next::Superseded);
        assert_eq!(with(&|view| view.status = status("mine", "run-2", Phase::Stopped)), Next::Superseded);
        assert_eq!(with(&|view| view.status = status("other", "run-2", Phase::Joining)), Next::TakenBy("other".parse().unwrap()));
        assert_eq!(with(&|view| view.label = None), Next::WriteLabel);
        assert_eq!(with(&|view| fixtures::change(&mut view.label).bytes = "{}".into()), Next::WriteLabel);
        assert_eq!(with(&|_| {}), Next::Answer(Do::Apply));
    }

    #[test]
    fn nothing_in_use() {
        assert_eq!(act(None, None, Proof::Unknown), Do::Wait);
        assert_eq!(act(Some(bound(8, "10.0.0.1", &[])), None, Proof::Unknown), Do::Apply);
        assert_eq!(act(Some(waiting(8, None)), None, Proof::Unknown), Do::Waiting);
        let mut to_another_label = bound(8, "10.0.0.1", &[]);
        to_another_label.asked = "0000000000000001".parse().unwrap();
        assert_eq!(act(Some(to_another_label), None, Proof::Unknown), Do::Wait);
        let mut to_another_instance = bound(8, "10.0.0.1", &[]);
        to_another_instance.instance = "other".parse().unwrap();
        assert_eq!(act(Some(to_another_instance), None, Proof::Unknown), Do::Wait);
    }

    #[test]
    fn what_is_in_use_is_given_again() {
        let was = applied(bound(8, "10.0.0.1", &[("http", 80)]));
        for generation in [7, 8, 9] {
            let again = bound(generation, "10.0.0.1", &[("http", 80)]);
            assert_eq!(act(Some(again.clone()), Some(&was), Proof::Unknown), Do::Same);
            let to_another_label = Assignment { asked: "0000000000000001".parse().unwrap(), ..again };
            assert_eq!(act(Some(to_another_label), Some(&was), Proof::Unknown), Do::Keep);
        }
    }

    #[test]
    fn another_answer_is_applied_and_no_answer_keeps_what_is_still_claimed() {
        let was = applied(bound(8, "10.0.0.1", &[("http", 80)]));
        let mut moved = bound(9, "10.0.0.2", &[("http", 80)]);
        moved.leaving = vec![leaving_of(&was.assignment)];
        assert_eq!(act(Some(moved.clone()), Some(&was), Proof::Unknown), Do::Apply);
        moved.asked = "0000000000000001".parse().unwrap();
        assert_eq!(act(Some(moved.clone()), Some(&was), Proof::Unknown), Do::Keep);
        moved.leaving.clear();
        assert_eq!(act(Some(moved.clone()), Some(&was), Proof::Unknown), Do::Prove);
        withdraws(act(Some(moved.clone()), Some(&was), Proof::No), "no longer gives");
        moved.asked = was.assignment.asked;
        withdraws(act(Some(moved), Some(&was), Proof::No), "no longer gives");
    }

    #[test]
    fn waiting_gone_and_anothers_are_withdrawn() {
        let was = applied(bound(8, "10.0.0.1", &[("http", 80)]));
        withdraws(act(Some(waiting(9, Some(&was.assignment))), Some(&was), Proof::Unknown), "pool-full");
        assert_eq!(act(None, Some(&was), Proof::Unknown), Do::Prove);
        withdraws(act(None, Some(&was), Proof::No), "gone");
        let mut anothers = bound(9, "10.0.0.1", &[("http", 80)]);
        anothers.instance = "other".parse().unwrap();
        withdraws(act(Some(anothers), Some(&was), Proof::Unknown), "instance other");
    }

    #[test]
    fn a_store_that_forgot_is_told_what_is_held() {
        let was = applied(bound(8, "10.0.0.1", &[("http", 80)]));
        assert_eq!(act(None, Some(&was), Proof::SteppedBack), Do::Hold);
        let older = bound(3, "10.0.0.9", &[("http", 80)]);
        assert_eq!(act(Some(older.clone()), Some(&was), Proof::Unknown), Do::Prove);
        assert_eq!(act(Some(older.clone()), Some(&was), Proof::SteppedBack), Do::Hold);
        // A restore may have raised the revisions: what is newer by them excuses nothing.
        assert_eq!(act(Some(bound(9, "10.0.0.9", &[])), Some(&was), Proof::Unknown), Do::Prove);
        assert_eq!(act(Some(bound(9, "10.0.0.9", &[])), Some(&was), Proof::SteppedBack), Do::Hold);

        let held = Label { holding: was.holding(), ..label() };
        let mut view = joined(Some(older));
        view.label = Some(fixtures::entry(held.clone(), 11));
        let told = |view: &Subtree| next(view, &held, Some(&was), Proof::SteppedBack);
        assert_eq!(told(&view), Next::Answer(Do::Keep));
        view.assignment = None;
        assert_eq!(told(&view), Next::Answer(Do::Keep));
        // Its answer counts, although its generation is lower: what is held, another place, or nothing.
        let mut answer = bound(5, "10.0.0.1", &[("http", 80)]);
        answer.asked = Asked::of(&held, Sharing::Exclusive);
        view.assignment = Some(fixtures::entry(answer.clone(), 5));
        assert_eq!(told(&view), Next::Answer(Do::Same));
        view.assignment = Some(fixtures::entry(Assignment { asked: answer.asked, ..bound(5, "10.0.0.2", &[]) }, 5));
        assert!(matches!(told(&view), Next::Answer(Do::Withdraw(_))));
        view.assignment = Some(fixtures::entry(Assignment { asked: answer.asked, ..waiting(5, None) }, 5));
        assert!(matches!(told(&view), Next::Answer(Do::Withdraw(_))));
    }

    #[test]
    fn an_assignment_that_cannot_be_read_changes_nothing() {
        let was = applied(bound(8, "10.0.0.1", &[]));
        let mut view = joined(Some(bound(9, "10.0.0.2", &[])));
        fixtures::change(&mut view.assignment).value = Err(Unreadable::Newer(2));
        assert_eq!(next(&view, &label(), Some(&was), Proof::Unknown), Next::Answer(Do::Keep));
        assert_eq!(next(&view, &label(), None, Proof::Unknown), Next::Answer(Do::Wait));
    }

    #[test]
    fn what_proves_that_a_store_stepped_back() {
        let was = applied(bound(8, "10.0.0.1", &[]));
        let other = bound(8, "10.0.0.2", &[]);
        for (cluster, now, past, expected) in [
            (2, 100, Past::AsOf(Some(&was.assignment)), Proof::SteppedBack),
            (1, 7, Past::Compacted(Verdict::Known), Proof::SteppedBack),
            (1, 100, Past::AsOf(None), Proof::SteppedBack),
            (1, 100, Past::AsOf(Some(&other)), Proof::SteppedBack),
            (1, 100, Past::AsOf(Some(&was.assignment)), Proof::No),
            (1, 100, Past::Compacted(Verdict::Known), Proof::No),
            (1, 100, Past::Compacted(Verdict::Unknown), Proof::No),
            (1, 100, Past::Compacted(Verdict::Lost), Proof::SteppedBack),
            (1, 100, Past::Compacted(Verdict::Unfinished), Proof::SteppedBack),
        ] {
            assert_eq!(proof(&was, cluster, Revision(now), past), expected, "{cluster} {now} {past:?}");
        }
        // An agent from before there were marks kept the assignment without its mark; one with another mark is another assignment.
        let marked = |count| {
            let mark = Mark { seq: 3, nonce: Nonce(7), count };
            Assignment { mark: Some(mark), ..was.assignment.clone() }
        };
        assert_eq!(proof(&was, 1, Revision(100), Past::AsOf(Some(&marked(1)))), Proof::No);
        let kept = applied(marked(1));
        assert_eq!(proof(&kept, 1, Revision(100), Past::AsOf(Some(&marked(1)))), Proof::No);
        assert_eq!(proof(&kept, 1, Revision(100), Past::AsOf(Some(&marked(2)))), Proof::SteppedBack);
        let mut view = joined(Some(bound(9, "10.0.0.1", &[])));
        assert!(!is_older(&view, &was));
        fixtures::change(&mut view.assignment).mod_revision = Revision(7);
        assert!(is_older(&view, &was));
    }
}
