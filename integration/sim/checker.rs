//! What must always hold, checked on every revision of a run's history, and what must hold after quiet.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use enlist::agent::sim::SimMachine;
use enlist::allocator::{Listing, View};
use enlist::model::hold::HoldState;
use enlist::model::names::{NodeId, Revision};
use enlist::plan::snapshot::NodeRecord;
use enlist::store::api::{Event, Key, KeyValue};
use enlist::store::feed::{Collect as _, Update};
use enlist::store::keys::{NodePart, ParsedKey};
use enlist::store::memory::MemoryEtcd;
use enlist::store::wire::{Checkpoint, Stored as _};

use super::script::Node;
use super::timeline::{Era, Timeline, apply};
use super::world::World;
use crate::history::quiet::{self, Content, not_settled};
use crate::history::source::Walk;
use crate::history::steps::Allowed;

/// Walks both histories. Answers what is wrong, first things first; or how many revisions were checked.
pub(crate) fn history(source: &Timeline, destination: &Timeline, allowed: Allowed) -> Result<u64, String> {
    let revisions = walk(source, allowed)?;
    views(source.etcd())?;
    Ok(revisions + copies(&source.eras(), &destination.eras())?)
}

/// A view that was fed events, from wherever it started, is what a reading of everything gives.
fn views(etcd: &MemoryEtcd) -> Result<(), String> {
    let last = etcd.revision();
    // As a role lists it: without what no pass looks at.
    let read = |revision: Revision| {
        let mut listing = Listing::new(World::prefix());
        listing.page(etcd.at_revision(revision).into_values().collect());
        listing
    };
    for start in [Revision(1), Revision(last.0 / 2)] {
        let mut view = View::new(World::prefix());
        view.apply(Update::Reset { revision: start, cluster_id: 0, kvs: read(start), stepped_back: false });
        for (revision, events) in etcd.history_from(start.next()) {
            view.apply(Update::Events { revision, events });
        }
        let (fed, whole) = (view.snapshot(), read(last).into_snapshot(last));
        if format!("{fed:?}") != format!("{whole:?}") {
            return Err(format!("a view from {start:?} differs from what is stored at {last:?}: {fed:?} is not {whole:?}"));
        }
    }
    Ok(())
}

/// Walks a source's history.
pub(crate) fn walk(source: &Timeline, allowed: Allowed) -> Result<u64, String> {
    let mut revisions = 0;
    for (number, era) in source.eras().into_iter().enumerate() {
        let allowed = Allowed { restored: number > 0, ..allowed };
        let mut walk = Walk::new(World::prefix(), allowed, source.times(number));
        for (revision, events) in era {
            let wrong = walk.take(revision, events);
            if !wrong.is_empty() {
                return Err(format!("store {number} {}", wrong.join("; ")));
            }
        }
        revisions += walk.revisions();
    }
    Ok(revisions)
}

/// Every destination state whose checkpoint is not partial equals some source state, and these never go backwards, except
/// when the source itself did. Answers how many such states there were.
fn copies(source: &[Era], destination: &[Era]) -> Result<u64, String> {
    let prefix = World::prefix();
    let mut checked = 0;
    for (number, era) in destination.iter().enumerate() {
        let mut copies: BTreeMap<Key, KeyValue> = BTreeMap::new();
        let mut last = (0, Revision::NONE);
        let mut states: Vec<Replay<'_>> = source.iter().map(Replay::new).collect();
        for (revision, events) in era {
            let ours = |event: &Event| matches!(prefix.parse(event.key()), ParsedKey::Copy(..) | ParsedKey::Checkpoint);
            events.iter().for_each(|event| apply(&mut copies, event));
            let Some(kv) = copies.get(&prefix.checkpoint()).filter(|_| events.iter().any(ours)) else { continue };
            let checkpoint = Checkpoint::decode(&kv.value).map_err(|error| format!("checkpoint at {revision:?}: {error}"))?;
            if checkpoint.partial.is_some() {
                continue;
            }
            let copied = copies.iter().filter(|(key, _)| matches!(prefix.parse(key), ParsedKey::Copy(..)));
            let copied: BTreeMap<_, _> = copied.map(|(key, kv)| (key.clone(), kv.value.clone())).collect();
            let equal = (0..states.len()).filter(|source| states[*source].copied_at(checkpoint.revision) == copied);
            let equal: Vec<_> = equal.map(|source| (source, checkpoint.revision)).collect();
            let at = format!("at {revision:?} of destination {number}");
            if equal.is_empty() {
                let states = states.iter_mut().map(|source| source.copied_at(checkpoint.revision));
                let differing: Vec<Vec<_>> = states.map(|wanted| differing(&wanted, &copied)).collect();
                return Err(format!("{at} the copies are not the source at {:?}: {differing:?}", checkpoint.revision));
            }
            // The first one that is no step back: a revision of the backup is one of both eras.
            last = *equal
                .iter()
                .find(|now| **now >= last)
                .ok_or_else(|| format!("{at}: copies went back from {last:?} to {:?}", checkpoint.revision))?;
            checked += 1;
        }
    }
    Ok(checked)
}

