//! `enlist apply`: all or nothing, created / changed / unchanged, and what is refused.

use super::{At, assignment, bound_node, status, write};

const GOOD: &str = "kind: Pool\nname: eu\ncidrs: [10.20.0.0/24]\n---\nkind: Group\nname: web\nselector: zone=eu-1\n";

#[test]
fn created_changed_unchanged_from_files_and_stdin() {
    let at = At::start();
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "good.yaml", GOOD);
    let dry = at.run(&["apply", "-f", &file, "--dry-run"]).ok();
    assert!(dry.contains("pool eu would be created") && dry.contains("group web would be created"), "{dry}");
    assert!(at.keys().is_empty(), "a dry run writes nothing");
    assert_eq!(at.run(&["apply", "-f", &file]).ok(), "pool eu created\ngroup web created\n");
    assert_eq!(at.pipe(&["apply", "-f", "-"], GOOD).ok(), "pool eu unchanged\ngroup web unchanged\n");
    let json = r#"{"kind":"Pool","name":"eu","cidrs":["10.20.0.0/16"]}"#;
    assert_eq!(at.pipe(&["apply", "-f", "-"], json).ok(), "pool eu changed\n");
    let stored = at.etcd.etcdctl(&["get", "/enlist/pools/eu", "--print-value-only"]).unwrap();
    assert!(stored.starts_with(r#"{"v":1,"kind":"Pool","name":"eu""#), "{stored}");
}

#[test]
fn one_bad_document_and_nothing_is_written() {
    let at = At::start();
    let folder = tempfile::tempdir().unwrap();
    let good = write(folder.path(), "good.yaml", GOOD);
    for (text, says) in [
        (
            "kind: Pool\nname: eu\ncidrs: [10.20.0.0/24]\nselctor: zone=eu-1\n",
            "bad.yaml:4: Pool eu: selctor: unknown field, did you mean selector?",
        ),
        ("kind: Pool\nname: eu\ncidrs: [10.20.0.0/33]\n", "cidrs"),
        ("kind: Pool\nname: eu\ncidrs: [10.20.0.0/24]\nselector: 'zone=a,,b'\n", "selector"),
        ("kind: Pool\nname: Eu\ncidrs: [10.20.0.0/24]\n", "name"),
        ("kind: Pool\nname: eu\ncidrs: [10.20.0.0/24]\nhold: 10\n", "hold"),
        ("kind: Group\nname: web\nselector: '('\n", "selector"),
        ("kind: Grp\nname: web\n", "kind"),
        ("name: [", "bad.yaml"),
    ] {
        let bad = write(folder.path(), "bad.yaml", text);
        at.run(&["apply", "-f", &good, "-f", &bad]).fails(2, says);
        assert!(at.keys().is_empty(), "{text} let something be written");
    }
    at.run(&["apply", "-f", "/nonexistent.yaml"]).fails(2, "/nonexistent.yaml");
    at.pipe(&["apply", "-f", "-"], "").fails(2, "no document");
}

#[test]
fn domain_and_sharing_stay_while_nodes_have_addresses() {
    let at = At::start();
    at.pipe(&["apply", "-f", "-"], GOOD).ok();
    bound_node(&at, "a", "10.20.0.5");
    at.put("nodes/a/status", &status("a", "stopped"));
    for (field, value) in [("sharing", "shared"), ("domain", "other")] {
        let text = format!("kind: Pool\nname: eu\ncidrs: [10.20.0.0/24]\n{field}: {value}\n");
        at.pipe(&["apply", "-f", "-"], &text).fails(5, &format!("stdin:4: Pool eu: {field}: cannot be changed while 1 node has"));
    }
    // The second of two documents in a file; and a field that was left out is told at its document.
    bound_node(&at, "b", "10.20.0.6");
    at.put("nodes/b/assignment", &assignment("b", "10.20.0.6").replace("exclusive", "shared"));
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "pools.yaml", &format!("# Ours.\n{}", GOOD.replace("name: eu", "name: us")));
    let text = "kind: Group\nname: all\n---\nkind: Pool\nname: eu\ncidrs: [10.20.0.0/24]\nhold: 30m\n";
    let more = write(folder.path(), "more.yaml", text);
    let refused = at.run(&["apply", "-f", &file, "-f", &more]);
    refused.fails(5, &format!("{more}:4: Pool eu: sharing: cannot be changed"));
    assert!(!at.keys().iter().any(|key| key.ends_with("/us")), "nothing is written");
    at.etcd.etcdctl(&["del", "/enlist/nodes/b/", "--prefix"]).unwrap();
    assert!(at.run(&["get", "pool", "eu", "-o", "yaml"]).ok().contains("sharing: exclusive"));
    let text = "kind: Pool\nname: eu\ncidrs: [10.20.0.0/16]\nhold: 20m\n";
    assert_eq!(at.pipe(&["apply", "-f", "-"], text).ok(), "pool eu changed\n");
}

#[test]
fn a_pool_that_would_disable_another_is_refused() {
    let at = At::start();
    at.pipe(&["apply", "-f", "-"], GOOD).ok();
    bound_node(&at, "a", "10.20.0.5");
    let before = at.keys();
    let other = "kind: Pool\nname: aaa\nsharing: shared\ncidrs: [10.20.0.240/30]\n";
    for arguments in [&["apply", "-f", "-"][..], &["apply", "-f", "-", "--dry-run"]] {
        at.pipe(arguments, other)
            .fails(5, "stdin:4: Pool aaa: cidrs: it overlaps pool eu in domain default (both give 10.20.0.241)");
    }
    assert_eq!(at.keys(), before, "nothing is written");
    // Written by hand it is the one that gives nothing: the pool that nodes use goes on.
    let stored = at.etcd.etcdctl(&["get", "/enlist/pools/eu", "--print-value-only"]).unwrap();
    at.put("pools/aaa", &stored.replace("\"eu\"", "\"aaa\"").replace("exclusive", "shared"));
    let pools = at.run(&["get", "pools", "-o", "json"]).json();
    assert_eq!((&pools[0]["condition"], &pools[1]["condition"]), (&"conflict".into(), &"ok".into()), "{pools}");
}
