//! Flags that change what roles and agents do, each on the real binary and shown by its effect.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value as Json;

use super::{At, LIMIT, Running, answer, bound_node, label, write};
use crate::support::certs::Certs;
use crate::support::etcd::{Etcd, EtcdOptions, EtcdVersion};
use crate::support::wait::until_blocking;

/// A value that is there.
fn value(at: &At, key: &str) -> Option<Json> {
    let text = at.etcd.etcdctl(&["get", &format!("/enlist/{key}"), "--print-value-only"]).unwrap();
    serde_json::from_str(&text).ok()
}

fn stop(mut process: Running) {
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end(), 0, "{:?}", process.said);
}

#[test]
fn a_relay_names_its_source_adopts_anothers_copies_and_lets_an_empty_source_through_when_told() {
    let at = At::start();
    let relay = |flags: &[&str]| Running::start(at.command(&[&["run", "relay"][..], flags].concat()));
    let source = || value(&at, "manager/checkpoint").map(|checkpoint| checkpoint["source"].clone());
    let copies = || at.keys().iter().filter(|key| key.starts_with("/enlist/manager/nodes/")).count();
    at.put("nodes/a/label", &label("a"));
    at.put("nodes/b/label", &label("b"));

    let east = relay(&["--source-name", "east"]);
    until_blocking("copies of east", LIMIT, || (source() == Some("east".into()) && copies() == 2).then_some(()));
    stop(east);
    at.run(&["run", "relay", "--source-name", "west"]).fails(5, "copies of source \"east\", this relay's is \"west\"");
    let west = relay(&["--source-name", "west", "--adopt"]);
    until_blocking("copies of west", LIMIT, || (source() == Some("west".into())).then_some(()));
    stop(west);

    at.etcd.etcdctl(&["del", "/enlist/nodes/", "--prefix"]).unwrap();
    let mut careful = relay(&["--source-name", "west"]);
    careful.line("--allow-empty");
    stop(careful);
    assert_eq!(copies(), 2, "nobody said that they may go");
    let told = relay(&["--source-name", "west", "--allow-empty"]);
    until_blocking("no copies", LIMIT, || (copies() == 0).then_some(()));
    stop(told);
}

