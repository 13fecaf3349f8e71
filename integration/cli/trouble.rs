//! Trouble of one role, on real etcds: it stops no other role, and a leader that etcd refuses makes room for one that it lets in.
//!
//! Needs: etcd.

use std::time::Duration;

use serde_json::Value as Json;

use super::{At, Running, answer, enlist};
use crate::support::etcd::{Etcd, EtcdVersion, free_port};
use crate::support::wait::until_blocking;

const LIMIT: Duration = Duration::from_secs(90);
const POOL: &str = "{kind: Pool, name: eu, cidrs: [127.89.0.0/24], ports: 31000-31099}";

fn agent(at: &At, state: &std::path::Path) -> Running {
    Running::start(at.command(&["agent", "--id", "edge-7", "--state-dir", state.to_str().unwrap()]))
}

/// The manager's store away, or with a newer checkpoint: the allocator serves all the same, and what is wrong is said by role.
#[test]
fn one_roles_trouble_stops_no_other_role() {
    for away in [true, false] {
        let (at, folder) = (At::start(), tempfile::tempdir().unwrap());
        at.pipe(&["apply", "-f", "-"], POOL).ok();
        let gone = format!("127.0.0.1:{}", free_port());
        let mut arguments = vec!["run", "--log-format", "json"];
        if away {
            arguments.extend(["--manager-endpoints", &gone]);
        } else {
            at.put("manager/checkpoint", r#"{"v":2}"#);
        }
        let mut roles = Running::start(at.command(&arguments));
        let said = roles.line(if away { "the store is away; retrying" } else { "the role is stopped and stands by; retrying" });
        assert!(said.contains(r#""role":"relay""#) || said.contains(r#""role":"manager""#), "{said}");
        agent(&at, &folder.path().join("state")).line("registered");
        if !away {
            assert_eq!(
                at.etcd.etcdctl(&["get", "/enlist/manager/checkpoint", "--print-value-only"]).unwrap().trim(),
                r#"{"v":2}"#
            );
        }
        assert!(roles.child.try_wait().unwrap().is_none(), "the process goes on");
    }
}

/// An etcd with authentication, and two users who may do everything below the prefix.
fn with_users() -> Etcd {
    let etcd = Etcd::start(EtcdVersion::V3_5);
    let all = [
        "user add root:secret",
        "role add all",
        "role grant-permission all --prefix=true readwrite /enlist/",
        "user add first:word",
        "user add second:word",
        "user grant-role first all",
        "user grant-role second all",
        "user grant-role root root",
        "auth enable",
    ];
    for arguments in all {
        etcd.etcdctl(&arguments.split(' ').collect::<Vec<_>>()).unwrap();
    }
    etcd
}

#[test]
fn deleted_user_gives_its_lead_to_an_admitted_standby() {
    let etcd = with_users();
    let folder = tempfile::tempdir().unwrap();
    let command = |user: &str, arguments: &[&str]| {
        let mut command = enlist();
        command.args(arguments).args(["--endpoints", &etcd.endpoint, "--user", user, "--password", "word"]);
        command
    };
    let objects = super::write(folder.path(), "pool.yaml", POOL);
    answer(command("second", &["apply", "-f", &objects])).ok();
    let mut first = Running::start(command("first", &["run", "allocator"]));
    first.line("leading");
    let mut second = Running::start(command("second", &["run", "allocator"]));
    second.line("standing by");
    etcd.etcdctl(&["--user", "root:secret", "user", "delete", "first"]).unwrap();
    let state = folder.path().join("state");
    let mut agent = Running::start(command("second", &["agent", "--id", "edge-7", "--state-dir", state.to_str().unwrap()]));
    // Its requests are refused, and on newer connections the keep-alive of its lease as well: whichever ends the lead first.
    first.line("etcd refuses; retrying");
    second.line("leading");
    agent.line("registered");
    until_blocking("the second reports", LIMIT, || {
        let roles: Json = serde_json::from_str(&answer(command("second", &["get", "roles", "-o", "json"])).ok()).unwrap();
        let leader = roles[0]["leader"].as_str().unwrap_or_default().to_owned();
        leader.ends_with(&format!("/{}", second.child.id())).then_some(())
    });
    first.said.extend(first.lines.try_iter());
    let troubles = first.said.iter().filter(|line| line.contains("WARN") || line.contains("ERROR")).count();
    assert!((1..=10).contains(&troubles), "{troubles}: {:#?}", first.said);
}
