//! Checks the state after all changes have ended: nothing is left to plan, copies equal the source, members equal the
//! matches of the selectors, and every expected node is settled.

use enlist::allocator::View;
use enlist::model::names::Revision;
use enlist::model::status::Phase;
use enlist::plan::snapshot::{NodeRecord, Snapshot};
use enlist::plan::{Pass, plan};
use enlist::store::api::{Header, KeyRange, KeyValue, RangeResponse};
use enlist::store::keys::{Prefix, Role};

/// Everything in a store at one revision.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) revision: Revision,
    /// In key order.
    pub(crate) kvs: Vec<KeyValue>,
}

impl Content {
    /// The snapshot that a pass of the allocator sees.
    pub(crate) fn snapshot(&self, prefix: &Prefix) -> Snapshot {
        View::of(prefix.clone(), self.revision, &self.kvs)
    }

    fn part(&self, range: &KeyRange) -> RangeResponse {
        let kvs: Vec<_> = self.kvs.iter().filter(|kv| range.contains(&kv.key)).cloned().collect();
        let header = Header { revision: self.revision, ..Default::default() };
        RangeResponse { header, count: kvs.len() as i64, kvs, more: false }
    }
}

/// The work left for the roles; empty = none.
pub(crate) fn unrest(prefix: &Prefix, source: &Content, destination: &Content) -> Vec<String> {
    let left = plan(&source.snapshot(prefix), &Pass { release_budget: 0, ..Pass::default() });
    let planned = left.changes.iter().map(|change| format!("{:?} of {} is still planned", change.action, change.node));
    let mut unrest: Vec<String> = planned.collect();
    let managed = destination.part(&prefix.folder("manager"));
    let copies = enlist::relay::check::check((prefix, &source.part(&prefix.folder("nodes"))), (prefix, &managed));
    unrest.extend(copies.iter().map(ToString::to_string));
    let brake = destination.kvs.iter().find(|kv| kv.key == prefix.brake(Role::Manager));
    let groups = enlist::manager::check::check(prefix, &destination.part(&prefix.folder("groups")), &managed, brake);
    unrest.extend(groups.iter().map(ToString::to_string));
    unrest
}

/// The reason why a running node has no answer to its request, or has not acknowledged it; `None` = it is settled.
pub(crate) fn not_settled(record: &NodeRecord) -> Option<String> {
    let status = record.status.as_ref().and_then(|stored| stored.ok());
    let label = record.label.as_ref().and_then(|stored| stored.ok());
    let assignment = record.assignment.as_ref().and_then(|stored| stored.ok());
    let (Some(status), Some(label), Some(assignment)) = (status, label, assignment) else {
        return Some(format!("has no label, status or assignment: {record:?}"));
    };
    let settled = match assignment.bound() {
        Some(_) => status.phase == Phase::Registered && status.generation == assignment.generation,
        None => status.phase == Phase::Joining,
    };
    if settled && assignment.asked.answers(label) && assignment.leaving.is_empty() {
        None
    } else {
        Some(format!("is not settled: {status:?} {assignment:?}"))
    }
}
