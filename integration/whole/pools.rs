//! A pool that is full: who waits says why, and is served in turn when something is freed or the pool grows.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_nodes_are_woken_in_turn_by_a_leave_and_together_by_a_larger_pool() {
    let fleet = Fleet::on(EtcdVersion::V3_4);
    let _roles = fleet.run(&[]);
    fleet.apply(&pool("eu", "127.70.5.0/30", LONG, "")).await;
    let mut served = Vec::new();
    for id in ["a", "b"] {
        served.push(fleet.agent(id, &[]));
        fleet.registered(id).await;
    }
    let mut waiting = Vec::new();
    for id in ["c", "d", "e"] {
        waiting.push(fleet.agent(id, &[]));
        fleet.until_waiting(id, "pool-full").await;
    }
    // A node that can never be served stands before nobody.
    let odd = fleet.agent("never", &["--address", "127.99.0.1"]);
    fleet.until_waiting("never", "address-outside").await;
    let shown = fleet.ok(&["get", "nodes"]).await;
    assert!(shown.contains("pool-full"), "{shown}");
    for agent in &waiting {
        fleet.until_said(agent, "pool eu is full").await;
    }

    // One leaves: the first in the line gets its address, the others go on waiting.
    fleet.ok(&["leave", "--state-dir", fleet.path("a").to_str().unwrap()]).await;
    assert_eq!(served[0].end().await, 0);
    fleet.registered("c").await;
    fleet.until_waiting("d", "pool-full").await;
    fleet.until_waiting("e", "pool-full").await;
    assert_eq!(fleet.json("nodes/a/assignment").await, Json::Null);
    // The pool grows: all that fit are served.
    fleet.apply(&pool("eu", "127.70.5.0/29", LONG, "")).await;
    fleet.registered("d").await;
    fleet.registered("e").await;
    let pools: Json = serde_json::from_str(&fleet.ok(&["get", "pools", "-o", "json"]).await).unwrap();
    assert_eq!((&pools[0]["bound"], &pools[0]["free"]), (&4.into(), &2.into()), "{pools}");
    fleet.until_waiting("never", "address-outside").await;
    fleet.sound().await;
    drop((served, waiting, odd));
}
