//! Plans that come late: what the compares are there for. Each test plans, lets something happen, and then applies.

use crate::model::label::Label;
use crate::plan::change::{Action, Plan};
use crate::plan::check::check;
use crate::plan::testing::apply::apply;
use crate::plan::testing::lab::Lab;
use crate::plan::testing::make::*;

/// Applies a late plan: how many of its changes stood.
fn late(lab: &mut Lab, plan: &Plan) -> usize {
    let (next, lost) = apply(&lab.snapshot, plan);
    lab.snapshot = next;
    assert_eq!(check(&lab.snapshot), []);
    plan.changes.len() - lost.len()
}

#[test]
fn a_lost_claim_costs_one_node_of_a_hundred() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/24"])]);
    for n in 0..100 {
        lab.join(label(&format!("n{n}")));
    }
    let plan = lab.plan();
    let stolen = match &plan.changes[50].writes[0] {
        crate::plan::change::Write::Bind(key, _) => key.ip.to_string(),
        other => panic!("{other:?}"),
    };
    lab.put_claim(&stolen, "thief");
    let (next, lost) = apply(&lab.snapshot, &plan);
    lab.snapshot = next;
    assert_eq!(lost.len(), 1);
    lab.run();
    assert!((0..100).all(|n| lab.reason(&format!("n{n}")).is_none()));
    assert_eq!(check(&lab.snapshot), []);
}

#[test]
fn a_plan_that_is_applied_twice_changes_nothing_the_second_time() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/24"])]);
    lab.join(label("a"));
    let plan = lab.plan();
    assert_eq!(late(&mut lab, &plan), 1);
    let before = lab.assignment("a").clone();
    assert_eq!(late(&mut lab, &plan), 0);
    assert_eq!(lab.assignment("a"), &before);
    assert_eq!(lab.run(), []);
}

#[test]
fn a_label_deleted_between_decision_and_commit_leaves_no_assignment() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/24"])]);
    lab.join(label("a"));
    let plan = lab.plan();
    lab.edit("a", |record, _| record.label = None);
    assert_eq!(late(&mut lab, &plan), 0);
    assert!(lab.snapshot.claims.is_empty());
}

#[test]
fn a_status_that_expires_and_an_id_that_another_host_takes_refuse_the_answer() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/24"])]);
    lab.join(label("a"));
    let plan = lab.plan();
    lab.die("a");
    assert_eq!(late(&mut lab.clone(), &plan), 0);
    // The same label, so that only the status tells.
    lab.join(label("a"));
    assert_eq!(late(&mut lab, &plan), 0);
}

#[test]
fn a_heartbeat_or_a_phase_does_not_defeat_an_answer() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/24"])]);
    lab.join(label("a"));
    let plan = lab.plan();
    lab.status("a", |status| status.message = "still here".into());
    assert_eq!(late(&mut lab, &plan), 1);
}

#[test]
fn a_release_on_its_way_loses_against_a_join() {
    for left in [true, false] {
        let mut lab = Lab::new([pool("eu", &["10.0.0.0/24"])]);
        lab.join(label("a"));
        lab.run();
        let before = lab.assignment("a").clone();
        if left {
            lab.leave("a");
        } else {
            lab.die("a");
            lab.run();
            lab.clock_ends("a");
        }
        let plan = lab.plan();
        assert_eq!(plan.changes[0].action, Action::Release);
        lab.join(label("a"));
        assert_eq!(late(&mut lab, &plan), 0);
        assert_eq!(lab.run(), []);
        assert_eq!(lab.assignment("a"), &before);
        // It leaves and joins at once: the same.
        lab.leave("a");
        lab.join(label("a"));
        assert_eq!(late(&mut lab, &plan), 0);
        assert_eq!(lab.assignment("a"), &before);
    }
}

#[test]
fn a_release_of_the_first_owner_is_refused_once_the_address_is_anothers() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.1/32"])]);
    lab.join(label("a"));
    lab.run();
    lab.leave("a");
    let plan = lab.plan();
    lab.run();
    lab.all_coolings_end();
    lab.join(label("b"));
    lab.run();
    lab.join(label("a"));
    assert_eq!(late(&mut lab, &plan), 0);
    assert_eq!(lab.claim("10.0.0.1"), Some("bound b".into()));
}

