//! Stores that were restored from a backup, and what must not be taken for it.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_member_that_lags_is_no_restored_store() {
    let mut rig = Rig::started().await;
    rig.spoil(|script| script.watches.push_back(Spoilt { behind: 2, ..Spoilt::default() }));
    rig.etcd.break_watches();
    rig.for_a_while(Duration::from_secs(5)).await;
    rig.put("a", "2").await;
    rig.delete("b").await;
    rig.settle().await;
    assert_eq!((rig.resets, rig.stepped_back), (1, 0), "nothing was read again, and nobody was told of a backup");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_behind_what_was_seen_is_a_restored_one() {
    let mut rig = Rig::started().await;
    let backup = rig.etcd.snapshot();
    rig.put("ghost", "1").await;
    rig.settle().await;
    rig.etcd.restore(backup);
    rig.settle().await;
    assert_eq!((rig.resets, rig.stepped_back), (2, 1));
    // Seen by progress only: the last key that was written is in the backup too.
    let backup = rig.etcd.snapshot();
    for _ in 0..5 {
        rig.write(Op::put("/other", "x")).await;
    }
    rig.for_a_while(Duration::from_secs(10)).await;
    assert_eq!(rig.revision, rig.etcd.revision());
    rig.etcd.restore(backup);
    rig.for_a_while(Duration::from_secs(10)).await;
    assert_eq!((rig.resets, rig.stepped_back), (3, 2));
    rig.etcd.empty();
    rig.settle().await;
    assert_eq!((rig.resets, rig.stepped_back), (4, 3));
}

#[tokio::test(start_paused = true)]
async fn a_restored_store_is_known_by_what_it_lacks_although_its_revision_is_past_ours() {
    let mut rig = Rig::started().await;
    let backup = rig.etcd.snapshot();
    // The last event is a deletion, of a key that the backup does not have either.
    rig.put("short", "1").await;
    rig.put("ghost", "1").await;
    rig.delete("short").await;
    rig.settle().await;
    rig.etcd.restore(backup.clone());
    for value in 0..8 {
        rig.write(Op::put(if value == 2 { "/n/new" } else { "/other" }, value.to_string())).await;
    }
    rig.settle().await;
    assert_eq!((rig.resets, rig.stepped_back), (2, 1));
    // The same writer writes the same key first again, at the same revision, with another value.
    rig.etcd.restore(backup.clone());
    rig.settle().await;
    rig.put("checkpoint", "5").await;
    rig.settle().await;
    let before = rig.stepped_back;
    rig.etcd.restore(backup);
    rig.write(Op::Txn(Txn {
        then: vec![Op::put("/n/checkpoint", "9"), Op::put("/n/more", "1"), Op::delete("/n/a")],
        ..Txn::default()
    }))
    .await;
    rig.settle().await;
    assert_eq!(rig.stepped_back, before + 1);
}

#[tokio::test(start_paused = true)]
async fn an_empty_scope_whose_watch_breaks_is_no_restored_store() {
    let mut rig = Rig::new();
    rig.open();
    rig.settle().await;
    for _ in 0..3 {
        rig.etcd.break_watches();
        rig.for_a_while(Duration::from_secs(5)).await;
    }
    rig.put("a", "1").await;
    rig.settle().await;
    assert_eq!(rig.stepped_back, 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_restored_store_has_where_there_was_only_progress_is_not_lost() {
    for deletes in [false, true] {
        let mut rig = Rig::started().await;
        rig.put("last", "1").await;
        rig.settle().await;
        let backup = rig.etcd.snapshot();
        for _ in 0..5 {
            rig.write(Op::put("/other", "x")).await;
        }
        rig.for_a_while(Duration::from_secs(10)).await;
        assert_eq!(rig.revision, rig.etcd.revision(), "progress moved the view on");
        // What was told last is in the backup. Before the watch is there again the store has passed what was seen.
        rig.etcd.restore(backup);
        let change = if deletes { Op::delete("/n/last") } else { Op::put("/n/new", "1") };
        rig.write(change).await;
        for _ in 0..8 {
            rig.write(Op::put("/other", "y")).await;
        }
        rig.settle().await;
        assert_eq!((rig.resets, rig.stepped_back), (2, 1), "deletes: {deletes}");
    }
}
