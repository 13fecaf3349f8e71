//! The allocator's count of its passes in `lineage`, and what it proves.
//!
//! Every pass that writes counts, and every write of a pass compares that the count is the one of its pass. Race: a restore brings
//! the leader key back together with its lease, so a leader that has not noticed the restore would write on. Its count fails there.
//!
//! The leader counts before a pass writes and after it has ended. Between the two the pass is *unfinished*: a backup that is made
//! then has some of its writes. A pass of one change counts in the transaction of that change.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, warn};

use crate::model::lineage::{Chain, Mark, Nonce};
use crate::model::names::Revision;
use crate::plan::snapshot::{Snapshot, Stored, Unreadable};
use crate::store::api::{Compare, Key, KeyRange, KeyValue, Op, RangeRequest, StoreError};
use crate::store::committer::Unit;
use crate::store::wire::Stored as _;

/// A single change with more compares or writes than this counts in a request of its own: etcd takes 128 of each.
const WIDE: usize = 100;
/// After a refused count the next one is tried when this is over: grants change by hand.
const DENIED: Duration = Duration::from_secs(60);
/// Nonces that are remembered because they began a quiet time. A store has a new one with each term; what is beyond was made up.
const PROVIDED_MAX: usize = 256;
/// A mark of a node begins a quiet time this often: restores of which the allocator learns from nodes alone are rarer, and a node that
/// makes marks up, or comes from another installation with its state directory, must not keep the others waiting.
const QUIET_BY_MARKS_EVERY: Duration = Duration::from_secs(3600);

/// A value of `lineage` that was seen or written.
#[derive(Debug, Clone)]
struct Seen {
    revision: Revision,
    chain: Result<Chain, Unreadable>,
}

/// The count as this instance knows it. It is kept up while standing by too, so that a restore is noticed by whoever leads next.
#[derive(Debug)]
pub(super) struct Lineage {
    key: Key,
    rng: fastrand::Rng,
    last: Option<Seen>,
    /// The epoch of this term.
    epoch: Option<Nonce>,
    /// A pass began in this term and was not ended.
    open: bool,
    /// Lost epochs that a quiet time was begun for.
    provided: BTreeSet<Nonce>,
    /// When such a mark last began a quiet time.
    by_marks: Option<Instant>,
    /// The store lets this user not write here: until then passes are neither counted nor marked.
    denied_until: Option<Instant>,
}

/// How a view came to show what it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// By events.
    Told,
    /// By a listing.
    Listed,
    /// By a listing of a store whose revisions went back.
    SteppedBack,
}

/// A pass that is about to write.
#[derive(Debug, Clone)]
pub(super) struct Begun {
    known: Revision,
    chain: Chain,
    nonce: Nonce,
    /// What its assignments carry.
    pub(super) mark: Mark,
}

impl Lineage {
    pub(super) fn new(key: Key, rng: fastrand::Rng) -> Self {
        Lineage { key, rng, last: None, epoch: None, open: false, provided: BTreeSet::new(), by_marks: None, denied_until: None }
    }

    /// Takes note of what a view shows. Answers whether it proves that the store was restored.
    pub(super) fn see(&mut self, snapshot: &Snapshot, shown: Shown) -> bool {
        let last = self.last.as_ref().map_or(Revision::NONE, |last| last.revision);
        if snapshot.revision < last && shown != Shown::SteppedBack {
            return false; // this instance's own write has not come back yet
        }
        let stored = snapshot.lineage.as_ref();
        let lower = stored.map_or(Revision::NONE, |stored| stored.mod_revision) < last;
        if shown == Shown::Listed && lower {
            warn!(rev = %snapshot.revision, "store was restored: it lacks passes that this allocator knows of");
        }
        if lower || shown == Shown::SteppedBack || (shown == Shown::Listed && self.open) {
            self.end_term();
        }
        if lower || stored.is_some_and(|stored| stored.mod_revision > last) {
            self.last = stored.map(|stored| Seen { revision: stored.mod_revision, chain: stored.value.clone() });
        }
        shown == Shown::Listed && lower
    }

