//! An etcd that is away: roles and agents try on, say so once, then at longer intervals, and go on when it is there.

use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use serde_json::Value as Json;

use super::{At, Running};

/// When the next line with this text was logged.
fn told(process: &mut Running, text: &str) -> SystemTime {
    let line: Json = serde_json::from_str(&process.line(text)).unwrap();
    humantime::parse_rfc3339_weak(line["timestamp"].as_str().unwrap()).unwrap()
}

#[test]
fn what_waits_for_etcd_says_so_at_growing_intervals_and_goes_on_when_it_is_there() {
    let mut at = At::start();
    at.etcd.kill();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().to_str().unwrap();
    let patience = ["--log-format", "json", "--dial-timeout", "500ms", "--command-timeout", "500ms"];
    let mut role = Running::start(at.command(&[&["run", "allocator"][..], &patience].concat()));
    let mut agent = Running::start(at.command(&[&["agent", "--id", "a", "--state-dir", state][..], &patience].concat()));
    for (process, text) in [(&mut role, "the store is away; retrying"), (&mut agent, "the store does not answer; trying on")] {
        let times = [(); 3].map(|()| told(process, text));
        let gap = |from: usize| times[from + 1].duration_since(times[from]).unwrap();
        assert!(gap(0) >= Duration::from_secs(5), "{times:?}");
        assert!(gap(1) >= Duration::from_secs(10) && gap(1) > gap(0), "{times:?}");
        assert_eq!(process.said.iter().filter(|line| line.contains(text)).count(), 3, "{:?}", process.said);
    }
    at.etcd.restart();
    at.pipe(&["apply", "-f", "-"], "{kind: Pool, name: eu, cidrs: [127.20.0.0/24]}").ok();
    role.line("leading");
    agent.line("the store answers again");
    agent.line("registered");
    for process in [&mut agent, &mut role] {
        process.signal(Signal::SIGTERM);
        assert_eq!(process.end(), 0, "{:?}", process.said);
    }
}
