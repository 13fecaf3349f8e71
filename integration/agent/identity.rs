//! One id, several processes: conflicts, copies, restarts, takeovers.

use enlist::model::status::{Phase, Status};

use super::{Agent, Lab, pid_in};

/// An agent whose child writes its process id.
fn with_child(lab: &Lab, state: &str, flags: &[&str]) -> (Agent, std::path::PathBuf) {
    let file = lab.path(&format!("pid-{}", crate::support::etcd::free_port()));
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600", file.display());
    let mut all = vec!["--no-ready-check"];
    all.extend(flags);
    all.extend(["--", "sh", "-c", &script]);
    (lab.agent(state, &all), file)
}

#[tokio::test]
async fn a_second_host_and_a_copied_directory_are_refused_with_both_sides_named() {
    let lab = Lab::start();
    let (mut first, _) = with_child(&lab, "first", &[]);
    let given = lab.assign("127.62.0.1", 30_001).await;
    lab.until_registered(&given).await;
    let holder = lab.label().await.unwrap().temporary;

    let mut second = lab.agent("second", &[]);
    assert_eq!(second.end().await, 5);
    let log = second.log();
    let this = format!("this is {} (host ", holder.ip());
    assert!(log.contains(&format!("id edge-7 is held by {holder} (host ")) && log.contains(&this), "{log}");

    let copy = std::process::Command::new("cp").arg("-r").arg(lab.path("first")).arg(lab.path("copy")).status().unwrap();
    assert!(copy.success());
    let mut third = lab.agent("copy", &[]);
    assert_eq!(third.end().await, 5);
    assert!(third.log().contains("remove the state directory"), "{}", third.log());

    // The very same directory is locked.
    let mut fourth = lab.agent("first", &[]);
    assert_eq!(fourth.end().await, 5);
    assert!(fourth.log().contains(&format!("process {}", first.pid())), "{}", fourth.log());
    lab.until_registered(&given).await;
    assert!(first.is_running());
    first.stop().await;
}

#[tokio::test]
async fn a_restarted_agent_starts_its_child_with_no_allocator_there() {
    let lab = Lab::start();
    let (first, file) = with_child(&lab, "state", &[]);
    let given = lab.assign("127.62.0.2", 30_001).await;
    lab.until_registered(&given).await;
    let child = pid_in(&file).await;
    first.kill().await;
    super::until_gone(child).await;
    let (mut second, file) = with_child(&lab, "state", &[]);
    pid_in(&file).await;
    lab.until_registered(&given).await;
    // Stopped in order and started again: the same.
    assert_eq!(second.stop().await, 0);
    assert_eq!(lab.status().await.unwrap().phase, Phase::Stopped);
    let (mut third, file) = with_child(&lab, "state", &[]);
    pid_in(&file).await;
    lab.until_registered(&given).await;
    third.stop().await;
}

#[tokio::test]
async fn another_run_of_this_instance_supersedes() {
    let lab = Lab::start();
    let (mut old, file) = with_child(&lab, "old", &["--instance", "container-1"]);
    let given = lab.assign("127.62.0.3", 30_001).await;
    lab.until_registered(&given).await;
    let child = pid_in(&file).await;
    // Paused: it neither answers nor beats.
    old.signal(nix::sys::signal::Signal::SIGSTOP);
    let before = lab.status().await.unwrap().run;
    let (mut new, _) = with_child(&lab, "new", &["--instance", "container-1"]);
    let is_new = |status: &Status| status.phase == Phase::Registered && status.run != before;
    let run = lab.until_status("the new run", |status| status.is_some_and(is_new)).await.unwrap().run;
    old.signal(nix::sys::signal::Signal::SIGCONT);
    assert_eq!(old.end().await, 5);
    assert!(old.log().contains("took over"), "{}", old.log());
    super::until_gone(child).await;
    let status = lab.status().await.unwrap();
    // Whichever run has the status now: had the old one joined anew, it would be its own.
    assert_eq!((status.phase, status.run), (Phase::Registered, run));
    new.stop().await;
}

#[tokio::test]
async fn an_agent_that_was_replaced_withdraws_and_keeps_trying() {
    let lab = Lab::start();
    let (mut old, file) = with_child(&lab, "old", &[]);
    let given = lab.assign("127.62.0.4", 30_001).await;
    lab.until_registered(&given).await;
    let child = pid_in(&file).await;
    let mut new = lab.agent("new", &["--replace"]);
    super::until_gone(child).await;
    let theirs = lab.assign("127.62.0.4", 30_001).await;
    lab.until_registered(&theirs).await;
    assert!(old.is_running());
    old.stop().await;
    assert_eq!(lab.status().await.unwrap().phase, Phase::Registered, "the one that was replaced wrote the other's status");
    new.stop().await;
}
