//! What worlds are made of, in memory and over a network: pools and groups, models of etcd, machines, and what agents are told.

use std::net::IpAddr;
use std::time::Duration;

use enlist::Store;
use enlist::agent::AgentSettings;
use enlist::agent::sim::{ChildScript, SimMachine, SimNet};
use enlist::model::documents::{Document, parse, to_stored};
use enlist::store::api::{Op, StoreError, Txn};
use enlist::store::memory::{MemoryEtcd, MemoryOptions, ProgressKind};

use super::eyes::Eyes;
use super::script::Node;
use super::world::World;

/// Short, so that a life fits into minutes.
pub(crate) const LEASE_TTL: Duration = Duration::from_secs(4);
/// The lease of roles' leaders.
pub(crate) const LEADER_TTL: Duration = Duration::from_secs(3);

/// The pools that a world starts with. `w` withdraws: its promise is checked at every moment.
pub(crate) const POOLS: [&str; 5] = [
    "{kind: Pool, name: a, cidrs: [10.0.0.0/30], ports: 8000-8003, selector: pool=a, hold: 20s, cooldown: 5s}",
    "{kind: Pool, name: s, cidrs: [10.1.0.0/31, 'fd00::/127'], ports: 8000-8002, sharing: shared, selector: pool=s, hold: 15s, cooldown: 5s}",
    "{kind: Pool, name: h, sharing: host, domain: host, ports: 8000-8019, selector: pool=h, hold: 10s, cooldown: 0s}",
    "{kind: Pool, name: w, cidrs: [10.2.0.0/31], selector: pool=w, hold: 30s, cooldown: 5s, on_isolation: withdraw}",
    "{kind: Pool, name: t, cidrs: [10.3.0.1/32], ports: 8000-8000, sharing: shared, selector: pool=t, hold: 10s, cooldown: 2s}",
];

/// Other words of the same pools.
pub(crate) const OTHER_POOLS: [&str; 4] = [
    "{kind: Pool, name: a, cidrs: [10.0.0.0/31], ports: 8000-8003, selector: pool=a, hold: 20s, cooldown: 5s, on_mismatch: move}",
    "{kind: Pool, name: s, cidrs: [10.1.0.0/32, 'fd00::/127'], ports: 8000-8009, sharing: shared, selector: pool=s, hold: 15s, cooldown: 5s}",
    "{kind: Pool, name: a, cidrs: [10.0.0.0/28], ports: 8000-8003, selector: 'pool in (a,s)', priority: 5, hold: 25s, cooldown: 2s}",
    "{kind: Pool, name: w, cidrs: [10.2.0.0/30], selector: pool=w, hold: 31s, cooldown: 6s, on_isolation: withdraw}",
];

/// The groups that a world starts with, and others.
pub(crate) const GROUPS: [&str; 4] = [
    "{kind: Group, name: all, selector: ''}",
    "{kind: Group, name: by-pool, selector: pool, keyed_by: [pool], port: main}",
    "{kind: Group, name: all, selector: 'pool!=h'}",
    "{kind: Group, name: odd, selector: 'n in (1,3,5)'}",
];

/// Half of the worlds have an etcd that shows its oddities at once: few revisions a response, in fragments, and, in a third of
/// those, progress that lies. A second cluster takes small transactions then, so that a cut needs several.
pub(crate) fn options(seed: u64, second: bool) -> MemoryOptions {
    let usual = MemoryOptions::default();
    if seed.is_multiple_of(2) {
        return usual;
    }
    let max_txn_ops = if second { 12 } else { 64 };
    let odd = MemoryOptions { catch_up_revisions: 3, fragment_bytes: 700, max_txn_ops, ..usual };
    if seed.is_multiple_of(3) {
        return MemoryOptions { progress: ProgressKind::Lie, version: "3.4.23".to_owned(), ..odd };
    }
    odd
}

/// What a node asks for: its pool, and how many ports beside the first.
pub(crate) type Wanted = (String, usize);

/// What nodes ask for at first.
pub(crate) fn first_settings(nodes: usize) -> Vec<Wanted> {
    (0..nodes).map(|node| (["a", "s", "h", "w"][node % 4].to_owned(), 0)).collect()
}

/// What the agent of a node is told.
pub(crate) fn agent_settings(id: Node, (pool, ports): &Wanted) -> AgentSettings {
    let mut settings = AgentSettings::new(format!("n{id}").parse().unwrap());
    settings.variables.insert("pool", pool).unwrap();
    settings.variables.insert("n", &id.to_string()).unwrap();
    settings.ports = ["main", "extra", "more"][..=*ports].iter().map(|name| name.parse().unwrap()).collect();
    settings.lease_ttl = LEASE_TTL;
    settings.stop_timeout = Duration::from_secs(1);
    settings.hook_limit = Duration::from_secs(1);
    settings.no_host_facts = true;
    settings.command = vec!["serve".into()];
    settings
}

/// A node's machine, on the clock of whoever makes it.
pub(crate) fn machine(net: &SimNet, eyes: &Eyes, node: Node) -> SimMachine {
    let (name, ip): (_, IpAddr) = (format!("m{node}"), format!("192.0.2.{}", node + 1).parse().unwrap());
    let machine = SimMachine::new(net, &name, ip);
    machine.set_child(Some(ChildScript::default()));
    eyes.watch(&name, &machine);
    machine
}

/// Hosts' clocks are minutes apart: by how much that of the n-th process is.
pub(crate) fn skew(seed: u64, n: u64) -> Duration {
    Duration::from_secs((seed.wrapping_mul(31).wrapping_add(n * 97)) % 600)
}

/// Writes a pool at the source, a group at the destination.
pub(crate) async fn define(text: &str, source: &MemoryEtcd, destination: &MemoryEtcd) {
    let document = parse("sim", text).unwrap().remove(0);
    let (store, key) = match &document {
        Document::Pool(pool) => (source.store(), World::prefix().pool(&pool.name)),
        Document::Group(group) => (destination.store(), World::prefix().group(&group.name)),
    };
    write(&store, Op::put(key, to_stored(&document))).await;
}

/// What an operator writes: a store without space refuses him too, and he goes without.
pub(crate) async fn write(store: &Store, op: Op) {
    match store.txn(Txn { then: vec![op], ..Txn::default() }).await {
        Ok(_) | Err(StoreError::NoSpace) => {}
        Err(error) => panic!("{error}"),
    }
}
