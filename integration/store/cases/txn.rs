//! Transactions, which the committer, the join and the relay use.

use bytes::Bytes;
use enlist::model::names::Revision;
use enlist::store::api::{Compare, KeyRange, LeaseId, Op, OpResult, StoreError, Txn};

use crate::store::subject::Subject;

fn nested(compares: Vec<Compare>, then: Vec<Op>) -> Op {
    Op::Txn(Txn { compares, then, otherwise: Vec::new() })
}

fn absent(key: &str) -> Compare {
    Compare::Modified(key.into(), Revision::NONE)
}

pub(crate) async fn a_branch_is_chosen_by_compares(subject: &Subject, keys: &str) {
    let (a, b) = (format!("{keys}a"), format!("{keys}b"));
    let created = subject.put(&a, "1").await;
    let modified = subject.put(&a, "2").await;
    let ask = |compares: Vec<Compare>| Txn {
        compares,
        then: vec![Op::get(a.as_str()), Op::put(b.as_str(), "x"), Op::delete(b.as_str()), Op::delete(b.as_str())],
        otherwise: vec![Op::get(b.as_str())],
    };
    let yes = subject
        .store
        .txn(ask(vec![Compare::Created(a.as_str().into(), created), Compare::Modified(a.as_str().into(), modified)]));
    // A request that puts and deletes the same key is rejected; see `a_key_is_written_once`.
    assert!(matches!(yes.await, Err(StoreError::Other(_))));
    let ask = |compares: Vec<Compare>| Txn {
        compares,
        then: vec![Op::get(a.as_str()), Op::put(b.as_str(), "x"), Op::Delete(KeyRange::prefix(format!("{keys}z")))],
        otherwise: vec![Op::get(b.as_str())],
    };
    for wrong in [
        Compare::Created(a.as_str().into(), modified),
        Compare::Modified(a.as_str().into(), created),
        absent(&a),
        Compare::Created(a.as_str().into(), Revision::NONE),
        Compare::Modified(b.as_str().into(), created),
        Compare::Value(a.as_str().into(), "1".into()),
        Compare::Value(b.as_str().into(), "".into()),
    ] {
        let answer = subject.store.txn(ask(vec![absent(&b), wrong.clone()])).await.unwrap();
        assert!(!answer.succeeded, "{wrong:?}");
        let [OpResult::Range(range)] = answer.results.as_slice() else { panic!("{answer:?}") };
        assert_eq!(range.count, 0);
    }
    let right = vec![
        absent(&b),
        Compare::Created(b.as_str().into(), Revision::NONE),
        Compare::Created(a.as_str().into(), created),
        Compare::Modified(a.as_str().into(), modified),
        Compare::Value(a.as_str().into(), "2".into()),
    ];
    let answer = subject.store.txn(ask(right)).await.unwrap();
    assert!(answer.succeeded);
    let [OpResult::Range(range), OpResult::Put, OpResult::Deleted(0)] = answer.results.as_slice() else { panic!("{answer:?}") };
    assert_eq!(range.kvs[0].value, Bytes::from_static(b"2"));
    assert_eq!(subject.store.get(b.as_str()).await.unwrap().1.unwrap().mod_revision, answer.header.revision);
}

pub(crate) async fn a_read_sees_the_writes_before_it(subject: &Subject, keys: &str) {
    let before = subject.put(keys, "old").await;
    let then = vec![Op::get(keys), Op::put(keys, "new"), Op::get(keys), nested(vec![], vec![Op::get(keys)])];
    let answer = subject.store.txn(Txn { then, ..Txn::default() }).await.unwrap();
    let [OpResult::Range(first), OpResult::Put, OpResult::Range(second), OpResult::Txn(inner)] = answer.results.as_slice() else {
        panic!("{answer:?}")
    };
    assert_eq!(first.kvs[0].value, Bytes::from_static(b"old"));
    assert_eq!(second.kvs[0].value, Bytes::from_static(b"new"));
    let [OpResult::Range(third)] = inner.results.as_slice() else { panic!("{inner:?}") };
    assert_eq!(third.kvs, second.kvs);
    assert_eq!(answer.header.revision, before.next());
}

