//! The thread through the whole: label → claim → assignment → acknowledgement → copy → member, as `etcdctl` shows it.

use super::*;
use crate::agent::listen;

/// What `etcdctl get` shows of a key: its value, and in `-w json` its revisions.
fn shown(fleet: &Fleet, key: &str) -> String {
    let text = fleet.etcd.etcdctl(&["get", "--print-value-only", &format!("/enlist/{key}")]).unwrap();
    text.trim_end().to_owned()
}

fn value(fleet: &Fleet, key: &str) -> Json {
    serde_json::from_str(&shown(fleet, key)).unwrap_or_else(|error| panic!("{key}: {error}"))
}

fn revisions(fleet: &Fleet, key: &str) -> (i64, i64) {
    let text = fleet.etcd.etcdctl(&["get", "-w", "json", &format!("/enlist/{key}")]).unwrap();
    let found: Json = serde_json::from_str(&text).unwrap();
    let number = |field: &str| found["kvs"][0][field].as_i64().unwrap_or_else(|| panic!("{key} is not there: {text}"));
    (number("create_revision"), number("mod_revision"))
}

/// Each with a network of its own: the same id gets the same address in the same pool.
async fn joins(version: EtcdVersion, network: &str) {
    let fleet = Fleet::on(version);
    let _roles = fleet.run(&[]);
    let groups = "{kind: Group, name: web, selector: 'role in (web,api),zone', port: http}\n---\n\
                  {kind: Group, name: zones, selector: '', keyed_by: [zone]}\n---\n{kind: Group, name: db, selector: role=db}\n";
    fleet.apply(&(pool("eu", &format!("{network}.0/24"), LONG, ", selector: zone=eu-1") + groups)).await;
    let flags = ["--var", "zone=eu-1", "--var", "role=web", "--describe", "video cache"];
    let (mut agent, file) = fleet.agent_with_deaf_child("edge-7", &flags);

    let assignment = fleet.until_json("nodes/edge-7/assignment", "an answer", Json::is_object).await;
    let (ip, port) = (assignment["addresses"][0].as_str().unwrap(), assignment["ports"]["http"].as_u64().unwrap());
    assert!(ip.starts_with(network) && assignment["pool"] == "eu", "{assignment}");
    // Nobody listens there yet, so it is assigned but not registered, and no consumer is sent to it.
    let key = "/enlist/manager/groups/web/members/edge-7";
    let member = until("a member", LIMIT, || async { fleet.store.get(key).await.unwrap().1 }).await;
    assert!(String::from_utf8_lossy(&member.value).contains(r#""state":"joining","published":false"#), "{member:?}");
    assert_eq!(value(&fleet, "nodes/edge-7/status")["phase"], "joining");
    // Not before the child runs: until then the agent would take the listener for somebody who uses its port.
    child_in(&file).await;
    let listener = listen(ip, port.try_into().unwrap());
    fleet.registered("edge-7").await;
    fleet.until_members("web", &["edge-7"]).await;
    drop(listener);

    // Every step of the story, as people see it.
    let label = value(&fleet, "nodes/edge-7/label");
    assert_eq!((&label["id"], &label["description"]), (&"edge-7".into(), &"video cache".into()));
    assert_eq!((&label["variables"]["zone"], &label["variables"]["role"]), (&"eu-1".into(), &"web".into()));
    // That of the default route, or loopback on a machine without one.
    assert!(label["temporary"]["ip"].as_str().unwrap().parse::<std::net::IpAddr>().is_ok(), "{label}");
    let (claim, by_port) = (format!("claims/default/{ip}"), format!("claims/default/{ip}/{port}"));
    for key in [&claim, &by_port] {
        assert_eq!(value(&fleet, key)["node"], "edge-7");
        assert_eq!(value(&fleet, key)["state"], "bound");
    }
    for part in ["label", "assignment", "status"] {
        let copy = shown(&fleet, &format!("manager/nodes/edge-7/{part}"));
        assert_eq!(copy, shown(&fleet, &format!("nodes/edge-7/{part}")), "{part}");
    }
    let member = value(&fleet, "manager/groups/web/members/edge-7");
    assert_eq!(member["addresses"], assignment["addresses"]);
    assert_eq!(member["ports"]["http"], port);
    assert_eq!(value(&fleet, "manager/groups/zones%2Fzone%3Deu-1")["members"], 1);
    assert_eq!(value(&fleet, "manager/groups/db")["members"], 0);

    // And in this order: one store, so revisions tell.
    let (label, _) = revisions(&fleet, "nodes/edge-7/label");
    let (_, answer) = revisions(&fleet, "nodes/edge-7/assignment");
    let (_, acknowledged) = revisions(&fleet, "nodes/edge-7/status");
    let (_, copied) = revisions(&fleet, "manager/nodes/edge-7/status");
    let (_, member) = revisions(&fleet, "manager/groups/web/members/edge-7");
    assert!(label < answer && answer < acknowledged && acknowledged < copied && copied < member);
    assert_eq!([revisions(&fleet, &claim).0, revisions(&fleet, &by_port).0], [answer, answer], "one transaction");
    assert!(value(&fleet, "manager/checkpoint")["revision"].as_i64().unwrap() >= acknowledged);
    // The generation is the revision that the answer was planned at, and what was acknowledged.
    assert_eq!(value(&fleet, "nodes/edge-7/status")["generation"], assignment["generation"]);
    assert!(assignment["generation"].as_i64().unwrap() < answer);

    let nodes: Json = serde_json::from_str(&fleet.ok(&["get", "nodes", "-o", "json"]).await).unwrap();
    assert_eq!(nodes[0]["phase"], "registered");
    assert_eq!(nodes[0]["groups"], serde_json::json!(["web", "zones/zone=eu-1"]));
    assert_eq!(agent.stop().await, 0);
    fleet.sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_and_etcdctl_3_4_shows_each_step() {
    joins(EtcdVersion::V3_4, "127.70.1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_and_etcdctl_3_5_shows_each_step() {
    joins(EtcdVersion::V3_5, "127.70.12").await;
}
