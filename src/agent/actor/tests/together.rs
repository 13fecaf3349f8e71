//! Agents of one process that share leases, a watch and requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures::FutureExt;
use futures::future::BoxFuture;

use super::lease::Counting;
use super::*;
use crate::agent::SharedAgents;
use crate::store::api::{Event, LeaseId, StoreError, TxnResponse};
use crate::store::around::Around;

/// Longer than a lease lives without a beat.
const OVER_S: u64 = 40;

/// A node whose agent shares with others.
struct Member {
    lab: Lab,
    machine: SimMachine,
    given: Assignment,
    running: Running,
}

impl Member {
    async fn lease(&self) -> LeaseId {
        let (_, status) = self.lab.store.get(self.lab.prefix.node(&self.lab.id, NodePart::Status)).await.unwrap();
        status.unwrap().lease
    }

    /// Whether its status was gone at any time since.
    fn was_silent_since(&self, revision: Revision) -> bool {
        let key = self.lab.prefix.node(&self.lab.id, NodePart::Status);
        let history = self.lab.etcd.history_from(revision.next());
        history.values().flatten().any(|event| *event.key() == key && matches!(event, Event::Delete { .. }))
    }
}

impl Lab {
    /// Another node's, on the same etcd and network.
    fn beside(&self, id: &str) -> Lab {
        let (etcd, store, net) = (self.etcd.clone(), self.store.clone(), self.net.clone());
        Lab { etcd, store, net, id: id.parse().unwrap(), ..Lab::new() }
    }
}

fn context(seed: u8) -> (Context, CancellationToken) {
    let shutdown = CancellationToken::new();
    let (seed, wall) = (seed.into(), Wall::simulated(Duration::ZERO));
    (Context { identity: "test".into(), seed, wall, shutdown: shutdown.clone() }, shutdown)
}

/// So many, registered on one lease, and what they share.
async fn shared(count: u8) -> (SharedAgents, Vec<Member>) {
    shared_as(Lab::new(), count, ChildScript::default(), |settings| settings).await
}

/// The same, in this lab, with such children and settings.
async fn shared_as(
    home: Lab,
    count: u8,
    child: ChildScript,
    set: impl Fn(AgentSettings) -> AgentSettings,
) -> (SharedAgents, Vec<Member>) {
    let link = Faults::new(7, FaultPlan::default()).client(home.store.clone());
    let site = Site { store: link.store(), prefix: home.prefix.clone() };
    let together = SharedAgents::with_rng(site, fastrand::Rng::with_seed(7));
    let mut members = Vec::new();
    for n in 0..count {
        let lab = home.beside(&format!("n{n}"));
        let machine = lab.machine(&format!("m{n}"), &format!("192.0.2.{n}"));
        machine.set_child(Some(child.clone()));
        let (context, shutdown) = context(n);
        let task = tokio::spawn(together.run(set(lab.settings()), context, machine.process()));
        let given = lab.assign(&format!("10.0.0.{n}"), 80).await;
        lab.until_registered(&given).await;
        machine.journal();
        members.push(Member { lab, machine, given, running: Running { task, shutdown, link: link.clone() } });
    }
    let lease = members[0].lease().await;
    for member in &members {
        assert_eq!(member.lease().await, lease);
    }
    (together, members)
}

async fn members(count: u8) -> Vec<Member> {
    shared(count).await.1
}

#[tokio::test(start_paused = true)]
async fn who_stops_leaves_the_lease_to_the_others() {
    let mut members = members(3).await;
    let (lease, before) = (members[0].lease().await, members[0].lab.etcd.revision());
    let stopped = members.remove(0);
    let _ = stopped.running.stop().await;
    pass(OVER_S).await;
    assert_eq!(stopped.lab.status().await.map(|status| status.phase), Some(Phase::Stopped));
    for member in &members {
        assert_eq!(member.lease().await, lease);
        assert_eq!(member.lab.puts_since(before, NodePart::Status), 0);
        assert!(!member.was_silent_since(before));
    }
    // The last ones end it: no lease is left over.
    for member in members {
        let _ = member.running.stop().await;
    }
    assert_eq!(stopped.lab.store.time_to_live(lease).await.unwrap().0, -1);
}

