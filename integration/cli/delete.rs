//! `enlist delete`: not what is in use, nothing before all that was named was looked at, and as a trial.

use super::{At, bound_node, status};

const DOCUMENTS: &str = "kind: Pool\nname: eu\ncidrs: [10.20.0.0/24]\n---\nkind: Pool\nname: us\ncidrs: [10.30.0.0/24]\n---\nkind: Group\nname: web\n\
                         ---\nkind: Group\nname: idle\n";

#[test]
fn what_is_in_use_is_not_deleted_without_force() {
    let at = At::start();
    at.pipe(&["apply", "-f", "-"], DOCUMENTS).ok();
    bound_node(&at, "a", "10.20.0.5");
    let member = r#"{"v":1,"addresses":["10.20.0.5"],"ports":{"main":30000},"state":"ready","published":true}"#;
    at.put("manager/groups/web/members/a", member);
    let before = at.keys();

    at.run(&["delete", "pool", "eu"]).fails(5, "pool eu is in use: 1 node has addresses of it (a)");
    at.run(&["delete", "group", "web"]).fails(5, "group web is in use: 1 member is published (a)");
    // One that is in use, or not there, and none is deleted.
    at.run(&["delete", "pool", "us", "eu"]).fails(5, "pool eu is in use");
    at.run(&["delete", "pool/us", "group/idle", "group/none"]).fails(4, "there is no group none");
    at.run(&["delete", "pool"]).fails(2, "which pool?");
    assert_eq!(at.keys(), before);

    let trial = at.run(&["delete", "pool/eu", "group/web", "--force", "--dry-run"]);
    assert!(trial.stderr.contains("pool eu: 1 node keeps what it has until it leaves (a)"), "{trial:?}");
    assert_eq!(trial.ok(), "pool eu would be deleted\ngroup web would be deleted\n");
    assert_eq!(at.keys(), before);

    assert_eq!(at.run(&["delete", "pool/us", "group/idle"]).ok(), "pool us deleted\ngroup idle deleted\n");
    let forced = at.run(&["delete", "pool/eu", "group/web", "--force"]);
    assert!(forced.stderr.contains("group web: 1 published member goes with it (a)"), "{forced:?}");
    assert_eq!(forced.ok(), "pool eu deleted\ngroup web deleted\n");
}

#[test]
fn several_nodes_leave_together_or_not_at_all() {
    let at = At::start();
    for (id, ip) in [("a", "10.20.0.1"), ("b", "10.20.0.2")] {
        bound_node(&at, id, ip);
        at.put(&format!("nodes/{id}/status"), &status(id, "stopped"));
    }
    bound_node(&at, "live", "10.20.0.3");
    at.put_status("live", "registered");
    let has_left = |id: &str| {
        at.etcd.etcdctl(&["get", &format!("/enlist/nodes/{id}/status"), "--print-value-only"]).unwrap().contains("left")
    };
    at.run(&["leave", "a", "live", "b"]).fails(5, "node live is live");
    at.run(&["delete", "node", "a", "live"]).fails(5, "node live is live");
    assert!(!has_left("a") && !has_left("b"), "nothing is written");
    assert_eq!(at.run(&["delete", "node", "a", "--dry-run"]).ok(), "node a would be deleted\n");
    assert!(!has_left("a"));
    at.run(&["leave", "a", "b"]).ok();
    assert!(has_left("a") && has_left("b"));
}

#[test]
fn get_shows_several_by_name_and_names_those_that_are_missing() {
    let at = At::start();
    at.pipe(&["apply", "-f", "-"], DOCUMENTS).ok();
    assert_eq!(at.run(&["get", "pools", "us", "eu", "-o", "name"]).ok(), "eu\nus\n");
    assert_eq!(at.run(&["get", "pool/eu", "-o", "name"]).ok(), "eu\n");
    let some = at.run(&["get", "pools", "eu", "x", "y", "-o", "name"]);
    assert_eq!(some.stdout, "eu\n");
    some.fails(4, "there is no pool x, y");
    at.run(&["get", "pool/eu", "group/web"]).fails(2, "one kind at a time");
}
