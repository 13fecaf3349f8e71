//! The smallest worlds, explored exhaustively: every order of the store calls of all processes up to a depth, and after it
//! every way to leave the natural order a few times. A call that is held while others go on is a process that is paused there;
//! time may pass meanwhile, so that its leases run out.
//!
//! Depth-first and without memory: a run is a list of choices, made again from the start for each.

use std::net::IpAddr;
use std::time::Duration;

use enlist::agent::sim::{ChildScript, SimMachine, SimNet};
use enlist::agent::{AgentExit, AgentSettings};
use enlist::allocator::{self, AllocatorSettings, View};
use enlist::model::documents::{Document, parse, to_stored};
use enlist::plan::{Pass, plan};
use enlist::reconcile::{Context, Site, Wall};
use enlist::store::api::Op;
use enlist::store::memory::MemoryEtcd;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::checker::walk;
use super::held::Waiting;
use super::number;
use super::setup::{LEASE_TTL, write};
use super::timeline::Timeline;
use super::world::World;
use crate::history::quiet::not_settled;
use crate::history::steps::Allowed;

/// A run that has not settled after so many calls is a fault.
const CALLS_MAX: usize = 2_000;

/// A world and how far it is explored.
struct Small {
    name: &'static str,
    pool: &'static str,
    allocators: usize,
    /// The ids of the agents, one machine each.
    agents: &'static [&'static str],
    /// Each of the first so many choices is made in every way.
    depth: usize,
    /// How often the oldest call is passed over after that.
    detours: usize,
    /// How far time may jump while calls are held, each once.
    jumps: &'static [u64],
}

/// What was chosen, out of how many.
type Choices = Vec<(usize, usize)>;

struct Run<'a> {
    small: &'a Small,
    waiting: Waiting,
    store: Timeline,
    machines: Vec<SimMachine>,
    agents: Vec<JoinHandle<AgentExit>>,
    choices: Choices,
    detours: usize,
    jumps: Vec<u64>,
    told: Vec<String>,
}

fn context(number: u64) -> Context {
    Context {
        identity: format!("p{number}"),
        seed: number,
        wall: Wall::simulated(Duration::ZERO),
        shutdown: CancellationToken::new(),
    }
}

impl<'a> Run<'a> {
    async fn start(small: &'a Small) -> Run<'a> {
        let etcd = MemoryEtcd::new();
        let Document::Pool(pool) = &parse("small", small.pool).unwrap()[0] else { panic!("a pool") };
        write(&etcd.store(), Op::put(World::prefix().pool(&pool.name), to_stored(&Document::Pool(pool.clone())))).await;
        let (waiting, net) = (Waiting::default(), SimNet::default());
        let machine = |n: usize| {
            let ip: IpAddr = format!("192.0.2.{}", n + 1).parse().unwrap();
            let machine = SimMachine::new(&net, &format!("m{n}"), ip);
            machine.set_child(Some(ChildScript::default()));
            machine
        };
        let machines = (0..small.agents.len()).map(machine).collect();
        let store = Timeline::new(etcd);
        let (detours, jumps) = (small.detours, small.jumps.to_vec());
        let (agents, choices, told) = Default::default();
        let mut run = Run { small, waiting, store, machines, agents, choices, detours, jumps, told };
        for number in 0..small.allocators {
            let site = run.site(&format!("allocator-{number}"));
            let settings = AllocatorSettings { leader_ttl: Duration::from_secs(3), ..Default::default() };
            tokio::spawn(allocator::run(site, settings, context(number as u64)));
        }
        // One leads, the others stand by.
        run.natural(40).await;
        for number in 0..small.agents.len() {
            let site = run.site(&format!("agent-{number}"));
            let mut settings = AgentSettings::new(small.agents[number].parse().unwrap());
            settings.lease_ttl = LEASE_TTL;
            settings.stop_timeout = Duration::from_secs(1);
            settings.hook_limit = Duration::from_secs(1);
            settings.no_host_facts = true;
            settings.command = vec!["serve".into()];
            let host = run.machines[number].process();
            run.agents.push(tokio::spawn(enlist::agent::run(site, settings, context(100 + number as u64), host)));
        }
        run
    }

    fn site(&self, process: &str) -> Site {
        Site { store: self.waiting.client(process, self.store.etcd().store()), prefix: World::prefix() }
    }

    /// Lets so many calls through, oldest first.
    async fn natural(&mut self, calls: usize) {
        for _ in 0..calls {
            if !self.until_somebody_waits(Duration::from_secs(2)).await {
                return;
            }
            self.waiting.let_through(0);
        }
    }

    /// Everybody runs until he waits for the scheduler or for time.
    async fn until_somebody_waits(&self, limit: Duration) -> bool {
        let end = tokio::time::Instant::now() + limit;
        let mut pause = Duration::from_millis(1);
        loop {
            // Paused time goes on only when nobody can run any more.
            tokio::time::sleep(pause).await;
            if !self.waiting.list().is_empty() {
                return true;
            }
            if tokio::time::Instant::now() > end {
                return false;
            }
            pause = Duration::from_millis(50);
        }
    }

    /// The whole of it: the choices given, then the first of each.
    async fn go(&mut self, given: &[usize]) -> Result<u64, String> {
        let mut calls = 0;
        loop {
            if let Some(twice) = self.used_twice() {
                return Err(twice);
            }
            // All has been said that had to be said at once.
            let rests = !self.until_somebody_waits(Duration::from_millis(100)).await;
            if rests && calls > self.small.depth && self.is_settled() {
                break;
            }
            if calls > CALLS_MAX {
                return Err(format!("not settled after {CALLS_MAX} calls"));
            }
            if rests {
                continue;
            }
            self.choose(given.get(calls).copied().unwrap_or(0)).await;
            calls += 1;
        }
        walk(&self.store, Allowed::default())
    }

    async fn choose(&mut self, wanted: usize) {
        let callers = self.waiting.list();
        let free = self.choices.len() < self.small.depth;
        let options = if free || self.detours > 0 { callers.len() + self.jumps.len() } else { 1 };
        // A replay sees what the first run saw.
        assert!(wanted < options, "choice {wanted} of {options} after {:?}", self.told);
        self.choices.push((wanted, options));
        self.detours -= usize::from(!free && wanted > 0);
        match callers.get(wanted) {
            Some(caller) => {
                self.told.push(caller.clone());
                self.waiting.let_through(wanted);
            }
            None => {
                let seconds = self.jumps.remove(wanted - callers.len());
                self.told.push(format!("{seconds} s pass"));
                tokio::time::sleep(Duration::from_secs(seconds)).await;
            }
        }
    }

    fn is_settled(&self) -> bool {
        let (revision, etcd) = (self.store.etcd().revision(), self.store.etcd());
        let kvs: Vec<_> = etcd.at_revision(revision).into_values().collect();
        let snapshot = View::of(World::prefix(), revision, &kvs);
        let settled = |id: &&str| {
            let record = snapshot.nodes.get(&id.parse().unwrap());
            record.is_some_and(|record| not_settled(record).is_none())
        };
        let running = self.agents.iter().zip(self.small.agents).filter(|(task, _)| !task.is_finished()).map(|(_, id)| id);
        let mut running = running.peekable();
        // Somebody must have it.
        let any = running.peek().is_some();
        any && running.all(settled) && plan(&snapshot, &Pass::default()).changes.is_empty()
    }

    fn used_twice(&self) -> Option<String> {
        let uses: Vec<_> = self.machines.iter().filter_map(SimMachine::uses).map(|given| given.sockets()).collect();
        let twice =
            |(n, sockets): (usize, &Vec<_>)| uses[n + 1..].iter().any(|others| others.iter().any(|s| sockets.contains(s)));
        uses.iter().enumerate().any(twice).then(|| format!("in use twice: {uses:?}"))
    }
}

fn run(small: &Small, given: &[usize]) -> (Choices, Vec<String>, Result<u64, String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut run = Run::start(small).await;
        let result = run.go(given).await;
        (run.choices, run.told, result)
    })
}

