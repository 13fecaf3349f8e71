//! `enlist delete pool|group|node NAME…`. What a deleted pool assigned stays; a deleted group loses its members; deleting a
//! node is `enlist leave NODE`. What is in use is not deleted without `--force`, and nothing is deleted before all that was
//! named has been looked at.

use anyhow::Context as _;

use super::args::{Common, FlagSettings};
use super::content::{self, Content};
use super::exit::{Exit, Fault};
use super::get::Kind;
use super::objects::{Spec, parse_spec};
use super::{leave, output, site};
use crate::config::Loaded;
use crate::model::assignment::Assignment;
use crate::model::group::{GroupKey, Member};
use crate::model::names::{GroupName, NameError, NodeId, PoolName, Revision};
use crate::reconcile::Site;
use crate::store::api::{Compare, Key, Op, Txn};
use crate::store::keys::ParsedKey;
use crate::telemetry;

/// Delete pools, groups, or nodes that are away
#[derive(Debug, clap::Args)]
pub struct Args {
    /// pool, group or node; or KIND/NAME
    #[arg(value_name = "KIND", value_parser = parse_spec)]
    kind: Spec,
    /// Which; may be several
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Also what is in use, and a node that is silent (it may only be cut off)
    #[arg(long)]
    force: bool,
    /// Delete nothing; say what would be deleted
    #[arg(long)]
    dry_run: bool,
}

/// So many users of an object are named; the count says the rest.
const NAMED_MAX: usize = 5;

/// Something that is going to be deleted.
pub struct Doomed<'s> {
    site: &'s Site,
    what: String,
    how: How,
    /// What people should know of it afterwards.
    note: Option<String>,
}

enum How {
    /// Delete this key, if it is still what was seen.
    Key(Key, Revision),
    /// The node leaves.
    Node(leave::Leaving),
}

/// Does it.
pub async fn run(common: Common, args: Args) -> anyhow::Result<Exit> {
    let objects = args.kind.objects(&args.names)?;
    if objects.is_empty() {
        return Err(Fault::Usage(format!("which {}? A name is missing", args.kind.kind.word())).into());
    }
    if let Some((other, _)) = objects.iter().find(|(kind, _)| !matches!(kind, Kind::Pool | Kind::Group | Kind::Node)) {
        let message = format!("{} cannot be deleted by hand: only pools, groups and nodes are yours", other.a_word());
        return Err(Fault::Usage(message).into());
    }
    let loaded = common.settings(FlagSettings::default())?;
    telemetry::start(loaded.settings.log.format, common.level(&loaded, false), None);
    let sites = Sites::open(&loaded, &objects).await?;
    let mut doomed = Vec::new();
    for (kind, name) in &objects {
        doomed.extend(sites.look(*kind, name, args.force).await?);
    }
    for doomed in doomed {
        if args.dry_run {
            output::line(format_args!("{} would be deleted", doomed.what))?;
        } else {
            doomed.delete().await?;
        }
        if let Some(note) = doomed.note {
            output::say(note);
        }
    }
    Ok(Exit::Ok)
}

/// The stores that the objects are in.
struct Sites {
    source: Option<Site>,
    manager: Option<Site>,
}

impl Sites {
    async fn open(loaded: &Loaded, objects: &[(Kind, String)]) -> anyhow::Result<Sites> {
        let needs = |is_group: bool| objects.iter().any(|(kind, _)| (*kind == Kind::Group) == is_group);
        let mut sites = Sites { source: None, manager: None };
        if needs(false) {
            sites.source = Some(site::connect(loaded.source()?).await?);
        }
        if needs(true) {
            sites.manager = Some(site::connect(loaded.manager()?).await.context("the manager's store")?);
        }
        Ok(sites)
    }

    async fn look(&self, kind: Kind, name: &str, force: bool) -> anyhow::Result<Option<Doomed<'_>>> {
        let site = if kind == Kind::Group { &self.manager } else { &self.source };
        look(site.as_ref().context("a store that is needed was not opened")?, kind, name, force).await
    }
}

