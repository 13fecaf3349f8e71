//! What a running agent says of its node changes.

use super::*;

fn variables(pairs: &[(&str, &str)]) -> crate::model::variables::Variables {
    let mut variables = crate::model::variables::Variables::default();
    pairs.iter().for_each(|(name, value)| variables.insert(name, value).unwrap());
    variables
}

fn set(pairs: &[(&str, Option<&str>)]) -> crate::agent::host::SetVariables {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect()
}

impl Lab {
    async fn until_says(&self, wanted: &[(&str, &str)]) {
        self.until("the variables", async || {
            let label = self.label().await;
            label.variables.iter().filter(|(name, _)| !name.starts_with("host/")).collect::<Vec<_>>() == wanted
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn variables_are_set_and_removed_while_it_runs() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let settings = AgentSettings { variables: variables(&[("gpu", "2"), ("zone", "eu-1")]), ..lab.settings() };
    let agent = lab.start_with(&machine, settings.clone());
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    machine.journal();
    assert_eq!(machine.set_variables(set(&[("gpu", None), ("zone", Some("eu-2"))])).await.unwrap(), "variables changed");
    lab.until_says(&[("zone", "eu-2")]).await;
    lab.until("files", async || machine.variables().get("zone").map(String::as_str) == Some("eu-2")).await;
    assert_eq!(machine.set_variables(set(&[("zone", Some("eu-2"))])).await.unwrap(), "nothing changed");
    // Refused as a whole.
    let error = machine.set_variables(set(&[("rack", Some("r1")), ("zone", Some("a b"))])).await.unwrap_err();
    assert!(error.contains("zone"), "{error}");
    // A fact of the host can be taken out as well; what was set stays on top of what a reload brings.
    machine.set_variables(set(&[("host/hostname", None)])).await.unwrap();
    let read = AgentSettings { variables: variables(&[("role", "web"), ("zone", "eu-3")]), ..settings };
    assert_eq!(machine.reload(Some(read)).await.unwrap(), "settings changed");
    lab.until_says(&[("role", "web"), ("zone", "eu-2")]).await;
    assert_eq!(lab.label().await.variables.get("host/hostname"), None);
    let again = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&again).await;
    assert_eq!(journal(&machine), "", "nobody was disturbed");
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_takes_what_it_can_and_names_the_rest() {
    let lab = Lab::new();
    let machine = lab.serving_machine();
    let agent = lab.start(&machine);
    let given = lab.assign("10.0.0.1", 80).await;
    lab.until_registered(&given).await;
    let error = machine.reload(None).await.unwrap_err();
    assert!(error.contains("line 3"), "{error}");
    let read = AgentSettings {
        lease_ttl: Duration::from_secs(60),
        drain_time: Duration::from_secs(5),
        ports: Vec::new(),
        ..lab.settings()
    };
    let said = machine.reload(Some(read)).await.unwrap();
    assert_eq!(said, "settings changed; a change of ports, lease_ttl needs a restart");
    agent.shutdown.cancel();
    lab.until_phase(Phase::Draining).await;
    pass(4).await;
    assert!(machine.uses().is_some(), "the drain time of the reload counts");
    agent.task.await.unwrap();
}
