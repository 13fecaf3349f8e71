//! An etcd that is away, restarted, emptied, restored, or lets nobody in.

use std::time::Duration;

use enlist::model::status::Phase;
use enlist::store::keys::NodePart;

use super::{Agent, Lab, SOON, is_alive, pid_in, stays};
use crate::support::etcd::EtcdVersion;
use crate::support::wait::until;

async fn serving(lab: &Lab, ip: &str) -> (Agent, i32) {
    let file = lab.path("pid");
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600", file.display());
    let agent = lab.agent("state", &["--no-ready-check", "--", "sh", "-c", &script]);
    let given = lab.assign(ip, 30_001).await;
    lab.until_registered(&given).await;
    (agent, pid_in(&file).await)
}

#[tokio::test]
async fn deleted_keys_are_written_again_and_an_etcd_restart_costs_no_label_and_no_child() {
    for version in EtcdVersion::ALL {
        let mut lab = Lab::on(version);
        let (mut agent, child) = serving(&lab, "127.64.0.1").await;
        lab.delete(NodePart::Status).await;
        lab.until_phase(Phase::Registered).await;
        let written = lab.label_version().await;
        // Away for longer than its TTL: the lease is refreshed by the election, or lost.
        lab.etcd.kill();
        stays("the child while etcd is away", Duration::from_secs(3), || is_alive(child)).await;
        lab.etcd.restart();
        lab.until_phase(Phase::Registered).await;
        assert_eq!(lab.label_version().await, written);
        assert!(is_alive(child), "the child was disturbed");
        lab.delete(NodePart::Label).await;
        until("the label", SOON, || async { lab.label().await }).await;
        agent.stop().await;
    }
}

#[tokio::test]
async fn an_emptied_and_a_restored_etcd_are_told_what_is_held() {
    for version in EtcdVersion::ALL {
        let mut lab = Lab::on(version);
        let backup = lab.etcd.backup();
        let (mut agent, child) = serving(&lab, "127.64.0.2").await;
        for step in ["emptied", "restored"] {
            match step {
                "emptied" => lab.etcd.lose_all(),
                _ => lab.etcd.restore(&backup),
            }
            // Who has a single endpoint follows it into another cluster only after a while.
            until("the store is followed", SOON, || async { lab.store.get("/").await.ok() }).await;
            let held = until(step, SOON, || async { lab.label().await.and_then(|label| label.holding) }).await;
            assert_eq!(held.addresses[0].to_string(), "127.64.0.2", "{version:?} {step}");
            let given = lab.assign("127.64.0.2", 30_001).await;
            lab.until_registered(&given).await;
            until("a label without `holding`", SOON, || async { lab.label().await.filter(|label| label.holding.is_none()) })
                .await;
            assert!(is_alive(child), "the child was disturbed");
        }
        agent.stop().await;
    }
}

#[tokio::test]
async fn an_agent_waits_for_an_etcd_that_is_away_at_its_start() {
    let mut lab = Lab::start();
    lab.etcd.kill();
    let mut agent = lab.agent("state", &[]);
    until("a word about it", SOON, || async { agent.log().contains("the store does not answer").then_some(()) }).await;
    lab.etcd.restart();
    lab.until_phase(Phase::Joining).await;
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_that_was_never_let_in_ends_with_six() {
    let lab = Lab::start();
    lab.etcd.etcdctl(&["user", "add", "root:secret"]).unwrap();
    lab.etcd.etcdctl(&["user", "grant-role", "root", "root"]).unwrap();
    lab.etcd.etcdctl(&["auth", "enable"]).unwrap();
    let mut agent = lab.agent("state", &["--user", "root:wrong"]);
    assert_eq!(agent.end().await, 6, "{}", agent.log());
}
