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

#[test]
fn what_get_shows_as_yaml_is_applied_unchanged() {
    let at = At::start();
    let everything = "kind: Pool\nname: eu\ndomain: lab\ncidrs: [10.20.0.0/16, \"fd00:20::/64\"]\nexclude: [10.20.1.5]\nports: 8080-8090\n\
                      sharing: shared\nselector: 'zone in (eu-1,eu-2)'\npriority: -3\nreserve: {a: [10.20.9.9, \"fd00:20::9\"]}\nhold: 90s\n\
                      cooldown: 0s\non_mismatch: move\nmove_at_once: 3\non_isolation: withdraw\n---\nkind: Group\nname: web\nselector: role=web\n\
                      keyed_by: [zone]\nport: http\n---\nkind: Group\nname: all\n";
    at.pipe(&["apply", "-f", "-"], everything).ok();
    for (kind, unchanged) in [("pools", "pool eu unchanged\n"), ("groups", "group all unchanged\ngroup web unchanged\n")] {
        let shown = at.run(&["get", kind, "-o", "yaml"]).ok();
        assert_eq!(at.pipe(&["apply", "-f", "-"], &shown).ok(), unchanged, "{shown}");
        assert_eq!(at.pipe(&["diff", "-f", "-"], &shown).ok(), "");
    }
    // By hand it may be stored in another form that means the same.
    at.put("pools/us", r#"{"v":1,"kind":"Pool","name":"us","cidrs":["10.30.0.0/24"]}"#);
    let shown = at.run(&["get", "pool/us", "-o", "yaml"]).ok();
    assert_eq!(at.pipe(&["apply", "-f", "-"], &shown).ok(), "pool us unchanged\n");
}

#[test]
fn a_slip_is_refused_at_its_line_and_a_stored_one_stays() {
    let at = At::start();
    let text = "kind: Pool\nname: eu\ncidrs: [10.20.0.0/24]\nexclude: [10.21.0.0/24]\nhold: 10m\n";
    let says = "stdin:4: Pool eu: exclude: 10.21.0.0/24 is outside of cidrs: there is nothing to exclude";
    at.pipe(&["apply", "-f", "-"], text).fails(2, says);
    at.pipe(&["apply", "-f", "-"], &text.replace("10m", "1M"))
        .fails(2, "stdin:5: Pool eu: hold: \"1M\" has the unit M, which is a month");
    assert!(at.keys().is_empty(), "nothing is written");
    let stored = r#"{"v":1,"kind":"Pool","name":"eu","cidrs":["10.20.0.0/24"],"exclude":["10.21.0.0/24"]}"#;
    at.put("pools/eu", stored);
    assert_eq!(at.run(&["get", "pools", "-o", "json"]).json()[0]["condition"], "ok");
    let shown = at.run(&["get", "pool/eu", "-o", "yaml"]).ok();
    assert_eq!(at.pipe(&["apply", "-f", "-"], &shown).ok(), "pool eu unchanged\n");
    at.pipe(&["apply", "-f", "-"], &shown.replace("10m", "20m")).fails(2, "exclude: 10.21.0.0/24 is outside of cidrs");
}

#[test]
fn diff_shows_fields_and_says_by_its_exit_code() {
    let at = At::start();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.yaml", GOOD);
    write(folder.path(), "b.json", r#"{"kind":"Pool","name":"us","cidrs":["10.30.0.0/24"]}"#);
    write(folder.path(), "notes.txt", "not: [a document");
    let directory = folder.path().to_str().unwrap();
    assert_eq!(at.run(&["apply", "-f", directory]).ok(), "pool eu created\ngroup web created\npool us created\n");
    assert_eq!(at.run(&["diff", "-f", directory]).ok(), "");
    write(folder.path(), "b.json", r#"{"kind":"Pool","name":"us","cidrs":["10.30.0.0/24"],"hold":"1h"}"#);
    let before = at.keys();
    let differs = at.run(&["diff", "-f", directory]);
    assert_eq!((differs.code, differs.stdout.as_str()), (1, "pool us\n- hold: \"10m\"\n+ hold: \"1h\"\n"), "{differs:?}");
    assert_eq!(at.keys(), before);
    let empty = tempfile::tempdir().unwrap();
    at.run(&["apply", "-f", empty.path().to_str().unwrap()]).fails(2, "has no file that ends in .yaml, .yml or .json");
}

#[test]
fn apply_says_who_keeps_what_is_outside_and_which_pools_overlap() {
    let at = At::start();
    at.pipe(&["apply", "-f", "-"], GOOD).ok();
    bound_node(&at, "a", "10.20.0.5");
    let said = at.pipe(&["apply", "-f", "-"], "kind: Pool\nname: eu\ncidrs: [10.30.0.0/24]\n");
    assert!(said.stderr.contains("pool eu: 1 node has what the pool would not assign today: a (address)"), "{said:?}");
    assert_eq!(said.ok(), "pool eu changed\n");
    let pools = at.run(&["get", "pools", "-o", "json"]).json();
    assert_eq!(pools[0]["outside"], 1, "{pools}");
    let said = at.pipe(&["apply", "-f", "-"], "kind: Pool\nname: us\ncidrs: [10.30.0.0/16]\n");
    assert!(said.stderr.contains("pool us overlaps pool eu in domain default (both list 10.30.0.1)"), "{said:?}");
    assert_eq!(said.ok(), "pool us created\n");
}

#[test]
fn a_dry_run_names_each_node_with_its_old_and_new_answer() {
    let at = At::start();
    at.pipe(&["apply", "-f", "-"], "kind: Pool\nname: eu\ncidrs: [10.20.0.0/24]\non_mismatch: move\n").ok();
    for (id, ip) in [("a", "10.20.0.5"), ("b", "10.20.0.6")] {
        bound_node(&at, id, ip);
        at.put_status(id, "registered");
    }
    let text = "kind: Pool\nname: eu\ncidrs: [10.30.0.0/24]\non_mismatch: move\n";
    let said = at.pipe(&["apply", "-f", "-", "--dry-run"], text).ok();
    assert!(
        said.starts_with("pool eu would be changed (together: another answer for 2 nodes; at most 1 of its moves at a time)\n"),
        "{said}"
    );
    for (id, ip) in [("a", "10.20.0.5"), ("b", "10.20.0.6")] {
        assert!(said.contains(&format!("  node {id}: {ip} main=30000 (eu) -> 10.30.0.")), "{said}");
    }
}

#[test]
fn prune_deletes_what_its_own_set_applied_before_and_nothing_else() {
    let at = At::start();
    let pool = |name: &str, net: u8| format!("kind: Pool\nname: {name}\ncidrs: [10.{net}.0.0/24]\n---\n");
    let group = "kind: Group\nname: web\n---\n";
    let apply = |set: &str, text: &str, more: &[&str]| at.pipe(&[&["apply", "-f", "-", "--set", set], more].concat(), text);
    at.pipe(&["apply", "-f", "-"], &pool("mine", 1)).ok();
    apply("a", &(pool("eu", 2) + &pool("both", 3) + group), &[]).ok();
    apply("b", &(pool("us", 4) + &pool("both", 3)), &[]).ok();
    // Without --prune nothing goes, and what was applied before is not forgotten.
    apply("a", &pool("new", 5), &[]).ok();
    let before = at.keys();
    let text = pool("new", 5);
    let trial = apply("a", &text, &["--prune", "--dry-run"]).ok();
    assert_eq!(trial, "pool new unchanged\npool eu would be deleted\ngroup web would be deleted\n");
    assert_eq!(at.keys(), before);
    // What is in use stays, and then nothing is written.
    bound_node(&at, "a", "10.2.0.5");
    apply("a", &text, &["--prune"]).fails(5, "pool eu is in use: 1 node has addresses of it (a)");
    at.etcd.etcdctl(&["del", "/enlist/nodes/", "--prefix"]).unwrap();
    at.etcd.etcdctl(&["del", "/enlist/claims/", "--prefix"]).unwrap();
    assert_eq!(at.keys(), before);
    assert_eq!(apply("a", &text, &["--prune"]).ok(), "pool new unchanged\npool eu deleted\ngroup web deleted\n");
    assert_eq!(at.run(&["get", "pools", "-o", "name"]).ok(), "both\nmine\nnew\nus\n");
    assert_eq!(apply("a", &text, &["--prune"]).ok(), "pool new unchanged\n");
    // Once no other set names it, it goes with its last one.
    assert_eq!(apply("b", &pool("us", 4), &["--prune"]).ok(), "pool us unchanged\npool both deleted\n");
    at.pipe(&["apply", "-f", "-", "--prune"], &text).fails(2, "--set");
    let found = at.run(&["check", "-o", "json"]).json();
    let codes: Vec<&str> = found.as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["no-leader"; 3], "no role runs here, and nothing else is to be found");
}
