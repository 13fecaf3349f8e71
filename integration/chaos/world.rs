//! Everything there is in a run, and what is done to it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use enlist::model::documents::{Document, parse, to_stored};
use enlist::store::api::{Op, Txn};
use enlist::store::keys::{Prefix, Role};
use tokio::time::Instant;

use super::etcd::{Cluster, ENLIST};
use super::fleet::{self, Fleet, GROUPS, OTHER_POOLS, POOLS};
use super::host::Said;
use super::net::Net;
use super::plan::Kind;
use super::process::{Launch, Process};
use super::recorder::Recorder;
use super::uses::now_ms;
use crate::support::etcd::EtcdVersion;

/// Instances of `enlist run`, each with all roles.
const INSTANCES: usize = 3;
/// What one write may take before it is given up.
pub(super) const WRITE_LIMIT: Duration = Duration::from_secs(2);

/// A process of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Member(usize),
    Destination,
    Instance(usize),
    Host(usize),
}

/// What ends a fault.
#[derive(Debug, Clone)]
pub(super) enum Cure {
    Start(Which),
    Resume(Which),
    Join(String, String),
    Hurry(String, String),
    Space(bool),
    Spare(usize),
    /// Takes a removed member in again.
    Add(usize),
}

/// Everything.
pub(crate) struct World {
    pub(super) folder: PathBuf,
    pub(super) net: Net,
    pub(super) source: Cluster,
    pub(super) destination: Cluster,
    pub(super) instances: Vec<Process>,
    pub(super) hosts: Vec<Process>,
    pub(super) fleet: Fleet,
    pub(super) recorders: [Recorder; 2],
    /// What is to be cured when.
    pub(super) cures: Vec<(Instant, Cure)>,
    pub(super) counts: BTreeMap<Kind, u64>,
    /// Hosts that are cut off for long: nothing else is to end what their agents use.
    pub(super) spared: BTreeSet<usize>,
    pub(super) ends: Vec<String>,
    /// The member that is out of the cluster: it is started by nothing but [`Cure::Add`].
    pub(super) removed: Option<usize>,
}

/// The names of the source's members, and of the destination's only one.
const MEMBERS: [&str; 3] = ["etcd-1", "etcd-2", "etcd-3"];
const DESTINATION: &str = "etcd-d";

impl World {
    /// Starts all of it.
    pub(crate) async fn start(version: EtcdVersion, seed: u64, agents: usize, folder: &Path) -> World {
        let net = Net::default();
        let began = Instant::now();
        let mut source = Cluster::prepare(version, &net, &MEMBERS, 1, folder).await;
        let mut destination = Cluster::prepare(version, &net, &[DESTINATION], 9, folder).await;
        source.all().into_iter().for_each(|index| source.start(index, &net));
        destination.start(0, &net);
        let record = |cluster: &Cluster, name: &str| Recorder::start(version, cluster.store.clone(), &folder.join(name), began);
        let recorders = [record(&source, "source.jsonl"), record(&destination, "destination.jsonl")];
        let mut world = World {
            folder: folder.to_owned(),
            net,
            source,
            destination,
            instances: Vec::new(),
            hosts: Vec::new(),
            fleet: Fleet::new(seed, agents),
            recorders,
            cures: Vec::new(),
            counts: BTreeMap::new(),
            spared: BTreeSet::new(),
            ends: Vec::new(),
            removed: None,
        };
        for cluster in [&world.source, &world.destination] {
            while !cluster.protect().await {
                assert!(began.elapsed() < Duration::from_secs(60), "etcd did not start: see {}", folder.display());
            }
        }
        // A form with a fault is found now, and not in the middle of a run.
        OTHER_POOLS.iter().for_each(|form| drop(parse("chaos", form).unwrap()));
        for text in POOLS.iter().copied().chain(GROUPS.iter().map(|forms| forms[0])) {
            while !world.define(text).await {
                assert!(began.elapsed() < Duration::from_secs(60), "etcd did not start: see {}", folder.display());
            }
        }
        for index in 0..INSTANCES {
            let launch = world.instance(index).await;
            world.instances.push(Process::new(launch));
            world.start_process(Which::Instance(index));
        }
        for index in 0..fleet::hosts(agents) {
            let launch = world.host(index).await;
            world.hosts.push(Process::new(launch));
            world.start_process(Which::Host(index));
        }
        world
    }

