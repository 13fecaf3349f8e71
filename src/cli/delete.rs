//! `enlist delete pool|group|node NAME`. What a deleted pool gave stays; a deleted group loses its members; deleting a node
//! is `enlist leave NODE`.

use anyhow::Context as _;

use super::args::{Common, FlagSettings};
use super::content::{self, Content};
use super::exit::{Exit, Fault};
use super::get::{Kind, parse_kind};
use super::{leave, output, site};
use crate::model::assignment::Assignment;
use crate::model::names::{GroupName, NodeId, PoolName};
use crate::reconcile::Site;
use crate::store::api::{Compare, Key, Op, Txn};
use crate::telemetry;

/// Delete a pool, a group, or a node that is away
#[derive(Debug, clap::Args)]
pub struct Args {
    /// pool, group or node
    #[arg(value_name = "KIND", value_parser = parse_kind)]
    kind: Kind,
    /// Which
    name: String,
    /// Also a node that is silent: it may only be cut off
    #[arg(long)]
    force: bool,
}

/// Does it.
pub async fn run(common: Common, args: Args) -> anyhow::Result<Exit> {
    let usage = |error: crate::model::names::NameError| Fault::Usage(error.to_string());
    let loaded = common.settings(FlagSettings::default())?;
    telemetry::start(loaded.settings.log.format, common.level(&loaded, false), None);
    match args.kind {
        Kind::Node => {
            let node: NodeId = args.name.parse().map_err(usage)?;
            leave::node_leaves(&site::connect(loaded.source()?).await?, &node, args.force).await
        }
        Kind::Pool => {
            let pool: PoolName = args.name.parse().map_err(usage)?;
            let site = site::connect(loaded.source()?).await?;
            let keep = nodes_of_pool(&content::read(&site, &["nodes"]).await?, &pool);
            delete(&site, site.prefix.pool(&pool), &format!("pool {pool}")).await?;
            if keep > 0 {
                output::say(format_args!("it gives nothing new; nodes that keep what it gave them until they leave: {keep}"));
            }
            Ok(Exit::Ok)
        }
        Kind::Group => {
            let group: GroupName = args.name.parse().map_err(usage)?;
            let site = site::connect(loaded.manager()?).await?;
            delete(&site, site.prefix.group(&group), &format!("group {group}")).await?;
            Ok(Exit::Ok)
        }
        other => {
            Err(Fault::Usage(format!("{} cannot be deleted by hand: only pools, groups and nodes are yours", other.a_word()))
                .into())
        }
    }
}

/// Deletes a key, if it is still what was seen.
async fn delete(site: &Site, key: Key, what: &str) -> anyhow::Result<()> {
    let context = || format!("failed to delete {what}");
    let (_, seen) = site.store.get(key.clone()).await.with_context(context)?;
    let seen = seen.ok_or_else(|| Fault::NotFound(format!("there is no {what}")))?;
    let txn = Txn {
        compares: vec![Compare::Modified(key.clone(), seen.mod_revision)],
        then: vec![Op::delete(key)],
        otherwise: Vec::new(),
    };
    if !site.store.txn(txn).await.with_context(context)?.succeeded {
        return Err(Fault::Conflict(format!("{what} changed in the same moment: look again")).into());
    }
    output::line(format_args!("{what} deleted"))
}

/// How many nodes have something of a pool.
pub fn nodes_of_pool(nodes: &Content, pool: &PoolName) -> usize {
    let has = |assignment: &Assignment| {
        assignment.bound().is_some_and(|bound| bound.terms.pool == *pool)
            || assignment.leaving.iter().any(|leaving| leaving.terms.pool == *pool)
    };
    let records = nodes.nodes();
    records.values().filter(|record| record.assignment.as_ref().and_then(|stored| stored.ok()).is_some_and(has)).count()
}
