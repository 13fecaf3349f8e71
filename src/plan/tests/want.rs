//! Certain addresses and ports, or nothing; reservations.

use crate::model::assignment::Reason;
use crate::model::label::{Label, Want};
use crate::model::pool::{OnMismatch, Pool};
use crate::plan::change::Action;
use crate::plan::testing::lab::Lab;
use crate::plan::testing::make::*;

fn reserved(name: &str, cidr: &str, node: &str, address: &str) -> Pool {
    Pool { reserve: [(id(node), vec![address.parse().unwrap()])].into(), ..pool(name, &[cidr]) }
}

#[test]
fn a_wanted_address_is_given_or_the_node_waits_with_the_reason() {
    let mut lab = Lab::new([reserved("eu", "10.0.0.0/28", "owner", "10.0.0.9")]);
    lab.join(label_wanting("inside", "10.0.0.3"));
    lab.run();
    assert_eq!(lab.addresses("inside"), "10.0.0.3");
    for (node, address, reason) in [
        ("taken", "10.0.0.3", Reason::AddressTaken),
        ("outside", "10.9.9.9", Reason::AddressOutside),
        ("network", "10.0.0.0", Reason::AddressOutside),
        ("other-family", "fd00::1", Reason::AddressOutside),
        ("reserved", "10.0.0.9", Reason::AddressReserved),
    ] {
        lab.join(label_wanting(node, address));
        lab.run();
        assert_eq!(lab.reason(node), Some(reason), "{node}");
    }
    // It is given as soon as it is to be had, and nobody gets it before.
    lab.leave("inside");
    lab.run();
    assert_eq!(lab.reason("taken"), Some(Reason::AddressTaken), "it cools for somebody else");
    lab.all_coolings_end();
    lab.run();
    assert_eq!(lab.addresses("taken"), "10.0.0.3");
}

#[test]
fn the_pool_that_has_the_wanted_address_is_found_whatever_its_priority() {
    let mut lab = Lab::new([Pool { priority: 9, ..pool("a", &["10.0.0.0/28"]) }, pool("b", &["10.1.0.0/28"])]);
    lab.join(label_wanting("n", "10.1.0.5"));
    lab.join(label_wanting("m", "10.1.0.5"));
    lab.run();
    assert_eq!(lab.addresses("n"), "10.1.0.5");
    assert_eq!(lab.reason("m"), Some(Reason::AddressTaken));
}

#[test]
fn a_wanted_port_is_given_or_the_node_waits() {
    let wanting = |node: &str, port: u16| Label {
        want: Want { addresses: Vec::new(), ports: [("http".parse().unwrap(), port)].into() },
        ..label_with_ports(node, &["http", "extra"])
    };
    let mut lab = Lab::new([shared("sh", &["10.0.0.1/32"], "30000-30005")]);
    lab.join(wanting("a", 30004));
    lab.join(wanting("b", 30004));
    lab.join(wanting("c", 8080));
    lab.run();
    assert!(lab.ports("a").ends_with("http=30004"));
    assert_eq!(lab.reason("b"), Some(Reason::PortTaken));
    assert_eq!(lab.reason("c"), Some(Reason::PortOutside));
}

#[test]
fn a_wanted_shared_port_is_looked_for_on_every_address() {
    let wanting = |node: &str| Label {
        want: Want { addresses: Vec::new(), ports: [("main".parse().unwrap(), 30004)].into() },
        ..label(node)
    };
    let mut lab = Lab::new([shared("sh", &["10.0.0.0/29"], "30000-30005")]);
    for n in 0..7 {
        lab.join(wanting(&format!("n{n}")));
    }
    lab.run();
    let addresses: std::collections::BTreeSet<String> = (0..6).map(|n| lab.addresses(&format!("n{n}"))).collect();
    assert_eq!(addresses.len(), 6);
    assert_eq!(lab.reason("n6"), Some(Reason::PortTaken));
}

#[test]
fn a_reserved_address_is_kept_for_its_node_in_every_pool_of_the_domain() {
    let mut lab = Lab::new([reserved("eu", "10.0.0.4/31", "owner", "10.0.0.4"), pool("overlap", &["10.0.0.4/31"])]);
    lab.join(label("a"));
    lab.join(label("b"));
    lab.run();
    assert_eq!(lab.addresses("a"), "10.0.0.5");
    assert_eq!(lab.reason("b"), Some(Reason::PoolFull));
    lab.join(label("owner"));
    lab.run();
    assert_eq!(lab.addresses("owner"), "10.0.0.4");
}

#[test]
fn a_reservation_over_another_holder_moves_nobody_until_he_leaves() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.4/30"])]);
    lab.join(label_wanting("holder", "10.0.0.5"));
    lab.run();
    lab.join(label("owner"));
    lab.run();
    assert_eq!(lab.addresses("owner"), "10.0.0.6");
    lab.edit_pool("eu", |pool| pool.reserve = [(id("owner"), vec!["10.0.0.5".parse().unwrap()])].into());
    assert_eq!(lab.run(), []);
    assert_eq!(lab.findings("reservation-held").len(), 1);
    lab.leave("holder");
    lab.run();
    lab.all_coolings_end();
    assert_eq!(lab.run(), [], "the owner's assignment still serves him; he gets it when he asks next");
    assert_eq!(lab.findings("reservation-held").len(), 0);
    lab.acknowledge("owner");
    lab.relabel(label_with_ports("owner", &["main", "more"]));
    assert_eq!(lab.run(), [(Action::Move, id("owner"))]);
    assert_eq!(lab.addresses("owner"), "10.0.0.5");
}

#[test]
fn with_on_mismatch_move_a_reservation_takes_effect_at_once() {
    let mut lab = Lab::new([Pool { on_mismatch: OnMismatch::Move, ..pool("eu", &["10.0.0.0/28"]) }]);
    lab.join(label_wanting("holder", "10.0.0.5"));
    lab.run();
    lab.relabel(label("holder"));
    lab.join(label("owner"));
    lab.run();
    lab.acknowledge("holder");
    lab.acknowledge("owner");
    lab.edit_pool("eu", |pool| pool.reserve = [(id("owner"), vec!["10.0.0.5".parse().unwrap()])].into());
    assert_eq!(lab.run(), [(Action::Move, id("holder"))]);
    lab.acknowledge("holder");
    lab.run();
    assert_eq!(lab.claim("10.0.0.5"), Some("cooling holder".into()));
    lab.all_coolings_end();
    assert_eq!(lab.run(), [(Action::Move, id("owner"))]);
    assert_eq!(lab.addresses("owner"), "10.0.0.5");
}

#[test]
fn reservations_that_cannot_be_kept_are_findings() {
    let mut lab = Lab::new([
        Pool { exclude: vec!["10.0.0.9/32".parse().unwrap()], ..reserved("eu", "10.0.0.0/28", "a", "10.0.0.9") },
        reserved("us", "10.0.0.0/28", "b", "10.0.0.3"),
        reserved("zz", "10.0.0.0/28", "c", "10.0.0.3"),
    ]);
    assert_eq!(lab.findings("reservation-outside").len(), 1);
    assert_eq!(lab.findings("reservation-twice").len(), 1);
    lab.join(label("a"));
    lab.join(label("c"));
    lab.run();
    assert_ne!(lab.addresses("a"), "10.0.0.9");
    assert_ne!(lab.addresses("c"), "10.0.0.3");
}
