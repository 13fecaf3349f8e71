//! The shell on a model of etcd and simulated hosts, on paused time. The test writes what an allocator would.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod apply;
mod change;
mod drain;
mod embed;
mod forgot;
mod identity;
mod isolation;
mod lease;
mod offline;
mod rejoin;
mod stop;
mod together;

use std::net::IpAddr;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::agent::exit::AgentExit;
use crate::agent::settings::AgentSettings;
use crate::agent::sim::{ChildScript, SimMachine, SimNet};
use crate::model::asked::Asked;
use crate::model::assignment::{Answer, Assignment, Bound, Leaving, Reason, Terms, Waiting};
use crate::model::label::Label;
use crate::model::names::{NodeId, Revision};
use crate::model::pool::{OnIsolation, Sharing};
use crate::model::status::{Phase, Status};
use crate::reconcile::{Context, Site, Wall};
use crate::store::api::{KeyRange, Op, Store, Txn};
use crate::store::keys::{NodePart, Prefix};
use crate::store::memory::MemoryEtcd;
use crate::store::memory::faults::{FaultPlan, Faults, FaultyClient};
use crate::store::wire::Stored;

/// One etcd, one network, one node's id.
struct Lab {
    etcd: MemoryEtcd,
    store: Store,
    net: SimNet,
    prefix: Prefix,
    id: NodeId,
    terms: Terms,
}

/// A running agent.
struct Running {
    task: JoinHandle<AgentExit>,
    shutdown: CancellationToken,
    link: FaultyClient,
}

impl Running {
    /// Stops it and tells how it ended.
    async fn stop(self) -> AgentExit {
        self.shutdown.cancel();
        self.task.await.unwrap()
    }

    /// SIGKILL.
    async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

impl Lab {
    fn new() -> Lab {
        let etcd = MemoryEtcd::new();
        Lab {
            store: etcd.store(),
            etcd,
            net: SimNet::default(),
            prefix: Prefix::default(),
            id: "edge-7".parse().unwrap(),
            terms: Terms {
                pool: "eu".parse().unwrap(),
                domain: "default".parse().unwrap(),
                sharing: Sharing::Exclusive,
                hold_s: 600,
                cooldown_s: 60,
                on_isolation: OnIsolation::Keep,
            },
        }
    }

    fn withdrawing(hold_s: u64) -> Lab {
        let mut lab = Lab::new();
        lab.terms.on_isolation = OnIsolation::Withdraw;
        lab.terms.hold_s = hold_s;
        lab
    }

    fn machine(&self, name: &str, ip: &str) -> SimMachine {
        SimMachine::new(&self.net, name, ip.parse().unwrap())
    }

    /// A machine whose agents have a child that listens.
    fn serving_machine(&self) -> SimMachine {
        let machine = self.machine("a", "192.0.2.17");
        machine.set_child(Some(ChildScript::default()));
        machine
    }

    fn settings(&self) -> AgentSettings {
        AgentSettings { ports: vec!["http".parse().unwrap()], ..AgentSettings::new(self.id.clone()) }
    }

    fn start(&self, machine: &SimMachine) -> Running {
        self.start_with(machine, self.settings())
    }

    fn start_with(&self, machine: &SimMachine, settings: AgentSettings) -> Running {
        let link = Faults::new(7, FaultPlan::default()).client(self.store.clone());
        let shutdown = CancellationToken::new();
        let context =
            Context { identity: "test".into(), seed: 7, wall: Wall::simulated(Duration::ZERO), shutdown: shutdown.clone() };
        let site = Site { store: link.store(), prefix: self.prefix.clone() };
        let task = tokio::spawn(crate::agent::run(site, settings, context, machine.process()));
        Running { task, shutdown, link }
    }

    async fn get<T: Stored>(&self, part: NodePart) -> Option<(T, Revision)> {
        let (_, kv) = self.store.get(self.prefix.node(&self.id, part)).await.unwrap();
        kv.map(|kv| (T::decode(&kv.value).unwrap(), kv.mod_revision))
    }

    async fn label(&self) -> Label {
        self.get(NodePart::Label).await.expect("there is no label").0
    }

