//! Which nodes match which selectors, kept up to date change by change. Pure.
//!
//! Each selector hangs under one exact requirement (`=`, `in`) if it has one, else under a variable that it needs, else in
//! a short list of the rest. A node's change evaluates only the selectors under its pairs; those it matched before and no
//! longer hangs under are left without an evaluation. A new selector is answered from the sets of nodes for each variable
//! and value. Where a selector hangs depends on what is there when it comes, and is only a matter of cost: no answer may
//! depend on the order of the changes that led to it.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::names::{GroupName, NodeId};
use crate::model::selector::{Requirement, Selector};

type Pairs<T> = BTreeMap<String, BTreeMap<String, BTreeSet<T>>>;

/// Nodes' variables, selectors, and who matches what.
#[derive(Debug, Clone, Default)]
pub struct Index {
    variables: BTreeMap<NodeId, BTreeMap<String, String>>,
    nodes_by_pair: Pairs<NodeId>,
    selectors: BTreeMap<GroupName, (Selector, Hook)>,
    groups_by_pair: Pairs<GroupName>,
    groups_by_key: BTreeMap<String, BTreeSet<GroupName>>,
    groups_rest: BTreeSet<GroupName>,
    members: BTreeMap<GroupName, BTreeSet<NodeId>>,
    groups: BTreeMap<NodeId, BTreeSet<GroupName>>,
    evaluations: u64,
}

/// Where a selector hangs.
#[derive(Debug, Clone)]
enum Hook {
    Pairs(String, Vec<String>),
    Key(String),
    Rest,
}

impl Index {
    /// Adds a node or gives it other variables. Answers the groups that it is in now or was in before.
    pub fn put_node(&mut self, node: &NodeId, variables: &BTreeMap<String, String>) -> BTreeSet<GroupName> {
        let before = self.remove_node(node);
        for (key, value) in variables {
            insert(&mut self.nodes_by_pair, key, value, node.clone());
        }
        let candidates = self.candidates(variables);
        self.evaluations += candidates.len() as u64;
        let matched: BTreeSet<GroupName> = candidates
            .into_iter()
            .filter(|group| self.selectors.get(group).is_some_and(|(selector, _)| selector.matches(variables)))
            .collect();
        for group in &matched {
            self.members.entry(group.clone()).or_default().insert(node.clone());
        }
        self.variables.insert(node.clone(), variables.clone());
        let touched = before.union(&matched).cloned().collect();
        self.groups.insert(node.clone(), matched);
        touched
    }

    /// Takes a node out. Answers the groups that it was in.
    pub fn remove_node(&mut self, node: &NodeId) -> BTreeSet<GroupName> {
        for (key, value) in self.variables.remove(node).unwrap_or_default() {
            remove(&mut self.nodes_by_pair, &key, &value, node);
        }
        let groups = self.groups.remove(node).unwrap_or_default();
        for group in &groups {
            if let Some(members) = self.members.get_mut(group) {
                members.remove(node);
            }
        }
        groups
    }

    /// Adds a selector or replaces it. Answers the nodes that match now or matched before.
    pub fn put_group(&mut self, group: &GroupName, selector: &Selector) -> BTreeSet<NodeId> {
        let before = self.remove_group(group);
        let hook = self.choose_hook(selector);
        match &hook {
            Hook::Pairs(key, values) => {
                for value in values {
                    insert(&mut self.groups_by_pair, key, value, group.clone());
                }
            }
            Hook::Key(key) => {
                self.groups_by_key.entry(key.clone()).or_default().insert(group.clone());
            }
            Hook::Rest => {
                self.groups_rest.insert(group.clone());
            }
        }
        let matched = self.find(selector);
        for node in &matched {
            self.groups.entry(node.clone()).or_default().insert(group.clone());
        }
        self.selectors.insert(group.clone(), (selector.clone(), hook));
        let touched = before.union(&matched).cloned().collect();
        self.members.insert(group.clone(), matched);
        touched
    }

