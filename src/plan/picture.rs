//! A snapshot that is kept up, change by change, with what a pass needs to know of all of it: its index and what is taken.
//!
//! A pass then looks only where something may be to do, and costs what changed, not what there is.
//! [`plan`](crate::plan::plan) of a plain snapshot is the reference: it makes both anew and decides the same.

use crate::model::assignment::Assignment;
use crate::model::claim::{Claim, ClaimKey};
use crate::model::lineage::Chain;
use crate::model::names::{NodeId, PoolName, Revision};
use crate::model::pool::Pool;
use crate::plan::Pass;
use crate::plan::brake::Brake;
use crate::plan::change::Plan;
use crate::plan::index::{Index, listed, lists};
use crate::plan::snapshot::{NodeRecord, Snapshot, Stored};
use crate::plan::taken::Taken;

/// A snapshot that is kept up.
#[derive(Debug, Default)]
pub struct Picture {
    snapshot: Snapshot,
    index: Index,
    taken: Taken,
}

impl Picture {
    /// Looks at everything, once. Labels and assignments must be of the nodes that they stand under (see
    /// [`sound`](crate::plan::sound)); what takes keys from a store sees to that.
    pub fn of(snapshot: Snapshot) -> Picture {
        Picture { index: Index::of(&snapshot), taken: Taken::of(&snapshot), snapshot }
    }

    /// What is known.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Where a pass has to look.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// What the brake sees.
    pub fn brake(&self) -> Brake {
        self.index.brake()
    }

    /// Decides what to write: the same as [`plan`](crate::plan::plan) of the snapshot.
    pub fn plan(&mut self, pass: &Pass) -> Plan {
        crate::plan::decide(&self.snapshot, &self.index, &mut self.taken, pass)
    }

    /// Everything up to and including this revision is in it.
    pub fn set_revision(&mut self, revision: Revision) {
        self.snapshot.revision = revision;
    }

    /// When `brakes/allocator` was last written.
    pub fn set_brake_released(&mut self, revision: Revision) {
        self.snapshot.brake_released = revision;
    }

    /// `lineage` is put or deleted.
    pub fn set_lineage(&mut self, stored: Option<Stored<Chain>>) {
        self.snapshot.lineage = stored;
    }

    /// A pool is defined, changed, or deleted.
    pub fn set_pool(&mut self, name: PoolName, stored: Option<Stored<Pool>>) {
        match stored {
            Some(stored) => drop(self.snapshot.pools.insert(name, stored)),
            None => drop(self.snapshot.pools.remove(&name)),
        }
    }

    /// Changes anything of a node but its assignment.
    pub fn change_node(&mut self, node: &NodeId, change: impl FnOnce(&mut NodeRecord)) {
        let record = self.snapshot.nodes.entry(node.clone()).or_default();
        self.index.forget(node, record);
        change(record);
        self.index.learn(node, record);
        if record.is_empty() {
            self.snapshot.nodes.remove(node);
        }
    }

    /// A node's assignment is put or deleted.
    pub fn set_assignment(&mut self, node: &NodeId, stored: Option<Stored<Assignment>>) {
        let mut before = Vec::new();
        self.change_node(node, |record| {
            before = listed(record);
            record.assignment = stored;
        });
        let nothing = NodeRecord::default();
        let now = self.snapshot.nodes.get(node).unwrap_or(&nothing);
        self.index.list(&self.snapshot.claims, node, before, now);
    }

    /// A claim is put or deleted.
    pub fn set_claim(&mut self, key: ClaimKey, stored: Option<Stored<Claim>>) {
        if let Some(before) = self.snapshot.claims.get(&key) {
            self.index.leave(&key, before, |node| lists(&self.snapshot, node, &key));
        }
        let Some(stored) = stored else {
            if self.snapshot.claims.remove(&key).is_some() {
                self.taken.free(&key);
            }
            return;
        };
        self.index.enter(&key, &stored, |node| lists(&self.snapshot, node, &key));
        if self.snapshot.claims.insert(key.clone(), stored).is_none() {
            self.taken.enter(&key);
        }
    }

    /// A key under an address that is no claim of a port is put or deleted.
    pub fn set_stray(&mut self, key: String, address: Option<ClaimKey>) {
        let before = match &address {
            Some(address) => self.snapshot.strays.insert(key, address.clone()),
            None => self.snapshot.strays.remove(&key),
        };
        if let Some(before) = before {
            self.taken.free_stray(&before);
        }
        if let Some(address) = address {
            self.taken.enter_stray(&address);
        }
    }
}
