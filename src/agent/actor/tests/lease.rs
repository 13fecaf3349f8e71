//! Lost leases, deleted keys, lost answers, pauses of the store.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use futures::future::BoxFuture;

use super::*;
use crate::agent::exit::Ending;
use crate::store::api::{Event, KeepAlive, LeaseId, RangeRequest, RangeResponse, StoreError, Watch, WatchMessage, WatchRequest};
use crate::store::around::Around;

#[tokio::test(start_paused = true)]
async fn a_status_or_label_that_somebody_deleted_is_written_again() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    machine.journal();
    lab.delete(NodePart::Status).await;
    lab.until_registered(&given).await;
    let label = lab.label().await;
    lab.delete(NodePart::Label).await;
    lab.until("the label", async || lab.get::<Label>(NodePart::Label).await.is_some()).await;
    assert_eq!(lab.label().await, label);
    assert_eq!(journal(&machine), "");
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_the_store_costs_neither_label_nor_child() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    machine.journal();
    let revision = lab.etcd.revision();
    agent.link.cut();
    lab.until("the end of the lease", async || lab.status().await.is_none()).await;
    pass(120).await;
    agent.link.heal();
    lab.until_registered(&given).await;
    assert_eq!((lab.puts_since(revision, NodePart::Label), journal(&machine).as_str()), (0, ""));
    assert_eq!(lab.puts_since(revision, NodePart::Status), 1, "it came back as what it is");
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_too_late_withdraws_first() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    agent.link.cut();
    lab.until("the end of the lease", async || lab.status().await.is_none()).await;
    pass(600).await;
    assert!(machine.uses().is_some(), "`keep`: it goes on");
    lab.delete(NodePart::Assignment).await;
    agent.link.heal();
    lab.until("the join", async || lab.status().await.is_some()).await;
    assert_eq!(machine.uses(), None, "it joined before it had withdrawn");
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn another_host_that_took_the_id_meanwhile_is_left_alone() {
    let lab = Lab::new();
    let (first, second) = (lab.serving_machine(), lab.machine("b", "192.0.2.80"));
    let old = lab.start(&first);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    old.link.cut();
    lab.until("the end of the lease", async || lab.status().await.is_none()).await;
    lab.delete(NodePart::Assignment).await;
    let new = lab.start(&second);
    let theirs = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&theirs).await;
    let revision = lab.etcd.revision();
    old.link.heal();
    pass(120).await;
    assert_eq!((first.uses(), lab.etcd.revision()), (None, revision));
    assert!(!old.task.is_finished(), "it keeps trying");
    // The other one leaves, and is released: the first has its id back.
    second.leave().await.unwrap();
    new.task.await.unwrap();
    for part in [NodePart::Assignment, NodePart::Label, NodePart::Status] {
        lab.delete(part).await;
    }
    let back = lab.assign("10.0.0.2", 80).await;
    lab.until_registered(&back).await;
    old.kill().await;
}

#[tokio::test(start_paused = true)]
async fn lost_answers_are_gone_on_from() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    agent.link.cut_answers();
    pass(30).await;
    agent.link.heal();
    lab.until_phase(Phase::Joining).await;
    agent.link.cut_answers();
    let given = lab.assign("10.0.0.1", 80).await;
    pass(10).await;
    agent.link.heal();
    lab.until_registered(&given).await;
    assert_eq!(journal(&machine), "child of 10.0.0.1 http=80 started");
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_at_the_start_is_waited_for() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    agent.link.cut();
    pass(600).await;
    agent.link.heal();
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_let_it_in_ends_it() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let refusing = Store::new(Arc::new(Refusing));
    let context =
        Context { identity: "test".into(), seed: 7, wall: Wall::simulated(Duration::ZERO), shutdown: CancellationToken::new() };
    let site = Site { store: refusing, prefix: Prefix::default() };
    let exit = crate::agent::run(site, lab.settings(), context, machine.process()).await;
    assert_eq!((exit.code(), exit.ending), (6, Ending::Refused(StoreError::Refused("permission denied".into()))));
}

