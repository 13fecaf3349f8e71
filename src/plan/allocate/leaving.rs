//! What becomes of what a node had: it stays claimed in `leaving` until the node acknowledges what it has now, then it is
//! given up. At most two generations, so that a hook that fails for ever does not collect addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::model::assignment::{Answer, Assignment, Bound, Leaving, Terms};
use crate::model::claim::{Claim, ClaimKey, ClaimState};
use crate::model::names::{InstanceId, NodeId};
use crate::model::status::{Phase, Refused};
use crate::plan::change::{Compare, Subject, Write};
use crate::plan::snapshot::NodeRecord;
use crate::plan::world::World;

/// At most so many generations are leaving.
pub const LEAVING_MAX: usize = 2;

/// What is leaving once `next` replaces the present answer.
pub fn leaving_after(old: &Assignment, next: Option<&Bound>, refused: &[Refused]) -> Vec<Leaving> {
    let kept: BTreeSet<ClaimKey> = next.map(Bound::claims).unwrap_or_default().into_iter().collect();
    let present = old.bound().and_then(|bound| present_part(old, bound, next, refused));
    let all = old.leaving.iter().cloned().chain(present);
    // What the new answer has all of leaves nowhere.
    all.filter(|leaving| leaving.claims().iter().any(|key| !kept.contains(key))).collect()
}

/// The present answer as something that leaves. A port that its host refuses is not in use by the node: it is given up
/// at once, so that other ports for refused ones can always be planned.
fn present_part(old: &Assignment, bound: &Bound, next: Option<&Bound>, refused: &[Refused]) -> Option<Leaving> {
    let same_place = |next: &&Bound| {
        next.terms.domain == bound.terms.domain && next.terms.sharing.claims_address() == bound.terms.sharing.claims_address()
    };
    let next = next.filter(same_place);
    let stays = |ip: &IpAddr| next.is_some_and(|next| next.addresses.contains(ip));
    let gone: Vec<IpAddr> = bound.addresses.iter().filter(|ip| !stays(ip)).copied().collect();
    let is_refused = |port: u16| refused.iter().any(|r| r.port == port && bound.addresses.contains(&r.ip));
    let mut ports = bound.ports.clone();
    ports.retain(|_, port| !is_refused(port));
    let mut dropped = ports.clone();
    dropped.retain(|_, port| !next.is_some_and(|next| next.ports.values().any(|kept| *kept == port)));
    let (addresses, ports) = match (gone.is_empty(), dropped.is_empty()) {
        (true, true) => return None,
        (true, false) => (bound.addresses.clone(), dropped),
        (false, true) => (gone, ports),
        (false, false) => (bound.addresses.clone(), ports),
    };
    Some(Leaving { generation: old.generation, terms: bound.terms.clone(), addresses, ports })
}

/// Whether the node's own word is that it uses the present answer and nothing earlier. A node that waits says so with
/// `joining` and the generation of the waiting answer, after it withdrew.
pub fn is_acknowledged(record: &NodeRecord, assignment: &Assignment) -> bool {
    let Some(status) = record.status.as_ref().and_then(|status| status.ok()) else { return false };
    let phase = match assignment.answer {
        Answer::Bound(_) => Phase::Registered,
        Answer::Waiting(_) => Phase::Joining,
    };
    status.instance == assignment.instance && status.phase == phase && status.generation == assignment.generation
}

/// How claims are given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GiveUp {
    /// They cool for the cooldown, so that nobody else gets them while they may still be in use.
    Cool,
    /// They go at once.
    Delete,
}

/// Compares and writes that give up every claim of an assignment which is not in `keep`. Claims that are not the node's
/// (somebody else's, unreadable, cooling already, missing) are left as they are: a release by somebody who does not own
/// a claim does nothing to it.
pub fn give_up(
    world: &World<'_>,
    assignment: &Assignment,
    keep: &BTreeSet<ClaimKey>,
    how: impl Fn(&ClaimKey) -> GiveUp,
) -> (Vec<Compare>, Vec<Write>) {
    let mut compares = Vec::new();
    let mut writes = Vec::new();
    for (key, end) in endings(world, assignment) {
        if keep.contains(&key) {
            continue;
        }
        let Some(revision) = world.bound_by(&assignment.node, &key) else { continue };
        compares.push(Compare::Modified(Subject::Claim(key.clone()), revision));
        let seconds = if how(&key) == GiveUp::Cool { end.cooldown_s } else { 0 };
        writes.push(match seconds {
            0 => Write::Delete(Subject::Claim(key)),
            seconds => {
                let owner = (&assignment.node, &assignment.instance);
                Write::Cool(key, cooling(world, owner, &end.terms), seconds)
            }
        });
    }
    (compares, writes)
}

/// A cooling claim.
pub fn cooling(world: &World<'_>, (node, instance): (&NodeId, &InstanceId), terms: &Terms) -> Claim {
    let state = ClaimState::cooling(instance.clone(), world.pass.now_text.clone());
    Claim { node: node.clone(), pool: terms.pool.clone(), state }
}

/// How one claim ends: 0 seconds = it goes at once.
struct Ending {
    terms: Terms,
    cooldown_s: u64,
}

/// How every claim of an assignment ends. In an exclusive pool the address cools and its ports need not; in the others
/// the ports cool. A claim that several generations list cools for the longest of them.
fn endings(world: &World<'_>, assignment: &Assignment) -> BTreeMap<ClaimKey, Ending> {
    let present = assignment.bound().map(|bound| (&bound.terms, bound.claims()));
    let leaving = assignment.leaving.iter().map(|leaving| (&leaving.terms, leaving.claims()));
    let mut endings: BTreeMap<ClaimKey, Ending> = BTreeMap::new();
    for (terms, keys) in present.into_iter().chain(leaving) {
        for key in keys {
            let cools = key.port.is_none() == terms.sharing.claims_address();
            let cooldown_s = if cools { world.pools.cooldown_s(terms) } else { 0 };
            match endings.get_mut(&key) {
                Some(ending) => ending.cooldown_s = ending.cooldown_s.max(cooldown_s),
                None => {
                    endings.insert(key, Ending { terms: terms.clone(), cooldown_s });
                }
            }
        }
    }
    endings
}
