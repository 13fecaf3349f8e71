//! `enlist dev`: the whole pipeline with real agents, and no process left behind.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use super::{At, LIMIT, Running, enlist};
use crate::support::wait::until_blocking;

fn dev(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = enlist();
    command.arg("dev").args(arguments).arg("--data-dir").arg(folder.join("dev")).current_dir(folder);
    command
}

/// Processes that name this folder on their command line or in their environment: etcd, sample services.
fn processes_of(folder: &Path) -> BTreeSet<i32> {
    let wanted = folder.to_str().unwrap();
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let has = |file: &str| {
            let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).contains(wanted)
        };
        has("cmdline") || has("environ")
    })
    .collect()
}

fn none_left(folder: &Path) {
    until_blocking("nothing is left behind", LIMIT, || processes_of(folder).is_empty().then_some(()));
}

/// The folder is also in the environment, so that children that do not name it can be found.
fn marked(mut command: Command, folder: &Path) -> Command {
    command.env("TEST_FOLDER", folder);
    command
}

#[test]
fn eight_nodes_register_and_it_ends_with_0() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = Running::start(marked(dev(folder.path(), &["--exit-when-registered"]), folder.path()));
    let code = running.end();
    running.said.extend(running.lines.iter());
    let said = running.said.join("\n");
    assert_eq!(code, 0, "{said}");
    for n in 1..=8 {
        let at =
            |word: &str| running.said.iter().position(|line| line.starts_with(&format!("sample-{n} ")) && line.contains(word));
        let (joining, assigned, registered) = (at("joining"), at("assigned"), at("registered"));
        assert!(joining.is_some() && joining < assigned && assigned < registered, "sample-{n}:\n{said}");
    }
    for text in ["POOL ", "GROUP ", "etcdctl --endpoints 127.0.0.1:", "get nodes -w"] {
        assert!(said.contains(text), "{text:?} is missing:\n{said}");
    }
    none_left(folder.path());
}

#[test]
fn ctrl_c_leaves_nothing_behind_and_neither_does_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    for (signal, code) in [(Signal::SIGINT, 0), (Signal::SIGKILL, -1)] {
        let mut running = Running::start(marked(dev(folder.path(), &["--nodes", "3"]), folder.path()));
        running.line("Ctrl-C ends it");
        // Itself, etcd, and a service for each node.
        assert!(processes_of(folder.path()).len() >= 5, "{:?}", processes_of(folder.path()));
        running.signal(signal);
        assert_eq!(running.end(), code);
        none_left(folder.path());
    }
}

#[test]
fn when_its_etcd_ends_it_says_so_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = Running::start(marked(dev(folder.path(), &["--nodes", "1"]), folder.path()));
    running.line("Ctrl-C ends it");
    let is_etcd = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "etcd");
    let etcd = processes_of(folder.path()).into_iter().find(is_etcd).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(etcd), Signal::SIGKILL).unwrap();
    let said = running.line("the private etcd ended");
    assert!(said.contains("etcd.log"), "{said}");
    assert_eq!(running.end(), 1);
    none_left(folder.path());
}

