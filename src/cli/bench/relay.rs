//! `enlist bench relay`: the first copy, the live tail and the way back after a stop, each against what etcd itself can do.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::blind;
use super::goal::{self, Goal, short};
use super::mirror::make_mirror;
use super::nodes::{Values, values};
use super::numbers::{Latency, median, rate};
use super::place::{Ground, Place};
use super::progress::Bar;
use super::role::Running;
use super::tail::{Checkpoints, Tail, closed_loop, open_loop};
use crate::cli::output::{self, Format, Table};
use crate::store::api::Op;
use crate::store::keys::NodePart;
use crate::store::wire::Stored;

/// Of a blind batched write of the same bytes.
const FIRST_COPY_BAR: f64 = 0.5;
/// The writer's rate in the live tail, of what it reaches alone; and the longest lag.
const LOW: (f64, f64) = (0.3, 1_000.0);
const HIGH: (f64, f64) = (0.8, 3_000.0);
/// What the writer must keep beside the relay of the rate that it was told.
const WRITER_KEEPS_BAR: f64 = 0.8;

/// Copying to a second etcd: at first, live, and after a stop
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many keys: a label, a status and an assignment for each node
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(30..=2_000_000))]
    keys: u32,
    /// Changes that are made while the relay is stopped
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(10..=10_000_000))]
    changes: u32,
    /// How long the live tail is measured at each rate
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
}

#[derive(Debug, Serialize)]
struct Report {
    etcd: String,
    keys: usize,
    changes: u32,
    goals: Vec<Goal>,
    /// Keys a second of `etcdctl make-mirror` on the same data; `None` = it is not there.
    make_mirror: Option<f64>,
    rounds: Vec<Round>,
}

#[derive(Debug, Serialize)]
struct Round {
    /// Keys a second of a blind batched write of the same bytes.
    blind: f64,
    /// Keys a second of the first copy.
    first_copy: f64,
    ratio: f64,
    /// Changes a second of a writer while no relay runs.
    writer_alone: f64,
    /// From the relay's start until what was changed meanwhile is copied.
    resume_s: f64,
    low: Tail,
    high: Tail,
}

/// Runs it.
///
/// # Errors
/// When something refuses, or stands still.
pub async fn run(ground: &Ground, args: &Args, rounds: usize, format: Format) -> anyhow::Result<String> {
    let nodes = (0..(args.keys as usize).div_ceil(3)).map(values).collect::<anyhow::Result<Vec<_>>>()?;
    let (mut done, mut etcd, mut mirror) = (Vec::new(), String::new(), None);
    for n in 0..rounds {
        let place = ground.place().await?;
        etcd = place.version().to_owned();
        let blind = blind_copy(&place, &nodes).await?;
        place.clear().await?;
        let (source, destination) = ground.pair().await?;
        done.push(round(&source, &destination, &nodes, args, blind).await?);
        if n == 0 {
            mirror = make_mirror(&source, &destination, nodes.len() * 3).await?;
        }
        source.clear().await?;
        destination.clear().await?;
    }
    let report =
        Report { etcd, keys: nodes.len() * 3, changes: args.changes, goals: goals(&done), make_mirror: mirror, rounds: done };
    if format == Format::Json { output::json(&report) } else { Ok(text(&report)) }
}

async fn blind_copy(place: &Place, nodes: &[Values]) -> anyhow::Result<f64> {
    let site = place.site()?;
    let puts = nodes.iter().flat_map(|node| contents(node).map(|(part, value)| Op::put(site.prefix.copy(&node.id, part), value)));
    let began = Instant::now();
    blind::write(&site.store, puts, &Bar::new("blind copy", nodes.len() * 3)).await?;
    Ok(rate(nodes.len() * 3, began.elapsed()))
}

fn contents(node: &Values) -> [(NodePart, bytes::Bytes); 3] {
    [
        (NodePart::Label, node.label.encode()),
        (NodePart::Status, node.registered.encode()),
        (NodePart::Assignment, node.assignment.encode()),
    ]
}

