//! Nodes that join, until every one is registered and a published member of its group, against the floor.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;
use tokio::time::Instant;

use super::fleet::{Arrival, Fleet, Sharing};
use super::meter::{Counters, Counts, Log, metered};
use super::nodes::{GROUP, POOL};
use super::numbers::{Latency, cpu_seconds, rate};
use super::place::Place;
use super::progress::Bar;
use super::role::Running;
use crate::cli::apply;
use crate::model::documents::parse;
use crate::reconcile::Site;
use crate::store::api::{KeyRange, RangeRequest};
use crate::store::keys::Role;
use crate::store::wire::{Stored, Summary};

/// Longer than this without any progress is a fault, not a figure.
const STUCK: Duration = Duration::from_secs(60);
/// How often the end is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// What a run measured.
#[derive(Debug, Clone, Serialize)]
pub struct Pipeline {
    /// Registrations a second, from the first start (but for the one that warms up) to the last published member.
    pub rate: f64,
    /// From the label's write, as soon as that is known, to the answer at the node. By how much a start was late is added.
    pub to_assigned: Latency,
    /// From the label to the acknowledgement, as above.
    pub to_registered: Latency,
    /// From when a node was due until the answer: the grant of its lease and the writing of its label count as well.
    pub due_to_assigned: Latency,
    /// Processor seconds of etcd for 1,000 registrations.
    pub etcd_cpu_s: Option<f64>,
    /// Processor seconds of this process, agents and roles together, for 1,000 registrations.
    pub our_cpu_s: Option<f64>,
    /// Transactions for each registration, by whom.
    pub txns: f64,
    /// Bytes of keys and values in them for each registration.
    pub bytes: f64,
    /// What went through each one's store.
    pub stores: Stores,
}

/// What went through each one's store.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Stores {
    /// All agents'.
    pub agents: Counts,
    /// The allocator's.
    pub allocator: Counts,
    /// The relay's.
    pub relay: Counts,
    /// The manager's.
    pub manager: Counts,
}

struct Roles {
    counters: [Arc<Counters>; 3],
    running: [Running; 3],
}

/// Runs it once.
///
/// # Errors
/// When something refuses, or stands still.
pub async fn pipeline(place: &Place, nodes: usize, arrival: Arrival, sharing: Sharing) -> anyhow::Result<Pipeline> {
    let site = place.site()?;
    let documents = parse("bench", &format!("{POOL}\n---\n{GROUP}\n")).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
    apply::Target::on(site.clone(), site.clone()).apply(&documents).await?;
    let roles = start_roles(place)?;
    leading(&site).await?;
    let log = Arc::new(Log::new(nodes + 1));
    let (mut fleet, counters) = Fleet::sharing(place.site()?, sharing, log.clone());

    let bar = Bar::new("pipeline", nodes);
    // One more, before the others: every view has begun then. One that just began may wait for etcd's next round of watches that
    // lag, a tenth of a second, which is the time of roles that start and not of nodes that join.
    fleet.start(nodes)?;
    published(&site, 1, &log, &mut fleet, &bar).await?;
    if let Ok(permit) = log.joined.try_acquire() {
        permit.forget();
    }
    let counts = || [counters.counts(), roles.counters[0].counts(), roles.counters[1].counts(), roles.counters[2].counts()];
    let counts_before = counts();
    let etcd_before = place.etcd_cpu();
    let our_before = cpu_seconds(std::process::id() as i32);
    let began = Instant::now();
    let due = {
        let arriving = fleet.arrive(nodes, arrival);
        tokio::pin!(arriving);
        loop {
            tokio::select! {
                due = &mut arriving => break due?,
                () = tokio::time::sleep(LOOK) => bar.set(log.done.load(Relaxed) as usize),
            }
        }
    };
    published(&site, nodes + 1, &log, &mut fleet, &bar).await?;
    let elapsed = began.elapsed();
    let since = |before: Option<f64>, now: Option<f64>| Some((now? - before?) / nodes as f64 * 1_000.0);
    let etcd_cpu_s = since(etcd_before, place.etcd_cpu());
    let our_cpu_s = since(our_before, cpu_seconds(std::process::id() as i32));

    let now = counts();
    let all: [Counts; 4] = std::array::from_fn(|at| now[at].since(&counts_before[at]));
    let [agents, allocator, relay, manager] = all;
    fleet.end().await;
    for role in roles.running {
        role.stop().await?;
    }
    let due = |node: usize| due.get(node).copied().unwrap_or(0);
    // The label of a node that was late to start was late by as much.
    let labelled = |node: usize| at(&log.labelled, node).saturating_sub(at(&log.started, node).saturating_sub(due(node)));
    let latency = |list: &[AtomicU64], from: &dyn Fn(usize) -> u64| {
        Latency::of((0..nodes).map(|n| at(list, n).saturating_sub(from(n))).collect())
    };
    Ok(Pipeline {
        rate: rate(nodes, elapsed),
        to_assigned: latency(&log.assigned, &labelled),
        to_registered: latency(&log.registered, &labelled),
        due_to_assigned: latency(&log.assigned, &due),
        etcd_cpu_s,
        our_cpu_s,
        txns: all.iter().map(|counts| counts.txns).sum::<u64>() as f64 / nodes as f64,
        bytes: all.iter().map(|counts| counts.sent_bytes).sum::<u64>() as f64 / nodes as f64,
        stores: Stores { agents, allocator, relay, manager },
    })
}

