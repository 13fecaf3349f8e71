//! The same bad things, put into etcd by hand: a finding and a condition on that key, and everything else goes on.

use super::{At, bound_node, label, status};

#[test]
fn what_was_put_by_hand_costs_only_itself() {
    let at = At::start();
    at.pipe(&["apply", "-f", "-"], "{kind: Pool, name: eu, cidrs: [10.20.0.0/24]}").ok();
    bound_node(&at, "good", "10.20.0.1");
    at.put("nodes/good/status", &status("good", "registered"));
    at.put("pools/bad", r#"{"v":1,"kind":"Pool","name":"bad","cidrs":["10.30.0.0/24"],"selctor":"zone=eu-1"}"#);
    at.put("pools/newer", r#"{"v":2,"new":true}"#);
    at.put("groups/bad", r#"{"v":1,"kind":"Group","name":"bad","selector":"a in ("}"#);
    at.put("nodes/bad/label", "not JSON");
    at.put("nodes/bad/status", &status("bad", "joining"));
    at.put("nodes/other/label", &label("somebody-else"));
    at.put("claims/default/10.20.0.7", "?");
    at.put("claims/default/010.020.000.007", "?");

    let found = at.run(&["check", "-o", "json"]);
    assert_eq!(found.code, 3, "{found:?}");
    for key in [
        "pools/bad",
        "pools/newer",
        "groups/bad",
        "nodes/bad/label",
        "nodes/other/label",
        "claims/default/10.20.0.7",
        "claims/default/010.020.000.007",
    ] {
        assert!(found.stdout.contains(&format!("\"{key}\"")), "no finding about {key}:\n{}", found.stdout);
    }
    assert!(!found.stdout.contains("nodes/good/"), "{}", found.stdout);

    let pools = at.run(&["get", "pools", "-o", "json"]).json();
    let condition = |name: &str| {
        let pool = pools.as_array().unwrap().iter().find(|pool| pool["name"] == name).unwrap();
        (pool["condition"].as_str().unwrap().to_owned(), pool["message"].as_str().unwrap().to_owned())
    };
    assert_eq!(condition("eu").0, "ok");
    assert_eq!(condition("bad").0, "invalid");
    assert!(condition("bad").1.contains("selctor"));
    assert!(condition("newer").1.contains("newer"));
    let groups = at.run(&["get", "groups", "-o", "json"]).json();
    assert_eq!(groups[0]["condition"], "invalid");
    let nodes = at.run(&["get", "nodes", "-o", "json"]).json();
    let phase = |id: &str| nodes.as_array().unwrap().iter().find(|node| node["id"] == id).unwrap()["phase"].clone();
    assert_eq!(phase("good"), "registered");
    assert_eq!(phase("bad"), "joining");
    let described = at.run(&["describe", "pool", "bad"]).ok();
    assert!(described.contains("/enlist/pools/bad") && described.contains("selctor"), "{described}");
    // What cannot be read counts as taken.
    let pool = pools.as_array().unwrap().iter().find(|pool| pool["name"] == "eu").unwrap();
    assert_eq!((pool["bound"].as_u64(), pool["free"].as_u64()), (Some(2), Some(252)));
}
