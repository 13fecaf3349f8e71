//! The allocator on the model of etcd: label in, assignment and claims out; leaders come and go.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::model::assignment::Assignment;
use crate::model::documents::{Document, to_stored};
use crate::model::label::{Label, Want};
use crate::model::names::{NodeId, PoolName, Revision};
use crate::model::pool::Pool;
use crate::model::status::{Phase, Status};
use crate::plan::check::check;
use crate::reconcile::Wall;
use crate::store::api::{KeyRange, LeaseId, Op, Store, Txn};
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
        let etcd = MemoryEtcd::new();
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
            ports: vec!["main".parse().unwrap()],
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
    let leadership = election::campaign(&plain, Role::Allocator, Duration::from_secs(10), &context).await.unwrap();
    let mut feed = Feed::open(slow.store(), scope(&plain), FeedSettings::default(), context.rng("feed"));
    let mut view = View::new(plain.prefix.clone());
    let mut quiet = lead::Quiet::new(&AllocatorSettings::default());
    let leader = lead::Leader::new(&plain, &context, &leadership, Duration::from_secs(1));
    let led = tokio::time::timeout(Duration::from_secs(60), leader.run(&mut feed, &mut view, &mut quiet));
    // Without a wait inside, the time-out would never be looked at.
    assert!(led.await.is_err());
    assert!(!view.is_complete());
}
