//! Least privilege: a relay reads `nodes/` at the source and writes its own corner of the destination, and needs no more.

use enlist::store::api::StoreError;

use super::*;
use crate::support::etcd::EtcdOptions;

fn with_users(version: EtcdVersion, permissions: &[&str]) -> Etcd {
    let etcd = Etcd::start_with(version, &EtcdOptions { flags: vec!["--auth-token-ttl=2".into()], ..EtcdOptions::default() });
    let mut commands = vec!["user add root:secret", "user add relay:word", "role add relaying"];
    let grants: Vec<String> = permissions.iter().map(|grant| format!("role grant-permission relaying {grant}")).collect();
    commands.extend(grants.iter().map(String::as_str));
    commands.extend(["user grant-role relay relaying", "role add root", "user grant-role root root", "auth enable"]);
    for command in commands {
        let arguments: Vec<&str> = command.split(' ').collect();
        if let Err(error) = etcd.etcdctl(&arguments) {
            // 3.5 makes the role `root` by itself.
            assert!(error.contains("already exists"), "{arguments:?}: {error}");
        }
    }
    etcd
}

async fn login(etcd: &Etcd, user: &str) -> Store {
    let settings = enlist::store::etcd::StoreSettings { user: Some(user.into()), ..etcd.settings() };
    Store::connect(settings).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_needs_to_read_nodes_and_to_write_its_corner_and_nothing_else() {
    for version in EtcdVersion::ALL {
        let source = with_users(version, &["read --prefix=true /edge/nodes/"]);
        let destination = with_users(
            version,
            &[
                "readwrite --prefix=true /core/manager/",
                "readwrite --prefix=true /core/leaders/relay/",
                "readwrite /core/roles/relay",
                "read /core/brakes/relay",
            ],
        );
        let root = (login(&source, "root:secret").await, login(&destination, "root:secret").await);
        let relaying = (login(&source, "relay:word").await, login(&destination, "relay:word").await);
        assert!(matches!(relaying.0.get("/edge/pools/x").await, Err(StoreError::Refused(_))));
        let settings = RelaySettings { leader_ttl: LEADER_TTL, source_name: "edge".into(), ..RelaySettings::default() };
        let running = relay("one", &relaying.0, SOURCE, &relaying.1, DESTINATION, settings);
        // Longer than tokens live (2 s): watches and writes go on without a restart.
        let until_then = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
        let mut round = 0;
        while tokio::time::Instant::now() < until_then {
            round += 1;
            let wanted = label("a", &[], &round.to_string());
            put(&root.0, "/edge/nodes/a/label", wanted.clone()).await;
            until("the copy follows", LIMIT, || async {
                (read(&root.1, "/core/manager/nodes/").await.get("a/label") == Some(&wanted)).then_some(())
            })
            .await;
        }
        until("it reports", LIMIT, || async { root.1.get("/core/roles/relay").await.unwrap().1 }).await;
        running.stop().await;
        assert!(read(&root.1, "/core/leaders/relay/").await.is_empty(), "it stepped down in order");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_at_the_first_contact_it_ends_and_says_why() {
    let source = with_users(EtcdVersion::V3_5, &["read --prefix=true /elsewhere/"]);
    let destination = Etcd::start(EtcdVersion::V3_5);
    let store = login(&source, "relay:word").await;
    let error = relay("one", &store, SOURCE, &destination.store(), DESTINATION, RelaySettings::default()).ended().await;
    let error = format!("{:#}", error.unwrap_err());
    assert!(error.contains("permission denied"), "{error}");
}
