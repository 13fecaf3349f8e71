//! What the answer to one live node must do: nothing, refresh, assign, move, let wait, or settle what was left.

use crate::model::asked::Asked;
use crate::model::assignment::{Answer, Assignment, Bound, Reason, Waiting};
use crate::model::names::NodeId;
use crate::model::pool::{OnMismatch, Sharing};
use crate::model::status::{Phase, Refused};
use crate::plan::change::{Action, Change, Compare, Note, Subject, Write};
use crate::plan::snapshot::NodeRecord;
use crate::plan::taken::Taken;
use crate::plan::world::{World, modified};

use super::answer::{RestsOn, answer, asker_compares, assignment};
use super::asker::{Asker, Attempt, Refusal};
use super::choose_address::Pick;
use super::leaving::{GiveUp, LEAVING_MAX, give_up, is_acknowledged, leaving_after};

/// The change for one live node, if it needs one.
pub fn serve<'a>(world: &World<'a>, taken: &mut Taken, node: &'a NodeId, record: &'a NodeRecord) -> Option<Change> {
    // The first look is cheap: nearly all nodes of a pass need nothing.
    if let Some(old) = record.assignment.as_ref().and_then(|stored| stored.ok())
        && !old.leaving.is_empty()
        && is_acknowledged(record, old)
    {
        return Some(settle(world, node, record, old));
    }
    if record.status.as_ref().and_then(|status| status.ok()).is_some_and(|status| status.phase == Phase::Draining) {
        return None; // it is stopping: what it has is all it needs
    }
    if is_served(world, record) {
        return None;
    }
    let asker = Asker::new(world.snapshot, node, record)?;
    if let Some(fault) = asker.label.fault() {
        return invalid_label(world, taken, &asker, &fault);
    }
    match asker.old.and_then(|old| old.bound().map(|bound| (old, bound))) {
        Some((old, bound)) => serve_bound(world, taken, &asker, (old, bound)),
        None => serve_unbound(world, taken, &asker),
    }
}

/// Whether a node has its answer, its host refuses nothing and its pool moves nobody: so it is with nearly all in a pass.
fn is_served(world: &World<'_>, record: &NodeRecord) -> bool {
    let label = record.label.as_ref().and_then(|stored| stored.ok());
    let old = record.assignment.as_ref().and_then(|stored| stored.ok());
    let (Some(label), Some(old)) = (label, old) else { return false };
    let Some(bound) = old.bound() else { return false };
    let refuses = record.status.as_ref().and_then(|stored| stored.ok()).is_some_and(|status| !status.refused.is_empty());
    let may_move = world.pools.get(&bound.terms.pool).is_some_and(|view| view.pool.on_mismatch == OnMismatch::Move);
    !refuses && !may_move && old.instance == label.instance && old.asked == Asked::of(label, bound.terms.sharing)
}

fn serve_unbound(world: &World<'_>, taken: &mut Taken, asker: &Asker<'_>) -> Option<Change> {
    if asker.old.is_some_and(|old| old.leaving.len() >= LEAVING_MAX) {
        return None; // it withdraws and says so first
    }
    let mut attempt = Attempt { world, taken, asker };
    match attempt.find() {
        Ok(pick) if !world.pass.held_only || is_held(asker, &pick) => {
            let next = Bound { terms: pick.terms.clone(), addresses: pick.addresses.clone(), ports: pick.ports.clone() };
            let leaving = asker.old.map(|old| leaving_after(old, Some(&next), &[])).unwrap_or_default();
            Some(put_bound(world, attempt.taken, asker, (next, leaving), (Action::Assign, RestsOn::Live, why(&pick).to_owned())))
        }
        // After a restore the others wait until what is in use has been asked back.
        Ok(_) => None,
        Err(_) if world.pass.held_only => None,
        Err(refusal) => wait(world, taken, asker, refusal, RestsOn::Live),
    }
}

