//! What a document would do to nodes: what must not be done, and for how many nodes something changes. Pure.

use std::collections::BTreeMap;

use super::{Change, Step};
use crate::cli::content::{Content, stored};
use crate::model::assignment::{Assignment, Terms};
use crate::model::documents::Document;
use crate::model::fault::Fault;
use crate::model::group::Group;
use crate::model::label::Label;
use crate::model::names::{GroupName, NodeId, Revision};
use crate::model::pool::Pool;
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

/// Writes into each step what it would do.
pub(super) fn describe(steps: &mut [Step], documents: &[Document], source: &Content, manager: &Content) {
    let pools = pools_effect(documents, source);
    for (step, document) in steps.iter_mut().zip(documents) {
        if !matches!(step.change, Change::Create | Change::Update) {
            continue;
        }
        step.effect = match document {
            Document::Pool(_) => pools.clone(),
            Document::Group(group) => group_effect(group, manager),
        };
    }
}

/// The planner itself is asked, before and after: nodes whose next answer would be another one.
fn pools_effect(documents: &[Document], source: &Content) -> String {
    let before = source.snapshot();
    let mut after = before.clone();
    for document in documents {
        if let Document::Pool(wanted) = document {
            let name = wanted.name.clone();
            let seen = after.pools.get(&name).map_or(Revision::NONE, |stored| stored.mod_revision);
            let stored = Stored { value: Ok(wanted.clone()), create_revision: seen, mod_revision: seen, leased: false };
            after.pools.insert(name, stored);
        }
    }
    let changed = difference(&answers(&before), &answers(&after));
    match changed {
        0 => " (no node's answer changes)".into(),
        1 => " (together: another answer for 1 node)".into(),
        many => format!(" (together: another answer for {many} nodes)"),
    }
}

/// What each node would have after the next pass.
fn answers(snapshot: &Snapshot) -> BTreeMap<NodeId, String> {
    let changes = plan(snapshot, &Pass::default()).changes;
    changes.into_iter().map(|change| (change.node, format!("{:?}{:?}", change.action, change.writes))).collect()
}

fn difference(before: &BTreeMap<NodeId, String>, after: &BTreeMap<NodeId, String>) -> usize {
    let changed = before.iter().filter(|(node, answer)| after.get(*node) != Some(answer)).count();
    changed + after.keys().filter(|node| !before.contains_key(*node)).count()
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
