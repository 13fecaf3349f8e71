//! `enlist leave NODE` and `enlist delete node NODE`: only a node that is away can be made to leave by others.

use super::{At, bound_node, status};

#[test]
fn by_how_the_node_is() {
    let at = At::start();
    bound_node(&at, "stopped", "10.20.0.1");
    at.put("nodes/stopped/status", &status("stopped", "stopped"));
    bound_node(&at, "silent", "10.20.0.2");
    bound_node(&at, "live", "10.20.0.3");
    at.put("nodes/live/status", &status("live", "registered"));

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

#[test]
fn without_a_name_there_must_be_an_agent() {
    let at = At::start();
    let folder = tempfile::tempdir().unwrap();
    for says in ["no agent runs", "enlist leave NODE"] {
        at.run(&["leave", "--state-dir", folder.path().to_str().unwrap()]).fails(4, says);
    }
}
