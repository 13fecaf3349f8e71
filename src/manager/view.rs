//! All that the manager sees, and which groups it has to look at again. Pure.
//!
//! Every change marks the groups, and within them the nodes, that it may concern; a pass looks at those alone
//! ([`crate::manager::diff`]). A mark stays until the stored state is seen to be what it should be: a write that got lost
//! is simply found missing.

use std::collections::{BTreeMap, BTreeSet};

use crate::manager::copies::{Copies, Settled};
use crate::manager::definitions::Definitions;
use crate::manager::roster::Roster;
use crate::manager::state::{self, Caution, Standing};
use crate::manager::written::{Touched, Written};
use crate::model::finding::Finding;
use crate::model::group::{GroupKey, MemberState};
use crate::model::names::{GroupName, NodeId, Revision};
use crate::plan::brake::{Brake, BrakeState};
use crate::plan::snapshot::NodeRecord;
use crate::store::feed::Update;
use crate::store::keys::{Prefix, Role};

/// A definition has at most so many groups, because a variable with a value of its own on each node would make as many as there
/// are nodes. Those of live nodes come first, among them those that exist; each one above is a finding.
pub const KEYED_GROUPS_MAX: usize = 1_000;

/// What is to be looked at in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Marked {
    /// These nodes and the summary.
    Nodes(BTreeSet<NodeId>),
    /// Everything.
    All,
}

/// What a group is needed for, the most needed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// A member is live, or stays published while the brake is on.
    Live,
    /// All members are away: nobody is published.
    Away,
}

/// All that the manager sees.
#[derive(Debug, Clone)]
pub struct View {
    pub(super) prefix: Prefix,
    pub(super) copies: Copies,
    pub(super) definitions: Definitions,
    pub(super) written: Written,
    pub(super) roster: Roster,
    pub(super) caution: Caution,
    /// Groups above the limit of their definition.
    pub(super) refused: BTreeMap<GroupName, BTreeSet<GroupKey>>,
    pub(super) marked: BTreeMap<GroupKey, Marked>,
    /// Nodes that are new: see [`View::defer`].
    pub(super) deferred: BTreeSet<NodeId>,
    brake: Brake,
    brake_ready: bool,
    /// The revision of the destination up to which `manager/` was seen.
    revision: Revision,
}

impl View {
    /// Nothing is known yet.
    pub fn new(prefix: Prefix) -> Self {
        View {
            copies: Copies::new(prefix.clone()),
            definitions: Definitions::new(prefix.clone()),
            written: Written::new(prefix.clone()),
            prefix,
            roster: Roster::default(),
            caution: Caution::default(),
            refused: BTreeMap::new(),
            marked: BTreeMap::new(),
            deferred: BTreeSet::new(),
            brake: Brake::default(),
            brake_ready: false,
            revision: Revision::NONE,
        }
    }

    /// Takes what the feed on `manager/` tells: copies, checkpoint, and what is written below `manager/groups/`. Answers the nodes
    /// that came to those that were known; none while nothing was.
    pub fn apply_manager(&mut self, update: Update) -> BTreeSet<NodeId> {
        let was_ready = self.copies.is_ready();
        match update {
            Update::Reset { revision, kvs, stepped_back, .. } => {
                self.revision = revision;
                self.copies.reset(revision, &kvs, stepped_back);
                for group in self.written.reset(&kvs) {
                    self.marked.insert(group, Marked::All);
                }
            }
            Update::Events { revision, events } => {
                self.revision = revision;
                for event in &events {
                    self.copies.apply(event);
                    match self.written.apply(event) {
                        Some(Touched::Member(group, node)) => self.mark(group, Some(node)),
                        Some(Touched::Summary(group)) => self.mark(group, None),
                        Some(Touched::Whole(group)) => drop(self.marked.insert(group, Marked::All)),
                        None => {}
                    }
                }
            }
        }
        let Settled { changed, new } = self.copies.settle();
        for node in &changed {
            for group in self.roster.set_node(node, self.copies.nodes().get(node)) {
                self.mark(group, Some(node.clone()));
            }
            for group in self.written.groups_of(node).cloned().collect::<Vec<_>>() {
                self.mark(group, Some(node.clone()));
            }
        }
        if !changed.is_empty() {
            self.brake = self.copies.brake();
            self.heed(Caution { brake: self.brake.is_on(), ..self.caution });
        }
        if was_ready { new } else { BTreeSet::new() }
    }

    /// From now on this node becomes a new member only if it is published at once. Most nodes are ready a moment after they came:
    /// each of them is one write, and three events, less.
    pub fn defer(&mut self, node: NodeId) {
        self.deferred.insert(node);
    }

    /// Until now.
    pub fn defer_no_longer(&mut self, node: &NodeId) {
        if self.deferred.remove(node) {
            for group in self.roster.places(node).cloned().collect::<Vec<_>>() {
                self.mark(group, Some(node.clone()));
            }
        }
    }

    /// Takes what the feed on `groups/` tells.
    pub fn apply_groups(&mut self, update: Update) {
        let changed = match update {
            Update::Reset { kvs, .. } => self.definitions.reset(&kvs),
            Update::Events { events, .. } => events.iter().filter_map(|event| self.definitions.apply(event)).collect(),
        };
        for name in &changed {
            let placed = self.roster.set_definition(name, &self.definitions);
            let stored: Vec<GroupKey> = self.written.of(name).cloned().collect();
            for group in placed.into_iter().chain(stored) {
                self.marked.insert(group, Marked::All);
            }
        }
    }

