//! A start while etcd is away.

use super::*;

impl Lab {
    fn offline(&self) -> AgentSettings {
        AgentSettings { offline_start: true, ..self.settings() }
    }

    /// A machine whose agent was registered, and ended in this way.
    async fn was_registered(&self, end: impl AsyncFnOnce(Running)) -> (SimMachine, Assignment) {
        let machine = self.serving_machine();
        let agent = self.start_with(&machine, self.offline());
        let given = self.assign("10.0.0.1", 80).await;
        self.until_registered(&given).await;
        end(agent).await;
        machine.reboot();
        machine.journal();
        (machine, given)
    }

    /// Starts an agent whose etcd is away. What it has started in a minute.
    async fn started_without_etcd(&self, machine: &SimMachine, settings: AgentSettings) -> (Running, String) {
        let agent = self.start_with(machine, settings);
        agent.link.cut();
        pass(60).await;
        let started = journal(machine);
        (agent, started)
    }
}

#[tokio::test(start_paused = true)]
async fn a_reboot_without_etcd_serves_and_is_registered_when_etcd_is_back() {
    let lab = Lab::new();
    let (machine, given) = lab.was_registered(Running::kill).await;
    let (agent, started) = lab.started_without_etcd(&machine, lab.offline()).await;
    assert_eq!(started, "child of 10.0.0.1 http=80 started");
    agent.link.heal();
    lab.until_registered(&given).await;
    pass(30).await;
    assert_eq!(journal(&machine), "", "it runs on");
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_was_lost_meanwhile_is_given_up_when_etcd_is_back() {
    let lab = Lab::new();
    let (machine, _) = lab.was_registered(Running::kill).await;
    let (agent, started) = lab.started_without_etcd(&machine, lab.offline()).await;
    assert_eq!(started, "child of 10.0.0.1 http=80 started");
    lab.delete(NodePart::Assignment).await;
    agent.link.heal();
    lab.until("the withdraw", async || machine.uses().is_none()).await;
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_starts_offline_without_leave_to_or_where_it_is_unsafe() {
    let lab = Lab::new();
    let (machine, _) = lab.was_registered(Running::kill).await;
    let (agent, started) = lab.started_without_etcd(&machine, lab.settings()).await;
    assert_eq!(started, "", "nobody allowed it");
    agent.kill().await;
    let copy = lab.machine("b", "192.0.2.18");
    copy.set_child(Some(ChildScript::default()));
    copy.copy_disk(&machine);
    let (agent, started) = lab.started_without_etcd(&copy, lab.offline()).await;
    assert_eq!(started, "", "the directory is a copy");
    agent.kill().await;

    let withdrawing = Lab::withdrawing(60);
    let (machine, _) = withdrawing.was_registered(Running::kill).await;
    machine.journal();
    let (agent, started) = withdrawing.started_without_etcd(&machine, withdrawing.offline()).await;
    assert_eq!(started, "", "two must never use one address");
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn an_acknowledged_stop_forbids_an_offline_start_and_no_other_does() {
    let lab = Lab::new();
    let stop = async |agent: Running| drop(agent.stop().await);
    let (machine, given) = lab.was_registered(stop).await;
    let (agent, started) = lab.started_without_etcd(&machine, lab.offline()).await;
    assert_eq!(started, "", "etcd counts its hold");
    // Once it was registered again, and stopped while etcd was away, nobody knows of that stop.
    agent.link.heal();
    lab.until_registered(&given).await;
    agent.link.cut();
    agent.stop().await;
    machine.reboot();
    machine.journal();
    let (agent, started) = lab.started_without_etcd(&machine, lab.offline()).await;
    assert_eq!(started, "child of 10.0.0.1 http=80 started");
    // A stop while it is offline takes nothing away either.
    agent.stop().await;
    machine.journal();
    let (agent, started) = lab.started_without_etcd(&machine, lab.offline()).await;
    assert_eq!(started, "child of 10.0.0.1 http=80 started");
    agent.kill().await;
}
