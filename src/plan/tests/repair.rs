//! Claims and assignments that somebody else touched.

use crate::plan::change::Action;
use crate::plan::check::check;
use crate::plan::testing::lab::Lab;
use crate::plan::testing::make::*;

fn lab() -> Lab {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/29"])]);
    lab.join(label_wanting("a", "10.0.0.1"));
    lab.run();
    lab.acknowledge("a");
    lab
}

#[test]
fn a_claim_that_does_not_parse_is_never_given_and_makes_no_hot_loop() {
    let mut lab = lab();
    for address in ["10.0.0.2", "10.0.0.3", "10.0.0.4"] {
        lab.spoil_claim(address);
    }
    lab.spoil_claim("10.0.0.5/30000");
    lab.join(label("b"));
    lab.join(label("c"));
    lab.run();
    assert_eq!(lab.addresses("b"), "10.0.0.6");
    assert!(lab.reason("c").is_some());
    assert_eq!(lab.findings("claim-unreadable").len(), 4);
    assert_eq!(lab.run(), []);
}

#[test]
fn a_claim_that_no_assignment_accounts_for_cools() {
    let mut lab = lab();
    lab.put_claim("10.0.0.4", "a");
    lab.put_claim("10.0.0.4/30000", "a");
    lab.put_claim("10.0.0.5", "nobody");
    lab.put_claim("10.0.0.6/30000", "nobody");
    let actions = lab.run();
    assert_eq!(actions, [(Action::Repair, id("a")), (Action::Repair, id("nobody"))]);
    assert_eq!(lab.claim("10.0.0.4"), Some("cooling a".into()));
    assert_eq!(lab.claim("10.0.0.4/30000"), None);
    assert_eq!(lab.claim("10.0.0.5"), Some("cooling nobody".into()));
    assert_eq!(lab.claim("10.0.0.6/30000"), Some("cooling nobody".into()));
    assert_eq!(check(&lab.snapshot), []);
}

#[test]
fn a_missing_claim_is_put_again() {
    for missing in [vec!["10.0.0.1"], vec!["10.0.0.1/PORT"], vec!["10.0.0.1", "10.0.0.1/PORT"]] {
        let mut lab = lab();
        let port = *lab.assignment("a").bound().unwrap().ports.values().next().unwrap();
        for claim in missing {
            lab.delete_claim(&claim.replace("PORT", &port.to_string()));
        }
        // Nobody gets it meanwhile, in the same pass either.
        for n in 0..6 {
            lab.join(label(&format!("n{n}")));
        }
        let plan = lab.step();
        assert_eq!(plan.changes[0].action, Action::Repair);
        assert_eq!(check(&lab.snapshot), []);
        assert_eq!(lab.claim("10.0.0.1"), Some("bound a".into()));
    }
}

#[test]
fn a_repair_that_comes_late_takes_nothing_from_anybody() {
    let mut lab = lab();
    lab.delete_claim("10.0.0.1");
    let plan = lab.plan();
    lab.put_claim("10.0.0.1", "b");
    let (_, lost) = crate::plan::testing::apply::apply(&lab.snapshot, &plan);
    assert_eq!(lost.len(), 1);
}

#[test]
fn a_double_grant_is_a_finding_and_nothing_is_done_to_it() {
    let mut lab = lab();
    lab.delete_claim("10.0.0.1");
    lab.put_claim("10.0.0.1", "b");
    let stolen = lab.record("a").assignment.clone();
    lab.join(label("b"));
    lab.edit("b", |record, _| {
        record.assignment = stolen;
        if let Some(Ok(assignment)) = record.assignment.as_mut().map(|stored| &mut stored.value) {
            assignment.node = id("b");
            assignment.instance = "instance-b".parse().unwrap();
        }
    });
    let plan = lab.plan();
    assert!(plan.findings.iter().any(|finding| finding.code == "double-grant"));
    assert!(plan.changes.iter().all(|change| change.action != Action::Repair || change.writes.is_empty()), "{plan:#?}");
    // Its release leaves the other's claim alone.
    lab.leave("a");
    lab.run();
    assert_eq!(lab.claim("10.0.0.1"), Some("bound b".into()));
}

