//! What a pass knows beside the snapshot itself: the pools, and where to look. Built once, read
//! only; what changes within a pass is in [`super::taken`].

use std::net::IpAddr;

use crate::model::claim::ClaimKey;
use crate::model::names::{NodeId, Revision};
use crate::plan::Pass;
use crate::plan::index::Index;
use crate::plan::pools::Pools;
use crate::plan::snapshot::{NodeRecord, Snapshot};

/// What a pass knows.
#[derive(Debug)]
pub struct World<'a> {
    /// What is stored.
    pub snapshot: &'a Snapshot,
    /// What the driver gave.
    pub pass: &'a Pass,
    /// The pools of the snapshot.
    pub pools: Pools<'a>,
    /// Where to look.
    pub index: &'a Index,
}

impl<'a> World<'a> {
    /// Looks at a snapshot.
    pub fn new(snapshot: &'a Snapshot, index: &'a Index, pass: &'a Pass) -> Self {
        Self { snapshot, pass, pools: Pools::new(snapshot, index), index }
    }

    /// Whether a live node says that its host uses this port on this address. The same address in another domain is
    /// avoided too: that costs one port, and a node that waits because all are refused has no domain to go by.
    pub fn is_refused(&self, ip: &IpAddr, port: u16) -> bool {
        self.index.refused(ip).is_some_and(|ports| ports.contains_key(&port))
    }

    /// Whether any live node refuses a port on an address.
    pub fn has_refusals(&self, ip: &IpAddr) -> bool {
        self.index.refused(ip).is_some()
    }

    /// A node by its id, as far as anything is known of it.
    pub fn node(&self, node: &NodeId) -> Option<(&'a NodeId, &'a NodeRecord)> {
        self.snapshot.nodes.get_key_value(node)
    }

    /// The claim at a key if it is readable and bound by this node, with its mod_revision.
    pub fn bound_by(&self, node: &NodeId, key: &ClaimKey) -> Option<Revision> {
        let stored = self.snapshot.claims.get(key)?;
        stored.ok().filter(|claim| claim.is_bound() && claim.node == *node).map(|_| stored.mod_revision)
    }

    /// The mod_revision of a claim's key; [`Revision::NONE`] = absent.
    pub fn claim_revision(&self, key: &ClaimKey) -> Revision {
        self.snapshot.claims.get(key).map_or(Revision::NONE, |stored| stored.mod_revision)
    }

    /// The claims under an address, in the order of ports.
    pub fn ports_under(&self, address: &ClaimKey) -> impl Iterator<Item = &'a ClaimKey> + use<'a> {
        let first = ClaimKey { port: Some(0), ..address.clone() };
        let last = ClaimKey { port: Some(u16::MAX), ..address.clone() };
        self.snapshot.claims.range(first..=last).map(|(key, _)| key)
    }
}

/// The mod_revision of a stored value; [`Revision::NONE`] = absent.
pub fn modified<T>(stored: Option<&super::snapshot::Stored<T>>) -> Revision {
    stored.map_or(Revision::NONE, |stored| stored.mod_revision)
}

/// The create_revision of a stored value; [`Revision::NONE`] = absent.
pub fn created<T>(stored: Option<&super::snapshot::Stored<T>>) -> Revision {
    stored.map_or(Revision::NONE, |stored| stored.create_revision)
}

/// The ephemeral wish of a readable label.
pub fn is_ephemeral(record: &NodeRecord) -> bool {
    record.label.as_ref().and_then(|label| label.ok()).is_some_and(|label| label.ephemeral)
}