/// The keys that are not the same in both.
fn differing(a: &BTreeMap<Key, Bytes>, b: &BTreeMap<Key, Bytes>) -> Vec<Key> {
    let keys: BTreeSet<&Key> = a.keys().chain(b.keys()).collect();
    keys.into_iter().filter(|key| a.get(key) != b.get(key)).cloned().collect()
}

/// A source's past, walked forwards: what was copied of it at a revision.
struct Replay<'a> {
    era: &'a Era,
    upto: Revision,
    state: BTreeMap<Key, KeyValue>,
}

impl<'a> Replay<'a> {
    fn new(era: &'a Era) -> Self {
        Replay { era, upto: Revision::NONE, state: BTreeMap::new() }
    }

    fn copied_at(&mut self, revision: Revision) -> BTreeMap<Key, Bytes> {
        if revision < self.upto {
            (self.upto, self.state) = (Revision::NONE, BTreeMap::new());
        }
        if revision > self.upto {
            let events = self.era.range(self.upto.next()..=revision).flat_map(|(_, events)| events);
            events.for_each(|event| apply(&mut self.state, event));
            self.upto = revision;
        }
        let prefix = World::prefix();
        let copied = self.state.iter().filter_map(|(key, kv)| match prefix.parse(key) {
            ParsedKey::Node(node, part) if NodePart::COPIED.contains(&part) => Some((prefix.copy(&node, part), kv.value.clone())),
            _ => None,
        });
        copied.collect()
    }
}

/// What a world shows of itself when it should be quiet.
pub(crate) struct Sight<'a> {
    pub(crate) source: &'a MemoryEtcd,
    pub(crate) destination: &'a MemoryEtcd,
    /// The nodes whose agent runs, the machine of each, and whether it was ever installed anew.
    pub(crate) agents: Vec<(Node, &'a SimMachine, bool)>,
}

/// What is not yet as it should be; empty = all is quiet and right.
pub(crate) fn unrest(sight: &Sight<'_>) -> Vec<String> {
    let prefix = World::prefix();
    let source = content(sight.source);
    let snapshot = source.snapshot(&prefix);
    let mut unrest: Vec<String> = Vec::new();
    for (node, machine, reinstalled) in &sight.agents {
        let id: NodeId = format!("n{node}").parse().unwrap();
        let record = snapshot.nodes.get(&id).cloned().unwrap_or_default();
        // A silent earlier installation may only be cut off: a new one waits until its hold is over, which a brake may lengthen.
        // So does an agent that cannot know its own run again, because its label was deleted.
        let cannot_tell = *reinstalled || record.label.is_none();
        let waits_for_its_id = cannot_tell && record.status.is_none() && record.hold.is_some() && record.clock.is_some();
        if waits_for_its_id {
            continue;
        }
        if let Some(why) = not_settled(&record).or_else(|| uses_something_else(machine, &record)) {
            unrest.push(format!("{id} {why}"));
        }
    }
    // The clock of an absence that is over holds nothing.
    let runs = |record: &NodeRecord| {
        let hold = record.hold.as_deref().and_then(|hold| hold.ok());
        hold.is_some_and(|hold| hold.state != HoldState::Seen) && record.clock.is_some()
    };
    let left_alone = snapshot.nodes.iter().filter(|(_, record)| record.is_silent() && !runs(record));
    unrest.extend(left_alone.map(|(id, record)| format!("{id} is silent, and nobody holds or releases what it has: {record:?}")));
    unrest.extend(quiet::unrest(&prefix, &source, &content(sight.destination)));
    unrest
}

/// All that is stored, one key a line.
pub(crate) fn dump(sight: &Sight<'_>) -> String {
    let line = |kv: &KeyValue| format!("{:?} @{} {}", kv.key, kv.mod_revision, String::from_utf8_lossy(&kv.value));
    let of = |etcd: &MemoryEtcd| content(etcd).kvs.iter().map(line).collect::<Vec<_>>().join("\n");
    format!("source:\n{}\ndestination:\n{}", of(sight.source), of(sight.destination))
}

/// A node that is settled uses what it has, and nothing else.
fn uses_something_else(machine: &SimMachine, record: &NodeRecord) -> Option<String> {
    let bound = record.assignment.as_ref()?.ok()?.bound();
    let uses = machine.uses();
    let same = match (&uses, bound) {
        (Some(given), Some(bound)) => given.addresses == bound.addresses && given.ports == bound.ports,
        (None, None) => true,
        _ => false,
    };
    (!same).then(|| format!("uses {uses:?} and has {bound:?}"))
}

fn content(etcd: &MemoryEtcd) -> Content {
    Content { revision: etcd.revision(), kvs: etcd.at_revision(etcd.revision()).into_values().collect() }
}
