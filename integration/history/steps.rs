//! What no single revision may do: the steps from one state of the source to the next that must never be seen. They share
//! nothing with the code that plans and joins but the types: they must not believe what that believes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use enlist::Assignment;
use enlist::model::assignment::{Answer, Bound, Terms};
use enlist::model::claim::{Claim, ClaimKey, ClaimState};
use enlist::model::names::{NodeId, Revision, RunId};
use enlist::model::status::{Phase, Status};
use enlist::plan::snapshot::{NodeRecord, Snapshot};
use enlist::store::api::Event;
use enlist::store::keys::ParsedKey;

use super::timeline::Times;
use super::world::World;

/// What a revision touches, as it was before.
#[derive(Default)]
pub(crate) struct Before {
    nodes: BTreeMap<NodeId, NodeRecord>,
    claims: BTreeMap<ClaimKey, Option<Claim>>,
}

/// What a script makes happen that is no fault of the roles.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Allowed {
    /// Pools change, so assignments may move.
    pub(crate) pools_change: bool,
    /// Requests arrive late. A cooling counts from its decision: its lease is granted then, and what it is put with may come later.
    pub(crate) late: bool,
}

/// Walks along one era of a store.
pub(crate) struct Rules {
    allowed: Allowed,
    /// The store was emptied or restored before: what a node says it is holding counts, the store's own idea does not.
    restored: bool,
    times: Times,
    /// Since when a node is not live.
    away: BTreeMap<NodeId, Revision>,
    /// Since when a claim cools.
    cools: BTreeMap<ClaimKey, Revision>,
    /// Runs that had each status.
    runs: BTreeMap<NodeId, BTreeSet<RunId>>,
}

impl Rules {
    pub(crate) fn new(allowed: Allowed, restored: bool, times: Times) -> Self {
        let (away, cools, runs) = Default::default();
        Rules { allowed, restored, times, away, cools, runs }
    }

    pub(crate) fn before(&self, events: &[Event], snapshot: &Snapshot) -> Before {
        let mut before = Before::default();
        for event in events {
            match World::prefix().parse(event.key()) {
                ParsedKey::Node(node, _) => {
                    let record = snapshot.nodes.get(&node).cloned().unwrap_or_default();
                    before.nodes.insert(node, record);
                }
                ParsedKey::Claim(key) => {
                    let claim = snapshot.claims.get(&key).and_then(|stored| stored.ok()).cloned();
                    before.claims.insert(key, claim);
                }
                _ => {}
            }
        }
        before
    }

    /// What is wrong with this step.
    pub(crate) fn step(&mut self, at: Revision, before: &Before, snapshot: &Snapshot) -> Result<(), String> {
        for (node, record) in &before.nodes {
            let after = snapshot.nodes.get(node).cloned().unwrap_or_default();
            let faults = [
                self.taken_over(node, record, &after),
                self.moved(node, record, &after),
                self.released(node, at, record, &after),
                self.served(record, &after),
                self.dropped(record, &after),
            ];
            if let Some(fault) = faults.into_iter().flatten().next() {
                return Err(format!("node {node} {fault}"));
            }
            if after.is_live() || after.is_empty() {
                self.away.remove(node);
            } else if record.is_live() {
                self.away.insert(node.clone(), at);
            }
        }
        for (key, was) in &before.claims {
            let is = snapshot.claims.get(key).and_then(|stored| stored.ok());
            if let Some(fault) = self.claim(at, key, (was.as_ref(), is), before) {
                return Err(format!("claim {key} {fault}"));
            }
        }
        Ok(())
    }

    /// A live status is taken over only by a restart on the same boot of the same installation, and no run comes back.
    fn taken_over(&mut self, node: &NodeId, before: &NodeRecord, after: &NodeRecord) -> Option<String> {
        let next = status(after)?;
        let seen = self.runs.entry(node.clone()).or_default();
        let known = !seen.insert(next.run.clone());
        let last = status(before).filter(|last| last.phase.is_live() && last.run != next.run)?;
        if known && !self.restored {
            return Some(format!("had its status taken back by an earlier run: {last:?} to {next:?}"));
        }
        let restarted = last.instance == next.instance && last.boot == next.boot;
        (!restarted && !self.restored).then(|| format!("was taken from a live holder: {last:?} to {next:?}"))
    }

    /// An assignment that still fits never moves while its node is alive or held.
    fn moved(&self, _: &NodeId, before: &NodeRecord, after: &NodeRecord) -> Option<String> {
        let (old, new) = (assignment(before)?, assignment(after)?);
        let bound = old.bound()?;
        let same = new.bound().is_some_and(|b| b.addresses == bound.addresses && b.ports == bound.ports);
        if same {
            return None;
        }
        if new.generation <= old.generation {
            return Some(format!("moved without a higher generation: {old:?} to {new:?}"));
        }
        let asked_anew = new.asked != old.asked || new.instance != old.instance;
        let refused = status(before).is_some_and(|status| !status.refused.is_empty());
        let allowed = asked_anew || refused || self.allowed.pools_change || self.holds(before);
        (!allowed).then(|| format!("moved for no reason: {old:?} to {new:?}"))
    }

