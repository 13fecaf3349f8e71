//! Faults of watches, one by one.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use crate::store::api::LeaseId;

const CLUSTER: u64 = 7;

impl WatchMachine {
    /// Everything was read in one page.
    fn read_whole(&mut self, listing: &RangeResponse) -> bool {
        let mut listed = Listed::default();
        self.page(&mut listed, &listing.kvs);
        self.reread(&listing.header, listed)
    }
}

fn header(revision: i64) -> Header {
    Header { cluster_id: CLUSTER, member_id: 1, revision: Revision(revision) }
}

fn kv(key: &str, revision: i64) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: "x".into(),
        create_revision: Revision(revision),
        mod_revision: Revision(revision),
        version: 1,
        lease: LeaseId::NONE,
    }
}

fn put(key: &str, revision: i64) -> Event {
    Event::Put(kv(key, revision))
}

fn delete(key: &str, revision: i64) -> Event {
    Event::Delete { key: key.into(), mod_revision: Revision(revision) }
}

fn events(at: i64, events: Vec<Event>) -> WatchMessage {
    WatchMessage::Events { header: header(at), events, fragment: false }
}

fn fragment(at: i64, events: Vec<Event>) -> WatchMessage {
    WatchMessage::Events { header: header(at), events, fragment: true }
}

/// Has read `/n/` at revision 10.
fn machine() -> WatchMachine {
    let mut machine = WatchMachine::new(vec![KeyRange::prefix("/n/")]);
    assert!(!machine.read_whole(&RangeResponse {
        header: header(10),
        kvs: vec![kv("/n/a", 4), kv("/n/b", 3)],
        ..Default::default()
    }));
    machine
}

#[test]
fn it_watches_from_the_revision_after_the_read() {
    assert_eq!(machine().resume(), Revision(11));
    let machine = machine();
    let witnesses: Vec<&Witness> = machine.witnesses().collect();
    assert_eq!(witnesses, [&Witness { key: "/n/a".into(), revision: Revision(4), held: Some(kv("/n/a", 4)) }]);
}

#[test]
fn the_resume_point_is_the_last_event_not_the_header() {
    let mut machine = machine();
    assert_eq!(
        machine.message(events(3502, vec![put("/n/a", 11), put("/n/a", 12)])),
        Verdict::Apply(Revision(12), vec![put("/n/a", 11), put("/n/a", 12)])
    );
    assert_eq!(machine.resume(), Revision(13));
}

