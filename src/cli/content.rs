//! What a command looks at: some folders of a prefix, all at one revision, as they are stored.
//!
//! Only the folders that are needed are read: a million foreign keys beside ours cost nothing.

use std::collections::BTreeMap;

use anyhow::Context;

use crate::allocator::View;
use crate::manager;
use crate::model::documents::{self, StoredError};
use crate::model::group::Group;
use crate::model::names::{GroupName, NodeId, Revision};
use crate::plan::snapshot::{NodeRecord, Snapshot, Stored, Unreadable};
use crate::reconcile::Site;
use crate::store::api::{Event, Key, KeyRange, KeyValue, LeaseId, RangeRequest, RangeResponse};
use crate::store::feed::Update;
use crate::store::keys::{ParsedKey, Prefix, Role};
use crate::store::wire;

/// Keys with their values at one revision.
#[derive(Debug, Clone)]
pub struct Content {
    /// Where they are.
    pub prefix: Prefix,
    /// The revision.
    pub revision: Revision,
    /// The cluster.
    pub cluster_id: u64,
    /// The keys, in order.
    pub kvs: BTreeMap<Key, KeyValue>,
}

/// Reads folders (`nodes`, `manager/groups` …), all at one revision.
///
/// # Errors
/// What the store answered.
pub async fn read(site: &Site, folders: &[&str]) -> anyhow::Result<Content> {
    let mut content = Content::empty(site.prefix.clone());
    for folder in folders {
        let at = (content.revision != Revision::NONE).then_some(content.revision);
        let whole = site.store.read_all(site.prefix.folder(folder), at).await;
        let whole = whole.with_context(|| format!("failed to read {}/{folder}/", site.prefix))?;
        if at.is_none() {
            content.revision = whole.header.revision;
            content.cluster_id = whole.header.cluster_id;
        }
        content.kvs.extend(whole.kvs.into_iter().map(|kv| (kv.key.clone(), kv)));
    }
    Ok(content)
}

/// The folders that keys of enlist's are in, in order.
const FOLDERS: [&str; 9] = ["applied", "brakes", "claims", "groups", "leaders", "manager", "nodes", "pools", "roles"];
/// So many keys are named in each gap between folders: somebody's million is not listed.
const BESIDE_MAX: i64 = 20;

/// Keys below the prefix that are in none of enlist's folders, relative to it; of many the first of each gap. What is below
/// `other`, the prefix of the other store if it is in the same cluster, is that one's.
///
/// # Errors
/// What the store answered.
pub async fn beside(site: &Site, other: Option<&Prefix>) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for range in gaps(&site.prefix, other) {
        let request = RangeRequest { limit: BESIDE_MAX, keys_only: true, ..RangeRequest::all(range) };
        let answer = site.store.range(request).await;
        let answer = answer.with_context(|| format!("failed to read the keys of {}/", site.prefix))?;
        found.extend(answer.kvs.iter().map(|kv| site.prefix.relative(&kv.key)));
    }
    Ok(found)
}

/// What is below the prefix without the folders.
fn gaps(prefix: &Prefix, other: Option<&Prefix>) -> Vec<KeyRange> {
    let mut taken: Vec<KeyRange> = FOLDERS.iter().map(|folder| prefix.folder(folder)).collect();
    taken.push(KeyRange::between(prefix.lineage(), prefix.key("lineage\0")));
    taken.extend(other.filter(|other| *other != prefix).map(Prefix::range));
    taken.sort();
    let whole = prefix.range();
    let mut gaps = Vec::new();
    let mut start = whole.start.clone();
    for range in taken {
        if range.start > start && whole.contains(&range.start) {
            gaps.push(KeyRange::between(start.clone(), range.start.clone()));
        }
        if let Some(end) = range.end.filter(|end| *end > start && whole.contains(&range.start)) {
            start = end;
        }
    }
    gaps.extend(whole.end.map(|end| KeyRange::between(start, end)));
    gaps
}

/// Everything below the prefix. Only for prefixes that are known to be small.
///
/// # Errors
/// What the store answered.
pub async fn read_all(site: &Site) -> anyhow::Result<RangeResponse> {
    let whole = site.store.read_all(site.prefix.range(), None).await;
    whole.with_context(|| format!("failed to read {}/", site.prefix))
}

/// The ranges of folders, sorted, for a feed.
pub fn ranges(prefix: &Prefix, folders: &[&str]) -> Vec<KeyRange> {
    let mut ranges: Vec<KeyRange> = folders.iter().map(|folder| prefix.folder(folder)).collect();
    ranges.sort();
    ranges.dedup();
    ranges
}