/// A store that lets nobody in.
#[derive(Debug)]
struct Refusing;

fn no<T: Send + 'static>() -> BoxFuture<'static, Result<T, StoreError>> {
    Box::pin(std::future::ready(Err(StoreError::Refused("permission denied".into()))))
}

impl crate::store::api::Backend for Refusing {
    fn range(&self, _: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, StoreError>> {
        no()
    }
    fn txn(&self, _: Txn) -> BoxFuture<'_, Result<crate::store::api::TxnResponse, StoreError>> {
        no()
    }
    fn grant(&self, _: u64) -> BoxFuture<'_, Result<(LeaseId, u64), StoreError>> {
        no()
    }
    fn revoke(&self, _: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        no()
    }
    fn time_to_live(&self, _: LeaseId) -> BoxFuture<'_, Result<(i64, i64), StoreError>> {
        no()
    }
    fn keep_alive(&self, _: LeaseId) -> BoxFuture<'_, Result<Box<dyn crate::store::api::KeepAlive>, StoreError>> {
        no()
    }
    fn watch(&self, _: crate::store::api::WatchRequest) -> BoxFuture<'_, Result<Box<dyn crate::store::api::Watch>, StoreError>> {
        no()
    }
    fn member(&self) -> BoxFuture<'_, Result<crate::store::api::MemberInfo, StoreError>> {
        no()
    }
}

/// The grant of its lease, its watch, and the join: nothing is read.
#[tokio::test(start_paused = true)]
async fn a_first_join_reads_nothing() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    agent.link.freeze_at(2, true);
    agent.link.frozen().await;
    assert_eq!(lab.status().await.map(|status| status.phase), Some(Phase::Joining));
    assert!(lab.get::<Label>(NodePart::Label).await.is_some());
    // It is answered without another call: the watch was there before.
    let given = lab.assign("10.0.0.1", 80).await;
    agent.link.thaw();
    agent.link.freeze_at(0, false);
    agent.link.frozen().await;
    assert_eq!(lab.etcd.watchers(), 1);
    assert_eq!(machine.uses().map(|given| given.addresses), given.bound().map(|bound| bound.addresses.clone()));
    agent.link.thaw();
    lab.until_registered(&given).await;
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_first_join_that_finds_something_decides_on_it() {
    let lab = Lab::new();
    let first = lab.serving_machine();
    let agent = lab.start(&first);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    // Another installation with the same id, which the first answers.
    let second = lab.machine("b", "192.0.2.18");
    let exit = lab.start(&second).task.await.unwrap();
    assert!(matches!(exit.ending, Ending::Conflict(_)), "{:?}", exit.ending);
    assert_eq!(lab.status().await.map(|status| status.generation), Some(given.generation));
    agent.kill().await;
}

