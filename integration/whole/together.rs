//! Agents of one process that share leases, on real etcds: some come, stop and leave, and one dies.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use enlist::agent::host::Host;
use enlist::agent::os::OsHost;
use enlist::agent::{AgentSettings, SharedAgents};
use enlist::model::names::NodeId;
use enlist::store::api::LeaseId;
use futures::future::join_all;

use super::*;
use crate::support::roles::context;

/// More than have a place on one lease.
const AGENTS: usize = 105;
/// Short, so that one that dies is silent soon; not so short that a busy machine oversleeps it.
const TTL: Duration = Duration::from_secs(5);

fn id(n: usize) -> String {
    format!("shared-{n:03}")
}

impl Fleet {
    async fn status(&self, id: &str) -> Option<KeyValue> {
        self.key(&format!("nodes/{id}/status")).await
    }

    /// Its status stands on a lease of which the server knows, and has stood since `since`, whatever was written.
    async fn stands_since(&self, id: &str, since: Revision) -> LeaseId {
        let status = self.status(id).await.unwrap_or_else(|| panic!("{id} is silent"));
        assert!(status.create_revision <= since, "{id} was silent");
        assert_ne!(status.lease, LeaseId::NONE);
        status.lease
    }
}

async fn come_go_and_die(version: EtcdVersion, network: &str) {
    let fleet = Fleet::on(version);
    let _roles = fleet.run(&[]);
    fleet.apply(&pool("eu", &format!("{network}.0/24"), LONG, "")).await;
    fleet.apply("{kind: Group, name: all, selector: ''}\n").await;
    let together = SharedAgents::new(fleet.store.clone());

    // One that can die: nothing of it goes on when its task is gone.
    let doomed = id(0);
    let ports = vec!["http".parse().unwrap()];
    let settings = AgentSettings {
        lease_ttl: TTL,
        ports,
        state_dir: Some(fleet.path(&doomed)),
        ..AgentSettings::new(doomed.parse::<NodeId>().unwrap())
    };
    let host: Arc<dyn Host> = OsHost::new(&settings).unwrap();
    let dies = tokio::spawn(together.run(settings, context(&doomed), host));
    fleet.registered(&doomed).await;
    let others =
        (1..AGENTS).map(|n| together.builder().id(&id(n)).port("http").lease_ttl(TTL).state_dir(fleet.path(&id(n))).join());
    let mut others: Vec<_> = join_all(others).await.into_iter().map(Result::unwrap).collect();
    let begun = fleet.store.get("/enlist/").await.unwrap().0.revision;
    let mut leases = Vec::new();
    for n in 0..AGENTS {
        leases.push(fleet.stands_since(&id(n), begun).await);
    }
    let different: BTreeSet<i64> = leases.iter().map(|lease| lease.0).collect();
    assert_eq!(different.len(), 2, "a hundred of {AGENTS} on one");

    // Who stops or leaves takes its status off, and leaves the lease to the others.
    others.remove(0).stop().await.unwrap();
    others.remove(0).leave().await.unwrap();
    let stopped = fleet.status(&id(1)).await.unwrap();
    assert_eq!(stopped.lease, LeaseId::NONE);
    fleet.until_gone(&format!("nodes/{}/label", id(2))).await;
    for (n, lease) in leases.iter().enumerate().skip(3) {
        assert_eq!(fleet.stands_since(&id(n), begun).await, *lease, "{}", id(n));
    }

    let lease = leases[0];
    // Who dies is silent when the lease has run out; the others are on another one by then, and never were silent.
    dies.abort();
    until("the dead one is silent", LIMIT, || async { fleet.status(&doomed).await.is_none().then_some(()) }).await;
    for n in 3..AGENTS {
        assert_ne!(fleet.stands_since(&id(n), begun).await, lease, "{}", id(n));
    }
    assert_eq!(fleet.store.time_to_live(lease).await.unwrap().0, -1, "the lease is gone");
    let members: Vec<_> = (3..AGENTS).map(id).collect();
    until("the dead one's member is not published, the others' are", LIMIT, || async {
        let all = read(&fleet.store, "/enlist/manager/groups/all/members/").await;
        let published = all.into_iter().filter(|(_, member)| member.contains(r#""published":true"#));
        published.map(|(id, _)| id).eq(members.iter().cloned()).then_some(())
    })
    .await;

    for result in join_all(others.into_iter().map(enlist::agent::Registered::stop)).await {
        result.unwrap();
    }
    fleet.sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_share_leases_come_go_and_die_on_etcd_3_4() {
    come_go_and_die(EtcdVersion::V3_4, "127.78.1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_share_leases_come_go_and_die_on_etcd_3_5() {
    come_go_and_die(EtcdVersion::V3_5, "127.78.2").await;
}
