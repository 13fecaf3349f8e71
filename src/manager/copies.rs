//! The copies as the manager sees them: the last *complete* state, whatever is under way. Pure.
//!
//! While the checkpoint is partial the copies equal no state of the source: what is told meanwhile is held back. So is what
//! somebody else changes: only a change up to the revision of the relay's last checkpoint is a word of the relay. Deleting
//! all copies by hand therefore empties no group; the relay puts them back.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::model::finding::Finding;
use crate::model::names::{NodeId, Revision};
use crate::plan::brake::Brake;
use crate::plan::snapshot::{NodeRecord, Stored as Seen};
use crate::store::api::{Event, Key, KeyValue, LeaseId};
use crate::store::keys::{NodePart, ParsedKey, Prefix};
use crate::store::wire::{Checkpoint, Stored};

type CopyId = (NodeId, NodePart);

/// The last complete state of the copies, and what is held back.
#[derive(Debug, Clone)]
pub struct Copies {
    prefix: Prefix,
    raw: BTreeMap<CopyId, KeyValue>,
    /// What changed since the last complete state, and at which revision of the destination.
    held_back: BTreeMap<CopyId, Revision>,
    /// The checkpoint (`None` = absent or unreadable) and its mod_revision.
    checkpoint: Option<(Checkpoint, Revision)>,
    /// Why the checkpoint cannot be read, e.g. its format is newer: nothing that is copied from then on is taken over.
    checkpoint_fault: Option<String>,
    /// mod_revision of the checkpoint of the last complete state; none = there was none yet.
    complete_at: Revision,
    /// The source revision of the last complete state.
    source_revision: Revision,
    nodes: BTreeMap<NodeId, NodeRecord>,
    /// What the allocator counts for its brake, over `nodes`, kept up to date: a change costs what changed.
    brake: Brake,
}

/// What was taken over.
#[derive(Debug, Default)]
pub struct Settled {
    /// The nodes that changed.
    pub changed: BTreeSet<NodeId>,
    /// Those of them that were not there before.
    pub new: BTreeSet<NodeId>,
}

impl Copies {
    /// Nothing is known yet.
    pub fn new(prefix: Prefix) -> Self {
        Copies {
            prefix,
            raw: BTreeMap::new(),
            held_back: BTreeMap::new(),
            checkpoint: None,
            checkpoint_fault: None,
            complete_at: Revision::NONE,
            source_revision: Revision::NONE,
            nodes: BTreeMap::new(),
            brake: Brake::default(),
        }
    }

    /// Everything there is at a revision of the destination. `stepped_back` = the destination was restored: what was
    /// known is void.
    pub fn reset(&mut self, revision: Revision, kvs: &[KeyValue], stepped_back: bool) {
        (self.checkpoint, self.checkpoint_fault) = (None, None);
        let mut fresh = BTreeMap::new();
        for kv in kvs {
            match self.prefix.parse(&kv.key) {
                ParsedKey::Checkpoint => self.take_checkpoint(kv),
                ParsedKey::Copy(node, part) if NodePart::COPIED.contains(&part) => {
                    fresh.insert((node, part), kv.clone());
                }
                _ => {}
            }
        }
        if stepped_back {
            self.complete_at = Revision::NONE;
        }
        let before = std::mem::replace(&mut self.raw, fresh);
        let written = self.checkpoint.as_ref().map_or(Revision::NONE, |(_, at)| *at);
        // A read does not say when a key was deleted. If the checkpoint is the one of the last complete state, then not by
        // the relay.
        let deleted_at = if written > self.complete_at { written } else { revision };
        for id in before.keys().filter(|id| !self.raw.contains_key(*id)) {
            self.held_back.insert(id.clone(), deleted_at);
        }
        for (id, kv) in &self.raw {
            // Not by its revision alone: what writes into a restored store is what wrote before, and at the same revision as well.
            if before.get(id) != Some(kv) {
                self.held_back.insert(id.clone(), kv.mod_revision);
            }
        }
    }

    /// Takes an event; what is no copy and no checkpoint is passed over. Call [`Copies::settle`] after the last event of
    /// whole revisions.
    pub fn apply(&mut self, event: &Event) {
        match (self.prefix.parse(event.key()), event) {
            (ParsedKey::Checkpoint, Event::Put(kv)) => self.take_checkpoint(kv),
            (ParsedKey::Checkpoint, Event::Delete { .. }) => (self.checkpoint, self.checkpoint_fault) = (None, None),
            (ParsedKey::Copy(node, part), event) if NodePart::COPIED.contains(&part) => {
                let id = (node, part);
                self.held_back.insert(id.clone(), event.revision());
                match event {
                    Event::Put(kv) => self.raw.insert(id, kv.clone()),
                    Event::Delete { .. } => self.raw.remove(&id),
                };
            }
            _ => {}
        }
    }

