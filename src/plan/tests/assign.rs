//! First answers: what is given, what is never given, what a full pool says.

use std::collections::BTreeSet;

use crate::model::assignment::Reason;
use crate::model::pool::Pool;
use crate::plan::change::Action;
use crate::plan::check::check;
use crate::plan::testing::lab::Lab;
use crate::plan::testing::make::*;

fn join(lab: &mut Lab, count: usize) {
    for n in 0..count {
        lab.join(label(&format!("node-{n}")));
    }
}

fn bound(lab: &Lab, count: usize) -> Vec<String> {
    (0..count).map(|n| lab.addresses(&format!("node-{n}"))).collect()
}

#[test]
fn every_address_of_a_24_is_given_once_then_it_is_full_and_a_release_serves_the_next() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/24"])]);
    join(&mut lab, 300);
    lab.run();
    let bound = bound(&lab, 254);
    let distinct: BTreeSet<&String> = bound.iter().collect();
    assert_eq!(distinct.len(), 254);
    assert!(!distinct.contains(&"10.0.0.0".to_string()) && !distinct.contains(&"10.0.0.255".to_string()));
    for n in 254..300 {
        assert_eq!(lab.reason(&format!("node-{n}")), Some(Reason::PoolFull));
    }
    let freed = lab.addresses("node-17");
    lab.leave("node-17");
    assert_eq!(lab.run(), [(Action::Release, id("node-17"))]);
    assert_eq!(lab.claim(&freed), Some("cooling node-17".into()));
    lab.cooling_ends(&freed);
    assert_eq!(lab.run(), [(Action::Assign, id("node-254"))]);
    assert_eq!(lab.addresses("node-254"), freed);
    assert_eq!(check(&lab.snapshot), []);
}

#[test]
fn the_smallest_prefixes_are_defined() {
    for (cidr, given) in [
        ("10.0.0.7/32", vec!["10.0.0.7"]),
        ("10.0.0.6/31", vec!["10.0.0.6", "10.0.0.7"]),
        ("10.0.0.4/30", vec!["10.0.0.5", "10.0.0.6"]),
        ("255.255.255.254/31", vec!["255.255.255.254"]),
        ("fd00::ff/128", vec!["fd00::ff"]),
        ("fd00::fe/127", vec!["fd00::fe", "fd00::ff"]),
        // Leading zero bytes, and the last addresses before multicast.
        ("::4/126", vec!["::5", "::6", "::7"]),
        (
            "feff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127",
            vec!["feff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
        ),
    ] {
        let mut lab = Lab::new([pool("eu", &[cidr])]);
        join(&mut lab, given.len() + 1);
        lab.run();
        let mut bound = bound(&lab, given.len());
        bound.sort();
        assert_eq!(bound, given, "{cidr}");
        assert_eq!(lab.reason(&format!("node-{}", given.len())), Some(Reason::PoolFull), "{cidr}");
    }
}

#[test]
fn the_64_bit_edge_of_ipv6_is_nothing_special() {
    // fd00:0:0:0:ffff:ffff:ffff:fffe to fd00:0:0:1::1 lie on both sides of the 64-bit edge.
    let mut lab = Lab::new([pool("eu", &["fd00::ffff:ffff:ffff:fffe/127", "fd00:0:0:1::/127"])]);
    join(&mut lab, 5);
    lab.run();
    let bound: BTreeSet<String> = bound(&lab, 4).into_iter().collect();
    let expected = ["fd00:0:0:1::", "fd00:0:0:1::1", "fd00::ffff:ffff:ffff:fffe", "fd00::ffff:ffff:ffff:ffff"];
    assert_eq!(bound, expected.map(String::from).into());
    assert_eq!(lab.reason("node-4"), Some(Reason::PoolFull));
}

#[test]
fn lowest_and_highest_port_are_both_given_and_one_port_is_enough() {
    let mut lab = Lab::new([shared("sh", &["10.0.0.1/32"], "65534-65535")]);
    join(&mut lab, 3);
    lab.run();
    let ports: BTreeSet<String> = [0, 1].map(|n| lab.ports(&format!("node-{n}"))).into();
    assert_eq!(ports, ["main=65534", "main=65535"].map(String::from).into());
    assert_eq!(lab.reason("node-2"), Some(Reason::PortsFull));

    let mut lab = Lab::new([shared("sh", &["10.0.0.1/32"], "1")]);
    join(&mut lab, 2);
    lab.run();
    assert_eq!(lab.ports("node-0"), "main=1");
    assert_eq!(lab.reason("node-1"), Some(Reason::PortsFull));
}

#[test]
fn an_answer_that_is_valid_needs_no_change() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/24", "fd00::/64"])]);
    lab.join(label("a"));
    assert_eq!(lab.run(), [(Action::Assign, id("a"))]);
    let before = lab.assignment("a").clone();
    lab.die("a");
    lab.join(label("a"));
    assert_eq!(lab.run(), []);
    assert_eq!(lab.assignment("a"), &before);
    assert_eq!(before.bound().unwrap().addresses.len(), 2);
}

