//! The source, revision by revision: no double grant, every claim has its assignment and the reverse, and no assignment moves
//! or goes without a reason.

use std::collections::BTreeSet;

use enlist::Assignment;
use enlist::allocator::View;
use enlist::model::names::{NodeId, Revision};
use enlist::model::status::Phase;
use enlist::plan::check::check;
use enlist::plan::snapshot::{NodeRecord, Snapshot};
use enlist::store::api::Event;
use enlist::store::feed::Update;
use enlist::store::keys::{NodePart, ParsedKey, Prefix};

/// A walk through a source's history, from its first revision on.
#[derive(Debug)]
pub(crate) struct Walk {
    prefix: Prefix,
    pools_change: bool,
    view: View,
    /// What was wrong at the revision before: it is told once, not at every revision that it lasts.
    standing: BTreeSet<String>,
    revisions: u64,
}

impl Walk {
    /// Before the first revision. Where pools change, assignments may move.
    pub(crate) fn new(prefix: Prefix, pools_change: bool) -> Walk {
        let mut view = View::new(prefix.clone());
        view.apply(Update::Reset { revision: Revision(1), cluster_id: 0, kvs: Vec::new(), stepped_back: false });
        Walk { prefix, pools_change, view, standing: BTreeSet::new(), revisions: 0 }
    }

    /// How many revisions were taken.
    pub(crate) fn revisions(&self) -> u64 {
        self.revisions
    }

    /// Everything as it is after the last revision taken.
    pub(crate) fn snapshot(&self) -> &Snapshot {
        self.view.snapshot()
    }

    /// Takes the next revision. Answers what is wrong since it.
    pub(crate) fn take(&mut self, revision: Revision, events: Vec<Event>) -> Vec<String> {
        self.revisions += 1;
        let parsed: Vec<ParsedKey> = events.iter().map(|event| self.prefix.parse(event.key())).collect();
        let before: Vec<(NodeId, NodeRecord)> = parsed.iter().filter_map(|key| self.record_before(key)).collect();
        self.view.apply(Update::Events { revision, events });
        let concerns = |key: &ParsedKey| matches!(key, ParsedKey::Node(..) | ParsedKey::Claim(_) | ParsedKey::Pool(_));
        if !parsed.iter().any(concerns) {
            return Vec::new();
        }
        let now: BTreeSet<String> = check(self.snapshot()).iter().map(ToString::to_string).collect();
        let mut wrong: Vec<String> = now.difference(&self.standing).map(|what| format!("at {revision:?}: {what}")).collect();
        self.standing = now;
        for (node, record) in before {
            let after = self.snapshot().nodes.get(&node).cloned().unwrap_or_default();
            if let Err(why) = moved(&node, &record, &after, (self.pools_change, self.snapshot().brake_released)) {
                wrong.push(format!("at {revision:?}: node {node} {why}"));
            }
        }
        wrong
    }

    fn record_before(&self, key: &ParsedKey) -> Option<(NodeId, NodeRecord)> {
        match key {
            ParsedKey::Node(node, NodePart::Assignment) => Some((node.clone(), self.snapshot().nodes.get(node)?.clone())),
            _ => None,
        }
    }
}

/// An assignment that still fits never moves while its node is alive or held, and goes only for a reason.
/// `word`: when an operator released the brake, which ends the holds that are older.
fn moved(node: &NodeId, before: &NodeRecord, after: &NodeRecord, (pools_change, word): (bool, Revision)) -> Result<(), String> {
    let assignment = |record: &NodeRecord| record.assignment.as_ref().and_then(|stored| stored.ok()).cloned();
    let Some(old) = assignment(before) else { return Ok(()) };
    let Some(bound) = old.bound() else { return Ok(()) };
    let status = before.status.as_ref().and_then(|stored| stored.ok());
    let Some(new) = assignment(after) else {
        let left = status.is_some_and(|status| status.phase == Phase::Left);
        let is_over = |hold: Revision| before.clock.is_none() || word > hold;
        let over = before.hold.as_ref().is_some_and(|hold| is_over(hold.mod_revision)) && !before.is_live();
        return if left || over { Ok(()) } else { Err(format!("was released while it is alive or held: {old:?}")) };
    };
    let same = |new: &Assignment| new.bound().is_some_and(|b| b.addresses == bound.addresses && b.ports == bound.ports);
    let asked_anew = new.asked != old.asked || new.instance != old.instance;
    let refused = status.is_some_and(|status| !status.refused.is_empty());
    if same(&new) || asked_anew || refused || pools_change {
        if !same(&new) && new.generation <= old.generation {
            return Err(format!("moved without a higher generation: {old:?} to {new:?}"));
        }
        return Ok(());
    }
    Err(format!("moved for no reason ({node}): {old:?} to {new:?}"))
}