    async fn ways(&self, from: &str, cluster: &Cluster) -> String {
        let mut ways = Vec::new();
        for (member, at) in cluster.members.iter().zip(&cluster.at) {
            ways.push(self.net.way(from, member.name(), *at).await.to_string());
        }
        ways.join(",")
    }

    async fn instance(&self, index: usize) -> Launch {
        let name = format!("run-{}", index + 1);
        let (from, to) = (self.ways(&name, &self.source).await, self.ways(&name, &self.destination).await);
        let log = self.folder.join(format!("{name}.log"));
        let arguments = ["run", "--endpoints", &from, "--manager-endpoints", &to].map(str::to_owned).to_vec();
        let variable = |name: &str, value: &str| (format!("ENLIST__{name}"), value.to_owned());
        let mut environment = vec![variable("ROLES__LEADER_TTL", "4s")];
        for store in ["SOURCE", "MANAGER"] {
            environment.push(variable(&format!("{store}__USER"), ENLIST.0));
            environment.push(variable(&format!("{store}__PASSWORD"), ENLIST.1));
        }
        Launch { name, program: env!("CARGO_BIN_EXE_enlist").into(), arguments, environment, log, journal: None }
    }

    async fn host(&self, index: usize) -> Launch {
        let name = format!("agents-{}", index + 1);
        let ways = self.ways(&name, &self.source).await;
        let file = |end: &str| self.folder.join(format!("{name}.{end}"));
        let states = self.folder.join("states").to_string_lossy().into_owned();
        let arguments = vec!["agents".to_owned(), ways, states];
        let (log, journal) = (file("log"), Some(file("said")));
        Launch { name, program: std::env::current_exe().unwrap(), arguments, environment: Vec::new(), log, journal }
    }

