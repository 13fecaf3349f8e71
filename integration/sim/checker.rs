//! What must always hold, checked on every revision of a run's history, and what must hold after quiet.

use std::collections::BTreeMap;
use std::net::IpAddr;

use enlist::model::names::NodeId;
use enlist::store::memory::MemoryEtcd;

use super::world::World;
use crate::history::copies::Copies;
use crate::history::quiet::{self, Content, not_settled};
use crate::history::source::Walk;

/// Walks both histories. Answers what is wrong, first things first.
pub(crate) fn history(world: &World, pools_change: bool) -> Result<u64, String> {
    let mut walk = Walk::new(World::prefix(), pools_change);
    for (revision, events) in world.source.history() {
        if let Some(wrong) = first(walk.take(revision, events)) {
            return Err(wrong);
        }
    }
    let mut copies = Copies::new(World::prefix(), world.source.history().into_iter());
    for (revision, events) in world.destination.history() {
        if let Some(wrong) = copies.take(revision, events) {
            return Err(wrong);
        }
    }
    Ok(walk.revisions())
}

fn first(wrong: Vec<String>) -> Option<String> {
    (!wrong.is_empty()).then(|| wrong.join("; "))
}

/// What is not yet as it should be; empty = all is quiet and right.
pub(crate) fn unrest(world: &World) -> Vec<String> {
    let prefix = World::prefix();
    let source = content(&world.source);
    let snapshot = source.snapshot(&prefix);
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
    unrest.extend(quiet::unrest(&prefix, &source, &content(&world.destination)));
    unrest
}

fn content(etcd: &MemoryEtcd) -> Content {
    Content { revision: etcd.revision(), kvs: etcd.at_revision(etcd.revision()).into_values().collect() }
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
