//! Stop, leave, die; signals; exit codes.

use std::time::Instant;

use enlist::model::status::Phase;
use nix::sys::signal::Signal;

use super::{Lab, pid_in, until_file, until_gone};

#[tokio::test]
async fn a_child_that_ends_ends_the_agent_with_its_code() {
    for (script, code) in [("exit 7", 7), ("kill -9 $$", 137)] {
        let lab = Lab::start();
        let mut agent = lab.agent("state", &["--no-ready-check", "--", "sh", "-c", script]);
        lab.assign("127.63.0.1", 30_001).await;
        assert_eq!(agent.end().await, code, "{}", agent.log());
        assert_eq!(lab.status().await.unwrap().phase, Phase::Stopped);
    }
}

#[tokio::test]
async fn a_stubborn_child_is_killed_with_all_that_it_started() {
    let lab = Lab::start();
    let file = lab.path("pid");
    let script =
        format!("trap '' TERM; (trap '' TERM; exec sleep 600) & echo $! > {0}.new; mv {0}.new {0}; wait; wait", file.display());
    let mut agent = lab.agent("state", &["--no-ready-check", "--stop-timeout", "500ms", "--", "sh", "-c", &script]);
    let given = lab.assign("127.63.0.2", 30_001).await;
    lab.until_registered(&given).await;
    let grandchild = pid_in(&file).await;
    agent.signal(Signal::SIGTERM);
    let draining = lab.until_status("draining or stopped", |status| {
        status.is_some_and(|status| matches!(status.phase, Phase::Draining | Phase::Stopped))
    });
    draining.await;
    assert_eq!(agent.end().await, 137);
    until_gone(grandchild).await;
    assert_eq!(lab.status().await.unwrap().phase, Phase::Stopped);
}

#[tokio::test]
async fn a_killed_agent_takes_its_child_along() {
    let lab = Lab::start();
    let file = lab.path("pid");
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600", file.display());
    let agent = lab.agent("state", &["--no-ready-check", "--", "sh", "-c", &script]);
    let given = lab.assign("127.63.0.3", 30_001).await;
    lab.until_registered(&given).await;
    let child = pid_in(&file).await;
    agent.kill().await;
    until_gone(child).await;
    lab.until_status("the end of the status", |status| status.is_none()).await;
}

#[tokio::test]
async fn other_signals_go_to_the_child() {
    let lab = Lab::start();
    let file = lab.path("signals");
    let script = format!(
        "trap 'echo HUP >> {0}' HUP; trap 'echo PWR >> {0}' PWR; trap 'echo USR1 >> {0}' USR1; echo ready >> {0}; while :; do sleep 0.05; done",
        file.display()
    );
    let mut agent = lab.agent("state", &["--no-ready-check", "--", "sh", "-c", &script]);
    lab.assign("127.63.0.4", 30_001).await;
    until_file(&file, |text| text == "ready\n").await;
    agent.signal(Signal::SIGHUP);
    until_file(&file, |text| text == "ready\nHUP\n").await;
    agent.signal(Signal::SIGUSR1);
    until_file(&file, |text| text == "ready\nHUP\nUSR1\n").await;
    agent.signal(Signal::SIGPWR);
    until_file(&file, |text| text == "ready\nHUP\nUSR1\nPWR\n").await;
    assert!(agent.is_running());
    agent.stop().await;
}

#[tokio::test]
async fn a_leave_on_the_node_and_an_ephemeral_agents_stop_leave_for_good() {
    let lab = Lab::start();
    let mut agent = lab.agent("state", &["--no-ready-check", "--", "sleep", "600"]);
    let given = lab.assign("127.63.0.5", 30_001).await;
    lab.until_registered(&given).await;
    enlist::agent::socket::request_leave(&lab.path("state")).await.unwrap();
    assert_eq!(agent.end().await, 0);
    assert_eq!(lab.status().await.unwrap().phase, Phase::Left);
    assert!(enlist::agent::socket::request_leave(&lab.path("state")).await.is_err());

    let mut agent = lab.agent("state", &["--ephemeral"]);
    lab.until_registered(&given).await;
    assert!(lab.label().await.unwrap().ephemeral);
    assert_eq!(agent.stop().await, 0);
    assert_eq!(lab.status().await.unwrap().phase, Phase::Left);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_an_etcd_that_is_away() {
    let lab = Lab::start();
    let mut agent = lab.agent("state", &["--no-ready-check", "--", "sleep", "600"]);
    let given = lab.assign("127.63.0.6", 30_001).await;
    lab.until_registered(&given).await;
    lab.etcd.pause();
    // Two seconds for `draining`, two for the last word.
    let begun = Instant::now();
    let code = agent.stop().await;
    let took = begun.elapsed();
    lab.etcd.resume();
    assert_eq!(code, 0);
    assert!(took.as_secs() < 8, "it took {took:?}");
}
