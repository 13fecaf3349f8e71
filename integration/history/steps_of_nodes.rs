//! Steps of one node's own keys that must never occur.

use std::time::Duration;

use enlist::Assignment;
use enlist::model::assignment::Answer;
use enlist::model::label::{Label, PORTS_MAX};
use enlist::model::names::{NodeId, Revision};
use enlist::model::status::{Phase, Status};
use enlist::plan::snapshot::NodeRecord;

use super::steps::Rules;

impl Rules {
    /// The violations of a change of a node's keys. `word`: the revision at which an operator released the brake, which
    /// ends the older holds.
    pub(super) fn node(
        &mut self,
        node: &NodeId,
        at: Revision,
        (before, after): (&NodeRecord, &NodeRecord),
        word: Revision,
    ) -> Vec<String> {
        if before.clock.is_some() && after.clock.is_none() {
            self.clock_gone.insert(node.clone(), at);
        }
        let faults = [
            self.taken_over(node, before, after),
            self.robbed(before, after),
            self.said_again(before, after),
            self.moved(before, after),
            self.grown_younger(node, after),
            self.released((node, at), before, after, word),
            self.unbraked(node, before, after, word),
            self.served(before, after),
            self.dropped(before, after),
        ];
        if after.is_live() || after.is_empty() {
            self.away.remove(node);
        } else if before.is_live() {
            self.away.insert(node.clone(), at);
        }
        faults.into_iter().flatten().collect()
    }

    /// A live status is taken over only by a restart on the same boot of the same installation, and no earlier run
    /// returns.
    fn taken_over(&mut self, node: &NodeId, before: &NodeRecord, after: &NodeRecord) -> Option<String> {
        let next = status(after)?;
        let seen = self.runs.entry(node.clone()).or_default();
        let known = !seen.insert(next.run.clone());
        let last = status(before).filter(|last| last.phase.is_live() && last.run != next.run)?;
        if known && !self.allowed.restored {
            return Some(format!("lost its status to an earlier run: {last:?} to {next:?}"));
        }
        let restarted = last.instance == next.instance && last.boot == next.boot;
        (!restarted && !self.allowed.restored).then(|| format!("was taken from a live holder: {last:?} to {next:?}"))
    }

    /// An assignment that still fits never moves while its node is alive or held.
    fn moved(&self, before: &NodeRecord, after: &NodeRecord) -> Option<String> {
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
        (!allowed).then(|| format!("moved without a reason: {old:?} to {new:?}"))
    }

    /// Generations only rise, across waiting and release too: an agent orders assignments by them.
    fn grown_younger(&mut self, node: &NodeId, after: &NodeRecord) -> Option<String> {
        let new = assignment(after)?;
        let last = self.last.insert(node.clone(), new.clone())?;
        let place = |assignment: &Assignment| assignment.bound().map(|bound| (bound.addresses.clone(), bound.ports.clone()));
        let is_older = new.generation < last.generation;
        let is_other = new.generation == last.generation && place(new) != place(&last);
        ((is_older || is_other) && !self.allowed.restored)
            .then(|| format!("changed its assignment without a higher generation: {last:?} to {new:?}"))
    }

    /// A silent node may only be cut off, and still use its assignment: its id passes to another installation when the
    /// node has stopped, or when its assignment is released.
    fn robbed(&self, before: &NodeRecord, after: &NodeRecord) -> Option<String> {
        let old = assignment(before).filter(|old| !old.claims().is_empty())?;
        let stopped = status(before).is_some_and(|status| status.phase == Phase::Stopped);
        if stopped || before.is_live() || self.allowed.replaced {
            return None;
        }
        let next = status(after).filter(|next| next.phase.is_live() && next.instance != old.instance)?;
        Some(format!("was taken from a holder that is only silent: {old:?} by {next:?}"))
    }

    /// An unchanged label is not written again: ten thousand returning nodes would all do so.
    fn said_again(&self, before: &NodeRecord, after: &NodeRecord) -> Option<String> {
        let (old, new) = (before.label.as_ref()?, after.label.as_ref()?);
        let again = old.mod_revision != new.mod_revision && old.ok()? == new.ok()?;
        (again && !self.allowed.written_again).then(|| format!("wrote its label again unchanged: {:?}", new.value))
    }

