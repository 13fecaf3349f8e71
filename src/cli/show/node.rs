//! Nodes, as `get nodes` shows them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use serde::Serialize;

use super::{Shown, Stores, age_of, joined, pairs};
use crate::cli::content::Content;
use crate::cli::leads;
use crate::model::assignment::{Answer, Assignment};
use crate::model::group::GroupKey;
use crate::model::hold::HoldState;
use crate::model::names::NodeId;
use crate::model::status::Phase;
use crate::plan::snapshot::NodeRecord;
use crate::store::keys::ParsedKey;

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeObject {
    /// Its id.
    pub id: String,
    /// joining, waiting, registered, failed, draining, stopped, silent or released.
    pub phase: String,
    /// Why it is not registered: a waiting node's reason code, a failed one's message, an absent one's hold. Else empty.
    pub reason: String,
    /// What it has, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// By port name.
    pub ports: BTreeMap<String, u16>,
    /// Where its addresses come from; null = it has none.
    pub pool: Option<String>,
    /// The groups it is in; null = the manager's store is away.
    pub groups: Option<Vec<String>>,
    /// What selectors see.
    pub variables: BTreeMap<String, String>,
    /// Of its assignment; 0 = it has none.
    pub generation: i64,
    /// When the newest of its keys was written, as a store revision.
    pub revision: i64,
    /// When it joined with its present label (RFC 3339); empty = unknown.
    pub since: String,
}

impl Shown for NodeObject {
    const SOURCE: &'static [&'static str] = &["leaders/allocator", "nodes", "roles"];
    const MANAGER: &'static [&'static str] = &["manager/groups"];
    const HEADINGS: &'static [&'static str] = &["NODE", "PHASE", "ADDRESSES", "PORTS", "POOL", "GROUPS", "AGE"];
    const WIDE: &'static [&'static str] = &["REASON", "GENERATION", "VARIABLES"];
    const NARROW: &'static [&'static str] = &["GROUPS", "POOL", "PORTS"];
    const HAS_VARIABLES: bool = true;

    fn list(stores: Stores<'_>) -> Vec<Self> {
        let groups = stores.manager.map(groups_of_nodes);
        let nodes = stores.source.map(Content::nodes).unwrap_or_default();
        nodes.iter().map(|(id, record)| node(id, record, groups.as_ref())).collect()
    }

    fn name(&self) -> String {
        self.id.clone()
    }

    fn warning(stores: Stores<'_>) -> Option<String> {
        leads::no_allocator(stores.source?).map(str::to_owned)
    }

    /// What it had is given back: only its name is kept, for a month.
    fn is_hidden(&self) -> bool {
        self.phase == RELEASED
    }

    fn cells(&self, now: SystemTime) -> Vec<String> {
        let short_reason = self.phase == "waiting" && !self.reason.is_empty();
        vec![
            self.id.clone(),
            if short_reason { format!("{} ({})", self.phase, self.reason) } else { self.phase.clone() },
            joined(&self.addresses),
            pairs(&self.ports),
            self.pool.clone().unwrap_or_default(),
            self.groups.as_ref().map_or_else(|| "?".into(), joined),
            age_of(&self.since, now),
        ]
    }

    fn wide_cells(&self) -> Vec<String> {
        // Facts of the host are many and nearly the same on all: JSON has them.
        let own = self.variables.iter().filter(|(name, _)| !name.starts_with("host/"));
        vec![self.reason.clone(), self.generation.to_string(), pairs(own)]
    }

    fn variables(&self) -> Option<&BTreeMap<String, String>> {
        Some(&self.variables)
    }
}

/// One node. `groups` = the groups of every node that is in one.
pub fn node(id: &NodeId, record: &NodeRecord, groups: Option<&BTreeMap<NodeId, Vec<String>>>) -> NodeObject {
    let label = record.label.as_ref().and_then(|label| label.ok());
    let assignment = record.assignment.as_ref().and_then(|assignment| assignment.ok());
    let bound = assignment.and_then(Assignment::bound);
    let (phase, reason) = phase(record);
    NodeObject {
        id: id.to_string(),
        phase: phase.into(),
        reason,
        addresses: bound.map(|bound| bound.addresses.clone()).unwrap_or_default(),
        ports: bound.into_iter().flat_map(|bound| &bound.ports).map(|(name, port)| (name.to_string(), *port)).collect(),
        pool: bound.map(|bound| bound.terms.pool.to_string()),
        groups: groups.map(|groups| groups.get(id).cloned().unwrap_or_default()),
        variables: label.map(|label| label.variables.to_map()).unwrap_or_default(),
        generation: assignment.map_or(0, |assignment| assignment.generation.0),
        revision: newest(record),
        since: label.map(|label| label.since.clone()).unwrap_or_default(),
    }
}

