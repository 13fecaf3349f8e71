//! Exit codes: 0 ok, 2 usage, 3 findings, 4 not found, 5 conflict, 6 store; said on stderr, in one line.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{Answer, At, Running, answer, bound_node, enlist, label, status, write};
use crate::support::certs::Certs;
use crate::support::etcd::{Etcd, EtcdOptions, EtcdVersion, free_port};

fn alone(arguments: &[&str]) -> Answer {
    let mut command = enlist();
    command.args(arguments);
    answer(command)
}

#[test]
fn a_wrong_command_line_is_2_and_needs_no_store() {
    for (arguments, says) in [
        (vec!["get", "nods"], "did you mean nodes?"),
        (vec!["get", "nodes", "--endpoint", "x"], "--endpoints"),
        (vec!["get", "nodes", "-l", "zone in eu"], "zone in eu"),
        (vec!["get", "pools", "-l", "zone=eu"], "-l selects by a node's variables: a pool has none"),
        (vec!["get", "assignments", "-l", "zone=eu"], "an assignment has none"),
        (vec!["get", "nodes", "--prefix", "enlist"], "setting source.prefix (flag --prefix)"),
        (vec!["get", "nodes", "--prefix", "/"], "source.prefix"),
        (vec!["get", "nodes", "--dial-timeout", "2"], "dial_timeout"),
        (vec!["get", "nodes", "--cert", "x.pem"], "given together"),
        (
            vec!["get", "nodes", "--endpoints", "etcd-1"],
            "setting source.endpoints (flag --endpoints): endpoint \"etcd-1\" names no port",
        ),
        (vec!["get", "groups", "--manager-endpoints", "ftp://m:1"], "setting manager.endpoints (flag --manager-endpoints)"),
        (
            vec!["get", "nodes", "--cacert", "/nonexistent.pem"],
            "setting source.cacert (flag --cacert): /nonexistent.pem: No such file",
        ),
        (vec!["get", "groups", "--manager-cacert", "/nonexistent.pem"], "setting manager.cacert (flag --manager-cacert)"),
        (vec!["get", "nodes", "--config", "/nonexistent.toml"], "/nonexistent.toml"),
        (vec!["check", "-w", "json"], "did you mean -o json?"),
        (vec!["explain", "node", "a", "-o", "name"], "explain has -o table, json or yaml"),
        (vec!["explain", "group", "a", "--node", "a", "-o", "wide"], "explain has -o table, json or yaml"),
        (vec!["get", "nodes", "-w", "json"], "did you mean -o json?"),
        (vec!["run", "alocator"], "allocator"),
        (vec!["agent", "--var", "a b=c"], "a b"),
        (vec!["agent", "--id", "Edge 7"], "node id"),
        (vec!["agent", "--port", "80"], "port name"),
        (vec!["agent", "--lease-ttl", "1ms"], "lease"),
        (vec!["agent", "--address", "10.0.0.1", "--address", "10.0.0.2"], "setting agent.addresses (flag --address)"),
        (vec!["delete", "claim", "x"], "cannot be deleted by hand"),
    ] {
        alone(&arguments).fails(2, says);
    }
}

#[test]
fn an_unknown_setting_is_named_with_its_place_and_the_nearest_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "enlist.toml", "[source]\nendpoint = \"x\"\n");
    let says = format!("{file}:2: unknown setting source.endpoint; did you mean source.endpoints?");
    alone(&["get", "nodes", "--config", &file]).fails(2, &says);
    let mut command = enlist();
    command.args(["get", "nodes"]).env("ENLIST__SOURCE__PREFX", "/x");
    answer(command).fails(2, "variable ENLIST__SOURCE__PREFX: unknown setting source.prefx; did you mean source.prefix?");
    // Where nothing looks like it, what there is.
    for (variable, says) in [
        ("ENLIST__NOPE__X", "unknown setting nope.x; sections are agent, allocator, log, manager, relay, roles, source"),
        ("ENLIST__LOG__QQ", "unknown setting log.qq; section log has format, level"),
    ] {
        let mut command = enlist();
        command.args(["get", "nodes"]).env(variable, "1");
        answer(command).fails(2, &format!("variable {variable}: {says}"));
    }
}

