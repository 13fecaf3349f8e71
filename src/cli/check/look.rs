//! One look: reads both stores, each question at one revision, and asks the checkers of the roles.

use std::collections::BTreeSet;

use anyhow::Context as _;

use super::stray::{FOREIGN, stray};
use super::{Found, Severity, Sites, health};
use crate::cli::content::{self, Content};
use crate::cli::describe::all_findings;
use crate::model::finding::Finding;
use crate::model::lineage::Chain;
use crate::model::names::Revision;
use crate::reconcile::Site;
use crate::store::api::{Header, KeyRange, RangeResponse, StoreError};
use crate::store::keys::{Prefix, Role};
use crate::store::wire::{Checkpoint, Stored as _};
use crate::{manager, relay};

/// Everything that is wrong now, in the order of stores, codes and keys.
pub(super) async fn look(sites: &Sites) -> anyhow::Result<Vec<Found>> {
    let source = content::read(&sites.source, &["applied", "brakes", "claims", "leaders", "nodes", "pools", "roles"]).await?;
    let mut found: Vec<Found> = all_findings(&source.snapshot()).into_iter().map(of("source")).collect();
    found.extend(stray(&source, &told(&found)).into_iter().map(of("source")));
    found.extend(lineage(&sites.source).await?.map(of("source")));
    let destination = content::read(&sites.manager, &["applied", "brakes", "groups", "leaders", "manager", "roles"]).await?;
    let is_one = (source.cluster_id, &source.prefix) == (destination.cluster_id, &destination.prefix);
    let mut copied: Vec<Found> = copies(sites, &destination).await?.into_iter().map(of("manager")).collect();
    copied.extend(groups(&destination).into_iter().map(of("manager")));
    let mut known = told(&copied);
    if is_one {
        // What both roles' stores have in common was looked at above.
        known.extend(told(&found));
    }
    found.extend(stray(&destination, &known).into_iter().map(of("manager")));
    let in_one_cluster = |prefix| Some(prefix).filter(|_| source.cluster_id == destination.cluster_id);
    found.extend(beside(&sites.source, in_one_cluster(&destination.prefix)).await?.into_iter().map(of("source")));
    if !is_one {
        found.extend(beside(&sites.manager, in_one_cluster(&source.prefix)).await?.into_iter().map(of("manager")));
    }
    found.append(&mut copied);
    found.extend(health::source(&source));
    found.extend(health::manager(&destination, is_one.then_some(&source)));
    // A proxy may not hand this on: the stores themselves were read.
    if let Ok(member) = sites.source.store.member().await {
        found.extend(health::member("source", &member));
    }
    if source.cluster_id != destination.cluster_id
        && let Ok(member) = sites.manager.store.member().await
    {
        found.extend(health::member("manager", &member));
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// What is wrong with the allocator's count: without it a restore with raised revisions is not recognised.
async fn lineage(site: &Site) -> anyhow::Result<Option<Finding>> {
    let key = site.prefix.lineage();
    let (_, kv) = site.store.get(key.clone()).await.with_context(|| format!("failed to read {key}"))?;
    let fault = kv.and_then(|kv| Chain::decode(&kv.value).err());
    Ok(fault.map(|fault| Finding::about("lineage-unreadable", site.prefix.relative(&key), fault.to_string())))
}

/// Keys in none of our folders.
async fn beside(site: &Site, other: Option<&Prefix>) -> anyhow::Result<Vec<Finding>> {
    let keys = content::beside(site, other).await?;
    Ok(keys.into_iter().map(|key| Finding::about("foreign-key", key, FOREIGN)).collect())
}

/// The keys that something was said about.
fn told(found: &[Found]) -> BTreeSet<String> {
    found.iter().flat_map(|found| found.keys.iter().cloned()).collect()
}

fn of(store: &'static str) -> impl Fn(Finding) -> Found {
    move |finding| Found { store, code: finding.code, keys: finding.keys, message: finding.message, severity: Severity::Error }
}

/// A part of a content, as a read of its own would have answered.
fn part(content: &Content, range: &KeyRange) -> RangeResponse {
    let kvs: Vec<_> = content.kvs.values().filter(|kv| range.contains(&kv.key)).cloned().collect();
    let header = Header { cluster_id: content.cluster_id, member_id: 0, revision: content.revision };
    RangeResponse { header, count: i64::try_from(kvs.len()).unwrap_or(i64::MAX), kvs, more: false }
}

/// Are the copies what the source held at the checkpoint? Where that revision is compacted, the present has to do.
async fn copies(sites: &Sites, destination: &Content) -> anyhow::Result<Vec<Finding>> {
    let checkpoint = destination.get(&destination.prefix.checkpoint()).and_then(|kv| Checkpoint::decode(&kv.value).ok());
    let at = checkpoint.map(|checkpoint| checkpoint.revision).filter(|revision| *revision > Revision::NONE);
    let nodes = read_at(&sites.source, at).await?;
    let mut copied = part(destination, &destination.prefix.folder("manager/nodes"));
    copied.kvs.extend(destination.get(&destination.prefix.checkpoint()).cloned());
    copied.kvs.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(relay::check::check((&sites.source.prefix, &nodes), (&sites.manager.prefix, &copied)))
}

async fn read_at(source: &Site, at: Option<Revision>) -> anyhow::Result<RangeResponse> {
    let nodes = source.prefix.folder("nodes");
    let answer = match source.store.read_all(nodes.clone(), at).await {
        Err(StoreError::Compacted(_) | StoreError::Future) if at.is_some() => source.store.read_all(nodes, None).await,
        answer => answer,
    };
    answer.with_context(|| format!("failed to read {}/nodes/", source.prefix))
}

/// What is wrong with groups.
pub(in crate::cli) fn groups(destination: &Content) -> Vec<Finding> {
    let prefix = &destination.prefix;
    let definitions = part(destination, &prefix.folder("groups"));
    let managed = part(destination, &prefix.folder("manager"));
    manager::check::check(prefix, &definitions, &managed, destination.get(&prefix.brake(Role::Manager)))
}
