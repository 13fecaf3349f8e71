//! The binary as people use it, on a real etcd: what it says, where, and with which exit code.

mod apply;
mod away;
mod bad_input;
mod bench;
mod delete;
mod dev;
mod examples;
mod exit_codes;
mod faults;
mod flags;
mod grants;
mod hostile;
mod incidents;
mod leave;
mod logs;
mod output;
mod purge;
mod trouble;
mod two_stores;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value as Json;

use crate::support::etcd::{Etcd, EtcdVersion};

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// What a command answered.
#[derive(Debug)]
struct Answer {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Answer {
    /// The data, if it ended well.
    fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    fn json(self) -> Json {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// It ended with this code, and said this.
    fn fails(self, code: i32, says: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stderr.contains(says), "{:?} is not in {self:?}", says);
    }
}

/// The binary, without settings of the machine it runs on.
fn enlist() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_enlist"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn answer(mut command: Command) -> Answer {
    let output = command.output().unwrap();
    Answer {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// An etcd, and the binary at it.
struct At {
    etcd: Etcd,
}

impl At {
    fn start() -> At {
        At { etcd: Etcd::start(EtcdVersion::V3_4) }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = enlist();
        command.args(arguments).args(["--endpoints", &self.etcd.endpoint]);
        command
    }

    fn run(&self, arguments: &[&str]) -> Answer {
        answer(self.command(arguments))
    }

    /// With a text on stdin.
    fn pipe(&self, arguments: &[&str], text: &str) -> Answer {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        Answer {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn put(&self, key: &str, value: &str) {
        self.etcd.etcdctl(&["put", &format!("/enlist/{key}"), value]).unwrap();
    }

    /// A node's status on a lease, as its agent puts it.
    fn put_status(&self, id: &str, phase: &str) {
        let granted = self.etcd.etcdctl(&["lease", "grant", "3600"]).unwrap();
        let lease = granted.split_whitespace().nth(1).unwrap();
        let key = format!("/enlist/nodes/{id}/status");
        self.etcd.etcdctl(&["put", "--lease", lease, &key, &status(id, phase)]).unwrap();
    }

    /// Every key, one a line.
    fn keys(&self) -> Vec<String> {
        let text = self.etcd.etcdctl(&["get", "/", "--prefix", "--keys-only"]).unwrap();
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }
}

/// A process that runs on, with what it says line by line. It is killed when this goes.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    /// What it has said so far, both streams.
    said: Vec<String>,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut child = command.spawn().unwrap();
        let (send, lines) = mpsc::channel();
        let errors = send.clone();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        std::thread::spawn(move || BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|line| errors.send(line)));
        Running { child, lines, said: Vec::new() }
    }

    /// Waits for a line with this text, and gives it.
    fn line(&mut self, text: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("{text:?} was not said ({error}), but:\n{}", self.said.join("\n")),
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Waits for its end and gives its exit code.
    fn end(&mut self) -> i32 {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            if Instant::now() > deadline {
                self.said.extend(self.lines.try_iter());
                panic!("it does not end:\n{}", self.said.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A label as an agent writes it.
fn label(id: &str) -> String {
    format!(
        r#"{{"v":1,"id":"{id}","instance":"i-{id}","boot":"b","run":"r-{id}","temporary":{{"ip":"127.0.0.1","port":9}},"variables":{{"zone":"eu-1"}},"since":"2026-01-01T00:00:00Z","ports":["main"]}}"#
    )
}

fn status(id: &str, phase: &str) -> String {
    format!(r#"{{"v":1,"instance":"i-{id}","boot":"b","run":"r-{id}","phase":"{phase}","generation":5}}"#)
}

fn assignment(id: &str, ip: &str) -> String {
    format!(
        r#"{{"v":1,"node":"{id}","instance":"i-{id}","state":"bound","pool":"eu","domain":"default","sharing":"exclusive","addresses":["{ip}"],"ports":{{"main":30000}},"generation":5,"asked":"0000000000000000","hold_s":600,"cooldown_s":60,"on_isolation":"keep","leaving":[]}}"#
    )
}

/// A node with an address and its claims, as the allocator leaves it.
fn bound_node(at: &At, id: &str, ip: &str) {
    at.put(&format!("nodes/{id}/label"), &label(id));
    at.put(&format!("nodes/{id}/assignment"), &assignment(id, ip));
    for claim in [format!("claims/default/{ip}"), format!("claims/default/{ip}/30000")] {
        at.put(&claim, &format!(r#"{{"v":1,"node":"{id}","state":"bound","pool":"eu"}}"#));
    }
}