/// What deleting an object would be; `None` = it is gone already.
///
/// # Errors
/// [`Fault::NotFound`], or [`Fault::Conflict`] when it is in use and `force` is not given.
pub async fn look<'s>(site: &'s Site, kind: Kind, name: &str, force: bool) -> anyhow::Result<Option<Doomed<'s>>> {
    let usage = |error: NameError| Fault::Usage(error.to_string());
    let what = format!("{} {name}", kind.word());
    match kind {
        Kind::Pool => {
            let pool: PoolName = name.parse().map_err(usage)?;
            let content = content::read(site, &["nodes", "pools"]).await?;
            let users = nodes_of_pool(&content, &pool);
            let key = site.prefix.pool(&pool);
            let refusal = used(&users, "node has addresses of it", "nodes have addresses of it").filter(|_| !force);
            let note = used(&users, "node keeps what it has until it leaves", "nodes keep what they have until they leave");
            doomed(site, &content, (what, key), refusal, note).map(Some)
        }
        Kind::Group => {
            let group: GroupName = name.parse().map_err(usage)?;
            let content = content::read(site, &["groups", "manager/groups"]).await?;
            let members = published_members(&content, &group);
            let key = site.prefix.group(&group);
            let refusal = used(&members, "member is published", "members are published").filter(|_| !force);
            let note = used(&members, "published member goes with it", "published members go with it");
            doomed(site, &content, (what, key), refusal, note).map(Some)
        }
        _ => {
            let node: NodeId = name.parse().map_err(usage)?;
            let leaving = leave::look(site, &node, force).await?;
            Ok(leaving.map(|leaving| Doomed { site, what, how: How::Node(leaving), note: None }))
        }
    }
}

/// A key that is there, and in use only if that does not matter.
fn doomed<'s>(
    site: &'s Site,
    content: &Content,
    (what, key): (String, Key),
    refusal: Option<String>,
    note: Option<String>,
) -> anyhow::Result<Doomed<'s>> {
    let Some(seen) = content.get(&key) else {
        return Err(Fault::NotFound(format!("there is no {what}")).into());
    };
    if let Some(refusal) = refusal {
        return Err(Fault::Conflict(format!("{what} is in use: {refusal}; nothing was deleted (--force deletes it)")).into());
    }
    let how = How::Key(key, seen.mod_revision);
    Ok(Doomed { site, note: note.map(|note| format!("{what}: {note}")), what, how })
}

impl Doomed<'_> {
    /// Deletes it, if it is still what was seen.
    ///
    /// # Errors
    /// [`Fault::Conflict`] when it is not, or what the store answered.
    pub async fn delete(&self) -> anyhow::Result<()> {
        match &self.how {
            How::Node(leaving) => leaving.write(self.site).await,
            How::Key(key, seen) => {
                let txn = Txn {
                    compares: vec![Compare::Modified(key.clone(), *seen)],
                    then: vec![Op::delete(key.clone())],
                    otherwise: Vec::new(),
                };
                let answer = self.site.store.txn(txn).await.with_context(|| format!("failed to delete {}", self.what))?;
                if !answer.succeeded {
                    return Err(Fault::Conflict(format!("{} changed in the same moment: look again", self.what)).into());
                }
                output::line(format_args!("{} deleted", self.what))
            }
        }
    }
}

/// `3 nodes … (a, b, c)`; `None` = nobody.
fn used(users: &[String], one: &str, many: &str) -> Option<String> {
    let named = users.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if users.len() > NAMED_MAX { ", …" } else { "" };
    match users.len() {
        0 => None,
        1 => Some(format!("1 {one} ({named})")),
        count => Some(format!("{count} {many} ({named}{more})")),
    }
}

/// The nodes that have something of a pool.
pub fn nodes_of_pool(nodes: &Content, pool: &PoolName) -> Vec<String> {
    let has = |assignment: &Assignment| {
        assignment.bound().is_some_and(|bound| bound.terms.pool == *pool)
            || assignment.leaving.iter().any(|leaving| leaving.terms.pool == *pool)
    };
    let records = nodes.nodes();
    let users = records.iter().filter(|(_, record)| record.assignment.as_ref().and_then(|stored| stored.ok()).is_some_and(has));
    users.map(|(node, _)| node.to_string()).collect()
}

/// The published members of a definition, in all the groups that it is keyed into. One that cannot be read counts.
fn published_members(content: &Content, group: &GroupName) -> Vec<String> {
    let members = content.parsed().filter_map(|(key, kv)| match key {
        ParsedKey::Member(segment, node) => {
            let is_its = GroupKey::from_segment(&segment).is_ok_and(|key| key.name() == group);
            is_its.then_some((node, kv))
        }
        _ => None,
    });
    let published = members.filter(|(_, kv)| content::decoded::<Member>(kv).map_or(true, |member| member.published));
    published.map(|(node, _)| node.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_uses_it_is_named_up_to_a_bound() {
        let users = |count: usize| (0..count).map(|n| format!("n{n}")).collect::<Vec<_>>();
        assert_eq!(used(&users(0), "node has it", "nodes have it"), None);
        assert_eq!(used(&users(1), "node has it", "nodes have it").as_deref(), Some("1 node has it (n0)"));
        assert_eq!(used(&users(7), "node has it", "nodes have it").as_deref(), Some("7 nodes have it (n0, n1, n2, n3, n4, …)"));
    }
}
