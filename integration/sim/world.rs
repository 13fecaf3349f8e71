//! A world in memory: two models of etcd, two instances of each role, a handful of machines with agents, faults between all
//! of them. The roles and the agents are the real ones.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use enlist::agent::host::Face;
use enlist::agent::sim::{ChildScript, SimMachine, SimNet};
use enlist::agent::{AgentExit, SharedAgents};
use enlist::allocator::{self, AllocatorSettings};
use enlist::manager::{self, ManagerSettings};
use enlist::model::label::Label;
use enlist::model::names::Revision;
use enlist::reconcile::{Context, Site};
use enlist::relay::{self, RelaySettings};
use enlist::store::api::{Compare, Key, Op, Txn};
use enlist::store::keys::{Prefix, Role};
use enlist::store::memory::MemoryEtcd;
use enlist::store::memory::faults::{FaultPlan, Faults, FaultyClient};
use enlist::store::wire::Stored as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::checker::Sight;
use super::disaster::Done;
use super::eyes::{Eyes, Twice};
use super::process::{Clock, Process};
use super::script::{Node, Step};
use super::setup::{self, GROUPS, LEADER_TTL, POOLS, Wanted, agent_settings, first_settings, machine, options, skew, write};
use super::timeline::Timeline;

/// A write that a snare waits for is sent within this, or never: the longest hold, and what comes before it.
const SNARE_MAX: Duration = Duration::from_secs(45);
/// Instances of each role.
const INSTANCES: usize = 2;

/// Everything there is.
pub(crate) struct World {
    pub(crate) source: Timeline,
    pub(crate) destination: Timeline,
    /// Whether both are one.
    pub(crate) one_store: bool,
    pub(crate) faults: Faults,
    pub(crate) done: Done,
    seed: u64,
    started: u64,
    net: SimNet,
    machines: Vec<SimMachine>,
    pub(super) agents: BTreeMap<Node, Process<AgentExit>>,
    /// When the last pause of a node's agent was over.
    pub(super) paused_until: BTreeMap<Node, Instant>,
    settings: Vec<Wanted>,
    /// Machines that were installed anew: a silent earlier installation may still hold their id.
    reinstalled: BTreeSet<Node>,
    /// Ids that somebody else called himself as well: their agents may be told that it is another's.
    pub(super) contested: BTreeSet<Node>,
    /// Agents and roles that ended although nobody told them to.
    pub(crate) ended_without_cause: Vec<String>,
    pub(crate) eyes: Eyes,
    /// Nodes that were dead, without a last word, when a backup was put in that gives them something. A known limit: nothing tells such a node from one that
    /// died a moment ago, and that its address may be another's by now.
    pub(super) unproven: BTreeSet<Node>,
    pub(super) roles: BTreeMap<(Role, usize), Process<anyhow::Result<()>>>,
    /// What the agents share, and their link.
    together: Option<(SharedAgents, FaultyClient)>,
}

impl World {
    pub(crate) async fn new(seed: u64, nodes: usize, two_stores: bool, together: bool) -> World {
        let source = MemoryEtcd::with_options(options(seed, false));
        let destination = if two_stores { MemoryEtcd::with_options(options(seed, true)) } else { source.clone() };
        let (net, eyes) = (SimNet::default(), Eyes::open());
        let machines = (0..nodes).map(|node| machine(&net, &eyes, node)).collect();
        let mut world = World {
            source: Timeline::new(source),
            destination: Timeline::new(destination),
            one_store: !two_stores,
            faults: Faults::new(seed ^ 0x5eed, FaultPlan::default()),
            done: Done::default(),
            seed,
            started: 0,
            net,
            machines,
            agents: BTreeMap::new(),
            paused_until: BTreeMap::new(),
            settings: first_settings(nodes),
            reinstalled: BTreeSet::new(),
            contested: BTreeSet::new(),
            ended_without_cause: Vec::new(),
            eyes,
            unproven: BTreeSet::new(),
            roles: BTreeMap::new(),
            together: None,
        };
        if together {
            let link = world.faults.client(world.source.etcd().store());
            let site = Site { store: link.store(), prefix: Self::prefix() };
            world.together = Some((SharedAgents::with_rng(site, fastrand::Rng::with_seed(seed)), link));
        }
        world.define_all(true).await;
        world.define_all(false).await;
        for role in Role::ALL {
            (0..INSTANCES).for_each(|instance| world.start_role(role, instance));
        }
        world
    }