fn serve_bound(world: &World<'_>, taken: &mut Taken, asker: &Asker<'_>, (old, bound): (&Assignment, &Bound)) -> Option<Change> {
    let refused: Vec<Refused> = refused_now(asker, bound);
    let asked = Asked::of(asker.label, bound.terms.sharing);
    let is_answered = old.asked == asked && old.instance == asker.label.instance;
    let mut attempt = Attempt { world, taken, asker };
    let must_move = attempt.must_move(bound) && attempt.may_move_now(bound);
    if is_answered && refused.is_empty() && !must_move {
        return None;
    }
    let is_moving = attempt.is_moving(&bound.terms.pool);
    let result = if must_move {
        // Where nothing better is to be had, what it has is better than nothing.
        attempt.find().or_else(|refusal| attempt.keep(bound).ok_or(refusal))
    } else {
        attempt.keep(bound).map_or_else(|| attempt.find(), Ok)
    };
    let rests_on = if refused.is_empty() { RestsOn::Live } else { RestsOn::StatusWords };
    match result {
        Ok(pick) if pick.addresses == bound.addresses && pick.ports == bound.ports => {
            let next = Bound { terms: pick.terms, ..bound.clone() };
            (!is_answered).then(|| refresh(world, taken, asker, (old, next)))
        }
        Ok(_) if world.pass.held_only => None,
        Ok(pick) => {
            let next = Bound { terms: pick.terms.clone(), addresses: pick.addresses.clone(), ports: pick.ports.clone() };
            let leaving = bounded(leaving_after(old, Some(&next), &refused), old, !refused.is_empty())?;
            let why = moved_why(&pick, must_move, &refused);
            if must_move && !is_moving {
                taken.count_move(&bound.terms.pool);
            }
            Some(put_bound(world, taken, asker, (next, leaving), (Action::Move, rests_on, why)))
        }
        Err(_) if world.pass.held_only || (is_answered && refused.is_empty()) => None,
        Err(refusal) => wait(world, taken, asker, refusal, rests_on),
    }
}

/// At most two generations leave; with two, nothing is planned anew until the node acknowledges. Other ports for refused
/// ones are: then the present generation, which the node could not apply at all, is given up at once.
fn bounded(
    leaving: Vec<crate::model::assignment::Leaving>,
    old: &Assignment,
    is_refused: bool,
) -> Option<Vec<crate::model::assignment::Leaving>> {
    if leaving.len() <= LEAVING_MAX {
        return Some(leaving);
    }
    is_refused.then(|| leaving.into_iter().filter(|leaving| leaving.generation != old.generation).collect())
}

fn put_bound(
    world: &World<'_>,
    taken: &mut Taken,
    asker: &Asker<'_>,
    (bound, leaving): (Bound, Vec<crate::model::assignment::Leaving>),
    how: (Action, RestsOn, String),
) -> Change {
    let asked = Asked::of(asker.label, bound.terms.sharing);
    let next = assignment(asker, world.snapshot.revision, asked, Answer::Bound(bound), leaving);
    answer(world, taken, asker, next, how)
}

/// The same addresses and ports under the same generation: the node need not apply anything again.
fn refresh(world: &World<'_>, taken: &mut Taken, asker: &Asker<'_>, (old, bound): (&Assignment, Bound)) -> Change {
    let asked = Asked::of(asker.label, bound.terms.sharing);
    let next = assignment(asker, old.generation, asked, Answer::Bound(bound), old.leaving.clone());
    answer(world, taken, asker, next, (Action::Refresh, RestsOn::Live, String::new()))
}

