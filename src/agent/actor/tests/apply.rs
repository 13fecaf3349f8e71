//! Applying, acknowledging, changing, waiting, refusing, failing.

use super::*;
use crate::agent::sim::HookScript;

#[tokio::test(start_paused = true)]
async fn a_node_joins_applies_and_acknowledges() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    machine.set_hook(Some(HookScript::default()));
    let agent = lab.start(&machine);
    let first = lab.until_phase(Phase::Joining).await;
    assert_eq!(first.generation, Revision::NONE);
    let label = lab.label().await;
    assert_eq!((label.variables.get("host/hostname"), label.temporary.ip().to_string().as_str()), (Some("a"), "192.0.2.17"));

    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    assert_eq!(journal(&machine), "hook assigned 10.0.0.1 http=80 | child of 10.0.0.1 http=80 started");
    assert_eq!(machine.recorded().unwrap().assignment, given);

    let exit = agent.stop().await;
    assert_eq!(exit.code(), 0);
    assert_eq!(journal(&machine), "child of 10.0.0.1 http=80 ended 143 | hook withdrawn 10.0.0.1 http=80");
    assert_eq!(lab.status().await.unwrap().phase, Phase::Stopped);
    // Without a lease: it stays.
    pass(60).await;
    assert!(lab.status().await.is_some());
}

