//! A member of three is wiped and comes up alone under its old address, and the leader stands still for a while.

use std::time::Duration;

use enlist::store::etcd::StoreSettings;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_member_takes_no_agent_and_no_role_along() {
    let mut members = Etcd::start_cluster(EtcdVersion::V3_5);
    let endpoints: Vec<String> = members.iter().map(|member| member.endpoint.clone()).collect();
    let store = Store::open(StoreSettings::endpoints(endpoints.clone())).unwrap();
    let leader = store.member().await.unwrap().leader;
    let mut at = 0;
    for (index, member) in members.iter().enumerate() {
        if member.store().member().await.unwrap().header.member_id == leader {
            at = index;
        }
    }
    let mut leading = members.remove(at);
    let mut wiped = members.remove(0);
    // The processes are given all three.
    leading.endpoint = endpoints.join(",");
    let dir = tempfile::Builder::new().prefix("enlist-whole-").tempdir().unwrap();
    let fleet = Fleet { etcd: leading, store, manager: None, dir };
    let mut roles: Vec<Process> = (0..2).map(|_| fleet.run(&[])).collect();
    fleet.apply(&(pool("eu", "127.70.31.0/28", LONG, "") + "{kind: Group, name: all, selector: ''}")).await;
    let ids = ["a", "b", "c", "d"];
    let mut agents: Vec<Process> = ids.iter().map(|id| fleet.agent(id, &["--no-host-facts"])).collect();
    let mut before = Vec::new();
    for id in ids {
        before.push(fleet.registered(id).await["addresses"].clone());
    }

    tokio::task::block_in_place(|| wiped.come_up_alone());
    fleet.etcd.pause();
    // The pause is the point: longer than a lease, and than any call.
    tokio::time::sleep(Duration::from_secs(8)).await;
    fleet.etcd.resume();

    for (id, before) in ids.iter().zip(before) {
        assert_eq!(fleet.registered(id).await["addresses"], before, "{id}");
    }
    fleet.until_members("all", &ids).await;
    let found = wiped.store().read_all(KeyRange::prefix("/"), None).await.unwrap();
    assert_eq!(found.kvs.into_iter().map(|kv| kv.key).collect::<Vec<_>>(), [], "the wiped member was used");
    assert!(agents.iter_mut().chain(&mut roles).all(Process::is_running));
    // Each says it by name where it met that member, and so do the commands.
    let check = fleet.say(&["check"]).await;
    let says = format!("endpoint {} is a member of etcd cluster", wiped.endpoint);
    assert!(
        check.code == 3 && check.out.contains("endpoint-of-another-cluster") && check.err.contains(&says),
        "{}{}",
        check.out,
        check.err
    );
    let shown = fleet.say(&["get", "roles"]).await;
    assert!(shown.code == 0 && shown.err.contains(&says), "{}{}", shown.out, shown.err);
}

/// Two lists of endpoints that belong together by mistake only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_of_two_clusters_are_refused_and_waited_for() {
    let (mut fleet, other) = (Fleet::on(EtcdVersion::V3_5), Etcd::start(EtcdVersion::V3_4));
    let real = fleet.etcd.endpoint.clone();
    fleet.etcd.endpoint = format!("{real},{}", other.endpoint);
    for _ in 0..4 {
        let said = fleet.say(&["get", "nodes"]).await;
        assert_eq!((said.code, said.out.as_str()), (6, ""), "{}", said.err);
        assert!(said.err.contains(&real) && said.err.contains(&other.endpoint) && said.err.contains("cluster"), "{}", said.err);
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
    }
    let mut agent = fleet.agent("a", &["--no-host-facts"]);
    let mut roles = fleet.run(&[]);
    fleet.until_said(&agent, "the etcd cluster is not certain").await;
    fleet.until_said(&roles, "the etcd cluster is not certain").await;
    assert!(agent.is_running() && roles.is_running());
    assert_eq!((agent.stop().await, roles.stop().await), (0, 0));
    for store in [fleet.store.clone(), other.store()] {
        let found = store.read_all(KeyRange::prefix("/"), None).await.unwrap();
        assert!(found.kvs.is_empty(), "{:?}", found.kvs);
    }
}
