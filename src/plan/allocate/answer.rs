//! The change that gives a node its answer, with the compares that make it safe.
//!
//! Race: between what is seen here and the moment of writing, the label may be changed or deleted, the status may go (or
//! another host may take the id), another change may answer the same node, and each key may be claimed. Every one of
//! these is compared.

use std::collections::BTreeSet;

use crate::model::assignment::{Answer, Assignment, Bound, Leaving};
use crate::model::claim::{Claim, ClaimKey, ClaimState};
use crate::model::names::Revision;
use crate::plan::change::{Action, Change, Compare, Note, Subject, Write};
use crate::plan::taken::Taken;
use crate::plan::world::{World, created, modified};

use super::asker::{Asker, address_key};
use super::leaving::{GiveUp, give_up};

/// What the decision to answer rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestsOn {
    /// That the node is live: its heartbeats and phases may change meanwhile.
    Live,
    /// What its status says: not a word of it may change.
    StatusWords,
}

/// The change that puts `next`, claims what is new in it and gives up what is not in it any more.
pub fn answer(
    world: &World<'_>,
    taken: &mut Taken,
    asker: &Asker<'_>,
    next: Assignment,
    (action, rests_on, why): (Action, RestsOn, String),
) -> Change {
    let mut compares = asker_compares(asker, rests_on);
    let mut writes = Vec::new();
    let wanted: BTreeSet<ClaimKey> = next.claims().into_iter().collect();
    if let Some(bound) = next.bound() {
        claim(world, taken, asker, bound, (&mut compares, &mut writes));
    }
    if let Some(old) = asker.old {
        let (more_compares, more_writes) = give_up(world, old, &wanted, |_| GiveUp::Cool);
        compares.extend(more_compares);
        writes.extend(more_writes);
    }
    let note = Note::new(asker.old.map(|old| &old.answer), Some(&next.answer), why);
    writes.push(Write::Assignment(asker.node.clone(), next));
    Change { node: asker.node.clone(), action, note, compares, writes }
}

/// That the asker is as he was seen.
pub fn asker_compares(asker: &Asker<'_>, rests_on: RestsOn) -> Vec<Compare> {
    let node = asker.node;
    let record = asker.record;
    let status = Subject::Status(node.clone());
    vec![
        Compare::Modified(Subject::Label(node.clone()), modified(record.label.as_ref())),
        match rests_on {
            RestsOn::Live => Compare::Created(status, created(record.status.as_ref())),
            RestsOn::StatusWords => Compare::Modified(status, modified(record.status.as_ref())),
        },
        Compare::Modified(Subject::Assignment(node.clone()), modified(record.assignment.as_ref())),
    ]
}

/// Claims what the asker does not have yet.
fn claim(
    world: &World<'_>,
    taken: &mut Taken,
    asker: &Asker<'_>,
    bound: &Bound,
    (compares, writes): (&mut Vec<Compare>, &mut Vec<Write>),
) {
    let terms = &bound.terms;
    let new: Vec<ClaimKey> = bound.claims().into_iter().filter(|key| !asker.own.contains(key)).collect();
    for ip in &bound.addresses {
        let address = address_key(&terms.domain, ip);
        let is_new = new.contains(&address);
        if !is_new && !new.iter().any(|key| key.ip == *ip) {
            continue;
        }
        // New in an exclusive pool: free or cooling as seen. Ports more on an address that is the node's own: still
        // his. In the other pools: nobody has the address whole.
        compares.push(Compare::Modified(Subject::Claim(address.clone()), world.claim_revision(&address)));
        if is_new {
            compares.push(Compare::NoPortsClaimed(terms.domain.clone(), *ip));
        }
    }
    for key in new {
        if key.port.is_some() {
            compares.push(Compare::Modified(Subject::Claim(key.clone()), world.claim_revision(&key)));
        }
        let claim = Claim { node: asker.node.clone(), pool: terms.pool.clone(), state: ClaimState::Bound };
        taken.pick(key.clone());
        writes.push(Write::Bind(key, claim));
    }
}

/// The next assignment for an asker. The instance is the label's.
pub fn assignment(
    asker: &Asker<'_>,
    generation: Revision,
    asked: crate::model::asked::Asked,
    answer: Answer,
    leaving: Vec<Leaving>,
) -> Assignment {
    Assignment {
        node: asker.node.clone(),
        instance: asker.label.instance.clone(),
        generation,
        asked,
        answer,
        leaving,
        mark: None,
    }
}
