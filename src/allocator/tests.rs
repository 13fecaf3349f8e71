//! The allocator on the model of etcd: label in, assignment and claims out; leaders come and go.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::model::assignment::Assignment;
use crate::model::documents::{Document, to_stored};
use crate::model::label::{Label, Want};
use crate::model::lineage::Verdict;
use crate::model::names::{NodeId, PoolName, Revision};
use crate::model::pool::Pool;
use crate::model::status::{Phase, Status};
use crate::plan::check::check;
use crate::reconcile::Wall;
use crate::reconcile::testing::Refusing;
use crate::store::api::{KeyRange, LeaseId, Op, Store, StoreError, Txn, TxnResponse};
use crate::store::around::Around;
use crate::store::keys::{NodePart, Prefix};
use crate::store::memory::MemoryEtcd;
use crate::store::wire::Stored;

struct Bench {
    etcd: MemoryEtcd,
    store: Store,
    prefix: Prefix,
}

fn context(name: &str, shutdown: &CancellationToken) -> Context {
    Context { identity: name.into(), seed: 7, wall: Wall::simulated(Duration::ZERO), shutdown: shutdown.clone() }
}

impl Bench {
    async fn new(cidr: &str) -> Self {
        Self::over(MemoryEtcd::new(), cidr).await
    }

    async fn over(etcd: MemoryEtcd, cidr: &str) -> Self {
        let bench = Bench { store: etcd.store(), etcd, prefix: Prefix::default() };
        let mut pool = Pool::named("eu".parse::<PoolName>().unwrap(), "default".parse().unwrap());
        pool.cidrs = vec![cidr.parse().unwrap()];
        pool.hold = Duration::from_secs(60);
        pool.cooldown = Duration::from_secs(30);
        let key = bench.prefix.pool(&pool.name);
        bench.write(vec![Op::put(key, to_stored(&Document::Pool(pool)))]).await;
        bench
    }

    fn site(&self) -> Site {
        Site { store: self.store.clone(), prefix: self.prefix.clone() }
    }

    fn start(&self, name: &str) -> (CancellationToken, tokio::task::JoinHandle<Result<()>>) {
        let shutdown = CancellationToken::new();
        let run = run(self.site(), AllocatorSettings::default(), context(name, &shutdown));
        (shutdown, tokio::spawn(run))
    }

    async fn write(&self, then: Vec<Op>) {
        self.store.txn(Txn { then, ..Txn::default() }).await.unwrap();
    }

    /// What an agent writes when it joins.
    async fn join(&self, id: &str) -> LeaseId {
        self.join_for(id, &["main".into()]).await
    }

    async fn join_for(&self, id: &str, ports: &[String]) -> LeaseId {
        let node: NodeId = id.parse().unwrap();
        let (lease, _) = self.store.grant(1_000_000).await.unwrap();
        let label = Label {
            id: node.clone(),
            instance: "i".parse().unwrap(),
            boot: "b".parse().unwrap(),
            run: "r".parse().unwrap(),
            temporary: "127.0.0.1:4".parse().unwrap(),
            variables: Default::default(),
            description: String::new(),
            since: String::new(),
            ports: ports.iter().map(|port| port.parse().unwrap()).collect(),
            want: Want::default(),
            holding: None,
            ephemeral: false,
            annotations: BTreeMap::new(),
        };
        let status = Status {
            instance: label.instance.clone(),
            boot: label.boot.clone(),
            run: label.run.clone(),
            phase: Phase::Joining,
            generation: Revision::NONE,
            message: String::new(),
            refused: vec![],
        };
        self.write(vec![
            Op::put(self.prefix.node(&node, NodePart::Label), label.encode()),
            Op::Put { key: self.prefix.node(&node, NodePart::Status), value: status.encode(), lease },
        ])
        .await;
        lease
    }

    async fn snapshot(&self) -> crate::plan::snapshot::Snapshot {
        let all = self.store.read_all(KeyRange::prefix("/enlist/"), None).await.unwrap();
        View::of(self.prefix.clone(), all.header.revision, &all.kvs)
    }

