//! What a pass of the allocator sees: the typed content of the prefix at one revision.

use std::collections::BTreeMap;

use crate::model::assignment::Assignment;
use crate::model::claim::{Claim, ClaimKey};
use crate::model::hold::Hold;
use crate::model::label::Label;
use crate::model::lineage::{Chain, Mark, Verdict};
use crate::model::names::{NodeId, PoolName, Revision};
use crate::model::pool::Pool;
use crate::model::status::Status;

/// The typed content of the prefix at one revision.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Everything up to and including this revision is in it, nothing later.
    pub revision: Revision,
    /// Pool definitions by name.
    pub pools: BTreeMap<PoolName, Stored<Pool>>,
    /// All about each node.
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    /// Who has what.
    pub claims: BTreeMap<ClaimKey, Stored<Claim>>,
    /// Keys under an address that are no claim of a port, relative to the prefix, and the address. Race: whoever claims
    /// an address whole compares that *nothing* is under it, so these stand in the way of that like a claim.
    pub strays: BTreeMap<String, ClaimKey>,
    /// mod_revision of `brakes/allocator`, [`Revision::NONE`] if absent: holds older than this get no extension.
    pub brake_released: Revision,
    /// `lineage`: which passes are in the past of this store.
    pub lineage: Option<Stored<Chain>>,
}

impl Snapshot {
    /// Whether the store was restored from a backup that is older than this mark. One without a lineage has no pass in its past; one
    /// that cannot be read proves nothing.
    pub fn has_lost(&self, mark: Option<Mark>) -> bool {
        let Some(mark) = mark else { return false };
        match &self.lineage {
            None => true,
            Some(stored) => stored.ok().is_some_and(|chain| chain.knows(mark) == Verdict::Lost),
        }
    }
}

/// A stored value with the revisions that compares need.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored<T> {
    /// The value, or why it cannot be read.
    pub value: Result<T, Unreadable>,
    /// When the key was made; survives updates.
    pub create_revision: Revision,
    /// When it was last written.
    pub mod_revision: Revision,
    /// Whether the key is on a lease.
    pub leased: bool,
}

impl<T> Stored<T> {
    /// The value if it is readable.
    pub fn ok(&self) -> Option<&T> {
        self.value.as_ref().ok()
    }
}

/// Why a stored value cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Written by a newer enlist: leave the key alone.
    #[error("format v{0} is newer than this enlist reads: upgrade it; the key is left alone")]
    Newer(u64),
    /// It does not parse, or breaks a rule.
    #[error("{0}")]
    Invalid(String),
}

/// All about one node.
#[derive(Debug, Clone, Default)]
pub struct NodeRecord {
    /// `nodes/<node>/label`
    pub label: Option<Stored<Label>>,
    /// `nodes/<node>/status`
    pub status: Option<Stored<Status>>,
    /// `nodes/<node>/assignment`
    pub assignment: Option<Stored<Assignment>>,
    /// `nodes/<node>/hold`. Few nodes are away, so it takes no room in the others.
    pub hold: Option<Box<Stored<Hold>>>,
    /// `nodes/<node>/hold/clock`. It means something only beside a hold that is not just `seen`: that of an absence which is over stays
    /// until its lease ends.
    pub clock: Option<Box<Stored<()>>>,
}

impl NodeRecord {
    /// Whether nothing is known of the node.
    pub fn is_empty(&self) -> bool {
        self.is_bare() && self.clock.is_none()
    }

    /// Whether its agent is there: a status on a live phase and on a lease. An unreadable status counts as live: nothing is taken
    /// from a node whose word cannot be understood.
    pub fn is_live(&self) -> bool {
        !self.is_unleased() && self.status.as_ref().is_some_and(|status| status.ok().is_none_or(|s| s.phase.is_live()))
    }

    /// Whether its status names a live phase, but is on no lease. No agent writes such a key: somebody copied it or put it by hand,
    /// and it would never go. It counts as no status at all.
    pub fn is_unleased(&self) -> bool {
        self.status.as_ref().is_some_and(|status| !status.leased && status.ok().is_some_and(|s| s.phase.is_live()))
    }

    /// Whether it has claims by its assignment but stopped answering (no status that counts).
    pub fn is_silent(&self) -> bool {
        (self.status.is_none() || self.is_unleased()) && self.has_claims()
    }

    /// Whether nothing is stored of the node, but perhaps the clock of an absence that is over.
    pub fn is_bare(&self) -> bool {
        self.label.is_none() && self.status.is_none() && self.assignment.is_none() && self.hold.is_none()
    }

    /// Whether its assignment has claims (`leaving` ones too). An unreadable assignment counts as having some.
    pub fn has_claims(&self) -> bool {
        self.assignment.as_ref().is_some_and(|a| a.ok().is_none_or(|a| a.bound().is_some() || !a.leaving.is_empty()))
    }
}

impl From<crate::model::documents::StoredError> for Unreadable {
    fn from(error: crate::model::documents::StoredError) -> Self {
        use crate::model::documents::StoredError;
        match error {
            StoredError::Newer(v) => Unreadable::Newer(v),
            StoredError::Invalid(message) => Unreadable::Invalid(message),
        }
    }
}
