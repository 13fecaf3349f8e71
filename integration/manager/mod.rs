//! The manager behind a relay on real etcds: what people see in `etcdctl`, and restarts in the middle of changes.

use enlist::Store;
use enlist::manager::{self, ManagerSettings};
use enlist::reconcile::Site;
use enlist::relay::{self, RelaySettings};
use enlist::store::api::{KeyRange, Op, Txn};
use enlist::store::keys::Prefix;

use crate::support::etcd::{Etcd, EtcdVersion};
use crate::support::roles::{LEADER_TTL, LIMIT, Running, bound, context, delete, label, put, read, status};
use crate::support::wait::until;

fn site(store: &Store, prefix: &str) -> Site {
    Site { store: store.clone(), prefix: prefix.parse().unwrap() }
}

fn start_relay(identity: &str, from: &Store, to: &Store) -> Running {
    let context = context(identity);
    let settings = RelaySettings { leader_ttl: LEADER_TTL, ..RelaySettings::default() };
    Running::start(&context, relay::run(site(from, "/edge"), site(to, "/core"), settings, context.clone()))
}

fn start_manager(identity: &str, to: &Store) -> Running {
    let context = context(identity);
    let settings = ManagerSettings { leader_ttl: LEADER_TTL };
    Running::start(&context, manager::run(site(to, "/core"), settings, context.clone()))
}

async fn ready(store: &Store, node: &str, ip: &str, variables: &[(&str, &str)]) {
    let key = |part: &str| format!("/edge/nodes/{node}/{part}");
    let then = vec![
        Op::put(key("label"), label(node, variables, "")),
        Op::put(key("assignment"), bound(node, ip)),
        Op::put(key("status"), status("registered")),
    ];
    store.txn(Txn { then, ..Txn::default() }).await.unwrap();
}

async fn define(store: &Store, name: &str, selector: &str, more: &str) {
    let text = format!(r#"{{"v":1,"kind":"Group","name":"{name}","selector":"{selector}"{more}}}"#);
    put(store, &format!("/core/groups/{name}"), text).await;
}

/// What `check` says of both roles once nothing changes any more.
async fn findings(from: &Store, to: &Store) -> Vec<String> {
    let prefix = |text: &str| -> Prefix { text.parse().unwrap() };
    let (edge, core) = (prefix("/edge"), prefix("/core"));
    let manager = to.read_all(core.folder("manager"), None).await.unwrap();
    let groups = to.read_all(core.folder("groups"), Some(manager.header.revision)).await.unwrap();
    let ranges = [KeyRange::one(core.checkpoint()), core.folder("manager/nodes")];
    let mut copies = manager.clone();
    copies.kvs.retain(|kv| ranges.iter().any(|range| range.contains(&kv.key)));
    let source = from.read_all(edge.folder("nodes"), None).await.unwrap();
    let mut found = relay::check((&edge, &source), (&core, &copies));
    found.extend(manager::check(&core, &groups, &manager, None));
    found.iter().map(ToString::to_string).collect()
}

async fn settled(from: &Store, to: &Store, members: usize) {
    until("groups are what selectors say", LIMIT, || async {
        let count = read(to, "/core/manager/groups/").await.keys().filter(|key| key.contains("/members/")).count();
        (findings(from, to).await.is_empty() && count == members).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_become_members_that_etcdctl_shows() {
    for version in EtcdVersion::ALL {
        let (source, destination) = (Etcd::start(EtcdVersion::V3_5), Etcd::start(version));
        let (from, to) = (source.store(), destination.store());
        let _roles = (start_relay("relay", &from, &to), start_manager("manager", &to));
        define(&to, "web", "role in (web),zone", r#","port":"http""#).await;
        define(&to, "zones", "", r#","keyed_by":["zone"]"#).await;
        ready(&from, "edge-7", "10.20.4.17", &[("role", "web"), ("zone", "eu-1")]).await;
        ready(&from, "edge-8", "10.20.4.18", &[("role", "db"), ("zone", "eu-1")]).await;
        settled(&from, &to, 3).await;
        let shown = destination.etcdctl(&["get", "--prefix", "/core/manager/groups/"]).unwrap();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "/core/manager/groups/web");
        assert!(lines[1].starts_with(
            r#"{"v":1,"group":"web","selector":"role in (web),zone","members":1,"published":1,"condition":{"state":"ok"}"#
        ));
        assert_eq!(
            lines[2..4],
            [
                "/core/manager/groups/web/members/edge-7",
                r#"{"v":1,"node":"edge-7","addresses":["10.20.4.17"],"ports":{"http":8000},"state":"ready","published":true}"#,
            ]
        );
        assert_eq!(lines[4], "/core/manager/groups/zones%2Fzone%3Deu-1");
        // The node dies: out at once. Its definition is spoilt by hand: frozen, not emptied.
        delete(&from, "/edge/nodes/edge-7/status").await;
        put(&to, "/core/groups/web", "{").await;
        until("suspect and frozen", LIMIT, || async {
            let groups = read(&to, "/core/manager/groups/").await;
            let suspect = groups.get("web/members/edge-7")?.contains(r#""state":"suspect","published":false"#);
            (suspect && groups.get("web")?.contains("frozen")).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managers_killed_in_the_middle_of_changes_leave_neither_ghosts_nor_gaps() {
    let (source, destination) = (Etcd::start(EtcdVersion::V3_5), Etcd::start(EtcdVersion::V3_4));
    let (from, to) = (source.store(), destination.store());
    let _relay = start_relay("relay", &from, &to);
    let mut managers = vec![start_manager("m0", &to), start_manager("m1", &to)];
    define(&to, "all", "", "").await;
    for zone in 0..10 {
        define(&to, &format!("zone{zone}"), &format!("zone=z{zone}"), "").await;
    }
    for round in 0..5_usize {
        for node in 0..60_usize {
            let zone = format!("z{}", (node + round) % 10);
            ready(&from, &format!("n{node}"), &format!("10.0.{round}.{node}"), &[("zone", &zone)]).await;
            if node % 20 == 19 {
                drop(managers.remove(0));
                managers.push(start_manager(&format!("m{round}-{node}"), &to));
            }
        }
        define(&to, &format!("zone{round}"), "zone=nowhere", "").await;
    }
    for node in 0..5 {
        for part in ["label", "status", "assignment"] {
            delete(&from, &format!("/edge/nodes/n{node}/{part}")).await;
        }
    }
    // 55 nodes are left in `all`, and those of zones 5 to 9 in their zone: 0 to 4 select nobody any more.
    let members = 55 + (5..60_usize).filter(|node| (node + 4) % 10 >= 5).count();
    settled(&from, &to, members).await;
}
