//! Puts right what can be put right by compares alone: claims that no assignment accounts for (as the allocator itself
//! would), members and summaries that are not what the copies say (as the manager would). Every write compares what was
//! seen, so a role that is at work at the same time loses nothing, and neither does a node.
//!
//! Copies are the relay's alone: their revisions are fenced by its checkpoint. What people must decide stays a finding.

use anyhow::Context as _;

use super::Sites;
use crate::cli::content;
use crate::manager::diff::units;
use crate::plan::Pass;
use crate::plan::change::{Change, Compare as PlanCompare, Write};
use crate::plan::index::Index;
use crate::plan::repair::repair as plan_repair;
use crate::plan::world::World;
use crate::reconcile::{Site, Wall};
use crate::store::api::{Compare, LeaseId, Op, Txn};
use crate::store::keys::Prefix;
use crate::store::wire::Stored as _;

/// Repairs, and says what was done: one line each.
pub(super) async fn repair(sites: &Sites) -> anyhow::Result<Vec<String>> {
    let mut said = claims(&sites.source).await?;
    said.extend(members(&sites.manager).await?);
    Ok(said)
}

async fn claims(site: &Site) -> anyhow::Result<Vec<String>> {
    let snapshot = content::read(site, &["brakes", "claims", "nodes", "pools"]).await?.snapshot();
    let pass = Pass { now_text: Wall::system().now(), ..Pass::default() };
    let mut said = Vec::new();
    let index = Index::of(&snapshot);
    for change in plan_repair(&World::new(&snapshot, &index, &pass)).changes {
        let note = if change.note.why.is_empty() { "claims put right".to_owned() } else { change.note.why.clone() };
        let done = commit(site, &change).await.with_context(|| format!("failed to repair node {}", change.node))?;
        said.push(outcome(&format!("node {}: {note}", change.node), done));
    }
    Ok(said)
}

fn outcome(what: &str, done: bool) -> String {
    if done { format!("repaired {what}") } else { format!("left {what}: it changed in the same moment") }
}

/// One node's change as one transaction.
async fn commit(site: &Site, change: &Change) -> anyhow::Result<bool> {
    let mut then = Vec::new();
    for write in &change.writes {
        then.push(operation(site, write).await?);
    }
    let compares = change.compares.iter().map(|compare| comparison(&site.prefix, compare)).collect();
    Ok(site.store.txn(Txn { compares, then, otherwise: Vec::new() }).await?.succeeded)
}

fn comparison(prefix: &Prefix, compare: &PlanCompare) -> Compare {
    match compare {
        PlanCompare::Modified(subject, revision) => Compare::Modified(prefix.subject(subject), *revision),
        PlanCompare::Created(subject, revision) => Compare::Created(prefix.subject(subject), *revision),
        PlanCompare::NoPortsClaimed(domain, ip) => Compare::Empty(prefix.claims_under(domain, *ip)),
    }
}

/// A lease that is granted here and then not used, because a compare failed, runs out by itself.
async fn operation(site: &Site, write: &Write) -> anyhow::Result<Op> {
    let key = site.prefix.subject(&write.subject());
    let (value, lease_s) = match write {
        Write::Assignment(_, assignment) => (assignment.encode(), None),
        Write::Hold(_, hold) => (hold.encode(), None),
        Write::Clock(_, seconds) => (().encode(), Some(*seconds)),
        Write::Bind(_, claim) => (claim.encode(), None),
        Write::Cool(_, claim, seconds) => (claim.encode(), Some(*seconds)),
        Write::Delete(_) => return Ok(Op::delete(key)),
    };
    let lease = match lease_s {
        Some(seconds) => site.store.grant(seconds.max(1)).await?.0,
        None => LeaseId::NONE,
    };
    Ok(Op::Put { key, value, lease })
}

async fn members(site: &Site) -> anyhow::Result<Vec<String>> {
    let content = content::read(site, &["brakes", "groups", "manager"]).await?;
    let mut view = content::manager_view(&content);
    let mut said = Vec::new();
    for change in view.plan() {
        for unit in units(&change, &site.prefix) {
            let txn = Txn { compares: unit.compares, then: unit.writes, otherwise: Vec::new() };
            let answer = site.store.txn(txn).await.with_context(|| format!("failed to repair group {}", change.group))?;
            said.push(outcome(&format!("group {}", change.group), answer.succeeded));
        }
    }
    said.dedup();
    Ok(said)
}
