//! What must always hold, checked on every revision of a run's history, and what must hold after quiet.

use std::collections::BTreeMap;
use std::net::IpAddr;

use enlist::Assignment;
use enlist::allocator::View;
use enlist::model::names::{NodeId, Revision};
use enlist::model::status::Phase;
use enlist::plan::check::check;
use enlist::plan::snapshot::{NodeRecord, Snapshot};
use enlist::plan::{Pass, plan};
use enlist::store::api::{Event, Key, KeyRange, KeyValue, RangeResponse};
use enlist::store::feed::Update;
use enlist::store::keys::{NodePart, ParsedKey};
use enlist::store::memory::MemoryEtcd;
use enlist::store::wire::{Checkpoint, Stored as _};

use super::world::World;

/// Walks both histories. Answers what is wrong, first things first.
pub(crate) fn history(world: &World, pools_change: bool) -> Result<u64, String> {
    let revisions = walk(world.source.history(), pools_change)?;
    views(world)?;
    copies(world)?;
    Ok(revisions)
}

/// A view that was fed events, from wherever it started, is what a reading of everything gives.
fn views(world: &World) -> Result<(), String> {
    let last = world.source.revision();
    let read = |revision: Revision| world.source_at(revision);
    for start in [Revision(1), Revision(last.0 / 2)] {
        let mut view = View::new(World::prefix());
        view.apply(Update::Reset { revision: start, cluster_id: 0, kvs: read(start), stepped_back: false });
        for (revision, events) in world.source.history_from(start.next()) {
            view.apply(Update::Events { revision, events });
        }
        let (fed, whole) = (view.snapshot(), View::of(World::prefix(), last, &read(last)));
        if format!("{fed:?}") != format!("{whole:?}") {
            return Err(format!("a view from {start:?} differs from what is stored at {last:?}: {fed:?} is not {whole:?}"));
        }
    }
    Ok(())
}

/// Walks the whole history of a source below the default prefix: nothing is wrong at any revision, nobody moves or is released
/// without a reason. Answers how many revisions there were.
pub(crate) fn walk(history: impl IntoIterator<Item = (Revision, Vec<Event>)>, pools_change: bool) -> Result<u64, String> {
    let mut view = View::new(World::prefix());
    view.apply(Update::Reset { revision: Revision(1), cluster_id: 0, kvs: Vec::new(), stepped_back: false });
    let mut revisions = 0;
    for (revision, events) in history {
        let before: Vec<(NodeId, NodeRecord)> = touched(&events, view.snapshot());
        view.apply(Update::Events { revision, events });
        let findings: Vec<_> = check(view.snapshot()).into_iter().map(|finding| finding.to_string()).collect();
        if !findings.is_empty() {
            return Err(format!("at {revision:?}: {}", findings.join("; ")));
        }
        for (node, record) in before {
            let after = view.snapshot().nodes.get(&node).cloned().unwrap_or_default();
            let word = view.snapshot().brake_released;
            moved(&node, &record, &after, (pools_change, word)).map_err(|why| format!("at {revision:?}: node {node} {why}"))?;
        }
        revisions += 1;
    }
    Ok(revisions)
}

fn touched(events: &[Event], snapshot: &Snapshot) -> Vec<(NodeId, NodeRecord)> {
    let node = |event: &Event| match World::prefix().parse(event.key()) {
        ParsedKey::Node(node, NodePart::Assignment) => Some(node),
        _ => None,
    };
    events.iter().filter_map(node).filter_map(|node| Some((node.clone(), snapshot.nodes.get(&node)?.clone()))).collect()
}

/// An assignment that still fits never moves while its node is alive or held, and goes only for a reason.
/// `word`: when an operator released the brake, which ends the holds that are older.
fn moved(node: &NodeId, before: &NodeRecord, after: &NodeRecord, (pools_change, word): (bool, Revision)) -> Result<(), String> {
    let assignment = |record: &NodeRecord| record.assignment.as_ref().and_then(|stored| stored.ok()).cloned();
    let Some(old) = assignment(before) else { return Ok(()) };
    let Some(bound) = old.bound() else { return Ok(()) };
    let status = before.status.as_ref().and_then(|stored| stored.ok());
    let Some(new) = assignment(after) else {
        let left = status.is_some_and(|status| status.phase == Phase::Left);
        let is_over = |hold: Revision| before.clock.is_none() || word > hold;
        let over = before.hold.as_ref().is_some_and(|hold| is_over(hold.mod_revision)) && !before.is_live();
        return if left || over { Ok(()) } else { Err(format!("was released while it is alive or held: {old:?}")) };
    };
    let same = |new: &Assignment| new.bound().is_some_and(|b| b.addresses == bound.addresses && b.ports == bound.ports);
    let asked_anew = new.asked != old.asked || new.instance != old.instance;
    let refused = status.is_some_and(|status| !status.refused.is_empty());
    if same(&new) || asked_anew || refused || pools_change {
        if !same(&new) && new.generation <= old.generation {
            return Err(format!("moved without a higher generation: {old:?} to {new:?}"));
        }
        return Ok(());
    }
    Err(format!("moved for no reason ({node}): {old:?} to {new:?}"))
}

