//! Reads and watches that fail, end, lag, lie or say nothing.

use super::*;

fn broken() -> StoreError {
    StoreError::Broken("spoilt".into())
}

#[tokio::test(start_paused = true)]
async fn a_page_that_fails_is_never_a_shorter_answer() {
    let mut rig = Rig::new();
    for key in 0..16_000 {
        rig.put(&format!("{key:05}"), "x").await;
    }
    // The second page of the first attempt, the third of the second one.
    rig.spoil(|script| script.reads = [None, Some(broken()), None, None, Some(broken())].into());
    rig.open();
    let first = timeout(Duration::from_secs(60), rig.feed.as_mut().unwrap().next()).await.unwrap();
    rig.take(first);
    assert_eq!((rig.content.len(), rig.resets), (16_000, 1));
    assert!(rig.is_right());
    assert!(rig.script.lock().unwrap().reads.is_empty(), "both faults had an effect");
}

#[tokio::test(start_paused = true)]
async fn a_reread_that_is_cut_short_and_started_again_forgets_no_deletion() {
    let mut rig = Rig::new();
    for key in 0..6_000 {
        rig.put(&format!("{key:05}"), "x").await;
    }
    rig.open();
    rig.settle().await;
    rig.put("00000", "y").await;
    rig.settle().await;
    // A gap with a deletion, then a compaction: everything is read again, and the second page fails.
    rig.delete("00001").await;
    rig.put("00002", "y").await;
    rig.etcd.break_watches();
    rig.etcd.compact(rig.etcd.revision()).unwrap();
    // The first read is the witness', which is compacted.
    rig.spoil(|script| script.reads = [None, None, Some(broken())].into());
    tokio::time::sleep(Duration::from_millis(1)).await;
    rig.delete("00003").await;
    rig.settle().await;
    assert_eq!((rig.content.len(), rig.resets, rig.stepped_back), (5_998, 2, 0));
    assert!(rig.script.lock().unwrap().reads.is_empty(), "the fault had an effect");
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_below_the_compaction_reads_again_each_time_it_happens() {
    let mut rig = Rig::started().await;
    for round in 0..5 {
        rig.spoil(|script| script.watches.push_back(Spoilt { ends_after: Some(1), ..Spoilt::default() }));
        rig.etcd.break_watches();
        rig.delete("a").await;
        rig.put("b", &round.to_string()).await;
        rig.etcd.compact(rig.etcd.revision()).unwrap();
        rig.settle().await;
        rig.put("a", "back").await;
        rig.settle().await;
    }
    assert!(rig.resets >= 5, "{}", rig.resets);
    assert_eq!(rig.stepped_back, 0);
}

#[tokio::test(start_paused = true)]
async fn the_server_says_compacted_and_stays_silent() {
    let mut rig = Rig::started().await;
    let says = vec![WatchMessage::Canceled { reason: String::new(), compacted: rig.etcd.revision() }];
    rig.spoil(|script| script.watches.push_back(Spoilt { says, silent_after: Some(2), ..Spoilt::default() }));
    rig.etcd.break_watches();
    rig.delete("a").await;
    let began = Instant::now();
    rig.settle().await;
    assert!(began.elapsed() < Duration::from_secs(2), "its silence was waited for: {:?}", began.elapsed());
    assert_eq!((rig.resets, rig.stepped_back), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn what_a_watch_lost_is_found_by_the_slow_check_although_streams_end_early() {
    let mut rig = Rig::new();
    rig.settings.verify = Duration::from_secs(300);
    rig.put("a", "1").await;
    rig.open();
    rig.settle().await;
    // Each stream lives for a minute.
    for minute in 0..30 {
        rig.for_a_while(Duration::from_secs(30)).await;
        rig.put("a", &minute.to_string()).await;
        rig.for_a_while(Duration::from_secs(30)).await;
        rig.etcd.break_watches();
    }
    // Twice where nothing was told between the check and the end of its stream.
    assert!((4..=14).contains(&(rig.resets - 1)), "{} checks in half an hour", rig.resets - 1);
    assert_eq!(rig.stepped_back, 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_is_given_up_and_its_events_come_with_the_next() {
    let mut rig = Rig::started().await;
    rig.spoil(|script| script.watches.push_back(Spoilt { silent_after: Some(1), ..Spoilt::default() }));
    rig.etcd.break_watches();
    rig.for_a_while(Duration::from_secs(1)).await;
    rig.put("a", "2").await;
    let began = Instant::now();
    rig.settle().await;
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(5) && waited < Duration::from_secs(20), "{waited:?}");
    assert_eq!(rig.resets, 1);
    // A quiet one that answers is not.
    let opened = rig.opened().len();
    rig.for_a_while(Duration::from_secs(3_600)).await;
    assert_eq!(rig.opened().len(), opened);
}

/// What a busy server owes comes later than five requests for progress that are sent in a moment.
#[tokio::test(start_paused = true)]
async fn who_asks_often_does_not_give_up_a_stream_sooner_than_five_seconds() {
    let mut rig = Rig::new();
    rig.settings.progress = Some(Duration::from_millis(50));
    rig.open();
    rig.put("a", "1").await;
    rig.settle().await;
    rig.spoil(|script| script.watches.push_back(Spoilt { silent_after: Some(1), ..Spoilt::default() }));
    rig.etcd.break_watches();
    rig.for_a_while(Duration::from_secs(1)).await;
    rig.put("a", "2").await;
    let began = Instant::now();
    rig.settle().await;
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(3) && waited < Duration::from_secs(8), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn streams_that_end_at_once_are_no_busy_loop_and_one_that_lived_long_is_followed_by_another_soon() {
    let mut rig = Rig::started().await;
    let before = rig.opened().len();
    let ends = Spoilt { ends_after: Some(1), ..Spoilt::default() };
    rig.spoil(|script| script.watches = vec![ends; 12].into());
    rig.etcd.break_watches();
    rig.for_a_while(Duration::from_secs(60)).await;
    let opened = rig.opened()[before..].to_vec();
    assert!(opened.len() >= 10, "{}", opened.len());
    let pauses: Vec<Duration> = opened.windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
    assert!(pauses.iter().all(|pause| *pause >= Duration::from_millis(50) && *pause <= Duration::from_secs(5)), "{pauses:?}");
    assert!(*pauses.last().unwrap() >= Duration::from_millis(2_500), "{pauses:?}");
    assert!(opened.iter().all(|(start, _)| *start == rig.revision.next()), "resumed where it was");
    // Nothing was told on it, but it lived.
    rig.for_a_while(Duration::from_secs(600)).await;
    rig.etcd.break_watches();
    rig.put("a", "2").await;
    let began = Instant::now();
    rig.settle().await;
    assert!(began.elapsed() <= Duration::from_millis(100), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_asked_again_every_half_minute_at_most_often() {
    let mut rig = Rig::started().await;
    rig.spoil(|script| script.refused = Some(StoreError::Refused("permission denied".into())));
    rig.etcd.break_watches();
    let before = rig.opened().len();
    rig.for_a_while(Duration::from_secs(600)).await;
    let opened = rig.opened()[before..].to_vec();
    let last = opened.last().unwrap().1 - opened[opened.len() - 2].1;
    assert!(last >= Duration::from_secs(15) && last <= Duration::from_secs(30), "{last:?}");
    rig.spoil(|script| script.refused = None);
    rig.put("a", "2").await;
    rig.settle().await;
}

#[tokio::test(start_paused = true)]
async fn progress_that_lies_loses_nothing_of_a_catch_up_that_is_cut() {
    let version = "3.4.23".to_owned();
    let mut rig = Rig::with(MemoryOptions { progress: ProgressKind::Lie, version, ..MemoryOptions::default() });
    rig.settings.progress = Some(Duration::from_millis(1));
    rig.put("a", "1").await;
    rig.open();
    rig.settle().await;
    rig.put("a", "2").await;
    rig.settle().await;
    // Each stream ends after two batches of a thousand revisions, with a lie before them.
    rig.etcd.break_watches();
    for value in 0..12_000 {
        rig.put(&format!("k{}", value % 700), &value.to_string()).await;
    }
    for _ in 0..10 {
        let says = vec![WatchMessage::Progress(rig.header())];
        rig.spoil(|script| script.watches.push_back(Spoilt { says, ends_after: Some(4), ..Spoilt::default() }));
    }
    rig.settle().await;
    assert_eq!(rig.resets, 1);
    // Without those that begin at the present, to take over.
    let starts: Vec<i64> = rig.opened().iter().map(|(start, _)| start.0).filter(|start| *start > 0).collect();
    assert_eq!(starts[1..4], [starts[0] + 1, starts[0] + 2_001, starts[0] + 4_001], "{starts:?}");
}

#[tokio::test(start_paused = true)]
async fn too_far_behind_or_out_of_order_it_reads_again() {
    let mut rig = Rig::started().await;
    for is_far in [true, false] {
        rig.put("b", "again").await;
        rig.settle().await;
        let kv = rig.etcd.at_revision(rig.etcd.revision()).into_values().next().unwrap();
        let event = |revision: Revision| Event::Put(KeyValue { mod_revision: revision, ..kv.clone() });
        let now = rig.etcd.revision();
        let far = Header { revision: Revision(now.0 + 50_000), ..rig.header() };
        let late = vec![event(Revision(now.0 + 3)), event(Revision(now.0 + 1))];
        let (header, events) = if is_far { (far, vec![event(now.next())]) } else { (rig.header(), late) };
        let says = vec![WatchMessage::Events { header, events, fragment: false }];
        rig.spoil(|script| script.watches.push_back(Spoilt { says, ..Spoilt::default() }));
        let before = rig.resets;
        rig.etcd.break_watches();
        rig.for_a_while(Duration::from_secs(5)).await;
        assert_eq!(rig.resets, before + 1);
        assert!(rig.is_right());
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_consumer_gets_everything_and_a_dropped_feed_leaves_no_watch() {
    let mut rig = Rig::started().await;
    for value in 0..3_000 {
        rig.put("a", &value.to_string()).await;
        if value % 1_000 == 0 {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    }
    rig.settle().await;
    assert_eq!((rig.resets, rig.etcd.watchers()), (1, 1));
    rig.feed = None;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.etcd.watchers(), 0);
}
