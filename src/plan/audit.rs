//! Where claims and assignments do not say the same. In a healthy store nowhere, and finding that out must be cheap: it is
//! done in every pass, over everything.

use std::collections::{BTreeMap, HashMap};

use crate::model::claim::ClaimKey;
use crate::model::names::NodeId;
use crate::plan::snapshot::Snapshot;

/// The differences.
#[derive(Debug, Default)]
pub struct Audit<'a> {
    /// What a node's assignment lists and is not bound to it.
    pub missing: BTreeMap<&'a NodeId, Vec<ClaimKey>>,
    /// What is bound to a node and not in its assignment. Not of nodes whose assignment cannot be read.
    pub orphans: BTreeMap<&'a NodeId, Vec<&'a ClaimKey>>,
}

impl<'a> Audit<'a> {
    /// Compares every claim with every assignment.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let mut audit = Audit::default();
        // A hash map, because it is only asked, never listed; it is several times faster here than the ordered one.
        let bound: HashMap<&ClaimKey, &NodeId> = snapshot
            .claims
            .iter()
            .filter_map(|(key, stored)| Some((key, stored.ok()?)))
            .filter(|(_, claim)| claim.is_bound())
            .map(|(key, claim)| (key, &claim.node))
            .collect();
        let mut matched = 0;
        for (node, record) in &snapshot.nodes {
            let Some(assignment) = record.assignment.as_ref().and_then(|stored| stored.ok()) else { continue };
            for key in assignment.claims() {
                if bound.get(&key) == Some(&node) {
                    matched += 1;
                } else {
                    audit.missing.entry(node).or_default().push(key);
                }
            }
        }
        // Every match is another claim, so equal numbers mean that none is left over.
        if matched < bound.len() {
            audit.find_orphans(snapshot);
        }
        audit
    }

    fn find_orphans(&mut self, snapshot: &'a Snapshot) {
        let mut bound: BTreeMap<&NodeId, Vec<&ClaimKey>> = BTreeMap::new();
        for (key, stored) in &snapshot.claims {
            if let Some(claim) = stored.ok().filter(|claim| claim.is_bound()) {
                bound.entry(&claim.node).or_default().push(key);
            }
        }
        for (node, mut keys) in bound {
            let assignment = snapshot.nodes.get(node).and_then(|record| record.assignment.as_ref());
            if let Some(stored) = assignment {
                let Some(assignment) = stored.ok() else { continue };
                let listed = assignment.claims();
                keys.retain(|key| listed.binary_search(key).is_err());
            }
            if !keys.is_empty() {
                self.orphans.insert(node, keys);
            }
        }
    }
}
