//! From what is seen to what is written: members and summaries, as differences. Pure.

use std::collections::BTreeSet;

use crate::manager::state::{self, WrittenMember};
use crate::manager::view::{Marked, View};
use crate::manager::written::{WrittenGroup, is_published};
use crate::model::group::{Group, GroupKey, Member};
use crate::model::names::{NodeId, PortName, Revision};
use crate::store::api::{Compare, Op};
use crate::store::committer::Unit;
use crate::store::keys::Prefix;
use crate::store::wire::{Condition, Stored, Summary, VERSION};

/// Writes in one all-or-nothing unit: several units still share a request.
const UNIT_WRITES: usize = 20;

/// What is to be written of one group.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupChange {
    /// The group.
    pub group: GroupKey,
    /// The node, the mod_revision seen of its key, and the member to write (`None` = deleted).
    pub members: Vec<(NodeId, Revision, Option<Member>)>,
    /// The mod_revision seen of its summary, and the summary to write (`None` = deleted), if it is to be written.
    pub summary: Option<(Revision, Option<Summary>)>,
}

/// What a definition wants of one group.
enum Want<'a> {
    /// Nothing: it is gone.
    Nothing,
    /// The nodes that are placed in it.
    Placed(&'a Group),
    /// What it is, whatever its definition says now.
    Frozen { message: &'a str, last: Option<&'a Group> },
}

impl View {
    /// The differences of all marked groups. What has none is no longer marked, be it a group or a node of one: while many come,
    /// each pass looks at those of that pass. Nothing before it is ready.
    pub fn plan(&mut self) -> Vec<GroupChange> {
        if !self.is_ready() {
            return Vec::new();
        }
        self.refuse();
        let changes: Vec<GroupChange> =
            self.marked.iter().filter_map(|(group, marked)| self.group_change(group, marked)).collect();
        let open = |change: &GroupChange| {
            let nodes = change.members.iter().map(|(node, _, _)| node.clone()).collect();
            (change.group.clone(), Marked::Nodes(nodes))
        };
        self.marked = changes.iter().map(open).collect();
        changes
    }

    /// The differences of one group; `None` = there are none.
    fn group_change(&self, group: &GroupKey, marked: &Marked) -> Option<GroupChange> {
        // A newer manager keeps it. What that wrote we would take for broken and overwrite, again and again.
        if self.written.newer(group).is_some() {
            return None;
        }
        let nothing = WrittenGroup::default();
        let written = self.written.get(group).unwrap_or(&nothing);
        let want = self.want(group);
        let port = only_port(&want, written);
        let (mut count, mut published) = (written.members.len() as u64, written.published);
        let mut members = Vec::new();
        for node in self.nodes_to_see(group, marked, &want, written) {
            let stored = written.members.get(node);
            let member = self.wanted_member(group, node, &want, port, stored);
            let member = member.filter(|member| stored.is_some() || member.published || !self.deferred.contains(node));
            count = count + u64::from(member.is_some()) - u64::from(stored.is_some());
            published = published + u64::from(member.as_ref().is_some_and(|member| member.published))
                - u64::from(stored.is_some_and(is_published));
            if stored.map(|stored| stored.member.as_ref()) != member.as_ref().map(Some) {
                members.push((node.clone(), stored.map_or(Revision::NONE, |stored| stored.mod_revision), member));
            }
        }
        let wanted = self.exists(group, &want, count).then(|| Summary {
            v: VERSION,
            group: group.to_string(),
            selector: selector_text(&want, written),
            members: count,
            published,
            condition: match want {
                Want::Frozen { message, .. } => Condition::Frozen { message: message.to_owned() },
                _ => Condition::Ok,
            },
            revision: self.source_revision(),
        });
        let summary = self.summary_change(written, wanted, !members.is_empty());
        (summary.is_some() || !members.is_empty()).then(|| GroupChange { group: group.clone(), members, summary })
    }

