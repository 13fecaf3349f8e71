//! Rights that are taken away while all run: whoever was let in once goes on with what it has, asks seldom, and recovers.

use std::time::Duration;

use enlist::agent::settings::AgentSettings;
use enlist::agent::sim::{ChildScript, SimMachine, SimNet};
use enlist::allocator::{self, AllocatorSettings};
use enlist::manager::{self, ManagerSettings};
use enlist::model::documents::{parse, to_stored};
use enlist::reconcile::{Context, Site, Wall};
use enlist::relay::{self, RelaySettings};
use enlist::store::memory::MemoryEtcd;
use tokio_util::sync::CancellationToken;

use crate::support::gate::Gate;
use crate::support::roles::{Running, put, read};
use crate::support::wait::until;

/// Of paused time.
const SOON: Duration = Duration::from_secs(120);
const REFUSED_FOR: Duration = Duration::from_secs(1_200);
/// Of one process, with all its loops: one in three seconds, where each alone asks every thirty and a few start anew.
const ASKS_MAX: usize = 400;

fn context(identity: &str) -> Context {
    let seed = identity.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    let wall = Wall::simulated(Duration::ZERO);
    Context { identity: identity.into(), seed, wall, shutdown: CancellationToken::new() }
}

#[tokio::test(start_paused = true)]
async fn whoever_was_let_in_once_goes_on_when_it_is_refused_and_asks_seldom() {
    let etcd = MemoryEtcd::new();
    let store = etcd.store();
    for text in ["{kind: Pool, name: eu, cidrs: [10.0.0.0/24], hold: 2h}", "{kind: Group, name: all, selector: ''}"] {
        let document = parse("test", text).unwrap().remove(0);
        let key = if text.contains("Pool") { "/enlist/pools/eu" } else { "/enlist/groups/all" };
        put(&store, key, to_stored(&document)).await;
    }
    let gates: Vec<Gate> = (0..4).map(|_| Gate::before(&store)).collect();
    let site = |at: usize| Site { store: gates[at].store(), prefix: Default::default() };
    let contexts = ["allocator", "relay", "manager"].map(context);
    let _roles = [
        Running::start(&contexts[0], allocator::run(site(0), AllocatorSettings::default(), contexts[0].clone())),
        Running::start(&contexts[1], relay::run(site(1), site(1), RelaySettings::default(), contexts[1].clone())),
        Running::start(&contexts[2], manager::run(site(2), ManagerSettings::default(), contexts[2].clone())),
    ];
    let machine = SimMachine::new(&SimNet::default(), "m", "192.0.2.1".parse().unwrap());
    machine.set_child(Some(ChildScript::default()));
    let settings = AgentSettings { command: vec!["serve".into()], ..AgentSettings::new("a".parse().unwrap()) };
    let agent = tokio::spawn(enlist::agent::run(site(3), settings, context("agent"), machine.process()));
    let ready = || async {
        let members = read(&store, "/enlist/manager/groups/all/members/").await;
        members.get("a").is_some_and(|member| member.contains("ready")).then_some(())
    };
    until("a member that is ready", SOON, ready).await;
    let (label, given) = (store.get("/enlist/nodes/a/label").await.unwrap().1, machine.uses());
    machine.journal();

    gates.iter().for_each(|gate| gate.refuse(true));
    tokio::time::sleep(Duration::from_secs(300)).await;
    let before: Vec<usize> = gates.iter().map(Gate::refused).collect();
    tokio::time::sleep(REFUSED_FOR).await;
    for (at, gate) in gates.iter().enumerate() {
        let asked = gate.refused() - before[at];
        assert!(asked > 0 && asked <= ASKS_MAX, "process {at} asked {asked} times in {REFUSED_FOR:?}");
    }
    assert!(!agent.is_finished() && machine.uses() == given, "the agent gave up what it has");
    gates.iter().for_each(|gate| gate.refuse(false));
    // A leader that was away for so long is followed by itself; the node is what it was.
    until("a member that is ready", SOON, ready).await;
    until("its status is there", SOON, || async { store.get("/enlist/nodes/a/status").await.unwrap().1 }).await;
    assert_eq!(store.get("/enlist/nodes/a/label").await.unwrap().1, label);
    assert_eq!((machine.uses(), machine.journal()), (given, Vec::new()));
    agent.abort();
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_was_let_in_before_waits_when_it_starts_refused() {
    let store = MemoryEtcd::new().store();
    let gate = Gate::before(&store);
    let machine = SimMachine::new(&SimNet::default(), "m", "192.0.2.1".parse().unwrap());
    let start = || {
        let site = Site { store: gate.store(), prefix: Default::default() };
        let settings = AgentSettings::new("a".parse().unwrap());
        tokio::spawn(enlist::agent::run(site, settings, context("agent"), machine.process()))
    };
    let status = || async { store.get("/enlist/nodes/a/status").await.unwrap().1 };
    gate.refuse(true);
    assert_eq!(start().await.unwrap().code(), 6, "its credentials never were good");
    gate.refuse(false);
    let agent = start();
    until("its status", SOON, status).await;
    agent.abort();
    let _ = agent.await;
    until("its end", SOON, || async { status().await.is_none().then_some(()) }).await;
    gate.refuse(true);
    let before = gate.refused();
    let agent = start();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let asked = gate.refused() - before;
    assert!(!agent.is_finished() && (10..=100).contains(&asked), "it asked {asked} times");
    gate.refuse(false);
    until("its status", SOON, status).await;
    agent.abort();
}