impl Content {
    /// Nothing yet.
    pub fn empty(prefix: Prefix) -> Self {
        Content { prefix, revision: Revision::NONE, cluster_id: 0, kvs: BTreeMap::new() }
    }

    /// Takes in what a feed tells.
    pub fn apply(&mut self, update: Update) {
        match update {
            Update::Reset { revision, cluster_id, kvs, .. } => {
                (self.revision, self.cluster_id) = (revision, cluster_id);
                self.kvs = kvs.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
            }
            Update::Events { revision, events } => {
                self.revision = revision;
                for event in events {
                    match event {
                        Event::Put(kv) => drop(self.kvs.insert(kv.key.clone(), kv)),
                        Event::Delete { key, .. } => drop(self.kvs.remove(&key)),
                    }
                }
            }
        }
    }

    /// Every key of ours, taken apart.
    pub fn parsed(&self) -> impl Iterator<Item = (ParsedKey, &KeyValue)> {
        self.kvs.values().map(|kv| (self.prefix.parse(&kv.key), kv))
    }

    /// One key.
    pub fn get(&self, key: &Key) -> Option<&KeyValue> {
        self.kvs.get(key)
    }

    /// The nodes, typed. One of which only the clock of an absence that is over is left is none.
    pub fn nodes(&self) -> BTreeMap<NodeId, NodeRecord> {
        let mut nodes = self.snapshot().nodes;
        nodes.retain(|_, record| !record.is_bare());
        nodes
    }

    /// What the planner sees of it.
    pub fn snapshot(&self) -> Snapshot {
        View::of(self.prefix.clone(), self.revision, self.kvs.values())
    }
}

/// The manager's own view of what was read: `brakes`, `groups` and `manager` must be in it.
pub fn manager_view(content: &Content) -> manager::view::View {
    let prefix = &content.prefix;
    let reset = |kvs: Vec<KeyValue>| {
        let revision = content.revision;
        Update::Reset { revision, cluster_id: content.cluster_id, kvs, stepped_back: false }
    };
    let below = |folder: &str| {
        let range = prefix.folder(folder);
        content.kvs.values().filter(|kv| range.contains(&kv.key)).cloned().collect::<Vec<_>>()
    };
    let mut view = manager::view::View::new(prefix.clone());
    view.apply_groups(reset(below("groups")));
    view.apply_brake(reset(content.get(&prefix.brake(Role::Manager)).cloned().into_iter().collect()));
    view.apply_manager(reset(below("manager")));
    view
}

/// A key's value with what compares need.
pub fn stored<T: wire::Stored>(kv: &KeyValue) -> Stored<T> {
    with_revisions(kv, T::decode(&kv.value))
}

/// A group's definition.
pub fn group(name: &GroupName, kv: &KeyValue) -> Stored<Group> {
    with_revisions(kv, documents::stored_group(name, &kv.value).map_err(unreadable))
}

fn unreadable(error: StoredError) -> Unreadable {
    match error {
        StoredError::Newer(version) => Unreadable::Newer(version),
        StoredError::Invalid(message) => Unreadable::Invalid(message),
    }
}

fn with_revisions<T>(kv: &KeyValue, value: Result<T, Unreadable>) -> Stored<T> {
    Stored { value, create_revision: kv.create_revision, mod_revision: kv.mod_revision, leased: kv.lease != LeaseId::NONE }
}

/// The value if it can be read.
pub fn decoded<T: wire::Stored>(kv: &KeyValue) -> Result<T, Unreadable> {
    T::decode(&kv.value)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn gaps_are_all_that_is_in_no_folder_and_below_no_other_prefix() {
        let within = |other: Option<&str>, key: &str| {
            let other = other.map(|other| other.parse().unwrap());
            let key = Key::from(format!("/enlist/{key}"));
            gaps(&Prefix::default(), other.as_ref()).iter().filter(|gap| gap.contains(&key)).count()
        };
        for key in ["a", "weird", "nodes", "nodesx/a", "lineage/a", "lineages", "pools0", "zzz/a/b", ".", "~"] {
            assert_eq!(within(None, key), 1, "{key}");
            assert_eq!(within(Some("/enlist/core"), key), 1, "{key}");
            assert_eq!(within(Some("/other"), key), 1, "{key}");
        }
        for key in ["nodes/a/label", "roles/x", "manager/groups/a", "brakes/", "lineage"] {
            assert_eq!(within(None, key), 0, "{key}");
            assert_eq!(within(Some("/enlist/nodes/x"), key), 0, "{key}");
        }
        assert_eq!((within(None, "core/groups/a"), within(Some("/enlist/core"), "core/groups/a")), (1, 0));
        assert!(!gaps(&Prefix::default(), None).iter().any(|gap| gap.contains(&Key::from("/enlist2/a"))));
    }
}
