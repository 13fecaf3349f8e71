//! From a planned change to a unit of the committer: mechanical, one compare for one compare, one write for one write.

use std::collections::BTreeMap;

use crate::model::assignment::Assignment;
use crate::model::lineage::Mark;
use crate::plan::change::{Change, Compare as Wanted, Write};
use crate::store::api::{Compare, KeyRange, LeaseId, Op, RangeRequest};
use crate::store::committer::Unit;
use crate::store::keys::Prefix;
use crate::store::wire::Stored;

/// Keys on one lease: etcd 3.4 grows slow with many, and all of them go in one revision.
pub(super) const LEASE_KEYS_MAX: usize = 200;

/// The leases that a pass needs: how many keys for each TTL in seconds.
pub(super) fn leases_needed<'a>(changes: impl Iterator<Item = &'a Change>) -> BTreeMap<u64, usize> {
    let mut needed = BTreeMap::new();
    for seconds in changes.flat_map(|change| &change.writes).filter_map(lease_of) {
        *needed.entry(seconds).or_insert(0) += 1;
    }
    needed
}

fn lease_of(write: &Write) -> Option<u64> {
    match write {
        Write::Clock(_, seconds) | Write::Cool(_, _, seconds) => Some(*seconds),
        Write::Assignment(..) | Write::Hold(..) | Write::Bind(..) | Write::Delete(_) => None,
    }
}

/// Leases that were granted for this pass, handed out key by key.
#[derive(Debug, Default)]
pub(super) struct Leases {
    granted: BTreeMap<u64, Vec<LeaseId>>,
    handed: BTreeMap<u64, usize>,
}

impl Leases {
    /// Adds a lease of so many seconds.
    pub(super) fn add(&mut self, seconds: u64, lease: LeaseId) {
        self.granted.entry(seconds).or_default().push(lease);
    }

    fn hand_out(&mut self, seconds: u64) -> Option<LeaseId> {
        let handed = self.handed.entry(seconds).or_default();
        let lease = self.granted.get(&seconds)?.get(*handed / LEASE_KEYS_MAX)?;
        *handed += 1;
        Some(*lease)
    }
}

/// The unit of a change, with the mark of its pass; `None` when a lease that it needs was not granted (it is planned again).
pub(super) fn unit(prefix: &Prefix, change: &Change, leases: &mut Leases, mark: Option<Mark>) -> Option<Unit> {
    let mut writes = Vec::with_capacity(change.writes.len());
    for write in &change.writes {
        writes.push(op(prefix, write, leases, mark)?);
    }
    let compares = change.compares.iter().map(|wanted| compare(prefix, wanted)).collect();
    Some(Unit { compares, writes, reads: vec![RangeRequest::all(KeyRange::one(prefix.subject(&first_subject(change))))] })
}

/// What is read back when a compare fails, for the log: the assignment, or whatever is written first.
fn first_subject(change: &Change) -> crate::plan::change::Subject {
    change
        .writes
        .first()
        .map_or_else(|| crate::plan::change::Subject::Assignment(change.node.clone()), crate::plan::change::Write::subject)
}

fn compare(prefix: &Prefix, wanted: &Wanted) -> Compare {
    match wanted {
        Wanted::Modified(subject, revision) => Compare::Modified(prefix.subject(subject), *revision),
        Wanted::Created(subject, revision) => Compare::Created(prefix.subject(subject), *revision),
        Wanted::NoPortsClaimed(domain, ip) => Compare::Empty(prefix.claims_under(domain, *ip)),
    }
}

fn op(prefix: &Prefix, write: &Write, leases: &mut Leases, mark: Option<Mark>) -> Option<Op> {
    let key = prefix.subject(&write.subject());
    let (value, lease) = match write {
        Write::Assignment(_, assignment) => (Assignment { mark, ..assignment.clone() }.encode(), LeaseId::NONE),
        Write::Hold(_, hold) => (hold.encode(), LeaseId::NONE),
        Write::Clock(_, seconds) => (().encode(), leases.hand_out(*seconds)?),
        Write::Bind(_, claim) => (claim.encode(), LeaseId::NONE),
        Write::Cool(_, claim, seconds) => (claim.encode(), leases.hand_out(*seconds)?),
        Write::Delete(_) => return Some(Op::delete(key)),
    };
    Some(Op::Put { key, value, lease })
}
