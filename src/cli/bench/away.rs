//! `enlist bench away`: etcd is killed under registered nodes and comes back before their leases are over: as if nothing had
//! happened.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{bail, ensure};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::fleet::{Arrival, Fleet};
use super::goal::{self, Goal, short};
use super::meter::{Log, metered};
use super::nodes::{GROUP, POOL};
use super::numbers::median;
use super::place::{Ground, Place};
use super::progress::Bar;
use super::role::Running;
use super::written::{Differences, Stand};
use crate::cli::apply;
use crate::cli::exit::Fault;
use crate::cli::output::{self, Format, Table};
use crate::model::documents::parse;
use crate::reconcile::Site;
use crate::store::api::LeaseId;

/// How often the end of something is looked for.
const LOOK: Duration = Duration::from_millis(20);
/// Longer than this without any progress is a fault, not a figure.
const STUCK: Duration = Duration::from_secs(120);

/// etcd is killed under registered nodes and comes back: nothing may be written, nothing restarted
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many nodes, up to 60,000
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    nodes: u32,
    /// How long etcd is away
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// The nodes' leases, in seconds
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(2..=600))]
    ttl: u32,
}

#[derive(Debug, Serialize)]
struct Report {
    etcd: String,
    nodes: usize,
    seconds: u32,
    ttl_s: u32,
    goals: Vec<Goal>,
    rounds: Vec<Round>,
}

#[derive(Debug, Serialize)]
struct Round {
    /// Keys below `nodes/` that were written since etcd was killed.
    written: Differences,
    /// Transactions that agents sent meanwhile, whatever became of them.
    attempts: u64,
    /// Children started anew.
    restarted: u64,
    /// From etcd's first answer until every lease was renewed.
    back_s: f64,
}

/// Runs it.
///
/// # Errors
/// When something refuses, or stands still.
pub async fn run(ground: &Ground, args: &Args, rounds: usize, format: Format) -> anyhow::Result<String> {
    if let Ground::Yours(..) = ground {
        return Err(Fault::Usage("bench away kills etcd, so it starts its own: leave --endpoints out".into()).into());
    }
    let (mut done, mut etcd) = (Vec::new(), String::new());
    for _ in 0..rounds {
        let mut place = ground.place().await?;
        etcd = place.version().to_owned();
        let round = round(&mut place, args).await;
        place.clear().await?;
        done.push(round?);
    }
    let worst = |figure: fn(&Round) -> usize| done.iter().map(figure).max().unwrap_or(0) as f64;
    let back = median(done.iter().map(|round| round.back_s).collect());
    let goals = vec![
        Goal::at_most("labels written", worst(|round| round.written.labels), 0.0),
        Goal::at_most("statuses written", worst(|round| round.written.statuses), 0.0),
        Goal::at_most("assignments written", worst(|round| round.written.assignments), 0.0),
        Goal::at_most("children restarted", worst(|round| round.restarted as usize), 0.0),
        Goal::at_most("all keep-alives are back, seconds (a TTL)", back, f64::from(args.ttl)),
    ];
    let report = Report { etcd, nodes: args.nodes as usize, seconds: args.seconds, ttl_s: args.ttl, goals, rounds: done };
    if format == Format::Json { output::json(&report) } else { Ok(text(&report)) }
}

async fn round(place: &mut Place, args: &Args) -> anyhow::Result<Round> {
    let (site, nodes) = (place.site()?, args.nodes as usize);
    let ttl = Duration::from_secs(u64::from(args.ttl));
    let documents = parse("bench", &format!("{POOL}\n---\n{GROUP}\n")).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
    apply::Target::on(site.clone(), site.clone()).apply(&documents).await?;
    let roles = Running::all(place)?;
    let log = Arc::new(Log::new(nodes));
    let children = Arc::new(AtomicU64::new(0));
    let (store, counters) = metered(place.site()?.store, Some(log.clone()));
    let store = store.with_shared_watch(site.prefix.folder("nodes"), fastrand::Rng::with_seed(7));
    let agents = Site { store, prefix: site.prefix.clone() };
    let mut fleet = Fleet::new(agents, log.clone()).with(ttl, Some(children.clone()));
    register(&mut fleet, &log, nodes).await?;

    let before = Stand::read(&site).await?;
    let (sent, started) = (counters.counts().txns, children.load(Relaxed));
    place.kill_etcd().await?;
    let bar = Bar::new("etcd is away", args.seconds as usize);
    for _ in 0..args.seconds {
        sleep(Duration::from_secs(1)).await;
        bar.add(1);
    }
    drop(bar);
    beaten(&log).clear();
    place.start_etcd_again().await?;
    let back = all_beat(&log, nodes, &mut fleet).await?;
    // One more TTL: a lease that was lost after all is gone by then, and an agent that lost it has written.
    sleep(ttl).await;
    let after = Stand::read(&site).await?;
    let written = before.differences(&after, &site);
    let (attempts, restarted) = (counters.counts().txns - sent, children.load(Relaxed) - started);
    fleet.end().await;
    for role in roles {
        role.stop().await?;
    }
    Ok(Round { written, attempts, restarted, back_s: back.as_secs_f64() })
}

/// Starts all agents and waits until they are registered and nothing moves any more.
async fn register(fleet: &mut Fleet, log: &Log, nodes: usize) -> anyhow::Result<()> {
    let bar = Bar::new("registering", nodes);
    fleet.arrive(nodes, Arrival::Rush).await?;
    let (mut last, mut moved) = (0, Instant::now());
    while last < nodes {
        let now = log.done.load(Relaxed) as usize;
        bar.set(now);
        if now != last {
            (last, moved) = (now, Instant::now());
        }
        ensure!(moved.elapsed() < STUCK, "nothing moved for {STUCK:?}: {last} of {nodes} nodes are registered");
        sleep(LOOK).await;
    }
    Ok(())
}

fn beaten(log: &Log) -> std::sync::MutexGuard<'_, HashSet<LeaseId>> {
    log.beaten.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn all_beat(log: &Log, nodes: usize, fleet: &mut Fleet) -> anyhow::Result<Duration> {
    let (bar, began) = (Bar::new("keep-alives are back", nodes), Instant::now());
    loop {
        let back = beaten(log).len();
        bar.set(back);
        if back >= nodes {
            return Ok(began.elapsed());
        }
        if fleet.lost_one() {
            bail!("an agent ended by itself");
        }
        ensure!(began.elapsed() < STUCK, "{back} of {nodes} leases were renewed within {STUCK:?}");
        sleep(LOOK).await;
    }
}

fn text(report: &Report) -> String {
    let rows = report.rounds.iter().enumerate().map(|(n, round)| {
        let Differences { labels, statuses, assignments, holds } = round.written;
        let counts = [labels, statuses, assignments, holds].map(|count| count.to_string());
        let mut row = vec![(n + 1).to_string()];
        row.extend(counts);
        row.extend([round.attempts.to_string(), round.restarted.to_string(), short(round.back_s)]);
        row
    });
    let headings = vec!["ROUND", "LABELS", "STATUSES", "ASSIGNMENTS", "HOLDS", "ATTEMPTS", "RESTARTED", "BACK-S"];
    let table = Table { headings, rows: rows.collect() }.render();
    format!(
        "{table}\n{} nodes with leases of {} s, etcd {} killed for {} s. ATTEMPTS: transactions that agents sent meanwhile. BACK-S: from \
         etcd's first answer\nuntil every lease was renewed.\n{}",
        report.nodes,
        report.ttl_s,
        report.etcd,
        report.seconds,
        goal::lines(&report.goals)
    )
}
