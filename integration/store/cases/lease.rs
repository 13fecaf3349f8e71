//! Leases: a status, a hold and a cooling claim are keys on leases.

use bytes::Bytes;
use enlist::store::api::{Event, LeaseId, Op, StoreError};
use tokio::time::{Duration, Instant, sleep};

use crate::store::subject::{Subject, events, response};

fn leased(key: String, lease: LeaseId) -> Op {
    Op::Put { key: key.into(), value: Bytes::from_static(b"x"), lease }
}

pub(crate) async fn keys_of_a_lease_expire_in_one_revision(subject: &Subject, keys: &str) {
    let (lease, ttl) = subject.store.grant(2).await.unwrap();
    assert_eq!(ttl, 2);
    let other = subject.put(&format!("{keys}other"), "").await;
    for chunk in 0..2 {
        subject.commit((0..100).map(|index| leased(format!("{keys}{chunk}/{index:03}"), lease)).collect()).await;
    }
    let (left, granted) = subject.store.time_to_live(lease).await.unwrap();
    assert!((0..=2).contains(&left) && granted == 2, "{left} of {granted}");
    let now = subject.store.get(keys).await.unwrap().0.revision;
    let (mut watch, _) = subject.watch(keys, now.next()).await;
    let (_, gone, _) = response(&mut watch).await;
    assert_eq!(gone.len(), 200);
    assert!(gone.iter().all(|event| matches!(event, Event::Delete { .. }) && event.revision() == gone[0].revision()));
    assert!(gone.is_sorted_by_key(|event| event.key().clone()));
    assert_eq!(subject.store.time_to_live(lease).await.unwrap().0, -1);
    assert_eq!(subject.keys(keys).await, [format!("{keys}other")], "written at {other}");
}

pub(crate) async fn a_beat_keeps_a_lease(subject: &Subject, keys: &str) {
    let (lease, _) = subject.store.grant(2).await.unwrap();
    subject.commit(vec![leased(keys.to_owned(), lease)]).await;
    let mut keep_alive = subject.store.keep_alive(lease).await.unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        assert_eq!(keep_alive.beat().await, Ok(2));
        // The pause between beats is the subject of the test, not a wait.
        sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(subject.store.get(keys).await.unwrap().1.unwrap().lease, lease);
    subject.store.revoke(lease).await.unwrap();
    assert_eq!(subject.store.get(keys).await.unwrap().1, None);
}

pub(crate) async fn concurrent_beats_are_answered_for_their_leases(subject: &Subject, _: &str) {
    let mut leases = Vec::new();
    for ttl in 60..110 {
        leases.push((ttl, subject.store.grant(ttl).await.unwrap().0));
    }
    let (_, revoked) = leases[20];
    subject.store.revoke(revoked).await.unwrap();
    for _ in 0..3 {
        let beats = leases.iter().map(async |(_, lease)| subject.store.keep_alive(*lease).await.unwrap().beat().await.unwrap());
        for ((ttl, lease), left) in leases.iter().zip(futures::future::join_all(beats).await) {
            assert_eq!(left.max(0), if *lease == revoked { 0 } else { i64::try_from(*ttl).unwrap() });
        }
    }
    for (_, lease) in leases.iter().filter(|(_, lease)| *lease != revoked) {
        subject.store.revoke(*lease).await.unwrap();
    }
}

pub(crate) async fn revoked_lease_answers_that_it_is_gone(subject: &Subject, keys: &str) {
    let (lease, _) = subject.store.grant(60).await.unwrap();
    let (mut running, mut fresh) =
        (subject.store.keep_alive(lease).await.unwrap(), subject.store.keep_alive(lease).await.unwrap());
    assert_eq!(running.beat().await, Ok(60));
    let revision = subject.commit(vec![leased(format!("{keys}a"), lease), leased(format!("{keys}b"), lease)]).await;
    subject.store.revoke(lease).await.unwrap();
    let (mut watch, _) = subject.watch(keys, revision.next()).await;
    let gone = events(&mut watch, 2).await;
    assert!(gone.iter().all(|event| event.revision() == revision.next()), "{gone:?}");
    assert!(running.beat().await.unwrap() <= 0);
    assert!(running.beat().await.unwrap() <= 0, "a second beat gets the same answer");
    assert!(fresh.beat().await.unwrap() <= 0);
    assert_eq!(subject.store.revoke(lease).await, Err(StoreError::NoLease));
    assert_eq!(subject.store.time_to_live(lease).await.unwrap().0, -1);
}

pub(crate) async fn a_put_moves_its_key_to_its_lease(subject: &Subject, keys: &str) {
    let (first, _) = subject.store.grant(60).await.unwrap();
    let (second, _) = subject.store.grant(60).await.unwrap();
    let key = |name: &str| format!("{keys}{name}");
    subject.commit(["kept", "moved", "loosed", "gone"].map(|name| leased(key(name), first)).to_vec()).await;
    subject.commit(vec![leased(key("moved"), second), Op::put(key("loosed"), "x"), leased(key("kept"), first)]).await;
    subject.delete(&key("gone")).await;
    subject.put(&key("gone"), "again, without a lease").await;
    subject.store.revoke(second).await.unwrap();
    assert_eq!(subject.keys(keys).await, [key("gone"), key("kept"), key("loosed")]);
    assert_eq!(subject.store.keep_alive(first).await.unwrap().beat().await, Ok(60), "the first lease is unaffected");
    let (third, _) = subject.store.grant(60).await.unwrap();
    subject.commit(vec![leased(key("put again"), first)]).await;
    subject.commit(vec![leased(key("put again"), third)]).await;
    subject.store.revoke(first).await.unwrap();
    assert_eq!(
        subject.keys(keys).await,
        [key("gone"), key("loosed"), key("put again")],
        "the former lease deleted a key that had moved"
    );
    subject.store.revoke(third).await.unwrap();
    assert_eq!(subject.keys(keys).await, [key("gone"), key("loosed")]);
}
