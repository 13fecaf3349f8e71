//! A world on a simulated network: members of etcd, nodes and hosts of roles, each on a host of turmoil. The roles, the agents and
//! the adapter to etcd are the real ones; the model of etcd and the hosts' insides are those of the [simulation](super::super).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use enlist::Store;
use enlist::agent::AgentExit;
use enlist::agent::exit::Ending;
use enlist::agent::sim::{SimMachine, SimNet};
use enlist::allocator::{self, AllocatorSettings};
use enlist::manager::{self, ManagerSettings};
use enlist::reconcile::{Context, Site, Wall};
use enlist::relay::{self, RelaySettings};
use enlist::store::api::LeaseId;
use enlist::store::etcd::StoreSettings;
use enlist::store::keys::Role;
use enlist::store::memory::MemoryEtcd;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::cluster::{Cluster, USER};
use super::network::{Network, PORT, SimTcp};
use super::script::{ROLE_HOSTS, Script, Step};
use crate::sim::checker::Sight;
use crate::sim::eyes::Eyes;
use crate::sim::script::Node;
use crate::sim::setup::{self, GROUPS, LEADER_TTL, POOLS, Wanted, agent_settings, first_settings, options, skew};
use crate::sim::timeline::Timeline;
use crate::sim::world::World as Memory;

/// The runtimes of the clients' hosts, by name: work is put onto them from outside.
pub(super) type Runtimes = Arc<Mutex<BTreeMap<String, Handle>>>;

/// What only the loop around the simulation can do to a host: crash it, or start it again.
#[derive(Debug, Clone)]
pub(super) enum Order {
    Crash(String),
    Start(String),
}

/// What all hosts stand on.
#[derive(Clone, Default)]
pub(super) struct Ground {
    pub(super) network: Network,
    pub(super) runtimes: Runtimes,
    pub(super) orders: Arc<Mutex<Vec<Order>>>,
}

/// A process: a role or an agent.
pub(super) struct Process<T> {
    pub(super) task: JoinHandle<T>,
    shutdown: CancellationToken,
}