    /// What comes next is counted in an epoch of its own.
    pub(super) fn end_term(&mut self) {
        (self.epoch, self.open) = (None, false);
    }

    /// Whether a quiet time must begin because of marks that the store has lost. `is_quiet`: one has begun already.
    pub(super) fn must_be_quiet(&mut self, lost: &[Mark], is_quiet: bool) -> bool {
        if self.provided.len() >= PROVIDED_MAX {
            self.provided.clear();
        }
        let news = lost.iter().filter(|mark| self.provided.insert(mark.nonce)).count();
        let is_due = self.by_marks.is_none_or(|at| at.elapsed() >= QUIET_BY_MARKS_EVERY);
        let must = news > 0 && !is_quiet && is_due;
        if must {
            self.by_marks = Some(Instant::now());
        }
        must
    }

    /// The store refused a write of the count, as with the grants of an older enlist. The passes of the next minute go without.
    pub(super) fn denied(&mut self, error: &StoreError) {
        error!(key = %self.key, %error, "permission to write lineage is missing; restores with raised revisions are not recognised");
        self.end_term();
        self.denied_until = Some(Instant::now() + DENIED);
    }

    /// Begins a pass; `None` = it is not counted: that was refused a moment ago, or a newer enlist counts here in another way.
    pub(super) fn begin(&mut self, snapshot: &Snapshot) -> Option<Begun> {
        if self.denied_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let known = self.last.as_ref().map_or(Revision::NONE, |last| last.revision);
        let chain = match self.last.as_ref().map(|last| &last.chain) {
            Some(Ok(chain)) => chain.clone(),
            Some(Err(Unreadable::Newer(_))) => return None,
            // No mark that was given before is told anything of by a chain that begins after it.
            Some(Err(Unreadable::Invalid(fault))) => {
                error!(key = %self.key, fault, "lineage cannot be read; starting it again");
                Chain::after(newest(snapshot))
            }
            None => Chain::after(newest(snapshot)),
        };
        let (nonce, chain) = match self.epoch {
            Some(nonce) if chain.head().is_some_and(|head| head.nonce == nonce) => (nonce, chain),
            _ => {
                let nonce = Nonce(self.rng.u64(..));
                (nonce, chain.begin(nonce))
            }
        };
        let chain = chain.count(1);
        let mark = chain.head()?;
        Some(Begun { known, chain, nonce, mark })
    }

    /// The count of a pass as a unit of its own.
    pub(super) fn count(&self, begun: &Begun) -> Unit {
        Unit {
            compares: vec![self.is_at(begun.known)],
            writes: vec![Op::put(self.key.clone(), begun.chain.encode())],
            reads: vec![RangeRequest::all(KeyRange::one(self.key.clone()))],
        }
    }

    /// It was written at this revision.
    pub(super) fn counted(&mut self, begun: &Begun, revision: Revision) {
        (self.epoch, self.open) = (Some(begun.nonce), true);
        self.last = Some(Seen { revision, chain: Ok(begun.chain.clone()) });
    }

    /// That the count is this pass's, for each of its units.
    pub(super) fn fence(&self, units: &mut [Unit]) {
        if let Some(last) = &self.last {
            units.iter_mut().for_each(|unit| unit.compares.push(self.is_at(last.revision)));
        }
    }

    /// Puts the whole count of a pass into its only unit; `false` = it has no room there.
    pub(super) fn count_within(&self, begun: &Begun, unit: &mut Unit) -> bool {
        let fits = unit.compares.len() <= WIDE && unit.writes.len() <= WIDE;
        if fits {
            unit.compares.push(self.is_at(begun.known));
            unit.writes.push(Op::put(self.key.clone(), begun.chain.count(1).encode()));
        }
        fits
    }

    /// That unit was written at this revision.
    pub(super) fn counted_within(&mut self, begun: &Begun, revision: Revision) {
        (self.epoch, self.open) = (Some(begun.nonce), false);
        self.last = Some(Seen { revision, chain: Ok(begun.chain.count(1)) });
    }

