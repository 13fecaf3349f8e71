//! `enlist brake`: whether a role holds back because too much went away at once, and the operator's word that it really did.

use anyhow::Context as _;
use serde_json::json;

use super::args::{Common, FlagSettings};
use super::content::{self, Content};
use super::exit::Exit;
use super::get::print;
use super::output::{self, Format, Table};
use super::show::role::RoleObject;
use super::show::{Shown, Stores};
use super::site;
use crate::config::Loaded;
use crate::reconcile::Site;
use crate::store::api::Op;
use crate::store::api::Txn;
use crate::store::keys::Role;
use crate::telemetry;

/// Mass loss: show whether a role holds back, or let it go on
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// How to show it
    #[arg(short, long, value_enum, default_value_t, global = true)]
    output: Format,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Whether brakes are on, and why (what `enlist brake` alone does too)
    Status,
    /// They are really gone: what is held now is not held longer (default: every role whose brake is on)
    Release {
        /// allocator, relay or manager
        #[arg(value_name = "ROLE")]
        roles: Vec<Role>,
    },
}

/// Does it.
pub async fn run(common: Common, args: Args) -> anyhow::Result<Exit> {
    let loaded = common.settings(FlagSettings::default())?;
    telemetry::start(loaded.settings.log.format, common.level(&loaded, false), None);
    let source = site::connect(loaded.source()?).await?;
    let manager = manager(&loaded, &source).await?;
    let reports = reports(&source, &manager).await?;
    match (args.action.unwrap_or(Action::Status), args.output) {
        (Action::Status, Format::Table | Format::Wide) => output::print(&table(&reports).render())?,
        (Action::Status, output) => output::print(&print::all(&reports, output)?)?,
        (Action::Release { roles }, _) => release(&source, &manager, roles, &reports).await?,
    }
    Ok(Exit::Ok)
}

async fn manager(loaded: &Loaded, source: &Site) -> anyhow::Result<Site> {
    let settings = loaded.manager()?;
    if settings.store == loaded.source()?.store {
        return Ok(Site { store: source.store.clone(), prefix: settings.prefix });
    }
    site::connect(settings).await.context("the manager's store")
}

async fn reports(source: &Site, manager: &Site) -> anyhow::Result<Vec<RoleObject>> {
    let source: Content = content::read(source, RoleObject::SOURCE).await?;
    let manager = content::read(manager, RoleObject::MANAGER).await?;
    Ok(RoleObject::list(Stores { source: Some(&source), manager: Some(&manager) }))
}

fn table(reports: &[RoleObject]) -> Table {
    let row = |report: &RoleObject| {
        let state = match (report.leader.is_empty(), report.brake.is_empty()) {
            (true, _) => "no leader",
            (false, true) => "off",
            (false, false) => "on",
        };
        vec![report.role.clone(), state.into(), report.brake.clone()]
    };
    Table { headings: vec!["ROLE", "BRAKE", "WHY"], rows: reports.iter().map(row).collect() }
}

async fn release(source: &Site, manager: &Site, named: Vec<Role>, reports: &[RoleObject]) -> anyhow::Result<()> {
    let is_on = |role: &Role| reports.iter().any(|report| report.role == role.as_str() && !report.brake.is_empty());
    let roles: Vec<Role> = if named.is_empty() { Role::ALL.into_iter().filter(is_on).collect() } else { named };
    if roles.is_empty() {
        output::say("no brake is on: nothing to release (a role can be named: enlist brake release ROLE)");
    }
    for role in roles {
        let site = if role == Role::Allocator { source } else { manager };
        let by = site::context(Default::default());
        let value = json!({"v": 1, "by": by.identity, "since": by.wall.now()}).to_string();
        let txn = Txn { then: vec![Op::put(site.prefix.brake(role), value)], ..Txn::default() };
        site.store.txn(txn).await.with_context(|| format!("failed to release the brake of the {role}"))?;
        output::line(format_args!("brake of the {role} released"))?;
    }
    Ok(())
}
