//! `enlist get`: what is there, as a table, JSON, YAML or names; once, or as it changes.

pub mod print;
mod watch;

use anyhow::Context as _;
use futures::future::try_join;

use super::args::{Common, FlagSettings};
use super::content::{self, Content};
use super::exit::{Exit, Fault};
use super::objects::{Spec, parse_spec};
use super::output::{self, Format};
use super::show::assignment::AssignmentObject;
use super::show::claim::ClaimObject;
use super::show::group::GroupObject;
use super::show::member::MemberObject;
use super::show::node::NodeObject;
use super::show::pool::PoolObject;
use super::show::role::RoleObject;
use super::show::{Shown, Stores};
use super::site;
use crate::model::selector::Selector;
use crate::reconcile::Site;
use crate::telemetry;

/// Show nodes, assignments, claims, pools, groups, members or roles
#[derive(Debug, clap::Args)]
pub struct Args {
    /// nodes, assignments, claims, pools, groups, members or roles (or one: node …); or KIND/NAME
    #[arg(value_name = "KIND", value_parser = parse_spec)]
    kind: Spec,
    /// Only these; for members the group
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Only nodes whose variables match, e.g. 'zone in (eu-1,eu-2),gpu>1'
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<Selector>,
    /// How
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Show released nodes as well: they are away for longer than their hold, and have nothing
    #[arg(long)]
    all: bool,
    /// Go on and show what changes; with -o json one {"type","object"} a line
    #[arg(short, long)]
    watch: bool,
}

/// What `get` and `describe` show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nodes.
    Node,
    /// Assignments.
    Assignment,
    /// Claims.
    Claim,
    /// Pools.
    Pool,
    /// Groups.
    Group,
    /// Members of groups.
    Member,
    /// Roles.
    Role,
}

impl Kind {
    const ALL: [(Kind, &'static str); 7] = [
        (Kind::Node, "node"),
        (Kind::Assignment, "assignment"),
        (Kind::Claim, "claim"),
        (Kind::Pool, "pool"),
        (Kind::Group, "group"),
        (Kind::Member, "member"),
        (Kind::Role, "role"),
    ];

    /// The word for one, with its article.
    pub fn a_word(self) -> String {
        let article = if self == Kind::Assignment { "an" } else { "a" };
        format!("{article} {}", self.word())
    }

    /// What a name on the command line is the name of.
    fn named(self) -> &'static str {
        if self == Kind::Member { Kind::Group.word() } else { self.word() }
    }

    /// The word for one.
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, word)| word)
    }
}

/// Reads a kind, singular or plural.
///
/// # Errors
/// The kinds there are, and the nearest one.
pub fn parse_kind(text: &str) -> Result<Kind, String> {
    let lower = text.to_lowercase();
    let singular = lower.strip_suffix('s').unwrap_or(&lower);
    let found = Kind::ALL.iter().find(|(_, word)| *word == singular);
    found.map(|(kind, _)| *kind).ok_or_else(|| {
        let near = Kind::ALL
            .iter()
            .max_by(|(_, a), (_, b)| strsim::jaro_winkler(a, singular).total_cmp(&strsim::jaro_winkler(b, singular)));
        let near = near.filter(|(_, word)| strsim::jaro_winkler(word, singular) > 0.7);
        let hint = near.map(|(_, word)| format!(" (did you mean {word}s?)")).unwrap_or_default();
        format!("there are nodes, assignments, claims, pools, groups, members and roles{hint}")
    })
}

/// What is asked for, besides the kind.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only these; empty = all.
    pub names: Vec<String>,
    /// Only nodes whose variables match.
    pub selector: Option<Selector>,
    /// Also what is shown only when it is asked for.
    pub all: bool,
}

impl Query {
    /// Whether an object is asked for.
    pub fn wants<T: Shown>(&self, object: &T) -> bool {
        let selected = |selector: &Selector| object.variables().is_some_and(|variables| selector.matches(variables));
        let is_named = self.names.is_empty() || self.names.iter().any(|name| object.is_called(name));
        let is_hidden = object.is_hidden() && !self.all && self.names.is_empty();
        !is_hidden && is_named && self.selector.as_ref().is_none_or(selected)
    }
}

/// The stores that a kind needs, opened.
pub(super) struct Sites {
    pub(super) source: Option<Site>,
    /// `None` also when it is away and the kind can do without.
    pub(super) manager: Option<Site>,
}

impl Sites {
    /// Whether this is the source's store as well.
    fn is_source(&self, site: &Site) -> bool {
        self.source.as_ref().is_some_and(|source| source.store.is_same(&site.store))
    }
}

