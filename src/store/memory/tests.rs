//! The model's additions to etcd: knobs and views for simulations. The conformance suite shows that the model behaves
//! like etcd.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use tokio::time::{Duration, Instant, sleep, timeout};

use super::*;
use crate::store::api::{KeyRange, LeaseId, Op, RangeRequest, Txn, Watch, WatchMessage, WatchRequest};

fn put(key: &str, value: &str, lease: LeaseId) -> Txn {
    Txn { then: vec![Op::Put { key: key.into(), value: value.to_owned().into(), lease }], ..Txn::default() }
}

async fn write(etcd: &MemoryEtcd, key: &str, times: usize) {
    for index in 0..times {
        etcd.store().txn(put(key, &index.to_string(), LeaseId::NONE)).await.unwrap();
    }
}

async fn watch(etcd: &MemoryEtcd, prefix: &str, start: i64) -> Box<dyn Watch> {
    let request = WatchRequest { range: KeyRange::prefix(prefix), start: Revision(start), beside: false };
    let mut watch = etcd.store().watch(request).await.unwrap();
    assert!(matches!(watch.next().await, Some(Ok(WatchMessage::Created(_)))));
    watch
}

async fn next(watch: &mut Box<dyn Watch>) -> WatchMessage {
    watch.next().await.unwrap().unwrap()
}

