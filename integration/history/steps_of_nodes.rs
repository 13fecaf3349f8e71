//! Steps of one node's own keys that must never be seen.

use std::time::Duration;

use enlist::Assignment;
use enlist::model::assignment::Answer;
use enlist::model::label::{Label, PORTS_MAX};
use enlist::model::names::{NodeId, Revision};
use enlist::model::status::{Phase, Status};
use enlist::plan::snapshot::NodeRecord;

use super::steps::Rules;

impl Rules {
    /// What is wrong with what a node's keys have become. `word`: when an operator released the brake, which ends the holds
    /// that are older.
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

    /// A live status is taken over only by a restart on the same boot of the same installation, and no run comes back.
    fn taken_over(&mut self, node: &NodeId, before: &NodeRecord, after: &NodeRecord) -> Option<String> {
        let next = status(after)?;
        let seen = self.runs.entry(node.clone()).or_default();
        let known = !seen.insert(next.run.clone());
        let last = status(before).filter(|last| last.phase.is_live() && last.run != next.run)?;
        if known && !self.allowed.restored {
            return Some(format!("had its status taken back by an earlier run: {last:?} to {next:?}"));
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
        (!allowed).then(|| format!("moved for no reason: {old:?} to {new:?}"))
    }

    /// Generations only rise, over waiting and release too: an agent applies by them.
    fn grown_younger(&mut self, node: &NodeId, after: &NodeRecord) -> Option<String> {
        let new = assignment(after)?;
        let last = self.last.insert(node.clone(), new.clone())?;
        let place = |assignment: &Assignment| assignment.bound().map(|bound| (bound.addresses.clone(), bound.ports.clone()));
        let is_older = new.generation < last.generation;
        let is_other = new.generation == last.generation && place(new) != place(&last);
        ((is_older || is_other) && !self.allowed.restored)
            .then(|| format!("was given something else without a higher generation: {last:?} to {new:?}"))
    }

    /// A silent node may only be cut off, and still use what it has: its id passes to another installation when it stopped,
    /// or when what it had is released.
    fn robbed(&self, before: &NodeRecord, after: &NodeRecord) -> Option<String> {
        let old = assignment(before).filter(|old| !old.claims().is_empty())?;
        let stopped = status(before).is_some_and(|status| status.phase == Phase::Stopped);
        if stopped || before.is_live() || self.allowed.replaced {
            return None;
        }
        let next = status(after).filter(|next| next.phase.is_live() && next.instance != old.instance)?;
        Some(format!("was taken from a holder that is only silent: {old:?} by {next:?}"))
    }

    /// A label that says the same is not written again: ten thousand nodes that come back would all do so.
    fn said_again(&self, before: &NodeRecord, after: &NodeRecord) -> Option<String> {
        let (old, new) = (before.label.as_ref()?, after.label.as_ref()?);
        let again = old.mod_revision != new.mod_revision && old.ok()? == new.ok()?;
        (again && !self.allowed.written_again).then(|| format!("wrote its label again as it was: {:?}", new.value))
    }

    /// While many are silent at once nothing is taken away from any of them, unless its hold was extended, or by the operator's
    /// word. Whoever released it had seen the clock go, so mass loss since then was seen too.
    fn unbraked(&self, node: &NodeId, before: &NodeRecord, after: &NodeRecord, word: Revision) -> Option<String> {
        let hold = before.hold.as_deref().filter(|_| before.is_silent() && after.assignment.is_none())?;
        let is_extended = hold.ok().is_some_and(|hold| hold.extended);
        let gone = *self.clock_gone.get(node)?;
        let is_braked = self.last_calm < gone && !is_extended && word < hold.mod_revision && !self.allowed.restored;
        is_braked.then(|| format!("was released although many are silent since {:?}: {hold:?}", self.last_calm))
    }

    /// An assignment goes only when its node left, or was away for the whole hold.
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
        // A silent owner of a lower generation loses what somebody holds.
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

    /// Something new is given only to the installation that asks for it, while it has a status.
    fn served(&self, before: &NodeRecord, after: &NodeRecord) -> Option<String> {
        let new = assignment(after)?;
        if let Some(bound) = new.bound().filter(|bound| bound.ports.len() > PORTS_MAX) {
            return Some(format!("was given {} ports", bound.ports.len()));
        }
        let old = assignment(before).map(Assignment::claims).unwrap_or_default();
        if new.claims().iter().all(|key| old.contains(key)) {
            return None;
        }
        let asks = label(after).is_some_and(|label| label.instance == new.instance);
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

    /// Whether the node says what it holds to a store that forgot.
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

/// The answer that it has.
pub(super) fn assignment(record: &NodeRecord) -> Option<&Assignment> {
    record.assignment.as_ref()?.ok()
}
