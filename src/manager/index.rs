//! Matches nodes with selectors and updates the result change by change. Pure.
//!
//! Each selector is filed under one exact requirement (`=`, `in`) if it has one, else under a variable that it needs,
//! else in a short list of the rest. A change of a node evaluates only the selectors filed under its pairs, and bitmaps
//! of the nodes with each variable and value (`manager::sets`) answer a new selector. The place of a selector depends
//! on the content of the index when the selector is added, and affects only the cost: no answer may depend on the order
//! of earlier changes.

use std::collections::{BTreeSet, HashMap};

use roaring::RoaringBitmap;

use crate::manager::sets::Sets;
use crate::model::names::{GroupName, NodeId};
use crate::model::selector::{Requirement, Selector};
use crate::model::variables::Variables;

/// Variables of nodes, selectors, and the matches between them.
///
/// The maps are hash maps, because code only looks up and never lists them: in an ordered map of 20,000 groups each
/// lookup compares about fifteen names, and a change of a label makes several lookups.
#[derive(Debug, Clone, Default)]
pub struct Index {
    variables: HashMap<NodeId, Variables>,
    sets: Sets,
    selectors: HashMap<GroupName, (Selector, Hook)>,
    groups_by_pair: HashMap<String, HashMap<String, BTreeSet<GroupName>>>,
    groups_by_key: HashMap<String, BTreeSet<GroupName>>,
    groups_rest: BTreeSet<GroupName>,
    members: HashMap<GroupName, RoaringBitmap>,
    groups: HashMap<NodeId, BTreeSet<GroupName>>,
    evaluations: u64,
}

/// The place under which a selector is filed.
#[derive(Debug, Clone)]
enum Hook {
    Pairs(String, Vec<String>),
    Key(String),
    Rest,
}

impl Index {
    /// Adds a node or replaces its variables. Returns the groups that the node is in now or was in before.
    pub fn put_node(&mut self, node: &NodeId, variables: &Variables) -> BTreeSet<GroupName> {
        let former = self.variables.insert(node.clone(), variables.clone()).unwrap_or_default();
        let number = self.sets.put(node, &former, variables);
        let candidates = self.candidates(variables);
        self.evaluations += candidates.len() as u64;
        let matched: BTreeSet<GroupName> = candidates
            .into_iter()
            .filter(|group| self.selectors.get(group).is_some_and(|(selector, _)| selector.matches(variables)))
            .collect();
        let before = self.groups.insert(node.clone(), matched.clone()).unwrap_or_default();
        for group in before.difference(&matched) {
            self.leave(group, number);
        }
        for group in matched.difference(&before) {
            self.members.entry(group.clone()).or_default().insert(number);
        }
        before.union(&matched).cloned().collect()
    }

    /// Removes a node. Returns the groups that it was in.
    pub fn remove_node(&mut self, node: &NodeId) -> BTreeSet<GroupName> {
        let former = self.variables.remove(node).unwrap_or_default();
        let groups = self.groups.remove(node).unwrap_or_default();
        if let Some(number) = self.sets.remove(node, &former) {
            groups.iter().for_each(|group| self.leave(group, number));
        }
        groups
    }

    fn leave(&mut self, group: &GroupName, number: u32) {
        if let Some(members) = self.members.get_mut(group) {
            members.remove(number);
        }
    }

    /// Adds or replaces a selector. Returns the nodes that match now or matched before.
    pub fn put_group(&mut self, group: &GroupName, selector: &Selector) -> BTreeSet<NodeId> {
        let before = self.unhang(group);
        let hook = self.choose_hook(selector);
        match &hook {
            Hook::Pairs(key, values) => {
                for value in values {
                    let values = self.groups_by_pair.entry(key.clone()).or_default();
                    values.entry(value.clone()).or_default().insert(group.clone());
                }
            }
            Hook::Key(key) => {
                self.groups_by_key.entry(key.clone()).or_default().insert(group.clone());
            }
            Hook::Rest => {
                self.groups_rest.insert(group.clone());
            }
        }
        let matched = self.sets.matching(selector);
        for node in self.sets.nodes(&(&before - &matched)) {
            forget(&mut self.groups, node, group);
        }
        for node in self.sets.nodes(&(&matched - &before)) {
            self.groups.entry(node.clone()).or_default().insert(group.clone());
        }
        self.selectors.insert(group.clone(), (selector.clone(), hook));
        let touched = self.sets.nodes(&(&before | &matched)).cloned().collect();
        self.members.insert(group.clone(), matched);
        touched
    }

