//! `enlist bench storm`: a process with very many agents is stopped as it stands until all their leases are gone, and then
//! goes on: they all come back at once.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::stream::{self, StreamExt, TryStreamExt};
use nix::sys::signal::Signal;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use super::again::Again;
use super::fleet::{Arrival, Fleet, Sharing};
use super::floor::IN_FLIGHT;
use super::goal::{self, Goal, short};
use super::living::Living;
use super::meter::Log;
use super::nodes::{GROUP, POOL, values};
use super::numbers::{median, rate};
use super::place::{Ground, Place};
use super::progress::Bar;
use super::role::Running;
use super::written::{Differences, Stand, brake};
use crate::cli::apply;
use crate::cli::output::{self, Format, Table};
use crate::model::documents::parse;
use crate::reconcile::Site;
use crate::store::api::{Op, Txn};
use crate::store::keys::NodePart;
use crate::store::wire::Stored;

/// Of a blind grant and status write.
const RATE_BAR: f64 = 0.7;
/// The allocator reports every five seconds.
const BRAKE_LIMIT: Duration = Duration::from_secs(60);
/// How often the agents say how many of them are back: a hundredth of what it takes.
const SAY: Duration = Duration::from_millis(20);
/// Agents that say nothing for so long are back, or will not be. It is longer than a flood of grants may keep their statuses back.
const SILENT: Duration = Duration::from_secs(15);
/// Without a change for so long the roles have done what the loss asks of them.
const QUIET: Duration = Duration::from_secs(3);

/// Very many agents that lost their leases come back at the same moment
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many agents, up to 60,000
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(4..=60_000))]
    nodes: u32,
    /// Their leases, in seconds
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(2..=600))]
    ttl: u32,
    /// They share leases and batch their writes, as agents of one process may
    #[arg(long)]
    together: bool,
    /// Be the agents that are stopped
    #[arg(long, hide = true)]
    be_agents: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    etcd: String,
    nodes: usize,
    ttl_s: u32,
    together: bool,
    goals: Vec<Goal>,
    rounds: Vec<Round>,
}

#[derive(Debug, Serialize)]
struct Round {
    /// Nodes a second of a blind grant and status write, once before and once after: a machine that becomes slower meanwhile must
    /// not look like a slower return.
    blind_before: f64,
    blind_after: f64,
    /// Of the times that both took.
    blind: f64,
    ratio: f64,
    #[serde(flatten)]
    back: Back,
}

#[derive(Debug, Serialize)]
struct Back {
    /// Registered again a second, from the moment they are woken.
    rate: f64,
    /// From the last status' end until the brake was on, and from the last registration until it was off.
    brake_on_s: f64,
    brake_off_s: f64,
    /// Keys that were written from before the pause until the end.
    written: Differences,
}

/// Runs it.
///
/// # Errors
/// When something refuses, or stands still.
pub async fn run(ground: &Ground, args: &Args, rounds: usize, format: Format) -> anyhow::Result<String> {
    if args.be_agents {
        return be_agents(ground, args).await;
    }
    let (mut done, mut etcd) = (Vec::new(), String::new());
    for _ in 0..rounds {
        let blind_before = blind(ground, args).await?;
        let place = ground.place().await?;
        etcd = place.version().to_owned();
        let back = back(&place, args).await;
        place.clear().await?;
        let (back, blind_after) = (back?, blind(ground, args).await?);
        let blind = 2.0 / (1.0 / blind_before + 1.0 / blind_after);
        done.push(Round { blind_before, blind_after, blind, ratio: back.rate / blind, back });
    }
    let middle = |ratio: fn(&Round) -> f64| median(done.iter().map(ratio).collect());
    let goals = vec![
        Goal::at_least("registered again over a blind grant and status write", middle(|r| r.ratio), RATE_BAR),
        Goal::at_most("assignments changed", done.iter().map(|r| r.back.written.assignments).max().unwrap_or(0) as f64, 0.0),
        Goal::at_most("labels changed", done.iter().map(|r| r.back.written.labels).max().unwrap_or(0) as f64, 0.0),
    ];
    let report = Report { etcd, nodes: args.nodes as usize, ttl_s: args.ttl, together: args.together, goals, rounds: done };
    if format == Format::Json { output::json(&report) } else { Ok(text(&report)) }
}

/// The child's part: agents, until it is killed. It says how many have written their registration once more: a watch for that would
/// take etcd's time, and the parent's, away from what is measured.
async fn be_agents(ground: &Ground, args: &Args) -> anyhow::Result<String> {
    let Ground::Yours(settings, prefix) = ground else { bail!("agents need --endpoints") };
    let log = Arc::new(Log::new(args.nodes as usize));
    let site = Site { store: crate::Store::open(settings.as_ref().clone())?, prefix: prefix.clone() };
    let (fleet, _) = Fleet::sharing(site, if args.together { Sharing::All } else { Sharing::Watch }, log.clone());
    let mut fleet = fleet.with(Duration::from_secs(u64::from(args.ttl)), None);
    fleet.arrive(args.nodes as usize, Arrival::Rush).await?;
    let mut told = 0;
    while !fleet.lost_one() {
        sleep(SAY).await;
        let again = log.done_again.load(Relaxed);
        if again != told {
            told = again;
            writeln!(std::io::stdout(), "{again}").context("failed to say how many are back")?;
        }
    }
    bail!("an agent ended by itself")
}