/// The phase of a node that is away for longer than its hold.
const RELEASED: &str = "released";

/// The phase that people see, and why.
fn phase(record: &NodeRecord) -> (&'static str, String) {
    let (phase, reason) = phase_or_absence(record);
    let is_released = matches!(phase, "silent" | "stopped") && is_released(record);
    (if is_released { RELEASED } else { phase }, reason)
}

fn is_released(record: &NodeRecord) -> bool {
    record.hold.as_deref().and_then(|hold| hold.ok()).is_some_and(|hold| hold.state == HoldState::Released)
}

fn phase_or_absence(record: &NodeRecord) -> (&'static str, String) {
    let Some(status) = &record.status else { return ("silent", absence(record)) };
    let status = match &status.value {
        Ok(status) => status,
        Err(fault) => return ("failed", format!("its status cannot be read: {fault}")),
    };
    let assignment = record.assignment.as_ref().and_then(|assignment| assignment.ok());
    if record.is_unleased() {
        return ("silent", Some(absence(record)).filter(|held| !held.is_empty()).unwrap_or_else(|| "status on no lease".into()));
    }
    match status.phase {
        Phase::Draining => ("draining", status.message.clone()),
        Phase::Stopped => ("stopped", absence(record)),
        Phase::Left => ("stopped", "left".into()),
        Phase::Failed => ("failed", status.message.clone()),
        Phase::Joining | Phase::Registered => match assignment.map(|assignment| (&assignment.answer, assignment.generation)) {
            Some((Answer::Waiting(waiting), _)) => ("waiting", waiting.reason.to_string()),
            // Registered with an earlier generation: it has a new answer and is on its way to it.
            Some((Answer::Bound(_), generation)) if status.phase == Phase::Registered && status.generation == generation => {
                ("registered", String::new())
            }
            Some(_) => ("joining", status.message.clone()),
            None => ("joining", label_fault(record).unwrap_or_else(|| status.message.clone())),
        },
    }
}

fn label_fault(record: &NodeRecord) -> Option<String> {
    let fault = record.label.as_ref()?.value.as_ref().err()?;
    Some(format!("its label cannot be read: {fault}"))
}

/// What is known of a node that is away.
fn absence(record: &NodeRecord) -> String {
    let hold = record.hold.as_deref().and_then(|hold| hold.ok());
    match hold {
        None => String::new(),
        Some(hold) => match (hold.state, hold.extended, record.clock.is_some()) {
            (HoldState::Held, true, true) => "held by the brake".into(),
            (HoldState::Held, _, false) => "hold is over".into(),
            (HoldState::Seen | HoldState::Held, ..) => "held".into(),
            (HoldState::Released, ..) => "released".into(),
        },
    }
}

fn newest(record: &NodeRecord) -> i64 {
    let revisions = [
        record.label.as_ref().map(|stored| stored.mod_revision.0),
        record.status.as_ref().map(|stored| stored.mod_revision.0),
        record.assignment.as_ref().map(|stored| stored.mod_revision.0),
        record.hold.as_deref().map(|stored| stored.mod_revision.0),
    ];
    revisions.into_iter().flatten().max().unwrap_or_default()
}

/// The groups of every node that is in one, in the order of names.
pub fn groups_of_nodes(manager: &Content) -> BTreeMap<NodeId, Vec<String>> {
    let mut groups: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
    for (key, _) in manager.parsed() {
        if let ParsedKey::Member(segment, node) = key {
            groups.entry(node).or_default().push(group_name(&segment));
        }
    }
    groups
}

/// A group's name as people write it.
pub fn group_name(segment: &str) -> String {
    GroupKey::from_segment(segment).map_or_else(|_| segment.to_owned(), |key| key.to_string())
}
