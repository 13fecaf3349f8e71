//! Claims that no assignment accounts for, and assignments whose claims are missing: both can only come from a hand or a
//! restore, because the two are always written together. What can be put right without harm to anybody is; the rest is a
//! finding. So is a status on a live phase that is on no lease: the node counts as silent, and once the key is gone every
//! reader sees that.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::assignment::{Assignment, Terms};
use crate::model::claim::{Claim, ClaimKey, ClaimState};
use crate::model::finding::Finding;
use crate::model::names::{InstanceId, NodeId, Revision};
use crate::model::pool::{COOLDOWN_DEFAULT, Sharing};
use crate::plan::change::{Action, Change, Compare, Note, Subject, Write};
use crate::plan::index::has_stale_hold;
use crate::plan::snapshot::NodeRecord;
use crate::plan::world::{World, created, modified};

/// At most so many claims of one node are given up in one change: with the compares of what may be missing beside them it
/// must fit a transaction of 128. The rest is found again next time.
const ORPHANS_MAX: usize = 16;

/// What can be repaired, and what cannot.
#[derive(Debug, Default)]
pub struct Repairs {
    /// At most one for each node.
    pub changes: Vec<Change>,
    /// What only people can put right.
    pub findings: Vec<Finding>,
}

/// Puts right what the index names, and holds that live nodes still have.
pub fn repair(world: &World<'_>) -> Repairs {
    let mut repairs = Repairs::default();
    let index = world.index;
    let by_claims = index.missing().keys().chain(index.orphans().keys());
    let nodes: BTreeSet<&NodeId> = by_claims.chain(index.stale_holds()).chain(index.unleased()).collect();
    let nobody = NodeRecord::default();
    for node in nodes {
        let record = world.snapshot.nodes.get(node).unwrap_or(&nobody);
        let mut repair = Repair::new(node, record);
        if let Some(missing) = index.missing().get(node)
            && let Some(assignment) = record.assignment.as_ref().and_then(|stored| stored.ok())
        {
            repairs.findings.extend(repair.missing(world, assignment, missing));
        }
        // Whose assignment cannot be read may well have what is bound to it.
        if let Some(orphans) = index.orphans().get(node)
            && record.assignment.as_ref().is_none_or(|stored| stored.ok().is_some())
        {
            repair.orphans(world, orphans);
        }
        if has_stale_hold(record) {
            repair.stale_hold();
        }
        if record.is_unleased() {
            repair.unleased_status();
        }
        repairs.changes.extend(repair.finish());
    }
    repairs
}

struct Repair<'a> {
    node: &'a NodeId,
    record: &'a NodeRecord,
    compares: Vec<Compare>,
    writes: Vec<Write>,
    notes: Vec<String>,
}

impl<'a> Repair<'a> {
    fn new(node: &'a NodeId, record: &'a NodeRecord) -> Self {
        Self { node, record, compares: Vec::new(), writes: Vec::new(), notes: Vec::new() }
    }

    fn compare(&mut self, compare: Compare) {
        if !self.compares.contains(&compare) {
            self.compares.push(compare);
        }
    }

    /// Claims that the assignment lists and that are not there are put, if nobody else has them. When one of them is
    /// another's, none is: it was given twice, and whose it is only people can say.
    fn missing(&mut self, world: &World<'_>, assignment: &Assignment, keys: &BTreeSet<ClaimKey>) -> Vec<Finding> {
        let mut missing = terms_of(assignment);
        missing.retain(|key, _| keys.contains(key));
        let faults: Vec<Finding> = missing.iter().filter_map(|(key, terms)| self.obstacle(world, terms.sharing, key)).collect();
        if !faults.is_empty() {
            return faults;
        }
        for (key, terms) in &missing {
            let address = ClaimKey { port: None, ..key.clone() };
            self.compare(Compare::Modified(Subject::Claim(key.clone()), world.claim_revision(key)));
            let under: Vec<&ClaimKey> = world.ports_under(&address).collect();
            match (key.port, under.is_empty()) {
                (None, true) => self.compare(Compare::NoPortsClaimed(key.domain.clone(), key.ip)),
                // Its own ports (anybody else's were an obstacle): that they are as seen is all that can be compared.
                (None, false) => under.iter().for_each(|port| {
                    self.compare(Compare::Modified(Subject::Claim((*port).clone()), world.claim_revision(port)));
                }),
                (Some(_), _) => {
                    let revision = world.claim_revision(&address);
                    self.compare(Compare::Modified(Subject::Claim(address), revision));
                }
            }
            let claim = Claim { node: self.node.clone(), pool: terms.pool.clone(), state: ClaimState::Bound };
            self.writes.push(Write::Bind(key.clone(), claim));
            self.notes.push(format!("claim {key} was missing"));
        }
        Vec::new()
    }

