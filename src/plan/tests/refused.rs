//! Ports that a host uses for something else.

use crate::model::assignment::Reason;
use crate::model::pool::Pool;
use crate::plan::change::Action;
use crate::plan::check::check;
use crate::plan::testing::lab::Lab;
use crate::plan::testing::make::*;

fn port(lab: &Lab, node: &str) -> u16 {
    *lab.assignment(node).bound().unwrap().ports.values().next().unwrap()
}

#[test]
fn a_refused_port_is_replaced_until_none_is_left_and_nobody_else_gets_it() {
    let mut lab = Lab::new([host("own", &[], "30000-30002")]);
    lab.join(label("a"));
    lab.run();
    let first = port(&lab, "a");
    lab.refuse("a", "192.0.2.1", first);
    assert_eq!(lab.run(), [(Action::Move, id("a"))]);
    let second = port(&lab, "a");
    assert_ne!(second, first);
    assert_eq!(lab.assignment("a").leaving, [], "a refused port is not in use: it is given up at once");
    assert_eq!(lab.claim(&format!("192.0.2.1/{first}")), Some("cooling a".into()));
    lab.all_coolings_end();
    lab.join(label("b"));
    lab.run();
    assert_ne!(port(&lab, "b"), first, "refused on this address, whoever asks");
    lab.join(label("c"));
    lab.run();
    assert_eq!(lab.reason("c"), Some(Reason::PortsFull));
    lab.refuse("a", "192.0.2.1", second);
    assert_eq!(lab.run(), [(Action::Wait, id("a"))]);
    assert_eq!(lab.reason("a"), Some(Reason::PortsFull));
    assert_eq!(check(&lab.snapshot), []);
    // The refusal ends: both are served.
    lab.status("a", |status| status.refused.clear());
    lab.all_coolings_end();
    lab.run();
    assert_eq!((lab.reason("a"), lab.reason("c")), (None, None));
}

#[test]
fn an_exclusive_node_keeps_its_address_and_does_not_hop_through_the_pool() {
    let mut lab = Lab::new([Pool { ports: "30000-30001".parse().unwrap(), ..pool("eu", &["10.0.0.0/24"]) }]);
    lab.join(label("a"));
    lab.run();
    let address = lab.addresses("a");
    let first = port(&lab, "a");
    lab.refuse("a", &address, first);
    lab.run();
    assert_eq!(lab.addresses("a"), address);
    let second = port(&lab, "a");
    lab.refuse("a", &address, second);
    assert_eq!(lab.run(), [(Action::Wait, id("a"))]);
    assert_eq!(lab.reason("a"), Some(Reason::PortsFull));
    assert_eq!(check(&lab.snapshot), []);
}

#[test]
fn a_shared_node_gets_a_port_on_another_address_when_none_is_left_on_its_own() {
    let mut lab = Lab::new([shared("sh", &["10.0.0.2/31"], "30000-30000")]);
    lab.join(label("a"));
    lab.run();
    let address = lab.addresses("a");
    lab.refuse("a", &address, 30000);
    assert_eq!(lab.run(), [(Action::Move, id("a"))]);
    assert_ne!(lab.addresses("a"), address);
    assert_eq!(lab.claim(&format!("{address}/30000")), Some("cooling a".into()));
    assert_eq!(check(&lab.snapshot), []);
}

#[test]
fn with_two_generations_leaving_a_refused_port_is_still_replaced_and_leaving_stays_bounded() {
    let mut lab = Lab::new([Pool { ports: "30000-30001".parse().unwrap(), ..pool("eu", &["10.0.0.0/28"]) }]);
    lab.join(label("a"));
    lab.run();
    for address in ["10.0.0.3", "10.0.0.4"] {
        lab.relabel(label_wanting("a", address));
        lab.run();
    }
    let first = port(&lab, "a");
    lab.refuse("a", "10.0.0.4", first);
    assert_eq!(lab.run(), [(Action::Move, id("a"))]);
    assert_eq!(lab.assignment("a").leaving.len(), 2);
    lab.refuse("a", "10.0.0.4", port(&lab, "a"));
    assert_eq!(lab.run(), [(Action::Wait, id("a"))], "it could not apply it, so it can be given up");
    assert_eq!(lab.assignment("a").leaving.len(), 2);
    assert_eq!(lab.claim("10.0.0.4"), Some("cooling a".into()));
    assert_eq!(check(&lab.snapshot), []);
}

#[test]
fn a_refusal_that_stands_at_an_address_sends_others_to_another_one() {
    let mut lab = Lab::new([Pool { ports: "8080".parse().unwrap(), ..pool("eu", &["10.0.0.2/31"]) }]);
    lab.join(label_wanting("a", "10.0.0.2"));
    lab.run();
    lab.refuse("a", "10.0.0.2", 8080);
    lab.run();
    lab.status("a", |status| status.generation = crate::model::names::Revision::NONE);
    let generation = lab.assignment("a").generation;
    lab.status("a", |status| status.generation = generation); // it withdrew; the refusal stands
    lab.run();
    lab.all_coolings_end();
    assert_eq!(lab.claim("10.0.0.2"), None);
    lab.join(label("b"));
    lab.join(label("c"));
    lab.run();
    assert_eq!(lab.addresses("b"), "10.0.0.3");
    assert!(lab.reason("c").is_some());
    lab.die("a");
    lab.run();
    assert_eq!(lab.addresses("c"), "10.0.0.2");
}

#[test]
fn what_another_host_refuses_takes_nothing_from_a_node_that_has_it() {
    let mut lab = Lab::new([host("own", &[], "30000-30005")]);
    lab.join(label("a"));
    lab.join(label("b"));
    lab.run();
    let port = port(&lab, "b");
    lab.refuse("a", "192.0.2.1", port); // it met b
    lab.acknowledge("b");
    lab.relabel(label_with_ports("b", &["main", "more"]));
    lab.run();
    assert!(lab.ports("b").starts_with(&format!("main={port},")));
}

#[test]
fn a_refusal_of_a_wanted_port_is_told_as_such() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/28"])]);
    let mut wanting = label("a");
    wanting.want.ports = [("main".parse().unwrap(), 30003)].into();
    lab.join(wanting);
    lab.run();
    let address = lab.addresses("a");
    lab.refuse("a", &address, 30003);
    lab.run();
    assert_eq!(lab.reason("a"), Some(Reason::PortTaken));
}

#[test]
fn a_node_that_is_away_refuses_nothing() {
    let mut lab = Lab::new([shared("sh", &["10.0.0.1/32"], "30000-30001")]);
    lab.join(label("a"));
    lab.run();
    lab.refuse("a", "10.0.0.1", 30000);
    lab.refuse("a", "10.0.0.1", 30001);
    lab.run();
    lab.join(label("b"));
    lab.run();
    assert_eq!(lab.reason("b"), Some(Reason::PortsFull));
    lab.leave("a");
    lab.run();
    lab.all_coolings_end();
    lab.run();
    assert_eq!(lab.reason("b"), None);
}
