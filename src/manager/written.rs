//! What is written below `manager/groups/`: summaries and members as stored. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::manager::state::WrittenMember;
use crate::model::group::{GroupKey, Member};
use crate::model::names::{GroupName, NodeId, Revision};
use crate::plan::snapshot::Unreadable;
use crate::store::api::{Event, Key, KeyValue};
use crate::store::keys::{ParsedKey, Prefix};
use crate::store::wire::{Stored, Summary};

/// One group as stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WrittenGroup {
    /// Its summary (`None` in the pair = it does not parse) and the mod_revision of its key.
    pub summary: Option<(Option<Summary>, Revision)>,
    /// Its members.
    pub members: BTreeMap<NodeId, WrittenMember>,
    /// How many of them are published.
    pub published: u64,
}

/// What a change of stored groups touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// The summary.
    Summary(GroupKey),
    /// A member.
    Member(GroupKey, NodeId),
    /// A key in a newer format came or went: all of the group is to be looked at.
    Whole(GroupKey),
}

/// All groups as stored.
#[derive(Debug, Clone)]
pub struct Written {
    prefix: Prefix,
    groups: BTreeMap<GroupKey, WrittenGroup>,
    by_node: BTreeMap<NodeId, BTreeSet<GroupKey>>,
    /// Keys below `manager/groups/` that are of no known form. They are left alone.
    foreign: BTreeSet<Key>,
    /// Keys in a format that is newer than ours, and which: a newer manager wrote them, and keeps their groups.
    newer: BTreeMap<GroupKey, BTreeMap<Key, u64>>,
}

impl Written {
    /// Nothing is known yet.
    pub fn new(prefix: Prefix) -> Self {
        Written { prefix, groups: BTreeMap::new(), by_node: BTreeMap::new(), foreign: BTreeSet::new(), newer: BTreeMap::new() }
    }

    /// Everything there is. Answers the groups that are stored or were.
    pub fn reset(&mut self, kvs: &[KeyValue]) -> BTreeSet<GroupKey> {
        let mut touched: BTreeSet<GroupKey> = std::mem::take(&mut self.groups).into_keys().collect();
        self.by_node.clear();
        self.foreign.clear();
        self.newer.clear();
        for kv in kvs {
            self.put(kv);
        }
        touched.extend(self.groups.keys().cloned());
        touched
    }

    /// Takes an event; what is not below `manager/groups/` is passed over. Answers what it touched.
    pub fn apply(&mut self, event: &Event) -> Option<Touched> {
        match event {
            Event::Put(kv) => self.put(kv),
            Event::Delete { key, .. } => self.delete(key),
        }
    }

    fn put(&mut self, kv: &KeyValue) -> Option<Touched> {
        match self.group_of(&kv.key) {
            Some(Touched::Summary(group)) => {
                let decoded = Summary::decode(&kv.value);
                let was_newer = self.note_newer(&group, &kv.key, decoded.as_ref().err());
                let summary = decoded.ok();
                self.groups.entry(group.clone()).or_default().summary = Some((summary, kv.mod_revision));
                Some(if was_newer { Touched::Whole(group) } else { Touched::Summary(group) })
            }
            Some(Touched::Member(group, node)) => {
                let decoded = Member::decode(&kv.value);
                let was_newer = self.note_newer(&group, &kv.key, decoded.as_ref().err());
                let member = decoded.ok().filter(|member| member.node == node);
                let stored = self.groups.entry(group.clone()).or_default();
                let fresh = WrittenMember { member, mod_revision: kv.mod_revision };
                stored.published += u64::from(is_published(&fresh));
                if let Some(old) = stored.members.insert(node.clone(), fresh) {
                    stored.published -= u64::from(is_published(&old));
                }
                self.by_node.entry(node.clone()).or_default().insert(group.clone());
                Some(if was_newer { Touched::Whole(group) } else { Touched::Member(group, node) })
            }
            Some(Touched::Whole(_)) | None => {
                if self.prefix.folder("manager/groups").contains(&kv.key) {
                    self.foreign.insert(kv.key.clone());
                }
                None
            }
        }
    }