#[test]
fn exclusions_in_any_order_nested_and_overlapping_are_never_given() {
    let exclude = ["10.0.0.8/30", "10.0.0.0/29", "10.0.0.5/32", "10.0.0.4/30", "10.0.0.14/32"];
    let exclude = exclude.iter().map(|net| net.parse().unwrap()).collect();
    let mut lab = Lab::new([Pool { exclude, ..pool("eu", &["10.0.0.0/28"]) }]);
    join(&mut lab, 3);
    lab.run();
    let bound: BTreeSet<String> = bound(&lab, 2).into_iter().collect();
    assert_eq!(bound, ["10.0.0.12", "10.0.0.13"].map(String::from).into());
    assert_eq!(lab.reason("node-2"), Some(Reason::PoolFull));
}

#[test]
fn a_huge_ipv6_exclusion_is_skipped_in_one_step() {
    let exclude =
        vec!["fd00::/65".parse().unwrap(), "fd00::8000:0:0:0/66".parse().unwrap(), "fd00::c000:0:0:0/67".parse().unwrap()];
    let mut lab = Lab::new([Pool { exclude, ..pool("eu", &["fd00::/64"]) }]);
    join(&mut lab, 50);
    lab.run();
    for address in bound(&lab, 50) {
        let address: std::net::Ipv6Addr = address.parse().unwrap();
        assert!(u128::from(address) as u64 >= 0xe000_0000_0000_0000, "{address}");
    }
}

#[test]
fn two_ports_of_one_node_are_never_equal_and_ports_are_per_address() {
    let mut lab = Lab::new([shared("sh", &["10.0.0.0/30"], "30000-30003")]);
    for n in 0..4 {
        lab.join(label_with_ports(&format!("node-{n}"), &["a", "b"]));
    }
    lab.run();
    let all: BTreeSet<(String, u16)> = (0..4)
        .flat_map(|n| {
            let node = format!("node-{n}");
            let ports = lab.assignment(&node).bound().unwrap().ports.clone();
            ports.values().map(|port| (lab.addresses(&node), *port)).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(all.len(), 8, "two addresses of four ports each");
    assert_eq!(check(&lab.snapshot), []);
}

#[test]
fn shared_addresses_are_never_network_or_broadcast() {
    let mut lab = Lab::new([shared("sh", &["10.0.0.0/30"], "30000-30000")]);
    join(&mut lab, 3);
    lab.run();
    let bound: BTreeSet<String> = bound(&lab, 2).into_iter().collect();
    assert_eq!(bound, ["10.0.0.1", "10.0.0.2"].map(String::from).into());
}

#[test]
fn a_hundred_nodes_and_exactly_a_hundred_addresses() {
    let cidrs = ["10.0.0.0/26", "10.0.1.0/27", "10.0.2.0/29", "10.0.3.0/31"]; // 62 + 30 + 6 + 2
    let mut lab = Lab::new([pool("eu", &cidrs)]);
    join(&mut lab, 100);
    lab.run();
    assert_eq!(bound(&lab, 100).into_iter().collect::<BTreeSet<_>>().len(), 100);
}

#[test]
fn waiting_nodes_are_served_in_the_order_of_their_labels_and_an_unservable_one_blocks_nobody() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.1/32"])]);
    lab.join(label("holder"));
    lab.run();
    lab.join(label_wanting("z-unservable", "192.0.2.99"));
    lab.join(label("y-first"));
    lab.join(label("a-second"));
    lab.run();
    assert_eq!(lab.reason("z-unservable"), Some(Reason::AddressOutside));
    assert_eq!(lab.reason("y-first"), Some(Reason::PoolFull));
    // A new run of the first rewrites its label: it keeps its place.
    lab.join(crate::model::label::Label { run: "run-2".parse().unwrap(), ..label("y-first") });
    lab.leave("holder");
    lab.run();
    lab.all_coolings_end();
    assert_eq!(lab.run(), [(Action::Assign, id("y-first"))]);
    assert_eq!(lab.reason("y-first"), None);
    // A larger pool wakes all that fit.
    lab.edit_pool("eu", |pool| pool.cidrs.push("10.0.1.0/24".parse().unwrap()));
    assert_eq!(lab.run(), [(Action::Assign, id("a-second"))]);
}

#[test]
fn a_dead_waiter_does_not_stand_before_a_live_one() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.1/32"])]);
    lab.join(label("holder"));
    lab.run();
    lab.join(label("dead"));
    lab.join(label("live"));
    lab.run();
    lab.die("dead");
    lab.leave("holder");
    lab.run();
    lab.all_coolings_end();
    assert!(lab.run().contains(&(Action::Assign, id("live"))));
}

