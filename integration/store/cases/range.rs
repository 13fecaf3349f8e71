//! Reads.

use enlist::model::names::Revision;
use enlist::store::api::{KeyRange, LeaseId, Op, RangeRequest, StoreError, Txn};

use crate::store::subject::Subject;

pub(crate) async fn limits_and_counts(subject: &Subject, keys: &str) {
    for index in 0..25 {
        subject.put(&format!("{keys}{index:02}"), "value").await;
    }
    let all = RangeRequest::all(KeyRange::prefix(keys));
    let page = subject.store.range(RangeRequest { limit: 10, ..all.clone() }).await.unwrap();
    assert_eq!((page.kvs.len(), page.more, page.count), (10, true, 25));
    assert_eq!(page.kvs[9].key.to_string(), format!("{keys}09"));
    let whole = subject.store.range(RangeRequest { limit: 25, ..all.clone() }).await.unwrap();
    assert_eq!((whole.kvs.len(), whole.more, whole.count), (25, false, 25));
    let count = subject.store.range(RangeRequest { count_only: true, ..all.clone() }).await.unwrap();
    assert_eq!((count.kvs.len(), count.more, count.count), (0, false, 25));
    let names = subject.store.range(RangeRequest { keys_only: true, limit: 1, ..all }).await.unwrap();
    assert!(names.kvs[0].value.is_empty());
    assert_eq!((names.kvs[0].version, names.kvs[0].lease), (1, LeaseId::NONE));
    let backwards = KeyRange::between(format!("{keys}05"), format!("{keys}01"));
    assert_eq!(subject.store.range(RangeRequest::all(backwards)).await.unwrap().count, 0);
    let from = subject.store.range(RangeRequest::all(KeyRange::between(format!("{keys}20"), vec![0]))).await.unwrap();
    assert!(from.count >= 5, "a range that ends at NUL reaches the last key of the store");
    let nothing = subject.store.range(RangeRequest::all(KeyRange::one(""))).await;
    assert!(matches!(nothing, Err(StoreError::Other(_))), "{nothing:?}");
}

pub(crate) async fn a_page_is_pinned_to_its_revision(subject: &Subject, keys: &str) {
    let key = |name: &str| format!("{keys}{name}");
    subject.put(&key("a"), "1").await;
    subject.put(&key("b"), "1").await;
    let pinned = subject.put(&key("c"), "1").await;
    subject.put(&key("a"), "2").await;
    subject.delete(&key("b")).await;
    let now = subject.put(&key("d"), "2").await;
    let read = RangeRequest { revision: Some(pinned), ..RangeRequest::all(KeyRange::prefix(keys)) };
    let then = subject.store.range(read).await.unwrap();
    let seen: Vec<String> = then.kvs.iter().map(|kv| format!("{}{}", kv.key, String::from_utf8_lossy(&kv.value))).collect();
    assert_eq!(seen, [key("a1"), key("b1"), key("c1")]);
    assert_eq!(then.header.revision, now, "the header has the present revision, not the one read");
    assert_eq!(then.kvs[0].version, 1);
    assert_eq!(subject.keys(keys).await, [key("a"), key("c"), key("d")]);
    let (header, a) = subject.store.get(key("a")).await.unwrap();
    let a = a.unwrap();
    assert_eq!((a.version, a.create_revision < a.mod_revision, header.revision), (2, true, now));
    assert_eq!(subject.store.get(key("b")).await.unwrap().1, None);
}

pub(crate) async fn prefix_read_excludes_siblings(subject: &Subject, keys: &str) {
    for name in ["node1/label", "node10/label", "node1", "node1.", "node10"] {
        subject.put(&format!("{keys}{name}"), "").await;
    }
    assert_eq!(subject.keys(&format!("{keys}node1/")).await, [format!("{keys}node1/label")]);
    assert_eq!(subject.keys(&format!("{keys}node")).await.len(), 5);
}

pub(crate) async fn large_range_is_read_completely_in_pages(subject: &Subject, keys: &str) {
    const COUNT: usize = 100_000;
    let all: Vec<String> = (0..COUNT).map(|index| format!("{keys}{index:05}")).collect();
    for chunk in all.chunks(4_000) {
        let inner =
            |keys: &[String]| Op::Txn(Txn { then: keys.iter().map(|key| Op::put(key.clone(), "x")).collect(), ..Txn::default() });
        subject.commit(chunk.chunks(64).map(inner).collect()).await;
    }
    let read = subject.store.read_all(KeyRange::prefix(keys), None).await.unwrap();
    assert!(read.kvs.iter().map(|kv| kv.key.to_string()).eq(all.iter().cloned()));
    assert_eq!(read.count, i64::try_from(COUNT).unwrap());
    subject.commit(vec![Op::Delete(KeyRange::prefix(keys))]).await;
    let past = subject.store.read_all(KeyRange::prefix(keys), Some(read.header.revision)).await.unwrap();
    assert_eq!((past.kvs.len(), past.header.revision), (COUNT, read.header.revision));
    assert!(subject.keys(keys).await.is_empty());
}

pub(crate) async fn future_and_compacted_revisions_are_rejected(subject: &Subject, keys: &str) {
    let first = subject.put(keys, "1").await;
    let second = subject.put(keys, "2").await;
    let at = |revision| RangeRequest { revision: Some(revision), ..RangeRequest::all(KeyRange::one(keys)) };
    assert_eq!(subject.store.range(at(Revision(second.0 + 1_000))).await, Err(StoreError::Future));
    subject.compact(second);
    assert!(matches!(subject.store.range(at(first)).await, Err(StoreError::Compacted(_))));
    assert_eq!(subject.store.range(at(second)).await.unwrap().count, 1, "the compacted revision itself stays");
    let inside = Txn { then: vec![Op::put(keys, "3"), Op::Get(at(first))], ..Txn::default() };
    assert!(matches!(subject.store.txn(inside).await, Err(StoreError::Compacted(_))));
    assert_eq!(subject.store.get(keys).await.unwrap().1.unwrap().version, 2, "the transaction wrote no key");
}

pub(crate) async fn oversized_page_is_read_in_smaller_ones(subject: &Subject, keys: &str) {
    // 80 MB under one prefix: more than the client accepts in one answer.
    for index in 0..80 {
        subject.put(&format!("{keys}{index:02}"), &"x".repeat(1_000_000)).await;
    }
    let read = subject.store.read_all(KeyRange::prefix(keys), None).await.unwrap();
    assert_eq!(read.kvs.iter().map(|kv| kv.value.len()).sum::<usize>(), 80_000_000);
    subject.commit(vec![Op::Delete(KeyRange::prefix(keys))]).await;
}
