//! The programs under `examples/`, on a real etcd: what they show works as it stands there.

use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use super::{At, Running};

/// One of them. `cargo test` builds them all; when only this suite is asked for, whoever asks must have.
fn program(name: &str, arguments: &[&str]) -> Command {
    let folder = Path::new(env!("CARGO_BIN_EXE_enlist")).parent().unwrap().join("examples");
    assert!(folder.join(name).is_file(), "{name} is not in {}: cargo build --examples", folder.display());
    let mut command = Command::new(folder.join(name));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn a_service_registers_itself_with_the_roles_of_another_program() {
    let at = At::start();
    let folder = tempfile::tempdir().unwrap();
    at.pipe(&["apply", "-f", "-"], "{kind: Pool, name: p, cidrs: [127.20.0.0/24], ports: 30000-30099}").ok();
    at.pipe(&["apply", "-f", "-"], "{kind: Group, name: examples, selector: role=example, port: http}").ok();
    let mut roles = Running::start(program("roles_in_process", &[&at.etcd.endpoint, "/enlist"]));
    roles.line("running the roles");
    let state = folder.path().join("edge-7");
    let mut service = Running::start(program("self_register", &[&at.etcd.endpoint, "edge-7", state.to_str().unwrap()]));
    let given = service.line("edge-7 was given 127.20.0.");
    let mut answer = String::new();
    TcpStream::connect(given.rsplit(' ').next().unwrap()).unwrap().read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("hello from edge-7\n"), "{answer}");
    service.line("edge-7: registered");

    let mut members = Running::start(at.command(&["get", "members", "examples", "-w", "-o", "json"]));
    members.line(r#""state":"ready","published":true"#);

    service.signal(Signal::SIGINT);
    assert_eq!(service.end(), 0);
    service.line("edge-7 stopped; its address is held for it");
    members.line(r#""state":"stopped","published":false"#);
    roles.signal(Signal::SIGINT);
    assert_eq!(roles.end(), 0);
    assert!(at.keys().iter().all(|key| !key.starts_with("/enlist/leaders/")), "they gave up their leads: {:?}", at.keys());
}
