//! All of the manager but etcd: from the events of a copied label to what is to be written.

use anyhow::ensure;
use bytes::Bytes;
use serde::Serialize;

use super::fleet_of_labels::{Tenants, group_name};
use super::nodes::{id, values};
use super::numbers::thread_seconds;
use crate::manager::diff::units;
use crate::manager::view::View;
use crate::model::documents::{Document, to_stored};
use crate::model::names::Revision;
use crate::store::api::{Event, Key, KeyValue, LeaseId, Op};
use crate::store::feed::Update;
use crate::store::keys::{NodePart, Prefix};
use crate::store::wire::{Checkpoint, Stored, VERSION};

/// What it costs.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ViewFigures {
    /// Microseconds of processor time for a label's change that touches no other group.
    pub change_us: f64,
    /// Milliseconds of processor time for the plan that writes all members for the first time.
    pub first_plan_ms: f64,
}

/// A view that is fed by hand.
struct Fed {
    prefix: Prefix,
    view: View,
    revision: Revision,
}

fn kv(key: Key, value: Bytes, at: Revision) -> KeyValue {
    KeyValue { key, value, create_revision: at, mod_revision: at, version: 1, lease: LeaseId::NONE }
}

impl Fed {
    fn new(tenants: &Tenants, groups: usize) -> anyhow::Result<Fed> {
        let (prefix, at) = (Prefix::default(), Revision(1));
        let mut fed = Fed { view: View::new(prefix.clone()), prefix, revision: at };
        let mut copies = vec![kv(fed.prefix.checkpoint(), fed.checkpoint(), at)];
        for n in 0..tenants.nodes {
            let node = values(n)?;
            let copy = |part| fed.prefix.copy(&node.id, part);
            copies.push(kv(copy(NodePart::Label), tenants.label(n, 0)?.encode(), at));
            copies.push(kv(copy(NodePart::Status), node.registered.encode(), at));
            copies.push(kv(copy(NodePart::Assignment), node.assignment.encode(), at));
        }
        let definitions = (0..groups).map(|tenant| {
            let document = Document::Group(Tenants::group(tenant)?);
            Ok(kv(fed.prefix.group(&group_name(tenant)?), to_stored(&document).into(), at))
        });
        let definitions = definitions.collect::<anyhow::Result<Vec<_>>>()?;
        let reset = |kvs| Update::Reset { revision: at, cluster_id: 1, kvs, stepped_back: false };
        fed.view.apply_manager(reset(copies));
        fed.view.apply_groups(reset(definitions));
        fed.view.apply_brake(reset(Vec::new()));
        Ok(fed)
    }

    fn checkpoint(&self) -> Bytes {
        let (source, cluster) = ("default".to_owned(), "1".to_owned());
        Checkpoint { v: VERSION, source, cluster, revision: self.revision, partial: None, left_out: Vec::new() }.encode()
    }

    /// Writes what is planned, and shows it to the view. Answers how many writes that were.
    fn settle(&mut self) -> usize {
        let changes = self.view.plan();
        self.revision = self.revision.next();
        let ops = changes.iter().flat_map(|change| units(change, &self.prefix)).flat_map(|unit| unit.writes);
        let events: Vec<Event> = ops.filter_map(|op| event(op, self.revision)).collect();
        let count = events.len();
        self.view.apply_manager(Update::Events { revision: self.revision, events });
        count
    }
}

fn event(op: Op, at: Revision) -> Option<Event> {
    match op {
        Op::Put { key, value, .. } => Some(Event::Put(kv(key, value, at))),
        Op::Delete(range) => Some(Event::Delete { key: range.start, mod_revision: at }),
        _ => None,
    }
}

/// Measures it at so many groups.
///
/// # Errors
/// When the plan writes something that it should not, which would make the figures worthless.
pub fn measure(tenants: &Tenants, groups: usize, changes: usize) -> anyhow::Result<ViewFigures> {
    let mut fed = Fed::new(tenants, groups)?;
    let began = thread_seconds()?;
    let written = fed.settle();
    let first_plan_ms = (thread_seconds()? - began) * 1e3;
    let (expected, again) = (groups + tenants.members(groups), fed.settle());
    ensure!(written == expected && again == 0, "{written} and {again} keys were planned, not {expected} and 0");
    let mut busy = 0.0;
    for n in 0..changes {
        let node = tenants.changed(n);
        let at = fed.revision.next();
        fed.revision = at;
        let label = kv(fed.prefix.copy(&id(node)?, NodePart::Label), tenants.label(node, n + 1)?.encode(), at);
        let checkpoint = kv(fed.prefix.checkpoint(), fed.checkpoint(), at);
        let events = vec![Event::Put(label), Event::Put(checkpoint)];
        let began = thread_seconds()?;
        fed.view.apply_manager(Update::Events { revision: at, events });
        let planned = fed.view.plan().len();
        busy += thread_seconds()? - began;
        ensure!(planned == 0, "a change that moves nobody made the manager write {planned} groups");
    }
    Ok(ViewFigures { change_us: busy * 1e6 / changes as f64, first_plan_ms })
}