/// Shows what is asked for.
pub async fn run(common: Common, args: Args) -> anyhow::Result<Exit> {
    match args.kind.kind {
        Kind::Node => show::<NodeObject>(common, args).await,
        Kind::Assignment => show::<AssignmentObject>(common, args).await,
        Kind::Claim => show::<ClaimObject>(common, args).await,
        Kind::Pool => show::<PoolObject>(common, args).await,
        Kind::Group => show::<GroupObject>(common, args).await,
        Kind::Member => show::<MemberObject>(common, args).await,
        Kind::Role => show::<RoleObject>(common, args).await,
    }
}

async fn show<T: Shown>(common: Common, args: Args) -> anyhow::Result<Exit> {
    if args.selector.is_some() && !T::HAS_VARIABLES {
        return Err(Fault::Usage(format!("-l selects by a node's variables: {} has none", args.kind.kind.a_word())).into());
    }
    let (kinds, names): (Vec<Kind>, Vec<String>) = args.kind.objects(&args.names)?.into_iter().unzip();
    if let Some(other) = kinds.into_iter().find(|kind| *kind != args.kind.kind) {
        return Err(Fault::Usage(format!("get shows one kind at a time: {} is another one", other.word())).into());
    }
    let loaded = common.settings(FlagSettings::default())?;
    telemetry::start(loaded.settings.log.format, common.level(&loaded, false), None);
    let query = Query { names, selector: args.selector, all: args.all };
    let sites = sites::<T>(&loaded).await?;
    if args.kind.kind == Kind::Role {
        // Why a role sees no leader, or a node is silent, may be an endpoint.
        for site in sites.source.iter().chain(sites.manager.iter().filter(|site| !sites.is_source(site))) {
            site::look_at_endpoints(site).await;
        }
    }
    if args.watch {
        return watch::run::<T>(sites, query, args.output).await;
    }
    let (source, manager) = contents::<T>(&sites).await?;
    let stores = Stores { source: source.as_ref(), manager: manager.as_ref() };
    let mut objects = T::list(stores);
    objects.retain(|object| query.wants(object));
    let is_missing = |name: &&String| !objects.iter().any(|object| object.is_called(name)) && !T::may_be_none(stores, name);
    let missing: Vec<&str> = query.names.iter().filter(is_missing).map(String::as_str).collect();
    let not_found = || Fault::NotFound(format!("there is no {} {}", args.kind.kind.named(), missing.join(", ")));
    if objects.is_empty() && !missing.is_empty() {
        return Err(not_found().into());
    }
    if let Some(warning) = T::warning(stores) {
        output::say(format_args!("enlist: warning: {warning}"));
    }
    let documents = if args.output == Format::Yaml { T::documents(stores) } else { None };
    match documents {
        Some(mut documents) => {
            documents.retain(|(name, _)| query.names.is_empty() || query.names.iter().any(|asked| print::is_of(name, asked)));
            output::print(&print::documents(&documents))?;
        }
        None => output::print(&print::all(&objects, args.output)?)?,
    }
    if missing.is_empty() { Ok(Exit::Ok) } else { Err(not_found().into()) }
}

/// Opens the stores of a kind. The manager's may be away where the kind can do without.
async fn sites<T: Shown>(loaded: &crate::config::Loaded) -> anyhow::Result<Sites> {
    let mut sites = Sites { source: None, manager: None };
    if !T::SOURCE.is_empty() {
        sites.source = Some(site::connect(loaded.source()?).await?);
    }
    if T::MANAGER.is_empty() {
        return Ok(sites);
    }
    let settings = loaded.manager()?;
    if settings.store == loaded.source()?.store
        && let Some(source) = &sites.source
    {
        sites.manager = Some(Site { store: source.store.clone(), prefix: settings.prefix });
        return Ok(sites);
    }
    match site::connect(settings).await.context("the manager's store") {
        Ok(site) => sites.manager = Some(site),
        Err(error) if sites.source.is_some() && Exit::of(&error) == Exit::Store => {
            output::say(format_args!("enlist: warning: {error:#}; what it holds is not shown"));
        }
        Err(error) => return Err(error),
    }
    Ok(sites)
}

async fn contents<T: Shown>(sites: &Sites) -> anyhow::Result<(Option<Content>, Option<Content>)> {
    let one = async |site: &Option<Site>, folders: &[&str]| match site {
        Some(site) => content::read(site, folders).await.map(Some),
        None => Ok(None),
    };
    try_join(one(&sites.source, T::SOURCE), one(&sites.manager, T::MANAGER)).await
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn kinds_are_read_in_singular_and_plural() {
        assert_eq!(parse_kind("nodes"), Ok(Kind::Node));
        assert_eq!(parse_kind("Pool"), Ok(Kind::Pool));
        assert!(parse_kind("nods").unwrap_err().contains("did you mean nodes?"));
        assert!(!parse_kind("xyzzy").unwrap_err().contains("did you mean"));
    }
}
