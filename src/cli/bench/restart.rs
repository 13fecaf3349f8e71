//! `enlist bench restart`: how long the first assignment takes after a cold start on a full store, against a plain read of
//! what is needed for it, and what memory that takes.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;
use tokio::time::timeout;

use super::again::Again;
use super::blind;
use super::goal::{self, Goal, short};
use super::nodes::values;
use super::numbers::median;
use super::place::{Ground, Place};
use super::progress::Bar;
use super::role::Running;
use crate::cli::apply;
use crate::cli::output::{self, Format, Table};
use crate::model::documents::parse;
use crate::model::names::Revision;
use crate::reconcile::Site;
use crate::store::api::{Key, KeyRange, Op, RangeRequest, Txn, WatchMessage, WatchRequest};
use crate::store::keys::{NodePart, Prefix, Role};
use crate::store::wire::Stored;
use crate::{allocator, shutdown};

/// Of a plain read of all the keys.
const TIME_BAR: f64 = 1.5;
/// Bytes a claim beyond the keys and values as they are stored.
const MEMORY_BAR: f64 = 300.0;
/// Keys in an answer of the plain read.
const PAGE: i64 = 5_000;
/// Longer than this is a fault, not a figure.
const STUCK: Duration = Duration::from_secs(600);
/// The lease of the nodes' statuses: on none they would not count, and no round takes four hours.
const LEASE_S: u64 = 4 * 3600;
/// Room for 16 million nodes.
const POOL: &str = "{kind: Pool, name: bench, cidrs: [10.0.0.0/8], ports: 30000-32767, hold: 10m, cooldown: 60s}";

/// From leadership won to the first new assignment, on a store that is full of claims
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many claims: two for each node, its address and a port on it
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(2..=1_800_000))]
    claims: u32,
    /// Be the allocator that is measured
    #[arg(long, hide = true)]
    be_allocator: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    etcd: String,
    claims: usize,
    keys: usize,
    /// Keys and values as they are stored.
    raw_bytes: u64,
    goals: Vec<Goal>,
    rounds: Vec<Round>,
}

#[derive(Debug, Serialize)]
struct Round {
    /// Seconds of a plain read of all the keys.
    read_s: f64,
    /// Seconds from leadership won to the first new assignment.
    restart_s: f64,
    ratio: f64,
    /// Memory of the whole process then.
    memory_bytes: u64,
    /// What of it is beyond the raw bytes, for each claim.
    beyond_raw: f64,
}

/// Runs it.
///
/// # Errors
/// When something refuses, or stands still.
pub async fn run(ground: &Ground, args: &Args, rounds: usize, format: Format) -> anyhow::Result<String> {
    if args.be_allocator {
        return be_allocator(ground).await;
    }
    let nodes = args.claims as usize / 2;
    let place = ground.place().await?;
    let site = place.site()?;
    fill(&site, nodes).await?;
    let bar = Bar::new("restarts", rounds);
    let (mut done, mut keys, mut raw_bytes) = (Vec::new(), 0, 0);
    for n in 0..rounds {
        let waiting = newcomer(&site, nodes + n).await?;
        let read;
        (read, keys, raw_bytes) = plain_read(&place.site()?).await?;
        let (restart, memory_bytes) = restart(&place, &site, waiting, args).await?;
        let beyond_raw = (memory_bytes as f64 - raw_bytes as f64) / (nodes * 2) as f64;
        let ratio = restart.as_secs_f64() / read.as_secs_f64();
        done.push(Round { read_s: read.as_secs_f64(), restart_s: restart.as_secs_f64(), ratio, memory_bytes, beyond_raw });
        bar.add(1);
    }
    drop((bar, site));
    let etcd = place.version().to_owned();
    place.clear().await?;
    let middle = |figure: fn(&Round) -> f64| median(done.iter().map(figure).collect());
    let goals = vec![
        Goal::at_most("first new assignment over a plain read of all the keys", middle(|round| round.ratio), TIME_BAR),
        Goal::at_most("memory beyond the raw bytes, bytes a claim", middle(|round| round.beyond_raw), MEMORY_BAR),
    ];
    let report = Report { etcd, claims: nodes * 2, keys, raw_bytes, goals, rounds: done };
    if format == Format::Json { output::json(&report) } else { Ok(text(&report)) }
}

/// The child's part: an allocator like any other, until it is killed.
async fn be_allocator(ground: &Ground) -> anyhow::Result<String> {
    let Ground::Yours(settings, prefix) = ground else { anyhow::bail!("an allocator needs --endpoints") };
    let store = crate::Store::open(settings.as_ref().clone())?;
    let stop = shutdown::Shutdown::on_signals().context("failed to listen for signals")?;
    let running = Running::allocator(Site { store, prefix: prefix.clone() });
    stop.orderly.cancelled().await;
    running.stop().await?;
    Ok(String::new())
}