    fn take_checkpoint(&mut self, kv: &KeyValue) {
        let decoded = Checkpoint::decode(&kv.value);
        self.checkpoint_fault = decoded.as_ref().err().map(ToString::to_string);
        self.checkpoint = decoded.ok().map(|checkpoint| (checkpoint, kv.mod_revision));
    }

    /// If the copies are complete now: takes over what was held back.
    pub fn settle(&mut self) -> Settled {
        let Some((checkpoint, at)) = self.checkpoint.as_ref().filter(|(c, _)| c.partial.is_none()) else {
            return Settled::default();
        };
        // At the start there is no earlier state to keep: what is there is taken, whoever wrote it.
        let first = self.complete_at == Revision::NONE;
        let due: Vec<CopyId> =
            self.held_back.iter().filter(|(_, changed)| first || *changed <= at).map(|(id, _)| id.clone()).collect();
        self.source_revision = checkpoint.revision;
        self.complete_at = *at;
        let mut settled = Settled::default();
        for id in due {
            self.held_back.remove(&id);
            if !self.nodes.contains_key(&id.0) {
                settled.new.insert(id.0.clone());
            }
            self.take_over(&id);
            settled.changed.insert(id.0);
        }
        settled
    }

    fn take_over(&mut self, id: &CopyId) {
        let kv = self.raw.get(id);
        let record = self.nodes.entry(id.0.clone()).or_default();
        self.brake.bound -= usize::from(record.has_claims());
        self.brake.silent -= usize::from(record.is_silent());
        match id.1 {
            NodePart::Label => record.label = kv.map(seen),
            // Copies are on no lease: that one stands behind the source's key is the allocator's to see, which deletes it else.
            NodePart::Status => record.status = kv.map(seen).map(|status| Seen { leased: true, ..status }),
            NodePart::Assignment => record.assignment = kv.map(seen),
            NodePart::Hold | NodePart::Clock => {}
        }
        self.brake.bound += usize::from(record.has_claims());
        self.brake.silent += usize::from(record.is_silent());
        if record.is_empty() {
            self.nodes.remove(&id.0);
        }
    }

    /// Whether there was a complete state: before that nothing may be decided.
    pub fn is_ready(&self) -> bool {
        self.complete_at != Revision::NONE
    }

    /// The source revision of the last complete state.
    pub fn source_revision(&self) -> Revision {
        self.source_revision
    }

    /// How many changes are held back.
    pub fn held_back(&self) -> usize {
        self.held_back.len()
    }

    /// All about each node, as of the last complete state.
    pub fn nodes(&self) -> &BTreeMap<NodeId, NodeRecord> {
        &self.nodes
    }

    /// The brake, by the same rule as the allocator's.
    pub fn brake(&self) -> Brake {
        self.brake
    }

    /// What cannot be read, key by key.
    pub fn findings(&self) -> Vec<Finding> {
        let checkpoint = self.checkpoint_fault.iter();
        let checkpoint = checkpoint.map(|fault| Finding::about("checkpoint-unreadable", "manager/checkpoint", fault.clone()));
        let mut findings: Vec<Finding> = checkpoint.collect();
        for (node, record) in &self.nodes {
            let mut about = |part: NodePart, error: Option<String>| {
                if let Some(error) = error {
                    let key: Key = self.prefix.copy(node, part);
                    findings.push(Finding::about("copy-unreadable", self.prefix.relative(&key), error));
                }
            };
            about(NodePart::Label, fault(record.label.as_ref()));
            about(NodePart::Status, fault(record.status.as_ref()));
            about(NodePart::Assignment, fault(record.assignment.as_ref()));
        }
        findings
    }
}

fn seen<T: Stored>(kv: &KeyValue) -> Seen<T> {
    let value: &Bytes = &kv.value;
    Seen {
        value: T::decode(value),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        leased: kv.lease != LeaseId::NONE,
    }
}

fn fault<T>(seen: Option<&Seen<T>>) -> Option<String> {
    seen.and_then(|seen| seen.value.as_ref().err()).map(ToString::to_string)
}
