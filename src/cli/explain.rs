//! `enlist explain`: why a node has what it has, or waits; why a node is in a group, or is not. The planner's and the
//! selector's own steps, told; nothing is decided here.

mod group;

use serde::Serialize;

use super::args::{Common, FlagSettings};
use super::content;
use super::exit::{Exit, Fault};
use super::output::{self, Format, Lines};
use super::{leads, site};
use crate::config::Loaded;
use crate::model::group::GroupKey;
use crate::model::names::NodeId;
use crate::plan::explain::{Explanation, Verdict, explain};
use crate::telemetry;

/// Why a node has its address, or waits; why it is in a group, or is not
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// How
    #[arg(short, long, value_enum, default_value_t, global = true)]
    output: Format,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Why this pool and these addresses, or why it waits
    Node {
        /// Which
        node: NodeId,
    },
    /// Requirement by requirement, with the value seen
    Group {
        /// Which, e.g. web or web/zone=eu-1
        group: GroupKey,
        /// For which node
        #[arg(long)]
        node: NodeId,
    },
}

/// Does it.
pub async fn run(common: Common, args: Args) -> anyhow::Result<Exit> {
    if matches!(args.output, Format::Name | Format::Wide) {
        return Err(Fault::Usage("explain has -o table, json or yaml: an explanation is not a list of names".into()).into());
    }
    let loaded = common.settings(FlagSettings::default())?;
    telemetry::start(loaded.settings.log.format, common.level(&loaded, false), None);
    match args.what {
        What::Node { node } => explain_node(&loaded, &node, args.output).await,
        What::Group { group, node } => group::explain(&loaded, &group, &node, args.output).await,
    }
}

async fn explain_node(loaded: &Loaded, node: &NodeId, format: Format) -> anyhow::Result<Exit> {
    let source = site::connect(loaded.source()?).await?;
    let content = content::read(&source, &[&["nodes", "claims", "pools", "brakes"][..], &leads::FOLDERS].concat()).await?;
    let snapshot = content.snapshot();
    let explanation =
        explain(&snapshot, node).ok_or_else(|| Fault::NotFound(format!("nothing is stored about a node {node}")))?;
    let explained =
        NodeExplained { note: leads::no_allocator(&content).unwrap_or_default(), ..NodeExplained::from(&explanation) };
    match format {
        Format::Json => output::print(&output::json(&explained)?)?,
        Format::Yaml => output::print(&output::yaml(&explained)?)?,
        _ => output::print(node_text(&explained).as_str())?,
    }
    Ok(Exit::Ok)
}

/// `explain node` in JSON.
#[derive(Debug, Serialize)]
struct NodeExplained {
    node: String,
    state: String,
    /// Why what is said may not happen; empty = an allocator leads.
    note: &'static str,
    addresses: Vec<Because>,
    pools: Vec<PoolVerdict>,
}

#[derive(Debug, Serialize)]
struct Because {
    address: String,
    because: String,
}

#[derive(Debug, Serialize)]
struct PoolVerdict {
    pool: String,
    verdict: String,
    because: String,
}

impl From<&Explanation> for NodeExplained {
    fn from(explanation: &Explanation) -> Self {
        let because = |(ip, text): &(std::net::IpAddr, String)| Because { address: ip.to_string(), because: text.clone() };
        let pools = explanation.pools.iter().map(|pool| PoolVerdict {
            pool: pool.pool.to_string(),
            verdict: verdict(pool.verdict),
            because: pool.text.clone(),
        });
        NodeExplained {
            node: explanation.node.to_string(),
            state: explanation.state.clone(),
            note: "",
            addresses: explanation.addresses.iter().map(because).collect(),
            pools: pools.collect(),
        }
    }
}

fn verdict(verdict: Verdict) -> String {
    match verdict {
        Verdict::Chosen => "chosen".into(),
        Verdict::CouldServe => "could-serve".into(),
        Verdict::Refused(reason) => reason.to_string(),
        Verdict::NoMatch => "no-match".into(),
        Verdict::Unusable => "unusable".into(),
        Verdict::Unreadable => "unreadable".into(),
    }
}

/// The same for people.
fn node_text(told: &NodeExplained) -> Lines {
    let mut text = Lines::default();
    text.add(format_args!("node {}: {}", told.node, told.state));
    if !told.note.is_empty() {
        text.add(told.note);
    }
    let mut rows = |title: &str, rows: Vec<[&str; 3]>| {
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let (first, second) = (width(0), width(1));
        if !rows.is_empty() {
            text.add(format_args!("{title}:"));
        }
        for [a, b, c] in rows {
            text.add(format_args!("  {a:<first$}  {b:<second$}{}{c}", if second > 0 { "  " } else { "" }));
        }
    };
    rows("addresses", told.addresses.iter().map(|row| [row.address.as_str(), "", &row.because]).collect());
    rows("pools", told.pools.iter().map(|row| [row.pool.as_str(), &row.verdict, &row.because]).collect());
    text
}