/// A fleet whose etcd was away for longer than its leases. What each writes when it comes back is its status, once.
#[tokio::test(start_paused = true)]
async fn ten_thousand_nodes_that_come_back_at_once_write_no_label_and_restart_no_child() {
    const NODES: u32 = 10_000;
    let mut lab = Lab::new();
    // The model of etcd shows each event to each watch: with one watch a node that would be all that this test does.
    lab.store = lab.etcd.store().with_shared_watch(lab.prefix.folder("nodes"), fastrand::Rng::with_seed(7));
    let mut fleet = Vec::new();
    for number in 0..NODES {
        let machine = lab.machine(&format!("m{number}"), &std::net::Ipv4Addr::from(0x0a10_0000 + number).to_string());
        machine.set_child(Some(ChildScript::default()));
        let settings =
            AgentSettings { ports: vec!["http".parse().unwrap()], ..AgentSettings::new(format!("n{number}").parse().unwrap()) };
        let agent = lab.start_with(&machine, settings);
        fleet.push((machine, agent));
    }
    let nodes = || async { lab.store.read_all(KeyRange::prefix("/enlist/nodes/"), None).await.unwrap().kvs };
    let parsed = |key: &crate::store::api::Key| match lab.prefix.parse(key) {
        crate::store::keys::ParsedKey::Node(node, part) => Some((node, part)),
        _ => None,
    };
    let count = |kvs: &[crate::store::api::KeyValue], phase: Phase| {
        let is = |kv: &&crate::store::api::KeyValue| {
            matches!(parsed(&kv.key), Some((_, NodePart::Status)))
                && Status::decode(&kv.value).is_ok_and(|status| status.phase == phase)
        };
        kvs.iter().filter(is).count()
    };
    let all = NODES as usize;
    // Not as often as `Lab::until` looks: each look reads everything.
    let until = async |what: &str, phase: Phase, number: usize| {
        let deadline = Instant::now() + Duration::from_secs(300);
        while count(&nodes().await, phase) != number {
            assert!(Instant::now() < deadline, "{what} did not come: {}", count(&nodes().await, phase));
            pass(1).await;
        }
    };
    until("all labels", Phase::Joining, all).await;
    for kv in nodes().await {
        if let Some((node, NodePart::Label)) = parsed(&kv.key) {
            let label = Label::decode(&kv.value).unwrap();
            let ip = format!("10.32.{}.{}", kv.mod_revision.0 / 250 % 250, kv.mod_revision.0 % 250);
            let op = Op::put(lab.prefix.node(&node, NodePart::Assignment), lab.bound(&label, &ip, 80).encode());
            lab.store.txn(Txn { then: vec![op], ..Txn::default() }).await.unwrap();
        }
    }
    until("all registered", Phase::Registered, all).await;
    fleet.iter().for_each(|(machine, _)| drop(machine.journal()));
    let before = lab.etcd.revision();

    fleet.iter().for_each(|(_, agent)| agent.link.cut());
    until("the end of all leases", Phase::Registered, 0).await;
    pass(120).await;
    fleet.iter().for_each(|(_, agent)| agent.link.heal());
    until("all registered again", Phase::Registered, all).await;

    let history = lab.etcd.history_from(before.next());
    let mut puts = std::collections::BTreeMap::new();
    for event in history.values().flatten() {
        if let (crate::store::api::Event::Put(_), Some((_, part))) = (event, parsed(event.key())) {
            *puts.entry(part).or_insert(0) += 1;
        }
    }
    assert_eq!(puts, [(NodePart::Status, all)].into(), "each came back as what it is, by one write");
    assert!(fleet.iter().all(|(machine, _)| journal(machine).is_empty()), "a child was disturbed");
    for (_, agent) in fleet {
        agent.kill().await;
    }
}

/// Counts reads of whole sub-trees and grants.
#[derive(Debug)]
pub(super) struct Counting {
    inner: Store,
    reads: AtomicUsize,
    grants: AtomicUsize,
}

impl Counting {
    /// In front of a lab's store, for whatever starts later.
    pub(super) fn the(lab: &mut Lab) -> Arc<Counting> {
        let counting = Arc::new(Counting { inner: lab.store.clone(), reads: 0.into(), grants: 0.into() });
        lab.store = Store::new(counting.clone());
        counting
    }

    pub(super) fn counts(&self) -> (usize, usize) {
        let get = |count: &AtomicUsize| count.load(Relaxed);
        (get(&self.reads), get(&self.grants))
    }
}

impl Around for Counting {
    fn inner(&self) -> &Store {
        &self.inner
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, StoreError>> {
        self.reads.fetch_add(usize::from(request.range.end.is_some()), Relaxed);
        Box::pin(self.inner.range(request))
    }

    fn grant(&self, ttl_s: u64) -> BoxFuture<'_, Result<(LeaseId, u64), StoreError>> {
        self.grants.fetch_add(1, Relaxed);
        Box::pin(self.inner.grant(ttl_s))
    }
}

