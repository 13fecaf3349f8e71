//! The simulation: roles and agents unchanged, on models of etcd and simulated hosts, on paused time. One seed is one run, byte
//! for byte. Every revision of the history is checked for what must always hold; after quiet everything must have converged.
//!
//! [`small`] explores the smallest worlds exhaustively instead; in [`net`] the adapter to etcd is simulated too, over a network.
//!
//! `SIM_SEED=17` runs that seed alone and shows its script, `SIM_SEEDS=1000` as many seeds, from `SIM_FIRST` on;
//! `SIM_TRACE=1` tells every event of every store.
//! `SIM_DUMP=1` prints what is stored when a run does not come to rest, `SIM_LOG=debug` what the roles and agents log.

mod checker;
mod disaster;
mod effects;
mod eyes;
mod held;
mod known;
mod net;
mod process;
mod races;
mod refused;
mod scenes;
mod script;
mod seeds;
mod setup;
mod small;
mod snares;
mod timeline;
mod world;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use enlist::store::memory::faults::FaultCounts;
use tokio::time::Instant;

use disaster::Done;
use script::{Fault, Script, Step};
use seeds::{caught, is_hunt, number, show_logs};
use world::World;

/// Seeds of one test run: enough that each fault that was put in on purpose is found, few enough for every commit.
const SEEDS: u64 = 150;
/// Everything converges within this: an agent finds within six minutes that its watch is silent for ever; then a hold, its
/// cooling, two lease TTLs and the longest back-offs.
const QUIET_MAX: Duration = Duration::from_secs(480);
/// How often a run that has gone wrong already is given up.
const LOOK: Duration = Duration::from_millis(500);

/// What a run did.
#[derive(Debug, Clone, Copy, Default)]
struct Ran {
    revisions: u64,
    history: u64,
    faults: FaultCounts,
    done: Done,
    /// The most status writes of one node within a second.
    busiest: u64,
}

fn run(script: &Script, seed: u64) -> Result<Ran, String> {
    caught(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(live(script, seed))
    })
}

async fn live(script: &Script, seed: u64) -> Result<Ran, String> {
    let mut world = World::new(seed, script.nodes, script.two_stores, script.together).await;
    let result = story(&mut world, script).await;
    let checked = result.and_then(|()| checker::history(&world.source, world.destination(), script.allowed()));
    let mut hasher = DefaultHasher::new();
    format!("{:?}{:?}", world.source.eras(), world.destination().eras()).hash(&mut hasher);
    if number("SIM_TRACE").is_some() {
        timeline::tell(&world.source.eras());
        if !world.one_store {
            timeline::tell(&world.destination().eras());
        }
    }
    let (history, busiest) = (hasher.finish(), effects::busiest_second(&world.source));
    let ran = Ran { revisions: 0, history, faults: world.faults.counts(), done: world.end_of_story(), busiest };
    world.end().await;
    checked.map(|revisions| Ran { revisions, ..ran })
}

async fn story(world: &mut World, script: &Script) -> Result<(), String> {
    for (pause, step) in &script.steps {
        watched(world, *pause).await?;
        world.step(step).await;
        world.look_after().await;
    }
    world.calm().await;
    let deadline = Instant::now() + QUIET_MAX;
    let mut quiet_for = 0;
    // Quiet is when it stays: a write that was late may still come.
    while quiet_for < 3 {
        watched(world, Duration::from_secs(1)).await?;
        world.look_after().await;
        let unrest = checker::unrest(&world.sight());
        quiet_for = if unrest.is_empty() && world.faults.under_way() == 0 { quiet_for + 1 } else { 0 };
        if Instant::now() > deadline {
            if number("SIM_DUMP").is_some() {
                eprintln!("{}", checker::dump(&world.sight()));
            }
            return Err(format!("no quiet after {QUIET_MAX:?}: {}", unrest.join("; ")));
        }
    }
    Ok(())
}

/// Lets time pass, and looks at the hosts meanwhile.
async fn watched(world: &World, time: Duration) -> Result<(), String> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        tokio::time::sleep(LOOK.min(end - Instant::now())).await;
        if let Some(twice) = world.used_twice() {
            return Err(twice);
        }
        if let Some(ended) = world.ended_without_cause.first() {
            return Err(ended.clone());
        }
    }
    Ok(())
}

/// What fails, at length.
fn told(script: &Script, seed: u64) -> String {
    let about = format!("{} nodes, two stores: {}, together: {}", script.nodes, script.two_stores, script.together);
    seeds::told(seed, &about, &script.steps, |steps| run(&Script { steps: steps.to_vec(), ..script.clone() }, seed).err())
}

#[test]
fn what_must_always_hold_holds_under_faults() {
    show_logs();
    let (seeds, started) = (seeds::seeds(SEEDS), std::time::Instant::now());
    let results = seeds::run_all(&seeds, |seed| run(&Script::of(seed), seed));
    seeds::assert_all_good(&results, |seed| told(&Script::of(seed), seed));
    if seeds.len() < 100 || is_hunt() {
        return;
    }
    let revisions: u64 = results.values().flatten().map(|ran| ran.revisions).sum();
    eprintln!("{} seeds, {revisions} revisions checked, {:.1?}", seeds.len(), started.elapsed());
    assert!(revisions > 100 * results.len() as u64, "{revisions}");
    effects::assert_enough(results.values().flatten(), results.len() as u64);
}

#[test]
fn a_seed_is_a_run_byte_for_byte() {
    for seed in [3, 11, 29] {
        let script = Script::of(seed);
        let (one, two) = (run(&script, seed).unwrap(), run(&script, seed).unwrap());
        assert_eq!(one.history, two.history, "seed {seed}");
        assert!(one.revisions > 50, "seed {seed} hardly did anything: {} revisions", one.revisions);
    }
}

#[test]
fn the_scripts_hold_every_kind_of_step() {
    let mut seen = BTreeMap::new();
    for seed in 1..=SEEDS {
        for (_, step) in Script::of(seed).steps {
            let text = match &step {
                Step::Fault(Fault::Plan(_)) => "Fault(Plan".to_owned(),
                step => format!("{step:?}"),
            };
            let kind: String = text.chars().take_while(|c| !c.is_ascii_digit() && *c != '"').collect();
            *seen.entry(kind.split([' ', '{']).next().unwrap().to_owned()).or_insert(0) += 1;
        }
    }
    assert!(seen.len() >= 36, "{} {seen:?}", seen.len());
}

/// A run would not be repeatable: `tokio::select!` picks branches at random unless it is told not to.
#[test]
fn every_select_of_roles_and_agents_is_biased() {
    let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.to_string_lossy().into_owned();
            if path.is_dir() {
                // The command line is not part of any run.
                if !name.ends_with("src/cli") && !name.ends_with("agent/os") && !name.ends_with("store/etcd") {
                    folders.push(path);
                }
            } else if !name.ends_with("shutdown.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let lines: Vec<&str> = text.lines().map(str::trim).collect();
                for pair in lines.windows(2) {
                    if pair[0].contains("select! {") && pair[1] != "biased;" {
                        found.push(format!("{name}: {}", pair[0]));
                    }
                }
            }
        }
    }
    assert_eq!(found, Vec::<String>::new());
}
