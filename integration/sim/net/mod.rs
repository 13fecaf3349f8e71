//! The simulation over a network: the adapter to etcd is the real one too. It speaks gRPC with members of etcd that share a model
//! of it, over the network of `turmoil`, on paused time; members crash, stand still and lose each other, connections are
//! half-open, tokens are refused. The same roles, agents and checks as in the [simulation](super); fewer seeds, because bytes
//! cost more than calls.
//!
//! Reading order: [`script`] what happens, [`world`] who there is, [`disaster`] what goes wrong, [`cluster`] what members know,
//! [`member`] and its neighbours etcd's API, [`network`] the sockets.
//!
//! The log of a run, every call at every member and every event of both stores, is the same for the same seed, byte for byte. One
//! thread runs it, each host has a clock that only turmoil moves, every source of randomness has a seed, and nothing is left to
//! the order in which a runtime drops its tasks (see [`network::Network::die`]). What could still spoil it, and has not been seen:
//! tonic's `select!`s are not `biased`, and h2 forgets streams that were reset by the machine's own clock.
//!
//! `SIM_SEED`, `SIM_SEEDS`, `SIM_FIRST`, `SIM_DUMP` and `SIM_LOG` as there; `SIM_TRACE=1` prints the log of each run.

mod cluster;
mod convert;
mod disaster;
mod effects;
mod ledger;
mod log;
mod login;
mod maintenance;
mod member;
mod network;
mod scenes;
mod script;
mod watches;
mod world;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::checker;
use super::seeds::{self, caught, is_hunt, number, show_logs};
use cluster::Cluster;
use effects::Effects;
use ledger::Ledger;
use log::Log;
use script::{MEMBERS, ROLE_HOSTS, Script};
use world::{Ground, Order, World, node_host, role_host};

/// Seeds of one test run.
const SEEDS: u64 = 40;
/// How far the hosts run before the network delivers again. Shorter is finer and slower: each host is woken once a tick.
const TICK: Duration = Duration::from_millis(10);
/// The longest that a piece is under way.
const LATENCY_MAX: Duration = Duration::from_millis(60);
/// Everything converges within this once nothing goes wrong any more: the 13 s until a dead connection is given up, two lease
/// TTLs, the longest hold of a pool and its cooling. (Seen in 400 seeds: 12 s.)
const QUIET_MAX: Duration = Duration::from_secs(60);
/// How often a run that has gone wrong already is given up.
const LOOK: Duration = Duration::from_millis(500);

/// What a run did.
#[derive(Debug, Clone)]
struct Ran {
    revisions: u64,
    quiet_after: Duration,
    effects: Effects,
    log: String,
}

fn run(script: &Script, seed: u64) -> Result<Ran, String> {
    caught(|| simulate(seed, script.clone(), story))
}

/// Builds the hosts and runs them until the story is over, which answers how long it took until all was quiet.
fn simulate<S>(seed: u64, script: Script, story: S) -> Result<Ran, String>
where
    S: AsyncFnOnce(&mut World, &Script, &Log) -> Result<Duration, String> + 'static,
{
    // Which endpoint is tried first, and for how long a bad one is left alone.
    fastrand::seed(seed);
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(TICK)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(LATENCY_MAX)
        .tcp_capacity(1 << 16)
        .simulation_duration(Duration::from_secs(3_600))
        .build();
    let (ground, ledger, log) = (Ground::default(), Ledger::default(), Log::default());
    let cluster =
        |name, members, auth| Cluster::new(name, members, auth, seed, (ground.network.clone(), ledger.clone(), log.clone()));
    let mut clusters = vec![cluster("source", MEMBERS, script.auth)];
    if script.two_stores {
        clusters.push(cluster("second", 1, false));
    }
    for cluster in &clusters {
        for number in 0..cluster.members() {
            let member = member::Member { cluster: cluster.clone(), number };
            sim.host(cluster.host(number), move || member.clone().serve());
        }
    }
    for host in client_hosts(&script) {
        let (runtimes, name) = (ground.runtimes.clone(), host.clone());
        sim.host(host, move || {
            runtimes.lock().unwrap().insert(name.clone(), Handle::current());
            std::future::pending()
        });
    }
    let result = Arc::new(Mutex::new(Err("the story has no end".to_owned())));
    let (told, written, orders) = (result.clone(), log.clone(), ground.orders.clone());
    sim.client("script", async move {
        let world = World::new(seed, &script, clusters, ground).await;
        *told.lock().unwrap() = live(world, &script, &written, story).await;
        Ok(())
    });
    loop {
        if sim.step().map_err(|error| error.to_string())? {
            break;
        }
        for order in std::mem::take(&mut *orders.lock().unwrap()) {
            match order {
                Order::Crash(host) => sim.crash(host.as_str()),
                Order::Start(host) => sim.bounce(host.as_str()),
            }
        }
    }
    if number("SIM_TRACE").is_some() {
        eprintln!("{}", log.text());
    }
    let result = result.lock().unwrap().clone();
    result.map(|ran| Ran { log: log.text(), ..ran })
}

