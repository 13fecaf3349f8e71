//! `enlist dev` runs all of enlist on one machine as a demonstration: a private etcd, all roles, and sample nodes that
//! run the real agent and really listen on their assigned ports.
//!
//! A demonstration never writes into a real `/enlist` prefix, and leaves no process behind: every child dies with this
//! one.

mod folder;
mod nodes;
mod service;
mod stage;
mod story;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

pub use service::Args as ServiceArgs;
pub use service::run as run_service;

use super::args::{Common, FlagSettings};
use super::exit::{Exit, Fault};
use super::private::PrivateEtcd;
use super::{apply, output, purge, run, site};
use crate::config::Loaded;
use crate::config::span::List;
use crate::model::documents::{Document, parse};
use crate::model::names::Revision;
use crate::reconcile::Site;
use crate::shutdown::Shutdown;
use crate::store::api::{KeyRange, RangeRequest};
use crate::telemetry;
use folder::Folder;
use stage::Stage;

/// Run a demonstration: a private etcd, all roles, sample pools, groups and nodes
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Start this many sample nodes
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(0..=200))]
    nodes: u16,
    /// Keep the data of the private etcd and the sample nodes here [default: ./.enlist/dev]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Run this etcd binary [default: the one in $PATH]
    #[arg(long, value_name = "FILE")]
    etcd: Option<PathBuf>,
    /// Exit with code 0 when all nodes are registered
    #[arg(long)]
    exit_when_registered: bool,
    /// With --endpoints: also use a prefix that is not empty
    #[arg(long)]
    force: bool,
}

/// Pools and groups of the demonstration.
const SAMPLE: &str = include_str!("../../../config/sample.yaml");
/// The prefix in an etcd that is not private.
const PREFIX: &str = "/enlist-dev";
/// With `--exit-when-registered`: the limit for all registrations.
const PATIENCE: Duration = Duration::from_secs(90);

/// Runs the demonstration until Ctrl-C, or until all nodes are registered.
pub async fn run(common: Common, args: Args) -> anyhow::Result<Exit> {
    let loaded = common.settings(FlagSettings::default())?;
    // Checked before the demonstration creates or deletes anything.
    loaded.source()?;
    let shutdown = Shutdown::on_signals().context("failed to listen for signals")?;
    let folder = Folder::prepare(args.data_dir.clone())?;
    let log = if common.verbose == 0 { Some(folder.log()?) } else { None };
    telemetry::start(loaded.settings.log.format, common.level(&loaded, true), log);
    match &common.endpoints {
        Some(_) => on_yours(&loaded, &args, &folder, &shutdown).await,
        None => on_private(&loaded, &args, &folder, &shutdown).await,
    }
}

/// Runs on an etcd that starts and ends with the demonstration.
async fn on_private(loaded: &Loaded, args: &Args, folder: &Folder, shutdown: &Shutdown) -> anyhow::Result<Exit> {
    let data = folder.etcd();
    let mut etcd = tokio::select! {
        etcd = PrivateEtcd::start(args.etcd.as_deref(), &data) => etcd?,
        () = shutdown.orderly.cancelled() => return Ok(Exit::Ok),
    };
    output::line(format_args!("etcd {} at {}, data in {}", etcd.version(), etcd.endpoint(), folder))?;
    let loaded = only(loaded, etcd.endpoint());
    let result = tokio::select! {
        result = on(&loaded, args, folder, shutdown) => result,
        // Without its etcd the demonstration shows nothing: the nodes would only wait for it.
        error = etcd.ended() => return Err(error),
    };
    etcd.stop().await;
    result
}

/// Runs on an existing etcd: below its own prefix, whose keys are deleted at the end.
async fn on_yours(loaded: &Loaded, args: &Args, folder: &Folder, shutdown: &Shutdown) -> anyhow::Result<Exit> {
    let mut ours = loaded.clone();
    ours.settings.source.prefix = prefix_flag(loaded).unwrap_or_else(|| PREFIX.to_owned());
    ours.settings.manager = Default::default();
    let site = site::connect(ours.source()?).await?;
    let before = below(&site).await?;
    if before.keys > 0 && !args.force {
        return Err(Fault::Conflict(format!(
            "there {} below {}/: a demonstration does not write among them (--prefix uses another prefix, --force writes there anyway)",
            if before.keys == 1 { "is 1 key".to_owned() } else { format!("are {} keys", before.keys) },
            site.prefix
        ))
        .into());
    }
    let result = on(&ours, args, folder, shutdown).await;
    let removed = purge::remove_newer(&site, before.revision).await?;
    output::line(format_args!("{} below {}/ removed", output::counted(removed, "key"), site.prefix))?;
    result
}

/// Settings with this etcd only: no settings file may lead a demonstration into a real etcd.
fn only(loaded: &Loaded, endpoint: &str) -> Loaded {
    let mut ours = Loaded::default();
    ours.settings.log = loaded.settings.log.clone();
    ours.settings.source.endpoints = List(vec![endpoint.to_owned()]);
    if let Some(prefix) = prefix_flag(loaded) {
        ours.settings.source.prefix = prefix;
    }
    ours
}

/// The prefix, if the command line names one.
fn prefix_flag(loaded: &Loaded) -> Option<String> {
    let is_flag = loaded.origins.get("source.prefix").is_some_and(|origin| origin.starts_with("flag "));
    is_flag.then(|| loaded.settings.source.prefix.clone())
}

struct Below {
    keys: i64,
    revision: Revision,
}

async fn below(site: &Site) -> anyhow::Result<Below> {
    let range: KeyRange = site.prefix.range();
    let answer = site.store.range(RangeRequest { count_only: true, ..RangeRequest::all(range) }).await;
    let answer = answer.with_context(|| format!("failed to read the keys below {}/", site.prefix))?;
    Ok(Below { keys: answer.count, revision: answer.header.revision })
}

/// The demonstration itself.
async fn on(loaded: &Loaded, args: &Args, folder: &Folder, shutdown: &Shutdown) -> anyhow::Result<Exit> {
    let stores = run::Stores::open(loaded)?;
    let documents = parse("config/sample.yaml", SAMPLE).map_err(|errors| anyhow::anyhow!("sample.yaml: {errors:?}"))?;
    apply::Target::on(stores.source.clone(), stores.manager.clone()).apply(&documents).await?;
    output::line(format_args!("applied {}", names(&documents)))?;
    let mut stage = Stage::open(loaded, &stores, folder, args.nodes)?;
    let ended = stage.play(args.exit_when_registered.then_some(PATIENCE), shutdown).await;
    if matches!(ended, Ok(stage::Scene::AllRegistered)) {
        stage.show(&stores, loaded).await?;
        if !args.exit_when_registered {
            output::line("Ctrl-C ends it and leaves no process behind.")?;
            stage.wait(shutdown).await?;
        }
    }
    stage.close().await;
    ended.map(|_| Exit::Ok)
}

fn names(documents: &[Document]) -> String {
    let name = |document: &Document| format!("{} {}", document.kind().to_lowercase(), document.name());
    documents.iter().map(name).collect::<Vec<_>>().join(", ")
}
