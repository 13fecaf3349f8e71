//! Stop, leave, die, and a child that ends.

use super::*;
use crate::agent::exit::Ending;

#[tokio::test(start_paused = true)]
async fn a_stop_is_draining_first_and_a_stubborn_child_is_killed() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    machine.set_child(Some(ChildScript { stops_after: Duration::from_secs(3600), ..ChildScript::default() }));
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    let before = Instant::now();
    agent.shutdown.cancel();
    let draining = lab.until_phase(Phase::Draining).await;
    assert_eq!(draining.generation, given.generation);
    let exit = agent.task.await.unwrap();
    assert_eq!((exit.ending.clone(), exit.code()), (Ending::Stopped, 137));
    assert!(before.elapsed() >= Duration::from_secs(8) && before.elapsed() < Duration::from_secs(9));
    assert_eq!(lab.status().await.unwrap().phase, Phase::Stopped);
    assert!(machine.recorded().is_some(), "it is held for this node");
}

#[tokio::test(start_paused = true)]
async fn a_stop_with_a_store_that_is_away_takes_two_seconds() {
    let lab = Lab::new();
    let machine = lab.machine("a", "192.0.2.17");
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    agent.link.cut();
    let before = Instant::now();
    let exit = agent.stop().await;
    assert_eq!(exit.code(), 0);
    assert!(before.elapsed() <= Duration::from_millis(2_100), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_leave_is_left_for_good() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    machine.leave().await.unwrap();
    let exit = agent.task.await.unwrap();
    assert_eq!(exit.ending, Ending::Left);
    assert_eq!(lab.status().await.unwrap().phase, Phase::Left);
    assert_eq!((machine.recorded(), machine.uses()), (None, None));

    // It joins again before it was released: it keeps its address.
    let agent = lab.start(&machine);
    lab.until_registered(&given).await;
    // With a store that is away the leave says so.
    agent.link.cut();
    let error = machine.leave().await.unwrap_err();
    assert!(error.contains("etcd"), "{error}");
    agent.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_agents_stop_is_a_leave() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start_with(&machine, AgentSettings { ephemeral: true, ..lab.settings() });
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    assert!(lab.label().await.ephemeral);
    let exit = agent.stop().await;
    assert_eq!(exit.ending, Ending::Left);
    assert_eq!(lab.status().await.unwrap().phase, Phase::Left);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_ends_ends_the_agent_with_its_code() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    machine.end_child(3);
    let exit = agent.task.await.unwrap();
    assert_eq!((exit.ending.clone(), exit.code()), (Ending::ChildEnded, 3));
    assert_eq!(lab.status().await.unwrap().phase, Phase::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_death_ends_the_child_and_the_status_goes_with_its_lease() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    agent.kill().await;
    lab.until("the child's end", async || machine.uses().is_none()).await;
    lab.until("the end of the status", async || lab.status().await.is_none()).await;
    assert_eq!(lab.label().await.id, lab.id);
}

#[tokio::test(start_paused = true)]
async fn a_stop_after_the_lease_ran_out_still_says_so() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    machine.set_child(Some(ChildScript { stops_after: Duration::from_secs(6), ..ChildScript::default() }));
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    agent.shutdown.cancel();
    lab.until_phase(Phase::Draining).await;
    lab.delete(NodePart::Status).await;
    agent.task.await.unwrap();
    assert_eq!(lab.status().await.unwrap().phase, Phase::Stopped);
}
