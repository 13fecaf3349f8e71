//! The mirror: what the source holds, what the destination holds, and the keys in which they differ. Pure.
//!
//! Only label, status and assignment are copied; all else below `nodes/` does not concern the destination. The
//! differences are kept up to date event by event, so that a pass costs what changed and not what there is. Crash,
//! compaction, reconnect and drift are one path: whatever was told, what differs is what is to be written.
//!
//! It must never take an incomplete read for the content: [`Mirror::is_complete`] says whether both sides were read whole.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::model::names::{NodeId, Revision};
use crate::plan::snapshot::Unreadable;
use crate::store::api::{Event, Key, KeyValue, LeaseId};
use crate::store::feed::Update;
use crate::store::keys::{NodePart, ParsedKey, Prefix};
use crate::store::wire::{Checkpoint, Stored};

/// Names a copied key on both sides.
pub type CopyId = (NodeId, NodePart);

/// A value larger than this is left out: with the checkpoint it must fit one request (1.5 MiB). A label is at most
/// 64 KiB, so only a foreign hand makes such a value.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;

/// One side's value of a copied key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    value: Bytes,
    mod_revision: Revision,
    leased: bool,
}

impl Entry {
    fn of(kv: &KeyValue) -> Self {
        Entry { value: kv.value.clone(), mod_revision: kv.mod_revision, leased: kv.lease != LeaseId::NONE }
    }
}

/// The value that the destination should have; `None` = none.
fn wanted(source: Option<&Entry>, value_bytes_max: usize) -> Option<&Bytes> {
    source.map(|entry| &entry.value).filter(|value| value.len() <= value_bytes_max)
}

/// Whether nothing is to be written.
fn is_equal(source: Option<&Entry>, copy: Option<&Entry>, value_bytes_max: usize) -> bool {
    match (wanted(source, value_bytes_max), copy) {
        (None, None) => true,
        // A copy on a lease would go when the lease does: it is written again without one.
        (Some(wanted), Some(copy)) => *wanted == copy.value && !copy.leased,
        _ => false,
    }
}

/// Whether a source's value is too large to be copied.
fn is_left_out(source: Option<&Entry>, value_bytes_max: usize) -> bool {
    source.is_some_and(|entry| entry.value.len() > value_bytes_max)
}

/// How much the view of the source proves about keys that it lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// It was read anew and has not been equal to the copies since: what it lacks may be missing by a fault.
    Reread,
    /// Each deletion was told, or a second read agreed.
    Proven,
}

/// The stored checkpoint as seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenCheckpoint {
    /// The value, or why it cannot be read.
    pub value: Result<Checkpoint, Unreadable>,
    /// Its mod_revision at the destination.
    pub mod_revision: Revision,
}

/// Both sides and their differences.
#[derive(Debug, Clone)]
pub struct Mirror {
    source_prefix: Prefix,
    destination_prefix: Prefix,
    value_bytes_max: usize,
    source: BTreeMap<CopyId, Entry>,
    /// The revision and cluster of the source's view; `None` = not read yet.
    source_at: Option<(Revision, u64)>,
    proof: Proof,
    copies: BTreeMap<CopyId, Entry>,
    checkpoint: Option<SeenCheckpoint>,
    destination_at: Option<Revision>,
    /// Keys below `manager/nodes/` that are not copies. They are left alone.
    foreign: BTreeSet<Key>,
    differing: BTreeSet<CopyId>,
    left_out: BTreeSet<CopyId>,
    /// Copies written after the checkpoint, that is by somebody else, although their values may be right.
    unconfirmed: BTreeSet<CopyId>,
    drift: u64,
}

impl Mirror {
    /// A mirror that has seen nothing.
    pub fn new(source_prefix: Prefix, destination_prefix: Prefix) -> Self {
        Mirror {
            source_prefix,
            destination_prefix,
            value_bytes_max: VALUE_BYTES_MAX,
            source: BTreeMap::new(),
            source_at: None,
            proof: Proof::Reread,
            copies: BTreeMap::new(),
            checkpoint: None,
            destination_at: None,
            foreign: BTreeSet::new(),
            differing: BTreeSet::new(),
            left_out: BTreeSet::new(),
            unconfirmed: BTreeSet::new(),
            drift: 0,
        }
    }