    /// Removes a selector. Returns the nodes that matched.
    pub fn remove_group(&mut self, group: &GroupName) -> BTreeSet<NodeId> {
        let members = self.unhang(group);
        for node in self.sets.nodes(&members) {
            forget(&mut self.groups, node, group);
        }
        self.sets.nodes(&members).cloned().collect()
    }

    /// Removes a selector from its place. Returns the bitmap of the nodes that matched; the group lists of those nodes
    /// stay.
    fn unhang(&mut self, group: &GroupName) -> RoaringBitmap {
        match self.selectors.remove(group) {
            Some((_, Hook::Pairs(key, values))) => {
                for value in &values {
                    self.unhang_from_pair(&key, value, group);
                }
            }
            Some((_, Hook::Key(key))) => {
                if let Some(groups) = self.groups_by_key.get_mut(&key) {
                    groups.remove(group);
                    if groups.is_empty() {
                        self.groups_by_key.remove(&key);
                    }
                }
            }
            Some((_, Hook::Rest)) => {
                self.groups_rest.remove(group);
            }
            None => {}
        }
        self.members.remove(group).unwrap_or_default()
    }

    fn unhang_from_pair(&mut self, key: &str, value: &str, group: &GroupName) {
        let Some(values) = self.groups_by_pair.get_mut(key) else { return };
        if let Some(groups) = values.get_mut(value) {
            groups.remove(group);
            if groups.is_empty() {
                values.remove(value);
            }
        }
        if values.is_empty() {
            self.groups_by_pair.remove(key);
        }
    }

    /// The nodes that match a group's selector.
    pub fn members(&self, group: &GroupName) -> impl Iterator<Item = &NodeId> {
        self.members.get(group).into_iter().flat_map(|members| self.sets.nodes(members))
    }

    /// The groups whose selectors a node matches.
    pub fn groups(&self, node: &NodeId) -> impl Iterator<Item = &GroupName> {
        self.groups.get(node).into_iter().flatten()
    }

    /// The number of selectors evaluated because of changed nodes since the start, which shows the saving of the index.
    pub fn evaluations(&self) -> u64 {
        self.evaluations
    }

    fn candidates(&self, variables: &Variables) -> BTreeSet<GroupName> {
        let mut found = self.groups_rest.clone();
        for (key, value) in variables.iter() {
            let under_pair = self.groups_by_pair.get(key).and_then(|values| values.get(value));
            found.extend(under_pair.into_iter().chain(self.groups_by_key.get(key)).flatten().cloned());
        }
        found
    }

    /// Chooses the exact requirement, else the needed variable, that costs least: few nodes have it, and few selectors
    /// are filed under it. (`host/os=linux` would be a bad choice: nearly every node has it.)
    fn choose_hook(&self, selector: &Selector) -> Hook {
        let requirements = || selector.requirements().iter();
        let nodes = |r: &Requirement| self.sets.count(r);
        let at_pair = |key: &str, value: &String| Some(self.groups_by_pair.get(key)?.get(value)?.len());
        let pairs = requirements().filter_map(|r| Some((r, r.exact_values()?))).min_by_key(|(r, values)| {
            let groups: usize = values.iter().filter_map(|value| at_pair(r.key(), value)).sum();
            ((groups + values.len()) as u64).saturating_mul(nodes(r) + 1)
        });
        if let Some((r, values)) = pairs {
            return Hook::Pairs(r.key().to_owned(), values.to_vec());
        }
        let at_key = |key: &str| self.groups_by_key.get(key).map_or(0, BTreeSet::len);
        let key =
            requirements().filter(|r| r.needs_key()).min_by_key(|r| (at_key(r.key()) as u64 + 1).saturating_mul(nodes(r) + 1));
        key.map_or(Hook::Rest, |r| Hook::Key(r.key().to_owned()))
    }
}

fn forget(groups: &mut HashMap<NodeId, BTreeSet<GroupName>>, node: &NodeId, group: &GroupName) {
    if let Some(groups) = groups.get_mut(node) {
        groups.remove(group);
    }
}
