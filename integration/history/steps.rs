//! Steps from one state of the source to the next that must never occur. The checks share only types with the code that
//! plans and joins, so that they do not share its errors.
//!
//! [`super::steps_of_nodes`] checks the keys of one node; this file has the walk, the claims, and the brake.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use enlist::Assignment;
use enlist::model::assignment::{Bound, Terms};
use enlist::model::claim::{Claim, ClaimKey, ClaimState};
use enlist::model::names::{NodeId, Revision, RunId};
use enlist::plan::snapshot::{NodeRecord, Snapshot};
use enlist::store::api::Event;
use enlist::store::keys::{ParsedKey, Prefix};
use tokio::time::Instant;

/// Mass loss, as in the design: at least this many silent nodes, and at least this percentage of the nodes with claims.
const BRAKE: (usize, usize) = (3, 15);

/// The former state of the keys that a revision touches.
#[derive(Debug, Default)]
pub(crate) struct Before {
    nodes: BTreeMap<NodeId, NodeRecord>,
    claims: BTreeMap<ClaimKey, Option<Claim>>,
    /// Claims that cannot be read.
    unreadable: BTreeSet<ClaimKey>,
}

/// Events outside the roles that permit otherwise forbidden steps.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Allowed {
    /// Pools change, so assignments may move.
    pub(crate) pools_change: bool,
    /// Requests arrive late. A cooling time counts from its decision: its lease is granted then, and the put of the
    /// claim may arrive later.
    pub(crate) late: bool,
    /// Each call takes at most this long on its way, and as long back.
    pub(crate) delay_max: Duration,
    /// A client rewrites keys without a change.
    pub(crate) written_again: bool,
    /// The store was emptied or restored before: the holding of a node counts, not the record of the store.
    pub(crate) restored: bool,
    /// An operator takes over ids (`--replace`).
    pub(crate) replaced: bool,
}

/// The times of revisions, as exact as the observations.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times(Vec<(Instant, Revision)>);

impl Times {
    /// Notes that the store is at this revision now.
    pub(crate) fn saw(&mut self, revision: Revision) {
        self.0.push((Instant::now(), revision));
    }

    /// The time of the first observation of a revision; `None` = it is older than all observations, or newer.
    pub(crate) fn first_seen(&self, revision: Revision) -> Option<Instant> {
        let at = self.0.partition_point(|(_, seen)| *seen < revision);
        self.0.get(at).filter(|_| at > 0).map(|(when, _)| *when)
    }

    /// The longest possible time from one revision to a later one; `None` = no observation.
    pub(crate) fn at_most(&self, from: Revision, to: Revision) -> Option<Duration> {
        let before = self.0.partition_point(|(_, seen)| *seen < from).checked_sub(1)?;
        let after = self.0.partition_point(|(_, seen)| *seen < to);
        Some(self.0.get(after)?.0 - self.0[before].0)
    }
}

/// Walks along one era of a store.
#[derive(Debug)]
pub(crate) struct Rules {
    prefix: Prefix,
    pub(super) allowed: Allowed,
    pub(super) times: Times,
    /// The revision since which a node is not live.
    pub(super) away: BTreeMap<NodeId, Revision>,
    /// The revision since which a claim cools.
    cools: BTreeMap<ClaimKey, Revision>,
    /// Runs that have had the status of each node.
    pub(super) runs: BTreeMap<NodeId, BTreeSet<RunId>>,
    /// The last answer of each node.
    pub(super) last: BTreeMap<NodeId, Assignment>,
    /// The revision at which the clock of the node's hold disappeared.
    pub(super) clock_gone: BTreeMap<NodeId, Revision>,
    /// The last revision without a mass loss.
    pub(super) last_calm: Revision,
}

impl Rules {
    pub(crate) fn new(prefix: Prefix, allowed: Allowed, times: Times) -> Self {
        let (away, cools, runs, last, clock_gone) = Default::default();
        Rules { prefix, allowed, times, away, cools, runs, last, clock_gone, last_calm: Revision::NONE }
    }

