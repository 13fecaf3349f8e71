//! The store forgot: it was emptied or restored under a running fleet.

use crate::model::label::{Holding, Label};
use crate::model::lineage::{Chain, Mark, Nonce};
use crate::model::names::Revision;
use crate::model::pool::Pool;
use crate::plan::change::Action;
use crate::plan::check::check;
use crate::plan::snapshot::{Snapshot, Stored};
use crate::plan::testing::lab::Lab;
use crate::plan::testing::make::*;

fn holding(node: &str, generation: i64, address: &str, port: u16) -> Label {
    let holding = Holding {
        generation: Revision(generation),
        addresses: vec![address.parse().unwrap()],
        ports: [("main".parse().unwrap(), port)].into(),
        mark: None,
    };
    Label { holding: Some(Box::new(holding)), ..label(node) }
}

/// What a node has, as its agent would hold it.
fn held_by(lab: &Lab, node: &str) -> Label {
    let assignment = lab.assignment(node);
    let bound = assignment.bound().unwrap();
    let holding = Holding {
        generation: assignment.generation,
        addresses: bound.addresses.clone(),
        ports: bound.ports.clone(),
        mark: assignment.mark,
    };
    Label { holding: Some(Box::new(holding)), ..label(node) }
}

#[test]
fn an_emptied_store_is_put_right_by_the_fleet() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/24"])]);
    for n in 0..20 {
        lab.join(label(&format!("n{n}")));
    }
    lab.run();
    let held: Vec<Label> = (0..20).map(|n| held_by(&lab, &format!("n{n}"))).collect();
    let pools = lab.snapshot.pools.clone();
    lab.snapshot = Snapshot { pools, revision: Revision(3), ..Snapshot::default() };
    lab.pass.held_only = true;
    // A newcomer waits unanswered until what is in use was asked back.
    lab.join(label("newcomer"));
    assert_eq!(lab.run(), []);
    for label in &held {
        lab.join(label.clone());
        lab.run();
    }
    for label in &held {
        let address = label.holding.as_ref().unwrap().addresses[0].to_string();
        assert_eq!(lab.addresses(label.id.as_str()), address);
    }
    lab.pass.held_only = false;
    assert_eq!(lab.run(), [(Action::Assign, id("newcomer"))]);
    assert_eq!(check(&lab.snapshot), []);
}

#[test]
fn two_nodes_that_swapped_since_the_backup_swap_again() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.2/31"])]);
    lab.join(label_wanting("a", "10.0.0.2"));
    lab.join(label_wanting("b", "10.0.0.3"));
    lab.run();
    let port = |lab: &Lab, node: &str| *lab.assignment(node).bound().unwrap().ports.values().next().unwrap();
    let (a, b) = (holding("a", 500, "10.0.0.3", port(&lab, "a")), holding("b", 501, "10.0.0.2", port(&lab, "b")));
    lab.join(a);
    lab.join(b);
    let plan = lab.step();
    assert!(plan.changes.iter().all(|change| change.action == Action::Void), "{plan:#?}");
    assert!(lab.snapshot.claims.is_empty(), "given up without cooling");
    lab.run();
    assert_eq!((lab.addresses("a"), lab.addresses("b")), ("10.0.0.3".into(), "10.0.0.2".into()));
    assert_eq!(check(&lab.snapshot), []);
}

/// The revisions were raised by the restore, and the node got an answer before it could say what it uses.
#[test]
fn a_lost_mark_counts_although_the_answer_is_newer() {
    let chain = Chain::default().begin(Nonce(1)).count(3);
    let lab = |count: u64| {
        let mut lab = Lab::new([pool("eu", &["10.0.0.2/31"])]);
        let value = Ok(chain.clone());
        lab.snapshot.lineage = Some(Stored { value, create_revision: Revision(1), mod_revision: Revision(1), leased: false });
        lab.snapshot.revision = Revision(1_000_000);
        lab.join(label_wanting("a", "10.0.0.2"));
        lab.run();
        let mut held = holding("a", 500, "10.0.0.3", 30000);
        held.holding.as_mut().unwrap().mark = Some(Mark { seq: 1, nonce: Nonce(1), count });
        lab.join(held);
        lab
    };
    let (mut lost, mut known) = (lab(4), lab(2));
    assert_eq!(lost.plan().lost.len(), 1);
    assert_eq!(known.plan().lost, []);
    lost.run();
    known.run();
    assert_eq!((lost.addresses("a"), known.addresses("a")), ("10.0.0.3".into(), "10.0.0.2".into()));
    assert_eq!(lost.plan().lost, [], "it was answered");
}

#[test]
fn what_a_voided_node_will_claim_is_given_to_nobody_meanwhile() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.2/31"])]);
    lab.join(label_wanting("a", "10.0.0.2"));
    lab.run();
    lab.join(holding("a", 500, "10.0.0.3", 30000));
    lab.join(label("b"));
    lab.step();
    assert!(lab.snapshot.nodes[&id("b")].assignment.as_ref().unwrap().ok().unwrap().bound().is_none());
    lab.run();
    assert_eq!(lab.addresses("a"), "10.0.0.3");
    assert_eq!(lab.addresses("b"), "10.0.0.2");
}