async fn revoke(lab: &Lab) {
    let (_, status) = lab.store.get(lab.prefix.node(&lab.id, NodePart::Status)).await.unwrap();
    lab.store.revoke(status.unwrap().lease).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_costs_a_grant_and_a_transaction() {
    let mut lab = Lab::new();
    let counting = Counting::the(&mut lab);
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    let (counts, revision) = (counting.counts(), lab.etcd.revision());
    revoke(&lab).await;
    lab.until("the end of the status", async || lab.status().await.is_none()).await;
    lab.until_registered(&given).await;
    assert_eq!(counting.counts(), (counts.0, counts.1 + 1), "what is seen need not be read");
    assert_eq!((lab.puts_since(revision, NodePart::Status), lab.puts_since(revision, NodePart::Label)), (1, 0));
    agent.kill().await;
}

/// A store whose watches and keep-alives fall silent.
#[derive(Debug)]
struct Silent {
    inner: Store,
    is_silent: Arc<AtomicBool>,
}

struct SilentWatch {
    inner: Box<dyn Watch>,
    is_silent: Arc<AtomicBool>,
}

struct SilentBeats {
    inner: Box<dyn KeepAlive>,
    is_silent: Arc<AtomicBool>,
}

impl Around for Silent {
    fn inner(&self) -> &Store {
        &self.inner
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Box<dyn Watch>, StoreError>> {
        Box::pin(async move {
            let (inner, is_silent) = (self.inner.watch(request).await?, self.is_silent.clone());
            Ok(Box::new(SilentWatch { inner, is_silent }) as Box<dyn Watch>)
        })
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Box<dyn KeepAlive>, StoreError>> {
        Box::pin(async move {
            let (inner, is_silent) = (self.inner.keep_alive(lease).await?, self.is_silent.clone());
            Ok(Box::new(SilentBeats { inner, is_silent }) as Box<dyn KeepAlive>)
        })
    }
}

impl KeepAlive for SilentBeats {
    fn beat(&mut self) -> BoxFuture<'_, Result<i64, StoreError>> {
        if self.is_silent.load(Relaxed) { Box::pin(std::future::pending()) } else { self.inner.beat() }
    }
}

impl Watch for SilentWatch {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<WatchMessage, StoreError>>> {
        Box::pin(async {
            loop {
                let message = self.inner.next().await;
                if !self.is_silent.load(Relaxed) {
                    return message;
                }
            }
        })
    }

    fn request_progress(&mut self) -> BoxFuture<'_, ()> {
        self.inner.request_progress()
    }
}

/// The process stood still for longer than its lease. What was on that went with it, and nobody needs to tell.
#[tokio::test(start_paused = true)]
async fn a_process_that_overslept_its_lease_comes_back_without_being_told() {
    let mut lab = Lab::new();
    let counting = Counting::the(&mut lab);
    let is_silent = Arc::new(AtomicBool::new(false));
    lab.store = Store::new(Arc::new(Silent { inner: lab.store.clone(), is_silent: is_silent.clone() }));
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    machine.journal();
    let (counts, revision) = (counting.counts(), lab.etcd.revision());
    is_silent.store(true, Relaxed);
    tokio::time::advance(Duration::from_secs(60)).await;
    let woken = Instant::now();
    lab.until("the end of the lease", async || lab.etcd.revision() > revision).await;
    lab.until_registered(&given).await;
    assert!(woken.elapsed() < Duration::from_millis(500), "{:?}", woken.elapsed());
    assert_eq!(counting.counts(), (counts.0, counts.1 + 1), "a grant, and nothing is read");
    assert_eq!((lab.puts_since(revision, NodePart::Status), lab.puts_since(revision, NodePart::Label)), (1, 0));
    assert_eq!(journal(&machine), "");
    agent.kill().await;
}

/// … but the store has the lease still (it stood still as well, or had an election): then the status moves to the new one, and the end
/// of the old one takes nothing along.
#[tokio::test(start_paused = true)]
async fn a_lease_that_outlived_the_pause_of_its_process_is_left_to_its_end() {
    let mut lab = Lab::new();
    let counting = Counting::the(&mut lab);
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    machine.journal();
    let lease = async || lab.store.get(lab.prefix.node(&lab.id, NodePart::Status)).await.unwrap().1.unwrap().lease;
    let (counts, revision, before) = (counting.counts(), lab.etcd.revision(), lease().await);
    lab.etcd.set_leaderless(true);
    tokio::time::advance(Duration::from_secs(60)).await;
    lab.until("another lease", async || lease().await != before).await;
    lab.etcd.set_leaderless(false);
    pass(120).await;
    assert_eq!(lab.store.time_to_live(before).await.unwrap().0, -1, "nobody beats for it");
    assert_eq!(counting.counts(), (counts.0 + 1, counts.1 + 1), "it looks what stands there");
    assert_eq!((lab.puts_since(revision, NodePart::Status), lab.puts_since(revision, NodePart::Label)), (1, 0));
    assert_eq!((lab.etcd.revision(), journal(&machine).as_str()), (revision.next(), ""));
    assert_eq!(lab.status().await.unwrap().phase, Phase::Registered);
    agent.kill().await;
}

/// One that ends before it is back has its last word all the same, also where the lease lives on that it gave up.
#[tokio::test(start_paused = true)]
async fn a_lease_that_was_given_up_and_lives_on_keeps_no_last_word_back() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    lab.etcd.set_leaderless(true);
    agent.link.cut();
    tokio::time::advance(Duration::from_secs(60)).await;
    pass(60).await;
    assert_eq!(lab.status().await.unwrap().phase, Phase::Registered, "this is what the test is about");
    agent.link.heal();
    agent.stop().await;
    assert_eq!(lab.status().await.unwrap().phase, Phase::Stopped);
}

