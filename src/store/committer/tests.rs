//! The committer on the model of etcd: batches, lost units, a deposed leader, servers with lower limits.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use crate::store::api::{Compare, KeyRange, Op, RangeRequest, Txn};
use crate::store::memory::MemoryEtcd;

async fn fenced(store: &Store) -> Fence {
    let response = store.txn(Txn { then: vec![Op::put("/leader", "me")], ..Txn::default() }).await.unwrap();
    Fence { key: "/leader".into(), created: response.header.revision }
}

fn put_if_absent(key: &str) -> Unit {
    Unit {
        compares: vec![Compare::Modified(key.into(), Revision::NONE)],
        writes: vec![Op::put(key, "v")],
        reads: vec![RangeRequest::all(KeyRange::one(key))],
    }
}

#[tokio::test(start_paused = true)]
async fn lost_unit_in_a_batch_of_100_disturbs_no_other() {
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
async fn deposed_leader_writes_nothing_alone_or_in_a_batch() {
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
async fn unknown_lease_fails_its_unit_alone() {
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
async fn oversized_unit_is_rejected_and_the_others_pass() {
    let etcd = MemoryEtcd::new();
    let store = etcd.store();
    let fence = fenced(&store).await;
    let mut units: Vec<_> = (0..5).map(|i| put_if_absent(&format!("/k/{i}"))).collect();
    units[0].writes = vec![Op::put("/k/0", vec![b'x'; 2_000_000])];
    let outcomes = Committer::new(store, fence).commit(units).await;
    assert_eq!(outcomes[0], Outcome::Refused(StoreError::TooLarge));
    assert!(outcomes[1..].iter().all(|outcome| matches!(outcome, Outcome::Committed(_))), "{outcomes:?}");
}

/// Counts the requests of a commit of this many units by its revisions: each request writes.
async fn requests(etcd: &MemoryEtcd, committer: &Committer, from: usize, units: usize) -> i64 {
    let before = etcd.revision();
    let outcomes = committer.commit((from..from + units).map(|i| put_if_absent(&format!("/k/{i}"))).collect()).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Committed(_))), "{outcomes:?}");
    etcd.revision().0 - before.0
}

async fn small_server(max_txn_ops: usize) -> (MemoryEtcd, Store, Fence) {
    let options = crate::store::memory::MemoryOptions { max_txn_ops, ..Default::default() };
    let etcd = MemoryEtcd::with_options(options);
    let store = etcd.store();
    let fence = fenced(&store).await;
    (etcd, store, fence)
}

#[tokio::test(start_paused = true)]
async fn lower_limit_of_a_server_is_found_once_and_kept() {
    // 16 operations a level leave room for 8 units beside their own compare and put, with a power of two of them in a
    // batch.
    let (etcd, store, fence) = small_server(16).await;
    let committer = Committer::new(store.clone(), fence);
    assert_eq!(requests(&etcd, &committer, 0, 64).await, 8);
    // The count of rejections shows whether larger batches are still tried: here it stays, so every batch is a whole
    // one.
    let refused = etcd.refused();
    assert_eq!(requests(&etcd, &committer, 100, 64).await, 8);
    assert_eq!(etcd.refused(), refused);
}

#[tokio::test(start_paused = true)]
async fn server_without_nesting_gets_flat_fenced_transactions() {
    let (etcd, store, fence) = small_server(2).await;
    let committer = Committer::new(store.clone(), fence);
    assert_eq!(requests(&etcd, &committer, 0, 10).await, 10);
    store.txn(Txn { then: vec![Op::delete("/leader")], ..Txn::default() }).await.unwrap();
    let outcomes = committer.commit((20..25).map(|i| put_if_absent(&format!("/k/{i}"))).collect()).await;
    assert_eq!(outcomes, vec![Outcome::Deposed; 5]);
}

#[tokio::test(start_paused = true)]
async fn bad_unit_does_not_shrink_later_batches() {
    let etcd = MemoryEtcd::new();
    let store = etcd.store();
    let committer = Committer::new(store.clone(), fenced(&store).await);
    for bad in [vec![Op::put("/big", vec![b'x'; 2_000_000])], vec![Op::put("/twice", "1"), Op::put("/twice", "2")]] {
        let mut units: Vec<_> = (0..40).map(|i| put_if_absent(&format!("/bad/{}/{i}", bad.len()))).collect();
        units[7].writes = bad;
        let outcomes = committer.commit(units).await;
        // An error in unknown words counts as an unknown outcome.
        assert!(matches!(outcomes[7], Outcome::Refused(_) | Outcome::Unknown(_)), "{:?}", outcomes[7]);
        assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Committed(_))).count(), 39);
    }
    assert_eq!(requests(&etcd, &committer, 0, 64).await, 1);
}

#[tokio::test(start_paused = true)]
async fn lost_answer_is_unknown_and_not_retried() {
    use crate::store::memory::faults::{FaultPlan, Faults};
    let etcd = MemoryEtcd::new();
    let fence = fenced(&etcd.store()).await;
    let faults = Faults::new(1, FaultPlan::default());
    let client = faults.client(etcd.store());
    let committer = Committer::new(client.store(), fence);
    client.cut_answers();
    let before = etcd.revision();
    let outcomes = committer.commit(vec![put_if_absent("/a"), put_if_absent("/b")]).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Unknown(_))), "{outcomes:?}");
    assert_eq!(etcd.revision().0, before.0 + 1);
    client.heal();
    assert!(matches!(committer.commit(vec![put_if_absent("/a")]).await[..], [Outcome::Lost(_)]));
}
