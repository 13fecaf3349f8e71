//! A world in memory: two models of etcd, two instances of each role, a handful of machines with agents, faults between all
//! of them. The roles and the agents are the real ones.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use enlist::agent::sim::{ChildScript, SimMachine, SimNet};
use enlist::agent::{AgentExit, AgentSettings};
use enlist::allocator::{self, AllocatorSettings};
use enlist::manager::{self, ManagerSettings};
use enlist::model::documents::{Document, parse, to_stored};
use enlist::reconcile::{Context, Site, Wall};
use enlist::relay::{self, RelaySettings};
use enlist::store::api::{Key, Op, Txn};
use enlist::store::keys::{Prefix, Role};
use enlist::store::memory::MemoryEtcd;
use enlist::store::memory::faults::{FaultPlan, Faults, FaultyClient};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::script::{Fault, Node, Step};

/// Short, so that a life fits into minutes.
const LEASE_TTL: Duration = Duration::from_secs(4);
/// Instances of each role.
const INSTANCES: usize = 2;

/// The pools that a world starts with. `w` withdraws: its promise is checked at every moment.
pub(crate) const POOLS: [&str; 4] = [
    "{kind: Pool, name: a, cidrs: [10.0.0.0/29], ports: 8000-8003, selector: pool=a, hold: 20s, cooldown: 5s}",
    "{kind: Pool, name: s, cidrs: [10.1.0.0/31, 'fd00::/127'], ports: 8000-8002, sharing: shared, selector: pool=s, hold: 15s, cooldown: 5s}",
    "{kind: Pool, name: h, sharing: host, domain: host, ports: 8000-8009, selector: pool=h, hold: 10s, cooldown: 0s}",
    "{kind: Pool, name: w, cidrs: [10.2.0.0/29], selector: pool=w, hold: 30s, cooldown: 5s, on_isolation: withdraw}",
];

/// Other words of the same pools.
pub(crate) const OTHER_POOLS: [&str; 4] = [
    "{kind: Pool, name: a, cidrs: [10.0.0.0/30], ports: 8000-8003, selector: pool=a, hold: 20s, cooldown: 5s, on_mismatch: move}",
    "{kind: Pool, name: s, cidrs: [10.1.0.0/32, 'fd00::/127'], ports: 8000-8009, sharing: shared, selector: pool=s, hold: 15s, cooldown: 5s}",
    "{kind: Pool, name: a, cidrs: [10.0.0.0/28], ports: 8000-8003, selector: 'pool in (a,s)', priority: 5, hold: 25s, cooldown: 2s}",
    "{kind: Pool, name: w, cidrs: [10.2.0.4/30], selector: pool=w, hold: 31s, cooldown: 6s, on_isolation: withdraw}",
];

/// The groups that a world starts with, and others.
pub(crate) const GROUPS: [&str; 4] = [
    "{kind: Group, name: all, selector: ''}",
    "{kind: Group, name: by-pool, selector: pool, keyed_by: [pool], port: main}",
    "{kind: Group, name: all, selector: 'pool!=h'}",
    "{kind: Group, name: odd, selector: 'n in (1,3,5)'}",
];

struct Process<T> {
    task: JoinHandle<T>,
    shutdown: CancellationToken,
    links: Vec<FaultyClient>,
}

impl<T> Process<T> {
    fn cut(&self, cut: bool) {
        self.links.iter().for_each(|link| if cut { link.cut() } else { link.heal() });
    }
}

/// Everything there is.
pub(crate) struct World {
    pub(crate) source: MemoryEtcd,
    pub(crate) destination: MemoryEtcd,
    pub(crate) faults: Faults,
    seed: u64,
    started: u64,
    net: SimNet,
    machines: Vec<SimMachine>,
    agents: BTreeMap<Node, Process<AgentExit>>,
    settings: Vec<(String, usize)>,
    /// Machines that were installed anew: a silent earlier installation may still hold their id.
    reinstalled: BTreeSet<Node>,
    roles: BTreeMap<(Role, usize), Process<anyhow::Result<()>>>,
}

impl World {
    pub(crate) async fn new(seed: u64, nodes: usize, two_stores: bool) -> World {
        let source = MemoryEtcd::new();
        let destination = if two_stores { MemoryEtcd::new() } else { source.clone() };
        let net = SimNet::default();
        let machine = |n: usize| {
            let ip: IpAddr = format!("192.0.2.{}", n + 1).parse().unwrap();
            let machine = SimMachine::new(&net, &format!("m{n}"), ip);
            machine.set_child(Some(ChildScript::default()));
            machine
        };
        let machines = (0..nodes).map(machine).collect();
        let settings = (0..nodes).map(|n| (["a", "s", "h", "w"][n % 4].to_owned(), 0)).collect();
        let faults = Faults::new(seed ^ 0x5eed, FaultPlan::default());
        let mut world = World {
            source,
            destination,
            faults,
            seed,
            started: 0,
            net,
            machines,
            agents: BTreeMap::new(),
            settings,
            reinstalled: BTreeSet::new(),
            roles: BTreeMap::new(),
        };
        for pool in POOLS {
            world.define(pool).await;
        }
        for group in &GROUPS[..2] {
            world.define(group).await;
        }
        for role in Role::ALL {
            (0..INSTANCES).for_each(|instance| world.start_role(role, instance));
        }
        world
    }

