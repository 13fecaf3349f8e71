//! Restart, stop, leave, die: what becomes of a node's address.

use super::*;
use crate::agent::until_gone;

/// A fleet with one address, which no other test uses: agents look whether they can bind their ports.
async fn fleet(address: &str, hold: &str) -> Fleet {
    let fleet = Fleet::on(EtcdVersion::V3_5);
    fleet.apply(&(pool("one", &format!("{address}/32"), hold, "") + "{kind: Group, name: all, selector: ''}")).await;
    fleet
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_a_stop_and_a_quick_return_from_death_keep_the_answer() {
    let fleet = fleet("127.70.2.1", LONG).await;
    let roles = fleet.run(&[]);
    let (mut agent, file) = fleet.agent_with_child("a", &[]);
    let given = fleet.registered("a").await;
    let child = child_in(&file).await;
    assert_eq!(agent.stop().await, 0);
    assert!(!crate::support::process::is_alive(child));
    let status = fleet.key("nodes/a/status").await.unwrap();
    assert_eq!(status.lease, enlist::store::api::LeaseId::NONE, "a stopped node says so without a lease");
    assert_eq!(fleet.json("nodes/a/status").await["phase"], "stopped");
    // It is away: its hold begins. Its return ends that.
    fleet.until_json("nodes/a/hold", "a hold", Json::is_object).await;
    let (agent, file) = fleet.agent_with_child("a", &[]);
    assert_eq!(fleet.registered("a").await, given);
    fleet.until_gone("nodes/a/hold").await;
    // Agent and roles die together, and come back in either order.
    let child = child_in(&file).await;
    roles.kill().await;
    agent.kill().await;
    until_gone(child).await;
    let (agent, file) = fleet.agent_with_child("a", &[]);
    child_in(&file).await;
    assert_eq!(fleet.registered("a").await, given, "with what it had, and no role there");
    let _roles = fleet.run(&[]);
    fleet.until_members("all", &["a"]).await;
    agent.kill().await;
    let (mut agent, file) = fleet.agent_with_child("a", &[]);
    child_in(&file).await;
    assert_eq!(fleet.registered("a").await, given);
    fleet.until_members("all", &["a"]).await;
    agent.stop().await;
    fleet.sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leave_frees_the_address_at_once_and_leaves_no_trace() {
    const CLAIM: &str = "claims/default/127.70.2.2";
    let fleet = fleet("127.70.2.2", LONG).await;
    let _roles = fleet.run(&[]);
    let mut agent = fleet.agent("a", &[]);
    fleet.registered("a").await;
    fleet.until_members("all", &["a"]).await;
    fleet.ok(&["leave", "--state-dir", fleet.path("a").to_str().unwrap()]).await;
    assert_eq!(agent.end().await, 0);
    fleet.until_json(CLAIM, "cooling", |claim| claim["state"] == "cooling").await;
    fleet.until_gone(CLAIM).await;
    fleet.until_members("all", &[]).await;
    until("no trace", LIMIT, || async { read(&fleet.store, "/enlist/nodes/").await.is_empty().then_some(()) }).await;
    // An ephemeral node's stop is a leave as well.
    let mut agent = fleet.agent("b", &["--ephemeral"]);
    fleet.registered("b").await;
    assert_eq!(agent.stop().await, 0);
    until("no trace", LIMIT, || async { read(&fleet.store, "/enlist/nodes/").await.is_empty().then_some(()) }).await;
    fleet.until_gone(CLAIM).await;
    fleet.sound().await;
}

const KILLED: &str = "claims/default/127.70.2.3";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_is_silent_held_released_and_its_address_cools_before_the_next_gets_it() {
    let fleet = fleet("127.70.2.3", SHORT).await;
    let _roles = fleet.run(&[]);
    let agent = fleet.agent("a", &[]);
    let given = fleet.registered("a").await;
    let next = fleet.agent("b", &[]);
    fleet.until_waiting("b", "pool-full").await;
    agent.kill().await;
    next_gets_it(&fleet).await;
    // It comes back too late: it gets nothing of another's.
    let late = fleet.agent("a", &[]);
    let answer = fleet.until_waiting("a", "pool-full").await;
    assert!(answer["generation"].as_i64() > given["generation"].as_i64(), "{answer}");
    fleet.until_said(&late, "pool one is full").await;
    assert_eq!(fleet.json(KILLED).await["node"], "b");
    fleet.sound().await;
    drop((next, late));
}

/// From the history: which states there were, in which order, and that none came before its time.
async fn next_gets_it(fleet: &Fleet) {
    fleet.registered("b").await;
    let history = fleet.history().await;
    let mut story: Vec<String> = Vec::new();
    for events in history.values() {
        let mut together: Vec<String> = events.iter().filter_map(told).collect();
        // What was written in one transaction has no order.
        together.sort();
        story.extend(together);
    }
    let expected = ["bound a", "silent", "seen", "held", "the time is over", "cooling a", "released", "free", "bound b"];
    assert_eq!(story, expected);
}

/// What an event says of the killed node or of its address.
fn told(event: &Event) -> Option<String> {
    let key = event.key().to_string();
    let key = key.strip_prefix("/enlist/")?;
    match event {
        Event::Delete { .. } => match key {
            "nodes/a/status" => Some("silent".to_owned()),
            "nodes/a/hold/clock" => Some("the time is over".to_owned()),
            KILLED => Some("free".to_owned()),
            _ => None,
        },
        Event::Put(kv) if ["nodes/a/hold", KILLED].contains(&key) => {
            let value: Json = serde_json::from_slice(&kv.value).unwrap();
            let node = value["node"].as_str().map(|node| format!(" {node}")).unwrap_or_default();
            Some(format!("{}{node}", value["state"].as_str().unwrap()))
        }
        Event::Put(_) => None,
    }
}