#[test]
fn a_silent_owner_of_an_earlier_generation_loses_it_and_any_other_keeps_it() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.1/32"])]);
    lab.join(label("ghost"));
    lab.run();
    let generation = lab.assignment("ghost").generation.0;
    // Live: he keeps it.
    lab.join(holding("a", generation + 100, "10.0.0.1", 30000));
    lab.run();
    assert!(lab.reason("a").is_some());
    assert_eq!(lab.claim("10.0.0.1"), Some("bound ghost".into()));
    // Silent, but of a later generation: he keeps it for his hold.
    let mut later = lab.clone();
    later.join(holding("a", generation - 1, "10.0.0.1", 30000));
    later.die("ghost");
    later.run();
    assert_eq!(later.claim("10.0.0.1"), Some("bound ghost".into()));
    // Silent, of an earlier one: he loses it.
    let mut lab = Lab::new([pool("eu", &["10.0.0.1/32"])]);
    lab.join(label("ghost"));
    lab.run();
    lab.die("ghost");
    lab.run();
    lab.join(holding("a", generation + 100, "10.0.0.1", 30000));
    let plan = lab.step();
    assert_eq!(plan.changes.iter().map(|change| change.action).collect::<Vec<_>>(), [Action::Release]);
    lab.run();
    assert_eq!(lab.addresses("a"), "10.0.0.1");
    assert!(lab.has_no_answer("ghost"));
    assert!(lab.record("ghost").label.is_some());
    assert_eq!(check(&lab.snapshot), []);
}

#[test]
fn what_cooled_before_the_holder_got_it_is_given_back_to_the_holder() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.1/32"])]);
    lab.join(label("former"));
    lab.run();
    lab.leave("former");
    lab.run();
    assert_eq!(lab.claim("10.0.0.1"), Some("cooling former".into()));
    let cooling = lab.snapshot.claims[&key("10.0.0.1")].mod_revision.0;
    let mut older = lab.clone();
    older.join(holding("a", cooling - 1, "10.0.0.1", 30000));
    older.run();
    assert!(older.reason("a").is_some(), "he was away too long: it has been another's since");
    lab.join(holding("a", cooling + 1, "10.0.0.1", 30000));
    lab.run();
    assert_eq!(lab.addresses("a"), "10.0.0.1");
}

#[test]
fn a_store_that_is_newer_than_what_is_held_keeps_its_word() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/28"])]);
    lab.join(label_wanting("a", "10.0.0.5"));
    lab.run();
    lab.join(holding("a", 1, "10.0.0.9", 30000));
    assert_eq!(lab.run(), [(Action::Refresh, id("a"))]);
    assert_eq!(lab.addresses("a"), "10.0.0.5");
}

#[test]
fn an_answered_holding_is_not_asked_back_again() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/28"])]);
    lab.join(holding("a", 500, "10.0.0.9", 30007));
    lab.run();
    assert_eq!((lab.addresses("a"), lab.ports("a")), ("10.0.0.9".into(), "main=30007".into()));
    assert_eq!(lab.run(), []);
    // The label says the same after a restart of the agent.
    lab.die("a");
    lab.join(holding("a", 500, "10.0.0.9", 30007));
    assert_eq!(lab.run(), []);
}

#[test]
fn what_the_rules_do_not_allow_any_more_is_not_given_back() {
    let mut lab = Lab::new([Pool { exclude: vec!["10.0.0.9/32".parse().unwrap()], ..pool("eu", &["10.0.0.0/28"]) }]);
    lab.join(holding("a", 500, "10.0.0.9", 30000));
    lab.pass.held_only = true;
    assert_eq!(lab.run(), []);
    lab.pass.held_only = false;
    lab.run();
    assert_ne!(lab.addresses("a"), "10.0.0.9");
}

#[test]
fn shared_ports_are_given_back_too() {
    let mut lab = Lab::new([shared("sh", &["10.0.0.1/32"], "30000-30003")]);
    lab.join(holding("a", 500, "10.0.0.1", 30002));
    lab.join(holding("b", 501, "10.0.0.1", 30003));
    lab.join(label("c"));
    lab.pass.held_only = true;
    lab.run();
    assert_eq!((lab.ports("a"), lab.ports("b")), ("main=30002".into(), "main=30003".into()));
    assert!(lab.has_no_answer("c"));
}

#[test]
fn of_two_that_hold_one_address_the_later_generation_has_it() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/28"])]);
    lab.join(holding("a", 500, "10.0.0.9", 30000));
    lab.join(holding("b", 600, "10.0.0.9", 30000));
    lab.run();
    assert_eq!(lab.addresses("b"), "10.0.0.9");
    assert_ne!(lab.addresses("a"), "10.0.0.9");
}

#[test]
fn while_others_may_still_use_them_no_shared_port_is_given_that_was_not_held() {
    let mut lab = Lab::new([shared("sh", &["10.0.0.1/32"], "30000-30001")]);
    // The backup says that the port is a live node's, who was told so after the holder had it.
    lab.join(label("b"));
    lab.run();
    let port: u16 = lab.ports("b").trim_start_matches("main=").parse().unwrap();
    lab.pass.held_only = true;
    lab.join(holding("a", 500, "10.0.0.1", port));
    lab.run();
    // The other port is free in the store, but whoever uses it may not have asked it back yet.
    assert!(lab.has_no_answer("a"), "{:?}", lab.assignment("a"));
    // Nor does one come with the ports that are held.
    lab.join(Label {
        ports: vec!["main".parse().unwrap(), "more".parse().unwrap()],
        ..holding("c", 501, "10.0.0.1", 30001 - (port - 30000))
    });
    lab.run();
    assert!(lab.has_no_answer("c"), "{:?}", lab.assignment("c"));
    lab.pass.held_only = false;
    lab.run();
    assert!(lab.snapshot.nodes.values().all(|record| record.assignment.is_some()));
}