fn explore(small: &Small) -> u64 {
    let started = std::time::Instant::now();
    let (mut given, mut runs, mut revisions): (Vec<usize>, u64, u64) = Default::default();
    loop {
        let (mut choices, told, result) = run(small, &given);
        runs += 1;
        match result {
            Ok(checked) => revisions += checked,
            Err(why) => panic!("{}, run {runs}: {why}\nchoices {given:?}\n{}", small.name, told.join("\n")),
        }
        // The last choice that can be made in another way.
        while choices.last().is_some_and(|(chosen, options)| chosen + 1 >= *options) {
            choices.pop();
        }
        let Some((last, before)) = choices.split_last() else { break };
        given = before.iter().map(|(chosen, _)| *chosen).chain([last.0 + 1]).collect();
    }
    eprintln!("{}: {runs} runs, {revisions} revisions checked, {:.1?}", small.name, started.elapsed());
    runs
}

/// `SIM_DEPTH` makes it deeper.
fn depth(usual: usize) -> usize {
    number("SIM_DEPTH").map_or(usual, |depth| usize::try_from(depth).unwrap())
}

const ONE_ADDRESS: &str =
    "{kind: Pool, name: p, cidrs: [10.0.0.1/32], ports: 8000-8001, hold: 30s, cooldown: 5s, on_isolation: withdraw}";
const ONE_PORT: &str = "{kind: Pool, name: p, cidrs: [10.0.0.1/32], ports: 8000-8000, sharing: shared, hold: 30s, cooldown: 5s, on_isolation: withdraw}";

#[test]
fn two_agents_with_one_id() {
    let agents = &["n", "n"];
    let name = "two agents with one id";
    let runs = explore(&Small { name, pool: ONE_ADDRESS, allocators: 1, agents, depth: depth(2), detours: 1, jumps: &[5] });
    assert!(runs > 100, "{runs}");
}

#[test]
fn two_allocators_and_one_address() {
    let agents = &["n0", "n1"];
    let name = "two allocators and one address";
    let runs = explore(&Small { name, pool: ONE_ADDRESS, allocators: 2, agents, depth: depth(2), detours: 1, jumps: &[5] });
    assert!(runs > 100, "{runs}");
}

#[test]
fn two_allocators_and_one_port() {
    let agents = &["n0", "n1"];
    let name = "two allocators and one port of a shared address";
    let runs = explore(&Small { name, pool: ONE_PORT, allocators: 2, agents, depth: depth(2), detours: 1, jumps: &[5] });
    assert!(runs > 100, "{runs}");
}