#[test]
fn a_wrong_value_in_a_file_is_told_with_its_line_and_what_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    for (text, place, says) in [
        (
            "# Ours.\n[source]\ncommand_timeout = \"10\"\n",
            "setting source.command_timeout (FILE:3): ",
            "\"10\" is not a duration (it has no unit: 10s?); allowed are numbers with a unit, s, m, h or d: 90s, 10m, 1h 30m",
        ),
        ("[source]\nendpoints = [\"a:1\"]\nprefix = \"enlist\"\n", "setting source.prefix (FILE:3): ", "\"enlist\" is not valid"),
        ("[agent]\n\n[agent.variables]\nok = \"1\"\n\"a b\" = \"c\"\n", "setting agent.variables.a b (FILE:5): ", "a b"),
        ("[relay]\n\nadopt = \"perhaps\"\n", "setting relay.adopt (FILE:3): ", "perhaps"),
        ("[log]\nlevel = \"loud\"\n", "setting log.level (FILE:2): ", "not one of error"),
        ("[log]\n\nlevel =\n", "FILE:3: ", "expected"),
        ("[log]\nlevel = \"info\"\nlevel = \"warn\"\n", "FILE:3: ", "duplicate key"),
    ] {
        let file = write(folder.path(), "enlist.toml", text);
        let state = folder.path().join("state");
        let said = alone(&["agent", "--id", "a", "--state-dir", state.to_str().unwrap(), "--config", &file]);
        assert!(said.stderr.contains(says), "{says:?} is not in {said:?}");
        said.fails(2, &place.replace("FILE", &file));
    }
}

#[test]
fn a_word_that_a_setting_does_not_take_is_answered_with_those_it_takes() {
    for (name, says) in [
        ("ENLIST__LOG__FORMAT", "setting log.format (variable ENLIST__LOG__FORMAT): \"loud\" is not one of text, json"),
        ("ENLIST__LOG__LEVEL", "\"loud\" is not one of error, warn, info, debug, trace"),
    ] {
        let mut command = enlist();
        command.args(["get", "nodes"]).env(name, "loud");
        answer(command).fails(2, says);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "enlist.toml", "[log\n");
    let said = alone(&["get", "nodes", "--config", &file]);
    assert!(!said.stderr.ends_with("\n\n"), "{said:?}");
    said.fails(2, &format!("{file}:1: "));
}

#[test]
fn a_template_with_a_fault_is_refused_before_anything_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let template = write(folder.path(), "app.conf.j2", "listen {{ ip }\n");
    let state = folder.path().to_str().unwrap();
    for (template, says) in [(template.as_str(), "app.conf.j2"), ("/nonexistent.j2", "template /nonexistent.j2: No such file")] {
        alone(&["agent", "--state-dir", state, "--write", &format!("app.conf={template}")]).fails(2, says);
    }
}

