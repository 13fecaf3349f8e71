//! `enlist grants`: shows what each etcd user of enlist needs, or makes it so.
//!
//! Without `--diff` or `--apply` no etcd is asked. What is needed is data ([`crate::store::grants`]); what is missing is a pure
//! difference ([`crate::store::users`]). Renderers are in `show`.

mod logins;
mod show;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;

use super::args::{Common, FlagSettings};
use super::exit::{Exit, Fault};
use super::output;
use crate::config::Loaded;
use crate::model::names::NodeId;
use crate::store::etcd::{EtcdUsers, StoreSettings};
use crate::store::grants::{Grants, User, at_manager, at_source};
use crate::store::users::{Change, Found, Login, UserAdmin, changes, without_login};
use crate::telemetry;

/// Above so many users no node gets one: each write of a user or grant makes every etcd member rebuild the permissions of all
/// of them while it applies nothing else, 5.6 µs for each user. 1,000 users are 6 ms a write, 10,000 are 60 ms, and one node
/// takes seven such writes.
const USERS_MAX: usize = 1_000;

/// Show the etcd users, roles and permissions that enlist needs, or create them
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these: allocator, relay, manager, roles (all three in one process), viewer, operator
    /// [default: all; with --node none]
    #[arg(value_name = "USER")]
    users: Vec<User>,
    /// Add the users of these nodes' agents (refused above 1,000 etcd users)
    #[arg(long = "node", value_name = "ID,…", value_delimiter = ',')]
    nodes: Vec<NodeId>,
    /// Show what is missing in etcd, as etcdctl commands; change nothing
    #[arg(long, conflicts_with = "apply")]
    diff: bool,
    /// Write what is missing into etcd (as its user root, where authentication is on)
    #[arg(long)]
    apply: bool,
    /// Passwords of users that --apply creates: lines of NAME:PASSWORD, or NAME alone for a user with a client certificate
    #[arg(long, value_name = "FILE", requires = "apply")]
    passwords: Option<PathBuf>,
    /// Output format; a script is etcdctl commands
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// How the grants are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// Columns for people
    #[default]
    Table,
    /// JSON with stable names
    Json,
    /// etcdctl commands that create everything
    Script,
}

/// Does it.
pub async fn run(common: Common, args: Args) -> anyhow::Result<Exit> {
    let loaded = common.settings(FlagSettings::default())?;
    telemetry::start(loaded.settings.log.format, common.level(&loaded, false), None);
    let users = users(&args)?;
    let sites = sites(&loaded, &users)?;
    if !args.diff && !args.apply {
        let shown: Vec<(&str, &Grants)> =
            sites.iter().flat_map(|site| site.parts.iter().map(|(name, part)| (*name, part))).collect();
        match args.output {
            Form::Table => output::print(&show::table(&shown))?,
            Form::Json => output::print(&output::json(&show::json(&shown))?)?,
            Form::Script => output::print(&show::script(sites.iter().map(|site| (site.title(), site.whole()))))?,
        }
        return Ok(Exit::Ok);
    }
    let logins = args.passwords.as_deref().map(logins::read).transpose()?.unwrap_or_default();
    let mut exit = Exit::Ok;
    for site in &sites {
        let admin = EtcdUsers::open(site.store.clone())?;
        let found = admin.read(&site.whole()).await.with_context(|| format!("failed to read the users of {}", site.title()))?;
        let changes = changes(&site.whole(), &found);
        refuse_too_many(&args.nodes, &changes, &found)?;
        if args.diff {
            output::print(&show::lines(&changes))?;
        } else if !apply(&admin, changes, &logins).await? {
            exit = Exit::Findings;
        }
    }
    Ok(exit)
}

/// The users that are asked for.
fn users(args: &Args) -> Result<Vec<User>, Fault> {
    if args.nodes.len() > USERS_MAX {
        return Err(too_many(args.nodes.len()));
    }
    let mut users = match (args.users.is_empty(), args.nodes.is_empty()) {
        (true, true) => User::SHARED.to_vec(),
        _ => args.users.clone(),
    };
    for node in &args.nodes {
        users.push(User::node(node.clone()).map_err(Fault::Usage)?);
    }
    Ok(users)
}

/// One etcd, with what each of enlist's two stores needs there.
struct SiteGrants {
    store: StoreSettings,
    parts: Vec<(&'static str, Grants)>,
}

impl SiteGrants {
    fn whole(&self) -> Grants {
        self.parts.iter().fold(Grants::default(), |whole, (_, part)| whole.merge(part.clone()))
    }

    fn title(&self) -> &'static str {
        match self.parts.as_slice() {
            [("manager", _)] => "the manager's store",
            [_] => "the source",
            _ => "the source and the manager's store",
        }
    }
}

fn sites(loaded: &Loaded, users: &[User]) -> anyhow::Result<Vec<SiteGrants>> {
    let (source, manager) = (loaded.source()?, loaded.manager()?);
    let here = ("source", at_source(&source.prefix, users));
    let there = ("manager", at_manager(&manager.prefix, users));
    if source.store == manager.store {
        return Ok(vec![SiteGrants { store: source.store, parts: vec![here, there] }]);
    }
    Ok(vec![SiteGrants { store: source.store, parts: vec![here] }, SiteGrants { store: manager.store, parts: vec![there] }])
}

fn refuse_too_many(nodes: &[NodeId], changes: &[Change], found: &Found) -> Result<(), Fault> {
    let new = changes.iter().filter(|change| matches!(change, Change::AddUser(_))).count();
    let total = found.user_count + new;
    if nodes.is_empty() || total <= USERS_MAX { Ok(()) } else { Err(too_many(total)) }
}

fn too_many(users: usize) -> Fault {
    Fault::Usage(format!(
        "etcd would have {users} users; nodes get users of their own only up to {USERS_MAX}, because etcd rebuilds the permissions of \
         all users at each write of one (6 ms for 1,000, 60 ms for 10,000, and all other writes wait); let nodes share a user instead"
    ))
}

/// Makes the changes, and prints each as it was made. Answers whether that was everything.
async fn apply(admin: &dyn UserAdmin, mut changes: Vec<Change>, logins: &BTreeMap<String, Login>) -> anyhow::Result<bool> {
    let missing = without_login(&mut changes, logins);
    for change in &changes {
        let login = match change {
            Change::AddUser(user) => logins.get(user),
            _ => None,
        };
        let line = show::line(change, login);
        admin.write(change, login).await.with_context(|| format!("failed to do what `{line}` does"))?;
        output::line(line)?;
    }
    if changes.is_empty() && missing.is_empty() {
        output::say("nothing to change");
    }
    if !missing.is_empty() {
        let names = missing.join(", ");
        output::say(format_args!("not created, for lack of a password: {names} (list them in a file and add --passwords FILE)"));
    }
    Ok(missing.is_empty())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn nodes_are_refused_above_a_thousand_users() {
        let node: NodeId = "a".parse().unwrap();
        let found = |user_count| Found { user_count, ..Found::default() };
        let add = [Change::AddUser("a".into())];
        assert!(refuse_too_many(std::slice::from_ref(&node), &add, &found(999)).is_ok());
        let refused = refuse_too_many(std::slice::from_ref(&node), &add, &found(1_000)).unwrap_err();
        assert!(refused.to_string().contains("1001 users") && refused.to_string().contains("rebuilds the permissions"));
        // The shared users are few: they are no reason to refuse.
        assert!(refuse_too_many(&[], &add, &found(5_000)).is_ok());
    }
}