    /// Takes a selector out. Answers the nodes that matched.
    pub fn remove_group(&mut self, group: &GroupName) -> BTreeSet<NodeId> {
        match self.selectors.remove(group) {
            Some((_, Hook::Pairs(key, values))) => {
                for value in &values {
                    remove(&mut self.groups_by_pair, &key, value, group);
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
        let members = self.members.remove(group).unwrap_or_default();
        for node in &members {
            if let Some(groups) = self.groups.get_mut(node) {
                groups.remove(group);
            }
        }
        members
    }

    /// The nodes that match a group's selector.
    pub fn members(&self, group: &GroupName) -> impl Iterator<Item = &NodeId> {
        self.members.get(group).into_iter().flatten()
    }

    /// The groups whose selectors a node matches.
    pub fn groups(&self, node: &NodeId) -> impl Iterator<Item = &GroupName> {
        self.groups.get(node).into_iter().flatten()
    }

    /// How many selectors were held against a node's variables because of changed nodes, ever: what the index saves.
    pub fn evaluations(&self) -> u64 {
        self.evaluations
    }

    fn candidates(&self, variables: &BTreeMap<String, String>) -> BTreeSet<GroupName> {
        let mut found = self.groups_rest.clone();
        for (key, value) in variables {
            let under_pair = self.groups_by_pair.get(key).and_then(|values| values.get(value));
            found.extend(under_pair.into_iter().chain(self.groups_by_key.get(key)).flatten().cloned());
        }
        found
    }

    /// All nodes that match, from the requirement that leaves the fewest to look at.
    fn find(&self, selector: &Selector) -> BTreeSet<NodeId> {
        let narrowest = selector
            .requirements()
            .iter()
            .filter_map(|r| self.having(r))
            .min_by_key(|sets| sets.iter().map(|set| set.len()).sum::<usize>());
        let matches = |node: &&NodeId| self.variables.get(*node).is_some_and(|variables| selector.matches(variables));
        match narrowest {
            Some(sets) => sets.into_iter().flatten().filter(matches).cloned().collect(),
            None => self.variables.keys().filter(matches).cloned().collect(),
        }
    }

    /// The exact requirement, else the needed variable, under which it costs least: there are few nodes whose changes come
    /// by, and few selectors that hang there already. (`host/os=linux` would be a bad place: everybody comes by.)
    fn choose_hook(&self, selector: &Selector) -> Hook {
        let requirements = || selector.requirements().iter();
        let nodes = |r: &Requirement| self.having(r).map_or(0, |sets| sets.iter().map(|set| set.len()).sum::<usize>());
        let at_pair = |key: &str, value: &String| Some(self.groups_by_pair.get(key)?.get(value)?.len());
        let pairs = requirements().filter_map(|r| Some((r, r.exact_values()?))).min_by_key(|(r, values)| {
            let groups: usize = values.iter().filter_map(|value| at_pair(r.key(), value)).sum();
            (groups + values.len()) * (nodes(r) + 1)
        });
        if let Some((r, values)) = pairs {
            return Hook::Pairs(r.key().to_owned(), values.to_vec());
        }
        let at_key = |key: &str| self.groups_by_key.get(key).map_or(0, BTreeSet::len);
        let key = requirements().filter(|r| r.needs_key()).min_by_key(|r| (at_key(r.key()) + 1) * (nodes(r) + 1));
        key.map_or(Hook::Rest, |r| Hook::Key(r.key().to_owned()))
    }

    /// The sets of nodes among which all that meet the requirement are; `None` = it does not narrow.
    fn having(&self, requirement: &Requirement) -> Option<Vec<&BTreeSet<NodeId>>> {
        if !requirement.needs_key() {
            return None;
        }
        let Some(by_value) = self.nodes_by_pair.get(requirement.key()) else { return Some(Vec::new()) };
        Some(match requirement.exact_values() {
            Some(values) => values.iter().filter_map(|value| by_value.get(value)).collect(),
            None => by_value.values().collect(),
        })
    }
}

fn insert<T: Ord>(pairs: &mut Pairs<T>, key: &str, value: &str, item: T) {
    pairs.entry(key.to_owned()).or_default().entry(value.to_owned()).or_default().insert(item);
}

fn remove<T: Ord>(pairs: &mut Pairs<T>, key: &str, value: &str, item: &T) {
    let Some(values) = pairs.get_mut(key) else { return };
    if let Some(set) = values.get_mut(value) {
        set.remove(item);
        if set.is_empty() {
            values.remove(value);
        }
    }
    if values.is_empty() {
        pairs.remove(key);
    }
}