pub(crate) async fn nested_compares_see_the_state_before(subject: &Subject, keys: &str) {
    let key = |index: i32| format!("{keys}{index:02}");
    let taken = subject.put(&key(7), "taken").await;
    let claim = |index: i32| {
        Op::Txn(Txn {
            compares: vec![absent(&key(index))],
            then: vec![Op::put(key(index), "mine"), nested(vec![absent(&key(index))], vec![Op::put(key(index + 50), "deep")])],
            otherwise: vec![Op::get(key(index))],
        })
    };
    let answer = subject.store.txn(Txn { then: (0..20).map(claim).collect(), ..Txn::default() }).await.unwrap();
    assert_eq!(answer.header.revision, taken.next(), "all writes have one revision");
    for (index, result) in answer.results.iter().enumerate() {
        let OpResult::Txn(inner) = result else { panic!("{result:?}") };
        assert_eq!(inner.succeeded, index != 7, "a lost claim disturbs no other claim");
        match inner.results.as_slice() {
            // The grandchild compares a key that its parent has already written, and still finds it absent.
            [OpResult::Put, OpResult::Txn(deep)] => assert!(deep.succeeded && index != 7),
            [OpResult::Range(range)] => assert_eq!((index, range.kvs[0].mod_revision), (7, taken)),
            other => panic!("{other:?}"),
        }
    }
    let all = subject.store.read_all(KeyRange::prefix(keys), None).await.unwrap();
    assert_eq!(all.kvs.len(), 20 + 19);
    assert!(all.kvs.iter().all(|kv| kv.mod_revision == taken || kv.mod_revision == answer.header.revision));
}

pub(crate) async fn siblings_do_not_see_each_other(subject: &Subject, keys: &str) {
    let (whole, port) = (format!("{keys}10.0.0.1"), format!("{keys}10.0.0.1/30000"));
    let children = vec![
        nested(vec![absent(&whole), Compare::Empty(KeyRange::prefix(format!("{whole}/")))], vec![Op::put(whole.as_str(), "a")]),
        nested(vec![absent(&whole), absent(&port)], vec![Op::put(port.as_str(), "b")]),
    ];
    subject.commit(children).await;
    // Both succeed, so such a pair must never be in one request.
    assert_eq!(subject.keys(keys).await, [whole, port]);
}

pub(crate) async fn txn_without_writes_makes_no_revision(subject: &Subject, keys: &str) {
    let before = subject.put(keys, "x").await;
    let nothing = vec![Op::get(keys), Op::delete(format!("{keys}absent")), nested(vec![absent(keys)], vec![Op::put(keys, "y")])];
    assert_eq!(subject.commit(nothing).await, before);
    assert_eq!(subject.store.txn(Txn::default()).await.unwrap().header.revision, before);
    // An equal value is a write too.
    assert_eq!(subject.put(keys, "x").await, before.next());
}

pub(crate) async fn the_width_of_each_level_is_bounded(subject: &Subject, keys: &str) {
    let put = |index: usize| Op::put(format!("{keys}{index:05}"), "x");
    let compare = |index: usize| absent(&format!("{keys}other/{index:05}"));
    let flat = |compares: usize, then: usize, otherwise: usize| Txn {
        compares: (0..compares).map(compare).collect(),
        then: (0..then).map(put).collect(),
        otherwise: (0..otherwise).map(put).collect(),
    };
    for fits in [flat(128, 1, 0), flat(0, 128, 128), flat(128, 128, 128)] {
        assert!(subject.store.txn(fits).await.unwrap().succeeded);
    }
    for wide in [flat(129, 1, 0), flat(0, 129, 0), flat(0, 1, 129)] {
        assert_eq!(subject.store.txn(wide).await, Err(StoreError::TooManyOps));
    }
    // Children get the width that their parent leaves.
    let children = |count: usize, width: usize| {
        let child = |child: usize| {
            let puts = (0..width).map(|index| put(child * width + index)).collect();
            nested((0..width).map(compare).collect(), puts)
        };
        Txn { then: (0..count).map(child).collect(), ..Txn::default() }
    };
    for (count, width) in [(123, 5), (64, 64), (1, 127)] {
        assert!(subject.store.txn(children(count, width)).await.unwrap().succeeded, "{count} × {width}");
    }
    for (count, width) in [(124, 5), (64, 65), (128, 1), (1, 128)] {
        assert_eq!(subject.store.txn(children(count, width)).await, Err(StoreError::TooManyOps), "{count} × {width}");
    }
}

