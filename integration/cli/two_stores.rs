//! Two stores: nodes at the source, groups at the manager's; and what works when one is away.

use super::{At, bound_node};
use crate::support::etcd::free_port;

#[test]
fn groups_live_at_the_managers_store() {
    let (source, manager) = (At::start(), At::start());
    let both = ["--manager-endpoints", &manager.etcd.endpoint, "--manager-prefix", "/fleet"];
    let with = |arguments: &[&str]| source.run(&[arguments, &both].concat());
    let documents = "{kind: Pool, name: eu, cidrs: [10.20.0.0/24]}\n---\n{kind: Group, name: web, selector: zone=eu-1}";
    assert_eq!(source.pipe(&[&["apply", "-f", "-"][..], &both].concat(), documents).ok(), "pool eu created\ngroup web created\n");
    assert_eq!(source.keys(), ["/enlist/pools/eu"]);
    assert_eq!(manager.keys(), ["/fleet/groups/web"]);
    assert_eq!(with(&["get", "groups", "-o", "name"]).ok(), "web\n");
    assert_eq!(with(&["get", "pools", "-o", "name"]).ok(), "eu\n");
    with(&["brake", "release", "manager"]).ok();
    with(&["brake", "release", "allocator"]).ok();
    assert!(manager.keys().contains(&"/fleet/brakes/manager".into()));
    assert!(source.keys().contains(&"/enlist/brakes/allocator".into()));
    with(&["purge", "--yes"]).ok();
    assert!(source.keys().is_empty() && manager.keys().is_empty());
}

#[test]
fn without_the_managers_store_nodes_are_shown_without_groups() {
    let source = At::start();
    bound_node(&source, "a", "10.20.0.1");
    source.put_status("a", "registered");
    let away = format!("127.0.0.1:{}", free_port());
    let with = |arguments: &[&str]| source.run(&[arguments, &["--manager-endpoints", &away, "--dial-timeout", "500ms"]].concat());
    let shown = with(&["get", "nodes", "-o", "json"]);
    assert!(shown.stderr.contains("warning"), "{shown:?}");
    let nodes = shown.json();
    assert_eq!(nodes[0]["groups"], serde_json::Value::Null);
    assert_eq!(nodes[0]["phase"], "registered");
    with(&["get", "groups"]).fails(6, "manager");
    assert_eq!(with(&["get", "claims", "-o", "name"]).ok().lines().count(), 2, "claims need no manager");
}
