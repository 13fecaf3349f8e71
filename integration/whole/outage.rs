//! etcd is lost while all run, and agents stand still while etcd does not: nothing that was assigned is forgotten, no child is
//! disturbed.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::*;
use crate::agent::stays;
use crate::support::process::is_alive;

const IDS: [&str; 4] = ["a", "b", "c", "d"];

/// Labels and assignments with their revisions.
async fn answers(fleet: &Fleet) -> Vec<KeyValue> {
    let mut found = Vec::new();
    for id in IDS {
        for part in ["label", "assignment"] {
            found.push(fleet.key(&format!("nodes/{id}/{part}")).await.unwrap());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_a_lost_etcd_nor_lost_leases_cost_an_answer_a_label_or_a_child() {
    let mut fleet = Fleet::on(EtcdVersion::V3_4);
    let mut roles = fleet.run(&[]);
    fleet.apply(&(pool("eu", "127.70.7.0/24", LONG, "") + "{kind: Group, name: all, selector: ''}")).await;
    let (mut agents, mut children) = (Vec::new(), Vec::new());
    for id in IDS {
        let (agent, file) = fleet.agent_with_child(id, &[]);
        agents.push(agent);
        children.push(child_in(&file).await);
    }
    for id in IDS {
        fleet.registered(id).await;
    }
    fleet.until_members("all", &IDS).await;
    let before = answers(&fleet).await;

    // Away for longer than the leases of agents and leaders.
    fleet.etcd.kill();
    stays("every child while etcd is away", Duration::from_secs(4), || children.iter().copied().all(is_alive)).await;
    assert!(roles.is_running(), "{}", roles.log());
    fleet.etcd.restart();
    // It works again: a newcomer goes all the way.
    let late = fleet.agent("e", &[]);
    fleet.registered("e").await;
    fleet.until_members("all", &["a", "b", "c", "d", "e"]).await;
    assert_eq!(answers(&fleet).await, before, "after etcd was away an answer or a label was written again");
    for agent in &mut agents {
        assert!(agent.is_running());
        let complaints = agent.log().lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).count();
        assert!(complaints <= 12, "{complaints} complaints in 5 seconds:\n{}", agent.log());
    }

    // Agents that stand still lose their leases, and join again.
    agents.iter().for_each(|agent| agent.signal(Signal::SIGSTOP));
    for id in IDS {
        fleet.until_gone(&format!("nodes/{id}/status")).await;
    }
    agents.iter().for_each(|agent| agent.signal(Signal::SIGCONT));
    for id in IDS {
        fleet.registered(id).await;
    }
    fleet.until_members("all", &["a", "b", "c", "d", "e"]).await;
    assert_eq!(answers(&fleet).await, before, "at the second join an answer or a label was written again");
    assert!(children.into_iter().all(is_alive), "a child was disturbed");
    fleet.sound().await;
    drop(late);
}
