//! Nodes that are not live: what they have is held for them, then released, and in the end they are forgotten.
//!
//! No clock is here: etcd counts the time on `hold/clock`, and a clock that is gone is over. A hold starts in two steps,
//! `seen` and then `held` with its clock. Race: a write that comes late, when the node was back and is away again, would
//! otherwise start a spent clock in the second absence. A join deletes the hold, so every step and every release compares
//! the `hold` that it saw. The clock of an absence that is over goes with its lease, or is put again by the next hold: without one,
//! or beside one that is only `seen`, it says nothing.

use std::collections::BTreeSet;

use crate::model::claim::ClaimKey;
use crate::model::hold::{Hold, HoldState};
use crate::model::names::{NodeId, Revision};
use crate::model::status::Phase;
use crate::plan::allocate::leaving::{GiveUp, give_up};
use crate::plan::brake::{self, Brake};
use crate::plan::change::{Action, Change, Compare, Note, Subject, Write};
use crate::plan::snapshot::{NodeRecord, Unreadable};
use crate::plan::world::{World, is_ephemeral, modified};

/// A node that was released is forgotten after this long, unless a setting says else: thirty days.
pub const FORGET_S: u64 = 30 * 24 * 3600;

/// What is decided about all nodes that are away.
#[derive(Debug, Default)]
pub struct Away {
    /// The changes, longest away first.
    pub changes: Vec<Change>,
    /// Releases that wait for the driver's budget.
    pub deferred: usize,
}

/// Decides about every node that is away and not in `done`.
pub fn away(world: &World<'_>, brake: Brake, done: &BTreeSet<&NodeId>) -> Away {
    let waved_through = world.index.extended_before(world.snapshot.brake_released);
    let absent = world.index.absent().iter().chain(waved_through).filter_map(|node| world.node(node));
    let mut queue: Vec<_> = absent
        .filter(|(node, _)| !done.contains(node))
        .map(|(node, record)| (modified(record.hold.as_deref()), node, record))
        .collect();
    queue.sort_by_key(|(hold, node, _)| (*hold, *node));
    let mut away = Away::default();
    let mut budget = world.pass.release_budget;
    for (_, node, record) in queue {
        match step(world, brake, node, record) {
            Step::None => {}
            Step::Change(change) => away.changes.push(change),
            Step::Metered(change) if budget > 0 => {
                budget -= 1;
                away.changes.push(change);
            }
            Step::Metered(_) => away.deferred += 1,
        }
    }
    away
}

enum Step {
    None,
    Change(Change),
    /// Only within the driver's budget.
    Metered(Change),
}

fn step(world: &World<'_>, brake: Brake, node: &NodeId, record: &NodeRecord) -> Step {
    if record.assignment.as_ref().is_some_and(|stored| stored.ok().is_none()) {
        return Step::None; // what it has cannot be read: it is left alone, and a finding says so
    }
    let status = record.status.as_ref().and_then(|status| status.ok());
    if status.is_some_and(|status| status.phase == Phase::Left) {
        return Step::Change(left(world, node, record));
    }
    if record.label.is_none() && record.status.is_none() && record.assignment.is_none() {
        return leftovers(node, record);
    }
    let hold = match record.hold.as_deref().map(|stored| &stored.value) {
        Some(Err(Unreadable::Newer(_))) => return Step::None,
        // One that does not parse is begun anew: the longer wait is the safe side.
        None | Some(Err(Unreadable::Invalid(_))) => return Step::Change(see(world, node, record)),
        Some(Ok(hold)) => hold,
    };
    match (hold.state, record.has_claims()) {
        (HoldState::Seen, true) => Step::Change(start(world, node, record)),
        (HoldState::Held, true) => held(world, brake, node, record, hold),
        // Claims after a release: the store was put together by somebody else. It is a new absence.
        (HoldState::Released, true) => Step::Change(see(world, node, record)),
        (HoldState::Seen | HoldState::Held, false) => {
            let reason = vec![hold_seen(node, record)];
            Step::Change(release(world, node, record, reason, &|_| GiveUp::Cool))
        }
        (HoldState::Released, false) if record.clock.is_none() => Step::Change(forget(node, record)),
        (HoldState::Released, false) => Step::None,
    }
}

/// Whether there is something to do for a node that is away.
#[cfg(test)]
pub(super) fn is_due(world: &World<'_>, node: &NodeId, record: &NodeRecord) -> bool {
    !matches!(step(world, world.index.brake(), node, record), Step::None)
}

