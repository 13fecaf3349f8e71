//! Why a node has what it has, or why it waits: the planner's own steps, told for one node. Changes nothing.

mod holder;

use std::net::IpAddr;

use crate::model::assignment::{Answer, Assignment, Bound, Reason};
use crate::model::names::{NodeId, PoolName};
use crate::model::status::Phase;
use crate::model::variables::Variables;
use crate::plan::Pass;
use crate::plan::allocate::asker::{Asker, Attempt, Standing, address_key};
use crate::plan::allocate::choose_address::Why;
use crate::plan::index::Index;
use crate::plan::pools::PoolView;
use crate::plan::snapshot::{NodeRecord, Snapshot, Stored};
use crate::plan::space::family::{self, Family};
use crate::plan::taken::Taken;
use crate::plan::usage::{PoolUsage, pool_usage};
use crate::plan::world::World;

/// Why a node has what it has, or why it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The node.
    pub node: NodeId,
    /// What it is now, in one sentence.
    pub state: String,
    /// Every pool: those that match in the order in which they are tried, then the others by name.
    pub pools: Vec<PoolExplained>,
    /// Every address that it has, and why that one.
    pub addresses: Vec<(IpAddr, String)>,
}

/// What one pool has to do with a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolExplained {
    /// The pool.
    pub pool: PoolName,
    /// In one word.
    pub verdict: Verdict,
    /// In a sentence.
    pub text: String,
}

/// What one pool has to do with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The node is in it.
    Chosen,
    /// It matches and could serve the node now.
    CouldServe,
    /// It matches and cannot serve the node now.
    Refused(Reason),
    /// Its selector does not match the label.
    NoMatch,
    /// It matches, but gives nothing new to anybody.
    Unusable,
    /// It cannot be read.
    Unreadable,
}

/// Explains one node; `None` when nothing is stored about it.
pub fn explain(snapshot: &Snapshot, node: &NodeId) -> Option<Explanation> {
    let snapshot = &*super::sound(snapshot);
    let (node, record) = snapshot.nodes.get_key_value(node)?;
    let pass = Pass::default();
    let index = Index::of(snapshot);
    let world = World::new(snapshot, &index, &pass);
    let mut taken = Taken::of(snapshot);
    taken.begin(&index);
    let mut explanation = Explanation { node: node.clone(), state: String::new(), pools: Vec::new(), addresses: Vec::new() };
    let Some(asker) = Asker::new(snapshot, node, record) else {
        explanation.state = match (&record.label, &record.assignment) {
            (None, _) => "it has no label: it keeps what it has and is given nothing".into(),
            (Some(Stored { value: Err(fault), .. }), _) => {
                format!("its label cannot be used ({fault}): it keeps what it has and is given nothing")
            }
            _ => "its assignment cannot be read: it is left alone".into(),
        };
        return Some(explanation);
    };
    let doing = doing(record, asker.old);
    let bound = asker.old.and_then(|old| old.bound());
    explanation.state = match asker.old.map(|old| &old.answer) {
        Some(Answer::Bound(bound)) => format!("it is bound out of pool {}{doing}", bound.terms.pool),
        Some(Answer::Waiting(waiting)) => format!("it waits: {} ({}){doing}", waiting.message, waiting.reason),
        None => format!("it has no answer yet{doing}"),
    };
    let mut attempt = Attempt { world: &world, taken: &mut taken, asker: &asker };
    for view in attempt.candidates() {
        explanation.pools.push(matching(&mut attempt, view, bound));
    }
    explanation.pools.extend(others(&attempt, bound));
    if let Some(bound) = bound {
        explanation.addresses = bound.addresses.iter().map(|ip| (*ip, why(&attempt, bound, ip))).collect();
    }
    Some(explanation)
}

/// What its agent does with the answer, as far as that is worth a word.
fn doing(record: &NodeRecord, old: Option<&Assignment>) -> String {
    if record.is_unleased() {
        return "; its status is on no lease, so no agent keeps it: nothing new is given to it before it joins".into();
    }
    if !record.is_live() {
        return "; it is away: nothing new is given to it before it is back".into();
    }
    let Some(status) = record.status.as_ref().and_then(|status| status.ok()) else { return String::new() };
    let said = if status.message.is_empty() { String::new() } else { format!(": {}", status.message) };
    let bound = old.filter(|old| old.bound().is_some());
    match (status.phase, bound) {
        (Phase::Failed, _) => format!("; its agent failed to apply that and tries again{said}"),
        (Phase::Draining, _) => "; it is stopping".into(),
        (Phase::Registered, Some(old)) if old.generation == status.generation => String::new(),
        (_, Some(_)) => format!("; its agent has not acknowledged that yet{said}"),
        _ => String::new(),
    }
}

fn matching(attempt: &mut Attempt<'_, '_>, view: &PoolView<'_>, bound: Option<&Bound>) -> PoolExplained {
    let name = &view.pool.name;
    let order = format!("its selector matches, priority {}", view.pool.priority);
    let explained = |verdict, text| PoolExplained { pool: name.clone(), verdict, text };
    if bound.is_some_and(|bound| bound.terms.pool == *name) {
        return explained(Verdict::Chosen, format!("{order}; the node is in it"));
    }
    match attempt.pick(view) {
        Ok(_) if bound.is_some() => {
            explained(Verdict::CouldServe, format!("{order}; it could serve, but what the node has stays while it fits"))
        }
        Ok(_) => explained(Verdict::CouldServe, format!("{order}; it can serve")),
        Err(refusal) => {
            let mut text = format!("{order}; {}", refusal.message);
            let wanted: Vec<u16> = attempt.asker.label.want.ports.values().copied().collect();
            let details = match refusal.reason {
                Reason::PoolFull => counts(attempt, name),
                _ => holder::holders(attempt.world, view, &refusal, &wanted),
            };
            if !details.is_empty() {
                text += &format!(" ({details})");
            }
            explained(Verdict::Refused(refusal.reason), text)
        }
    }
}

