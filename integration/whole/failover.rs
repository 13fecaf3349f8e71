//! Three copies of `enlist run`, and SIGKILL for whichever leads, while nodes join.

use std::collections::BTreeSet;

use nix::unistd::Pid;

use super::*;

const NODES: usize = 18;

/// Which of these processes leads a role. A killed leader's key stays for a TTL.
async fn leader(fleet: &Fleet, role: &str, copies: &[Process]) -> usize {
    let what = format!("one of these leads as {role}");
    let range = KeyRange::prefix(format!("/enlist/leaders/{role}/"));
    until(&what, LIMIT, || async {
        let found = fleet.store.read_all(range.clone(), None).await.unwrap();
        let oldest = found.kvs.into_iter().min_by_key(|kv| kv.create_revision)?;
        let identity = String::from_utf8(oldest.value.to_vec()).unwrap();
        let pid = identity.rsplit(['/', '"']).find_map(|part| part.parse().ok()).map(Pid::from_raw);
        copies.iter().position(|copy| Some(copy.pid()) == pid)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_killed_while_nodes_join_give_nothing_twice_and_forget_nobody() {
    let fleet = Fleet::on(EtcdVersion::V3_5);
    // As many addresses as nodes: any leak or double grant leaves somebody waiting.
    let exclude = excluded(NODES);
    let exact = format!("{{kind: Pool, name: eu, cidrs: [127.70.8.0/27], exclude: [{exclude}], hold: 60s, cooldown: 2s}}\n---\n");
    fleet.apply(&(exact + "{kind: Group, name: all, selector: ''}")).await;
    let mut copies: Vec<Process> = (0..3).map(|_| fleet.run(&[])).collect();
    let mut killed = BTreeSet::new();
    let mut agents = Vec::new();
    let ids: Vec<String> = (0..NODES).map(|number| format!("n{number:02}")).collect();
    for (number, id) in ids.iter().enumerate() {
        agents.push(fleet.agent(id, &["--no-host-facts"]));
        // In the middle of what the last six started; another role's leader each time.
        if number % 6 == 5 {
            let at = leader(&fleet, ["allocator", "relay", "allocator"][number / 6], &copies).await;
            let leading = copies.remove(at);
            killed.insert(leading.pid());
            leading.kill().await;
            copies.push(fleet.run(&[]));
        }
    }
    assert_eq!(killed.len(), 3);
    let mut addresses = BTreeSet::new();
    for id in &ids {
        addresses.insert(fleet.registered(id).await["addresses"].to_string());
    }
    assert_eq!(addresses.len(), NODES);
    let members: Vec<&str> = ids.iter().map(String::as_str).collect();
    fleet.until_members("all", &members).await;
    fleet.sound().await;
    let now = leader(&fleet, "allocator", &copies).await;
    assert!(!killed.contains(&copies[now].pid()));
    let roles: Json = serde_json::from_str(&fleet.ok(&["get", "roles", "-o", "json"]).await).unwrap();
    assert!(roles.as_array().unwrap().iter().all(|role| role["standby"] == 2), "{roles}");
    drop(agents);
}

/// All of the /27 that is beyond the first so many addresses.
fn excluded(first: usize) -> String {
    let rest: Vec<String> = (first + 1..31).map(|host| format!("127.70.8.{host}")).collect();
    rest.join(", ")
}
