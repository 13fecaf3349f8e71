//! Batched writes on the model of etcd: a caller gets the same answer as for a transaction sent alone.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
use std::time::Duration;

use futures::future::join_all;

use super::*;
use crate::model::names::Revision;
use crate::store::api::{Compare, KeyRange, KeyValue, LeaseId, Op, OpResult, RangeRequest};
use crate::store::memory::MemoryEtcd;
use crate::store::memory::faults::{FaultPlan, Faults};

/// A first status; the answer shows a key that exists already.
fn join(n: usize, lease: LeaseId) -> Txn {
    let key = format!("/n/{n}/status");
    Txn {
        compares: vec![Compare::Modified(key.as_str().into(), Revision::NONE)],
        then: vec![Op::Put { key: key.as_str().into(), value: "mine".into(), lease }, Op::delete(format!("/n/{n}/hold"))],
        otherwise: vec![Op::Get(RangeRequest { limit: 1, ..RangeRequest::all(KeyRange::prefix(format!("/n/{n}/"))) })],
    }
}

/// The keys read.
fn found(response: &TxnResponse) -> Vec<&KeyValue> {
    let ranges =
        response.results.iter().filter_map(|result| if let OpResult::Range(range) = result { Some(range) } else { None });
    ranges.flat_map(|range| &range.kvs).collect()
}

/// A store that takes a second or two for each request.
fn slow(etcd: &MemoryEtcd) -> Store {
    let faults = Faults::new(1, FaultPlan { delay_max: Duration::from_secs(1), ..FaultPlan::default() });
    faults.client(etcd.store()).store().with_batched_writes()
}

#[tokio::test(start_paused = true)]
async fn many_writes_take_few_requests_with_their_own_answers() {
    let etcd = MemoryEtcd::new();
    etcd.store()
        .txn(Txn { then: vec![Op::put("/n/41/label", "somebody's"), Op::put("/n/41/status", "x")], ..Txn::default() })
        .await
        .unwrap();
    let before = etcd.revision();
    let store = slow(&etcd);
    let answers = join_all((0..500).map(|n| store.txn(join(n, LeaseId::NONE)))).await;
    for (n, answer) in answers.iter().enumerate() {
        let answer = answer.as_ref().unwrap();
        assert_eq!(answer.succeeded, n != 41, "{n}");
        if n == 41 {
            // The transaction reads one of the two keys.
            assert_eq!(found(answer).iter().map(|kv| &kv.value[..]).collect::<Vec<_>>(), [b"somebody's"]);
        } else {
            assert_eq!(answer.results, [OpResult::Put, OpResult::Deleted(0)]);
            let (_, written) = store.get(format!("/n/{n}/status")).await.unwrap();
            assert_eq!(written.unwrap().mod_revision, answer.header.revision);
        }
    }
    let requests = etcd.revision().0 - before.0;
    // Four transactions went at once, and the others in batches of 64.
    assert!(requests <= 4 + 8, "500 took {requests} requests");
}

#[tokio::test(start_paused = true)]
async fn single_write_is_sent_at_once_unchanged() {
    let etcd = MemoryEtcd::new();
    let alone = etcd.store().txn(join(1, LeaseId::NONE)).await.unwrap();
    let batched = etcd.store().with_batched_writes().txn(join(2, LeaseId::NONE)).await.unwrap();
    assert_eq!(batched.results, alone.results);
    assert_eq!(batched.header.revision, alone.header.revision.next());
}

#[tokio::test(start_paused = true)]
async fn other_transactions_are_forwarded() {
    let etcd = MemoryEtcd::new();
    let store = etcd.store().with_batched_writes();
    let nested = Op::Txn(Txn { then: vec![Op::put("/a", "1")], ..Txn::default() });
    let response = store.txn(Txn { then: vec![nested, Op::get("/a")], ..Txn::default() }).await.unwrap();
    assert!(matches!(response.results[..], [OpResult::Txn(_), OpResult::Range(_)]), "{response:?}");
}

#[tokio::test(start_paused = true)]
async fn write_on_a_lost_lease_fails_alone() {
    let etcd = MemoryEtcd::new();
    let store = etcd.store().with_batched_writes();
    let lease = |n| if n == 33 { LeaseId(99) } else { LeaseId::NONE };
    let answers = join_all((0..100).map(|n| store.txn(join(n, lease(n))))).await;
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.map(|answer| answer.succeeded), if n == 33 { Err(StoreError::NoLease) } else { Ok(true) }, "{n}");
    }
}

#[tokio::test(start_paused = true)]
async fn abandoned_write_is_not_sent() {
    let etcd = MemoryEtcd::new();
    let store = slow(&etcd);
    // Four are under way, two wait behind them, and the caller of one of those two gives up.
    let stays = join_all((0..5).map(|n| store.txn(join(n, LeaseId::NONE))));
    let goes = tokio::time::timeout(Duration::from_millis(1), store.txn(join(8, LeaseId::NONE)));
    let (answers, gone) = futures::join!(stays, goes);
    assert!(gone.is_err() && answers.into_iter().all(|answer| answer.unwrap().succeeded));
    // Every unit handed over before this one has been sent.
    store.txn(join(9, LeaseId::NONE)).await.unwrap();
    let stands = async |n: usize| etcd.store().get(format!("/n/{n}/status")).await.unwrap().1.is_some();
    assert!(!stands(8).await && stands(4).await && stands(9).await);
}

#[tokio::test(start_paused = true)]
async fn lost_answer_reaches_the_whole_batch_without_a_retry() {
    let etcd = MemoryEtcd::new();
    let faults = Faults::new(1, FaultPlan::default());
    let client = faults.client(etcd.store());
    let store = client.store().with_batched_writes();
    client.cut_answers();
    let before = etcd.revision();
    let answers = join_all((0..100).map(|n| store.txn(join(n, LeaseId::NONE)))).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_err_and(StoreError::is_unknown_outcome)), "{answers:?}");
    let requests = etcd.revision().0 - before.0;
    assert!((1..=6).contains(&requests), "{requests}");
    client.heal();
    let again = store.txn(join(7, LeaseId::NONE)).await.unwrap();
    assert!(!again.succeeded);
}
