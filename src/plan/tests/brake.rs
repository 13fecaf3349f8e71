//! Mass loss: nothing is taken away.

use crate::plan::brake::BrakeState;
use crate::plan::change::Action;
use crate::plan::index::Index;
use crate::plan::testing::lab::Lab;
use crate::plan::testing::make::*;

/// So many registered nodes `n0`, `n1`, …
fn fleet(count: usize) -> Lab {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/24"])]);
    for n in 0..count {
        lab.join(label(&format!("n{n}")));
    }
    lab.run();
    for n in 0..count {
        lab.acknowledge(&format!("n{n}"));
    }
    lab
}

fn released(lab: &Lab, count: usize) -> usize {
    (0..count).filter(|n| lab.has_no_answer(&format!("n{n}"))).count()
}

#[test]
fn who_waits_for_a_clock_is_not_looked_at_until_the_clock_or_the_operator_ends_it() {
    let mut lab = fleet(20);
    for n in 0..20 {
        lab.die(&format!("n{n}"));
    }
    let named = |lab: &Lab| {
        let index = Index::of(&lab.snapshot);
        (index.absent().len(), index.extended_before(lab.snapshot.brake_released).count())
    };
    assert_eq!(named(&lab), (20, 0));
    lab.run();
    assert_eq!(named(&lab), (0, 0), "all holds have begun");
    lab.clock_ends("n7");
    assert_eq!(named(&lab), (1, 0));
    lab.run();
    assert_eq!(named(&lab), (0, 0), "it is extended");
    lab.release_brake();
    assert_eq!(named(&lab), (0, 1));
    lab.run();
    assert!(lab.has_no_answer("n7"));
    assert_eq!(named(&lab), (0, 0), "nothing is left of what was extended");
}

#[test]
fn forty_per_cent_fall_silent_and_keep_what_they_have_those_that_left_go_at_once() {
    let mut lab = fleet(100);
    for n in 0..40 {
        if n < 10 { lab.leave(&format!("n{n}")) } else { lab.die(&format!("n{n}")) }
    }
    lab.run();
    assert_eq!(released(&lab, 100), 10);
    let plan = lab.plan();
    assert!(plan.brake.is_on());
    assert_eq!((plan.brake.bound, plan.brake.silent), (90, 30));
    for n in 10..40 {
        lab.clock_ends(&format!("n{n}"));
    }
    let actions = lab.run();
    assert_eq!(actions.len(), 30);
    assert!(actions.iter().all(|(action, _)| *action == Action::HoldExtend));
    assert_eq!(lab.record("n10").hold.as_deref().unwrap().ok().unwrap().seconds, 3600);
    // They return: all clears without a storm.
    for n in 10..40 {
        lab.join(label(&format!("n{n}")));
    }
    assert_eq!(lab.run(), []);
    assert!(!lab.plan().brake.is_on());
}

#[test]
fn the_extension_is_given_once_and_then_releases_are_metered_until_the_brake_ends_by_itself() {
    let mut lab = fleet(20);
    for n in 0..10 {
        lab.die(&format!("n{n}"));
    }
    lab.run();
    for _ in 0..2 {
        for n in 0..10 {
            lab.clock_ends(&format!("n{n}"));
        }
        if lab.record("n0").hold.as_deref().unwrap().ok().unwrap().extended {
            break;
        }
        lab.run();
    }
    let plan = lab.plan();
    assert_eq!((plan.changes.len(), plan.releases_deferred), (0, 10));
    assert_eq!(lab.run(), []);
    lab.pass.release_budget = 3;
    let plan = lab.step();
    assert_eq!((plan.changes.len(), plan.releases_deferred), (3, 7));
    lab.step();
    lab.step();
    // 11 bound, 1 silent: no mass loss any more.
    lab.pass.release_budget = 0;
    lab.run();
    assert_eq!(released(&lab, 20), 10);
}

#[test]
fn one_of_three_nodes_dies_and_no_brake_is_on() {
    let mut lab = fleet(3);
    lab.die("n0");
    lab.run();
    lab.clock_ends("n0");
    lab.run();
    assert!(lab.has_no_answer("n0"));
}

#[test]
fn a_rolling_stop_sets_no_brake() {
    let mut lab = fleet(20);
    for n in 0..8 {
        lab.stop(&format!("n{n}"));
    }
    lab.run();
    assert!(!lab.plan().brake.is_on());
    for n in 0..8 {
        lab.clock_ends(&format!("n{n}"));
    }
    lab.run();
    assert_eq!(released(&lab, 20), 8);
}

#[test]
fn stops_go_on_while_the_brake_is_on() {
    let mut lab = fleet(20);
    for n in 0..5 {
        lab.die(&format!("n{n}"));
    }
    lab.stop("n9");
    lab.run();
    lab.clock_ends("n9");
    lab.clock_ends("n0");
    lab.run();
    assert!(lab.has_no_answer("n9"));
    assert!(!lab.has_no_answer("n0"));
}

#[test]
fn the_operators_release_counts_for_the_holds_that_were_there() {
    let mut lab = fleet(20);
    for n in 0..6 {
        lab.die(&format!("n{n}"));
    }
    lab.run();
    lab.clock_ends("n0");
    lab.run();
    assert!(lab.record("n0").hold.as_deref().unwrap().ok().unwrap().extended);
    lab.release_brake();
    // An extension ends with it; a first clock that runs is waited for.
    assert_eq!(lab.run(), [(Action::Release, id("n0"))]);
    lab.clock_ends("n1");
    assert_eq!(lab.run(), [(Action::Release, id("n1"))]);
    // A hold that began later gets its extension.
    lab.die("n10");
    lab.run();
    lab.clock_ends("n10");
    assert_eq!(lab.run(), [(Action::HoldExtend, id("n10"))]);
}

#[test]
fn what_the_brake_does_is_one_word() {
    let mut lab = fleet(20);
    let state = |lab: &Lab| (lab.plan().brake_state, lab.plan().brake_state.as_str());
    assert_eq!(state(&lab), (BrakeState::Off, "off"));
    // A release before the loss is no release of it.
    lab.release_brake();
    assert_eq!(state(&lab), (BrakeState::Off, "off"));
    for n in 0..8 {
        lab.die(&format!("n{n}"));
    }
    assert_eq!(state(&lab), (BrakeState::On, "on"));
    lab.run();
    assert_eq!(state(&lab), (BrakeState::On, "on"));
    lab.release_brake();
    assert_eq!(state(&lab), (BrakeState::Released, "released"));
    lab.die("n8");
    assert_eq!(state(&lab), (BrakeState::On, "on"), "one more, of which the operator did not speak");
    for n in 0..9 {
        lab.join(label(&format!("n{n}")));
    }
    assert_eq!(state(&lab), (BrakeState::Off, "off"));
}
