//! `on_isolation: withdraw`: what is in use is put out of use before it can be anybody else's.

use super::*;
use crate::agent::exit::Ending;
use crate::agent::sim::HookScript;

/// Registered in a pool whose hold is 60 s; the cut comes at the returned instant.
async fn registered(lab: &Lab, machine: &SimMachine) -> (Running, Assignment) {
    let agent = lab.start(machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    (agent, given)
}

#[tokio::test(start_paused = true)]
async fn a_cut_off_node_withdraws_at_the_hold_and_comes_back() {
    let lab = Lab::withdrawing(60);
    let machine = lab.serving_machine();
    let (agent, given) = registered(&lab, &machine).await;
    pass(200).await;
    assert!(machine.uses().is_some(), "it withdrew although all was well");
    agent.link.cut();
    let cut = Instant::now();
    lab.until("the withdraw", async || machine.uses().is_none()).await;
    // From the sending of the last read or keep-alive, whichever is earlier: at most a TTL before the cut.
    let after = cut.elapsed();
    assert!(after <= Duration::from_secs(61) && after >= Duration::from_secs(44), "{after:?}");
    pass(100).await;
    assert_eq!(machine.uses(), None);
    agent.link.heal();
    lab.until_registered(&given).await;
    assert!(machine.uses().is_some());
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn with_keep_a_cut_off_node_goes_on() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let (agent, _) = registered(&lab, &machine).await;
    agent.link.cut();
    pass(100_000).await;
    assert!(machine.uses().is_some());
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn keep_alives_alone_do_not_count() {
    // Requests arrive, answers of reads do not: here the status is deleted and everything read fails, while the lease is
    // healthy. The store's word that it is this node's must be fresh.
    let lab = Lab::withdrawing(60);
    let machine = lab.serving_machine();
    let (agent, _) = registered(&lab, &machine).await;
    agent.link.cut_answers();
    let cut = Instant::now();
    lab.until("the withdraw", async || machine.uses().is_none()).await;
    assert!(cut.elapsed() <= Duration::from_secs(61), "{:?}", cut.elapsed());
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn time_in_suspend_counts() {
    let lab = Lab::withdrawing(60);
    let machine = lab.serving_machine();
    let (agent, _) = registered(&lab, &machine).await;
    agent.link.cut();
    pass(5).await;
    machine.suspend(Duration::from_secs(100));
    let woke = Instant::now();
    lab.until("the withdraw", async || machine.uses().is_none()).await;
    assert!(woke.elapsed() <= Duration::from_secs(2), "{:?}", woke.elapsed());
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn settings_that_cannot_keep_the_promise_are_refused_at_the_start() {
    let lab = Lab::withdrawing(30);
    let machine = lab.serving_machine();
    let agent = lab.start_with(&machine, AgentSettings { lease_ttl: Duration::from_secs(40), ..lab.settings() });
    lab.assign("10.0.0.1", 80).await;
    let exit = agent.task.await.unwrap();
    let Ending::Settings(text) = &exit.ending else { panic!("{:?}", exit.ending) };
    assert!(text.contains("lease TTL"), "{text}");
    assert_eq!((exit.code(), machine.uses()), (2, None));
    let agent = lab.start_with(&machine, AgentSettings { stop_timeout: Duration::from_secs(12), ..lab.settings() });
    let exit = agent.task.await.unwrap();
    assert!(exit.error().unwrap().contains("stop time-out"), "{:?}", exit.ending);
}

#[tokio::test(start_paused = true)]
async fn an_old_event_alone_puts_nothing_to_use() {
    // The watch still tells what was queued when the node is cut off; a read would say more.
    let lab = Lab::withdrawing(60);
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    lab.until_phase(Phase::Joining).await;
    pass(1).await;
    let assignment = lab.bound(&lab.label().await, "10.0.0.1", 80);
    let key = lab.prefix.node(&lab.id, NodePart::Assignment);
    // Both at once: the event is on its way when the link is cut.
    let put = lab.store.txn(Txn { then: vec![Op::put(key, assignment.encode())], ..Txn::default() });
    put.await.unwrap();
    tokio::task::yield_now().await;
    agent.link.cut();
    pass(120).await;
    assert_eq!(machine.uses(), None);
    agent.link.heal();
    lab.until_registered(&assignment).await;
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn terms_that_become_withdraw_are_taken_on_after_a_read() {
    let mut lab = Lab::new();
    let machine = lab.serving_machine();
    let (agent, given) = registered(&lab, &machine).await;
    machine.journal();
    lab.terms.on_isolation = OnIsolation::Withdraw;
    lab.terms.hold_s = 60;
    let answer = Assignment { generation: given.generation, ..lab.bound(&lab.label().await, "10.0.0.1", 80) };
    lab.put(NodePart::Assignment, &answer).await;
    lab.until("the new terms", async || machine.recorded().is_some_and(|applied| applied.assignment == answer)).await;
    pass(120).await;
    assert_eq!(journal(&machine), "");
    agent.link.cut();
    lab.until("the withdraw", async || machine.uses().is_none()).await;
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_without_space_takes_no_address_away() {
    let lab = Lab::withdrawing(60);
    let machine = lab.serving_machine();
    machine.set_hook(Some(HookScript { takes: Duration::from_secs(1), fails: None }));
    let (agent, _) = registered(&lab, &machine).await;
    // A status that cannot be written must not keep the reads back.
    machine.set_hook(Some(HookScript { takes: Duration::from_secs(1), fails: Some("no".into()) }));
    lab.assign("10.0.0.2", 80).await;
    lab.etcd.set_full(true);
    pass(300).await;
    assert!(machine.journal().iter().any(|line| line.contains("failed")));
    assert_eq!(machine.uses().map(|given| given.addresses[0].to_string()), Some("10.0.0.1".into()));
    lab.etcd.set_full(false);
    lab.until_phase(Phase::Failed).await;
    agent.kill().await;
}

/// How long after its start a node that is cut off at 200 s has nothing in use any more; `woken`: something wakes it shortly
/// before, so that it looks at its clocks at other moments.
async fn withdrawn_after(woken: Option<Duration>) -> Duration {
    let lab = Lab::withdrawing(60);
    let machine = lab.serving_machine();
    let begun = Instant::now();
    let (agent, _) = registered(&lab, &machine).await;
    let cut = begun + Duration::from_secs(200);
    if let Some(before) = woken {
        tokio::time::sleep_until(cut - before).await;
        let op = Op::put(lab.prefix.node(&lab.id, NodePart::Hold), "{}");
        lab.store.txn(Txn { then: vec![op], ..Txn::default() }).await.unwrap();
    }
    tokio::time::sleep_until(cut).await;
    agent.link.cut();
    lab.until("the withdraw", async || machine.uses().is_none()).await;
    let took = begun.elapsed();
    agent.kill().await;
    took
}

#[tokio::test(start_paused = true)]
async fn it_withdraws_at_the_hold_and_not_at_the_next_look() {
    let (plain, shifted) = (withdrawn_after(None).await, withdrawn_after(Some(Duration::from_millis(300))).await);
    assert!(plain.abs_diff(shifted) < Duration::from_millis(100), "{plain:?} {shifted:?}");
}

#[tokio::test(start_paused = true)]
async fn all_hooks_of_a_withdraw_together_take_one_hook_limit() {
    // The promise counts on stop time-out and one hook limit (7 s). What is in use goes first.
    for (takes, both) in [(3, true), (5, false)] {
        withdraw_with_two_hooks(Duration::from_secs(takes), both).await;
    }
}

async fn withdraw_with_two_hooks(takes: Duration, both: bool) {
    let lab = Lab::withdrawing(60);
    let machine = lab.serving_machine();
    let (agent, _) = registered(&lab, &machine).await;
    machine.set_hook(Some(HookScript { takes, fails: Some("no".into()) }));
    lab.assign("10.0.0.2", 80).await;
    lab.until_phase(Phase::Failed).await;
    machine.journal();
    agent.link.cut();
    lab.until("the child's end", async || machine.uses().is_none()).await;
    let begun = Instant::now();
    lab.until("the end of the withdraw", async || machine.recorded().is_none()).await;
    assert!(begun.elapsed() <= Duration::from_millis(7_100), "{:?}", begun.elapsed());
    let did = journal(&machine);
    assert_eq!((did.contains("withdrawn 10.0.0.1"), did.contains("withdrawn 10.0.0.2")), (true, both), "{did}");
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_label_that_cannot_be_written_takes_no_address_away() {
    let lab = Lab::withdrawing(60);
    let machine = lab.serving_machine();
    let (agent, _) = registered(&lab, &machine).await;
    lab.etcd.set_full(true);
    lab.delete(NodePart::Label).await;
    pass(300).await;
    assert!(machine.uses().is_some());
    lab.etcd.set_full(false);
    lab.until("the label", async || lab.get::<Label>(NodePart::Label).await.is_some()).await;
    agent.kill().await;
}