    /// Why a missing claim cannot be put.
    fn obstacle(&self, world: &World<'_>, sharing: Sharing, key: &ClaimKey) -> Option<Finding> {
        let mine = |key: &ClaimKey| {
            let stored = world.snapshot.claims.get(key)?;
            Some(stored.ok().is_some_and(|claim| claim.node == *self.node))
        };
        let address = ClaimKey { port: None, ..key.clone() };
        let foreign = |key: &ClaimKey| mine(key) == Some(false);
        let stray = || world.snapshot.strays.iter().find(|(_, under)| key.port.is_none() && *under == key);
        if let Some((stray, _)) = stray() {
            return Some(Finding::about("claim-unreadable", stray.clone(), format!("{} should have {key} whole", self.node)));
        }
        let by = if foreign(key) {
            key.clone()
        } else if key.port.is_none() {
            world.ports_under(key).find(|port| foreign(port))?.clone()
        } else if foreign(&address) || (!sharing.claims_address() && mine(&address).is_some()) {
            address
        } else {
            return None;
        };
        if world.snapshot.claims.get(&by).is_some_and(|stored| stored.ok().is_none()) {
            return Some(Finding::about("claim-unreadable", format!("claims/{by}"), format!("{} should have it", self.node)));
        }
        Some(Finding {
            code: "double-grant",
            keys: vec![format!("nodes/{}/assignment", self.node), format!("claims/{by}")],
            message: format!(
                "the assignment of {} lists {key}, but claims/{by} is not its claim: two nodes may use it; stop one of them and `enlist leave` it",
                self.node
            ),
        })
    }

    /// Bound claims that the assignment does not list cool: whoever wrote them, the node may use them.
    fn orphans(&mut self, world: &World<'_>, orphans: &BTreeSet<ClaimKey>) {
        for key in orphans.iter().take(ORPHANS_MAX) {
            let Some(stored) = world.snapshot.claims.get(key) else { continue };
            let Some(claim) = stored.ok() else { continue };
            self.compare(Compare::Modified(Subject::Claim(key.clone()), stored.mod_revision));
            let address = ClaimKey { port: None, ..key.clone() };
            // A port under an address that is claimed whole goes at once, as in any exclusive pool.
            let cools = key.port.is_none() || !world.snapshot.claims.contains_key(&address);
            let cooldown = world.pools.get(&claim.pool).map_or(COOLDOWN_DEFAULT, |view| view.pool.cooldown).as_secs();
            self.writes.push(match (cools, cooldown, self.instance()) {
                (true, 1.., Some(instance)) => {
                    let state = ClaimState::cooling(instance, world.pass.now_text.clone());
                    Write::Cool(key.clone(), Claim { state, ..claim.clone() }, cooldown)
                }
                _ => Write::Delete(Subject::Claim(key.clone())),
            });
            self.notes.push(format!("claim {key} is in no assignment"));
        }
    }

    /// The installation that may have an orphan back.
    fn instance(&self) -> Option<InstanceId> {
        let record = self.record;
        let assignment = record.assignment.as_ref().and_then(|stored| stored.ok()).map(|a| a.instance.clone());
        let label = || record.label.as_ref().and_then(|stored| stored.ok()).map(|label| label.instance.clone());
        assignment.or_else(label).or_else(|| "unknown".parse().ok())
    }

    fn stale_hold(&mut self) {
        let record = self.record;
        let node = self.node;
        self.compare(Compare::Created(Subject::Status(node.clone()), created(record.status.as_ref())));
        for (subject, revision) in [
            (Subject::Hold(node.clone()), modified(record.hold.as_deref())),
            (Subject::Clock(node.clone()), modified(record.clock.as_deref())),
        ] {
            if revision != Revision::NONE {
                self.compare(Compare::Modified(subject.clone(), revision));
                self.writes.push(Write::Delete(subject));
            }
        }
        let note = if record.hold.is_some() { "it is live and had a hold" } else { "the clock of its last hold was on no lease" };
        self.notes.push(note.into());
    }

    /// Race: an agent may join in the same moment. Its status has another mod_revision.
    fn unleased_status(&mut self) {
        let status = Subject::Status(self.node.clone());
        self.compare(Compare::Modified(status.clone(), modified(self.record.status.as_ref())));
        self.writes.push(Write::Delete(status));
        self.notes.push("its status was on no lease: no agent kept it".into());
    }

    fn finish(mut self) -> Option<Change> {
        if self.writes.is_empty() {
            return None;
        }
        let assignment = modified(self.record.assignment.as_ref());
        self.compare(Compare::Modified(Subject::Assignment(self.node.clone()), assignment));
        Some(Change {
            node: self.node.clone(),
            action: Action::Repair,
            note: Note::aside(self.notes.join("; ")),
            compares: self.compares,
            writes: self.writes,
        })
    }
}

/// On what terms each claim was given. A claim that several generations list counts as the present one's.
fn terms_of(assignment: &Assignment) -> BTreeMap<ClaimKey, &Terms> {
    let leaving = assignment.leaving.iter().map(|leaving| (&leaving.terms, leaving.claims()));
    let present = assignment.bound().map(|bound| (&bound.terms, bound.claims()));
    leaving.chain(present).flat_map(|(terms, keys)| keys.into_iter().map(move |key| (key, terms))).collect()
}
