//! `on_isolation: withdraw` with real processes and real time.

use std::time::{Duration, Instant};

use enlist::model::pool::OnIsolation;
use nix::sys::signal::Signal;

use super::{Lab, is_alive, pid_in, stays, until_gone};

fn lab() -> Lab {
    let mut lab = Lab::start();
    lab.terms.on_isolation = OnIsolation::Withdraw;
    // Shorter than a pool may have: a test has no half minute.
    lab.terms.hold_s = 4;
    lab
}

#[tokio::test]
async fn a_node_that_cannot_reach_etcd_stops_at_its_hold() {
    let lab = lab();
    let file = lab.path("pid");
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600", file.display());
    let flags = ["--no-ready-check", "--stop-timeout", "1s", "--", "sh", "-c", &script];
    let mut agent = lab.agent("state", &flags);
    let given = lab.assign("127.65.0.1", 30_001).await;
    lab.until_registered(&given).await;
    let child = pid_in(&file).await;
    stays("the child, for longer than the hold", Duration::from_secs(6), || is_alive(child)).await;
    lab.etcd.pause();
    let begun = Instant::now();
    until_gone(child).await;
    let took = begun.elapsed();
    lab.etcd.resume();
    assert!(took < Duration::from_secs(6), "it took {took:?}");
    std::fs::remove_file(&file).unwrap();
    pid_in(&file).await;
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_that_was_paused_for_longer_than_its_hold_stops_at_once() {
    let lab = lab();
    let file = lab.path("pid");
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600", file.display());
    let flags = ["--no-ready-check", "--stop-timeout", "1s", "--", "sh", "-c", &script];
    let mut agent = lab.agent("state", &flags);
    let given = lab.assign("127.65.0.2", 30_001).await;
    lab.until_registered(&given).await;
    let child = pid_in(&file).await;
    agent.signal(Signal::SIGSTOP);
    lab.until_status("the end of the status", |status| status.is_none()).await;
    lab.etcd.pause();
    stays("the child of a paused agent", Duration::from_secs(3), || is_alive(child)).await;
    agent.signal(Signal::SIGCONT);
    let begun = Instant::now();
    until_gone(child).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "it took {:?}", begun.elapsed());
    lab.etcd.resume();
    agent.stop().await;
}
