//! How many lines the roles log in an incident, on real etcds: few while it lasts, one of each view when it is over, and each
//! names its role.
//!
//! Needs: etcd.

use std::process::Command;
use std::time::Duration;

use enlist::store::api::{Op, Store, StoreError, Txn};
use serde_json::Value as Json;

use super::{At, Running, enlist};
use crate::support::certs::Certs;
use crate::support::etcd::{Etcd, EtcdOptions, EtcdVersion};
use crate::support::wait::until;

const POOL: &str = "{kind: Pool, name: eu, cidrs: [127.89.0.0/24], ports: 31000-31099}";
const LIMIT: Duration = Duration::from_secs(60);
/// What is said of the process, not of a role.
const OF_THE_PROCESS: [&str; 3] = ["started", "stopped", "certificates or the password changed; connecting again"];

fn roles(endpoints: &str) -> Running {
    roles_with(&["--endpoints", endpoints])
}

fn roles_with(arguments: &[&str]) -> Running {
    let mut command: Command = enlist();
    command.args(["run", "--log-format", "json"]).args(arguments);
    let mut roles = Running::start(command);
    for _ in 0..3 {
        roles.line(r#""message":"leading""#);
    }
    roles
}

/// What was said since: lines that are warnings or errors. Every line of a role names it.
fn troubles(roles: &mut Running, since: usize) -> Vec<String> {
    roles.said.extend(roles.lines.try_iter());
    for line in &roles.said {
        let line: Json = serde_json::from_str(line).unwrap();
        // The process itself, and what is told once of the server that all its roles use.
        let of_the_process = OF_THE_PROCESS.contains(&line["message"].as_str().unwrap()) || line["version"].is_string();
        assert!(of_the_process || line["role"].is_string() || line["endpoint"].is_string(), "no role in {line}");
    }
    let is_trouble = |line: &&String| line.contains(r#""level":"WARN""#) || line.contains(r#""level":"ERROR""#);
    roles.said[since..].iter().filter(is_trouble).cloned().collect()
}

fn agent(endpoints: &str, state: &std::path::Path) -> Running {
    let mut command = enlist();
    command.args(["agent", "--id", "edge-7", "--lease-ttl", "2s", "--state-dir", state.to_str().unwrap()]);
    command.args(["--endpoints", endpoints]);
    Running::start(command)
}

#[test]
fn member_that_restarts_takes_a_handful_of_lines() {
    let mut members = Etcd::start_cluster(EtcdVersion::V3_5);
    let endpoints = members.iter().map(|member| member.endpoint.clone()).collect::<Vec<_>>().join(",");
    let folder = tempfile::tempdir().unwrap();
    let objects = super::write(folder.path(), "pool.yaml", POOL);
    let mut apply = enlist();
    apply.args(["apply", "-f", &objects, "--endpoints", &endpoints]);
    super::answer(apply).ok();
    let mut roles = roles(&endpoints);
    let since = roles.said.len();
    for member in &mut members {
        member.restart();
    }
    agent(&endpoints, &folder.path().join("state")).line("registered");
    let troubles = troubles(&mut roles, since);
    assert!(troubles.len() <= 12, "{}: {troubles:#?}", troubles.len());
}

#[test]
fn etcd_that_is_away_is_told_at_growing_intervals_and_its_return_once() {
    let mut at = At::start();
    let mut roles = roles(&at.etcd.endpoint);
    let since = roles.said.len();
    at.etcd.kill();
    // Told when it has been away for a while, and again half a minute later.
    roles.line("a view cannot follow etcd; retrying");
    let told = roles.said.len();
    while roles.said[told..].iter().filter(|line| line.contains("a view cannot follow etcd; retrying")).count() < 9 {
        roles.line("a view cannot follow etcd; retrying");
    }
    at.etcd.restart();
    roles.line("a view follows etcd again");
    let troubles = troubles(&mut roles, since);
    assert!(troubles.len() <= 40, "{}: {troubles:#?}", troubles.len());
}

#[test]
fn expired_certificate_is_named_as_such_in_few_lines() {
    let certs = Certs::generate();
    let options = EtcdOptions { tls: Some(certs.clone()), ..EtcdOptions::default() };
    let mut etcd = Etcd::start_with(EtcdVersion::V3_5, &options);
    let file = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
    let (ca, cert, key) = (file(certs.ca()), file(certs.client_cert()), file(certs.client_key()));
    let mut roles = roles_with(&["--endpoints", &etcd.endpoint, "--cacert", &ca, "--cert", &cert, "--key", &key]);
    let since = roles.said.len();
    certs.expire();
    etcd.restart_unready();
    for _ in 0..9 {
        let said = roles.line("a view cannot follow etcd; retrying");
        assert!(said.contains("certificate"), "{said}");
    }
    certs.renew();
    etcd.restart();
    roles.line("a view follows etcd again");
    let troubles = troubles(&mut roles, since);
    assert!(troubles.len() <= 40, "{}: {troubles:#?}", troubles.len());
}

async fn put(store: &Store, value: String) -> Result<(), StoreError> {
    store.txn(Txn { then: vec![Op::put("/other/large", value)], ..Txn::default() }).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_etcd_is_named_as_such_in_few_lines() {
    let options = EtcdOptions { flags: vec!["--quota-backend-bytes=8388608".into()], ..EtcdOptions::default() };
    let at = At { etcd: Etcd::start_with(EtcdVersion::V3_5, &options) };
    let folder = tempfile::tempdir().unwrap();
    at.pipe(&["apply", "-f", "-"], POOL).ok();
    let mut roles = roles(&at.etcd.endpoint);
    let mut agent = agent(&at.etcd.endpoint, &folder.path().join("state"));
    agent.line("registered");
    let since = roles.said.len();
    let store = at.etcd.store();
    until("etcd is full", LIMIT, || async {
        (put(&store, "x".repeat(1_000_000)).await == Err(StoreError::NoSpace)).then_some(())
    })
    .await;
    // It dies: its hold cannot be written.
    drop(agent);
    let said = roles.line(r#""requests":"writes of the role""#);
    assert!(said.contains("etcd is out of space"), "{said}");
    let said = roles.line(r#""requests":"writes of the role""#);
    assert!(said.contains("etcd is out of space"), "{said}");
    let found = at.run(&["check"]).ok();
    assert!(found.contains("etcd is out of space and refuses writes"), "{found}");
    let count = troubles(&mut roles, since);
    assert!(count.len() <= 12, "{}: {count:#?}", count.len());
    let revision = at.etcd.etcdctl(&["get", "/x", "-w", "json"]).unwrap();
    let revision = serde_json::from_str::<Json>(&revision).unwrap()["header"]["revision"].to_string();
    for command in [vec!["del", "/other/large"], vec!["compact", &revision], vec!["defrag"], vec!["alarm", "disarm"]] {
        at.etcd.etcdctl(&command).unwrap();
    }
    roles.line("etcd answers again");
}