#[tokio::test(start_paused = true)]
async fn who_is_killed_is_silent_in_time_and_the_others_stay_registered() {
    let mut members = members(4).await;
    let (lease, before) = (members[0].lease().await, members[0].lab.etcd.revision());
    let killed = members.remove(0);
    killed.running.kill().await;
    pass(OVER_S).await;
    assert!(killed.lab.status().await.is_none(), "{:?}", killed.lab.status().await);
    let other = members[0].lease().await;
    assert_ne!(other, lease);
    for member in &members {
        assert_eq!(member.lease().await, other);
        assert!(!member.was_silent_since(before), "{} was silent", member.lab.id);
        member.lab.until_registered(&member.given).await;
        assert_eq!(member.lab.puts_since(before, NodePart::Label), 0);
        assert_eq!(journal(&member.machine), "", "a child was disturbed");
    }
    for member in members {
        member.running.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_told_that_a_lease_is_left_to_its_end_reads_nothing() {
    let mut home = Lab::new();
    let counting = Counting::the(&mut home);
    let (_, mut members) = shared_as(home, 3, ChildScript::default(), |settings| settings).await;
    let (lease, reads) = (members[0].lease().await, counting.counts().0);
    members.remove(0).running.kill().await;
    pass(1).await;
    assert_eq!(counting.counts().0, reads, "what is seen need not be read");
    for member in members {
        assert_ne!(member.lease().await, lease);
        member.running.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_drains_for_long_is_not_silent_when_the_lease_is_taken_along() {
    let child = ChildScript { stops_after: Duration::from_secs(100), ..ChildScript::default() };
    let patient = |settings| AgentSettings { stop_timeout: Duration::from_secs(120), ..settings };
    let (_, mut members) = shared_as(Lab::new(), 3, child, patient).await;
    let (lease, before) = (members[0].lease().await, members[0].lab.etcd.revision());
    let (draining, killed) = (members.remove(0), members.remove(0));
    draining.running.shutdown.cancel();
    draining.lab.until_phase(Phase::Draining).await;
    killed.running.kill().await;
    pass(OVER_S).await;
    assert!(killed.lab.status().await.is_none());
    let other = members[0].lease().await;
    assert_ne!(other, lease);
    assert_eq!((draining.lab.status().await.unwrap().phase, draining.lease().await), (Phase::Draining, other));
    assert!(!draining.was_silent_since(before) && !members[0].was_silent_since(before));
    let last = members[0].lab.etcd.revision();
    // It leaves that lease to the others too.
    assert_eq!(draining.running.task.await.unwrap().ending, crate::agent::Ending::Stopped);
    pass(OVER_S).await;
    assert_eq!(draining.lab.status().await.unwrap().phase, Phase::Stopped);
    assert_eq!((members[0].lease().await, members[0].lab.puts_since(last, NodePart::Status)), (other, 0));
    members.remove(0).running.kill().await;
}

#[tokio::test(start_paused = true)]
async fn whose_id_another_run_took_over_leaves_the_lease_to_the_others() {
    let named = |settings: AgentSettings| {
        let instance = format!("container-{}", settings.id).parse().unwrap();
        AgentSettings { instance: Some(instance), ..settings }
    };
    let (_, mut members) = shared_as(Lab::new(), 3, ChildScript::default(), named).await;
    let (lease, before) = (members[0].lease().await, members[0].lab.etcd.revision());
    let old = members.remove(0);
    let machine = old.lab.machine("b", "192.0.2.80");
    let new = old.lab.start_with(&machine, AgentSettings { replace: true, ..named(old.lab.settings()) });
    let exit = old.running.task.await.unwrap();
    assert!(matches!(exit.ending, crate::agent::Ending::Superseded(_)), "{:?}", exit.ending);
    pass(OVER_S).await;
    assert!(old.lab.status().await.is_some(), "the new run is not silent");
    for member in &members {
        assert_eq!((member.lease().await, member.lab.puts_since(before, NodePart::Status)), (lease, 0));
    }
    new.kill().await;
    for member in members {
        member.running.kill().await;
    }
}

/// A store that does not answer the next few transactions, whether they are carried out or not.
#[derive(Debug)]
struct Mute {
    inner: Store,
    unanswered: AtomicUsize,
    carries_out: bool,
}

impl Mute {
    /// In front of a lab's store, for whatever starts later.
    fn the(lab: &mut Lab, carries_out: bool) -> Arc<Mute> {
        let mute = Arc::new(Mute { inner: lab.store.clone(), unanswered: 0.into(), carries_out });
        lab.store = Store::new(mute.clone());
        mute
    }
}

impl Around for Mute {
    fn inner(&self) -> &Store {
        &self.inner
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, StoreError>> {
        async move {
            if self.unanswered.fetch_update(Relaxed, Relaxed, |count| count.checked_sub(1)).is_err() {
                return self.inner.txn(txn).await;
            }
            if self.carries_out {
                let _ = self.inner.txn(txn).await;
            }
            Err(StoreError::Timeout { milliseconds: 1 })
        }
        .boxed()
    }
}

async fn drains_without_an_answer(carries_out: bool) {
    let child = ChildScript { stops_after: Duration::from_secs(100), ..ChildScript::default() };
    let patient = |settings| AgentSettings { stop_timeout: Duration::from_secs(120), ..settings };
    let mut home = Lab::new();
    let mute = Mute::the(&mut home, carries_out);
    let (_, mut members) = shared_as(home, 3, child, patient).await;
    let before = members[0].lab.etcd.revision();
    let (draining, killed) = (members.remove(0), members.remove(0));
    draining.running.shutdown.cancel();
    draining.lab.until_phase(Phase::Draining).await;
    // One of the other, one of its own, and one more of each.
    mute.unanswered.store(4, Relaxed);
    killed.running.kill().await;
    pass(OVER_S).await;
    assert_eq!(mute.unanswered.load(Relaxed), 0);
    assert!(killed.lab.status().await.is_none());
    assert_eq!(draining.lease().await, members[0].lease().await);
    assert!(!draining.was_silent_since(before) && !members[0].was_silent_since(before));
    assert_eq!(draining.running.task.await.unwrap().ending, crate::agent::Ending::Stopped);
    assert_eq!(draining.lab.status().await.unwrap().phase, Phase::Stopped);
    members.remove(0).running.kill().await;
}

#[tokio::test(start_paused = true)]
async fn who_drains_moves_although_an_answer_is_lost() {
    drains_without_an_answer(true).await;
}

#[tokio::test(start_paused = true)]
async fn who_drains_tries_again_to_move() {
    drains_without_an_answer(false).await;
}

/// It never was told that it had joined.
#[tokio::test(start_paused = true)]
async fn who_stops_before_it_hears_that_it_joined_is_not_kept_by_the_others() {
    let mut home = Lab::new();
    let mute = Mute::the(&mut home, true);
    let (together, members) = shared_as(home, 2, ChildScript::default(), |settings| settings).await;
    let first = &members[0];
    let lab = first.lab.beside("unheard");
    let (lease, before) = (first.lease().await, lab.etcd.revision());
    let (context, shutdown) = context(98);
    mute.unanswered.store(1, Relaxed);
    let task = tokio::spawn(together.run(lab.settings(), context, lab.machine("u", "192.0.2.98").process()));
    lab.until("its status", async || lab.status().await.is_some()).await;
    let (_, status) = lab.store.get(lab.prefix.node(&lab.id, NodePart::Status)).await.unwrap();
    assert_eq!((status.unwrap().lease, mute.unanswered.load(Relaxed)), (lease, 0));
    shutdown.cancel();
    task.await.unwrap();
    assert_eq!(lab.status().await.unwrap().phase, Phase::Stopped);
    pass(OVER_S).await;
    for member in &members {
        // What was not answered may arrive late, and would stand on that lease.
        assert_ne!(member.lease().await, lease);
        assert!(!member.was_silent_since(before));
    }
    for member in members {
        member.running.kill().await;
    }
}

/// Whoever put that label is not there: what stands is this run's status.
#[tokio::test(start_paused = true)]
async fn who_is_superseded_by_a_label_alone_is_not_kept_by_the_others() {
    let mut members = members(3).await;
    let before = members[0].lab.etcd.revision();
    let old = members.remove(0);
    let label = Label { run: "another".parse().unwrap(), ..old.lab.label().await };
    old.lab.put(NodePart::Label, &label).await;
    let exit = old.running.task.await.unwrap();
    assert!(matches!(exit.ending, crate::agent::Ending::Superseded(_)), "{:?}", exit.ending);
    pass(OVER_S).await;
    assert!(old.lab.status().await.is_none(), "{:?}", old.lab.status().await);
    for member in members {
        assert!(!member.was_silent_since(before));
        member.running.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_lost_is_one_grant_for_all_and_each_comes_back_as_what_it_is() {
    let members = members(5).await;
    let (lease, before) = (members[0].lease().await, members[0].lab.etcd.revision());
    members[0].lab.store.revoke(lease).await.unwrap();
    for member in &members {
        member.lab.until("a status", async || member.lab.status().await.is_some()).await;
        member.lab.until_registered(&member.given).await;
    }
    let again = members[0].lease().await;
    for member in &members {
        assert_eq!(member.lease().await, again);
        assert_eq!((member.lab.puts_since(before, NodePart::Status), member.lab.puts_since(before, NodePart::Label)), (1, 0));
        assert_eq!(journal(&member.machine), "", "a child was disturbed");
    }
    for member in members {
        member.running.kill().await;
    }
}

/// Its address would never be free again, and whoever starts with its id on another host would wait for it.
#[tokio::test(start_paused = true)]
async fn who_stopped_is_not_live_again_in_a_store_that_is_restored() {
    let mut members = members(3).await;
    let etcd = members[0].lab.etcd.clone();
    let backup = etcd.snapshot();
    let stopped = members.remove(0);
    let _ = stopped.running.stop().await;
    pass(1).await;
    etcd.restore(backup);
    assert_eq!(stopped.lab.status().await.map(|status| status.phase), Some(Phase::Registered), "the backup says so");
    // An agent finds within six minutes that its store is another one, if nothing tells it sooner.
    pass(400).await;
    assert!(stopped.lab.status().await.is_none(), "{:?}", stopped.lab.status().await);
    for member in &members {
        member.lab.until_registered(&member.given).await;
        assert_eq!(journal(&member.machine), "", "a child was disturbed");
    }
    for member in members {
        member.running.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_that_is_held_elsewhere_is_refused_and_disturbs_nobody() {
    let (together, members) = shared(2).await;
    let first = &members[0];
    let lab = first.lab.beside("held");
    let elsewhere = lab.start(&lab.machine("elsewhere", "192.0.2.99"));
    lab.until("its status", async || lab.status().await.is_some()).await;
    let (lease, before) = (first.lease().await, lab.etcd.revision());

    let machine = lab.machine("here", "192.0.2.98");
    let (context, _shutdown) = context(98);
    let exit = together.run(lab.settings(), context, machine.process()).await;
    assert!(matches!(exit.ending, crate::agent::Ending::Conflict(_)), "{:?}", exit.ending);
    pass(OVER_S).await;
    for member in &members {
        assert_eq!(member.lease().await, lease);
        assert_eq!(member.lab.puts_since(before, NodePart::Status), 0);
    }
    elsewhere.kill().await;
    for member in members {
        member.running.kill().await;
    }
}
