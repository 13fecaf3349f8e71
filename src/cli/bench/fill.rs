//! `enlist bench fill`: what an allocation costs the planner, by how full the pool is. In this process; there is no etcd.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde::Serialize;

use super::goal::{self, Goal, short};
use super::nodes::values;
use super::numbers::{median, thread_seconds};
use super::progress::Bar;
use crate::cli::output::{self, Format, Table};
use crate::model::claim::{Claim, ClaimKey, ClaimState};
use crate::model::documents::{Document, parse};
use crate::model::names::{DomainName, NodeId, PoolName, Revision};
use crate::model::pool::Pool;
use crate::plan::Pass;
use crate::plan::allocate::serve::serve;
use crate::plan::change::Action;
use crate::plan::index::Index;
use crate::plan::snapshot::{NodeRecord, Snapshot, Stored};
use crate::plan::taken::Taken;
use crate::plan::world::World;

/// How full, in percent.
const LEVELS: [f64; 3] = [1.0, 50.0, 99.9];
/// Between the levels of one pool.
const LEVELS_BAR: f64 = 2.0;
/// Between the slowest levels of all pools.
const POOLS_BAR: f64 = 4.0;

/// What an allocation costs the planner when pools are nearly empty, half full and nearly full (in this process)
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Lengths of the IPv4 prefixes that are filled
    #[arg(long, value_name = "LENGTH,…", value_delimiter = ',', default_value = "16,8",
          value_parser = clap::value_parser!(u8).range(8..=22))]
    prefixes: Vec<u8>,
    /// Claims in an IPv6 /64; 0 = none is measured
    #[arg(long, default_value_t = 10_000_000)]
    claims: u32,
    /// Allocations at each level
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    allocations: u32,
}

/// A pool, filled so far.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Shape {
    V4 { length: u8, percent: f64 },
    V6 { claims: u32 },
}

