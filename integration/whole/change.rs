//! A node's variables change between two runs: other groups, and another pool where the pool says so.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_variables_are_other_groups_and_another_pool() {
    let fleet = Fleet::on(EtcdVersion::V3_5);
    let _roles = fleet.run(&[]);
    let groups = "{kind: Group, name: web, selector: role=web}\n---\n{kind: Group, name: db, selector: role=db}\n---\n\
                  {kind: Group, name: zones, selector: '', keyed_by: [zone]}\n";
    let pools = pool("eu-1", "127.70.4.0/28", LONG, ", selector: zone=eu-1, on_mismatch: move")
        + &pool("eu-2", "127.70.4.16/28", LONG, ", selector: zone=eu-2, on_mismatch: keep");
    fleet.apply(&(pools + groups)).await;
    let flags = |zone: &'static str, role: &'static str| ["--var", zone, "--var", role];

    let (mut agent, file) = fleet.agent_with_child("a", &flags("zone=eu-1", "role=web"));
    let first = fleet.registered("a").await;
    let port = first["ports"]["http"].clone();
    child_in(&file).await;
    assert_eq!(first["pool"], "eu-1");
    fleet.until_members("web", &["a"]).await;
    agent.stop().await;

    // Another role: other groups, the same answer.
    let (mut agent, file) = fleet.agent_with_child("a", &flags("zone=eu-1", "role=db"));
    fleet.until_members("db", &["a"]).await;
    fleet.until_members("web", &[]).await;
    child_in(&file).await;
    let second = fleet.registered("a").await;
    assert_eq!((&second["addresses"], &second["generation"]), (&first["addresses"], &first["generation"]));
    agent.stop().await;

    // Another zone: this pool lets its nodes move.
    let old = format!("claims/default/{}", first["addresses"][0].as_str().unwrap());
    let (mut agent, file) = fleet.agent_with_child("a", &flags("zone=eu-2", "role=db"));
    let third = until("it has moved", LIMIT, || async {
        let answer = fleet.registered("a").await;
        (answer["pool"] == "eu-2").then_some(answer)
    })
    .await;
    child_in(&file).await;
    assert!(third["generation"].as_i64() > first["generation"].as_i64());
    fleet.until_members("zones%2Fzone%3Deu-2", &["a"]).await;
    fleet.until_gone(&old).await;
    fleet.until_gone(&format!("{old}/{port}")).await;
    fleet.until_json("nodes/a/assignment", "nothing leaves any more", |answer| answer["leaving"] == serde_json::json!([])).await;
    agent.stop().await;

    // Back again: that pool keeps its nodes.
    let mut agent = fleet.agent("a", &flags("zone=eu-1", "role=db"));
    fleet.until_members("zones%2Fzone%3Deu-1", &["a"]).await;
    assert_eq!(fleet.registered("a").await["addresses"], third["addresses"]);
    fleet.ok(&["leave", "--state-dir", fleet.path("a").to_str().unwrap()]).await;
    agent.end().await;
    // A zone for which there is no pool: it waits, and says why.
    fleet.until_gone("nodes/a/label").await;
    let agent = fleet.agent("a", &flags("zone=eu-3", "role=db"));
    fleet.until_waiting("a", "no-pool-matches").await;
    let unpublished = |member: &Json| member["state"] == "joining" && member["published"] == false;
    let member = fleet.until_json("manager/groups/db/members/a", "not published", unpublished).await;
    assert_eq!(member["addresses"], serde_json::json!([]));
    let explained = fleet.ok(&["explain", "node", "a"]).await;
    assert!(explained.contains("eu-1") && explained.contains("no-match"), "{explained}");
    fleet.sound().await;
    drop(agent);
}