/// The store is restored to a moment before the answer, and gives another one at the same revision. What the agent saw is of that
/// revision, and is not what stands there.
#[tokio::test(start_paused = true)]
async fn an_answer_of_the_same_revision_in_a_restored_store_is_not_taken_for_the_one_that_was_seen() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    lab.until("a live status", async || lab.status().await.is_some()).await;
    let backup = lab.etcd.snapshot();
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    let (_, at) = lab.get::<Assignment>(NodePart::Assignment).await.unwrap();
    let last = lab.etcd.revision();
    agent.link.cut();
    lab.etcd.restore(backup);
    let other = Assignment { generation: given.generation, ..lab.bound(&lab.label().await, "10.0.0.2", 80) };
    lab.put(NodePart::Assignment, &other).await;
    assert_eq!(lab.get::<Assignment>(NodePart::Assignment).await.unwrap().1, at, "this is what the test is about");
    lab.until("the end of the lease", async || lab.status().await.is_none()).await;
    // Beyond all that the agent knows, so that no revision tells it that the store went back.
    while lab.etcd.revision() <= last {
        let op = Op::put("/enlist/elsewhere", "x");
        lab.store.txn(Txn { then: vec![op], ..Txn::default() }).await.unwrap();
    }
    let revision = lab.etcd.revision();
    agent.link.heal();
    lab.until("the join", async || lab.status().await.is_some()).await;
    let history = lab.etcd.history_from(revision.next());
    let key = lab.prefix.node(&lab.id, NodePart::Status);
    let first = history.values().flatten().find_map(|event| match event {
        Event::Put(kv) if kv.key == key => Some(Status::decode(&kv.value).unwrap()),
        _ => None,
    });
    let first = first.unwrap();
    assert_ne!((first.phase, first.generation), (Phase::Registered, given.generation), "it uses something else");
    agent.kill().await;
}