#[test]
fn after_restore_gives_only_what_is_asked_back() {
    let at = At::start();
    at.pipe(&["apply", "-f", "-"], "{kind: Pool, name: eu, cidrs: [10.20.0.0/24], ports: 30000-30009}").ok();
    at.put("nodes/fresh/label", &label("fresh"));
    at.put_status("fresh", "joining");
    let holding = r#""ports":["main"],"holding":{"generation":4,"addresses":["10.20.0.77"],"ports":{"main":30007}}}"#;
    at.put("nodes/back/label", &label("back").replace(r#""ports":["main"]}"#, holding));
    at.put_status("back", "joining");
    let allocator = |flags: &[&str]| {
        let mut command = at.command(&[&["run", "allocator"][..], flags].concat());
        command.env("ENLIST__ALLOCATOR__RESTORE_QUIET", "1h");
        Running::start(command)
    };
    let assignment = |node: &str| value(&at, &format!("nodes/{node}/assignment"));
    let careful = allocator(&["--after-restore"]);
    let given = until_blocking("what is asked back", LIMIT, || assignment("back"));
    assert_eq!((&given["addresses"][0], &given["ports"]["main"]), (&"10.20.0.77".into(), &30007.into()));
    stop(careful);
    assert_eq!(assignment("fresh"), None, "it asked for nothing back, and the quiet lasts an hour");
    let usual = allocator(&[]);
    assert_eq!(until_blocking("an answer for the other", LIMIT, || assignment("fresh"))["state"], "bound");
    stop(usual);
}

#[test]
fn an_agents_time_outs_ports_and_file_of_variables() {
    let at = At::start();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    at.pipe(&["apply", "-f", "-"], "{kind: Pool, name: eu, cidrs: [127.20.0.0/24]}").ok();
    let agent = |id: &str, more: &[&str]| {
        let state = path(&format!("state-{id}"));
        at.command(&[&["agent", "--id", id, "--state-dir", &state][..], more].concat())
    };

    // --join-timeout: an id that somebody holds who does not answer. Without it: 30 s, two lease TTLs.
    at.put("nodes/held/label", &label("held"));
    at.put_status("held", "registered");
    let begin = Instant::now();
    answer(agent("held", &["--join-timeout", "1s"])).fails(5, "still has it after 1s");
    assert!((Duration::from_secs(1)..Duration::from_secs(25)).contains(&begin.elapsed()), "{:?}", begin.elapsed());

    let roles = Running::start(at.command(&["run", "allocator"]));
    // --no-ports and --vars-file; a flag is on top of the file.
    let variables = write(folder.path(), "vars", "# of this host\nrack=r7\nzone = eu-1\n");
    let (environment, ready) = (path("env"), path("env.new"));
    let script = format!("env > {ready}; mv {ready} {environment}; exec sleep 600");
    let flags = ["--no-ports", "--vars-file", &variables, "--var", "zone=eu-2", "--no-host-facts", "--", "sh", "-c", &script];
    // Flags of every command stand before `--`.
    let mut command = agent("bare", &[]);
    command.args(flags);
    let mut bare = Running::start(command);
    bare.line("registered");
    let told = value(&at, "nodes/bare/label").unwrap();
    assert_eq!(told["variables"], serde_json::json!({"rack": "r7", "zone": "eu-2"}));
    let env = std::fs::read_to_string(&environment).unwrap();
    assert!(env.contains("ENLIST_IP=127.20.0.") && !env.contains("ENLIST_PORT"), "{env}");
    let given = value(&at, "nodes/bare/assignment").unwrap();
    let claim = format!("/enlist/claims/default/{}", given["addresses"][0].as_str().unwrap());
    let claims: Vec<String> = at.keys().into_iter().filter(|key| key.starts_with(&claim)).collect();
    assert_eq!((claims, &given["ports"]), (vec![claim], &serde_json::json!({})), "an address and no port");
    bare.signal(Signal::SIGTERM);
    assert_eq!(bare.end(), 0);

    // --ready-timeout: the command never listens. Without it: 30 s.
    let mut command = agent("deaf", &["--ready-timeout", "1s"]);
    command.args(["--", "sleep", "600"]);
    let begin = Instant::now();
    let mut deaf = Running::start(command);
    let failed =
        until_blocking("the failure", LIMIT, || value(&at, "nodes/deaf/status").filter(|status| status["phase"] == "failed"));
    assert!(begin.elapsed() < Duration::from_secs(25), "{:?}", begin.elapsed());
    assert!(failed["message"].as_str().unwrap().contains("1s"), "{failed}");
    deaf.signal(Signal::SIGTERM);
    assert_eq!(deaf.end(), 0);
    stop(roles);
}

#[test]
fn the_managers_store_has_its_own_authority_certificate_user_and_password() {
    let at = At::start();
    let certs = Certs::generate();
    let secured = Etcd::start_with(EtcdVersion::V3_5, &EtcdOptions { tls: Some(certs.clone()), ..EtcdOptions::default() });
    for arguments in [
        &["user", "add", "root:pw"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "core:right"],
        &["user", "grant-role", "core", "root"],
        &["auth", "enable"],
    ] {
        secured.etcdctl(arguments).unwrap();
    }
    let [ca, cert, key] = [certs.ca(), certs.client_cert(), certs.client_key()].map(|path| path.to_str().unwrap().to_owned());
    let all = [
        ["--manager-endpoints", secured.endpoint.as_str()],
        ["--manager-cacert", &ca],
        ["--manager-cert", &cert],
        ["--manager-key", &key],
        ["--manager-user", "core"],
        ["--manager-password", "right"],
    ];
    let apply =
        |flags: &[[&str; 2]]| at.pipe(&[&["apply", "-f", "-"][..], flags.as_flattened()].concat(), "{kind: Group, name: all}");
    assert_eq!(apply(&all).ok(), "group all created\n");
    // Each of them is needed, and none of them goes to the source.
    for (without, says) in [(1, "certificate"), (4, "etcd refused"), (5, "etcd refused")] {
        let flags: Vec<[&str; 2]> = all.iter().enumerate().filter(|(at, _)| *at != without).map(|(_, pair)| *pair).collect();
        apply(&flags).fails(6, says);
    }
    let bare: Vec<[&str; 2]> = all.iter().enumerate().filter(|(at, _)| ![2, 3].contains(at)).map(|(_, pair)| *pair).collect();
    assert_eq!(apply(&bare).code, 6, "no certificate");
    let mut wrong = all;
    wrong[5][1] = "wrong";
    apply(&wrong).fails(6, "etcd refused");

    bound_node(&at, "a", "10.20.0.1");
    at.put_status("a", "registered");
    let roles = Running::start(at.command(&[&["run", "relay", "manager"][..], all.as_flattened()].concat()));
    let members = || answer(at.command(&[&["get", "members", "all", "-o", "name"][..], all.as_flattened()].concat()));
    until_blocking("a member in the secured store", LIMIT, || members().stdout.contains("a").then_some(()));
    assert!(!at.keys().iter().any(|key| key.contains("/manager/") || key.contains("/groups/")), "{:?}", at.keys());
    stop(roles);
}

/// The binary where any user may run it: its build directory may be root's alone.
fn for_anybody(folder: &Path) -> std::path::PathBuf {
    let binary = folder.join("enlist");
    std::fs::copy(env!("CARGO_BIN_EXE_enlist"), &binary).unwrap();
    std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
    binary
}

#[test]
fn an_ordinary_users_state_is_below_xdg_state_home_or_home() {
    const NOBODY: u32 = 65_534;
    let at = At::start();
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    open(folder.path());
    let binary = for_anybody(folder.path());
    let as_anybody = |arguments: &[&str], variables: &[(&str, &Path)]| {
        let mut command = Command::new(&binary);
        command.env_clear().envs(variables.iter().copied()).args(arguments).args(["--endpoints", &at.etcd.endpoint]);
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        if nix::unistd::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    };
    let (xdg, home) = (folder.path().join("xdg"), folder.path().join("home"));
    for (id, variables, state) in [
        ("a", &[("XDG_STATE_HOME", xdg.as_path()), ("HOME", &home)][..], xdg.join("enlist/a")),
        ("b", &[("HOME", home.as_path())], home.join(".local/state/enlist/b")),
    ] {
        let mut agent = Running::start(as_anybody(&["agent", "--id", id, "--ephemeral"], variables));
        until_blocking("a label", LIMIT, || value(&at, &format!("nodes/{id}/label")));
        let files: Vec<String> = std::fs::read_dir(&state)
            .unwrap_or_else(|error| panic!("{}: {error}", state.display()))
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(files.contains(&"instance".to_owned()), "{files:?}");
        // `leave` finds the agent by the same rule.
        let left = answer(as_anybody(&["leave", "--id", id], variables));
        assert_eq!(left.code, 0, "{left:?}");
        assert_eq!(agent.end(), 0, "{:?}", agent.said);
    }
    assert!(!home.join(".local/state/enlist/a").exists());
    answer(as_anybody(&["agent", "--id", "c"], &[])).fails(2, "give --state-dir, or set XDG_STATE_HOME or HOME");
}
