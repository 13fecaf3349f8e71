//! Restored sources, loops, second sources, mass loss.

use super::*;
use crate::relay::diff::VALUE_BYTES_MAX;
use crate::relay::guard::{DELETES_MIN, DELETES_PERCENT_MAX, Refusal, Verdict, ahead, judge, no_loop, restored, same_source};

#[test]
fn a_restored_source_is_followed_back() {
    let mut world = World::new();
    for value in ["1", "2", "3"] {
        world.put("a/label", value);
    }
    world.put("b/label", "1");
    world.run();
    assert_eq!(restored(&world.mirror), None);
    // Restored from revision 2.
    world.source = Tiny::default();
    world.source.write("/s/nodes/a/label", Some(b"1"));
    world.source.write("/s/nodes/a/label", Some(b"2"));
    world.reread_source();
    assert_eq!(restored(&world.mirror), Some("its revision went back"));
    assert_eq!(ahead(&world.mirror), Some(Revision(4)));
    world.run();
    world.assert_equal();
    assert_eq!(world.checkpoint().unwrap().revision, Revision(2));
    // Restored, then eight writes: its revision is past the checkpoint's, and the content still decides.
    world.source = Tiny::default();
    for value in 0..8 {
        world.source.write("/s/nodes/c/label", Some(value.to_string().as_bytes()));
    }
    world.restart();
    assert_eq!(restored(&world.mirror), None);
    world.run();
    world.assert_equal();
}

#[test]
fn another_cluster_of_the_same_name_is_said_and_followed() {
    let mut world = World::new();
    world.put("a/label", "1");
    world.run();
    let Update::Reset { revision, kvs, .. } = world.source.reset(&[prefix("/s").folder("nodes")]) else { unreachable!() };
    world.mirror.apply_source(Update::Reset { revision, cluster_id: 8, kvs, stepped_back: true });
    assert_eq!(restored(&world.mirror), Some("other cluster"));
    assert_eq!(ahead(&world.mirror), None);
    assert_eq!(world.step().unwrap().writes.len(), 0);
    assert_eq!(world.checkpoint().unwrap().cluster, "8");
}

#[test]
fn loops_are_refused() {
    for (source, destination, same, refused) in [
        ("/e", "/e", true, false),
        ("/e", "/other", true, false),
        ("/e", "/e/nodes/x", true, true),
        ("/e", "/e/nodes/x", false, false),
        ("/e", "/e/nodesx", true, false),
        ("/e/manager", "/e", true, true),
        ("/e/manager/groups", "/e", true, true),
        ("/e/managers", "/e", true, false),
    ] {
        let answer = no_loop(&prefix(source), &prefix(destination), same);
        assert_eq!(answer.is_err(), refused, "{source} -> {destination} in one cluster: {same}");
    }
    let message = no_loop(&prefix("/e"), &prefix("/e/nodes/x"), true).unwrap_err().to_string();
    assert!(message.contains("/e/nodes/x/manager/") && message.contains("/e/nodes/"), "{message}");
}

#[test]
fn a_second_source_is_refused_until_it_adopts() {
    let mut world = World::new();
    world.run();
    let stored = world.mirror.checkpoint().map(|seen| &seen.value);
    assert_eq!(same_source(stored, "edge", false), Ok(()));
    assert_eq!(same_source(None, "core", false), Ok(()));
    let refusal = Refusal::OtherSource { stored: "edge".into(), mine: "core".into() };
    assert_eq!(same_source(stored, "core", false), Err(refusal));
    assert_eq!(same_source(stored, "core", true), Ok(()));
    assert_eq!(same_source(Some(&Checkpoint::decode(b"{")), "core", false), Ok(()), "put right");
    let newer = Checkpoint::decode(br#"{"v":2}"#);
    assert_eq!(same_source(Some(&newer), "edge", true), Err(Refusal::Newer(2)), "left alone");
    world.name = "core".into();
    assert_eq!(world.run().len(), 1);
    assert_eq!(world.checkpoint().unwrap().source, "core");
}

/// `there` nodes are copied, then all but `left` are gone: by a read if `reread`, else by events.
fn after_loss(there: usize, left: usize, reread: bool) -> World {
    let mut world = World::new();
    for node in 0..there {
        world.put(&format!("n{node:03}/label"), "1");
    }
    world.run();
    for node in left..there {
        let events = world.source.write(&format!("/s/nodes/n{node:03}/label"), None);
        world.record();
        if !reread {
            world.tell_source(events);
        }
    }
    if reread {
        world.reread_source();
    }
    world
}

#[test]
fn mass_loss_by_a_read_wants_a_second_proof() {
    for (there, left, reread, verdict) in [
        (100, 69, true, Verdict::SecondRead),
        (100, 70, true, Verdict::Go),
        (100, 1, false, Verdict::Go),
        (100, 0, false, Verdict::Go),
        (100, 0, true, Verdict::Empty),
        (3, 0, true, Verdict::Empty),
        (10, 1, true, Verdict::Go),
        (11, 1, true, Verdict::SecondRead),
        (0, 0, true, Verdict::Go),
    ] {
        let world = after_loss(there, left, reread);
        assert_eq!(judge(&world.mirror, false, Revision::NONE), verdict, "{there} -> {left}, by a read: {reread}");
    }
}

#[test]
fn a_second_proof_lets_it_go_and_the_next_read_wants_its_own() {
    let mut world = after_loss(20, 5, true);
    world.mirror.prove();
    assert_eq!(judge(&world.mirror, false, Revision::NONE), Verdict::Go);
    world.run();
    world.assert_equal();
    world.source.revision += 1;
    world.source.kvs.clear();
    world.reread_source();
    assert_eq!(judge(&world.mirror, false, Revision::NONE), Verdict::Empty);
}

#[test]
fn an_empty_source_needs_a_word_and_the_word_is_used_up() {
    let mut world = after_loss(20, 0, true);
    assert_eq!(judge(&world.mirror, true, Revision::NONE), Verdict::SecondRead);
    let released = Revision(world.destination.revision + 1);
    world.destination.revision += 1;
    assert_eq!(judge(&world.mirror, false, released), Verdict::SecondRead);
    world.run();
    world.put("a/label", "1");
    world.run();
    world.source.kvs.clear();
    world.reread_source();
    assert_eq!(judge(&world.mirror, false, released), Verdict::Empty);
}

#[test]
fn the_brake_counts_what_is_missing_not_what_changed_or_is_too_large() {
    let mut world = World::new();
    for node in 0..30 {
        world.put(&format!("n{node}/label"), "1");
    }
    world.run();
    for node in 0..30 {
        let value = if node < 15 { vec![b'x'; VALUE_BYTES_MAX + 1] } else { b"2".to_vec() };
        world.source.write(&format!("/s/nodes/n{node}/label"), Some(&value));
    }
    world.reread_source();
    assert_eq!(world.mirror.differing().len(), 30);
    assert_eq!(world.mirror.missing().count(), 0);
    assert_eq!(judge(&world.mirror, false, Revision::NONE), Verdict::Go);
    assert_eq!((DELETES_MIN, DELETES_PERCENT_MAX), (10, 30));
}
