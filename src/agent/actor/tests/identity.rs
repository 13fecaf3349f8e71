//! Who may take an id, and what becomes of those who may not.

use super::*;
use crate::agent::exit::Ending;
use crate::agent::host::Face;
use crate::agent::sim::HookScript;

#[tokio::test(start_paused = true)]
async fn the_second_host_is_refused_and_told_who_holds_the_id() {
    let lab = Lab::new();
    let first = lab.serving_machine();
    let agent = lab.start(&first);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    let holder = lab.label().await.temporary;
    let revision = lab.etcd.revision();
    let second = lab.start(&lab.machine("b", "192.0.2.80"));
    let exit = second.task.await.unwrap();
    assert_eq!(exit.code(), 5);
    let Ending::Conflict(text) = exit.ending else { panic!("{:?}", exit.ending) };
    let expected = format!("id edge-7 is held by {holder} (host a), this is 192.0.2.80 (host b)");
    assert!(text.starts_with(&expected), "{text}");
    assert_eq!((lab.etcd.revision(), first.uses().is_some()), (revision, true), "the first one was disturbed");
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_copied_directory_and_a_cloned_disk_are_refused_while_the_original_answers() {
    let lab = Lab::new();
    let original = lab.serving_machine();
    let agent = lab.start(&original);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    let (copied, cloned) = (lab.machine("b", "192.0.2.80"), lab.machine("c", "192.0.2.81"));
    copied.copy_disk(&original);
    cloned.clone_disk(&original);
    for machine in [copied, cloned] {
        let exit = lab.start(&machine).task.await.unwrap();
        let Ending::Conflict(text) = exit.ending else { panic!("{:?}", exit.ending) };
        assert!(text.contains("remove the state directory"), "{text}");
    }
    lab.until_registered(&given).await;
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_takes_over_at_once_twice_in_a_row() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    agent.kill().await;
    // A crash before it joined.
    let crashed = lab.start(&machine);
    crashed.link.cut();
    pass(1).await;
    crashed.kill().await;
    let before = Instant::now();
    let agent = lab.start(&machine);
    lab.until("the child", async || machine.uses().is_some()).await;
    lab.until_registered(&given).await;
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_reboot_starts_the_child_with_no_allocator_there() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    agent.kill().await;
    machine.reboot();
    // Within its TTL the old status may be anybody's: it waits that out.
    let agent = lab.start(&machine);
    pass(5).await;
    assert_eq!(machine.uses(), None);
    lab.until("the child", async || machine.uses().is_some()).await;
    lab.until_registered(&given).await;
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn changed_variables_are_applied_at_the_next_start() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    agent.stop().await;
    let mut settings = lab.settings();
    settings.variables.insert("zone", "eu-2").unwrap();
    let agent = lab.start_with(&machine, settings);
    lab.until("the label", async || lab.label().await.variables.get("zone") == Some("eu-2")).await;
    pass(30).await;
    assert_eq!(machine.uses(), None, "that was the answer to another label");
    let mut answer = lab.bound(&lab.label().await, "10.0.0.1", 80);
    answer.generation = given.generation;
    lab.put(NodePart::Assignment, &answer).await;
    lab.until_registered(&answer).await;
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_reinstalled_host_waits_while_the_old_one_may_only_be_cut_off() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    agent.kill().await;
    lab.until("silence", async || lab.status().await.is_none()).await;
    machine.reinstall();
    let agent = lab.start(&machine);
    pass(200).await;
    assert!(lab.status().await.is_none() && !agent.task.is_finished());
    // Its hold is over: the allocator released it.
    lab.delete(NodePart::Assignment).await;
    let again = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&again).await;
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_live_holder_that_does_not_answer_is_waited_for_two_ttl() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    lab.until_phase(Phase::Joining).await;
    let holder = lab.label().await.temporary;
    lab.net.cut(holder);
    let other = lab.machine("b", "192.0.2.80");
    let before = Instant::now();
    let exit = lab.start(&other).task.await.unwrap();
    assert_eq!(exit.code(), 5);
    let took = before.elapsed();
    assert!(took >= Duration::from_secs(30) && took < Duration::from_secs(36), "{took:?}");
    // A stranger on the recycled address, and this agent's own endpoint, are not the holder.
    lab.net.put(holder, Face { id: "edge-7".into(), instance: "stranger".into(), ..Face::default() });
    let exit = lab.start(&other).task.await.unwrap();
    let Ending::Conflict(text) = exit.ending else { panic!("{:?}", exit.ending) };
    assert!(text.contains("does not answer"), "{text}");
    // The operator's word.
    let replacing = lab.start_with(&other, AgentSettings { replace: true, ..lab.settings() });
    lab.until("the new owner", async || lab.label().await.temporary.ip() == other_ip()).await;
    // The one that was replaced withdraws, and keeps trying.
    pass(60).await;
    assert!(!agent.task.is_finished() && machine.uses().is_none());
    agent.kill().await;
    replacing.kill().await;
}

fn other_ip() -> IpAddr {
    "192.0.2.80".parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn another_run_of_this_instance_supersedes() {
    let lab = Lab::new();
    let (first, second) = (lab.serving_machine(), lab.machine("b", "192.0.2.80"));
    let settings = AgentSettings { instance: Some("container".parse().unwrap()), ..lab.settings() };
    let old = lab.start_with(&first, settings.clone());
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    let new = lab.start_with(&second, AgentSettings { replace: true, ..settings });
    let exit = old.task.await.unwrap();
    assert!(matches!(exit.ending, Ending::Superseded(_)), "{:?}", exit.ending);
    assert_eq!((exit.code(), first.uses()), (5, None));
    let again = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&again).await;
    assert_eq!(lab.status().await.unwrap().run, lab.label().await.run, "the new run's status survives");
    new.kill().await;
}

#[tokio::test(start_paused = true)]
async fn what_another_id_applied_in_this_directory_is_not_this_ones() {
    let mut lab = Lab::new();
    let machine = lab.serving_machine();
    machine.set_hook(Some(HookScript::default()));
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    agent.kill().await;
    machine.journal();
    lab.id = "edge-8".parse().unwrap();
    let agent = lab.start(&machine);
    lab.until_phase(Phase::Joining).await;
    pass(30).await;
    assert_eq!(lab.label().await.holding, None, "it claims what was another node's");
    // The process that had it is gone, what its hook put in place is not.
    assert_eq!((journal(&machine).as_str(), machine.recorded()), ("hook withdrawn 10.0.0.1 http=80", None));
    let given = lab.assign("10.0.0.2", 80).await;
    lab.until_registered(&given).await;
    agent.kill().await;
}
