//! `enlist bench`: how fast it is, against what etcd itself can do, on the same machine in the same run.
//!
//! Figures of different machines cannot be compared, ratios can: so each round measures a floor (writes that decide nothing)
//! and the real thing, one after the other, each on a fresh etcd, and the middle one of several rounds counts.

mod again;
mod away;
mod blind;
mod fill;
mod fleet;
mod fleet_of_labels;
mod floor;
mod goal;
mod group_index;
mod group_members;
mod group_view;
mod groups;
mod host;
mod living;
mod meter;
mod mirror;
mod nodes;
mod numbers;
mod pipeline;
mod place;
mod progress;
mod registration;
mod relay;
mod restart;
mod role;
mod steady;
mod storm;
mod tail;
mod written;

use std::path::PathBuf;

use super::args::{Common, FlagSettings};
use super::exit::{Exit, Fault};
use super::output::{self, Format};
use crate::config::Loaded;
use crate::store::keys::Prefix;
use crate::telemetry::{self, LogLevel};
use place::Ground;

/// Measure it against what etcd itself can do, on this machine
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// Rounds; the middle one counts [default: 5 of pipeline, 1 of away and storm, 3 of the others]
    #[arg(long, global = true, value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: Option<u16>,
    /// The etcd binary for the private etcd [default: the one in $PATH]
    #[arg(long, global = true, value_name = "FILE")]
    etcd: Option<PathBuf>,
    /// Where the private etcd keeps its data [default: the system's folder for temporary files]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How
    #[arg(short, long, global = true, default_value = "table", value_parser = ["table", "json"])]
    output: String,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Pipeline(registration::Args),
    Fill(fill::Args),
    Relay(relay::Args),
    Groups(groups::Args),
    Restart(restart::Args),
    Away(away::Args),
    Storm(storm::Args),
}

/// What these do to etcd and to agents is meant: thousands of warnings about it would be what is measured.
fn level(common: &Common, loaded: &Loaded, what: &What) -> LogLevel {
    let level = common.level(loaded, false);
    match what {
        What::Away(_) | What::Storm(_) if common.verbose == 0 => level.min(LogLevel::Error),
        _ => level,
    }
}

/// The prefix in an etcd that is not private.
const PREFIX: &str = "/enlist-bench";

/// Runs a bench.
pub async fn run(common: Common, args: Args) -> anyhow::Result<Exit> {
    let loaded = common.settings(FlagSettings::default())?;
    telemetry::start(loaded.settings.log.format, level(&common, &loaded, &args.what), None);
    let ground = match &common.endpoints {
        None => {
            let members = if let What::Pipeline(what) = &args.what { what.members() } else { 1 };
            Ground::Private { binary: args.etcd.clone(), data_dir: args.data_dir.clone(), members }
        }
        Some(_) => {
            if let What::Pipeline(what) = &args.what
                && what.members() > 1
            {
                return Err(Fault::Usage("--members is for the private etcd: leave --endpoints or --members out".into()).into());
            }
            let given = loaded.origins.get("source.prefix").is_some_and(|origin| origin.starts_with("flag "));
            let source = loaded.source()?;
            let prefix = if given { source.prefix } else { PREFIX.parse::<Prefix>()? };
            Ground::Yours(Box::new(source.store), prefix)
        }
    };
    let format = if args.output == "json" { Format::Json } else { Format::Table };
    let rounds = |default: u16| usize::from(args.rounds.unwrap_or(default));
    let text = match &args.what {
        What::Pipeline(what) => registration::run(&ground, what, rounds(5), format).await?,
        What::Fill(what) => fill::run(what, rounds(3), format)?,
        What::Relay(what) => relay::run(&ground, what, rounds(3), format).await?,
        What::Groups(what) => groups::run(&ground, what, rounds(3), format).await?,
        What::Restart(what) => restart::run(&ground, what, rounds(3), format).await?,
        What::Away(what) => away::run(&ground, what, rounds(1), format).await?,
        What::Storm(what) => storm::run(&ground, what, rounds(1), format).await?,
    };
    output::print(&text)?;
    Ok(Exit::Ok)
}
