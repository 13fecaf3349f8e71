//! A run from its start to its summary.

use std::path::{Path, PathBuf};
use std::time::Duration;

use enlist::model::names::NodeId;
use enlist::store::api::KeyRange;
use enlist::store::keys::Prefix;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::etcd::Cluster;
use super::plan;
use super::prove::prove;
use super::summary::Summary;
use super::world::World;
use crate::history::quiet::{Content, not_settled, unrest};
use crate::support::etcd::EtcdVersion;

/// How often there is a look at what is due.
const TICK: Duration = Duration::from_millis(50);
/// How often something happens in the fleet.
const STORY: Duration = Duration::from_millis(250);
/// Everything is in order so long after the last fault: a hold, its cooling, the longest back-offs of a loaded machine, twice.
const QUIET_MAX: Duration = Duration::from_secs(180);
/// The recorders are up to date so long after the last write.
const RECORD_MAX: Duration = Duration::from_secs(180);

/// What a run is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long faults are injected
    #[arg(long, default_value_t = 3.0)]
    minutes: f64,
    /// What goes wrong when
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Which etcd
    #[arg(long, value_parser = version, default_value = "3.4")]
    etcd: EtcdVersion,
    #[arg(long, default_value_t = 200)]
    agents: usize,
    /// Where the files of the run are kept [default: a temporary folder; it stays if something was found]
    #[arg(long)]
    folder: Option<PathBuf>,
}

fn version(text: &str) -> Result<EtcdVersion, String> {
    match text {
        "3.4" => Ok(EtcdVersion::V3_4),
        "3.5" => Ok(EtcdVersion::V3_5),
        _ => Err("3.4 or 3.5".into()),
    }
}

/// Runs; answers whether all is as it must be.
pub(crate) async fn run(options: Options) -> bool {
    let temporary = tempfile::Builder::new().prefix("enlist-chaos-").tempdir().unwrap();
    let folder = options.folder.clone().unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&folder).unwrap();
    let summary = live(&options, &folder).await;
    std::fs::write(folder.join("summary.json"), serde_json::to_string_pretty(&summary).unwrap()).unwrap();
    println!("{}\n{}", summary.table(), serde_json::to_string(&summary).unwrap());
    if !summary.is_good() && options.folder.is_none() {
        println!("the files of the run are in {}", temporary.keep().display());
    }
    summary.is_good()
}

async fn live(options: &Options, folder: &Path) -> Summary {
    let time = Duration::from_secs_f64(options.minutes * 60.0);
    let mut world = World::start(options.etcd, options.seed, options.agents, folder).await;
    inject(&mut world, options.seed, time).await;
    world.calm().await;
    let (quiet_after, restless) = quiet(&mut world).await;
    world.silence();
    let late = recorded(&world).await;
    let ends = std::mem::take(&mut world.ends);
    let mut summary = Summary {
        seed: options.seed,
        etcd: world.source.store.member().await.map(|member| member.version).unwrap_or_default(),
        minutes: options.minutes,
        agents: options.agents,
        faults: world.counts.iter().map(|(kind, count)| (format!("{kind:?}"), *count)).collect(),
        story: std::mem::take(&mut world.fleet.done),
        connections: world.net.connections(),
        recorder_reopened: world.recorders.iter().map(|recorder| recorder.progress.reopened()).sum(),
        recorder_holes: world.recorders.iter().map(|recorder| recorder.progress.holes()).sum(),
        quiet_after_ms: u64::try_from(quiet_after.as_millis()).unwrap(),
        proof: Default::default(),
    };
    let panics = world.panics();
    drop(world);
    summary.proof = prove(folder);
    for more in [ends, panics, restless, late] {
        summary.proof.findings.extend(more);
    }
    summary
}

async fn inject(world: &mut World, seed: u64, time: Duration) {
    let mut faults = plan::faults(seed, time).into_iter().peekable();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let began = Instant::now();
    let mut story_at = began;
    while began.elapsed() < time {
        tick.tick().await;
        world.tend().await;
        if story_at <= Instant::now() {
            world.story().await;
            story_at += STORY;
        }
        if let Some(fault) = faults.next_if(|fault| fault.at <= began.elapsed()) {
            eprintln!("{:>7.1} s  {:?} for {:.1} s", began.elapsed().as_secs_f64(), fault.kind, fault.lasts.as_secs_f64());
            world.fault(&fault).await;
        }
    }
}

/// Waits until nothing is left to do; answers how long it took, and what was left if it took too long.
async fn quiet(world: &mut World) -> (Duration, Vec<String>) {
    let began = Instant::now();
    let mut restless = Vec::new();
    while began.elapsed() < QUIET_MAX {
        world.tend().await;
        restless = look(world).await;
        if restless.is_empty() {
            return (began.elapsed(), restless);
        }
        sleep(Duration::from_secs(1)).await;
    }
    let first = restless.iter().take(10).map(|what| format!("no quiet within {QUIET_MAX:?}: {what}"));
    (began.elapsed(), first.collect())
}

async fn content(cluster: &Cluster) -> Option<Content> {
    let prefix = Prefix::default();
    let read = cluster.store.read_all(KeyRange::prefix(format!("{prefix}/")), None).await.ok()?;
    Some(Content { revision: read.header.revision, kvs: read.kvs })
}

async fn look(world: &World) -> Vec<String> {
    // The destination first: its copies are of an older source then, not of a newer one.
    let destination = content(&world.destination).await;
    let (Some(source), Some(destination)) = (content(&world.source).await, destination) else {
        return vec!["a store does not answer".to_owned()];
    };
    let prefix = Prefix::default();
    let snapshot = source.snapshot(&prefix);
    let mut restless = unrest(&prefix, &source, &destination);
    for id in world.fleet.running() {
        let record = snapshot.nodes.get(&id.parse::<NodeId>().unwrap()).cloned().unwrap_or_default();
        restless.extend(not_settled(&record).map(|why| format!("{id} {why}")));
    }
    restless
}

/// Waits until both recorders have everything.
async fn recorded(world: &World) -> Vec<String> {
    let mut late = Vec::new();
    for (cluster, recorder) in [&world.source, &world.destination].into_iter().zip(&world.recorders) {
        let began = Instant::now();
        let Some(last) = content(cluster).await else {
            late.push("a store does not answer after quiet".to_owned());
            continue;
        };
        while recorder.progress.confirmed() < last.revision {
            if began.elapsed() > RECORD_MAX {
                late.push(format!("a recorder stands at {:?} of {:?}", recorder.progress.confirmed(), last.revision));
                break;
            }
            sleep(TICK).await;
        }
    }
    late
}
