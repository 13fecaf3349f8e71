//! `enlist purge`: every trace below the prefix, nothing beside it, nothing foreign, and not without a word.

use super::{At, label, status};

#[test]
fn only_what_is_below_the_prefix_and_only_when_told() {
    let at = At::start();
    at.put("nodes/a/label", &label("a"));
    at.put("pools/eu", "?");
    for beside in ["/enlist-dev/nodes/a/label", "/enlist", "/enlistx"] {
        at.etcd.etcdctl(&["put", beside, "x"]).unwrap();
    }
    let shown = at.run(&["purge"]);
    assert!(shown.stdout.contains("/enlist/nodes/"), "{shown:?}");
    shown.fails(2, "--yes");
    assert_eq!(at.keys().len(), 5);
    assert!(at.run(&["purge", "--yes"]).ok().contains("2 keys below /enlist/ removed"));
    assert_eq!(at.keys(), ["/enlist", "/enlist-dev/nodes/a/label", "/enlistx"]);
    assert_eq!(at.run(&["purge", "--yes"]).ok(), "");
}

#[test]
fn while_agents_or_roles_run_nothing_is_removed() {
    let at = At::start();
    at.put("nodes/a/label", &label("a"));
    at.put("nodes/gone/status", &status("gone", "stopped"));
    let lease = |ttl: &str| {
        let said = at.etcd.etcdctl(&["lease", "grant", ttl]).unwrap();
        said.split(' ').nth(1).unwrap().to_owned()
    };
    let put = |lease: &str, key: &str, value: &str| {
        at.etcd.etcdctl(&["put", &format!("--lease={lease}"), &format!("/enlist/{key}"), value]).unwrap();
    };
    let (agent, clock) = (lease("600"), lease("2592000"));
    put(&clock, "nodes/gone/hold/clock", "");
    put(&clock, "claims/default/10.20.0.9", "{}");
    put(&agent, "nodes/a/status", &status("a", "registered"));
    put(&agent, "leaders/allocator/1", "x");
    let before = at.keys();
    for arguments in [&["purge"][..], &["purge", "--yes"]] {
        at.run(arguments).fails(5, "still running: 1 agent, 1 role instance: nothing was removed");
    }
    assert!(at.run(&["purge", "--dry-run"]).ok().contains("/enlist/nodes/"));
    assert_eq!(at.keys(), before);
    assert!(at.run(&["purge", "--yes", "--force"]).ok().contains("6 keys below /enlist/ removed"));
    assert!(at.keys().is_empty());
    // What would have run for thirty days is gone; the lease of an agent may carry what is another prefix's.
    let leases = at.etcd.etcdctl(&["lease", "list"]).unwrap();
    assert!(!leases.contains(&clock) && leases.contains(&agent), "{leases}");
}

#[test]
fn what_is_not_ours_stays() {
    let at = At::start();
    at.put("nodes/a/label", &label("a"));
    at.put("precious", "x");
    at.run(&["purge", "--yes"]).fails(2, "/enlist/precious");
    assert_eq!(at.keys().len(), 2);
    at.run(&["purge", "--yes", "--foreign"]).ok();
    assert!(at.keys().is_empty());
    at.run(&["purge", "--yes", "--prefix", "/registry"]).fails(2, "another program's");
}
