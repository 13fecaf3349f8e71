//! What to do, decided purely: values in, values out. No async, clock, randomness, environment or IO: the same snapshot
//! gives the same plan, byte for byte.
//!
//! [`snapshot`] is what a pass sees, [`change`] what it wants written with the compares that make it safe. [`pools`],
//! [`taken`] and [`space`] answer what is free, [`index`] where a pass has to look, [`picture`] keeps both up; [`allocate`] answers live nodes, [`away`] holds and releases what others
//! have, [`restore`] puts a store right that forgot, [`repair`] claims that nobody accounts for. [`brake`] says when nothing
//! may be taken away, [`outside`] who keeps what its pool would not assign today, [`check`] finds what must not be, by itself and without any of the above.

pub mod snapshot;
pub mod change;
pub mod brake;
pub mod space;
pub mod pools;
pub mod index;
pub mod taken;
pub mod world;
pub mod picture;
pub mod allocate;
pub mod away;
pub mod restore;
pub mod repair;
pub mod findings;
pub mod check;
pub mod usage;
pub mod outside;
pub mod explain;

use std::borrow::Cow;

use crate::model::lineage::Mark;
use crate::model::names::NodeId;
use change::Plan;
use index::Index;
use snapshot::{NodeRecord, Snapshot, Unreadable};
use taken::Taken;
use world::World;

/// What a driver gives to a pass beside the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// How many releases of extended holds may be made while the brake is on.
    pub release_budget: usize,
    /// After a restore: only what nodes use and ask back is given; all others are not answered yet.
    pub held_only: bool,
    /// Label, status and hold of a node are deleted so many seconds after its release.
    pub forget_s: u64,
    /// The present time, RFC 3339, for `since` texts. Nothing is decided by it.
    pub now_text: String,
}

impl Default for Pass {
    fn default() -> Self {
        Pass { release_budget: 0, held_only: false, forget_s: away::FORGET_S, now_text: String::new() }
    }
}

/// Decides what to write. At most one change for each node; live nodes first come, first served.
pub fn plan(snapshot: &Snapshot, pass: &Pass) -> Plan {
    let snapshot = &*sound(snapshot);
    decide(snapshot, &Index::of(snapshot), &mut Taken::of(snapshot), pass)
}

/// The same, with what is known of the snapshot already.
fn decide(snapshot: &Snapshot, index: &Index, taken: &mut Taken, pass: &Pass) -> Plan {
    let world = World::new(snapshot, index, pass);
    taken.begin(index);
    let queue = queue(&world);
    let lost = lost(&world, &queue);
    let restored = restore::restore(&world, taken, &queue);
    let mut changes = restored.changes;
    let mut done = restored.done;
    let repairs = repair::repair(&world);
    for change in repairs.changes {
        if let Some((node, _)) = world.node(&change.node)
            && !done.insert(node)
        {
            continue; // it has its change: the repair is found again next time
        }
        changes.push(change);
    }
    for (node, record) in queue {
        if !done.contains(node)
            && let Some(change) = allocate::serve::serve(&world, taken, node, record)
        {
            done.insert(node);
            changes.push(change);
        }
    }
    taken.end();
    let brake = index.brake();
    let away = away::away(&world, brake, &done);
    changes.extend(away.changes);
    let mut findings = findings::findings(&world);
    findings.extend(repairs.findings);
    findings.sort();
    let brake_state = brake::state(snapshot, brake);
    Plan { changes, findings, brake, brake_state, releases_deferred: away.deferred, lost }
}

/// A label or assignment that says it is another node's counts as one that cannot be read: to go by it would be to act on
/// that other node.
pub fn sound(snapshot: &Snapshot) -> Cow<'_, Snapshot> {
    fn fault(node: &NodeId, says: &NodeId) -> Option<Unreadable> {
        (says != node).then(|| Unreadable::Invalid(format!("it says that it is about {says}")))
    }
    fn label(node: &NodeId, record: &NodeRecord) -> Option<Unreadable> {
        fault(node, &record.label.as_ref()?.ok()?.id)
    }
    fn assignment(node: &NodeId, record: &NodeRecord) -> Option<Unreadable> {
        fault(node, &record.assignment.as_ref()?.ok()?.node)
    }
    let is_sound = |(node, record): (&NodeId, &NodeRecord)| label(node, record).or(assignment(node, record)).is_none();
    if snapshot.nodes.iter().all(is_sound) {
        return Cow::Borrowed(snapshot);
    }
    let mut sound = snapshot.clone();
    for (node, record) in &mut sound.nodes {
        if let (Some(fault), Some(stored)) = (label(node, record), &mut record.label) {
            stored.value = Err(fault);
        }
        if let (Some(fault), Some(stored)) = (assignment(node, record), &mut record.assignment) {
            stored.value = Err(fault);
        }
    }
    Cow::Owned(sound)
}

/// Live nodes that may need something, in the order in which they are served: who uses something that the store forgot first
/// (the latest generation first, its word is the newest), then by the time the label was made.
fn queue<'a>(world: &World<'a>) -> Vec<(&'a NodeId, &'a NodeRecord)> {
    let mut queue: Vec<_> = if world.pools.any_moves() {
        world.snapshot.nodes.iter().filter(|(_, record)| record.is_live()).collect()
    } else {
        world.index.due().iter().filter_map(|node| world.node(node)).collect()
    };
    queue.sort_by_cached_key(|(node, record)| {
        let label = record.label.as_ref().and_then(|label| label.ok());
        let old = record.assignment.as_ref().and_then(|old| old.ok());
        let held =
            label.and_then(|label| allocate::asker::active_holding(world.snapshot, label, old)).map(|holding| holding.generation);
        (std::cmp::Reverse(held), world::created(record.label.as_ref()), *node)
    });
    queue
}

/// The marks of what live nodes hold that the store has lost.
fn lost(world: &World<'_>, queue: &[(&NodeId, &NodeRecord)]) -> Vec<Mark> {
    let held = |record: &NodeRecord| {
        let label = record.label.as_ref()?.ok()?;
        let old = record.assignment.as_ref().and_then(|old| old.ok());
        allocate::asker::active_holding(world.snapshot, label, old)?.mark
    };
    let marks = queue.iter().filter_map(|(_, record)| held(record));
    marks.filter(|mark| world.snapshot.has_lost(Some(*mark))).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
pub mod testing;
#[cfg(test)]
mod tests;