fn client_hosts(script: &Script) -> Vec<String> {
    (0..script.nodes).map(node_host).chain((0..ROLE_HOSTS).map(role_host)).collect()
}

async fn live<S>(mut world: World, script: &Script, log: &Log, story: S) -> Result<Ran, String>
where
    S: AsyncFnOnce(&mut World, &Script, &Log) -> Result<Duration, String>,
{
    let checked = match story(&mut world, script, log).await {
        Ok(quiet_after) => {
            checker::history(&world.source, world.destination(), script.allowed()).map(|revisions| (quiet_after, revisions))
        }
        Err(error) => Err(error),
    };
    let checked = checked.and_then(|checked| match world.clusters.iter().find_map(|cluster| cluster.ledger().sent_again()) {
        Some(again) => Err(again),
        None => Ok(checked),
    });
    for store in [&world.source, world.destination()] {
        for (revision, events) in store.etcd().history() {
            log.line(format_args!("{revision:?} {events:?}"));
        }
    }
    let effects = world.network.effects();
    world.end().await;
    checked.map(|(quiet_after, revisions)| Ran { revisions, quiet_after, effects, log: String::new() })
}

/// What the script says, and then nothing goes wrong any more.
async fn story(world: &mut World, script: &Script, log: &Log) -> Result<Duration, String> {
    for (pause, step) in &script.steps {
        watched(world, *pause).await?;
        log.line(format_args!("{step:?}"));
        world.step(step).await;
        world.look_after().await;
    }
    world.calm().await;
    log.line(format_args!("calm"));
    let calm = Instant::now();
    let mut quiet_for = 0;
    // Quiet is when it stays: a write that was late may still come.
    while quiet_for < 3 {
        watched(world, Duration::from_secs(1)).await?;
        world.look_after().await;
        let unrest = checker::unrest(&world.sight());
        quiet_for = if unrest.is_empty() { quiet_for + 1 } else { 0 };
        if calm.elapsed() > QUIET_MAX {
            if number("SIM_DUMP").is_some() {
                eprintln!("{}", checker::dump(&world.sight()));
            }
            return Err(format!("no quiet after {QUIET_MAX:?}: {}", unrest.join("; ")));
        }
    }
    let held: Vec<_> = world.client_hosts().iter().map(|host| (host.clone(), world.network.held(host))).collect();
    log.line(format_args!("connections {held:?}"));
    Ok(calm.elapsed())
}

/// Lets time pass, and looks at the hosts meanwhile.
async fn watched(world: &World, time: Duration) -> Result<(), String> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        tokio::time::sleep(LOOK.min(end - Instant::now())).await;
        if let Some(twice) = world.eyes.used_twice() {
            return Err(twice.to_string());
        }
        if let Some(ended) = world.ended_without_cause.first() {
            return Err(ended.clone());
        }
    }
    Ok(())
}

/// What fails, at length.
fn told(script: &Script, seed: u64) -> String {
    let about = format!("{} nodes, two stores: {}, users: {}", script.nodes, script.two_stores, script.auth);
    seeds::told(seed, &about, &script.steps, |steps| run(&Script { steps: steps.to_vec(), ..script.clone() }, seed).err())
}

#[test]
fn what_must_always_hold_holds_over_a_network() {
    show_logs();
    let (seeds, started) = (seeds::seeds(SEEDS), std::time::Instant::now());
    // The log is only for whoever compares two.
    let results = seeds::run_all(&seeds, |seed| run(&Script::of(seed), seed).map(|ran| Ran { log: String::new(), ..ran }));
    seeds::assert_all_good(&results, |seed| told(&Script::of(seed), seed));
    if is_hunt() {
        return;
    }
    let ran: Vec<&Ran> = results.values().flatten().collect();
    let revisions: u64 = ran.iter().map(|ran| ran.revisions).sum();
    let quiet = ran.iter().map(|ran| ran.quiet_after).max().unwrap_or_default();
    eprintln!("{} seeds, {revisions} revisions checked, quiet after {quiet:.1?} at most, {:.1?}", seeds.len(), started.elapsed());
    assert!(revisions > 30 * results.len() as u64, "{revisions}");
    if seeds.len() as u64 >= SEEDS {
        effects::assert_enough(&ran.iter().map(|ran| ran.effects).collect::<Vec<_>>());
    }
}

#[test]
fn a_seed_is_a_run_over_a_network_byte_for_byte() {
    for seed in 1..=number("SIM_SEEDS").unwrap_or(6) {
        let script = Script::of(seed);
        let (one, two) = (run(&script, seed).unwrap(), run(&script, seed).unwrap());
        let differs = one.log.lines().zip(two.log.lines()).find(|(one, two)| one != two);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(one.log.len(), two.log.len(), "seed {seed}");
        assert!(one.log.lines().count() > 200, "seed {seed} hardly did anything");
    }
}
