//! What `get` writes: formats, field names, watching, and a reader that goes away.

use std::collections::BTreeSet;
use std::io::Read;

use super::{At, Running, bound_node, label, status};

fn fields(object: &serde_json::Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn json_has_the_documented_fields() {
    let at = At::start();
    at.pipe(&["apply", "-f", "-"], "{kind: Pool, name: eu, cidrs: [10.20.0.0/24, 'fd00:20::/64']}").ok();
    at.pipe(&["apply", "-f", "-"], "{kind: Group, name: web, selector: zone=eu-1}").ok();
    bound_node(&at, "a", "10.20.0.1");
    at.put("nodes/a/status", &status("a", "registered"));
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
    let pool = one("pools");
    assert!(pool["total"].is_string() && pool["free"].is_string(), "IPv6 counts are texts: {pool}");
    assert_eq!(at.run(&["get", "roles", "-o", "name"]).ok(), "allocator\nrelay\nmanager\n");
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
fn watching_tells_each_change_on_a_line() {
    let at = At::start();
    at.put("nodes/a/label", &label("a"));
    let mut watch = Running::start(at.command(&["get", "nodes", "-w", "-o", "json"]));
    let line = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap();
    let first = line(watch.line("\"a\""));
    assert_eq!((&first["type"], &first["object"]["phase"]), (&"ADDED".into(), &"silent".into()));
    at.put("nodes/a/status", &status("a", "joining"));
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
    assert_eq!(said, "");
}
