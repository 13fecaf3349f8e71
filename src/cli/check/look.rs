//! One look: reads both stores, each question at one revision, and asks the checkers of the roles.

use anyhow::Context as _;

use super::{Found, Sites};
use crate::cli::content::{self, Content};
use crate::cli::describe::all_findings;
use crate::model::finding::Finding;
use crate::model::names::Revision;
use crate::reconcile::Site;
use crate::store::api::{Header, KeyRange, RangeResponse, StoreError};
use crate::store::keys::{ParsedKey, Role};
use crate::store::wire::{Checkpoint, Stored as _};
use crate::{manager, relay};

/// Everything that is wrong now, in the order of stores, codes and keys.
pub(super) async fn look(sites: &Sites) -> anyhow::Result<Vec<Found>> {
    let source = content::read(&sites.source, &["brakes", "claims", "nodes", "pools"]).await?;
    let mut found: Vec<Found> = all_findings(&source.snapshot()).into_iter().map(of("source")).collect();
    found.extend(foreign(&source, |_| true).into_iter().map(of("source")));
    let destination = content::read(&sites.manager, &["brakes", "groups", "manager"]).await?;
    found.extend(copies(sites, &destination).await?.into_iter().map(of("manager")));
    found.extend(groups(&destination).into_iter().map(of("manager")));
    // What lies among copies and members, their own checks have told; and brakes may be the source's.
    let told = ["brakes/", "manager/nodes/", "manager/groups/"];
    let untold = |key: &str| !told.iter().any(|folder| key.starts_with(folder));
    found.extend(foreign(&destination, untold).into_iter().map(of("manager")));
    found.sort();
    found.dedup();
    Ok(found)
}

fn of(store: &'static str) -> impl Fn(Finding) -> Found {
    move |finding| Found { store, code: finding.code, keys: finding.keys, message: finding.message }
}

/// Keys in our folders that no enlist wrote: they stand in nobody's way, but somebody may have meant something by them.
fn foreign(content: &Content, is_meant: impl Fn(&str) -> bool) -> Vec<Finding> {
    let keys = content.parsed().filter(|(key, _)| *key == ParsedKey::Foreign);
    let keys = keys.map(|(_, kv)| content.prefix.relative(&kv.key)).filter(|key| is_meant(key));
    let message = "is no key of enlist's: it is left alone; delete it if nobody needs it";
    keys.map(|key| Finding::about("foreign-key", key, message)).collect()
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

fn groups(destination: &Content) -> Vec<Finding> {
    let prefix = &destination.prefix;
    let definitions = part(destination, &prefix.folder("groups"));
    let managed = part(destination, &prefix.folder("manager"));
    manager::check::check(prefix, &definitions, &managed, destination.get(&prefix.brake(Role::Manager)))
}
