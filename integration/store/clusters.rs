//! Endpoints that are members of different clusters: a store is one cluster, whichever fails.

use std::time::Duration;

use enlist::Store;
use enlist::store::api::{Header, Op, StoreError, Txn};
use enlist::store::etcd::StoreSettings;
use tokio::time::Instant;

use super::subject::LIMIT;
use crate::support::etcd::{Etcd, EtcdVersion};
use crate::support::wait;

fn all(members: &[Etcd]) -> StoreSettings {
    let endpoints = members.iter().map(|member| member.endpoint.clone());
    StoreSettings {
        command_timeout: Duration::from_secs(1),
        dial_timeout: Duration::from_millis(900),
        ..StoreSettings::endpoints(endpoints)
    }
}

/// Reads and writes once. The headers of what succeeded.
async fn call(store: &Store) -> Vec<Header> {
    let write = Txn { then: vec![Op::put("a", "x")], ..Txn::default() };
    let written = store.txn(write).await.map(|answer| answer.header);
    let read = store.get("a").await.map(|(header, _)| header);
    [written, read].into_iter().flatten().collect()
}

async fn cluster_of(member: &Etcd) -> u64 {
    member.store().member().await.unwrap().header.cluster_id
}

/// The case that was seen: a member is wiped and comes up alone, and the leader stands still for 8 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_member_takes_no_client_along() {
    let mut members = Etcd::start_cluster(EtcdVersion::V3_5);
    let stores: Vec<Store> = (0..6).map(|_| Store::open(all(&members)).unwrap()).collect();
    let real = cluster_of(&members[0]).await;
    let leader = stores[0].member().await.unwrap().leader;
    for store in &stores {
        assert_eq!(call(store).await.len(), 2);
    }
    // The leader first in the list, the wiped one last.
    let mut at = 0;
    for (index, member) in members.iter().enumerate() {
        if member.store().member().await.unwrap().header.member_id == leader {
            at = index;
        }
    }
    members.swap(0, at);
    tokio::task::block_in_place(|| members[2].come_up_alone());
    let alone = cluster_of(&members[2]).await;
    assert_ne!(alone, real);
    members[0].pause();
    let (paused, mut served) = (Instant::now(), Vec::new());
    while paused.elapsed() < Duration::from_secs(8) {
        let calls = futures::future::join_all(stores.iter().map(call)).await;
        served.extend(calls.into_iter().flatten().map(|header| header.cluster_id));
        // A process that starts now knows no cluster.
        let newcomer = Store::open(all(&members)).unwrap();
        served.extend(call(&newcomer).await.into_iter().map(|header| header.cluster_id));
    }
    members[0].resume();
    assert!(served.iter().all(|cluster| *cluster == real), "{alone:x} served calls");
    for store in stores {
        wait::until("the real cluster serves again", LIMIT, || async { (call(&store).await.len() == 2).then_some(()) }).await;
        let wiped = store.endpoints().await.into_iter().filter(|endpoint| endpoint.is_foreign()).collect::<Vec<_>>();
        assert_eq!(wiped.len(), 1);
        assert_eq!((&wiped[0].endpoint, wiped[0].cluster_id, wiped[0].used), (&members[2].endpoint, Some(alone), Some(real)));
    }
    // Nothing was ever written there.
    assert_eq!(members[2].store().get("a").await.unwrap().1, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_of_two_clusters_are_refused() {
    let members = [Etcd::start(EtcdVersion::V3_4), Etcd::start(EtcdVersion::V3_5)];
    let ids = [cluster_of(&members[0]).await, cluster_of(&members[1]).await];
    for _ in 0..6 {
        match Store::connect(all(&members)).await {
            Err(StoreError::OtherCluster(words)) => {
                assert!(ids.iter().all(|id| words.contains(&format!("{id:x}"))), "{words}");
                assert!(members.iter().all(|member| words.contains(&member.endpoint)), "{words}");
            }
            other => panic!("{other:?}"),
        }
    }
    // A process that knows its cluster stays there.
    for (index, id) in ids.into_iter().enumerate() {
        let store = Store::open(all(&members)).unwrap();
        store.expect_cluster(id);
        for _ in 0..10 {
            let headers = call(&store).await;
            assert_eq!(headers.iter().map(|header| header.cluster_id).collect::<Vec<_>>(), [id, id], "{index}");
        }
    }
}

/// Whoever restores a cluster from nothing, or from a backup under a new id, is followed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_was_made_anew_is_followed() {
    let mut members = Etcd::start_cluster(EtcdVersion::V3_5);
    let store = Store::open(all(&members)).unwrap();
    assert_eq!(call(&store).await.len(), 2);
    tokio::task::block_in_place(|| Etcd::lose_all_members(&mut members));
    let anew = cluster_of(&members[0]).await;
    let headers =
        wait::until("the new cluster serves", LIMIT, || async { Some(call(&store).await).filter(|headers| headers.len() == 2) })
            .await;
    assert!(headers.iter().all(|header| header.cluster_id == anew));
}

/// A member alone proves nothing, unless it says that its cluster is as large as the list of endpoints.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_reachable_member_of_three_serves_a_newcomer() {
    let members = Etcd::start_cluster(EtcdVersion::V3_4);
    let dead = || format!("127.0.0.1:{}", crate::support::etcd::free_port());
    let endpoints = [members[1].endpoint.clone(), dead(), dead()];
    let store = Store::connect(StoreSettings::endpoints(endpoints)).await.unwrap();
    assert_eq!(call(&store).await.len(), 2);
    let alone = Etcd::start(EtcdVersion::V3_4);
    let refusal = Store::connect(StoreSettings::endpoints([alone.endpoint.clone(), dead(), dead()])).await.unwrap_err();
    assert!(matches!(&refusal, StoreError::OtherCluster(words) if words.contains("does not answer")), "{refusal}");
    // Of two, one is enough.
    Store::connect(StoreSettings::endpoints([alone.endpoint.clone(), dead()])).await.unwrap();
}