impl Shape {
    fn pool(self) -> String {
        match self {
            Shape::V4 { length, .. } => format!("10.0.0.0/{length}"),
            Shape::V6 { .. } => "fd00::/64".to_owned(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    allocations: u32,
    goals: Vec<Goal>,
    levels: Vec<Level>,
}

/// A pool at one level, in the middle round.
#[derive(Debug, Clone, Serialize)]
struct Level {
    pool: String,
    /// `None` in an IPv6 pool: it never is noticeably full.
    percent: Option<f64>,
    claims: usize,
    /// Microseconds of processor time for an allocation: what else runs on the machine does not count.
    mean_us: f64,
    /// 99 of 100 took at most this long, by the clock.
    p99_us: f64,
    /// What an allocator does once, when it has read everything: noting all that is taken. Milliseconds of processor time.
    start_ms: f64,
}

/// Runs it.
///
/// # Errors
/// When an allocation fails, which would make the figures worthless.
pub fn run(args: &Args, rounds: usize, format: Format) -> anyhow::Result<String> {
    let v4 = args.prefixes.iter().flat_map(|length| LEVELS.map(|percent| Shape::V4 { length: *length, percent }));
    let shapes: Vec<Shape> = v4.chain((args.claims > 0).then_some(Shape::V6 { claims: args.claims })).collect();
    let bar = Bar::new("fill", rounds * shapes.len());
    let mut measured: Vec<Vec<Level>> = shapes.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (shape, levels) in shapes.iter().zip(&mut measured) {
            levels.push(measure(*shape, args.allocations as usize)?);
            bar.add(1);
        }
    }
    drop(bar);
    let levels: Vec<Level> = measured.into_iter().filter_map(middle).collect();
    let report = Report { allocations: args.allocations, goals: goals(&levels), levels };
    if format == Format::Json { output::json(&report) } else { Ok(text(&report, rounds)) }
}

fn middle(levels: Vec<Level>) -> Option<Level> {
    let of = |figure: fn(&Level) -> f64| median(levels.iter().map(figure).collect());
    let (mean_us, p99_us, start_ms) = (of(|l| l.mean_us), of(|l| l.p99_us), of(|l| l.start_ms));
    levels.into_iter().next().map(|level| Level { mean_us, p99_us, start_ms, ..level })
}

fn goals(levels: &[Level]) -> Vec<Goal> {
    let mut by_pool: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for level in levels {
        by_pool.entry(&level.pool).or_default().push(level.mean_us);
    }
    let ratio = |figures: &[f64]| {
        figures.iter().copied().fold(f64::NAN, f64::max) / figures.iter().copied().fold(f64::NAN, f64::min).max(1e-9)
    };
    let within = by_pool.iter().filter(|(_, figures)| figures.len() > 1);
    let mut goals: Vec<Goal> = within
        .map(|(pool, figures)| Goal::at_most(format!("{pool}, slowest level over fastest"), ratio(figures), LEVELS_BAR))
        .collect();
    let slowest: Vec<f64> = by_pool.values().map(|figures| figures.iter().copied().fold(f64::NAN, f64::max)).collect();
    if slowest.len() > 1 {
        goals.push(Goal::at_most("slowest pool over fastest", ratio(&slowest), POOLS_BAR));
    }
    goals
}

fn measure(shape: Shape, allocations: usize) -> anyhow::Result<Level> {
    let (mut snapshot, free) = filled(shape)?;
    let claims = snapshot.claims.len();
    // Half of what is free at most, so that the level stays the level while it is measured.
    let at_once = usize::try_from(free / 2).unwrap_or(usize::MAX).clamp(1, allocations);
    join(&mut snapshot, at_once)?;
    let (pass, index) = (Pass::default(), Index::default());
    let started = thread_seconds()?;
    let world = World::new(&snapshot, &index, &pass);
    let mut taken = Taken::of(&snapshot);
    let start_ms = (thread_seconds()? - started) * 1_000.0;
    let (mut nanoseconds, mut busy_s) = (Vec::with_capacity(allocations), 0.0);
    while nanoseconds.len() < allocations {
        let busy = thread_seconds()?;
        taken.begin(&index);
        for (node, record) in snapshot.nodes.iter().take(allocations - nanoseconds.len()) {
            let began = Instant::now();
            let change = serve(&world, &mut taken, node, record);
            nanoseconds.push(began.elapsed().as_nanos() as f64);
            ensure!(change.is_some_and(|change| change.action == Action::Assign), "{node} was not given an address");
        }
        busy_s += thread_seconds()? - busy;
        // The next ones find it as these did.
        taken.end();
    }
    let percent = if let Shape::V4 { percent, .. } = shape { Some(percent) } else { None };
    let mean_us = busy_s * 1_000_000.0 / nanoseconds.len() as f64;
    nanoseconds.sort_by(f64::total_cmp);
    let p99_us = nanoseconds.get((nanoseconds.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or(f64::NAN) / 1_000.0;
    Ok(Level { pool: shape.pool(), percent, claims, mean_us, p99_us, start_ms })
}

/// Nodes that have nothing yet.
fn join(snapshot: &mut Snapshot, nodes: usize) -> anyhow::Result<()> {
    for n in 0..nodes {
        let node = values(n)?;
        // On no lease its status would not count.
        let status = Stored { leased: true, ..stored(node.joining) };
        let record = NodeRecord { label: Some(stored(node.label)), status: Some(status), ..NodeRecord::default() };
        snapshot.nodes.insert(node.id, record);
    }
    Ok(())
}

fn stored<T>(value: T) -> Stored<T> {
    Stored { value: Ok(value), create_revision: Revision(1), mod_revision: Revision(1), leased: false }
}

/// The snapshot, and how many addresses are free.
fn filled(shape: Shape) -> anyhow::Result<(Snapshot, u64)> {
    let pool = pool(&shape.pool())?;
    let claim = Claim { node: "other".parse::<NodeId>()?, pool: pool.name.clone(), state: ClaimState::Bound };
    let (addresses, free) = match shape {
        Shape::V4 { length, percent } => scattered_v4(length, percent),
        Shape::V6 { claims } => (scattered_v6(claims), u64::MAX),
    };
    let mut snapshot = Snapshot { revision: Revision(2), ..Snapshot::default() };
    let domain: DomainName = pool.domain.clone();
    // One after another in order, as the view gets them from a listing.
    for ip in addresses {
        snapshot.claims.insert(ClaimKey { domain: domain.clone(), ip, port: None }, stored(claim.clone()));
    }
    snapshot.pools.insert(pool.name.clone(), stored(pool));
    Ok((snapshot, free))
}

fn pool(cidr: &str) -> anyhow::Result<Pool> {
    let text = format!("{{kind: Pool, name: bench, cidrs: [\"{cidr}\"], ports: 30000-32767}}");
    let documents = parse("bench", &text).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
    let found = documents.into_iter().find_map(|document| match document {
        Document::Pool(pool) => Some(pool),
        Document::Group(_) => None,
    });
    let name: PoolName = "bench".parse()?;
    found.filter(|pool| pool.name == name).context("the bench's own pool is not one")
}

/// So many percent of the usable addresses, anywhere: names are hashed, so a real pool fills everywhere at once.
fn scattered_v4(length: u8, percent: f64) -> (Vec<IpAddr>, u64) {
    let size = 1_u64 << (32 - u32::from(length));
    let usable = size - 2;
    let count = (usable as f64 * percent / 100.0).round() as u64;
    // An odd factor walks through all numbers below a power of two, each once.
    let number = |n: u64| (n.wrapping_mul(0x9e37_79b1)) & (size - 1);
    let chosen = (0..size).map(number).filter(|number| (1..=usable).contains(number));
    let mut numbers: Vec<u32> = chosen.take(count as usize).filter_map(|number| u32::try_from(number).ok()).collect();
    numbers.sort_unstable();
    let addresses = numbers.into_iter().map(|number| IpAddr::from(Ipv4Addr::from(0x0a00_0000 | number))).collect();
    (addresses, usable - count)
}

fn scattered_v6(claims: u32) -> Vec<IpAddr> {
    let mut random = fastrand::Rng::with_seed(64);
    let mut numbers: Vec<u64> = (0..claims).map(|_| random.u64(1..)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let prefix = 0xfd00_u128 << 112;
    numbers.into_iter().map(|number| IpAddr::from(Ipv6Addr::from(prefix | u128::from(number)))).collect()
}

fn text(report: &Report, rounds: usize) -> String {
    let rows = report.levels.iter().map(|level| {
        vec![
            level.pool.clone(),
            level.percent.map_or("-".to_owned(), |percent| format!("{percent} %")),
            level.claims.to_string(),
            short(level.mean_us),
            short(level.p99_us),
            short(level.start_ms),
        ]
    });
    let headings = vec!["POOL", "FULL", "CLAIMS", "MEAN-US", "P99-US", "START-MS"];
    let table = Table { headings, rows: rows.collect() }.render();
    format!(
        "{table}\nProcessor time of the planner for one allocation (P99-US by the clock), {} at each level, the middle of {rounds} rounds. \
         START-MS is\nwhat an allocator does once, when it has read everything: noting all that is taken.\n{}",
        report.allocations,
        goal::lines(&report.goals)
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_pool_is_as_full_as_it_should_be_and_everybody_finds_something() {
        let (addresses, free) = scattered_v4(20, 99.9);
        assert_eq!((addresses.len(), free), (4_090, 4));
        assert!(addresses.windows(2).all(|pair| pair[0] < pair[1]), "each once, in order");
        let level = measure(Shape::V4 { length: 20, percent: 99.9 }, 9).unwrap();
        assert_eq!((level.claims, level.percent), (4_090, Some(99.9)));
        assert_eq!(measure(Shape::V6 { claims: 500 }, 9).unwrap().claims, 500);
    }
}
