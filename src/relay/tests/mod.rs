//! The relay's pure parts, on a store small enough to see through. Killed, repeated and interleaved at every point.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod check;
mod cuts;
mod guard;
mod property;
mod role;

use std::collections::BTreeMap;

use super::cut::{Limits, Part, next_part, transaction};
use super::diff::Mirror;
use crate::model::names::Revision;
use crate::store::api::{Compare, Event, Key, KeyRange, KeyValue, Op, Txn};
use crate::store::committer::Fence;
use crate::store::feed::Update;
use crate::store::keys::Prefix;
use crate::store::wire::{Checkpoint, Stored};
use bytes::Bytes;

/// As much of etcd as a cut needs: puts, deletes, nested transactions, one revision for each request.
#[derive(Debug, Clone, Default)]
struct Tiny {
    revision: i64,
    kvs: BTreeMap<Key, KeyValue>,
}

impl Tiny {
    fn write(&mut self, key: &str, value: Option<&[u8]>) -> Vec<Event> {
        self.revision += 1;
        let op = value.map_or_else(|| Op::delete(key), |value| Op::put(key, value.to_vec()));
        self.apply(&op)
    }

    fn apply(&mut self, op: &Op) -> Vec<Event> {
        let at = Revision(self.revision);
        match op {
            Op::Put { key, value, lease } => {
                let old = self.kvs.get(key);
                let kv = KeyValue {
                    key: key.clone(),
                    value: value.clone(),
                    create_revision: old.map_or(at, |old| old.create_revision),
                    mod_revision: at,
                    version: old.map_or(1, |old| old.version + 1),
                    lease: *lease,
                };
                self.kvs.insert(key.clone(), kv.clone());
                vec![Event::Put(kv)]
            }
            Op::Delete(range) => {
                let gone: Vec<Key> = self.kvs.keys().filter(|key| range.contains(key)).cloned().collect();
                gone.into_iter()
                    .map(|key| {
                        self.kvs.remove(&key);
                        Event::Delete { key, mod_revision: at }
                    })
                    .collect()
            }
            Op::Txn(txn) => {
                assert!(txn.compares.is_empty());
                txn.then.iter().flat_map(|op| self.apply(op)).collect()
            }
            Op::Get(_) => Vec::new(),
        }
    }

    /// `None` = a compare failed.
    fn txn(&mut self, txn: &Txn) -> Option<Vec<Event>> {
        let holds = txn.compares.iter().all(|compare| match compare {
            Compare::Modified(key, at) => self.kvs.get(key).map_or(Revision::NONE, |kv| kv.mod_revision) == *at,
            Compare::Created(key, at) => self.kvs.get(key).map_or(Revision::NONE, |kv| kv.create_revision) == *at,
            Compare::Value(..) | Compare::Empty(_) => unreachable!("no cut compares a value or a range"),
        });
        holds.then(|| {
            self.revision += 1;
            txn.then.iter().flat_map(|op| self.apply(op)).collect()
        })
    }

    fn read(&self, ranges: &[KeyRange]) -> Vec<KeyValue> {
        let wanted = |kv: &&KeyValue| ranges.iter().any(|range| range.contains(&kv.key));
        self.kvs.values().filter(wanted).cloned().collect()
    }

    fn reset(&self, ranges: &[KeyRange]) -> Update {
        Update::Reset { revision: Revision(self.revision), cluster_id: 7, kvs: self.read(ranges), stepped_back: false }
    }
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// A source, a destination and a relay between them.
#[derive(Debug, Clone)]
struct World {
    source: Tiny,
    destination: Tiny,
    mirror: Mirror,
    limits: Limits,
    fence: Fence,
    name: String,
    /// What the source held at each revision.
    history: BTreeMap<i64, BTreeMap<String, Bytes>>,
}

impl World {
    fn new() -> Self {
        let mut destination = Tiny::default();
        destination.write("/d/leaders/relay/1", Some(b""));
        let mut world = World {
            source: Tiny::default(),
            destination,
            mirror: Mirror::new(prefix("/s"), prefix("/d")),
            limits: Limits::default(),
            fence: Fence { key: "/d/leaders/relay/1".into(), created: Revision(1) },
            name: "edge".into(),
            history: BTreeMap::new(),
        };
        world.restart();
        world
    }

    fn restart(&mut self) {
        self.mirror = Mirror::new(prefix("/s"), prefix("/d"));
        self.reread_source();
        self.reread_destination();
    }

    fn reread_source(&mut self) {
        self.mirror.apply_source(self.source.reset(&[prefix("/s").folder("nodes")]));
        self.record();
    }

    fn reread_destination(&mut self) {
        let ranges = [KeyRange::one("/d/manager/checkpoint"), prefix("/d").folder("manager/nodes")];
        self.mirror.apply_destination(self.destination.reset(&ranges));
    }

    fn record(&mut self) {
        let copied = |kv: &KeyValue| {
            let key = kv.key.as_str().unwrap().strip_prefix("/s/").unwrap().to_owned();
            ["label", "status", "assignment"].iter().any(|part| key.ends_with(part)).then(|| (key, kv.value.clone()))
        };
        let state = self.source.kvs.values().filter_map(copied).collect();
        self.history.insert(self.source.revision, state);
    }

    /// Writes at the source; the relay is told.
    fn put(&mut self, key: &str, value: &str) {
        let events = self.source.write(&format!("/s/nodes/{key}"), Some(value.as_bytes()));
        self.tell_source(events);
    }

    fn delete(&mut self, key: &str) {
        let events = self.source.write(&format!("/s/nodes/{key}"), None);
        self.tell_source(events);
    }

    fn tell_source(&mut self, events: Vec<Event>) {
        self.record();
        self.mirror.apply_source(Update::Events { revision: Revision(self.source.revision), events });
    }

    /// Somebody writes at the destination; the relay is told.
    fn meddle(&mut self, key: &str, value: Option<&str>) {
        let events = self.destination.write(&format!("/d/manager/{key}"), value.map(str::as_bytes));
        self.tell_destination(events);
    }

    fn tell_destination(&mut self, events: Vec<Event>) {
        self.mirror.apply_destination(Update::Events { revision: Revision(self.destination.revision), events });
    }

    fn next(&self) -> Option<Part> {
        next_part(&self.mirror, &self.name, self.limits)
    }

    fn txn(&self, part: &Part) -> Txn {
        transaction(part, &prefix("/d"), &self.fence, self.limits)
    }

    /// Writes one part; answers it.
    fn step(&mut self) -> Option<Part> {
        let part = self.next()?;
        let events = self.destination.txn(&self.txn(&part)).expect("nothing came between");
        self.tell_destination(events);
        Some(part)
    }

    /// Writes until nothing is left; answers the parts.
    fn run(&mut self) -> Vec<Part> {
        std::iter::from_fn(|| self.step()).take(1000).collect()
    }

    fn checkpoint(&self) -> Option<Checkpoint> {
        Some(Checkpoint::decode(&self.destination.kvs.get(&"/d/manager/checkpoint".into())?.value).unwrap())
    }

    fn copies(&self) -> BTreeMap<String, Bytes> {
        let copies = self.destination.read(&[prefix("/d").folder("manager/nodes")]);
        copies.iter().map(|kv| (kv.key.as_str().unwrap().replace("/d/manager/", ""), kv.value.clone())).collect()
    }

    fn assert_equal(&self) {
        assert_eq!(self.checkpoint().unwrap().partial, None);
        assert_eq!(self.copies(), *self.history.get(&self.source.revision).unwrap());
    }
}
