//! Watches, which feed the views.

use enlist::model::names::Revision;
use enlist::store::api::{Op, Txn, WatchMessage};
use tokio::time::{Duration, timeout};

use crate::store::subject::{LIMIT, Subject, events, next, response, show};
use crate::support::wait;

pub(crate) async fn events_come_in_order_after_created(subject: &Subject, keys: &str) {
    let (a, b) = (format!("{keys}a"), format!("{keys}b"));
    let first = subject.put(&a, "1").await;
    subject.put(&b, "2").await;
    let last = subject.delete(&a).await;
    let (mut watch, created) = subject.watch(keys, first).await;
    assert_eq!(created.revision, last);
    let past = events(&mut watch, 3).await;
    assert_eq!(show(&past), [format!("put {a}=1"), format!("put {b}=2"), format!("delete {a}")]);
    assert_eq!(past.iter().map(|event| event.revision().0 - first.0).collect::<Vec<_>>(), [0, 1, 2]);
    let live = subject.put(&a, "3").await;
    let (header, now, _) = response(&mut watch).await;
    assert_eq!((show(&now), now[0].revision(), header.revision), (vec![format!("put {a}=3")], live, live));
    assert_eq!(header.cluster_id, created.cluster_id);
}

pub(crate) async fn a_resumed_watch_misses_nothing(subject: &Subject, keys: &str) {
    const COUNT: usize = 2_500;
    let start = subject.put(keys, "0").await;
    for index in 1..COUNT {
        subject.put(keys, &index.to_string()).await;
    }
    // During catch-up, responses hold up to 1,000 revisions, and their header is ahead of them: a resume at the header
    // would lose the rest.
    let (mut seen, mut from, mut ahead) = (Vec::new(), start, 0);
    while seen.len() < COUNT {
        let (mut watch, _) = subject.watch(keys, from).await;
        let (header, events, _) = response(&mut watch).await;
        let last = events.last().unwrap().revision();
        ahead += i64::from(header.revision > last);
        from = last.next();
        seen.extend(events);
    }
    let values: Vec<String> = (0..COUNT).map(|index| format!("put {keys}={index}")).collect();
    assert_eq!(show(&seen), values);
    assert!(ahead > 0, "no response was part of a catch-up");
}

pub(crate) async fn one_revision_is_one_response(subject: &Subject, keys: &str) {
    let now = subject.put(keys, "").await;
    let (mut watch, _) = subject.watch(keys, now.next()).await;
    let child = |child: usize| {
        let put = |index: usize| Op::put(format!("{keys}{child:02}/{index:02}"), "x");
        Op::Txn(Txn { then: (0..50).map(put).collect(), ..Txn::default() })
    };
    let written = subject.commit((0..20).map(child).collect()).await;
    let (_, events, _) = response(&mut watch).await;
    assert_eq!(events.len(), 1_000);
    assert!(events.iter().all(|event| event.revision() == written));
}

pub(crate) async fn siblings_are_not_watched(subject: &Subject, keys: &str) {
    let mine = format!("{keys}node1/");
    let start = subject.put(&format!("{keys}node10/label"), "").await;
    let (mut watch, _) = subject.watch(&mine, start).await;
    for name in ["node1", "node10/label", "node1.", "node1/label"] {
        subject.put(&format!("{keys}{name}"), "").await;
    }
    assert_eq!(show(&events(&mut watch, 1).await), [format!("put {mine}label=")]);
}

