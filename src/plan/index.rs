//! What a pass would have to look at everything for, kept up with each change of a snapshot: who may need something, where
//! claims and assignments differ, who is counted. Derived from the snapshot alone, so that one that was kept up and one that
//! is made anew are equal.
//!
//! It decides nothing: it says where a pass has to look. Whoever it does not name needs nothing, whatever the pools are.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::model::asked::Asked;
use crate::model::assignment::{Assignment, Leaving, Terms};
use crate::model::claim::{Claim, ClaimKey, ClaimState};
use crate::model::hold::HoldState;
use crate::model::names::{DomainName, NodeId, PoolName, Revision};
use crate::model::pool::Sharing;
use crate::model::status::Phase;
use crate::plan::brake::Brake;
use crate::plan::snapshot::{NodeRecord, Snapshot, Stored};

type Claims = BTreeMap<ClaimKey, Stored<Claim>>;

/// Where a pass has to look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    due: BTreeSet<NodeId>,
    absent: BTreeSet<NodeId>,
    /// Absent nodes that wait for the clock of an extended hold, with the hold's revision.
    extended: BTreeSet<(Revision, NodeId)>,
    stale_holds: BTreeSet<NodeId>,
    unleased: BTreeSet<NodeId>,
    faulty: BTreeSet<NodeId>,
    faulty_claims: BTreeSet<ClaimKey>,
    cooling: BTreeMap<NodeId, BTreeSet<ClaimKey>>,
    missing: BTreeMap<NodeId, BTreeSet<ClaimKey>>,
    /// What is bound to a node and not listed by it. An assignment that cannot be read lists nothing.
    orphans: BTreeMap<NodeId, BTreeSet<ClaimKey>>,
    /// How many live nodes refuse a port.
    refused: BTreeMap<IpAddr, BTreeMap<u16, usize>>,
    /// How many answers stand on which terms of a pool: nearly always one kind.
    terms: BTreeMap<PoolName, BTreeMap<(DomainName, Sharing), usize>>,
    /// How many nodes have something of a pool.
    users: BTreeMap<PoolName, usize>,
    /// How many nodes have something of a pool that leaves, and did not acknowledge what they have instead.
    moving: BTreeMap<PoolName, usize>,
    brake: Brake,
}

impl Index {
    /// Looks at everything, once.
    pub fn of(snapshot: &Snapshot) -> Index {
        let mut index = Index::default();
        let mut matched = 0;
        for (node, record) in &snapshot.nodes {
            index.learn(node, record);
            for key in listed(record) {
                if is_bound_by(&snapshot.claims, node, &key) {
                    matched += 1;
                } else {
                    put(&mut index.missing, node, key);
                }
            }
        }
        let mut bound = 0;
        for (key, stored) in &snapshot.claims {
            index.learn_claim(key, stored);
            bound += usize::from(stored.ok().is_some_and(Claim::is_bound));
        }
        // Every match is another claim, so equal numbers mean that none is left over.
        if matched < bound {
            for (key, stored) in &snapshot.claims {
                if let Some(claim) = stored.ok().filter(|claim| claim.is_bound())
                    && !lists(snapshot, &claim.node, key)
                {
                    put(&mut index.orphans, &claim.node, key.clone());
                }
            }
        }
        index
    }

    /// Live nodes that may need something, whatever the pools say: all but those that have the answer to what they ask,
    /// refuse nothing, hold nothing against the store and have nothing that leaves.
    pub fn due(&self) -> &BTreeSet<NodeId> {
        &self.due
    }

    /// Nodes that are not live, but for those that only wait: for their hold's clock, or to be forgotten. After a mass loss nearly
    /// all nodes do, and each that comes back is another pass.
    pub fn absent(&self) -> &BTreeSet<NodeId> {
        &self.absent
    }

    /// Nodes that wait for the clock of a hold which was extended before this revision: the operator's word ends that.
    pub fn extended_before(&self, revision: Revision) -> impl Iterator<Item = &NodeId> {
        self.extended.iter().take_while(move |(hold, _)| *hold < revision).map(|(_, node)| node)
    }

    /// Live nodes with a hold, which their join should have deleted, or with a clock that never ends.
    pub fn stale_holds(&self) -> &BTreeSet<NodeId> {
        &self.stale_holds
    }

