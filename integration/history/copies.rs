//! Checks the relay revision by revision: every state of the destination whose checkpoint is not partial equals the
//! source at the revision that it names, and these revisions never go back.

use std::collections::BTreeMap;

use bytes::Bytes;
use enlist::model::names::Revision;
use enlist::store::api::{Event, Key};
use enlist::store::keys::{NodePart, ParsedKey, Prefix};
use enlist::store::wire::{Checkpoint, Stored as _};

/// A walk through both histories at once. The history of the source is an iterator from its first revision on:
/// checkpoints never go back, so the position in it does not either.
pub(crate) struct Copies<I: Iterator<Item = (Revision, Vec<Event>)>> {
    prefix: Prefix,
    source: std::iter::Peekable<I>,
    /// By the key of the copy.
    wanted: BTreeMap<Key, Bytes>,
    copied: BTreeMap<Key, Bytes>,
    checkpoint: Option<Bytes>,
    at: Revision,
    states: u64,
}

impl<I: Iterator<Item = (Revision, Vec<Event>)>> Copies<I> {
    /// Starts before the first revision of the destination.
    pub(crate) fn new(prefix: Prefix, source: I) -> Copies<I> {
        let (wanted, copied) = (BTreeMap::new(), BTreeMap::new());
        Copies { prefix, source: source.peekable(), wanted, copied, checkpoint: None, at: Revision::NONE, states: 0 }
    }

    /// The number of complete states compared.
    pub(crate) fn states(&self) -> u64 {
        self.states
    }

    /// Takes the next revision of the destination. Returns its violation, if any.
    pub(crate) fn take(&mut self, revision: Revision, events: Vec<Event>) -> Option<String> {
        let mut touched = false;
        for event in events {
            match self.prefix.parse(event.key()) {
                ParsedKey::Copy(..) => apply(&mut self.copied, event.key().clone(), &event),
                ParsedKey::Checkpoint => self.checkpoint = value(&event),
                _ => continue,
            }
            touched = true;
        }
        let checkpoint = self.checkpoint.as_ref().filter(|_| touched)?;
        let checkpoint = match Checkpoint::decode(checkpoint) {
            Ok(checkpoint) => checkpoint,
            Err(error) => return Some(format!("checkpoint at {revision:?}: {error}")),
        };
        if checkpoint.partial.is_some() {
            return None;
        }
        if checkpoint.revision < self.at {
            return Some(format!("copies went back from {:?} to {:?} at {revision:?}", self.at, checkpoint.revision));
        }
        self.at = checkpoint.revision;
        self.states += 1;
        self.follow_source();
        (self.wanted != self.copied).then(|| {
            let keys: Vec<String> = self.differing().take(5).map(|key| key.to_string()).collect();
            format!("at {revision:?} the copies are not the source at {:?}: {}", self.at, keys.join(", "))
        })
    }

    fn follow_source(&mut self) {
        let at = self.at;
        while let Some((_, events)) = self.source.next_if(|(revision, _)| *revision <= at) {
            for event in events {
                match self.prefix.parse(event.key()) {
                    ParsedKey::Node(node, part) if NodePart::COPIED.contains(&part) => {
                        apply(&mut self.wanted, self.prefix.copy(&node, part), &event);
                    }
                    _ => {}
                }
            }
        }
    }

    fn differing(&self) -> impl Iterator<Item = &Key> {
        let keys = self.wanted.keys().chain(self.copied.keys().filter(|key| !self.wanted.contains_key(*key)));
        keys.filter(|key| self.wanted.get(*key) != self.copied.get(*key))
    }
}

fn value(event: &Event) -> Option<Bytes> {
    match event {
        Event::Put(kv) => Some(kv.value.clone()),
        Event::Delete { .. } => None,
    }
}

fn apply(map: &mut BTreeMap<Key, Bytes>, key: Key, event: &Event) {
    match value(event) {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}