    pub(crate) fn prefix() -> Prefix {
        Prefix::default()
    }

    /// Whether all agents are in one process.
    pub(super) fn is_together(&self) -> bool {
        self.together.is_some()
    }

    /// How many there are.
    pub(super) fn nodes(&self) -> usize {
        self.machines.len()
    }

    /// How many agents' processes run.
    pub(crate) fn running(&self) -> Vec<Node> {
        self.agents.iter().filter(|(_, process)| !process.task.is_finished()).map(|(node, _)| *node).collect()
    }

    /// What the checker looks at.
    pub(crate) fn sight(&self) -> Sight<'_> {
        let agent = |node: Node| (node, &self.machines[node], self.reinstalled.contains(&node));
        let agents = self.running().into_iter().map(agent).collect();
        Sight { source: self.source.etcd(), destination: self.destination().etcd(), agents }
    }

    /// Two machines that used one address of a pool that withdraws.
    pub(crate) fn used_twice(&self) -> Option<String> {
        let is_known = |twice: &Twice| self.unproven.iter().any(|node| twice.users.contains(&format!("m{node}")));
        self.eyes.used_twice().filter(|twice| !is_known(twice)).map(|twice| twice.to_string())
    }

    /// A node's machine.
    pub(crate) fn machine(&self, node: Node) -> &SimMachine {
        &self.machines[node]
    }

    fn context(&mut self) -> (Context, Clock) {
        self.started += 1;
        let clock = Clock::default();
        let context = Context {
            identity: format!("p{}", self.started),
            seed: self.seed.wrapping_add(self.started),
            wall: clock.wall(skew(self.seed, self.started)),
            shutdown: CancellationToken::new(),
        };
        (context, clock)
    }

    /// What a world starts with, at the source or at the destination.
    pub(super) async fn define_all(&self, source: bool) {
        let at_source = if source { &POOLS[..] } else { &[] };
        let at_destination = if !source || self.one_store { &GROUPS[..2] } else { &[] };
        for text in at_source.iter().chain(at_destination) {
            self.define(text).await;
        }
    }

    async fn define(&self, text: &str) {
        setup::define(text, self.source.etcd(), self.destination.etcd()).await;
    }

    pub(super) fn start_role(&mut self, role: Role, instance: usize) {
        let (context, clock) = self.context();
        let shutdown = context.shutdown.clone();
        let (from, to) = (self.faults.client(self.source.etcd().store()), self.faults.client(self.destination.etcd().store()));
        let site = |link: &FaultyClient| Site { store: link.store(), prefix: Self::prefix() };
        let (source, destination) = (site(&from), site(&to));
        let leader_ttl = LEADER_TTL;
        let links = vec![from, to];
        let process = match role {
            Role::Allocator => {
                let settings = AllocatorSettings { leader_ttl, ..Default::default() };
                Process::start(allocator::run(source, settings, context), links, shutdown, clock)
            }
            Role::Relay => {
                let settings = RelaySettings { leader_ttl, ..Default::default() };
                Process::start(relay::run(source, destination, settings, context), links, shutdown, clock)
            }
            Role::Manager => {
                Process::start(manager::run(destination, ManagerSettings { leader_ttl }, context), links, shutdown, clock)
            }
        };
        self.roles.insert((role, instance), process);
    }

    /// An agent on machine `node` that calls itself `id`.
    fn agent(&mut self, id: Node, node: Node) -> Process<AgentExit> {
        let (context, clock) = self.context();
        let shutdown = context.shutdown.clone();
        let (settings, host) = (agent_settings(id, &self.settings[node]), self.machines[node].process());
        if let Some((together, link)) = &self.together {
            let work = together.run(settings, context, host);
            return Process::start(work, vec![link.clone()], shutdown, clock).with_shared_links();
        }
        let link = self.faults.client(self.source.etcd().store());
        let site = Site { store: link.store(), prefix: Self::prefix() };
        Process::start(enlist::agent::run(site, settings, context, host), vec![link], shutdown, clock)
    }

    fn start_agent(&mut self, node: Node) {
        let process = self.agent(node, node);
        self.agents.insert(node, process);
    }

    async fn kill_agent(&mut self, node: Node) {
        if let Some(process) = self.agents.remove(&node) {
            process.kill().await;
        }
    }

    async fn stop_agent(&mut self, node: Node) {
        if let Some(process) = self.agents.remove(&node) {
            // A process that is paused is told when it goes on.
            process.grip.thaw();
            process.shutdown.cancel();
            let exit = process.task.await;
            self.judge(node, exit);
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
            Step::Copy { from, to } => self.copy(*from, *to, SimMachine::copy_disk).await,
            Step::Rival { from, to } => self.copy(*from, *to, |_, _| ()).await,
            Step::Clone { from, to } => {
                // Outside the promise of `withdraw`: a machine that is cloned with its disk while the original is cut off.
                let withdraws = self.machines[*from].uses().is_none_or(|given| given.pool.as_str() == "w");
                if !withdraws && self.settings[*from].0 != "w" {
                    self.copy(*from, *to, SimMachine::clone_disk).await;
                }
            }
            Step::Define(text) => self.define(text).await,
            Step::DeletePool(name) => {
                let key = Self::prefix().pool(&name.parse().unwrap());
                write(&self.source.etcd().store(), Op::delete(key)).await;
            }
            Step::DeleteGroup(name) => {
                let key = Self::prefix().group(&name.parse().unwrap());
                write(&self.destination.etcd().store(), Op::delete(key)).await;
            }
            Step::BadClaim(claim) => {
                let key = Self::prefix().key(format_args!("claims/{claim}"));
                self.done.bad_claims += u64::from(self.write_if_absent(vec![Op::put(key, "{")]).await);
            }
            Step::GreedyLabel => self.greedy_label().await,
            Step::Stranger(node) => self.stranger(*node).await,
            Step::Snare(snare) => self.faults.set_snare(snare.clone()),
            Step::Snared => {
                let end = Instant::now() + SNARE_MAX;
                while self.faults.snares_set() > 0 && Instant::now() < end {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                self.faults.clear_snares();
            }
            Step::DeleteStatus(node) => self.delete(*node, "status").await,
            Step::DeleteLabel(node) => self.delete(*node, "label").await,
            Step::RestartRole(role, instance) => {
                if let Some(process) = self.roles.remove(&(*role, *instance)) {
                    process.kill().await;
                }
                self.start_role(*role, *instance);
            }
            Step::Fault(fault) => self.fault(fault).await,
        }
    }

    /// Another machine with a copy of the state directory, or of the whole disk: it must be refused, or wait.
    async fn copy(&mut self, from: Node, to: Node, how: fn(&SimMachine, &SimMachine)) {
        self.kill_agent(to).await;
        let name = format!("copy{}", self.started);
        let machine = SimMachine::new(&self.net, &name, format!("192.0.2.{}", 100 + to).parse().unwrap());
        machine.set_child(Some(ChildScript::default()));
        self.eyes.watch(&name, &machine);
        self.contested.insert(from);
        self.done.rivals += 1;
        how(&machine, &self.machines[from]);
        let kept = std::mem::replace(&mut self.machines[to], machine);
        let as_original = self.settings[from].clone();
        let settings = std::mem::replace(&mut self.settings[to], as_original);
        // It calls itself as the original does.
        let mut rival = self.agent(from, to);
        let ended = tokio::time::timeout(Duration::from_secs(12), &mut rival.task).await;
        if ended.is_err() {
            rival.shutdown.cancel();
            let _ = rival.task.await;
        }
        // Whatever it has written is settled by the original, if that one lives.
        tokio::time::sleep(Duration::from_secs(5)).await;
        self.machines[to] = kept;
        self.settings[to] = settings;
    }

    /// By hand: sixteen ports are allowed. The status is on a lease, as that of an agent is: without one the node would count as silent.
    async fn greedy_label(&mut self) {
        // Longer than any run.
        const LEASE_S: u64 = 24 * 3600;
        let Ok((lease, _)) = self.source.etcd().store().grant(LEASE_S).await else { return };
        let ports: Vec<String> = (0..18).map(|port| format!(r#""p{port}""#)).collect();
        let by = r#""v":1,"instance":"by-hand","boot":"by-hand","run":"by-hand""#;
        let label = format!(
            r#"{{{by},"id":"greedy","temporary":{{"ip":"192.0.2.99","port":1}},"variables":{{"pool":"h"}},"ports":[{}]}}"#,
            ports.join(",")
        );
        let status = format!(r#"{{{by},"phase":"joining"}}"#);
        let key = |part| Self::prefix().key(format_args!("nodes/greedy/{part}"));
        let status = Op::Put { key: key("status"), value: status.into(), lease };
        let written = self.write_if_absent(vec![Op::put(key("label"), label), status]).await;
        self.done.greedy_labels += u64::from(written);
    }

    /// By hand, if the first key is not there.
    async fn write_if_absent(&self, then: Vec<Op>) -> bool {
        let Some(Op::Put { key, .. }) = then.first() else { return false };
        let txn = Txn { compares: vec![Compare::Modified(key.clone(), Revision::NONE)], then, ..Txn::default() };
        self.source.etcd().store().txn(txn).await.is_ok_and(|done| done.succeeded)
    }

    /// The address of a machine that is gone was given to another, where an agent of another node answers.
    async fn stranger(&mut self, node: Node) {
        let key = Self::prefix().key(format_args!("nodes/n{node}/label"));
        let label = self.source.etcd().store().get(key).await.unwrap().1;
        if let Some(label) = label.and_then(|kv| Label::decode(&kv.value).ok()).filter(|_| !self.agents.contains_key(&node)) {
            self.done.strangers += 1;
            let face = Face { id: "stranger".into(), instance: "stranger".into(), run: "stranger".into(), ..Face::default() };
            self.net.put(label.temporary, face);
        }
    }

    async fn delete(&self, node: Node, part: &str) {
        let key: Key = Self::prefix().key(format_args!("nodes/n{node}/{part}"));
        write(&self.source.etcd().store(), Op::delete(key)).await;
    }

    /// From now on nothing goes wrong, and everybody who should be there is.
    pub(crate) async fn calm(&mut self) {
        self.source.etcd().set_full(false);
        self.destination.etcd().set_full(false);
        if self.done.emptied + self.done.restored > 0 {
            // The operator's word that what is gone from the source may go at the destination.
            write(&self.destination().etcd().store(), Op::put(Self::prefix().brake(Role::Relay), "")).await;
        }
        self.faults.calm();
        for process in self.agents.values() {
            process.grip.cut(false);
            process.grip.thaw();
        }
        for ((role, instance), process) in std::mem::take(&mut self.roles) {
            process.grip.cut(false);
            process.grip.thaw();
            if process.task.is_finished() {
                self.start_role(role, instance);
            } else {
                self.roles.insert((role, instance), process);
            }
        }
    }

    /// Where copies and groups are.
    pub(crate) fn destination(&self) -> &Timeline {
        if self.one_store { &self.source } else { &self.destination }
    }

    /// Ends everything.
    pub(crate) async fn end(mut self) {
        for node in self.running() {
            self.kill_agent(node).await;
        }
        for (_, process) in self.roles {
            process.kill().await;
        }
    }
}