    /// Nodes whose status names a live phase, but is on no lease.
    pub fn unleased(&self) -> &BTreeSet<NodeId> {
        &self.unleased
    }

    /// Nodes of which something cannot be read, or whose label breaks a rule.
    pub fn faulty(&self) -> &BTreeSet<NodeId> {
        &self.faulty
    }

    /// Claims that cannot be read.
    pub fn faulty_claims(&self) -> &BTreeSet<ClaimKey> {
        &self.faulty_claims
    }

    /// What cools for a node, in the order of keys.
    pub fn cooling_of(&self, node: &NodeId) -> impl Iterator<Item = &ClaimKey> {
        self.cooling.get(node).into_iter().flatten()
    }

    /// What nodes' assignments list and is not bound to them.
    pub fn missing(&self) -> &BTreeMap<NodeId, BTreeSet<ClaimKey>> {
        &self.missing
    }

    /// What is bound to nodes and not in their assignments.
    pub fn orphans(&self) -> &BTreeMap<NodeId, BTreeSet<ClaimKey>> {
        &self.orphans
    }

    /// The ports that live nodes refuse on an address.
    pub fn refused(&self, ip: &IpAddr) -> Option<&BTreeMap<u16, usize>> {
        self.refused.get(ip)
    }

    /// Domain and sharing of a pool in the answers that came out of it.
    pub fn terms_of(&self, pool: &PoolName) -> impl Iterator<Item = &(DomainName, Sharing)> {
        self.terms.get(pool).into_iter().flat_map(BTreeMap::keys)
    }

    /// How many nodes have something of a pool.
    pub fn users(&self, pool: &PoolName) -> usize {
        self.users.get(pool).copied().unwrap_or_default()
    }

    /// How many nodes have something of a pool that leaves, and did not acknowledge what they have instead.
    pub fn moving(&self, pool: &PoolName) -> usize {
        self.moving.get(pool).copied().unwrap_or_default()
    }

    /// What is counted for the brake.
    pub fn brake(&self) -> Brake {
        self.brake
    }

    /// A node is as it is now; what it was is forgotten. Its assignment is another's business: see [`Index::list`].
    pub(super) fn learn(&mut self, node: &NodeId, record: &NodeRecord) {
        let is_live = record.is_live();
        set(&mut self.due, node, is_live && is_due(record));
        let waits = !is_live && waits_for_clock(record);
        set(&mut self.absent, node, !is_live && !waits && !record.is_bare() && !is_released(record));
        self.extended.extend(extended_at(record).filter(|_| waits).map(|hold| (hold, node.clone())));
        set(&mut self.stale_holds, node, has_stale_hold(record));
        set(&mut self.unleased, node, record.is_unleased());
        set(&mut self.faulty, node, is_faulty(record));
        self.count(record, true);
    }

    /// A node is about to be something else.
    pub(super) fn forget(&mut self, node: &NodeId, record: &NodeRecord) {
        self.count(record, false);
        if let Some(hold) = extended_at(record) {
            self.extended.remove(&(hold, node.clone()));
        }
    }

    /// Adds what is counted of a node, or takes it away.
    fn count(&mut self, record: &NodeRecord, is_more: bool) {
        let one =
            |count: &mut usize, by: bool| *count = if is_more { *count + usize::from(by) } else { *count - usize::from(by) };
        one(&mut self.brake.bound, record.has_claims());
        one(&mut self.brake.silent, record.is_silent());
        let status = record.status.as_ref().and_then(|status| status.ok()).filter(|_| record.is_live());
        for refusal in status.into_iter().flat_map(|status| &status.refused) {
            tally(self.refused.entry(refusal.ip).or_default(), refusal.port, is_more);
            if self.refused.get(&refusal.ip).is_some_and(BTreeMap::is_empty) {
                self.refused.remove(&refusal.ip);
            }
        }
        let pools: BTreeSet<&PoolName> = terms_of(record).map(|terms| &terms.pool).collect();
        pools.into_iter().for_each(|pool| tally(&mut self.users, pool.clone(), is_more));
        let left: BTreeSet<&PoolName> = leaving_of(record).map(|leaving| &leaving.terms.pool).collect();
        left.into_iter().for_each(|pool| tally(&mut self.moving, pool.clone(), is_more));
        for terms in terms_of(record) {
            tally(self.terms.entry(terms.pool.clone()).or_default(), (terms.domain.clone(), terms.sharing), is_more);
            if self.terms.get(&terms.pool).is_some_and(BTreeMap::is_empty) {
                self.terms.remove(&terms.pool);
            }
        }
    }