#[tokio::test(start_paused = true)]
async fn another_answer_restarts_the_child_and_an_equal_one_does_not() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let first = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&first).await;
    let second = lab.assign("10.0.0.2", 80).await;
    lab.until_registered(&second).await;
    assert_eq!(
        journal(&machine),
        "child of 10.0.0.1 http=80 started | child of 10.0.0.1 http=80 ended 143 | child of 10.0.0.2 http=80 started"
    );
    // Other terms and generation for the same place.
    let mut third = lab.bound(&lab.label().await, "10.0.0.2", 80);
    if let Answer::Bound(bound) = &mut third.answer {
        bound.terms.hold_s = 1_200;
    }
    lab.put(NodePart::Assignment, &third).await;
    lab.until_registered(&third).await;
    assert_eq!(journal(&machine), "");
    assert_eq!(machine.recorded().unwrap().assignment, third);
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn files_follow_an_answer_that_came_while_the_child_was_looked_at() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    machine.set_child(Some(ChildScript { deaf: true, ..ChildScript::default() }));
    let agent = lab.start(&machine);
    let first = lab.assign("10.0.0.1", 80).await;
    lab.until("the child", async || machine.uses().is_some()).await;
    pass(1).await;
    // The same place out of another pool, while its ports are tried.
    let mut second = lab.bound(&lab.label().await, "10.0.0.1", 80);
    if let Answer::Bound(bound) = &mut second.answer {
        bound.terms.pool = "us".parse().unwrap();
    }
    assert_ne!(second.generation, first.generation);
    lab.put(NodePart::Assignment, &second).await;
    lab.until("the record", async || machine.recorded().is_some_and(|applied| applied.assignment == second)).await;
    assert_eq!(machine.files().map(|given| given.generation), Some(first.generation), "the look is under way");
    machine.set_child(Some(ChildScript::default()));
    lab.until_registered(&second).await;
    lab.until("the files", async || machine.files().is_some_and(|given| given.generation == second.generation)).await;
    assert_eq!(machine.files().unwrap().pool, "us".parse().unwrap());
    assert_eq!(journal(&machine), "child of 10.0.0.1 http=80 started", "nobody was disturbed");
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_another_label_is_not_applied() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    lab.until_phase(Phase::Joining).await;
    let mut other = lab.label().await;
    other.ports.push("metrics".parse().unwrap());
    lab.put(NodePart::Assignment, &lab.bound(&other, "10.0.0.1", 80)).await;
    pass(60).await;
    assert_eq!((journal(&machine).as_str(), machine.uses()), ("", None));
    let mut another = lab.bound(&lab.label().await, "10.0.0.1", 80);
    another.instance = "other".parse().unwrap();
    lab.put(NodePart::Assignment, &another).await;
    pass(60).await;
    assert_eq!(machine.uses(), None);
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn waiting_is_acknowledged_after_the_withdraw_and_bound_again_is_applied_again() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    machine.set_child(Some(ChildScript { stops_after: Duration::from_secs(3), ..ChildScript::default() }));
    let agent = lab.start(&machine);
    let first = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&first).await;
    let waiting = lab.refuse(Reason::PoolFull).await;
    pass(1).await;
    assert!(machine.uses().is_some());
    assert_ne!(lab.status().await.unwrap().generation, waiting.generation, "acknowledged while still in use");
    lab.until("the acknowledgement of waiting", async || {
        lab.status().await.is_some_and(|s| s.phase == Phase::Joining && s.generation == waiting.generation)
    })
    .await;
    assert_eq!((machine.uses(), machine.recorded()), (None, None));
    assert!(lab.status().await.unwrap().message.contains("pool-full"));
    machine.journal();
    let again = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&again).await;
    assert_eq!(journal(&machine), "child of 10.0.0.1 http=80 started");
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn an_assignment_that_is_gone_or_anothers_is_withdrawn_first() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let first = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&first).await;
    lab.delete(NodePart::Assignment).await;
    lab.until("the withdraw", async || machine.uses().is_none()).await;
    let second = lab.assign("10.0.0.2", 80).await;
    lab.until_registered(&second).await;
    let mut others = lab.bound(&lab.label().await, "10.0.0.2", 80);
    others.instance = "other".parse().unwrap();
    lab.put(NodePart::Assignment, &others).await;
    lab.until("the second withdraw", async || machine.uses().is_none()).await;
    assert_eq!(lab.until_phase(Phase::Joining).await.generation, Revision::NONE);
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_port_that_the_host_uses_is_refused_until_it_is_free_or_another_is_given() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    machine.set_taken("10.0.0.1:80".parse().unwrap(), true);
    let agent = lab.start(&machine);
    lab.assign("10.0.0.1", 80).await;
    let failed = lab.until_phase(Phase::Failed).await;
    assert_eq!(failed.refused.iter().map(|r| (r.ip.to_string(), r.port)).collect::<Vec<_>>(), [("10.0.0.1".to_owned(), 80)]);
    assert!(failed.message.contains("10.0.0.1:80"), "{}", failed.message);
    let other = lab.assign("10.0.0.1", 81).await;
    lab.until_registered(&other).await;
    assert_eq!(lab.status().await.unwrap().refused.len(), 1, "the refusal stands while the address is ours");
    assert_eq!(machine.uses().unwrap().port(), Some(81));
    let moved = lab.assign("10.0.0.2", 81).await;
    lab.until_registered(&moved).await;
    assert_eq!(lab.status().await.unwrap().refused, []);

    machine.set_taken("10.0.0.3:80".parse().unwrap(), true);
    let third = lab.assign("10.0.0.3", 80).await;
    lab.until_phase(Phase::Failed).await;
    assert_eq!(machine.uses().unwrap().addresses[0].to_string(), "10.0.0.2", "the old place serves until the new one does");
    machine.set_taken("10.0.0.3:80".parse().unwrap(), false);
    lab.until_registered(&third).await;
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_fails_is_retried_and_success_clears_it() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let failing =
        HookScript { fails: Some("the hook ended with exit code 3: no such interface".into()), ..HookScript::default() };
    machine.set_hook(Some(failing.clone()));
    let agent = lab.start(&machine);
    let first = lab.assign("10.0.0.1", 80).await;
    let failed = lab.until_phase(Phase::Failed).await;
    assert_eq!((failed.generation, failed.message.contains("exit code 3")), (Revision::NONE, true));
    pass(30).await;
    let tries = machine.journal().len();
    assert!((3..10).contains(&tries), "{tries} tries in 30 s");
    assert_eq!(machine.uses(), None);
    machine.set_hook(Some(HookScript::default()));
    lab.until_registered(&first).await;
    assert_eq!(lab.status().await.unwrap().message, "");

    // A change whose hook fails for ever: the old place goes on.
    machine.set_hook(Some(failing));
    lab.assign("10.0.0.2", 80).await;
    assert_eq!(lab.until_phase(Phase::Failed).await.generation, first.generation);
    pass(600).await;
    assert_eq!(machine.uses().unwrap().addresses[0].to_string(), "10.0.0.1");
    // Going back to it calls the hook for it once more: that of the other place was called, and may have done half.
    machine.set_hook(Some(HookScript::default()));
    machine.journal();
    let back = lab.bound(&lab.label().await, "10.0.0.1", 80);
    lab.put(NodePart::Assignment, &back).await;
    lab.until_registered(&back).await;
    assert_eq!(journal(&machine), "hook withdrawn 10.0.0.2 http=80 | hook assigned 10.0.0.1 http=80", "the child goes on");
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_child_that_does_not_listen_is_failed_until_it_does() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    machine.set_child(Some(ChildScript { deaf: true, ..ChildScript::default() }));
    let agent = lab.start(&machine);
    let first = lab.assign("10.0.0.1", 80).await;
    let before = Instant::now();
    let failed = lab.until_phase(Phase::Failed).await;
    assert!(before.elapsed() >= Duration::from_secs(30));
    assert!(failed.message.contains("10.0.0.1:80 does not accept connections"), "{}", failed.message);
    assert!(machine.uses().is_some());
    machine.set_child(Some(ChildScript::default()));
    lab.until_registered(&first).await;
    assert_eq!(journal(&machine), "child of 10.0.0.1 http=80 started");
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_ready_check_it_is_acknowledged_at_once() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    machine.set_child(Some(ChildScript { deaf: true, ..ChildScript::default() }));
    let agent = lab.start_with(&machine, AgentSettings { no_ready_check: true, ..lab.settings() });
    let first = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&first).await;
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_taken_back_while_it_is_applied_is_undone() {
    // While the hook runs (the child was not told to end yet), and while the old child ends.
    for (hook_takes, child_takes) in [(5, 0), (0, 5)] {
        let lab = Lab::new();
        let machine = lab.serving_machine();
        machine.set_child(Some(ChildScript { stops_after: Duration::from_secs(child_takes), ..ChildScript::default() }));
        machine.set_hook(Some(HookScript { takes: Duration::from_secs(hook_takes), fails: None }));
        let agent = lab.start(&machine);
        let first = lab.assign("10.0.0.1", 80).await;
        lab.until_registered(&first).await;
        lab.assign("10.0.0.2", 80).await;
        pass(2).await;
        machine.journal();
        let back = lab.bound(&lab.label().await, "10.0.0.1", 80);
        lab.put(NodePart::Assignment, &back).await;
        pass(30).await;
        lab.until_registered(&back).await;
        let did = journal(&machine);
        assert_eq!(machine.uses().map(|given| given.addresses[0].to_string()), Some("10.0.0.1".into()), "{did}");
        assert!(did.contains("hook withdrawn 10.0.0.2 http=80 | hook assigned 10.0.0.1 http=80"), "{did}");
        assert_eq!(did.contains("started"), child_takes > 0, "{did}");
        agent.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_looked_at_again_while_the_node_waits() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let taken = "10.0.0.1:80".parse().unwrap();
    machine.set_taken(taken, true);
    let agent = lab.start(&machine);
    lab.assign("10.0.0.1", 80).await;
    lab.until_phase(Phase::Failed).await;
    let waiting = lab.refuse(Reason::PortsFull).await;
    lab.until("the acknowledgement", async || lab.status().await.is_some_and(|s| s.generation == waiting.generation)).await;
    pass(200).await;
    assert_eq!(lab.status().await.unwrap().refused.len(), 1);
    machine.set_taken(taken, false);
    lab.until("a status without refusals", async || lab.status().await.is_some_and(|s| s.refused.is_empty())).await;
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_host_on_which_every_port_is_taken_makes_no_storm() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    for port in 80..400 {
        machine.set_taken(std::net::SocketAddr::new("10.0.0.1".parse().unwrap(), port), true);
    }
    let agent = lab.start(&machine);
    let begun = Instant::now();
    for port in 80..150 {
        lab.assign("10.0.0.1", port).await;
        let text = format!("10.0.0.1:{port} is in use");
        lab.until(&text, async || lab.status().await.is_some_and(|status| status.message.contains(&text))).await;
    }
    assert!(lab.status().await.unwrap().refused.len() <= 64);
    assert!(begun.elapsed() > Duration::from_secs(200), "{:?}", begun.elapsed());
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn the_own_child_on_all_addresses_is_nobody_else() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    machine.set_child(Some(ChildScript { on_all_addresses: true, ..ChildScript::default() }));
    let agent = lab.start(&machine);
    let first = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&first).await;
    let moved = lab.assign("10.0.0.2", 80).await;
    lab.until_registered(&moved).await;
    assert_eq!(lab.status().await.unwrap().refused, []);
    // Whoever listens on the one address alone is.
    machine.set_child(Some(ChildScript::default()));
    let third = lab.assign("10.0.0.3", 81).await;
    lab.until_registered(&third).await;
    machine.set_taken("10.0.0.4:81".parse().unwrap(), true);
    lab.assign("10.0.0.4", 81).await;
    assert_eq!(lab.until_phase(Phase::Failed).await.refused.len(), 1);
    assert_eq!(machine.uses().unwrap().addresses[0].to_string(), "10.0.0.3");
    agent.kill().await;
}
