//! `enlist bench groups`: what a label's change costs the manager, by how many groups there are that it does not concern.

use serde::Serialize;

use super::fleet_of_labels::{NODES_MIN, Tenants};
use super::goal::{self, Goal, short};
use super::group_index::{self, IndexFigures};
use super::group_members::{self, Members};
use super::group_view::{self, ViewFigures};
use super::numbers::median;
use super::place::Ground;
use super::progress::Bar;
use crate::cli::exit::Fault;
use crate::cli::output::{self, Format, Table};

/// From the fewest groups to the most.
const TIME_BAR: f64 = 1.5;

/// What a label's change costs, by how many groups there are; and how soon its members are written
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many nodes
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(i64::from(NODES_MIN)..=2_000_000))]
    nodes: u32,
    /// How many groups, from few to many
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "100,2000,20000",
          value_parser = clap::value_parser!(u32).range(2..=200_000))]
    groups: Vec<u32>,
    /// Changes of labels in memory, at each number of groups
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    changes: u32,
    /// Changes that are followed through etcd, one after another, at the second number of groups; 0 = none
    #[arg(long, value_name = "CHANGES", default_value_t = 200)]
    written: u32,
}

#[derive(Debug, Serialize)]
struct Report {
    etcd: String,
    nodes: usize,
    goals: Vec<Goal>,
    /// Bytes of memory of the index.
    memory: group_index::Memory,
    levels: Vec<Level>,
    /// From a label's write at the source to the member's key; `None` = not measured.
    change_to_member: Option<Members>,
}

/// At one number of groups, in the middle round.
#[derive(Debug, Serialize)]
struct Level {
    groups: usize,
    /// The index alone.
    index: IndexFigures,
    /// All of the manager but etcd: decoding, index, what is to be written.
    view: ViewFigures,
}

/// Runs it.
///
/// # Errors
/// When something refuses, or stands still.
pub async fn run(ground: &Ground, args: &Args, rounds: usize, format: Format) -> anyhow::Result<String> {
    let mut counts: Vec<usize> = args.groups.iter().map(|count| *count as usize).collect();
    counts.sort_unstable();
    counts.dedup();
    let (Some(fewest), Some(most)) = (counts.first().copied(), counts.last().copied()) else {
        return Err(Fault::Usage("--groups must name a number".into()).into());
    };
    let nodes = args.nodes as usize;
    let tenants = Tenants::new(nodes, fewest, most)?;
    // First of all, while no memory that was given back can be used again unseen.
    let memory = group_index::memory(&tenants, most)?;
    let bar = Bar::new("groups, in memory", rounds * counts.len());
    let mut measured: Vec<(Vec<IndexFigures>, Vec<ViewFigures>)> = counts.iter().map(|_| Default::default()).collect();
    for _ in 0..rounds {
        for (groups, (index, view)) in counts.iter().zip(&mut measured) {
            index.push(group_index::measure(&tenants, *groups, args.changes as usize)?);
            view.push(group_view::measure(&tenants, *groups, args.changes as usize)?);
            bar.add(1);
        }
    }
    drop(bar);
    let levels: Vec<Level> = counts
        .iter()
        .zip(measured)
        .map(|(groups, (index, view))| Level { groups: *groups, index: middle_index(&index), view: middle_view(&view) })
        .collect();
    let (mut etcd, mut change_to_member) = (String::new(), None);
    if args.written > 0 {
        let place = ground.place().await?;
        etcd = place.version().to_owned();
        let groups = counts.get(1).copied().unwrap_or(fewest);
        let members = group_members::measure(&place, &tenants, groups, args.written as usize).await;
        place.clear().await?;
        change_to_member = Some(members?);
    }
    let report = Report { etcd, nodes, goals: goals(&levels), memory, levels, change_to_member };
    if format == Format::Json { output::json(&report) } else { Ok(text(&report)) }
}

fn middle_index(rounds: &[IndexFigures]) -> IndexFigures {
    let of = |figure: fn(&IndexFigures) -> f64| median(rounds.iter().map(figure).collect());
    IndexFigures {
        change_us: of(|r| r.change_us),
        evaluations: of(|r| r.evaluations),
        add_group_us: of(|r| r.add_group_us),
        members: of(|r| r.members),
    }
}

fn middle_view(rounds: &[ViewFigures]) -> ViewFigures {
    let of = |figure: fn(&ViewFigures) -> f64| median(rounds.iter().map(figure).collect());
    ViewFigures { change_us: of(|r| r.change_us), first_plan_ms: of(|r| r.first_plan_ms) }
}

fn goals(levels: &[Level]) -> Vec<Goal> {
    let (Some(first), Some(last)) = (levels.first(), levels.last()) else { return Vec::new() };
    let span = format!("from {} to {} groups", first.groups, last.groups);
    vec![
        Goal::at_most(format!("a change in the index, {span}"), last.index.change_us / first.index.change_us, TIME_BAR),
        Goal::at_most(format!("a change in the manager, {span}"), last.view.change_us / first.view.change_us, TIME_BAR),
    ]
}

fn text(report: &Report) -> String {
    let rows = report.levels.iter().map(|level| {
        vec![
            level.groups.to_string(),
            short(level.index.change_us),
            short(level.index.evaluations),
            short(level.index.add_group_us),
            short(level.index.members),
            short(level.view.change_us),
            short(level.view.first_plan_ms),
        ]
    });
    let headings = vec!["GROUPS", "INDEX-US", "EVALUATED", "ADD-US", "MEMBERS", "MANAGER-US", "FIRST-PLAN-MS"];
    let table = Table { headings, rows: rows.collect() }.render();
    let members = report.change_to_member.as_ref().map_or_else(String::new, |members| {
        let latency = &members.latency;
        format!(
            "From a label's write to the member's key, at {} groups on etcd {}: {}/{}/{} ms (p50/p99/longest of {}).\n",
            members.groups,
            report.etcd,
            short(latency.p50_ms),
            short(latency.p99_ms),
            short(latency.max_ms),
            members.changes
        )
    });
    format!(
        "{table}\n{} nodes; a change that touches no other group: processor time in the index, selectors evaluated in it, processor time \
         of the whole\nmanager without etcd. ADD-US: a group more, with so many MEMBERS. Memory of the index: {} bytes a node, {} a \
         group with its members.\n{members}{}",
        report.nodes,
        short(report.memory.node_bytes),
        short(report.memory.group_bytes),
        goal::lines(&report.goals)
    )
}