    /// A node lists these claims from now on, and those no more.
    pub(super) fn list(&mut self, claims: &Claims, node: &NodeId, before: Vec<ClaimKey>, now: &NodeRecord) {
        for key in before {
            take(&mut self.missing, node, &key);
            if is_bound_by(claims, node, &key) {
                put(&mut self.orphans, node, key);
            }
        }
        for key in listed(now) {
            take(&mut self.orphans, node, &key);
            if !is_bound_by(claims, node, &key) {
                put(&mut self.missing, node, key);
            }
        }
    }

    /// A claim is there. What stood there before was forgotten.
    fn learn_claim(&mut self, key: &ClaimKey, stored: &Stored<Claim>) {
        match stored.ok() {
            None => drop(self.faulty_claims.insert(key.clone())),
            Some(Claim { node, state: ClaimState::Cooling(_), .. }) => put(&mut self.cooling, node, key.clone()),
            Some(_) => {}
        }
    }

    /// A claim is there, and how its node stands to it. `is_listed` = the node's assignment lists it.
    pub(super) fn enter(&mut self, key: &ClaimKey, stored: &Stored<Claim>, is_listed: impl Fn(&NodeId) -> bool) {
        self.learn_claim(key, stored);
        let Some(claim) = stored.ok().filter(|claim| claim.is_bound()) else { return };
        if is_listed(&claim.node) {
            take(&mut self.missing, &claim.node, key);
        } else {
            put(&mut self.orphans, &claim.node, key.clone());
        }
    }

    /// A claim is about to be something else, or nothing.
    pub(super) fn leave(&mut self, key: &ClaimKey, stored: &Stored<Claim>, is_listed: impl Fn(&NodeId) -> bool) {
        let Some(claim) = stored.ok() else {
            self.faulty_claims.remove(key);
            return;
        };
        if !claim.is_bound() {
            take(&mut self.cooling, &claim.node, key);
        } else if is_listed(&claim.node) {
            put(&mut self.missing, &claim.node, key.clone());
        } else {
            take(&mut self.orphans, &claim.node, key);
        }
    }
}

/// Whether a live node may need something, whatever the pools say.
fn is_due(record: &NodeRecord) -> bool {
    let label = record.label.as_ref().and_then(|stored| stored.ok());
    let old = record.assignment.as_ref().and_then(|stored| stored.ok());
    let (Some(label), Some(old)) = (label, old) else { return true };
    let Some(bound) = old.bound() else { return true };
    let refuses = record.status.as_ref().and_then(|stored| stored.ok()).is_some_and(|status| !status.refused.is_empty());
    let is_answered = old.instance == label.instance && old.asked == Asked::of(label, bound.terms.sharing);
    !is_answered || refuses || !old.leaving.is_empty() || label.holding.is_some()
}

/// Whether an absent node keeps what it has until the clock of its hold is gone.
fn waits_for_clock(record: &NodeRecord) -> bool {
    let is_held = record.hold.as_deref().and_then(|stored| stored.ok()).is_some_and(|hold| hold.state == HoldState::Held);
    let has_left = record.status.as_ref().and_then(|stored| stored.ok()).is_some_and(|status| status.phase == Phase::Left);
    is_held && !has_left && record.clock.is_some() && record.has_claims()
}

/// The revision of a hold that was extended.
fn extended_at(record: &NodeRecord) -> Option<Revision> {
    let hold = record.hold.as_deref()?;
    hold.ok().filter(|hold| hold.extended).map(|_| hold.mod_revision)
}