fn at(list: &[AtomicU64], node: usize) -> u64 {
    list.get(node).map_or(0, |slot| slot.load(Relaxed))
}

fn start_roles(place: &Place) -> anyhow::Result<Roles> {
    let site = || -> anyhow::Result<(Site, Arc<Counters>)> {
        let site = place.site()?;
        let (store, counters) = metered(site.store, None);
        Ok((Site { store, ..site }, counters))
    };
    let (allocators, allocator_counts) = site()?;
    let (relays, relay_counts) = site()?;
    let (managers, manager_counts) = site()?;
    let running = [Running::allocator(allocators), Running::relay(relays.clone(), relays), Running::manager(managers)];
    Ok(Roles { counters: [allocator_counts, relay_counts, manager_counts], running })
}

/// Waits until each role has a leader that said so.
async fn leading(site: &Site) -> anyhow::Result<()> {
    let deadline = Instant::now() + STUCK;
    for role in Role::ALL {
        while site.store.get(site.prefix.role(role)).await?.1.is_none() {
            ensure!(Instant::now() < deadline, "the {role} does not lead after {STUCK:?}");
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

/// Waits until so many nodes are registered and published members.
async fn published(site: &Site, nodes: usize, log: &Log, fleet: &mut Fleet, bar: &Bar) -> anyhow::Result<()> {
    let (mut last, mut moved) = ((0, 0), Instant::now());
    loop {
        let registered = log.done.load(Relaxed) as usize;
        bar.set(registered);
        let members = if registered < nodes { 0 } else { members(site).await? };
        if members >= nodes {
            return Ok(());
        }
        if fleet.lost_one() {
            bail!("an agent ended by itself");
        }
        if (registered, members) != last {
            (last, moved) = ((registered, members), Instant::now());
        }
        ensure!(
            moved.elapsed() < STUCK,
            "nothing moved for {STUCK:?}: {registered} of {nodes} nodes are registered, {members} published"
        );
        tokio::time::sleep(LOOK).await;
    }
}

async fn members(site: &Site) -> anyhow::Result<usize> {
    let (_, summary) = site.store.get(site.prefix.summary("all")).await.context("failed to read the group's summary")?;
    let published = summary.and_then(|kv| Summary::decode(&kv.value).ok()).map_or(0, |summary| summary.published);
    // The summary and the keys that it counts are written together or one after another: the keys are what consumers read.
    let folder: KeyRange = site.prefix.folder("manager/groups/all/members");
    let keys = site.store.range(RangeRequest { count_only: true, ..RangeRequest::all(folder) }).await?;
    Ok(usize::try_from(published.min(u64::try_from(keys.count).unwrap_or(0))).unwrap_or(0))
}

/// One single put on an idle store: the unit of the latency's bar.
///
/// # Errors
/// When etcd refuses it.
pub async fn single_put(site: &Site) -> anyhow::Result<Latency> {
    let mut micros = Vec::new();
    for n in 0..500 {
        let began = Instant::now();
        let put = crate::store::api::Op::put(site.prefix.key("nodes/probe/x"), format!("{n:0256}"));
        site.store.txn(crate::store::api::Txn { then: vec![put], ..Default::default() }).await?;
        micros.push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    site.store
        .txn(crate::store::api::Txn {
            then: vec![crate::store::api::Op::delete(site.prefix.key("nodes/probe/x"))],
            ..Default::default()
        })
        .await?;
    Ok(Latency::of(micros))
}