    /// While many nodes are silent at once none of them loses its assignment, unless its hold was extended, or an
    /// operator released the brake. The allocator that released it had seen the clock disappear, so it had also seen a
    /// mass loss since then.
    fn unbraked(&self, node: &NodeId, before: &NodeRecord, after: &NodeRecord, word: Revision) -> Option<String> {
        let hold = before.hold.as_deref().filter(|_| before.is_silent() && after.assignment.is_none())?;
        let is_extended = hold.ok().is_some_and(|hold| hold.extended);
        let gone = *self.clock_gone.get(node)?;
        let is_braked = self.last_calm < gone && !is_extended && word < hold.mod_revision && !self.allowed.restored;
        is_braked.then(|| format!("was released although many are silent since {:?}: {hold:?}", self.last_calm))
    }

    /// An assignment disappears only when its node left, or was away for the whole hold.
    fn released(
        &self,
        (node, at): (&NodeId, Revision),
        before: &NodeRecord,
        after: &NodeRecord,
        word: Revision,
    ) -> Option<String> {
        let old = assignment(before)?;
        let has_left = status(before).is_some_and(|status| status.phase == Phase::Left);
        if after.assignment.is_some() || has_left || self.holds(before) {
            return None;
        }
        // A silent owner with a lower generation loses a claim that another node holds.
        if self.allowed.restored && !before.is_live() {
            return None;
        }
        if old.claims().is_empty() {
            return None;
        }
        let hold = before.hold.as_deref().map(|hold| hold.mod_revision);
        let is_waved_through = hold.is_some_and(|hold| word > hold);
        let held = hold.is_some() && (before.clock.is_none() || is_waved_through) && !before.is_live();
        if !held {
            return Some(format!("was released while it is alive or held: {old:?}"));
        }
        let terms = old.bound().map(|bound| &bound.terms).into_iter().chain(old.leaving.iter().map(|leaving| &leaving.terms));
        let hold = Duration::from_secs(terms.map(|terms| terms.hold_s).max().unwrap_or_default());
        let away = self.away.get(node).and_then(|since| self.times.at_most(*since, at));
        away.filter(|away| *away < hold).map(|away| format!("was released after {away:?} of a hold of {hold:?}: {old:?}"))
    }

    /// A new claim goes only to the installation that requests it, while the node has a status.
    fn served(&self, before: &NodeRecord, after: &NodeRecord) -> Option<String> {
        let new = assignment(after)?;
        if let Some(bound) = new.bound().filter(|bound| bound.ports.len() > PORTS_MAX) {
            return Some(format!("was assigned {} ports", bound.ports.len()));
        }
        let old = assignment(before).map(Assignment::claims).unwrap_or_default();
        if new.claims().iter().all(|key| old.contains(key)) {
            return None;
        }
        let asks = label(after).is_some_and(|label| label.instance == new.instance);
        let is_there = after.status.is_some();
        (!asks || !is_there)
            .then(|| format!("was assigned claims that it does not request: {new:?} with {:?} {:?}", after.label, after.status))
    }

    /// The former claims of a node stay until it acknowledges its present assignment.
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
        (!allowed).then(|| format!("lost claims that it may still use: {old:?} to {new:?}, status {status:?}"))
    }

    /// Whether the node reports its holding to a store that lost it.
    fn holds(&self, record: &NodeRecord) -> bool {
        self.allowed.restored && label(record).is_some_and(|label| label.holding.is_some())
    }
}

fn label(record: &NodeRecord) -> Option<&Label> {
    record.label.as_ref()?.ok()
}

fn status(record: &NodeRecord) -> Option<&Status> {
    record.status.as_ref()?.ok()
}

/// The answer of the node.
pub(super) fn assignment(record: &NodeRecord) -> Option<&Assignment> {
    record.assignment.as_ref()?.ok()
}