pub(crate) async fn a_key_is_written_once(subject: &Subject, keys: &str) {
    let (a, b) = (format!("{keys}a"), format!("{keys}b"));
    let put = |key: &str| Op::put(key, "x");
    let child = |op: Op| nested(vec![], vec![op]);
    let either = |then: Op, otherwise: Op| Op::Txn(Txn { compares: vec![], then: vec![then], otherwise: vec![otherwise] });
    let refused: Vec<Vec<Op>> = vec![
        vec![put(&a), put(&a)],
        vec![put(&a), child(put(&a))],
        vec![child(put(&a)), child(put(&a))],
        vec![child(put(&a)), either(put(&b), put(&a))],
        vec![put(&a), Op::delete(a.as_str())],
        vec![Op::delete(a.as_str()), put(&a)],
        vec![Op::Delete(KeyRange::prefix(keys)), child(put(&a))],
        vec![child(Op::delete(a.as_str())), put(&a)],
        vec![child(Op::delete(a.as_str())), child(put(&a))],
    ];
    let before = subject.put(&b, "").await;
    for ops in refused {
        let answer = subject.store.txn(Txn { then: ops.clone(), ..Txn::default() }).await;
        assert!(matches!(&answer, Err(StoreError::Other(text)) if text.contains("duplicate key")), "{ops:?}: {answer:?}");
        let answer = subject.store.txn(Txn { otherwise: ops.clone(), ..Txn::default() }).await;
        assert!(matches!(answer, Err(StoreError::Other(_))), "in the branch not taken, too: {ops:?}");
    }
    assert_eq!(subject.store.get(b.as_str()).await.unwrap().0.revision, before);
    // Branches exclude each other; deletes may overlap; a delete in a later child is not seen.
    subject.commit(vec![either(put(&a), put(&a))]).await;
    subject.commit(vec![Op::delete(a.as_str()), Op::Delete(KeyRange::prefix(keys))]).await;
    subject.commit(vec![child(put(&a)), child(Op::delete(a.as_str()))]).await;
    assert!(subject.keys(keys).await.is_empty());
}

pub(crate) async fn unknown_lease_fails_the_whole_txn(subject: &Subject, keys: &str) {
    let (a, b) = (format!("{keys}a"), format!("{keys}b"));
    let leased = |key: &str| Op::Put { key: key.into(), value: Bytes::new(), lease: LeaseId(4_242) };
    let before = subject.put(&b, "").await;
    let batch = vec![nested(vec![], vec![Op::put(a.as_str(), "x")]), nested(vec![], vec![leased(&b)])];
    assert_eq!(subject.store.txn(Txn { then: batch, ..Txn::default() }).await, Err(StoreError::NoLease));
    let (header, nothing) = subject.store.get(a.as_str()).await.unwrap();
    assert_eq!((header.revision, nothing), (before, None));
    // In a branch that is not taken the lease does no harm.
    let spared = vec![nested(vec![absent(&b)], vec![leased(&b)]), Op::put(a.as_str(), "x")];
    assert_eq!(subject.commit(spared).await, before.next());
}

pub(crate) async fn an_empty_range_is_a_compare(subject: &Subject, keys: &str) {
    let (address, ports) = (format!("{keys}10.0.0.1"), format!("{keys}10.0.0.1/"));
    let holds = async |range: KeyRange| {
        let txn = Txn { compares: vec![Compare::Empty(range)], ..Txn::default() };
        subject.store.txn(txn).await.unwrap().succeeded
    };
    assert!(holds(KeyRange::prefix(ports.as_str())).await);
    subject.put(&address, "").await;
    subject.put(&format!("{keys}10.0.0.10/1"), "").await;
    assert!(holds(KeyRange::prefix(ports.as_str())).await, "neither the address itself nor its sibling is under it");
    subject.put(&format!("{ports}30000"), "").await;
    subject.put(&format!("{ports}30001"), "").await;
    assert!(!holds(KeyRange::prefix(ports.as_str())).await);
    assert!(!holds(KeyRange::one(address.as_str())).await);
    subject.commit(vec![Op::Delete(KeyRange::prefix(ports.as_str()))]).await;
    assert!(holds(KeyRange::prefix(ports.as_str())).await, "a deleted key does not count");
}

pub(crate) async fn large_request_is_rejected(subject: &Subject, keys: &str) {
    let put = |bytes: usize| Txn { then: vec![Op::put(keys, vec![b'x'; bytes])], ..Txn::default() };
    let before = subject.store.txn(put(1_000_000)).await.unwrap().header.revision;
    // Above the limit of etcd, and above that of its transport.
    for bytes in [1_600_000, 2_500_000] {
        assert_eq!(subject.store.txn(put(bytes)).await, Err(StoreError::TooLarge), "{bytes}");
    }
    let (header, kv) = subject.store.get(keys).await.unwrap();
    assert_eq!((header.revision, kv.unwrap().value.len()), (before, 1_000_000));
}
