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

/// Two versions at once, as in an upgrade: the older manager may lead for a while after the newer one has written.
#[test]
fn what_a_newer_manager_wrote_is_left_alone_and_said() {
    const SUMMARY: &str = r#"{"v":2,"group":"web","all":"new"}"#;
    for (newer, restart) in [
        (&[("web", SUMMARY)][..], false),
        (&[("web", SUMMARY), ("web/members/a", r#"{"v":2,"node":"a"}"#)], true),
        (&[("web/members/a", r#"{"v":2,"node":"a"}"#)], false),
    ] {
        let mut world = World::new();
        world.define("web", &group("web", "role=web", ""));
        world.define("db", &group("db", "role=db", ""));
        world.ready("a", "10.0.0.1", &[("role", "web")]);
        world.run();
        let keys: Vec<String> = newer.iter().map(|(key, _)| format!("/enlist/manager/groups/{key}")).collect();
        world.write(newer.iter().zip(&keys).map(|((_, value), key)| Op::put(key.as_str(), *value)).collect());
        if restart {
            world.restart();
        }
        let before = world.groups();
        // Everything that would change the group: members that come, go and change, another selector, no definition.
        world.ready("b", "10.0.0.2", &[("role", "web")]);
        world.ready("c", "10.0.0.3", &[("role", "db")]);
        world.cut(&[("a/status", Some(status("draining", 5)))]);
        world.define("web", &group("web", "role in (web,db)", ""));
        world.run();
        let others = |world: &World| world.groups().into_iter().filter(|line| !line.starts_with("db")).collect::<Vec<_>>();
        assert_eq!(others(&world).len(), before.len() - 1, "nothing of it was written: {:?}", world.groups());
        assert!(
            newer.iter().all(|(key, value)| world.kvs[&format!("/enlist/manager/groups/{key}").as_str().into()].value == value)
        );
        assert!(world.groups().contains(&"db: 1 members, 1 published, ok".to_owned()), "the others go on: {:?}", world.groups());
        let mut expected: Vec<String> = newer.iter().map(|(key, _)| format!("group-newer manager/groups/{key}")).collect();
        expected.sort();
        assert_eq!(world.check(), expected);
        let before = world.kvs.clone();
        world.undefine("web");
        world.run();
        assert!(
            before
                .keys()
                .filter(|key| key.as_str().unwrap().contains("groups/web"))
                .all(|key| { world.kvs.contains_key(key) || key.as_str() == Some("/enlist/groups/web") })
        );
        // When it is gone the group is ours again, and whole.
        world.define("web", &group("web", "role in (web,db)", ""));
        world.write(keys.iter().map(|key| Op::delete(key.as_str())).collect());
        world.run();
        assert_eq!(others(&world)[0], "web: 3 members, 2 published, ok");
        assert_eq!(world.check(), Vec::<String>::new());
    }
}
