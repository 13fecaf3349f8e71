//! Backups that are restored and disks that are lost, on either side, under a running relay and without one.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_source_leaves_no_ghost_and_nothing_missing() {
    for version in EtcdVersion::ALL {
        for running in [true, false] {
            let mut pair = Pair::start(version, EtcdVersion::V3_5);
            for node in 0..12 {
                pair.label(&format!("n{node}"), "").await;
            }
            let backup = pair.source.backup();
            pair.label("ghost", "").await;
            let relay = pair.relay("one");
            pair.equal().await;
            let relay = if running {
                Some(relay)
            } else {
                relay.stop().await;
                None
            };
            pair.source.restore(&backup);
            // Past the revision that was copied: the revision alone tells nothing.
            for write in 0..8 {
                pair.label("new", &write.to_string()).await;
            }
            let _relay = relay.unwrap_or_else(|| pair.relay("two"));
            pair.equal().await;
            assert!(!read(&pair.to, "/core/manager/nodes/").await.contains_key("ghost/label"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_or_emptied_destination_is_complete_again() {
    for version in EtcdVersion::ALL {
        let mut pair = Pair::start(EtcdVersion::V3_5, version);
        for node in 0..12 {
            pair.label(&format!("n{node}"), "").await;
        }
        let _relay = pair.relay("one");
        pair.equal().await;
        let backup = pair.destination.backup();
        pair.label("late", "").await;
        delete(&pair.from, "/edge/nodes/n1/label").await;
        pair.equal().await;
        pair.destination.restore(&backup);
        pair.equal().await;
        pair.destination.lose_all();
        // Who has a single endpoint follows it into another cluster only after a while.
        until("the store is followed", LIMIT, || async { pair.to.get("/").await.ok() }).await;
        pair.equal().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_lost_its_disks_empties_nothing_before_somebody_says_so() {
    let mut pair = Pair::start(EtcdVersion::V3_5, EtcdVersion::V3_5);
    for node in 0..12 {
        pair.label(&format!("n{node}"), "").await;
    }
    let _relay = pair.relay("one");
    pair.equal().await;
    pair.source.lose_all();
    until("the brake is on", LIMIT, || async {
        let report = pair.to.get("/core/roles/relay").await.ok()?.1?;
        RoleReport::decode(&report.value).unwrap().brake.contains("empty").then_some(())
    })
    .await;
    assert_eq!(read(&pair.to, "/core/manager/nodes/").await.len(), 12);
    // A fleet that comes back one by one takes the place of what was lost.
    pair.label("n0", "back").await;
    pair.equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_destination_gets_one_write_for_many_changes() {
    let pair = Pair::start(EtcdVersion::V3_5, EtcdVersion::V3_5);
    pair.label("a", "").await;
    let _relay = pair.relay("one");
    pair.equal().await;
    let before = pair.to.get("/core/manager/checkpoint").await.unwrap().1.unwrap().version;
    pair.destination.pause();
    for write in 0..300 {
        pair.label("a", &write.to_string()).await;
    }
    pair.destination.resume();
    pair.equal().await;
    let after = pair.to.get("/core/manager/checkpoint").await.unwrap().1.unwrap().version;
    assert!(after - before <= 5, "{} cuts for 300 changes", after - before);
}