#[test]
fn a_revision_in_four_fragments_is_applied_whole() {
    let mut machine = machine();
    for key in ["/n/a", "/n/b", "/n/c"] {
        assert_eq!(machine.message(fragment(11, vec![put(key, 11)])), Verdict::Nothing);
        assert_eq!(machine.seen(), Revision(10));
    }
    match machine.message(events(11, vec![put("/n/d", 11)])) {
        Verdict::Apply(Revision(11), events) => assert_eq!(events.len(), 4),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cut_between_fragments_repeats_the_revision() {
    let mut machine = machine();
    machine.message(fragment(11, vec![put("/n/a", 11)]));
    machine.reopened();
    assert_eq!(machine.resume(), Revision(11));
    assert_eq!(
        machine.message(events(11, vec![put("/n/a", 11), put("/n/b", 11)])),
        Verdict::Apply(Revision(11), vec![put("/n/a", 11), put("/n/b", 11)])
    );
}

#[test]
fn old_and_duplicate_events_are_dropped() {
    let mut machine = machine();
    assert_eq!(machine.message(events(12, vec![put("/n/a", 9), delete("/n/a", 10)])), Verdict::Nothing);
    assert_eq!(
        machine.message(events(12, vec![put("/n/a", 10), delete("/n/a", 11)])),
        Verdict::Apply(Revision(11), vec![delete("/n/a", 11)])
    );
    assert_eq!(machine.message(events(12, vec![delete("/n/a", 11)])), Verdict::Nothing);
    let deleted = Witness { key: "/n/a".into(), revision: Revision(11), held: None };
    assert_eq!(machine.witnesses().last(), Some(&deleted));
    // The last write stays a witness beside the deletion: a restored store may well lack a key that was deleted.
    assert_eq!(machine.witnesses().count(), 2);
    machine.message(events(13, vec![put("/n/b", 12)]));
    assert_eq!(machine.witnesses().map(|witness| witness.revision).collect::<Vec<_>>(), [Revision(12)]);
}

#[test]
fn an_event_that_was_never_told_and_comes_late_forces_a_reread() {
    let mut machine = machine();
    machine.message(events(15, vec![put("/n/a", 11), put("/n/a", 13), put("/n/a", 15)]));
    assert_eq!(machine.message(events(15, vec![put("/n/a", 13), put("/n/a", 15)])), Verdict::Nothing, "told before");
    assert_eq!(machine.message(events(15, vec![put("/n/b", 12)])), Verdict::Reread(Reread::Disorder));
    assert_eq!(machine.message(events(16, vec![put("/n/b", 12), put("/n/a", 16)])), Verdict::Reread(Reread::Disorder));
    // Of a new stream everything up to the resume point is merely old.
    machine.reopened();
    assert_eq!(machine.message(events(16, vec![put("/n/b", 12)])), Verdict::Nothing);
    // A barrier that was none.
    machine.trust_progress_of(Some(1));
    machine.message(WatchMessage::Progress(header(20)));
    assert_eq!(machine.message(events(21, vec![put("/n/b", 18)])), Verdict::Reread(Reread::Disorder));
    // What is remembered is bounded; what is older than it counts as told.
    let mut machine = self::machine();
    for revision in 0..3 * i64::try_from(TOLD_MAX).unwrap() {
        machine.message(events(0, vec![put("/n/a", 12 + 2 * revision)]));
    }
    assert_eq!(machine.told.len(), TOLD_MAX);
    assert_eq!(machine.message(events(0, vec![put("/n/b", 13)])), Verdict::Nothing);
}

#[test]
fn disorder_compaction_and_lag_force_a_reread() {
    assert_eq!(machine().message(events(13, vec![put("/n/a", 13), put("/n/a", 12)])), Verdict::Reread(Reread::Disorder));
    let compacted = WatchMessage::Canceled { reason: String::new(), compacted: Revision(50) };
    assert_eq!(machine().message(compacted), Verdict::Reread(Reread::Compacted));
    assert_eq!(machine().message(events(12 + BEHIND_MAX, vec![put("/n/a", 11)])), Verdict::Reread(Reread::Behind));
    assert!(matches!(machine().message(events(11 + BEHIND_MAX, vec![put("/n/a", 11)])), Verdict::Apply(..)));
    // Where there are many keys a whole read takes longer than what is owed.
    let mut large = machine();
    let kvs = (0..BEHIND_MAX * KEYS_A_REVISION + KEYS_A_REVISION).map(|n| kv(&format!("/n/{n}"), 1)).collect();
    large.read_whole(&RangeResponse { header: header(10), kvs, ..Default::default() });
    assert!(matches!(large.message(events(12 + BEHIND_MAX, vec![put("/n/a", 11)])), Verdict::Apply(..)));
    assert_eq!(large.message(events(14 + BEHIND_MAX, vec![put("/n/a", 12)])), Verdict::Reread(Reread::Behind));
    let canceled = WatchMessage::Canceled { reason: "no leader".into(), compacted: Revision::NONE };
    assert!(matches!(machine().message(canceled), Verdict::Reconnect(_)));
}

#[test]
fn a_restored_or_another_store_is_noticed_at_once() {
    // One member's word: it may only lag. The store itself is asked.
    assert_eq!(machine().message(WatchMessage::Created(header(9))), Verdict::Doubt);
    assert_eq!(machine().message(WatchMessage::Created(header(10))), Verdict::Nothing);
    let other = Header { cluster_id: 8, ..header(99) };
    assert_eq!(machine().message(WatchMessage::Created(other)), Verdict::Reread(Reread::SteppedBack));
    assert_eq!(machine().message(WatchMessage::Progress(other)), Verdict::Reread(Reread::SteppedBack));
    assert!(machine().read_whole(&RangeResponse { header: header(9), ..Default::default() }));
    assert!(machine().read_whole(&RangeResponse { header: other, ..Default::default() }));
}

#[test]
fn a_restore_whose_revision_is_past_ours_again_is_found_by_the_witness() {
    let mut machine = machine();
    let witness = machine.witnesses().next().unwrap().clone();
    let read = |at: i64, kvs: Vec<KeyValue>| RangeResponse { header: header(at), kvs, ..Default::default() };
    assert!(machine.recognises(&witness, &read(20, vec![kv("/n/a", 4)])));
    assert!(!machine.recognises(&witness, &read(20, vec![kv("/n/a", 3)])));
    assert!(!machine.recognises(&witness, &read(20, vec![])));
    assert!(!machine.recognises(&witness, &read(9, vec![kv("/n/a", 4)])), "the store is behind what was seen");
    let other_value = KeyValue { value: "y".into(), ..kv("/n/a", 4) };
    assert!(!machine.recognises(&witness, &read(20, vec![other_value])), "written again at the same revision");
    let gone = Witness { key: "/n/a".into(), revision: Revision(9), held: None };
    assert!(gone.agrees(None) && !gone.agrees(Some(&kv("/n/a", 4))));
    // Compacted meanwhile: the listing itself tells, if it holds an older version of what was seen.
    assert!(machine.clone().read_whole(&read(20, vec![kv("/n/a", 3)])));
    assert!(!machine.read_whole(&read(20, vec![kv("/n/b", 3)])), "deleted since");
}

#[test]
fn progress_moves_what_is_seen_only_where_it_is_a_barrier_and_never_the_resume_point() {
    let mut machine = machine();
    assert_eq!(machine.message(WatchMessage::Progress(header(12_007))), Verdict::Nothing);
    assert_eq!(machine.resume(), Revision(11));
    machine.trust_progress_of(Some(2));
    assert_eq!(machine.message(WatchMessage::Progress(header(20))), Verdict::Nothing, "another member's word");
    machine.trust_progress_of(Some(1));
    machine.message(fragment(11, vec![put("/n/a", 11)]));
    assert_eq!(machine.message(WatchMessage::Progress(header(20))), Verdict::Nothing);
    machine.message(events(11, vec![]));
    assert_eq!(machine.message(WatchMessage::Progress(header(20))), Verdict::Apply(Revision(20), vec![]));
    assert_eq!((machine.seen(), machine.resume()), (Revision(20), Revision(12)));
    machine.reopened();
    assert_eq!(machine.message(WatchMessage::Progress(header(30))), Verdict::Nothing);
}

/// A restored store may have passed what was seen, with other events.
#[test]
fn what_comes_from_where_there_was_only_progress_is_another_past() {
    let mut machine = machine();
    machine.message(events(11, vec![put("/n/a", 11)]));
    assert!(machine.can_resume());
    machine.trust_progress_of(Some(1));
    machine.message(WatchMessage::Progress(header(20)));
    machine.reopened();
    assert_eq!(machine.resume(), Revision(12));
    assert_eq!(machine.clone().message(events(30, vec![put("/n/b", 15)])), Verdict::Reread(Reread::SteppedBack));
    // What it was told before is merely old.
    assert_eq!(machine.message(events(30, vec![put("/n/a", 11)])), Verdict::Nothing);
    assert!(matches!(machine.message(events(30, vec![put("/n/b", 21)])), Verdict::Apply(Revision(21), _)));
}

#[test]
fn a_stream_that_told_nothing_is_not_resumed() {
    let mut machine = machine();
    assert!(!machine.can_resume());
    machine.message(events(11, vec![put("/elsewhere", 11)]));
    assert!(machine.can_resume(), "an event of a key that is not ours proves the past as well");
    machine.read_whole(&RangeResponse { header: header(20), kvs: vec![kv("/n/a", 4)], ..Default::default() });
    assert!(!machine.can_resume());
}

#[test]
fn versions_whose_progress_lies_are_known() {
    for (version, barrier) in [
        ("3.4.23", false),
        ("3.4.25", true),
        ("3.5.1", false),
        ("3.5.8", true),
        ("3.5.16", true),
        ("3.6.0", true),
        ("3.6.0-rc.1", true),
        ("3.3.0", false),
        ("", false),
        ("4.0.0", true),
    ] {
        assert_eq!(progress_is_barrier(version), barrier, "{version}");
    }
}

#[test]
fn events_outside_the_wanted_ranges_move_the_point_and_are_dropped() {
    let mut machine = WatchMachine::new(vec![KeyRange::prefix("/n/"), KeyRange::prefix("/p/")]);
    machine.read_whole(&RangeResponse { header: header(10), ..Default::default() });
    assert_eq!(machine.witnesses().count(), 0);
    assert_eq!(
        machine.message(events(12, vec![put("/m/x", 11), put("/p/x", 12)])),
        Verdict::Apply(Revision(12), vec![put("/p/x", 12)])
    );
    assert_eq!(machine.message(events(13, vec![put("/m/x", 13)])), Verdict::Apply(Revision(13), vec![]));
}