/// Every destination state whose checkpoint is not partial equals some source state, and these never go backwards.
fn copies(world: &World) -> Result<(), String> {
    let prefix = World::prefix();
    let mut copies: BTreeMap<Key, KeyValue> = BTreeMap::new();
    let mut last = Revision::NONE;
    for (revision, events) in world.destination.history() {
        let mut touched = false;
        for event in events {
            touched |= matches!(prefix.parse(event.key()), ParsedKey::Copy(..) | ParsedKey::Checkpoint);
            match event {
                Event::Put(kv) => drop(copies.insert(kv.key.clone(), kv)),
                Event::Delete { key, .. } => drop(copies.remove(&key)),
            }
        }
        let Some(kv) = copies.get(&prefix.checkpoint()).filter(|_| touched) else { continue };
        let checkpoint = Checkpoint::decode(&kv.value).map_err(|error| format!("checkpoint at {revision:?}: {error}"))?;
        if checkpoint.partial.is_some() {
            continue;
        }
        if checkpoint.revision < last {
            return Err(format!("copies went back from {last:?} to {:?} at {revision:?}", checkpoint.revision));
        }
        last = checkpoint.revision;
        let source = world.source_at(checkpoint.revision);
        let wanted = source.iter().filter_map(|kv| match prefix.parse(&kv.key) {
            ParsedKey::Node(node, part) if NodePart::COPIED.contains(&part) => Some((prefix.copy(&node, part), &kv.value)),
            _ => None,
        });
        let wanted: BTreeMap<_, _> = wanted.collect();
        let copied = copies.iter().filter(|(key, _)| matches!(prefix.parse(key), ParsedKey::Copy(..)));
        let copied: BTreeMap<_, _> = copied.map(|(key, kv)| (key.clone(), &kv.value)).collect();
        if wanted != copied {
            return Err(format!("at {revision:?} the copies are not the source at {:?}", checkpoint.revision));
        }
    }
    Ok(())
}

/// What is not yet as it should be; empty = all is quiet and right.
pub(crate) fn unrest(world: &World) -> Vec<String> {
    let prefix = World::prefix();
    let kvs = world.source_at(world.source.revision());
    let snapshot = View::of(prefix.clone(), world.source.revision(), &kvs);
    let mut unrest: Vec<String> = Vec::new();
    for node in world.running() {
        let id: NodeId = format!("n{node}").parse().unwrap();
        let record = snapshot.nodes.get(&id).cloned().unwrap_or_default();
        // A silent earlier installation may only be cut off: a new one waits until its hold is over, which a brake may lengthen.
        let waits_for_its_id = world.was_reinstalled(node) && record.status.is_none() && record.clock.is_some();
        if waits_for_its_id {
            continue;
        }
        if let Some(why) = not_settled(&record) {
            unrest.push(format!("{id} {why}"));
        }
    }
    let left = plan(&snapshot, &Pass { release_budget: 0, ..Pass::default() });
    unrest.extend(left.changes.iter().map(|change| format!("{:?} of {} is still planned", change.action, change.node)));
    let read = |etcd: &MemoryEtcd, range: KeyRange| {
        let kvs: Vec<_> = etcd.at_revision(etcd.revision()).into_values().filter(|kv| range.contains(&kv.key)).collect();
        let header = enlist::store::api::Header { revision: etcd.revision(), ..Default::default() };
        RangeResponse { header, count: kvs.len() as i64, kvs, more: false }
    };
    let source = read(&world.source, prefix.folder("nodes"));
    let managed = read(&world.destination, prefix.folder("manager"));
    let definitions = read(&world.destination, prefix.folder("groups"));
    let copies = enlist::relay::check::check((&prefix, &source), (&prefix, &managed));
    unrest.extend(copies.iter().map(ToString::to_string));
    let brake =
        world.destination.at_revision(world.destination.revision()).remove(&prefix.brake(enlist::store::keys::Role::Manager));
    let groups = enlist::manager::check::check(&prefix, &definitions, &managed, brake.as_ref());
    unrest.extend(groups.iter().map(ToString::to_string));
    unrest
}

fn not_settled(record: &NodeRecord) -> Option<String> {
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

/// No address of a pool that withdraws is in use on two machines at this moment.
pub(crate) fn used_twice(world: &World) -> Option<String> {
    let withdrawing = |ip: &IpAddr| ip.to_string().starts_with("10.2.");
    let mut users: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for (number, machine) in world.machines().iter().enumerate() {
        for ip in machine.uses().map(|given| given.addresses.clone()).unwrap_or_default() {
            if let Some(other) = users.insert(ip, number).filter(|_| withdrawing(&ip)) {
                return Some(format!("{ip} is in use on m{other} and m{number}"));
            }
        }
    }
    None
}
