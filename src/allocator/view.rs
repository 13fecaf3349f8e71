//! The typed picture of the prefix at one revision: what a pass sees. Fed by a feed, whole revisions at a time.

use crate::model::documents;
use crate::model::names::{NodeId, PoolName, Revision};
use crate::model::pool::Pool;
use crate::plan::Pass;
use crate::plan::brake::Brake;
use crate::plan::change::Plan;
use crate::plan::picture::Picture;
use crate::plan::snapshot::{NodeRecord, Snapshot, Stored, Unreadable};
use crate::store::api::{Event, Key, KeyValue, LeaseId};
use crate::store::feed::Update;
use crate::store::keys::{NodePart, ParsedKey, Prefix, Role};
use crate::store::wire;

use super::listing::Listing;

/// The typed picture. Pure: it only takes updates in.
#[derive(Debug)]
pub struct View {
    prefix: Prefix,
    picture: Picture,
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
        View { prefix, picture: Picture::default(), complete: false, silent_releases: 0 }
    }

    /// What is known. Only to be planned from when [`View::is_complete`].
    pub fn snapshot(&self) -> &Snapshot {
        self.picture.snapshot()
    }

    /// What the brake sees.
    pub(super) fn brake(&self) -> Brake {
        self.picture.brake()
    }

    /// Decides what to write.
    pub(super) fn plan(&mut self, pass: &Pass) -> Plan {
        self.picture.plan(pass)
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
    pub fn apply(&mut self, update: Update<Listing>) -> Noticed {
        match update {
            Update::Reset { revision, kvs, stepped_back, .. } => {
                // A new one, filled and put in place whole: what is gone from the store is gone here.
                self.picture = Picture::of(kvs.into_snapshot(revision));
                let first = !self.complete;
                self.complete = true;
                if stepped_back && !first { Noticed::SteppedBack } else { Noticed::Changed }
            }
            Update::Events { revision, events } => {
                self.picture.set_revision(revision);
                let mut noticed = Noticed::Nothing;
                for event in events {
                    // No plan depends on the count alone, and each pass writes it.
                    if self.prefix.parse(event.key()) != ParsedKey::Lineage {
                        noticed = Noticed::Changed;
                    }
                    match event {
                        Event::Put(kv) => self.put(&kv),
                        Event::Delete { key, .. } => self.delete(&key),
                    }
                }
                noticed
            }
        }
    }

    /// A picture of a listing, for commands. In key order.
    pub fn of<'a>(prefix: Prefix, revision: Revision, kvs: impl IntoIterator<Item = &'a KeyValue>) -> Snapshot {
        Listing::of(prefix, kvs).into_snapshot(revision)
    }

    fn put(&mut self, kv: &KeyValue) {
        let picture = &mut self.picture;
        match self.prefix.parse(&kv.key) {
            ParsedKey::Node(node, NodePart::Assignment) => picture.set_assignment(&node, Some(assignment(kv, &node))),
            ParsedKey::Node(node, part) => picture.change_node(&node, |record| {
                set(record, part, kv, &node);
                drop_prose(record);
            }),
            ParsedKey::Claim(key) => picture.set_claim(key, Some(stored(kv))),
            ParsedKey::Pool(name) => {
                let pool = pool(kv, &name);
                picture.set_pool(name, Some(pool));
            }
            ParsedKey::Lineage => picture.set_lineage(Some(stored(kv))),
            ParsedKey::Brake(Role::Allocator) => picture.set_brake_released(kv.mod_revision),
            ParsedKey::Foreign => {
                if let Some(address) = self.prefix.stray_under(&kv.key) {
                    picture.set_stray(self.prefix.relative(&kv.key), Some(address));
                }
            }
            _ => {}
        }
    }

    fn delete(&mut self, key: &Key) {
        let picture = &mut self.picture;
        match self.prefix.parse(key) {
            ParsedKey::Node(node, part) => {
                let is_silent = picture.snapshot().nodes.get(&node).is_some_and(NodeRecord::is_silent);
                self.silent_releases += usize::from(is_silent && part == NodePart::Assignment);
                if part == NodePart::Assignment {
                    picture.set_assignment(&node, None);
                } else {
                    picture.change_node(&node, |record| unset(record, part));
                }
            }
            ParsedKey::Claim(key) => picture.set_claim(key, None),
            ParsedKey::Pool(name) => picture.set_pool(name, None),
            ParsedKey::Lineage => picture.set_lineage(None),
            ParsedKey::Brake(Role::Allocator) => picture.set_brake_released(Revision::NONE),
            ParsedKey::Foreign => picture.set_stray(self.prefix.relative(key), None),
            _ => {}
        }
    }
}

pub(super) fn set(record: &mut NodeRecord, part: NodePart, kv: &KeyValue, node: &NodeId) {
    match part {
        NodePart::Label => record.label = Some(of_node(kv, node, |label: &crate::Label| &label.id)),
        NodePart::Assignment => record.assignment = Some(assignment(kv, node)),
        NodePart::Status => record.status = Some(stored(kv)),
        NodePart::Hold => record.hold = Some(Box::new(stored(kv))),
        NodePart::Clock => record.clock = Some(Box::new(stored(kv))),
    }
}

/// Drops what of a label is for people alone: no pass looks at it, and it is a third of what a node takes.
pub(super) fn drop_prose(record: &mut NodeRecord) {
    if let Some(Stored { value: Ok(label), .. }) = &mut record.label {
        label.description = String::new();
        label.since = String::new();
        label.annotations = Default::default();
    }
}

fn unset(record: &mut NodeRecord, part: NodePart) {
    match part {
        NodePart::Label => record.label = None,
        NodePart::Assignment => record.assignment = None,
        NodePart::Status => record.status = None,
        NodePart::Hold => record.hold = None,
        NodePart::Clock => record.clock = None,
    }
}

fn assignment(kv: &KeyValue, node: &NodeId) -> Stored<crate::Assignment> {
    of_node(kv, node, |assignment: &crate::Assignment| &assignment.node)
}

pub(super) fn pool(kv: &KeyValue, name: &PoolName) -> Stored<Pool> {
    with_revisions(kv, documents::stored_pool(name, &kv.value).map_err(Unreadable::from))
}

pub(super) fn stored<T: wire::Stored>(kv: &KeyValue) -> Stored<T> {
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
