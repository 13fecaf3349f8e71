//! The last thing that this installation is known to have written: a store that does not have it in its past stepped back, and
//! what it gives out of that past may be another's by now.
//!
//! Race: a backup is made, a node leaves (or stops for longer than its hold), its address is given to another, the backup goes in,
//! the node starts again. Its own answer is there as ever. The new owner still uses the address, and need not have told the
//! store yet.

use super::identity::Me;
use super::subtree::{Entry, Subtree};
use crate::model::assignment::Assignment;
use crate::model::label::Holding;
use crate::model::lineage::Mark;
use crate::model::names::{NodeId, Revision, RunId};
use crate::model::pool::OnIsolation;
use crate::model::status::{Phase, Status};

/// A status that was written, and when. Kept in the state directory when it is a process' last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The node.
    pub node: NodeId,
    /// The process that wrote it.
    pub run: RunId,
    /// Its mod_revision.
    pub revision: Revision,
    /// It was `left`: what the node had is given up for good.
    pub left: bool,
}

impl Word {
    /// A status of this agent that was written.
    pub fn of(me: &Me, status: &Status, revision: Revision) -> Word {
        Word { node: me.id.clone(), run: me.run.clone(), revision, left: status.phase == Phase::Left }
    }

    /// Whether it must be asked for before what stands there is used: something is given out of a pool where two must never use
    /// one address, or to a node that had given it up; and the word is not what stands there anyway.
    pub fn must_be_asked_for(&self, seen: &Subtree, me: &Me) -> bool {
        let own = seen.assignment.as_deref().and_then(Entry::ok).filter(|assignment| assignment.instance == me.instance);
        let Some(own) = own.filter(|own| !own.claims().is_empty() && self.node == me.id) else { return false };
        let stands = seen.status.as_ref().is_some_and(|status| self.is(status.mod_revision, status.ok()));
        (self.left || withdraws(own)) && !stands
    }

    /// Whether a store whose past is compacted is known to lack the word, by what stands there now. A key is never older than it was.
    /// A last word is on no lease: if nothing stands there, whoever deleted it gave up the answer as well. Unless a later run of this
    /// installation took its place and was killed: then nothing is known.
    pub fn is_missing(&self, seen: &Subtree, me: &Me) -> bool {
        let before = me.runs.iter().rev().find(|run| run.run != me.run);
        match &seen.status {
            Some(status) => status.mod_revision < self.revision,
            None => before.is_some_and(|before| before.run == self.run),
        }
    }

    /// Whether this status, as of the word's revision, is the word: then the store has it in its past.
    pub fn is_what_stood(&self, then: Option<(Revision, &Status)>) -> bool {
        then.is_some_and(|(revision, status)| self.is(revision, Some(status)))
    }

    fn is(&self, revision: Revision, status: Option<&Status>) -> bool {
        revision == self.revision && status.is_some_and(|status| status.run == self.run)
    }
}

/// What a node says that uses nothing, to a store that gives it something out of a past that is over.
pub fn nothing_since(generation: Revision, mark: Option<Mark>) -> Holding {
    Holding { generation, addresses: Vec::new(), ports: Default::default(), mark }
}

fn withdraws(assignment: &Assignment) -> bool {
    let present = assignment.bound().map(|bound| &bound.terms);
    let terms = present.into_iter().chain(assignment.leaving.iter().map(|leaving| &leaving.terms));
    terms.into_iter().any(|terms| terms.on_isolation == OnIsolation::Withdraw)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::super::fixtures::{bound, entry, joined, me, status};
    use super::super::identity::RecordedRun;
    use super::*;
    use crate::model::assignment::Answer;

    fn word(left: bool) -> Word {
        Word { node: me().id, run: "run-0".parse().unwrap(), revision: Revision(20), left }
    }

    fn given(on_isolation: OnIsolation) -> Subtree {
        let mut assignment = bound(8, "10.0.0.1", &[]);
        if let Answer::Bound(bound) = &mut assignment.answer {
            bound.terms.on_isolation = on_isolation;
        }
        joined(Some(assignment))
    }

    #[test]
    fn it_is_asked_for_where_it_matters() {
        let (keep, withdraw) = (given(OnIsolation::Keep), given(OnIsolation::Withdraw));
        assert!(word(false).must_be_asked_for(&withdraw, &me()));
        assert!(!word(false).must_be_asked_for(&keep, &me()));
        assert!(word(true).must_be_asked_for(&keep, &me()), "it gave that up");
        assert!(!word(true).must_be_asked_for(&joined(None), &me()), "nothing is given");
        let another = Word { node: "edge-8".parse().unwrap(), ..word(true) };
        assert!(!another.must_be_asked_for(&withdraw, &me()), "the directory was another node's then");
        let mut stands = withdraw;
        stands.status = Some(entry(status("mine", "run-0", Phase::Stopped), 20));
        assert!(!word(false).must_be_asked_for(&stands, &me()), "it stands there");
        stands.status = Some(entry(status("mine", "run-0", Phase::Registered), 19));
        assert!(word(false).must_be_asked_for(&stands, &me()), "one from before stands there");
    }

    #[test]
    fn a_compacted_store_is_asked_by_what_stands_there() {
        let mut seen = given(OnIsolation::Withdraw);
        seen.status = Some(entry(status("mine", "run-0", Phase::Registered), 19));
        assert!(word(false).is_missing(&seen, &me()), "an older one stands there");
        seen.status = Some(entry(status("mine", "run-9", Phase::Registered), 21));
        assert!(!word(false).is_missing(&seen, &me()), "a later one stands there");
        seen.status = None;
        let run = |run: &str| RecordedRun { run: run.parse().unwrap(), boot: me().boot, place: me().place };
        let after = |runs: &[&str]| Me { runs: runs.iter().map(|name| run(name)).collect(), ..me() };
        assert!(word(false).is_missing(&seen, &after(&["run-0", "run-1"])), "it was the last word");
        assert!(!word(false).is_missing(&seen, &after(&["run-0", "killed", "run-1"])), "a later run was killed");
        assert!(!Word { run: me().run, ..word(false) }.is_missing(&seen, &after(&["run-0", "run-1"])), "that was on a lease");
    }

    #[test]
    fn a_store_without_it_stepped_back() {
        let (mine, other) = (status("mine", "run-0", Phase::Left), status("mine", "run-x", Phase::Left));
        assert!(word(true).is_what_stood(Some((Revision(20), &mine))));
        assert!(!word(true).is_what_stood(Some((Revision(19), &mine))));
        assert!(!word(true).is_what_stood(Some((Revision(20), &other))));
        assert!(!word(true).is_what_stood(None));
    }
}
