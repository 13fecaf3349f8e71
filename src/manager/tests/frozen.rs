//! What cannot be read freezes what depends on it: a definition its group, a label its node's memberships.

use super::*;

const BAD: [&str; 4] = [
    "{",
    r#"{"v":1,"kind":"Group","name":"web","selector":"role="web"}"#,
    r#"{"v":1,"kind":"Group","name":"web","selctor":"role=web"}"#,
    r#"{"v":7,"kind":"Group","name":"web","new":true}"#,
];

#[test]
fn a_definition_that_becomes_unusable_freezes_its_group_and_says_so() {
    for bad in BAD {
        for restart in [false, true] {
            let mut world = World::new();
            world.define("web", &group("web", "role=web", r#","port":"http""#));
            world.ready("a", "10.0.0.1", &[("role", "web")]);
            world.ready("b", "10.0.0.2", &[("role", "web")]);
            world.ready("c", "10.0.0.3", &[("role", "db")]);
            world.run();
            world.define("web", bad);
            if restart {
                world.restart();
            }
            world.run();
            assert_eq!(
                world.groups(),
                [
                    "web: 2 members, 2 published, frozen",
                    "web/a: ready, published, 10.0.0.1, http=8000",
                    "web/b: ready, published, 10.0.0.2, http=8000",
                ],
                "{bad}"
            );
            assert_eq!(world.view.findings()[0].code, "group-invalid");
            // Who is in it stays; what they are is followed; a node that is gone altogether goes.
            world.cut(&[
                ("a/label", Some(label("a", &[("role", "db")]))),
                ("a/assignment", Some(bound("a", 5, "10.0.0.7"))),
                ("c/label", Some(label("c", &[("role", "web")]))),
                ("b/status", Some(status("left", 5))),
            ]);
            world.run();
            assert_eq!(world.groups(), ["web: 1 members, 1 published, frozen", "web/a: ready, published, 10.0.0.7, http=8000"]);
            world.define("web", &group("web", "role=web", ""));
            world.run();
            assert_eq!(
                world.groups(),
                ["web: 1 members, 1 published, ok", "web/c: ready, published, 10.0.0.3, http=8000 metrics=9000",]
            );
        }
    }
}

#[test]
fn a_definition_that_never_was_in_order_is_seen_with_no_members() {
    let mut world = World::new();
    world.ready("a", "10.0.0.1", &[("role", "web")]);
    world.define("web", BAD[0]);
    world.run();
    assert_eq!(world.groups(), ["web: 0 members, 0 published, frozen"]);
    world.restart();
    assert_eq!(world.run(), 0);
    world.undefine("web");
    world.run();
    assert_eq!(world.groups(), Vec::<String>::new());
}

#[test]
fn a_frozen_keyed_definition_keeps_each_of_its_groups() {
    for restart in [false, true] {
        let mut world = World::new();
        world.define("web", &group("web", "", r#","keyed_by":["zone"]"#));
        world.ready("a", "10.0.0.1", &[("zone", "eu-1")]);
        world.ready("b", "10.0.0.2", &[("zone", "eu-2")]);
        world.run();
        world.define("web", BAD[1]);
        if restart {
            world.restart();
        }
        world.ready("c", "10.0.0.3", &[("zone", "eu-3")]);
        world.run();
        let summaries: Vec<String> = world.groups().into_iter().filter(|line| line.contains("members,")).collect();
        assert_eq!(summaries, ["web/zone=eu-1: 1 members, 1 published, frozen", "web/zone=eu-2: 1 members, 1 published, frozen"]);
        world.restart();
        assert_eq!(world.run(), 0);
        assert_eq!(world.check(), ["group-invalid groups/web"]);
    }
}

#[test]
fn a_node_whose_label_cannot_be_read_stays_where_it_is_and_enters_nothing() {
    for restart in [false, true] {
        let mut world = World::new();
        world.define("web", &group("web", "role=web", r#","port":"http""#));
        world.ready("a", "10.0.0.1", &[("role", "web")]);
        world.ready("b", "10.0.0.2", &[("role", "web")]);
        world.run();
        world.cut(&[("a/label", Some(r#"{"v":2,"all":"new"}"#.into()))]);
        if restart {
            world.restart();
        }
        world.define("all", &group("all", "", r#","port":"http""#));
        world.run();
        assert_eq!(
            world.groups(),
            [
                "all: 1 members, 1 published, ok",
                "all/b: ready, published, 10.0.0.2, http=8000",
                "web: 2 members, 2 published, ok",
                "web/a: ready, published, 10.0.0.1, http=8000",
                "web/b: ready, published, 10.0.0.2, http=8000",
            ]
        );
        assert_eq!(world.view.findings()[0].keys, ["manager/nodes/a/label"]);
        // It is followed there, and goes when it is gone.
        world.cut(&[("a/status", Some(status("draining", 5)))]);
        world.run();
        assert_eq!(world.groups()[3], "web/a: draining, not published, 10.0.0.1, http=8000");
        world.cut(&[("a/label", Some(label("a", &[("role", "db")])))]);
        world.run();
        assert_eq!(world.groups().len(), 5);
        assert_eq!(world.groups()[1], "all/a: draining, not published, 10.0.0.1, http=8000");
    }
}