#[test]
fn the_second_pool_serves_at_once_when_the_first_is_full() {
    let first = Pool { priority: 5, ..pool("zz-first", &["10.0.0.1/32"]) };
    let mut lab = Lab::new([first, pool("aa-second", &["10.1.0.1/32"])]);
    join(&mut lab, 3);
    let plan = lab.step();
    assert_eq!(plan.changes.len(), 3);
    assert_eq!(bound(&lab, 2), ["10.0.0.1", "10.1.0.1"]);
    assert_eq!(lab.reason("node-2"), Some(Reason::PoolFull));
}

#[test]
fn overlapping_pools_give_an_address_once() {
    let mut lab = Lab::new([Pool { priority: 1, ..pool("a", &["10.0.0.0/30"]) }, pool("b", &["10.0.0.0/29"])]);
    join(&mut lab, 7);
    lab.run();
    assert_eq!(bound(&lab, 6).into_iter().collect::<BTreeSet<_>>().len(), 6);
    assert_eq!(lab.reason("node-6"), Some(Reason::PoolFull));
    assert_eq!(check(&lab.snapshot), []);
}

#[test]
fn the_same_address_exists_once_in_each_domain() {
    let mut lab =
        Lab::new([pool("a", &["10.0.0.1/32"]), Pool { domain: "other".parse().unwrap(), ..pool("b", &["10.0.0.1/32"]) }]);
    join(&mut lab, 3);
    lab.run();
    assert_eq!(bound(&lab, 2), ["10.0.0.1", "10.0.0.1"]);
    assert_eq!(lab.reason("node-2"), Some(Reason::PoolFull));
    assert_eq!(check(&lab.snapshot), []);
}

#[test]
fn two_families_are_given_both_or_neither_and_nothing_is_left_behind() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/24", "fd00::1/128"])]);
    join(&mut lab, 100);
    lab.run();
    assert_eq!(lab.addresses("node-0").split(',').count(), 2);
    for n in 1..100 {
        assert_eq!(lab.reason(&format!("node-{n}")), Some(Reason::PoolFull));
    }
    assert_eq!(lab.snapshot.claims.len(), 4, "two addresses, a port on each");
}

#[test]
fn a_shared_pool_serves_only_labels_that_ask_for_a_port() {
    let mut lab = Lab::new([shared("sh", &["10.0.0.0/24"], "30000-30009")]);
    lab.join(label_with_ports("a", &[]));
    lab.run();
    assert_eq!(lab.reason("a"), Some(Reason::NoPorts));
}

