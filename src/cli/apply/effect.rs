//! What a document would do to nodes: what must not be done, and for how many nodes something changes. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, Step};
use crate::cli::content::{Content, stored};
use crate::model::assignment::{Assignment, Terms};
use crate::model::documents::Document;
use crate::model::fault::Fault;
use crate::model::group::Group;
use crate::model::label::Label;
use crate::model::names::{GroupName, NodeId, PoolName, Revision};
use crate::model::pool::{AtOnce, OnMismatch, Pool};
use crate::plan::change::{Change as PlannedChange, Note};
use crate::plan::index::Index;
use crate::plan::outside;
use crate::plan::pools::{PoolView, Pools};
use crate::plan::snapshot::{Snapshot, Stored};
use crate::plan::{Pass, plan};
use crate::store::keys::{NodePart, ParsedKey};

/// Why a pool must not become this: `None` = it may.
///
/// Domain and sharing say which keys an address is claimed under. A change while nodes have addresses would let the same
/// address be claimed twice under two names.
pub(super) fn forbidden(wanted: &Pool, source: &Content) -> Option<Fault> {
    let nodes = source.nodes();
    let terms = nodes
        .values()
        .filter_map(|record| record.assignment.as_ref()?.ok())
        .filter_map(|assignment| terms(assignment).find(|terms| terms.pool == wanted.name && differ(terms, wanted)));
    let differing: Vec<&Terms> = terms.collect();
    let first = differing.first()?;
    let field = if first.domain != wanted.domain { "domain" } else { "sharing" };
    let count = differing.len();
    let nodes = if count == 1 { "1 node has".into() } else { format!("{count} nodes have") };
    let message = format!("cannot be changed while {nodes} addresses of this pool (make another pool, and let them move)");
    Some(Fault { field, message })
}

fn terms(assignment: &Assignment) -> impl Iterator<Item = &Terms> {
    assignment.bound().map(|bound| &bound.terms).into_iter().chain(assignment.leaving.iter().map(|leaving| &leaving.terms))
}

fn differ(terms: &Terms, pool: &Pool) -> bool {
    terms.domain != pool.domain || terms.sharing != pool.sharing
}

/// What documents do beside what each of them says.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// A line for each node whose answer becomes another one.
    pub(super) nodes: Vec<String>,
    /// What an operator should know of the pools that are written.
    pub(super) notes: Vec<String>,
}

/// Writes into each step what it would do.
pub(super) fn describe(steps: &mut [Step], documents: &[Document], source: &Content, manager: &Content) -> Effects {
    let (before, after) = (source.snapshot(), with_documents(&source.snapshot(), documents));
    let changed = changed_answers(&before, &after);
    let index = Index::of(&before);
    let written: Vec<&Pool> = written_pools(steps, documents).collect();
    let notes = [outside_notes(&written, &after), overlap_notes(&written, &Pools::new(&after, &index))].concat();
    for (step, document) in steps.iter_mut().zip(documents) {
        if !matches!(step.change, Change::Create | Change::Update) {
            continue;
        }
        step.effect = match document {
            Document::Pool(pool) => pool_effect(pool, changed.len(), &index),
            Document::Group(group) => group_effect(group, manager),
        };
    }
    Effects { nodes: changed, notes }
}

fn written_pools<'d>(steps: &[Step], documents: &'d [Document]) -> impl Iterator<Item = &'d Pool> {
    steps.iter().zip(documents).filter_map(|(step, document)| match document {
        Document::Pool(pool) if matches!(step.change, Change::Create | Change::Update) => Some(pool),
        _ => None,
    })
}

/// Who keeps what a pool would not assign any more.
fn outside_notes(written: &[&Pool], after: &Snapshot) -> Vec<String> {
    let findings = outside::findings(after).into_iter();
    let of_written = findings.filter_map(|finding| {
        let name = finding.keys.first()?.strip_prefix("pools/")?;
        written.iter().any(|pool| pool.name.as_str() == name).then(|| format!("pool {name}: {}", finding.message))
    });
    of_written.collect()
}

/// Pools that overlap and may: an address that both list is assigned once.
fn overlap_notes(written: &[&Pool], pools: &Pools<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    for view in pools.iter().filter(|view| written.iter().any(|pool| pool.name == view.pool.name)) {
        for other in pools.iter().filter(|other| other.pool.name != view.pool.name && other.is_compatible(view)) {
            let is_told = other.pool.name < view.pool.name && written.iter().any(|pool| pool.name == other.pool.name);
            let Some(ip) = view.common(other).filter(|_| !is_told) else { continue };
            let (name, other, domain) = (&view.pool.name, &other.pool.name, &view.pool.domain);
            notes.push(format!(
                "pool {name} overlaps pool {other} in domain {domain} (both list {ip}): what both list is assigned once"
            ));
        }
    }
    notes
}

fn pool_effect(pool: &Pool, changed: usize, index: &Index) -> String {
    let at_once = match pool.on_mismatch {
        OnMismatch::Move => format!("; at most {} of its moves at a time", pool.move_at_once.of(index.users(&pool.name))),
        OnMismatch::Keep => String::new(),
    };
    match changed {
        0 => " (no node's answer changes)".into(),
        1 => format!(" (together: another answer for 1 node{at_once})"),
        many => format!(" (together: another answer for {many} nodes{at_once})"),
    }
}