async fn silent(watch: &mut Box<dyn Watch>) -> bool {
    timeout(Duration::from_secs(3_600), watch.next()).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn catch_up_comes_in_fragments_with_a_header_ahead() {
    let options = MemoryOptions { catch_up_revisions: 4, fragment_bytes: 150, ..MemoryOptions::default() };
    let etcd = MemoryEtcd::with_options(options);
    write(&etcd, "a/x", 10).await;
    let mut watch = watch(&etcd, "a/", 2).await;
    let mut shape = Vec::new();
    let mut last = Revision(1);
    while last < Revision(11) {
        let WatchMessage::Events { header, events, fragment } = next(&mut watch).await else { panic!("events") };
        assert_eq!((header.revision, events[0].revision()), (Revision(11), last.next()));
        last = events.last().unwrap().revision();
        shape.push((events.len(), fragment));
    }
    assert_eq!(shape, [(2, true), (2, false), (2, true), (2, false), (2, false)]);
    assert!(silent(&mut watch).await);
}

#[tokio::test(start_paused = true)]
async fn compaction_cancels_only_watchers_that_lag() {
    let etcd = MemoryEtcd::new();
    write(&etcd, "a/x", 3).await;
    let (mut lags, mut quiet) = (watch(&etcd, "a/", 2).await, watch(&etcd, "b/", 2).await);
    let mut read_up = watch(&etcd, "a/", 2).await;
    next(&mut read_up).await;
    write(&etcd, "c/x", 3).await;
    etcd.compact(Revision(6)).unwrap();
    assert_eq!(etcd.compact(Revision(6)), Err(StoreError::Compacted(Revision::NONE)));
    assert_eq!(etcd.compact(Revision(60)), Err(StoreError::Future));
    assert!(matches!(next(&mut lags).await, WatchMessage::Canceled { compacted: Revision(6), .. }));
    assert!(silent(&mut lags).await && silent(&mut quiet).await && silent(&mut read_up).await);
    write(&etcd, "a/x", 1).await;
    write(&etcd, "b/x", 1).await;
    assert!(silent(&mut lags).await);
    for watch in [&mut quiet, &mut read_up] {
        assert!(matches!(next(watch).await, WatchMessage::Events { .. }));
    }
    // Checkers still see every revision.
    assert_eq!(etcd.history().len(), 8);
    assert_eq!(etcd.history_from(Revision(8)).len(), 2);
    assert_eq!(etcd.at_revision(Revision(3))[&"a/x".into()].version, 2);
}

#[tokio::test(start_paused = true)]
async fn progress_is_a_barrier_or_a_lie() {
    for (progress, lies) in [(ProgressKind::Barrier, false), (ProgressKind::Lie, true)] {
        let etcd = MemoryEtcd::with_options(MemoryOptions { progress, ..MemoryOptions::default() });
        write(&etcd, "a/x", 3).await;
        let mut watch = watch(&etcd, "a/", 2).await;
        watch.request_progress().await;
        let first = next(&mut watch).await;
        assert_eq!(matches!(first, WatchMessage::Progress(header) if header.revision == Revision(4)), lies, "{first:?}");
        if lies {
            assert!(matches!(next(&mut watch).await, WatchMessage::Events { .. }), "the missing events come after the lie");
        }
        watch.request_progress().await;
        assert!(matches!(next(&mut watch).await, WatchMessage::Progress(_)));
        assert!(silent(&mut watch).await);
    }
}

#[tokio::test(start_paused = true)]
async fn restore_lowers_the_revision_and_renews_leases() {
    let etcd = MemoryEtcd::new();
    let store = etcd.store();
    let (lease, _) = store.grant(10).await.unwrap();
    store.txn(put("leased", "", lease)).await.unwrap();
    let backup = etcd.snapshot();
    sleep(Duration::from_secs(11)).await;
    assert_eq!(store.time_to_live(lease).await.unwrap(), (-1, 0));
    let mut watch = watch(&etcd, "a/", 2).await;
    let before = store.member().await.unwrap().header;
    etcd.restore(backup);
    assert!(watch.next().await.unwrap().is_err());
    assert!(watch.next().await.is_none());
    let after = store.member().await.unwrap().header;
    assert!(after.revision < before.revision && after.cluster_id == before.cluster_id);
    assert_eq!(store.time_to_live(lease).await.unwrap(), (10, 10));
    assert!(store.get("leased").await.unwrap().1.is_some());
    etcd.empty();
    let emptied = store.member().await.unwrap().header;
    assert!(emptied.revision == Revision(1) && emptied.cluster_id != after.cluster_id);
    assert_eq!(store.keep_alive(lease).await.unwrap().beat().await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn a_restore_with_raised_revisions_keeps_keys_and_no_past() {
    let etcd = MemoryEtcd::new();
    let store = etcd.store();
    store.txn(put("a", "1", LeaseId::NONE)).await.unwrap();
    let backup = etcd.snapshot();
    let (written, _) = store.get("a").await.unwrap();
    store.txn(put("b", "2", LeaseId::NONE)).await.unwrap();
    etcd.restore_raised(backup, 1_000);
    let (header, kv) = store.get("a").await.unwrap();
    assert_eq!(header.revision, Revision(written.revision.0 + 1_000));
    assert_eq!(kv.unwrap().mod_revision, written.revision);
    assert!(store.get("b").await.unwrap().1.is_none());
    let as_of = RangeRequest { revision: Some(written.revision), ..RangeRequest::all(KeyRange::one("a")) };
    assert!(matches!(store.range(as_of).await, Err(StoreError::Compacted(_))));
    assert!(matches!(etcd.compact(written.revision), Err(StoreError::Compacted(_))));
}

#[tokio::test(start_paused = true)]
async fn leases_end_in_order_and_elections_extend_them() {
    let etcd = MemoryEtcd::new();
    let store = etcd.store();
    let mut watch = watch(&etcd, "k/", 2).await;
    let began = Instant::now();
    let (long, _) = store.grant(9).await.unwrap();
    let (short, ttl) = store.grant(1).await.unwrap();
    assert_eq!(ttl, 2, "raised to the smallest TTL");
    store.txn(put("k/long", "", long)).await.unwrap();
    store.txn(put("k/short", "", short)).await.unwrap();
    next(&mut watch).await;
    sleep(Duration::from_secs(1)).await;
    etcd.elect();
    let WatchMessage::Events { events, .. } = next(&mut watch).await else { panic!("events") };
    assert_eq!((events.len(), events[0].key().as_str(), began.elapsed()), (1, Some("k/short"), Duration::from_secs(3)));
    let WatchMessage::Events { events, .. } = next(&mut watch).await else { panic!("events") };
    assert_eq!((events.len(), events[0].key().as_str(), began.elapsed()), (1, Some("k/long"), Duration::from_secs(10)));
}

#[tokio::test(start_paused = true)]
async fn full_store_accepts_only_deletes() {
    let etcd = MemoryEtcd::new();
    let store = etcd.store();
    write(&etcd, "a", 1).await;
    etcd.set_full(true);
    assert_eq!(store.txn(put("a", "", LeaseId::NONE)).await, Err(StoreError::NoSpace));
    assert_eq!(store.grant(10).await, Err(StoreError::NoSpace));
    store.txn(Txn { then: vec![Op::delete("a")], ..Txn::default() }).await.unwrap();
    etcd.set_full(false);
    write(&etcd, "a", 1).await;
    let mut watch = watch(&etcd, "a", 2).await;
    next(&mut watch).await;
    etcd.break_watches();
    assert!(watch.next().await.unwrap().is_err());
    drop(watch);
    assert_eq!(etcd.watchers(), 0);
}

#[tokio::test(start_paused = true)]
async fn leases_stay_without_a_leader_and_restart_with_the_next() {
    let etcd = MemoryEtcd::new();
    let (lease, _) = etcd.store().grant(4).await.unwrap();
    etcd.store().txn(put("/a/x", "1", lease)).await.unwrap();
    let mut watch = watch(&etcd, "/a/", 0).await;
    sleep(Duration::from_secs(3)).await;
    etcd.set_leaderless(true);
    sleep(Duration::from_secs(30)).await;
    assert!(silent(&mut watch).await);
    etcd.set_leaderless(false);
    let elected = Instant::now();
    assert!(matches!(next(&mut watch).await, WatchMessage::Events { .. }));
    assert_eq!(elected.elapsed(), Duration::from_secs(4));
}
