//! What a hostile user, and one without a user, can do past the grants of `enlist grants`: tried on real etcds and written
//! down as a table for each version, so that a server with a fix shows as a changed table.
//!
//! Needs: etcd.

use std::time::Duration;

use enlist::Store;
use enlist::model::names::Revision;
use enlist::store::api::{Event, KeyRange, LeaseId, Op, StoreError, Txn, Watch, WatchMessage, WatchRequest};

use super::grants::Place;
use crate::support::etcd::EtcdVersion;

const LIMIT: Duration = Duration::from_secs(20);
const YES: &str = "let through";
const NO: &str = "refused";
const FOREIGN: &str = "/enlist/nodes/edge-8/assignment";

/// What is tried, and what etcd 3.4.23 and 3.5.16 answer.
const TABLE: [(&str, &str, &str); 18] = [
    ("put of a foreign key", NO, NO),
    ("put of a foreign key, in a nested transaction", YES, YES),
    ("delete of a foreign key, in a nested transaction", YES, YES),
    ("read of a foreign key, in a nested transaction", YES, YES),
    ("put of a foreign key, in the branch of a transaction that is not taken", NO, NO),
    ("watch of a foreign key", NO, NO),
    ("watch from an own key to the end of all keys", YES, YES),
    ("watch that goes on after its user was deleted", YES, YES),
    ("put of an own key on a foreign lease", YES, YES),
    ("after that: the owner puts a key on its lease, in a transaction", YES, YES),
    ("after that: the owner revokes its lease", NO, NO),
    ("revoke of a foreign lease with keys", NO, NO),
    ("no token: read", NO, NO),
    ("no token: grant of a lease", YES, YES),
    ("no token: keep-alive of a foreign lease", YES, YES),
    ("no token: time to live of a foreign lease", YES, YES),
    ("no token: revoke of a foreign lease without keys", YES, YES),
    ("no token: status of a member", YES, YES),
];

fn outcome<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> String {
    match answer {
        Ok(_) => YES.into(),
        Err(StoreError::Refused(_)) => NO.into(),
        Err(error) => format!("{error:?}"),
    }
}

async fn flat(store: &Store, op: Op) -> String {
    outcome(store.txn(Txn { then: vec![op], ..Txn::default() }).await)
}

async fn nested(store: &Store, op: Op) -> String {
    flat(store, Op::Txn(Txn { then: vec![op], ..Txn::default() })).await
}

fn on_lease(key: &str, lease: LeaseId) -> Op {
    Op::Put { key: key.into(), value: "x".into(), lease }
}

async fn watch(store: &Store, range: KeyRange) -> Result<Box<dyn Watch>, StoreError> {
    store.watch(WatchRequest { range, start: Revision::NONE, beside: false }).await
}

/// Whether the watch reports a put of this key, which is made now.
async fn reports(watch: Result<Box<dyn Watch>, StoreError>, root: &Store, key: &str) -> String {
    let mut watch = match watch {
        Ok(watch) => watch,
        refused => return outcome(refused.map(|_| ())),
    };
    root.txn(Txn { then: vec![Op::put(key, "x")], ..Txn::default() }).await.unwrap();
    let seen = async {
        loop {
            match watch.next().await {
                Some(Ok(WatchMessage::Events { events, .. })) if events.iter().any(|event| is_put(event, key)) => {
                    return YES.into();
                }
                Some(Ok(WatchMessage::Canceled { .. })) => return NO.into(),
                Some(Ok(_)) => {}
                other => return format!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(LIMIT, seen).await.unwrap_or_else(|_| "silence".into())
}

fn is_put(event: &Event, key: &str) -> bool {
    matches!(event, Event::Put(kv) if kv.key.as_str() == Some(key))
}

async fn tried(place: &Place) -> Vec<String> {
    let etcd = &place.source;
    let (root, node, other) =
        (place.store(etcd, "root").await, place.store(etcd, "edge-7").await, place.store(etcd, "edge-8").await);
    let nobody = etcd.store();
    let mut outcomes = vec![
        flat(&node, Op::put(FOREIGN, "x")).await,
        nested(&node, Op::put(FOREIGN, "x")).await,
        nested(&node, Op::delete(FOREIGN)).await,
        nested(&node, Op::get(FOREIGN)).await,
        outcome(node.txn(Txn { otherwise: vec![Op::put(FOREIGN, "x")], ..Txn::default() }).await),
        reports(watch(&node, KeyRange::one(FOREIGN)).await, &root, FOREIGN).await,
        reports(watch(&node, KeyRange::between("/enlist/nodes/edge-7/label", "\0")).await, &root, FOREIGN).await,
    ];
    let own = "/enlist/nodes/edge-8/label";
    let watched = watch(&other, KeyRange::one(own)).await;
    let (lease, _) = other.grant(600).await.unwrap();
    let (bare, _) = other.grant(600).await.unwrap();
    other.txn(Txn { then: vec![on_lease("/enlist/nodes/edge-8/status", lease)], ..Txn::default() }).await.unwrap();
    outcomes.push(String::new());
    outcomes.push(flat(&node, on_lease("/enlist/nodes/edge-7/label", lease)).await);
    outcomes.push(flat(&other, on_lease(own, lease)).await);
    outcomes.push(outcome(other.revoke(lease).await));
    outcomes.push(outcome(node.revoke(lease).await));
    outcomes.push(outcome(nobody.get(FOREIGN).await));
    outcomes.push(outcome(nobody.grant(600).await));
    outcomes.push(match nobody.keep_alive(lease).await {
        Ok(mut beats) => outcome(beats.beat().await.map(|left| assert!(left > 0))),
        refused => outcome(refused.map(|_| ())),
    });
    outcomes.push(outcome(nobody.time_to_live(lease).await));
    outcomes.push(outcome(nobody.revoke(bare).await));
    outcomes.push(outcome(nobody.member().await));
    etcd.etcdctl(&["--user=root:secret", "user", "delete", "edge-8"]).unwrap();
    // In the order of the table, though it comes last: everything else needs the user.
    outcomes[7] = reports(watched, &root, own).await;
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_grants_do_not_hold_back_is_as_written_down() {
    for version in EtcdVersion::ALL {
        let place = Place::start(version, false);
        let seen = tried(&place).await;
        let written = TABLE.map(|(what, old, new)| (what, if version == EtcdVersion::V3_4 { old } else { new }));
        let seen: Vec<(&str, &str)> = TABLE.iter().map(|(what, ..)| *what).zip(seen.iter().map(String::as_str)).collect();
        assert!(seen == written, "{version:?} lets through what is not in the table, or no longer what is: {seen:#?}");
    }
}