/// How full a pool is, in words.
fn counts(attempt: &Attempt<'_, '_>, pool: &PoolName) -> String {
    let Some(usage) = pool_usage(attempt.snapshot(), pool) else { return String::new() };
    let PoolUsage { bound, cooling, reserved, .. } = usage;
    format!("{bound} bound, {cooling} cooling, {reserved} reserved for others")
}

/// Pools that are not tried at all.
fn others(attempt: &Attempt<'_, '_>, bound: Option<&Bound>) -> Vec<PoolExplained> {
    let variables = &attempt.asker.label.variables;
    let present = bound.map(|bound| &bound.terms.pool);
    let mut others: Vec<PoolExplained> = attempt
        .world
        .pools
        .iter()
        .filter_map(|view| {
            let name = &view.pool.name;
            let (verdict, text) = match (&view.fault, view.pool.selector.matches(variables)) {
                (None, true) => return None,
                (Some(fault), true) => (Verdict::Unusable, fault.clone()),
                (_, false) => (Verdict::NoMatch, format!("its selector does not match: {}", misses(view, variables))),
            };
            let stays = present == Some(name);
            let text = if stays { format!("the node is in it and stays until it leaves, although {text}") } else { text };
            Some(PoolExplained { pool: name.clone(), verdict: if stays { Verdict::Chosen } else { verdict }, text })
        })
        .collect();
    others.extend(attempt.world.pools.unreadable().iter().map(|name| PoolExplained {
        pool: (*name).clone(),
        verdict: Verdict::Unreadable,
        text: "it cannot be read: it gives nothing new".into(),
    }));
    others.sort_by(|a, b| a.pool.cmp(&b.pool));
    others
}

/// The requirements that a label does not meet, with the values seen.
fn misses(view: &PoolView<'_>, variables: &Variables) -> String {
    let missed = view.pool.selector.terms(variables).into_iter().filter(|term| !term.holds);
    let said = missed.map(|term| match term.seen {
        Some(seen) => format!("{} (the node has {seen:?})", term.requirement),
        None => format!("{} (the node does not have it)", term.requirement),
    });
    said.collect::<Vec<_>>().join(", ")
}

/// Why a certain address. How it was chosen is not stored; it is what the same steps say now.
fn why(attempt: &Attempt<'_, '_>, bound: &Bound, ip: &IpAddr) -> String {
    let asker = attempt.asker;
    let Some(view) = attempt.pool_of(bound) else {
        return format!("{}, out of pool {}, which gives nothing new", Why::Kept.as_str(), bound.terms.pool);
    };
    if bound.terms.sharing == crate::model::pool::Sharing::Host {
        return Why::Host.as_str().into();
    }
    let by_word = [
        (asker.label.want.addresses.contains(ip), Why::Wanted),
        (asker.label.holding.as_ref().is_some_and(|holding| holding.addresses.contains(ip)), Why::Held),
        (attempt.reserved(view).any(|reserved| reserved == *ip), Why::Reserved),
    ];
    if let Some((_, why)) = by_word.into_iter().find(|(is_so, _)| *is_so) {
        return why.as_str().into();
    }
    if let Some(text) = reservation(attempt, view, ip) {
        return text;
    }
    if !attempt.may_have(view, ip) {
        let text = "although its pool would not give it today (on_mismatch decides)";
        return format!("{}, {text}", Why::Kept.as_str());
    }
    let family = Family::of(ip);
    match view.space(family).and_then(|space| attempt.start(&space.open)) {
        Some(start) if start == family::number(ip) => Why::Hash.as_str().into(),
        Some(start) => {
            format!("the node's id hashes to {}, which was not free or was another choice then", family.address(start))
        }
        None => Why::Kept.as_str().into(),
    }
}

/// Why the node does not have the address that is reserved for it; `None` = none is.
fn reservation(attempt: &Attempt<'_, '_>, view: &PoolView<'_>, ip: &IpAddr) -> Option<String> {
    let world = attempt.world;
    let reserved = attempt.reserved(view).find(|reserved| reserved.is_ipv4() == ip.is_ipv4())?;
    let key = address_key(&view.pool.domain, &reserved);
    let another = world.pools.reserved_for(&view.pool.domain, &reserved).filter(|owner| *owner != attempt.asker.node);
    let why = if !view.gives(&reserved) {
        "which its pool does not give".into()
    } else if let Some(another) = another {
        format!("and for {another}, which comes first")
    } else if attempt.standing(view, &key) == Standing::Taken || attempt.whole(view, &reserved) == Standing::Taken {
        let holder = holder::holder(world, &key).unwrap_or_else(|| "another node has it".into());
        format!(
            "but {holder}; the node gets it when it asks for something else once it is free, or as soon as it is free with on_mismatch: move"
        )
    } else {
        "and it is free; the node gets it when it asks for something else, or at once with on_mismatch: move".into()
    };
    Some(format!("the node has it already; {reserved} is reserved for it, {why}"))
}