/// An answer without addresses. One that only says something else than before keeps its generation: the node withdrew
/// already.
fn wait(world: &World<'_>, taken: &mut Taken, asker: &Asker<'_>, refusal: Refusal, rests_on: RestsOn) -> Option<Change> {
    let depends_on_host = Attempt { world, taken, asker }.depends_on_host();
    let asked = Asked::of(asker.label, if depends_on_host { Sharing::Host } else { Sharing::Exclusive });
    let waiting = Waiting { reason: refusal.reason, message: refusal.message };
    let was_waiting = asker.old.filter(|old| old.bound().is_none());
    let generation = was_waiting.map_or(world.snapshot.revision, |old| old.generation);
    let refused = asker.old.and_then(Assignment::bound).map(|bound| refused_now(asker, bound)).unwrap_or_default();
    let leaving = match asker.old {
        Some(old) => bounded(leaving_after(old, None, &refused), old, !refused.is_empty())?,
        None => Vec::new(),
    };
    let why = waiting.message.clone();
    let next = assignment(asker, generation, asked, Answer::Waiting(waiting), leaving);
    if asker.old.is_some_and(|old| *old == Assignment { mark: old.mark, ..next.clone() }) {
        return None;
    }
    Some(answer(world, taken, asker, next, (Action::Wait, rests_on, why)))
}

/// A label that breaks a rule takes nothing from a node that has something: its agent will not write such a one, and
/// whoever wrote it by hand finds the finding.
fn invalid_label(world: &World<'_>, taken: &mut Taken, asker: &Asker<'_>, fault: &str) -> Option<Change> {
    if world.pass.held_only || asker.old.is_some_and(|old| old.bound().is_some()) {
        return None;
    }
    wait(world, taken, asker, Refusal::new(Reason::LabelInvalid, fault), RestsOn::Live)
}

/// The node uses the present answer and nothing earlier: what was leaving is given up.
fn settle(world: &World<'_>, node: &NodeId, record: &NodeRecord, old: &Assignment) -> Change {
    let next = Assignment { leaving: Vec::new(), ..old.clone() };
    let mut compares = vec![
        Compare::Modified(Subject::Label(node.clone()), modified(record.label.as_ref())),
        Compare::Modified(Subject::Status(node.clone()), modified(record.status.as_ref())),
        Compare::Modified(Subject::Assignment(node.clone()), modified(record.assignment.as_ref())),
    ];
    let keep = next.claims().into_iter().collect();
    let (more, mut writes) = give_up(world, old, &keep, |_| GiveUp::Cool);
    compares.extend(more);
    writes.push(Write::Assignment(node.clone(), next));
    Change { node: node.clone(), action: Action::Settle, note: Note::default(), compares, writes }
}

/// Ports of the present answer that the node's own host uses for something else.
fn refused_now(asker: &Asker<'_>, bound: &Bound) -> Vec<Refused> {
    let status = asker.record.status.as_ref().and_then(|status| status.ok());
    let refused = status.into_iter().flat_map(|status| status.refused.iter().copied());
    let concerns =
        |refusal: &Refused| bound.addresses.contains(&refusal.ip) && bound.ports.values().any(|port| *port == refusal.port);
    refused.filter(concerns).collect()
}

/// Whether what was found is what the node uses already. On an address that is shared every port must be: another one may
/// be in use by somebody who has not asked it back yet.
fn is_held(asker: &Asker<'_>, pick: &Pick) -> bool {
    asker.holding.is_some_and(|holding| {
        let same_place =
            holding.addresses.len() == pick.addresses.len() && holding.addresses.iter().all(|ip| pick.addresses.contains(ip));
        let held = |port: &u16| holding.ports.values().any(|held| held == port);
        same_place && (pick.terms.sharing.claims_address() || pick.ports.values().all(held))
    })
}

fn why(pick: &Pick) -> &'static str {
    pick.why.first().map_or("", |why| why.as_str())
}

fn moved_why(pick: &Pick, must_move: bool, refused: &[Refused]) -> String {
    match (refused, must_move) {
        ([refusal, ..], _) => format!("port {} is used by something else on its host", refusal.port),
        ([], true) => format!("it no longer fits its pool; {}", why(pick)),
        ([], false) => format!("the label asks for something else; {}", why(pick)),
    }
}

/// That the asker is as he was seen, for changes that are made elsewhere.
pub fn as_seen(asker: &Asker<'_>) -> Vec<Compare> {
    asker_compares(asker, RestsOn::Live)
}
