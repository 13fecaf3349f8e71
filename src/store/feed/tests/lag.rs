//! A view that lags gets a second watch that begins at the present.

use super::*;

/// Enough that a watch which is asked only now lags: it gets 1,000 revisions at a time.
const MANY: usize = 3_500;

/// A feed whose watch broke, then so many changes before it is resumed.
async fn lagging(relief: Spoilt) -> Rig {
    let rig = Rig::started().await;
    rig.spoil(|script| script.watches = [Spoilt::default(), relief].into());
    rig.etcd.break_watches();
    for at in 0..MANY {
        rig.put(&format!("{:03}", at % 499), &at.to_string()).await;
    }
    rig
}

#[tokio::test(start_paused = true)]
async fn it_takes_over_and_nothing_is_read_again() {
    let mut rig = lagging(Spoilt::default()).await;
    rig.settle().await;
    for round in 0..3 {
        rig.delete("a").await;
        rig.put("a", &round.to_string()).await;
        rig.settle().await;
    }
    let starts: Vec<Revision> = rig.opened().into_iter().map(|(start, _)| start).collect();
    assert_eq!(starts, [Revision(5), Revision(6), Revision::NONE], "the last one begins at the present");
    assert_eq!((rig.resets, rig.stepped_back), (1, 0));
    assert_eq!(rig.etcd.watchers(), 1, "the first one is gone");
}

#[tokio::test(start_paused = true)]
async fn one_that_ends_or_is_of_a_member_that_lags_itself_changes_nothing() {
    let ends = Spoilt { ends_after: Some(1), ..Spoilt::default() };
    let lags = Spoilt { behind: i64::try_from(MANY).unwrap() + 100, ..Spoilt::default() };
    let refused =
        Spoilt { says: vec![WatchMessage::Canceled { reason: "no".into(), compacted: Revision::NONE }], ..ends.clone() };
    for relief in [ends, lags, refused] {
        let mut rig = lagging(relief).await;
        rig.settle().await;
        rig.delete("a").await;
        rig.settle().await;
        assert_eq!((rig.resets, rig.stepped_back), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_lags_itself_gets_another_also_if_its_messages_come_in_fragments() {
    for fragments in [1, 2, 5] {
        let mut rig = lagging(Spoilt::default()).await;
        let now = rig.etcd.revision();
        // What was told already, as a full message of a server that is far ahead of it.
        let events: Vec<Event> = rig.etcd.history_from(Revision(now.0 - 999)).into_values().flatten().collect();
        assert_eq!(events.len(), 1_000);
        let header = Header { revision: Revision(now.0 + 2_000), ..rig.header() };
        let pieces = events.chunks(1_000 / fragments).enumerate();
        let says =
            pieces.map(|(at, events)| WatchMessage::Events { header, events: events.to_vec(), fragment: at + 1 < fragments });
        rig.spoil(|script| {
            // The first one pauses before it comes to where the second one begins.
            script.watches[0].silent_after = Some(2);
            script.watches[1].says = says.collect();
        });
        rig.settle().await;
        rig.delete("a").await;
        rig.settle().await;
        let starts: Vec<Revision> = rig.opened().into_iter().map(|(start, _)| start).collect();
        assert_eq!(starts[..4], [Revision(5), Revision(6), Revision::NONE, Revision::NONE], "in {fragments} pieces");
        assert_eq!((rig.resets, rig.stepped_back), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_range_of_a_busy_store_does_not_lag() {
    let mut rig = Rig::started().await;
    rig.etcd.break_watches();
    rig.put("a", "again").await;
    for at in 0..MANY {
        rig.write(Op::put(format!("/other/{}", at % 7), "x")).await;
    }
    rig.settle().await;
    let starts: Vec<Revision> = rig.opened().into_iter().map(|(start, _)| start).collect();
    assert_eq!(starts, [Revision(5), Revision(6)]);
}

#[tokio::test(start_paused = true)]
async fn what_it_tells_is_no_sign_of_life_of_the_first_one() {
    let mut rig = lagging(Spoilt::default()).await;
    // It is created, tells a thousand revisions, and then nothing any more.
    rig.spoil(|script| script.watches[0].silent_after = Some(2));
    for round in 0..30 {
        rig.put("a", &round.to_string()).await;
        rig.for_a_while(Duration::from_secs(1)).await;
    }
    assert!(rig.is_right(), "it is still waited for");
    assert_eq!(rig.resets, 1);
}

/// Race: what the old watch still owed was on its way when the store was restored, and the second watch is of the restored one.
#[tokio::test(start_paused = true)]
async fn it_goes_on_only_if_the_store_is_the_one_that_was_followed() {
    let mut rig = lagging(Spoilt::default()).await;
    // The broken watch is resumed; when the other one takes over, the store knows nothing of the last event's revision.
    rig.spoil(|script| script.reads = [None, Some(StoreError::Future)].into());
    rig.settle().await;
    while rig.stepped_back == 0 {
        let update = timeout(Duration::from_secs(1), rig.feed.as_mut().unwrap().next()).await.expect("it was not asked");
        rig.take(update);
    }
    assert_eq!((rig.resets, rig.stepped_back), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn it_is_given_up_when_too_many_bytes_wait() {
    let mut rig = lagging(Spoilt::default()).await;
    // The first one is created, tells a thousand revisions, and then nothing until it is given up as silent.
    rig.spoil(|script| script.watches[0].silent_after = Some(2));
    rig.for_a_while(Duration::from_secs(1)).await;
    let mebibyte = "x".repeat(1 << 20);
    let most = RELIEF_BYTES_MAX >> 20;
    for told in 0..most {
        assert_eq!(rig.etcd.watchers(), 2, "{told} MiB may wait");
        rig.put("a", &mebibyte).await;
        rig.for_a_while(Duration::from_millis(10)).await;
    }
    assert_eq!(rig.etcd.watchers(), 1, "the second one is gone, the first one stays");
    rig.settle().await;
    assert_eq!((rig.resets, rig.stepped_back), (1, 0));
}
