//! etcd is lost while all run, and comes back with its data: nothing that was assigned is forgotten, no child is disturbed.

use std::time::Duration;

use super::*;
use crate::agent::stays;
use crate::support::process::is_alive;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_was_away_for_longer_than_every_lease_costs_no_answer_and_no_child() {
    let mut fleet = Fleet::on(EtcdVersion::V3_4);
    let mut roles = fleet.run(&[]);
    fleet
        .apply(&(pool("eu", "127.70.7.0/24", ", hold: 10s").replace("hold: 2s, ", "") + "{kind: Group, name: all, selector: ''}"))
        .await;
    let ids = ["a", "b", "c", "d"];
    let mut agents = Vec::new();
    for id in ids {
        let (agent, file) = fleet.agent_with_child(id, &[]);
        agents.push((agent, child_in(&file).await));
    }
    for id in ids {
        fleet.registered(id).await;
    }
    fleet.until_members("all", &ids).await;
    let answers = answers(&fleet, &ids).await;
    // Longer than the leases of agents and leaders.
    fleet.etcd.kill();
    let children: Vec<i32> = agents.iter().map(|(_, child)| *child).collect();
    stays("every child while etcd is away", Duration::from_secs(4), || children.iter().copied().all(is_alive)).await;
    assert!(roles.is_running(), "{}", roles.log());
    fleet.etcd.restart();
    // It works again: a newcomer goes all the way.
    let late = fleet.agent("e", &[]);
    fleet.registered("e").await;
    fleet.until_members("all", &["a", "b", "c", "d", "e"]).await;
    for id in ids {
        fleet.registered(id).await;
    }
    assert_eq!(self::answers(&fleet, &ids).await, answers, "an answer or a label was written again");
    assert!(children.into_iter().all(is_alive), "a child was disturbed");
    for (agent, _) in &mut agents {
        assert!(agent.is_running());
        let complaints = agent.log().lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).count();
        assert!(complaints <= 12, "{complaints} complaints in 5 seconds:\n{}", agent.log());
    }
    fleet.sound().await;
    drop(late);
}

/// Labels and assignments with their revisions.
async fn answers(fleet: &Fleet, ids: &[&str]) -> Vec<KeyValue> {
    let mut found = Vec::new();
    for id in ids {
        for part in ["label", "assignment"] {
            found.push(fleet.key(&format!("nodes/{id}/{part}")).await.unwrap());
        }
    }
    found
}