    pub(crate) fn prefix() -> Prefix {
        Prefix::default()
    }

    /// How many agents' processes run.
    pub(crate) fn running(&self) -> Vec<Node> {
        self.agents.iter().filter(|(_, process)| !process.task.is_finished()).map(|(node, _)| *node).collect()
    }

    /// Whether it was ever installed anew.
    pub(crate) fn was_reinstalled(&self, node: Node) -> bool {
        self.reinstalled.contains(&node)
    }

    /// The machines.
    pub(crate) fn machines(&self) -> &[SimMachine] {
        &self.machines
    }

    fn context(&mut self, shutdown: &CancellationToken) -> Context {
        self.started += 1;
        // Hosts' clocks are minutes apart.
        let skew = Duration::from_secs((self.seed.wrapping_mul(31).wrapping_add(self.started * 97)) % 600);
        Context {
            identity: format!("p{}", self.started),
            seed: self.seed.wrapping_add(self.started),
            wall: Wall::simulated(skew),
            shutdown: shutdown.clone(),
        }
    }

    async fn define(&self, text: &str) {
        let document = parse("sim", text).unwrap().remove(0);
        let (store, key) = match &document {
            Document::Pool(pool) => (self.source.store(), Self::prefix().pool(&pool.name)),
            Document::Group(group) => (self.destination.store(), Self::prefix().group(&group.name)),
        };
        write(&store, Op::put(key, to_stored(&document))).await;
    }

    fn start_role(&mut self, role: Role, instance: usize) {
        let shutdown = CancellationToken::new();
        let context = self.context(&shutdown);
        let (from, to) = (self.faults.client(self.source.store()), self.faults.client(self.destination.store()));
        let site = |link: &FaultyClient| Site { store: link.store(), prefix: Self::prefix() };
        let (source, destination) = (site(&from), site(&to));
        let leader_ttl = Duration::from_secs(3);
        let task = match role {
            Role::Allocator => {
                tokio::spawn(allocator::run(source, AllocatorSettings { leader_ttl, ..Default::default() }, context))
            }
            Role::Relay => {
                tokio::spawn(relay::run(source, destination, RelaySettings { leader_ttl, ..Default::default() }, context))
            }
            Role::Manager => tokio::spawn(manager::run(destination, ManagerSettings { leader_ttl }, context)),
        };
        self.roles.insert((role, instance), Process { task, shutdown, links: vec![from, to] });
    }

    fn start_agent(&mut self, node: Node) {
        let shutdown = CancellationToken::new();
        let context = self.context(&shutdown);
        let link = self.faults.client(self.source.store());
        let site = Site { store: link.store(), prefix: Self::prefix() };
        let (pool, ports) = self.settings[node].clone();
        let mut settings = AgentSettings::new(format!("n{node}").parse().unwrap());
        settings.variables.insert("pool", &pool).unwrap();
        settings.variables.insert("n", &node.to_string()).unwrap();
        settings.ports = ["main", "extra", "more"][..=ports].iter().map(|name| name.parse().unwrap()).collect();
        settings.lease_ttl = LEASE_TTL;
        settings.stop_timeout = Duration::from_secs(1);
        settings.hook_limit = Duration::from_secs(1);
        settings.no_host_facts = true;
        settings.command = vec!["serve".into()];
        let task = tokio::spawn(enlist::agent::run(site, settings, context, self.machines[node].process()));
        self.agents.insert(node, Process { task, shutdown, links: vec![link] });
    }

    async fn kill_agent(&mut self, node: Node) {
        if let Some(process) = self.agents.remove(&node) {
            process.task.abort();
            let _ = process.task.await;
        }
    }

    async fn stop_agent(&mut self, node: Node) {
        if let Some(process) = self.agents.remove(&node) {
            process.shutdown.cancel();
            let _ = process.task.await;
        }
    }

