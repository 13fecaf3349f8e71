//! `enlist bench`: how fast it is, against what etcd itself can do, on the same machine in the same run.
//!
//! Figures of different machines cannot be compared, ratios can: so each round measures a floor (writes that decide nothing)
//! and the real thing, one after the other, each on a fresh etcd, and the middle one of several rounds counts.

mod fleet;
mod floor;
mod host;
mod meter;
mod nodes;
mod numbers;
mod pipeline;
mod place;
mod progress;
mod registration;

use std::path::PathBuf;

use super::args::{Common, FlagSettings};
use super::exit::Exit;
use super::output::{self, Format};
use crate::store::keys::Prefix;
use crate::telemetry;
use place::Ground;

/// Measure it against what etcd itself can do, on this machine
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// Rounds; the middle one counts
    #[arg(long, global = true, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: u16,
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
}

/// The prefix in an etcd that is not private.
const PREFIX: &str = "/enlist-bench";

/// Runs a bench.
pub async fn run(common: Common, args: Args) -> anyhow::Result<Exit> {
    let loaded = common.settings(FlagSettings::default())?;
    telemetry::start(loaded.settings.log.format, common.level(&loaded, false), None);
    let ground = match &common.endpoints {
        None => Ground::Private { binary: args.etcd.clone(), data_dir: args.data_dir.clone() },
        Some(_) => {
            let given = loaded.origins.get("source.prefix").is_some_and(|origin| origin.starts_with("flag "));
            let source = loaded.source()?;
            let prefix = if given { source.prefix } else { PREFIX.parse::<Prefix>()? };
            Ground::Yours(Box::new(source.store), prefix)
        }
    };
    let format = if args.output == "json" { Format::Json } else { Format::Table };
    let rounds = usize::from(args.rounds);
    let text = match &args.what {
        What::Pipeline(what) => registration::run(&ground, what, rounds, format).await?,
    };
    output::print(&text)?;
    Ok(Exit::Ok)
}