    pub(crate) fn before(&self, events: &[Event], snapshot: &Snapshot) -> Before {
        let mut before = Before::default();
        for event in events {
            match self.prefix.parse(event.key()) {
                ParsedKey::Node(node, _) => {
                    let record = snapshot.nodes.get(&node).cloned().unwrap_or_default();
                    before.nodes.insert(node, record);
                }
                ParsedKey::Claim(key) => {
                    let stored = snapshot.claims.get(&key);
                    if stored.is_some_and(|stored| stored.ok().is_none()) {
                        before.unreadable.insert(key.clone());
                    }
                    before.claims.insert(key, stored.and_then(|stored| stored.ok()).cloned());
                }
                _ => {}
            }
        }
        before
    }

    /// The violations of this step.
    pub(crate) fn step(&mut self, at: Revision, before: &Before, snapshot: &Snapshot) -> Vec<String> {
        let mut wrong = Vec::new();
        for (node, record) in &before.nodes {
            let after = snapshot.nodes.get(node).cloned().unwrap_or_default();
            let faults = self.node(node, at, (record, &after), snapshot.brake_released);
            wrong.extend(faults.into_iter().map(|fault| format!("node {node} {fault}")));
        }
        for (key, was) in &before.claims {
            let stored = snapshot.claims.get(key);
            let is = stored.and_then(|stored| stored.ok());
            let overwritten = before.unreadable.contains(key) && is.is_some();
            let fault = self.claim(at, key, (was.as_ref(), is), before);
            let fault = fault.or_else(|| overwritten.then(|| "cannot be read, and was assigned".to_owned()));
            wrong.extend(fault.map(|fault| format!("claim {key} {fault}")));
        }
        if !is_mass_loss(snapshot) {
            self.last_calm = at;
        }
        wrong
    }

    /// A released claim first cools for its whole time, and meanwhile passes only to its last owner.
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
        if let (ClaimState::Cooling(_), Some(is)) = (&was.state, is)
            && is.is_bound()
        {
            let same = is.node == was.node;
            return (!same && !self.allowed.restored).then(|| format!("cools for {was:?} and was assigned to {is:?}"));
        }
        if is.is_some() || self.allowed.restored {
            return None;
        }
        if let Some(since) = since {
            let cooled = self.times.at_most(since, at)?;
            // The shortest cooldown of the pools that have one.
            let least = if self.allowed.late { Duration::ZERO } else { Duration::from_secs(2) };
            // The way back of the grant, another grant of the same pass, and the way of the put, which may queue behind
            // another request.
            let least = least.saturating_sub(6 * self.allowed.delay_max);
            return (cooled < least).then(|| format!("cooled for {cooled:?} only: {was:?}"));
        }
        let old = before.nodes.get(&was.node).and_then(super::steps_of_nodes::assignment)?;
        let terms = terms_of(old, key)?;
        let cools = key.port.is_none() == terms.sharing.claims_address() && terms.cooldown_s > 0;
        (was.is_bound() && cools).then(|| format!("disappeared without cooling: {was:?}"))
    }
}

/// Whether enough nodes are silent at once that no release is allowed.
fn is_mass_loss(snapshot: &Snapshot) -> bool {
    let bound = snapshot.nodes.values().filter(|record| record.has_claims());
    let (all, silent) = bound.fold((0, 0), |(all, silent), record| (all + 1, silent + usize::from(record.status.is_none())));
    silent >= BRAKE.0 && silent * 100 >= all * BRAKE.1
}

/// The terms under which a node has a claim.
fn terms_of<'a>(assignment: &'a Assignment, key: &ClaimKey) -> Option<&'a Terms> {
    let present = assignment.bound().filter(|bound| Bound::claims(bound).contains(key)).map(|bound| &bound.terms);
    let leaving = || assignment.leaving.iter().find(|leaving| leaving.claims().contains(key)).map(|leaving| &leaving.terms);
    present.or_else(leaving)
}
