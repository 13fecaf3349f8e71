//! Most of a fleet dies at once: nothing is taken away, whoever leads, until an operator says so.

use std::time::Duration;

use super::*;

const IDS: [&str; 5] = ["a", "b", "c", "d", "e"];
const DEAD: [&str; 3] = ["a", "b", "c"];

/// All members of `all`: state and whether it is published.
async fn members(fleet: &Fleet) -> BTreeMap<String, (String, bool)> {
    let found = read(&fleet.store, "/enlist/manager/groups/all/members/").await;
    let told = |text: &String| {
        let member: Json = serde_json::from_str(text).unwrap();
        (member["state"].as_str().unwrap().to_owned(), member["published"].as_bool().unwrap())
    };
    found.iter().map(|(id, text)| (id.clone(), told(text))).collect()
}

async fn extended(fleet: &Fleet) -> usize {
    let mut count = 0;
    for id in DEAD {
        count += usize::from(fleet.json(&format!("nodes/{id}/hold")).await["extended"] == true);
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_brake_outlives_its_leader_and_ends_by_an_operators_word() {
    let fleet = Fleet::on(EtcdVersion::V3_5);
    let first = fleet.run(&[]);
    fleet.apply(&(pool("eu", "127.70.10.0/24", SHORT, "") + "{kind: Group, name: all, selector: ''}")).await;
    let mut agents: Vec<Process> = IDS.iter().map(|id| fleet.agent(id, &[])).collect();
    for id in IDS {
        fleet.registered(id).await;
    }
    fleet.until_members("all", &IDS).await;
    for agent in agents.drain(..DEAD.len()) {
        agent.kill().await;
    }
    // Their holds end, and are put again once, for an hour.
    until("all holds are extended", LIMIT, || async { (extended(&fleet).await == DEAD.len()).then_some(()) }).await;
    let suspects = |members: &BTreeMap<String, (String, bool)>| {
        DEAD.iter().all(|id| members.get(*id) == Some(&("suspect".to_owned(), true)))
    };
    until("the dead ones are still published", LIMIT, || async { suspects(&members(&fleet).await).then_some(()) }).await;
    let roles: Json = serde_json::from_str(&fleet.ok(&["get", "roles", "-o", "json"]).await).unwrap();
    assert!(roles.as_array().unwrap().iter().any(|role| role["brake"].to_string().contains("silent")), "{roles}");

    // The leader of every role dies; the next ones see the same.
    let before = fleet.json("roles/allocator").await["identity"].clone();
    first.kill().await;
    let second = fleet.run(&[]);
    for role in ["allocator", "manager"] {
        let other = |report: &Json| report["identity"] != before && report["brake"].to_string().contains("silent");
        fleet.until_json(&format!("roles/{role}"), "led by another, brake on", other).await;
    }
    // Longer than hold and cooldown together.
    let end = tokio::time::Instant::now() + Duration::from_secs(5);
    while tokio::time::Instant::now() < end {
        assert_eq!(extended(&fleet).await, DEAD.len());
        assert!(suspects(&members(&fleet).await), "{:?}", members(&fleet).await);
    }

    fleet.ok(&["brake", "release", "allocator"]).await;
    for id in DEAD {
        fleet.until_json(&format!("nodes/{id}/assignment"), "released", Json::is_null).await;
    }
    fleet.until_members("all", &["d", "e"]).await;
    fleet.sound().await;
    drop((second, agents));
}
