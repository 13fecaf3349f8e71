//! The store forgot: it was emptied, or restored from a backup, under a fleet that runs. Agents that notice say in their
//! labels what they are `holding`.
//!
//! For such a node the store's own idea is void. What the store says it has is given up without cooling (nobody uses it
//! on its word), in one request; what it holds is claimed in a later one, so that two nodes that swapped since the backup
//! both come out right. Whoever is silent and got the address earlier loses it: he cannot have it any more, or the holder
//! would not have got it. Any other owner keeps it.

use std::collections::BTreeSet;

use crate::model::claim::ClaimKey;
use crate::model::names::NodeId;
use crate::model::pool::Sharing;
use crate::model::status::Phase;
use crate::plan::allocate::asker::{Asker, Attempt, address_key, port_key};
use crate::plan::allocate::leaving::{GiveUp, give_up};
use crate::plan::allocate::serve::as_seen;
use crate::plan::away::release;
use crate::plan::change::{Action, Change, Compare, Note, Subject, Write};
use crate::plan::snapshot::{NodeRecord, Snapshot};
use crate::plan::taken::Taken;
use crate::plan::world::{World, modified};

/// What is decided before anybody is served.
#[derive(Debug, Default)]
pub struct Restored<'a> {
    /// Given up on a holder's word.
    pub changes: Vec<Change>,
    /// Nodes that have their change, or wait for one of these: they are not served in this pass.
    pub done: BTreeSet<&'a NodeId>,
}

/// Gives up what the store says against what live nodes hold.
pub fn restore<'a>(world: &World<'a>, taken: &mut Taken, queue: &[(&'a NodeId, &'a NodeRecord)]) -> Restored<'a> {
    let mut restored = Restored::default();
    let holders: Vec<Asker<'a>> = queue.iter().filter_map(|(node, record)| holder(world.snapshot, node, record)).collect();
    for asker in &holders {
        let attempt = Attempt { world, taken, asker };
        if let Some(change) = void(&attempt) {
            restored.changes.push(change);
            restored.done.insert(asker.node);
        }
    }
    for asker in &holders {
        let held = held_claims(&Attempt { world, taken, asker });
        let mut waits = restored.done.contains(asker.node);
        for key in &held {
            let Some(owner) = other_owner(world, asker, key) else { continue };
            if !restored.done.contains(owner)
                && let Some(change) = lose(world, asker, owner, &held)
            {
                restored.changes.push(change);
                restored.done.insert(owner);
            }
            waits |= restored.done.contains(owner);
        }
        if waits {
            // What it will claim next time is given to nobody meanwhile.
            held.iter().for_each(|key| taken.add(key));
            restored.done.insert(asker.node);
        }
    }
    restored
}

fn holder<'a>(snapshot: &Snapshot, node: &'a NodeId, record: &'a NodeRecord) -> Option<Asker<'a>> {
    // Looked at first, because in a healthy fleet nobody holds anything against the store.
    record.label.as_ref()?.ok()?.holding.as_ref()?;
    let draining = record.status.as_ref()?.ok().is_some_and(|status| status.phase == Phase::Draining);
    let asker = Asker::new(snapshot, node, record)?;
    (asker.holding.is_some() && asker.label.fault().is_none() && !draining).then_some(asker)
}

/// What the store says that a holder has, if it is something else than he holds.
fn void(attempt: &Attempt<'_, '_>) -> Option<Change> {
    let (asker, world) = (attempt.asker, attempt.world);
    let old = asker.old.filter(|old| !old.claims().is_empty())?;
    if attempt.holds_the_same() {
        return None;
    }
    let (claims, mut writes) = give_up(world, old, &BTreeSet::new(), |_| GiveUp::Delete);
    let mut compares = as_seen(asker);
    compares.extend(claims);
    writes.push(Write::Delete(Subject::Assignment(asker.node.clone())));
    let note = Note::new(Some(&old.answer), None, "the store is older than what the node uses: its idea of it is void");
    Some(Change { node: asker.node.clone(), action: Action::Void, note, compares, writes })
}

/// The claims that a holder would need for what he holds, out of the first pool whose rules allow it.
fn held_claims(attempt: &Attempt<'_, '_>) -> Vec<ClaimKey> {
    let Some(holding) = attempt.asker.holding else { return Vec::new() };
    let Some(view) = attempt.candidates().into_iter().find(|view| attempt.holds_out_of(view)) else {
        return Vec::new();
    };
    let domain = &view.pool.domain;
    let ports = |ip| holding.ports.values().map(move |port| port_key(domain, ip, *port));
    match view.pool.sharing {
        Sharing::Exclusive => holding.addresses.iter().map(|ip| address_key(domain, ip)).collect(),
        Sharing::Shared | Sharing::Host => holding.addresses.iter().flat_map(ports).collect(),
    }
}

/// Who else has a claim bound.
fn other_owner<'a>(world: &World<'a>, asker: &Asker<'_>, key: &ClaimKey) -> Option<&'a NodeId> {
    let claim = world.snapshot.claims.get(key)?.ok()?;
    (claim.is_bound() && claim.node != *asker.node).then_some(&claim.node)
}

/// A silent owner of an earlier generation loses what a live node holds; what nobody asks back of his cools.
fn lose(world: &World<'_>, asker: &Asker<'_>, owner: &NodeId, held: &[ClaimKey]) -> Option<Change> {
    let record = world.snapshot.nodes.get(owner)?;
    let old = record.assignment.as_ref()?.ok()?;
    let holding = asker.holding?;
    let keys = old.claims();
    let has = held.iter().any(|key| keys.contains(key));
    if !record.is_silent() || old.generation >= holding.generation || !has {
        return None;
    }
    let label = Compare::Modified(Subject::Label(asker.node.clone()), modified(asker.record.label.as_ref()));
    let is_held =
        |key: &ClaimKey| held.contains(key) || (key.port.is_some() && held.contains(&ClaimKey { port: None, ..key.clone() }));
    let how = |key: &ClaimKey| if is_held(key) { GiveUp::Delete } else { GiveUp::Cool };
    let mut change = release(world, owner, record, vec![label], &how);
    change.note.because(format!("{} uses it since generation {}", asker.node, holding.generation));
    Some(change)
}
