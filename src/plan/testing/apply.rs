//! Executes changes on a snapshot, with their compares: what the store would do.

use std::collections::BTreeSet;

use crate::model::claim::ClaimKey;
use crate::model::names::Revision;
use crate::plan::change::{Change, Compare, Plan, Subject, Write};
use crate::plan::snapshot::{NodeRecord, Snapshot, Stored};

/// Executes all changes of a plan, one request each. Those that lost are returned with the compare that failed.
pub fn apply(snapshot: &Snapshot, plan: &Plan) -> (Snapshot, Vec<(Change, Compare)>) {
    let mut next = snapshot.clone();
    let mut lost = Vec::new();
    for change in &plan.changes {
        if let Err(compare) = apply_change(&mut next, change) {
            lost.push((change.clone(), compare));
        }
    }
    (next, lost)
}

/// Executes one change.
///
/// # Errors
/// The compare that does not hold; nothing is written then.
pub fn apply_change(snapshot: &mut Snapshot, change: &Change) -> Result<(), Compare> {
    let subjects: Vec<Subject> = change.writes.iter().map(Write::subject).collect();
    let once: BTreeSet<&Subject> = subjects.iter().collect();
    assert_eq!(once.len(), subjects.len(), "a key is written twice: {change:#?}");
    if let Some(compare) = change.compares.iter().find(|compare| !holds(snapshot, compare)) {
        return Err(compare.clone());
    }
    snapshot.revision = snapshot.revision.next();
    change.writes.iter().for_each(|write| apply_write(snapshot, write));
    if snapshot.nodes.get(&change.node).is_some_and(NodeRecord::is_empty) {
        snapshot.nodes.remove(&change.node);
    }
    Ok(())
}

fn holds(snapshot: &Snapshot, compare: &Compare) -> bool {
    match compare {
        Compare::Modified(subject, revision) => revisions(snapshot, subject).1 == *revision,
        Compare::Created(subject, revision) => revisions(snapshot, subject).0 == *revision,
        Compare::NoPortsClaimed(domain, ip) => {
            let key = |port| ClaimKey { domain: domain.clone(), ip: *ip, port: Some(port) };
            let is_under = |address: &ClaimKey| address.domain == *domain && address.ip == *ip;
            snapshot.claims.range(key(0)..=key(u16::MAX)).next().is_none() && !snapshot.strays.values().any(is_under)
        }
    }
}

/// create_revision and mod_revision of a key.
fn revisions(snapshot: &Snapshot, subject: &Subject) -> (Revision, Revision) {
    fn of<T>(stored: Option<&Stored<T>>) -> (Revision, Revision) {
        stored.map_or((Revision::NONE, Revision::NONE), |stored| (stored.create_revision, stored.mod_revision))
    }
    let record = |node| snapshot.nodes.get(node);
    match subject {
        Subject::Label(node) => of(record(node).and_then(|record| record.label.as_ref())),
        Subject::Status(node) => of(record(node).and_then(|record| record.status.as_ref())),
        Subject::Assignment(node) => of(record(node).and_then(|record| record.assignment.as_ref())),
        Subject::Hold(node) => of(record(node).and_then(|record| record.hold.as_deref())),
        Subject::Clock(node) => of(record(node).and_then(|record| record.clock.as_deref())),
        Subject::Claim(key) => of(snapshot.claims.get(key)),
    }
}

/// A value as it is stored by a put at the present revision.
pub fn put<T>(before: Option<&Stored<T>>, revision: Revision, value: T, leased: bool) -> Stored<T> {
    let create_revision = before.map_or(revision, |before| before.create_revision);
    Stored { value: Ok(value), create_revision, mod_revision: revision, leased }
}

fn apply_write(snapshot: &mut Snapshot, write: &Write) {
    let revision = snapshot.revision;
    let claims = &mut snapshot.claims;
    match write {
        Write::Assignment(node, value) => {
            let record = snapshot.nodes.entry(node.clone()).or_default();
            record.assignment = Some(put(record.assignment.as_ref(), revision, value.clone(), false));
        }
        Write::Hold(node, value) => {
            let record = snapshot.nodes.entry(node.clone()).or_default();
            record.hold = Some(Box::new(put(record.hold.as_deref(), revision, value.clone(), false)));
        }
        Write::Clock(node, seconds) => {
            assert!(*seconds > 0, "etcd grants no lease of 0 s");
            let record = snapshot.nodes.entry(node.clone()).or_default();
            record.clock = Some(Box::new(put(record.clock.as_deref(), revision, (), true)));
        }
        Write::Bind(key, value) => {
            assert!(value.is_bound());
            let stored = put(claims.get(key), revision, value.clone(), false);
            claims.insert(key.clone(), stored);
        }
        Write::Cool(key, value, seconds) => {
            assert!(!value.is_bound() && *seconds > 0);
            let stored = put(claims.get(key), revision, value.clone(), true);
            claims.insert(key.clone(), stored);
        }
        Write::Delete(Subject::Claim(key)) => {
            claims.remove(key);
        }
        Write::Delete(Subject::Label(node)) => with(snapshot, node, |record| record.label = None),
        Write::Delete(Subject::Status(node)) => with(snapshot, node, |record| record.status = None),
        Write::Delete(Subject::Assignment(node)) => with(snapshot, node, |record| record.assignment = None),
        Write::Delete(Subject::Hold(node)) => with(snapshot, node, |record| record.hold = None),
        Write::Delete(Subject::Clock(node)) => with(snapshot, node, |record| record.clock = None),
    }
}

fn with(snapshot: &mut Snapshot, node: &crate::model::names::NodeId, change: impl FnOnce(&mut NodeRecord)) {
    if let Some(record) = snapshot.nodes.get_mut(node) {
        change(record);
    }
}
