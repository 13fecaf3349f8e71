//! A node's sub-tree at one revision, as the agent sees it.

use std::sync::Arc;

use bytes::Bytes;

use crate::model::assignment::Assignment;
use crate::model::label::Label;
use crate::model::names::{NodeId, Revision};
use crate::model::status::Status;
use crate::plan::snapshot::Unreadable;
use crate::store::api::{Event, KeyValue, LeaseId};
use crate::store::keys::{NodePart, ParsedKey, Prefix};
use crate::store::wire::Stored;

/// A stored value with what compares need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<T> {
    /// The value, or why it cannot be read.
    pub value: Result<T, Unreadable>,
    /// As it is stored.
    pub bytes: Bytes,
    /// When it was last written.
    pub mod_revision: Revision,
    /// Its lease.
    pub lease: LeaseId,
}

impl<T: Stored> Entry<T> {
    fn of(kv: &KeyValue) -> Arc<Self> {
        let (value, bytes) = (T::decode(&kv.value), kv.value.clone());
        Arc::new(Entry { value, bytes, mod_revision: kv.mod_revision, lease: kv.lease })
    }
}

impl<T> Entry<T> {
    /// The value if it is readable.
    pub fn ok(&self) -> Option<&T> {
        self.value.as_ref().ok()
    }
}

impl Entry<Status> {
    /// Whether it names a live phase, but is on no lease: no agent keeps it.
    pub fn is_unleased(&self) -> bool {
        self.lease == LeaseId::NONE && self.ok().is_some_and(|status| status.phase.is_live())
    }
}

/// The mod_revision of what may be absent.
pub fn modified<T>(entry: Option<&Entry<T>>) -> Revision {
    entry.map_or(Revision::NONE, |entry| entry.mod_revision)
}

/// A node's sub-tree at one revision. A clone shares what stands there: there is one for each step of an agent's view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subtree {
    /// The cluster it was read from.
    pub cluster_id: u64,
    /// Everything up to and including this revision is in it.
    pub revision: Revision,
    /// `label`
    pub label: Option<Arc<Entry<Label>>>,
    /// `status`
    pub status: Option<Arc<Entry<Status>>>,
    /// `assignment`
    pub assignment: Option<Arc<Entry<Assignment>>>,
}

impl Subtree {
    /// What a read of the whole sub-tree held.
    pub fn read(prefix: &Prefix, node: &NodeId, cluster_id: u64, revision: Revision, kvs: &[KeyValue]) -> Self {
        let mut subtree = Subtree { cluster_id, revision, ..Subtree::default() };
        for kv in kvs {
            subtree.put(prefix, node, kv);
        }
        subtree
    }

    /// Brings it forward.
    pub fn apply(&mut self, prefix: &Prefix, node: &NodeId, revision: Revision, events: &[Event]) {
        for event in events {
            match event {
                Event::Put(kv) => self.put(prefix, node, kv),
                Event::Delete { key, .. } => match prefix.parse(key) {
                    ParsedKey::Node(of, NodePart::Label) if of == *node => self.label = None,
                    ParsedKey::Node(of, NodePart::Status) if of == *node => self.status = None,
                    ParsedKey::Node(of, NodePart::Assignment) if of == *node => self.assignment = None,
                    _ => {}
                },
            }
        }
        self.revision = revision;
    }

    fn put(&mut self, prefix: &Prefix, node: &NodeId, kv: &KeyValue) {
        match prefix.parse(&kv.key) {
            ParsedKey::Node(of, NodePart::Label) if of == *node => self.label = Some(Entry::of(kv)),
            ParsedKey::Node(of, NodePart::Status) if of == *node => self.status = Some(Entry::of(kv)),
            ParsedKey::Node(of, NodePart::Assignment) if of == *node => self.assignment = Some(Entry::of(kv)),
            _ => {}
        }
    }
}