#[test]
fn one_address_whole_and_a_port_of_it_never_both_succeed() {
    // Two plans on one state: one of a leader that sees the exclusive pool, one of another that sees the shared one.
    let mut whole = Lab::new([pool("p", &["10.0.0.1/32"])]);
    let mut by_port = Lab::new([shared("p", &["10.0.0.1/32"], "30000-30009")]);
    for lab in [&mut whole, &mut by_port] {
        lab.join(label("a"));
        lab.join(label("b"));
    }
    let (mut whole_plan, mut port_plan) = (whole.plan(), by_port.plan());
    whole_plan.changes.retain(|change| change.node == id("a"));
    port_plan.changes.retain(|change| change.node == id("b"));
    let mut lab = whole.clone();
    assert_eq!(late(&mut lab, &whole_plan), 1);
    assert_eq!(late(&mut lab, &port_plan), 0);
    let mut lab = by_port.clone();
    assert_eq!(late(&mut lab, &port_plan), 1);
    assert_eq!(late(&mut lab, &whole_plan), 0);
}

#[test]
fn one_port_is_given_once_whoever_plans() {
    let mut lab = Lab::new([shared("sh", &["10.0.0.1/32"], "30000-30000")]);
    lab.join(label("a"));
    let first = lab.plan();
    let mut other = lab.clone();
    other.die("a");
    other.join(label("b"));
    let mut second = other.plan();
    second.changes.retain(|change| change.node == id("b"));
    lab.join(label("b"));
    // The same revisions for b in both stores.
    lab.snapshot.nodes.insert(id("b"), other.record("b").clone());
    assert_eq!(late(&mut lab, &first), 1);
    assert_eq!(late(&mut lab, &second), 0);
}

#[test]
fn a_cooling_address_taken_back_and_an_address_given_on_race_and_one_wins() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.1/32"])]);
    lab.join(label("a"));
    lab.run();
    lab.stop("a");
    lab.run();
    lab.clock_ends("a");
    lab.run();
    lab.join(label("a"));
    let back = lab.plan();
    assert_eq!(back.changes[0].action, Action::Assign);
    lab.cooling_ends("10.0.0.1");
    assert_eq!(late(&mut lab, &back), 0, "the cooling claim that was seen is gone");
    lab.run();
    assert_eq!(lab.addresses("a"), "10.0.0.1");
}

#[test]
fn a_settlement_rests_on_the_words_of_the_status() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/28"])]);
    lab.join(label("a"));
    lab.run();
    lab.relabel(label_wanting("a", "10.0.0.3"));
    lab.run();
    lab.acknowledge("a");
    let plan = lab.plan();
    assert_eq!(plan.changes[0].action, Action::Settle);
    lab.status("a", |status| status.phase = crate::model::status::Phase::Failed);
    assert_eq!(late(&mut lab, &plan), 0);
}

#[test]
fn another_port_for_a_refused_one_rests_on_the_refusal() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/28"])]);
    lab.join(label("a"));
    lab.run();
    let address = lab.addresses("a");
    let port = *lab.assignment("a").bound().unwrap().ports.values().next().unwrap();
    lab.refuse("a", &address, port);
    let plan = lab.plan();
    lab.acknowledge("a"); // it could bind it after all, and uses it
    assert_eq!(late(&mut lab, &plan), 0);
    assert_eq!(lab.run(), []);
}

#[test]
fn a_claim_that_changed_hands_is_not_given_up_by_its_former_owner() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.1/32"])]);
    lab.join(label("a"));
    lab.run();
    lab.leave("a");
    let plan = lab.plan();
    lab.delete_claim("10.0.0.1");
    lab.put_claim("10.0.0.1", "b");
    let (next, lost) = apply(&lab.snapshot, &plan);
    assert_eq!(lost.len(), 1);
    assert_eq!(next.claims[&key("10.0.0.1")].ok().unwrap().node, id("b"));
}

#[test]
fn three_allocators_that_race_give_a_hundred_addresses_once_each() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/26", "10.0.1.0/27", "10.0.2.0/29", "10.0.3.0/31"])]);
    for n in 0..100 {
        lab.join(label(&format!("n{n}")));
        // Each has seen another part of the fleet when it plans, and all write.
        if n % 7 == 0 {
            let plans = [lab.plan(), lab.plan(), lab.plan()];
            for plan in plans {
                late(&mut lab, &plan);
            }
        }
    }
    lab.run();
    assert!((0..100).all(|n| lab.reason(&format!("n{n}")).is_none()));
    assert_eq!(check(&lab.snapshot), []);
}

#[test]
fn an_answer_to_a_label_that_changed_meanwhile_is_not_given() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/24"])]);
    lab.join(label("a"));
    let plan = lab.plan();
    lab.relabel(Label { description: "newer".into(), ..label_wanting("a", "10.0.0.77") });
    assert_eq!(late(&mut lab, &plan), 0);
    lab.run();
    assert_eq!(lab.addresses("a"), "10.0.0.77");
}