    /// Takes what the feed on `brakes/manager` tells.
    pub fn apply_brake(&mut self, update: Update) {
        self.brake_ready = true;
        let key = self.prefix.brake(Role::Manager);
        let mut released = self.caution.released;
        match update {
            Update::Reset { kvs, .. } => {
                released = kvs.iter().find(|kv| kv.key == key).map_or(Revision::NONE, |kv| kv.mod_revision);
            }
            Update::Events { events, .. } => {
                for event in events.iter().filter(|event| *event.key() == key) {
                    released = match event {
                        crate::store::api::Event::Put(kv) => kv.mod_revision,
                        crate::store::api::Event::Delete { .. } => Revision::NONE,
                    };
                }
            }
        }
        self.heed(Caution { released, ..self.caution });
    }

    /// Suspects are looked at again when what is said of them changed.
    fn heed(&mut self, caution: Caution) {
        if caution == self.caution {
            return;
        }
        self.caution = caution;
        let silent: Vec<NodeId> =
            self.copies.nodes().iter().filter(|(_, record)| record.is_silent()).map(|(node, _)| node.clone()).collect();
        for node in silent {
            let groups: Vec<GroupKey> = self.roster.places(&node).chain(self.written.groups_of(&node)).cloned().collect();
            for group in groups {
                self.mark(group, Some(node.clone()));
            }
        }
    }

    fn mark(&mut self, group: GroupKey, node: Option<NodeId>) {
        if let Marked::Nodes(nodes) = self.marked.entry(group).or_insert_with(|| Marked::Nodes(BTreeSet::new())) {
            nodes.extend(node);
        }
    }

    /// Finds out which groups are above their definition's limit.
    pub(super) fn refuse(&mut self) {
        let names: BTreeSet<GroupName> = self.marked.keys().map(GroupKey::name).chain(self.refused.keys()).cloned().collect();
        for name in names {
            let refused = self.above_limit(&name);
            let before = self.refused.remove(&name).unwrap_or_default();
            for group in before.symmetric_difference(&refused) {
                self.marked.insert(group.clone(), Marked::All);
            }
            if !refused.is_empty() {
                self.refused.insert(name, refused);
            }
        }
    }

    /// Labels of nodes that are gone stay for weeks: their values are no groups, and count for nothing.
    fn above_limit(&self, name: &GroupName) -> BTreeSet<GroupKey> {
        if self.roster.placed_of(name).count() <= KEYED_GROUPS_MAX {
            return BTreeSet::new();
        }
        let rank = |group| Some((self.need(group)?, self.written.get(group).is_none(), group));
        let mut ranked: Vec<_> = self.roster.placed_of(name).filter_map(rank).collect();
        ranked.sort();
        ranked.into_iter().skip(KEYED_GROUPS_MAX).map(|(_, _, group)| group.clone()).collect()
    }

    /// How much a group is needed; `None` = it would have no members.
    fn need(&self, group: &GroupKey) -> Option<Need> {
        let nodes = self.roster.placed(group).into_iter().flatten();
        nodes.filter_map(|node| self.need_of(self.copies.nodes().get(node)?)).min()
    }

    fn need_of(&self, record: &NodeRecord) -> Option<Need> {
        match state::standing(record) {
            Standing::Gone => None,
            Standing::Is(MemberState::Suspect) if self.caution.brake => Some(Need::Live),
            Standing::Is(MemberState::Suspect | MemberState::Stopped) => Some(Need::Away),
            Standing::Is(_) | Standing::Unclear => Some(Need::Live),
        }
    }

    /// Whether everything was read whole and the copies were complete once. Before that nothing may be planned.
    pub fn is_ready(&self) -> bool {
        self.copies.is_ready() && self.definitions.is_ready() && self.brake_ready
    }

    /// The revision of the destination up to which `manager/` was seen.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The source revision of the copies that groups rest on.
    pub fn source_revision(&self) -> Revision {
        self.copies.source_revision()
    }

    /// Whether anything is marked.
    pub fn is_marked(&self) -> bool {
        !self.marked.is_empty()
    }

    /// What the brake sees.
    pub fn brake(&self) -> Brake {
        self.brake
    }

    /// What the brake does about it.
    pub fn brake_state(&self) -> BrakeState {
        // Only while it is on and was released at all are members looked at.
        let holds_any = self.caution.brake && (self.caution.released == Revision::NONE || self.publishes_any_suspect());
        BrakeState::of(self.caution.brake, holds_any)
    }

    fn publishes_any_suspect(&self) -> bool {
        let silent = self.copies.nodes().iter().filter(|(_, record)| record.is_silent());
        silent.into_iter().any(|(node, _)| {
            let written = |group| self.written.get(group).and_then(|written| written.members.get(node));
            self.roster.places(node).any(|group| self.caution.publishes(written(group)))
        })
    }

    /// What is wrong with stored things that the manager reads.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = self.definitions.findings();
        findings.extend(self.copies.findings());
        for (name, refused) in &self.refused {
            findings.extend(refused.iter().map(|group| {
                let message =
                    format!("group {group} is not kept: its definition has {KEYED_GROUPS_MAX} groups of other nodes already");
                Finding::about("too-many-groups", format!("groups/{name}"), message)
            }));
        }
        findings.extend(self.written.all_newer().map(|(key, version)| {
            let message =
                format!("format v{version} is newer than this enlist reads: its group is left as it is; upgrade this manager");
            Finding::about("group-newer", self.prefix.relative(key), message)
        }));
        findings.extend(self.written.foreign().iter().map(|key| {
            let message = "is of no known form: the manager leaves it alone; delete it if nobody needs it";
            Finding::about("foreign-group-key", self.prefix.relative(key), message)
        }));
        findings
    }
}
