//! The faults themselves: each kind occurs and has its documented effect.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
use tokio::time::{Instant, sleep};

use super::*;
use crate::model::names::Revision;
use crate::store::api::{Compare, KeyRange, Op, StoreError, Txn, WatchMessage, WatchRequest};
use crate::store::memory::MemoryEtcd;

fn put(key: &str) -> Txn {
    Txn { then: vec![Op::put(key, "x")], ..Txn::default() }
}

/// Runs the same work under the same faults; returns the results at the store and at the client.
async fn run(seed: u64) -> (FaultCounts, String) {
    let etcd = MemoryEtcd::new();
    let plan = FaultPlan {
        delay_max: Duration::from_millis(30),
        unreachable: 0.1,
        answer_lost: 0.1,
        late: 0.1,
        duplicate: 0.1,
        watch_broken: 0.1,
        watch_stalled: 0.0,
        watch_delay_max: Duration::from_millis(40),
        ..FaultPlan::default()
    };
    let faults = Faults::new(seed, plan);
    let (a, b) = (faults.client(etcd.store()).store(), faults.client(etcd.store()).store());
    let reader = tokio::spawn(async move {
        let mut trace = String::new();
        let mut from = Revision(1);
        while trace.len() < 4_000 {
            let request = WatchRequest { range: KeyRange::prefix("k/"), start: from.next(), beside: false };
            let Ok(mut watch) = b.watch(request).await else { continue };
            while let Some(Ok(message)) = watch.next().await {
                if let WatchMessage::Events { events, .. } = &message {
                    from = events.last().unwrap().revision();
                }
                trace += &format!("{message:?}");
            }
        }
        trace
    });
    let mut trace = String::new();
    for index in 0..200 {
        trace += &format!("{:?}", a.txn(put(&format!("k/{}", index % 7))).await);
    }
    trace += &reader.await.unwrap();
    (faults.counts(), trace)
}