    /// Takes what the feed on the source's `nodes/` tells.
    pub fn apply_source(&mut self, update: Update) {
        match update {
            Update::Reset { revision, cluster_id, kvs, .. } => {
                self.source = kvs.iter().filter_map(|kv| Some((self.source_id(&kv.key)?, Entry::of(kv)))).collect();
                self.source_at = Some((revision, cluster_id));
                self.proof = Proof::Reread;
                self.compare_all();
            }
            Update::Events { revision, events } => {
                for event in &events {
                    let Some(id) = self.source_id(event.key()) else { continue };
                    match event {
                        Event::Put(kv) => self.source.insert(id.clone(), Entry::of(kv)),
                        Event::Delete { .. } => self.source.remove(&id),
                    };
                    self.compare(&id);
                }
                if let Some(at) = &mut self.source_at {
                    at.0 = revision;
                }
            }
        }
        self.settle();
    }

    /// Takes what the feed on the destination's `manager/nodes/` and `manager/checkpoint` tells.
    pub fn apply_destination(&mut self, update: Update) {
        match update {
            Update::Reset { revision, kvs, .. } => {
                self.copies.clear();
                self.foreign.clear();
                self.checkpoint = None;
                for kv in &kvs {
                    self.take_destination(kv);
                }
                self.destination_at = Some(revision);
                self.compare_all();
            }
            Update::Events { revision, events } => {
                // A write of the relay puts the checkpoint at the same revision; any other write is somebody else's.
                let checkpoint = self.destination_prefix.checkpoint();
                let cuts: BTreeSet<Revision> =
                    events.iter().filter(|event| *event.key() == checkpoint).map(Event::revision).collect();
                for event in &events {
                    let Some(id) = self.take_destination_event(event) else { continue };
                    self.compare(&id);
                    if !cuts.contains(&event.revision()) {
                        self.drift += 1;
                        self.unconfirmed.insert(id);
                    }
                }
                self.confirm();
                self.destination_at = Some(revision);
            }
        }
        self.settle();
    }

    fn take_destination(&mut self, kv: &KeyValue) {
        match self.destination_prefix.parse(&kv.key) {
            ParsedKey::Checkpoint => {
                self.checkpoint = Some(SeenCheckpoint { value: Checkpoint::decode(&kv.value), mod_revision: kv.mod_revision });
            }
            ParsedKey::Copy(node, part) if NodePart::COPIED.contains(&part) => {
                self.copies.insert((node, part), Entry::of(kv));
            }
            _ => {
                self.foreign.insert(kv.key.clone());
            }
        }
    }

    /// Answers the copy that the event is about.
    fn take_destination_event(&mut self, event: &Event) -> Option<CopyId> {
        let parsed = self.destination_prefix.parse(event.key());
        match event {
            Event::Put(kv) => self.take_destination(kv),
            Event::Delete { key, .. } => match &parsed {
                ParsedKey::Checkpoint => self.checkpoint = None,
                ParsedKey::Copy(node, part) if NodePart::COPIED.contains(part) => {
                    self.copies.remove(&(node.clone(), *part));
                }
                _ => {
                    self.foreign.remove(key);
                }
            },
        }
        match parsed {
            ParsedKey::Copy(node, part) if NodePart::COPIED.contains(&part) => Some((node, part)),
            _ => None,
        }
    }

    fn source_id(&self, key: &Key) -> Option<CopyId> {
        match self.source_prefix.parse(key) {
            ParsedKey::Node(node, part) if NodePart::COPIED.contains(&part) => Some((node, part)),
            _ => None,
        }
    }

    /// The value that the destination should have.
    pub fn wanted(&self, id: &CopyId) -> Option<&Bytes> {
        wanted(self.source.get(id), self.value_bytes_max)
    }

    /// Keeps what is known of one key's difference up to date.
    fn compare(&mut self, id: &CopyId) {
        let (source, copy) = (self.source.get(id), self.copies.get(id));
        if is_equal(source, copy, self.value_bytes_max) {
            self.differing.remove(id);
        } else {
            self.differing.insert(id.clone());
        }
        if is_left_out(source, self.value_bytes_max) {
            self.left_out.insert(id.clone());
        } else {
            self.left_out.remove(id);
        }
    }

    /// Compares everything: both sides are walked together, in order.
    fn compare_all(&mut self) {
        self.differing.clear();
        self.left_out.clear();
        self.unconfirmed.clear();
        // Nothing is asked of it before both sides were read.
        if !self.is_complete() {
            return;
        }
        let max = self.value_bytes_max;
        let at = self.checkpoint_at();
        let (mut sources, mut copies) = (self.source.iter().peekable(), self.copies.iter().peekable());
        while let Some(id) = sources.peek().map(|(id, _)| *id).into_iter().chain(copies.peek().map(|(id, _)| *id)).min() {
            let source = sources.next_if(|(of, _)| *of == id).map(|(_, entry)| entry);
            let copy = copies.next_if(|(of, _)| *of == id).map(|(_, entry)| entry);
            if !is_equal(source, copy, max) {
                self.differing.insert(id.clone());
            }
            if is_left_out(source, max) {
                self.left_out.insert(id.clone());
            }
            if copy.is_some_and(|copy| copy.mod_revision > at) {
                self.unconfirmed.insert(id.clone());
            }
        }
    }