/// Refuses documents that would put a pool out of order: the document's own, or one that is stored. A pool that is out of
/// order assigns nothing, so the nodes that rely on it would wait although nobody meant that.
pub(super) fn refuse_conflicts(steps: &mut [Step], documents: &[Document], source: &Content) {
    let before = source.snapshot();
    let after = with_documents(&before, documents);
    let index = Index::of(&before);
    let (pools_before, pools_after) = (Pools::new(&before, &index), Pools::new(&after, &index));
    // A pool that is written is judged by its own fault. One that is given and stays as it is can be put out like any other.
    let is_written = |step: &Step| matches!(step.change, Change::Create | Change::Update);
    let written = steps.iter().zip(documents).filter(|(step, _)| is_written(step));
    let written: BTreeSet<PoolName> = written
        .filter_map(|(_, document)| if let Document::Pool(pool) = document { Some(pool.name.clone()) } else { None })
        .collect();
    let put_out = |view: &&PoolView<'_>| {
        let was_in_order = pools_before.get(&view.pool.name).is_some_and(|view| view.fault.is_none());
        view.fault.is_some() && was_in_order && !written.contains(&view.pool.name)
    };
    for (step, document) in steps.iter_mut().zip(documents) {
        let Document::Pool(pool) = document else { continue };
        let Some(view) = pools_after.get(&pool.name) else { continue };
        if !matches!(step.change, Change::Create | Change::Update) {
            continue;
        }
        let message = view.fault.clone().or_else(|| {
            let in_the_way = |other: &PoolView<'_>| if other.is_compatible(view) { None } else { other.common(view) };
            let (other, ip) = pools_after.iter().filter(put_out).find_map(|other| Some((other, in_the_way(other)?)))?;
            let (name, sharing) = (&other.pool.name, other.pool.sharing);
            Some(format!(
                "pool {name} would assign nothing new: both would give {ip} in domain {}, but this one is {}, {name} is {sharing}; \
                 change one, or exclude the common part in one",
                pool.domain, pool.sharing
            ))
        });
        if let Some(message) = message {
            step.change = Change::Refused(Fault { field: "cidrs", message });
        }
    }
}

/// A snapshot as it would be with these pools. New ones are younger than all that are stored.
fn with_documents(before: &Snapshot, documents: &[Document]) -> Snapshot {
    let mut after = before.clone();
    for document in documents {
        if let Document::Pool(wanted) = document {
            let create_revision = before.pools.get(&wanted.name).map_or(Revision(i64::MAX), |stored| stored.create_revision);
            let stored = Stored { value: Ok(wanted.clone()), create_revision, mod_revision: Revision(i64::MAX), leased: false };
            after.pools.insert(wanted.name.clone(), stored);
        }
    }
    after
}

/// The planner itself is asked, before and after: nodes whose next answer would be another one, and which.
fn changed_answers(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let (before, after) = (answers(before), answers(after));
    let was = |node: &NodeId| before.get(node).map(|(writes, _)| writes);
    let changed = after.iter().filter(|(node, (writes, _))| was(node) != Some(writes));
    let lost = before.keys().filter(|node| !after.contains_key(*node));
    let lines = changed.map(|(node, (_, note))| format!("node {node}: {note}"));
    lines.chain(lost.map(|node| format!("node {node}: keeps the answer that it has"))).collect()
}

/// What each node would have after the next pass, if a pool moved all its nodes at once: what is written, and in words.
fn answers(snapshot: &Snapshot) -> BTreeMap<NodeId, (String, String)> {
    let mut snapshot = snapshot.clone();
    for pool in snapshot.pools.values_mut().filter_map(|stored| stored.value.as_mut().ok()) {
        pool.move_at_once = AtOnce::Percent(100);
    }
    let changes = plan(&snapshot, &Pass::default()).changes;
    let words = |note: &Note| if note.to.is_empty() { note.why.clone() } else { format!("{} -> {}", note.from, note.to) };
    let answer = |change: PlannedChange| {
        let words = words(&change.note);
        (change.node, (format!("{:?}{:?}", change.action, change.writes), words))
    };
    changes.into_iter().map(answer).collect()
}

/// How many of the copied labels would match, and how many match now.
fn group_effect(wanted: &Group, manager: &Content) -> String {
    let is_member =
        |group: &Group, label: &Label| group.selector.matches(&label.variables) && group.key_of(&label.variables).is_some();
    let before = definition(&wanted.name, manager);
    let labels: Vec<Label> = manager.parsed().filter_map(|(key, kv)| copied_label(&key, kv)).collect();
    let count = |group: &Group| labels.iter().filter(|label| is_member(group, label)).count();
    let now = before.as_ref().map_or(0, count);
    format!(" (members: {now} now, {} then)", count(wanted))
}

fn copied_label(key: &ParsedKey, kv: &crate::store::api::KeyValue) -> Option<Label> {
    match key {
        ParsedKey::Copy(_, NodePart::Label) => stored::<Label>(kv).value.ok(),
        _ => None,
    }
}

fn definition(name: &GroupName, manager: &Content) -> Option<Group> {
    let kv = manager.get(&manager.prefix.group(name))?;
    crate::cli::content::group(name, kv).value.ok()
}
