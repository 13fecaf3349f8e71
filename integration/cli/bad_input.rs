//! The same bad things, put into etcd by hand: a finding and a condition on that key, and everything else goes on.

use enlist::store::api::{Op, Txn};
use nix::sys::signal::Signal;

use super::{At, Running, bound_node, label};

#[test]
fn what_was_put_by_hand_costs_only_itself() {
    let at = At::start();
    at.pipe(&["apply", "-f", "-"], "{kind: Pool, name: eu, cidrs: [10.20.0.0/24]}").ok();
    bound_node(&at, "good", "10.20.0.1");
    at.put_status("good", "registered");
    at.put("pools/bad", r#"{"v":1,"kind":"Pool","name":"bad","cidrs":["10.30.0.0/24"],"selctor":"zone=eu-1"}"#);
    at.put("pools/newer", r#"{"v":2,"new":true}"#);
    at.put("groups/bad", r#"{"v":1,"kind":"Group","name":"bad","selector":"a in ("}"#);
    at.put("nodes/bad/label", "not JSON");
    at.put_status("bad", "joining");
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

/// Something bad under every kind of key that people or faults can reach.
const BAD: [(&str, &str); 26] = [
    ("pools/bad", "?"),
    ("pools/UPPER", "{}"),
    ("groups/bad", "?"),
    ("groups/UPPER", "{}"),
    ("manager/foreign", "?"),
    ("manager/nodes/good/foreign", "?"),
    ("brakes/allocator", "?"),
    ("brakes/nobody", "?"),
    ("nodes/bad/label", "?"),
    ("nodes/bad/status", "?"),
    ("nodes/bad/assignment", "?"),
    ("nodes/bad/hold", "?"),
    ("nodes/good/foreign", "?"),
    ("claims/default/127.20.0.9", "?"),
    ("claims/default/127.20.0.10/30001", "?"),
    ("claims/default/nowhere", "?"),
    ("manager/nodes/bad/label", "!"),
    ("manager/groups/all/members/good", "?"),
    ("manager/groups/ghost", "?"),
    ("roles/allocator", "?"),
    ("leaders/allocator/zzz", "?"),
    ("roles/weird", "?"),
    ("weird", "?"),
    ("zzz/below/something", "?"),
    ("nodes/clocked/hold/clock", "{}"),
    ("manager/groups/newer", r#"{"v":2}"#),
];

#[test]
fn nothing_that_runs_stops_for_it_nor_for_a_crowd_beside_the_prefix() {
    let at = At::start();
    let folder = tempfile::tempdir().unwrap();
    at.pipe(&["apply", "-f", "-"], "{kind: Pool, name: eu, cidrs: [127.20.0.0/24]}").ok();
    at.pipe(&["apply", "-f", "-"], "{kind: Group, name: all, selector: ''}").ok();
    // Names that sort right before, right after, and far from ours.
    crowd(&at, &["/enlist.", "/enlist-x/claims/default/", "/enlist2/nodes/", "/other/"]);
    let mut roles = Running::start(at.command(&["run"]));
    let agent = |id: &str| {
        let state = folder.path().join(id);
        Running::start(at.command(&["agent", "--id", id, "--state-dir", state.to_str().unwrap()]))
    };
    let mut good = agent("good");
    good.line("registered");
    let mut members = Running::start(at.command(&["get", "members", "all", "-w", "-o", "json"]));
    members.line(r#""published":true"#);

    for (key, value) in BAD {
        at.put(key, value);
    }
    // Whoever comes now is served, through every role.
    let mut late = agent("late");
    late.line("registered");
    members.line(r#""node":"late","state":"ready","published":true"#);
    let nodes = at.run(&["get", "nodes", "-o", "json"]).json();
    let phase = |id: &str| nodes.as_array().unwrap().iter().find(|node| node["id"] == id).unwrap()["phase"].clone();
    assert_eq!((phase("good"), phase("late")), ("registered".into(), "registered".into()));

    let found = at.run(&["check", "--repair", "-o", "json"]);
    assert_eq!(found.code, 3, "{found:?}");
    for key in [
        "pools/bad",
        "pools/UPPER",
        "groups/bad",
        "groups/UPPER",
        "manager/foreign",
        "manager/nodes/good/foreign",
        "brakes/nobody",
        "nodes/bad/label",
        "nodes/good/foreign",
        "claims/default/nowhere",
        "roles/weird",
        "weird",
        "zzz/below/something",
        "nodes/clocked/hold/clock",
        "manager/groups/newer",
    ] {
        assert!(found.stdout.contains(&format!("\"{key}\"")), "no finding about {key}:\n{}", found.stdout);
    }
    let code = |key: &str| {
        let found: serde_json::Value = serde_json::from_str(&found.stdout).unwrap();
        let about = found.as_array().unwrap().iter().find(|found| found["keys"][0] == key).unwrap();
        about["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(code("nodes/clocked/hold/clock"), "clock-unleased");
    assert_eq!(code("manager/groups/newer"), "group-newer");
    // `describe` says the same words.
    for (kind, name, key) in [
        ("group", "bad", "groups/bad"),
        ("group", "newer", "manager/groups/newer"),
        ("role", "allocator", "leaders/allocator/zzz"),
    ] {
        let described = at.run(&["describe", kind, name, "-o", "json"]).json();
        let about = |finding: &&serde_json::Value| finding["keys"][0] == key;
        let finding = described["findings"].as_array().unwrap().iter().find(about).unwrap_or_else(|| panic!("{described}"));
        assert_eq!(finding["code"].as_str().unwrap(), code(key), "{key}");
    }
    let told = found.stdout.matches("\"manager/nodes/good/foreign\"").count();
    assert_eq!(told, 1, "once is enough:\n{}", found.stdout);
    // The manager put its own back.
    for right in ["manager/groups/ghost", "manager/groups/all/members/good"] {
        assert!(!found.stdout.contains(right), "{right}:\n{}", found.stdout);
    }
    assert!(!at.run(&["purge"]).stdout.contains("enlist2"));

    for one in [&mut good, &mut late, &mut roles] {
        one.signal(Signal::SIGTERM);
        assert_eq!(one.end(), 0, "{:?}", one.said);
    }
}

/// Writes 1,000 keys below each of these.
fn crowd(at: &At, prefixes: &[&str]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = at.etcd.store();
        let keys: Vec<String> = prefixes.iter().flat_map(|prefix| (0..1000).map(move |n| format!("{prefix}{n}"))).collect();
        for page in keys.chunks(100) {
            let then = page.iter().map(|key| Op::put(key.as_str(), "?")).collect();
            store.txn(Txn { then, ..Txn::default() }).await.unwrap();
        }
    });
}
