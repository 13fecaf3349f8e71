//! Nodes register in one etcd; relay, manager and groups are in another.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_in_a_second_etcd_follow_over_restarts_of_its_roles_and_of_itself() {
    let mut fleet = Fleet::on_two(EtcdVersion::V3_4, EtcdVersion::V3_5);
    let _allocator = fleet.run(&["allocator"]);
    let relay = fleet.run(&["relay"]);
    let manager = fleet.run(&["manager"]);
    let group = "{kind: Group, name: web, selector: role=web, port: http}\n---\n{kind: Group, name: all, selector: ''}\n";
    fleet.apply(&(pool("eu", "127.70.6.0/24", LONG, "") + group)).await;
    let web = ["--var", "role=web"];
    let mut agents = vec![fleet.agent("a", &web)];
    fleet.until_members("web", &["a"]).await;
    assert!(read(&fleet.store, "/enlist/manager/").await.is_empty(), "copies at the source");
    assert!(read(&fleet.store, "/enlist/groups/").await.is_empty(), "groups at the source");

    // Without a manager: nodes come and go, a definition changes, another is new.
    manager.kill().await;
    agents.push(fleet.agent("b", &web));
    agents.push(fleet.agent("c", &[]));
    fleet.registered("b").await;
    fleet.registered("c").await;
    fleet.ok(&["leave", "--state-dir", fleet.path("a").to_str().unwrap()]).await;
    agents[0].end().await;
    fleet.apply("{kind: Group, name: others, selector: '!role'}").await;
    fleet.ok(&["delete", "group", "all", "--force"]).await;
    let manager = fleet.run(&["manager"]);
    fleet.until_members("web", &["b"]).await;
    fleet.until_members("others", &["c"]).await;
    fleet.until_nothing_found().await;
    let left = read(&fleet.manager.as_ref().unwrap().1, "/core/manager/groups/").await;
    assert!(!left.keys().any(|key| key.starts_with("all")), "a deleted group is still there: {left:?}");

    // Without a relay, and then with an etcd there that is killed and started again.
    relay.kill().await;
    agents.push(fleet.agent("d", &web));
    fleet.registered("d").await;
    fleet.manager.as_mut().unwrap().0.kill();
    let relay = fleet.run(&["relay"]);
    fleet.manager.as_mut().unwrap().0.restart();
    fleet.until_members("web", &["b", "d"]).await;
    let nodes: Json = serde_json::from_str(&fleet.ok(&["get", "nodes", "-o", "json", "-l", "role=web"]).await).unwrap();
    assert_eq!(nodes.as_array().unwrap().len(), 2);
    assert_eq!(nodes[0]["groups"], serde_json::json!(["web"]), "{nodes}");
    fleet.sound().await;
    drop((agents, relay, manager));
}