/// Whether an absent node has nothing and waits to be forgotten: for days, and there may be many.
fn is_released(record: &NodeRecord) -> bool {
    let hold = record.hold.as_deref().and_then(|stored| stored.ok());
    hold.is_some_and(|hold| hold.state == HoldState::Released)
        && record.clock.is_some()
        && !record.has_claims()
        && record.status.as_ref().is_none_or(|status| status.ok().is_some_and(|status| status.phase == Phase::Stopped))
        && record.label.is_some()
}

/// A live node has no hold: its join deletes it. One that is there all the same would make its next absence short. The clock of its
/// last absence goes by itself, unless somebody put it there on no lease.
pub(super) fn has_stale_hold(record: &NodeRecord) -> bool {
    let is_readably_live = record.status.as_ref().is_some_and(|status| status.ok().is_some()) && record.is_live();
    is_readably_live && (record.hold.is_some() || has_unleased_clock(record))
}

/// Whether its clock would never end.
fn has_unleased_clock(record: &NodeRecord) -> bool {
    record.clock.as_deref().is_some_and(|clock| !clock.leased)
}

fn is_faulty(record: &NodeRecord) -> bool {
    fn unreadable<T>(stored: Option<&Stored<T>>) -> bool {
        stored.is_some_and(|stored| stored.value.is_err())
    }
    let breaks_a_rule = || record.label.as_ref().and_then(|label| label.ok()).is_some_and(|label| label.fault().is_some());
    unreadable(record.label.as_ref())
        || unreadable(record.status.as_ref())
        || unreadable(record.assignment.as_ref())
        || unreadable(record.hold.as_deref())
        || has_unleased_clock(record)
        || record.is_unleased()
        || breaks_a_rule()
}

/// The terms of everything a node has.
pub(super) fn terms_of(record: &NodeRecord) -> impl Iterator<Item = &Terms> {
    let assignment = record.assignment.as_ref().and_then(|stored| stored.ok());
    let present = assignment.and_then(Assignment::bound).map(|bound| &bound.terms);
    present.into_iter().chain(assignment.into_iter().flat_map(|a| a.leaving.iter().map(|leaving| &leaving.terms)))
}

/// What a node is leaving.
fn leaving_of(record: &NodeRecord) -> impl Iterator<Item = &Leaving> {
    record.assignment.as_ref().and_then(|stored| stored.ok()).into_iter().flat_map(|assignment| &assignment.leaving)
}

/// The claims that a node's assignment lists. Sorted.
pub(super) fn listed(record: &NodeRecord) -> Vec<ClaimKey> {
    record.assignment.as_ref().and_then(|stored| stored.ok()).map(Assignment::claims).unwrap_or_default()
}

/// Whether a node's assignment lists a claim.
pub(super) fn lists(snapshot: &Snapshot, node: &NodeId, key: &ClaimKey) -> bool {
    snapshot.nodes.get(node).is_some_and(|record| listed(record).binary_search(key).is_ok())
}

fn is_bound_by(claims: &Claims, node: &NodeId, key: &ClaimKey) -> bool {
    claims.get(key).and_then(|stored| stored.ok()).is_some_and(|claim| claim.is_bound() && claim.node == *node)
}

fn set(nodes: &mut BTreeSet<NodeId>, node: &NodeId, is_in: bool) {
    if !is_in {
        nodes.remove(node);
    } else if !nodes.contains(node) {
        nodes.insert(node.clone());
    }
}

fn put(map: &mut BTreeMap<NodeId, BTreeSet<ClaimKey>>, node: &NodeId, key: ClaimKey) {
    map.entry(node.clone()).or_default().insert(key);
}

fn take(map: &mut BTreeMap<NodeId, BTreeSet<ClaimKey>>, node: &NodeId, key: &ClaimKey) {
    let Some(keys) = map.get_mut(node) else { return };
    keys.remove(key);
    if keys.is_empty() {
        map.remove(node);
    }
}

fn tally<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K, is_more: bool) {
    match counts.entry(key) {
        Entry::Vacant(vacant) if is_more => drop(vacant.insert(1)),
        Entry::Vacant(_) => {}
        Entry::Occupied(mut count) if is_more => *count.get_mut() += 1,
        Entry::Occupied(count) if *count.get() == 1 => drop(count.remove()),
        Entry::Occupied(mut count) => *count.get_mut() -= 1,
    }
}
