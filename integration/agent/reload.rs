//! Variables and settings that change while the agent runs, and signals of a terminal that is closed.

use std::process::Stdio;

use enlist::model::status::Phase;
use nix::sys::signal::Signal;
use tokio::process::Command;

use super::{Lab, SOON, pid_in};
use crate::support::process::is_alive;
use crate::support::wait::until;

impl Lab {
    /// Runs a command that talks to the agent with this state directory: its exit code and all that it said.
    async fn ask(&self, words: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_enlist"));
        command.args(words).args(["--id", self.id.as_str(), "--state-dir"]).arg(self.path("state")).stdin(Stdio::null());
        let output = command.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap_or(-1), said)
    }

    async fn until_variable(&self, name: &str, value: Option<&str>) {
        until(&format!("{name} is {value:?}"), SOON, || async {
            (self.label().await?.variables.get(name) == value).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn variables_change_by_command_file_and_signal() {
    let lab = Lab::start();
    let (vars, template, file) = (lab.path("vars.env"), lab.path("in.j2"), lab.path("out.conf"));
    std::fs::write(&vars, "zone=eu-1\ngpu=2\n").unwrap();
    std::fs::write(&template, "zone {{ variables.zone }}\n").unwrap();
    let write = format!("{}={}", file.display(), template.display());
    let mut agent = lab.agent(
        "state",
        &["--no-ready-check", "--vars-file", &vars.display().to_string(), "--write", &write, "--", "sleep", "600"],
    );
    lab.until_variable("zone", Some("eu-1")).await;
    lab.assign("127.67.0.1", 30_001).await;
    until("the file", SOON, || async { std::fs::read_to_string(&file).ok().filter(|text| text == "zone eu-1\n") }).await;

    assert_eq!(lab.ask(&["agent", "--set", "zone=eu-2", "--set", "gpu-"]).await, (0, "variables changed\n".into()));
    lab.until_variable("zone", Some("eu-2")).await;
    lab.until_variable("gpu", None).await;
    until("the file", SOON, || async { std::fs::read_to_string(&file).ok().filter(|text| text == "zone eu-2\n") }).await;
    let (code, said) = lab.ask(&["agent", "--set", "zone=a b"]).await;
    assert_eq!(code, 2, "{said}");

    std::fs::write(&vars, "zone=eu-1\nrack=r1\n").unwrap();
    agent.signal(Signal::SIGHUP);
    lab.until_variable("rack", Some("r1")).await;
    std::fs::write(&vars, "zone=eu-1\nrack=r2\n").unwrap();
    assert_eq!(lab.ask(&["reload"]).await, (0, "settings changed\n".into()));
    lab.until_variable("rack", Some("r2")).await;
    lab.until_variable("zone", Some("eu-2")).await;
    std::fs::write(&vars, "zone\n").unwrap();
    let (code, said) = lab.ask(&["reload"]).await;
    assert!(code == 5 && said.contains("line 1"), "{code} {said}");
    lab.until_variable("rack", Some("r2")).await;
    assert!(agent.is_running());
    assert_eq!(agent.stop().await, 0);
    let (code, said) = lab.ask(&["reload"]).await;
    assert!(code == 4 && said.contains("no agent runs"), "{code} {said}");
}

#[tokio::test]
async fn a_closed_terminal_ends_nothing_without_a_last_word() {
    let lab = Lab::start();
    let file = lab.path("pid");
    let script = format!("trap '' TERM; echo $$ > {0}.new; mv {0}.new {0}; while :; do sleep 0.1; done", file.display());
    // Its output goes to a pipe whose reader is gone.
    let log = "exec 2>&1; exec \"$0\" \"$@\" | true";
    let mut command = Command::new("bash");
    command.args(["-c", log, env!("CARGO_BIN_EXE_enlist")]);
    let mut agent = lab.spawn(command, "state", &["--no-ready-check", "--stop-timeout", "60s", "--", "sh", "-c", &script]);
    let given = lab.assign("127.67.0.2", 30_001).await;
    lab.until_registered(&given).await;
    let child = pid_in(&file).await;
    let ppid = || {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<i32>().ok()
    };
    let enlist = nix::unistd::Pid::from_raw(ppid().unwrap());
    for signal in [Signal::SIGHUP, Signal::SIGPIPE] {
        nix::sys::signal::kill(enlist, signal).unwrap();
    }
    let again = lab.assign("127.67.0.2", 30_001).await;
    lab.until_registered(&again).await;
    assert!(is_alive(child), "neither the agent nor its child ends by HUP or PIPE");
    // Twice: nobody waits for the child any more, and the last word is written all the same.
    nix::sys::signal::kill(enlist, Signal::SIGINT).unwrap();
    lab.until_phase(Phase::Draining).await;
    nix::sys::signal::kill(enlist, Signal::SIGINT).unwrap();
    lab.until_phase(Phase::Stopped).await;
    agent.end().await;
    assert!(!is_alive(child));
}
