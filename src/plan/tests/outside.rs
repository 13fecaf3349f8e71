//! Who keeps what its pool would not assign today, and why.

use crate::model::pool::{OnMismatch, Pool};
use crate::plan::index::Index;
use crate::plan::outside::{findings, outside};
use crate::plan::pools::Pools;
use crate::plan::testing::lab::Lab;
use crate::plan::testing::make::*;

fn lab() -> Lab {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/29"]), Pool { priority: -1, ..pool("us", &["10.9.0.0/29"]) }]);
    for node in ["a", "b", "c"] {
        lab.join(label(node));
    }
    lab.run();
    ["a", "b", "c"].iter().for_each(|node| lab.acknowledge(node));
    lab
}

fn seen(lab: &Lab) -> Vec<String> {
    let index = Index::of(&lab.snapshot);
    let pools = Pools::new(&lab.snapshot, &index);
    let line = |(pool, nodes): (_, Vec<(_, crate::plan::outside::Mismatch)>)| {
        let nodes: Vec<String> = nodes.iter().map(|(node, why)| format!("{node}={}", why.as_str())).collect();
        format!("{pool}: {}", nodes.join(" "))
    };
    outside(&lab.snapshot, &pools).into_iter().map(line).collect()
}

#[test]
fn a_changed_pool_counts_who_has_something_outside() {
    let check = |edit: fn(&mut Pool), expected: &str| {
        let mut lab = lab();
        assert_eq!(seen(&lab), [] as [&str; 0]);
        lab.edit_pool("eu", edit);
        assert_eq!(lab.run(), [], "nobody is moved");
        assert_eq!(seen(&lab), [expected]);
        let found = findings(&lab.snapshot);
        assert_eq!((found.len(), found[0].code, &found[0].keys[0][..]), (1, "pool-outside", "pools/eu"));
        assert!(found[0].message.starts_with("3 nodes have what the pool would not assign today: a ("), "{}", found[0].message);
    };
    check(|pool| pool.cidrs = vec!["10.1.0.0/24".parse().unwrap()], "eu: a=address b=address c=address");
    check(|pool| pool.exclude = vec!["10.0.0.0/29".parse().unwrap()], "eu: a=address b=address c=address");
    check(|pool| pool.cidrs.push("fd00::/64".parse().unwrap()), "eu: a=family b=family c=family");
    check(|pool| pool.ports = "40000-40009".parse().unwrap(), "eu: a=port b=port c=port");
    check(|pool| pool.selector = "never".parse().unwrap(), "eu: a=selector b=selector c=selector");
}

#[test]
fn with_move_nobody_is_left_outside_once_all_have_moved() {
    let mut lab = lab();
    lab.edit_pool("eu", |pool| {
        pool.on_mismatch = OnMismatch::Move;
        pool.cidrs = vec!["10.1.0.0/24".parse().unwrap()];
    });
    assert_eq!(seen(&lab), ["eu: a=address b=address c=address"]);
    lab.run();
    assert_eq!(seen(&lab), [] as [&str; 0]);
}

#[test]
fn an_address_reserved_for_another_is_outside_and_ones_own_is_not() {
    let mut lab = lab();
    let (of_a, of_b) = (lab.addresses("a"), lab.addresses("b"));
    lab.edit_pool("eu", |pool| {
        pool.reserve = [(id("a"), vec![of_a.parse().unwrap()]), (id("other"), vec![of_b.parse().unwrap()])].into();
    });
    assert_eq!(seen(&lab), ["eu: b=address"]);
}