#[test]
fn settings_of_all_layers_reach_the_store() {
    let at = At::start();
    at.etcd.etcdctl(&["put", "/mine/nodes/a/label", &label("a")]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file =
        write(folder.path(), "enlist.toml", &format!("[source]\nendpoints = [\"{}\"]\nprefix = \"/other\"\n", at.etcd.endpoint));
    let mut command = enlist();
    command.args(["get", "nodes", "-o", "name", "--config", &file]).env("ENLIST__SOURCE__PREFIX", "/mine");
    // What Kubernetes injects for a service called enlist is no setting.
    command.env("ENLIST_PORT", "tcp://10.0.0.1:80").env("ENLIST_SERVICE_HOST", "10.0.0.1");
    assert_eq!(answer(command).ok(), "a\n");
}

#[test]
fn a_store_that_is_away_is_6_after_the_dial_timeout() {
    let endpoint = format!("127.0.0.1:{}", free_port());
    let begin = Instant::now();
    alone(&["get", "nodes", "--endpoints", &endpoint, "--dial-timeout", "500ms"]).fails(6, &endpoint);
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[test]
fn refused_credentials_are_6_for_commands_roles_and_agents() {
    let at = At::start();
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["user", "add", "root:right"][..], &["user", "grant-role", "root", "root"], &["auth", "enable"]] {
        at.etcd.etcdctl(arguments).unwrap();
    }
    let state = folder.path().to_str().unwrap();
    for arguments in [&["get", "nodes"][..], &["run"], &["agent", "--id", "a", "--state-dir", state]] {
        at.run(&[arguments, &["--user", "root:wrong"]].concat()).fails(6, "etcd refused");
        at.run(arguments).fails(6, "etcd refused");
    }
    assert!(at.run(&["get", "nodes", "--user", "root:right"]).ok().starts_with("NODE"));
    assert!(at.run(&["get", "nodes", "--user", "root", "--password", "right"]).ok().starts_with("NODE"));
}

#[test]
fn what_is_not_there_is_4() {
    let at = At::start();
    for arguments in [
        &["get", "node", "a"][..],
        &["get", "pool", "a"],
        &["describe", "node", "a"],
        &["describe", "group", "a"],
        &["explain", "node", "a"],
        &["explain", "group", "a", "--node", "b"],
        &["delete", "pool", "a"],
        &["delete", "group", "a"],
        &["delete", "node", "a"],
        &["leave", "a"],
    ] {
        at.run(arguments).fails(4, "a");
    }
    assert!(at.run(&["get", "nodes"]).ok().starts_with("NODE"), "an empty list is no fault");
    at.run(&["get", "members", "a"]).fails(4, "there is no group a");
    at.pipe(&["apply", "-f", "-"], "{kind: Group, name: web, selector: role=web}").ok();
    assert_eq!(at.run(&["get", "members", "web", "-o", "json"]).ok(), "[]\n", "a group without members is no fault");
}

#[test]
fn findings_are_3_and_repair_ends_them() {
    let at = At::start();
    assert!(at.run(&["check"]).ok().contains("nothing is stored below /enlist/"), "a mistyped prefix looks like this");
    bound_node(&at, "a", "10.20.0.1");
    at.put("nodes/a/status", &status("a", "stopped"));
    // No role runs, and the pool is not there: warnings, which fail only if that is asked for.
    let shown = at.run(&["check"]).ok();
    for told in
        ["no allocator leads", "no relay leads", "no manager leads", "pool eu is deleted and still in use: 1 node is bound to it"]
    {
        assert!(shown.contains(told), "{told}: {shown}");
    }
    let found = at.run(&["check", "--fail-on", "warning", "-o", "json"]);
    assert_eq!(found.code, 3, "{found:?}");
    assert!(!found.stdout.contains(r#""severity": "error""#), "{found:?}");
    // A claim that no assignment accounts for.
    at.put("claims/default/10.20.0.9", r#"{"v":1,"node":"a","state":"bound","pool":"eu"}"#);
    let found = at.run(&["check", "-o", "json"]);
    assert_eq!(found.code, 3, "{found:?}");
    assert!(found.stdout.contains("claims/default/10.20.0.9"), "{found:?}");
    assert!(!at.run(&["check", "--repair"]).ok().contains("error"));
    assert!(at.keys().contains(&"/enlist/claims/default/10.20.0.1".into()), "what is right stays");
}

#[test]
fn a_role_waits_for_its_store_says_so_once_and_stops_in_order() {
    let port = free_port();
    let mut command = enlist();
    command.args(["run", "manager", "--endpoints", &format!("127.0.0.1:{port}"), "--command-timeout", "1s"]);
    let mut role = Running::start(command);
    role.line("the store is away");
    role.signal(Signal::SIGTERM);
    assert_eq!(role.end(), 0);
    role.said.extend(role.lines.try_iter());
    assert_eq!(role.said.iter().filter(|line| line.contains("the store is away")).count(), 1);
}

#[test]
fn version_tells_version_and_commit() {
    let text = alone(&["--version"]).ok();
    assert!(text.starts_with(&format!("enlist {} (", env!("CARGO_PKG_VERSION"))), "{text}");
}

#[test]
fn tls_is_spoken_with_what_flags_and_settings_name() {
    let certs = Certs::generate();
    let etcd = Etcd::start_with(EtcdVersion::V3_5, &EtcdOptions { tls: Some(certs.clone()), ..EtcdOptions::default() });
    let endpoint = etcd.endpoint.as_str();
    let [ca, cert, key] = [certs.ca(), certs.client_cert(), certs.client_key()].map(|path| path.to_str().unwrap().to_owned());
    let run = |words: &[&str], variables: &[(&str, &str)]| {
        let mut command = enlist();
        command.args(["get", "pools", "--endpoints", endpoint]).args(words).envs(variables.iter().copied());
        answer(command)
    };
    run(&["--cacert", &ca, "--cert", &cert, "--key", &key], &[]).ok();
    run(&["--insecure-skip-tls-verify", "--cert", &cert, "--key", &key], &[]).ok();
    let section = ["CACERT", "CERT", "KEY"].map(|name| format!("ENLIST__SOURCE__{name}"));
    run(&[], &[(section[0].as_str(), ca.as_str()), (&section[1], &cert), (&section[2], &key)]).ok();
    // Another authority's server is not talked to.
    let strangers = Certs::generate();
    run(&["--cacert", strangers.ca().to_str().unwrap(), "--cert", &cert, "--key", &key], &[]).fails(6, "certificate");
}

#[test]
fn a_self_signed_certificate_is_refused_in_plain_words() {
    let certs = Certs::self_signed();
    let etcd = Etcd::start_with(EtcdVersion::V3_5, &EtcdOptions { tls: Some(certs.clone()), ..EtcdOptions::default() });
    let [ca, cert, key] = [certs.ca(), certs.client_cert(), certs.client_key()].map(|path| path.to_str().unwrap().to_owned());
    let said = alone(&["get", "pools", "--endpoints", &etcd.endpoint, "--cacert", &ca, "--cert", &cert, "--key", &key]);
    assert!(!said.stderr.contains("Other"), "{said:?}");
    said.fails(6, "the server shows the certificate of an authority (CA:TRUE) as its own");
}
