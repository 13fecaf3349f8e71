//! Wrong inputs: for each its exit code and what is said. 2 = the command line or a setting cannot be, 6 = the store refused or is
//! unreachable. Never 1, and never a password.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Answer, Running, answer, enlist, write};
use crate::support::certs::Certs;
use crate::support::etcd::{Etcd, EtcdOptions, EtcdVersion};
use crate::support::wait::until_blocking;

fn alone(words: &[&str]) -> Answer {
    let mut command = enlist();
    command.args(words);
    answer(command)
}

fn check(words: &[&str], code: i32, says: &[&str]) {
    let said = alone(words);
    assert_eq!(said.code, code, "{words:?}: {said:?}");
    assert_eq!(said.stdout, "", "{words:?}");
    for says in says {
        assert!(said.stderr.contains(says), "{words:?}: {says:?} is not in {said:?}");
    }
    assert!(!said.stderr.contains("pw-1"), "a password: {said:?}");
}

#[test]
fn a_wrong_command_line_is_2_and_says_what_was_meant() {
    let folder = tempfile::tempdir().unwrap();
    let template = write(folder.path(), "app.conf.j2", "listen {{ ip }}:{{ prot }}\n");
    let none = write(folder.path(), "ca.pem", "nothing\n");
    let written = format!("app.conf={template}");
    for (words, says) in [
        (vec!["gte", "nodes"], vec!["there is no command \"gte\"", "did you mean get?"]),
        (vec!["aplpy"], vec!["did you mean apply?"]),
        (vec!["-o", "json", "get", "nodes"], vec!["-o goes after the command", "enlist get nodes -o json"]),
        (vec!["apply", "x.yaml"], vec!["did you mean enlist apply -f x.yaml?"]),
        (vec!["get", "nodes", "--prefix", "/enlist/"], vec!["source.prefix (flag --prefix)", "did you mean /enlist?"]),
        (vec!["get", "nodes", "--endpoints", "http://u:pw-1@h:1"], vec!["source.endpoints (flag --endpoints)", "--user"]),
        (vec!["get", "nodes", "--endpoints", "u:pw-1@h"], vec!["source.endpoints", "--user"]),
        (vec!["get", "nodes", "--cacert", &none], vec!["source.cacert (flag --cacert)", &none, "there is none in it"]),
        (vec!["get", "nodes", "--cert", &none, "--key", &none], vec!["source.cert (flag --cert)", &none]),
        (vec!["get", "nodes", "--password-file", &none], vec!["source.password_file (flag --password-file)", "source.user"]),
        (vec!["agent", "--id", "a", "--write", &written], vec![&template, "\"prot\" is not defined, did you mean port?"]),
        (vec!["purge", "--yes", "--endpoints", ""], vec!["--endpoints is empty"]),
    ] {
        check(&words, 2, &says);
    }
    // What is there for the tour alone is not suggested.
    let said = alone(&["sample"]);
    assert!(said.code == 2 && !said.stderr.contains("sample-service"), "{said:?}");
    let mut command = enlist();
    command.args(["purge", "--yes"]).env("ENLIST__SOURCE__ENDPOINTS", "");
    answer(command).fails(2, "variable ENLIST__SOURCE__ENDPOINTS is empty");
}

#[test]
fn tls_that_does_not_fit_is_6_and_says_what_to_do() {
    let certs = Certs::generate();
    let secure = Etcd::start_with(EtcdVersion::V3_5, &EtcdOptions { tls: Some(certs.clone()), ..EtcdOptions::default() });
    let plain = Etcd::start(EtcdVersion::V3_4);
    let [ca, cert, key] = [certs.ca(), certs.client_cert(), certs.client_key()].map(|path| path.to_str().unwrap().to_owned());
    let at = |etcd: &Etcd, words: &[&str], says: &[&str]| {
        check(&[&["get", "nodes", "--endpoints", &etcd.endpoint], words].concat(), 6, says);
    };
    at(&secure, &[], &["if etcd speaks TLS", "--cacert"]);
    at(&secure, &["--cacert", &ca], &["client certificate", "--cert"]);
    at(&plain, &["--cacert", &ca], &["TLS", "is it spoken there?"]);
    at(&plain, &["--cacert", &ca, "--cert", &cert, "--key", &key], &["TLS"]);
}

#[test]
fn a_denied_request_is_6_and_names_user_verb_and_key() {
    let etcd = Etcd::start(EtcdVersion::V3_5);
    for words in ["user add root:pw-1", "user add a:pw-1", "user grant-role root root", "role add none", "user grant-role a none"]
    {
        etcd.etcdctl(&words.split(' ').collect::<Vec<_>>()).unwrap();
    }
    etcd.etcdctl(&["auth", "enable"]).unwrap();
    let at = |words: &[&str], says: &[&str]| check(&[words, &["--endpoints", &etcd.endpoint]].concat(), 6, says);
    at(&["get", "nodes", "--user", "a:pw-1"], &["user \"a\" may not read /enlist/nodes/"]);
    at(&["get", "nodes", "--user", "a:pw-12"], &["authentication failed"]);
    at(&["run", "--user", "a:pw-1"], &["user \"a\" may not read /enlist/"]);
}

/// `enlist run` is given other endpoints, and another password, while it runs.
#[test]
fn a_role_takes_other_endpoints_at_sighup() {
    let (first, second) = (Etcd::start(EtcdVersion::V3_4), Etcd::start(EtcdVersion::V3_5));
    let folder = tempfile::tempdir().unwrap();
    let settings = |endpoint: &str| write(folder.path(), "enlist.toml", &format!("[source]\nendpoints = [\"{endpoint}\"]\n"));
    let file = settings(&first.endpoint);
    let mut command = enlist();
    command.args(["run", "allocator", "--config", &file]).env("ENLIST__ROLES__LEADER_TTL", "2s");
    let mut role = Running::start(command);
    role.line("started");
    // Only who has been in a cluster can notice another one.
    role.line("leading");
    settings("nonsense");
    role.signal(Signal::SIGHUP);
    role.line("the settings cannot be used; the former ones stay");
    settings(&second.endpoint);
    role.signal(Signal::SIGHUP);
    role.line("the settings were read again");
    role.line("another etcd cluster than before");
    until_blocking("it leads at the second", Duration::from_secs(60), || {
        let leads = second.etcdctl(&["get", "/enlist/leaders/allocator/", "--prefix", "--keys-only"]).unwrap();
        leads.contains("/enlist/leaders/allocator/").then_some(())
    });
    role.signal(Signal::SIGTERM);
    assert_eq!(role.end(), 0);
}

/// An endpoint that is dead among live ones is logged once, and once when it answers, whichever of them is used.
#[test]
fn a_dead_endpoint_is_logged_once_and_when_it_is_back() {
    let mut members = Etcd::start_cluster(EtcdVersion::V3_5);
    let endpoints: Vec<String> = members.iter().map(|member| member.endpoint.clone()).collect();
    let mut command = enlist();
    command.args(["run", "allocator", "--endpoints", &endpoints.join(",")]);
    let mut role = Running::start(command);
    role.line("started");
    members[1].kill();
    let said = role.line("an endpoint does not answer; the others are used");
    assert!(said.contains(&endpoints[1]), "{said}");
    members[1].restart();
    let back = role.line("an endpoint answers again");
    assert!(back.contains(&endpoints[1]), "{back}");
    role.signal(Signal::SIGTERM);
    assert_eq!(role.end(), 0);
    role.said.extend(role.lines.try_iter());
    assert_eq!(role.said.iter().filter(|line| line.contains("an endpoint does not answer")).count(), 1);
}