impl<T> Process<T> {
    /// SIGKILL.
    pub(super) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Everything there is. It is owned by the script's host.
pub(super) struct World {
    pub(super) clusters: Vec<Cluster>,
    pub(super) source: Timeline,
    destination: Option<Timeline>,
    pub(super) network: Network,
    pub(super) orders: Arc<Mutex<Vec<Order>>>,
    /// Faults that are not over yet.
    pub(super) faults: Vec<JoinHandle<()>>,
    pub(super) ended_without_cause: Vec<String>,
    pub(super) eyes: Eyes,
    runtimes: Runtimes,
    seed: u64,
    started: u64,
    machines: Vec<SimMachine>,
    agents: BTreeMap<Node, Process<AgentExit>>,
    roles: BTreeMap<(usize, Role), Process<anyhow::Result<()>>>,
    settings: Vec<Wanted>,
}

/// The name of a node's host.
pub(super) fn node_host(node: Node) -> String {
    format!("node-{node}")
}

/// The name of a host of roles.
pub(super) fn role_host(instance: usize) -> String {
    format!("roles-{instance}")
}

impl World {
    /// On the script's host, when all others have started.
    pub(super) async fn new(seed: u64, script: &Script, clusters: Vec<Cluster>, ground: Ground) -> World {
        let Ground { network, runtimes, orders } = ground;
        let models: Vec<MemoryEtcd> =
            (0..clusters.len()).map(|number| MemoryEtcd::with_options(options(seed, number == 1))).collect();
        for (cluster, model) in clusters.iter().zip(&models) {
            cluster.set_model(Handle::current(), model.clone());
        }
        let looked_after = clusters.clone();
        tokio::spawn(async move {
            loop {
                looked_after.iter().for_each(Cluster::look_after);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let (net, eyes) = (SimNet::default(), Eyes::open());
        let machine = |node: usize| {
            // A machine counts time on the clock of its own host.
            let runtime = runtimes.lock().unwrap()[&node_host(node)].clone();
            let _entered = runtime.enter();
            setup::machine(&net, &eyes, node)
        };
        let machines = (0..script.nodes).map(machine).collect();
        let mut world = World {
            source: Timeline::new(models[0].clone()),
            destination: models.get(1).cloned().map(Timeline::new),
            clusters,
            network,
            orders,
            faults: Vec::new(),
            ended_without_cause: Vec::new(),
            eyes,
            runtimes,
            seed,
            started: 0,
            machines,
            agents: BTreeMap::new(),
            roles: BTreeMap::new(),
            settings: first_settings(script.nodes),
        };
        for text in POOLS.iter().chain(&GROUPS[..2]) {
            world.define(text).await;
        }
        (0..ROLE_HOSTS).for_each(|instance| world.start_roles(instance));
        world
    }

    /// The hosts of nodes and roles.
    pub(super) fn client_hosts(&self) -> Vec<String> {
        self.runtimes.lock().unwrap().keys().cloned().collect()
    }

    pub(super) fn destination(&self) -> &Timeline {
        self.destination.as_ref().unwrap_or(&self.source)
    }

    /// The second cluster, if there is one.
    pub(super) fn second(&self) -> Option<&Cluster> {
        self.clusters.get(1)
    }

    /// What the checker looks at.
    pub(super) fn sight(&self) -> Sight<'_> {
        let running = self.agents.iter().filter(|(_, process)| !process.task.is_finished());
        Sight {
            source: self.source.etcd(),
            destination: self.destination().etcd(),
            agents: running.map(|(node, _)| (*node, &self.machines[*node], false)).collect(),
        }
    }

    /// Puts work onto a host. It is begun there: what it makes, clocks above all, is of that host.
    fn on_host<T: Send + 'static>(
        &self,
        host: &str,
        work: impl FnOnce() -> BoxFuture<'static, T> + Send + 'static,
    ) -> JoinHandle<T> {
        let runtime = self.runtimes.lock().unwrap()[host].clone();
        runtime.spawn(async move { work().await })
    }

    /// A client of a cluster, over the network.
    fn store(&self, host: &str, cluster: &Cluster) -> Store {
        let mut settings = StoreSettings::endpoints(cluster.hosts().iter().map(|member| format!("{member}:{PORT}")));
        if cluster.has_users() {
            settings.user = Some(format!("{}:{}", USER.0, USER.1));
        }
        let connect = SimTcp { network: self.network.clone(), host: host.to_owned() };
        cluster.ledger().noted(host, Store::open_over(Arc::new(connect), settings).unwrap())
    }

    fn site(&self, host: &str, cluster: &Cluster) -> Site {
        Site { store: self.store(host, cluster), prefix: Memory::prefix() }
    }

    fn start<T: Send + 'static>(
        &mut self,
        host: &str,
        work: impl FnOnce(Context) -> BoxFuture<'static, T> + Send + 'static,
    ) -> Process<T> {
        self.started += 1;
        let (identity, seed, skew) =
            (format!("p{}", self.started), self.seed.wrapping_add(self.started), skew(self.seed, self.started));
        let shutdown = CancellationToken::new();
        let told = shutdown.clone();
        // Its clock begins when it runs.
        let task = self.on_host(host, move || work(Context { identity, seed, wall: Wall::simulated(skew), shutdown: told }));
        Process { task, shutdown }
    }

    fn start_roles(&mut self, instance: usize) {
        Role::ALL.into_iter().for_each(|role| self.start_role(instance, role));
    }

    fn start_role(&mut self, instance: usize, role: Role) {
        let host = role_host(instance);
        let source = self.site(&host, &self.clusters[0]);
        let destination = self.second().map_or_else(|| source.clone(), |second| self.site(&host, second));
        let leader_ttl = LEADER_TTL;
        let process = self.start(&host, move |context| match role {
            Role::Allocator => allocator::run(source, AllocatorSettings { leader_ttl, ..Default::default() }, context).boxed(),
            Role::Relay => relay::run(source, destination, RelaySettings { leader_ttl, ..Default::default() }, context).boxed(),
            Role::Manager => manager::run(destination, ManagerSettings { leader_ttl }, context).boxed(),
        });
        self.roles.insert((instance, role), process);
    }

    fn start_agent(&mut self, node: Node) {
        let host = node_host(node);
        let (site, settings) = (self.site(&host, &self.clusters[0]), agent_settings(node, &self.settings[node]));
        let machine = self.machines[node].clone();
        let process = self.start(&host, move |context| enlist::agent::run(site, settings, context, machine.process()).boxed());
        self.agents.insert(node, process);
    }