    fn want(&self, group: &GroupKey) -> Want<'_> {
        let Some(definition) = self.definitions.get(group.name()) else { return Want::Nothing };
        if let Some(message) = &definition.fault {
            return Want::Frozen { message, last: definition.group.as_ref() };
        }
        let is_refused = self.refused.get(group.name()).is_some_and(|refused| refused.contains(group));
        match definition.usable() {
            Some(definition) if is_of(group, definition) && !is_refused => Want::Placed(definition),
            _ => Want::Nothing,
        }
    }

    fn nodes_to_see<'a>(
        &'a self,
        group: &GroupKey,
        marked: &'a Marked,
        want: &Want<'_>,
        written: &'a WrittenGroup,
    ) -> BTreeSet<&'a NodeId> {
        match (marked, want) {
            (Marked::Nodes(nodes), Want::Placed(_) | Want::Frozen { .. }) => nodes.iter().collect(),
            _ => self.roster.placed(group).into_iter().flatten().chain(written.members.keys()).collect(),
        }
    }

    fn wanted_member(
        &self,
        group: &GroupKey,
        node: &NodeId,
        want: &Want<'_>,
        port: Option<&PortName>,
        stored: Option<&WrittenMember>,
    ) -> Option<Member> {
        let belongs = match want {
            Want::Nothing => false,
            // A node whose label cannot be read stays where it is.
            Want::Placed(_) => {
                self.roster.placed(group).is_some_and(|nodes| nodes.contains(node))
                    || (stored.is_some() && self.roster.is_unreadable(node))
            }
            Want::Frozen { .. } => stored.is_some(),
        };
        let record = self.copies.nodes().get(node).filter(|_| belongs)?;
        state::member(node, record, port, self.caution, stored)
    }

    /// Whether the group has a summary. A keyed one is there while it has members.
    fn exists(&self, group: &GroupKey, want: &Want<'_>, members: u64) -> bool {
        match want {
            Want::Nothing => false,
            Want::Placed(definition) => definition.keyed_by.is_empty() || members > 0,
            // Frozen before it ever had a group: the condition must be seen somewhere.
            Want::Frozen { .. } => {
                self.written.get(group).is_some() || (group.values().is_empty() && self.written.of(group.name()).next().is_none())
            }
        }
    }

    fn summary_change(
        &self,
        written: &WrittenGroup,
        wanted: Option<Summary>,
        members_change: bool,
    ) -> Option<(Revision, Option<Summary>)> {
        let (stored, seen) = match &written.summary {
            None => (None, Revision::NONE),
            Some((stored, seen)) => (Some(stored), *seen),
        };
        let equal = match (stored, &wanted) {
            (None, None) => true,
            // The revision alone is no reason to write: a quiet group rests on newer copies than it says.
            (Some(Some(stored)), Some(wanted)) => {
                !members_change && *stored == Summary { revision: stored.revision, ..wanted.clone() }
            }
            _ => false,
        };
        (!equal).then_some((seen, wanted))
    }
}

/// Whether a group's variables are those that its definition is keyed by, in its order.
fn is_of(group: &GroupKey, definition: &Group) -> bool {
    group.values().iter().map(|(name, _)| name).eq(definition.keyed_by.iter())
}

/// The only port that members publish. A frozen group whose definition this process never saw in order tells it by its
/// members.
fn only_port<'a>(want: &Want<'a>, written: &'a WrittenGroup) -> Option<&'a PortName> {
    match want {
        Want::Nothing => None,
        Want::Placed(group) => group.port.as_ref(),
        Want::Frozen { last: Some(group), .. } => group.port.as_ref(),
        Want::Frozen { last: None, .. } => {
            let members = written.members.values().filter_map(|stored| stored.member.as_ref());
            let names: BTreeSet<&PortName> = members.flat_map(|member| member.ports.keys()).collect();
            names.first().filter(|_| names.len() == 1).copied()
        }
    }
}

fn selector_text(want: &Want<'_>, written: &WrittenGroup) -> String {
    let group = match want {
        Want::Nothing => None,
        Want::Placed(group) => Some(*group),
        Want::Frozen { last, .. } => *last,
    };
    let stored = written.summary.as_ref().and_then(|(summary, _)| summary.as_ref());
    group.map(|group| group.selector.to_string()).or(stored.map(|s| s.selector.clone())).unwrap_or_default()
}

/// The units that write a change. Each compares what was seen of the keys it writes, so that a late one writes nothing.
pub fn units(change: &GroupChange, prefix: &Prefix) -> Vec<Unit> {
    let segment = change.group.segment();
    let mut units = vec![Unit::default()];
    let mut add = |compare: Compare, op: Op| {
        if units.last().is_some_and(|unit| unit.writes.len() >= UNIT_WRITES) {
            units.push(Unit::default());
        }
        if let Some(unit) = units.last_mut() {
            unit.compares.push(compare);
            unit.writes.push(op);
        }
    };
    for (node, seen, member) in &change.members {
        let key = prefix.member(&segment, node);
        let op = member.as_ref().map_or_else(|| Op::delete(key.clone()), |member| Op::put(key.clone(), member.encode()));
        add(Compare::Modified(key, *seen), op);
    }
    if let Some((seen, summary)) = &change.summary {
        let key = prefix.summary(&segment);
        let op = summary.as_ref().map_or_else(|| Op::delete(key.clone()), |summary| Op::put(key.clone(), summary.encode()));
        add(Compare::Modified(key, *seen), op);
    }
    units
}