    fn delete(&mut self, key: &Key) -> Option<Touched> {
        let touched = self.group_of(key);
        match &touched {
            Some(Touched::Summary(group)) => {
                self.groups.entry(group.clone()).or_default().summary = None;
                self.drop_if_empty(group);
            }
            Some(Touched::Member(group, node)) => {
                if let Some(stored) = self.groups.get_mut(group)
                    && let Some(old) = stored.members.remove(node)
                {
                    stored.published -= u64::from(is_published(&old));
                }
                if let Some(groups) = self.by_node.get_mut(node) {
                    groups.remove(group);
                    if groups.is_empty() {
                        self.by_node.remove(node);
                    }
                }
                self.drop_if_empty(group);
            }
            Some(Touched::Whole(_)) | None => {
                self.foreign.remove(key);
            }
        }
        match touched {
            Some(Touched::Summary(group) | Touched::Member(group, _)) if self.note_newer(&group, key, None) => {
                Some(Touched::Whole(group))
            }
            touched => touched,
        }
    }

    /// Notes whether a key's format is newer than ours. Answers whether it is or was.
    fn note_newer(&mut self, group: &GroupKey, key: &Key, error: Option<&Unreadable>) -> bool {
        if let Some(Unreadable::Newer(version)) = error {
            self.newer.entry(group.clone()).or_default().insert(key.clone(), *version);
            return true;
        }
        let Some(keys) = self.newer.get_mut(group) else { return false };
        let was_newer = keys.remove(key).is_some();
        if keys.is_empty() {
            self.newer.remove(group);
        }
        was_newer
    }

    fn drop_if_empty(&mut self, group: &GroupKey) {
        if self.groups.get(group).is_some_and(|stored| stored.summary.is_none() && stored.members.is_empty()) {
            self.groups.remove(group);
        }
    }

    fn group_of(&self, key: &Key) -> Option<Touched> {
        match self.prefix.parse(key) {
            ParsedKey::Summary(segment) => GroupKey::from_segment(&segment).ok().map(Touched::Summary),
            ParsedKey::Member(segment, node) => GroupKey::from_segment(&segment).ok().map(|group| Touched::Member(group, node)),
            _ => None,
        }
    }

    /// One group.
    pub fn get(&self, group: &GroupKey) -> Option<&WrittenGroup> {
        self.groups.get(group)
    }

    /// The stored groups of a definition.
    pub fn of(&self, name: &GroupName) -> impl Iterator<Item = &GroupKey> {
        let name = name.clone();
        self.groups.range(GroupKey::plain(name.clone())..).map(|(key, _)| key).take_while(move |key| *key.name() == name)
    }

    /// The stored groups that a node is a member of.
    pub fn groups_of(&self, node: &NodeId) -> impl Iterator<Item = &GroupKey> {
        self.by_node.get(node).into_iter().flatten()
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&GroupKey, &WrittenGroup)> {
        self.groups.iter()
    }

    /// The keys of a group in a newer format, each with its version; `None` = there is none.
    pub fn newer(&self, group: &GroupKey) -> Option<&BTreeMap<Key, u64>> {
        self.newer.get(group)
    }

    /// All keys in a newer format, with their versions.
    pub fn all_newer(&self) -> impl Iterator<Item = (&Key, u64)> {
        self.newer.values().flatten().map(|(key, version)| (key, *version))
    }

    /// Keys below `manager/groups/` that are of no known form.
    pub fn foreign(&self) -> &BTreeSet<Key> {
        &self.foreign
    }
}

/// Whether a stored member is published; one that does not parse is not.
pub(super) fn is_published(written: &WrittenMember) -> bool {
    written.member.as_ref().is_some_and(|member| member.published)
}
