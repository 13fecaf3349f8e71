//! Copies are taken over when a cut is complete, and only by the relay's word.

use super::*;

#[test]
fn a_partial_cut_is_held_back_until_its_last_part() {
    let mut world = World::new();
    world.define("all", &group("all", "", ""));
    world.ready("a", "10.0.0.1", &[]);
    world.run();
    let before = world.groups();
    world.cut_part(&[("a/status", None), ("a/assignment", None)], true);
    let joining = ("b/status", Some(status("joining", 0)));
    world.cut_part(&[("b/label", Some(label("b", &[]))), joining], true);
    assert_eq!(world.view.copies.held_back(), 4);
    assert_eq!(world.run(), 0);
    assert_eq!(world.groups(), before);
    // Only the last state counts: a is back before the cut ends.
    world.cut_part(&[("a/status", Some(status("registered", 5))), ("a/assignment", Some(bound("a", 5, "10.0.0.1")))], false);
    world.run();
    assert_eq!(
        world.groups(),
        [
            "all: 2 members, 1 published, ok",
            "all/a: ready, published, 10.0.0.1, http=8000 metrics=9000",
            "all/b: joining, not published, , ",
        ]
    );
    assert_eq!(world.check(), Vec::<String>::new());
}

#[test]
fn a_manager_that_starts_during_a_partial_cut_waits() {
    let mut world = World::new();
    world.define("all", &group("all", "", ""));
    world.ready("a", "10.0.0.1", &[]);
    world.run();
    world.cut_part(&[("a/label", None)], true);
    world.restart();
    assert!(!world.view.is_ready());
    assert_eq!(world.pass(), []);
    world.cut(&[("a/status", None), ("a/assignment", None)]);
    world.run();
    assert_eq!(world.groups(), ["all: 0 members, 0 published, ok"]);
}

#[test]
fn nothing_is_decided_before_all_is_read() {
    let mut world = World::new();
    world.define("all", &group("all", "", ""));
    world.ready("a", "10.0.0.1", &[]);
    world.run();
    for missing in 0..3 {
        world.view = View::new(prefix());
        if missing != 0 {
            world.view.apply_manager(world.reset("manager/"));
        }
        if missing != 1 {
            world.view.apply_groups(world.reset("groups/"));
        }
        if missing != 2 {
            world.view.apply_brake(world.reset("brakes/manager"));
        }
        assert_eq!(world.pass(), [], "without read {missing}");
    }
    // No relay ever wrote here.
    world.write(vec![Op::delete("/enlist/manager/checkpoint")]);
    world.restart();
    assert_eq!(world.pass(), []);
}

#[test]
fn what_another_hand_does_to_the_copies_empties_no_group() {
    let mut world = World::new();
    world.define("all", &group("all", "", ""));
    world.ready("a", "10.0.0.1", &[]);
    world.run();
    let before = world.groups();
    let keys = ["label", "status", "assignment"].map(|part| format!("/enlist/manager/nodes/a/{part}"));
    world.write(keys.iter().map(|key| Op::delete(key.as_str())).collect());
    world.write(vec![Op::put("/enlist/manager/nodes/b/label", label("b", &[]))]);
    assert_eq!(world.run(), 0);
    // A read says the same as the events did.
    world.view.apply_manager(world.reset("manager/"));
    assert_eq!(world.run(), 0);
    assert_eq!(world.groups(), before);
    // The checkpoint too.
    world.write(vec![Op::delete("/enlist/manager/checkpoint")]);
    assert_eq!(world.run(), 0);
    // The relay puts all right.
    world.cut(&[
        ("a/label", Some(label("a", &[]))),
        ("a/assignment", Some(bound("a", 5, "10.0.0.1"))),
        ("a/status", Some(status("registered", 5))),
        ("b/label", None),
    ]);
    world.run();
    assert_eq!(world.groups(), before);
    assert_eq!(world.check(), Vec::<String>::new());
}

#[test]
fn a_read_finds_deletions_that_no_event_told() {
    let mut world = World::new();
    world.define("all", &group("all", "", ""));
    world.ready("a", "10.0.0.1", &[]);
    world.ready("b", "10.0.0.2", &[]);
    world.run();
    let ops = vec![Op::put("/enlist/manager/checkpoint", checkpoint(90, false)), Op::delete("/enlist/manager/nodes/a/label")];
    world.commit(ops);
    // The store goes on meanwhile: the read's revision is not the cut's.
    world.commit(vec![Op::put("/enlist/claims/default/10.0.0.1", "x")]);
    world.view.apply_manager(world.reset("manager/"));
    world.run();
    assert_eq!(world.groups()[0], "all: 1 members, 1 published, ok");
}

/// A destination with group `all` and one ready node.
fn with_one(node: &str, ip: &str) -> World {
    let mut world = World::new();
    world.define("all", &group("all", "", ""));
    world.ready(node, ip, &[]);
    world
}

/// The manager that looked at the one looks at the other: a backup was put in.
fn restored(world: World, mut old: World) -> World {
    old.view = world.view;
    for folder in ["manager/", "groups/"] {
        let revision = Revision(old.revision);
        let update = Update::Reset { revision, cluster_id: 1, kvs: old.below(folder), stepped_back: true };
        if folder == "manager/" { drop(old.view.apply_manager(update)) } else { old.view.apply_groups(update) }
    }
    old.run();
    old
}

#[test]
fn a_restored_destination_is_taken_as_it_is() {
    let mut world = with_one("a", "10.0.0.1");
    world.run();
    let old = restored(world, with_one("b", "10.0.0.2"));
    assert_eq!(old.groups()[1..], ["all/b: ready, published, 10.0.0.2, http=8000 metrics=9000"]);
}

#[test]
fn a_key_that_a_restored_destination_has_at_the_same_revision_is_not_taken_for_the_same() {
    let mut world = with_one("a", "10.0.0.1");
    world.run();
    let old = with_one("a", "10.0.0.9");
    let revision = |world: &World| world.kvs[&Key::from("/enlist/manager/nodes/a/assignment")].mod_revision;
    assert_eq!(revision(&world), revision(&old));
    let old = restored(world, old);
    assert_eq!(old.groups()[1..], ["all/a: ready, published, 10.0.0.9, http=8000 metrics=9000"]);
}