    /// Waits until the snapshot satisfies a condition; checks it for every invariant then.
    async fn until(&self, what: &str, done: impl Fn(&crate::plan::snapshot::Snapshot) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(3600);
        loop {
            let snapshot = self.snapshot().await;
            assert_eq!(check(&snapshot), vec![], "{what}");
            if done(&snapshot) {
                return;
            }
            assert!(Instant::now() < deadline, "never: {what}: {snapshot:#?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

use tokio::time::Instant;

fn bound(snapshot: &crate::plan::snapshot::Snapshot, id: &str) -> Option<Assignment> {
    let record = snapshot.nodes.get(&id.parse::<NodeId>().unwrap())?;
    record.assignment.as_ref()?.ok().filter(|a| a.bound().is_some()).cloned()
}

#[tokio::test(start_paused = true)]
async fn a_label_gets_an_address_and_a_port_and_a_dead_node_loses_them_after_hold_and_cooling() {
    let bench = Bench::new("10.0.0.0/24").await;
    let (shutdown, task) = bench.start("a");
    let lease = bench.join("edge-1").await;
    bench.until("assigned", |s| bound(s, "edge-1").is_some() && s.claims.len() == 2).await;
    bench.store.revoke(lease).await.unwrap();
    bench.until("cooling", |s| bound(s, "edge-1").is_none() && s.claims.len() == 1).await;
    bench.until("free", |s| s.claims.is_empty()).await;
    shutdown.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_standby_takes_over_and_gives_no_address_twice() {
    let bench = Bench::new("10.0.0.0/25").await;
    let first = bench.start("a");
    let second = bench.start("b");
    for i in 0..60 {
        bench.join(&format!("n{i}")).await;
    }
    bench.until("60 assigned", |s| (0..60).all(|i| bound(s, &format!("n{i}")).is_some())).await;
    first.1.abort();
    for i in 60..126 {
        bench.join(&format!("n{i}")).await;
    }
    bench.until("all assigned", |s| (0..126).all(|i| bound(s, &format!("n{i}")).is_some())).await;
    bench.join("late").await;
    bench
        .until("the last waits", |s| {
            let record = s.nodes.get(&"late".parse::<NodeId>().unwrap());
            record.is_some_and(|record| record.assignment.as_ref().is_some_and(|a| a.ok().is_some_and(|a| a.bound().is_none())))
        })
        .await;
    // At every revision, not only at the end.
    for revision in 1..=bench.etcd.revision().0 {
        let kvs: Vec<_> = bench.etcd.at_revision(Revision(revision)).into_values().collect();
        assert_eq!(check(&View::of(bench.prefix.clone(), Revision(revision), &kvs)), vec![]);
    }
    second.0.cancel();
    second.1.await.unwrap().unwrap();
}

/// What the stored lineage says of the mark that a node's answer carried.
async fn verdict(bench: &Bench, assignment: &Assignment) -> Verdict {
    let snapshot = bench.snapshot().await;
    snapshot.lineage.unwrap().value.unwrap().knows(assignment.mark.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_leader_notices_a_restore_with_raised_revisions() {
    let bench = Bench::new("10.0.0.0/24").await;
    let (shutdown, task) = bench.start("a");
    for i in 0..5 {
        bench.join(&format!("n{i}")).await;
    }
    bench.until("5 assigned", |s| (0..5).all(|i| bound(s, &format!("n{i}")).is_some())).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let backup = bench.etcd.snapshot();
    bench.join("b").await;
    bench.until("b assigned", |s| bound(s, "b").is_some()).await;
    let before = bench.snapshot().await;
    let (old, lost) = (bound(&before, "n0").unwrap(), bound(&before, "b").unwrap());
    assert_eq!((verdict(&bench, &old).await, verdict(&bench, &lost).await), (Verdict::Known, Verdict::Known));

    bench.etcd.restore_raised(backup, 1_000);
    bench.join("newcomer").await;
    // The address of b is nobody's here: it must not be given before b can reclaim it.
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(bound(&bench.snapshot().await, "newcomer"), None);
    bench.until("the newcomer is served in the end", |s| bound(s, "newcomer").is_some()).await;
    assert_eq!((verdict(&bench, &old).await, verdict(&bench, &lost).await), (Verdict::Known, Verdict::Lost));
    shutdown.cancel();
    task.await.unwrap().unwrap();
}

/// A store as with the grants of an older enlist.
#[derive(Debug)]
struct NoLineage(Store);

impl Around for NoLineage {
    fn inner(&self) -> &Store {
        &self.0
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, std::result::Result<TxnResponse, StoreError>> {
        let counts = txn.then.iter().any(|op| matches!(op, Op::Put { key, .. } if *key == "/enlist/lineage".into()));
        match counts {
            true => std::future::ready(Err(StoreError::Refused("permission denied".into()))).boxed(),
            false => self.0.txn(txn).boxed(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_allocator_that_may_not_count_assigns_without_marks() {
    let mut bench = Bench::new("10.0.0.0/24").await;
    bench.store = Store::new(std::sync::Arc::new(NoLineage(bench.store.clone())));
    let (shutdown, task) = bench.start("a");
    bench.join("alone").await;
    bench.until("one assigned", |s| bound(s, "alone").is_some()).await;
    for i in 0..5 {
        bench.join(&format!("n{i}")).await;
    }
    bench.until("5 assigned", |s| (0..5).all(|i| bound(s, &format!("n{i}")).is_some())).await;
    let snapshot = bench.snapshot().await;
    assert_eq!((bound(&snapshot, "alone").unwrap().mark, snapshot.lineage), (None, None));
    shutdown.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_view_is_not_complete_waits_for_it() {
    let bench = Bench::new("10.0.0.0/24").await;
    bench.join("edge-1").await;
    // The election works, the listing does not: every read of the wide ranges is answered only after the first tick.
    let faults = crate::store::memory::faults::Faults::new(3, Default::default());
    let (slow, plain) = (faults.client(bench.store.clone()), bench.site());
    slow.cut();
    let shutdown = CancellationToken::new();
    let context = context("a", &shutdown);
    let leadership =
        crate::reconcile::election::campaign(&plain, Role::Allocator, Duration::from_secs(10), &context).await.unwrap();
    let mut feed = open_feed(&Site { store: slow.store(), prefix: plain.prefix.clone() }, &context);
    let mut view = View::new(plain.prefix.clone());
    let mut carried = lead::Carried::new(&plain, &AllocatorSettings::default(), &context);
    let leader = lead::Leader::new(&plain, &context, &leadership, Duration::from_secs(1));
    let led = tokio::time::timeout(Duration::from_secs(60), leader.run(&mut feed, &mut view, &mut carried));
    // Without a wait inside, the time-out would never be looked at.
    assert!(led.await.is_err());
    assert!(!view.is_complete());
}

fn kv(key: &str, value: &[u8], revision: i64) -> crate::store::api::KeyValue {
    let revision = Revision(revision);
    crate::store::api::KeyValue {
        key: key.into(),
        value: value.to_vec().into(),
        create_revision: revision,
        mod_revision: revision,
        version: 1,
        lease: LeaseId::NONE,
    }
}

#[test]
fn a_key_under_an_address_that_is_no_port_is_in_the_picture_until_it_goes() {
    use crate::store::api::Event;
    use crate::store::feed::Update;
    let mut view = View::new(Prefix::default());
    let keys = ["/enlist/claims/default/10.0.0.1/x", "/enlist/claims/default/10.0.0.1/080", "/enlist/claims/x"];
    view.apply(Update::Events { revision: Revision(2), events: keys.iter().map(|key| Event::Put(kv(key, b"", 2))).collect() });
    let strays = |view: &View| view.snapshot().strays.iter().map(|(key, ip)| format!("{key} {ip}")).collect::<Vec<_>>();
    let both = ["claims/default/10.0.0.1/080 default/10.0.0.1", "claims/default/10.0.0.1/x default/10.0.0.1"];
    assert_eq!(strays(&view), both);
    let gone = Event::Delete { key: keys[0].into(), mod_revision: Revision(3) };
    view.apply(Update::Events { revision: Revision(3), events: vec![gone] });
    assert_eq!(strays(&view), both[..1]);
}

#[tokio::test(start_paused = true)]
async fn a_label_that_breaks_a_rule_waits_with_that_reason() {
    let bench = Bench::new("10.0.0.0/24").await;
    let (shutdown, task) = bench.start("a");
    bench.join("good").await;
    bench.join_for("bad", &(0..17).map(|n| format!("p{n}")).collect::<Vec<_>>()).await;
    bench
        .until("told why it waits", |s| {
            use crate::model::assignment::{Answer, Reason};
            let bad = s.nodes.get(&"bad".parse::<NodeId>().unwrap());
            let assignment = bad.and_then(|record| record.assignment.as_ref()?.ok());
            matches!(assignment.map(|a| &a.answer), Some(Answer::Waiting(w)) if w.reason == Reason::LabelInvalid && w.message.contains("at most 16"))
        })
        .await;
    shutdown.cancel();
    task.await.unwrap().unwrap();
}

/// Deletes the key of whoever leads: he is deposed, campaigns again and leads no more until it is his turn.
async fn depose(bench: &Bench) {
    let leaders = bench.store.read_all(bench.prefix.leaders(Role::Allocator), None).await.unwrap().kvs;
    if let Some(oldest) = leaders.iter().min_by_key(|kv| kv.create_revision) {
        bench.write(vec![Op::delete(oldest.key.clone())]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_brake_releases_no_faster_when_leaders_change_every_few_seconds() {
    let bench = Bench::new("10.0.0.0/24").await;
    let allocators = [bench.start("a"), bench.start("b")];
    let mut leases = Vec::new();
    for n in 0..20 {
        leases.push(bench.join(&format!("n{n}")).await);
    }
    bench.until("assigned", |s| (0..20).all(|n| bound(s, &format!("n{n}")).is_some())).await;
    for lease in leases.drain(..10) {
        bench.store.revoke(lease).await.unwrap();
    }
    let holds = |s: &crate::plan::snapshot::Snapshot, extended| {
        s.nodes.values().filter(|r| r.hold.as_deref().and_then(|h| h.ok()).is_some_and(|h| h.extended == extended)).count()
    };
    bench.until("all are extended", |s| holds(s, true) == 10).await;
    tokio::time::sleep(Duration::from_secs(3590)).await;
    let mut released = vec![0; 8];
    while released.last().is_none_or(|count| *count < 10) {
        assert!(released.len() < 100, "the brake does not end: {released:?}");
        depose(&bench).await;
        tokio::time::sleep(Duration::from_secs(8)).await;
        let snapshot = bench.snapshot().await;
        released.push((0..20).filter(|n| bound(&snapshot, &format!("n{n}")).is_none()).count());
    }
    // 15 % of 20 in any minute, until it is over and the rest goes at once.
    let too_fast = released.windows(8).filter(|minute| minute[7] <= 7).any(|minute| minute[7] - minute[0] > 3);
    assert!(!too_fast, "{released:?}");
    for (shutdown, task) in allocators {
        shutdown.cancel();
        task.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn one_node_whose_writes_are_always_refused_keeps_nobody_waiting_and_no_report_back() {
    let options = crate::store::memory::MemoryOptions { request_bytes_max: 2_500, ..Default::default() };
    let bench = Bench::over(MemoryEtcd::with_options(options), "10.0.0.0/24").await;
    let (shutdown, task) = bench.start("a");
    bench.join_for("large", &(0..16).map(|n| format!("p{n}")).collect::<Vec<_>>()).await;
    for n in 0..5 {
        bench.join(&format!("n{n}")).await;
        let asked = Instant::now();
        bench.until("assigned", |s| bound(s, &format!("n{n}")).is_some()).await;
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let kvs = bench.store.read_all(KeyRange::one(bench.prefix.role(Role::Allocator)), None).await.unwrap().kvs;
        let report = kvs.first().and_then(|kv| crate::store::wire::RoleReport::decode(&kv.value).ok());
        if report.is_some_and(|report| report.counters.get("refused").is_some_and(|count| *count > 0)) {
            break;
        }
        assert!(Instant::now() < deadline, "the report does not tell of the refused writes");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    shutdown.cancel();
    task.await.unwrap().unwrap();
}

/// Behaviour 75.
#[tokio::test(start_paused = true)]
async fn refused_leader_gives_up_and_an_admitted_standby_serves() {
    for idle in [true, false] {
        let bench = Bench::new("10.0.0.0/24").await;
        let gate = Refusing::new(&bench.store);
        let refused = Bench { store: gate.store(), etcd: bench.etcd.clone(), prefix: bench.prefix.clone() };
        let leads = |name: &'static str| {
            let (store, key) = (bench.store.clone(), bench.prefix.role(Role::Allocator));
            async move {
                let read = || async { store.get(key.clone()).await.unwrap().1 };
                let is_his = |kv: crate::store::api::KeyValue| {
                    crate::store::wire::RoleReport::decode(&kv.value).is_ok_and(|report| report.identity == name)
                };
                while !read().await.is_some_and(is_his) {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        };
        let first = refused.start("first");
        tokio::time::timeout(Duration::from_secs(30), leads("first")).await.unwrap();
        let second = bench.start("second");
        tokio::time::sleep(Duration::from_secs(5)).await;
        gate.refuse(true);
        if !idle {
            bench.join("a").await;
        }
        // An idle leader asks once a minute; a TTL until it gives up, another until its key is gone.
        let limit = Duration::from_secs(if idle { 90 } else { 40 });
        tokio::time::timeout(limit, leads("second")).await.unwrap();
        if !idle {
            bench.until("the standby serves", |s| bound(s, "a").is_some()).await;
        }
        // Let in again, the first one stands by: it disturbs nobody.
        gate.refuse(false);
        bench.join("b").await;
        bench.until("served", |s| bound(s, "b").is_some()).await;
        for (shutdown, task) in [first, second] {
            shutdown.cancel();
            task.await.unwrap().unwrap();
        }
    }
}
