//! The roster: the groups of each node, by definitions and labels. Pure.
//!
//! On top of the index, the roster places each node in the one group of a keyed definition that its values name. It
//! also remembers the nodes with unreadable labels: those stay in the groups they are in.

use std::collections::{BTreeMap, BTreeSet};

use crate::manager::definitions::Definitions;
use crate::manager::index::Index;
use crate::model::group::{Group, GroupKey};
use crate::model::names::{GroupName, NodeId};
use crate::model::variables::Variables;
use crate::plan::snapshot::NodeRecord;

/// The groups of each node.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    index: Index,
    /// Definitions in order. Frozen definitions are left out: they place no node.
    groups: BTreeMap<GroupName, Group>,
    variables: BTreeMap<NodeId, Variables>,
    placed: BTreeMap<GroupKey, BTreeSet<NodeId>>,
    places: BTreeMap<NodeId, BTreeSet<GroupKey>>,
    unreadable: BTreeSet<NodeId>,
}

impl Roster {
    /// Takes the label of a node, if it is readable. Returns the groups that the node is or was placed in.
    pub fn set_node(&mut self, node: &NodeId, record: Option<&NodeRecord>) -> BTreeSet<GroupKey> {
        let label = record.and_then(|record| record.label.as_ref());
        self.unreadable.remove(node);
        let definitions = match label.map(|seen| &seen.value) {
            Some(Ok(label)) => {
                // Most changes are changes of a status, which evaluate nothing.
                if self.variables.get(node) == Some(&label.variables) {
                    return self.places.get(node).cloned().unwrap_or_default();
                }
                self.variables.insert(node.clone(), label.variables.clone());
                self.index.put_node(node, &label.variables)
            }
            label => {
                if label.is_some() {
                    self.unreadable.insert(node.clone());
                }
                self.variables.remove(node);
                self.index.remove_node(node)
            }
        };
        let mut touched = BTreeSet::new();
        for name in definitions {
            touched.extend(self.place(&name, node));
        }
        touched
    }

    /// Takes a definition (deleted, frozen or valid). Returns the groups that it has or had.
    pub fn set_definition(&mut self, name: &GroupName, definitions: &Definitions) -> BTreeSet<GroupKey> {
        let mut touched: BTreeSet<GroupKey> = self.placed_of(name).cloned().collect();
        let nodes = match definitions.get(name).and_then(|definition| definition.usable()) {
            Some(group) => {
                self.groups.insert(name.clone(), group.clone());
                touched.extend(group.keyed_by.is_empty().then(|| GroupKey::plain(name.clone())));
                // The definition may be keyed by other variables now, so every node that matches or matched is placed
                // again.
                self.index.put_group(name, &group.selector)
            }
            None => {
                self.groups.remove(name);
                touched.insert(GroupKey::plain(name.clone()));
                self.index.remove_group(name)
            }
        };
        for node in nodes {
            touched.extend(self.place(name, &node));
        }
        touched
    }

    /// Places a node in the group that a definition wants now. Returns its present and former group.
    fn place(&mut self, name: &GroupName, node: &NodeId) -> BTreeSet<GroupKey> {
        let in_definition = |key: &&GroupKey| key.name() == name;
        let mut touched: BTreeSet<GroupKey> =
            self.places.get(node).into_iter().flatten().filter(in_definition).cloned().collect();
        let matched = self.index.groups(node).any(|group| group == name);
        let group = self.groups.get(name).filter(|_| matched);
        let place = group.and_then(|group| group.key_of(self.variables.get(node)?));
        for old in touched.iter().filter(|old| Some(*old) != place.as_ref()) {
            unplace(&mut self.placed, &mut self.places, old, node);
        }
        if let Some(place) = place {
            self.placed.entry(place.clone()).or_default().insert(node.clone());
            self.places.entry(node.clone()).or_default().insert(place.clone());
            touched.insert(place);
        }
        touched
    }

    /// The nodes placed in a group; `None` = no node is.
    pub fn placed(&self, group: &GroupKey) -> Option<&BTreeSet<NodeId>> {
        self.placed.get(group)
    }

    /// The groups of a definition that hold at least one node.
    pub fn placed_of(&self, name: &GroupName) -> impl Iterator<Item = &GroupKey> {
        let name = name.clone();
        self.placed.range(GroupKey::plain(name.clone())..).map(|(key, _)| key).take_while(move |key| *key.name() == name)
    }

    /// The groups that a node is placed in.
    pub fn places(&self, node: &NodeId) -> impl Iterator<Item = &GroupKey> {
        self.places.get(node).into_iter().flatten()
    }

    /// Whether a node has a label that cannot be read.
    pub fn is_unreadable(&self, node: &NodeId) -> bool {
        self.unreadable.contains(node)
    }

    /// The index, for its counts.
    pub fn index(&self) -> &Index {
        &self.index
    }
}

fn unplace(
    placed: &mut BTreeMap<GroupKey, BTreeSet<NodeId>>,
    places: &mut BTreeMap<NodeId, BTreeSet<GroupKey>>,
    group: &GroupKey,
    node: &NodeId,
) {
    if let Some(nodes) = placed.get_mut(group) {
        nodes.remove(node);
        if nodes.is_empty() {
            placed.remove(group);
        }
    }
    if let Some(groups) = places.get_mut(node) {
        groups.remove(group);
        if groups.is_empty() {
            places.remove(node);
        }
    }
}