/// A node that left for good: no hold, and nothing of it stays. Race: a join takes the status over, so its mod_revision
/// is the reason that is compared.
fn left(world: &World<'_>, node: &NodeId, record: &NodeRecord) -> Change {
    let reason = vec![Compare::Modified(Subject::Status(node.clone()), modified(record.status.as_ref()))];
    let mut change = release(world, node, record, reason, &|_| GiveUp::Cool);
    change.note.because("it left");
    change
}

/// The first step of a hold.
fn see(world: &World<'_>, node: &NodeId, record: &NodeRecord) -> Change {
    let hold = Hold { state: HoldState::Seen, extended: false, seconds: 0, since: world.pass.now_text.clone() };
    Change {
        node: node.clone(),
        action: Action::HoldSeen,
        note: Note::default(),
        compares: vec![
            Compare::Modified(Subject::Label(node.clone()), modified(record.label.as_ref())),
            Compare::Modified(Subject::Status(node.clone()), modified(record.status.as_ref())),
            Compare::Modified(Subject::Assignment(node.clone()), modified(record.assignment.as_ref())),
            hold_seen(node, record),
        ],
        writes: vec![Write::Hold(node.clone(), hold)],
    }
}

/// The second step: the clock starts. A hold of 0 s has none and is over at once.
fn start(world: &World<'_>, node: &NodeId, record: &NodeRecord) -> Change {
    let seconds = hold_s(world, record);
    let hold = Hold { state: HoldState::Held, extended: false, seconds, since: world.pass.now_text.clone() };
    let mut writes = vec![Write::Hold(node.clone(), hold)];
    writes.extend(clock(node, record, seconds));
    Change {
        node: node.clone(),
        action: Action::HoldStart,
        note: Note::default(),
        compares: vec![hold_seen(node, record)],
        writes,
    }
}

/// The clock of a hold that is written now. Without time there is none, not that of an earlier absence either.
fn clock(node: &NodeId, record: &NodeRecord, seconds: u64) -> Option<Write> {
    if seconds > 0 {
        return Some(Write::Clock(node.clone(), seconds));
    }
    record.clock.as_ref().map(|_| Write::Delete(Subject::Clock(node.clone())))
}

/// The longest hold of anything it has.
fn hold_s(world: &World<'_>, record: &NodeRecord) -> u64 {
    let Some(assignment) = record.assignment.as_ref().and_then(|stored| stored.ok()) else { return 0 };
    let present = assignment.bound().map(|bound| &bound.terms);
    let leaving = assignment.leaving.iter().map(|leaving| &leaving.terms);
    present.into_iter().chain(leaving).map(|terms| world.pools.hold_s(terms)).max().unwrap_or(0)
}

/// A hold whose clock was started.
fn held(world: &World<'_>, brake: Brake, node: &NodeId, record: &NodeRecord, hold: &Hold) -> Step {
    let hold_revision = modified(record.hold.as_deref());
    let clock = modified(record.clock.as_deref());
    // The operator's word counts for every hold that was there when he gave it, and ends an extension.
    let is_waved_through = world.snapshot.brake_released > hold_revision;
    if clock != Revision::NONE && !(hold.extended && is_waved_through && record.is_silent()) {
        return Step::None;
    }
    let is_braked = brake.is_on() && record.is_silent() && !is_waved_through;
    if is_braked && !hold.extended {
        return Step::Change(extend(world, node, record));
    }
    let reason = vec![hold_seen(node, record), Compare::Modified(Subject::Clock(node.clone()), clock)];
    let mut change = release(world, node, record, reason, &|_| GiveUp::Cool);
    change.note.because("its hold is over");
    if is_braked { Step::Metered(change) } else { Step::Change(change) }
}

/// Mass loss is seen: the clock runs once more.
fn extend(world: &World<'_>, node: &NodeId, record: &NodeRecord) -> Change {
    let seconds = brake::EXTENSION_S;
    let hold = Hold { state: HoldState::Held, extended: true, seconds, since: world.pass.now_text.clone() };
    Change {
        node: node.clone(),
        action: Action::HoldExtend,
        note: Note::aside("the brake is on: its hold is extended once"),
        compares: vec![hold_seen(node, record), Compare::Modified(Subject::Clock(node.clone()), Revision::NONE)],
        writes: vec![Write::Hold(node.clone(), hold), Write::Clock(node.clone(), seconds)],
    }
}

