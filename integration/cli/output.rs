//! What `get` writes: formats, field names, watching, and a reader that goes away.

use std::collections::BTreeSet;
use std::io::Read;

use super::{At, Running, bound_node, label};

fn fields(object: &serde_json::Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn json_has_the_documented_fields() {
    let at = At::start();
    at.pipe(&["apply", "-f", "-"], "{kind: Pool, name: eu, cidrs: [10.20.0.0/24, 'fd00:20::/64']}").ok();
    at.pipe(&["apply", "-f", "-"], "{kind: Group, name: web, selector: zone=eu-1}").ok();
    bound_node(&at, "a", "10.20.0.1");
    at.put_status("a", "registered");
    let one = |kind: &str| at.run(&["get", kind, "-o", "json"]).json()[0].clone();
    let node = one("nodes");
    let expected =
        ["id", "phase", "reason", "addresses", "ports", "pool", "groups", "variables", "generation", "revision", "since"];
    assert_eq!(fields(&node), expected.into_iter().collect());
    assert_eq!(node["phase"], "registered");
    assert_eq!(node["addresses"][0], "10.20.0.1");
    assert_eq!(node["ports"]["main"], 30000);
    assert_eq!(node["groups"], serde_json::json!([]));
    assert_eq!(node["since"], "2026-01-01T00:00:00Z");
    assert_eq!(one("assignments")["terms"]["hold_s"], 600);
    assert_eq!(one("claims")["state"], "bound");
    assert_eq!(one("groups")["condition"], "new");
    // Nobody renews the copies that groups rest on: said as data and as talk.
    assert!(one("groups")["copies_lag_s"].is_null() && one("roles")["lag"].is_null());
    assert!(at.run(&["get", "groups"]).stderr.contains("no relay leads"));
    at.put("roles/relay", r#"{"v":1,"identity":"h/1","version":"0.1.0","revision":9,"lag":3,"counters":{"lag_s":77}}"#);
    assert_eq!(one("groups")["copies_lag_s"], 77);
    assert!(at.run(&["get", "members", "web"]).stderr.contains("77 s behind"));
    let pool = one("pools");
    assert!(pool["total"].is_string() && pool["free"].is_string(), "IPv6 counts are texts: {pool}");
    assert_eq!(at.run(&["get", "roles", "-o", "name"]).ok(), "allocator\nrelay\nmanager\n");
}

/// The fields that docs/json.md names in the row of a kind or a command.
fn documented(row: &str) -> BTreeSet<String> {
    let tables = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/json.md")).unwrap();
    let line = tables.lines().find(|line| line.starts_with(&format!("| {row}"))).unwrap();
    let fields = line.split(" | ").nth(1).unwrap().split('`').nth(1).unwrap();
    fields.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn documents_name_every_field() {
    let at = At::start();
    at.pipe(&["apply", "-f", "-"], "{kind: Pool, name: eu, cidrs: [10.20.0.0/24]}").ok();
    at.pipe(&["apply", "-f", "-"], "{kind: Group, name: web, selector: zone=eu-1}").ok();
    bound_node(&at, "a", "10.20.0.1");
    at.put("manager/nodes/a/label", &label("a"));
    at.put("manager/groups/web/members/a", r#"{"v":1,"node":"a","addresses":[],"ports":{},"state":"ready","published":true}"#);
    at.put("pools/bad", "?");
    let check = |row: &str, object: &serde_json::Value| {
        let seen: BTreeSet<String> = object.as_object().unwrap().keys().cloned().collect();
        assert_eq!(seen, documented(row), "{row}");
    };
    for kind in ["nodes", "assignments", "claims", "pools", "groups", "members", "roles"] {
        check(kind, &at.run(&["get", kind, "-o", "json"]).json()[0]);
    }
    check("`describe`", &at.run(&["describe", "pool", "eu", "-o", "json"]).json());
    check("`explain node`", &at.run(&["explain", "node", "a", "-o", "json"]).json());
    check("`explain group`", &at.run(&["explain", "group", "web", "--node", "a", "-o", "json"]).json());
    let found = at.run(&["check", "-o", "json"]);
    assert_eq!(found.code, 3);
    check("`check`", &serde_json::from_str::<serde_json::Value>(&found.stdout).unwrap()[0]);
}

#[test]
fn formats_and_selectors() {
    let at = At::start();
    for id in ["a", "b"] {
        at.put(&format!("nodes/{id}/label"), &label(id));
    }
    at.put("nodes/b/label", &label("b").replace("eu-1", "eu-2"));
    assert_eq!(at.run(&["get", "nodes", "-o", "name"]).ok(), "a\nb\n");
    assert_eq!(at.run(&["get", "nodes", "-o", "name", "-l", "zone in (eu-2)"]).ok(), "b\n");
    assert_eq!(at.run(&["get", "node", "a", "-o", "json"]).json().as_array().unwrap().len(), 1, "always a list");
    let table = at.run(&["get", "nodes"]).ok();
    assert!(table.lines().nth(1).unwrap().starts_with("a      silent"), "{table}");
    assert!(at.run(&["get", "nodes", "-o", "wide"]).ok().contains("zone=eu-1"));
    assert!(at.run(&["get", "nodes", "-o", "yaml"]).ok().starts_with("- id: a\n"));
}

#[test]
fn the_brake_is_shown_without_another_word() {
    let at = At::start();
    let shown = at.run(&["brake"]).ok();
    assert_eq!(shown.lines().next(), Some("ROLE        BRAKE       SINCE   WHY"));
    assert_eq!(shown, at.run(&["brake", "status"]).ok());
    assert_eq!(at.run(&["brake", "-o", "json"]).json().as_array().map(Vec::len), Some(3));
}

#[test]
fn a_description_begins_with_what_one_looks_for() {
    let at = At::start();
    bound_node(&at, "a", "10.20.0.1");
    at.put("nodes/a/label", &label("a").replace(r#""since""#, r#""description":"video cache","since""#));
    at.put_status("a", "registered");
    let described = at.run(&["describe", "node", "a"]).ok();
    let lines: Vec<&str> = described.lines().collect();
    for (line, says) in ["node a", "  id: ", "  description: video cache", "  phase: "].iter().enumerate() {
        let line = lines[line].split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(line.starts_with(says.trim()), "{says:?} is not in its place:\n{described}");
    }
    assert!(described.contains("127.0.0.1:9"), "its temporary endpoint:\n{described}");
    let object = at.run(&["describe", "node", "a", "-o", "json"]).json()["object"].clone();
    assert_eq!((&object["description"], &object["temporary"]), (&"video cache".into(), &"127.0.0.1:9".into()));
}

#[test]
fn a_group_that_cannot_be_read_is_not_shown_as_everybody() {
    let at = At::start();
    at.put("groups/bad", "?");
    at.pipe(&["apply", "-f", "-"], "{kind: Group, name: good, selector: ''}").ok();
    let table = at.run(&["get", "groups"]).ok();
    let selector = |group: &str| {
        let line = table.lines().find(|line| line.starts_with(group)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!((selector("good").as_str(), selector("bad").as_str()), ("(all)", "-"), "{table}");
}

#[test]
fn watching_tells_each_change_on_a_line() {
    let at = At::start();
    at.put("nodes/a/label", &label("a"));
    let mut watch = Running::start(at.command(&["get", "nodes", "-w", "-o", "json"]));
    let line = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap();
    let first = line(watch.line("\"a\""));
    assert_eq!((&first["type"], &first["object"]["phase"]), (&"ADDED".into(), &"silent".into()));
    at.put_status("a", "joining");
    assert_eq!(line(watch.line("joining"))["type"], "MODIFIED");
    at.etcd.etcdctl(&["del", "--prefix", "/enlist/nodes/a/"]).unwrap();
    assert_eq!(line(watch.line("DELETED"))["object"]["id"], "a");
    watch.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(watch.end(), 0);
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let at = At::start();
    for n in 0..200 {
        at.put(&format!("nodes/n{n}/label"), &label(&format!("n{n}")));
    }
    let mut child = at.command(&["get", "nodes", "-o", "json"]).spawn().unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // Nothing but the warning that there is no allocator.
    assert!(said.lines().all(|line| line.starts_with("enlist: warning: no allocator leads")), "{said}");
}
