//! The committer on the model of etcd: batches, lost units, a deposed leader, servers that take less.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use crate::store::memory::MemoryEtcd;

async fn fenced(store: &Store) -> Fence {
    let response = store.txn(Txn { then: vec![Op::put("/leader", "me")], ..Txn::default() }).await.unwrap();
    Fence { key: "/leader".into(), created: response.header.revision }
}

fn put_if_absent(key: &str) -> Unit {
    Unit {
        compares: vec![Compare::Modified(key.into(), Revision::NONE)],
        writes: vec![Op::put(key, "v")],
        reads: vec![KeyRange::one(key)],
    }
}

#[tokio::test(start_paused = true)]
async fn one_lost_unit_in_a_batch_of_100_disturbs_no_other() {
    let etcd = MemoryEtcd::new();
    let store = etcd.store();
    let fence = fenced(&store).await;
    store.txn(Txn { then: vec![Op::put("/k/41", "somebody")], ..Txn::default() }).await.unwrap();
    let before = etcd.revision();
    let committer = Committer::new(store.clone(), fence);
    let outcomes = committer.commit((0..100).map(|i| put_if_absent(&format!("/k/{i}"))).collect()).await;
    for (i, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Outcome::Committed(_) => assert_ne!(i, 41),
            Outcome::Lost(kvs) => assert!(i == 41 && kvs[0].value == "somebody"),
            other => panic!("{i}: {other:?}"),
        }
    }
    assert!(etcd.revision().0 - before.0 <= 3, "100 units took {} requests", etcd.revision().0 - before.0);
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_writes_nothing_alone_or_in_a_batch() {
    let etcd = MemoryEtcd::new();
    let store = etcd.store();
    let fence = fenced(&store).await;
    store.txn(Txn { then: vec![Op::delete("/leader")], ..Txn::default() }).await.unwrap();
    store.txn(Txn { then: vec![Op::put("/leader", "another")], ..Txn::default() }).await.unwrap();
    let before = etcd.revision();
    let committer = Committer::new(store, fence);
    assert_eq!(committer.commit(vec![put_if_absent("/a")]).await, [Outcome::Deposed]);
    let both = committer.commit(vec![put_if_absent("/a"), put_if_absent("/b")]).await;
    assert_eq!(both, [Outcome::Deposed, Outcome::Deposed]);
    assert_eq!(etcd.revision(), before);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_lease_fails_its_unit_alone() {
    let etcd = MemoryEtcd::new();
    let store = etcd.store();
    let fence = fenced(&store).await;
    let mut units: Vec<_> = (0..10).map(|i| put_if_absent(&format!("/k/{i}"))).collect();
    units[3].writes = vec![Op::Put { key: "/k/3".into(), value: "v".into(), lease: crate::store::api::LeaseId(99) }];
    let outcomes = Committer::new(store, fence).commit(units).await;
    for (i, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Outcome::Committed(_) => assert_ne!(i, 3),
            Outcome::Refused(StoreError::NoLease) => assert_eq!(i, 3),
            other => panic!("{i}: {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_unit_larger_than_a_request_is_refused_and_the_others_pass() {
    let etcd = MemoryEtcd::new();
    let store = etcd.store();
    let fence = fenced(&store).await;
    let mut units: Vec<_> = (0..5).map(|i| put_if_absent(&format!("/k/{i}"))).collect();
    units[0].writes = vec![Op::put("/k/0", vec![b'x'; 2_000_000])];
    let outcomes = Committer::new(store, fence).commit(units).await;
    assert_eq!(outcomes[0], Outcome::Refused(StoreError::TooLarge));
    assert!(outcomes[1..].iter().all(|outcome| matches!(outcome, Outcome::Committed(_))), "{outcomes:?}");
}
