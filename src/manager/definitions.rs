//! Group definitions as stored, good or frozen. Pure.
//!
//! An invalid definition freezes its group: the manager must never read it as *all nodes* or as *deleted*.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::documents::stored_group;
use crate::model::finding::Finding;
use crate::model::group::Group;
use crate::model::names::GroupName;
use crate::store::api::{Event, KeyValue};
use crate::store::keys::{ParsedKey, Prefix};

/// One definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// The definition; if it is frozen, the last valid one, if this process saw it.
    pub group: Option<Group>,
    /// The reason why it is frozen; `None` = it is valid.
    pub fault: Option<String>,
}

impl Definition {
    /// The definition if it is valid.
    pub fn usable(&self) -> Option<&Group> {
        self.group.as_ref().filter(|_| self.fault.is_none())
    }
}

/// All definitions.
#[derive(Debug, Clone)]
pub struct Definitions {
    prefix: Prefix,
    by_name: BTreeMap<GroupName, Definition>,
    ready: bool,
}

impl Definitions {
    /// No definition is known yet.
    pub fn new(prefix: Prefix) -> Self {
        Definitions { prefix, by_name: BTreeMap::new(), ready: false }
    }

    /// Takes everything below `groups/`. Returns the definitions that changed.
    pub fn reset(&mut self, kvs: &[KeyValue]) -> BTreeSet<GroupName> {
        self.ready = true;
        let mut gone: BTreeSet<GroupName> = self.by_name.keys().cloned().collect();
        let mut changed = BTreeSet::new();
        for kv in kvs {
            if let ParsedKey::Group(name) = self.prefix.parse(&kv.key) {
                gone.remove(&name);
                changed.extend(self.put(name, &kv.value));
            }
        }
        for name in gone {
            self.by_name.remove(&name);
            changed.insert(name);
        }
        changed
    }

    /// Takes an event. Returns the definition that changed.
    pub fn apply(&mut self, event: &Event) -> Option<GroupName> {
        let ParsedKey::Group(name) = self.prefix.parse(event.key()) else { return None };
        match event {
            Event::Put(kv) => self.put(name, &kv.value),
            Event::Delete { .. } => self.by_name.remove(&name).map(|_| name),
        }
    }

    fn put(&mut self, name: GroupName, value: &[u8]) -> Option<GroupName> {
        let definition = match stored_group(&name, value) {
            Ok(group) => Definition { group: Some(group), fault: None },
            Err(error) => {
                let last_good = self.by_name.get(&name).and_then(|before| before.group.clone());
                Definition { group: last_good, fault: Some(error.to_string()) }
            }
        };
        if self.by_name.get(&name) == Some(&definition) {
            return None;
        }
        self.by_name.insert(name.clone(), definition);
        Some(name)
    }

    /// Whether the definitions were read completely: before that no decision is safe.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// One definition.
    pub fn get(&self, name: &GroupName) -> Option<&Definition> {
        self.by_name.get(name)
    }

    /// Iterates over all definitions, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&GroupName, &Definition)> {
        self.by_name.iter()
    }

    /// The frozen definitions, each with its reason.
    pub fn findings(&self) -> Vec<Finding> {
        let fault = |(name, definition): (&GroupName, &Definition)| {
            let message = format!("{}: the group keeps its members", definition.fault.as_ref()?);
            Some(Finding::about("group-invalid", format!("groups/{name}"), message))
        };
        self.by_name.iter().filter_map(fault).collect()
    }
}