    async fn kill_agent(&mut self, node: Node) {
        if let Some(process) = self.agents.remove(&node) {
            process.kill().await;
        }
    }

    async fn stop_agent(&mut self, node: Node) {
        if let Some(process) = self.agents.remove(&node) {
            process.shutdown.cancel();
            let exit = process.task.await;
            self.judge(node, exit);
        }
    }

    /// Does one step.
    pub(super) async fn step(&mut self, step: &Step) {
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
                let machine = self.machines[*node].clone();
                let _ = self.on_host(&node_host(*node), move || async move { machine.reboot() }.boxed()).await;
                self.start_agent(*node);
            }
            Step::Change { node, pool, ports } => {
                self.settings[*node] = ((*pool).to_owned(), *ports);
                self.stop_agent(*node).await;
                self.start_agent(*node);
            }
            Step::Define(text) => self.define(text).await,
            Step::Expire(node) => self.expire(*node).await,
            Step::RestartRoles(instance) => {
                for role in Role::ALL {
                    if let Some(process) = self.roles.remove(&(*instance, role)) {
                        process.kill().await;
                    }
                }
                self.start_roles(*instance);
            }
            Step::Compact => {
                for etcd in [self.source.etcd(), self.destination().etcd()] {
                    // Twice in a row is refused, as by etcd.
                    let _ = etcd.compact(etcd.revision());
                }
            }
            Step::BreakWatches => {
                self.source.etcd().break_watches();
                self.destination().etcd().break_watches();
            }
            Step::Fault(fault, lasts) => self.fault(fault, *lasts),
        }
    }

    async fn define(&self, text: &str) {
        setup::define(text, self.source.etcd(), self.destination().etcd()).await;
    }

    async fn expire(&self, node: Node) {
        let store = self.source.etcd().store();
        let status = store.get(Memory::prefix().key(format_args!("nodes/n{node}/status"))).await.unwrap().1;
        if let Some(lease) = status.map(|kv| kv.lease).filter(|lease| *lease != LeaseId::NONE)
            && store.revoke(lease).await.is_ok()
        {
            self.network.count(|effects| effects.expired += 1);
        }
    }

    /// Agents and roles do not end by themselves without a cause.
    pub(super) async fn look_after(&mut self) {
        let over: Vec<_> = self.roles.iter().filter(|(_, process)| process.task.is_finished()).map(|(key, _)| *key).collect();
        for (instance, role) in over {
            if let Some(process) = self.roles.remove(&(instance, role)) {
                self.ended_without_cause.push(format!("{role} {instance} ended by itself: {:?}", process.task.await));
            }
            self.start_role(instance, role);
        }
        let ended: BTreeSet<Node> =
            self.agents.iter().filter(|(_, agent)| agent.task.is_finished()).map(|(node, _)| *node).collect();
        for node in ended {
            if let Some(process) = self.agents.remove(&node) {
                let exit = process.task.await;
                self.judge(node, exit);
            }
        }
    }

    /// Whether an agent may end so.
    fn judge(&mut self, node: Node, exit: Result<AgentExit, JoinError>) {
        let fine = match &exit {
            Ok(AgentExit { ending: Ending::Stopped | Ending::Left, .. }) => true,
            // A keep-alive of a dead process that is late, or an election, lets its lease live longer than anybody waits.
            Ok(AgentExit { ending: Ending::Conflict(why), .. }) => why.contains("still has it after"),
            Ok(_) => false,
            Err(error) => error.is_cancelled(),
        };
        if !fine {
            self.ended_without_cause.push(format!("the agent of n{node} ended without a cause: {exit:?}"));
        }
    }

    /// From now on nothing goes wrong: waits for the end of what does.
    pub(super) async fn calm(&mut self) {
        for fault in std::mem::take(&mut self.faults) {
            fault.await.unwrap();
        }
    }

    /// Ends everything.
    pub(super) async fn end(mut self) {
        for node in self.agents.keys().copied().collect::<Vec<_>>() {
            self.kill_agent(node).await;
        }
        for (_, process) in self.roles {
            process.kill().await;
        }
    }
}
