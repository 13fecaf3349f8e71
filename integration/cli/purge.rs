//! `enlist purge`: every trace below the prefix, nothing beside it, nothing foreign, and not without a word.

use super::{At, label};

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
