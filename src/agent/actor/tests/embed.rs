//! A service that registers itself.

use super::*;
use crate::agent::builder::{Agent, AgentError, Registered};
use crate::model::variables::Variables;

fn builder(lab: &Lab, machine: &SimMachine) -> Agent {
    let context =
        Context { identity: "test".into(), seed: 7, wall: Wall::simulated(Duration::ZERO), shutdown: CancellationToken::new() };
    Agent::builder(lab.store.clone()).id("edge-7").port("http").host(machine.process()).context(context)
}

async fn registered(lab: &Lab, machine: &SimMachine) -> (Registered, Assignment) {
    let (joined, given) = tokio::join!(builder(lab, machine).variable("zone", "eu-1").join(), lab.assign("10.0.0.1", 80));
    (joined.unwrap(), given)
}

#[tokio::test(start_paused = true)]
async fn it_gets_its_assignment_and_hears_of_changes() {
    let lab = Lab::new();
    let machine = lab.machine("a", "192.0.2.17");
    let (mut registered, given) = registered(&lab, &machine).await;
    assert_eq!(registered.assignment, given);
    assert_eq!(registered.sockets(), ["10.0.0.1:80".parse().unwrap()]);
    assert_eq!(lab.label().await.variables.get("zone"), Some("eu-1"));

    let moved = lab.assign("10.0.0.2", 80).await;
    while registered.assignment != moved {
        registered.changed().await.unwrap();
    }
    lab.delete(NodePart::Assignment).await;
    while registered.state().assignment.is_some() {
        registered.changed().await.unwrap();
    }
    registered.stop().await.unwrap();
    assert_eq!(lab.status().await.unwrap().phase, Phase::Stopped);
}

#[tokio::test(start_paused = true)]
async fn other_variables_are_said_at_once_and_what_is_given_goes_on() {
    let lab = Lab::new();
    let machine = lab.machine("a", "192.0.2.17");
    let (registered, given) = registered(&lab, &machine).await;
    let mut variables = Variables::default();
    variables.insert("role", "web").unwrap();
    registered.set_variables(variables).await.unwrap();
    lab.until("the label", async || lab.label().await.variables.get("role") == Some("web")).await;
    let label = lab.label().await;
    assert_eq!((label.variables.get("zone"), label.variables.get("host/hostname")), (None, Some("a")));
    assert_eq!(registered.state().assignment, Some(given));
    registered.leave().await.unwrap();
    assert_eq!(lab.status().await.unwrap().phase, Phase::Left);
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_stops() {
    let lab = Lab::new();
    let machine = lab.machine("a", "192.0.2.17");
    let (registered, _) = registered(&lab, &machine).await;
    drop(registered);
    lab.until_phase(Phase::Stopped).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_told_by_join() {
    let lab = Lab::new();
    let machine = lab.machine("a", "192.0.2.17");
    let error = |agent: Agent| async { agent.join().await.unwrap_err() };
    assert!(matches!(error(builder(&lab, &machine).id("Edge 7")).await, AgentError::Name(_)));
    assert!(matches!(error(builder(&lab, &machine).variable("zone", "a b")).await, AgentError::Variable(_)));
    assert!(matches!(error(builder(&lab, &machine).port("http")).await, AgentError::Settings(_)));
    assert!(matches!(error(builder(&lab, &machine).lease_ttl(Duration::from_millis(1_500))).await, AgentError::Settings(_)));
    assert_eq!(lab.etcd.revision(), Revision(1));
}

#[tokio::test(start_paused = true)]
async fn variables_that_are_said_while_it_joins_are_not_lost() {
    let lab = Lab::new();
    let machine = lab.machine("a", "192.0.2.17");
    let faults = Faults::new(7, FaultPlan::default());
    let link = faults.client(lab.store.clone());
    let context =
        Context { identity: "test".into(), seed: 7, wall: Wall::simulated(Duration::ZERO), shutdown: CancellationToken::new() };
    let agent = Agent::builder(link.store()).id("edge-7").port("http").host(machine.process()).context(context);
    let (registered, _) = tokio::join!(agent.join(), lab.assign("10.0.0.1", 80));
    let registered = registered.unwrap();
    faults.set_plan(FaultPlan { delay_max: Duration::from_secs(4), ..FaultPlan::default() });
    lab.delete(NodePart::Status).await;
    sleep(Duration::from_millis(50)).await;
    let mut variables = Variables::default();
    variables.insert("role", "web").unwrap();
    registered.set_variables(variables).await.unwrap();
    assert!(lab.status().await.is_none(), "it has joined already: this tests nothing");
    faults.calm();
    lab.until("the label", async || lab.label().await.variables.get("role") == Some("web")).await;
    registered.stop().await.unwrap();
}

/// A stop at the very start must not leave a file operation behind that still holds the state directory.
#[tokio::test]
async fn a_stop_at_the_start_leaves_the_state_directory_free() {
    let (etcd, dir) = (MemoryEtcd::new(), tempfile::tempdir().unwrap());
    for _ in 0..200 {
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        let context = Context { identity: "a".into(), seed: 1, wall: Wall::system(), shutdown };
        let joined = Agent::builder(etcd.store()).id("a").state_dir(dir.path()).context(context).join().await;
        assert!(matches!(joined, Err(AgentError::Stopped)), "{joined:?}");
    }
}
