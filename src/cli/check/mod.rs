//! `enlist check`: looks for what must not be, in the claims, the copies and the groups (errors), and for what is not well: no leader,
//! full pools, nodes that wait (warnings). `--repair` puts right what can be put right by compares alone, so that it is safe while
//! everything runs.

mod health;
pub(in crate::cli) mod look;
mod repair;
pub(in crate::cli) mod stray;

use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use super::args::{Common, FlagSettings};
use super::exit::Exit;
use super::output::{self, Format, Table};
use super::site;
use crate::config::Loaded;
use crate::reconcile::Site;
use crate::store::api::EndpointInfo;
use crate::telemetry;

/// Check the stored state and the health of roles, pools and nodes (exit code 3 if there is an error); --repair fixes errors
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Put right what can be put right with compares: safe while everything runs
    #[arg(long)]
    repair: bool,
    /// Exit with code 3 from this severity on: error (the stored state contradicts itself) or warning (something is not well)
    #[arg(long, value_name = "SEVERITY", value_enum, default_value_t = Severity::Error)]
    fail_on: Severity,
    /// How
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The stored state contradicts itself or cannot be read.
    Error,
    /// All is consistent, and something is not well.
    Warning,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Found {
    /// source, or manager: whose keys.
    pub store: &'static str,
    /// Out of a closed set.
    pub code: &'static str,
    /// Relative to the prefix.
    pub keys: Vec<String>,
    /// What is wrong and what to do.
    pub message: String,
    /// error or warning.
    pub severity: Severity,
}

impl Found {
    /// Whether a change that is under way looks like it: copies and members follow the nodes, a moment later.
    fn may_pass(&self) -> bool {
        ["copy-", "member-", "summary-", "checkpoint-"].iter().any(|start| self.code.starts_with(start))
    }

    fn is_same(&self, other: &Found) -> bool {
        (self.store, self.code, &self.keys) == (other.store, other.code, &other.keys)
    }
}

/// Both stores.
pub(super) struct Sites {
    pub(super) source: Site,
    pub(super) manager: Site,
}

impl Sites {
    async fn connect(loaded: &Loaded) -> anyhow::Result<Sites> {
        let (source, manager) = (loaded.source()?, loaded.manager()?);
        let is_one = source.store == manager.store;
        let source = site::connect(source).await?;
        let manager = if is_one {
            Site { store: source.store.clone(), prefix: manager.prefix }
        } else {
            site::connect(manager).await.context("the manager's store")?
        };
        Ok(Sites { source, manager })
    }

    /// Endpoints that are members of another etcd cluster. Nothing that is stored can show them.
    async fn endpoints(&self) -> Vec<Found> {
        let mut sites = vec![("source", &self.source)];
        if !self.source.store.is_same(&self.manager.store) {
            sites.push(("manager", &self.manager));
        }
        let mut found = Vec::new();
        for (store, site) in sites {
            let endpoints = site::look_at_endpoints(site).await;
            let of = |endpoint: EndpointInfo| {
                let message = endpoint.trouble().unwrap_or_default();
                let (code, keys) = ("endpoint-of-another-cluster", vec![endpoint.endpoint]);
                Found { store, code, keys, message, severity: Severity::Error }
            };
            found.extend(endpoints.into_iter().map(of));
        }
        found
    }
}

/// How often and how far apart it looks again at what may be a change under way.
const LOOKS: usize = 8;
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// Does it.
pub async fn run(common: Common, args: Args) -> anyhow::Result<Exit> {
    let loaded = common.settings(FlagSettings::default())?;
    telemetry::start(loaded.settings.log.format, common.level(&loaded, false), None);
    let sites = Sites::connect(&loaded).await?;
    let mut found = lasting(&sites).await?;
    if args.repair && found.iter().any(|found| found.severity == Severity::Error) {
        for line in repair::repair(&sites).await? {
            output::say(line);
        }
        found = lasting(&sites).await?;
    }
    found.extend(sites.endpoints().await);
    found.sort();
    match args.output {
        Format::Json => output::print(&output::json(&found)?)?,
        Format::Yaml => output::print(&output::yaml(&found)?)?,
        Format::Name => found.iter().flat_map(|found| &found.keys).try_for_each(output::line)?,
        Format::Table | Format::Wide if found.is_empty() => output::line("nothing found")?,
        Format::Table | Format::Wide => output::print(&table(&found).render())?,
    }
    Ok(if found.iter().any(|found| found.severity <= args.fail_on) { Exit::Findings } else { Exit::Ok })
}

fn table(found: &[Found]) -> Table {
    let row = |found: &Found| {
        let severity = found.severity.as_str().into();
        vec![found.code.into(), found.store.into(), found.keys.join(" "), found.message.clone(), severity]
    };
    Table { headings: vec!["FINDING", "STORE", "KEYS", "WHAT", "SEVERITY"], rows: found.iter().map(row).collect() }
}

/// What is found in every one of several looks. What must not be at any revision counts at the first.
async fn lasting(sites: &Sites) -> anyhow::Result<Vec<Found>> {
    let mut found = look::look(sites).await?;
    for _ in 1..LOOKS {
        if !found.iter().any(Found::may_pass) {
            break;
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
        let again = look::look(sites).await?;
        found.retain(|found| !found.may_pass() || again.iter().any(|again| again.is_same(found)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_finding_leads_a_terminal_astray() {
        let hostile: String = telemetry::escape::testing::hostile().collect();
        let (keys, message) = (vec![hostile.clone()], hostile.clone());
        let found = Found { store: "source", code: "foreign-key", keys, message, severity: Severity::Error };
        let shown = table(&[found]).render();
        assert_eq!(shown.matches('\n').count(), 2, "{shown:?}");
        assert_eq!(shown.chars().find(|c| *c != '\n' && hostile.contains(*c)), None, "{shown:?}");
    }

    #[test]
    fn severities_are_in_order_and_json_names_them() {
        assert!(Severity::Error < Severity::Warning, "--fail-on warning takes errors as well");
        assert_eq!(serde_json::to_value(Severity::Warning).unwrap_or_default(), "warning");
    }
}