    /// Does one step.
    pub(crate) async fn step(&mut self, step: &Step) {
        match step {
            Step::Join(node) => {
                if self.agents.get(node).is_none_or(|process| process.task.is_finished()) {
                    self.kill_agent(*node).await;
                    self.start_agent(*node);
                }
            }
            Step::Stop(node) => self.stop_agent(*node).await,
            Step::Kill(node) => self.kill_agent(*node).await,
            Step::Leave(node) => {
                let leave = self.machines[*node].leave();
                // It answers when it has left; an etcd that is away makes it late.
                let _ = tokio::time::timeout(Duration::from_secs(5), leave).await;
            }
            Step::Reboot(node) => {
                self.kill_agent(*node).await;
                self.machines[*node].reboot();
                self.start_agent(*node);
            }
            Step::Reinstall(node) => {
                self.kill_agent(*node).await;
                self.machines[*node].reinstall();
                self.reinstalled.insert(*node);
                self.start_agent(*node);
            }
            Step::Change { node, pool, ports } => {
                self.settings[*node] = ((*pool).to_owned(), *ports);
                self.stop_agent(*node).await;
                self.start_agent(*node);
            }
            Step::Copy { from, to } => self.copy(*from, *to).await,
            Step::Define(text) => self.define(text).await,
            Step::DeletePool(name) => {
                let key = Self::prefix().pool(&name.parse().unwrap());
                write(&self.source.store(), Op::delete(key)).await;
            }
            Step::DeleteGroup(name) => {
                let key = Self::prefix().group(&name.parse().unwrap());
                write(&self.destination.store(), Op::delete(key)).await;
            }
            Step::DeleteStatus(node) => self.delete(*node, "status").await,
            Step::DeleteLabel(node) => self.delete(*node, "label").await,
            Step::RestartRole(role, instance) => {
                if let Some(process) = self.roles.remove(&(*role, *instance)) {
                    process.task.abort();
                    let _ = process.task.await;
                }
                self.start_role(*role, *instance);
            }
            Step::Fault(fault) => self.fault(fault),
        }
    }

    /// Another machine with a copy of the state directory: it must be refused, or wait.
    async fn copy(&mut self, from: Node, to: Node) {
        self.kill_agent(to).await;
        let name = format!("copy{}", self.started);
        let machine = SimMachine::new(&self.net, &name, format!("192.0.2.{}", 100 + to).parse().unwrap());
        machine.set_child(Some(ChildScript::default()));
        machine.copy_disk(&self.machines[from]);
        let kept = std::mem::replace(&mut self.machines[to], machine);
        let as_original = self.settings[from].clone();
        let settings = std::mem::replace(&mut self.settings[to], as_original);
        // It calls itself as the original does.
        let shutdown = CancellationToken::new();
        let context = self.context(&shutdown);
        let link = self.faults.client(self.source.store());
        let site = Site { store: link.store(), prefix: Self::prefix() };
        let mut rival = AgentSettings::new(format!("n{from}").parse().unwrap());
        rival.variables.insert("pool", &self.settings[to].0).unwrap();
        rival.lease_ttl = LEASE_TTL;
        rival.no_host_facts = true;
        rival.stop_timeout = Duration::from_secs(1);
        rival.hook_limit = Duration::from_secs(1);
        rival.command = vec!["serve".into()];
        let task = tokio::spawn(enlist::agent::run(site, rival, context, self.machines[to].process()));
        let _ = tokio::time::timeout(Duration::from_secs(12), task).await.map_err(|_| ());
        shutdown.cancel();
        tokio::time::sleep(Duration::from_secs(5)).await;
        self.machines[to] = kept;
        self.settings[to] = settings;
    }

    async fn delete(&self, node: Node, part: &str) {
        let key: Key = Self::prefix().key(format_args!("nodes/n{node}/{part}"));
        write(&self.source.store(), Op::delete(key)).await;
    }

    fn fault(&mut self, fault: &Fault) {
        match fault {
            Fault::Plan(plan) => self.faults.set_plan(plan.clone()),
            Fault::CutNode(node) => drop(self.agents.get(node).map(|process| process.cut(true))),
            Fault::HealNode(node) => drop(self.agents.get(node).map(|process| process.cut(false))),
            Fault::CutRole(role, instance) => drop(self.roles.get(&(*role, *instance)).map(|process| process.cut(true))),
            Fault::HealRole(role, instance) => drop(self.roles.get(&(*role, *instance)).map(|process| process.cut(false))),
            Fault::BreakWatches => {
                self.source.break_watches();
                self.destination.break_watches();
            }
            Fault::Compact => {
                for etcd in [&self.source, &self.destination] {
                    // Twice in a row is refused, as by etcd.
                    let _ = etcd.compact(etcd.revision());
                }
            }
            Fault::Elect => self.source.elect(),
        }
    }

    /// From now on nothing goes wrong, and everybody who should be there is.
    pub(crate) fn calm(&mut self) {
        self.faults.calm();
        self.agents.values().for_each(|process| process.cut(false));
        for ((role, instance), process) in std::mem::take(&mut self.roles) {
            process.cut(false);
            if process.task.is_finished() {
                self.start_role(role, instance);
            } else {
                self.roles.insert((role, instance), process);
            }
        }
    }

    /// Ends everything.
    pub(crate) async fn end(mut self) {
        for node in self.running() {
            self.kill_agent(node).await;
        }
        for (_, process) in self.roles {
            process.shutdown.cancel();
            process.task.abort();
            let _ = process.task.await;
        }
    }
}

async fn write(store: &enlist::Store, op: Op) {
    store.txn(Txn { then: vec![op], ..Txn::default() }).await.unwrap();
}