#[test]
fn while_it_runs_every_command_answers() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = Running::start(dev(folder.path(), &[]));
    let first = running.line("etcd 3.");
    let endpoint = first.split(" at ").nth(1).unwrap().split(',').next().unwrap().to_owned();
    running.line("Ctrl-C ends it");
    let ask = |arguments: &[&str]| {
        let mut command = enlist();
        command.args(arguments).args(["--endpoints", &endpoint]);
        super::answer(command)
    };
    assert_eq!(ask(&["check"]).ok(), "nothing found\n");
    let nodes = ask(&["get", "nodes", "-o", "json"]).json();
    let nodes = nodes.as_array().unwrap();
    assert_eq!(nodes.len(), 8);
    for node in nodes {
        assert_eq!(node["phase"], "registered");
        // It really listens where it was told to, and says who it is.
        for port in node["ports"].as_object().unwrap().values() {
            let at = format!("{}:{port}", node["addresses"][0].as_str().unwrap());
            let mut greeting = String::new();
            std::io::Read::read_to_string(&mut std::net::TcpStream::connect(&at).unwrap(), &mut greeting).unwrap();
            assert_eq!(greeting, format!("this is {} on {at}\n", node["id"].as_str().unwrap()));
        }
    }
    let explained = ask(&["explain", "node", "sample-1"]).ok();
    assert!(explained.contains("eu-1  chosen") && explained.contains("eu-2  no-match"), "{explained}");
    let term = ask(&["explain", "group", "gpu", "--node", "sample-1"]).ok();
    assert!(term.contains("sample-1 is not in group gpu") && term.contains("no   gpu>0"), "{term}");
    let described = ask(&["describe", "node", "sample-1"]).ok();
    for key in
        ["nodes/sample-1/label", "claims/default/127.20.", "manager/nodes/sample-1/label", "manager/groups/all/members/sample-1"]
    {
        assert!(described.contains(key), "{key} is not in:\n{described}");
    }
    let members = ask(&["get", "members", "web", "-o", "json"]).json();
    assert!(members.as_array().unwrap().iter().all(|member| member["state"] == "ready" && member["published"] == true));
    let roles = ask(&["get", "roles", "-o", "json"]).json();
    assert!(roles.as_array().unwrap().iter().all(|role| role["leader"] != "" && role["standby"] == 0), "{roles}");
    let dry = "{kind: Pool, name: eu-1, cidrs: [127.20.1.0/24], selector: zone=eu-1, on_mismatch: move}";
    let file = super::write(folder.path(), "move.yaml", dry);
    let said = ask(&["apply", "-f", &file, "--dry-run"]).ok();
    assert!(said.contains("another answer for 3 nodes"), "{said}");
    // A change is told in the running demonstration.
    ask(&["apply", "-f", &file]).ok();
    running.line("assigned    127.20.1.");
}

#[test]
fn on_your_etcd_it_writes_beside_yours_and_cleans_up() {
    let at = At::start();
    let folder = tempfile::tempdir().unwrap();
    at.put("pools/mine", "?");
    let on_yours = |arguments: &[&str]| {
        let mut command = dev(folder.path(), arguments);
        command.args(["--endpoints", &at.etcd.endpoint, "--exit-when-registered", "--nodes", "3"]);
        super::answer(command)
    };
    let said = on_yours(&[]).ok();
    assert!(said.contains("--prefix /enlist-dev/nodes/sample-1/"), "{said}");
    assert_eq!(at.keys(), ["/enlist/pools/mine"], "what it wrote is gone, what was there is not");
    on_yours(&["--prefix", "/enlist"]).fails(5, "there is 1 key below /enlist/");
    on_yours(&["--prefix", "/enlist"]).fails(5, "--force");
    assert_eq!(at.keys(), ["/enlist/pools/mine"]);
    on_yours(&["--prefix", "/enlist", "--force"]).ok();
    assert_eq!(at.keys(), ["/enlist/pools/mine"]);
}

#[test]
fn a_prefix_that_is_given_is_used_on_the_private_etcd_too() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--nodes", "1", "--exit-when-registered", "--prefix", "/mine"];
    let said = super::answer(dev(folder.path(), &arguments)).ok();
    assert!(said.contains("get --prefix /mine/nodes/sample-1/"), "{said}");
    super::answer(dev(folder.path(), &["--prefix", "mine"])).fails(2, "setting source.prefix (flag --prefix)");
}

#[test]
fn an_etcd_binary_that_is_not_there_or_does_not_come_up_is_named() {
    let folder = tempfile::tempdir().unwrap();
    super::answer(dev(folder.path(), &["--etcd", "/nonexistent/etcd"])).fails(4, "/nonexistent/etcd");
    let broken = super::write(folder.path(), "etcd", "#!/bin/sh\necho the disk is full >&2\nexit 1\n");
    std::fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    super::answer(dev(folder.path(), &["--etcd", &broken])).fails(1, "the disk is full");
}

#[test]
fn without_an_etcd_binary_it_says_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = dev(folder.path(), &[]);
    command.env("PATH", folder.path());
    super::answer(command).fails(4, "apt-get install etcd-server");
}
