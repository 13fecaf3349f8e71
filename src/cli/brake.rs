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
        let brake = &report.brake_state;
        let state = if report.leader.is_empty() { "no leader".into() } else { brake.state.clone() };
        vec![report.role.clone(), state, brake.since.clone(), report.why()]
    };
    Table { headings: vec!["ROLE", "BRAKE", "SINCE", "WHY"], rows: reports.iter().map(row).collect() }
}

/// What becomes of a wish to release a role's brake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// It is written.
    Write,
    /// The same, and whoever leads next finds it.
    WriteForNext,
    /// The brake is off: a release would say what is not so.
    Off,
    /// It was released, and holds nothing since.
    Done,
}

fn wish(report: Option<&RoleObject>) -> Wish {
    let Some(report) = report.filter(|report| !report.leader.is_empty()) else { return Wish::WriteForNext };
    match report.brake_state.state.as_str() {
        "off" => Wish::Off,
        "released" => Wish::Done,
        _ => Wish::Write,
    }
}

async fn release(source: &Site, manager: &Site, named: Vec<Role>, reports: &[RoleObject]) -> anyhow::Result<()> {
    let report = |role: &Role| reports.iter().find(|report| report.role == role.as_str());
    let is_on = |role: &Role| wish(report(role)) == Wish::Write;
    let roles: Vec<Role> = if named.is_empty() { Role::ALL.into_iter().filter(is_on).collect() } else { named };
    if roles.is_empty() {
        output::say("no brake is on: nothing to release (a role can be named: enlist brake release ROLE)");
    }
    for role in roles {
        let wish = wish(report(&role));
        if matches!(wish, Wish::Write | Wish::WriteForNext) {
            write(if role == Role::Allocator { source } else { manager }, role).await?;
        }
        match wish {
            Wish::Write => output::line(format_args!("brake of the {role} released"))?,
            Wish::WriteForNext => {
                output::line(format_args!("brake of the {role} released; no {role} leads, the next one finds it"))?;
            }
            Wish::Off => output::line(format_args!("brake of the {role} is off: nothing to release"))?,
            Wish::Done => output::line(format_args!("brake of the {role} is released already"))?,
        }
    }
    Ok(())
}

async fn write(site: &Site, role: Role) -> anyhow::Result<()> {
    let by = site::context(Default::default());
    let value = json!({"v": 1, "by": by.identity, "since": by.wall.now()}).to_string();
    let txn = Txn { then: vec![Op::put(site.prefix.brake(role), value)], ..Txn::default() };
    site.store.txn(txn).await.with_context(|| format!("failed to release the brake of the {role}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::show::role::BrakeObject;
    use crate::store::api::{KeyValue, LeaseId};
    use crate::store::keys::Prefix;

    fn report(state: &str, leads: bool) -> Vec<RoleObject> {
        let mut content = Content::empty(Prefix::default());
        let put = |content: &mut Content, key: &str, value: String| {
            let key: crate::store::api::Key = format!("/enlist/{key}").into();
            let one = crate::model::names::Revision(1);
            let kv = KeyValue {
                key: key.clone(),
                value: value.into(),
                create_revision: one,
                mod_revision: one,
                version: 1,
                lease: LeaseId::NONE,
            };
            content.kvs.insert(key, kv);
        };
        put(&mut content, "brakes/allocator", r#"{"v":1,"by":"ops/1","since":"2026-01-01T00:05:00Z"}"#.into());
        if leads {
            let state = if state.is_empty() { String::new() } else { format!(r#""brake_state":"{state}","#) };
            let text = r#""brake":"8 of 20 bound nodes are silent","brake_since":"2026-01-01T00:00:00Z""#;
            put(
                &mut content,
                "roles/allocator",
                format!(r#"{{"v":1,"identity":"a/1","version":"1",{state}{text},"revision":9}}"#),
            );
        }
        RoleObject::list(Stores { source: Some(&content), manager: None })
    }

    #[test]
    fn a_release_is_written_only_where_it_means_something() {
        for (state, leads, expected) in [
            ("on", true, Wish::Write),
            ("", true, Wish::Write),
            ("off", true, Wish::Off),
            ("released", true, Wish::Done),
            ("later", true, Wish::Write),
            ("", false, Wish::WriteForNext),
        ] {
            assert_eq!(wish(report(state, leads).first()), expected, "{state:?} {leads}");
        }
    }

    #[test]
    fn who_released_it_is_told_and_only_then() {
        let brake = |state: &str, by: &str, at: &str, since: &str| BrakeObject {
            state: state.into(),
            since: since.into(),
            released_by: by.into(),
            released_at: at.into(),
        };
        let since = "2026-01-01T00:00:00Z";
        let released = report("released", true).remove(0);
        assert_eq!(released.brake_state, brake("released", "ops/1", "2026-01-01T00:05:00Z", since));
        assert_eq!(released.why(), "8 of 20 bound nodes are silent (released by ops/1 at 2026-01-01T00:05:00Z)");
        assert_eq!(report("off", true).remove(0).brake_state, brake("off", "", "", since));
        assert_eq!(report("", false).remove(0).brake_state, brake("unknown", "", "", ""));
    }
}