#[test]
fn an_unreadable_assignment_is_left_alone_and_so_are_its_claims() {
    let mut lab = lab();
    lab.edit("a", |record, _| {
        if let Some(assignment) = &mut record.assignment {
            assignment.value = Err(crate::plan::snapshot::Unreadable::Newer(2));
        }
    });
    assert_eq!(lab.run(), []);
    assert_eq!(lab.findings("assignment-unreadable").len(), 1);
    lab.die("a");
    assert_eq!(lab.run(), []);
    assert_eq!(lab.claim("10.0.0.1"), Some("bound a".into()));
}

#[test]
fn an_assignment_or_a_label_that_says_it_is_anothers_is_not_gone_by() {
    let mut lab = lab();
    let stolen = lab.record("a").clone();
    lab.join(label("b"));
    lab.edit("b", |record, _| {
        record.assignment = stolen.assignment;
        record.label = stolen.label;
    });
    lab.leave("b");
    assert_eq!(lab.run(), []);
    assert_eq!(lab.claim("10.0.0.1"), Some("bound a".into()));
    assert_eq!((lab.findings("label-unreadable").len(), lab.findings("assignment-unreadable").len()), (1, 1));
}

#[test]
fn a_hold_of_a_live_node_is_deleted_so_that_its_next_absence_is_whole() {
    let mut lab = lab();
    lab.die("a");
    lab.run();
    let away = lab.record("a").clone();
    lab.join(label_wanting("a", "10.0.0.1"));
    lab.edit("a", |record, _| record.hold = away.hold);
    assert_eq!(lab.run(), [(Action::Repair, id("a"))]);
    assert!(lab.record("a").hold.is_none());
}

#[test]
fn an_assignment_deleted_by_hand_is_given_again_in_the_end() {
    let mut lab = lab();
    lab.edit("a", |record, _| record.assignment = None);
    lab.run();
    assert_eq!(lab.addresses("a"), "10.0.0.1", "it cools for this installation, which may have it back");
    assert_eq!(check(&lab.snapshot), []);
}

#[test]
fn any_number_of_orphans_is_put_right_in_changes_that_fit_a_request() {
    let mut lab = lab();
    for n in 1..=200 {
        lab.put_claim(&format!("10.9.0.{n}"), "printer");
        lab.put_claim(&format!("10.9.1.{n}"), "a");
    }
    for _ in 0..20 {
        let plan = lab.step();
        for change in &plan.changes {
            // A flat transaction holds 128 of each, and the leader's compare is one of them.
            assert!(change.compares.len() < 128 && change.writes.len() <= 128, "{} compares", change.compares.len());
        }
    }
    assert!(
        lab.snapshot.claims.values().all(|claim| claim.ok().unwrap().node != id("printer") || !claim.ok().unwrap().is_bound())
    );
    assert_eq!(lab.run(), []);
}

#[test]
fn a_key_that_is_no_port_keeps_its_address_from_being_claimed_and_makes_no_hot_loop() {
    let mut lab = lab();
    for n in 2..=5 {
        lab.snapshot.strays.insert(format!("claims/default/10.0.0.{n}/x"), key(&format!("10.0.0.{n}")));
    }
    lab.snapshot.strays.insert("claims/default/10.0.0.1/x".into(), key("10.0.0.1"));
    lab.join(label("b"));
    lab.join(label_wanting("c", "10.0.0.2"));
    lab.run();
    assert_eq!((lab.addresses("a"), lab.addresses("b")), ("10.0.0.1".into(), "10.0.0.6".into()));
    assert!(lab.reason("c").is_some());
    assert_eq!(lab.findings("claim-unreadable").len(), 5);
    // Nor does what is missing under it.
    lab.delete_claim("10.0.0.1");
    assert_eq!(lab.run(), []);
}