    /// The end of a pass that was counted by itself, if there is one to be written.
    pub(super) fn end(&mut self) -> Option<Begun> {
        if !std::mem::take(&mut self.open) {
            return None;
        }
        let Some(Seen { revision, chain: Ok(chain) }) = &self.last else { return None };
        let (known, chain) = (*revision, chain.count(1));
        chain.head().map(|mark| Begun { known, nonce: mark.nonce, mark, chain })
    }

    /// That end was written at this revision.
    pub(super) fn ended(&mut self, end: &Begun, revision: Revision) {
        self.counted(end, revision);
        self.open = false;
    }

    /// Whether what a failed count read proves that the store was restored.
    pub(super) fn is_behind(&self, read: &[KeyValue]) -> bool {
        let there = read.iter().find(|kv| kv.key == self.key).map_or(Revision::NONE, |kv| kv.mod_revision);
        self.last.as_ref().is_some_and(|last| there < last.revision)
    }

    fn is_at(&self, revision: Revision) -> Compare {
        Compare::Modified(self.key.clone(), revision)
    }
}

/// The highest epoch that any assignment names.
fn newest(snapshot: &Snapshot) -> u64 {
    let marks = snapshot.nodes.values().filter_map(|record| record.assignment.as_ref().and_then(Stored::ok)?.mark);
    marks.map(|mark| mark.seq).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::model::lineage::Verdict;

    fn lineage() -> Lineage {
        Lineage::new("/enlist/lineage".into(), fastrand::Rng::with_seed(1))
    }

    fn snapshot(revision: i64, lineage: Option<(i64, &Chain)>) -> Snapshot {
        let lineage = lineage.map(|(at, chain)| Stored {
            value: Ok(chain.clone()),
            create_revision: Revision(1),
            mod_revision: Revision(at),
            leased: false,
        });
        Snapshot { revision: Revision(revision), lineage, ..Snapshot::default() }
    }

    /// A pass that was counted at this revision and ended at the next.
    fn pass(lineage: &mut Lineage, at: i64) -> Mark {
        let begun = lineage.begin(&Snapshot::default()).unwrap();
        lineage.counted(&begun, Revision(at));
        let end = lineage.end().unwrap();
        lineage.ended(&end, Revision(at + 1));
        begun.mark
    }

    fn chain(lineage: &Lineage) -> Chain {
        lineage.last.as_ref().unwrap().chain.clone().unwrap()
    }

    #[test]
    fn a_pass_is_unfinished_until_its_end_is_written() {
        let mut lineage = lineage();
        let first = pass(&mut lineage, 10);
        assert_eq!(chain(&lineage).knows(first), Verdict::Known);
        let begun = lineage.begin(&Snapshot::default()).unwrap();
        assert_eq!(chain(&lineage).knows(begun.mark), Verdict::Lost);
        lineage.counted(&begun, Revision(20));
        assert_eq!(chain(&lineage).knows(begun.mark), Verdict::Unfinished);
        // The next pass of this term begins only when this one has ended.
        let next = lineage.begin(&Snapshot::default()).unwrap();
        lineage.counted(&next, Revision(21));
        assert_eq!(chain(&lineage).knows(begun.mark), Verdict::Known);
        assert_eq!(next.mark.nonce, first.nonce);
    }

    #[test]
    fn a_pass_of_one_change_counts_in_its_transaction() {
        let mut lineage = lineage();
        let begun = lineage.begin(&Snapshot::default()).unwrap();
        let mut unit = Unit { writes: vec![Op::put("a", "1")], ..Unit::default() };
        assert!(lineage.count_within(&begun, &mut unit));
        assert_eq!((unit.compares.len(), unit.writes.len()), (1, 2));
        lineage.counted_within(&begun, Revision(10));
        assert_eq!(chain(&lineage).knows(begun.mark), Verdict::Known);
        assert!(lineage.end().is_none());
        let mut wide = Unit { writes: vec![Op::put("a", "1"); WIDE + 1], ..Unit::default() };
        assert!(!lineage.count_within(&begun, &mut wide));
        assert!(wide.compares.is_empty());
    }

    #[test]
    fn a_listing_with_an_older_count_proves_a_restore() {
        let mut lineage = lineage();
        pass(&mut lineage, 10);
        let backup = chain(&lineage);
        let lost = pass(&mut lineage, 20);
        assert!(!lineage.see(&snapshot(21, Some((21, &chain(&lineage)))), Shown::Listed), "the same store");
        assert!(!lineage.see(&snapshot(15, Some((11, &backup))), Shown::Listed), "a listing from before its own write");
        // The revisions are above everything that was seen, as after `--bump-revision`.
        assert!(lineage.see(&snapshot(1_000_011, Some((11, &backup))), Shown::Listed));
        let after = pass(&mut lineage, 1_000_012);
        assert_ne!(after.nonce, lost.nonce);
        assert_eq!(chain(&lineage).knows(lost), Verdict::Lost);
    }

    #[test]
    fn a_listing_in_the_midst_of_a_pass_begins_an_epoch() {
        let mut lineage = lineage();
        let begun = lineage.begin(&Snapshot::default()).unwrap();
        lineage.counted(&begun, Revision(10));
        assert!(!lineage.see(&snapshot(10, Some((10, &begun.chain))), Shown::Listed));
        let next = lineage.begin(&Snapshot::default()).unwrap();
        lineage.counted(&next, Revision(12));
        assert_eq!(chain(&lineage).knows(begun.mark), Verdict::Unfinished);
    }

    #[test]
    fn a_new_term_begins_an_epoch_and_a_deleted_count_one_after_all_marks() {
        let mut first = lineage();
        let mark = pass(&mut first, 10);
        let mut second = Lineage::new("/enlist/lineage".into(), fastrand::Rng::with_seed(2));
        second.see(&snapshot(11, Some((11, &chain(&first)))), Shown::Listed);
        assert_eq!(pass(&mut second, 20).seq, mark.seq + 1);
        assert_eq!(chain(&second).knows(mark), Verdict::Known);

        let mut deleted = snapshot(30, None);
        let node = crate::plan::testing::make::id("a");
        let stored = format!(
            r#"{{"v":1,"node":"a","instance":"i","state":"waiting","reason":"pool-full","message":"","generation":8,
                "asked":"0000000000000001","mark":"{}"}}"#,
            Mark { seq: 7, ..mark }
        );
        let assignment = crate::Assignment::decode(stored.as_bytes()).unwrap();
        let stored = Stored { value: Ok(assignment), create_revision: Revision(8), mod_revision: Revision(8), leased: false };
        deleted.nodes.entry(node).or_default().assignment = Some(stored);
        assert!(!second.see(&deleted, Shown::Told), "somebody deleted it");
        let begun = second.begin(&deleted).unwrap();
        assert_eq!(begun.mark.seq, 8);
        assert_eq!(begun.chain.knows(mark), Verdict::Unknown);
    }

    #[test]
    fn a_quiet_time_begins_once_for_each_lost_epoch() {
        let mut lineage = lineage();
        let mark = |nonce| Mark { seq: 1, nonce: Nonce(nonce), count: 1 };
        assert!(!lineage.must_be_quiet(&[], false));
        assert!(lineage.must_be_quiet(&[mark(1)], false));
        assert!(!lineage.must_be_quiet(&[mark(1)], false));
        assert!(!lineage.must_be_quiet(&[mark(1), mark(2)], true));
        assert!(!lineage.must_be_quiet(&[mark(2)], false));
        // A node that makes marks up keeps nobody waiting for longer than once.
        assert!((3..2_000).all(|nonce| !lineage.must_be_quiet(&[mark(nonce)], false)));
        assert!(lineage.provided.len() <= PROVIDED_MAX);
    }
}
