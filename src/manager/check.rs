//! Whether the groups are what definitions and copies say. Pure; for `enlist check` and for tests.

use crate::manager::diff::GroupChange;
use crate::manager::view::View;
use crate::model::finding::Finding;
use crate::model::names::{NodeId, Revision};
use crate::store::api::{KeyValue, RangeResponse};
use crate::store::feed::Update;
use crate::store::keys::Prefix;

/// Compares `groups/`, `manager/` and `brakes/manager`, read at one revision. Without a complete checkpoint nothing can be
/// said of members. On a live system a change may be under way: ask again before you believe a `member-…` or `summary-…`.
pub fn check(prefix: &Prefix, groups: &RangeResponse, manager: &RangeResponse, brake: Option<&KeyValue>) -> Vec<Finding> {
    let mut view = View::new(prefix.clone());
    view.apply_groups(reset(groups.header.revision, groups.kvs.clone()));
    view.apply_brake(reset(groups.header.revision, brake.cloned().into_iter().collect()));
    view.apply_manager(reset(manager.header.revision, manager.kvs.clone()));
    let mut findings: Vec<Finding> = view.plan().iter().flat_map(|change| differences(prefix, change)).collect();
    findings.extend(view.findings());
    findings.sort();
    findings
}

fn reset(revision: Revision, kvs: Vec<KeyValue>) -> Update {
    Update::Reset { revision, cluster_id: 0, kvs, stepped_back: false }
}

fn differences(prefix: &Prefix, change: &GroupChange) -> Vec<Finding> {
    let segment = change.group.segment();
    let member_key = |node: &NodeId| prefix.relative(&prefix.member(&segment, node));
    let mut findings: Vec<Finding> = change
        .members
        .iter()
        .map(|(node, seen, member)| match (*seen, member) {
            (Revision::NONE, _) => Finding::about("member-missing", member_key(node), "the selector wants it"),
            (_, None) => Finding::about("member-stale", member_key(node), "nothing wants it"),
            (_, Some(member)) => {
                let published = if member.published { "published" } else { "not published" };
                let message = format!("should be {} and {published}, or has other addresses or ports", member.state);
                Finding::about("member-differs", member_key(node), message)
            }
        })
        .collect();
    if let Some((seen, summary)) = &change.summary {
        let key = prefix.relative(&prefix.summary(&segment));
        findings.push(match (*seen, summary) {
            (Revision::NONE, _) => Finding::about("summary-missing", key, "the group has no summary"),
            (_, None) => Finding::about("summary-stale", key, "no definition has this group"),
            (_, Some(_)) => Finding::about("summary-differs", key, "it is not what the group holds"),
        });
    }
    findings
}