pub(crate) async fn large_responses_are_assembled(subject: &Subject, keys: &str) {
    const COUNT: usize = 24;
    let value = |index: usize| format!("{index:02}").repeat(500_000);
    let start = subject.put(&format!("{keys}00"), &value(0)).await;
    for index in 1..COUNT / 2 {
        subject.put(&format!("{keys}{index:02}"), &value(index)).await;
    }
    let (mut watch, _) = subject.watch(keys, start).await;
    for index in COUNT / 2..COUNT {
        subject.put(&format!("{keys}{index:02}"), &value(index)).await;
    }
    // 24 MB in all, far above the usual transport limit of 4 MiB; the client must assemble the fragments.
    let all = events(&mut watch, COUNT).await;
    let expected: Vec<String> = (0..COUNT).map(|index| format!("put {keys}{index:02}={}", value(index))).collect();
    assert!(show(&all) == expected, "part of the 24 MB is missing or out of order");
    subject.commit(vec![Op::Delete(enlist::store::api::KeyRange::prefix(keys))]).await;
}

pub(crate) async fn a_compacted_start_is_cancelled(subject: &Subject, keys: &str) {
    let first = subject.put(keys, "1").await;
    subject.put(keys, "2").await;
    let third = subject.put(keys, "3").await;
    subject.compact(third);
    let (mut watch, _) = subject.watch(keys, first).await;
    match next(&mut watch).await {
        WatchMessage::Canceled { compacted, .. } => assert_eq!(compacted, third),
        other => panic!("{other:?}"),
    }
    subject.put(keys, "4").await;
    assert!(timeout(Duration::from_millis(300), watch.next()).await.is_err(), "the stream stays open and silent");
    let (mut watch, _) = subject.watch(keys, third.next()).await;
    assert_eq!(show(&events(&mut watch, 1).await), [format!("put {keys}=4")]);
}

pub(crate) async fn a_start_in_the_future_shows_in_created(subject: &Subject, keys: &str) {
    let now = subject.put(keys, "1").await;
    let (mut watch, created) = subject.watch(keys, Revision(now.0 + 1_000)).await;
    assert_eq!(created.revision, now, "the revision shows a store that stepped back");
    assert!(timeout(Duration::from_millis(300), watch.next()).await.is_err(), "the watch is silent otherwise");
}

pub(crate) async fn progress_is_answered(subject: &Subject, keys: &str) {
    let now = subject.put(keys, "1").await;
    let (mut watch, _) = subject.watch(keys, now.next()).await;
    subject.put("elsewhere", "1").await;
    let later = subject.put("elsewhere", "2").await;
    // The server may skip an answer while other watches catch up: the test asks again.
    let header = loop {
        watch.request_progress().await;
        match timeout(Duration::from_secs(1), watch.next()).await {
            Ok(Some(Ok(WatchMessage::Progress(header)))) => break header,
            Ok(other) => panic!("{other:?}"),
            Err(_) => {}
        }
    };
    assert_eq!(header.revision, later, "the answer comes without any event");
}

pub(crate) async fn a_dropped_watch_is_cancelled(subject: &Subject, keys: &str) {
    let count = |expected: usize| async move { (subject.watchers() == expected).then_some(()) };
    wait::until("watches of earlier cases end", LIMIT, || count(0)).await;
    let now = subject.put(keys, "1").await;
    let mut watches = Vec::new();
    for _ in 0..5 {
        watches.push(subject.watch(keys, now).await);
    }
    wait::until("five watches", LIMIT, || count(5)).await;
    watches.truncate(2);
    wait::until("two watches", LIMIT, || count(2)).await;
    watches.clear();
    wait::until("no watch", LIMIT, || count(0)).await;
}

pub(crate) async fn slow_readers_delay_no_other_call(subject: &Subject, keys: &str) {
    let value = "x".repeat(1_000_000);
    let start = subject.put(keys, &value).await;
    let mut slow = Vec::new();
    for _ in 0..3 {
        slow.push(subject.watch(keys, start).await.0);
    }
    for _ in 0..12 {
        subject.put(keys, &value).await;
    }
    assert_eq!(subject.store.get(keys).await.unwrap().1.unwrap().version, 13);
    for watch in &mut slow {
        assert_eq!(events(watch, 13).await.len(), 13);
    }
    subject.delete(keys).await;
}
