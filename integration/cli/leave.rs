//! `enlist leave NODE` and `enlist delete node NODE`: only a node that is away can be made to leave by others.

use nix::sys::signal::Signal;

use super::{At, Running, bound_node, status};

#[test]
fn by_how_the_node_is() {
    let at = At::start();
    bound_node(&at, "stopped", "10.20.0.1");
    at.put("nodes/stopped/status", &status("stopped", "stopped"));
    bound_node(&at, "silent", "10.20.0.2");
    bound_node(&at, "live", "10.20.0.3");
    at.put_status("live", "registered");

    at.run(&["leave", "live"]).fails(5, "is live");
    at.run(&["leave", "live", "--force"]).fails(5, "is live");
    at.run(&["leave", "silent"]).fails(5, "--force");
    let phase = |id: &str| {
        let text = at.etcd.etcdctl(&["get", &format!("/enlist/nodes/{id}/status"), "--print-value-only"]).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).map(|status| status["phase"].clone()).unwrap_or_default()
    };
    assert_eq!(phase("live"), "registered");
    assert_eq!(phase("silent"), serde_json::Value::Null, "nothing was written");

    at.run(&["leave", "stopped"]).ok();
    assert_eq!(phase("stopped"), "left");
    at.run(&["delete", "node", "silent", "--force"]).ok();
    assert_eq!(phase("silent"), "left");
    at.run(&["leave", "stopped"]).ok();
}

/// What `make-mirror`, or a copy of keys, makes of a live node: the status is there, its lease is not.
#[test]
fn a_copied_status_is_found_and_repaired() {
    let at = At::start();
    at.pipe(&["apply", "-f", "-"], "{kind: Pool, name: eu, cidrs: [10.20.0.0/24]}").ok();
    for (id, ip) in [("copied", "10.20.0.1"), ("left", "10.20.0.2")] {
        bound_node(&at, id, ip);
        at.put(&format!("nodes/{id}/status"), &status(id, "registered"));
    }
    let shown = at.run(&["get", "nodes", "-o", "json"]).json();
    assert_eq!((&shown[0]["phase"], &shown[0]["reason"]), (&"silent".into(), &"status on no lease".into()));
    let found = at.run(&["check", "-o", "json"]);
    assert_eq!(found.code, 3, "{found:?}");
    assert_eq!(found.stdout.matches("status-unleased").count(), 2, "{found:?}");
    at.run(&["leave", "left"]).fails(5, "--force");
    at.run(&["leave", "left", "--force"]).ok();
    let repaired = at.run(&["check", "--repair"]);
    assert!(repaired.stderr.contains("node copied: its status was on no lease"), "{repaired:?}");
    assert!(!repaired.stdout.contains("status-unleased"), "{repaired:?}");
    assert!(!at.keys().contains(&"/enlist/nodes/copied/status".into()), "{:?}", at.keys());
    // With roles, and no repair by hand: nobody publishes it.
    at.pipe(&["apply", "-f", "-"], "{kind: Group, name: all, selector: ''}").ok();
    let mut roles = Running::start(at.command(&["run"]));
    at.put("nodes/copied/status", &status("copied", "registered"));
    let mut members = Running::start(at.command(&["get", "members", "all", "-w", "-o", "json"]));
    members.line(r#""node":"copied","state":"suspect","published":false"#);
    roles.signal(Signal::SIGTERM);
    assert_eq!(roles.end(), 0);
}

#[test]
fn without_a_name_there_must_be_an_agent() {
    let at = At::start();
    let folder = tempfile::tempdir().unwrap();
    for says in ["no agent runs", "enlist leave NODE"] {
        at.run(&["leave", "--state-dir", folder.path().to_str().unwrap()]).fails(4, says);
    }
}