#[tokio::test(start_paused = true)]
async fn same_seed_injects_the_same_faults_of_every_kind() {
    let (counts, trace) = run(5).await;
    assert_eq!((counts, trace), run(5).await);
    assert_ne!(counts, run(6).await.0);
    let all = [counts.delayed, counts.unreachable, counts.answers_lost, counts.late, counts.duplicates, counts.watches_broken];
    assert!(all.iter().all(|count| *count > 0), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn lost_answer_is_written_and_unreachable_request_is_not() {
    let etcd = MemoryEtcd::new();
    let faults = Faults::new(1, FaultPlan { answer_lost: 1.0, ..FaultPlan::default() });
    let store = faults.client(etcd.store()).store();
    assert_eq!(store.txn(put("a")).await, Err(StoreError::Timeout { milliseconds: 5_000 }));
    assert_eq!(etcd.revision(), Revision(2));
    faults.set_plan(FaultPlan { unreachable: 1.0, ..FaultPlan::default() });
    assert!(matches!(store.txn(put("b")).await, Err(StoreError::Unreachable { .. })));
    assert_eq!(etcd.revision(), Revision(2));
    faults.set_plan(FaultPlan { late: 1.0, ..FaultPlan::default() });
    assert!(matches!(store.txn(put("c")).await, Err(StoreError::Timeout { .. })));
    assert_eq!((etcd.revision(), faults.under_way()), (Revision(2), 1));
    sleep(Duration::from_secs(11)).await;
    assert_eq!((etcd.revision(), faults.under_way()), (Revision(3), 0));
}

#[tokio::test(start_paused = true)]
async fn cut_off_client_is_silent_until_its_watch_breaks() {
    let etcd = MemoryEtcd::new();
    let faults = Faults::new(1, FaultPlan::default());
    let client = faults.client(etcd.store());
    let store = client.store();
    let request = WatchRequest { range: KeyRange::prefix("k/"), start: Revision(2), beside: false };
    let mut watch = store.watch(request.clone()).await.unwrap();
    assert!(matches!(watch.next().await, Some(Ok(WatchMessage::Created(_)))));
    client.cut();
    assert!(matches!(store.txn(put("k/1")).await, Err(StoreError::Timeout { .. })));
    assert_eq!(etcd.revision(), Revision(1));
    etcd.store().txn(put("k/2")).await.unwrap();
    let heard = tokio::time::timeout(Duration::from_secs(5), watch.next()).await;
    assert!(heard.is_err(), "{heard:?}");
    client.heal();
    assert!(matches!(watch.next().await, Some(Ok(WatchMessage::Events { .. }))), "the delayed events arrive");
    client.cut();
    let before = Instant::now();
    assert!(matches!(watch.next().await, Some(Err(StoreError::Broken(_)))));
    assert_eq!(before.elapsed(), Duration::from_secs(13));
    assert!(watch.next().await.is_none());
    client.cut_answers();
    assert!(matches!(store.txn(put("k/3")).await, Err(StoreError::Timeout { .. })));
    assert_eq!(etcd.revision(), Revision(3));
    assert!(faults.counts().cut_off >= 2);
}

#[tokio::test(start_paused = true)]
async fn frozen_client_sends_its_call_or_gets_its_answer_when_thawed() {
    for done in [false, true] {
        let etcd = MemoryEtcd::new();
        let faults = Faults::new(1, FaultPlan::default());
        let client = faults.client(etcd.store());
        client.freeze_at(1, done);
        client.store().txn(put("a")).await.unwrap();
        assert!(!client.is_frozen());
        let store = client.store();
        let mut second = tokio::spawn(async move { store.txn(put("b")).await });
        client.frozen().await;
        let written = if done { Revision(3) } else { Revision(2) };
        assert!(tokio::time::timeout(Duration::from_secs(60), &mut second).await.is_err());
        assert_eq!((etcd.revision(), faults.counts().frozen), (written, 1));
        client.thaw();
        second.await.unwrap().unwrap();
        client.thawed().await;
        assert_eq!(etcd.revision(), Revision(3));
    }
}

#[tokio::test(start_paused = true)]
async fn conflict_fails_a_compare_and_early_watch_repeats_events() {
    let etcd = MemoryEtcd::new();
    let faults = Faults::new(1, FaultPlan { conflict: 1.0, watch_repeated: 1.0, ..FaultPlan::default() });
    let store = faults.client(etcd.store()).store();
    for _ in 0..8 {
        store.txn(put("k")).await.unwrap();
    }
    assert_eq!(faults.counts().conflicts, 0, "no transaction compared a key");
    let compared = Txn { compares: vec![Compare::Modified("k".into(), Revision(9))], ..put("k") };
    let nested = Txn { then: vec![Op::Txn(compared)], ..Txn::default() };
    let answer = store.txn(nested).await.unwrap();
    assert!(matches!(&answer.results[..], [crate::store::api::OpResult::Txn(inner)] if !inner.succeeded));
    assert_eq!((etcd.revision(), faults.counts().conflicts), (Revision(10), 1));
    let mut watch = store.watch(WatchRequest { range: KeyRange::prefix("k"), start: Revision(10), beside: false }).await.unwrap();
    assert!(matches!(watch.next().await, Some(Ok(WatchMessage::Created(_)))));
    let Some(Ok(WatchMessage::Events { events, .. })) = watch.next().await else { panic!("events") };
    assert_eq!(events[0].revision(), Revision(5));
    assert_eq!(faults.counts().watches_repeated, 1);
}

#[tokio::test(start_paused = true)]
async fn snare_delays_one_specific_write_and_no_other() {
    let etcd = MemoryEtcd::new();
    let faults = Faults::new(1, FaultPlan::default());
    let store = faults.client(etcd.store()).store();
    let late = Duration::from_secs(7);
    faults.set_snare(Snare { key: "n/a".to_owned(), put: Some("x".to_owned()), late });
    faults.set_snare(Snare { key: "n/a".to_owned(), put: None, late });
    store.txn(Txn { then: vec![Op::put("n/a", "y"), Op::put("n/b", "x")], ..Txn::default() }).await.unwrap();
    store.txn(Txn { then: vec![Op::Txn(put("n/ab"))], ..Txn::default() }).await.unwrap();
    assert_eq!((etcd.revision(), faults.snares_set()), (Revision(3), 2));
    let nested = Txn { then: vec![Op::Txn(put("n/a"))], ..Txn::default() };
    assert!(matches!(store.txn(nested.clone()).await, Err(StoreError::Timeout { .. })));
    let deleted = Txn { then: vec![Op::delete("n/a")], ..Txn::default() };
    assert!(matches!(store.txn(deleted).await, Err(StoreError::Timeout { .. })));
    assert_eq!((faults.snares_set(), faults.counts().snared), (0, 2));
    sleep(late).await;
    // The first transaction arrived long ago.
    assert_eq!((etcd.revision(), store.get("n/a").await.unwrap().1), (Revision(5), None));
    store.txn(nested).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn client_with_only_keep_alives_keeps_just_its_lease() {
    let etcd = MemoryEtcd::new();
    let faults = Faults::new(1, FaultPlan::default());
    let client = faults.client(etcd.store());
    let (lease, _) = client.store().grant(5).await.unwrap();
    let mut beats = client.store().keep_alive(lease).await.unwrap();
    client.cut_all_but_beats();
    for _ in 0..5 {
        sleep(Duration::from_secs(4)).await;
        assert_eq!(beats.beat().await, Ok(5));
    }
    assert!(matches!(client.store().txn(put("a")).await, Err(StoreError::Timeout { .. })));
    assert_eq!(etcd.revision(), Revision(1));
    client.heal();
    client.store().txn(put("a")).await.unwrap();
}