    /// An assignment goes only when its node left, or was away for the whole hold.
    fn released(&self, node: &NodeId, at: Revision, before: &NodeRecord, after: &NodeRecord) -> Option<String> {
        let old = assignment(before)?;
        let has_left = status(before).is_some_and(|status| status.phase == Phase::Left);
        if after.assignment.is_some() || has_left || self.holds(before) {
            return None;
        }
        // A silent owner of a lower generation loses what somebody holds.
        if self.restored && !before.is_live() {
            return None;
        }
        if old.claims().is_empty() {
            return None;
        }
        let held = before.hold.is_some() && before.clock.is_none() && !before.is_live();
        if !held {
            return Some(format!("was released while it is alive or held: {old:?}"));
        }
        let terms = old.bound().map(|bound| &bound.terms).into_iter().chain(old.leaving.iter().map(|leaving| &leaving.terms));
        let hold = Duration::from_secs(terms.map(|terms| terms.hold_s).max().unwrap_or_default());
        let away = self.away.get(node).and_then(|since| self.times.at_most(*since, at));
        away.filter(|away| *away < hold).map(|away| format!("was released after {away:?} of a hold of {hold:?}: {old:?}"))
    }

    /// Something new is given only to the installation that asks for it, while it has a status.
    fn served(&self, before: &NodeRecord, after: &NodeRecord) -> Option<String> {
        let new = assignment(after)?;
        let old = assignment(before).map(Assignment::claims).unwrap_or_default();
        if new.claims().iter().all(|key| old.contains(key)) {
            return None;
        }
        let asks = after.label.as_ref().and_then(|stored| stored.ok()).is_some_and(|label| label.instance == new.instance);
        let is_there = after.status.is_some();
        (!asks || !is_there)
            .then(|| format!("was given what it does not ask for: {new:?} with {:?} {:?}", after.label, after.status))
    }

    /// What a node had stays claimed until it acknowledges what it has now.
    fn dropped(&self, before: &NodeRecord, after: &NodeRecord) -> Option<String> {
        let (old, new) = (assignment(before)?, assignment(after)?);
        let kept = new.claims();
        if old.claims().iter().all(|key| kept.contains(key)) {
            return None;
        }
        let phase = match old.answer {
            Answer::Bound(_) => Phase::Registered,
            Answer::Waiting(_) => Phase::Joining,
        };
        let status = status(before);
        let acknowledged = status.is_some_and(|status| status.phase == phase && status.generation == old.generation);
        let refused = status.is_some_and(|status| !status.refused.is_empty());
        let allowed = acknowledged || refused || self.holds(before);
        (!allowed).then(|| format!("lost what it may still use: {old:?} to {new:?}, status {status:?}"))
    }

    /// What was given up cools first, and for its whole time, and goes to nobody but its last owner meanwhile.
    fn claim(
        &mut self,
        at: Revision,
        key: &ClaimKey,
        (was, is): (Option<&Claim>, Option<&Claim>),
        before: &Before,
    ) -> Option<String> {
        let cooling = |claim: Option<&Claim>| claim.is_some_and(|claim| !claim.is_bound());
        let since = if cooling(was) && !cooling(is) { self.cools.remove(key) } else { None };
        if cooling(is) && !cooling(was) {
            self.cools.insert(key.clone(), at);
        }
        let was = was?;
        if let (ClaimState::Cooling { instance, .. }, Some(is)) = (&was.state, is)
            && is.is_bound()
        {
            let owner = before.nodes.get(&is.node).and_then(|record| record.label.as_ref()?.ok());
            let same = is.node == was.node && owner.is_some_and(|label| label.instance == *instance);
            return (!same && !self.restored).then(|| format!("cools for {was:?} and went to {is:?}"));
        }
        if is.is_some() || self.restored {
            return None;
        }
        if let Some(since) = since {
            let cooled = self.times.at_most(since, at)?;
            // The shortest of the pools that cool at all.
            let least = if self.allowed.late { Duration::ZERO } else { Duration::from_secs(2) };
            return (cooled < least).then(|| format!("cooled for {cooled:?} only: {was:?}"));
        }
        let old = before.nodes.get(&was.node).and_then(assignment)?;
        let terms = terms_of(old, key)?;
        let cools = key.port.is_none() == terms.sharing.claims_address() && terms.cooldown_s > 0;
        (was.is_bound() && cools).then(|| format!("went without cooling: {was:?}"))
    }

    /// Whether the node says what it holds to a store that forgot.
    fn holds(&self, record: &NodeRecord) -> bool {
        let label = record.label.as_ref().and_then(|stored| stored.ok());
        self.restored && label.is_some_and(|label| label.holding.is_some())
    }
}

fn status(record: &NodeRecord) -> Option<&Status> {
    record.status.as_ref()?.ok()
}

fn assignment(record: &NodeRecord) -> Option<&Assignment> {
    record.assignment.as_ref()?.ok()
}

/// The terms on which a node has a claim.
fn terms_of<'a>(assignment: &'a Assignment, key: &ClaimKey) -> Option<&'a Terms> {
    let present = assignment.bound().filter(|bound| Bound::claims(bound).contains(key)).map(|bound| &bound.terms);
    let leaving = || assignment.leaving.iter().find(|leaving| leaving.claims().contains(key)).map(|leaving| &leaving.terms);
    present.or_else(leaving)
}
