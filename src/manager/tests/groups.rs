//! Members and summaries follow labels, definitions and the brake.

use std::collections::BTreeSet;

use super::*;
use crate::manager::explain::Membership;
use crate::manager::view::Marked;
use crate::model::group::{GroupKey, MemberState};
use crate::model::names::NodeId;

#[test]
fn a_group_before_its_nodes_and_nodes_before_their_group_end_the_same() {
    let define = |world: &mut World| {
        world.define("web", &group("web", "role=web", r#","port":"http""#));
        world.define("none", &group("none", "role=nobody", ""));
        world.define("zones", &group("zones", "role", r#","keyed_by":["zone"]"#));
    };
    let nodes = |world: &mut World| {
        world.ready("a", "10.0.0.1", &[("role", "web"), ("zone", "eu-1")]);
        world.ready("b", "10.0.0.2", &[("role", "db"), ("zone", "eu-1")]);
        world.ready("c", "10.0.0.3", &[("role", "web")]);
    };
    let expected = [
        "none: 0 members, 0 published, ok",
        "web: 2 members, 2 published, ok",
        "web/a: ready, published, 10.0.0.1, http=8000",
        "web/c: ready, published, 10.0.0.3, http=8000",
        "zones/zone=eu-1: 2 members, 2 published, ok",
        "zones%2Fzone%3Deu-1/a: ready, published, 10.0.0.1, http=8000 metrics=9000",
        "zones%2Fzone%3Deu-1/b: ready, published, 10.0.0.2, http=8000 metrics=9000",
    ];
    for definitions_first in [true, false] {
        for run_between in [true, false] {
            let mut world = World::new();
            if definitions_first {
                define(&mut world)
            } else {
                nodes(&mut world)
            }
            if run_between {
                world.run();
            }
            if definitions_first {
                nodes(&mut world)
            } else {
                define(&mut world)
            }
            world.run();
            assert_eq!(world.groups(), expected, "definitions first: {definitions_first}");
            assert_eq!(world.check(), Vec::<String>::new());
            world.restart();
            assert_eq!(world.run(), 0, "a restart with nothing to do writes nothing");
        }
    }
}

#[test]
fn a_label_change_touches_exactly_the_old_and_the_new_groups() {
    let mut world = World::new();
    for zone in 0..50 {
        world.define(&format!("z{zone}"), &group(&format!("z{zone}"), &format!("zone=z{zone}"), ""));
    }
    world.ready("a", "10.0.0.1", &[("zone", "z1")]);
    world.ready("b", "10.0.0.2", &[("zone", "z1")]);
    world.run();
    world.cut(&[("a/label", Some(label("a", &[("zone", "z2")])))]);
    let changes = world.view.plan();
    let touched: Vec<(String, usize)> = changes.iter().map(|c| (c.group.to_string(), c.members.len())).collect();
    assert_eq!(touched, [("z1".to_string(), 1), ("z2".to_string(), 1)]);
    assert_eq!(world.run(), 4);
    // A status alone: one member in one group.
    world.cut(&[("a/status", Some(status("failed", 5)))]);
    assert_eq!(world.run(), 2);
    // Neither count changes, and still the summary says from when its group is.
    let summary = |world: &World| Summary::decode(&world.kvs[&"/enlist/manager/groups/z2".into()].value).unwrap();
    let before = summary(&world);
    world.cut(&[("a/status", Some(status("joining", 5)))]);
    assert_eq!(world.run(), 2);
    assert!(summary(&world).revision > before.revision);
    assert_eq!(Summary { revision: before.revision, ..summary(&world) }, before);
    // What changes nothing writes nothing, although the copies are newer.
    world.cut(&[("b/label", Some(label("b", &[("zone", "z1"), ("other", "1")])))]);
    assert_eq!(world.run(), 0);
}

#[test]
fn a_move_is_not_ready_before_it_is_acknowledged() {
    let mut world = World::new();
    world.define("all", &group("all", "", r#","port":"http""#));
    world.ready("a", "10.0.0.1", &[]);
    world.run();
    world.cut(&[("a/assignment", Some(bound("a", 6, "10.0.0.9")))]);
    world.run();
    assert_eq!(world.groups()[1], "all/a: joining, not published, 10.0.0.9, http=8000");
    world.cut(&[("a/status", Some(status("registered", 6)))]);
    world.run();
    assert_eq!(world.groups()[1], "all/a: ready, published, 10.0.0.9, http=8000");
}

#[test]
fn a_deleted_definition_takes_its_members_and_summaries_with_it() {
    let mut world = World::new();
    world.define("web", &group("web", "role=web", ""));
    world.define("webz", &group("webz", "role=web", r#","keyed_by":["zone"]"#));
    world.ready("a", "10.0.0.1", &[("role", "web"), ("zone", "eu-1")]);
    world.run();
    world.undefine("webz");
    world.run();
    assert_eq!(world.groups().len(), 2);
    // Deleted while no manager ran.
    world.commit(vec![Op::delete("/enlist/groups/web")]);
    world.restart();
    world.run();
    assert_eq!(world.groups(), Vec::<String>::new());
}

#[test]
fn keyed_groups_come_and_go_with_the_values_that_occur() {
    let mut world = World::new();
    world.define("web", &group("web", "", r#","keyed_by":["zone","rack"]"#));
    world.ready("a", "10.0.0.1", &[("zone", "eu-1"), ("rack", "r1")]);
    world.ready("b", "10.0.0.2", &[("zone", "eu-1")]);
    world.run();
    assert_eq!(world.groups()[0], "web/zone=eu-1,rack=r1: 1 members, 1 published, ok");
    assert_eq!(world.groups().len(), 2);
    world.cut(&[("a/label", Some(label("a", &[("zone", "eu-2"), ("rack", "")])))]);
    world.run();
    assert_eq!(world.groups()[0], "web/zone=eu-2,rack=: 1 members, 1 published, ok");
    assert_eq!(world.groups().len(), 2);
    // Keyed otherwise, then not at all.
    world.define("web", &group("web", "", r#","keyed_by":["zone"]"#));
    world.run();
    let summaries = |world: &World| world.groups().into_iter().filter(|l| l.contains("members,")).collect::<Vec<_>>();
    assert_eq!(summaries(&world), ["web/zone=eu-1: 1 members, 1 published, ok", "web/zone=eu-2: 1 members, 1 published, ok"]);
    world.define("web", &group("web", "", ""));
    world.run();
    assert_eq!(summaries(&world), ["web: 2 members, 2 published, ok"]);
}

#[test]
fn above_a_thousand_keyed_groups_the_existing_ones_stay_and_new_ones_are_findings() {
    let mut world = World::new();
    world.define("web", &group("web", "", r#","keyed_by":["zone"]"#));
    let zone = |at: usize| format!("z{at:04}");
    let cut = |world: &mut World, from: usize, to: usize| {
        let labels: Vec<(String, String)> =
            (from..to).map(|at| (format!("n{at}/label"), label(&format!("n{at}"), &[("zone", &zone(at))]))).collect();
        let status = status("joining", 0);
        let statuses: Vec<String> = (from..to).map(|at| format!("n{at}/status")).collect();
        let copies: Vec<(&str, Option<String>)> = labels
            .iter()
            .map(|(key, value)| (key.as_str(), Some(value.clone())))
            .chain(statuses.iter().map(|key| (key.as_str(), Some(status.clone()))))
            .collect();
        world.cut(&copies);
    };
    cut(&mut world, 10, 1009);
    world.run();
    assert_eq!(world.groups().len(), 2 * 999);
    // Eleven more: one fits, the first in order.
    cut(&mut world, 0, 10);
    cut(&mut world, 1009, 1010);
    world.run();
    assert_eq!(world.groups().len(), 2_000);
    assert!(world.groups().iter().any(|line| line.starts_with("web/zone=z0000")));
    assert_eq!(world.view.findings().len(), 10);
    assert_eq!(world.view.findings()[0].code, "too-many-groups");
    world.restart();
    assert_eq!(world.run(), 0);
    // One that exists goes: another takes its place.
    world.cut(&[("n500/status", None), ("n500/label", None)]);
    world.run();
    assert_eq!(world.groups().len(), 2_000);
    assert_eq!(world.view.findings().len(), 9);
}

/// `there` nodes in one group, `silent` of which lose their status.
fn after_loss(there: usize, silent: usize) -> World {
    let mut world = World::new();
    world.define("all", &group("all", "", r#","port":"http""#));
    for at in 0..there {
        world.ready(&format!("n{at:02}"), &format!("10.0.0.{at}"), &[]);
    }
    world.run();
    let keys: Vec<String> = (0..silent).map(|at| format!("n{at:02}/status")).collect();
    let copies: Vec<(&str, Option<String>)> = keys.iter().map(|key| (key.as_str(), None)).collect();
    world.cut(&copies);
    world.run();
    world
}

#[test]
fn one_dead_server_is_taken_out_at_once_and_half_a_fleet_is_not() {
    assert_eq!(after_loss(3, 1).groups()[0], "all: 3 members, 2 published, ok");
    assert_eq!(after_loss(20, 2).groups()[0], "all: 20 members, 18 published, ok");
    assert_eq!(after_loss(21, 3).groups()[0], "all: 21 members, 18 published, ok");
    let mut world = after_loss(20, 10);
    assert_eq!(world.groups()[0], "all: 20 members, 20 published, ok");
    assert_eq!(world.groups()[1], "all/n00: suspect, published, 10.0.0.0, http=8000");
    world.restart();
    assert_eq!(world.run(), 0);
    // The allocator releases one: it is no member any more, the others stay published.
    world.cut(&[("n00/assignment", None)]);
    world.run();
    assert_eq!(world.groups()[0], "all: 19 members, 19 published, ok");
    // They come back: all clears, without a storm.
    let keys: Vec<String> = (1..9).map(|at| format!("n{at:02}/status")).collect();
    let copies: Vec<(&str, Option<String>)> = keys.iter().map(|key| (key.as_str(), Some(status("registered", 5)))).collect();
    world.cut(&copies);
    world.run();
    assert_eq!(world.groups()[0], "all: 19 members, 18 published, ok");
    assert!(!world.view.brake().is_on());
}

#[test]
fn losses_spread_over_time_still_set_the_brake_and_the_first_ones_are_published_again() {
    let mut world = after_loss(20, 2);
    assert_eq!(world.groups()[0], "all: 20 members, 18 published, ok");
    world.cut(&[("n02/status", None)]);
    world.run();
    assert_eq!(world.groups()[0], "all: 20 members, 20 published, ok");
}

#[test]
fn a_rolling_stop_sets_no_brake_and_publishes_no_stopped_node() {
    let mut world = after_loss(20, 0);
    for at in 0..8 {
        world.cut(&[(&format!("n{at:02}/status"), Some(status("stopped", 5)))]);
        world.run();
    }
    assert_eq!(world.groups()[0], "all: 20 members, 12 published, ok");
    assert!(!world.view.brake().is_on());
}

#[test]
fn a_release_lets_the_suspects_go_and_not_those_that_fall_silent_later() {
    let mut world = after_loss(20, 10);
    world.write(vec![Op::put("/enlist/brakes/manager", "{}")]);
    world.run();
    assert_eq!(world.groups()[0], "all: 20 members, 10 published, ok");
    assert_eq!(world.check(), Vec::<String>::new());
    world.restart();
    assert_eq!(world.run(), 0);
    world.cut(&[("n10/status", None)]);
    world.run();
    assert_eq!(world.groups()[0], "all: 20 members, 10 published, ok");
    assert_eq!(world.groups()[11], "all/n10: suspect, published, 10.0.0.10, http=8000");
}

#[test]
fn what_another_hand_does_to_groups_is_put_right_and_foreign_keys_stay() {
    let mut world = World::new();
    world.define("web", &group("web", "", ""));
    world.ready("a", "10.0.0.1", &[]);
    world.run();
    let before = world.groups();
    world.write(vec![
        Op::delete("/enlist/manager/groups/web/members/a"),
        Op::put("/enlist/manager/groups/web/members/ghost", "x"),
        Op::put("/enlist/manager/groups/web", "x"),
        Op::put("/enlist/manager/groups/gone", "x"),
        Op::put("/enlist/manager/groups/gone/members/a", "x"),
        Op::put("/enlist/manager/groups/UPPER", "x"),
        Op::put("/enlist/manager/groups/web/note", "x"),
    ]);
    let mut found = world.check();
    found.sort();
    assert_eq!(
        found,
        [
            "foreign-group-key manager/groups/UPPER",
            "foreign-group-key manager/groups/web/note",
            "member-missing manager/groups/web/members/a",
            "member-stale manager/groups/gone/members/a",
            "member-stale manager/groups/web/members/ghost",
            "summary-differs manager/groups/web",
            "summary-stale manager/groups/gone",
        ]
    );
    world.run();
    assert_eq!(world.view.findings().len(), 2);
    world.write(vec![Op::delete("/enlist/manager/groups/UPPER"), Op::delete("/enlist/manager/groups/web/note")]);
    assert_eq!(world.groups(), before);
}

/// While nodes come one after another a large group is never without differences; a pass must not look at all that came before.
#[test]
fn a_node_without_a_difference_is_not_looked_at_again() {
    let mut world = World::new();
    world.define("web", &group("web", "role=web", ""));
    world.run();
    for (node, ip) in [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3")] {
        world.ready(node, ip, &[("role", "web")]);
        let changes = world.view.clone().plan();
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].members.iter().map(|(node, _, _)| node.as_str()).collect::<Vec<_>>(), [node]);
        // It writes, and sees what it wrote: then the next one comes.
        world.pass();
    }
    world.ready("d", "10.0.0.4", &[("role", "web")]);
    world.view.plan();
    let (web, open) = (GroupKey::plain("web".parse().unwrap()), BTreeSet::from(["d".parse().unwrap()]));
    assert_eq!(world.view.marked, BTreeMap::from([(web, Marked::Nodes(open))]));
}

#[test]
fn a_new_node_is_a_member_once_it_is_published_or_has_been_there_for_a_while() {
    let mut world = World::new();
    world.define("web", &group("web", "role=web", ""));
    world.run();
    let events = world.commit(vec![
        Op::put("/enlist/manager/checkpoint", checkpoint(world.revision, false)),
        Op::put("/enlist/manager/nodes/a/label", label("a", &[("role", "web")])),
        Op::put("/enlist/manager/nodes/a/status", status("joining", 0)),
    ]);
    let update = |events: &[Event], revision| Update::Events { revision: Revision(revision), events: events.to_vec() };
    let new = world.view.apply_manager(update(&events, world.revision));
    assert_eq!(new.iter().map(NodeId::as_str).collect::<Vec<_>>(), ["a"]);
    world.view.defer("a".parse().unwrap());
    // It is only joining: no write, and nothing is left to look at.
    assert_eq!((world.run(), world.view.is_marked()), (0, false));
    let waiting = world.clone();
    // Ready: at once.
    world.cut(&[("a/assignment", Some(bound("a", 5, "10.0.0.1"))), ("a/status", Some(status("registered", 5)))]);
    world.run();
    assert!(
        world.groups().contains(&"web/a: ready, published, 10.0.0.1, http=8000 metrics=9000".to_owned()),
        "{:?}",
        world.groups()
    );
    // From now on it is a member like others, whatever its state.
    world.cut(&[("a/status", Some(status("draining", 5)))]);
    world.run();
    assert!(world.groups().iter().any(|line| line.starts_with("web/a: draining")), "{:?}", world.groups());
    // Not ready for a while: as what it is.
    let mut world = waiting;
    world.view.defer_no_longer(&"a".parse().unwrap());
    world.run();
    assert!(world.groups().iter().any(|line| line.starts_with("web/a: joining")), "{:?}", world.groups());
}

#[test]
fn nobody_is_new_to_a_manager_that_starts() {
    let mut world = World::new();
    world.ready("a", "10.0.0.1", &[("role", "web")]);
    let mut view = View::new(prefix());
    assert!(view.apply_manager(world.reset("manager/")).is_empty());
    let again = world.reset("manager/");
    assert!(view.apply_manager(again).is_empty(), "nor when all is read again");
}

/// A value for each node, as a variable like the host's name has; `phase` of their statuses, "" = none.
fn one_value_each(world: &mut World, nodes: std::ops::Range<usize>, phase: &str) {
    let id = |at: usize| format!("n{at:04}");
    let copies: Vec<(String, Option<String>)> = nodes
        .flat_map(|at| {
            let there = (!phase.is_empty()).then(|| status(phase, 0));
            [(format!("{}/label", id(at)), Some(label(&id(at), &[("zone", &id(at))]))), (format!("{}/status", id(at)), there)]
        })
        .collect();
    let copies: Vec<(&str, Option<String>)> = copies.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    world.cut(&copies);
}

#[test]
fn values_of_nodes_that_are_gone_keep_no_live_node_out() {
    let membership = |world: &mut World, node: &str| world.view.membership(&"web".parse().unwrap(), &node.parse().unwrap());
    // Released, or left: only their labels are there, which sort before that of the live one.
    for gone in ["", "stopped", "left"] {
        let mut world = World::new();
        world.define("web", &group("web", "", r#","keyed_by":["zone"]"#));
        one_value_each(&mut world, 0..1_500, gone);
        world.run();
        assert_eq!(world.groups(), Vec::<String>::new(), "{gone}");
        assert_eq!(world.view.findings(), [], "nobody misses them: {gone}");
        world.ready("zz", "10.0.0.1", &[("zone", "zz")]);
        world.run();
        assert_eq!(world.groups()[0], "web/zone=zz: 1 members, 1 published, ok", "{gone}");
        assert_eq!(membership(&mut world, "zz"), Membership::Member { state: MemberState::Ready, published: true });
        assert_eq!(membership(&mut world, "n0003"), Membership::Gone);
        assert_eq!(world.check(), Vec::<String>::new(), "{gone}");
    }
    // Away, but held: what they have is kept for them, and a live node comes first all the same.
    let mut world = World::new();
    world.define("web", &group("web", "", r#","keyed_by":["zone"]"#));
    one_value_each(&mut world, 0..999, "joining");
    world.ready("stopped", "10.0.0.2", &[("zone", "stopped")]);
    world.run();
    world.cut(&[("stopped/status", Some(status("stopped", 5)))]);
    world.run();
    assert_eq!(membership(&mut world, "stopped"), Membership::Member { state: MemberState::Stopped, published: false });
    world.ready("zz", "10.0.0.1", &[("zone", "zz")]);
    world.run();
    assert_eq!(membership(&mut world, "zz"), Membership::Member { state: MemberState::Ready, published: true });
    assert_eq!(membership(&mut world, "stopped"), Membership::AboveLimit);
    assert_eq!(world.view.findings().len(), 1);
    // All are live: one that exists stays, and `explain` says so of the one that does not.
    world.ready("aa", "10.0.0.3", &[("zone", "aa")]);
    world.run();
    assert_eq!(membership(&mut world, "aa"), Membership::AboveLimit);
    assert_eq!(world.view.membership(&"web/zone=zz".parse().unwrap(), &"aa".parse().unwrap()), Membership::NotSelected);
    assert_eq!(world.check(), ["too-many-groups groups/web", "too-many-groups groups/web"]);
    world.restart();
    assert_eq!(world.run(), 0);
}