async fn fill(site: &Site, nodes: usize) -> anyhow::Result<()> {
    let documents = parse("bench", POOL).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
    apply::Target::on(site.clone(), site.clone()).apply(&documents).await?;
    let lease = site.store.grant(LEASE_S).await?.0;
    // No name can be refused here: all of them were made by the same few lines.
    let puts = (0..nodes).filter_map(|n| values(n).ok()).flat_map(|node| {
        let key = |part| site.prefix.node(&node.id, part);
        [
            Op::put(key(NodePart::Label), node.label.encode()),
            Op::Put { key: key(NodePart::Status), value: node.registered.encode(), lease },
            Op::put(key(NodePart::Assignment), node.assignment.encode()),
            Op::put(site.prefix.claim(&node.address), node.claim.encode()),
            Op::put(site.prefix.claim(&node.port), node.claim.encode()),
        ]
    });
    blind::write(&site.store, puts, &Bar::new("filling the store", nodes * 5)).await?;
    Ok(())
}

/// A node that has no assignment yet. Answers the key that is waited for.
async fn newcomer(site: &Site, n: usize) -> anyhow::Result<Key> {
    let node = values(n)?;
    let key = |part| site.prefix.node(&node.id, part);
    let lease = site.store.grant(LEASE_S).await?.0;
    let status = Op::Put { key: key(NodePart::Status), value: node.joining.encode(), lease };
    let then = vec![Op::put(key(NodePart::Label), node.label.encode()), status];
    site.store.txn(Txn { then, ..Txn::default() }).await?;
    Ok(key(NodePart::Assignment))
}

/// Reads all that an allocator reads, and drops it. Answers the time, the keys and the bytes.
async fn plain_read(site: &Site) -> anyhow::Result<(Duration, usize, u64)> {
    let began = Instant::now();
    let (mut keys, mut bytes, mut revision) = (0, 0, None);
    for range in allocator::scope(site).ranges {
        let mut next = RangeRequest { limit: PAGE, revision, ..RangeRequest::all(range) };
        loop {
            let page = site.store.range(next.clone()).await.context("failed to read what an allocator reads")?;
            revision = Some(page.header.revision).filter(|_| revision.is_none()).or(revision);
            next.revision = revision;
            keys += page.kvs.len();
            bytes += page.kvs.iter().map(|kv| (kv.key.as_bytes().len() + kv.value.len()) as u64).sum::<u64>();
            let Some(last) = page.kvs.last().filter(|_| page.more) else { break };
            next.range.start = last.key.successor();
        }
    }
    Ok((began.elapsed(), keys, bytes))
}

/// Starts an allocator. Answers the time from its leadership to the assignment, and its memory then.
async fn restart(place: &Place, site: &Site, waiting: Key, args: &Args) -> anyhow::Result<(Duration, u64)> {
    let revision = site.store.get(waiting.clone()).await?.0.revision;
    let (led, assigned) = (first(site, leaders(&site.prefix), revision), first(site, KeyRange::one(waiting), revision));
    let both = async { tokio::try_join!(led, assigned) };
    let mut child = Again::start(place, "restart", &[format!("--claims={}", args.claims)], "--be-allocator").await?;
    let (led, assigned) = tokio::select! {
        both = timeout(STUCK, both) => both.with_context(|| format!("no assignment came for {STUCK:?}"))??,
        error = child.ended() => return Err(error),
    };
    let memory = child.memory()?;
    child.kill().await;
    // The next one need not wait until this one's lease runs out.
    site.store.txn(Txn { then: vec![Op::Delete(leaders(&site.prefix))], ..Txn::default() }).await?;
    Ok((assigned.saturating_duration_since(led), memory))
}

fn leaders(prefix: &Prefix) -> KeyRange {
    prefix.leaders(Role::Allocator)
}

/// When the first event after a revision is seen.
async fn first(site: &Site, range: KeyRange, after: Revision) -> anyhow::Result<Instant> {
    let mut watch = site.store.watch(WatchRequest { range, start: after.next(), beside: false }).await?;
    while let Some(message) = watch.next().await {
        if let WatchMessage::Events { .. } = message? {
            return Ok(Instant::now());
        }
    }
    anyhow::bail!("etcd ended a watch")
}

fn text(report: &Report) -> String {
    let rows = report.rounds.iter().enumerate().map(|(n, round)| {
        vec![
            (n + 1).to_string(),
            short(round.read_s),
            short(round.restart_s),
            short(round.ratio),
            short(round.memory_bytes as f64 / 1024.0 / 1024.0),
            short(round.beyond_raw),
        ]
    });
    let headings = vec!["ROUND", "READ-S", "RESTART-S", "RATIO", "MEMORY-MIB", "BEYOND-RAW"];
    let table = Table { headings, rows: rows.collect() }.render();
    format!(
        "{table}\n{} claims in {} keys, {} MiB of keys and values, etcd {}. BEYOND-RAW: bytes of memory for a claim, less the raw \
         ones.\n{}",
        report.claims,
        report.keys,
        report.raw_bytes / 1024 / 1024,
        report.etcd,
        goal::lines(&report.goals)
    )
}
