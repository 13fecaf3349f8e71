//! The typed picture of the prefix at one revision: what a pass sees. Fed by a feed, whole revisions at a time.

use std::collections::BTreeMap;

use crate::model::documents;
use crate::model::names::{NodeId, Revision};
use crate::plan::snapshot::{NodeRecord, Snapshot, Stored, Unreadable};
use crate::store::api::{Event, Key, KeyValue, LeaseId};
use crate::store::feed::Update;
use crate::store::keys::{NodePart, ParsedKey, Prefix, Role};
use crate::store::wire;

/// The typed picture. Pure: it only takes updates in.
#[derive(Debug)]
pub struct View {
    prefix: Prefix,
    snapshot: Snapshot,
    complete: bool,
    silent_releases: usize,
}

/// What an update was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noticed {
    /// Something that plans depend on changed.
    Changed,
    /// Only the revision moved.
    Nothing,
    /// A backup was restored: the store is not the one it was.
    SteppedBack,
}

impl View {
    /// An empty picture, not complete yet.
    pub fn new(prefix: Prefix) -> Self {
        View { prefix, snapshot: Snapshot::default(), complete: false, silent_releases: 0 }
    }

    /// What is known. Only to be planned from when [`View::is_complete`].
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Whether everything was read once.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// How many silent nodes' claims were seen to be released since the view was made, whoever did it.
    pub(super) fn silent_releases(&self) -> usize {
        self.silent_releases
    }

    /// Takes an update in.
    pub fn apply(&mut self, update: Update) -> Noticed {
        match update {
            Update::Reset { revision, kvs, stepped_back, .. } => {
                // A new one, filled and put in place whole: what is gone from the store is gone here.
                self.snapshot = Snapshot { revision, ..Snapshot::default() };
                kvs.iter().for_each(|kv| self.put(kv));
                let first = !self.complete;
                self.complete = true;
                if stepped_back && !first { Noticed::SteppedBack } else { Noticed::Changed }
            }
            Update::Events { revision, events } => {
                self.snapshot.revision = revision;
                let mut noticed = Noticed::Nothing;
                for event in events {
                    noticed = Noticed::Changed;
                    match event {
                        Event::Put(kv) => self.put(&kv),
                        Event::Delete { key, .. } => self.delete(&key),
                    }
                }
                noticed
            }
        }
    }

    /// A picture of a listing, for commands.
    pub fn of<'a>(prefix: Prefix, revision: Revision, kvs: impl IntoIterator<Item = &'a KeyValue>) -> Snapshot {
        let mut view = View::new(prefix);
        view.snapshot.revision = revision;
        kvs.into_iter().for_each(|kv| view.put(kv));
        view.snapshot
    }

    fn put(&mut self, kv: &KeyValue) {
        match self.prefix.parse(&kv.key) {
            ParsedKey::Node(node, part) => {
                let record = self.snapshot.nodes.entry(node.clone()).or_default();
                match part {
                    NodePart::Label => record.label = Some(of_node(kv, &node, |label: &crate::Label| &label.id)),
                    NodePart::Assignment => {
                        record.assignment = Some(of_node(kv, &node, |assignment: &crate::Assignment| &assignment.node));
                    }
                    NodePart::Status => record.status = Some(stored(kv)),
                    NodePart::Hold => record.hold = Some(stored(kv)),
                    NodePart::Clock => record.clock = Some(stored(kv)),
                }
            }
            ParsedKey::Claim(key) => drop(self.snapshot.claims.insert(key, stored(kv))),
            ParsedKey::Pool(name) => {
                let value = documents::stored_pool(&name, &kv.value).map_err(Unreadable::from);
                self.snapshot.pools.insert(name, with_revisions(kv, value));
            }
            ParsedKey::Brake(Role::Allocator) => self.snapshot.brake_released = kv.mod_revision,
            ParsedKey::Foreign => {
                if let Some(address) = self.prefix.stray_under(&kv.key) {
                    self.snapshot.strays.insert(self.prefix.relative(&kv.key), address);
                }
            }
            _ => {}
        }
    }

    fn delete(&mut self, key: &Key) {
        match self.prefix.parse(key) {
            ParsedKey::Node(node, part) => {
                let is_silent = self.snapshot.nodes.get(&node).is_some_and(NodeRecord::is_silent);
                self.silent_releases += usize::from(is_silent && part == NodePart::Assignment);
                forget(&mut self.snapshot.nodes, &node, part);
            }
            ParsedKey::Claim(key) => drop(self.snapshot.claims.remove(&key)),
            ParsedKey::Pool(name) => drop(self.snapshot.pools.remove(&name)),
            ParsedKey::Brake(Role::Allocator) => self.snapshot.brake_released = Revision::NONE,
            ParsedKey::Foreign => drop(self.snapshot.strays.remove(&self.prefix.relative(key))),
            _ => {}
        }
    }
}

fn forget(nodes: &mut BTreeMap<NodeId, NodeRecord>, node: &NodeId, part: NodePart) {
    let Some(record) = nodes.get_mut(node) else { return };
    match part {
        NodePart::Label => record.label = None,
        NodePart::Assignment => record.assignment = None,
        NodePart::Status => record.status = None,
        NodePart::Hold => record.hold = None,
        NodePart::Clock => record.clock = None,
    }
    if record.is_empty() {
        nodes.remove(node);
    }
}

fn stored<T: wire::Stored>(kv: &KeyValue) -> Stored<T> {
    with_revisions(kv, T::decode(&kv.value))
}

/// A value that says of which node it is must stand under that node.
fn of_node<T: wire::Stored>(kv: &KeyValue, node: &NodeId, named: impl Fn(&T) -> &NodeId) -> Stored<T> {
    let value = T::decode(&kv.value).and_then(|value| {
        if named(&value) == node {
            Ok(value)
        } else {
            Err(Unreadable::Invalid(format!("it is of node {}, but stands under {node}", named(&value))))
        }
    });
    with_revisions(kv, value)
}

fn with_revisions<T>(kv: &KeyValue, value: Result<T, Unreadable>) -> Stored<T> {
    Stored { value, create_revision: kv.create_revision, mod_revision: kv.mod_revision, leased: kv.lease != LeaseId::NONE }
}