/// Gives up what a node has, for a reason that is compared. A node that left, or an ephemeral one, goes altogether; the
/// last known facts of any other stay readable until it is forgotten.
pub fn release(
    world: &World<'_>,
    node: &NodeId,
    record: &NodeRecord,
    reason: Vec<Compare>,
    how: &dyn Fn(&ClaimKey) -> GiveUp,
) -> Change {
    let mut compares = reason;
    let mut compare = |compare| {
        if !compares.contains(&compare) {
            compares.push(compare);
        }
    };
    compare(Compare::Modified(Subject::Status(node.clone()), modified(record.status.as_ref())));
    compare(Compare::Modified(Subject::Assignment(node.clone()), modified(record.assignment.as_ref())));
    // The hold is written below.
    compare(hold_seen(node, record));
    let mut writes = Vec::new();
    let mut note = Note::default();
    if let Some(assignment) = record.assignment.as_ref().and_then(|stored| stored.ok()) {
        let (claims, given_up) = give_up(world, assignment, &BTreeSet::new(), how);
        claims.into_iter().for_each(&mut compare);
        writes.extend(given_up);
        writes.push(Write::Delete(Subject::Assignment(node.clone())));
        note = Note::new(Some(&assignment.answer), None, "it is away");
    }
    let status = record.status.as_ref().and_then(|status| status.ok());
    let has_left = status.is_some_and(|status| status.phase == Phase::Left);
    let has_facts = record.label.is_some() || record.status.is_some();
    if has_left || is_ephemeral(record) || !has_facts {
        compare(Compare::Modified(Subject::Label(node.clone()), modified(record.label.as_ref())));
        writes.extend(delete_facts(node, record));
    } else {
        let since = world.pass.now_text.clone();
        let hold = Hold { state: HoldState::Released, extended: false, seconds: world.pass.forget_s, since };
        writes.push(Write::Hold(node.clone(), hold));
        writes.extend(clock(node, record, world.pass.forget_s));
    }
    Change { node: node.clone(), action: Action::Release, note, compares, writes }
}

/// Label, status and hold of a node that was released long ago.
fn forget(node: &NodeId, record: &NodeRecord) -> Change {
    let mut writes = delete_facts(node, record);
    if record.assignment.is_some() {
        writes.push(Write::Delete(Subject::Assignment(node.clone())));
    }
    Change {
        node: node.clone(),
        action: Action::Forget,
        note: Note::default(),
        compares: vec![
            hold_seen(node, record),
            Compare::Modified(Subject::Clock(node.clone()), Revision::NONE),
            Compare::Modified(Subject::Label(node.clone()), modified(record.label.as_ref())),
            Compare::Modified(Subject::Status(node.clone()), modified(record.status.as_ref())),
            Compare::Modified(Subject::Assignment(node.clone()), modified(record.assignment.as_ref())),
        ],
        writes,
    }
}

/// A hold of a node of which nothing else is stored.
fn leftovers(node: &NodeId, record: &NodeRecord) -> Step {
    match record.hold.as_deref().map(|stored| &stored.value) {
        None | Some(Err(Unreadable::Newer(_))) => Step::None, // a clock alone goes by itself
        Some(_) => Step::Change(Change {
            node: node.clone(),
            action: Action::Forget,
            note: Note::default(),
            compares: vec![
                hold_seen(node, record),
                Compare::Modified(Subject::Label(node.clone()), Revision::NONE),
                Compare::Modified(Subject::Status(node.clone()), Revision::NONE),
                Compare::Modified(Subject::Assignment(node.clone()), Revision::NONE),
            ],
            writes: delete_facts(node, record),
        }),
    }
}

fn delete_facts(node: &NodeId, record: &NodeRecord) -> Vec<Write> {
    // A label of a newer format is left alone, as everywhere.
    let label = record.label.as_ref().is_some_and(|label| !matches!(label.value, Err(Unreadable::Newer(_))));
    let facts = [
        (label, Subject::Label(node.clone())),
        (record.status.is_some(), Subject::Status(node.clone())),
        (record.hold.is_some(), Subject::Hold(node.clone())),
        (record.clock.is_some(), Subject::Clock(node.clone())),
    ];
    facts.into_iter().filter(|(is_there, _)| *is_there).map(|(_, subject)| Write::Delete(subject)).collect()
}

/// That the hold is the one that was seen: a join deletes it.
fn hold_seen(node: &NodeId, record: &NodeRecord) -> Compare {
    Compare::Modified(Subject::Hold(node.clone()), modified(record.hold.as_deref()))
}
