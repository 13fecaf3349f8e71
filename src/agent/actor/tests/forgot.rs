//! The store forgot: it was emptied, or restored from a backup.

use super::*;
use crate::model::label::Holding;

async fn until_holding(lab: &Lab) -> Box<Holding> {
    lab.until("`holding` in the label", async || {
        lab.get::<Label>(NodePart::Label).await.is_some_and(|(label, _)| label.holding.is_some())
    })
    .await;
    lab.label().await.holding.unwrap()
}

/// The allocator gives back what is held; the node says it no longer once that is acknowledged.
async fn give_back(lab: &Lab, machine: &SimMachine) {
    let begun = Instant::now();
    let answer = lab.bound(&lab.label().await, "10.0.0.1", 80);
    lab.put(NodePart::Assignment, &answer).await;
    lab.until_registered(&answer).await;
    lab.until("a label without `holding`", async || lab.label().await.holding.is_none()).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}: it waited for a read of its own", begun.elapsed());
    assert_eq!(journal(machine), "", "the child was disturbed");
    assert!(machine.uses().is_some());
}

#[tokio::test(start_paused = true)]
async fn an_emptied_store_is_told_what_is_held() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    machine.journal();
    lab.etcd.empty();
    let holding = until_holding(&lab).await;
    assert_eq!((holding.generation, holding.addresses[0].to_string().as_str()), (given.generation, "10.0.0.1"));
    give_back(&lab, &machine).await;
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_restored_store_is_told_what_is_held_although_the_lease_survived() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let first = lab.assign("10.0.0.9", 80).await;
    lab.until_registered(&first).await;
    let backup = lab.etcd.snapshot();
    let second = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&second).await;
    machine.journal();
    lab.etcd.restore(backup);
    let holding = until_holding(&lab).await;
    assert_eq!(holding.generation, second.generation);
    assert!(machine.uses().is_some());
    give_back(&lab, &machine).await;
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_after_a_restore_says_it_in_its_first_write() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    agent.stop().await;
    lab.etcd.empty();
    let agent = lab.start(&machine);
    let holding = until_holding(&lab).await;
    assert_eq!(holding.generation, given.generation);
    assert_eq!(lab.puts_since(Revision::NONE, NodePart::Label), 1);
    let answer = lab.bound(&lab.label().await, "10.0.0.1", 80);
    lab.put(NodePart::Assignment, &answer).await;
    lab.until_registered(&answer).await;
    lab.until("a label without `holding`", async || lab.label().await.holding.is_none()).await;
    // A restart before the allocator saw that label: its answer is still valid.
    agent.kill().await;
    machine.journal();
    let agent = lab.start(&machine);
    lab.until("the child", async || machine.uses().is_some()).await;
    lab.until_registered(&answer).await;
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn an_assignment_that_is_gone_without_a_step_back_is_not_held() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    lab.etcd.compact(lab.etcd.revision()).unwrap();
    lab.delete(NodePart::Assignment).await;
    lab.until("the withdraw", async || machine.uses().is_none()).await;
    assert_eq!(lab.label().await.holding, None);
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_held_may_be_refused() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    lab.etcd.empty();
    until_holding(&lab).await;
    lab.refuse(Reason::AddressTaken).await;
    lab.until("the withdraw", async || machine.uses().is_none()).await;
    lab.until("a label without `holding`", async || lab.label().await.holding.is_none()).await;
    agent.kill().await;
}

/// What a store gives out of its past is not used: it is told that nothing is in use, and its next answer is.
async fn until_given_anew(lab: &Lab, machine: &SimMachine, before: &Assignment) {
    let holding = until_holding(lab).await;
    assert_eq!((holding.addresses.len(), holding.ports.len()), (0, 0), "{holding:?}");
    assert!(holding.generation >= before.generation, "{holding:?}");
    pass(60).await;
    assert_eq!(machine.uses(), None);
    let answer = lab.bound(&lab.label().await, "10.0.0.2", 80);
    lab.put(NodePart::Assignment, &answer).await;
    lab.until_registered(&answer).await;
    lab.until("a label without `holding`", async || lab.label().await.holding.is_none()).await;
    assert!(machine.uses().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_a_backup_gives_to_one_who_left_is_not_used() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    let backup = lab.etcd.snapshot();
    machine.leave().await.unwrap();
    agent.stop().await;
    lab.etcd.restore(backup);
    let agent = lab.start(&machine);
    until_given_anew(&lab, &machine, &given).await;
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn nor_what_it_gives_out_of_a_pool_that_withdraws_to_one_who_stopped() {
    for writes in [0, 60] {
        let lab = Lab::withdrawing(30);
        let machine = lab.serving_machine();
        let agent = lab.start(&machine);
        let given = lab.assign("10.0.0.1", 80).await;
        lab.until_registered(&given).await;
        let backup = lab.etcd.snapshot();
        agent.stop().await;
        lab.etcd.restore(backup);
        // Something else is written there: the revision passes that of the last word.
        for _ in 0..writes {
            lab.etcd.store().txn(Txn { then: vec![Op::put("elsewhere", "x")], ..Txn::default() }).await.unwrap();
        }
        let agent = lab.start(&machine);
        until_given_anew(&lab, &machine, &given).await;
        agent.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_who_stopped_and_finds_his_word_uses_his_answer_at_once() {
    let lab = Lab::withdrawing(30);
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    agent.stop().await;
    // Somebody deletes what he wrote, but the past has it.
    lab.delete(NodePart::Status).await;
    let agent = lab.start(&machine);
    lab.until_registered(&given).await;
    assert_eq!(lab.label().await.holding, None);
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_starts_does_not_ask_back_what_withdraws() {
    let lab = Lab::withdrawing(30);
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    agent.kill().await;
    lab.etcd.empty();
    let agent = lab.start(&machine);
    until_given_anew(&lab, &machine, &given).await;
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_status_that_a_restore_took_back_is_written_again() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    // The answer is in the backup, its acknowledgement is not.
    let backup = lab.etcd.snapshot();
    lab.until_registered(&given).await;
    lab.etcd.restore(backup);
    assert_eq!(lab.status().await.map(|status| status.phase), Some(Phase::Joining));
    for _ in 0..60 {
        lab.etcd.store().txn(Txn { then: vec![Op::put("elsewhere", "x")], ..Txn::default() }).await.unwrap();
    }
    lab.until_registered(&given).await;
    assert!(machine.uses().is_some());
    agent.kill().await;
}
