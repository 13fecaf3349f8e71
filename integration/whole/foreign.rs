//! A store that is full of other programs' keys and busy with their writes: no effect, and none of it is even read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use enlist::store::api::{Op, RangeRequest, Txn};

use super::*;

/// Before and behind ours in the order of keys, one of them looks like ours.
const PREFIXES: [&str; 3] = ["/dns/", "/enlist-other/nodes/", REWRITTEN];
const REWRITTEN: &str = "/enlist0/nodes/";
/// Keys below each.
const SIDE: usize = 15_000;
const VALUE: usize = 400;
/// Each watch that saw these would be sent 3 MB.
const WRITTEN_MIN: usize = 8_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_keys_beside_ours_are_neither_read_nor_in_the_way() {
    let fleet = Fleet::on(EtcdVersion::V3_4);
    for prefix in PREFIXES {
        fill(&fleet.store, prefix, SIDE).await;
    }
    let sent = || fleet.etcd.metric("etcd_network_client_grpc_sent_bytes_total");
    let start = sent();
    fleet.store.txn(puts(REWRITTEN, 0..100)).await.unwrap();
    let before = sent();
    let answer = before - start;
    let stop = Arc::new(AtomicBool::new(false));
    let busy = tokio::spawn(rewrite(fleet.etcd.store(), stop.clone()));
    let _roles = fleet.run(&[]);
    fleet.apply(&(pool("eu", "127.70.9.0/24", LONG, "") + "{kind: Group, name: all, selector: ''}")).await;
    let mut agent = fleet.agent("a", &[]);
    fleet.registered("a").await;
    fleet.until_members("all", &["a"]).await;
    stop.store(true, Ordering::Relaxed);
    let answers = answer * f64::from(busy.await.unwrap());
    let ours = sent() - before - answers;
    // 18 MB are there, and every watch on what was rewritten would be sent 3 MB and more.
    assert!(ours < 1e6, "{ours} bytes were sent for one node");
    agent.stop().await;
    fleet.ok(&["leave", "a"]).await;
    until("no trace", LIMIT, || async { read(&fleet.store, "/enlist/nodes/").await.is_empty().then_some(()) }).await;
    assert!(fleet.ok(&["purge", "--yes", "--force"]).await.contains("removed"));
    for prefix in PREFIXES {
        let request = RangeRequest { count_only: true, ..RangeRequest::all(KeyRange::prefix(prefix)) };
        let count = fleet.store.range(request).await.unwrap().count;
        assert_eq!(usize::try_from(count).unwrap(), SIDE, "keys went below {prefix}");
    }
}

fn puts(prefix: &str, numbers: std::ops::Range<usize>) -> Txn {
    let value = "x".repeat(VALUE);
    Txn { then: numbers.map(|number| Op::put(format!("{prefix}{number:06}"), value.clone())).collect(), ..Txn::default() }
}

async fn fill(store: &Store, prefix: &str, count: usize) {
    for start in (0..count).step_by(125) {
        store.txn(puts(prefix, start..(start + 125).min(count))).await.unwrap();
    }
}

/// Writes the same keys again and again until it is told to stop, and at least so many that a watch on them would show.
/// Answers how many transactions that were.
async fn rewrite(store: Store, stop: Arc<AtomicBool>) -> u32 {
    let (mut written, mut transactions) = (0, 0);
    while !stop.load(Ordering::Relaxed) || written < WRITTEN_MIN {
        let start = written % (SIDE - 100);
        store.txn(puts(REWRITTEN, start..start + 100)).await.unwrap();
        written += 100;
        transactions += 1;
    }
    transactions
}