#[test]
fn a_host_pool_gives_the_hosts_own_address_within_its_prefixes() {
    let mut lab = Lab::new([host("own", &["192.0.2.0/25"], "30000-30001")]);
    let at =
        |node: &str, ip: &str| crate::model::label::Label { temporary: format!("{ip}:4000").parse().unwrap(), ..label(node) };
    lab.join(at("a", "192.0.2.1"));
    lab.join(at("b", "192.0.2.1"));
    lab.join(at("c", "192.0.2.1"));
    lab.join(at("d", "192.0.2.200"));
    lab.run();
    assert_eq!((lab.addresses("a"), lab.addresses("b")), ("192.0.2.1".into(), "192.0.2.1".into()));
    assert_ne!(lab.ports("a"), lab.ports("b"));
    assert_eq!(lab.reason("c"), Some(Reason::PortsFull));
    assert_eq!(lab.reason("d"), Some(Reason::AddressOutside));
    // Its host gets another address: the old one is not its any more.
    lab.acknowledge("a");
    lab.relabel(at("a", "192.0.2.7"));
    assert_eq!(lab.run(), [(Action::Move, id("a"))]);
    assert_eq!(lab.addresses("a"), "192.0.2.7");
}

#[test]
fn no_pool_and_only_broken_pools_are_told_apart() {
    let mut lab = Lab::new([Pool { selector: "never".parse().unwrap(), ..pool("eu", &["10.0.0.0/24"]) }]);
    lab.join(label("a"));
    lab.run();
    assert_eq!(lab.reason("a"), Some(Reason::NoPoolMatches));
    let mut stored = lab.snapshot.pools[&"eu".parse().unwrap()].clone();
    stored.value = Err(crate::plan::snapshot::Unreadable::Invalid("selector: nonsense".into()));
    lab.snapshot.pools.insert("eu".parse().unwrap(), stored);
    lab.run();
    assert_eq!(lab.reason("a"), Some(Reason::PoolInvalid), "an unreadable selector is never \"all\"");
    assert_eq!(lab.findings("pool-unreadable").len(), 1);
}

#[test]
fn a_label_that_breaks_a_rule_waits_and_the_others_do_not_care() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/24"])]);
    let ports: Vec<String> = (0..17).map(|n| format!("p{n}")).collect();
    lab.join(label_with_ports("greedy", &ports.iter().map(String::as_str).collect::<Vec<_>>()));
    join(&mut lab, 3);
    lab.run();
    assert_eq!(lab.reason("greedy"), Some(Reason::LabelInvalid));
    assert_eq!(bound(&lab, 3).len(), 3);
    assert_eq!(lab.findings("label-invalid").len(), 1);
    // A faulty label that somebody writes later takes nothing away.
    lab.relabel(label_with_ports("node-1", &["a", "a"]));
    assert_eq!(lab.run(), []);
    assert_eq!(lab.reason("node-1"), None);
}

#[test]
fn addresses_that_no_node_can_have_are_never_given() {
    // A pool stored by hand, or before there was a rule: what nobody can have is left out, the rest is given.
    let check = |cidr: &str, given: &[&str]| {
        let mut lab = Lab::new([pool("eu", &[cidr])]);
        let nodes: Vec<String> = (0..given.len() + 1).map(|n| format!("node-{n}")).collect();
        nodes.iter().for_each(|node| lab.join(label(node)));
        lab.run();
        let bound = nodes.iter().filter(|node| lab.reason(node).is_none());
        let mut addresses: Vec<String> = bound.map(|node| lab.addresses(node)).collect();
        addresses.sort();
        assert_eq!(addresses, given, "{cidr}");
    };
    check("fd00::/126", &["fd00::1", "fd00::2", "fd00::3"]);
    check("fd00::2/127", &["fd00::2", "fd00::3"]);
    check("fd00::/128", &["fd00::"]);
    check("::/126", &["::1", "::2", "::3"]);
    check("223.255.255.255/32", &["223.255.255.255"]);
    check("224.0.0.0/31", &[]);
    check("255.255.255.254/31", &["255.255.255.254"]);
    check("ff02::/126", &[]);
}
