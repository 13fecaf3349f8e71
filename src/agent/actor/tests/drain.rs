//! `draining` is acknowledged first, the drain time passes, then what is in use is put out of use.

use super::*;
use crate::agent::exit::Ending;

const DRAIN: Duration = Duration::from_secs(5);

impl Lab {
    fn draining_for(&self, drain_time: Duration) -> AgentSettings {
        AgentSettings { drain_time, ..self.settings() }
    }

    async fn serving(&self, machine: &SimMachine, settings: AgentSettings) -> (Running, Assignment) {
        let agent = self.start_with(machine, settings);
        let given = self.assign("10.0.0.1", 80).await;
        self.until_registered(&given).await;
        (agent, given)
    }
}

fn uses(machine: &SimMachine) -> String {
    machine.uses().map_or("nothing".to_owned(), |given| given.summary())
}

/// Waits until it uses something else, and tells after how long.
async fn until_uses(lab: &Lab, machine: &SimMachine, what: &str) -> Duration {
    let begin = Instant::now();
    lab.until(what, async || uses(machine) == what).await;
    begin.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_stop_drains_before_the_child_is_told_to_end() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let (agent, given) = lab.serving(&machine, lab.draining_for(DRAIN)).await;
    agent.shutdown.cancel();
    assert_eq!(lab.until_phase(Phase::Draining).await.generation, given.generation);
    let took = until_uses(&lab, &machine, "nothing").await;
    assert!(took >= Duration::from_millis(4_900) && took < Duration::from_secs(6), "{took:?}");
    let exit = agent.task.await.unwrap();
    assert_eq!((exit.ending.clone(), exit.code()), (Ending::Stopped, 0), "the child ended by the agent's own TERM");
    assert_eq!(lab.status().await.unwrap().phase, Phase::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_has_two_seconds_to_take_it() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let (agent, _) = lab.serving(&machine, lab.settings()).await;
    agent.link.cut();
    agent.shutdown.cancel();
    let took = until_uses(&lab, &machine, "nothing").await;
    assert!(took >= Duration::from_millis(1_900) && took < Duration::from_millis(2_500), "{took:?}");
    assert_eq!(agent.task.await.unwrap().ending, Ending::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_move_drains_before_the_old_address_is_given_up() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    machine.set_hook(Some(crate::agent::sim::HookScript::default()));
    let (agent, _) = lab.serving(&machine, lab.draining_for(DRAIN)).await;
    machine.journal();
    let moved = lab.assign("10.0.0.2", 80).await;
    lab.until_phase(Phase::Draining).await;
    pass(4).await;
    assert_eq!((uses(&machine).as_str(), journal(&machine).as_str()), ("10.0.0.1 http=80", ""));
    lab.until_registered(&moved).await;
    assert_eq!(uses(&machine), "10.0.0.2 http=80");
    // The same place again: nobody is disturbed, and nothing drains.
    let before = lab.etcd.revision();
    let same = lab.assign("10.0.0.2", 80).await;
    lab.until_registered(&same).await;
    assert_eq!(lab.puts_since(before, NodePart::Status), 1);
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_taken_back_ends_the_drain() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let (agent, _) = lab.serving(&machine, lab.draining_for(DRAIN)).await;
    machine.journal();
    lab.assign("10.0.0.2", 80).await;
    lab.until_phase(Phase::Draining).await;
    let back = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&back).await;
    pass(10).await;
    assert_eq!((uses(&machine).as_str(), journal(&machine).as_str()), ("10.0.0.1 http=80", ""));
    assert_eq!(lab.status().await.unwrap().phase, Phase::Registered);
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn only_what_is_still_claimed_is_drained_on_a_withdraw() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let (agent, _) = lab.serving(&machine, lab.draining_for(DRAIN)).await;
    lab.refuse(Reason::PoolFull).await;
    lab.until_phase(Phase::Draining).await;
    let took = until_uses(&lab, &machine, "nothing").await;
    assert!(took >= Duration::from_millis(4_900) && took < Duration::from_secs(6), "{took:?}");
    let again = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&again).await;
    // Lost: it may be another node's by now.
    lab.delete(NodePart::Assignment).await;
    let took = until_uses(&lab, &machine, "nothing").await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_safe_time_of_an_isolated_node_ends_its_drain() {
    let lab = Lab::withdrawing(30);
    let machine = lab.serving_machine();
    let (agent, _) = lab.serving(&machine, lab.draining_for(Duration::from_secs(600))).await;
    let (cut, begin) = (&agent.link, Instant::now());
    cut.cut();
    lab.assign("10.0.0.2", 80).await;
    agent.shutdown.cancel();
    until_uses(&lab, &machine, "nothing").await;
    assert!(begin.elapsed() <= Duration::from_secs(31), "{:?}", begin.elapsed());
    agent.task.await.unwrap();
}