    async fn status(&self) -> Option<Status> {
        self.get(NodePart::Status).await.map(|(status, _)| status)
    }

    async fn put<T: Stored>(&self, part: NodePart, value: &T) {
        let op = Op::put(self.prefix.node(&self.id, part), value.encode());
        self.store.txn(Txn { then: vec![op], ..Txn::default() }).await.unwrap();
    }

    async fn delete(&self, part: NodePart) {
        let op = Op::Delete(KeyRange::one(self.prefix.node(&self.id, part)));
        self.store.txn(Txn { then: vec![op], ..Txn::default() }).await.unwrap();
    }

    fn bound(&self, label: &Label, ip: &str, port: u16) -> Assignment {
        Assignment {
            node: label.id.clone(),
            instance: label.instance.clone(),
            generation: self.etcd.revision(),
            asked: Asked::of(label, self.terms.sharing),
            answer: Answer::Bound(Bound {
                terms: self.terms.clone(),
                addresses: vec![ip.parse::<IpAddr>().unwrap()],
                ports: label.ports.iter().zip(port..).map(|(name, port)| (name.clone(), port)).collect(),
            }),
            leaving: Vec::new(),
            mark: None,
        }
    }

    /// What an allocator would answer, with the present answer as `leaving`. Waits for a label first.
    async fn assign(&self, ip: &str, port: u16) -> Assignment {
        self.until("a live status", async || self.status().await.is_some_and(|status| status.phase.is_live())).await;
        let assignment = Assignment { leaving: self.leaving().await, ..self.bound(&self.label().await, ip, port) };
        self.put(NodePart::Assignment, &assignment).await;
        assignment
    }

    async fn refuse(&self, reason: Reason) -> Assignment {
        self.until("a label", async || self.get::<Label>(NodePart::Label).await.is_some()).await;
        let answer = Answer::Waiting(Waiting { reason, message: "there is nothing".into() });
        let leaving = self.leaving().await;
        let assignment = Assignment { answer, leaving, ..self.bound(&self.label().await, "10.0.0.1", 1) };
        self.put(NodePart::Assignment, &assignment).await;
        assignment
    }

    async fn leaving(&self) -> Vec<Leaving> {
        let present = self.get::<Assignment>(NodePart::Assignment).await.map(|(assignment, _)| assignment);
        let leaving = present.and_then(|assignment| {
            let bound = assignment.bound()?.clone();
            Some(Leaving {
                generation: assignment.generation,
                terms: bound.terms,
                addresses: bound.addresses,
                ports: bound.ports,
            })
        });
        leaving.into_iter().collect()
    }

    /// Waits for something, for at most five minutes of paused time.
    async fn until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(300);
        while !condition().await {
            assert!(Instant::now() < deadline, "{what} did not come: {:?} {:?}", self.status().await, self.etcd.revision());
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_phase(&self, phase: Phase) -> Status {
        self.until(phase.as_str(), async || self.status().await.is_some_and(|status| status.phase == phase)).await;
        self.status().await.unwrap()
    }

    async fn until_registered(&self, assignment: &Assignment) {
        let generation = assignment.generation;
        self.until("the acknowledgement", async || {
            self.status().await.is_some_and(|s| s.phase == Phase::Registered && s.generation == generation)
        })
        .await;
    }

    /// How often each key was put since a revision.
    fn puts_since(&self, revision: Revision, part: NodePart) -> usize {
        let key = self.prefix.node(&self.id, part);
        let history = self.etcd.history_from(revision.next());
        history
            .values()
            .flatten()
            .filter(|event| *event.key() == key && matches!(event, crate::store::api::Event::Put(_)))
            .count()
    }
}

/// Lets time pass.
async fn pass(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

fn journal(machine: &SimMachine) -> String {
    machine.journal().join(" | ")
}

#[test]
fn the_futures_of_an_agent_are_small() {
    fn size<A, F: Future>(_: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }
    // It lives in the first one. The second one is there while it tries to join, of thousands at the same time after a pause.
    let life = size(|(site, settings, context, host, ties)| super::run_tied(site, settings, context, host, ties));
    let attempt = size(super::io::attempt);
    assert!(life <= 1_536 && attempt <= 3_072, "{life} and {attempt} bytes");
}