async fn round(source: &Place, destination: &Place, nodes: &[Values], args: &Args, blind: f64) -> anyhow::Result<Round> {
    let (from, to) = (source.site()?, destination.site()?);
    let puts = nodes.iter().flat_map(|node| contents(node).map(|(part, value)| Op::put(from.prefix.node(&node.id, part), value)));
    let filled = blind::write(&from.store, puts, &Bar::new("filling the source", nodes.len() * 3)).await?;
    let mut checkpoints = Checkpoints::open(&to);

    let bar = Bar::new("first copy, tail", 5);
    let began = Instant::now();
    let relay = Running::relay(source.site()?, destination.site()?);
    checkpoints.reach(filled).await?;
    let first_copy = rate(nodes.len() * 3, began.elapsed());
    relay.stop().await?;
    bar.add(1);

    let (writer_alone, changed) = closed_loop(&from, nodes, args.changes as usize).await?;
    bar.add(1);
    let began = Instant::now();
    let relay = Running::relay(source.site()?, destination.site()?);
    checkpoints.reach(changed).await?;
    let resume_s = began.elapsed().as_secs_f64();
    bar.add(1);

    let time = Duration::from_secs(u64::from(args.seconds));
    // Far from each other and from those of the closed loop, so that each is a change.
    let low = open_loop(&from, nodes, 1_000_000_000, (LOW.0 * writer_alone, time), &mut checkpoints).await?;
    bar.add(1);
    let high = open_loop(&from, nodes, 2_000_000_000, (HIGH.0 * writer_alone, time), &mut checkpoints).await?;
    bar.add(1);
    relay.stop().await?;
    Ok(Round { blind, first_copy, ratio: first_copy / blind, writer_alone, resume_s, low, high })
}

fn goals(rounds: &[Round]) -> Vec<Goal> {
    let middle = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
    vec![
        Goal::at_least("first copy over a blind write of the same bytes", middle(|round| round.ratio), FIRST_COPY_BAR),
        Goal::at_most("lag p99 at 0.3 of the writer's rate, ms", middle(|round| round.low.lag.p99_ms), LOW.1),
        Goal::at_most("longest lag at 0.8 of the writer's rate, ms", middle(|round| round.high.lag.max_ms), HIGH.1),
        Goal::at_least(
            "the writer's rate beside the relay over what it was told, 0.8 of its rate alone",
            middle(|round| round.high.reached / round.high.told),
            WRITER_KEEPS_BAR,
        ),
    ]
}

fn text(report: &Report) -> String {
    let lag = |lag: &Latency| format!("{}/{}/{}", short(lag.p50_ms), short(lag.p99_ms), short(lag.max_ms));
    let rows = report.rounds.iter().enumerate().map(|(n, round)| {
        vec![
            (n + 1).to_string(),
            short(round.blind),
            short(round.first_copy),
            short(round.ratio),
            short(round.resume_s),
            short(round.writer_alone),
            short(round.low.reached),
            lag(&round.low.lag),
            short(round.high.reached),
            lag(&round.high.lag),
        ]
    });
    let headings =
        vec!["ROUND", "BLIND/S", "COPY/S", "RATIO", "RESUME-S", "ALONE/S", "LOW/S", "LOW-LAG-MS", "HIGH/S", "HIGH-LAG-MS"];
    let table = Table { headings, rows: rows.collect() }.render();
    let mirror = report.make_mirror.map_or("etcdctl is not there".to_owned(), |rate| format!("{rate:.0} keys/s"));
    format!(
        "{table}\n{} keys, {} changes before the resume, etcd {}. Lags are p50/p99/longest, from a write's answer until a complete cut \
         holds it.\nFirst copy by etcdctl make-mirror: {mirror}.\n{}",
        report.keys,
        report.changes,
        report.etcd,
        goal::lines(&report.goals)
    )
}