    /// Every file in which agents' hosts wrote down what they know.
    pub(crate) fn journals(folder: &Path) -> Vec<PathBuf> {
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|end| end == "said")).collect()
    }

    /// Writes a definition; `false` if the store did not take it.
    pub(super) async fn define(&self, text: &str) -> bool {
        let document = parse("chaos", text).unwrap().remove(0);
        let prefix = Prefix::default();
        let (store, key) = match &document {
            Document::Pool(pool) => (&self.source.store, prefix.pool(&pool.name)),
            Document::Group(group) => (&self.destination.store, prefix.group(&group.name)),
        };
        let write = store.txn(Txn { then: vec![Op::put(key, to_stored(&document))], ..Txn::default() });
        tokio::time::timeout(WRITE_LIMIT, write).await.is_ok_and(|answer| answer.is_ok())
    }

    pub(super) fn process(&mut self, which: Which) -> &mut Process {
        match which {
            Which::Member(index) => &mut self.source.members[index],
            Which::Destination => &mut self.destination.members[0],
            Which::Instance(index) => &mut self.instances[index],
            Which::Host(index) => &mut self.hosts[index],
        }
    }

    /// SIGKILL. What its agents used, they use no more.
    pub(super) fn kill_process(&mut self, which: Which) {
        self.process(which).kill();
        self.over(which);
    }

    fn over(&mut self, which: Which) {
        let line = serde_json::to_string(&Said::Over { ms: now_ms() }).unwrap();
        self.process(which).note(&line);
    }

    /// Every process.
    pub(super) fn all(&self) -> Vec<Which> {
        let members = self.source.all().into_iter().map(Which::Member);
        let instances = (0..self.instances.len()).map(Which::Instance);
        let hosts = (0..self.hosts.len()).map(Which::Host);
        members.chain([Which::Destination]).chain(instances).chain(hosts).collect()
    }

    /// Starts what is down.
    pub(super) fn start_process(&mut self, which: Which) {
        if !self.process(which).is_down() || matches!(which, Which::Member(index) if self.removed == Some(index)) {
            return;
        }
        match which {
            Which::Member(index) => self.source.start(index, &self.net),
            Which::Destination => self.destination.start(0, &self.net),
            Which::Instance(index) => drop(self.instances[index].start()),
            Which::Host(index) => {
                self.hosts[index].start();
                for order in self.fleet.orders_of(index) {
                    self.hosts[index].tell(&serde_json::to_string(&order).unwrap());
                }
            }
        }
    }

    /// The instance that leads a role, by the identity in the oldest candidate's key.
    pub(super) async fn leader(&self, role: Role) -> Option<usize> {
        let cluster = if role == Role::Allocator { &self.source } else { &self.destination };
        let read = cluster.store.read_all(Prefix::default().leaders(role), None);
        let candidates = tokio::time::timeout(WRITE_LIMIT, read).await.ok()?.ok()?;
        let oldest = candidates.kvs.into_iter().min_by_key(|kv| kv.create_revision)?;
        let identity = String::from_utf8_lossy(&oldest.value).into_owned();
        let pid: u32 = identity.trim_matches('"').rsplit('/').next()?.parse().ok()?;
        self.instances.iter().position(|instance| instance.pid() == Some(pid))
    }

    /// Something happens in the fleet, or to a group.
    pub(crate) async fn story(&mut self) {
        if let Some(group) = self.fleet.group() {
            if self.define(group).await {
                *self.fleet.done.entry("group").or_default() += 1;
            }
            return;
        }
        let (host, orders) = self.fleet.next(&self.spared);
        for order in orders {
            self.hosts[host].tell(&serde_json::to_string(&order).unwrap());
        }
    }

    /// Does the cures that are due, and starts again what ended by itself: that is told, because nothing may.
    pub(crate) async fn tend(&mut self) {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.cures).into_iter().partition(|(at, _)| *at <= now);
        self.cures = later;
        let due: Vec<(Instant, Cure)> = due;
        for (_, cure) in due {
            self.cure(cure).await;
        }
        for which in self.all() {
            let process = self.process(which);
            if let Some(status) = process.ended() {
                let log = process.log();
                let last: Vec<&str> = log.lines().rev().take(3).collect();
                let ended = format!("{} ended by itself ({status}): {}", process.name(), last.join(" | "));
                self.ends.push(ended);
                self.over(which);
                self.start_process(which);
            }
        }
    }

    /// Ends every fault, and starts everything that is down.
    pub(crate) async fn calm(&mut self) {
        for (_, cure) in std::mem::take(&mut self.cures) {
            self.cure(cure).await;
        }
        self.net.heal();
        for which in self.all() {
            self.process(which).resume();
            self.start_process(which);
        }
        // A member that came with a large snapshot, or was not reached when space was made, may have raised an alarm since. An operator
        // would see to it; enlist cannot.
        for source in [true, false] {
            drop(tokio::spawn(self.make_space(source)));
        }
    }
}

impl World {
    /// Nobody writes any more: neither file may end before what the other one, or an agent, speaks of.
    pub(crate) fn silence(&mut self) {
        let writers = self.all().into_iter().filter(|which| matches!(which, Which::Instance(_) | Which::Host(_)));
        writers.for_each(|which| self.kill_process(which));
    }

    /// What panicked, by the logs.
    pub(crate) fn panics(&self) -> Vec<String> {
        let mut panics = Vec::new();
        for process in self.instances.iter().chain(&self.hosts) {
            let log = process.log();
            let lines = log.lines().filter(|line| line.contains("panicked at"));
            panics.extend(lines.take(3).map(|line| format!("{}: {line}", process.name())));
        }
        panics
    }
}