    /// When the checkpoint was written.
    fn checkpoint_at(&self) -> Revision {
        self.checkpoint.as_ref().map_or(Revision::NONE, |checkpoint| checkpoint.mod_revision)
    }

    /// Keeps of `unconfirmed` what is newer than the checkpoint.
    fn confirm(&mut self) {
        let at = self.checkpoint_at();
        let copies = &self.copies;
        self.unconfirmed.retain(|id| copies.get(id).is_some_and(|copy| copy.mod_revision > at));
    }

    /// A view that was equal to the copies once proves each later deletion by its event.
    fn settle(&mut self) {
        if self.is_complete() && self.differing.is_empty() {
            self.proof = Proof::Proven;
        }
    }

    /// A second read of the source agreed with the view.
    pub fn prove(&mut self) {
        self.proof = Proof::Proven;
    }

    /// Takes smaller values only: the server refused a request of the usual size.
    pub fn limit_values(&mut self, value_bytes_max: usize) {
        self.value_bytes_max = value_bytes_max;
        self.compare_all();
    }

    /// The destination is to be listed again: what is known of it is void.
    pub fn forget_destination(&mut self) {
        self.destination_at = None;
    }

    /// The source is to be listed again: what is known of it is void.
    pub fn forget_source(&mut self) {
        self.source_at = None;
    }

    /// Whether both sides were read whole.
    pub fn is_complete(&self) -> bool {
        self.source_at.is_some() && self.destination_at.is_some()
    }

    /// The revision of the source's view; none before its first read.
    pub fn source_revision(&self) -> Revision {
        self.source_at.map_or(Revision::NONE, |(revision, _)| revision)
    }

    /// The source's cluster id as the checkpoint has it.
    pub fn source_cluster(&self) -> String {
        format!("{:x}", self.source_at.map_or(0, |(_, cluster)| cluster))
    }

    /// The revision of the destination's view; none before its first read.
    pub fn destination_revision(&self) -> Revision {
        self.destination_at.unwrap_or(Revision::NONE)
    }

    /// What the view of the source proves.
    pub fn proof(&self) -> Proof {
        self.proof
    }

    /// The checkpoint as seen.
    pub fn checkpoint(&self) -> Option<&SeenCheckpoint> {
        self.checkpoint.as_ref()
    }

    /// The checkpoint's value if it is there and readable.
    pub fn stored_checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref().and_then(|seen| seen.value.as_ref().ok())
    }

    /// What differs, in order.
    pub fn differing(&self) -> &BTreeSet<CopyId> {
        &self.differing
    }

    /// Copies that are to go because the source lacks them (not those of values that are left out).
    pub fn missing(&self) -> impl Iterator<Item = &CopyId> {
        self.differing.iter().filter(|id| !self.source.contains_key(*id))
    }

    /// Where the copy stands.
    pub fn copy_key(&self, (node, part): &CopyId) -> Key {
        self.destination_prefix.copy(node, *part)
    }

    /// Whether a copy is there, whatever its value.
    pub fn has_copy(&self, id: &CopyId) -> bool {
        self.copies.contains_key(id)
    }

    /// When the source's key was last written; `None` = the source lacks it.
    pub fn source_changed(&self, id: &CopyId) -> Option<Revision> {
        self.source.get(id).map(|entry| entry.mod_revision)
    }

    /// How many copies there are.
    pub fn copies(&self) -> usize {
        self.copies.len()
    }

    /// Whether the source holds nothing that is copied.
    pub fn source_is_empty(&self) -> bool {
        self.source.is_empty()
    }

    /// Source keys that are too large to copy.
    pub fn left_out(&self) -> &BTreeSet<CopyId> {
        &self.left_out
    }

    /// Copies that somebody else wrote after the checkpoint.
    pub fn unconfirmed(&self) -> &BTreeSet<CopyId> {
        &self.unconfirmed
    }

    /// Keys below `manager/nodes/` that are not copies.
    pub fn foreign(&self) -> &BTreeSet<Key> {
        &self.foreign
    }

    /// Changes of copies by somebody else, since the start.
    pub fn drift(&self) -> u64 {
        self.drift
    }
}