/// A grant for each, then a status for each.
async fn blind(ground: &Ground, args: &Args) -> anyhow::Result<f64> {
    let place = ground.place().await?;
    let rate = grants_and_statuses(&place, args).await;
    place.clear().await?;
    rate
}

async fn grants_and_statuses(place: &Place, args: &Args) -> anyhow::Result<f64> {
    let (site, nodes) = (place.site()?, args.nodes as usize);
    let bar = Bar::new("blind", nodes * 2);
    let values = (0..nodes).map(values).collect::<anyhow::Result<Vec<_>>>()?;
    let began = Instant::now();
    let grants = stream::iter(0..nodes).map(async |_| {
        let (lease, _) = site.store.grant(u64::from(args.ttl)).await.context("failed to grant a lease")?;
        bar.add(1);
        anyhow::Ok(lease)
    });
    let leases: Vec<_> = grants.buffered(IN_FLIGHT).try_collect().await?;
    let writes = stream::iter(values.iter().zip(leases)).map(async |(node, lease)| {
        let key = site.prefix.node(&node.id, NodePart::Status);
        let then = vec![Op::Put { key, value: node.registered.encode(), lease }];
        site.store.txn(Txn { then, ..Txn::default() }).await.context("failed to write a status")?;
        bar.add(1);
        anyhow::Ok(())
    });
    writes.buffered(IN_FLIGHT).try_collect::<()>().await?;
    Ok(rate(nodes, began.elapsed()))
}

async fn back(place: &Place, args: &Args) -> anyhow::Result<Back> {
    let (site, nodes) = (place.site()?, args.nodes as usize);
    let documents = parse("bench", &format!("{POOL}\n---\n{GROUP}\n")).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
    apply::Target::on(site.clone(), site.clone()).apply(&documents).await?;
    let roles = Running::all(place)?;
    let mut living = Living::open(&place.site()?);
    let mut flags = vec![format!("--nodes={}", args.nodes), format!("--ttl={}", args.ttl)];
    flags.extend(args.together.then(|| "--together".to_owned()));
    let mut agents = Again::start(place, "storm", &flags, "--be-agents").await?;
    tokio::select! {
        biased;
        error = agents.ended() => return Err(error),
        registered = living.registered(nodes, "registering") => drop(registered?),
    }
    living.quiet(QUIET).await?;
    let before = Stand::read(&site).await?;

    agents.signal(Signal::SIGSTOP)?;
    living.gone(nodes, "leases run out").await?;
    let brake_on = brake(&site, true, BRAKE_LIMIT).await?;
    living.quiet(QUIET).await?;
    drop(living);
    agents.forget_numbers().await?;

    let began = Instant::now();
    agents.signal(Signal::SIGCONT)?;
    told(&mut agents, nodes).await?;
    let mut back = Instant::now();
    // The store must agree; if it does not at the first look, it is the store that counts.
    let mut living = Living::open(&place.site()?);
    if living.registered(nodes, "coming back").await? > 1 {
        back = Instant::now();
    }
    let rate = rate(nodes, back.duration_since(began));
    brake(&site, false, BRAKE_LIMIT).await?;
    let brake_off = back.elapsed();
    living.quiet(QUIET).await?;
    let after = Stand::read(&site).await?;
    for role in roles {
        role.stop().await?;
    }
    agents.kill().await;
    if place.is_yours() {
        // The next blind side is in the same etcd, which would be busy with the ends of these leases.
        living.gone(nodes, "leases run out").await?;
    }
    Ok(Back {
        rate,
        brake_on_s: brake_on.as_secs_f64(),
        brake_off_s: brake_off.as_secs_f64(),
        written: before.differences(&after, &site),
    })
}

/// Waits until the agents say that all are back, or nothing more.
async fn told(agents: &mut Again, nodes: usize) -> anyhow::Result<()> {
    let bar = Bar::new("coming back", nodes);
    let mut told = 0;
    while told < nodes {
        // An answer that was lost is counted by nobody, and only the store can tell.
        let Ok(number) = timeout(SILENT, agents.number()).await else { break };
        told = number?;
        bar.set(told);
    }
    Ok(())
}

fn text(report: &Report) -> String {
    let rows = report.rounds.iter().enumerate().map(|(n, round)| {
        vec![
            (n + 1).to_string(),
            short(round.blind_before),
            short(round.blind_after),
            short(round.back.rate),
            short(round.ratio),
            short(round.back.brake_on_s),
            short(round.back.brake_off_s),
            round.back.written.labels.to_string(),
            round.back.written.assignments.to_string(),
        ]
    });
    let headings =
        vec!["ROUND", "BLIND-BEFORE/S", "BLIND-AFTER/S", "BACK/S", "RATIO", "BRAKE-ON-S", "BRAKE-OFF-S", "LABELS", "ASSIGNMENTS"];
    let table = Table { headings, rows: rows.collect() }.render();
    format!(
        "{table}\n{} agents with leases of {} s{}, stopped until the last lease was gone, etcd {}. LABELS and ASSIGNMENTS: how many changed. \
         The brake went\non after the loss and off after the return, so many seconds later.\n{}",
        report.nodes,
        report.ttl_s,
        if report.together { " that a hundred of them share, writes in batches" } else { "" },
        report.etcd,
        goal::lines(&report.goals)
    )
}
